# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: component_command
version_added: 0.1.0
short_description: The command line of a static pod, as a process runs it
description:
  - Takes the command of the first container of a pod, as C(kubeadm init phase control-plane) and
    C(kubeadm init phase etcd) render it, and gives the arguments that a process of the same component is started with.
author:
  - TurboKube authors (@turbokube)
positional: binary, overrides
options:
  _input:
    description: The pod.
    type: dict
    required: true
  binary:
    description: Path of the executable, which takes the place of the command's first word.
    type: str
    required: true
  overrides:
    description:
      - Flag without its dashes to value.
      - A flag that the pod has takes the value, in its place; another is added; one with the value V(null) is left out.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Show how a scheduler is started
  ansible.builtin.debug:
    msg: >-
      {{ lookup('ansible.builtin.file', 'kube-scheduler.yaml') | from_yaml
         | turbokube.scale.component_command('/usr/local/bin/kube-scheduler', {'secure-port': 20259}) }}
"""

RETURN = r"""
_value:
  description: The executable and its arguments.
  type: list
  elements: str
"""

import typing as t

from ansible.errors import AnsibleFilterError


def component_command(pod: dict[str, t.Any], binary: str, overrides: dict[str, t.Any] | None = None) -> list[str]:
    """The command of a pod's first container with another executable and some flags overridden."""
    try:
        words = list(pod["spec"]["containers"][0]["command"])[1:]
    except (KeyError, IndexError, TypeError) as error:
        raise AnsibleFilterError(
            f"component_command takes a pod that has a container with a command: no {error}"
        ) from None
    left = {str(flag): value for flag, value in (overrides or {}).items()}
    command, seen = [str(binary)], set()
    for word in words:
        flag = str(word).removeprefix("--").partition("=")[0]
        if flag not in left:
            command.append(str(word))
        elif flag not in seen and left[flag] is not None:
            command.append(f"--{flag}={_text(left[flag])}")
        seen.add(flag)
    command += [f"--{flag}={_text(value)}" for flag, value in left.items() if flag not in seen and value is not None]
    return command


def _text(value: t.Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"component_command": component_command}
