"""Phase `create`: namespaces × deployments × replicas, in a closed or an open loop, until every pod runs."""

from __future__ import annotations

import asyncio
import time

import msgspec

from turbokube.bundle.ledger import Entry
from turbokube.profile.phases import Create

from .pacing import LEAD_S, Schedule, pace
from .phase import RUN_LABEL, LoadError
from .ready import NamespacesReady
from .templates import Templates
from .work import Context, first_words


class CreateWork:
    """One phase of kind create at work."""

    def __init__(self, context: Context) -> None:
        assert isinstance(context.phase, Create)
        self.phase = context.phase
        self._templates = Templates(self.phase)
        self._ledger = context.ledger
        self._witness = context.witness
        self._gate = context.gate
        self._requests = context.requests
        self._sender = context.sender
        self._ready = NamespacesReady(context.transport)
        self._spaces = {index: self._plan(index) for index in self.phase.indices}

    async def run(self) -> None:
        """Work until all pods run. Raises LoadError if an object was refused."""
        work = asyncio.create_task(self._open_loop() if self.phase.rate else self._closed_loop())
        watch = asyncio.create_task(self._ready.watch())
        try:
            await asyncio.wait((work, watch), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise LoadError(f"namespaces cannot be watched: {first_words(watch.exception())}")
            work.result()
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
        failed = sum(entry.failed for entry in self._ledger.of(self.phase.name))
        if failed:
            raise LoadError(f"{failed} objects were refused, the last: {self._sender.refusal}")

    def words(self) -> str:
        """Its pods are what counts."""
        return ""

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
        phase, space = self.phase, self.phase.namespace(index)
        for number in range(self._templates.per_namespace):
            made = self._templates.manifest(index, number)
            self._ledger.plan(phase.name, made.kind, space, made.name, made.replicas)
        return self._ledger.plan(phase.name, "Namespace", space, space)

    async def _closed_loop(self) -> None:
        waiting = iter(self.phase.indices)

        async def worker() -> None:
            for index in waiting:
                await self._whole_namespace(index)

        async with asyncio.TaskGroup() as group:
            for _ in range(self.phase.concurrency):
                group.create_task(worker())

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
        accepted = [entry for place in every if (entry := self._entry(*place)).accepted]
        left = [place for place in every if not self._entry(*place).accepted]
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
            if await there:
                await self._object(index, number, intended)

        async with asyncio.TaskGroup() as group:
            group.create_task(ahead(group))
            for position, (index, number) in enumerate(left):
                intended = await schedule.wait(position)
                group.create_task(one(space(group, index, intended), index, number, intended))
            for entry in accepted:
                group.create_task(self._runs(entry))

    async def _namespace(self, index: int, intended: float | None) -> bool:
        """Whether the namespace exists and is ready for pods."""
        entry = self._spaces[index]
        if not entry.accepted:
            await self._gate.passed()
            entry.intended = entry.intended or intended or time.time()
            labels = {"app": "turbokube", RUN_LABEL: self.phase.run}
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": entry.name, "labels": labels}}
            if not await self._sender.create(
                entry, "namespaces", "/api/v1/namespaces", msgspec.json.encode(body), self.phase.run
            ):
                return False
        if not entry.ready:
            entry.ready = await self._ready.wait(entry.name)
            self._ledger.save(entry)
        return True

    async def _object(self, index: int, number: int, intended: float) -> None:
        entry = self._entry(index, number)
        if not entry.accepted:
            made = self._templates.manifest(index, number)
            entry.intended = entry.intended or intended
            if not await self._sender.create(entry, made.resource, made.path, made.body, self.phase.run):
                return
        await self._runs(entry)

    async def _runs(self, entry: Entry) -> None:
        if not entry.ready:
            entry.ready = await self._witness.pods_run(entry.namespace, entry.name, entry.replicas)
            self._ledger.save(entry)

    def _entry(self, index: int, number: int) -> Entry:
        made = self._templates.manifest(index, number)
        entry = self._ledger.get(made.kind, made.namespace, made.name)
        assert entry is not None  # planned when the phase was made
        return entry
