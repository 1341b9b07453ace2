"""What the API server has of a foreign engine's fleet: Nodes, Leases and pods, seen through watches of our own."""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable
from datetime import datetime

import msgspec

from ..api.watch import ListWatch
from ..vnode import objects
from ..vnode.client import Client
from ..vnode.clock import JITTER
from ..vnode.nodes import LEASES, NODES
from ..vnode.spec import RUN_LABEL, Spec


class _LeaseMeta(msgspec.Struct):
    name: str
    labels: dict[str, str] = {}


class _Lease(msgspec.Struct):
    metadata: _LeaseMeta
    spec: objects.LeaseSpec


class _PodMeta(msgspec.Struct, rename="camel"):
    uid: str
    deletion_timestamp: str = ""


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _PodStatus(msgspec.Struct):
    phase: str = ""


class _Pod(msgspec.Struct):
    metadata: _PodMeta
    spec: _PodSpec
    status: _PodStatus


class Member:
    """A vnode, as far as the API server knows it. `uid` and `leased` tell of its Node and its Lease."""

    __slots__ = ("index", "leased", "leaving", "name", "ours", "ready", "renewed", "uid")

    def __init__(self, index: int, name: str) -> None:
        self.index = index
        self.name = name
        self.uid = ""
        self.ready = self.leased = self.leaving = False
        self.ours = False  # a Node of this name and of this run was seen
        self.renewed = 0.0  # UNIX time of the last renewal that was seen

    @property
    def joined(self) -> bool:
        return bool(self.uid) and self.leased


class Members:
    """The vnodes of a run by name. Who owns this sets the callbacks; each is given a name or a member."""

    def __init__(self, spec: Spec, client: Client) -> None:
        self.by_name: dict[str, Member] = {}
        self.synced = asyncio.Event()  # what an earlier engine left is known
        self._nodes_synced = asyncio.Event()
        self.on_node_gone: Callable[[Member], None]
        self.on_stray_node: Callable[[str], None]
        self.on_stray_lease: Callable[[str], None]
        self.on_bare_lease: Callable[[str], None]  # a member's, without the run's label
        self._spec = spec
        self._counts = client.counts
        self._departed: set[str] = set()
        self._phases: collections.Counter[str] = collections.Counter()
        self._pods: dict[str, str] = {}  # uid → phase
        selector = {"labelSelector": f"{RUN_LABEL}={spec.run}"}
        self._nodes = ListWatch(client.transport, NODES, objects.Node, selector, page=500)
        self._leases = ListWatch(client.transport, LEASES, _Lease)
        self._bound = ListWatch(client.transport, "/api/v1/pods", _Pod, {"fieldSelector": "spec.nodeName!="})

    @property
    def restarts(self) -> int:
        """Watches begun again."""
        return self._nodes.restarts + self._leases.restarts + self._bound.restarts

    def phases(self) -> dict[str, int]:
        """How many pods are in which phase; Terminating is one here, as kubectl has it."""
        return {phase: self._phases[phase] for phase in objects.PHASES}

    def add(self, index: int) -> Member:
        name = self._spec.name(index)
        self._departed.discard(name)
        return self.by_name.setdefault(name, Member(index, name))

    def remove(self, member: Member) -> None:
        """It has left: what of it comes back is a stray."""
        self.by_name.pop(member.name, None)
        self._departed.add(member.name)

    async def run(self) -> None:
        """Follow all three for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_nodes())
            await self._nodes_synced.wait()
            group.create_task(self._follow_leases())
            await self.synced.wait()
            group.create_task(self._follow_pods())

    # nodes

    async def _follow_nodes(self) -> None:
        listed: set[str] = set()
        async for event in self._nodes.events():
            node = event.object
            if event.type == "SYNCED":
                for member in list(self.by_name.values()):
                    if member.uid and member.name not in listed:
                        self._node_gone(member)
                listed.clear()
                self._nodes_synced.set()
            elif node is None or (index := self._spec.index(node.metadata.name)) is None:
                continue
            elif event.type == "DELETED":
                gone = self.by_name.get(node.metadata.name)
                if gone is not None and gone.uid == node.metadata.uid:
                    self._node_gone(gone)
            else:
                if event.listed:
                    listed.add(node.metadata.name)
                self._node_seen(index, node)

    def _node_seen(self, index: int, node: objects.Node) -> None:
        name = node.metadata.name
        if name not in self.by_name:
            if self.synced.is_set():
                if not node.metadata.deletion_timestamp:
                    self.on_stray_node(name)
                return
            self.add(index)
        member = self.by_name[name]
        member.uid, member.ready, member.ours = node.metadata.uid, node.ready, True

    def _node_gone(self, member: Member) -> None:
        member.uid, member.ready = "", False
        self.on_node_gone(member)

    # leases

    async def _follow_leases(self) -> None:
        listed: set[str] = set()
        async for event in self._leases.events():
            lease = event.object
            if event.type == "SYNCED":
                for member in self.by_name.values():
                    member.leased = member.leased and member.name in listed
                listed.clear()
                self.synced.set()
            elif lease is None:
                continue
            elif event.type == "DELETED":
                if (gone := self.by_name.get(lease.metadata.name)) is not None:
                    gone.leased = False
            else:
                if event.listed:
                    listed.add(lease.metadata.name)
                self._lease_seen(lease, event.listed)

    def _lease_seen(self, lease: _Lease, listed: bool) -> None:
        name, labelled = lease.metadata.name, lease.metadata.labels.get(RUN_LABEL) == self._spec.run
        member = self.by_name.get(name)
        if member is None:
            if labelled or name in self._departed:
                self.on_stray_lease(name)
            return
        if not member.ours:
            return  # another node's of this name
        if not labelled and not member.leaving:
            self.on_bare_lease(name)
        member.leased = True
        if lease.spec.renew_time is not None:
            self._renewal_seen(member, lease.spec.renew_time, listed)

    def _renewal_seen(self, member: Member, renewed: datetime, listed: bool) -> None:
        moment, before = renewed.timestamp(), member.renewed
        member.renewed = moment
        if before and moment > before and not listed:
            self._counts.renewals += 1
            self._counts.lateness.observe(max(0.0, moment - before - self._spec.lease_interval * (1 + JITTER)))

    def oldest(self) -> float:
        """Seconds since the renewal that is longest ago."""
        now = time.time()
        return max((now - member.renewed for member in self.by_name.values() if member.joined), default=0.0)

    # pods

    async def _follow_pods(self) -> None:
        listed: set[str] = set()
        async for event in self._bound.events():
            pod = event.object
            if event.type == "SYNCED":
                for uid in self._pods.keys() - listed:
                    self._phases[self._pods.pop(uid)] -= 1
                listed.clear()
            elif pod is None or pod.spec.node_name not in self.by_name:
                continue
            elif event.type == "DELETED":
                if (phase := self._pods.pop(pod.metadata.uid, None)) is not None:
                    self._phases[phase] -= 1
            else:
                if event.listed:
                    listed.add(pod.metadata.uid)
                self._pod_seen(pod, event.listed)

    def _pod_seen(self, pod: _Pod, listed: bool) -> None:
        before = self._pods.get(pod.metadata.uid)
        phase = "Terminating" if pod.metadata.deletion_timestamp else pod.status.phase or "Pending"
        if phase == before:
            return
        if before is not None:
            self._phases[before] -= 1
        self._phases[phase] += 1
        self._pods[pod.metadata.uid] = phase
        if phase == "Running" and not listed:
            self._counts.pod_starts += 1
