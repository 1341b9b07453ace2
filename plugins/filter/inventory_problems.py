# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: inventory_problems
version_added: 0.1.0
short_description: What an inventory's groups and settings cannot be together
description:
  - Compares the sizes of groups, the ranges of addresses and the sizes of nodes with what a run needs of them, by
    arithmetic alone.
author:
  - TurboKube authors (@turbokube)
positional: settings
options:
  _input:
    description: Group to the names of its hosts.
    type: dict
    required: true
  settings:
    description:
      - C(namespaces), C(vnodes_per_namespace), C(pods), C(vnode_pods), C(nodes) (beside vnodes), C(pod_subnet),
        C(service_subnet), C(node_cidr_mask), C(networks) (host to address), C(store), C(endpoint), C(workers),
        C(vnodes_per_worker), C(worker_memory_mib), C(vnode_memory_mib). One that is left out is not looked at.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Fail with all that is wrong at once
  ansible.builtin.assert:
    that: problems | length == 0
    fail_msg: "{{ problems | join('\n') }}"
  vars:
    problems: "{{ groups | turbokube.scale.inventory_problems(settings) }}"
    settings: {pod_subnet: 10.0.0.0/16, node_cidr_mask: 24, nodes: 300}
"""

RETURN = r"""
_value:
  description: A sentence for each problem, with the number that would do.
  type: list
  elements: str
"""

import ipaddress
import typing as t

from ansible.errors import AnsibleFilterError

Groups = dict[str, list[str]]
Settings = dict[str, t.Any]

# Kubernetes' own words on large clusters, and the original's measured limit of vnodes as pods of one worker
MOST_ETCD = 7
MOST_VNODES_PER_WORKER = 400
# the largest range of private addresses (RFC 1918), and the smallest range that has addresses of pods
LARGEST_SUBNET = 8
MOST_NODE_MASK = 30
# groups that have no host in common
APART = (
    ("etcd", "fleet"),
    ("control_plane", "fleet"),
    ("control_plane", "load_balancer"),
    ("control_plane", "controller_manager"),
)


def inventory_problems(groups: Groups, settings: Settings) -> list[str]:
    """What is wrong, a sentence each."""
    try:
        return [
            *_sizes(groups, settings),
            *_addresses(settings),
            *_ranges(settings),
            *_pods(settings),
            *_workers(groups, settings),
        ]
    except ValueError as error:
        raise AnsibleFilterError(f"inventory_problems: {error}") from None


def _sizes(groups: Groups, settings: Settings) -> t.Iterator[str]:
    servers = len(groups.get("control_plane", []))
    group = "etcd" if groups.get("etcd") else "control_plane"  # whose hosts are members, by stacking in the latter
    members = len(groups.get(group, []))
    hosts = "hosts" if group == "etcd" else "hosts, each with a member of etcd since group etcd is empty"
    if not servers:
        yield "Group control_plane is empty: it takes at least one host, which runs an API server."
    if settings.get("store", "etcd") == "etcd" and members and members % 2 == 0:
        yield (
            f"Group {group} has {members} {hosts}: with an even number the loss of {members // 2} stops the store, "
            f"as it does with {members - 1}. Take {members - 1} or {members + 1}."
        )
    if members > MOST_ETCD:
        yield f"Group {group} has {members} {hosts}: every write waits for most. Take 3 or 5, {MOST_ETCD} at most."
    if servers > 1 and not groups.get("load_balancer") and not settings.get("endpoint"):
        yield (
            f"Group control_plane has {servers} hosts and nothing stands before them: name a host in group "
            "load_balancer, or a cloud's load balancer in control_plane_endpoint. Clients know one address."
        )
    stacked = set(groups.get("etcd", [])) & set(groups.get("control_plane", []))
    if stacked and stacked != set(groups["control_plane"]):
        yield f"Hosts {_list(stacked)} are in etcd and in control_plane, others are not: all of them, or none."
    for one, other in APART:
        if both := set(groups.get(one, [])) & set(groups.get(other, [])):
            yield f"Hosts {_list(both)} are in {one} and in {other}: they would share CPU and ports."


def _addresses(settings: Settings) -> t.Iterator[str]:
    seen: dict[str, str] = {}
    for host, address in settings.get("networks", {}).items():
        if address in seen:
            yield f"Hosts {seen[address]} and {host} have the same address {address}."
        seen[address] = host
    ranges = {
        name: ipaddress.ip_network(settings[name]) for name in ("pod_subnet", "service_subnet") if settings.get(name)
    }
    if len(ranges) == 2 and ranges["pod_subnet"].overlaps(ranges["service_subnet"]):
        yield f"Pods' addresses {ranges['pod_subnet']} and services' {ranges['service_subnet']} overlap."
    for address, host in seen.items():
        for name, network in ranges.items():
            if _is_address(address) and ipaddress.ip_address(address) in network:
                yield f"Host {host} has the address {address}, which lies in {name} {network}."


def _ranges(settings: Settings) -> t.Iterator[str]:
    if not settings.get("pod_subnet") or "node_cidr_mask" not in settings:
        return
    subnet, mask = ipaddress.ip_network(settings["pod_subnet"]), int(settings["node_cidr_mask"])
    nodes = _vnodes(settings) + int(settings.get("nodes", 0))
    if mask < subnet.prefixlen:
        yield f"A node's range /{mask} is larger than all pods' addresses {subnet}."
        return
    blocks = 1 << (mask - subnet.prefixlen)
    if nodes > blocks:
        bits = (nodes - 1).bit_length()
        fixes = [f"a pod_subnet of /{mask - bits}"] if mask - bits >= LARGEST_SUBNET else []
        fixes += [f"a node_cidr_mask of {subnet.prefixlen + bits}"] if subnet.prefixlen + bits <= MOST_NODE_MASK else []
        fix = " or ".join(fixes) or "fewer vnodes"
        yield f"{subnet} holds {blocks} ranges of /{mask}, and there will be {nodes} nodes: take {fix}."
    per_node = int(settings.get("vnode_pods", 0))
    usable = (1 << (subnet.max_prefixlen - mask)) - 2
    if settings.get("addresses_by_range") and per_node > usable:
        yield f"A node's range of /{mask} has {usable} addresses, and a node takes {per_node} pods."


def _pods(settings: Settings) -> t.Iterator[str]:
    vnodes, pods, most = _vnodes(settings), int(settings.get("pods", 0)), int(settings.get("vnode_pods", 0))
    if vnodes and most and pods > vnodes * most:
        least = -(-pods // most)
        yield f"{pods} pods do not fit on {vnodes} vnodes of {most} pods each: take {least} vnodes, or more pods each."


def _workers(groups: Groups, settings: Settings) -> t.Iterator[str]:
    """Vnodes that are pods of a fleet cluster's workers."""
    workers, vnodes = len(groups.get("worker", [])), _vnodes(settings)
    per_worker = int(settings.get("vnodes_per_worker", 0))
    if not per_worker:
        return
    if per_worker > MOST_VNODES_PER_WORKER:
        yield f"{per_worker} vnodes a worker are more than the {MOST_VNODES_PER_WORKER} that one carries."
    if vnodes > workers * per_worker:
        yield f"{vnodes} vnodes do not fit on {workers} workers of {per_worker}: take {-(-vnodes // per_worker)}."
    have, need = int(settings.get("worker_memory_mib", 0)), per_worker * int(settings.get("vnode_memory_mib", 0))
    if have and need > have:
        yield f"{per_worker} vnodes take {need} MiB, and a worker has {have} MiB."


def _vnodes(settings: Settings) -> int:
    return int(settings.get("namespaces", 0)) * int(settings.get("vnodes_per_namespace", 0))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _list(hosts: set[str]) -> str:
    return ", ".join(sorted(hosts))


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        return {"inventory_problems": inventory_problems}
