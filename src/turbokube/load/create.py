"""Phase `create`: namespaces × sets of objects, in a closed or an open loop, until every pod runs."""

from __future__ import annotations

import asyncio
import time

from turbokube.bundle.ledger import Entry
from turbokube.profile.phases import Create

from .pacing import LEAD_S, Schedule, closed_loop, pace
from .phase import LoadError
from .ready import NAMESPACES, NamespacesReady, Ready, namespace_body
from .states import Watches
from .templates import Manifest, Templates
from .work import Context


class CreateWork:
    """One phase of kind create at work."""

    def __init__(self, context: Context) -> None:
        assert isinstance(context.phase, Create)
        self.phase = context.phase
        self._templates = Templates(self.phase)
        self._transport = context.transport
        self._ledger = context.ledger
        self._gate = context.gate
        self._sender = context.sender
        self._watches = Watches(context.transport, self.phase.run)
        self._namespaces = NamespacesReady(context.transport)
        self._ready = Ready(context.transport, context.witness, self._watches)
        self._spaces: dict[int, Entry] = {}
        self._entries: dict[int, list[Entry]] = {}  # of each namespace, by the objects' numbers

    async def run(self) -> None:
        """Work until all pods run. Raises LoadError if an object was refused."""
        await self._watches.beside(self._work())
        failed = sum(entry.failed for entry in self._ledger.of(self.phase.name))
        if failed:
            raise LoadError(f"{failed} objects were refused, the last: {self._sender.refusal}")

    async def _work(self) -> None:
        await self._templates.discover(self._transport)
        cluster = [(self._planned(made), made) for made in self._templates.cluster()]
        for index in self.phase.indices if self._templates.per_namespace else ():
            self._spaces[index] = self._plan(index)
            await asyncio.sleep(0)
        for entry, made in cluster:
            await self._create(entry, made, time.time())
        if not self._spaces:
            return
        self._watches.begin(self._namespaces.watch())
        await (self._open_loop() if self.phase.rate else self._closed_loop())

    def words(self) -> str:
        """Of the deployments of a run without phases of its own the pods are what counts, of others the objects."""
        if [one.stem for one in self.phase.objects] == ["turbokube"]:
            return ""
        objects = [entry for entry in self._ledger.of(self.phase.name) if entry.kind != "Namespace"]
        return f"{sum(entry.ready is not None for entry in objects):,} of {len(objects):,} objects ready"

    def missing(self) -> str:
        """Objects by what they lack."""
        entries = list(self._ledger.of(self.phase.name))
        spaces = [entry for entry in entries if entry.kind == "Namespace" and entry.accepted]
        objects = [entry for entry in entries if entry.kind != "Namespace"]
        parts = [
            (sum(not entry.ready for entry in spaces), "namespaces without ServiceAccount default or kube-root-ca.crt"),
            (sum(not entry.accepted for entry in objects), "objects not accepted"),
            (sum(bool(entry.accepted and not entry.ready) for entry in objects), "objects whose pods do not all run"),
        ]
        return ", ".join(f"{count} {what}" for count, what in parts if count)

    def _plan(self, index: int) -> Entry:
        numbers = range(self._templates.per_namespace)
        self._entries[index] = [self._planned(self._templates.manifest(index, number)) for number in numbers]
        space = self.phase.namespace(index)
        return self._ledger.plan(self.phase.name, "Namespace", space, space)

    def _planned(self, made: Manifest) -> Entry:
        name = self.phase.name
        entry = self._ledger.plan(name, made.kind, made.namespace, made.name, made.replicas, made.stateless)
        if entry.phase != name:
            where = f"{made.kind} {made.namespace}/{made.name}"
            raise LoadError(f"{where} was created by phase {entry.phase}; give the objects of {name} another name")
        return entry

    async def _closed_loop(self) -> None:
        async def one(index: int, begun: float) -> None:
            await self._whole_namespace(index)

        await closed_loop(self.phase.indices, one, self.phase.concurrency, self._gate)

    async def _whole_namespace(self, index: int) -> None:
        if await self._namespace(index, None):
            await self._gate.passed()
            now = time.time()
            async with asyncio.TaskGroup() as group:
                for number in range(self._templates.per_namespace):
                    group.create_task(self._object(index, number, now))

    async def _open_loop(self) -> None:
        per, phase = self._templates.per_namespace, self.phase
        every = [(i, n) for i in phase.indices for n in range(per)]
        accepted = [place for place in every if self._entries[place[0]][place[1]].accepted]
        left = [place for place in every if not self._entries[place[0]][place[1]].accepted]
        schedule = Schedule(pace(phase.rate, phase.seed), time.time() + LEAD_S, self._gate)
        spaces: dict[int, asyncio.Task[bool]] = {}

        def space(group: asyncio.TaskGroup, index: int, intended: float) -> asyncio.Task[bool]:
            if index not in spaces:
                spaces[index] = group.create_task(self._namespace(index, intended))
            return spaces[index]

        async def ahead(group: asyncio.TaskGroup) -> None:
            for position, (index, _) in enumerate(left):
                if index not in spaces:
                    space(group, index, await schedule.wait(position, LEAD_S))

        async def one(there: asyncio.Task[bool], index: int, number: int, intended: float) -> None:
            made = self._templates.manifest(index, number)
            self._sender.meant(self._entries[index][number], made.resource, "create", intended)
            if await there:
                await self._object(index, number, intended)

        async with asyncio.TaskGroup() as group:
            group.create_task(ahead(group))
            for position, (index, number) in enumerate(left):
                intended = await schedule.wait(position)
                group.create_task(one(space(group, index, intended), index, number, intended))
            for index, number in accepted:
                group.create_task(self._object(index, number, 0.0))

    async def _namespace(self, index: int, intended: float | None) -> bool:
        """Whether the namespace exists and is ready for pods."""
        entry = self._spaces[index]
        if not entry.accepted:
            await self._gate.passed()
            self._sender.meant(entry, "namespaces", "create", intended or time.time())
            body = namespace_body(entry.name, self.phase.run)
            if not await self._sender.create(entry, "namespaces", NAMESPACES, body, self.phase.run):
                return False
        if not entry.ready:
            entry.ready = await self._namespaces.wait(entry.name)
            self._ledger.save(entry)
        return True

    async def _object(self, index: int, number: int, intended: float) -> None:
        await self._create(self._entries[index][number], self._templates.manifest(index, number), intended)

    async def _create(self, entry: Entry, made: Manifest, intended: float) -> None:
        """Have an object, and have it ready."""
        if not entry.accepted:
            self._sender.meant(entry, made.resource, "create", intended)
            if not await self._sender.create(entry, made.resource, made.path, made.body, self.phase.run):
                return
        if not entry.ready:
            entry.ready = await self._ready.wait(entry, made)
            self._ledger.save(entry)
