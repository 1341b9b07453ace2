"""One phase at work: what a kind of load is given, what it must answer, and the shell that sees to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from turbokube.api.http2 import Http2
from turbokube.api.transport import Transport
from turbokube.bundle.ledger import Ledger
from turbokube.bundle.writer import Writer
from turbokube.profile.phases import Create, Phase, Replay

from .pacing import Gate
from .phase import LateError, LoadError
from .send import Requests, Sender


class Witness(Protocol):
    """What the load may ask the observer and the scraper: it watches no pods itself."""

    async def pods_run(self, namespace: str, owner: str, replicas: int) -> float:
        """When at least so many pods of an owner were seen running, awaited."""
        ...

    async def pods_settle(self, namespace: str, owner: str, replicas: int) -> float:
        """When exactly so many pods of an owner were seen running and no other of it was left, awaited."""
        ...

    async def pods_ran(self, namespace: str, owner: str, pods: int) -> float:
        """When so many pods of an owner had run, whether they still do or not, awaited."""
        ...

    def pods(self, namespaces: list[str]) -> tuple[int, int]:
        """How many pods are there in these namespaces, and how many of them run."""
        ...

    def nodes(self) -> tuple[int, int]:
        """How many Nodes the run has, and how many of them are Ready."""
        ...

    def nudge(self) -> None:
        """No server answered: look at the API servers now."""
        ...

    async def scrape(self, components: tuple[str, ...]) -> None:
        """Scrape these components now, all when none is named. Raises LoadError if there is none of a name."""
        ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a phase ended: done, deadline or stopped, and why."""

    state: str
    note: str = ""


@dataclass(kw_only=True)
class Context:
    """What a phase works with. `phases` gives an earlier phase of the run by its name.

    `connect` makes an HTTP/2 connection with the load's identity; each number means another server in turn.
    """

    phase: Phase
    transport: Transport
    writer: Writer
    ledger: Ledger
    gate: Gate
    witness: Witness
    phases: Callable[[str], Phase]
    connect: Callable[[int], Http2]
    started: float  # wall clock
    away_before: float = 0.0  # seconds since then in which no agent lived, or nobody attended
    requests: Requests = field(init=False)
    sender: Sender = field(init=False)

    def __post_init__(self) -> None:
        self.requests = Requests(self.writer, self.phase.name)
        self.sender = Sender(self.transport, self.ledger, self.requests, self.gate, self.witness.nudge)
        self._shut_before = self.gate.away

    def elapsed(self) -> float:
        """Seconds that the phase has been at work: not those without an agent or with the gate shut."""
        return time.time() - self.started - self.away_before - (self.gate.away - self._shut_before)

    def created(self, of: str) -> Create:
        """The create phase of that name; raises LoadError if it is not one."""
        phase = self.phases(of)
        if not isinstance(phase, Create):
            raise LoadError(f"phase {self.phase.name} is of {of}, which is no create phase of this run")
        return phase


class Work(Protocol):
    """A kind of load. It is made anew when a phase is resumed: what was done before is in the ledger."""

    def __init__(self, context: Context) -> None: ...

    async def run(self) -> None:
        """Work until all is done; raises LoadError to stop the phase. May be cancelled at any await."""
        ...

    def missing(self) -> str:
        """What is not done yet, in words; asked at the deadline."""
        ...

    def words(self) -> str:
        """How far it is, for the line that a person reads; empty: pods are what counts."""
        ...


async def carry_out(work: Work, context: Context) -> Outcome:
    """Have the work done, or end it at the phase's deadline."""
    phase = context.phase
    task = asyncio.create_task(work.run())
    try:
        while not task.done():
            await asyncio.wait((task,), timeout=0.5)
            context.requests.write()
            if context.elapsed() > phase.deadline and not task.done():
                return Outcome("deadline", f"after {phase.deadline:g} s: {work.missing()}")
        task.result()
    except LoadError as error:
        return Outcome("deadline" if isinstance(error, LateError) else "stopped", str(error))
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        context.requests.write()
    return Outcome("done")


def connections(phase: Phase) -> int:
    """How many connections keep the generator's own pool from being what is waited for."""
    at_once = phase.concurrency
    if isinstance(phase, Create):
        at_once *= sum(one.count for one in phase.objects)
    if phase.rate or isinstance(phase, Replay):
        at_once = 256  # how many answers are awaited at once is the control plane's doing
    return min(256, max(8, at_once))


def first_words(error: BaseException | None) -> str:
    """The first of what went wrong at once, in words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
