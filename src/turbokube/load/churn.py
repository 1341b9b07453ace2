"""Phase `churn`: objects, or whole namespaces, are deleted and created again, for a time; all are there at its end."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from turbokube.api.transport import JSON

from .acting import Acting, Target, chosen, targets
from .delete import deletion
from .phase import LoadError
from .ready import NAMESPACES, NamespacesReady, namespace_body
from .send import Request
from .states import gone, gone_or_anew, worked
from .templates import Manifest
from .work import Context


class ChurnWork(Acting):
    """One phase of kind churn at work. An item is one object, or one namespace with all of its objects."""

    noun, done_to = "re-creations", "done"
    awaiting = "not gone, or whose pods do not all run again"
    per_item = 2  # of an object: its deletion, its creation

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._namespaces = NamespacesReady(context.transport)
        self._within: dict[str, list[Target]] = {}
        self._pool: list[str] = []  # namespaces
        self._busy: defaultdict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def work(self) -> None:
        """Go round the pool until the time is over, and end what was begun."""
        if self.phase.by == "object":
            self.targets = await targets(self.context, self.phase, _bound)
        else:
            await self._choose_namespaces()
            self.watches.begin(self._namespaces.watch())
        await self.items(0, self.phase.duration)

    async def _choose_namespaces(self) -> None:
        within: defaultdict[str, list[Target]] = defaultdict(list)
        for target in await targets(self.context, self.phase, _bound, everything=True):
            within[target.entry.namespace].append(target)
        for namespace in within:
            others = {one.phase for one in self.context.ledger.within(namespace)} - {self.phase.of}
            if others:
                raise LoadError(
                    f"namespace {namespace} has objects of {', '.join(sorted(others))}, which would be lost"
                )
        self._within = dict(within)
        self._pool = chosen(within, self.phase, str)
        self.per_item = 2 + max(len(within[namespace]) for namespace in self._pool)

    async def item(self, number: int, intended: float) -> None:
        """One deletion and re-creation; none if it had to wait for those of the same object until the time was over."""
        which = number % len(self._pool or self.targets)
        first = number * self.per_item
        begun = first in self._actions()
        delete = self._deletion(which)
        if self.phase.rate and not begun:
            self.mean(first, delete, intended)
        waits = self._busy[which].locked()
        async with self._busy[which]:
            if waits and self.over() and not begun:
                return
            if self._pool:
                await self._namespace(first, self._pool[which], intended, delete)
            else:
                await self._object(first, self.targets[which], intended, delete)

    def _deletion(self, which: int) -> Request:
        if self._pool:
            return Request("delete", "namespaces", "DELETE", f"{NAMESPACES}/{self._pool[which]}")
        return deletion(self.targets[which].made)

    async def _object(self, first: int, target: Target, intended: float, delete: Request) -> None:
        made = target.made
        states = self.watches.of(made.all)
        replicas = 0 if made.awaits else None
        resumed = self._is_accepted(first)
        action, _ = await self.act(first, "delete", target.entry.key, intended, replicas, delete)
        if not action.accepted:
            return
        if not action.done:
            moment = await states.until(made.namespace, made.name, gone_or_anew if resumed else gone)
            anew = states.there(made.namespace, made.name)
            self.end(action, moment if anew else max(moment, await self.settle(made, 0)))
        await self._create(first + 1, target, made, time.time())

    async def _namespace(self, first: int, namespace: str, intended: float, delete: Request) -> None:
        key = ("Namespace", namespace, namespace)
        states = self.watches.of(NAMESPACES)
        resumed = self._is_accepted(first)
        action, _ = await self.act(first, "delete", key, intended, None, delete)
        if not action.accepted:
            return
        if not action.done:
            moment = await states.until("", namespace, gone_or_anew if resumed else gone)
            if not states.there("", namespace):
                self._namespaces.forget(namespace)
            self.end(action, moment)
        body = namespace_body(namespace, self.phase.run)
        create = Request("create", "namespaces", "POST", NAMESPACES, body, JSON)
        action, _ = await self.act(first + 1, "create", key, time.time(), None, create)
        if not action.accepted:
            return
        if not action.done:
            self.end(action, await self._namespaces.wait(namespace))
        now = time.time()
        async with asyncio.TaskGroup() as group:
            for number, target in enumerate(self._within[namespace], first + 2):
                group.create_task(self._create(number, target, target.made, now))

    async def _create(self, number: int, target: Target, made: Manifest, intended: float) -> None:
        """Create an object again, with as many pods as it was created with at first."""
        replicas = target.entry.replicas if made.awaits else None
        request = Request("create", made.resource, "POST", made.path, made.body, JSON)
        action, _ = await self.act(number, "create", target.entry.key, intended, replicas, request)
        if not action.accepted or action.done:
            return
        if made.awaits == "job":
            await self.watches.of(made.all).until(made.namespace, made.name, worked(target.entry.replicas))
            self.end(action, time.time())
        else:
            self.end(action, await self.settle(made, target.entry.replicas))

    def _ended(self, number: int) -> bool:
        numbers = range(number * self.per_item, (number + 1) * self.per_item)
        if not self._pool:
            return self._is_done(numbers[-1])
        here = len(self._within[self._pool[number % len(self._pool)]])
        return all(self._is_done(each) for each in numbers[: 2 + here])

    def _is_accepted(self, number: int) -> bool:
        """By an earlier agent, whose last half second the ledger may not know."""
        action = self._actions().get(number)
        return action is not None and action.accepted is not None

    def _is_done(self, number: int) -> bool:
        action = self._actions().get(number)
        return action is not None and action.done is not None


def _bound(made: Manifest) -> bool:
    return bool(made.namespace)
