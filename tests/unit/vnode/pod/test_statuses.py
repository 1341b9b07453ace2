"""What a vnode writes into a pod's status: small at `lease`, as a real kubelet's above it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from vnode_fakes import a_pod

from turbokube.vnode import objects
from turbokube.vnode.behaviour import Behaviours
from turbokube.vnode.pod import events
from turbokube.vnode.pod.lives import Life
from turbokube.vnode.pod.statuses import SIGKILL, Statuses, go_duration
from turbokube.vnode.spec import Spec

NOW = datetime(2026, 3, 4, 5, 6, 7, 500_000, tzinfo=UTC).timestamp()
MOMENT = "2026-03-04T05:06:07Z"
LEASE, FULL = Statuses(full=False), Statuses(full=True)


def status(patch: bytes) -> dict[str, Any]:
    body = json.loads(patch)
    assert body["metadata"] == {"uid": "u-1"}
    found: dict[str, Any] = body["status"]
    return found


def conditions(status: dict[str, Any]) -> dict[str, tuple[str, str | None]]:
    return {one["type"]: (one["status"], one.get("reason")) for one in status["conditions"]}


def a_life(pod: objects.Pod, **options: Any) -> Life:
    life = Life(pod, Behaviours(Spec(run="trial", count=1, **options)).usual, lambda life: None)
    life.start(NOW)
    return life


def with_init() -> objects.Pod:
    pod = a_pod("ab")
    pod.spec.init_containers = [objects.Container("i"), objects.Container("side", restart_policy="Always")]
    return pod


def test_running_is_what_a_kubelet_writes() -> None:
    told = status(LEASE.running(with_init(), "172.16.1.3", 0x0A800103, NOW - 2, NOW))
    assert told["phase"] == "Running"
    up = ("True", None)
    assert conditions(told) == dict.fromkeys(
        ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"), up
    )
    assert (told["podIP"], told["podIPs"], told["hostIP"]) == ("10.128.1.3", [{"ip": "10.128.1.3"}], "172.16.1.3")
    assert told["startTime"] == "2026-03-04T05:06:05Z"
    first, second = told["containerStatuses"]
    assert first["state"] == {"running": {"startedAt": MOMENT}}
    assert (first["ready"], first["started"]) == (True, True)
    assert first["imageID"].startswith("host:5000/pause@sha256:")
    assert first["containerID"] != second["containerID"]
    init, sidecar = told["initContainerStatuses"]
    assert init["state"]["terminated"]["exitCode"] == 0
    assert (init["ready"], init["started"]) == (True, False)
    assert ("running" in sidecar["state"], sidecar["started"]) == (True, True)


def test_a_pod_on_the_hosts_network_has_the_hosts_address() -> None:
    assert status(LEASE.running(a_pod(), "172.16.1.3", 0, NOW, NOW))["podIP"] == "172.16.1.3"


def test_a_pod_that_is_not_ready_yet_says_so_and_then_that_it_is() -> None:
    pod = a_pod("ab")
    life = a_life(pod, ready_delay="5")
    told = status(LEASE.running(pod, "h", 1, NOW, NOW, life))
    assert told["phase"] == "Running"
    assert conditions(told)["Initialized"] == ("True", None)
    for one in told["conditions"][2:]:
        assert (one["status"], one["message"]) == ("False", "containers with unready status: [a b]")
    assert [(one["ready"], one["started"]) for one in told["containerStatuses"]] == [(False, True)] * 2
    list(life.advance(NOW + 5))
    told = status(LEASE.changed(pod, life, NOW + 5))
    assert conditions(told) == {"Ready": ("True", None), "ContainersReady": ("True", None)}
    assert all(one["lastTransitionTime"] == "2026-03-04T05:06:12Z" for one in told["conditions"])
    assert all(one["message"] is None for one in told["conditions"])  # which takes the old one away
    assert all(one["ready"] for one in told["containerStatuses"])


def test_a_container_that_crashes_shows_its_exits_and_why_it_waits() -> None:
    pod = a_pod(policy="Always")
    life = a_life(pod, run_time="2", failure_rate=1)
    life.ready_said = True
    list(life.advance(NOW + 2))
    (one,) = (told := status(LEASE.changed(pod, life, NOW + 2)))["containerStatuses"]
    assert (one["state"]["terminated"]["exitCode"], one["state"]["terminated"]["reason"]) == (1, "Error")
    assert (one["ready"], one["restartCount"], one["lastState"]) == (False, 0, {})
    assert conditions(told)["Ready"] == ("False", "ContainersNotReady")
    assert told["conditions"][0]["lastTransitionTime"]
    life.ready_said = False
    list(life.advance(NOW + 3))
    list(life.advance(NOW + 5))
    (one,) = status(LEASE.changed(pod, life, NOW + 5))["containerStatuses"]
    assert one["state"]["terminated"]["startedAt"] == "2026-03-04T05:06:10Z"  # until it is looked at again
    list(life.advance(life.due))
    (one,) = (told := status(LEASE.changed(pod, life, NOW + 6)))["containerStatuses"]
    assert one["state"]["waiting"] == {
        "reason": "CrashLoopBackOff",
        "message": "back-off 10s restarting failed container=a pod=p_ns(u-1)",
    }
    assert one["lastState"]["terminated"]["startedAt"] == "2026-03-04T05:06:10Z"
    assert one["restartCount"] == 1
    assert "lastTransitionTime" not in told["conditions"][0]  # it was not ready before
    list(life.advance(life.due))
    (again,) = status(LEASE.changed(pod, life, NOW + 15))["containerStatuses"]
    assert ("running" in again["state"], again["restartCount"]) == (True, 2)
    assert again["lastState"] == one["lastState"]
    assert again["containerID"] != one["containerID"] == again["lastState"]["terminated"]["containerID"]


def test_a_full_kubelet_tells_of_the_end_of_a_job_in_two_steps() -> None:
    pod = a_pod(policy="Never")
    life = a_life(pod, run_time="2")
    life.ready_said = True
    list(life.advance(NOW + 2))
    ended = status(FULL.changed(pod, life, NOW + 2))
    assert "phase" not in ended
    assert conditions(ended)["Ready"] == ("False", "PodCompleted")
    assert "PodReadyToStartContainers" not in conditions(ended)
    concluded = status(FULL.concluded(pod, life, NOW + 3))
    assert (concluded["phase"], conditions(concluded)) == ("Succeeded", {"PodReadyToStartContainers": ("False", None)})


@pytest.mark.parametrize(("rate", "phase", "reason"), [(0, "Succeeded", "PodCompleted"), (1, "Failed", "PodFailed")])
def test_a_job_that_has_ended_says_how(rate: float, phase: str, reason: str) -> None:
    pod = a_pod("ab", "Never")
    life = a_life(pod, run_time="2", failure_rate=rate)
    life.ready_said = True
    list(life.advance(NOW + 2))
    told = status(LEASE.changed(pod, life, NOW + 3))
    assert told["phase"] == phase
    completed = reason if phase == "Succeeded" else None
    assert conditions(told) == {
        "PodReadyToStartContainers": ("False", None),
        "Initialized": ("True", completed),
        "Ready": ("False", reason),
        "ContainersReady": ("False", reason),
    }
    assert ["lastTransitionTime" in one for one in told["conditions"]] == [True, False, True, True]
    assert [one["state"]["terminated"]["exitCode"] for one in told["containerStatuses"]] == [rate, rate]
    assert told["containerStatuses"][0]["state"]["terminated"]["finishedAt"] == "2026-03-04T05:06:09Z"


RUNNING = {
    "phase": "Running",
    "startTime": "2026-01-01T00:00:00Z",
    "containerStatuses": [
        {"name": "a", "restartCount": 2, "state": {"running": {"startedAt": "2026-01-01T00:00:09Z"}}},
    ],
}


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (SIGKILL, "Failed")])
def test_a_pod_that_was_told_to_end_ends_with_the_code_of_its_containers(code: int, phase: str) -> None:
    told = status(LEASE.terminated(a_pod("ab", status=RUNNING), None, code, NOW))
    assert told["phase"] == phase
    assert {one["status"] for one in told["conditions"] if one["type"] in ("Ready", "ContainersReady")} == {"False"}
    first, second = (one["state"]["terminated"] for one in told["containerStatuses"])
    assert (first["exitCode"], first["startedAt"], first["finishedAt"]) == (code, "2026-01-01T00:00:09Z", MOMENT)
    assert second["startedAt"] == "2026-01-01T00:00:00Z"
    assert [one["restartCount"] for one in told["containerStatuses"]] == [2, 0]


def test_what_had_failed_before_the_pod_was_told_to_end_makes_it_fail() -> None:
    pod = a_pod(policy="Always")
    life = a_life(pod, run_time="2", failure_rate=1)
    list(life.advance(NOW + 2))
    told = status(LEASE.terminated(pod, life, 0, NOW + 3))
    assert told["phase"] == "Failed"
    assert told["containerStatuses"][0]["state"]["terminated"]["finishedAt"] == "2026-03-04T05:06:09Z"
    assert "lastTransitionTime" not in told["conditions"][2]  # it had not been ready


def test_sidecars_end_after_the_containers() -> None:
    init, sidecar = status(LEASE.terminated(with_init(), None, 0, NOW))["initContainerStatuses"]
    assert (init["ready"], sidecar["ready"]) == (True, False)
    assert sidecar["state"]["terminated"]["finishedAt"] == MOMENT


def test_a_pod_that_was_told_to_end_before_it_ran_has_failed() -> None:
    told = status(LEASE.never_ran(a_pod(), NOW))
    assert told["phase"] == "Failed"
    assert conditions(told)["Ready"] == ("False", "ContainersNotReady")
    (one,) = told["containerStatuses"]
    assert (one["state"]["terminated"]["exitCode"], one["state"]["terminated"]["reason"]) == (
        137,
        "ContainerStatusUnknown",
    )
    assert "containerID" not in one


def test_go_durations() -> None:
    assert [go_duration(seconds) for seconds in (10, 80, 160, 300)] == ["10s", "1m20s", "2m40s", "5m0s"]


# above lease


def full_pod() -> objects.Pod:
    pod = a_pod()
    (container,) = pod.spec.containers
    container.resources = objects.Resources({"memory": "10Mi", "cpu": "10m"})
    container.volume_mounts = [objects.VolumeMount("token", "/var/run", True), objects.VolumeMount("s", "/s")]
    return pod


def test_a_full_kubelet_first_says_that_it_creates_the_containers() -> None:
    """The fields are those of a real kubelet's first patch (docs/fidelity.md)."""
    told = status(FULL.creating(full_pod(), "172.16.1.3", NOW))
    assert set(told) == {
        "$setElementOrder/conditions", "conditions", "containerStatuses", "hostIP", "hostIPs", "observedGeneration",
        "resources", "allocatedResources", "startTime",
    }  # fmt: skip
    assert [one["type"] for one in told["$setElementOrder/conditions"]] == [one["type"] for one in told["conditions"]]
    assert (
        told["resources"] == {"requests": told["allocatedResources"]} == {"requests": {"memory": "10Mi", "cpu": "10m"}}
    )
    (one,) = told["containerStatuses"]
    assert one["state"] == {"waiting": {"reason": "ContainerCreating"}}
    assert (one["imageID"], one["ready"], one["started"], one["restartCount"]) == ("", False, False, 0)
    assert one["volumeMounts"] == [
        {"name": "token", "mountPath": "/var/run", "readOnly": True, "recursiveReadOnly": "Disabled"},
        {"name": "s", "mountPath": "/s"},
    ]


def test_then_it_says_only_what_has_changed() -> None:
    sandboxed = status(FULL.sandboxed(full_pod(), NOW))
    assert sandboxed["conditions"] == [
        {"type": "PodReadyToStartContainers", "status": "True", "lastTransitionTime": MOMENT}
    ]
    told = status(FULL.running(full_pod(), "172.16.1.3", 1, NOW, NOW))
    assert set(told) == {
        "$setElementOrder/conditions", "conditions", "containerStatuses", "phase", "podIP", "podIPs",
    }  # fmt: skip
    assert told["containerStatuses"][0]["resources"] == {"requests": {"memory": "10Mi", "cpu": "10m"}}
    ending = status(FULL.terminating(a_pod(generation=2)))
    assert {one["observedGeneration"] for one in ending["conditions"]} == {2} == {ending["observedGeneration"]}
    assert "containerStatuses" not in ending


@pytest.mark.parametrize(("cpu", "shown"), [("10m", "2m"), ("100m", "79m"), ("1", "975m"), ("", None), ("2m", None)])
def test_a_pods_cgroup_shows_less_cpu_than_was_asked_for(cpu: str, shown: str | None) -> None:
    """10m → 2m is what a real kubelet shows on cgroup version 2."""
    pod = full_pod()
    assert pod.spec.containers[0].resources is not None
    pod.spec.containers[0].resources.requests = {"memory": "1Mi"} | ({"cpu": cpu} if cpu else {})
    patch = FULL.measured(pod)
    assert (status(patch) if patch else None) == ({"resources": {"requests": {"cpu": shown}}} if shown else None)


# events


def test_events_come_from_the_kubelet_of_the_node_and_have_names_of_their_own() -> None:
    pod = a_pod("ab")
    told = [
        events.event(pod, "vnode-00003", reason, "m", NOW, container=container)
        for container in "ab"
        for reason, _ in events.START
    ]
    assert {(e["source"]["component"], e["reportingInstance"]) for e in told} == {("kubelet", "vnode-00003")}
    assert told[0]["involvedObject"]["fieldPath"] == "spec.containers{a}"
    assert (told[0]["involvedObject"]["uid"], told[0]["involvedObject"]["resourceVersion"]) == ("u-1", "77")
    assert len({e["metadata"]["name"] for e in told}) == 6
    assert "fieldPath" not in events.event(pod, "vnode-00003", "Failed", "m", NOW)["involvedObject"]
    msgspec.json.encode(told)
