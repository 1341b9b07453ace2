#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: digitalocean_hosts
short_description: Hosts that are droplets of DigitalOcean, with all that they need
version_added: 0.1.0
description:
  - Makes droplets by groups, a VPC, firewalls, an SSH key, an autoscale pool, and a load balancer inside the VPC. Each
    carries the tag C(turbokube-<name>) or is named after it, and is found by that again.
  - Before anything is bought it is counted what it costs; what exceeds the budget or the account's limit is refused.
  - An interrupted run is taken up by the next, or removed. A request whose answer is lost is never repeated blindly.
  - V(absent) removes whatever carries the name, whoever made it, and looks through the account for what is left.
author:
  - TurboKube authors (@turbokube)
requirements:
  - turbokube
  - pydo
extends_documentation_fragment:
  - turbokube.scale._attributes
attributes:
  check_mode:
    support: full
    details:
      - Plan, cost and what stands against it are returned, and nothing fails.
  diff_mode:
    support: none
  idempotent:
    support: full
options:
  name:
    description: What the hosts are known by. Hosts of different names do not meet; each need a O(network) of their own.
    type: str
    required: true
  state:
    description: V(present) is exactly these hosts, all up; V(absent) is nothing of this name.
    type: str
    choices: [present, absent]
    default: present
  folder:
    description: Where it is kept what was bought; it outlives what it tells of.
    type: path
    required: true
  token:
    description: The account's token; it may read and write all that is made here.
    type: str
    required: true
  endpoint:
    description: Address of the API, which speaks TLS; DigitalOcean's own if it is empty.
    type: str
    default: ""
  region:
    description: Where everything is.
    type: str
    default: sfo3
  image:
    description: Image of all droplets.
    type: str
    default: ubuntu-24-04-x64
  network:
    description: Range of the VPC's addresses, /16 to /28; no other VPC of the account may overlap it.
    type: str
    default: 10.0.0.0/16
  groups:
    description:
      - Group to C(count) and C(size). With C(most) it is an autoscale pool of C(count) to C(most) droplets, which grows
        at C(memory_utilization). C(also) are other groups that its hosts are in.
    type: dict
    default: {}
  ssh_from:
    description: Ranges of addresses that may come in by SSH. The whole world is refused.
    type: list
    elements: str
    default: []
  ssh_group:
    description: The group whose hosts SSH is open to; the way to the others goes through its first.
    type: str
    default: admin
  public_key:
    description: The SSH key that root is let in by.
    type: str
  user_data:
    description: What cloud-init is given.
    type: str
    default: ""
  load_balancer:
    description: C(group), C(port), C(type), C(nodes) and C(usd_per_hour) of a node; none if it is empty.
    type: dict
    default: {}
  hours:
    description: How long it is meant to be there.
    type: float
    default: 4
  budget_usd:
    description: What all of it may cost in O(hours), with what was spent so far.
    type: float
    default: 0
  timeout:
    description: Seconds that droplets may take to come up, or everything to go.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Make three hosts
  turbokube.scale.digitalocean_hosts:
    name: trial
    folder: /home/me/.local/state/turbokube/digitalocean/trial
    token: "{{ lookup('ansible.builtin.env', 'DIGITALOCEAN_ACCESS_TOKEN') }}"
    groups:
      etcd: {count: 1, size: g-4vcpu-16gb-intel}
      control_plane: {count: 1, size: g-4vcpu-16gb-intel}
      admin: {count: 1, size: s-2vcpu-4gb}
    ssh_from: [203.0.113.7/32]
    public_key: "{{ lookup('ansible.builtin.file', 'id_ed25519.pub') }}"
    budget_usd: 5

- name: Remove them
  turbokube.scale.digitalocean_hosts:
    name: trial
    state: absent
    folder: /home/me/.local/state/turbokube/digitalocean/trial
    token: "{{ lookup('ansible.builtin.env', 'DIGITALOCEAN_ACCESS_TOKEN') }}"
"""

RETURN = r"""
plan:
  description: What is wanted and its cost, as lines of a table.
  returned: when O(state=present)
  type: list
  elements: str
problems:
  description: What stands against it, a sentence each. Outside check mode it is a failure.
  returned: when O(state=present)
  type: list
  elements: str
usd:
  description: What all hours cost, pools at their most.
  returned: when O(state=present)
  type: float
  sample: 13.1
made:
  description: What was made, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: [droplet etcd-0]
removed:
  description: What was removed, or in check mode would be.
  returned: success
  type: list
  elements: str
  sample: []
hosts:
  description: The droplets that are up, each with C(name), C(groups), C(private), C(public), C(size), C(usd_per_hour).
  returned: when O(state=present)
  type: list
  elements: dict
machines:
  description: What they are and cost by groups, as C(turbokube_machines) has it; pools at what there is of them.
  returned: when O(state=present)
  type: list
  elements: dict
address:
  description: The load balancer's, inside the VPC; empty without one.
  returned: when O(state=present)
  type: str
  sample: 10.0.0.12
left:
  description: What there is still, and why.
  returned: when O(state=absent)
  type: list
  elements: str
  sample: []
looked_at:
  description: The kinds of things that were looked through for O(ignore:left).
  returned: when O(state=absent)
  type: list
  elements: str
bill:
  description: What was bought under the name and what it cost, as lines of a table.
  returned: success
  type: list
  elements: str
"""

import collections
import dataclasses
import pathlib
import time
import typing as t

from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module

if t.TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

    from turbokube.cloud.bill import Bill
    from turbokube.cloud.digitalocean import Cloud
    from turbokube.cloud.plan import Wanted


def wanted_of(params: dict[str, t.Any]) -> Wanted:
    """The plan that a module's parameters say."""
    from turbokube.cloud.plan import Balancer, Group, Wanted, tag_of

    tag_of(params["name"])
    try:
        groups = tuple(
            Group(name=name, **{**settings, "also": tuple(settings.get("also", ()))})
            for name, settings in params["groups"].items()
        )
        balancer = Balancer(**params["load_balancer"]) if params["load_balancer"] else None
    except TypeError as error:
        raise ValueError(f"groups or load_balancer: {str(error).partition(') ')[2] or error}") from None
    plain = ("name", "region", "image", "network", "ssh_group", "user_data", "hours", "budget_usd")
    values = {name: params[name] for name in plain}
    return Wanted(ssh_from=tuple(params["ssh_from"]), groups=groups, balancer=balancer, **values)


def present(module: AnsibleModule, cloud: Cloud, wanted: Wanted, bill: Bill) -> dict[str, t.Any]:
    """Exactly the hosts that are wanted."""
    from turbokube.cloud.held import held, hosts, look
    from turbokube.cloud.plan import machines, make_plan
    from turbokube.cloud.provision import Provision

    there = held(cloud, wanted.tag, ("droplet",))
    now = time.time()
    spent = bill.usd(now) if bill.runs else 0.0
    market = look(cloud)
    plan = make_plan(wanted, market, len(there), spent, bill.hours(now))
    told = {"plan": plan.lines, "problems": plan.problems, "usd": round(plan.usd, 4)}
    if module.check_mode:
        names = {thing.name for thing in there}
        made = [f"droplet {host}" for group in wanted.groups for host in group.hosts if host not in names]
        return {**told, "changed": bool(made), "made": made, "removed": [], "hosts": [], "machines": [], "address": ""}
    if plan.problems:
        module.fail_json(msg=" ".join(plan.problems), **told)
    bill.begin(now)
    done = Provision(cloud, wanted, module.params["public_key"], bill, module.params["timeout"]).run()
    found = [dataclasses.asdict(host) for host in hosts(cloud, wanted.tag)]
    changes = {"changed": bool(done.made or done.removed), "made": done.made, "removed": done.removed}
    in_groups = collections.Counter(group for host in found for group in host["groups"])
    paid = machines(wanted, market, in_groups)
    return {**told, **changes, "hosts": found, "machines": paid, "address": done.endpoint}


def absent(module: AnsibleModule, cloud: Cloud, wanted: Wanted, bill: Bill) -> dict[str, t.Any]:
    """Nothing of the name."""
    from turbokube.cloud.held import ORDER, held
    from turbokube.cloud.remove import remove

    if module.check_mode:
        there = [thing.words for thing in held(cloud, wanted.tag)]
        return {"changed": bool(there), "made": [], "removed": there, "left": there, "looked_at": list(ORDER)}
    done = remove(cloud, wanted.tag, bill, module.params["timeout"], wanted)
    told = {"changed": bool(done.removed), "made": [], "removed": done.removed, "left": done.left}
    return {**told, "looked_at": list(done.kinds)}


def main() -> t.NoReturn:
    """Bring the account into its state."""
    module = library_module(
        {
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "folder": {"type": "path", "required": True},
            "token": {"type": "str", "required": True, "no_log": True},
            "endpoint": {"type": "str", "default": ""},
            "region": {"type": "str", "default": "sfo3"},
            "image": {"type": "str", "default": "ubuntu-24-04-x64"},
            "network": {"type": "str", "default": "10.0.0.0/16"},
            "groups": {"type": "dict", "default": {}},
            "ssh_from": {"type": "list", "elements": "str", "default": []},
            "ssh_group": {"type": "str", "default": "admin"},
            "public_key": {"type": "str", "no_log": False},
            "user_data": {"type": "str", "default": ""},
            "load_balancer": {"type": "dict", "default": {}},
            "hours": {"type": "float", "default": 4},
            "budget_usd": {"type": "float", "default": 0},
            "timeout": {"type": "int", "default": 600},
        },
        required_if=[("state", "present", ("groups", "public_key"))],
        supports_check_mode=True,
    )
    with errors_as_failures(module):
        from turbokube.cloud.bill import Bill
        from turbokube.cloud.digitalocean import Cloud

        wanted = wanted_of(module.params)
        bill = Bill(pathlib.Path(module.params["folder"]) / "bill.json")
        cloud = Cloud(module.params["token"], module.params["endpoint"])
        act = present if module.params["state"] == "present" else absent
        result = act(module, cloud, wanted, bill)
        module.exit_json(**result, bill=bill.lines(time.time()) if bill.purchases else [])


if __name__ == "__main__":
    main()
