# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: component_environment
version_added: 0.1.0
short_description: The environment of a static pod, as a process has it
description:
  - Takes the variables that the first container of a pod is given and makes a dictionary of them.
author:
  - TurboKube authors (@turbokube)
options:
  _input:
    description: The pod.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the environment of a scheduler
  ansible.builtin.debug:
    msg: >-
      {{ lookup('ansible.builtin.file', 'kube-scheduler.yaml') | from_yaml
         | turbokube.scale.component_environment }}
"""

RETURN = r"""
_value:
  description: Variable to value.
  type: dict
"""

import typing as t


def component_environment(pod: dict[str, t.Any]) -> dict[str, str]:
    """The literal variables of a pod's first container."""
    variables = pod["spec"]["containers"][0].get("env") or []
    return {str(one["name"]): str(one["value"]) for one in variables if "value" in one}


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"component_environment": component_environment}
