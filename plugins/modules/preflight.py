#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
version_added: 0.1.0
short_description: Check settings, and the machine that is to carry them, before a run
description:
  - Checks every C(turbokube_*) variable that is set against the schema;
    a name that the schema does not have is refused with the nearest that it has.
  - Says which run this is (a new one, an interrupted one, or the next of a finished one's name) and what will be made.
  - Predicts what the profile asks of the machine where the module runs (processor, memory, store, disk, open files)
    and what will bind first. The prediction rests on costs that were measured beforehand.
  - Changes nothing; a file without a name is written to see how long the disk takes to sync.
author:
  - TurboKube authors (@turbokube)
requirements:
  - Python >= 3.11
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
  settings:
    description:
      - All C(turbokube_*) variables that are set, by their full names. Those that are missing have their defaults.
      - With C(turbokube_preflight=warn), and in check mode, what the machine cannot carry is a warning.
    type: dict
    required: true
  home:
    description: Folder that holds C(.turbokube/) and C(runs/).
    type: path
    required: true
  components:
    description:
      - How many of each kind of component this machine runs.
        Kinds are V(etcd), V(kube-apiserver), V(kube-controller-manager), V(kube-scheduler), V(fleet) and V(agent).
      - One of each by default. Extra schedulers are counted by the module.
    type: dict
"""

EXAMPLES = r"""
- name: See whether this machine carries 128 namespaces
  turbokube.scale.preflight:
    home: /home/me/turbokube
    settings:
      turbokube_profile: trial
      turbokube_namespaces: 128
  register: found

- name: See what 3 members of etcd and 2 API servers would make of it
  turbokube.scale.preflight:
    home: /home/me/turbokube
    settings:
      turbokube_namespaces: 1024
      turbokube_preflight: warn
    components:
      etcd: 3
      kube-apiserver: 2
      kube-controller-manager: 1
      kube-scheduler: 1
      fleet: 1
      agent: 1
"""

RETURN = r"""
run:
  description: Name of the run.
  returned: when the settings are valid
  type: str
  sample: quickstart-2
run_state:
  description: V(new), or V(unfinished) for one that goes on.
  returned: when the settings are valid
  type: str
  sample: new
state_dir:
  description: Folder of the run's state.
  returned: when the settings are valid
  type: str
  sample: /home/me/turbokube/.turbokube/quickstart-2
bundle:
  description: Folder of the run's record.
  returned: when the settings are valid
  type: str
  sample: /home/me/turbokube/runs/quickstart-2
profile:
  description: Every variable with its value, converted to its type.
  returned: when the settings are valid
  type: dict
  sample: {turbokube_namespaces: 32}
load_groups:
  description: API groups of what the phases create, to which the load needs rights.
  returned: when the settings are valid
  type: list
  elements: str
  sample: [apps]
phases:
  description: The items of C(turbokube_phases), with what C(turbokube_phases_override) replaces in them.
  returned: when the settings are valid
  type: list
  elements: dict
  sample: [{kind: create, name: base}]
plan:
  description: What will be made, in lines.
  returned: always
  type: list
  elements: str
  sample: ["fleet: 256 vnodes, 8 for each of 32 namespaces"]
prediction:
  description: What it will take, in lines.
  returned: always
  type: list
  elements: str
  sample: ["memory: 1.2 GiB of 22.0 GiB available"]
problems:
  description: Why the run cannot begin, in sentences.
  returned: always
  type: list
  elements: str
  sample: ["turbokube_namespaces is -1, but it must be a whole number from 1 to 65536"]
"""

import sys
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module

ARGUMENTS: dict[str, t.Any] = {
    "settings": {"type": "dict", "required": True},
    "home": {"type": "path", "required": True},
    "components": {"type": "dict"},
}


def old_python(version: tuple[int, ...]) -> str:
    """A sentence if this Python is too old for the library."""
    if version[:2] >= (3, 11):
        return ""
    return (
        f"{sys.executable} is Python {'.'.join(map(str, version[:3]))}, but TurboKube needs 3.11 or newer on the hosts "
        "that run its fleet and load; set ansible_python_interpreter to one"
    )


def main() -> t.NoReturn:
    problem = old_python(tuple(sys.version_info[:3]))
    if problem:  # before the library is missed, which an old Python cannot have
        module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
        module.fail_json(msg=problem, plan=[], prediction=[], problems=[problem])
    module = library_module(ARGUMENTS, supports_check_mode=True)
    with errors_as_failures(module):
        from turbokube.predict.preflight import preflight
        from turbokube.profile.phase_input import override

        found = preflight(module.params["settings"], Path(module.params["home"]), module.params["components"])
        result: dict[str, t.Any] = {"plan": found.plan, "prediction": found.forecast}
        problems = list(found.problems)
        if found.profile is not None:
            result.update(
                run=found.run,
                run_state=found.run_state,
                state_dir=found.state_dir,
                bundle=found.bundle,
                profile=found.profile.settings(),
                load_groups=found.load_groups,
                phases=override(found.profile.phases, found.profile.phases_override),
            )
            if found.profile.preflight == "warn" or module.check_mode:
                found.warnings += found.refusals
            else:
                problems += found.refusals
    for warning in found.warnings:
        module.warn(warning)
    if problems:
        module.fail_json(msg="\n".join(problems), problems=problems, **result)
    module.exit_json(changed=False, problems=[], **result)


if __name__ == "__main__":
    main()
