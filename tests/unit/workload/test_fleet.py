"""A fleet as a StatefulSet: what is refused, what replicas are told, what is applied."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path

import msgspec
import pytest

from turbokube.api.credentials import Credential
from turbokube.api.target import Target
from turbokube.api.transport import Response
from turbokube.vnode import replica
from turbokube.vnode.spec import Spec, SpecError, Start
from turbokube.workload import fleet, ground, objects, pods
from turbokube.workload.cluster import WorkloadError

_SPEC = Spec(run="trial", count=512, block=64)
_SERVER = "https://198.51.100.21:6443"


class Known(Target, frozen=True):
    """A target with a credential that is not on disk."""

    def credential(self, actor: str) -> Credential:
        assert actor == "fleet"
        return Credential(self.servers[0], ca="CA", certificate="CERT", key="KEY")


def told(**changes) -> tuple[Start, str]:
    return fleet.told(msgspec.structs.replace(_SPEC, **changes), Known(name="t", servers=[_SERVER]))


def test_each_replica_has_a_block_and_all_have_every_vnode_once():
    start, _ = told()
    parts = [start.spec.part(ordinal) for ordinal in range(8)]
    assert [index for part in parts for index in part.indices] == list(range(512))
    assert [sum(part.owns(index) for part in parts) for index in range(512)] == [1] * 512
    assert parts[3].name(parts[3].indices[0]) == "vnode-00192"
    assert sum(part.owns(None) for part in parts) == 1
    assert len({part.address(index) for part in parts for index in part.indices}) == 512


def test_what_replicas_are_told_does_not_change_with_their_number():
    assert told() == told(count=64)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "kwok", "binary": "/k"}, "engine is 'kwok', and the fleet is a StatefulSet; allowed is 'builtin'"),
        ({"fidelity": "kubelet"}, "fidelity is 'kubelet'"),
        ({"serve": True}, "serve is True"),
        ({"processes": 2}, "processes is 2, and the fleet is a StatefulSet; allowed is 1"),
        ({"count": 500}, "allowed is a multiple of vnodes_per_pod: 448 or 512"),
        ({"block": 0}, "vnodes_per_pod is 0"),
        ({"lease_interval": 50.0}, "lease_interval is 50.0"),
    ],
)
def test_what_a_stateful_set_cannot_have_is_refused(changes, words):
    with pytest.raises(SpecError, match=words):
        fleet.refuse(msgspec.structs.replace(_SPEC, **changes))
    fleet.refuse(_SPEC)


@pytest.mark.parametrize("server", ["https://127.0.0.1:6443", "https://localhost:6443", "https://[::1]:6443"])
def test_a_target_on_loopback_is_out_of_a_pods_reach(server):
    with pytest.raises(SpecError, match="which is each pod's own"):
        fleet.told(_SPEC, Known(name="t", servers=[server]))


def test_the_credential_is_in_the_secret_and_nowhere_else():
    start, pem = told()
    kept = objects.secret(start, pem, "turbokube-trial")["data"]
    data = {name: base64.b64decode(value).decode() for name, value in kept.items()}
    assert data[objects.PEM] == "CERT\nKEY\n"
    read = msgspec.json.decode(data[replica.START], type=Start)
    assert read.credential.pem_file == "/etc/turbokube/client.pem"
    assert (read.credential.certificate, read.credential.key, read.servers) == (None, None, [_SERVER])
    carrier = pods.Carrier(namespace="turbokube-trial", image="localhost/turbokube:1")
    for other in [*ground.own("trial", "n"), objects.stateful_set(start, pem, carrier, 8)]:
        assert "KEY" not in json.dumps(other)


def test_pods_are_made_anew_for_what_they_are_told_and_not_for_their_number():
    carrier = pods.Carrier(namespace="n", image="i:1")

    def template(replicas=8, pem="PEM", **changes):
        start, _ = told(**changes)
        return objects.stateful_set(start, pem, carrier, replicas)["spec"]["template"]

    assert template() == template(replicas=2, count=128)
    assert template() != template(pem="renewed")
    assert template() != template(start_delay="2")


def test_pods_are_asked_where_they_answer():
    assert (replica.PORT, str(replica.FOLDER)) == (pods.PORT, pods.FOLDER)


def test_a_pod_may_do_nothing():
    start, pem = told()
    own = {"cpu": "12m", "memory": "40Mi", "node_selector": {"pool": "fleet"}, "tolerations": [{"key": "mine"}]}
    carrier = pods.Carrier(namespace="n", image="i:1", **own)
    made = objects.stateful_set(start, pem, carrier, 8)
    spec = made["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"] == {"requests": {"cpu": "12m", "memory": "40Mi"}}
    assert spec["nodeSelector"] == {"pool": "fleet"}
    assert {"key": "mine"} in spec["tolerations"]
    assert made["spec"]["selector"]["matchLabels"].items() <= made["spec"]["template"]["metadata"]["labels"].items()
    assert objects.spec_of(made["metadata"]["annotations"]) == msgspec.json.encode(start.spec)


def test_requests_grow_with_vnodes_and_their_pods():
    def mib(block, pods):
        cpu, memory = fleet.requests(msgspec.structs.replace(_SPEC, block=block), pods)
        assert cpu.endswith("m")
        return int(memory.removesuffix("Mi")), int(cpu.removesuffix("m"))

    (small, idle), (large, busy), (full, _) = mib(1, 0), mib(1000, 0), mib(1000, 100)
    assert small < large < full
    assert idle < busy
    assert full - large == pytest.approx(1000 * 100 * 1.37 / 1024, rel=0.02)


@pytest.mark.parametrize(
    ("run", "namespace"), [("trial", "turbokube-trial"), ("1k.A_b", "turbokube-1k-a-b"), ("x" * 62 + "-", None)]
)
def test_a_runs_namespace_is_a_good_name(run, namespace):
    found = pods.namespace_of(run)
    assert namespace is None or found == namespace
    assert len(found) <= 63
    assert not found.endswith("-")


class Workers:
    """A fleet cluster: a StatefulSet whose status is what its pods are, and Nodes that may be gone."""

    def __init__(self, **pods: tuple[str, bool, bool]) -> None:
        """`pods`: worker, Ready, being deleted."""
        self.pods = pods
        self.alive = {"worker-0"}
        self.deleted: list[tuple[str, int | None]] = []
        self.waiting: dict[str, str] = {}

    async def find(self, kind, name, namespace, as_):
        ready = sum(ready for _, ready, _ in self.pods.values())
        status = {"observedGeneration": 1, "replicas": len(self.pods), "readyReplicas": ready}
        return msgspec.convert({"metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": status}, as_)

    async def items(self, path, as_, selector=""):
        if path == "/api/v1/nodes":
            names = ("worker-0", "worker-1")
            return [msgspec.convert(self._node(name), as_) for name in names]
        return [msgspec.convert(self._pod(name, *what), as_) for name, what in self.pods.items()]

    def _node(self, name):
        ready = {"type": "Ready", "status": "True" if name in self.alive else "Unknown"}
        return {"metadata": {"name": name}, "status": {"conditions": [ready]}}

    def _pod(self, name, worker, ready, ending):
        waiting = self.waiting.get(name)
        state = {"state": {"waiting": {"reason": waiting, "message": "no"}}} if waiting else {"started": True}
        return {
            "metadata": {"name": name, "deletionTimestamp": "now" if ending else ""},
            "spec": {"nodeName": worker},
            "status": {
                "conditions": [{"type": "Ready", "status": str(ready)}],
                "containerStatuses": [state],
            },
        }

    async def delete(self, path, *, grace_s=None):
        name = path.rpartition("/")[2]
        self.deleted.append((name, grace_s))
        self.pods[name] = ("worker-0", True, False)  # the StatefulSet's next one of the name

    async def request(self, method, path):
        assert "/events?fieldSelector=involvedObject.uid" in path
        told = [{"message": f"no image {one}", "lastTimestamp": f"2026-01-01T00:00:0{one}Z"} for one in (1, 2, 0)]
        return Response(200, msgspec.json.encode({"items": told}))

    async def text(self, path):
        return "3 of 64 vnodes are Ready in the target" if path.endswith("readyz") else "the last words"


async def wait(workers: Workers, seconds: float = 5.0) -> None:
    start, pem = told()
    carrier = pods.Carrier(namespace="n", image="i:1")
    spec = msgspec.structs.replace(_SPEC, count=128)
    target = Known(name="t", servers=[_SERVER])
    await fleet._Present(target, start, pem, carrier, Path("state"), spec, time.monotonic() + seconds)._wait(workers)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(fleet, "_POLL", 0.01)


def test_pods_on_a_worker_that_is_gone_are_let_go_of_and_no_others():
    workers = Workers(**{"fleet-0": ("worker-1", False, True), "fleet-1": ("worker-0", True, False)})
    asyncio.run(wait(workers))
    assert workers.deleted == [("fleet-0", 0)]


def test_a_pod_that_a_living_worker_ends_is_awaited():
    workers = Workers(**{"fleet-0": ("worker-0", False, True), "fleet-1": ("worker-0", True, False)})
    with pytest.raises(WorkloadError, match=r"in time only 1 of 2 pods of 64 vnodes are Ready$"):
        asyncio.run(wait(workers, 0.1))
    assert workers.deleted == []


def test_what_keeps_a_pod_from_being_ready_is_told():
    workers = Workers(**{"fleet-0": ("worker-0", False, False), "fleet-1": ("worker-0", True, False)})
    with pytest.raises(
        WorkloadError, match=r"fleet-0 on worker-0: 3 of 64 vnodes are Ready.*its last lines:\nthe last"
    ):
        asyncio.run(wait(workers, 0.1))
    workers.waiting["fleet-0"] = "ContainerCreating"
    with pytest.raises(WorkloadError, match="fleet-0 on worker-0 does not run: no image 2"):
        asyncio.run(wait(workers, 0.1))
    workers.waiting["fleet-0"] = "ErrImageNeverPull"
    with pytest.raises(WorkloadError, match="pod fleet-0 on worker-0 cannot start: ErrImageNeverPull, no"):
        asyncio.run(wait(workers))
