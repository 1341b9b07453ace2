"""Which vnodes there are: they join, leave, are watched, and report their status."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec

from ..api.transport import JSON, STRATEGIC_PATCH, Response
from ..api.watch import Event, ListWatch
from . import objects
from .addresses import Range
from .client import Client
from .clock import Wheel
from .crew import Crew
from .spec import ACTIONS, RUN_LABEL, Spec

if TYPE_CHECKING:
    from .kubelet.kubelet import Kubelet
    from .pods import Pods

NODES = "/api/v1/nodes"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
SILENCE, NOT_READY, DISAPPEAR = ACTIONS  # what a fault does to a vnode
log = logging.getLogger(__name__)


class Vnode:
    """One virtual node. `uid` is empty until its Node exists, `joined` false until its Lease does too."""

    __slots__ = (
        "addresses",
        "client",
        "index",
        "joined",
        "kubelet",
        "lease_version",
        "leaving",
        "name",
        "queued",
        "ready",
        "renewed",
        "silent",
        "uid",
    )

    def __init__(self, index: int, name: str, client: Client) -> None:
        self.index = index
        self.name = name
        self.client = client  # whose requests are this node's: the fleet's at `lease`, else its own
        self.kubelet: Kubelet | None = None  # what it has of its own, above `lease`
        self.uid = ""
        self.joined = self.leaving = self.ready = False
        self.silent = False  # a machine that is cut off: it sends nothing
        self.queued = False  # a renewal waits or is under way
        self.renewed = 0.0  # UNIX time of the last renewal that the server accepted
        self.lease_version = b""
        self.addresses: Range | None = None  # of its podCIDR, once the control plane has given one


class Nodes:
    """The fleet's members, kept equal to the spec's count."""

    def __init__(self, spec: Spec, version: str, client: Client, crew: Crew) -> None:
        self.spec = spec
        self.by_name: dict[str, Vnode] = {}
        self.conflict = ""  # why a vnode cannot join, when it is the user who must decide
        self.synced = False  # the nodes of an earlier engine are known
        self.watch = ListWatch(
            client.transport, NODES, objects.Node, {"labelSelector": f"{RUN_LABEL}={spec.run}"}, page=500
        )
        self.on_joined: Callable[[Vnode], None] = lambda vnode: None
        self.on_left: Callable[[Vnode], None] = lambda vnode: None
        self.pods: Pods  # those on the vnodes
        self.faults: dict[int, str] = {}  # vnodes under a fault, and which
        self._version = version
        self._client = client
        self._crew = crew
        self._listed: set[str] = set()
        self._early: dict[str, objects.Node] = {}  # seen before the answer that says whose they are
        self._statuses: Wheel[Vnode] = Wheel(spec.status_interval, lambda vnode, _: crew.put(self._heartbeat, vnode))

    async def run(self) -> None:
        """Follow the Nodes for ever: the first list is what an earlier engine left."""
        async for event in self.watch.events():
            if event.type == "SYNCED":
                await self._after_list()
            elif event.object is not None:
                self._see(event, event.object)

    async def report(self) -> None:
        """Send every vnode's heartbeat once per status interval, for ever."""
        await self._statuses.run()

    async def close(self) -> None:
        """Close what vnodes have of their own and leave what is on the API server."""

    @property
    def complete(self) -> bool:
        """Whether every vnode that is wanted has joined and is Ready."""
        ready = sum(vnode.ready and vnode.joined for vnode in self.by_name.values())
        return self.synced and ready == len(self.by_name) == len(self.spec.indices)

    @property
    def excused(self) -> int:
        """How many vnodes a fault keeps from being Ready."""
        found = [self.by_name.get(self.spec.name(index)) for index in self.faults if index in self.spec.indices]
        return sum(vnode is None or not vnode.ready for vnode in found)

    def scale(self, count: int) -> None:
        """Let vnodes join or leave until there are `count`, those of the highest numbers last and first."""
        self.spec = msgspec.structs.replace(self.spec, count=count)
        self.conflict = ""
        for index in self.spec.indices:
            if (vnode := self.by_name.get(self.spec.name(index))) is None:
                self._begin(index)
            elif vnode.leaving and self.faults.get(index) != DISAPPEAR:
                vnode.leaving = False  # its job sees that, or the Node's end brings it back
        for vnode in list(self.by_name.values()):
            if vnode.index >= count:
                self._end(vnode)

    # faults

    def befall(self, index: int, action: str) -> None:
        """A fault begins."""
        self.faults[index] = action
        vnode = self.by_name.get(self.spec.name(index))
        if vnode is None:
            return
        if action == DISAPPEAR:
            self._end(vnode)
        elif action == SILENCE:
            vnode.silent = True
            if vnode.kubelet is not None:
                vnode.kubelet.pause()
                vnode.ready = False  # nobody tells any more what the control plane holds of it
        else:
            self._crew.put(self._restatus, vnode, True)

    def recover(self, index: int) -> None:
        """It is over."""
        action = self.faults.pop(index, "")
        vnode = self.by_name.get(self.spec.name(index))
        if vnode is None:
            if index in self.spec.indices:
                self._begin(index)
            return
        if action == DISAPPEAR and index in self.spec.indices:
            vnode.leaving = False  # its job sees that, or brings it back when it has ended
        if action == SILENCE:
            vnode.silent = False
            if vnode.kubelet is not None:
                vnode.kubelet.resume()
        self._crew.put(self._restatus, vnode, True)

    # what is seen

    def _see(self, event: Event[objects.Node], node: objects.Node) -> None:
        name = node.metadata.name
        if event.type == "DELETED":
            if (vnode := self.by_name.get(name)) is not None and vnode.uid == node.metadata.uid:
                self._gone(vnode)
            return
        if event.listed:
            self._listed.add(name)
        if (vnode := self.by_name.get(name)) is None:
            index = self.spec.index(name)
            if index is None or self.synced or not self.spec.owns(index):
                return  # not of this process's making, or an echo of one that is leaving
            vnode = self.by_name[name] = self._new(index)
            vnode.uid = node.metadata.uid
        if vnode.uid == node.metadata.uid:
            self._take_in(vnode, node)
        elif not vnode.uid:  # it is joining: this may be its Node, or the last word of an earlier one
            self._early[name] = node

    def _take_in(self, vnode: Vnode, node: objects.Node) -> None:
        if vnode.addresses is None and node.spec.pod_c_i_d_r:
            vnode.addresses = Range(node.spec.pod_c_i_d_r)
        was, vnode.ready = vnode.ready, node.ready
        lost = was and any(c.type == "Ready" and c.status != "True" for c in node.status.conditions)
        if lost and vnode.index not in self.faults:
            self._object(vnode)

    async def _after_list(self) -> None:
        if self.synced:
            for vnode in list(self.by_name.values()):
                if vnode.uid and vnode.name not in self._listed:
                    self._gone(vnode)
        else:
            await self._adopt()
            self.synced = True
            self.scale(self.spec.count)
        self._listed.clear()

    async def _adopt(self) -> None:
        """Take over what an earlier engine left: leases go on from their versions, those without a node go."""
        leases = ListWatch(
            self._client.transport, LEASES, objects.Lease, {"labelSelector": f"{RUN_LABEL}={self.spec.run}"}
        )
        async for event in leases.events():
            if event.object is None:
                break
            name = event.object.metadata.name
            if (vnode := self.by_name.get(name)) is not None:
                vnode.lease_version = event.object.metadata.resource_version.encode()
                vnode.renewed = event.object.spec.renew_time.timestamp() if event.object.spec.renew_time else 0.0
            elif self.spec.owns(index := self.spec.index(name)) and index not in self.spec.indices:
                self._crew.put(self._delete, "leases", LEASES, name)
        for vnode in self.by_name.values():
            if vnode.index < self.spec.count:
                self._take_over(vnode)

    # joining and leaving

    def _new(self, index: int) -> Vnode:
        vnode = Vnode(index, self.spec.name(index), self._client)
        vnode.silent = self.faults.get(index) == SILENCE  # since before this engine
        return vnode

    def _begin(self, index: int) -> None:
        if self.faults.get(index) in (SILENCE, DISAPPEAR):
            return  # there is no machine that could join
        vnode = self._new(index)
        self.by_name[vnode.name] = vnode
        self._crew.put(self._join, vnode)

    def _enter(self, vnode: Vnode) -> None:
        """It has a Node and a Lease: from now on it keeps them."""
        vnode.joined = True
        self._statuses.add(vnode.index, vnode)
        self.on_joined(vnode)

    def _take_over(self, vnode: Vnode) -> None:
        """It has them from an earlier engine."""
        self._enter(vnode)
        self._crew.put(self._restatus, vnode, not vnode.ready)

    def _quit(self, vnode: Vnode) -> None:
        """It sends no more of its own accord, whether it had come to that or not."""
        if vnode.joined:
            vnode.joined = vnode.ready = False
            self._statuses.remove(vnode.index, vnode)
            self.on_left(vnode)

    def _end(self, vnode: Vnode) -> None:
        if not vnode.leaving:
            vnode.leaving = True
            self._crew.put(self._leave, vnode)

    def _forget(self, vnode: Vnode) -> None:
        if self.by_name.get(vnode.name) is vnode:
            del self.by_name[vnode.name]
        self._quit(vnode)

    def _gone(self, vnode: Vnode) -> None:
        """Its Node was deleted by somebody else: a machine that is there registers again."""
        if vnode.leaving:
            return
        self._forget(vnode)
        if vnode.index < self.spec.count:
            self._begin(vnode.index)

    async def _join(self, vnode: Vnode) -> None:
        """The kubelet's order: the Node, then the Lease that it owns."""
        if vnode.leaving or vnode.joined:
            return
        if not vnode.uid and not await self._register(vnode):
            return
        body = objects.lease(self.spec, vnode.name, vnode.uid, b"", time.time())
        answer = await self._create(vnode, "leases", LEASES, body, JSON)
        vnode.lease_version = objects.resource_version(answer.body)
        vnode.renewed = time.time()
        if vnode.leaving:
            self._crew.put(self._leave, vnode)  # told to while this was under way
        else:
            self._enter(vnode)

    async def _create(self, vnode: Vnode, resource: str, path: str, body: bytes, content_type: str) -> Response:
        """Create the object of a vnode's name, or get the earlier one.

        One that is collected between the two leaves the refusal, 409, which the crew tries again.
        """
        answer = await vnode.client.call("create", resource, "POST", path, body, content_type)
        if answer.status == 409:
            found = await vnode.client.call("get", resource, "GET", f"{path}/{vnode.name}")
            answer = answer if found.status == 404 else found
        return answer.checked()

    def _description(self, vnode: Vnode) -> tuple[bytes, str]:
        """The Node that it registers, and in which form."""
        return objects.node(self.spec, vnode.index, self._version, time.time()), JSON

    def _read(self, answer: bytes) -> objects.Node:
        return msgspec.json.decode(answer, type=objects.Node)

    async def _register(self, vnode: Vnode) -> bool:
        answer = await self._create(vnode, "nodes", NODES, *self._description(vnode))
        node = self._read(answer.body)
        if node.metadata.labels.get(RUN_LABEL) != self.spec.run:
            self.conflict = self.spec.conflict(vnode.name)
            return False
        vnode.uid = node.metadata.uid
        early = self._early.pop(vnode.name, node)
        self._take_in(vnode, early if early.metadata.uid == vnode.uid else node)
        return True

    async def _leave(self, vnode: Vnode) -> None:
        if not vnode.leaving:  # wanted again before this began, or between two tries
            return await self._join(vnode)
        self._quit(vnode)  # before the Lease goes, so that no renewal brings it back
        if vnode.uid:
            await self._remove(vnode)
        self._forget(vnode)
        if vnode.index < self.spec.count:  # wanted again meanwhile
            self._begin(vnode.index)

    async def _remove(self, vnode: Vnode) -> None:
        """Delete what it has: the fleet does, since a node may not."""
        await self._delete("nodes", NODES, vnode.name)
        await self._delete("leases", LEASES, vnode.name)

    async def _delete(self, resource: str, collection: str, name: str) -> None:
        answer = await self._client.call("delete", resource, "DELETE", f"{collection}/{quote(name)}")
        if answer.status != 404:
            answer.checked()

    # status

    def _object(self, vnode: Vnode) -> None:
        """The control plane holds it for lost, and it is not."""
        self._crew.put(self._restatus, vnode, True)

    async def _heartbeat(self, vnode: Vnode) -> None:
        await self._patch(vnode, objects.node_heartbeat(time.time()))

    async def _restatus(self, vnode: Vnode, changed: bool) -> None:
        ready = self.faults.get(vnode.index) != NOT_READY
        body = objects.node_status(self.spec, vnode.index, self._version, time.time(), changed, ready)
        await self._patch(vnode, body)

    async def _patch(self, vnode: Vnode, body: bytes) -> None:
        if not vnode.joined or vnode.silent:
            return
        path = f"{NODES}/{vnode.name}/status"
        answer = await vnode.client.call("patch", "nodes/status", "PATCH", path, body, STRATEGIC_PATCH)
        if answer.status != 404:  # deleted by somebody else, of which the watch tells
            answer.checked()
