"""Phase `scale`: new numbers of replicas, until exactly so many run."""

from __future__ import annotations

import msgspec

from turbokube.api.transport import MERGE_PATCH
from turbokube.profile.phases import Between, Scale

from .acting import Acting, Target, draw, targets
from .send import Request
from .templates import Manifest

_SCALES = {"deployments", "replicasets", "statefulsets", "replicationcontrollers"}  # of those that own pods


def scaling(made: Manifest, replicas: int) -> Request:
    """What gives an object so many replicas."""
    path, body = f"{made.path}/{made.name}/scale", msgspec.json.encode({"spec": {"replicas": replicas}})
    return Request("patch", f"{made.resource}/scale", "PATCH", path, body, MERGE_PATCH)


class ScaleWork(Acting):
    """One phase of kind scale at work."""

    done_to = "scaled"

    async def work(self) -> None:
        """Scale each target once."""
        self.targets = await targets(self.context, self.phase, _scales)
        await self.items(len(self.targets))

    async def item(self, number: int, intended: float) -> None:
        """Scale one object, and wait for its pods."""
        target = self.targets[number]
        made, known = target.made, self._actions().get(number)
        replicas = known.replicas if known is not None and known.replicas is not None else self._replicas(target)
        action, _ = await self.act(number, "scale", target.entry.key, intended, replicas, scaling(made, replicas))
        if action.accepted:
            self.end(action, await self.settle(made, replicas))

    def _replicas(self, target: Target) -> int:
        phase: Scale = self.phase
        if phase.factor is not None:
            return round(phase.factor * self.context.ledger.wanted(target.entry))
        if isinstance(phase.replicas, Between):
            many = phase.replicas.most - phase.replicas.least + 1
            return phase.replicas.least + draw(phase, "replicas/" + "/".join(target.entry.key)) % many
        assert phase.replicas is not None  # the profile has been checked
        return phase.replicas


def _scales(made: Manifest) -> bool:
    return made.resource in _SCALES and made.awaits == "pods"
