"""The fleet on a real control plane: it joins, carries pods, survives, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.control_plane import ControlPlane, playbook
from tests.integration.fleets import Fleet, wait_for
from turbokube.daemon import process
from turbokube.vnode import fleet
from turbokube.vnode.spec import Spec

COUNT, PODS = 50, 100
SPEC = Spec(run="fleettest", count=COUNT, connections=4)


@pytest.fixture(scope="module")
def vnodes(plane: ControlPlane) -> Iterator[Fleet]:
    it = Fleet(plane, SPEC)
    it.present()
    try:
        yield it
    finally:
        it.absent()


@pytest.fixture(scope="module")
def load(vnodes: Fleet) -> Iterator[dict[str, str]]:
    """The uids and addresses of the pods of a Deployment that runs."""
    with vnodes.carrying(PODS):
        yield vnodes.running()


def test_vnodes_are_ready_nodes_with_leases_of_their_own(vnodes: Fleet) -> None:
    nodes, leases = vnodes.items("nodes"), vnodes.items("leases", "-n", "kube-node-lease")
    assert len(nodes) == len(leases) == len(vnodes.last_transitions()) == COUNT
    uids = {node["metadata"]["name"]: node["metadata"]["uid"] for node in nodes}
    assert {lease["metadata"]["ownerReferences"][0]["uid"] for lease in leases} == set(uids.values())
    assert all(lease["spec"]["holderIdentity"] == lease["metadata"]["name"] for lease in leases)
    assert len({node["status"]["addresses"][0]["address"] for node in nodes}) == COUNT
    taints = {taint["value"] for node in nodes for taint in node["spec"]["taints"]}
    assert taints == {f"{index:04x}" for index in range(-(-COUNT // 8))}


def test_leases_are_the_fleets_in_the_level_of_nodes_and_on_time(vnodes: Fleet) -> None:
    before, began = vnodes.metric("turbokube_fleet_lease_renewals_total"), time.monotonic()
    time.sleep(20.0)
    renewals, seconds = vnodes.metric("turbokube_fleet_lease_renewals_total") - before, time.monotonic() - began
    assert renewals == pytest.approx(COUNT * seconds / SPEC.lease_interval, rel=0.05)
    assert vnodes.metric("turbokube_fleet_lease_oldest_renewal_seconds") < SPEC.lease_interval + 2
    dispatched = re.search(
        r'dispatched_requests_total\{flow_schema="system-node-high",priority_level="node-high"\} (\S+)',
        vnodes.plane.kubectl("get", "--raw", "/metrics"),
    )
    assert dispatched is not None
    # every Node and Lease was made in it too
    assert float(dispatched[1]) >= vnodes.metric("turbokube_fleet_lease_renewals_total") + 2 * COUNT - 1
    lease = vnodes.items("leases", "-n", "kube-node-lease", "--show-managed-fields")[0]
    assert {entry["manager"] for entry in lease["metadata"]["managedFields"]} == {"turbokube-fleet"}


def test_pods_run_with_addresses_of_their_nodes_and_events(vnodes: Fleet, load: dict[str, str]) -> None:
    assert len(set(load.values())) == PODS
    ranges = {node["metadata"]["name"]: node["spec"]["podCIDR"].rpartition(".")[0] for node in vnodes.items("nodes")}
    for pod in vnodes.items("pods", "-l", "app=load"):
        assert pod["status"]["podIP"].rpartition(".")[0] == ranges[pod["spec"]["nodeName"]]
        assert {c["type"] for c in pod["status"]["conditions"] if c["status"] == "True"} == {
            "PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled",
        }  # fmt: skip

    def told() -> bool:
        events = [event for event in vnodes.items("events") if event["reason"] == "Started"]
        return {event["involvedObject"]["uid"] for event in events} >= set(load)

    wait_for(told)


def test_a_killed_engine_is_replaced_and_nothing_changes(vnodes: Fleet, load: dict[str, str]) -> None:
    nodes = vnodes.last_transitions()
    vnodes.process().signal(signal.SIGKILL)
    wait_for(lambda: process.find(vnodes.plane.state, "fleet") is None)
    assert vnodes.status() == {"running": False}
    assert vnodes.present().changed
    wait_for(lambda: vnodes.status()["pods"]["Running"] == PODS)
    assert vnodes.running() == load
    assert vnodes.last_transitions() == nodes
    assert vnodes.metric("turbokube_fleet_pod_starts_total") == 0


def test_pods_bound_while_the_engine_was_away_are_started(vnodes: Fleet, load: dict[str, str]) -> None:
    vnodes.process().signal(signal.SIGKILL)
    vnodes.plane.kubectl("scale", "deployment", "load", f"--replicas={PODS + 20}")
    wait_for(lambda: len([p for p in vnodes.items("pods") if p["spec"].get("nodeName")]) == PODS + 20)
    vnodes.present()
    wait_for(lambda: len(vnodes.running()) == PODS + 20)
    assert load.items() <= vnodes.running().items()
    assert len(set(vnodes.running().values())) == PODS + 20


def test_no_vnode_is_lost_while_the_api_server_is_away(vnodes: Fleet, load: dict[str, str]) -> None:
    nodes, server = vnodes.last_transitions(), process.find(vnodes.plane.state, "kube-apiserver-0")
    assert server is not None
    server.signal(signal.SIGSTOP)  # connections stay open, answers do not come
    time.sleep(15.0)
    server.signal(signal.SIGKILL)  # its supervisor brings it back

    def recovered() -> bool:
        status = vnodes.status()
        return status["oldest_renewal"] < SPEC.lease_interval + 2 and status["ready"] == COUNT

    wait_for(recovered, 90.0)
    time.sleep(10.0)  # two rounds of the controller manager's monitor
    assert vnodes.last_transitions() == nodes
    assert load.items() <= vnodes.running().items()
    assert vnodes.metric("turbokube_fleet_lease_renewal_errors_total") > 0


def test_deleted_pods_end_within_their_grace_period(vnodes: Fleet, load: dict[str, str]) -> None:
    vnodes.plane.kubectl("scale", "deployment", "load", f"--replicas={PODS // 2}")
    began = time.monotonic()
    wait_for(lambda: len(vnodes.items("pods", "-l", "app=load")) == PODS // 2)
    assert time.monotonic() - began < 25.0  # the grace period is 30 s, and containers end on SIGTERM
    assert vnodes.status()["pods"]["Terminating"] == 0


def test_a_node_that_somebody_deletes_registers_again(vnodes: Fleet) -> None:
    uid = vnodes.plane.kubectl("get", "node", "vnode-00049", "-o", "jsonpath={.metadata.uid}")
    vnodes.plane.kubectl("delete", "node", "vnode-00049")
    wait_for(lambda: len(vnodes.last_transitions()) == COUNT)
    assert vnodes.plane.kubectl("get", "node", "vnode-00049", "-o", "jsonpath={.metadata.uid}") != uid
    wait_for(lambda: vnodes.status()["ready"] == COUNT)


def test_the_fleet_grows_and_shrinks_at_its_end(vnodes: Fleet) -> None:
    before = {node["metadata"]["name"]: node["metadata"]["uid"] for node in vnodes.items("nodes")}
    pid = vnodes.process().pid
    assert vnodes.present(count=COUNT + 10).status["ready"] == COUNT + 10
    assert vnodes.present(count=20).changed
    assert not vnodes.present(count=20).changed
    assert vnodes.process().pid == pid
    after = {node["metadata"]["name"]: node["metadata"]["uid"] for node in vnodes.items("nodes")}
    assert after == {name: uid for name, uid in before.items() if int(name[-5:]) < 20}
    assert {lease["metadata"]["name"] for lease in vnodes.items("leases", "-n", "kube-node-lease")} == set(after)
    vnodes.present()


def test_another_number_of_processes_takes_over_and_one_that_dies_comes_back_alone(
    vnodes: Fleet, load: dict[str, str]
) -> None:
    nodes = vnodes.last_transitions()
    pods = vnodes.running()
    result = vnodes.present(processes=3)
    assert result.started == ["fleet-0", "fleet-1", "fleet-2"]
    assert not vnodes.present(processes=3).changed
    wait_for(lambda: vnodes.status()["pods"]["Running"] == len(pods))
    before = [(found.name, found.pid) for found in process.marked(vnodes.plane.state)]
    victim = process.find(vnodes.plane.state, "fleet-1")
    assert victim is not None
    victim.signal(signal.SIGKILL)
    wait_for(lambda: not victim.alive())
    assert vnodes.status()["dead"] == ["fleet-1"]
    again = vnodes.present(processes=3)
    assert (again.started, again.metrics_urls) == (["fleet-1"], result.metrics_urls)
    after = [(found.name, found.pid) for found in process.marked(vnodes.plane.state)]
    assert set(before) - set(after) == {("fleet-1", victim.pid)}
    vnodes.plane.kubectl("scale", "deployment", "load", f"--replicas={len(pods) + 30}")  # on vnodes of all processes
    wait_for(lambda: len(vnodes.running()) == len(pods) + 30)
    vnodes.plane.kubectl("scale", "deployment", "load", f"--replicas={len(pods)}")
    wait_for(lambda: len(vnodes.items("pods", "-l", "app=load")) == len(pods))
    assert vnodes.last_transitions() == nodes
    assert vnodes.present(processes=3, count=20).status["wanted"] == 20
    assert len(vnodes.items("nodes")) == 20
    vnodes.present()


def test_a_node_of_somebody_else_is_neither_taken_nor_deleted(vnodes: Fleet, tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text(
        json.dumps({"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"vnode-{COUNT:05d}"}})
    )
    vnodes.plane.kubectl("create", "-f", str(tmp_path / "node.json"))
    with pytest.raises(fleet.FleetError, match=r"name_prefix is 'vnode-', but a node vnode-00050 that is not of run"):
        vnodes.present(count=COUNT + 1)
    vnodes.present()
    assert vnodes.plane.kubectl("get", "node", f"vnode-{COUNT:05d}", "-o", "name").strip() == f"node/vnode-{COUNT:05d}"
    vnodes.plane.kubectl("delete", "node", f"vnode-{COUNT:05d}")


def test_an_engine_that_dies_at_its_start_says_why(vnodes: Fleet, tmp_path: Path) -> None:
    stranger = msgspec.structs.replace(
        vnodes.target, kubeconfigs={**vnodes.target.kubeconfigs, "fleet": vnodes.target.kubeconfigs["scraper"]}
    )
    with pytest.raises(fleet.FleetError, match=r"(?s)daemon.*403 Forbidden"):
        fleet.present(lambda: stranger, tmp_path, SPEC, timeout=30)


def test_the_role_is_idempotent_and_obeys_check_mode(vnodes: Fleet) -> None:
    assert vnodes.absent().changed
    assert not vnodes.absent().changed

    def apply(*arguments: str, **variables: Any) -> int:
        play = {"hosts": "fleet", "gather_facts": False, "roles": [{"role": "turbokube.scale.fleet"}]}
        given = {"fleet_state_dir": str(vnodes.plane.state), "fleet_run": SPEC.run, "fleet_connections": 4}
        return playbook([play], {**given, **variables}, {"fleet": 1}, *arguments)["fleet-0"]["changed"]

    assert apply("--check", fleet_count=10) == 1
    assert vnodes.items("nodes") == []
    assert apply(fleet_count=10) == 1
    assert apply(fleet_count=10) == 0
    assert len(vnodes.items("nodes")) == 10
    assert apply(fleet_count=6) == 1
    assert len(vnodes.items("nodes")) == 6
    assert apply("--check", fleet_state="absent") == 1
    assert apply(fleet_state="absent") == 1
    assert apply(fleet_state="absent") == 0
    assert vnodes.items("nodes") == vnodes.items("leases", "-n", "kube-node-lease") == []
    assert process.find(vnodes.plane.state, "fleet") is None


def test_check_mode_on_a_bare_machine_starts_nothing(tmp_path: Path) -> None:
    play = {"hosts": "fleet", "gather_facts": False, "roles": [{"role": "turbokube.scale.fleet"}]}
    given = {"fleet_state_dir": str(tmp_path / "none"), "fleet_run": "bare", "fleet_count": 10}
    playbook([play], given, {"fleet": 1}, "--check")
    assert not (tmp_path / "none").exists()
