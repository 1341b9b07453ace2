#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vnode_fleet_info
version_added: 0.1.0
short_description: Tell how a fleet of virtual nodes is
description:
  - Asks the daemon that M(turbokube.scale.vnode_fleet) started on this host.
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
    description: Folder of the run's state, as it was given to M(turbokube.scale.vnode_fleet).
    type: path
    required: true
"""

EXAMPLES = r"""
- name: Ask the fleet
  turbokube.scale.vnode_fleet_info:
    state_dir: ~/.turbokube/trial
  register: fleet

- name: Every vnode is Ready
  ansible.builtin.assert:
    that: fleet.running and fleet.ready == fleet.wanted
"""

RETURN = r"""
running:
  description: Whether every process of the fleet is alive; when none is, nothing else is returned.
  returned: always
  type: bool
  sample: true
dead:
  description: The processes that should live and do not. All that follows is then of the others.
  returned: when running
  type: list
  elements: str
  sample: []
wanted:
  description: How many vnodes there are to be, in all processes.
  returned: when running
  type: int
  sample: 256
present:
  description: How many the daemon knows, those that are joining or leaving included.
  returned: when running
  type: int
  sample: 256
joined:
  description: How many have a Node and a Lease.
  returned: when running
  type: int
  sample: 256
ready:
  description: How many the control plane holds for Ready.
  returned: when running
  type: int
  sample: 256
synced:
  description: Whether the daemon has seen what an earlier one left.
  returned: when running
  type: bool
  sample: true
conflict:
  description: Why vnodes cannot join; empty when nothing is in the way.
  returned: when running
  type: str
  sample: ""
pods:
  description: How many pods are Pending, Running, Terminating and Succeeded.
  returned: when running
  type: dict
  sample: {Pending: 0, Running: 8192, Terminating: 0, Succeeded: 0}
renewals:
  description: Lease renewals that the API server accepted from this daemon.
  returned: when running
  type: int
  sample: 4711
renewal_errors:
  description: Tries to renew that were refused or not answered.
  returned: when running
  type: int
  sample: 0
lateness_p99:
  description: Seconds; 99 of 100 renewals were sent no later than this after they were due.
  returned: when running
  type: float
  sample: 0.025
oldest_renewal:
  description: Seconds since the renewal that is longest ago, of all vnodes.
  returned: when running
  type: float
  sample: 9.98
pod_starts:
  description: Pods that this daemon has taken to Running.
  returned: when running
  type: int
  sample: 8192
watch_restarts:
  description: Watches that were begun again.
  returned: when running
  type: int
  sample: 3
waiting:
  description: Requests that wait for their turn.
  returned: when running
  type: int
  sample: 0
pid:
  description: The daemon's process id.
  returned: when running, as one process
  type: int
  sample: 4711
metrics_url:
  description: Where the daemon tells of itself in Prometheus' text format, on loopback.
  returned: when running, as one process
  type: str
  sample: http://127.0.0.1:41613/metrics
pids:
  description: The process ids of those that live, in the order of their numbers.
  returned: when running
  type: list
  elements: int
  sample: [4711]
metrics_urls:
  description: Where those that live tell of themselves, in the same order.
  returned: when running
  type: list
  elements: str
  sample: [http://127.0.0.1:41613/metrics]
"""

import typing as t
from pathlib import Path

from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module


def main() -> t.NoReturn:
    module = library_module({"state_dir": {"type": "path", "required": True}}, supports_check_mode=True)
    with errors_as_failures(module):
        from turbokube.vnode import fleet

        module.exit_json(changed=False, **fleet.info(Path(module.params["state_dir"])))


if __name__ == "__main__":
    main()
