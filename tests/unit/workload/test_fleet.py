"""A fleet as a StatefulSet: what is refused, what replicas are told, what is applied."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest

from turbokube.api.credentials import Credential
from turbokube.api.target import Target
from turbokube.vnode import replica
from turbokube.vnode.spec import Spec, SpecError, Start
from turbokube.workload import fleet, objects, pods

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
    for other in [*pods.ground("trial", "n"), objects.stateful_set(start, pem, carrier, 8)]:
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
