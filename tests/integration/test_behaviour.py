"""What pods and nodes of a fleet do by themselves, on a real control plane: all workloads run side by side."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pytest

from tests.integration.control_plane import ControlPlane
from tests.integration.fleets import wait_for
from turbokube.api.target import load_target
from turbokube.daemon import process
from turbokube.vnode import fleet
from turbokube.vnode.spec import Fault, Spec

COUNT, LONG = 8, 14
SPEC = Spec(run="behaviour", count=COUNT, connections=4, lease_interval=2.0, run_time="uniform(1,3)", seed=4)
NAMESPACE = "behaviour"


def template(restart: str = "Never", **annotations: str) -> dict[str, Any]:
    return {
        "metadata": {
            "annotations": {f"turbokube.io/{name.replace('_', '-')}": text for name, text in annotations.items()}
        },
        "spec": {
            "restartPolicy": restart,
            "nodeSelector": {"turbokube.io/run": SPEC.run},
            "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "c", "image": "pause"}],
        },
    }


def pod(name: str, restart: str = "Never", grace: int = 30, **annotations: str) -> dict[str, Any]:
    made = template(restart, **annotations)
    made["metadata"]["name"] = name
    made["spec"]["terminationGracePeriodSeconds"] = grace
    return {"apiVersion": "v1", "kind": "Pod", **made}


def job(name: str, completions: int, **annotations: str) -> dict[str, Any]:
    spec = {"completions": completions, "parallelism": 5, "backoffLimit": 1, "template": template(**annotations)}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def controller(kind: str, name: str, more: dict[str, Any], **annotations: str) -> dict[str, Any]:
    made = template("Always", run_time="", **annotations)
    made["metadata"]["labels"] = {"app": name}
    spec = {"selector": {"matchLabels": {"app": name}}, "template": made, **more}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}


WORKLOADS = [
    job("completes", 10),
    job("fails", 1, run_time="0.5", failure_rate="1"),
    controller("Deployment", "late", {"replicas": 3}, ready_delay="6"),
    controller("DaemonSet", "everywhere", {}),
    pod("crashes", "Always", run_time="1", failure_rate="1"),
    pod("long", run_time=str(LONG)),
    pod("typo", run_time="soon"),
    pod("graceful", run_time="", stop_delay="4"),
    pod("stubborn", run_time="", stop_delay="60", grace=2),
]


class Scene:
    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.target = load_target(plane.target)

    def present(self, **changes: Any) -> fleet.Result:
        wish = msgspec.structs.replace(SPEC, **changes)
        return fleet.present(lambda: self.target, self.plane.state, wish, timeout=60)

    def get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.plane.kubectl("get", "-n", NAMESPACE, *arguments, "-o", "json"))
        return found

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(*arguments)["items"]
        return found

    def container(self, name: str) -> dict[str, Any]:
        (status,) = self.get("pod", name)["status"].get("containerStatuses", [{}])
        return dict(status)

    def events(self, name: str, reason: str) -> list[dict[str, Any]]:
        about = f"involvedObject.name={name},reason={reason}"
        return self.items("events", "--field-selector", about)


def seconds_between(began: str, ended: str) -> float:
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


@pytest.fixture(scope="module")
def scene(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The fleet and all workloads, just created."""
    it = Scene(plane)
    file = tmp_path_factory.mktemp("behaviour") / "workloads.json"
    items = [{**one, "metadata": {**one["metadata"], "namespace": NAMESPACE}} for one in WORKLOADS]
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    plane.kubectl("create", "namespace", NAMESPACE)
    try:
        it.present()
        wait_for(lambda: it.items("serviceaccounts"))
        plane.kubectl("apply", "-f", str(file))
        yield it
    finally:
        plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
        wait_for(lambda: not it.items("pods"))
        fleet.absent(it.target, plane.state, SPEC, timeout=60)


def test_an_engine_that_takes_over_ends_pods_when_the_one_before_would_have(scene: Scene) -> None:
    wait_for(lambda: "running" in scene.container("long").get("state", {}))
    time.sleep(2.0)
    engine = process.find(scene.plane.state, "fleet")
    assert engine is not None
    engine.signal(signal.SIGKILL)
    wait_for(lambda: process.find(scene.plane.state, "fleet") is None)
    scene.present()
    assert "running" in scene.container("long")["state"]


def test_a_deployment_is_available_once_its_pods_are_ready(scene: Scene) -> None:
    wait_for(lambda: scene.get("deployment", "late")["status"].get("availableReplicas") == 3)
    for one in scene.items("pods", "-l", "app=late"):
        (status,) = one["status"]["containerStatuses"]
        ready = next(c for c in one["status"]["conditions"] if c["type"] == "Ready")
        waited = seconds_between(status["state"]["running"]["startedAt"], ready["lastTransitionTime"])
        assert 5 <= waited <= 9


def test_a_daemonset_has_a_pod_on_every_vnode(scene: Scene) -> None:
    wait_for(lambda: scene.get("daemonset", "everywhere")["status"]["numberReady"] == COUNT)
    assert len({one["spec"]["nodeName"] for one in scene.items("pods", "-l", "app=everywhere")}) == COUNT


def test_a_job_completes_with_runs_of_different_lengths(scene: Scene) -> None:
    wait_for(lambda: scene.get("job", "completes")["status"].get("succeeded") == 10)
    runs = []
    for one in scene.items("pods", "-l", "job-name=completes"):
        assert one["status"]["phase"] == "Succeeded"
        ended = one["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
        runs.append(seconds_between(ended["startedAt"], ended["finishedAt"]))
    assert len(runs) == 10
    assert 0 <= min(runs) <= max(runs) <= 4  # of whole seconds, between 1 and 3


def test_a_container_that_crashes_is_restarted_and_waits_longer_each_time(scene: Scene) -> None:
    wait_for(lambda: scene.container("crashes")["restartCount"] >= 2)  # the first had not to wait
    wait_for(lambda: "running" in scene.container("crashes")["state"] or scene.container("crashes")["restartCount"] > 2)
    status = scene.container("crashes")
    last = status["lastState"]["terminated"]
    assert last["exitCode"] == 1
    if "running" in status["state"]:
        assert seconds_between(last["finishedAt"], status["state"]["running"]["startedAt"]) >= 9
    assert scene.get("pod", "crashes")["status"]["phase"] == "Running"
    wait_for(lambda: sum(one["count"] for one in scene.events("crashes", "Started")) >= 2)
    assert scene.events("crashes", "BackOff")[0]["type"] == "Warning"


def test_a_pod_whose_annotation_cannot_be_used_stays_pending_and_says_why(scene: Scene) -> None:
    wait_for(lambda: scene.events("typo", "Failed"))
    assert scene.get("pod", "typo")["status"]["phase"] == "Pending"
    assert "annotation turbokube.io/run-time is 'soon'; allowed is" in scene.events("typo", "Failed")[0]["message"]


def test_containers_end_within_the_grace_period_or_are_killed(scene: Scene) -> None:
    for name in ("graceful", "stubborn"):
        wait_for(lambda name=name: "running" in scene.container(name).get("state", {}))
    began = time.monotonic()
    scene.plane.kubectl("delete", "pod", "-n", NAMESPACE, "graceful", "stubborn", "--wait=false")

    def left() -> set[str]:
        return {one["metadata"]["name"] for one in scene.items("pods")} & {"graceful", "stubborn"}

    wait_for(lambda: left() == {"graceful"}, 3.8)
    assert time.monotonic() - began >= 1.9
    wait_for(lambda: not left())
    assert 3.9 <= time.monotonic() - began < 8


def test_a_job_whose_pods_fail_fails(scene: Scene) -> None:
    wait_for(lambda: any(c["type"] == "Failed" for c in scene.get("job", "fails")["status"].get("conditions", [])))
    status = scene.get("job", "fails")["status"]
    assert status["failed"] == 2
    assert next(c for c in status["conditions"] if c["type"] == "Failed")["reason"] == "BackoffLimitExceeded"
    failed = scene.items("pods", "-l", "job-name=fails")
    assert {one["status"]["phase"] for one in failed} == {"Failed"}
    assert {one["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for one in failed} == {1}


def test_what_was_taken_over_ended_in_time(scene: Scene) -> None:
    wait_for(lambda: scene.get("pod", "long")["status"]["phase"] == "Succeeded")
    ended = scene.container("long")["state"]["terminated"]
    assert abs(seconds_between(ended["startedAt"], ended["finishedAt"]) - LONG) <= 1
    assert scene.container("long")["restartCount"] == 0


def test_nodes_disappear_and_come_back_say_that_they_are_not_ready_and_fall_silent(scene: Scene) -> None:
    before = {node["metadata"]["name"]: node["metadata"]["uid"] for node in scene.items("nodes")}
    faults = [
        Fault(after=1, share=0.25, action="disappear", duration=8),
        Fault(after=2, share=0.25, action="not_ready", duration=6),
        Fault(after=3, share=0.5, action="silence", duration=9),
    ]
    scene.present(faults=faults, seed=11)  # a seed with which they befall different vnodes

    def faulty() -> dict[str, int]:
        found: dict[str, int] = fleet.info(scene.plane.state)["faults"]
        return found

    def ready() -> dict[str, str]:
        return {
            node["metadata"]["name"]: condition["status"]
            for node in scene.items("nodes")
            for condition in node["status"]["conditions"]
            if condition["type"] == "Ready"
        }

    wait_for(lambda: len(ready()) == COUNT - 2)
    gone = set(before) - set(ready())
    wait_for(lambda: list(ready().values()).count("False") == 2)
    assert len({lease["metadata"]["name"] for lease in scene.items("leases", "-n", "kube-node-lease")} & gone) == 0
    wait_for(lambda: faulty()["silence"] > 0)
    silent = faulty()["silence"]

    def renewals() -> dict[str, str]:
        leases = scene.items("leases", "-n", "kube-node-lease")
        return {lease["metadata"]["name"]: lease["spec"]["renewTime"] for lease in leases}

    time.sleep(0.5)  # renewals that were under way
    first = renewals()
    time.sleep(3.0)
    second = renewals()
    assert sum(first[name] == second.get(name) for name in first) == silent
    assert not scene.present(faults=faults, seed=11).changed  # nor waits for those that a fault keeps away
    wait_for(lambda: faulty() == {"silence": 0, "not_ready": 0, "disappear": 0})
    wait_for(lambda: list(ready().values()) == ["True"] * COUNT)
    after = {node["metadata"]["name"]: node["metadata"]["uid"] for node in scene.items("nodes")}
    assert {name for name in after if after[name] != before[name]} == gone
    wait_for(lambda: sum(second.get(name) != moment for name, moment in renewals().items()) == COUNT)
