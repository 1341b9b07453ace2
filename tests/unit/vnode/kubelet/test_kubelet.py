from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from vnode_fakes import FakeTransport

from turbokube.api import messages, protobuf
from turbokube.api.credentials import Credential
from turbokube.api.transport import Response, Unreachable
from turbokube.vnode import objects
from turbokube.vnode.client import Client
from turbokube.vnode.clock import Agenda
from turbokube.vnode.crew import Crew
from turbokube.vnode.kubelet import kubelet as module
from turbokube.vnode.kubelet import machine, members
from turbokube.vnode.kubelet.members import Identities, Kubelets
from turbokube.vnode.metrics import Counts
from turbokube.vnode.nodes import Vnode
from turbokube.vnode.spec import RUN_LABEL, Spec

LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"


class Server:
    """An API server with one Node's objects; connections to it are made in no time."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []  # method, path with query, identity
        self.bodies: list[bytes] = []
        self.there: dict[str, bytes] = {}  # path → object, in its envelope
        self.version = 10
        self.trouble: list[Response | Exception] = []
        self.watches: list[tuple[str, Any]] = []
        self.closed: list[str] = []

    def methods(self, part: str = "") -> list[str]:
        return [method for method, path, _ in self.asked if part in path]

    def answer(self, method: str, path: str, body: bytes) -> Response | Exception:
        if self.trouble:
            return self.trouble.pop(0)
        place = path.partition("?")[0]
        if method == "GET":
            return Response(200, self.there[place]) if place in self.there else Response(404, b"{}")
        if method == "DELETE":
            return Response(200, b"{}")
        if method == "PATCH":
            return Response(200, self.there.get(place.removesuffix("/status"), b"{}"))
        stored = self._stored(body)
        if method == "POST":
            name = protobuf.find(protobuf.find(protobuf.unwrap(stored), 1), 1).decode()
            if f"{place}/{name}" in self.there:
                return Response(409, b"{}")
            self.there[f"{place}/{name}"] = stored
            return Response(201, stored)
        if place not in self.there:
            return Response(404, b"{}")
        if protobuf.resource_version(body) != protobuf.resource_version(self.there[place]):
            return Response(409, b"{}")
        self.there[place] = stored
        return Response(200, stored)

    def _stored(self, body: bytes) -> bytes:
        """The object with a uid and the next version."""
        self.version += 1
        raw = protobuf.unwrap(body)
        parts = {number: content for number, _, content in protobuf.fields(raw)}
        kept = b"".join(
            protobuf.field(number, content) for number, _, content in protobuf.fields(parts[1]) if number not in (5, 6)
        )
        parts[1] = kept + protobuf.field(5, b"uid-1") + protobuf.field(6, str(self.version).encode())
        return protobuf.wrap("v1", "Any", b"".join(protobuf.field(*part) for part in sorted(parts.items())))


class FakeHttp2(FakeTransport):
    """A vnode's connection to the Server."""

    server: Server

    def __init__(self, credential: Credential, servers: Any, *, user_agent: str, index: int, gate: Any) -> None:
        super().__init__(self._answer)
        self.who = f"{Path(credential.pem_file or 'fleet').stem} {user_agent}"
        self.connections: list[None] = [None]

    def _answer(self, method: str, path: str, body: bytes) -> Response | Exception:
        self.server.asked.append((method, path, self.who))
        self.server.bodies.append(body)
        return self.server.answer(method, path, body)

    def open(self, path: str, accept: str, listener: Any) -> str:
        self.server.asked.append(("WATCH", path, self.who))
        self.server.watches.append((path, listener))
        return path

    def cancel(self, stream: str) -> None:
        self.server.watches = [watch for watch in self.server.watches if watch[0] != stream]

    async def close(self) -> None:
        self.server.closed.append(self.who)


class Pods:
    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.complete: list[Vnode] = []

    def see(self, event: Any) -> None:
        self.seen.append(event)

    def synced(self, vnode: Vnode) -> None:
        self.complete.append(vnode)

    def left(self, name: str) -> None:
        self.seen.clear()


class Scene:
    """An engine's Kubelets of one vnode, without a list of what was before."""

    def __init__(self, **spec: Any) -> None:
        self.server = FakeHttp2.server = Server()
        self.spec = Spec(run="trial", count=1, **{"fidelity": "kubelet", **spec})
        who = Identities(Credential("https://x"), Path("/pki"), ["https://x"], "v1.36.3", "0123456789")
        fleet = FakeHttp2(Credential("https://x"), [], user_agent="fleet", index=0, gate=None)
        self.counts = Counts()
        self.crew, self.agenda = Crew(2), Agenda()
        self.fleet = Kubelets(self.spec, who, Client(fleet, self.counts, 1.0), self.crew, self.agenda)  # type: ignore[arg-type]
        self.fleet.pods = self.pods = Pods()  # type: ignore[assignment]
        self.fleet.synced = True

    async def join(self) -> Vnode:
        self.fleet.scale(1)
        (vnode,) = self.fleet.by_name.values()
        async with asyncio.timeout(5):
            while not vnode.joined or len(self.crew):
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        return vnode

    def say(self, part: str, *frames: bytes) -> None:
        """Let the watch with `part` in its path have frames."""
        (listener,) = [listener for path, listener in self.server.watches if part in path]
        listener.head(200, 0.0)
        listener.data(b"".join(frames))


def frame(kind: str, raw: bytes) -> bytes:
    event = protobuf.field(1, kind.encode()) + protobuf.field(2, protobuf.field(1, protobuf.wrap("v1", "X", raw)))
    return len(event).to_bytes(4, "big") + event


def node(uid: str = "uid-1", ready: str = "True", **spec: Any) -> bytes:
    return messages.NODE.write(
        {
            "metadata": {"name": "vnode-00000", "uid": uid, "resourceVersion": "20", "labels": {RUN_LABEL: "trial"}},
            "spec": spec,
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }
    )


def pod(name: str) -> bytes:
    metadata = {"name": name, "namespace": "ns", "uid": name, "resourceVersion": "25"}
    return messages.POD.write(
        {"metadata": metadata, "spec": {"nodeName": "vnode-00000"}, "status": {"phase": "Pending"}}
    )


END = protobuf.field(
    1,
    protobuf.field(6, b"30")
    + protobuf.field(12, protobuf.field(1, b"k8s.io/initial-events-end") + protobuf.field(2, b"true")),
)


@pytest.fixture(autouse=True)
def _connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "Http2", FakeHttp2)
    monkeypatch.setattr("turbokube.vnode.kubelet.proxy.Http2", FakeHttp2)


def play(story: Callable[[Scene], Awaitable[None]], **spec: Any) -> Scene:
    async def run() -> Scene:
        scene = Scene(**spec)
        tasks = [asyncio.create_task(work) for work in (scene.crew.run(), scene.agenda.run())]
        try:
            await story(scene)
        finally:
            for task in tasks:
                task.cancel()
        return scene

    return asyncio.run(run())


def test_a_vnode_joins_as_a_kubelet_does():
    async def story(scene: Scene) -> None:
        vnode = await scene.join()
        assert (vnode.uid, vnode.joined) == ("uid-1", True)
        mine = [(method, path) for method, path, who in scene.server.asked if who.startswith("vnode-00000 kubelet/")]
        assert [method for method, _ in mine[:4]] == ["WATCH"] * 4
        writes = [(method, path.partition("?")[0]) for method, path in mine if method not in ("WATCH", "GET")]
        assert writes[:5] == [
            ("DELETE", "/apis/resource.k8s.io/v1/resourceslices"),
            ("POST", "/api/v1/nodes"),
            ("PATCH", "/api/v1/nodes/vnode-00000/status"),
            ("POST", "/apis/storage.k8s.io/v1/csinodes"),
            ("POST", LEASE),
        ]
        assert writes.count(("PATCH", "/api/v1/nodes/vnode-00000/status")) == 2
        events = [method for method, path in writes if path.startswith("/api/v1/namespaces/default/events")]
        assert (events.count("POST"), events.count("PATCH")) == (6, 6)
        (label,) = [(method, path) for method, path, who in scene.server.asked if who == "fleet fleet"]
        assert label == ("PATCH", "/api/v1/nodes/vnode-00000")  # what NodeRestriction keeps from the node itself
        assert {who for *_, who in scene.server.asked} == {
            "fleet fleet",
            "vnode-00000 kubelet/v1.36.3 (linux/amd64) kubernetes/0123456",
        }

    play(story)


def test_its_node_is_not_ready_until_its_status_says_so():
    async def story(scene: Scene) -> None:
        await scene.join()
        body = next(body for body, asked in zip(scene.server.bodies, _requests(scene), strict=True)
                    if asked[:2] == ("POST", "/api/v1/nodes"))  # fmt: skip
        registered = messages.NODE.read(protobuf.unwrap(body))
        conditions = {one["type"]: one for one in registered["status"]["conditions"]}
        assert conditions["Ready"]["status"] == "False"
        assert len(registered["status"]["images"]) == 50
        assert 8_000 < len(body) < 14_000
        patch = next(json.loads(body) for body, asked in zip(scene.server.bodies, _requests(scene), strict=True)
                     if asked[1].startswith("/api/v1/nodes/vnode-00000/status") and body != b"{}")  # fmt: skip
        assert patch["status"]["conditions"][-1] | {"lastHeartbeatTime": "", "lastTransitionTime": ""} == {
            "lastHeartbeatTime": "",
            "lastTransitionTime": "",
            "message": "kubelet is posting ready status",
            "reason": "KubeletReady",
            "status": "True",
            "type": "Ready",
        }

    play(story)


def _requests(scene: Scene) -> list[tuple[str, str, str]]:
    return [asked for asked in scene.server.asked if asked[0] != "WATCH"]


def test_a_node_sets_no_label_that_noderestriction_forbids_it():
    body = machine.node(Spec(run="trial", count=1, fidelity="kubelet"), 0, "v1.36.3", time.time())
    for label in messages.NODE.read(protobuf.unwrap(body))["metadata"]["labels"]:
        domain = label.rpartition("/")[0]
        if domain.endswith(("kubernetes.io", "k8s.io")):
            assert domain == "node.kubernetes.io" or label in {
                "beta.kubernetes.io/arch",
                "beta.kubernetes.io/os",
                "kubernetes.io/arch",
                "kubernetes.io/hostname",
                "kubernetes.io/os",
            }


def test_pods_are_watched_once_the_node_is_seen():
    async def story(scene: Scene) -> None:
        vnode = await scene.join()
        assert not any(path.startswith("/api/v1/pods") for path, _ in scene.server.watches)
        scene.say("/api/v1/nodes?", frame("ADDED", node(podCIDR="10.0.7.0/24")), frame("BOOKMARK", END))
        assert vnode.ready
        assert vnode.addresses is not None
        scene.say("/api/v1/pods?", frame("ADDED", pod("p")))
        scene.say("/api/v1/pods?", frame("BOOKMARK", END))
        (event,) = scene.pods.seen
        assert (event.type, event.object.metadata.name, event.listed) == ("ADDED", "p", True)
        assert scene.pods.complete == [vnode]
        path = next(path for path, _ in scene.server.watches if path.startswith("/api/v1/pods?"))
        assert "timeout" not in parse_qs(urlsplit(path).query)

    play(story)


def test_renewals_keep_client_gos_jitter_and_carry_what_the_server_answered(monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []

    async def story(scene: Scene) -> None:
        vnode = await scene.join()
        assert vnode.kubelet is not None
        monkeypatch.setattr(module.Kubelet, "_renew_at", lambda self, at: waits.append(at - time.monotonic()))
        scene.server.asked.clear()
        for _ in range(500):
            await vnode.kubelet._sync()
        assert scene.counts.renewals == 500
        assert scene.server.methods(f"{LEASE}/vnode-00000?timeout=10s") == ["PUT"] * 500
        lease = messages.LEASE.read(protobuf.unwrap(scene.server.there[f"{LEASE}/vnode-00000"]))
        assert lease["metadata"]["ownerReferences"][0]["uid"] == "uid-1"
        assert lease["spec"]["holderIdentity"] == "vnode-00000"

    play(story)
    assert all(wait + 0.001 >= 10.0 and wait <= 10.4 for wait in waits)
    assert statistics.fmean(waits) == pytest.approx(10.2, abs=0.03)


def test_a_renewal_is_due_one_interval_after_the_last_was_answered():
    async def story(scene: Scene) -> None:
        await scene.join()
        begun = scene.counts.renewals
        await asyncio.sleep(1.1)
        # 0.2 s and 0.004 of jitter each; ticks of 0.05 s
        assert scene.counts.renewals - begun == 5
        assert scene.counts.lateness.quantile(1.0) <= 0.1

    play(story, lease_interval=0.2, lease_duration=1)


def test_a_conflict_gets_the_lease_and_goes_on():
    async def story(scene: Scene) -> None:
        vnode = await scene.join()
        assert vnode.kubelet is not None
        scene.server.asked.clear()
        scene.server.trouble = [Response(409, b"{}")]
        await vnode.kubelet._sync()
        assert scene.server.methods("leases") == ["PUT", "GET", "PUT"]
        assert scene.counts.renewals == 1

    play(story)


def test_a_lease_that_is_gone_is_made_anew_after_five_tries():
    async def story(scene: Scene) -> None:
        vnode = await scene.join()
        assert vnode.kubelet is not None
        del scene.server.there[f"{LEASE}/vnode-00000"]
        scene.server.asked.clear()
        await vnode.kubelet._sync()
        assert scene.server.methods("leases") == ["PUT"] * 5 + ["GET", "POST"]
        assert scene.counts.renewal_errors == 5

    play(story)


def test_an_outage_is_met_with_longer_and_longer_pauses(monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []

    async def story(scene: Scene) -> None:
        vnode = await scene.join()
        assert vnode.kubelet is not None
        monkeypatch.setattr(scene.agenda, "after", lambda seconds, job: pauses.append(seconds))
        scene.server.asked.clear()
        for _ in range(7):
            scene.server.trouble = [Unreachable("connection refused", sent=False)] * 6
            await vnode.kubelet._sync()
        assert scene.server.methods("leases") == ["PUT"] * 5 + ["GET"] * 7
        scene.server.trouble = []
        await vnode.kubelet._sync()
        assert scene.server.methods("leases")[-2:] == ["GET", "PUT"]

    play(story)
    assert pauses == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 7.0]


def test_the_status_is_told_again_after_its_interval_and_a_random_part_of_it_after_a_change():
    async def story(scene: Scene) -> None:
        vnode = await scene.join()
        assert vnode.kubelet is not None
        changed, kept = [], []
        scene.server.asked.clear()
        for _ in range(300):
            await vnode.kubelet.report_change(b"{}")
            changed.append(vnode.kubelet._report_at - time.monotonic())
            await vnode.kubelet._report()
            kept.append(vnode.kubelet._report_at - time.monotonic())
        assert min(changed) >= 149
        assert max(changed) <= 450
        assert statistics.fmean(changed) == pytest.approx(300, abs=20)
        assert min(kept) >= 299
        assert max(kept) <= 310.4
        assert "GET" not in scene.server.methods("nodes/vnode-00000?timeout")

    play(story)


def test_a_silent_machine_sends_nothing_and_comes_back():
    async def story(scene: Scene) -> None:
        vnode = await scene.join()
        assert vnode.kubelet is not None
        vnode.silent = True
        vnode.kubelet.pause()
        await asyncio.sleep(0.3)
        assert scene.server.watches == []
        assert scene.server.closed == ["vnode-00000 kubelet/v1.36.3 (linux/amd64) kubernetes/0123456"]
        scene.server.asked.clear()
        await asyncio.sleep(0.5)
        assert scene.server.asked == []
        vnode.silent = False
        vnode.kubelet.resume()
        await asyncio.sleep(0.5)
        assert len(scene.server.watches) == 4
        assert "PUT" in scene.server.methods("leases")

    play(story, lease_interval=0.2, lease_duration=1)


def test_what_several_pods_refer_to_is_watched_once_until_the_last_has_gone(monkeypatch: pytest.MonkeyPatch):
    refers = {"a": [("configmaps", "kube-root-ca.crt"), ("secrets", "key")], "b": [("configmaps", "kube-root-ca.crt")]}
    monkeypatch.setattr(objects, "references", lambda pod: refers[pod.metadata.name], raising=False)

    def seen(name: str) -> objects.Pod:
        return messages.decode(pod(name), messages.POD, objects.Pod)

    async def story(scene: Scene) -> None:
        vnode = await scene.join()
        assert vnode.kubelet is not None
        before = len(scene.server.watches)
        for name in "ab":
            vnode.kubelet.refer(seen(name))
        paths = [path for path, _ in scene.server.watches[before:]]
        assert [path.partition("?")[0] for path in paths] == [
            "/api/v1/namespaces/ns/configmaps",
            "/api/v1/namespaces/ns/secrets",
        ]
        query = parse_qs(urlsplit(paths[0]).query)
        assert query["fieldSelector"] == ["metadata.name=kube-root-ca.crt"]
        assert 1800 <= int(query["timeoutSeconds"][0]) < 3600
        vnode.kubelet.unrefer(seen("a"))
        assert len(scene.server.watches) == before + 1
        vnode.kubelet.unrefer(seen("b"))
        vnode.kubelet.unrefer(seen("b"))
        assert len(scene.server.watches) == before

    play(story)


def test_a_vnode_that_leaves_is_silent_before_the_fleet_deletes_what_it_has():
    async def story(scene: Scene) -> None:
        await scene.join()
        scene.server.asked.clear()
        scene.fleet.scale(0)
        await asyncio.sleep(0.1)
        assert [(method, path, who) for method, path, who in scene.server.asked] == [
            ("DELETE", "/api/v1/nodes/vnode-00000", "fleet fleet"),
            ("DELETE", f"{LEASE}/vnode-00000", "fleet fleet"),
            ("DELETE", "/apis/storage.k8s.io/v1/csinodes/vnode-00000", "fleet fleet"),
        ]
        assert scene.server.watches == []
        assert len(scene.server.closed) == 1

    play(story)


def test_a_node_that_somebody_deletes_registers_again():
    async def story(scene: Scene) -> None:
        vnode = await scene.join()
        scene.say("/api/v1/nodes?", frame("ADDED", node()), frame("BOOKMARK", END))
        scene.server.there.clear()
        scene.server.asked.clear()
        (listener,) = [listener for path, listener in scene.server.watches if path.startswith("/api/v1/nodes?")]
        listener.data(frame("DELETED", node()))
        await asyncio.sleep(0.1)
        (again,) = scene.fleet.by_name.values()
        assert again is not vnode
        assert again.joined
        assert ("POST", "/api/v1/nodes") in [asked[:2] for asked in scene.server.asked]

    play(story)


def test_a_node_that_vanished_while_its_watch_was_away_registers_again():
    async def story(scene: Scene) -> None:
        vnode = await scene.join()
        scene.server.there.clear()
        scene.say("/api/v1/nodes?", frame("BOOKMARK", END))  # a list without it
        await asyncio.sleep(0.1)
        (again,) = scene.fleet.by_name.values()
        assert again is not vnode
        assert again.joined

    play(story)


def test_a_kube_proxy_watches_the_node_then_all_that_it_routes():
    async def story(scene: Scene) -> None:
        await scene.join()

        def watched() -> list[str]:
            return [
                path.partition("?")[0]
                for method, path, who in scene.server.asked
                if method == "WATCH" and who.startswith("kube-proxy kube-proxy/v1.36.3")
            ]

        assert watched() == ["/api/v1/nodes"]
        (listener,) = [listener for path, listener in scene.server.watches[-1:]]
        listener.head(200, 0.0)
        listener.data(frame("ADDED", node()) + frame("BOOKMARK", END))
        assert watched()[1:] == [
            "/apis/networking.k8s.io/v1/servicecidrs",
            "/api/v1/services",
            "/apis/discovery.k8s.io/v1/endpointslices",
        ]
        await asyncio.sleep(0.05)
        told = [who for method, path, who in scene.server.asked if path.startswith("/apis/events.k8s.io/v1/")]
        assert told == ["kube-proxy kube-proxy/v1.36.3 (linux/amd64) kubernetes/0123456"]
        scene.fleet.scale(0)
        await asyncio.sleep(0.1)
        assert scene.server.watches == []
        assert len(scene.server.closed) == 2

    play(story, fidelity="node")
