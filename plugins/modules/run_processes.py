#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_processes
version_added: 0.1.0
short_description: List or stop every process of a run
description:
  - Finds the processes of a run by the mark E(TURBOKUBE_STATE) in their environment,
    whoever started them and whatever became of their supervisor.
  - With O(state=absent) it stops them, those that talk before those that are talked to, by SIGTERM and in the end
    SIGKILL, and removes the run's sockets.
author:
  - TurboKube authors (@turbokube)
requirements:
  - turbokube
extends_documentation_fragment:
  - turbokube.scale._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  state_dir:
    description: Folder of the run's state. It need not exist.
    type: path
    required: true
  state:
    description: V(listed) only looks; V(absent) stops what it finds.
    type: str
    choices: [listed, absent]
    default: listed
  patience:
    description:
      - Seconds that a process has between SIGTERM and SIGKILL.
      - An API server has 3 at most, since it keeps no state.
    type: float
    default: 20
"""

EXAMPLES = r"""
- name: Stop all that is left of a run
  turbokube.scale.run_processes:
    state_dir: /home/me/.turbokube/trial
    state: absent
"""

RETURN = r"""
stopped:
  description: Names and ids of the processes that were stopped, or in check mode would be, in order.
  returned: always
  type: list
  elements: dict
  sample: [{name: supervisord, pid: 4242}, {name: kube-apiserver-0, pid: 4711}]
left:
  description: Names and ids of the processes that run still.
  returned: always
  type: list
  elements: dict
  sample: []
listening:
  description: The run's recorded ports that somebody listens on still, by name, with the listener.
  returned: always
  type: dict
  sample: {}
"""

import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module


def main() -> t.NoReturn:
    module = library_module(
        {
            "state_dir": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["listed", "absent"], "default": "listed"},
            "patience": {"type": "float", "default": 20},
        },
        supports_check_mode=True,
    )
    with errors_as_failures(module):
        module.exit_json(**_apply(module))


def _apply(module: AnsibleModule) -> dict[str, t.Any]:
    from turbokube import supervise

    state = Path(module.params["state_dir"])
    absent, sockets = module.params["state"] == "absent", []
    if absent and not module.check_mode:
        stopped, left = supervise.stop_all(state, patience=module.params["patience"])
        sockets = supervise.remove_sockets(state)
    else:
        left = supervise.processes(state)
        stopped = left if absent else []
    held = {name: supervise.listening(port) for name, port in supervise.recorded_ports(state).items()}
    return {
        "changed": bool(stopped or sockets),
        "stopped": [{"name": one.name, "pid": one.pid} for one in stopped],
        "left": [{"name": one.name, "pid": one.pid} for one in left],
        "listening": {name: holder for name, holder in held.items() if holder},
    }


if __name__ == "__main__":
    main()
