"""Phase `wait`: until pods run, are gone, Nodes are Ready, or the objects of a phase are complete."""

from __future__ import annotations

import asyncio

from turbokube.bundle.ledger import Entry
from turbokube.profile.phases import Wait

from .ready import Ready
from .states import Watches
from .templates import Manifest, Templates
from .work import Context

_LOOK_EVERY_S = 0.2


class WaitWork:
    """One phase of kind wait at work."""

    def __init__(self, context: Context) -> None:
        assert isinstance(context.phase, Wait)
        self.phase = context.phase
        self._context = context
        self._watches = Watches(context.transport, self.phase.run)
        self._spaces = [self.phase.namespace(index) for index in self.phase.indices]

    async def run(self) -> None:
        """Until what it is for holds."""
        if self.phase.for_ == "objects":
            await self._watches.beside(self._objects())
            return
        while self._lacking():
            await asyncio.sleep(_LOOK_EVERY_S)

    def words(self) -> str:
        """What is lacking."""
        return self._lacking() or "all there"

    def missing(self) -> str:
        """What is lacking."""
        return self._lacking()

    def _lacking(self) -> str:
        """In words; empty when nothing is."""
        context = self._context
        if self.phase.for_ == "nodes_ready":
            total, ready = context.witness.nodes()
            return f"{total - ready} of {total} Nodes not Ready" if ready < total or not total else ""
        if self.phase.for_ == "objects":
            left = sum(not entry.ready for entry in self._entries())
            return f"{left} objects of {self.phase.of} not complete" if left else ""
        there, running = context.witness.pods(self._spaces)
        if self.phase.for_ == "pods_gone":
            return f"{there} pods not gone" if there else ""
        entries = [entry for space in self._spaces for entry in context.ledger.within(space)]
        wanted = sum(context.ledger.wanted(entry) for entry in entries if entry.kind != "Job")  # a Job's pods end
        return f"{wanted - running} of {wanted} pods do not run" if running < wanted else ""

    def _entries(self) -> list[Entry]:
        return [entry for entry in self._context.ledger.standing(self.phase.of) if entry.kind != "Namespace"]

    async def _objects(self) -> None:
        """Whatever a create phase that ended before left to be awaited."""
        context = self._context
        templates = Templates(context.created(self.phase.of))
        await templates.discover(context.transport)
        ready = Ready(context.transport, context.witness, self._watches)
        left = {entry.key: entry for entry in self._entries() if not entry.ready}

        async def one(entry: Entry, made: Manifest) -> None:
            entry.ready = await ready.wait(entry, made)
            context.ledger.save(entry)

        async with asyncio.TaskGroup() as group:
            for make in templates.makers():
                made = make()
                if entry := left.get((made.kind, made.namespace, made.name)):
                    group.create_task(one(entry, made))
