from __future__ import annotations

import json
from datetime import UTC, datetime

import msgspec
import pytest

from turbokube.vnode import objects
from turbokube.vnode.spec import Spec

SPEC = Spec(run="trial", count=20)
NOW = datetime(2026, 3, 4, 5, 6, 7, 500_000, tzinfo=UTC).timestamp()


def pod(**meta: object) -> objects.Pod:
    return msgspec.convert(
        {
            "metadata": {
                "name": "p",
                "namespace": "ns",
                "uid": "u-1",
                "generation": 1,
                "resourceVersion": "77",
                **meta,
            },
            "spec": {
                "nodeName": "vnode-00003",
                "containers": [{"name": "a", "image": "host:5000/pause:3"}, {"name": "b", "image": "pause"}],
                "initContainers": [{"name": "i"}, {"name": "side", "restartPolicy": "Always"}],
            },
            "status": {"phase": "Pending", "startTime": "2026-01-01T00:00:00Z"},
        },
        objects.Pod,
    )


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


def test_running_is_what_a_kubelet_writes():
    patch = json.loads(objects.running(pod(), "172.16.1.3", 0x0A800103, NOW - 2, NOW))
    status = patch["status"]
    assert patch["metadata"]["uid"] == "u-1"
    assert status["phase"] == "Running"
    assert {c["type"] for c in status["conditions"] if c["status"] == "True"} == {
        "PodReadyToStartContainers",
        "Initialized",
        "Ready",
        "ContainersReady",
    }
    assert status["podIP"] == "10.128.1.3"
    assert status["podIPs"] == [{"ip": "10.128.1.3"}]
    assert status["hostIP"] == "172.16.1.3"
    assert status["startTime"] == "2026-03-04T05:06:05Z"
    first, second = status["containerStatuses"]
    assert first["state"] == {"running": {"startedAt": "2026-03-04T05:06:07Z"}}
    assert (first["ready"], first["started"]) == (True, True)
    assert first["imageID"].startswith("host:5000/pause@sha256:")
    assert first["containerID"] != second["containerID"]
    init, sidecar = status["initContainerStatuses"]
    assert init["state"]["terminated"]["exitCode"] == 0
    assert "running" in sidecar["state"]


def test_a_pod_on_the_hosts_network_has_the_hosts_address():
    assert json.loads(objects.running(pod(), "172.16.1.3", 0, NOW, NOW))["status"]["podIP"] == "172.16.1.3"


def test_a_pod_that_ended_is_not_ready_and_succeeded():
    status = json.loads(objects.terminated(pod(), NOW))["status"]
    assert status["phase"] == "Succeeded"
    assert {c["status"] for c in status["conditions"] if c["type"] in ("Ready", "ContainersReady")} == {"False"}
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["startedAt"], ended["finishedAt"]) == (
        0,
        "2026-01-01T00:00:00Z",
        "2026-03-04T05:06:07Z",
    )


def test_started_events_come_from_the_kubelet_of_the_node_and_have_names_of_their_own():
    events = [json.loads(objects.started_event(pod(), c, NOW)) for c in pod().spec.containers]
    assert {e["reason"] for e in events} == {"Started"}
    assert {(e["source"]["component"], e["reportingInstance"]) for e in events} == {("kubelet", "vnode-00003")}
    assert events[0]["involvedObject"]["fieldPath"] == "spec.containers{a}"
    assert len({e["metadata"]["name"] for e in events}) == 2


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
