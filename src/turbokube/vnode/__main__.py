"""An engine process of a fleet: `python -m turbokube.vnode --state DIR --name fleet`. Module vnode_fleet steers it.

It imports nothing that it does not need at run time: every megabyte here is the engine's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop

from .. import disk
from ..api.build import Build
from ..daemon import control
from . import files, metrics
from .engine import Engine, await_build, settle
from .spec import Start

if TYPE_CHECKING:
    from ..engines.foreman import Foreman


def main() -> None:
    """Run until told to stop; SIGTERM leaves the Nodes where they are, for the next engine to take over."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    state, name = (sys.argv[sys.argv.index(option) + 1] for option in ("--state", "--name"))
    folder = Path(state, name)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ours for as long as we live
    except BlockingIOError:
        sys.exit(f"another {name} of the run in {state} is alive")
    file = folder / "start.json"
    start = msgspec.json.decode(file.read_bytes(), type=Start)
    if start.keep:
        (folder / "state.json").unlink(missing_ok=True)  # of the one before
    else:
        file.unlink()
    try:
        uvloop.run(_daemon(folder, start))
    except BaseExceptionGroup as group:  # the first cause in one line, where the module looks for it
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        logging.error("%s: %s", type(error).__name__, error)
        sys.exit(1)


async def _daemon(folder: Path, start: Start) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    build = await await_build(start.credential, start.servers)
    engine = _engine(folder, start, build)
    settle()

    async def handle(request: dict[str, Any]) -> dict[str, Any]:
        if request["op"] == "scale":
            engine.scale(request["count"])
            start.spec = msgspec.structs.replace(start.spec, count=request["count"])
            disk.replace(folder / "spec.json", msgspec.json.encode(start.spec))
            if start.keep:
                disk.replace(folder / "start.json", msgspec.json.encode(start))
        elif request["op"] == "stop":
            stop.set()
        elif request["op"] != "status":
            raise control.ControlError(f"op is {request['op']!r}; allowed is status, scale or stop")
        return engine.status()

    wanted = start.spec.metrics_port + start.shard if start.spec.metrics_port else _last_port(folder)
    server = await metrics.serve(engine.metrics, wanted, start.spec.metrics_address)
    address, port = server.sockets[0].getsockname()[:2]
    disk.replace(folder / "port", str(port).encode())
    disk.replace(folder / "spec.json", msgspec.json.encode(start.spec))
    async with control.serve(control.socket_path(folder.parent, folder.name), handle):
        facts = {"pid": os.getpid(), "metrics_url": f"http://{address}:{port}/metrics"}
        disk.replace(folder / "state.json", msgspec.json.encode(facts))
        run = asyncio.create_task(engine.run())
        stopped = asyncio.create_task(stop.wait())
        await asyncio.wait({run, stopped}, return_when=asyncio.FIRST_COMPLETED)
        run.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await run
        finally:
            stopped.cancel()
            await engine.close()
            server.close()
            (folder / "state.json").unlink(missing_ok=True)


def _engine(folder: Path, start: Start, build: Build) -> Engine | Foreman:
    if start.spec.engine == "builtin":
        files.allow(start.spec)
        spec, identities = start.spec.part(start.shard), folder.parent / "fleet" / "pki"
        return Engine(
            spec,
            start.credential,
            start.servers,
            build,
            identities=identities,
            serving=start.serving,
            folder=folder,
        )
    from ..engines.foreman import Foreman  # here: other engines' fleets alone need it

    return Foreman(start.spec, start.credential, start.servers, build.git_version, folder.parent)


def _last_port(folder: Path) -> int:
    """Where the process before this one told of itself: whoever scrapes it need not be told anew. 0: there was none."""
    try:
        return int((folder / "port").read_text())
    except (OSError, ValueError):
        return 0


if __name__ == "__main__":
    main()
