"""What every phase of load shares: the run's label, and the error that is for the user."""

from __future__ import annotations

from turbokube.profile import phases
from turbokube.profile.phase_rules import check

RUN_LABEL = "turbokube.io/run"
SEGMENT_LABEL = "turbokube.io/segment"  # of pods, where several load generators share a phase
Phase = phases.Phase


class LoadError(ValueError):
    """A phase that cannot be run as asked. The message is one sentence for the user."""


class LateError(LoadError):
    """A phase that others carry out, who were not done in their time."""


def checked(phase: Phase) -> Phase:
    """Itself; raises LoadError that names the option, its value and what is allowed."""
    if problems := check(phase):
        raise LoadError(problems[0])
    return phase
