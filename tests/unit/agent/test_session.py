"""Phases in the agent: side by side, one group after the other, stopped, and gone on with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from turbokube.agent import session as module
from turbokube.agent.guards import Trip
from turbokube.agent.progress import line
from turbokube.agent.session import Session
from turbokube.agent.spec import RunSpec
from turbokube.bundle.reader import Reader
from turbokube.load.phase import LoadError
from turbokube.load.work import Context
from turbokube.profile.phase_input import Defaults, parse
from turbokube.profile.phases import Phase


class Target:
    """As much of a target as a session that is not started needs."""

    name = "t"

    def credential(self, actor: str) -> Any:
        return None

    def addresses(self, credential: Any) -> list[str]:
        return ["https://127.0.0.1:1"]

    def fronts(self) -> list[Any]:
        return []

    components: tuple[Any, ...] = ()


class Transport:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    async def close(self) -> None: ...


class Work:
    """Ends when it is told to."""

    made: dict[str, Work]

    def __init__(self, context: Context) -> None:
        self.may_end = asyncio.Event()
        self.error: LoadError | None = None
        self.context = context
        self.made[context.phase.name] = self

    async def run(self) -> None:
        await self.may_end.wait()
        if self.error:
            raise self.error

    def missing(self) -> str:
        return "all of it"

    def words(self) -> str:
        return f"{self.context.phase.name} is at work"


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> dict[str, Work]:
    Work.made = {}
    monkeypatch.setattr(module, "Http1", Transport)
    monkeypatch.setattr(module, "KINDS", {"pause": Work, "read": Work})
    return Work.made


def phases(*items: dict[str, Any]) -> list[list[Phase]]:
    return [list(group) for group in parse(items, Defaults(run="r"))]


BOTH = {"together": [{"name": "a", "kind": "pause", "duration": 1}, {"name": "b", "kind": "pause", "duration": 1}]}
LATER = {"name": "later", "kind": "pause", "duration": 1}


def scenario(folder: Path, steps: Callable[[Session], Any]) -> None:
    async def run() -> None:
        spec = RunSpec(run="r", target=Target())  # type: ignore[arg-type]
        session = Session(folder, spec, folder)
        session.observer.synced.set()
        await steps(session)
        await session.close()

    asyncio.run(run())


def test_side_by_side_and_one_group_after_the_other(tmp_path: Path, works: dict[str, Work]) -> None:
    both, later = phases(BOTH, LATER)

    async def steps(session: Session) -> None:
        assert session.submit(both)
        await asyncio.sleep(0)
        with pytest.raises(LoadError, match="later cannot begin while another of run r is under way: a, b"):
            session.submit(later)
        works["a"].may_end.set()
        await session.wait(0.7)
        assert [session.progress(name).state for name in ("a", "b")] == ["done", "running"]
        assert [session.progress(name).words for name in ("a", "b")] == ["a is at work", "b is at work"]
        assert session.submit(both)  # b is under way still
        works["b"].may_end.set()
        await session.wait(5)
        assert not session.working
        assert not session.submit(both)
        assert session.submit(later)
        assert list(works) == ["a", "b", "later"]

    scenario(tmp_path, steps)


def test_one_that_is_stopped_stops_those_beside_it(tmp_path: Path, works: dict[str, Work]) -> None:
    (both,) = phases(BOTH)

    async def steps(session: Session) -> None:
        session.submit(both)
        await asyncio.sleep(0.05)
        works["a"].error = LoadError("it was refused")
        works["a"].may_end.set()
        await session.wait(5)
        notes = [(session.progress(name).state, session.progress(name).note) for name in ("a", "b")]
        assert notes == [("stopped", "it was refused"), ("stopped", "phase a beside it was stopped")]

    scenario(tmp_path, steps)


def test_what_stops_the_run_stops_all_phases_and_both_can_be_gone_on_with(
    tmp_path: Path, works: dict[str, Work]
) -> None:
    (both,) = phases(BOTH)

    async def first(session: Session) -> None:
        session.submit(both)
        await asyncio.sleep(0.05)
        session.stop_phase("the disk is full")
        await session.wait(5)
        assert [session.progress(name).note for name in ("a", "b")] == ["the disk is full"] * 2
        stopped = time.time()
        await asyncio.sleep(0.3)
        assert session.submit(both)
        # the same time, during which neither was at work, is not counted twice
        assert all(0.3 < works[name].context.away_before < time.time() - stopped + 0.2 for name in ("a", "b"))

    async def second(session: Session) -> None:
        assert session.submit(both)
        for work in works.values():
            work.may_end.set()
        await session.wait(5)

    scenario(tmp_path, first)  # the agent ends in the middle of both
    scenario(tmp_path, second)
    with Reader(tmp_path) as reader:
        assert [tuple(row) for row in reader.query("SELECT name, state FROM phases")] == [("a", "done"), ("b", "done")]


def test_a_phase_is_what_it_was_begun_as(tmp_path: Path, works: dict[str, Work]) -> None:
    ((read,), (other,), (longer,)) = (
        phases({"name": "x", "kind": "read", "duration": 1, **changes})[0]
        for changes in ({}, {"verb": "get", "rate": 5}, {"deadline": 9, "limits": {"seconds": 3}})
    )

    async def steps(session: Session) -> None:
        session.submit([read])
        with pytest.raises(LoadError, match=r"with other settings: rate 0.0 → 5.0, verb 'list' → 'get'"):
            session.submit([other])
        with pytest.raises(LoadError, match="kind read → pause"):
            session.submit(phases({**LATER, "name": "x"})[0])
        assert session.submit([longer])

    scenario(tmp_path, steps)


def test_a_guard_stops_what_is_under_way_until_another_controller_comes(tmp_path: Path, works: dict[str, Work]) -> None:
    both, later = phases(BOTH, LATER)
    trip = Trip("store", "the store is full", ours=False)

    async def steps(session: Session) -> None:
        session.submit(both)
        await asyncio.sleep(0)
        session.trip(trip)
        await session.wait(5)
        told = [session.progress(name) for name in ("a", "b")]
        assert [(one.state, one.note, one.guard) for one in told] == [("stopped", "the store is full", "store")] * 2
        assert line(told[0]) == "a: a is at work · stopped after 0 s: the store is full"
        assert not session.submit(both)
        with pytest.raises(LoadError, match="phase later of run r does not begin: the store is full"):
            session.submit(later)
        session.arm({})
        assert session.submit(both)

    scenario(tmp_path, steps)
    with Reader(tmp_path) as reader:
        assert reader.meta()["guard"]["name"] == "store"
