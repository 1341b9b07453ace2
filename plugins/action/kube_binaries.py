# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.turbokube.scale.plugins.plugin_utils._progress import follow


class ActionModule(ActionBase):
    """Shows the progress of the module of the same name: one line every ten seconds."""

    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Follow the module to its end."""
        return {**super().run(tmp, task_vars), **follow(self, task_vars or {}, wait_for=10.0)}
