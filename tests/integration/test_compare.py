"""Three small runs of a real control plane side by side: what differs is told, and what one run alone cannot tell."""

from __future__ import annotations

import asyncio
import json
import statistics
from pathlib import Path

import pytest

from tests.integration.control_plane import ControlPlane
from tests.integration.runs import RUN, Run
from turbokube.load.remove import remove
from turbokube.report import compare


def test_two_runs_and_a_third_with_more_replicas(plane: ControlPlane, loaded_fleet: str, tmp_path: Path) -> None:
    folders = []
    for name, replicas in (("a", 3), ("a-2", 3), ("b", 6)):
        run = Run(plane, tmp_path / name, loaded_fleet)
        run.spec["profile"] = {"turbokube_namespaces": 2, "turbokube_replicas": replicas}
        assert run.to_the_end(run.phase(replicas=replicas))["progress"]["state"] == "done"
        run.finish()
        asyncio.run(remove(run.target, RUN, 120.0))
        folders.append(run.bundle.rename(tmp_path / f"run-{name}"))

    *repeats, other = folders
    written = compare.write({"three": repeats, "six": [other]}, tmp_path / "out")
    assert "profile turbokube_replicas: three 3, six 6" in written.differences
    assert any(words.startswith("six has one run: ") for words in written.warnings)
    content = json.loads(written.paths["compare.json"].read_text())
    differing = {row["name"] for row in content["settings"] if row["differs"]}
    assert "turbokube_replicas" in differing <= {"turbokube_replicas", "measured"}  # so short a run may not tell
    rows = {row["name"]: row["groups"] for row in content["indicators"]}
    assert (rows["pods-running"]["three"]["values"], rows["pods-running"]["six"]["values"]) == ([12, 12], [24])
    assert rows["pods-running"]["six"]["outcome"] == "unknown"
    rates = rows["pods-per-second"]["three"]
    assert rates["deviation"] == pytest.approx(statistics.stdev(rates["values"]))
    assert {"cpu-kube-apiserver", "lag-loop", "startup-intended → seen running-p99"} <= rows.keys()
    page = written.paths["compare.html"].read_text()
    assert page.index("turbokube_replicas") < page.index("Pods that ran")
    assert compare.write({"three": repeats, "six": [other]}, tmp_path / "out").changed == ()
