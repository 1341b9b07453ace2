#!/usr/bin/python

# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lab_hosts
short_description: Hosts of systemd-nspawn on one Linux machine
version_added: 0.1.0
description:
  - Boots hosts that share a template's file system, each with systemd, a network namespace and cgroups of its own,
    on a bridge in a network namespace that has no way out.
  - Everything is named after the lab, so that what an interrupted play left is found again.
  - It needs root and ansible-core alone, not the Python library turbokube.
author:
  - TurboKube authors (@turbokube)
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
  name:
    description: The lab; labs of different names do not meet, and may have the same addresses.
    type: str
    default: lab
  folder:
    description: Where labs are kept, each in a folder of its name. Not on an overlay.
    type: path
    required: true
  state:
    description:
      - V(present) is a lab with exactly these hosts, all running. A host that was killed gets its disk back.
      - V(killed) ends every process of these hosts at once, as a power cut would.
      - V(absent) is no lab of this name, whoever raised it.
    type: str
    choices: [present, killed, absent]
    default: present
  hosts:
    description: Name to address.
    type: dict
    default: {}
  network:
    description: The network of the addresses; its first address is the bridge's.
    type: str
    default: 198.51.100.0/24
  template:
    description: The root file system that hosts start with. It is not written to.
    type: path
  authorized_key:
    description: The public key by which root is let in.
    type: str
  binds:
    description: Folders of the machine that hosts can read, as C(source:place).
    type: list
    elements: str
    default: []
  inotify_instances:
    description:
      - Raise fs.inotify.max_user_instances to so many when it is lower; V(0) leaves it.
      - It is the machine's, and all hosts share it; a node of Kubernetes takes 13.
    type: int
    default: 0
"""

EXAMPLES = r"""
- name: Raise two hosts
  turbokube.scale.lab_hosts:
    folder: /root/.cache/turbokube/lab
    template: /root/.cache/turbokube/lab/template/bookworm
    authorized_key: "{{ lookup('ansible.builtin.file', 'id_ed25519.pub') }}"
    hosts:
      etcd-0: 198.51.100.11
      control-plane-0: 198.51.100.21

- name: Cut one off from power
  turbokube.scale.lab_hosts:
    folder: /root/.cache/turbokube/lab
    state: killed
    hosts:
      etcd-0: 198.51.100.11
"""

RETURN = r"""
raised:
  description: The hosts that were started, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [etcd-0]
removed:
  description: The hosts that were killed or removed, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: []
left:
  description: Cgroups, network namespaces, mounts and folders of the lab that are there still.
  returned: when O(state=absent)
  type: list
  elements: str
  sample: []
"""

import os
import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turbokube.scale.plugins.module_utils._lab import Lab, LabError, raise_inotify


def checked(module: AnsibleModule) -> Lab:
    """The lab of the module's parameters; fails for what cannot be."""
    params = module.params
    for name in (params["name"], *params["hosts"]):
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?", name):
            module.fail_json(msg=f"{name!r} is no name of a lab or a host: lower-case letters, digits, and - within")
    try:
        lab = Lab(params["name"], params["folder"], params["network"])
        usable = {str(address) for address in lab.network.hosts()} - {lab.gateway}
    except ValueError as error:
        module.fail_json(msg=str(error))
    addresses = list(params["hosts"].values())
    for host, address in params["hosts"].items():
        if address not in usable or addresses.count(address) > 1:
            module.fail_json(msg=f"{host} has the address {address}, which another has or {params['network']} has not")
    if os.geteuid() and not module.check_mode:
        module.fail_json(msg="A lab needs root, for namespaces, mounts and cgroups.")
    return lab


def present(module: AnsibleModule, lab: Lab) -> dict[str, t.Any]:
    """Exactly the hosts that are wanted, all running."""
    params = module.params
    wanted = {host: str(address) for host, address in params["hosts"].items()}
    removed = sorted(lab.known() - set(wanted))
    raised = [host for host in wanted if not lab.running(host)]
    changed = bool(removed or raised)
    if not module.check_mode:
        changed |= bool(params["inotify_instances"]) and raise_inotify(params["inotify_instances"])
        for host in removed:
            lab.raze_host(host)
        lab.raise_network()
        for host in raised:
            lab.raise_host(host, wanted, params["template"], params["authorized_key"], params["binds"])
    return {"changed": changed, "raised": raised, "removed": removed}


def killed(module: AnsibleModule, lab: Lab) -> dict[str, t.Any]:
    """None of the hosts running."""
    removed = [host for host in module.params["hosts"] if lab.running(host)]
    if not module.check_mode:
        for host in module.params["hosts"]:
            lab.kill(host)
    return {"changed": bool(removed), "raised": [], "removed": removed}


def absent(module: AnsibleModule, lab: Lab) -> dict[str, t.Any]:
    """Nothing of the lab."""
    removed, before = sorted(lab.known()), lab.left()
    if not module.check_mode:
        lab.raze()
    return {"changed": bool(before), "raised": [], "removed": removed, "left": lab.left()}


def main() -> t.NoReturn:
    """Bring the lab into its state."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "default": "lab"},
            "folder": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "killed", "absent"], "default": "present"},
            "hosts": {"type": "dict", "default": {}},
            "network": {"type": "str", "default": "198.51.100.0/24"},
            "template": {"type": "path"},
            "authorized_key": {"type": "str", "no_log": False},
            "binds": {"type": "list", "elements": "str", "default": []},
            "inotify_instances": {"type": "int", "default": 0},
        },
        required_if=[("state", "present", ("template", "authorized_key", "hosts"))],
        supports_check_mode=True,
    )
    lab = checked(module)
    try:
        result = {"present": present, "killed": killed, "absent": absent}[module.params["state"]](module, lab)
    except (OSError, LabError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
