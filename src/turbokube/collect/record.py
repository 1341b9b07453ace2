"""What happens to the workloads of a cluster, as a trace: watched for a time, or told by what is there and its Events.

Only GETs are sent. Of what is read, a trace keeps kinds, times, numbers, requests and sizes, nothing else.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec

from turbokube.api.build import server_build
from turbokube.api.http1 import Http1
from turbokube.api.target import Target
from turbokube.api.transport import Transport
from turbokube.api.watch import ListWatch
from turbokube.bundle import trace
from turbokube.bundle.trace import Operation, Trace
from turbokube.profile.rules import quantity

# kind → the collection of all of its objects
COLLECTIONS: dict[trace.Kind, str] = {
    "Deployment": "/apis/apps/v1/deployments",
    "StatefulSet": "/apis/apps/v1/statefulsets",
    "DaemonSet": "/apis/apps/v1/daemonsets",
    "ReplicaSet": "/apis/apps/v1/replicasets",
    "Job": "/apis/batch/v1/jobs",
    "Pod": "/api/v1/pods",
}
SYSTEM = ("kube-system", "kube-public", "kube-node-lease")
# What such an owner controls follows from it; a static pod is its Node's
_CONTROLLERS = frozenset((*COLLECTIONS, "ReplicationController", "Node"))


class Owner(msgspec.Struct, gc=False):
    kind: str = ""
    controller: bool = False


class Metadata(msgspec.Struct, rename="camel", gc=False):
    name: str
    uid: str
    namespace: str = ""
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    owner_references: list[Owner] = []


class Spec(msgspec.Struct, gc=False):
    """What is needed of any kind; a pod's own spec is read apart."""

    replicas: int | None = None
    completions: int | None = None
    parallelism: int | None = None
    template: msgspec.Raw = msgspec.Raw(b"")


class _Terminated(msgspec.Struct, rename="camel", gc=False):
    started_at: datetime | None = None
    finished_at: datetime | None = None


class _State(msgspec.Struct, gc=False):
    terminated: _Terminated | None = None


class _Container(msgspec.Struct, gc=False):
    state: _State = msgspec.field(default_factory=_State)


class Status(msgspec.Struct, rename="camel", gc=False):
    start_time: datetime | None = None
    completion_time: datetime | None = None
    container_statuses: list[_Container] = []


class Object(msgspec.Struct, gc=False):
    """Any object of these kinds."""

    metadata: Metadata
    spec: msgspec.Raw = msgspec.Raw(b"{}")
    status: Status = msgspec.field(default_factory=Status)


class _Resources(msgspec.Struct):
    requests: dict[str, Any] = {}


class _PodContainer(msgspec.Struct):
    resources: _Resources = msgspec.field(default_factory=_Resources)


class _PodSpec(msgspec.Struct):
    containers: list[_PodContainer] = []


class _Template(msgspec.Struct):
    spec: msgspec.Raw = msgspec.Raw(b"{}")


@dataclass(frozen=True)
class Choice:
    """Which namespaces are recorded: those that are named, all but `exclude` when none is."""

    namespaces: frozenset[str] = frozenset()
    exclude: frozenset[str] = frozenset(SYSTEM)

    def __contains__(self, namespace: object) -> bool:
        return namespace in self.namespaces if self.namespaces else namespace not in self.exclude


@dataclass
class _Known:
    """An object that is there."""

    created: Operation
    replicas: int | None
    template: int
    deleting: bool = False


@dataclass
class Recorder:
    """Turns events of watches into operations. `clock` gives seconds since the recording began."""

    choice: Choice
    clock: Callable[[], float]
    operations: list[Operation] = field(default_factory=list)
    _known: dict[str, _Known] = field(default_factory=dict)  # by uid
    _named: dict[tuple[str, str, str], _Known] = field(default_factory=dict)  # the last of a name

    def see(self, kind: trace.Kind, event: str, found: Object, *, listed: bool = False) -> None:
        """One event of a watch, or one object of a list."""
        meta, now = found.metadata, self.clock()
        known = self._known.get(meta.uid)
        if known is None:
            if event != "DELETED" and meta.deletion_timestamp is None and wanted(found, self.choice):
                self._add(kind, found, now, before=listed and now <= 0)
            return
        ended(known.created, found)
        if event == "DELETED" or meta.deletion_timestamp is not None:
            self._delete(known)
            if event == "DELETED":
                del self._known[meta.uid]
            return
        spec = read_spec(kind, found)
        template = zlib.crc32(spec.template)
        if spec.replicas != known.replicas and kind != "Job":
            self._note(known, "scale", now).replicas = spec.replicas
        if template != known.template and kind not in ("Job", "Pod"):
            self._note(known, "roll", now)
        known.replicas, known.template = spec.replicas, template

    def gone(self, kind: trace.Kind, listed: set[str]) -> None:
        """A list is complete: what it did not name has gone meanwhile."""
        for uid in [uid for uid, known in self._known.items() if known.created.kind == kind and uid not in listed]:
            self._delete(self._known.pop(uid))

    def _add(self, kind: trace.Kind, found: Object, now: float, *, before: bool) -> None:
        made = creation(kind, found, now, before=before)
        spec = read_spec(kind, found)
        if (last := self._named.get(made.key)) is not None:  # a list may show the new one before it lacks the old
            self._delete(last)
        known = _Known(made, spec.replicas, zlib.crc32(spec.template))
        self._known[found.metadata.uid] = self._named[made.key] = known
        self.operations.append(made)

    def _delete(self, known: _Known) -> None:
        if not known.deleting:
            known.deleting = True
            self._note(known, "delete", self.clock())

    def _note(self, known: _Known, verb: trace.Verb, now: float) -> Operation:
        first = known.created
        one = Operation(t=now, verb=verb, kind=first.kind, namespace=first.namespace, name=first.name)
        self.operations.append(one)
        return one


def wanted(found: Object, choice: Choice) -> bool:
    """Whether it is recorded: what a controller makes is not, the controller's own object is."""
    if found.metadata.namespace not in choice:
        return False
    return not any(owner.controller and owner.kind in _CONTROLLERS for owner in found.metadata.owner_references)


def read_spec(kind: trace.Kind, found: Object) -> Spec:
    """Its spec; of a pod nothing but what a template would be."""
    if kind == "Pod":
        return Spec(template=msgspec.Raw(b'{"spec":%b}' % bytes(found.spec)))
    return msgspec.json.decode(found.spec, type=Spec)


def creation(kind: trace.Kind, found: Object, moment: float, *, before: bool = False) -> Operation:
    """The operation that made an object, without anything that tells what it is for."""
    spec, meta = read_spec(kind, found), found.metadata
    pod = msgspec.json.decode(spec.template or b"{}", type=_Template).spec
    requests: dict[str, list[str]] = {}
    for container in msgspec.json.decode(pod, type=_PodSpec).containers:
        for name in ("cpu", "memory"):
            if name in container.resources.requests:
                requests.setdefault(name, []).append(str(container.resources.requests[name]))
    one = Operation(
        t=moment, verb="create", kind=kind, namespace=meta.namespace, name=meta.name, bytes=len(pod), before=before,
        requests={name: words for name, each in requests.items() if (words := _total(name, each))},
    )  # fmt: skip
    if kind == "Job":
        one.parallelism = spec.parallelism if spec.parallelism is not None else 1
        one.replicas = spec.completions or one.parallelism or 1
    elif kind not in ("Pod", "DaemonSet"):
        one.replicas = 1 if spec.replicas is None else spec.replicas
    ended(one, found)
    return one


def ended(created: Operation, found: Object) -> None:
    """Note how long pods of a Job, or a pod, ran before they ended by themselves, once it is known."""
    status = found.status
    if created.kind == "Job" and status.start_time and status.completion_time:
        rounds = -(-(created.replicas or 1) // max(1, created.parallelism or 1))
        created.run_time = _seconds(status.start_time, status.completion_time) / rounds
    elif created.kind == "Pod" and status.container_statuses and found.metadata.deletion_timestamp is None:
        ends = [container.state.terminated for container in status.container_statuses]
        times = [_seconds(end.started_at, end.finished_at) for end in ends
                 if end is not None and end.started_at and end.finished_at]  # fmt: skip
        if len(times) == len(ends):
            created.run_time = max(times)


def _total(name: str, requests: list[str]) -> str:
    """The sum over a pod's containers, as a quantity."""
    if len(requests) == 1:
        return requests[0]
    try:
        total = sum(map(quantity, requests))
    except ValueError:  # such as 1e3, which is rare
        return ""
    return f"{round(1000 * total)}m" if name == "cpu" else str(round(total))


def _seconds(begin: datetime, end: datetime) -> float:
    return max(0.0, (end - begin).total_seconds())


# recording


async def watch(target: Target, seconds: float, choice: Choice, *, keep_names: bool = False) -> Trace:
    """Watch for so long; what is there at the beginning is in the trace as such.

    Raises ApiError when a kind may not be listed and watched, Unreachable when no API server answers at first.
    """
    async with Session(target) as session:
        begin = time.monotonic()
        synced: set[trace.Kind] = set()
        ready = asyncio.Event()
        offset = 0.0  # the clock stands still until all lists are in
        recorder = Recorder(choice, lambda: time.monotonic() - begin - offset if ready.is_set() else 0.0)

        async def follow(kind: trace.Kind) -> None:
            listed: set[str] = set()
            async for event in ListWatch(session.transport, COLLECTIONS[kind], Object).events():
                if event.object is None:
                    recorder.gone(kind, listed)
                    listed = set()
                    synced.add(kind)
                    if len(synced) == len(COLLECTIONS):
                        ready.set()
                    continue
                if event.listed:
                    listed.add(event.object.metadata.uid)
                recorder.see(kind, event.type, event.object, listed=event.listed)

        async def end() -> None:
            nonlocal offset
            await ready.wait()
            offset = time.monotonic() - begin
            await asyncio.sleep(seconds)

        began = await _race([follow(kind) for kind in COLLECTIONS], end())
        return trace.make(
            recorder.operations, keep_names=keep_names, method="watched", kubernetes=session.version,
            began=began - seconds, seconds=seconds,
        )  # fmt: skip


async def _race(watches: Iterable[Any], end: Any) -> float:
    """Let watches run until the end; when it was. Raises what ends one of them before."""
    tasks = [asyncio.create_task(each) for each in watches]
    last = asyncio.create_task(end)
    try:
        await asyncio.wait([*tasks, last], return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done():
                task.result()
        await last
        return time.time()
    finally:
        for task in (*tasks, last):
            task.cancel()
        await asyncio.gather(*tasks, last, return_exceptions=True)


class Session:
    """A connection with the admin's credential, used for nothing but reading; closed at the end of the block."""

    def __init__(self, target: Target) -> None:
        credential = target.credential("admin")
        self.transport: Transport = Http1(
            credential, target.addresses(credential), size=len(COLLECTIONS) + 1, user_agent="turbokube-record"
        )
        self.version = ""

    async def __aenter__(self) -> Session:
        try:
            self.version = (await server_build(self.transport)).git_version
        except BaseException:
            await self.transport.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.transport.close()
