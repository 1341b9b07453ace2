"""Replays on a control plane in memory: every operation once, in order, at its time, whoever dies in between."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.unit.load.cluster import Cluster, Run
from turbokube.api.transport import Response
from turbokube.bundle import trace
from turbokube.bundle.reader import Reader
from turbokube.bundle.trace import Operation
from turbokube.load import replay
from turbokube.load.phase import LoadError
from turbokube.load.replay import Plan, ReplayWork, fitting
from turbokube.load.work import Outcome
from turbokube.profile.phases import Replay

DONE = Outcome("done")
DEPLOYMENTS = "/apis/apps/v1/namespaces/turbokube-{:04x}/deployments"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "_START_S", 0.02)


def operation(t: float, verb: Any, name: str, space: str = "a", kind: Any = "Deployment", **more: Any) -> Operation:
    if verb == "create" and kind == "Deployment":
        more = {"replicas": 2, **more}
    return Operation(t=t, verb=verb, kind=kind, namespace=space, name=name, **more)


# two namespaces; web is deleted and comes again
TRACE = [
    operation(0.0, "create", "old", replicas=3, before=True),
    operation(0.0, "create", "web", requests={"cpu": "100m"}),
    operation(0.1, "create", "db", space="b", replicas=1),
    operation(0.2, "scale", "web", replicas=4),
    operation(0.3, "scale", "old", replicas=1),
    operation(0.4, "delete", "web"),
    operation(0.5, "create", "web", replicas=5),
    operation(0.6, "roll", "db", space="b"),
]


def phase(folder: Path, operations: list[Operation] = TRACE, seconds: float = 0.6, **more: Any) -> Replay:
    path = folder / "trace.jsonl.gz"
    copies = [msgspec.structs.replace(one) for one in operations]
    trace.write(trace.make(copies, keep_names=True, method="watched", began=0.0, seconds=seconds), path)
    return fitting(Replay(**{"run": "r", "name": "replay", "namespaces": 0, "trace": str(path), **more}))


def scenario(folder: Path, then: Callable[[Run, Cluster], Awaitable[None]]) -> None:
    async def whole() -> None:
        cluster = Cluster()
        await then(Run(folder / "run", cluster), cluster)

    asyncio.run(whole())


def objects(run: Run) -> dict[str, dict[str, Any]]:
    with Reader(run.folder) as reader:
        rows = reader.query("SELECT * FROM objects WHERE kind != 'Namespace'")
    return {row["name"]: dict(row) for row in rows}


def test_every_operation_is_done_once_in_the_runs_own_namespaces(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        assert await run.phase(phase(tmp_path, speed=4.0)) == DONE
        first, second = DEPLOYMENTS.format(0), DEPLOYMENTS.format(1)
        posts = [path for path in cluster.sent("POST") if path.endswith("deployments")]
        assert sorted(posts) == [first, first, first, second]
        assert cluster.sent("DELETE") == [f"{first}/replay-1"]
        assert cluster.sent("PATCH") == [
            f"{first}/replay-1/scale", f"{first}/replay-0/scale", f"{second}/replay-2"
        ]  # fmt: skip
        assert {key: n for key, n in cluster.running.items() if n} == {
            ("turbokube-0000", "replay-0"): 1, ("turbokube-0000", "replay-3"): 5, ("turbokube-0001", "replay-2"): 1,
        }  # fmt: skip

    scenario(tmp_path, then)


def test_the_ledger_has_every_operation_with_its_intended_time(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        assert await run.phase(phase(tmp_path, speed=4.0)) == DONE
        rows, actions = objects(run), run.actions("replay")
        assert [(one.number, one.verb, one.replicas) for one in actions] == [
            (3, "scale", 4), (4, "scale", 1), (5, "delete", 0), (7, "roll", 1)
        ]  # fmt: skip
        moments = {number: action.intended for number, action in ((one.number, one) for one in actions)}
        moments |= {1: rows["replay-1"]["intended"], 2: rows["replay-2"]["intended"], 6: rows["replay-3"]["intended"]}
        offsets = [moments[number] - moments[1] for number in range(1, 8)]
        assert offsets == pytest.approx([one.t / 4 for one in TRACE[1:]], abs=1e-4)
        assert rows["replay-0"]["ready"] < moments[1]  # what was there before is there before
        assert {(name, row["replicas"], row["stateless"]) for name, row in rows.items()} == {
            ("replay-0", 3, 1), ("replay-1", 2, 1), ("replay-2", 1, 1), ("replay-3", 5, 1)
        }  # fmt: skip
        last = {one.key: one for one in actions}
        assert all(one.done and one.accepted and one.done >= one.accepted for one in last.values())
        assert run.sums("replay")["deployments", "create"]["intended"] == 4
        assert run.sums("replay")["deployments/scale", "patch"]["accepted"] == 2

    scenario(tmp_path, then)


@pytest.mark.parametrize("after", range(1, 12))
def test_a_killed_agents_replay_goes_on_where_it_stopped(tmp_path: Path, after: int) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        asked = phase(tmp_path, speed=8.0)

        def writes() -> int:
            return len(cluster.sent("POST", "PATCH", "DELETE"))

        await run.phase(asked, killed=lambda: writes() >= after)
        assert await run.phase(asked) == DONE
        assert {key: n for key, n in cluster.running.items() if n} == {
            ("turbokube-0000", "replay-0"): 1, ("turbokube-0000", "replay-3"): 5, ("turbokube-0001", "replay-2"): 1,
        }  # fmt: skip
        assert {name: row["failed"] for name, row in objects(run).items()} == {f"replay-{n}": 0 for n in range(4)}
        acts = run.actions("replay")
        assert [one.number for one in acts] == [3, 4, 5, 7]
        for key in {one.key for one in acts}:  # what is overdue on others is sent at once
            times = [one.accepted or 0.0 for one in acts if one.key == key]
            assert times == sorted(times)

    scenario(tmp_path, then)


def test_operations_on_one_object_keep_their_order_when_the_server_is_slow(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        slow = itertools.count()
        plain = cluster.request

        async def request(method: str, path: str, *arguments: Any, **more: Any) -> Response:
            if method == "POST" and path == DEPLOYMENTS.format(0) and next(slow) < 3:
                await asyncio.sleep(0.2)
            return await plain(method, path, *arguments, **more)

        cluster.request = request  # type: ignore[method-assign]
        operations = [operation(0.0, "create", "web"), operation(0.01, "scale", "web", replicas=7),
                      operation(0.02, "delete", "web"), operation(0.03, "create", "other")]  # fmt: skip
        assert await run.phase(phase(tmp_path, operations)) == DONE
        where = f"{DEPLOYMENTS.format(0)}/replay-0"
        own = [path for method, path, _ in cluster.requests if path.startswith(where) and method != "GET"]
        assert own == [f"{where}/scale", where]
        scale = run.actions("replay")[0]
        assert (scale.sent or 0.0) - (scale.intended or 0.0) > 0.15  # late, and told as late

    scenario(tmp_path, then)


def test_what_follows_on_a_refused_object_is_not_sent(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        refusal = Response(422, b'{"reason": "Invalid", "message": "no"}')
        cluster.fault = lambda method, path: refusal if (method, path) == ("POST", DEPLOYMENTS.format(1)) else None
        outcome = await run.phase(phase(tmp_path, speed=8.0))
        assert outcome.state == "stopped"
        assert outcome.note.startswith("1 requests were refused, the last: Deployment turbokube-0001/replay-2: 422")
        assert f"{DEPLOYMENTS.format(1)}/replay-2" not in cluster.sent("PATCH")
        assert "operations not accepted" in run.work.missing()
        cluster.fault = lambda method, path: None
        assert await run.phase(phase(tmp_path, speed=8.0)) == DONE

    scenario(tmp_path, then)


def test_fewer_namespaces_hold_the_traces_all(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        operations = [operation(0.0, "create", "web", space=space) for space in "abcde"]
        assert await run.phase(phase(tmp_path, operations, namespaces=2, first_namespace=3)) == DONE
        assert sorted(space for space, _ in cluster.running) == ["turbokube-0003"] * 3 + ["turbokube-0004"] * 2

    scenario(tmp_path, then)


def made(tmp_path: Path, one: Operation, **more: Any) -> Any:
    asked = phase(tmp_path, [one], **more)
    plan = Plan(asked, trace.read(asked.trace))
    work = object.__new__(ReplayWork)
    work.phase, work._padding = asked, "p" * 200_000
    return work._manifest(plan.things[0])


def test_objects_are_of_the_recorded_size_and_ask_for_as_much(tmp_path: Path) -> None:
    manifest = made(tmp_path, operation(0, "create", "web", bytes=5000, requests={"cpu": "1", "memory": "1Gi"}))
    pod = msgspec.json.decode(manifest.body)["spec"]["template"]
    assert pod["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "1", "memory": "1Gi"}}
    assert len(msgspec.json.encode(pod["spec"])) + len(pod["metadata"]["annotations"]["turbokube.io/padding"]) == 5000
    assert pod["metadata"]["labels"] == {"app": manifest.name, "turbokube.io/run": "r"}
    assert (manifest.replicas, manifest.stateless, manifest.awaits) == (2, True, "pods")


@pytest.mark.parametrize(
    ("one", "replicas", "awaits"),
    [
        (operation(0, "create", "j", kind="Job", replicas=6, parallelism=2, run_time=8.0), 6, "job"),
        (operation(0, "create", "j", kind="Job", replicas=6, parallelism=2), 2, "job"),
        (operation(0, "create", "p", kind="Pod", run_time=8.0), 1, "job"),
        (operation(0, "create", "p", kind="Pod"), 1, "pods"),
        (operation(0, "create", "d", kind="DaemonSet"), 0, "daemonset"),
        (operation(0, "create", "s", kind="StatefulSet", replicas=3), 3, "pods"),
    ],
)
def test_each_kind_is_awaited_in_its_way(tmp_path: Path, one: Operation, replicas: int, awaits: str) -> None:
    manifest = made(tmp_path, one, speed=4.0)
    assert (manifest.kind, manifest.replicas, manifest.awaits) == (one.kind, replicas, awaits)
    body = msgspec.json.decode(manifest.body)
    pod = body if one.kind == "Pod" else body["spec"]["template"]
    runs = pod["metadata"]["annotations"].get("turbokube.io/run-time")
    assert runs == (None if one.run_time is None else "2")  # as much shorter as the replay is faster
    assert body["kind"] == one.kind


def test_a_trace_that_contradicts_itself_is_refused(tmp_path: Path) -> None:
    for operations, words in (
        ([operation(0.0, "delete", "web")], "delete of Deployment a/web at 0 s, which is not there"),
        ([operation(0.0, "create", "web"), operation(2, "create", "web")], "at 2 s, which is there already"),
    ):
        asked = phase(tmp_path, operations, seconds=2.0)
        with pytest.raises(LoadError, match=words):
            Plan(asked, trace.read(asked.trace))


def test_a_trace_that_is_not_in_order_is_refused(tmp_path: Path) -> None:
    asked = phase(tmp_path)
    found = trace.read(asked.trace)
    found.operations[3], found.operations[4] = found.operations[4], found.operations[3]
    trace.write(found, Path(asked.trace))
    with pytest.raises(LoadError, match="is not in the order of time: line 6"):
        Plan(asked, trace.read(asked.trace))


def test_a_trace_that_cannot_be_used_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"there is no trace .*/none; playbooks/record.yml makes one"):
        fitting(Replay(run="r", name="replay", namespaces=0, trace=str(tmp_path / "none")))
    with pytest.raises(LoadError, match="lasts 7200 s at speed 1, and the deadline is 1800 s"):
        phase(tmp_path, seconds=7200.0)
    assert phase(tmp_path, seconds=7200.0, speed=8.0).namespaces == 2


def test_another_trace_in_the_place_of_the_one_begun_with_is_refused(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        assert await run.phase(phase(tmp_path, speed=8.0)) == DONE
        outcome = await run.phase(phase(tmp_path, [operation(0, "create", name) for name in "abcdefgh"], speed=8.0))
        assert "is another than that with which phase replay began" in outcome.note

    scenario(tmp_path, then)
