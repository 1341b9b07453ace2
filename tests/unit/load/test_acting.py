"""Kinds that act on created objects, on a control plane in memory: exact counts and ends, whoever dies in between."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from tests.unit.load.cluster import CREATE, Cluster, Run
from turbokube.api.transport import Response
from turbokube.load.work import Outcome
from turbokube.profile.phases import Between, Churn, Create, Delete, ObjectSet, Patch, Phase, Roll, Scale

DONE = Outcome("done")
WEB = "/apis/apps/v1/namespaces/turbokube-{:04x}/deployments/web-{:02x}"
COMMON: dict[str, Any] = {"run": "r", "namespaces": 2, "of": "create"}


def scenario(folder: Path, then: Callable[[Run, Cluster], Awaitable[None]], create: Create = CREATE) -> None:
    """Two namespaces of three deployments of two pods, and what follows."""

    async def whole() -> None:
        cluster = Cluster()
        run = Run(folder, cluster)
        assert await run.phase(create) == DONE
        cluster.requests.clear()
        await then(run, cluster)

    asyncio.run(whole())


def replicas(cluster: Cluster) -> dict[str, int]:
    return {path: made["spec"]["replicas"] for path, made in cluster.objects.items() if "deployments" in path}


def test_scale_ends_when_exactly_so_many_run(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        assert await run.phase(Scale(name="scale", replicas=5, **COMMON)) == DONE
        assert set(replicas(cluster).values()) == {5}
        assert set(cluster.running.values()) == {5}
        assert await run.phase(Scale(name="less", factor=0.4, rate=500.0, **COMMON)) == DONE
        assert set(cluster.running.values()) == {2}  # of what there is, not of what was created
        actions = run.actions("less")
        assert [(a.number, a.verb, a.replicas, a.failed) for a in actions] == [(n, "scale", 2, 0) for n in range(6)]
        assert all(a.intended <= a.sent <= a.accepted <= a.done for a in actions)  # type: ignore[operator]
        offsets = sorted(a.intended - actions[0].intended for a in actions)  # type: ignore[operator]
        assert offsets == pytest.approx([n / 500 for n in range(6)], abs=1e-5)
        expected = {"intended": 6, "sent": 6, "accepted": 6, "throttled": 0, "retried": 0, "failed": 0}
        assert run.sums("less") == {("deployments/scale", "patch"): expected}

    scenario(tmp_path, then)


def test_replicas_may_be_drawn_and_are_the_seeds(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        found = []
        for name, seed in (("a", 1), ("b", 1), ("a2", 1), ("a3", 2)):
            await run.phase(Scale(name=name, replicas=Between(1, 9), seed=seed, **COMMON))
            found.append(replicas(cluster))
        assert all(1 <= count <= 9 for each in found for count in each.values())
        assert len({tuple(sorted(each.items())) for each in found}) > 1

    scenario(tmp_path, then)


def test_a_share_is_exact_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        def of(name: str, **more: Any) -> Scale:
            return Scale(name=name, replicas=3, share=0.5, **more, **COMMON)

        await run.phase(of("x"))
        first = [action.key for action in run.actions("x")]
        assert len(first) == 3
        other = Run(tmp_path / "again", cluster)
        await other.phase(CREATE)
        await other.phase(of("x"))
        assert [action.key for action in other.actions("x")] == first
        await other.phase(of("y", seed=9))
        assert {action.key for action in other.actions("y")} != set(first)

    scenario(tmp_path, then)


def test_roll_waits_until_all_pods_are_new(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        cluster.delay = 0.05
        work = asyncio.create_task(run.phase(Roll(name="roll", concurrency=6, **COMMON)))
        await asyncio.sleep(0.04)
        assert all(action.done is None for action in run.actions("roll"))
        assert await work == DONE
        for path, made in cluster.objects.items():
            if "deployments" in path:
                assert made["spec"]["template"]["metadata"]["annotations"] == {"turbokube.io/rolled": "roll"}
                assert made["status"]["observedGeneration"] == made["metadata"]["generation"] == 2
        assert [action.replicas for action in run.actions("roll")] == [2] * 6
        assert cluster.watched == ["/api/v1/serviceaccounts", "/api/v1/configmaps", "/apis/apps/v1/deployments"]

    scenario(tmp_path, then)


def test_patches_are_filled_in_and_made_round_by_round(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        patch = {
            "metadata": {"annotations": {"n": "{{ name }} in round {{ round }}"}},
            "spec": {"x": "{{ number * 2 }}"},
        }
        assert await run.phase(Patch(name="patch", patch=patch, repeat=3, concurrency=1, **COMMON)) == DONE
        assert len(run.actions("patch")) == 18
        made = cluster.objects[WEB.format(1, 2)]
        assert made["metadata"]["annotations"]["n"] == "web-02 in round 2"
        assert [body["spec"]["x"] for method, _, body in cluster.requests if method == "PATCH"] == list(range(0, 36, 2))

    scenario(tmp_path, then)


def test_patches_for_a_time_are_as_many_as_the_rate_says(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        patch = {"metadata": {"labels": {"x": "y"}}}
        assert await run.phase(Patch(name="patch", patch=patch, duration=0.2, rate=100.0, **COMMON)) == DONE
        assert [action.number for action in run.actions("patch")] == list(range(20))
        assert await run.phase(Patch(name="closed", patch=patch, duration=0.2, concurrency=2, **COMMON)) == DONE
        assert len(run.actions("closed")) > 20

    scenario(tmp_path, then)


def test_a_patch_that_does_not_render_stops_before_anything_is_sent(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        for text in ("{{ nothing }}", "a {{ nothing }}", "{{ name"):
            with pytest.raises(ValueError, match=r"does not render|cannot be read"):
                await run.phase(Patch(name="patch", patch={"x": text}, **COMMON))
        assert not cluster.sent("PATCH")

    scenario(tmp_path, then)


def test_delete_waits_for_finalizers_and_pods(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        cluster.held.add(WEB.format(0, 1))
        work = asyncio.create_task(run.phase(Delete(name="delete", propagation="foreground", **COMMON)))
        while not run.work.words().startswith("5 "):
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert not work.done()
        assert run.work.words() == "5 of 6 objects deleted"
        assert run.work.missing() == "1 objects not gone, or whose pods are not"
        cluster.held.clear()
        cluster.collect(WEB.format(0, 1))
        assert await work == DONE
        assert not [path for path in cluster.objects if "deployments" in path]
        assert all(body["propagationPolicy"] == "Foreground" for m, _, body in cluster.requests if m == "DELETE")
        with_none_left = await run.phase(Scale(name="scale", replicas=1, **COMMON))
        assert with_none_left.state == "stopped"
        assert with_none_left.note == "phase scale is of create, which has no objects that scale can be done to"

    scenario(tmp_path, then)


def test_delete_need_not_wait(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        cluster.held.add(WEB.format(0, 1))
        assert await run.phase(Delete(name="delete", wait=False, share=0.5, **COMMON)) == DONE
        assert len(cluster.sent("DELETE")) == 3

    scenario(tmp_path, then)


def test_churn_of_objects_leaves_everything_running(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        assert await run.phase(Churn(name="churn", share=0.5, rate=10.0, duration=1.0, **COMMON)) == DONE
        assert len(cluster.sent("DELETE")) == len(cluster.sent("POST")) == 10
        actions = run.actions("churn")
        assert [action.verb for action in actions] == ["delete", "create"] * 10
        assert [action.replicas for action in actions] == [0, 2] * 10
        assert all(action.done for action in actions)
        assert max(Counter(action.key for action in actions).values()) == 8  # three objects in turn
        assert set(cluster.running.values()) == {2}
        assert len(replicas(cluster)) == 6

    scenario(tmp_path, then)


@pytest.mark.parametrize("by", ["object", "namespace"])
def test_churn_goes_on_though_what_came_last_was_not_kept(tmp_path: Path, by: Literal["object", "namespace"]) -> None:
    """An agent that is killed loses its last half second: it may have created again what it had deleted."""

    async def then(run: Run, cluster: Cluster) -> None:
        churn = Churn(name="churn", by=by, share=0.5, rate=10.0, duration=0.2, deadline=5.0, **COMMON)
        assert await run.phase(churn) == DONE
        with contextlib.closing(sqlite3.connect(tmp_path / "bundle.sqlite")) as bundle, bundle:
            bundle.execute("UPDATE actions SET done = NULL")
            bundle.execute("DELETE FROM actions WHERE verb = 'create'")
        assert await run.phase(churn) == DONE
        assert all(action.done for action in run.actions("churn"))
        assert set(cluster.running.values()) == {2}

    scenario(tmp_path, then)


def test_churn_that_the_cluster_cannot_follow_is_short_of_what_was_meant(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        cluster.delay = 0.05
        assert await run.phase(Churn(name="churn", share=0.3, rate=200.0, duration=0.5, **COMMON)) == DONE
        sums = run.sums("churn")
        assert sums["deployments", "delete"]["intended"] == 100
        deleted = sums["deployments", "delete"]["sent"]
        assert 0 < deleted == sums["deployments", "create"]["sent"] < 12  # two objects, 0.1 s and more each time
        actions = run.actions("churn")
        assert len(actions) == 2 * deleted
        assert all(action.done for action in actions)
        assert set(cluster.running.values()) == {2}

    scenario(tmp_path, then)


def test_churn_of_namespaces_brings_back_all_that_was_in_them(tmp_path: Path) -> None:
    sets = (ObjectSet(name="web", count=3, replicas=2), ObjectSet(template="configmap"))

    async def then(run: Run, cluster: Cluster) -> None:
        before = set(cluster.objects)
        churn = Churn(name="churn", by="namespace", share=0.5, duration=0.1, concurrency=1, **COMMON)
        assert await run.phase(churn) == DONE
        assert set(cluster.objects) == before
        deleted = cluster.sent("DELETE")
        assert set(deleted) == {deleted[0]} <= {f"/api/v1/namespaces/turbokube-000{n}" for n in (0, 1)}
        assert len(cluster.sent("POST")) == 5 * len(deleted)
        assert len(run.actions("churn")) == 6 * len(deleted)
        assert set(cluster.running.values()) == {2}

    scenario(tmp_path, then, msgspec.structs.replace(CREATE, objects=sets))


def test_churn_of_namespaces_does_not_lose_what_others_created(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        await run.phase(Create(run="r", name="more", namespaces=2, objects=(ObjectSet(template="secret"),)))
        outcome = await run.phase(Churn(name="churn", by="namespace", duration=1.0, **COMMON))
        assert outcome == Outcome("stopped", "namespace turbokube-0000 has objects of more, which would be lost")

    scenario(tmp_path, then)


@pytest.mark.parametrize(
    "phase",
    [
        Scale(name="x", replicas=4, concurrency=2, **COMMON),
        Scale(name="x", factor=2.0, rate=100.0, **COMMON),
        Roll(name="x", concurrency=2, **COMMON),
        Patch(name="x", patch={"metadata": {"labels": {"a": "{{ number }}"}}}, repeat=3, **COMMON),
        Delete(name="x", concurrency=2, **COMMON),
        Delete(name="x", share=0.5, rate=100.0, **COMMON),
        Churn(name="x", duration=0.3, rate=20.0, **COMMON),
    ],
    ids=lambda phase: f"{phase.kind}-{'open' if phase.rate else 'closed'}",
)
@pytest.mark.parametrize("deaths", [(1,), (2, 3, 5)])
def test_an_agent_dies_and_nothing_is_done_twice_or_left_out(tmp_path: Path, phase: Phase, deaths: tuple[int]) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        undisturbed = Run(tmp_path / "undisturbed", other := Cluster())
        await undisturbed.phase(CREATE)
        assert await undisturbed.phase(phase) == DONE
        for after in deaths:
            cluster.requests.clear()
            await run.phase(phase, killed=lambda after=after: len(cluster.requests) > after)  # type: ignore[misc]
        assert await run.phase(phase) == DONE
        mine, theirs = run.actions("x"), undisturbed.actions("x")
        assert [(a.number, a.verb, a.key, a.replicas) for a in mine] == [
            (a.number, a.verb, a.key, a.replicas) for a in theirs
        ]
        assert all(action.done and not action.failed for action in mine)
        assert replicas(cluster) == replicas(other)
        assert cluster.running == other.running
        sums = run.sums("x").values()
        assert sum(each["intended"] for each in sums) <= len(mine)

    scenario(tmp_path, then)


def test_what_is_refused_stops_the_phase_and_is_named(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        refusal = Response(422, b'{"reason": "Invalid", "message": "no"}')
        cluster.fault = lambda method, path: refusal if method == "PATCH" and "web-01" in path else None
        outcome = await run.phase(Scale(name="scale", replicas=3, **COMMON))
        assert outcome.state == "stopped"
        assert outcome.note.startswith("2 requests were refused, the last: Deployment turbokube-000")
        assert outcome.note.endswith("/web-01: 422 Invalid: no")
        sums = run.sums("scale")["deployments/scale", "patch"]
        assert (sums["sent"], sums["accepted"], sums["failed"]) == (6, 4, 2)

    scenario(tmp_path, then)


def test_at_the_deadline_it_says_what_is_missing(tmp_path: Path) -> None:
    async def then(run: Run, cluster: Cluster) -> None:
        cluster.delay = 60.0
        late = Scale(name="scale", replicas=3, concurrency=2, deadline=0.2, **COMMON)
        missing = "4 objects not scaled, 2 objects whose pods are not yet as asked"
        assert await run.phase(late) == Outcome("deadline", f"after 0.2 s: {missing}")

    scenario(tmp_path, then)


def test_what_is_in_no_namespace_needs_none(tmp_path: Path) -> None:
    async def whole() -> None:
        cluster = Cluster()
        definition = "{apiVersion: v1, kind: Namespace, metadata: {name: '{{ name }}'}}"
        sets = (ObjectSet(template="x.yaml", source=definition, name="mine", count=2),)
        assert await Run(tmp_path, cluster).phase(msgspec.structs.replace(CREATE, objects=sets)) == DONE
        assert cluster.sent("POST") == ["/api/v1/namespaces"] * 2
        assert [body["metadata"]["name"] for method, _, body in cluster.requests if method == "POST"] == [
            "mine-00",
            "mine-01",
        ]

    asyncio.run(whole())


def test_objects_of_one_set_only(tmp_path: Path) -> None:
    sets = (ObjectSet(name="web", count=2), ObjectSet(template="configmap", count=2), ObjectSet(name="db"))

    async def then(run: Run, cluster: Cluster) -> None:
        assert await run.phase(Delete(name="d", template="configmap", **COMMON)) == DONE
        assert {path.rpartition("/")[2] for path in cluster.sent("DELETE")} == {"configmap-00", "configmap-01"}
        assert await run.phase(Scale(name="s", replicas=4, **COMMON)) == DONE
        assert len(run.actions("s")) == 6  # what has no replicas is not scaled

    scenario(tmp_path, then, msgspec.structs.replace(CREATE, objects=sets))
