"""What an agent, and a segment of its load, are told of a run, and what a segment says of itself."""

from __future__ import annotations

from typing import Any

import msgspec

from turbokube.api.target import Component, Target
from turbokube.profile.phases import Create
from turbokube.workload.job import LoadJob


class RunSpec(msgspec.Struct, kw_only=True):
    """What a run is: the same each time that its agent is started."""

    run: str
    profile: dict[str, Any] = {}
    target: Target
    scrape_interval: float = 15.0
    extra_components: list[Component] = []
    segment: str = ""  # of whose pods this agent is the witness, where several share a run
    job: LoadJob | None = None  # the pods that fire the load and watch its pods in this agent's place


class Told(msgspec.Struct, kw_only=True):
    """What all segments of a phase are told. `word`: what makes them begin."""

    spec: RunSpec
    phase: Create
    segments: int
    word: str


class Said(msgspec.Struct, kw_only=True):
    """What a segment says of itself; `state` is waiting, begun, running, or what its phase ended as."""

    state: str
    note: str = ""
    now: float = 0.0
    created: int = 0
    scheduled: int = 0
    running: int = 0


class Begin(msgspec.Struct, kw_only=True):
    """When a segment begins (wall clock) and how long it may take (seconds)."""

    at: float
    deadline: float
