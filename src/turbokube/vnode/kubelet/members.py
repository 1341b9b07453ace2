"""The fleet's members where each has a kubelet: what all kubelets of an engine share, and how one joins.

What NodeRestriction keeps from nodes (some labels, the end of Nodes) is done by the fleet's own identity.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from ...api import messages
from ...api.credentials import Credential
from ...api.http2 import Http2
from ...api.messages import Message, many, mapping, one
from ...api.transport import MERGE_PATCH, PROTOBUF, STRATEGIC_PATCH, Response, Unreachable
from ...api.watch import Event
from .. import identity, objects
from ..client import Client
from ..clock import Agenda
from ..crew import Crew
from ..nodes import LEASES, NODES, NOT_READY, Nodes, Vnode
from ..spec import Spec
from . import machine
from .kubelet import ACCEPT, Kubelet
from .reflector import Kind

CSI_NODES = "/apis/storage.k8s.io/v1/csinodes"
_SLICES = "/apis/resource.k8s.io/v1/resourceslices"
_EVENTS = "/api/v1/namespaces/default/events"

_TIMEOUT = 30.0  # seconds; a kubelet has none but for heartbeats
_HANDSHAKES = 32  # connections being made at once: a handshake takes milliseconds, and leases do not wait for thousands
_PROXY_HANDSHAKES = 8  # of kube-proxies, which have no Lease to lose
_OBJECT_WATCH = 1800.0  # seconds: the least that a watch of one ConfigMap or Secret lasts (watch_based_manager.go)
_LOOK = 10.0  # seconds between a kubelet's looks at its status (nodeStatusUpdateFrequency)

# of a Node, what is needed of each change: its images are most of it
_NODE = Message(
    metadata=one(1, Message(name=one(1), uid=one(5), labels=mapping(11))),
    spec=one(2, Message(podCIDR=one(1), taints=many(5, Message(key=one(1))))),
    status=one(3, Message(conditions=many(4, Message(type=one(1), status=one(2))))),
)

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Identities:
    """Who vnodes are: from `folder` comes what their kubelets and kube-proxies are known by."""

    fleet: Credential  # the fleet's own, whose server and CA theirs are too
    folder: Path
    servers: Sequence[str]
    version: str  # of Kubernetes, as /version's gitVersion
    commit: str  # the same build's

    def user_agent(self, component: str) -> str:
        """As client-go makes it (rest.DefaultKubernetesUserAgent)."""
        return f"{component}/{self.version} (linux/amd64) kubernetes/{self.commit[:7] or '$Format'}"

    def kubelet(self, name: str) -> Credential:
        """system:node:<name>."""
        return identity.kubelet(self.fleet, self.folder, name)

    def proxy(self) -> Credential:
        """system:kube-proxy, one for all."""
        return identity.proxy(self.fleet, self.folder)


class Kubelets(Nodes):
    """The fleet's members, kept equal to the spec's count."""

    def __init__(self, spec: Spec, who: Identities, client: Client, crew: Crew, agenda: Agenda) -> None:
        """`client` and `crew` are the fleet's own. `pods` is set before anything runs."""
        super().__init__(spec, who.version, client, crew)
        self.agenda = agenda
        self.counts = client.counts
        self.who = who
        self.gate, self.proxy_gate = asyncio.Semaphore(_HANDSHAKES), asyncio.Semaphore(_PROXY_HANDSHAKES)
        self.kinds = (
            Kind("/api/v1/services", fields="spec.clusterIP!=None"),
            Kind("/apis/storage.k8s.io/v1/csidrivers"),
            Kind("/apis/node.k8s.io/v1/runtimeclasses"),
            Kind(NODES, fields="metadata.name={name}", see=self._see_own, synced=self._own_synced),
        )
        self.pod_kind = Kind(
            "/api/v1/pods", fields="spec.nodeName={name}", see=self._see_pod, synced=self._pods_synced, timeout=False
        )
        self.proxy_credential = who.proxy() if spec.fidelity == "node" else None
        self.proxy_user_agent = who.user_agent("kube-proxy")
        self._object_kinds: dict[tuple[str, str], Kind] = {}
        self._user_agent = who.user_agent("kubelet")
        self._shown: set[str] = set()  # names whose Node the list that is under way has shown
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Learn what an earlier engine left. What becomes of a Node later, its own watch tells."""
        async for event in self.watch.events():
            if event.type == "SYNCED":
                await self._after_list()
                return
            if event.object is not None:
                self._see(event, event.object)

    async def close(self) -> None:
        """Close every connection and leave what is on the API server."""
        for task in self._tasks:
            task.cancel()
        for vnode in self.by_name.values():
            if vnode.kubelet is not None and vnode.kubelet.proxy is not None:
                await vnode.kubelet.proxy.streams.close()
            await vnode.client.transport.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside the rest; what it raises is logged."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def connect(self, vnode: Vnode) -> None:
        """Give it a connection, which opens when it is used first."""
        identity = self.who.kubelet(vnode.name)
        streams = Http2(identity, self.who.servers, user_agent=self._user_agent, index=vnode.index, gate=self.gate)
        vnode.client = Client(streams, self.counts, _TIMEOUT, ACCEPT)

    def object_kind(self, resource: str, namespace: str) -> Kind:
        """What a watch of one ConfigMap or Secret is of."""
        key = resource, namespace
        if key not in self._object_kinds:
            path = f"/api/v1/namespaces/{namespace}/{resource}"
            self._object_kinds[key] = Kind(path, fields="metadata.name={name}", shortest=_OBJECT_WATCH)
        return self._object_kinds[key]

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a kubelet's work failed", exc_info=error)

    # what is seen

    def _see_own(self, kubelet: Kubelet, kind: str, data: bytes, listed: bool) -> None:
        if listed:
            self._shown.add(kubelet.vnode.name)
        node = self._read(data)
        self._see(Event(kind, node), node)

    def _own_synced(self, kubelet: Kubelet) -> None:
        vnode = kubelet.vnode
        if vnode.name in self._shown:
            self._shown.discard(vnode.name)
        elif vnode.joined:
            self._gone(vnode)
            return
        kubelet.watch_pods()

    def _see_pod(self, kubelet: Kubelet, kind: str, data: bytes, listed: bool) -> None:
        self.pods.see(Event(kind, messages.decode(data, messages.POD, objects.Pod), listed))

    def _pods_synced(self, kubelet: Kubelet) -> None:
        self.pods.synced(kubelet.vnode)

    def _object(self, vnode: Vnode) -> None:
        self.agenda.after(random.uniform(0.0, _LOOK), lambda: self._crew.put(self._restatus, vnode, True))

    # joining and leaving

    def _new(self, index: int) -> Vnode:
        vnode = super()._new(index)
        self._equip(vnode)
        return vnode

    def _equip(self, vnode: Vnode) -> Kubelet:
        self.connect(vnode)
        vnode.kubelet = Kubelet(self, vnode)
        return vnode.kubelet

    def _enter(self, vnode: Vnode) -> None:
        vnode.joined = True
        if vnode.kubelet is not None:
            vnode.kubelet.enter()
        self.on_joined(vnode)

    def _take_over(self, vnode: Vnode) -> None:
        self._enter(vnode)
        self._crew.put(self._restart, vnode)

    def _quit(self, vnode: Vnode) -> None:
        super()._quit(vnode)
        if vnode.kubelet is not None:
            vnode.kubelet.close()
            vnode.kubelet = None
            self.pods.left(vnode.name)

    async def _restart(self, vnode: Vnode) -> None:
        """A kubelet that was started again, on a machine that is a node already."""
        if vnode.joined and vnode.kubelet is not None:
            vnode.kubelet.start()
            await self._restatus(vnode, not vnode.ready)
            await self._start_proxy(vnode)

    async def _join(self, vnode: Vnode) -> None:
        if vnode.leaving or vnode.joined:
            return
        kubelet = vnode.kubelet or self._equip(vnode)
        kubelet.start()
        if not vnode.uid:
            await self._look_around(vnode)
            if not await self._register(vnode):
                return
            # a kubelet's first report has nothing to say that its Node did not
            path = f"{NODES}/{vnode.name}/status?timeout=10s"
            await vnode.client.call("patch", "nodes/status", "PATCH", path, b"{}", STRATEGIC_PATCH)
        await self._complete(vnode)
        await kubelet.have_lease()  # ten seconds earlier than a kubelet, which finds no Node at its first try
        if vnode.leaving:
            self._crew.put(self._leave, vnode)  # told to while this was under way
            return
        self._enter(vnode)
        # what is put last is done first
        self._crew.put_first(self._start_proxy, vnode)
        self._crew.put_first(self._restatus, vnode, True)
        self._crew.put_first(self._tell_start, vnode)

    async def _start_proxy(self, vnode: Vnode) -> None:
        if vnode.joined and vnode.kubelet is not None:
            vnode.kubelet.start_proxy()

    def _description(self, vnode: Vnode) -> tuple[bytes, str]:
        return machine.node(self.spec, vnode.index, self.who.version, time.time()), PROTOBUF

    def _read(self, answer: bytes) -> objects.Node:
        return messages.decode(answer, _NODE, objects.Node)

    async def _look_around(self, vnode: Vnode) -> None:
        """What a kubelet asks before it has a Node: most of it in vain."""
        call, node = vnode.client.call, f"{NODES}/{vnode.name}"
        await call("get", "leases", "GET", f"{LEASES}/{vnode.name}?timeout=10s")
        await call("get", "csinodes", "GET", f"{CSI_NODES}/{vnode.name}?resourceVersion=0")
        path = f"{_SLICES}?fieldSelector=spec.nodeName%3D{vnode.name}"
        await call("deletecollection", "resourceslices", "DELETE", path, machine.delete_options(), PROTOBUF)
        for asked in (node, f"{node}?timeout=10s", node):  # the CSINode's maker, the Lease's, the former once more
            await call("get", "nodes", "GET", asked)

    async def _complete(self, vnode: Vnode) -> None:
        """The labels that only the fleet may give, and the CSINode."""
        path = f"{NODES}/{vnode.name}"
        labels = machine.forbidden_labels()
        (await self._client.call("patch", "nodes", "PATCH", path, labels, MERGE_PATCH)).checked()
        call = vnode.client.call
        await call("get", "nodes", "GET", path)
        found = await call("get", "csinodes", "GET", f"{CSI_NODES}/{vnode.name}")
        if found.status == 404:
            body = machine.csi_node(self.spec, vnode.name, vnode.uid)
            found = await call("create", "csinodes", "POST", CSI_NODES, body, PROTOBUF)
        _checked_unless_there(found)

    async def _remove(self, vnode: Vnode) -> None:
        await super()._remove(vnode)
        await self._delete("csinodes", CSI_NODES, vnode.name)

    # status and Events

    async def _restatus(self, vnode: Vnode, changed: bool) -> None:
        if not vnode.joined or vnode.kubelet is None:
            return
        if not changed:
            await vnode.kubelet.patch_status(objects.node_heartbeat(time.time()))
            return
        up = self.faults.get(vnode.index) != NOT_READY
        if await vnode.kubelet.report_change(machine.ready(time.time(), up)):
            await self._tell(vnode, machine.READY if up else machine.NOT_READY)

    async def _tell_start(self, vnode: Vnode) -> None:
        for told in machine.STARTING:
            await self._tell(vnode, told)

    async def _tell(self, vnode: Vnode, told: machine.Told) -> None:
        """Tell of it once; what is told again is counted in the Event. What fails is not tried again."""
        now = time.time()
        name, body = machine.event(vnode.name, told, now)
        try:
            answer = await vnode.client.call("create", "events", "POST", _EVENTS, body, PROTOBUF)
            for count in range(2, told.times + 1):
                if not answer.ok:
                    return
                body = machine.event_again(vnode.name, told, count, time.time())
                answer = await vnode.client.call("patch", "events", "PATCH", f"{_EVENTS}/{name}", body, STRATEGIC_PATCH)
        except Unreachable:
            return


def _checked_unless_there(answer: Response) -> None:
    if answer.status != 409:
        answer.checked()
