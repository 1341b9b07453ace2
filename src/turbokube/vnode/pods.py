"""What a kubelet does with pods: those bound to a vnode run after a while, those deleted end."""

from __future__ import annotations

import asyncio
import collections
import random
import time
from collections.abc import Awaitable, Callable

from ..api.transport import STRATEGIC_PATCH
from ..api.watch import Event, ListWatch
from . import behaviour, objects
from .addresses import Range, fallback, number
from .client import Client
from .crew import Crew
from .nodes import Vnode
from .spec import Spec

PENDING, RUNNING, ENDING, DONE = "Pending", "Running", "Terminating", "Succeeded"
PHASES = (PENDING, RUNNING, ENDING, DONE)


class _Record:
    """A pod as the engine remembers it; all else comes with each event."""

    __slots__ = ("address", "phase", "seen", "vnode")

    def __init__(self, vnode: Vnode, seen: float) -> None:
        self.vnode = vnode
        self.phase = PENDING
        self.seen = seen
        self.address = 0


class Pods:
    """Every pod bound to a vnode, seen through one list and watch for all of them."""

    def __init__(self, spec: Spec, client: Client, crew: Crew, vnodes: dict[str, Vnode]) -> None:
        self.watch = ListWatch(client.transport, "/api/v1/pods", objects.Pod, {"fieldSelector": "spec.nodeName!="})
        self._start_delay, self._stop_delay = (
            behaviour.parse(text).draw(random.Random(spec.seed)) for text in (spec.start_delay, spec.stop_delay)
        )
        # what a kubelet's server side needs to know of pods, if there is one
        self.on_seen: Callable[[objects.Pod, Vnode], None] | None = None
        self.on_gone: Callable[[str], None] | None = None
        self._address = spec.address
        self._client = client
        self._crew = crew
        self._vnodes = vnodes
        self._pods: dict[str, _Record] = {}  # by uid
        self._phases: collections.Counter[str] = collections.Counter()
        self._fallback = Range(fallback(spec.shard, spec.processes))
        self._listed: set[str] = set()
        self._loop = asyncio.get_running_loop()

    def phases(self) -> dict[str, int]:
        """How many pods are in which phase; Terminating is one here, as kubectl has it."""
        return {phase: self._phases[phase] for phase in PHASES}

    async def run(self) -> None:
        """Follow the pods for ever."""
        async for event in self.watch.events():
            if event.type == "SYNCED":
                for uid in self._pods.keys() - self._listed:
                    self._drop(uid)
                self._listed.clear()
            elif event.object is not None:
                self.see(event)

    def see(self, event: Event[objects.Pod]) -> None:
        """One event: what the pod's state asks for is begun, once."""
        pod = event.object
        assert pod is not None
        uid = pod.metadata.uid
        if event.type == "DELETED":
            self._drop(uid)
            return
        if event.listed:
            self._listed.add(uid)
        record = self._pods.get(uid)
        if record is None:
            vnode = self._vnodes.get(pod.spec.node_name)
            if vnode is None or not vnode.uid:
                return  # on a node that is none of ours
            record = self._pods[uid] = _Record(vnode, time.time())
            self._phases[PENDING] += 1
            self._admit(pod, record)
        if pod.metadata.deletion_timestamp and record.phase != ENDING:
            self._move(record, ENDING)
            self._after(min(self._stop_delay, pod.metadata.deletion_grace_period_seconds), self._finish, pod)
        if self.on_seen is not None:
            self.on_seen(pod, record.vnode)

    # what is begun

    def _admit(self, pod: objects.Pod, record: _Record) -> None:
        if pod.status.phase not in ("", "Pending"):
            # an earlier engine has started it, and an earlier kubelet's word stands
            self._move(record, RUNNING if pod.status.phase == "Running" else DONE)
            if not pod.spec.host_network:
                record.address = number(pod.status.pod_i_p)
                for addresses in self._ranges(record):
                    addresses.adopt(record.address)
        elif not pod.metadata.deletion_timestamp:
            self._after(self._start_delay, self._start, pod)

    def _after(self, delay: float, job: Callable[[objects.Pod], Awaitable[None]], pod: objects.Pod) -> None:
        if delay > 0:
            self._loop.call_later(delay, self._crew.put, job, pod)
        else:
            self._crew.put(job, pod)

    async def _start(self, pod: objects.Pod) -> None:
        record = self._pods.get(pod.metadata.uid)
        if record is None or record.phase != PENDING:
            return
        if not record.address and not pod.spec.host_network:
            record.address = next((address for r in self._ranges(record) if (address := r.take())), 0)
        now = time.time()
        body = objects.running(pod, self._address(record.vnode.index), record.address, record.seen, now)
        if not await self._patch(pod, body):
            return
        if record.phase == PENDING:
            self._move(record, RUNNING)
            self._client.counts.pod_starts += 1
        for container in pod.spec.containers:
            self._crew.put(self._tell, objects.started_event(pod, container, now), pod.metadata.namespace)

    async def _finish(self, pod: objects.Pod) -> None:
        uid, path = pod.metadata.uid, _path(pod)
        if uid not in self._pods:
            return
        if not await self._patch(pod, objects.terminated(pod, time.time())):
            return
        answer = await self._client.call("delete", "pods", "DELETE", path, objects.final_delete(uid))
        if answer.status not in (404, 409):  # gone, or another pod of the same name
            answer.checked()

    async def _patch(self, pod: objects.Pod, body: bytes) -> bool:
        """Whether the pod was there to be patched."""
        path = f"{_path(pod)}/status"
        answer = await self._client.call("patch", "pods/status", "PATCH", path, body, STRATEGIC_PATCH)
        if answer.status != 404:
            answer.checked()
        return answer.ok

    async def _tell(self, event: bytes, namespace: str) -> None:
        answer = await self._client.call("create", "events", "POST", f"/api/v1/namespaces/{namespace}/events", event)
        going = answer.status == 404 or (answer.status == 403 and b"being terminated" in answer.body)
        if not going and answer.status != 409:  # 409: told already
            answer.checked()

    # book-keeping

    def _ranges(self, record: _Record) -> tuple[Range, ...]:
        own = record.vnode.addresses
        return (self._fallback,) if own is None else (own, self._fallback)

    def _move(self, record: _Record, phase: str) -> None:
        self._phases[record.phase] -= 1
        self._phases[phase] += 1
        record.phase = phase

    def _drop(self, uid: str) -> None:
        if (record := self._pods.pop(uid, None)) is None:
            return
        self._phases[record.phase] -= 1
        if self.on_gone is not None:
            self.on_gone(uid)
        for addresses in self._ranges(record):
            addresses.release(record.address)


def _path(pod: objects.Pod) -> str:
    return f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}"
