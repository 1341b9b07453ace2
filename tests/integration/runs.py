"""A run on the session's control plane, driven as load_phase drives it, on a fleet of three namespaces."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.control_plane import ControlPlane
from turbokube.agent import drive
from turbokube.agent.client import AgentClient
from turbokube.api.target import load_target
from turbokube.bundle.reader import Reader
from turbokube.daemon import process
from turbokube.load.remove import remove
from turbokube.measure import verdict
from turbokube.measure.facts import Facts, limits_of
from turbokube.measure.series import Metrics
from turbokube.measure.verdict import Verdict
from turbokube.profile.phases import Create, ObjectSet, Phase
from turbokube.vnode import fleet
from turbokube.vnode.spec import Spec

RUN = "loadtest"
VNODES = 24  # of three namespaces
SPEC = Spec(run=RUN, count=VNODES)


class Run:
    """One run on the plane, as load_phase drives it."""

    def __init__(self, plane: ControlPlane, folder: Path, metrics_url: str) -> None:
        self.plane = plane
        self.target = load_target(plane.target)
        self.state = plane.state
        self.bundle = folder / RUN
        self.spec: dict[str, Any] = {
            "profile": {"turbokube_namespaces": 2},
            "scrape_interval": 2.0,
            "extra_components": [{"name": "fleet", "kind": "fleet", "url": metrics_url.removesuffix("/metrics")}],
        }
        self.client = self.driver("me")

    def driver(self, name: str) -> AgentClient:
        return AgentClient(self.state, self.bundle, name)

    def phase(self, deployments: int = 2, replicas: int = 3, **changes: Any) -> Create:
        sets = (ObjectSet(name="turbokube", count=deployments, replicas=replicas),)
        return Create(**{"run": RUN, "name": "create", "namespaces": 2, "deadline": 120.0, "objects": sets, **changes})

    def advance(self, *phases: Phase, wait: float = 0.5) -> Any:
        """What one call of the module does: `progress` and `line` are the first phase's, `all` everyone's progress."""
        log = self.state / "log" / "agent.log"
        answer = drive.advance(self.client, log, self.target, self.spec, phases, wait)
        progress = answer["progress"]
        return {"begun": answer["begun"], "progress": progress[0], "line": answer["lines"][0], "all": progress}

    def to_the_end(self, *phases: Phase, until: Callable[[dict[str, Any]], bool] = lambda progress: False) -> Any:
        """Follow phases until all have ended or `until` holds for the first."""
        end, begun = time.monotonic() + 150, False
        while True:
            answer = self.advance(*phases)
            begun = answer["begun"] = begun or answer["begun"]
            if all(one["state"] != "running" for one in answer["all"]) or until(answer["progress"]):
                return answer
            assert time.monotonic() < end, answer["line"]

    def finish(self) -> bool:
        """End the record; whether that was still to be done."""
        return drive.finish(self.client, self.target, self.bundle, self.spec, RUN)

    def judged(self) -> tuple[Facts, Verdict]:
        """What the record is found to be."""
        with Reader(self.bundle) as reader:
            limits = limits_of(reader.meta())
            facts = verdict.gather(reader, Metrics(reader), limits)
            return facts, verdict.judge(facts, limits)

    def pods(self) -> dict[str, str]:
        """uid → name of every pod of the run, as the API tells."""
        found = json.loads(self.plane.kubectl("get", "pods", "-A", "-l", f"turbokube.io/run={RUN}", "-o", "json"))
        return {item["metadata"]["uid"]: item["metadata"]["name"] for item in found["items"]}

    def query(self, sql: str) -> list[Any]:
        with Reader(self.bundle) as reader:
            return [tuple(row) for row in reader.query(sql)]

    def kill(self, name: str) -> None:
        victim = process.find(self.state, name)
        assert victim is not None, name
        os.kill(victim.pid, signal.SIGKILL)


# conftest.py makes both known to all tests


@pytest.fixture(scope="module")
def loaded_fleet(plane: ControlPlane) -> Iterator[str]:
    target = load_target(plane.target)
    yield str(fleet.present(lambda: target, plane.state, SPEC, timeout=120).metrics_url)
    fleet.absent(target, plane.state, SPEC, timeout=120)


@pytest.fixture
def run(plane: ControlPlane, loaded_fleet: str, tmp_path: Path) -> Iterator[Run]:
    run = Run(plane, tmp_path, loaded_fleet)
    yield run
    process.stop([each for each in process.marked(run.state) if each.name == "agent"])
    left = asyncio.run(remove(run.target, RUN, 120.0))
    assert (left["namespaces"], left["pods"]) == (0, 0)
