"""Phase `roll`: a new pod template, until every pod is of it."""

from __future__ import annotations

import msgspec

from turbokube.api.transport import MERGE_PATCH, Response

from .acting import Acting, targets
from .send import Request
from .states import rolled
from .templates import Manifest

ANNOTATION = "turbokube.io/rolled"  # of pods: what replaced those before them
_ROLLS = {"deployments", "statefulsets", "daemonsets"}


class _Metadata(msgspec.Struct):
    generation: int = 0


class _Object(msgspec.Struct):
    metadata: _Metadata


def rolling(made: Manifest, by: str) -> Request:
    """What gives an object's pods a new template; `by` is other than the time before."""
    body = msgspec.json.encode({"spec": {"template": {"metadata": {"annotations": {ANNOTATION: by}}}}})
    return Request("patch", made.resource, "PATCH", f"{made.path}/{made.name}", body, MERGE_PATCH)


def generation(answer: Response | None) -> int:
    """Which generation of the object the patch made; 0 if it was answered to an earlier agent.

    It is older than the watch then, which so begins with what it has made.
    """
    return msgspec.json.decode(answer.body, type=_Object).metadata.generation if answer else 0


class RollWork(Acting):
    """One phase of kind roll at work."""

    done_to = "rolled"
    awaiting = "whose pods are not all new"

    async def work(self) -> None:
        """Roll each target once."""
        self.targets = await targets(self.context, self.phase, _rolls)
        await self.items(len(self.targets))

    async def item(self, number: int, intended: float) -> None:
        """Have one object's pods replaced, and wait until none of the old is left."""
        target = self.targets[number]
        made, states = target.made, self.watches.of(target.made.all)
        wanted = self.context.ledger.wanted(target.entry)
        request = rolling(made, self.phase.name)
        action, answer = await self.act(number, "roll", target.entry.key, intended, wanted, request)
        if action.accepted:
            await states.until(made.namespace, made.name, rolled(made.resource, generation(answer)))
            self.end(action, await self.settle(made, wanted))


def _rolls(made: Manifest) -> bool:
    return made.resource in _ROLLS and bool(made.awaits)
