#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: local_ports
version_added: 0.1.0
short_description: Choose free loopback ports for a run, once
description:
  - Gives each name a TCP port on 127.0.0.1 that nobody listens on and records it in C(ports.json) of the run's state.
  - A recorded port is kept as long as nothing but the run listens on it.
  - Free ports are taken from below the range that the kernel gives to outgoing connections,
    so that no client can be in the way by the time when the server binds its port.
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
    support: full
  idempotent:
    support: full
options:
  state_dir:
    description: Folder of the run's state; it is made, for its owner only, when there is none.
    type: path
    required: true
  ports:
    description:
      - Name to port.
      - V(0) is any free port; another is taken as it is,
        and refused when something that is not of this run listens on it.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Choose ports for an API server and its store
  turbokube.scale.local_ports:
    state_dir: /home/me/.turbokube/trial
    ports:
      kube-apiserver-0: 6443
      etcd-0-client: 0
  register: chosen
"""

RETURN = r"""
ports:
  description: Every port that the run has recorded, by name.
  returned: always
  type: dict
  sample: {kube-apiserver-0: 6443, etcd-0-client: 21379}
"""

import json
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module


def main() -> t.NoReturn:
    module = library_module(
        {
            "state_dir": {"type": "path", "required": True},
            "ports": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    with errors_as_failures(module):
        module.exit_json(**_apply(module))


def _apply(module: AnsibleModule) -> dict[str, t.Any]:
    from turbokube.supervise import choose_ports

    wanted = {name: _port(name, value) for name, value in module.params["ports"].items()}
    chosen = choose_ports(Path(module.params["state_dir"]), wanted, write=not module.check_mode)
    return {
        "changed": chosen.changed,
        "ports": chosen.after,
        "diff": {"before": _text(chosen.before), "after": _text(chosen.after)},
    }


def _port(name: str, value: t.Any) -> int:
    if not str(value).isdecimal() or not 0 <= int(value) <= 65535:
        raise ValueError(f"port {value!r}, asked for {name}: a number from 1 to 65535 is allowed, or 0 for a free port")
    return int(value)


def _text(ports: dict[str, int]) -> str:
    return json.dumps(ports, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    main()
