from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from turbokube.api.watch import Event
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer
from turbokube.measure.observer import Observer, _Node, _Pod


class Watched:
    """An observer with a clock that is set by hand and events that are given by hand."""

    def __init__(self, folder: Path) -> None:
        self.now = 100.0
        self.folder = folder
        self.writer = Writer(folder)
        self.observer = Observer(None, self.writer, "turbokube.io/run=r", lambda: self.now)  # type: ignore[arg-type]

    def pod(self, now: float, type: str, uid: str, *, listed: bool = False, **status: Any) -> None:
        self.now = now
        self.observer.pod_event(Event(type, msgspec.convert(_object(uid, **status), _Pod), listed))

    def end_of_list(self, now: float) -> None:
        self.now = now
        self.observer.pod_event(Event("SYNCED"))

    def node(self, type: str, name: str, ready: bool) -> None:
        condition = {"type": "Ready", "status": "True" if ready else "Unknown"}
        raw = {"metadata": {"name": name}, "status": {"conditions": [condition]}}
        self.observer.node_event(Event(type, msgspec.convert(raw, _Node)))

    def rows(self) -> dict[str, Any]:
        self.observer.write()
        self.writer.flush()
        with Reader(self.folder) as reader:
            return {row["uid"]: row for row in reader.query("SELECT * FROM pods")}


def _object(
    uid: str,
    *,
    node: str = "",
    ready: bool | None = None,
    phase: str = "Pending",
    restarts: int = 0,
    ends: bool = False,
) -> Any:
    def at(second: int) -> str:
        return f"1970-01-01T00:01:{second:02}Z"

    state = {"running": {"startedAt": at(50)}} if ready is not None else {}
    containers = [] if ready is None else [{"ready": ready, "restartCount": restarts, "state": state}]
    scheduled = [{"type": "PodScheduled", "status": "True", "lastTransitionTime": at(45)}] if node else []
    return {
        "metadata": {
            "name": f"d-{uid}",
            "namespace": "ns",
            "uid": uid,
            "creationTimestamp": at(40),
            "labels": {"app": "d"},
            **({"deletionTimestamp": at(59)} if ends else {}),
        },
        "spec": {"nodeName": node},
        "status": {"phase": phase, "conditions": scheduled, "containerStatuses": containers},
    }


@pytest.fixture
def watched(tmp_path: Path) -> Any:
    watched = Watched(tmp_path)
    watched.end_of_list(99.0)
    yield watched
    watched.writer.close()


def run_through(watched: Watched, uid: str, begin: float = 100.5) -> None:
    watched.pod(begin, "ADDED", uid)
    watched.pod(begin + 1, "MODIFIED", uid, node="n-0")
    watched.pod(begin + 2, "MODIFIED", uid, node="n-0", phase="Running", ready=False)
    watched.pod(begin + 3, "MODIFIED", uid, node="n-0", phase="Running", ready=True)


def test_a_pod_that_is_deleted_has_not_completed(watched: Watched) -> None:
    for uid, ends in (("done", False), ("deleted", True)):
        run_through(watched, uid)
        watched.pod(120.0, "MODIFIED", uid, node="n-0", ready=False, phase="Succeeded", ends=ends)
    watched.pod(121.0, "DELETED", "deleted", node="n-0", ready=False, phase="Succeeded", ends=True)
    watched.pod(130.0, "DELETED", "done", node="n-0", ready=False, phase="Succeeded", ends=True)
    rows = watched.rows()
    assert {uid: (row["phase"], row["deleted_seen"]) for uid, row in rows.items()} == {
        "done": ("Succeeded", 120.0), "deleted": (None, 120.0),
    }  # fmt: skip


def test_a_pod_has_the_objects_clocks_and_the_witnesss(watched: Watched) -> None:
    run_through(watched, "a")
    row = watched.rows()["a"]
    assert tuple(row) == (
        *("a", "ns", "d-a", "d", "n-0"),
        *(100.0, 100.5, 105.0, 101.5, 110.0, 103.5, None, 0, 0, None),
    )


def test_clocks_are_set_once(watched: Watched) -> None:
    run_through(watched, "a")
    before = tuple(watched.rows()["a"])
    watched.pod(200.0, "MODIFIED", "a", node="n-0", phase="Running", ready=True)
    assert tuple(watched.rows()["a"]) == before
    watched.pod(201.0, "MODIFIED", "a", node="n-0", phase="Running", ready=True, restarts=2)
    assert watched.rows()["a"]["restarts"] == 2


def test_progress_counts_what_is_there(watched: Watched) -> None:
    run_through(watched, "a")
    watched.pod(105.0, "ADDED", "b")
    watched.pod(106.0, "MODIFIED", "b", node="n-1")
    watched.pod(107.0, "ADDED", "c")
    progress = watched.observer.progress(["ns", "another"])
    assert (progress.created, progress.scheduled, progress.running) == (3, 2, 1)
    watched.pod(108.0, "DELETED", "a", node="n-0", phase="Running", ready=True)
    watched.pod(109.0, "MODIFIED", "b", node="n-1", phase="Failed")
    progress = watched.observer.progress()
    assert (progress.created, progress.scheduled, progress.running) == (1, 0, 0)
    rows = watched.rows()
    assert (rows["a"]["deleted_seen"], rows["b"]["deleted_seen"], rows["c"]["deleted_seen"]) == (108.0, 109.0, None)
    watched.pod(110.0, "DELETED", "b", node="n-1", phase="Failed")
    assert watched.rows()["b"]["deleted_seen"] == 109.0
    assert watched.observer.progress().created == 1


def test_what_a_list_after_an_interruption_tells_is_marked(watched: Watched) -> None:
    run_through(watched, "a")
    for uid in ("b", "c", "d"):
        watched.pod(104.0, "ADDED", uid)
    # the watch broke; meanwhile b began to run, d went, e came; c is as it was
    watched.pod(150.0, "ADDED", "a", listed=True, node="n-0", phase="Running", ready=True)
    watched.pod(150.0, "ADDED", "b", listed=True, node="n-0", phase="Running", ready=True)
    watched.pod(150.0, "ADDED", "c", listed=True)
    watched.pod(150.0, "ADDED", "e", listed=True)
    watched.end_of_list(150.5)
    rows = watched.rows()
    assert {uid: row["listed"] for uid, row in rows.items()} == {"a": 0, "b": 1, "c": 0, "d": 1, "e": 1}
    assert rows["d"]["deleted_seen"] == 150.5
    assert rows["a"]["deleted_seen"] is None
    watched.pod(160.0, "MODIFIED", "c", node="n-0")
    watched.pod(161.0, "ADDED", "f")
    watched.end_of_list(170.0)  # a list that names nobody
    assert {uid for uid, row in watched.rows().items() if row["deleted_seen"] == 170.0} == {"a", "b", "c", "e", "f"}


def test_a_list_that_broke_off_counts_for_nothing(watched: Watched) -> None:
    for uid in ("a", "b"):
        watched.pod(104.0, "ADDED", uid)
    for uid in ("a", "b"):
        watched.pod(150.0, "ADDED", uid, listed=True)
    watched.observer.pods.restarts += 1  # b went meanwhile
    watched.pod(151.0, "ADDED", "a", listed=True)
    watched.end_of_list(152.0)
    assert {uid: row["deleted_seen"] for uid, row in watched.rows().items()} == {"a": None, "b": 152.0}


def test_what_comes_right_after_a_watch_began_again_may_be_late(watched: Watched) -> None:
    watched.pod(100.0, "ADDED", "a")
    watched.observer.pods.restarts += 1
    watched.pod(120.0, "ADDED", "b")
    watched.pod(122.0, "ADDED", "c")
    assert {uid: row["listed"] for uid, row in watched.rows().items()} == {"a": 0, "b": 1, "c": 0}


def test_the_next_agent_keeps_every_clock(tmp_path: Path) -> None:
    first = Watched(tmp_path)
    first.end_of_list(99.0)
    run_through(first, "a")
    first.pod(104.0, "ADDED", "b")
    first.pod(104.0, "ADDED", "gone")
    before = tuple(first.rows()["a"])
    first.writer.close()

    second = Watched(tmp_path)
    assert (second.observer.progress().created, second.observer.progress().running) == (3, 1)
    second.pod(200.0, "ADDED", "a", listed=True, node="n-0", phase="Running", ready=True)
    second.pod(200.0, "ADDED", "b", listed=True, node="n-1", phase="Running", ready=True)
    second.end_of_list(200.0)
    rows = second.rows()
    assert tuple(rows["a"]) == before
    assert (rows["b"]["seen"], rows["b"]["running_seen"], rows["b"]["listed"]) == (104.0, 200.0, 1)
    assert rows["gone"]["deleted_seen"] == 200.0
    assert second.observer.progress().running == 2
    second.writer.close()


def test_whoever_waits_for_pods_is_told_when_the_last_one_runs(watched: Watched) -> None:
    async def scenario() -> None:
        assert await watched.observer.pods_run("ns", "d", 0) == watched.now
        waiting = asyncio.create_task(watched.observer.pods_run("ns", "d", 2))
        await asyncio.sleep(0)
        run_through(watched, "a")
        await asyncio.sleep(0)
        assert not waiting.done()
        run_through(watched, "b", 110.0)
        assert await waiting == 113.0
        assert await watched.observer.pods_run("ns", "d", 2) == 113.0

    asyncio.run(scenario())


def test_a_node_lost_is_counted_and_one_removed_is_not(watched: Watched) -> None:
    for name in ("n-0", "n-1"):
        watched.node("ADDED", name, False)
        watched.node("MODIFIED", name, True)
        watched.node("MODIFIED", name, True)
    assert watched.observer.node_counts() == (2, 2, 0)
    watched.node("MODIFIED", "n-0", False)
    watched.node("MODIFIED", "n-0", False)
    assert watched.observer.node_counts() == (2, 1, 1)
    watched.node("DELETED", "n-0", False)
    watched.node("DELETED", "n-1", True)
    assert watched.observer.node_counts() == (0, 0, 1)


def test_a_pod_costs_at_most_500_bytes(watched: Watched) -> None:
    import tracemalloc

    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for number in range(2000):
        run_through(watched, f"{number:036}")
    watched.observer.write()
    watched.writer.flush()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert used / 2000 < 500
