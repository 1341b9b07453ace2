# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: may change without notice.

from __future__ import annotations

import typing as t

from ansible.utils.display import Display

if t.TYPE_CHECKING:
    from ansible.plugins.action import ActionBase


def follow(action: ActionBase, task_vars: dict[str, t.Any], *, wait_for: float = 8.0) -> dict[str, t.Any]:
    """Run the action's module again and again, each call at most `wait_for` seconds, until it has finished.

    The module takes an internal option `wait_for` (float, seconds), and returns `finished` (bool; absent means true),
    `progress_line` (str) or `progress_lines` (list of str), each displayed whenever it changes, and `progress_notes`
    (list of str), each displayed once.
    What it started outlives each call, so this works over every connection, and an interrupted playbook is taken up
    again by the next call. Failure ends it. `changed` is true when it was in any call; the internal values are not
    part of the result.
    """
    host = task_vars.get("inventory_hostname", "")
    lines: list[str] = []
    noted: set[str] = set()
    changed = False
    while True:
        result: dict[str, t.Any] = action._execute_module(
            module_args={**action._task.args, "wait_for": wait_for}, task_vars=task_vars
        )
        finished = result.pop("finished", True)
        said = [note for note in result.pop("progress_notes", []) if note not in noted]
        noted.update(said)
        now = [*result.pop("progress_lines", []), *filter(None, [result.pop("progress_line", "")])]
        said += [line for line in now if line not in lines]
        lines = now or lines
        for text in said:
            Display().display(f"progress: [{host}] {text}")
        changed = result["changed"] = changed or bool(result.get("changed"))
        if finished or result.get("failed") or result.get("unreachable") or result.get("skipped"):
            return result
