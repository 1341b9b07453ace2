"""Phase `replay`: what a trace holds, at its own times divided by a speed, whatever the answers (an open loop)."""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from turbokube.api.transport import Response
from turbokube.bundle import trace
from turbokube.bundle.ledger import Action, Entry
from turbokube.bundle.trace import Header, Operation, Trace
from turbokube.bundle.writer import BundleError
from turbokube.profile.phases import Replay

from . import resources
from .delete import deletion
from .pacing import Schedule, closed_loop, open_loop
from .phase import RUN_LABEL, LoadError
from .ready import NAMESPACES, NamespacesReady, Ready, namespace_body
from .resources import Resource
from .roll import generation, rolling
from .scale import scaling
from .send import Request
from .states import Watches, rolled
from .templates import Manifest
from .work import Context

_START_S = 1.0  # until the first operation is due, so that it is not late already
_VERSIONS = {"Pod": "v1", "Job": "batch/v1"}  # of the kinds that are not in apps/v1
_STATEFUL = {"StatefulSet", "DaemonSet", "Job"}
_MOST_PADDING = 200_000  # bytes; all annotations of an object may have 256 KiB


def fitting(phase: Replay) -> Replay:
    """The phase with its number of namespaces. Raises LoadError if its trace cannot be read or takes too long."""
    try:
        header = trace.read_header(phase.trace)
    except BundleError as error:
        raise LoadError(str(error)) from None
    if (lasts := header.seconds / phase.speed) > phase.deadline:
        raise LoadError(
            f"trace {phase.trace} lasts {lasts:.0f} s at speed {phase.speed:g}, and the deadline is"
            f" {phase.deadline:g} s"
        )
    spaces = phase.namespaces or max(1, header.namespaces)
    return msgspec.structs.replace(phase, namespaces=spaces)


@dataclass(eq=False)
class Thing:
    """One object of the trace from its creation to its deletion; one of the same name later on is another."""

    name: str
    namespace: str
    created: Operation
    numbers: list[int] = field(default_factory=list)  # of its operations
    awaiting: asyncio.Task[None] | None = None  # that its pods are as the last operation asks
    refused: bool = False

    def since(self, number: int) -> list[int]:
        """Its operations from that one on."""
        return self.numbers[self.numbers.index(number) :]

    def supersede(self) -> None:
        """Wait no longer for what the operation before asked for."""
        if self.awaiting is not None:
            self.awaiting.cancel()
            self.awaiting = None


class Plan:
    """Whose each operation of a trace is, and when it is due. Raises LoadError for a trace that contradicts itself."""

    def __init__(self, phase: Replay, found: Trace) -> None:
        self.header: Header = found.header
        self.operations = found.operations
        self.seconds = found.header.seconds / phase.speed
        self._speed = phase.speed
        self.things: list[Thing] = []
        spaces: dict[str, str] = {}
        now: dict[tuple[str, str, str], Thing] = {}
        last = (False, 0.0)
        for number, one in enumerate(self.operations):
            if (at := (not one.before, one.t)) < last:
                raise LoadError(f"trace {phase.trace} is not in the order of time: line {number + 2}")
            last = at
            if one.namespace not in spaces:
                spaces[one.namespace] = phase.namespace(phase.indices[len(spaces) % phase.namespaces])
            if (one.verb == "create") == (one.key in now):
                there = "is there already" if one.key in now else "is not there"
                what = f"{one.verb} of {one.kind} {one.namespace}/{one.name} at {one.t:g} s, which {there}"
                raise LoadError(f"trace {phase.trace} has a {what}")
            if one.verb == "create":
                now[one.key] = Thing(f"{phase.name[:40]}-{len(self.things):x}", spaces[one.namespace], one)
                self.things.append(now[one.key])
            now[one.key].numbers.append(number)
            if one.verb == "delete":
                del now[one.key]
        self.spaces = sorted(set(spaces.values()))
        self.owners = {number: thing for thing in self.things for number in thing.numbers}

    def offset(self, number: int) -> float:
        """Seconds from the start until operation `number` is due: a Pace."""
        return self.operations[number].t / self._speed


class ReplayWork:
    """One phase of kind replay at work. Numbers of actions are those of the trace's operations, from 0."""

    def __init__(self, context: Context) -> None:
        assert isinstance(context.phase, Replay)
        self.phase = context.phase
        self._context = context
        self._plan: Plan | None = None
        self._watches = Watches(context.transport, self.phase.run)
        self._namespaces = NamespacesReady(context.transport)
        self._ready = Ready(context.transport, context.witness, self._watches)
        self._padding = _padding(self.phase.seed)
        self._turns: dict[int, asyncio.Event] = {}
        self._done = 0  # operations that were accepted

    async def run(self) -> None:
        """Work until the trace is over and all pods are as it left them. Raises LoadError if something was refused."""
        try:
            self._plan = plan = await asyncio.to_thread(lambda: Plan(self.phase, trace.read(self.phase.trace)))
        except BundleError as error:
            raise LoadError(str(error)) from None
        self._begin(plan)
        try:
            await self._watches.beside(self._work(plan))
        finally:
            for thing in plan.things:
                thing.supersede()
        if failed := sum(account.failed for account in self._accounts()):
            raise LoadError(f"{failed} requests were refused, the last: {self._context.sender.refusal}")

    def words(self) -> str:
        """How many operations are done."""
        if self._plan is None:
            return "reading the trace"
        return f"{self._done} of {len(self._plan.operations)} operations replayed"

    def missing(self) -> str:
        """Operations that were not accepted, and objects whose pods are not as they are meant to be."""
        if self._plan is None:
            return "the trace is not read"
        left = len(self._plan.operations) - self._done
        waiting = sum(thing.awaiting is not None and not thing.awaiting.done() for thing in self._plan.things)
        parts = ((left, "operations not accepted"), (waiting, "objects whose pods are not as asked"))
        return ", ".join(f"{count} {what}" for count, what in parts if count) or "nothing"

    def _accounts(self) -> list[Entry | Action]:
        ledger, name = self._context.ledger, self.phase.name
        entries = [entry for entry in ledger.of(name) if entry.kind != "Namespace"]
        return [*entries, *ledger.actions(name).values()]

    def _begin(self, plan: Plan) -> None:
        """Plan the objects, and see that a resumed phase has the trace that it began with."""
        known = self._context.ledger.actions(self.phase.name)
        operations = plan.operations
        if any(number >= len(operations) or operations[number].verb != one.verb for number, one in known.items()):
            raise LoadError(f"trace {self.phase.trace} is another than that with which phase {self.phase.name} began")
        for thing in plan.things:
            kind, replicas = thing.created.kind, _pods(thing.created)[0]
            stateless = kind not in _STATEFUL
            self._context.ledger.plan(self.phase.name, kind, thing.namespace, thing.name, replicas, stateless)
        self._turns = {number: asyncio.Event() for number in plan.owners}
        self._done = sum(account.accepted is not None for account in self._accounts())

    async def _work(self, plan: Plan) -> None:
        self._watches.begin(self._namespaces.watch())
        concurrency, gate = self.phase.concurrency, self._context.gate
        await closed_loop(range(len(plan.spaces)), self._namespace, concurrency, gate)
        before = [number for number, one in enumerate(plan.operations) if one.before]
        await closed_loop(before, self._operation, concurrency, gate)
        after = range(len(before), len(plan.operations))
        left = [number for number in after if not self._over(number)]
        for number in sorted(set(after) - set(left)):
            if self._account(number).accepted:
                await self._operation(number, 0.0)
            self._turns[number].set()
        if len(left) == len(after):
            await self._settled(plan)
        if left:
            await open_loop(left, self._operation, Schedule(plan, time.time() + _START_S, gate, left[0]))
        await self._settled(plan)

    def _over(self, number: int) -> bool:
        """Whether it was accepted, or refused and followed by one that was accepted."""
        assert self._plan is not None
        later = self._plan.owners[number].since(number)
        return any(self._account(each).accepted for each in later)

    async def _settled(self, plan: Plan) -> None:
        """Wait until the pods of all objects are as the last operation on each asks."""
        await asyncio.gather(*(thing.awaiting for thing in plan.things if thing.awaiting is not None))

    async def _namespace(self, number: int, intended: float) -> None:
        assert self._plan is not None
        name, ledger, sender = self._plan.spaces[number], self._context.ledger, self._context.sender
        entry = ledger.plan(self.phase.name, "Namespace", name, name)
        if not entry.accepted:
            sender.meant(entry, "namespaces", "create", intended)
            body = namespace_body(name, self.phase.run)
            if not await sender.create(entry, "namespaces", NAMESPACES, body, self.phase.run):
                raise LoadError(f"a namespace was refused: {sender.refusal}")
        if not entry.ready:
            entry.ready = await self._namespaces.wait(name)
            ledger.save(entry)

    async def _operation(self, number: int, intended: float) -> None:
        """One operation: after those on the same object before it, and without waiting for the pods of those."""
        assert self._plan is not None
        thing, account = self._plan.owners[number], self._account(number)
        made = self._manifest(thing)
        if not account.accepted:
            request = self._request(made, number)
            self._context.sender.meant(account, request.resource, request.verb, intended)
            for before in thing.numbers[: thing.numbers.index(number)][-1:]:
                await self._turns[before].wait()
        thing.supersede()
        try:
            if not thing.refused and (awaited := await self._send(thing, account, made)) is not None:
                thing.awaiting = asyncio.create_task(awaited)
        finally:
            self._turns[number].set()

    async def _send(self, thing: Thing, account: Entry | Action, made: Manifest) -> Coroutine[Any, Any, None] | None:
        """Have it accepted; gives what is to be awaited then. None: it was refused, or there is nothing to await."""
        sender, run = self._context.sender, self.phase.run
        if isinstance(account, Entry):
            if not account.accepted:
                thing.refused = not await sender.create(account, made.resource, made.path, made.body, run)
                self._done += not thing.refused
            return None if thing.refused or account.ready else self._until_ready(account, made)
        answer = None
        if not account.accepted:
            answer = await sender.act(account, self._request(made, account.number), run)
            if not account.accepted:
                return None
            self._done += 1
        return None if account.done else self._until_done(account, made, answer)

    async def _until_ready(self, entry: Entry, made: Manifest) -> None:
        entry.ready = await self._ready.wait(entry, made)
        self._context.ledger.save(entry)

    async def _until_done(self, action: Action, made: Manifest, answer: Response | None) -> None:
        witness, orphaned = self._context.witness, self.phase.propagation == "orphan"
        if action.verb == "roll" and made.resource != "replicasets":  # of those, no pod is replaced
            states = self._watches.of(made.all)
            await states.until(made.namespace, made.name, rolled(made.resource, generation(answer)))
        if action.replicas is not None and not (action.verb == "delete" and orphaned):
            await witness.pods_settle(made.namespace, made.name, action.replicas)
        action.done = time.time()
        self._context.ledger.keep(action)

    def _account(self, number: int) -> Entry | Action:
        """The ledger's row of an operation: a creation has an object's, the others have an action's."""
        assert self._plan is not None
        ledger, name = self._context.ledger, self.phase.name
        thing, one = self._plan.owners[number], self._plan.operations[number]
        entry = ledger.get(one.kind, thing.namespace, thing.name)
        assert entry is not None  # all are planned before the first is created
        if one.verb == "create":
            return entry
        known = ledger.actions(name).get(number)
        if known is None:
            replicas = 0 if one.verb == "delete" else self._wanted(thing, number)
            known = Action(name, number, one.verb, *entry.key, replicas=replicas)
        return known

    def _wanted(self, thing: Thing, number: int) -> int | None:
        """How many pods the object is to have after an operation; None where the cluster decides."""
        assert self._plan is not None
        asked = (self._plan.operations[each].replicas for each in reversed(thing.numbers) if each <= number)
        return next((replicas for replicas in asked if replicas is not None), None)

    def _request(self, made: Manifest, number: int) -> Request:
        assert self._plan is not None
        one = self._plan.operations[number]
        if one.verb == "delete":
            return deletion(made, self.phase.propagation)
        if one.verb == "scale":
            return scaling(made, one.replicas or 0)
        if one.verb == "roll":
            return rolling(made, f"{self.phase.name}-{number}")
        return Request("create", made.resource, "POST", made.path)

    def _manifest(self, thing: Thing) -> Manifest:
        """The object that stands for the recorded one: its kind, numbers and size, on vnodes."""
        one = thing.created
        resource = resources.known(_VERSIONS.get(one.kind, "apps/v1"), one.kind)
        assert resource is not None
        template = self._template(thing)
        made = _object(resource, thing, template, self.phase.run)
        replicas, awaits = _pods(one)
        return Manifest(
            one.kind, resource.plural, resource.collection(thing.namespace), resource.collection(), thing.name,
            thing.namespace, replicas, one.kind not in _STATEFUL, awaits, msgspec.json.encode(made), b"",
        )  # fmt: skip

    def _template(self, thing: Thing) -> dict[str, Any]:
        """Of pods: on any vnode of the run, as long-lived as recorded (divided by the speed), as large as recorded."""
        one = thing.created
        annotations = {}
        if one.run_time is not None:
            annotations["turbokube.io/run-time"] = f"{one.run_time / self.phase.speed:g}"
        spec: dict[str, Any] = {
            "nodeSelector": {"kubernetes.io/role": "agent", "type": "virtual-kubelet"},
            "tolerations": [
                {"key": key, "operator": "Exists"} for key in ("turbokube.io/namespace", "turbokube.io/vnode")
            ],
            "containers": [
                {
                    "name": "turbokube",
                    "image": "registry.k8s.io/pause:3.10",
                    "imagePullPolicy": "IfNotPresent",
                    "resources": {"requests": one.requests},
                }
            ],
        }
        if one.kind == "Job" or (one.kind == "Pod" and one.run_time is not None):
            spec["restartPolicy"] = "Never"
        lacking = min(one.bytes - len(msgspec.json.encode(spec)), _MOST_PADDING)
        if lacking > 0:
            annotations["turbokube.io/padding"] = self._padding[:lacking]
        labels = {"app": thing.name, RUN_LABEL: self.phase.run}
        return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def _object(resource: Resource, thing: Thing, template: dict[str, Any], run: str) -> dict[str, Any]:
    one, name = thing.created, thing.name
    head = {"apiVersion": resource.version, "kind": resource.kind}
    metadata = {"name": name, "namespace": thing.namespace}
    if one.kind == "Pod":
        return {**head, "metadata": {**metadata, **template["metadata"]}, "spec": template["spec"]}
    spec: dict[str, Any] = {"template": template}
    if one.kind == "Job":
        spec |= {"completions": one.replicas or 1, "parallelism": one.parallelism or one.replicas or 1}
    else:
        spec["selector"] = {"matchLabels": {"app": name}}
    if one.kind not in ("Job", "DaemonSet"):
        spec["replicas"] = one.replicas or 0
    if one.kind == "StatefulSet":
        spec["serviceName"] = name
    labels = {"app": "turbokube", RUN_LABEL: run}
    return {**head, "metadata": {**metadata, "labels": labels}, "spec": spec}


def _pods(one: Operation) -> tuple[int, str]:
    """How many pods are awaited of a creation, and how they are known to be there (see Manifest)."""
    if one.kind == "DaemonSet":
        return 0, "daemonset"
    if one.kind == "Job":
        completions = one.replicas or 1
        at_once = min(one.parallelism or completions, completions)
        return (at_once if one.run_time is None else completions), "job"
    if one.kind == "Pod":
        return 1, "pods" if one.run_time is None else "job"
    return one.replicas or 0, "pods"


def _padding(seed: int) -> str:
    """Text that compresses badly and needs no escaping."""
    return base64.urlsafe_b64encode(random.Random(f"{seed}/padding").randbytes(_MOST_PADDING * 3 // 4 + 1)).decode()
