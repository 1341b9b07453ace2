# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import socket
import typing as t

from ansible.plugins.action import ActionBase
from ansible_collections.turbokube.scale.plugins.plugin_utils._progress import follow


class ActionModule(ActionBase):
    """Follows the phase that the module of the same name began, and shows how far it is."""

    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Call the module until the phase has ended; between two calls only the agent is at work."""
        result = super().run(tmp, task_vars)
        # one name per ansible-playbook: the agent takes orders from one at a time
        self._task.args.setdefault("controller", f"{socket.gethostname()}/{os.getppid()}")
        return {**result, **follow(self, task_vars or {})}
