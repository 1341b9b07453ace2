"""The server side of vnodes on a real control plane: who may call, what they are told, and by way of the API server.

With TURBOKUBE_METRICS_SERVER, the path of a metrics-server (sigs.k8s.io/metrics-server), `kubectl top` is tried too.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.integration.control_plane import ControlPlane, binaries
from tests.integration.fleets import wait_for
from turbokube.api.target import load_target
from turbokube.vnode import fleet
from turbokube.vnode.spec import Spec, SpecError

METRICS_SERVER = os.environ.get("TURBOKUBE_METRICS_SERVER", "")
READER, STRANGER = "metrics-reader", "stranger"
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "served", "namespace": "default"},
    "spec": {
        "replicas": 4,
        "selector": {"matchLabels": {"app": "served"}},
        "template": {
            "metadata": {
                "labels": {"app": "served"},
                "annotations": {"turbokube.io/cpu-usage": "200m", "turbokube.io/memory-usage": "100Mi"},
            },
            "spec": {
                "nodeSelector": {"turbokube.io/run": "servertest"},
                "tolerations": [{"key": "turbokube.io/namespace", "operator": "Exists"}],
                "containers": [{"name": "c", "image": "pause", "resources": {"requests": {"cpu": "100m"}}}],
            },
        },
    },
}


class Served:
    """A fleet whose vnodes serve, and pods on it."""

    def __init__(self, plane: ControlPlane, state: Path, **changes: Any) -> None:
        self.plane = plane
        self.state = state
        self.target = load_target(plane.target)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        spec = Spec(run="servertest", name_prefix="served-", count=2, connections=4, serve=True, serve_port=port)
        self.spec = msgspec.structs.replace(spec, **changes)

    def present(self) -> fleet.Result:
        return fleet.present(lambda: self.target, self.state, self.spec, timeout=120)

    def kubectl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [binaries()["kubectl"], f"--kubeconfig={self.plane.state}/kubeconfigs/admin.conf", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def apply(self, *objects: dict[str, Any]) -> None:
        file = self.state / "objects.json"
        file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
        self.plane.kubectl("apply", "-f", str(file))

    def token(self, account: str) -> str:
        return self.plane.kubectl("create", "token", account).strip()

    def get(self, index: int, path: str, *, token: str = "", certificate: str = "") -> tuple[int, str]:
        """What vnode `index` answers to the bearer of a token, or to the holder of a certificate of the target."""
        pinned = ssl.create_default_context(cadata=(self.state / "fleet" / "serving.pem").read_text())
        pinned.check_hostname = False
        if certificate:
            pki = self.plane.state / "pki"
            pinned.load_cert_chain(pki / f"{certificate}.crt", pki / f"{certificate}.key")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection = http.client.HTTPSConnection(
            self.spec.address(index), self.spec.serve_port, context=pinned, timeout=30
        )
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def pods(self, index: int) -> list[str]:
        field = f"--field-selector=spec.nodeName={self.spec.name(index)}"
        return self.plane.kubectl("get", "pods", field, "-o", "jsonpath={.items[*].metadata.name}").split()


@pytest.fixture(scope="module")
def served(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two vnodes with pods, and two ServiceAccounts, of which one may read kubelets' metrics."""
    one = Served(plane, tmp_path_factory.mktemp("served"))
    try:
        one.present()
        accounts = [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": "default"}}
            for name in (READER, STRANGER)
        ]
        one.apply(*accounts, *_may_read_metrics(), DEPLOYMENT)
        plane.kubectl("rollout", "status", "deployment/served", "--timeout=60s")
        yield one
    finally:
        plane.kubectl("delete", "deployment/served", "--ignore-not-found", "--wait=false")
        plane.kubectl("delete", "clusterrole,clusterrolebinding", READER, "--ignore-not-found")
        plane.kubectl("delete", "serviceaccount", READER, STRANGER, "--ignore-not-found")
        fleet.absent(one.target, one.state, one.spec, timeout=120)


def _may_read_metrics() -> list[dict[str, Any]]:
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"]}
    meta = {"apiVersion": f"{group}/v1", "metadata": {"name": READER}}
    return [
        {**meta, "kind": "ClusterRole", "rules": [rule]},
        {
            **meta,
            "kind": "ClusterRoleBinding",
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": READER},
            "subjects": [{"kind": "ServiceAccount", "name": READER, "namespace": "default"}],
        },
    ]


def test_a_node_says_where_its_kubelet_is(served):
    (node,) = json.loads(served.plane.kubectl("get", "nodes", served.spec.name(1), "-o", "json"))["status"][
        "addresses"
    ][:1]
    assert node == {"type": "InternalIP", "address": "127.16.1.1"}


def test_each_vnode_tells_the_api_servers_client_of_its_own_pods(served):
    for index in (0, 1):
        status, text = served.get(index, "/metrics/resource", certificate="apiserver-kubelet-client")
        assert status == 200
        told = re.findall(
            r'^container_cpu_usage_seconds_total{container="c",namespace="default",pod="([^"]+)"}', text, re.M
        )
        assert sorted(told) == sorted(served.pods(index)) != []
        memory = float(re.search(r"^node_memory_working_set_bytes (\S+) \d{13}$", text, re.MULTILINE)[1])  # type: ignore[index]
        assert memory == (100 * len(told) + 1) * 2**20


def test_cpu_time_grows_as_the_annotation_says(served):
    def spent() -> tuple[float, float]:
        _, text = served.get(0, "/metrics/resource", certificate="apiserver-kubelet-client")
        found = re.search(r"^pod_cpu_usage_seconds_total\S+ (\S+) (\d+)$", text, re.MULTILINE)
        assert found
        return float(found[1]), int(found[2]) / 1000

    first = spent()
    time.sleep(1.0)
    second = spent()
    assert (second[0] - first[0]) / (second[1] - first[1]) == pytest.approx(0.2, rel=0.01)


def test_a_service_account_gets_what_it_may(served):
    reader, stranger = served.token(READER), served.token(STRANGER)
    assert served.get(0, "/metrics/resource", token=reader)[0] == 200
    assert json.loads(served.get(0, "/stats/summary", certificate="apiserver-kubelet-client")[1])["node"]["cpu"]
    assert served.get(0, "/pods", token=reader) == (
        403,
        f"Forbidden (user=system:serviceaccount:default:{READER}, verb=get, resource=nodes, "
        "subresource(s)=[pods proxy])\n",
    )
    assert served.get(0, "/metrics/resource", token=stranger)[0] == 403
    for path in ("/healthz", "/metrics/resource", "/containerLogs/default/x/c"):
        assert served.get(1, path) == served.get(1, path, token="no.such.token") == (401, "Unauthorized")


def test_pods_are_the_vnodes(served):
    status, text = served.get(1, "/pods", certificate="apiserver-kubelet-client")
    assert status == 200
    assert sorted(item["metadata"]["name"] for item in json.loads(text)["items"]) == sorted(served.pods(1))


def test_kubectl_logs_goes_through_the_api_server(served):
    pod = served.pods(0)[0]
    lines = served.plane.kubectl("logs", pod).splitlines()
    assert lines[0].startswith(f"{served.spec.name(0)} is a virtual node of run servertest")
    assert lines[2].startswith("running since 20")
    assert served.plane.kubectl("logs", pod, "--tail=1").splitlines() == lines[2:]
    following = subprocess.Popen(
        [binaries()["kubectl"], f"--kubeconfig={served.plane.state}/kubeconfigs/admin.conf", "logs", "-f", pod],
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(1.0)
    assert following.poll() is None
    served.plane.kubectl("delete", "pod", pod, "--wait=false")
    text, _ = following.communicate(timeout=30)
    assert following.returncode == 0
    assert text.splitlines()[-1].startswith("ended at 20")
    served.plane.kubectl("rollout", "status", "deployment/served", "--timeout=60s")


def test_what_needs_a_process_is_refused_and_kubectl_says_why(served):
    pod = served.pods(1)[0]
    words = f"{served.spec.name(1)} is a virtual node: its containers run no process"
    for command in (("exec", pod, "--", "ls"), ("attach", pod), ("port-forward", pod, ":80")):
        answer = served.kubectl(*command)
        assert answer.returncode != 0
        assert words in answer.stderr


def test_the_node_proxy_refuses_loopback(served):
    answer = served.kubectl("get", "--raw", f"/api/v1/nodes/{served.spec.name(0)}/proxy/healthz")
    assert "address not allowed" in answer.stderr


def test_a_taken_port_is_refused_before_anything_is_started(served, tmp_path):
    with pytest.raises(SpecError, match=f"serve_port is {served.spec.serve_port}, but another process listens there"):
        fleet.present(lambda: served.target, tmp_path, served.spec, timeout=30)
    assert not list(tmp_path.glob("log/*"))


def test_at_fidelity_kubelet_each_vnode_asks_for_itself(served):
    own = Served(served.plane, served.plane.state, run="ownserver", name_prefix="own-", fidelity="kubelet")
    try:
        url = own.present().metrics_url
        token = own.token(READER)
        for index in (0, 0, 1):
            assert own.get(index, "/metrics/resource", token=token)[0] == 200
        assert json.loads(own.get(0, "/pods", certificate="apiserver-kubelet-client")[1])["kind"] == "PodList"
        with urllib.request.urlopen(url) as answer:
            counted = dict(
                re.findall(r'requests_total{verb="create",resource="(\w+)",code="201"} (\d+)', answer.read().decode())
            )
        assert (counted["tokenreviews"], counted["subjectaccessreviews"]) == ("2", "3")
    finally:
        fleet.absent(own.target, own.state, own.spec, timeout=120)


@pytest.mark.slow
@pytest.mark.skipif(not METRICS_SERVER, reason="TURBOKUBE_METRICS_SERVER names no metrics-server")
def test_kubectl_top_by_metrics_server(served):
    with _metrics_server(served) as log:
        try:
            pods = wait_for(lambda: served.kubectl("top", "pods", "--no-headers").stdout, 90)
            nodes = wait_for(lambda: served.kubectl("top", "nodes", "--no-headers").stdout, 60)
        except AssertionError:
            pytest.fail(f"{served.kubectl('top', 'pods').stderr}\n{log.read_text()}")
    for line in pods.splitlines():
        _, cpu, memory = line.split()
        assert 198 <= int(cpu.removesuffix("m")) <= 202  # of two samples, rounded up
        assert memory == "100Mi"
    assert {line.split()[0] for line in nodes.splitlines()} == {served.spec.name(index) for index in (0, 1)}


@contextlib.contextmanager
def _metrics_server(served: Served) -> Iterator[Path]:
    """metrics-server on loopback, as admin, behind the aggregator; its log."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = served.plane.state / "kubeconfigs" / "admin.conf"
    service = {"name": "metrics-server", "namespace": "kube-system"}
    served.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": service,
            "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]},
        },
        {
            "apiVersion": "apiregistration.k8s.io/v1",
            "kind": "APIService",
            "metadata": {"name": "v1beta1.metrics.k8s.io"},
            "spec": {
                "group": "metrics.k8s.io",
                "version": "v1beta1",
                "groupPriorityMinimum": 100,
                "versionPriority": 100,
                "insecureSkipTLSVerify": True,
                "service": {**service, "port": port},
            },
        },
    )
    flags = {
        "kubeconfig": config,
        "authentication-kubeconfig": config,
        "authorization-kubeconfig": config,
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "cert-dir": served.state / "metrics-server",
        "kubelet-insecure-tls": "true",
        "kubelet-use-node-status-port": "true",
        "kubelet-preferred-address-types": "InternalIP",
        "metric-resolution": "15s",
    }
    log = served.state / "metrics-server.log"
    with open(log, "w") as file:
        process = subprocess.Popen(
            [METRICS_SERVER, *(f"--{name}={value}" for name, value in flags.items())], stdout=file, stderr=file
        )
    try:
        yield log
    finally:
        process.terminate()
        process.wait(20)
        served.plane.kubectl("delete", "apiservice/v1beta1.metrics.k8s.io")
        served.plane.kubectl("delete", "-n", "kube-system", "service/metrics-server")
