"""A kubelet's transport and identity on a real API server: lists, watches, leases, refusals, certificates, APF."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from tests.integration.control_plane import ControlPlane
from turbokube.api import messages, protobuf
from turbokube.api.credentials import Credential
from turbokube.api.http2 import Http2
from turbokube.api.target import Target, load_target
from turbokube.api.transport import JSON, PROTOBUF, Response
from turbokube.vnode import identity, join, objects
from turbokube.vnode.nodes import LEASES, NODES
from turbokube.vnode.spec import Spec

MAPS = "/api/v1/namespaces/default/configmaps"
NODE_NAMES = ["http2-00000", "http2-00001"]
SPEC = Spec(run="http2test", count=2, name_prefix="http2-", fidelity="node")


def live(target: Target, credential: Credential, story: Callable[[Http2], Awaitable[None]]) -> None:
    """A story of one connection of one identity."""

    async def main() -> None:
        transport = Http2(credential, target.addresses(credential), user_agent="turbokube-test")
        try:
            async with asyncio.timeout(60):
                await story(transport)
        finally:
            await transport.close()

    uvloop.run(main())


class Watch:
    """A listener that cuts what it hears into events."""

    def __init__(self, transport: Http2, path: str, accept: str) -> None:
        self.events: list[tuple[str, bytes]] = []
        self.status = 0
        self.why: str | None = None
        self._rest = b""
        self._protobuf = accept != JSON
        self.stream = transport.open(path, accept, self)

    def head(self, status: int, retry_after: float) -> None:
        self.status = status

    def data(self, chunk: bytes) -> None:
        if self._protobuf:
            found, self._rest = protobuf.frames(self._rest + chunk)
            self.events += [protobuf.event(one) for one in found]
        else:
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            for line in lines:
                event = json.loads(line)
                self.events.append((event["type"], json.dumps(event["object"]).encode()))

    def ended(self, why: str) -> None:
        self.why = why

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def cluster(plane: ControlPlane) -> Target:
    return load_target(plane.target)


@pytest.fixture(scope="module")
def admin(cluster: Target) -> Credential:
    return cluster.credential("admin")


@pytest.fixture(scope="module")
def pki(plane: ControlPlane, cluster: Target) -> Path:
    """Two vnodes and a kube-proxy have their certificates."""
    join.prepare(cluster, plane.state, SPEC, time.monotonic() + 60)
    return plane.state / "fleet" / "pki"


@pytest.fixture
def nodes(cluster: Target, pki: Path, plane: ControlPlane) -> Iterator[list[Credential]]:
    """The identities of two nodes, each of which has registered itself."""
    fleet = cluster.credential("fleet")
    who = [identity.kubelet(fleet, pki, name) for name in NODE_NAMES]

    async def register(transport: Http2) -> None:
        name = NODE_NAMES[who.index(transport._credential)]
        body = messages.encode("v1", "Node", messages.NODE, {"metadata": {"name": name}})
        (await transport.request("POST", NODES, body, PROTOBUF, accept=PROTOBUF)).checked()

    for credential in who:
        live(cluster, credential, register)
    yield who
    plane.kubectl("delete", "node", *NODE_NAMES)
    plane.kubectl("delete", "lease", "--namespace=kube-node-lease", "--ignore-not-found", *NODE_NAMES)


@pytest.mark.parametrize("accept", [JSON, f"{PROTOBUF},{JSON}"], ids=["json", "protobuf"])
def test_a_watch_shows_what_is_there_then_what_changes_and_ends_in_time(cluster, admin, accept):
    def config_map(name: str) -> bytes:
        return msgspec.json.encode(
            {"metadata": {"name": name, "labels": {"test": "http2"}}, "data": {"x": "y" * 30000}}
        )

    async def story(transport: Http2) -> None:
        for name in ("first", "second"):
            (await transport.request("POST", MAPS, config_map(name))).checked()
        selector = "labelSelector=test%3Dhttp2"
        watch = Watch(
            transport,
            f"{MAPS}?allowWatchBookmarks=true&{selector}&resourceVersionMatch=NotOlderThan&sendInitialEvents=true"
            "&timeoutSeconds=4&watch=true",
            accept,
        )
        await watch.until(lambda: len(watch.events) == 3)
        assert [kind for kind, _ in watch.events] == ["ADDED", "ADDED", "BOOKMARK"]
        assert [protobuf.initial_events_end(one) for _, one in watch.events] == [False, False, True]
        deleted = await transport.request("DELETE", f"{MAPS}/second", accept=accept)
        assert deleted.ok
        await watch.until(lambda: any(kind == "DELETED" for kind, _ in watch.events))
        await watch.until(lambda: watch.why is not None)
        assert (watch.status, watch.why) == (200, "")
        assert len(transport.connections) == 1
        if accept == JSON:
            lines = [line async for line in transport.stream(f"{MAPS}?{selector}&watch=1&timeoutSeconds=1")]
            assert [json.loads(line)["object"]["metadata"]["name"] for line in lines] == ["first"]
        else:
            listed = (await transport.request("GET", f"{MAPS}?{selector}", accept=accept)).checked()
            version, items = protobuf.items(listed.body)
            (gone,) = (one for kind, one in watch.events if kind == "DELETED")
            assert int(version) >= int(protobuf.resource_version(gone)) > int(protobuf.resource_version(items[0]))
        assert (await transport.request("DELETE", f"{MAPS}?{selector}")).ok

    live(cluster, admin, story)


POD: dict[str, Any] = {
    "metadata": {"name": "http2", "labels": {"a": "b"}, "annotations": {"turbokube.io/run-time": "3"}},
    "spec": {
        "nodeName": "http2-nowhere",
        "serviceAccountName": "default",
        "imagePullSecrets": [{"name": "pull"}],
        "volumes": [
            {"name": "c", "configMap": {"name": "config", "optional": True}},
            {"name": "s", "secret": {"secretName": "secret"}},
            {"name": "e", "emptyDir": {}},
            {"name": "p", "projected": {"sources": [{"configMap": {"name": "p1"}}, {"secret": {"name": "p2"}}]}},
        ],
        "initContainers": [{"name": "i", "image": "init:1", "restartPolicy": "Always"}],
        "containers": [
            {
                "name": "c",
                "image": "pause",
                "env": [
                    {"name": "A", "value": "1"},
                    {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "env-config", "key": "k"}}},
                    {"name": "C", "valueFrom": {"secretKeyRef": {"name": "env-secret", "key": "k"}}},
                ],
                "envFrom": [{"configMapRef": {"name": "from-config"}}, {"secretRef": {"name": "from-secret"}}],
                "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "64Mi"}},
                "volumeMounts": [{"name": "c", "mountPath": "/c", "readOnly": True}],
            }
        ],
    },
}
EARLIER = "2026-01-02T03:04:05Z"
STATUS = {
    "status": {
        "phase": "Running",
        "podIP": "10.1.2.3",
        "startTime": "2026-01-02T03:04:05Z",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:06Z"}],
        "containerStatuses": [
            {
                "name": "c",
                "image": "pause",
                "imageID": "",
                "ready": True,
                "restartCount": 2,
                "state": {"running": {"startedAt": "2026-01-02T03:04:06Z"}},
                "lastState": {"terminated": {"exitCode": 1, "startedAt": EARLIER, "finishedAt": EARLIER}},
            }
        ],
    }
}


def test_pods_and_nodes_are_the_same_in_protobuf_and_in_json(cluster, admin, nodes):
    async def story(transport: Http2) -> None:
        pods = "/api/v1/namespaces/default/pods"
        (await transport.request("POST", pods, msgspec.json.encode(POD))).checked()
        patch = msgspec.json.encode(STATUS)
        merge = "application/merge-patch+json"
        (await transport.request("PATCH", f"{pods}/http2/status", patch, merge)).checked()
        for path, table, kind in (
            (f"{pods}/http2", messages.POD, objects.Pod),
            (f"{NODES}/{NODE_NAMES[0]}", messages.NODE, objects.Node),
        ):
            in_json, in_protobuf = [
                (await transport.request("GET", path, accept=accept)).checked() for accept in (JSON, PROTOBUF)
            ]
            known = msgspec.json.decode(in_json.body, type=kind)
            assert messages.decode(in_protobuf.body, table, kind) == known
            assert protobuf.resource_version(in_protobuf.body).decode() == known.metadata.resource_version
        (await transport.request("DELETE", "/api/v1/namespaces/default/pods/http2?gracePeriodSeconds=0")).checked()

    live(cluster, admin, story)


def test_a_node_renews_its_lease_and_an_old_version_is_a_conflict(cluster, nodes):
    async def story(transport: Http2) -> None:
        lease = {
            "metadata": {"name": NODE_NAMES[0], "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": NODE_NAMES[0], "leaseDurationSeconds": 40, "renewTime": time.time()},
        }
        body = messages.encode("coordination.k8s.io/v1", "Lease", messages.LEASE, lease)
        first = (await transport.request("POST", LEASES, body, PROTOBUF, accept=PROTOBUF)).checked()
        path, moment = f"{LEASES}/{NODE_NAMES[0]}", 1750000000.123456
        body = protobuf.renewed(first.body, moment)
        second = (await transport.request("PUT", path, body, PROTOBUF, accept=PROTOBUF)).checked()
        assert protobuf.resource_version(second.body) != protobuf.resource_version(first.body)
        seen = msgspec.json.decode((await transport.request("GET", path)).checked().body, type=objects.Lease)
        assert seen.spec.renew_time is not None
        assert seen.spec.renew_time.timestamp() == moment
        third = await transport.request("PUT", path, body, PROTOBUF, accept=PROTOBUF)
        assert (third.error().status, third.error().reason) == (409, "Conflict")

    live(cluster, nodes[0], story)


def test_a_vnode_is_a_node_to_the_authorizer_and_to_priority_and_fairness(cluster, plane, nodes):
    def high() -> float:
        text = plane.kubectl("get", "--raw", "/metrics")
        found = re.search(
            r'apiserver_flowcontrol_dispatched_requests_total\{flow_schema="system-node-high",'
            r'priority_level="node-high"\} (\S+)',
            text,
        )
        return float(found[1]) if found else 0.0

    async def story(transport: Http2) -> None:
        for _ in range(20):
            assert (await transport.request("GET", f"{NODES}/{NODE_NAMES[1]}", accept=PROTOBUF)).ok
        answers: list[Response] = [
            await transport.request("GET", f"{NODES}/{NODE_NAMES[0]}", accept=PROTOBUF),
            await transport.request("GET", "/api/v1/namespaces/default/secrets/any", accept=PROTOBUF),
            await transport.request("DELETE", f"{NODES}/{NODE_NAMES[1]}", accept=PROTOBUF),
        ]
        assert [answer.status for answer in answers] == [403, 403, 403]
        assert answers[0].error().reason == "Forbidden"
        assert f'User "system:node:{NODE_NAMES[1]}" cannot get resource "nodes"' in answers[0].error().message

    before = high()
    live(cluster, nodes[1], story)
    assert high() - before >= 20


def test_kube_proxys_identity_may_see_what_it_watches_and_nothing_else(cluster, pki):
    async def story(transport: Http2) -> None:
        for path in (
            "/api/v1/services",
            "/apis/discovery.k8s.io/v1/endpointslices",
            "/apis/networking.k8s.io/v1/servicecidrs",
            NODES,
        ):
            watch = Watch(transport, f"{path}?watch=1&timeoutSeconds=1", PROTOBUF)
            await watch.until(lambda watch=watch: bool(watch.status))
            assert watch.status == 200, path
        assert (await transport.request("GET", "/api/v1/secrets", accept=PROTOBUF)).status == 403

    live(cluster, identity.proxy(cluster.credential("fleet"), pki), story)


def test_too_many_requests_says_when_to_come_again(cluster, plane, nodes, tmp_path):
    level = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "http2-none"},
        "spec": {
            "type": "Limited",
            "limited": {
                "nominalConcurrencyShares": 0,
                "borrowingLimitPercent": 0,
                "limitResponse": {"type": "Reject"},
            },
        },
    }
    schema = {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": "http2-none"},
        "spec": {
            "matchingPrecedence": 2,
            "priorityLevelConfiguration": {"name": "http2-none"},
            "rules": [
                {
                    "subjects": [{"kind": "User", "user": {"name": f"system:node:{NODE_NAMES[0]}"}}],
                    "resourceRules": [
                        {
                            "verbs": ["*"],
                            "apiGroups": ["*"],
                            "resources": ["*"],
                            "clusterScope": True,
                            "namespaces": ["*"],
                        }
                    ],
                }
            ],
        },
    }
    file = tmp_path / "none.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [level, schema]}))

    async def story(transport: Http2) -> None:
        path = f"{NODES}/{NODE_NAMES[0]}"
        for _ in range(100):  # it has one seat, which is never taken for long
            answers = await asyncio.gather(*(transport.request("GET", path, accept=PROTOBUF) for _ in range(40)))
            if refused := [answer for answer in answers if answer.status == 429]:
                break
            await asyncio.sleep(0.1)
        assert refused[0].retry_after == 1.0
        assert "too many requests" in refused[0].error().message.lower()
        assert len(transport.connections) == 1

    try:
        plane.kubectl("apply", f"--filename={file}")
        live(cluster, nodes[0], story)
    finally:
        plane.kubectl("delete", "--ignore-not-found", "flowschema,prioritylevelconfiguration", "http2-none")


def test_certificates_are_made_once_and_again_when_they_are_not_good(cluster, plane, pki):
    def prepare(**changes: Any) -> list[str]:
        return join.prepare(cluster, plane.state, msgspec.structs.replace(SPEC, **changes), time.monotonic() + 60)

    assert prepare() == []
    (pki / f"{NODE_NAMES[1]}.pem").write_text("broken")
    assert prepare(count=3) == [NODE_NAMES[1], "http2-00002"]
    assert {file.stat().st_mode & 0o777 for file in pki.iterdir()} == {0o600}
    (pki / "http2-00002.pem").unlink()


def test_without_the_clusters_ca_a_sentence_says_what_else_there_is(cluster, plane, tmp_path):
    with pytest.raises(join.JoinError, match="allowed is 'csr'"):
        join.prepare(cluster, tmp_path, SPEC, time.monotonic() + 60)
    (tmp_path / "pki").mkdir()
    for name in ("ca.crt", "ca.key"):
        (tmp_path / "pki" / name).write_bytes((plane.state / "pki" / f"front-proxy-{name}").read_bytes())
    with pytest.raises(join.JoinError, match="not the cluster's; allowed is 'csr'"):
        join.prepare(cluster, tmp_path, SPEC, time.monotonic() + 60)


def test_the_cluster_issues_certificates_and_nothing_is_left_of_the_asking(cluster, plane, tmp_path):
    spec = msgspec.structs.replace(SPEC, join="csr", count=20, name_prefix="csr-")
    assert len(join.prepare(cluster, tmp_path, spec, time.monotonic() + 60)) == 21
    assert join.prepare(cluster, tmp_path, spec, time.monotonic() + 60) == []
    for kind in ("csr", "clusterrolebindings", "secrets"):
        assert plane.kubectl("get", kind, "--all-namespaces", "--selector=turbokube.io/join", "--output=name") == ""
    fleet, folder = cluster.credential("fleet"), tmp_path / "fleet" / "pki"

    async def story(transport: Http2) -> None:
        asked = b'{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}'
        answer = await transport.request("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", asked)
        who.append(json.loads(answer.checked().body)["status"]["userInfo"])

    who: list[dict[str, Any]] = []
    for credential in (identity.kubelet(fleet, folder, "csr-00007"), identity.proxy(fleet, folder)):
        live(cluster, credential, story)
    assert [user["username"] for user in who] == ["system:node:csr-00007", "system:kube-proxy"]
    assert who[0]["groups"] == ["system:nodes", "system:authenticated"]
    assert who[1]["groups"] == ["system:authenticated"]
