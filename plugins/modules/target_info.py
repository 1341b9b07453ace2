#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: target_info
version_added: 0.1.0
short_description: What a Kubernetes cluster is and holds
description:
  - Asks the cluster's API server for its version, its Nodes, and how many pods, Nodes and node Leases there are.
  - Changes nothing.
author:
  - TurboKube authors (@turbokube)
requirements:
  - turbokube
extends_documentation_fragment:
  - turbokube.scale._attributes
  - turbokube.scale._target
attributes:
  check_mode:
    support: full
  diff_mode:
    support: N/A
  idempotent:
    support: full
options:
  run:
    description: The run whose Nodes are not foreign; they carry it as the label C(turbokube.io/run).
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Look at the cluster before it is loaded
  turbokube.scale.target_info:
    kubeconfig: ~/.kube/config
  register: cluster

- name: Load only what is ours
  ansible.builtin.assert:
    that: cluster.nodes.foreign == 0
"""

RETURN = r"""
version:
  description: Version of the API server.
  returned: success
  type: str
  sample: v1.36.3
servers:
  description: How many API servers requests are spread over.
  returned: success
  type: int
  sample: 1
nodes:
  description: How many Nodes there are, are Ready, are the run's own, and are foreign.
  returned: success
  type: dict
  sample: {"total": 256, "ready": 256, "own": 256, "foreign": 0}
foreign_nodes:
  description: Names of the first ten foreign Nodes.
  returned: success
  type: list
  elements: str
  sample: []
counts:
  description: How many objects there are, whosever they are.
  returned: success
  type: dict
  sample: {"pods": 8192, "nodes": 256, "leases": 256}
"""

import asyncio
import typing as t

from ansible_collections.turbokube.scale.plugins.module_utils._arguments import (
    TARGET_ARGUMENTS,
    TARGET_RULES,
    target_of,
)
from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module


def main() -> t.NoReturn:
    module = library_module(
        {**TARGET_ARGUMENTS, "run": {"type": "str", "default": ""}}, supports_check_mode=True, **TARGET_RULES
    )
    with errors_as_failures(module):
        from turbokube.measure.census import census

        module.exit_json(changed=False, **asyncio.run(census(target_of(module.params), module.params["run"])))


if __name__ == "__main__":
    main()
