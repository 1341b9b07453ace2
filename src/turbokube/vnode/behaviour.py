"""What pods do and how long it takes them: constants, or distributions that a seed decides."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ..profile.distribution import ALLOWED as ALLOWED
from ..profile.distribution import Distribution as Distribution
from ..profile.distribution import parse as parse

if TYPE_CHECKING:
    from .spec import Spec

# a pod's annotation → the option that it takes the place of
ANNOTATIONS = {
    "turbokube.io/start-delay": "start_delay",
    "turbokube.io/ready-delay": "ready_delay",
    "turbokube.io/stop-delay": "stop_delay",
    "turbokube.io/run-time": "run_time",
    "turbokube.io/failure-rate": "failure_rate",
}
_MOST_KNOWN = 4096  # combinations of annotations that are kept parsed
_AT_ONCE = Distribution("constant", 0.0)


class AnnotationError(ValueError):
    """An annotation that cannot be used: one sentence with its name, its value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a pod behaves. What is drawn depends on the seed, the pod's UID and what it is for, so that an engine that
    takes the pod over draws the same."""

    start_delay: Distribution
    ready_delay: Distribution
    stop_delay: Distribution
    run_time: Distribution | None  # None: for ever
    failure_rate: float
    seed: int

    @property
    def plain(self) -> bool:
        """Whether its containers are ready at once and run for ever."""
        return self.run_time is None and self.ready_delay == _AT_ONCE

    def until_started(self, uid: str) -> float:
        """Seconds from a pod's being bound to its containers' start."""
        return self._draw(self.start_delay, uid, "start")

    def until_ready(self, uid: str, restarts: int) -> float:
        """Seconds from a start to Ready, the same for all containers that have been restarted as often."""
        return self._draw(self.ready_delay, uid, f"ready/{restarts}")

    def until_stopped(self, uid: str) -> float:
        """Seconds that containers need to end on SIGTERM."""
        return self._draw(self.stop_delay, uid, "stop")

    def run(self, uid: str, container: str, restarts: int) -> tuple[float, int]:
        """Seconds that this run of a container lasts, and its exit code; infinite and 0 for one that does not end."""
        if self.run_time is None:
            return math.inf, 0
        seconds = self._draw(self.run_time, uid, f"run/{container}/{restarts}")
        failed = self.failure_rate and self._chance(uid, f"exit/{container}/{restarts}").random() < self.failure_rate
        return seconds, int(failed)

    def late(self, uid: str, container: str, restarts: int) -> float:
        """How late, from 0 to 1, a kubelet looks whether a back-off is over."""
        return self._chance(uid, f"late/{container}/{restarts}").random()

    def _draw(self, wanted: Distribution, uid: str, purpose: str) -> float:
        return wanted.a if wanted.kind == "constant" else wanted.draw(self._chance(uid, purpose))

    def _chance(self, uid: str, purpose: str) -> random.Random:
        return random.Random(f"{self.seed}/{uid}/{purpose}")


class Behaviours:
    """The fleet's behaviour, and what annotations make of it."""

    def __init__(self, spec: Spec) -> None:
        self.usual = Behaviour(
            parse(spec.start_delay),
            parse(spec.ready_delay),
            parse(spec.stop_delay),
            parse(spec.run_time) if spec.run_time else None,
            spec.failure_rate,
            spec.seed,
        )
        self._known: dict[tuple[str | None, ...], Behaviour] = {}

    def of(self, annotations: dict[str, str]) -> Behaviour:
        """Raises AnnotationError."""
        if ANNOTATIONS.keys().isdisjoint(annotations):
            return self.usual
        said = tuple(annotations.get(name) for name in ANNOTATIONS)
        if (found := self._known.get(said)) is None:
            changes = {
                field: _read(name, text)
                for (name, field), text in zip(ANNOTATIONS.items(), said, strict=True)
                if text is not None
            }
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[said] = replace(self.usual, **changes)
        return found

    def or_usual(self, annotations: dict[str, str]) -> Behaviour:
        """The same, of a pod that runs already: what cannot be used is as if it were not there."""
        try:
            return self.of(annotations)
        except AnnotationError:
            return self.usual


def _read(name: str, text: str) -> Any:
    """The value of one annotation."""
    field = ANNOTATIONS[name]
    try:
        if field == "failure_rate":
            if not 0 <= (rate := float(text)) <= 1:
                raise ValueError
            return rate
        return None if field == "run_time" and not text else parse(text)
    except ValueError:
        allowed = {"failure_rate": "0 to 1", "run_time": f"nothing, for a pod that does not end, or {ALLOWED}"}
        raise AnnotationError(f"annotation {name} is {text!r}; allowed is {allowed.get(field, ALLOWED)}") from None
