"""The independent witness: its own watches of pods and Nodes, and its own clocks."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from turbokube.api.transport import Transport
from turbokube.api.watch import Event, ListWatch
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import Writer

_BREATH = 100  # events handled before others get the loop
_NODES_EVERY_S = 5.0  # a row of table nodes at least so often
_CATCHING_UP_S = 1.0  # after a watch began again, what comes so soon may be late: its moment is not known


class _Labels(msgspec.Struct):
    app: str = ""


class _Metadata(msgspec.Struct, rename="camel"):
    name: str
    namespace: str = ""
    uid: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: str | None = None
    labels: _Labels = msgspec.field(default_factory=_Labels)


class _Condition(msgspec.Struct, rename="camel"):
    type: str
    status: str
    last_transition_time: datetime | None = None


class _Running(msgspec.Struct, rename="camel"):
    started_at: datetime | None = None


class _State(msgspec.Struct):
    running: _Running | None = None


class _Container(msgspec.Struct, rename="camel"):
    ready: bool = False
    restart_count: int = 0
    state: _State = msgspec.field(default_factory=_State)


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class _PodStatus(msgspec.Struct, rename="camel"):
    phase: str = ""
    conditions: list[_Condition] = []
    container_statuses: list[_Container] = []


class _Pod(msgspec.Struct):
    metadata: _Metadata
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class _NodeStatus(msgspec.Struct):
    conditions: list[_Condition] = []


class _Node(msgspec.Struct):
    metadata: _Metadata
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


class _Clocks(msgspec.Struct, array_like=True):
    """One pod's row of table pods behind its uid.

    It is kept packed (MessagePack): there may be hundreds of thousands, and as an object each takes twice the memory.
    """

    namespace: str
    name: str
    owner: str
    node: str | None
    created: float | None
    seen: float
    scheduled: float | None = None
    bound_seen: float | None = None
    started: float | None = None
    running_seen: float | None = None
    deleted_seen: float | None = None
    listed: int = 0
    restarts: int = 0
    phase: str | None = None


_PACK = msgspec.msgpack.Encoder().encode
_UNPACK = msgspec.msgpack.Decoder(_Clocks).decode


class Progress(msgspec.Struct):
    """Pods that the observer knows of and that have not gone: each counts in every field that it has reached."""

    created: int = 0
    scheduled: int = 0
    running: int = 0


class _Owner:
    """Of one deployment: pods that are there, that run, that ever ran; and who waits for what of them."""

    __slots__ = ("last", "ran", "running", "there", "waiting")

    def __init__(self) -> None:
        self.there = 0
        self.running = 0
        self.ran = 0
        self.last = 0.0
        self.waiting: list[tuple[Callable[[_Owner], bool], asyncio.Future[float]]] = []


class Observer:
    """Watches what carries the label `selector`, keeps the clocks, and writes what has changed.

    `pods`: a selector of their own, where others watch the rest of them.
    `lag` is the worst time (seconds) that an event waited here for its turn since it was last read.
    """

    def __init__(
        self,
        transport: Transport,
        writer: Writer,
        selector: str,
        clock: Callable[[], float] = time.time,
        pods: str = "",
    ):
        self.pods = ListWatch(transport, "/api/v1/pods", _Pod, {"labelSelector": pods or selector})
        self.nodes = ListWatch(transport, "/api/v1/nodes", _Node, {"labelSelector": selector})
        self._writer = writer
        self._clock = clock
        self._pods: dict[str, bytes] = {}  # uid → packed clocks
        self._changed: dict[str, bytes] = {}
        self._listed: set[str] = set()  # named by the list that is under way
        self._progress: defaultdict[str, Progress] = defaultdict(Progress)
        self._owners: defaultdict[tuple[str, str], _Owner] = defaultdict(_Owner)
        self._ready: dict[str, bool] = {}
        self._losses = 0  # Ready → not, ever
        self._nodes_written = (0.0, 0, 0, 0)
        self._late_until = 0.0
        self._restarts = 0
        self._burst = 0.0
        self.lag = 0.0
        self.synced = asyncio.Event()
        self._resume()

    def progress(self, namespaces: list[str] | None = None) -> Progress:
        """Sums over these namespaces; over all without."""
        spaces = self._progress.values() if namespaces is None else (self._progress[name] for name in namespaces)
        total = Progress()
        for space in spaces:
            total.created += space.created
            total.scheduled += space.scheduled
            total.running += space.running
        return total

    def there(self) -> int:
        """Pods that exist, those that have succeeded or failed too."""
        return len(self._pods)

    def node_counts(self) -> tuple[int, int, int]:
        """Nodes, those that are Ready, and how often one was lost."""
        return len(self._ready), sum(self._ready.values()), self._losses

    async def pods_run(self, namespace: str, owner: str, replicas: int) -> float:
        """When at least so many pods of an owner were seen running, awaited."""
        return await self._await(namespace, owner, lambda pods: pods.running >= replicas)

    async def pods_settle(self, namespace: str, owner: str, replicas: int) -> float:
        """When exactly so many pods of an owner were seen running and no other of it was there, awaited."""
        return await self._await(namespace, owner, lambda pods: pods.running == pods.there == replicas)

    async def pods_ran(self, namespace: str, owner: str, pods: int) -> float:
        """When so many pods of an owner had run or succeeded, whether they are still there or not, awaited."""
        return await self._await(namespace, owner, lambda own: own.ran >= pods)

    async def _await(self, namespace: str, owner: str, holds: Callable[[_Owner], bool]) -> float:
        known = self._owners[namespace, owner]
        if holds(known):
            return known.last or self._clock()
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        known.waiting.append((holds, future))
        return await future

    async def run(self) -> None:
        """Watch for ever; raises ApiError when a watch is refused."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow_pods())
                group.create_task(self._follow_nodes())
                group.create_task(self._write_each_second())
        finally:
            self.write()

    def write(self) -> None:
        """Hand over every pod that has changed, and the Nodes if they have."""
        changed, self._changed = self._changed, {}
        rows = [(uid, *msgspec.structs.astuple(_UNPACK(packed))) for uid, packed in changed.items()]
        self._writer.insert("pods", rows)
        now, counts = self._clock(), self.node_counts()
        written = self._nodes_written
        if (counts != written[1:] or now - written[0] >= _NODES_EVERY_S) and (self.synced.is_set() or counts[0]):
            self._nodes_written = (now, *counts)
            self._writer.insert("nodes", [self._nodes_written])

    async def _write_each_second(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self.write()

    # pods

    async def _follow_pods(self) -> None:
        handled = 0
        async for event in self.pods.events():
            self._measure_lag()
            self.pod_event(event)
            handled += 1
            if handled % _BREATH == 0:
                await self._breathe()

    def pod_event(self, event: Event[_Pod]) -> None:
        """Take in one event of the pods' watch."""
        now = self._clock()
        if self.pods.restarts != self._restarts:
            self._restarts, self._late_until = self.pods.restarts, now + _CATCHING_UP_S
            self._listed.clear()  # a list that broke off is begun anew
        late = event.listed or now < self._late_until
        if event.object is None:
            self._end_of_list(now)
            return
        pod, uid = event.object, event.object.metadata.uid
        packed = self._pods.get(uid)
        if packed is None and event.type == "DELETED":
            return
        clocks = self._new(pod, now, late) if packed is None else _UNPACK(packed)
        if event.listed:
            self._listed.add(uid)
        gone = event.type == "DELETED" or pod.status.phase in ("Failed", "Succeeded")
        if moved := self._advance(clocks, pod, now, gone=gone):
            clocks.listed |= late
        if moved or packed is None:
            self._pods[uid] = self._changed[uid] = _PACK(clocks)
        if event.type == "DELETED":
            del self._pods[uid]

    def _new(self, pod: _Pod, now: float, late: bool) -> _Clocks:
        meta = pod.metadata
        self._progress[meta.namespace].created += 1
        self._owners[meta.namespace, meta.labels.app].there += 1
        created = _seconds(meta.creation_timestamp)
        return _Clocks(meta.namespace, meta.name, meta.labels.app, None, created, now, listed=int(late))

    def _advance(self, clocks: _Clocks, pod: _Pod, now: float, *, gone: bool) -> bool:
        """Set the clocks that the pod has reached; whether any was set."""
        space, moved = self._progress[clocks.namespace], False
        if clocks.bound_seen is None and pod.spec.node_name:
            clocks.bound_seen, clocks.node, moved = now, pod.spec.node_name, True
            space.scheduled += 1
        if clocks.scheduled is None and pod.spec.node_name:
            bound = [c for c in pod.status.conditions if c.type == "PodScheduled" and c.status == "True"]
            clocks.scheduled, moved = (_seconds(bound[0].last_transition_time), True) if bound else (None, moved)
        if clocks.running_seen is None and _runs(pod):
            clocks.running_seen, clocks.started, moved = now, _started(pod), True
            space.running += 1
            self._count(clocks, now, running=1, ran=1)
        restarts = sum(container.restart_count for container in pod.status.container_statuses)
        if restarts != clocks.restarts:
            clocks.restarts, moved = restarts, True
        if gone and clocks.deleted_seen is None:
            # a kubelet takes a pod that is deleted to such a phase, too, when its containers have ended
            ended = pod.metadata.deletion_timestamp is None and pod.status.phase in ("Failed", "Succeeded")
            clocks.phase = pod.status.phase if ended else None
            self._gone(clocks, now)
            moved = True
        return moved

    def _gone(self, clocks: _Clocks, now: float) -> None:
        clocks.deleted_seen = now
        space = self._progress[clocks.namespace]
        space.created -= 1
        space.scheduled -= clocks.bound_seen is not None
        ran = clocks.running_seen is not None
        space.running -= ran
        # a short pod may have succeeded before it was seen running
        self._count(clocks, now, there=-1, running=-ran, ran=int(not ran and clocks.phase == "Succeeded"))

    def _count(self, clocks: _Clocks, now: float, *, there: int = 0, running: int = 0, ran: int = 0) -> None:
        owner = self._owners[clocks.namespace, clocks.owner]
        owner.there += there
        owner.running += running
        owner.ran += ran
        if ran or there < 0:
            owner.last = max(owner.last, now)
        for waiting in [entry for entry in owner.waiting if entry[0](owner)]:
            owner.waiting.remove(waiting)
            if not waiting[1].done():
                waiting[1].set_result(now)

    def _end_of_list(self, now: float) -> None:
        """What the list did not name went while nobody looked."""
        for uid in self._pods.keys() - self._listed:
            clocks = _UNPACK(self._pods.pop(uid))
            if clocks.deleted_seen is None:
                clocks.listed = 1
                self._gone(clocks, now)
                self._changed[uid] = _PACK(clocks)
        self._listed.clear()
        self.synced.set()

    def _resume(self) -> None:
        """Take up the clocks of an earlier agent of this run."""
        with Reader(self._writer.path.parent) as reader:
            ended = (
                "SELECT namespace, owner, count(*) FROM pods WHERE deleted_seen IS NOT NULL"
                " AND (running_seen IS NOT NULL OR phase = 'Succeeded') GROUP BY namespace, owner"
            )
            for namespace, owner, count in reader.query(ended):
                self._owners[namespace, owner].ran += count
            # one that has succeeded or failed may still be there, and be named by the list
            there = "SELECT * FROM pods WHERE deleted_seen IS NULL OR phase IS NOT NULL"
            for uid, *row in reader.connection.execute(there):
                clocks = _Clocks(*row)
                self._pods[uid] = _PACK(clocks)
                if clocks.deleted_seen is not None:
                    continue
                space = self._progress[clocks.namespace]
                space.created += 1
                space.scheduled += clocks.bound_seen is not None
                ran = clocks.running_seen is not None
                space.running += ran
                self._count(clocks, clocks.running_seen or 0.0, there=1, running=int(ran), ran=int(ran))
            self._losses = reader.query("SELECT coalesce(max(notready_events), 0) FROM nodes")[0][0]

    # Nodes

    async def _follow_nodes(self) -> None:
        listed: set[str] = set()
        async for event in self.nodes.events():
            self._measure_lag()
            if event.object is None:
                for name in self._ready.keys() - listed:
                    del self._ready[name]
                listed.clear()
                continue
            if event.listed:
                listed.add(event.object.metadata.name)
            self.node_event(event)

    def node_event(self, event: Event[_Node]) -> None:
        """Take in one event of the Nodes' watch. A Node removed is no loss; one not Ready any more is."""
        assert event.object is not None
        name = event.object.metadata.name
        if event.type == "DELETED":
            self._ready.pop(name, None)
            return
        ready = any(c.type == "Ready" and c.status == "True" for c in event.object.status.conditions)
        self._losses += self._ready.get(name, False) and not ready
        self._ready[name] = ready

    # lag

    def _measure_lag(self) -> None:
        """An event waits at most since its burst began: since the loop last looked at the sockets."""
        now = time.monotonic()
        if not self._burst:
            self._begin_burst(now)
        self.lag = max(self.lag, now - self._burst)

    def _begin_burst(self, since: float) -> None:
        self._burst = since
        asyncio.get_running_loop().call_soon(self._end_burst)

    def _end_burst(self) -> None:
        self._burst = 0.0

    async def _breathe(self) -> None:
        """Let others have the loop, in the middle of a burst."""
        since = self._burst
        await asyncio.sleep(0)
        if since and not self._burst:
            self._begin_burst(since)


def recorded(folder: Path, namespaces: list[str] | None = None) -> Progress:
    """What a bundle's table of pods says of these namespaces, which follow each other in name; of all without."""
    sql = (
        "SELECT count(*), count(bound_seen), count(running_seen) FROM pods"
        " WHERE deleted_seen IS NULL AND namespace BETWEEN ? AND ?"
    )
    first, last = (min(namespaces), max(namespaces)) if namespaces else ("", "\uffff")
    with Reader(folder) as reader:
        return Progress(*reader.query(sql, first, last)[0])


def _seconds(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None


def _runs(pod: _Pod) -> bool:
    containers = pod.status.container_statuses
    return pod.status.phase == "Running" and bool(containers) and all(container.ready for container in containers)


def _started(pod: _Pod) -> float | None:
    times = [c.state.running.started_at for c in pod.status.container_statuses if c.state.running is not None]
    return max((moment.timestamp() for moment in times if moment is not None), default=None)
