"""Room on workers: the scarcest of pods, addresses, memory and CPU decides, and the refusal says what would do."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from turbokube.workload import room

_NEED = room.Need(cores=0.1, memory=100 * 2**20)


def node(name: str = "worker-0", **changes: Any) -> room.Node:
    raw: dict[str, Any] = {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {
            "podCIDR": "10.0.1.0/24",
            "taints": changes.pop("taints", []),
            "unschedulable": changes.pop("cordoned", False),
        },
        "status": {
            "allocatable": {"pods": "110", "cpu": "4", "memory": "16Gi", **changes.pop("offers", {})},
            "conditions": [{"type": "Ready", "status": changes.pop("ready", "True")}],
        },
    }
    raw["spec"].update(changes)
    return msgspec.convert(raw, room.Node)


def pod(on: str, phase: str = "Running", host_network: bool = False, **asked: str) -> room.Pod:
    raw = {
        "metadata": {"name": "p"},
        "spec": {"nodeName": on, "hostNetwork": host_network, "containers": [{"resources": {"requests": asked}}]},
        "status": {"phase": phase},
    }
    return msgspec.convert(raw, room.Pod)


@pytest.mark.parametrize(
    ("text", "value"),
    [("100m", 0.1), ("2", 2.0), ("64Gi", 64 * 2**30), ("1500Ki", 1500 * 2**10), ("5M", 5e6), ("1e3", 1e3)],
)
def test_quantities(text, value):
    assert room.quantity(text) == pytest.approx(value)


@pytest.mark.parametrize(
    ("worker", "there", "pods", "bound"),
    [
        (node(), [], 40, "4.00 cores of CPU are free"),
        (node(offers={"cpu": "64"}), [], 110, "maxPods is 110, and 0 pods of others are there"),
        (node(offers={"cpu": "64"}), [pod("worker-0", host_network=True)] * 2, 108, "maxPods is 110, and 2 pods"),
        (node(offers={"cpu": "64", "pods": "500"}), [], 163, "16384 MiB of memory are free"),
        (node(podCIDR="10.0.1.0/28"), [pod("worker-0")], 12, "its range 10.0.1.0/28 has 13 addresses for pods"),
        (node(), [pod("worker-0", cpu="3500m"), pod("worker-1", cpu="4")], 5, "0.50 cores of CPU are free"),
        (node(), [pod("worker-0", phase="Succeeded", cpu="4")], 40, "4.00 cores"),
        (node(), [pod("worker-0", memory="32Gi")], 0, "-16384 MiB of memory are free"),
    ],
)
def test_the_scarcest_decides(worker, there, pods, bound):
    (found,) = room.rooms([worker], there, _NEED, {}, [])
    assert (found.worker, found.pods) == ("worker-0", pods)
    assert bound in found.bound


def test_workers_that_pods_may_not_go_to_do_not_count():
    taint = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
    nodes = [
        node("cordoned", cordoned=True),
        node("away", ready="Unknown"),
        node("control-plane", taints=[taint]),
        node("preferred", taints=[{**taint, "effect": "PreferNoSchedule"}]),
    ]
    assert [one.worker for one in room.rooms(nodes, [], _NEED, {}, [])] == ["preferred"]
    for toleration in (
        {"operator": "Exists"},
        {"key": taint["key"], "operator": "Exists", "effect": "NoSchedule"},
        {"key": taint["key"], "value": ""},
    ):
        found = room.rooms(nodes, [], _NEED, {}, [toleration])
        assert [one.worker for one in found] == ["control-plane", "preferred"]
    other = [{"key": taint["key"], "operator": "Exists", "effect": "NoExecute"}, {"key": "other", "operator": "Exists"}]
    assert [one.worker for one in room.rooms(nodes, [], _NEED, {}, other)] == ["preferred"]
    label = {"kubernetes.io/hostname": "other"}
    assert room.rooms(nodes, [], _NEED, label, []) == []
    assert [room.obstacle(one, {}, []) for one in nodes] == ["cordoned", "not Ready", f"tainted {taint['key']}", ""]
    assert room.obstacle(nodes[3], label, []) == "without the label kubernetes.io/hostname=other"


def test_what_does_not_fit_is_told_with_what_would():
    found = [room.Room("a", 110, "maxPods is 110"), room.Room("b", 90, "0.50 cores of CPU are free")]
    assert room.problem(found, 200, 1, {}) == ""
    words = room.problem(found, 512, 1, {})
    assert words == (
        "512 pods of 1 vnodes do not fit on 2 workers, which take 200 (b 90: 0.50 cores of CPU are free); "
        "set vnodes_per_pod to 3 or more, or have more workers"
    )
    assert "it has no node" in room.problem([], 1, 8, {})
    none = room.problem([room.Room("a", 0, "full")], 1, 8, {"b": "tainted x"})
    assert none.endswith("no room for a single pod of 8 vnodes: b: tainted x; a: full")
