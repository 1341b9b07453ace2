"""The thresholds that SLOs are promised within, on both sides."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.report.hand import Bundle
from turbokube.measure.facts import load_limits
from turbokube.measure.preconditions import Precondition, check, objects
from turbokube.measure.series import Metrics

RULE = load_limits()["preconditions"]


def checked(bundle: Bundle, **meta: Any) -> dict[str, Precondition]:
    with bundle.read() as reader:
        return {each.name: each for each in check(reader, Metrics(reader), meta, RULE)}


def counted(bundle: Bundle, resource: str, count: float, group: str = "") -> Bundle:
    return bundle.series("kube-apiserver-0", "apiserver_resource_objects", {0.0: count}, resource=resource, group=group)


@pytest.mark.parametrize(
    ("resource", "name", "most"),
    [
        ("nodes", "nodes", 5000),
        ("pods", "pods", 150_000),
        ("namespaces", "namespaces", 10_000),
        ("services", "services", 10_000),
        ("events", "events", 1_000_000),
        ("replicasets", "objects", 150_000),
    ],
)
def test_both_sides_of_a_threshold_of_the_cluster(bundle: Bundle, resource: str, name: str, most: int) -> None:
    counted(bundle, resource, most)
    assert checked(bundle)[name].met
    counted(again := Bundle(bundle.folder / "more"), resource, most + 1)
    assert checked(again)[name].met is False


def test_the_most_that_there_were_counts_and_custom_resources_do_not(bundle: Bundle) -> None:
    counted(bundle, "leases", 7, "coordination.k8s.io").series(
        "kube-apiserver-0", "apiserver_resource_objects", {0.0: 9.0, 5.0: 2.0}, resource="jobs", group="batch"
    )
    counted(bundle, "widgets", 900_000, "example.com")
    with bundle.read() as reader:
        assert objects(Metrics(reader)) == {"leases": 7.0, "jobs": 9.0}


def test_older_servers_write_the_group_behind_the_name(bundle: Bundle) -> None:
    for name in ("leases.coordination.k8s.io", "widgets.example.com", "pods"):
        bundle.series("kube-apiserver-0", "apiserver_storage_objects", {0.0: 3.0}, resource=name)
    with bundle.read() as reader:
        assert objects(Metrics(reader)) == {"leases": 3.0, "pods": 3.0}


@pytest.mark.parametrize(("replicas", "met"), [(3000, True), (3001, False)])
def test_pods_of_a_namespace(bundle: Bundle, replicas: int, met: bool) -> None:
    assert checked(bundle.deployment("a", replicas, 1.0))["pods-namespace"].met is met


@pytest.mark.parametrize(
    ("pods", "cores", "met"), [(110, "32", True), (111, "32", False), (40, "4", True), (41, "4000m", False)]
)
def test_pods_of_a_node_depend_on_its_cores(bundle: Bundle, pods: int, cores: str, met: bool) -> None:
    for number in range(pods):
        bundle.life(f"p{number}", "a", 1, 2)
    bundle.life("gone", "a", 1, 2, gone=3)
    found = checked(bundle, profile={"turbokube_vnode_cpu": cores})["pods-node"]
    assert found.met is met


def test_sizes_of_objects_and_of_all_of_a_type(bundle: Bundle) -> None:
    found = checked(counted(bundle, "pods", 1000), object_bytes={"pods": 1_500_001})
    assert (found["object-bytes"].met, found["type-bytes"].met) == (False, False)
    assert checked(Bundle(bundle.folder / "none"))["object-bytes"].met is None


@pytest.mark.parametrize(
    ("target", "met"),
    [
        ({"ours": True, "flags": {}}, False),
        ({"ours": True, "flags": {"kube-apiserver": {"etcd-servers-overrides": "/events#https://e"}}}, True),
        ({"ours": False}, None),
    ],
)
def test_an_etcd_of_their_own_for_events_is_told_and_voids_nothing(
    bundle: Bundle, target: dict[str, Any], met: bool | None
) -> None:
    found = checked(bundle, target=target)["events-etcd"]
    assert (found.met, found.voids) == (met, False)
