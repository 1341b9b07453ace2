"""What the kinds that act on created objects have in common: which objects, in which order, and how far each is."""

from __future__ import annotations

import abc
import asyncio
import hashlib
import itertools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from turbokube.api.transport import Response
from turbokube.bundle.ledger import Action, Entry
from turbokube.profile.phases import Churn, Delete, Patch, Roll, Scale

from .pacing import Schedule, closed_loop, open_loop, pace
from .phase import LoadError
from .send import Request
from .states import Watches
from .templates import Manifest, Templates
from .work import Context

_BREATH = 256  # objects looked at before others get the loop
T = TypeVar("T")
Acts = Scale | Roll | Patch | Churn | Delete


@dataclass(frozen=True, slots=True)
class Target:
    """An object of an earlier phase. `made` is how it was created."""

    entry: Entry
    make: Callable[[], Manifest]

    @property
    def made(self) -> Manifest:
        return self.make()


async def targets(
    context: Context, phase: Acts, able: Callable[[Manifest], bool] = lambda made: True, *, everything: bool = False
) -> list[Target]:
    """The phase's share, or all, of the objects that stood when it began, in an order that the seed decides.

    `able` tells what it can be done to. Raises LoadError if that is nothing.
    """
    templates = Templates(context.created(phase.of))
    await templates.discover(context.transport)
    spaces = {"", *(phase.namespace(index) for index in phase.indices)}
    stood = {entry.key: entry for entry in context.ledger.standing(phase.of, before=context.started)}
    found = []
    for number, make in enumerate(templates.makers(phase.template)):
        if number % _BREATH == 0:
            await asyncio.sleep(0)
        made = make()
        entry = stood.get((made.kind, made.namespace, made.name))
        if entry is not None and entry.namespace in spaces and able(made):
            found.append(Target(entry, make))
    if not found:
        raise LoadError(f"phase {phase.name} is of {phase.of}, which has no objects that {phase.kind} can be done to")
    return found if everything else chosen(found, phase, lambda target: "/".join(target.entry.key))


def chosen(candidates: Iterable[T], phase: Acts, name: Callable[[T], str]) -> list[T]:
    """A share, at least one, in the seed's order."""
    ordered = sorted(candidates, key=lambda one: draw(phase, name(one)))
    return ordered[: max(1, round(phase.share * len(ordered)))]


def draw(phase: Acts, name: str) -> int:
    """A number that the seed, the phase and a name decide, from 0 to 2^64."""
    digest = hashlib.blake2b(f"{phase.seed}/{phase.name}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


class Acting(abc.ABC):
    """Items of work, each on one object: begun by the phase's rate or concurrency, gone on with after a restart.

    Numbers of actions are those of items, `per_item` to each; the last action of an item that is done ends it.
    """

    noun, done_to = "objects", ""  # as in "12 of 80 objects scaled"
    awaiting = "whose pods are not yet as asked"
    per_item = 1

    def __init__(self, context: Context) -> None:
        assert isinstance(context.phase, Acts)
        self.context = context
        self.targets: list[Target] = []
        self.watches = Watches(context.transport, context.phase.run)
        self._total = 0  # items that are meant; 0: until a time is over
        self._done = 0
        self._until = math.inf  # nothing is begun after so long at work
        self._meant: set[int] = set()  # numbers of actions that are counted as intended, and not sent yet

    @property
    def phase(self) -> Any:
        return self.context.phase

    async def run(self) -> None:
        """Work until all is done. Raises LoadError if something was refused."""
        await self.watches.beside(self.work())
        failed = sum(action.failed for action in self._actions().values())
        if failed:
            raise LoadError(f"{failed} requests were refused, the last: {self.context.sender.refusal}")

    @abc.abstractmethod
    async def work(self) -> None:
        """What a kind does with its targets: `items`, as a rule."""

    @abc.abstractmethod
    async def item(self, number: int, intended: float) -> None:
        """One item, from its first action to its end."""

    def words(self) -> str:
        """How many items are done."""
        of = f" of {self._total}" if self._total else ""
        return f"{self._done}{of} {self.noun} {self.done_to}"

    def missing(self) -> str:
        """Items by what they lack."""
        actions = self._actions().values()
        parts = [
            (
                self._total - len({action.number // self.per_item for action in actions}),
                f"{self.noun} not {self.done_to}",
            ),
            (sum(not action.accepted for action in actions), "requests not accepted"),
            (sum(bool(action.accepted and not action.done) for action in actions), f"objects {self.awaiting}"),
        ]
        return ", ".join(f"{count} {what}" for count, what in parts if count > 0) or "nothing begun"

    async def items(self, total: int, duration: float = 0.0) -> None:
        """So many items, or with a duration as many as its seconds have room for. Those begun before go first."""
        context, rate = self.context, self.phase.rate
        self._total = 0 if duration else total
        known = {action.number // self.per_item for action in self._actions().values()}
        begun = sorted(number for number in known if not self._ended(number))
        self._done = len(known) - len(begun)
        self._until = self._began() + duration if duration else math.inf
        new: Iterable[int] = (number for number in (itertools.count() if duration else range(total)))
        new = (number for number in new if number not in known)
        if not rate:
            new = itertools.takewhile(lambda _: not self.over(), new)
            await closed_loop(itertools.chain(begun, new), self._counted, self.phase.concurrency, context.gate)
            return
        speed = pace(rate, self.phase.seed)
        new = itertools.takewhile(lambda number: speed.offset(number) < duration, new) if duration else new
        first = next(iter(new), None)
        async with asyncio.TaskGroup() as group:
            for number in begun:
                group.create_task(self._counted(number, time.time()))
            if first is not None:
                schedule = Schedule(speed, time.time(), context.gate, first)
                await open_loop(itertools.chain((first,), new), self._counted, schedule)

    async def act(
        self, number: int, verb: str, key: tuple[str, str, str], intended: float, replicas: int | None, request: Request
    ) -> tuple[Action, Response | None]:
        """One action on the object of that key. The answer is None if it was given to an earlier agent, or refused.

        Whether it was accepted is in the action.
        """
        action = self._actions().get(number)
        if action is None:
            action = Action(self.phase.name, number, verb, *key, replicas=replicas)
        if action.accepted:
            return action, None
        if action.intended is None:
            action.intended = intended
            self.mean(number, request, intended)
            self._meant.discard(number)
        return action, await self.context.sender.act(action, request, self.phase.run)

    def mean(self, number: int, request: Request, intended: float) -> None:
        """Count an action's request as intended, once, though it may have to wait."""
        if number not in self._meant:
            self._meant.add(number)
            self.context.requests.meant(request.resource, request.verb, intended)

    def over(self) -> bool:
        """Whether the phase's time is over, so that nothing new is begun."""
        return self.context.elapsed() >= self._until

    def end(self, action: Action, moment: float) -> None:
        """Note when all that an action is for was there."""
        action.done = moment
        self.context.ledger.keep(action)

    async def settle(self, made: Manifest, replicas: int) -> float:
        """When exactly so many pods of an object run and no other is left, awaited; now if it owns none."""
        if made.awaits in ("pods", "daemonset") or (made.awaits and not replicas):
            return await self.context.witness.pods_settle(made.namespace, made.name, replicas)
        return time.time()

    def _began(self) -> float:
        """How long the phase had been at work when its first action was meant: not before all was prepared."""
        first = min((action.intended for action in self._actions().values() if action.intended), default=None)
        return self.context.elapsed() if first is None else max(0.0, first - self.context.started)

    def _actions(self) -> dict[int, Action]:
        return self.context.ledger.actions(self.phase.name)

    def _ended(self, number: int) -> bool:
        action = self._actions().get((number + 1) * self.per_item - 1)
        return action is not None and action.done is not None

    async def _counted(self, number: int, intended: float) -> None:
        self.context.sender.begun(intended)
        await self.item(number, intended)
        self._done += self._ended(number)
