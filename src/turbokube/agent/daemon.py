"""The agent's process: its lock, its socket, its manners when nobody is there."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from turbokube.api.credentials import CredentialError
from turbokube.api.transport import ApiError, Unreachable
from turbokube.bundle.writer import BundleError
from turbokube.daemon import control
from turbokube.daemon.control import ControlError
from turbokube.load.phase import LoadError, Phase, checked

from .control import LEAVE_S, PAUSE_S, Controller
from .progress import line
from .session import Session
from .spec import RunSpec

log = logging.getLogger("turbokube.agent")
_REFUSALS = (BundleError, LoadError, CredentialError, ApiError, Unreachable, msgspec.ValidationError)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the bundle while the block runs; raises BundleError if another agent does."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundleError(f"another agent holds the bundle {folder}") from None
        yield
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


class Agent:
    """One run's daemon. `serve` returns when the run is finished, left alone for too long, or told to stop."""

    def __init__(self, state: Path, bundle: Path) -> None:
        self._state = state
        self._bundle = bundle
        self._controller = Controller(bundle.name)
        self._session: Session | None = None
        self._over = asyncio.Event()
        self._opening = asyncio.Lock()

    async def serve(self) -> None:
        """Answer on the socket until the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._over.set)
        with held(self._bundle):
            async with control.serve(control.socket_path(self._state, "agent"), self._handle):
                log.info("agent of %s, pid %d", self._bundle, os.getpid())
                attending = asyncio.create_task(self._attend())
                await self._over.wait()
                attending.cancel()
                if self._session is not None:
                    await self._session.close()
        log.info("agent ends")

    async def _handle(self, request: dict[str, Any]) -> dict[str, Any]:
        command = request.pop("command", "")
        handlers: dict[str, Callable[..., Awaitable[dict[str, Any]]]] = {
            "status": self._status,
            "open": self._open,
            "submit": self._submit,
            "follow": self._follow,
            "finish": self._finish,
            "stop": self._stop,
        }
        if command not in handlers:
            raise ControlError(f"the agent knows no command {command!r}")
        controller = str(request.pop("controller", ""))
        if command not in ("status", "stop"):
            new = self._controller.attend(controller)
            if self._session is not None:
                if new and command == "open":
                    self._session.arm(request["run"]["profile"])
                self._session.proceed()
        try:
            return await handlers[command](**request)
        except _REFUSALS as error:
            raise ControlError(str(error)) from None

    async def _status(self) -> dict[str, Any]:
        working = self._session is not None and self._session.working
        return {"pid": os.getpid(), "bundle": str(self._bundle), "open": self._session is not None, "working": working}

    async def _open(self, run: dict[str, Any]) -> dict[str, Any]:
        async with self._opening:
            if self._session is None:
                try:
                    session = Session(self._bundle, msgspec.convert(run, RunSpec), self._state)
                    await session.start()
                except BaseException:
                    await self._stop()  # an agent without a run is of no use
                    raise
                self._session = session
        return await self._status()

    async def _submit(self, phases: list[dict[str, Any]]) -> dict[str, Any]:
        asked = [checked(phase) for phase in msgspec.convert(phases, list[Phase])]
        begun = self._opened().submit(asked)
        return {"begun": begun, **await self._follow([phase.name for phase in asked], 0.0)}

    async def _follow(self, names: list[str], wait: float) -> dict[str, Any]:
        session = self._opened()
        await session.wait(wait)
        progress = [session.progress(name) for name in names]
        return {"progress": msgspec.to_builtins(progress), "lines": [line(one) for one in progress]}

    async def _finish(self) -> dict[str, Any]:
        if self._session is None:
            raise ControlError("the agent has no run open")
        done = await self._session.finish()
        self._session = None
        asyncio.get_running_loop().call_later(0.2, self._over.set)  # after the answer is out
        return done

    async def _stop(self) -> dict[str, Any]:
        asyncio.get_running_loop().call_later(0.2, self._over.set)
        return {}

    def _opened(self) -> Session:
        if self._session is None:
            raise ControlError("the agent has no run open")
        if self._session.failure:
            raise ControlError(self._session.failure)
        return self._session

    async def _attend(self) -> None:
        """Pause what nobody follows, and leave what nobody comes back to."""
        while True:
            await asyncio.sleep(1.0)
            if self._controller.silence > LEAVE_S:
                log.info("nobody came back")
                self._over.set()
            elif self._controller.silence > PAUSE_S and self._session is not None:
                self._session.pause()
