# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t
from types import SimpleNamespace

import pytest
from ansible_collections.turbokube.scale.plugins.plugin_utils import _progress


def run(results: list[dict[str, t.Any]], monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, t.Any], list[str]]:
    """Follow a module that gives these results; the task's result and what was displayed."""
    shown: list[str] = []
    waits: list[t.Any] = []

    def execute(module_args: dict[str, t.Any], task_vars: dict[str, t.Any]) -> dict[str, t.Any]:
        waits.append(module_args)
        return results.pop(0)

    monkeypatch.setattr(_progress, "Display", lambda: SimpleNamespace(display=shown.append))
    action = SimpleNamespace(_task=SimpleNamespace(args={"name": "x"}), _execute_module=execute)
    result = _progress.follow(t.cast("t.Any", action), {"inventory_hostname": "h"}, wait_for=2.0)
    assert all(arguments == {"name": "x", "wait_for": 2.0} for arguments in waits)
    return result, shown


def test_lines_are_shown_when_they_change_and_notes_once(monkeypatch: pytest.MonkeyPatch) -> None:
    result, shown = run(
        [
            {"changed": True, "finished": False, "progress_line": "1", "progress_notes": ["a"]},
            {"changed": False, "finished": False, "progress_line": "1", "progress_notes": ["a"]},
            {"changed": False, "finished": True, "progress_line": "2", "progress_notes": ["a", "b"], "got": 3},
        ],
        monkeypatch,
    )
    assert shown == [f"progress: [h] {text}" for text in ("a", "1", "b", "2")]
    assert result == {"changed": True, "got": 3}


def test_of_several_lines_those_that_changed_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = run(
        [
            {"changed": True, "finished": False, "progress_lines": ["a: 1", "b: 1"]},
            {"changed": True, "finished": False, "progress_lines": ["a: 1", "b: 2"]},
            {"changed": True, "finished": True, "progress_lines": ["a: 2", "b: 2"]},
        ],
        monkeypatch,
    )[1]
    assert shown == [f"progress: [h] {text}" for text in ("a: 1", "b: 1", "b: 2", "a: 2")]


def test_a_failure_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    result, shown = run([{"failed": True, "finished": False, "msg": "no"}], monkeypatch)
    assert result == {"failed": True, "msg": "no", "changed": False}
    assert shown == []
