# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turbokube.scale.plugins.modules import load_phase

from turbokube.agent import drive

BASE = {"kind": "create", "name": "base"}
BOTH = {"together": [{"kind": "roll", "of": "base"}, {"kind": "pause", "duration": 5}]}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """The module on a target that is not asked; `agent` answers in the agent's place."""
    monkeypatch.setattr(load_phase, "target_of", lambda wish: None)
    monkeypatch.setattr(drive, "check", lambda *_: None)

    def call(agent: Any = None, *, check_mode: bool = False, **options: Any) -> dict[str, Any]:
        monkeypatch.setattr(drive, "advance", lambda client, log, target, spec, group, wait: agent(group))
        common = {"target": "t", "state_dir": str(tmp_path), "bundle": str(tmp_path / "runs/r"), "run": "r"}
        arguments = {**common, **options, "_ansible_check_mode": check_mode}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            load_phase.main()
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    return call


def answer(group: Any, state: str, *, begun: bool) -> dict[str, Any]:
    progress = [{"phase": phase.name, "state": state, "note": "late" if state == "deadline" else ""} for phase in group]
    return {"begun": begun, "progress": progress, "lines": [f"{phase.name}: {state}" for phase in group]}


def test_check_mode_plans_every_phase(run: Any) -> None:
    result = run(check_mode=True, phases=[BASE, BOTH], namespaces=2, deployments=3, replicas=4)
    assert result["changed"]
    assert result["plan"] == [
        {"name": "base", "kind": "create", "namespaces": 2, "objects": 6, "accepted": 0, "pods": 24},
        {"name": "roll", "kind": "roll", "namespaces": 2},
        {"name": "pause", "kind": "pause", "namespaces": 2},
    ]
    (plan,) = run(check_mode=True, name="one", namespaces=2, deployments=3, replicas=4)["plan"]
    assert (plan["name"], plan["objects"]) == ("one", 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "state is present but any of the following are missing: name, phases"),
        ({"name": "x", "phases": [BASE]}, "parameters are mutually exclusive: name|phases"),
        ({"name": "x"}, "missing parameter(s) required by 'name': namespaces, deployments, replicas"),
        ({"phases": [BASE, {"kind": "roll", "of": "bas"}]}, "phases[1].of is bas, but it must be a create phase"),
        ({"name": "x", "namespaces": 0, "deployments": 1, "replicas": 1}, "namespaces is 0; it must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused(run: Any, options: dict[str, Any], message: str) -> None:
    result = run(check_mode=True, **options)
    assert result["failed"]
    assert result["msg"].startswith(message)


def test_one_group_after_the_other_is_begun(run: Any) -> None:
    asked: list[list[str]] = []

    def agent(group: Any) -> dict[str, Any]:
        asked.append([phase.name for phase in group])
        return answer(group, "done", begun="base" not in asked[-1])  # the first has ended before

    result = run(agent, phases=[BASE, BOTH, {"kind": "scrape"}])
    assert asked == [["base"], ["roll", "pause"]]
    assert (result["changed"], result["finished"]) == (True, False)
    assert result["progress_lines"] == ["base: done", "roll: done", "pause: done"]


def test_when_all_have_ended_nothing_changes_and_a_missed_deadline_is_told(run: Any) -> None:
    states = {"base": "deadline", "scrape": "done"}
    result = run(lambda group: answer(group, states[group[0].name], begun=False), phases=[BASE, {"kind": "scrape"}])
    assert (result["changed"], result["finished"]) == (False, True)
    assert (result["phase_state"], result["note"]) == ("deadline", "base: late")


def test_a_phase_that_was_stopped_fails_the_module(run: Any) -> None:
    result = run(lambda group: answer(group, "stopped", begun=True), phases=[BASE])
    assert result["failed"]
    assert result["msg"] == "phase base of run r was stopped: "


def test_after_a_phase_that_a_guard_stopped_none_begins(run: Any) -> None:
    asked: list[str] = []

    def agent(group: Any) -> dict[str, Any]:
        asked.append(group[0].name)
        found = answer(group, "stopped", begun=False)
        found["progress"][0] |= {"note": "the store is full", "guard": "store"}
        return found

    result = run(agent, phases=[BASE, {"kind": "scrape"}])
    assert asked == ["base"]
    assert (result["finished"], result["phase_state"], result["note"]) == (True, "stopped", "the store is full")
