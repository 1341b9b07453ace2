"""A load that others made is recorded from a control plane, and replayed there faster: the same, in the same order."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.control_plane import ControlPlane
from tests.integration.fleets import deployment
from tests.integration.runs import RUN, Run
from turbokube.api.target import load_target
from turbokube.bundle import trace
from turbokube.bundle.trace import Operation, Trace
from turbokube.collect.reconstruct import reconstruct
from turbokube.collect.record import Choice, watch
from turbokube.load.check import prepared
from turbokube.profile.phases import Replay

SHOP = "shop"
SPEED = 4.0
LATE_S = 1.5  # between what is done and what the recorder sees, on a machine that does other things


def by_kind(found: Trace) -> list[Operation]:
    """The operations of each kind in their order; of a Deployment's first: what was there before."""
    return sorted(found.operations, key=lambda one: one.kind)


def recorded(plane: ControlPlane, seconds: float, choice: Choice, work: Callable[[], None]) -> Trace:
    """What a recorder tells of the work of a thread beside it."""
    worker = threading.Timer(1.5, work)  # until the recorder has seen what is there
    worker.start()
    try:
        return asyncio.run(watch(load_target(plane.target), seconds, choice))
    finally:
        worker.join()


def others(plane: ControlPlane, folder: Path) -> None:
    """What somebody does, a second or so from one to the next."""

    def apply(name: str, content: dict[str, Any]) -> None:
        file = folder / name
        file.write_text(json.dumps({**content, "metadata": {**content["metadata"], "namespace": SHOP}}))
        plane.kubectl("create", "-f", str(file))

    pod = deployment("x", 1)["spec"]["template"]["spec"]
    spec = {"completions": 2, "parallelism": 2, "template": {"spec": {**pod, "restartPolicy": "Never"}}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "bill"}, "spec": spec}
    apply("web", deployment("web", 2))
    apply("db", {**deployment("db", 1), "kind": "StatefulSet"})
    plane.kubectl("scale", "-n", SHOP, "deployment/web", "--replicas=4")
    apply("bill", job)
    plane.kubectl("rollout", "restart", "-n", SHOP, "deployment/web")
    plane.kubectl("delete", "-n", SHOP, "statefulset/db", "--wait=false")
    apply("pod", {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lone"}, "spec": pod})
    plane.kubectl("scale", "-n", SHOP, "deployment/web", "--replicas=1")


@pytest.fixture
def shop(plane: ControlPlane, tmp_path: Path) -> Trace:
    """The trace of what others did in a namespace of their own, in which one deployment was before."""
    plane.kubectl("create", "namespace", SHOP)
    try:
        plane.kubectl("create", "deployment", "-n", SHOP, "old", "--image=pause", "--replicas=1")
        return recorded(plane, 9.0, Choice(frozenset({SHOP})), lambda: others(plane, tmp_path))
    finally:
        plane.kubectl("delete", "namespace", SHOP, "--wait=false")


def test_what_was_recorded_is_replayed_at_four_times_its_speed(
    plane: ControlPlane, run: Run, shop: Trace, tmp_path: Path
) -> None:
    assert shop.counts() == {
        "create": {"Deployment": 2, "Job": 1, "Pod": 1, "StatefulSet": 1}, "delete": {"StatefulSet": 1},
        "roll": {"Deployment": 1}, "scale": {"Deployment": 2},
    }  # fmt: skip
    assert [f"{one.verb} {one.kind}" for one in shop.operations] == [
        "create Deployment", "create Deployment", "create StatefulSet", "scale Deployment", "create Job",
        "roll Deployment", "delete StatefulSet", "create Pod", "scale Deployment",
    ]  # fmt: skip
    file = tmp_path / "shop.jsonl.gz"
    trace.write(shop, file)
    phase = prepared(Replay(run=RUN, name="shop", namespaces=0, deadline=60.0, trace=str(file), speed=SPEED))

    answers: list[Any] = []
    mine = Choice(frozenset({"turbokube-0000"}))
    again = recorded(plane, 10.0, mine, lambda: answers.append(run.to_the_end(phase)))
    assert [(one["state"], one["note"]) for one in answers[0]["all"]] == [("done", "")]
    assert answers[0]["all"][0]["words"] == "9 of 9 operations replayed"
    run.finish()

    ledger = trace.of_bundle(run.bundle)
    expected = [one.t / SPEED for one in shop.operations]
    began = ledger.operations[1].t - expected[1]
    assert [one.t - began for one in ledger.operations[1:]] == pytest.approx(expected[1:], abs=0.01)
    assert [(one.verb, one.kind, one.replicas) for one in ledger.operations] == [
        (one.verb, one.kind, one.replicas) for one in shop.operations
    ]
    # what the recorder saw of it, each kind by a watch of its own; what was there before is created, too
    seen, meant = by_kind(again), by_kind(shop)
    assert [(one.verb, one.kind, one.replicas) for one in seen] == [(one.verb, one.kind, one.replicas) for one in meant]
    begun = seen[1].t - meant[1].t / SPEED
    assert [one.t - begun for one in seen[1:]] == pytest.approx([one.t / SPEED for one in meant[1:]], abs=LATE_S)
    assert {one.replicas for one in seen if one.verb == "scale"} == {4, 1}

    assert run.query("SELECT count(*) FROM actions WHERE done IS NULL OR failed") == [(0,)] or _superseded(run)
    pods = {"old": 1, "web": 1, "bill": 2, "lone": 1}
    assert len(run.pods()) == sum(pods.values())
    sizes = {one.bytes for one in shop.operations if one.verb == "create"}
    assert all(100 < size < 10_000 for size in sizes)


def _superseded(run: Run) -> bool:
    """Whether no action is left undone but those that another on the same object followed."""
    sql = (
        "SELECT count(*) FROM actions AS a WHERE done IS NULL AND NOT EXISTS"
        " (SELECT 1 FROM actions AS b WHERE b.name = a.name AND b.number > a.number)"
    )
    return bool(run.query(sql) == [(0,)])


def test_what_is_left_of_a_load_tells_it_too(plane: ControlPlane) -> None:
    plane.kubectl("create", "namespace", "past")
    try:
        plane.kubectl("create", "deployment", "-n", "past", "web", "--image=pause", "--replicas=2")
        time.sleep(1.0)
        plane.kubectl("scale", "-n", "past", "deployment/web", "--replicas=3")
        time.sleep(0.5)
        plane.kubectl("create", "deployment", "-n", "past", "gone", "--image=pause", "--replicas=1")
        time.sleep(1.0)
        plane.kubectl("delete", "-n", "past", "deployment/gone")
        choice = Choice(frozenset({"past"}))
        found = asyncio.run(reconstruct(load_target(plane.target), 60.0, choice, keep_names=True))
    finally:
        plane.kubectl("delete", "namespace", "past", "--wait=false")
    told = {(one.verb, one.name, one.replicas) for one in found.operations}
    assert told == {
        ("create", "web", 2), ("scale", "web", 3), ("create", "gone", 1), ("delete", "gone", None)
    }  # fmt: skip
    assert found.header.method == "reconstructed"
