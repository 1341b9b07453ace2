"""When things are meant to happen: a gate that can be shut, and the open loop's fixed schedule."""

from __future__ import annotations

import asyncio
import time

LEAD_S = 5.0  # open loop: a namespace is created so long before its first deployment is due


class Gate:
    """Shut while nobody attends to the run: nothing new is sent. Counts how long that was."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()
        self._shut_at = 0.0
        self._away = 0.0

    @property
    def is_open(self) -> bool:
        return self._open.is_set()

    @property
    def away(self) -> float:
        """Seconds that the gate has been shut so far."""
        return self._away + (0.0 if self.is_open else time.time() - self._shut_at)

    def shut(self) -> None:
        """Hold back what passes from now on."""
        if self.is_open:
            self._shut_at = time.time()
            self._open.clear()

    def reopen(self) -> None:
        """Let everything go on."""
        if not self.is_open:
            self._away = self.away
            self._open.set()

    async def passed(self) -> None:
        """Wait until the gate is open."""
        await self._open.wait()


class Schedule:
    """Intended times at a fixed rate, whatever the answers; moved only by the time that the gate is shut."""

    def __init__(self, rate: float, start: float, gate: Gate) -> None:
        self._rate = rate
        self._start = start - gate.away
        self._gate = gate

    def due(self, number: int) -> float:
        """Wall-clock time at which item `number` is meant to be sent."""
        return self._start + self._gate.away + number / self._rate

    async def wait(self, number: int, lead: float = 0.0) -> float:
        """Wait until `lead` seconds before it is due and the gate is open; returns the intended time."""
        while True:
            await self._gate.passed()
            intended = self.due(number) - lead
            if (left := intended - time.time()) <= 0:
                return intended
            await asyncio.sleep(min(left, 1.0))
