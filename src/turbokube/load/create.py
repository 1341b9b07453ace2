"""Phase `create`: namespaces × deployments × replicas, in a closed or an open loop, until every pod runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec

from turbokube.api.transport import ApiError, Transport
from turbokube.bundle.ledger import Entry, Ledger
from turbokube.bundle.writer import Writer

from .pacing import LEAD_S, Gate, Schedule, constant
from .phase import RUN_LABEL, Phase
from .ready import NamespacesReady
from .send import Requests, Sender
from .templates import Templates

# (namespace, owner, replicas) → awaits until so many of its pods run, gives the time of the last
PodsRun = Callable[[str, str, int], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a phase ended: done, deadline or stopped, and why."""

    state: str
    note: str = ""


def connections(phase: Phase) -> int:
    """How many connections keep the generator's own pool from being what is waited for."""
    return min(256, max(8, phase.concurrency * phase.deployments))


class Create:
    """One phase at work. `pods_run` is the observer's word: the load itself watches no pods."""

    def __init__(
        self,
        phase: Phase,
        transport: Transport,
        writer: Writer,
        ledger: Ledger,
        gate: Gate,
        pods_run: PodsRun,
        trouble: Callable[[], None],
    ) -> None:
        self.phase = phase
        self._templates = Templates(phase)
        self._ledger = ledger
        self._pods_run = pods_run
        self._gate = gate
        self.requests = Requests(writer, phase.name)
        self.sender = Sender(transport, ledger, self.requests, gate, trouble)
        self._ready = NamespacesReady(transport)
        self._spaces = {index: self._plan(index) for index in phase.indices}

    async def run(self, away_before: float, started: float) -> Outcome:
        """Work until all pods run or the deadline.

        The deadline counts from `started`, but not the time that the gate is shut, nor the `away_before` seconds
        in which no agent lived.
        """
        work = asyncio.create_task(self._open_loop() if self.phase.rate else self._closed_loop())
        watch = asyncio.create_task(self._ready.watch())
        already = self._gate.away
        try:
            while not work.done() and not watch.done():
                await asyncio.wait((work, watch), timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
                self.requests.write()
                active = time.time() - started - away_before - (self._gate.away - already)
                if active > self.phase.deadline_s and not work.done():
                    return Outcome("deadline", self._what_is_missing())
            if watch.done():
                return Outcome("stopped", f"namespaces cannot be watched: {_reason(watch)}")
            work.result()
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)
            self.requests.write(everything=True)
        failed = sum(entry.failed for entry in self._ledger.of(self.phase.name))
        if failed:
            return Outcome("stopped", f"{failed} objects were refused, the last: {self.sender.refusal}")
        return Outcome("done")

    def _what_is_missing(self) -> str:
        entries = list(self._ledger.of(self.phase.name))
        spaces = [entry for entry in entries if entry.kind == "Namespace" and entry.accepted]
        objects = [entry for entry in entries if entry.kind != "Namespace"]
        parts = [
            (sum(not entry.ready for entry in spaces), "namespaces without ServiceAccount default or kube-root-ca.crt"),
            (sum(not entry.accepted for entry in objects), "objects not accepted"),
            (sum(bool(entry.accepted and not entry.ready) for entry in objects), "objects whose pods do not all run"),
        ]
        missing = ", ".join(f"{count} {what}" for count, what in parts if count)
        return f"after {self.phase.deadline_s:g} s: {missing}"

    def _plan(self, index: int) -> Entry:
        phase, space = self.phase, self.phase.namespace(index)
        for number in range(phase.deployments):
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
                for number in range(self.phase.deployments):
                    group.create_task(self._object(index, number, now))

    async def _open_loop(self) -> None:
        per, phase = self.phase.deployments, self.phase
        every = [(i, n) for i in phase.indices for n in range(per)]
        accepted = [entry for place in every if (entry := self._entry(*place)).accepted]
        left = [place for place in every if not self._entry(*place).accepted]
        schedule = Schedule(constant(phase.rate), time.time() + LEAD_S, self._gate)
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
            if not await self.sender.create(
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
            if not await self.sender.create(entry, made.resource, made.path, made.body, self.phase.run):
                return
        await self._runs(entry)

    async def _runs(self, entry: Entry) -> None:
        if not entry.ready:
            entry.ready = await self._pods_run(entry.namespace, entry.name, entry.replicas)
            self._ledger.save(entry)

    def _entry(self, index: int, number: int) -> Entry:
        made = self._templates.manifest(index, number)
        entry = self._ledger.get(made.kind, made.namespace, made.name)
        assert entry is not None  # planned when the phase was made
        return entry


def _reason(task: asyncio.Task[None]) -> str:
    error = task.exception()
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, ApiError) else repr(error)
