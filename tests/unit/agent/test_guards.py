"""Each guard on both sides of its threshold, switched off, and what a trip makes of the phases."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from turbokube.agent.guards import Guards
from turbokube.predict import machine
from turbokube.profile.schema import variables

GIB = 2**30
PLENTY = 100 * GIB


class Scrapes:
    """Says what it was told to."""

    def __init__(self, size: float = 0.0, quota: float | None = 8 * GIB, silent: float = 0.0) -> None:
        self._values = {"etcd_mvcc_db_total_size_in_bytes": size, "etcd_server_quota_backend_bytes": quota}
        self._silent = silent

    def latest(self, metric: str) -> dict[str, float]:
        value = self._values[metric]
        return {} if value is None else {"etcd-0": value}

    def silent(self, kind: str) -> float:
        assert kind == "kube-apiserver"
        return self._silent


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine with as much memory and disk free as it says."""
    left = SimpleNamespace(memory=PLENTY, disk=PLENTY)
    monkeypatch.setattr(machine, "available_memory", lambda: left.memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=left.disk))
    return left


def trip(
    profile: dict[str, Any] | None = None, nodes: tuple[int, int] = (100, 100), **scrapes: Any
) -> tuple[str, bool, str] | None:
    guards = Guards.of(profile or {}, (Path("/state"),), Scrapes(**scrapes), lambda: nodes)
    found = guards.look()
    return None if found is None else (found.name, found.ours, found.words)


def test_nothing_trips_where_all_is_well() -> None:
    assert trip() is None
    assert trip(nodes=(0, 0)) is None


def test_the_store() -> None:
    assert trip(size=0.94 * 8 * GIB) is None
    name, ours, words = trip(size=0.95 * 8 * GIB) or ("", True, "")
    assert (name, ours) == ("store", False)
    assert words == "etcd-0 nears its quota: 7,782 MiB of 8,192 MiB, 95% (turbokube_guard_store is 0.95)"
    assert trip({"turbokube_guard_store": 0.5}, size=5 * GIB)
    assert trip({"turbokube_guard_store": 0}, size=9 * GIB) is None
    assert trip(size=9 * GIB, quota=None) is None  # kine has none
    assert trip(size=9 * GIB, quota=0.0) is None


def test_the_api_server() -> None:
    assert trip(silent=300.0) is None
    words = "no API server has answered for 301 s (turbokube_guard_outage_s is 300)"
    assert trip(silent=301.0) == ("outage", False, words)
    assert trip({"turbokube_guard_outage_s": 5}, silent=6.0)
    assert trip({"turbokube_guard_outage_s": 0}, silent=1e6) is None


def test_vnodes() -> None:
    assert trip(nodes=(100, 45)) is None
    words = "56 of 100 vnodes are NotReady (more than a share of 0.55)"
    assert trip(nodes=(100, 44)) == ("notready", False, words)
    assert trip({"turbokube_guard_notready": 0}, nodes=(100, 0)) is None


def test_vnodes_that_faults_take_are_not_missed() -> None:
    faults = {"turbokube_faults": [{"after": 5, "share": 0.2, "action": "silence"}]}
    assert trip(faults, nodes=(100, 30)) is None
    assert trip(faults, nodes=(100, 24))
    faults["turbokube_faults"].append({"after": 5, "share": 0.3, "action": "not_ready"})
    assert trip(faults, nodes=(100, 0)) is None


def test_memory(room: SimpleNamespace) -> None:
    room.memory = 256 * 2**20
    assert trip() is None
    room.memory -= 1
    name, ours, words = trip() or ("", False, "")
    assert (name, ours, words.endswith("less than 256 MiB")) == ("memory", True, True)
    assert trip({"turbokube_guard_memory": "1Mi"}) is None
    assert trip({"turbokube_guard_memory": ""}) is None


def test_disk(room: SimpleNamespace) -> None:
    room.disk = 256 * 2**20
    assert trip() is None
    room.disk = 2**20
    assert trip() == ("disk", True, "1 MiB are free at /state, less than 256 MiB")
    assert trip({"turbokube_guard_disk": ""}) is None


def test_what_runs_out_here_is_told_first(room: SimpleNamespace) -> None:
    room.memory = 0
    assert (trip(silent=1000.0, nodes=(100, 0)) or ("",))[0] == "memory"


def test_every_threshold_and_price_is_a_variable_that_may_change_when_a_run_is_gone_on_with() -> None:
    from turbokube.bundle.runs import same_profile

    names = [name for name in variables() if name.startswith("turbokube_guard_")]
    assert len(names) == 5
    same_profile("r", {}, dict.fromkeys([*names, "turbokube_machines", "turbokube_price_core_hour_usd"], 1))
