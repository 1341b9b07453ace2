#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: collect_run
version_added: 0.1.0
short_description: Keep what explains a run that went wrong
description:
  - Dumps the run's objects, the cluster's events, and the ends of the components' logs into a folder.
  - Of each kind at most 500 objects, and of each log the last 4 MiB. Secrets and ConfigMaps are never asked for.
  - What cannot be had, such as the objects of a cluster that is gone, is named; the rest goes on.
author:
  - TurboKube authors (@turbokube)
requirements:
  - turbokube
  - openshift-client
  - kubectl
extends_documentation_fragment:
  - turbokube.scale._attributes
  - turbokube.scale._target
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  idempotent:
    support: none
    details: Each time what is there at that moment is collected.
options:
  run:
    description: The run's name, the value of the label C(turbokube.io/run).
    type: str
    required: true
  state_dir:
    description: Folder of the run's state, whose folder C(log) is copied.
    type: path
    required: true
  dest:
    description: Folder to write to.
    type: path
    required: true
  kubectl:
    description: The kubectl to use.
    type: path
    default: kubectl
"""

EXAMPLES = r"""
- name: Keep what explains it
  turbokube.scale.collect_run:
    target: ~/.turbokube/trial/target.json
    state_dir: ~/.turbokube/trial
    run: trial
    dest: ~/runs/trial/collect
"""

RETURN = r"""
files:
  description: Names of the files that were written.
  returned: not in check mode
  type: list
  elements: str
  sample: [nodes.json, logs/kube-apiserver-0.log]
errors:
  description: What could not be had, and why.
  returned: not in check mode
  type: dict
  sample: {}
"""

import traceback
import typing as t
from pathlib import Path

from ansible.module_utils.basic import missing_required_lib
from ansible_collections.turbokube.scale.plugins.module_utils._arguments import (
    TARGET_ARGUMENTS,
    TARGET_RULES,
    target_of,
)
from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module

_ARGUMENTS: dict[str, t.Any] = {
    **TARGET_ARGUMENTS,
    "run": {"type": "str", "required": True},
    "state_dir": {"type": "path", "required": True},
    "dest": {"type": "path", "required": True},
    "kubectl": {"type": "path", "default": "kubectl"},
}


def main() -> t.NoReturn:
    module = library_module(_ARGUMENTS, supports_check_mode=True, **TARGET_RULES)
    wish = module.params
    try:
        from turbokube.collect.dump import collect
    except ImportError:
        module.fail_json(msg=missing_required_lib("openshift-client"), exception=traceback.format_exc())
    with errors_as_failures(module):
        if module.check_mode:
            module.exit_json(changed=True)
        done = collect(target_of(wish), wish["run"], Path(wish["state_dir"]), Path(wish["dest"]), wish["kubectl"])
        for name, why in done.errors.items():
            module.warn(f"{name} could not be collected: {why}")
        module.exit_json(changed=bool(done.files), files=done.files, errors=done.errors)


if __name__ == "__main__":
    main()
