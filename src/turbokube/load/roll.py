"""Phase `roll`: a new pod template, until every pod is of it."""

from __future__ import annotations

import msgspec

from turbokube.api.transport import MERGE_PATCH

from .acting import Acting, targets
from .send import Request
from .states import rolled
from .templates import Manifest

ANNOTATION = "turbokube.io/rolled"  # of pods: the phase that replaced those before them
_ROLLS = {"deployments", "statefulsets", "daemonsets"}


class _Metadata(msgspec.Struct):
    generation: int = 0


class _Object(msgspec.Struct):
    metadata: _Metadata


class RollWork(Acting):
    """One phase of kind roll at work."""

    done_to = "rolled"
    awaiting = "whose pods are not all new"

    async def work(self) -> None:
        """Roll each target once."""
        self.targets = await targets(self.context, self.phase, _rolls)
        annotations = {"metadata": {"annotations": {ANNOTATION: self.phase.name}}}
        self._body = msgspec.json.encode({"spec": {"template": annotations}})
        await self.items(len(self.targets))

    async def item(self, number: int, intended: float) -> None:
        """Have one object's pods replaced, and wait until none of the old is left."""
        target = self.targets[number]
        made, states = target.made, self.watches.of(target.made.all)
        wanted = self.context.ledger.wanted(target.entry)
        request = Request("patch", made.resource, "PATCH", f"{made.path}/{made.name}", self._body, MERGE_PATCH)
        action, answer = await self.act(number, "roll", target.entry.key, intended, wanted, request)
        if action.accepted:
            # without an answer the patch is older than the watch, which so begins with what it has made
            generation = msgspec.json.decode(answer.body, type=_Object).metadata.generation if answer else 0
            await states.until(made.namespace, made.name, rolled(made.resource, generation))
            self.end(action, await self.settle(made, wanted))


def _rolls(made: Manifest) -> bool:
    return made.resource in _ROLLS and bool(made.awaits)
