"""Phase `delete`: objects deleted, until they and their pods are gone."""

from __future__ import annotations

import msgspec

from .acting import Acting, targets
from .send import Request
from .states import gone
from .templates import Manifest


def deletion(made: Manifest, propagation: str = "background") -> Request:
    """What deletes an object."""
    options = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation.capitalize()}
    path = f"{made.path}/{made.name}"
    return Request("delete", made.resource, "DELETE", path, msgspec.json.encode(options))


class DeleteWork(Acting):
    """One phase of kind delete at work."""

    done_to = "deleted"
    awaiting = "not gone, or whose pods are not"

    async def work(self) -> None:
        """Delete each target once."""
        self.targets = await targets(self.context, self.phase)
        await self.items(len(self.targets))

    async def item(self, number: int, intended: float) -> None:
        """Delete one object, and wait until nothing of it is left, finalizers included."""
        target = self.targets[number]
        made, phase = target.made, self.phase
        takes_pods = bool(made.awaits) and phase.propagation != "orphan" and made.stateless is not None
        states = self.watches.of(made.all) if phase.wait else None
        request = deletion(made, phase.propagation)
        replicas = 0 if takes_pods else None
        action, _ = await self.act(number, "delete", target.entry.key, intended, replicas, request)
        if not action.accepted:
            return
        moment = action.accepted
        if states is not None:
            moment = await states.until(made.namespace, made.name, gone)
            if takes_pods:
                moment = max(moment, await self.settle(made, 0))
        self.end(action, moment)
