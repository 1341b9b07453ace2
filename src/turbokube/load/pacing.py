"""When things are meant to happen: a gate that can be shut, rates, and loops that are open or closed."""

from __future__ import annotations

import array
import asyncio
import bisect
import itertools
import math
import random
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from turbokube.profile.phases import Shape

LEAD_S = 5.0  # open loop: a namespace is created so long before its first object is due
_BREATH = 64  # items begun before others get the loop
_TICK_S = 0.001  # so exact are the loop's clocks; to wait for less is to spin


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


class Pace(Protocol):
    """At which moments items are meant: fixed before the first is sent, whatever the answers will be."""

    seconds: float
    """How long it was asked for; 0: without an end. What comes after keeps the last rate."""

    def offset(self, number: int) -> float:
        """Seconds from the start until item `number` is due; infinite when it never is."""
        ...


class Curve:
    """A rate over time. `pieces`: (rate at the beginning, at the end, seconds); the last rate goes on for ever."""

    def __init__(self, pieces: Sequence[tuple[float, float, float]], seconds: float = 0.0) -> None:
        self.seconds = seconds
        self._pieces = [*pieces, (pieces[-1][1], pieces[-1][1], math.inf)]
        lengths, areas = [piece[2] for piece in pieces], [(a + b) / 2 * s for a, b, s in pieces]
        self._times = [0.0, *itertools.accumulate(lengths)]
        self._counts = [0.0, *itertools.accumulate(areas)]  # items due before each piece

    def offset(self, number: float) -> float:
        """See Pace. `number` may lie between two items."""
        index = bisect.bisect_right(self._counts, number) - 1
        begin, end, seconds = self._pieces[index]
        more = number - self._counts[index]
        slope = 0.0 if begin == end else (end - begin) / seconds
        # rate(t) = begin + slope * t, integrated and solved for t so that no small difference of large terms remains
        divisor = begin + math.sqrt(max(0.0, begin * begin + 2 * slope * more))
        if not divisor:
            return self._times[index] if begin != end else math.inf
        return self._times[index] + 2 * more / divisor


class Poisson:
    """Arrivals that know nothing of each other: the time between two is exponential, drawn from the seed."""

    def __init__(self, rate: float, seed: int) -> None:
        self.seconds = 0.0
        self._rate = rate
        self._random = random.Random(seed)
        self._arrivals = array.array("d")

    def offset(self, number: int) -> float:
        """See Pace."""
        arrivals = self._arrivals
        while len(arrivals) <= number:
            before = arrivals[-1] if arrivals else 0.0
            arrivals.append(before + self._random.expovariate(self._rate))
        return arrivals[number]


def constant(rate: float) -> Curve:
    """So many a second, the first at once."""
    return Curve([(rate, rate, 0.0)])


def pace(rate: float | Shape, seed: int) -> Pace:
    """What a phase's rate means."""
    if not isinstance(rate, Shape):
        return constant(rate)
    if rate.poisson is not None:
        return Poisson(rate.poisson, seed)
    if rate.ramp is not None:
        return Curve([rate.ramp], rate.ramp[2])
    return Curve([(step, step, seconds) for step, seconds in rate.steps], sum(seconds for _, seconds in rate.steps))


class Schedule:
    """Intended times by a pace; moved only by the time that the gate is shut. Item `first` is due at `start`."""

    def __init__(self, pace: Pace, start: float, gate: Gate, first: int = 0) -> None:
        self._pace = pace
        self._start = start - gate.away - (pace.offset(first) if first else 0.0)
        self._gate = gate

    def due(self, number: int) -> float:
        """Wall-clock time at which item `number` is meant to be sent."""
        return self._start + self._gate.away + self._pace.offset(number)

    async def wait(self, number: int, lead: float = 0.0) -> float:
        """Wait until `lead` seconds before it is due and the gate is open; returns the intended time."""
        while True:
            await self._gate.passed()
            intended = self.due(number) - lead
            if (left := intended - time.time()) <= 0:
                return intended
            await asyncio.sleep(min(max(left, _TICK_S), 1.0))


Item = Callable[[int, float], Coroutine[Any, Any, None]]  # number, intended time


async def open_loop(numbers: Iterable[int], one: Item, schedule: Schedule) -> None:
    """Begin each item when it is due, whether those before it have ended or not; ends when all have."""
    async with asyncio.TaskGroup() as group:
        for begun, number in enumerate(numbers, 1):
            intended = await schedule.wait(number)
            group.create_task(one(number, intended))
            if begun % _BREATH == 0:
                await asyncio.sleep(0)


async def closed_loop(numbers: Iterable[int], one: Item, concurrency: int, gate: Gate) -> None:
    """Have `concurrency` items in work at once; each is meant for when it is begun."""
    waiting = iter(numbers)

    async def worker() -> None:
        for number in waiting:
            await gate.passed()
            await one(number, time.time())

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
