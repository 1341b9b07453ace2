"""Vnodes at fidelity kubelet and node on a real control plane: to it, each is a node of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.control_plane import ControlPlane, binaries
from tests.integration.fleets import Fleet, wait_for
from turbokube.daemon import process
from turbokube.vnode.spec import Spec

COUNT, PODS = 20, 40
SPEC = Spec(run="kubelettest", count=COUNT, connections=4)
NAMES = [SPEC.name(index) for index in range(COUNT)]
OF_A_KUBELET = {"services": 1, "csidrivers": 1, "runtimeclasses": 1, "nodes": 1, "pods": 1}
OF_A_PROXY = {"services": 1, "servicecidrs": 1, "endpointslices": 1, "nodes": 1}


class Vnodes(Fleet):
    """A fleet of one fidelity, and what the control plane had before it."""

    def __init__(self, plane: ControlPlane, fidelity: str, state: Path | None = None, **spec: Any) -> None:
        super().__init__(plane, msgspec.structs.replace(SPEC, fidelity=fidelity, **spec), state)
        self.before = self.open_watches()

    def open_watches(self) -> dict[str, int]:
        """How many watches the API server serves now, by resource."""
        found: dict[str, int] = {}
        text = self.plane.kubectl("get", "--raw", "/metrics")
        for labels, value in re.findall(r"^apiserver_longrunning_requests\{(.*)\} (\S+)$", text, re.MULTILINE):
            if 'verb="WATCH"' in labels:
                resource = re.search(r'resource="([^"]*)"', labels)[1]  # type: ignore[index]
                found[resource] = found.get(resource, 0) + int(float(value))
        return found

    def own_watches(self) -> dict[str, int]:
        """How many of them came with the vnodes."""
        return {name: count - self.before.get(name, 0) for name, count in self.open_watches().items()}

    def as_node(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What kubectl does with the identity of a vnode."""
        pem = self.state / "fleet" / "pki" / f"{name}.pem"
        file = pem.with_suffix(".conf")
        file.touch(mode=0o600)
        admin = json.loads(self.plane.kubectl("config", "view", "--raw", "-o", "json"))
        admin["users"] = [
            {"name": user["name"], "user": {"client-certificate": str(pem), "client-key": str(pem)}}
            for user in admin["users"]
        ]
        file.write_text(json.dumps(admin))
        try:
            return subprocess.run(
                [binaries()["kubectl"], f"--kubeconfig={file}", *arguments], capture_output=True, text=True, check=False
            )
        finally:
            file.unlink()

    def watched(self, pods: bool = True) -> bool:
        """Whether every vnode has all its watches."""
        wanted = dict(OF_A_KUBELET)
        if self.spec.fidelity == "node":
            for resource, count in OF_A_PROXY.items():
                wanted[resource] = wanted.get(resource, 0) + count
        own = self.own_watches()
        return all(own.get(resource, 0) >= count * COUNT for resource, count in wanted.items())


@pytest.fixture(scope="module", params=["kubelet", "node"])
def vnodes(request: pytest.FixtureRequest, plane: ControlPlane) -> Iterator[Vnodes]:
    it = Vnodes(plane, request.param)
    it.present()
    try:
        yield it
    finally:
        it.absent()
    assert it.items("nodes") == it.items("leases", "-n", "kube-node-lease") == it.items("csinodes") == []
    assert process.find(plane.state, "fleet") is None
    assert not (plane.state / "fleet" / "pki").exists()


@pytest.fixture(scope="module")
def load(vnodes: Vnodes) -> Iterator[dict[str, str]]:
    """The uids and addresses of the pods of a Deployment that runs."""
    with vnodes.carrying(PODS):
        yield vnodes.running()


def test_each_vnode_has_what_a_kubelet_makes(vnodes: Vnodes) -> None:
    nodes = {node["metadata"]["name"]: node for node in vnodes.items("nodes")}
    leases = {lease["metadata"]["name"]: lease for lease in vnodes.items("leases", "-n", "kube-node-lease")}
    storage = {node["metadata"]["name"]: node for node in vnodes.items("csinodes")}
    assert sorted(nodes) == sorted(leases) == sorted(storage) == NAMES
    assert len(vnodes.last_transitions()) == COUNT
    for name, node in nodes.items():
        assert len(node["status"]["images"]) == 50
        assert node["metadata"]["labels"]["kubernetes.io/role"] == "agent"  # which the node may not set itself
        assert 11_000 < len(json.dumps(node, separators=(",", ":"))) < 16_000
        for owned in (leases[name], storage[name]):
            assert owned["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


def test_each_vnode_is_system_node_and_may_what_nodes_may(vnodes: Vnodes) -> None:
    who = json.loads(vnodes.as_node(NAMES[3], "auth", "whoami", "-o", "json").stdout)["status"]["userInfo"]
    assert who["username"] == f"system:node:{NAMES[3]}"
    assert "system:nodes" in who["groups"]
    # only the node authorizer lets anybody of the fleet make CSINodes and renew under these names
    (written,) = {
        entry["manager"]
        for lease in vnodes.items("leases", "-n", "kube-node-lease", "--show-managed-fields")
        for entry in lease["metadata"]["managedFields"]
    }
    assert written == "kubelet"
    other = vnodes.as_node(NAMES[3], "label", "node", NAMES[4], "turbokube.io/mine=1")
    assert "is not allowed to modify node" in other.stderr or "cannot" in other.stderr
    tainted = vnodes.as_node(NAMES[3], "taint", "node", NAMES[3], "turbokube.io/more=1:NoSchedule")
    assert "is not allowed to modify taints" in tainted.stderr


def test_each_vnode_has_its_own_connection_and_watches(vnodes: Vnodes) -> None:
    wait_for(vnodes.watched)
    name = vnodes.spec.fidelity
    assert vnodes.metrics("turbokube_fleet_info") == {f'turbokube_fleet_info{{engine="builtin",fidelity="{name}"}}': 1}
    per_vnode = {"kubelet": (1, 5), "node": (2, 9)}[name]
    (connections,) = vnodes.metrics("turbokube_fleet_connections").values()
    (watches,) = vnodes.metrics("turbokube_fleet_watches").values()
    assert 0 <= connections - per_vnode[0] * COUNT <= SPEC.connections  # the fleet's own are few
    assert watches == per_vnode[1] * COUNT


def test_pods_run_and_end(vnodes: Vnodes, load: dict[str, str]) -> None:
    assert len(set(load.values())) == PODS
    assert vnodes.status()["pods"]["Running"] == PODS
    # each node with pods that mount a token watches the CA that they trust
    hosts = {pod["spec"]["nodeName"] for pod in vnodes.items("pods", "-l", "app=load")}
    wait_for(lambda: vnodes.own_watches().get("configmaps", 0) >= len(hosts))
    requests = vnodes.metrics("turbokube_fleet_requests_total")
    # the node authorizer may learn of a pod after its kubelet, and then takes what is the pod's for another node's
    early = re.compile(r'resource="(configmaps|pods|pods/status|serviceaccounts/token)",code="403"')
    refused = [name for name in requests if re.search(r'code="(4(?!04|09)|5)\d', name) and not early.search(name)]
    assert not refused, requests
    vnodes.plane.kubectl("scale", "deployment", "load", f"--replicas={PODS // 2}")
    wait_for(lambda: len(vnodes.items("pods", "-l", "app=load")) == PODS // 2)
    vnodes.plane.kubectl("scale", "deployment", "load", f"--replicas={PODS}")
    wait_for(lambda: len(vnodes.running()) == PODS)


def test_a_killed_engine_is_replaced_and_nothing_changes(vnodes: Vnodes, load: dict[str, str]) -> None:
    nodes, pods = vnodes.last_transitions(), vnodes.running()
    vnodes.process().signal(signal.SIGKILL)
    wait_for(lambda: process.find(vnodes.plane.state, "fleet") is None)
    assert vnodes.present().changed
    wait_for(lambda: vnodes.status()["pods"]["Running"] == PODS)
    wait_for(vnodes.watched)
    wait_for(lambda: vnodes.status()["oldest_renewal"] < SPEC.lease_interval + 2)
    assert vnodes.running() == pods
    assert vnodes.last_transitions() == nodes
    assert sum(vnodes.metrics("turbokube_fleet_pod_starts_total").values()) == 0


def test_a_node_that_somebody_deletes_registers_again(vnodes: Vnodes) -> None:
    path = ("get", "node", NAMES[-1], "-o", "jsonpath={.metadata.uid}")
    uid = vnodes.plane.kubectl(*path)
    vnodes.plane.kubectl("delete", "node", NAMES[-1])
    wait_for(lambda: len(vnodes.last_transitions()) == COUNT)
    assert vnodes.plane.kubectl(*path) != uid
    wait_for(lambda: vnodes.status()["ready"] == COUNT)


@pytest.mark.slow
def test_renewals_are_those_of_client_gos_jitter(vnodes: Vnodes) -> None:
    def counted() -> tuple[float, float, float, float]:
        made = sum(vnodes.metrics("turbokube_fleet_lease_renewals_total").values())
        spent = vnodes.metrics("turbokube_fleet_lease_latency_seconds_sum")["turbokube_fleet_lease_latency_seconds_sum"]
        return made, spent, time.monotonic(), vnodes.status()["oldest_renewal"]

    first = counted()
    time.sleep(120.0)
    last = counted()
    made, spent, seconds = (after - before for before, after in zip(first[:3], last[:3], strict=True))
    due = COUNT * seconds / (SPEC.lease_interval * 1.02 + spent / made)
    assert made / due == pytest.approx(1.0, abs=0.03)
    assert last[3] < SPEC.lease_interval * 1.04 + 1
    assert vnodes.watched()


@pytest.mark.slow
def test_no_vnode_is_lost_while_the_api_server_is_away(vnodes: Vnodes, load: dict[str, str]) -> None:
    nodes, server = vnodes.last_transitions(), process.find(vnodes.plane.state, "kube-apiserver-0")
    assert server is not None
    server.signal(signal.SIGSTOP)  # connections stay open, answers do not come
    time.sleep(15.0)
    server.signal(signal.SIGKILL)  # its supervisor brings it back
    wait_for(lambda: process.find(vnodes.plane.state, "kube-apiserver-0") not in (None, server))

    def recovered() -> bool:
        status = vnodes.status()
        return status["oldest_renewal"] < SPEC.lease_interval + 2 and status["ready"] == COUNT

    wait_for(recovered, 120.0)
    vnodes.before = {}
    wait_for(vnodes.watched, 90.0)
    time.sleep(10.0)  # two rounds of the controller manager's monitor
    assert vnodes.last_transitions() == nodes
    assert load.items() <= vnodes.running().items()


@pytest.mark.slow
def test_vnodes_join_by_certificates_that_they_ask_for(plane: ControlPlane, tmp_path: Path) -> None:
    it = Vnodes(plane, "kubelet", tmp_path, run="csrtest", name_prefix="asked-", join="csr")
    try:
        assert it.present().status["ready"] == COUNT
        who = json.loads(it.as_node("asked-00000", "auth", "whoami", "-o", "json").stdout)["status"]["userInfo"]
        assert who["username"] == "system:node:asked-00000"
        assert not [secret for secret in it.items("secrets", "-n", "kube-system") if "bootstrap" in secret["type"]]
    finally:
        it.absent()
    left = it.items("nodes") + it.items("leases", "-n", "kube-node-lease") + it.items("csinodes")
    assert not [one for one in left if one["metadata"]["name"].startswith("asked-")]
