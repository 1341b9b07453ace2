"""The processes of an engine: started, kept alive, ended with the daemon, and what they cost."""

from __future__ import annotations

import asyncio
import logging
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import procfs
from ..daemon import process

_LOOK = 0.5  # seconds between two looks at all of them
_INFANT = 10.0  # seconds: one that ends sooner will not live the next time either
_PATIENCE = 3.0  # seconds from TERM to KILL, well within those that the daemon itself is given
log = logging.getLogger(__name__)


class EngineDied(Exception):
    """A process that ended as soon as it was started; the message has its last words."""


@dataclass(slots=True)
class _Child:
    argv: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes]
    started: float
    cpu: float = 0.0  # seconds, as seen last


@dataclass(slots=True)
class Children:
    """Processes by name, which is also their mark and their log's. `revive` is awaited before one is started again."""

    state: Path
    revive: Callable[[str], Awaitable[None]]
    restarts: int = 0
    _living: dict[str, _Child] = field(default_factory=dict)
    _spent: float = 0.0  # CPU seconds of those that have ended

    def __contains__(self, name: str) -> bool:
        return name in self._living

    def __len__(self) -> int:
        return len(self._living)

    def start(self, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start one. Call it from the thread that lives as long as the daemon: they end together."""
        file = self.state / "log" / f"{name}.log"
        running = process.spawn(argv, state=self.state, name=name, log=file, environment=environment, mortal=True)
        self._living[name] = _Child(argv, environment, file, running, time.monotonic())

    async def stop(self, *names: str) -> None:
        """TERM, then KILL, those of these names that live."""
        going = [self._living.pop(name) for name in names if name in self._living]
        for child in going:
            self._spent += self._look(child)[0]
            child.process.terminate()
        end = time.monotonic() + _PATIENCE
        while any(child.process.poll() is None for child in going):
            if time.monotonic() > end:
                for child in going:
                    child.process.kill()
            await asyncio.sleep(0.02)

    async def stop_all(self) -> None:
        await self.stop(*self._living)

    async def watch(self) -> None:
        """Start again what ends, for ever. Raises EngineDied for one that ended at once."""
        while True:
            await asyncio.sleep(_LOOK)
            for name, child in list(self._living.items()):
                code = child.process.poll()
                if code is not None and self._living.get(name) is child:
                    await self._again(name, child, code)

    async def _again(self, name: str, child: _Child, code: int) -> None:
        lived = time.monotonic() - child.started
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        words = f"{name} {how} after {lived:.1f} s; the last lines of {child.log}:\n{process.tail(child.log)}"
        if lived < _INFANT:
            raise EngineDied(words)
        log.warning("%s\nit is started again", words)
        self.restarts += 1
        self._spent += child.cpu
        await self.revive(name)
        if self._living.get(name) is child:  # else it was told to go meanwhile
            self.start(name, child.argv, child.environment)

    def usage(self) -> tuple[float, int]:
        """CPU seconds of all that ever were, and resident bytes: each one's own pages, and once what they share."""
        cpu, own, shared = self._spent, 0, 0
        for child in self._living.values():
            spent, resident, common = self._look(child)
            cpu, own, shared = cpu + spent, own + resident - common, max(shared, common)
        return cpu, own + shared

    @staticmethod
    def _look(child: _Child) -> tuple[float, int, int]:
        """CPU seconds, resident bytes, and those of them that files back."""
        try:
            cpu, memory = procfs.stat(child.process.pid).cpu, procfs.memory(child.process.pid)
        except OSError:
            return child.cpu, 0, 0
        child.cpu = cpu
        return cpu, *memory
