"""A fleet as a StatefulSet, on a control plane that is target and fleet cluster at once.

Its workers are vnodes, which take pods to Ready without running them; what these would run are processes of the test,
told what their Secret says.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.control_plane import ControlPlane
from tests.integration.fleets import Fleet, wait_for
from turbokube.api.target import load_target
from turbokube.vnode.fleet import FleetError
from turbokube.vnode.spec import Spec
from turbokube.workload import fleet, pods
from turbokube.workload.cluster import WorkloadError

WORKERS = Spec(run="workers", count=2, name_prefix="worker-", placement="cluster", connections=2)
SPEC = Spec(run="carried", count=48, block=16, connections=2)
RUN_REPLICA = (
    "import pathlib, sys, turbokube.vnode.replica as r; r.FOLDER = pathlib.Path(sys.argv[1]); "
    "r.PORT = int(sys.argv[2]); r.main()"
)
pytestmark = pytest.mark.slow


class Carried:
    """The fleet under test, and the processes in place of its pods."""

    def __init__(self, plane: ControlPlane, folder: Path) -> None:
        self.plane = plane
        self.target = load_target(plane.target)
        self.folder = folder
        self.state = folder / "state"
        self.replicas: dict[int, tuple[subprocess.Popen[bytes], int]] = {}
        self.carrier = pods.Carrier(
            namespace=pods.namespace_of(SPEC.run),
            image="localhost/turbokube:0",
            node_selector={"turbokube.io/run": WORKERS.run},
            tolerations=[{"key": "turbokube.io/vnode", "operator": "Exists"}],
        )

    def present(self, wait: bool = True, check_mode: bool = False, **changes: Any) -> fleet.Carried:
        carrier = {name: changes.pop(name) for name in list(changes) if name in pods.Carrier.__struct_fields__}
        return fleet.present(
            lambda: self.target,
            self.target.credential("admin"),
            self.state,
            msgspec.structs.replace(SPEC, **changes),
            msgspec.structs.replace(self.carrier, **carrier),
            wait=wait,
            timeout=60,
            check_mode=check_mode,
        )

    def absent(self, check_mode: bool = False, namespace: str = "") -> fleet.Carried:
        return fleet.absent(
            self.target,
            self.target.credential("admin"),
            self.state,
            SPEC,
            namespace or self.carrier.namespace,
            check_mode=check_mode,
        )

    def get(self, *arguments: str) -> Any:
        return json.loads(self.plane.kubectl("get", "-n", self.carrier.namespace, *arguments, "-o", "json"))

    def names(self, kind: str, *arguments: str) -> list[str]:
        found = json.loads(self.plane.kubectl("get", kind, *arguments, "-l", "turbokube.io/run=carried", "-o", "json"))
        return sorted(one["metadata"]["name"] for one in found["items"])

    def run(self, *ordinals: int) -> None:
        """What the pods of these ordinals would run."""
        told = self.get("secret", "fleet")["data"]
        for ordinal in ordinals:
            folder = self.folder / str(ordinal)
            folder.mkdir(exist_ok=True)
            for name, data in told.items():
                (folder / name).write_bytes(base64.b64decode(data).replace(b"/etc/turbokube", str(folder).encode()))
            with socket.socket() as one:
                one.bind(("127.0.0.1", 0))
                port = one.getsockname()[1]
            argv = [sys.executable, "-c", RUN_REPLICA, str(folder), str(port)]
            with (self.folder / f"{ordinal}.log").open("ab") as log:
                child = subprocess.Popen(argv, env=os.environ | {"TURBOKUBE_ORDINAL": str(ordinal)}, stderr=log)
            self.replicas[ordinal] = child, port

    def end(self, *ordinals: int) -> None:
        for ordinal in ordinals:
            child, _ = self.replicas.pop(ordinal)
            child.terminate()
            assert child.wait(10) == 0

    def ask(self, ordinal: int, path: str) -> tuple[int, str]:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.replicas[ordinal][1]}{path}") as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
        return 0, ""


@pytest.fixture(scope="module")
def carried(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carried]:
    workers = Fleet(plane, WORKERS, tmp_path_factory.mktemp("workers"))
    workers.present()
    it = Carried(plane, tmp_path_factory.mktemp("carried"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleet, "_LOOPBACK", ("nowhere",))  # here pods and processes share it
        try:
            yield it
        finally:
            it.end(*list(it.replicas))
            it.absent()
            workers.absent()


def test_what_does_not_fit_is_refused_before_anything_is_made(carried: Carried) -> None:
    with pytest.raises(
        WorkloadError, match=r"3 pods of 16 vnodes do not fit on 2 workers, which take 2 \(worker-0000\d 1: "
    ):
        carried.present(memory="40Gi")
    with pytest.raises(WorkloadError, match="no worker is Ready"):
        carried.present(node_selector={"turbokube.io/run": "none"})
    assert "turbokube-carried" not in carried.plane.kubectl("get", "namespaces")


def test_it_is_made_once_and_check_mode_makes_nothing(carried: Carried) -> None:
    assert carried.present(check_mode=True).changed
    assert "turbokube-carried" not in carried.plane.kubectl("get", "namespaces")
    assert carried.present(wait=False).changed
    assert not carried.present(wait=False).changed
    assert not carried.present(wait=False, check_mode=True).changed
    assert carried.present(wait=False, check_mode=True, start_delay="1").changed
    assert carried.get("statefulset", "fleet")["spec"]["replicas"] == 3


def test_its_pods_spread_and_its_vnodes_join(carried: Carried) -> None:
    carried.run(0, 1, 2)
    result = carried.present()
    assert not result.changed
    assert result.status == {"joined": 48, "ready": 48}
    pods = carried.get("pods")["items"]
    assert sorted(pod["metadata"]["name"] for pod in pods) == ["fleet-0", "fleet-1", "fleet-2"]
    assert len({pod["spec"]["nodeName"] for pod in pods}) == 2
    assert [carried.ask(ordinal, "/readyz") for ordinal in range(3)] == [(200, "ok\n")] * 3
    wanted = 'turbokube_fleet_vnodes{state="ready"} 16'
    assert all(wanted in carried.ask(ordinal, "/metrics")[1] for ordinal in range(3))


def test_the_scraper_may_ask_pods_for_metrics_and_nothing_else(carried: Carried) -> None:
    components = carried.present().components
    assert [one.name for one in components] == ["fleet-0", "fleet-1", "fleet-2"]
    assert components[1].metrics_path == "/api/v1/namespaces/turbokube-carried/pods/fleet-1:10255/proxy/metrics"
    token = Path(str(components[0].token_file))
    assert token.stat().st_mode & 0o777 == 0o600
    roles = carried.get("role", "scraper")["rules"]
    assert roles == [{"apiGroups": [""], "resources": ["pods/proxy"], "verbs": ["get"]}]


def test_the_next_replica_takes_over_the_nodes_of_one_that_ended(carried: Carried) -> None:
    before = {node["metadata"]["name"]: node["metadata"]["uid"] for node in carried.get("nodes")["items"]}
    carried.end(1)
    carried.run(1)
    wait_for(lambda: carried.ask(1, "/readyz")[0] == 200, 30)
    after = {node["metadata"]["name"]: node["metadata"]["uid"] for node in carried.get("nodes")["items"]}
    assert after == before


def test_another_size_of_block_is_refused_while_there_are_nodes(carried: Carried) -> None:
    with pytest.raises(FleetError, match="vnodes_per_pod is 8, but the pods of this fleet were made with 16"):
        carried.present(block=8)


def test_a_smaller_fleet_leaves_nothing_of_the_larger(carried: Carried) -> None:
    carried.present(wait=False, count=16)
    carried.end(1, 2)
    result = carried.present(count=16)
    # the first call had changed it; what replicas have left is removed by the one that waits
    names = [f"vnode-{number:05d}" for number in range(16)]
    assert result.status == {"joined": 16, "ready": 16}
    assert carried.names("nodes") == names
    assert carried.names("leases", "-n", "kube-node-lease") == names
    assert [pod["metadata"]["name"] for pod in carried.get("pods")["items"]] == ["fleet-0"]


def test_nothing_is_left_when_it_is_absent(carried: Carried) -> None:
    assert carried.absent(check_mode=True).changed
    carried.end(0)
    assert carried.absent().changed
    assert carried.names("nodes") == carried.names("leases", "-n", "kube-node-lease") == []
    assert "turbokube-carried" not in carried.plane.kubectl("get", "namespaces")
    assert not carried.absent().changed


def test_a_namespace_that_was_there_is_used_and_stays(carried: Carried) -> None:
    carried.plane.kubectl("create", "namespace", "others")
    carried.plane.kubectl("create", "-n", "others", "secret", "generic", "registry")
    carried.present(wait=False, count=16, namespace="others")
    there = "get", "-n", "others", "statefulsets,secrets,serviceaccounts,roles,rolebindings,pods", "-o", "name"
    assert "statefulset.apps/fleet" in carried.plane.kubectl(*there)
    assert carried.absent(namespace="others").changed
    assert carried.plane.kubectl(*there).split() == ["secret/registry", "serviceaccount/default"]
    assert not carried.absent(namespace="others").changed


def test_the_namespace_of_another_run_is_refused(carried: Carried) -> None:
    carried.plane.kubectl("create", "namespace", "taken")
    carried.plane.kubectl("label", "namespace", "taken", "turbokube.io/run=other")
    with pytest.raises(WorkloadError, match="namespace taken of the fleet cluster is run other's"):
        carried.present(wait=False, namespace="taken")
