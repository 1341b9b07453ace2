"""What an inventory cannot be, each with the number that would do."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.turbokube.scale.plugins.filter.inventory_problems import inventory_problems

GOOD = {
    "etcd": ["etcd-0", "etcd-1", "etcd-2"],
    "control_plane": ["cp-0", "cp-1"],
    "load_balancer": ["lb-0"],
    "fleet": ["fleet-0"],
}
SETTINGS: dict[str, Any] = {
    "namespaces": 32,
    "vnodes_per_namespace": 8,
    "pods": 8192,
    "vnode_pods": 1024,
    "nodes": 2,
    "pod_subnet": "10.128.0.0/9",
    "service_subnet": "10.96.0.0/12",
    "node_cidr_mask": 24,
    "networks": {"etcd-0": "198.51.100.11", "cp-0": "198.51.100.21", "by-name": "cp.example"},
}


def test_nothing_is_wrong() -> None:
    assert inventory_problems(GOOD, SETTINGS) == []


@pytest.mark.parametrize(
    ("groups", "settings", "said"),
    [
        ({"etcd": ["a", "b"]}, {}, "Take 1 or 3"),
        ({"etcd": list("abcdefghi")}, {}, "7 at most"),
        ({"etcd": []}, {}, "2 hosts, each with a member of etcd since group etcd is empty: with an even number"),
        ({"control_plane": []}, {}, "at least one host"),
        ({"load_balancer": []}, {}, "control_plane_endpoint"),
        ({"etcd": ["cp-0"]}, {}, "all of them, or none"),
        ({"fleet": ["cp-1"]}, {}, "cp-1 are in control_plane and in fleet"),
        ({"controller_manager": ["cp-1"]}, {}, "cp-1 are in control_plane and in controller_manager"),
        ({}, {"networks": {"a": "192.0.2.1", "b": "192.0.2.1"}}, "a and b have the same address"),
        ({}, {"networks": {"a": "10.200.0.1"}}, "lies in pod_subnet"),
        ({}, {"service_subnet": "10.200.0.0/16"}, "overlap"),
        (
            {},
            {"pod_subnet": "10.0.0.0/16", "node_cidr_mask": 20},
            "holds 16 ranges of /20, and there will be 258 nodes: take a pod_subnet of /11 or a node_cidr_mask of 25.",
        ),
        ({}, {"namespaces": 5000, "node_cidr_mask": 20}, "40002 nodes: take a node_cidr_mask of 25."),
        ({}, {"namespaces": 1 << 21}, "nodes: take fewer vnodes."),
        ({}, {"node_cidr_mask": 8}, "larger than all pods' addresses"),
        ({}, {"vnode_pods": 16}, "take 512 vnodes"),
        ({}, {"vnodes_per_worker": 100}, "256 vnodes do not fit on 0 workers of 100: take 3"),
        ({"worker": ["w"]}, {"vnodes_per_worker": 401}, "more than the 400"),
        (
            {"worker": ["w"]},
            {"vnodes_per_worker": 300, "worker_memory_mib": 8192, "vnode_memory_mib": 40},
            "300 vnodes take 12000 MiB, and a worker has 8192 MiB",
        ),
    ],
)
def test_problem(groups: dict[str, list[str]], settings: dict[str, Any], said: str) -> None:
    problems = inventory_problems({**GOOD, **groups}, {**SETTINGS, **settings})
    assert [problem for problem in problems if said in problem], problems


def test_the_range_that_is_named_would_do() -> None:
    """As many ranges as the sentence asks for are enough for the nodes, and half of them are not."""
    settings = {**SETTINGS, "pod_subnet": "10.0.0.0/16", "node_cidr_mask": 24, "namespaces": 1024}
    assert "pod_subnet of /10" in inventory_problems(GOOD, settings)[0]
    assert inventory_problems(GOOD, {**settings, "pod_subnet": "10.0.0.0/11"})
    assert not inventory_problems(GOOD, {**settings, "pod_subnet": "10.128.0.0/10"})


def test_one_api_server_needs_no_balancer_and_a_cloud_has_its_own() -> None:
    assert not inventory_problems({**GOOD, "load_balancer": [], "control_plane": ["cp-0"]}, SETTINGS)
    assert not inventory_problems({**GOOD, "load_balancer": []}, {**SETTINGS, "endpoint": "192.0.2.9:6443"})


def test_even_members_are_fine_for_a_store_that_does_not_vote() -> None:
    assert not inventory_problems({**GOOD, "etcd": ["a", "b"]}, {**SETTINGS, "store": "kine"})
