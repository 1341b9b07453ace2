from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from turbokube.vnode import objects
from turbokube.vnode.spec import Spec

SPEC = Spec(run="trial", count=20)
NOW = datetime(2026, 3, 4, 5, 6, 7, 500_000, tzinfo=UTC).timestamp()


def test_a_node_registers_ready_tainted_for_its_namespace_and_with_an_address_of_its_own():
    nodes = [json.loads(objects.node(SPEC, index, "v1.36.3", NOW)) for index in range(20)]
    node = nodes[17]
    assert node["metadata"]["name"] == "vnode-00017"
    assert node["metadata"]["labels"]["turbokube.io/run"] == "trial"
    assert node["metadata"]["labels"]["type"] == "virtual-kubelet"
    assert "node.kubernetes.io/exclude-from-external-load-balancers" in node["metadata"]["labels"]
    assert node["spec"]["taints"] == [{"key": "turbokube.io/namespace", "value": "0002", "effect": "NoSchedule"}]
    conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
    assert conditions == {"Ready": "True", "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False"}
    assert node["status"]["conditions"][0]["lastHeartbeatTime"] == "2026-03-04T05:06:07Z"
    assert node["status"]["nodeInfo"]["kubeletVersion"] == "v1.36.3"
    assert len({n["status"]["addresses"][0]["address"] for n in nodes}) == 20


def test_placement_cluster_has_one_taint_for_all():
    spec = msgspec.structs.replace(SPEC, placement="cluster")
    taints = {json.dumps(json.loads(objects.node(spec, i, "v", NOW))["spec"]["taints"]) for i in range(20)}
    assert taints == {'[{"key": "turbokube.io/vnode", "value": "true", "effect": "NoSchedule"}]'}


def test_a_status_patch_moves_transition_times_only_when_something_changed():
    changed, same = (
        json.loads(objects.node_status(SPEC, 1, "v", NOW, flag))["status"]["conditions"] for flag in (True, False)
    )
    assert all(c["lastTransitionTime"] == "2026-03-04T05:06:07Z" for c in changed)
    assert not any("lastTransitionTime" in c for c in same)
    beat = json.loads(objects.node_heartbeat(NOW))["status"]
    assert all(set(c) == {"type", "lastHeartbeatTime"} for c in beat["conditions"])


def test_a_lease_is_owned_by_its_node_and_held_by_it():
    lease = json.loads(objects.lease(SPEC, "vnode-00003", "uid-3", b"42", NOW))
    assert lease["metadata"]["resourceVersion"] == "42"
    assert lease["metadata"]["ownerReferences"] == [
        {"apiVersion": "v1", "kind": "Node", "name": "vnode-00003", "uid": "uid-3"}
    ]
    assert lease["spec"] == {
        "holderIdentity": "vnode-00003",
        "leaseDurationSeconds": 40,
        "renewTime": "2026-03-04T05:06:07.500000Z",
    }


def test_the_resource_version_of_an_answer_is_its_own():
    body = b'{"kind":"Lease","metadata":{"name":"x","resourceVersion":"123","managedFields":[{"resourceVersion":"9"}]}}'
    assert objects.resource_version(body) == b"123"


def test_a_pod_refers_to_what_its_volumes_variables_and_pulls_name():
    raw = {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {
            "volumes": [
                {"configMap": {"name": "vc"}},
                {"secret": {"secretName": "vs"}},
                {"projected": {"sources": [{"serviceAccountToken": {}}, {"configMap": {"name": "kube-root-ca.crt"}}]}},
                {"projected": {"sources": [{"secret": {"name": "ps"}}, {"downwardAPI": {}}]}},
                {"emptyDir": {}},
            ],
            "containers": [
                {"name": "a", "envFrom": [{"configMapRef": {"name": "ec"}}, {"secretRef": {"name": "es"}}]},
                {"name": "b", "env": [{"valueFrom": {"secretKeyRef": {"name": "ks", "key": "k"}}}, {"value": "v"}]},
            ],
            "initContainers": [{"name": "i", "env": [{"valueFrom": {"configMapKeyRef": {"name": "kc"}}}]}],
            "imagePullSecrets": [{"name": "is"}],
        },
        "status": {},
    }
    assert sorted(objects.references(msgspec.convert(raw, objects.Pod))) == [
        *(("configmaps", name) for name in ("ec", "kc", "kube-root-ca.crt", "vc")),
        *(("secrets", name) for name in ("es", "is", "ks", "ps", "vs")),
    ]


@pytest.mark.parametrize(
    ("conditions", "taints", "ready"),
    [
        ([{"type": "Ready", "status": "True"}], [], True),
        ([{"type": "Ready", "status": "True"}], [{"key": "turbokube.io/namespace"}], True),
        ([{"type": "Ready", "status": "True"}], [{"key": "node.kubernetes.io/not-ready"}], False),
        ([{"type": "Ready", "status": "Unknown"}], [], False),
        ([{"type": "MemoryPressure", "status": "True"}], [], False),
    ],
)
def test_ready_means_that_the_control_plane_knows_it(conditions, taints, ready):
    raw = {"metadata": {"name": "n", "uid": "u"}, "spec": {"taints": taints}, "status": {"conditions": conditions}}
    assert msgspec.convert(raw, objects.Node).ready is ready


def test_times_that_were_never_set_are_null():
    state = {"terminated": {"exitCode": 137, "startedAt": None, "finishedAt": None}}
    raw = {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {},
        "status": {
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": None}
            ],
            "containerStatuses": [{"name": "a", "state": state, "lastState": {"running": {"startedAt": None}}}],
        },
    }
    assert msgspec.json.decode(json.dumps(raw), type=objects.Pod).status.container_statuses[0].name == "a"
