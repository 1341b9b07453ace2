"""The shell around every kind of phase: how it ends, and what counts as its time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from turbokube.bundle.ledger import Ledger
from turbokube.bundle.writer import Writer
from turbokube.load.pacing import Gate
from turbokube.load.phase import LateError, LoadError
from turbokube.load.work import Context, Outcome, carry_out, connections
from turbokube.profile.phases import Create, ObjectSet, Pause


class Witness:
    def nudge(self) -> None: ...


class Slow:
    """Works for so long, then does as it is told."""

    def __init__(self, seconds: float, error: Exception | None = None) -> None:
        self._seconds, self._error = seconds, error

    async def run(self) -> None:
        await asyncio.sleep(self._seconds)
        if self._error:
            raise self._error

    def missing(self) -> str:
        return "the rest is missing"

    def words(self) -> str:
        return ""


def context(folder: Path, *, deadline: float = 60.0, started: float = 0.0, away: float = 0.0, gate: Gate) -> Context:
    writer = Writer(folder)
    nothing: Any = None
    return Context(
        phase=Pause(name="p", namespaces=1, duration=1, deadline=deadline),
        transport=nothing,
        writer=writer,
        ledger=Ledger(writer),
        gate=gate,
        witness=Witness(),  # type: ignore[arg-type]
        phases=lambda name: Pause(name=name, namespaces=1, duration=1),
        connect=lambda number: nothing,
        started=started or time.time(),
        away_before=away,
    )


@pytest.mark.parametrize(
    ("work", "deadline", "outcome"),
    [
        (Slow(0), 60.0, Outcome("done")),
        (Slow(60), 0.2, Outcome("deadline", "after 0.2 s: the rest is missing")),
        (Slow(0, LoadError("it was refused")), 60.0, Outcome("stopped", "it was refused")),
        (Slow(0, LateError("two were late")), 60.0, Outcome("deadline", "two were late")),
    ],
)
def test_how_a_phase_ends(tmp_path: Path, work: Slow, deadline: float, outcome: Outcome) -> None:
    async def scenario() -> None:
        assert await carry_out(work, context(tmp_path, deadline=deadline, gate=Gate())) == outcome

    asyncio.run(scenario())


def test_what_was_not_foreseen_is_not_hidden(tmp_path: Path) -> None:
    async def scenario() -> None:
        await carry_out(Slow(0, KeyError("x")), context(tmp_path, gate=Gate()))

    with pytest.raises(KeyError):
        asyncio.run(scenario())


def test_time_without_an_agent_or_with_the_gate_shut_does_not_count(tmp_path: Path) -> None:
    async def scenario() -> None:
        gate = Gate()
        gate.shut()
        await asyncio.sleep(0.1)
        gate.reopen()  # before this phase was taken up: it is not in its away_before either
        started = time.time() - 10.0
        made = context(tmp_path, started=started, away=7.0, gate=gate)
        assert made.elapsed() == pytest.approx(time.time() - started - 7.0, abs=0.01)
        before = made.elapsed()
        gate.shut()
        await asyncio.sleep(0.3)
        assert made.elapsed() - before < 0.1

    asyncio.run(scenario())


def test_only_a_create_phase_has_created(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="phase p is of q, which is no create phase of this run"):
        context(tmp_path, gate=Gate()).created("q")


def test_connections_follow_what_is_sent_at_once() -> None:
    def phase(concurrency: int, count: int) -> Create:
        return Create(name="c", namespaces=1, concurrency=concurrency, objects=(ObjectSet(count=count),))

    assert [connections(phase(*each)) for each in ((1, 1), (4, 32), (64, 32))] == [8, 128, 256]
