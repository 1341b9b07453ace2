#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: supervised_process
version_added: 0.1.0
short_description: Keep a process of a run running, with supervisord
description:
  - Starts a process under the run's own C(supervisord), which needs no root and brings the process back when it dies,
    and waits until the process is healthy.
  - A process that ends while it is waited for fails the task at once, with the last lines of its log,
    and is not tried again.
  - The process carries E(TURBOKUBE_STATE) and E(TURBOKUBE_COMPONENT) in its environment, by which
    M(turbokube.scale.run_processes) finds it whoever restarted it.
author:
  - TurboKube authors (@turbokube)
requirements:
  - turbokube
  - supervisor
extends_documentation_fragment:
  - turbokube.scale._attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: partial
    details:
      - O(state=restarted) restarts the process each time.
options:
  name:
    description: Name of the process in its run, in lower-case letters, digits and dashes.
    type: str
    required: true
  state_dir:
    description:
      - Folder of the run's state.
      - Its folder C(supervisor) holds the configuration, C(log/<name>.log) what the process writes.
    type: path
    required: true
  state:
    description:
      - V(present) keeps the process running as described, and restarts it when its command or its environment differ.
      - V(restarted) restarts it in any case.
      - V(absent) stops and forgets it.
    type: str
    choices: [present, restarted, absent]
    default: present
  command:
    description: Path of the executable and its arguments. Required unless O(state=absent).
    type: list
    elements: str
  environment:
    description: Variables of the environment. Of the user's own only a few, such as E(PATH) and E(HOME), are passed on.
    type: dict
    default: {}
  directory:
    description: Working folder. Default is the folder of supervisord's configuration.
    type: path
  health:
    description: How to tell that the process does its work. Without it, one second of life is enough.
    type: dict
    suboptions:
      url:
        description: What to GET. The scheme is C(http), C(https), or C(tcp), where a connection is enough.
        type: str
        required: true
      status:
        description: The status that means healthy; the body of the answer does not matter.
        type: int
        default: 200
      ca_file:
        description: Certificates to verify the server by; the file may appear after the start.
        type: path
      certificate_file:
        description: Client certificate.
        type: path
      key_file:
        description: Key of O(health.certificate_file).
        type: path
  wait:
    description: Whether to wait until the process is healthy.
    type: bool
    default: true
  timeout:
    description: Seconds to wait at most.
    type: float
    default: 120
"""

EXAMPLES = r"""
- name: Keep a key-value store running
  turbokube.scale.supervised_process:
    name: etcd-0
    state_dir: /home/me/.turbokube/trial
    command:
      - /usr/local/bin/etcd
      - --data-dir=/home/me/.turbokube/trial/etcd/etcd-0
    environment:
      GOGC: "200"
    health:
      url: http://127.0.0.1:2379/health

- name: Stop it
  turbokube.scale.supervised_process:
    name: etcd-0
    state_dir: /home/me/.turbokube/trial
    state: absent
"""

RETURN = r"""
pid:
  description: The process' id; V(0) when it does not run.
  returned: always
  type: int
  sample: 4711
log:
  description: Where it writes.
  returned: always
  type: str
  sample: /home/me/.turbokube/trial/log/etcd-0.log
"""

import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module

_HEALTH = {
    "url": {"type": "str", "required": True},
    "status": {"type": "int", "default": 200},
    "ca_file": {"type": "path"},
    "certificate_file": {"type": "path"},
    "key_file": {"type": "path"},
}


def main() -> t.NoReturn:
    module = library_module(
        {
            "name": {"type": "str", "required": True},
            "state_dir": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "restarted", "absent"], "default": "present"},
            "command": {"type": "list", "elements": "str"},
            "environment": {"type": "dict", "default": {}},
            "directory": {"type": "path"},
            "health": {"type": "dict", "options": _HEALTH},
            "wait": {"type": "bool", "default": True},
            "timeout": {"type": "float", "default": 120},
        },
        supports_check_mode=True,
        required_if=[("state", "present", ["command"]), ("state", "restarted", ["command"])],
    )
    with errors_as_failures(module):
        module.exit_json(**_apply(module))


def _apply(module: AnsibleModule) -> dict[str, t.Any]:
    from turbokube.supervise import Health, Program, Supervisor

    params, name = module.params, module.params["name"]
    supervisor = Supervisor(Path(params["state_dir"]))
    before = supervisor.current(name)
    if params["state"] == "absent":
        after, changed = "", bool(before) if module.check_mode else supervisor.remove(name)
    else:
        environment = {key: str(value) for key, value in params["environment"].items()}
        program = Program(name, params["command"], environment, params["directory"])
        after, restart = program.script(), params["state"] == "restarted"
        if module.check_mode:
            changed = supervisor.would_change(program, restart=restart)
        else:
            changed = supervisor.keep(program, restart=restart)
            if params["wait"]:
                health = Health(**params["health"]) if params["health"] else None
                supervisor.wait(name, health, timeout=params["timeout"])
    return {
        "changed": changed,
        "pid": supervisor.info(name)["pid"],
        "log": str(supervisor.state / "log" / f"{name}.log"),
        "diff": {"before": before, "after": after, "before_header": name, "after_header": name},
    }


if __name__ == "__main__":
    main()
