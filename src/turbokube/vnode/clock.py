"""Times as Kubernetes writes them, and the wheel that makes vnodes come due evenly."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T")

_GOLDEN = (
    0.6180339887498949  # multiples of it, modulo 1, are spread evenly however many there are (three-distance theorem)
)
# Of an interval, at most, on top of it: wait.JitterUntil of the kubelet's lease controller, of its look at the node's
# status, and of KWOK's leases
JITTER = 0.04
_TICK = 0.05  # seconds: the least distance of two moments on a wheel or an agenda; due times are exact to this


@functools.lru_cache(maxsize=4)
def _whole_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def rfc3339(moment: float) -> str:
    """A metav1.Time: whole seconds, UTC."""
    return _whole_second(int(moment)) + "Z"


def rfc3339_micro(moment: float) -> str:
    """A metav1.MicroTime, as leases have it."""
    return f"{_whole_second(int(moment))}.{int(moment % 1 * 1e6):06d}Z"


def unix_time(text: str | None) -> float:
    """The inverse of both, in UNIX seconds; 0 for no time at all."""
    return datetime.fromisoformat(text).timestamp() if text else 0.0


class Wheel(Generic[T]):
    """A clock face that turns once per `interval` seconds; each member comes due once a turn at a moment of its own.

    The moment depends on the member's number alone, so that nobody's changes when others come or go.
    """

    def __init__(self, interval: float, due: Callable[[T, float], None]) -> None:
        count = max(1, min(1000, round(interval / _TICK)))
        self.tick = interval / count
        self.lag = 0.0  # the most that a tick was late since `worst_lag` asked
        self._due = due
        self._slots: list[list[T]] = [[] for _ in range(count)]

    def add(self, number: int, member: T) -> None:
        self._slot(number).append(member)

    def remove(self, number: int, member: T) -> None:
        slot = self._slot(number)
        if member in slot:
            slot.remove(member)

    def worst_lag(self) -> float:
        """The longest delay of a tick, in seconds, since this was asked last."""
        worst, self.lag = self.lag, 0.0
        return worst

    async def run(self) -> None:
        """Turn for ever. A loop that fell behind hands out what it missed, with the moments at which it was due."""
        # not the loop's own clock: uvloop's stands still while callbacks run, which is just what a lag is made of
        start, turn = time.monotonic(), 0
        while True:
            moment = start + turn * self.tick
            wait = moment - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            self.lag = max(self.lag, time.monotonic() - moment)
            for member in self._slots[turn % len(self._slots)]:
                self._due(member, moment)
            turn += 1

    def _slot(self, number: int) -> list[T]:
        return self._slots[int(number * _GOLDEN % 1.0 * len(self._slots))]


class Agenda:
    """Appointments by the ten thousand, each kept once: a list per tick, where a timer each would take 500 bytes."""

    def __init__(self) -> None:
        self.lag = 0.0  # the most that a tick was late since `worst_lag` asked
        self._ticks: dict[int, list[Callable[[], object]]] = {}
        self._next = int(time.monotonic() / _TICK)  # the first tick that has not been kept
        self._called: asyncio.Future[None] | None = None  # while there are no appointments

    def at(self, moment: float, job: Callable[[], object]) -> None:
        """Have `job` called at `moment` (time.monotonic), at the next tick when that is past."""
        self._ticks.setdefault(max(self._next, round(moment / _TICK)), []).append(job)
        if self._called is not None and not self._called.done():
            self._called.set_result(None)

    def after(self, seconds: float, job: Callable[[], object]) -> None:
        self.at(time.monotonic() + seconds, job)

    def worst_lag(self) -> float:
        """The longest delay of a tick, in seconds, since this was asked last."""
        worst, self.lag = self.lag, 0.0
        return worst

    async def run(self) -> None:
        """Keep appointments for ever. None may raise."""
        while True:
            late = time.monotonic() - self._next * _TICK
            if late < 0:
                await self._pause(-late)
                continue
            self.lag = max(self.lag, late)
            self._next += 1
            for job in self._ticks.pop(self._next - 1, ()):
                job()

    async def _pause(self, seconds: float) -> None:
        if self._ticks:
            await asyncio.sleep(seconds)
            return
        self._called = asyncio.get_running_loop().create_future()
        await self._called
        self._called = None
        self._next = min(int(time.monotonic() / _TICK), *self._ticks)  # before what called, nothing was missed
