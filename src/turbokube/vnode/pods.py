"""What a kubelet does with pods: those bound to a vnode run after a while, those deleted end."""

from __future__ import annotations

import asyncio
import collections
import functools
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from ..api.transport import JSON, PROTOBUF, STRATEGIC_PATCH, ApiError, Response
from ..api.watch import Event, ListWatch
from . import objects, shard
from .addresses import Range, fallback, number
from .behaviour import AnnotationError, Behaviours
from .client import Client
from .clock import Agenda, unix_time
from .crew import Crew, transient
from .nodes import Vnode
from .objects import ENDING, FAILED, PENDING, RUNNING, SUCCEEDED
from .pod import events
from .pod.lives import Life, Run
from .pod.statuses import SIGKILL, Statuses, final_delete
from .pod.tokens import token_request, tokens
from .spec import Spec

_MIRROR = "kubernetes.io/config.mirror"  # the annotation of what stands for a static pod, which no vnode has
_REFRESH = 0.8  # of a token's life, after which a kubelet asks for another (token_manager.go, requiresRefresh)
_SYNC = 60.0  # seconds between two looks of a kubelet at a pod, or up to half of that more (syncFrequency)
# Seconds from a pod's being bound to a kubelet's first status of it. The Node authorizer, which sees the pod when the
# kubelet does, refuses those that are faster
_TO_STATUS = (0.03, 0.15)
_CONTAINER_START = 0.3  # seconds that containerd takes at the least, above `lease`
_GONE = (0.1, 0.6)  # seconds from the end of a pod's containers until a kubelet has cleared up after them
_MOST_SPECS = 4096  # kept for pods that are the same but for their names

_NONE: dict[str, str] = {}
_NO_STATUS = objects.PodStatus()
_Job = Callable[..., Awaitable[None]]


class _Record:
    """A pod as the engine remembers it; all else comes with each event."""

    __slots__ = ("address", "life", "phase", "pod", "seen", "vnode")

    def __init__(self, vnode: Vnode, seen: float) -> None:
        self.vnode = vnode
        self.phase = PENDING
        self.seen = seen  # until it runs
        self.address = 0
        self.life: Life | None = None  # while something will happen to its containers by itself
        self.pod: objects.Pod | None = None  # what of it is needed for that, or for what it refers to


class _Hold:
    """What a vnode cannot do for a while; with `starts` nothing but to start pods."""

    def __init__(self, starts: bool) -> None:
        self.starts = starts
        self.jobs: list[tuple[_Job, tuple[Any, ...]]] = []


class Pods:
    """Every pod bound to a vnode, seen through one list and watch for all of them, or through one for each vnode."""

    def __init__(self, spec: Spec, client: Client, crew: Crew, vnodes: dict[str, Vnode], agenda: Agenda) -> None:
        self.watch = ListWatch(client.transport, "/api/v1/pods", objects.Pod, {"fieldSelector": "spec.nodeName!="})
        self.watch.wanted = shard.pods(spec)
        # what a kubelet's server side needs to know of pods, if there is one
        self.on_seen: Callable[[objects.Pod, Vnode], None] | None = None
        self.on_gone: Callable[[str], None] | None = None
        self._full = spec.fidelity != "lease"
        self._behaviours = Behaviours(spec)
        self._statuses = Statuses(self._full)
        self._address = spec.address
        self._counts = client.counts
        self._crew = crew
        self._vnodes = vnodes
        self._agenda = agenda
        self._pods: dict[str, _Record] = {}  # by uid
        self._phases: collections.Counter[str] = collections.Counter()
        self._fallback = Range(fallback(spec.shard, spec.parts))
        self._listed: set[str] = set()
        self._on: dict[str, set[str]] = {}  # uids by vnode, where each vnode has a list of its own
        self._refused: dict[str, str] = {}  # uids of pods whose annotations cannot be used, and why
        self._held: dict[str, _Hold] = {}  # by vnode
        self._specs: dict[bytes, objects.PodSpec] = {}
        self._loop = asyncio.get_running_loop()

    def phases(self) -> dict[str, int]:
        """How many pods are in which phase; Terminating is one here, as kubectl has it."""
        return {phase: self._phases[phase] for phase in objects.PHASES}

    async def run(self) -> None:
        """Follow the pods for ever."""
        async for event in self.watch.events():
            if event.type == "SYNCED":
                self._forget(self._pods.keys() - self._listed)
                self._listed.clear()
            elif event.object is not None:
                self.see(event)

    def synced(self, vnode: Vnode) -> None:
        """A vnode's own list has ended: what it did not name is gone."""
        here = self._on.get(vnode.name, set())
        self._forget(here - self._listed)
        self._listed -= here

    def see(self, event: Event[objects.Pod]) -> None:
        """One event: what the pod's state asks for is begun, once."""
        pod = event.object
        assert pod is not None
        uid = pod.metadata.uid
        if event.type == "DELETED":
            self._forget({uid})
            return
        record = self._pods.get(uid)
        if record is None:
            vnode = self._vnodes.get(pod.spec.node_name)
            if vnode is None or not vnode.uid or _MIRROR in pod.metadata.annotations:
                return  # on a node that is none of ours, or none of the API server's making
            record = self._pods[uid] = _Record(vnode, time.time())
            self._phases[PENDING] += 1
            if self._full:
                self._on.setdefault(vnode.name, set()).add(uid)
            self._admit(pod, record, event.listed)
        else:
            self._update(pod, record)
        if event.listed:
            self._listed.add(uid)
        if pod.metadata.deletion_timestamp and record.phase != ENDING:
            self._end(pod, record, event.listed)
        if self.on_seen is not None:
            self.on_seen(pod, record.vnode)

    def left(self, name: str) -> None:
        """A vnode with a list of its own is no more, and nobody tells what becomes of its pods."""
        self._forget(self._on.pop(name, set()))

    def hold(self, name: str, *, starts: bool = False) -> None:
        """A vnode does nothing with its pods from now on; with `starts`, nothing but to end them."""
        self._held.setdefault(name, _Hold(starts))

    def resume(self, name: str) -> None:
        """It does all that it could not do meanwhile."""
        if held := self._held.pop(name, None):
            if self._full and not held.starts:
                self._refer_anew(name)
            for job, arguments in held.jobs:
                self._crew.put(job, *arguments)

    # what is begun

    def _admit(self, pod: objects.Pod, record: _Record, listed: bool) -> None:
        if pod.status.phase not in ("", PENDING):
            self._take_over(pod, record)
        elif not pod.metadata.deletion_timestamp:
            self._plan(pod, record, listed)

    def _take_over(self, pod: objects.Pod, record: _Record) -> None:
        """An earlier engine has started it, and an earlier kubelet's word stands."""
        record.seen = 0.0
        if pod.status.phase in (SUCCEEDED, FAILED):
            self._move(record, pod.status.phase)
            return
        self._move(record, RUNNING)
        if not pod.spec.host_network:
            record.address = number(pod.status.pod_i_p)
            for addresses in self._ranges(record):
                addresses.adopt(record.address)
        if self._full:
            self._mount(pod, record)
        behaviour, told = self._behaviours.or_usual(pod.metadata.annotations), pod.status.container_statuses
        if not behaviour.plain or not all(status.ready for status in told):
            life = Life(pod, behaviour, self._advance)
            life.resume(told, time.time())
            self._live(pod, record, life)

    def _plan(self, pod: objects.Pod, record: _Record, listed: bool) -> None:
        uid = pod.metadata.uid
        try:
            behaviour = self._behaviours.of(pod.metadata.annotations)
        except AnnotationError as error:
            self._refuse(pod, record, str(error))
            return
        self._refused.pop(uid, None)
        since = _bound(pod) if listed else record.seen
        due = (since or record.seen) + behaviour.until_started(uid)
        if self._full:
            self._mount(pod, record)
            self._after(random.uniform(*_TO_STATUS), self._create, pod, due)
        else:
            self._after(due - time.time(), self._start, pod)

    def _refuse(self, pod: objects.Pod, record: _Record, why: str) -> None:
        """As a kubelet with what it cannot run: an Event says why, and the pod waits for its annotation to change."""
        if self._refused.get(pod.metadata.uid) == why:
            return
        self._refused[pod.metadata.uid] = why
        self._tell(record, events.event(pod, record.vnode.name, "Failed", why, time.time(), kind=events.WARNING))

    def _update(self, pod: objects.Pod, record: _Record) -> None:
        vnode = self._vnodes.get(record.vnode.name)
        if vnode is not None and vnode is not record.vnode:  # its Node was made anew
            record.vnode = vnode
        if record.pod is not None:
            record.pod.metadata.generation = pod.metadata.generation
        if self._refused and record.phase == PENDING and pod.metadata.uid in self._refused:
            self._plan(pod, record, listed=False)

    def _end(self, pod: objects.Pod, record: _Record, listed: bool) -> None:
        uid, was, grace = pod.metadata.uid, record.phase, pod.metadata.deletion_grace_period_seconds
        self._move(record, ENDING)
        if was in (SUCCEEDED, FAILED):
            self._crew.put(self._remove, pod)
        elif was == PENDING:
            self._crew.put(self._finish, pod, None)
        else:
            lasts = self._behaviours.or_usual(pod.metadata.annotations).until_stopped(uid)
            told = unix_time(pod.metadata.deletion_timestamp) - grace if listed else time.time()
            due, code = told + min(lasts, grace), 0 if lasts <= grace else SIGKILL
            if self._full:
                self._crew.put(self._stop, pod, due, code)
            else:
                self._after(due - time.time(), self._finish, pod, code)

    def _after(self, delay: float, job: _Job, *arguments: Any) -> None:
        if delay > 0:
            self._loop.call_later(delay, self._crew.put, job, *arguments)
        else:
            self._crew.put(job, *arguments)

    def _waits(self, record: _Record, job: _Job, *arguments: Any) -> bool:
        """Whether the vnode cannot do it now, and will do it when it can."""
        held = self._held.get(record.vnode.name) if self._held else None
        if held is None or (held.starts and job not in (self._start, self._create)):
            return False
        held.jobs.append((job, arguments))
        return True

    # a pod's start

    async def _create(self, pod: objects.Pod, due: float) -> None:
        """What a full kubelet does before the containers start, which is at `due`."""
        record = self._pods.get(pod.metadata.uid)
        if record is None or record.phase != PENDING or self._waits(record, self._create, pod, due):
            return
        body = self._statuses.creating(pod, self._address(record.vnode.index), time.time())
        if not await self._patch(record.vnode, pod, body):
            return
        await self._ask(pod, record)
        if await self._patch(record.vnode, pod, self._statuses.sandboxed(pod, time.time())):
            self._after(max(due - time.time(), _CONTAINER_START), self._start, pod)

    async def _start(self, pod: objects.Pod) -> None:
        record = self._pods.get(pod.metadata.uid)
        if record is None or record.phase != PENDING or self._waits(record, self._start, pod):
            return
        if not record.address and not pod.spec.host_network:
            record.address = next((address for r in self._ranges(record) if (address := r.take())), 0)
        behaviour, now = self._behaviours.or_usual(pod.metadata.annotations), time.time()
        life = None if behaviour.plain else Life(pod, behaviour, self._advance)
        if life is not None:
            life.start(now)
        host = self._address(record.vnode.index)
        body = self._statuses.running(pod, host, record.address, record.seen, now, life)
        if not await self._patch(record.vnode, pod, body):
            return
        if record.phase == PENDING:
            self._move(record, RUNNING)
            record.seen = 0.0
            self._counts.pod_starts += 1
            if life is not None:
                life.ready_said = life.ready
                self._live(pod, record, life)
            if self._full and self._statuses.measured(pod):
                wait = _SYNC * random.uniform(1.0, 1.5)
                self._agenda.after(wait, functools.partial(self._crew.put, self._look_again, pod.metadata.uid))
        for container in pod.spec.containers:
            self._tell_started(pod, record, container, now)

    async def _look_again(self, uid: str) -> None:
        """A full kubelet's first resync of a pod that runs."""
        record = self._pods.get(uid)
        if record is None or record.pod is None or record.phase != RUNNING:
            return
        if not self._waits(record, self._look_again, uid):
            await self._patch(record.vnode, record.pod, self._statuses.measured(record.pod))

    def _tell_started(self, pod: objects.Pod, record: _Record, container: objects.Container, now: float) -> None:
        for reason, message in self._start_words():
            message = message.format(image=container.image)
            self._tell(record, events.event(pod, record.vnode.name, reason, message, now, container=container.name))

    def _start_words(self) -> tuple[tuple[str, str], ...]:
        """Reasons and messages of the Events of a container's start."""
        return events.START if self._full else events.START[-1:]

    # its life

    def _live(self, pod: objects.Pod, record: _Record, life: Life) -> None:
        record.life = life
        if record.pod is None:
            record.pod = self._slim(pod)
        for run, container in zip(life.runs, record.pod.spec.containers, strict=True):
            run.container = container
        if life.version or life.phase != RUNNING:  # of which an earlier engine had not told, or not to the end
            self._report_soon(life)
        self._appoint(life)

    def _appoint(self, life: Life) -> None:
        if not life.settled:
            self._agenda.after(max(0.0, life.due - time.time()), life.awake)

    def _advance(self, life: Life) -> None:
        record = self._pods.get(life.uid)
        if record is None or record.life is not life or record.phase != RUNNING:
            return
        before, now = life.version, time.time()
        for run, reason in life.advance(now):
            self._tell_of(record, run, reason, now)
        if life.version != before:
            self._report_soon(life)
        self._appoint(life)

    def _report_soon(self, life: Life) -> None:
        if not life.queued:
            life.queued = True
            self._crew.put(self._report, life)

    async def _report(self, life: Life) -> None:
        """Tell the API server what has become of the containers."""
        record = self._pods.get(life.uid)
        if record is None or record.life is not life or record.phase != RUNNING:
            return
        if self._waits(record, self._report, life):
            return
        pod = record.pod
        assert pod is not None
        version, ready, phase = life.version, life.ready, life.phase
        try:
            found = await self._patch(record.vnode, pod, self._statuses.changed(pod, life, time.time()))
        except ApiError as error:
            life.queued = transient(error)
            raise
        life.queued = False
        if not found or record.life is not life or record.phase != RUNNING:
            return
        life.ready_said = ready
        if life.version != version:
            self._report_soon(life)
        elif phase != RUNNING and self._full:
            self._after(1.0, self._conclude, life)  # when the kubelet has relisted its containers
        elif phase != RUNNING:
            self._rest(record)
            self._move(record, phase)
        elif life.settled and life.plain:
            record.life = None
            if not self._full:
                record.pod = None

    async def _conclude(self, life: Life) -> None:
        record = self._pods.get(life.uid)
        if record is None or record.life is not life or record.phase != RUNNING or record.pod is None:
            return
        if self._waits(record, self._conclude, life):
            return
        found = await self._patch(record.vnode, record.pod, self._statuses.concluded(record.pod, life, time.time()))
        if found and record.life is life and record.phase == RUNNING:
            self._rest(record)
            self._move(record, life.phase)

    def _tell_of(self, record: _Record, run: Run, reason: str, now: float) -> None:
        """The Event of a restart, or of a restart that is put off: told once, then counted."""
        pod, container = record.pod, run.container
        assert pod is not None
        if reason == "Started":
            self._counts.container_restarts += 1
            words, kind, count, first = self._start_words(), events.NORMAL, run.starts, run.began
        else:
            words = ((reason, events.backing_off(pod, container.name)),)
            kind, count, first = events.WARNING, run.backoffs, run.backed
        for why, text in words:
            message = text.format(image=container.image) if kind == events.NORMAL else text
            event = events.event(pod, record.vnode.name, why, message, first, container=container.name, kind=kind)
            if count == 1:
                self._tell(record, event)
            else:
                self._crew.put(self._tell_again, record.vnode, event, count, now)

    # its end

    async def _stop(self, pod: objects.Pod, due: float, code: int) -> None:
        """What a full kubelet does while the containers end, which is at `due`."""
        record = self._pods.get(pod.metadata.uid)
        if record is None or self._waits(record, self._stop, pod, due, code):
            return
        for container in pod.spec.containers:
            message, now = f"Stopping container {container.name}", time.time()
            self._tell(record, events.event(pod, record.vnode.name, "Killing", message, now, container=container.name))
        if await self._patch(record.vnode, pod, self._statuses.terminating(pod)):
            self._after(due - time.time(), self._finish, pod, code)

    async def _finish(self, pod: objects.Pod, code: int | None) -> None:
        """Its containers have ended with `code`; None: they never ran."""
        record = self._pods.get(pod.metadata.uid)
        if record is None or self._waits(record, self._finish, pod, code):
            return
        vnode, now = record.vnode, time.time()
        if code is not None:
            if not await self._patch(vnode, pod, self._statuses.terminated(pod, record.life, code, now)):
                return
        else:
            if self._full and await self._patch(vnode, pod, self._statuses.terminating(pod)):
                await self._look(vnode, pod)
            if not await self._patch(vnode, pod, self._statuses.never_ran(pod, now)):
                return
        if self._full and code is not None:  # once more, and then nothing has changed
            await self._look(vnode, pod)
            self._after(random.uniform(*_GONE), self._remove, pod)
        else:
            await self._remove(pod, look=False)

    async def _remove(self, pod: objects.Pod, look: bool = True) -> None:
        record = self._pods.get(pod.metadata.uid)
        if record is None or self._waits(record, self._remove, pod, look):
            return
        if self._full and look:
            await self._look(record.vnode, pod)
        body = final_delete(pod.metadata.uid)
        answer = await record.vnode.client.call("delete", "pods", "DELETE", _path(pod), body)
        if answer.status not in (404, 409):  # gone, or another pod of the same name
            answer.checked()

    # what it mounts, above `lease`

    def _mount(self, pod: objects.Pod, record: _Record) -> None:
        """Watch what it refers to; a pod that runs already gets its tokens anew, as from a kubelet that is new."""
        if record.pod is None:
            record.pod = self._slim(pod)
            if record.vnode.kubelet is not None:
                record.vnode.kubelet.refer(record.pod)
        if record.phase == RUNNING:
            self._crew.put(self._ask, pod, record)

    def _refer_anew(self, name: str) -> None:
        """A vnode's connection is another one: what its pods refer to is watched on that."""
        for uid in self._on.get(name, ()):
            record = self._pods[uid]
            if record.pod is not None and record.vnode.kubelet is not None:
                record.vnode.kubelet.refer(record.pod)

    async def _ask(self, pod: objects.Pod, record: _Record) -> None:
        """Ask for the pod's tokens, and again when most of their life is over."""
        from ..api import messages  # here: `lease` does not need it

        if self._pods.get(pod.metadata.uid) is not record or record.phase not in (PENDING, RUNNING):
            return
        if self._waits(record, self._ask, pod, record):
            return
        account = f"/api/v1/namespaces/{pod.metadata.namespace}/serviceaccounts/{pod.spec.service_account_name}"
        lasts = []
        for token in tokens(pod):
            request = token_request(pod, token)
            body = messages.encode("authentication.k8s.io/v1", "TokenRequest", messages.TOKEN_REQUEST, request)
            answer = await record.vnode.client.call(
                "create", "serviceaccounts/token", "POST", f"{account}/token", body, PROTOBUF
            )
            if not _going(answer):
                answer.checked()
            lasts.append(token.expiration_seconds)
        if lasts:
            wait = min(lasts) * _REFRESH + random.uniform(0.0, _SYNC * 1.25)
            self._agenda.after(wait, functools.partial(self._ask_again, pod.metadata.uid))

    def _ask_again(self, uid: str) -> None:
        record = self._pods.get(uid)
        if record is not None and record.pod is not None and record.phase == RUNNING:
            self._crew.put(self._ask, record.pod, record)

    def _slim(self, pod: objects.Pod) -> objects.Pod:
        """What is kept of a pod: its names, and a spec that all pods share which are alike."""
        meta, spec = pod.metadata, pod.spec
        plain = [msgspec.structs.replace(one, volume_mounts=[]) for one in spec.containers]
        init = [msgspec.structs.replace(one, volume_mounts=[]) for one in spec.init_containers]
        spec = msgspec.structs.replace(spec, node_name="", containers=plain, init_containers=init)
        if not self._full:
            spec.volumes, spec.image_pull_secrets = [], []
            for one in (*plain, *init):
                one.env, one.env_from = [], []
        key = msgspec.json.encode(spec)
        if len(self._specs) >= _MOST_SPECS:
            self._specs.clear()
        spec = self._specs.setdefault(key, spec)
        namespace, version = sys.intern(meta.namespace), meta.resource_version
        kept = objects.Meta(meta.name, meta.uid, namespace, meta.generation, _NONE, _NONE, "", version)
        return objects.Pod(kept, spec, _NO_STATUS)

    # requests

    async def _patch(self, vnode: Vnode, pod: objects.Pod, body: bytes) -> bool:
        """Whether the pod was there to be patched."""
        if self._full and not await self._look(vnode, pod):
            return False
        path = f"{_path(pod)}/status"
        answer = await vnode.client.call("patch", "pods/status", "PATCH", path, body, STRATEGIC_PATCH)
        if answer.status != 404:
            answer.checked()
        return answer.ok

    async def _look(self, vnode: Vnode, pod: objects.Pod) -> bool:
        """A full kubelet's status manager looks before it writes, and when there is nothing to write. Is it there?"""
        answer = await vnode.client.call("get", "pods", "GET", _path(pod))
        if answer.status != 404:
            answer.checked()
        return answer.ok

    def _tell(self, record: _Record, event: dict[str, Any]) -> None:
        self._crew.put(self._post, record.vnode, event["metadata"]["namespace"], self._encode(event))

    def _encode(self, event: dict[str, Any]) -> bytes:
        if not self._full:
            return msgspec.json.encode({"apiVersion": "v1", "kind": "Event", **event})
        from ..api import messages  # here: `lease` does not need it

        return messages.encode("v1", "Event", messages.EVENT, event)

    async def _post(self, vnode: Vnode, namespace: str, body: bytes) -> None:
        form = PROTOBUF if self._full else JSON
        answer = await vnode.client.call("create", "events", "POST", _events(namespace), body, form)
        if not _going(answer) and answer.status != 409:  # 409: told already
            answer.checked()

    async def _tell_again(self, vnode: Vnode, event: dict[str, Any], count: int, now: float) -> None:
        """Count an Event that was told before, as client-go's correlator does; one that has expired is made anew."""
        meta, patch = event["metadata"], events.again(count, event["message"], now)
        path = f"{_events(meta['namespace'])}/{meta['name']}"
        answer = await vnode.client.call("patch", "events", "PATCH", path, msgspec.json.encode(patch), STRATEGIC_PATCH)
        if answer.status == 404:
            await self._post(vnode, meta["namespace"], self._encode({**event, **patch}))
        else:
            answer.checked()

    # book-keeping

    def _ranges(self, record: _Record) -> tuple[Range, ...]:
        own = record.vnode.addresses
        return (self._fallback,) if own is None else (own, self._fallback)

    def _move(self, record: _Record, phase: str) -> None:
        self._phases[record.phase] -= 1
        self._phases[phase] += 1
        record.phase = phase

    def _rest(self, record: _Record) -> None:
        """Its containers have ended: it needs no address and nothing that it refers to."""
        for addresses in self._ranges(record):
            addresses.release(record.address)
        record.address = 0
        if self._full and record.pod is not None and record.vnode.kubelet is not None:
            record.vnode.kubelet.unrefer(record.pod)
        record.life = record.pod = None

    def _forget(self, uids: set[str]) -> None:
        """These pods are no more."""
        for uid in uids:
            if (record := self._pods.pop(uid, None)) is None:
                continue
            self._phases[record.phase] -= 1
            self._refused.pop(uid, None)
            if self._full and (here := self._on.get(record.vnode.name)) is not None:
                here.discard(uid)
            if self.on_gone is not None:
                self.on_gone(uid)
            self._rest(record)


def _going(answer: Response) -> bool:
    """Whether what it was about is gone, or its namespace is on its way."""
    return answer.status == 404 or (answer.status == 403 and b"being terminated" in answer.body)


def _path(pod: objects.Pod) -> str:
    return f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}"


def _events(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/events"


def _bound(pod: objects.Pod) -> float:
    """When it was bound to its node, in UNIX seconds; 0 when it does not say."""
    told = next((one.last_transition_time for one in pod.status.conditions if one.type == "PodScheduled"), None)
    return unix_time(told or pod.metadata.creation_timestamp)
