#!/usr/bin/python
# Copyright (c) 2026, TurboKube authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: vnode_fleet
version_added: 0.1.0
short_description: Join virtual nodes to a Kubernetes cluster, or remove them
description:
  - Runs a daemon on the host that this module is applied to. To the cluster's API servers it is a number of kubelets.
    They register Nodes, renew Leases, report status, take the pods that are bound to them to Running
    and end those that are deleted.
  - A daemon that is alive is steered; one that died is started again and takes over its nodes and pods.
  - All that it makes carries the label C(turbokube.io/run), and nothing without the run's label is ever deleted.
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
    support: full
  idempotent:
    support: full
options:
  state:
    description:
      - V(present) has O(count) vnodes joined and the daemon running.
      - V(absent) removes the run's Nodes and Leases and ends the daemon. Pods on them are the cluster's to collect.
    type: str
    choices: [present, absent]
    default: present
  state_dir:
    description:
      - Folder of the run's state; the daemon keeps its own in C(fleet) and its log in C(log/fleet.log).
    type: path
    required: true
  run:
    description: The run's name, the value of the label C(turbokube.io/run).
    type: str
    required: true
  count:
    description:
      - How many vnodes there are to be, from V(0) to V(100000). Required when O(state=present).
      - A living fleet grows and shrinks at its end; vnodes with the highest numbers leave.
    type: int
  name_prefix:
    description: What the vnodes' names begin with; a number of five digits follows.
    type: str
    default: vnode-
  placement:
    description:
      - V(namespace) taints vnodes with C(turbokube.io/namespace), whose value is the number of the namespace in
        four hexadecimal digits, so that only that namespace's pods are placed on them.
      - V(cluster) taints all with C(turbokube.io/vnode=true).
    type: str
    choices: [namespace, cluster]
    default: namespace
  vnodes_per_namespace:
    description: How many vnodes in a row belong to one namespace, with O(placement=namespace).
    type: int
    default: 8
  lease_interval:
    description: Seconds between two renewals of a vnode's lease; less than O(lease_duration).
    type: float
    default: 10
  lease_duration:
    description: Seconds that a lease is good for, as it says of itself.
    type: int
    default: 40
  status_interval:
    description: Seconds between two reports of a vnode's status while nothing changes.
    type: float
    default: 300
  start_delay:
    description:
      - Seconds from a pod's being bound to its Running.
      - Or a distribution, C(uniform(least,most)), C(exponential(mean)) or C(lognormal(mu,sigma)).
    type: str
    default: "0"
  ready_delay:
    description: Seconds from a container's start until it is ready, or a distribution as in O(start_delay).
    type: str
    default: "0"
  run_time:
    description:
      - Seconds that a container runs before it ends, or a distribution as in O(start_delay); empty for one that runs
        until its pod is deleted.
      - What follows is the pod's C(restartPolicy) to say. Jobs complete, and containers that are restarted wait as a
        kubelet lets them, 10 seconds at first and twice as long each time up to 5 minutes.
    type: str
    default: ""
  failure_rate:
    description: The share, from V(0) to V(1), of containers' ends after their O(run_time) that are failures.
    type: float
    default: 0
  seed:
    description:
      - What decides, with a pod's UID, all that is drawn, and which vnodes O(faults) befall.
      - In a pod's template the annotations C(turbokube.io/start-delay), C(turbokube.io/ready-delay),
        C(turbokube.io/run-time), C(turbokube.io/stop-delay) and C(turbokube.io/failure-rate) take the options' places.
    type: int
    default: 0
  faults:
    description: What befalls a share of the vnodes; O(engine=builtin) only.
    type: list
    elements: dict
    default: []
    suboptions:
      after:
        description: Seconds since every vnode had joined and was Ready.
        type: float
        required: true
      share:
        description: Share of the vnodes, from V(0) to V(1).
        type: float
        required: true
      action:
        description:
          - V(silence) is a machine that is cut off, neither renewing its lease nor reporting, nor ending pods.
          - V(not_ready) is a node whose network plugin is not ready; it says so and starts no pods.
          - V(disappear) is a machine that is gone; its Node is deleted, and made anew when it is back.
        type: str
        choices: [silence, not_ready, disappear]
        required: true
      duration:
        description: Seconds that it lasts; V(0) is for good.
        type: float
        default: 0
  stop_delay:
    description:
      - Seconds that a deleted pod's containers take to end; V(0) is the time of containers that end on SIGTERM.
      - A pod's own grace period is never exceeded. A distribution as in O(start_delay) serves as well.
    type: str
    default: "0"
  capacity:
    description: What each vnode offers to the scheduler.
    type: dict
    default: {}
    suboptions:
      cpu:
        description: Cores, as a quantity.
        type: str
        default: "2"
      memory:
        description: Memory, as a quantity.
        type: str
        default: 64Gi
      pods:
        description: Number of pods.
        type: int
        default: 1024
  connections:
    description:
      - How many requests about nodes and pods are under way at once, from V(2) to V(256), each on a connection.
      - There are two more connections for watches, and up to 64 for leases, opened when the API server is slow.
    type: int
    default: 8
  processes:
    description:
      - How many engine processes share the fleet, from V(1) to V(64). Vnode C(i) is that of process C(i % processes).
      - With V(1) the process is C(fleet), with more C(fleet-0), C(fleet-1) and so on, each with a folder and a log of
        its name in O(state_dir). O(connections) are shared out among them.
      - One process is bound by one core. At O(fidelity=lease) each process watches all pods, so that every pod costs
        the API server and the host more with each process; take no more than the load needs.
      - A process that died is started again alone. Another number ends all processes and starts as many anew, which
        take over the vnodes and their pods.
    type: int
    default: 1
  engine:
    description:
      - What runs the vnodes.
      - V(builtin) is the daemon itself. With the others it starts O(binary) and sees to it that there are Nodes, that
        what ends is started again, and that nothing is left in the end. What an engine cannot do is refused.
      - V(kwok) has one controller for 10,000 vnodes, with stages of this collection, at O(fidelity=lease).
      - V(kubemark) has a process per vnode, with the kubelet's own code, at O(fidelity=kubelet); at O(fidelity=node)
        two.
      - V(virtual_kubelet) has a process per vnode, with the mock provider, at O(fidelity=lease).
    type: str
    choices: [builtin, kwok, kubemark, virtual_kubelet]
    default: builtin
  binary:
    description: Path of the binary of an engine other than V(builtin), which is required for them.
    type: path
    default: ""
  hosts:
    description:
      - On how many hosts the fleet is, from V(1) to V(1024), each with O(processes) processes. This module is applied
        to all of them, with the same options but O(host), and each has its share of the vnodes.
      - Processes are numbered over all hosts, in turns. Process C(fleet-3) of two hosts is the second one of host V(1).
      - The counts that the module returns are those of its host.
    type: int
    default: 1
  host:
    description: Which of the O(hosts) this is, from V(0).
    type: int
    default: 0
  manager:
    description:
      - What keeps the processes of O(engine=builtin).
      - With V(process) nobody does; one that died is started again by the next task.
      - With V(systemd) each is a service of the host, which needs root. It is back when it has ended and when the host
        has, with its vnodes. What it starts with, a credential among it, stays in O(state_dir), for root only.
      - With V(stateful_set) each is a pod of O(stateful_set), on the workers of another cluster.
    type: str
    choices: [process, systemd, stateful_set]
    default: process
  stateful_set:
    description:
      - The pods that carry the vnodes at O(manager=stateful_set), which it is required for, with O(fidelity=lease).
      - All is in a namespace of the run's own, the fleet's credential in a Secret. A pod is Ready while its vnodes are
        Ready in the target. Pods on workers that are gone are let go of.
    type: dict
    suboptions:
      kubeconfig:
        description: Path of a kubeconfig of the cluster whose workers carry the pods, as its administrator.
        type: path
        required: true
      context:
        description: The context of it; its current one by default.
        type: str
      namespace:
        description:
          - The pods' namespace; C(turbokube-<run>) by default.
          - It is made and removed, or used and left where it was there before.
        type: str
      image:
        description: The image, as module M(turbokube.scale.library_image) makes it. Required with O(state=present).
        type: str
      image_pull_policy:
        description: Whether workers ask a registry for it.
        type: str
        choices: [Always, IfNotPresent, Never]
        default: IfNotPresent
      image_pull_secret:
        description: Name of a Secret in O(stateful_set.namespace) that opens the registry.
        type: str
        default: ""
      vnodes_per_pod:
        description:
          - How many vnodes a pod has; O(count) is a multiple of it. Pod C(fleet-2) has the third so many.
          - A pod costs its worker 30 MiB before its first vnode, and each watches all pods of the target.
        type: int
        default: 128
      pods_per_vnode:
        description: How many of the target's pods a vnode is expected to have, for the memory that a pod requests.
        type: float
        default: 32
      cpu:
        description: The CPU that a pod requests; by default what its vnodes were measured to take.
        type: str
        default: ""
      memory:
        description: The memory that a pod requests; by default what its vnodes were measured to take.
        type: str
        default: ""
      node_selector:
        description: Labels of the workers.
        type: dict
        default: {}
      tolerations:
        description: What of the workers' taints the pods tolerate, as a pod's C(spec.tolerations).
        type: list
        elements: dict
        default: []
  metrics_address:
    description: The host's address on which the processes tell of themselves, over HTTP, to everybody who can reach it.
    type: str
    default: 127.0.0.1
  metrics_port:
    description: The port for that of the first process, one more for each; V(0) is any free one.
    type: int
    default: 0
  fidelity:
    description:
      - How much of a real node's traffic a vnode makes.
      - With V(lease) it registers a Node, renews its Lease, reports its status and takes pods to Running. All vnodes
        share an identity, a few connections and two watches.
      - With V(kubelet) each vnode is C(system:node:<name>) with a certificate of its own, one HTTP/2 connection, a
        kubelet's watches on it, its jitter, its Events, and a Node of a real size. It takes one open file and 0.1 MB a
        vnode; when the limit of open files does not suffice, nothing is started.
      - With V(node) each vnode also has a kube-proxy's connection and watches, as C(system:kube-proxy). It takes two
        open files and 0.2 MB a vnode.
    type: str
    choices: [lease, kubelet, node]
    default: lease
  join:
    description:
      - How vnodes get their certificates at O(fidelity=kubelet) and O(fidelity=node).
      - With V(certificate) they are signed with the CA of the run, whose key is in O(state_dir).
      - With V(csr) each vnode asks the cluster for its own with a bootstrap token, as C(kubeadm join) has it; the token
        and its permissions are made by the target's administrator and removed afterwards.
    type: str
    choices: [certificate, csr]
    default: certificate
  images:
    description:
      - How many container images each Node lists at O(fidelity=kubelet) and O(fidelity=node), from V(0) to V(500).
        They are most of a Node's size, some 200 bytes each; a kubelet lists 50 at most by default.
    type: int
    default: 50
  serve:
    description:
      - Whether each vnode has a kubelet's server side, over TLS, for clients that the API server knows and allows.
      - It answers /healthz, /metrics, /metrics/resource, /stats/summary, /pods and /containerLogs; what needs a
        process, such as /exec, is refused.
      - Vnodes are then told apart by their InternalIPs, which are on loopback unless O(node_ip_range) says otherwise.
    type: bool
    default: false
  serve_port:
    description: The port of every vnode's kubelet, with O(processes) that of the first process, and one more for each.
    type: int
    default: 10250
  node_ip_range:
    description:
      - An IPv4 CIDR with 256 addresses more than vnodes, which the InternalIPs are taken from.
      - Empty is 127.16.0.0/12 with O(serve=true), else 172.16.0.0/12, where nobody listens.
      - With O(serve=true), other addresses than those of loopback must be routed to the host and local to it
        (C(ip route add local 172.16.0.0/12 dev lo)); no other address of the host is served.
    type: str
    default: ""
  pod_cpu_usage:
    description:
      - The CPU that the metrics show of a pod, as a quantity or as C(uniform(least,most)) or C(exponential(mean)) of
        quantities, or C(lognormal(mu,sigma)) of cores; O(serve=true) only.
      - A pod's annotation C(turbokube.io/cpu-usage) has precedence, and may change while the pod runs.
    type: str
    default: "0"
  pod_memory_usage:
    description:
      - The memory that the metrics show of a pod, as O(pod_cpu_usage), C(lognormal(mu,sigma)) of GiB; empty for half of
        what it requests. The annotation is C(turbokube.io/memory-usage).
    type: str
    default: ""
  wait:
    description: Wait until every vnode is joined, Ready, and free of the taints of a node that is not.
    type: bool
    default: true
  timeout:
    description: Seconds to wait at most.
    type: int
    default: 600
"""

EXAMPLES = r"""
- name: Join 256 vnodes, 8 for each of 32 namespaces
  turbokube.scale.vnode_fleet:
    kubeconfig: ~/.kube/config
    state_dir: ~/.turbokube/trial
    run: trial
    count: 256

- name: Grow the fleet; pods take 2 seconds to start from now on
  turbokube.scale.vnode_fleet:
    kubeconfig: ~/.kube/config
    state_dir: ~/.turbokube/trial
    run: trial
    count: 512
    start_delay: 2

- name: Nodes that the API server cannot tell from real ones
  turbokube.scale.vnode_fleet:
    kubeconfig: ~/.kube/config
    state_dir: ~/.turbokube/trial
    run: trial
    count: 256
    fidelity: node
    join: csr

- name: Let Jobs take half a minute and one container in twenty fail, and cut every tenth node off for two minutes
  turbokube.scale.vnode_fleet:
    kubeconfig: ~/.kube/config
    state_dir: ~/.turbokube/trial
    run: trial
    count: 512
    run_time: lognormal(3.3,0.4)
    failure_rate: 0.05
    faults:
      - {after: 60, share: 0.1, action: silence, duration: 120}

- name: 8,192 nodes on the workers of another cluster, 64 pods of 128
  turbokube.scale.vnode_fleet:
    target: ~/.turbokube/trial/target.json
    state_dir: ~/.turbokube/trial
    run: trial
    count: 8192
    manager: stateful_set
    stateful_set:
      kubeconfig: ~/.kube/fleet
      image: localhost/turbokube:0.1.0

- name: Remove it
  turbokube.scale.vnode_fleet:
    kubeconfig: ~/.kube/config
    state_dir: ~/.turbokube/trial
    run: trial
    state: absent
"""

RETURN = r"""
count:
  description: How many vnodes there are to be.
  returned: always
  type: int
  sample: 256
joined:
  description: How many have a Node and a Lease.
  returned: when the daemon runs
  type: int
  sample: 256
ready:
  description: How many the control plane holds for Ready.
  returned: when the daemon runs
  type: int
  sample: 256
started:
  description: The processes that this task started.
  returned: always
  type: list
  elements: str
  sample: [fleet]
pid:
  description: The daemon's process id.
  returned: when the daemon runs, with O(processes=1)
  type: int
  sample: 4711
metrics_url:
  description: Where the daemon tells of itself in Prometheus' text format.
  returned: when the daemon runs, with O(processes=1)
  type: str
  sample: http://127.0.0.1:41613/metrics
metrics_urls:
  description: The same of every process, in the order of their numbers.
  returned: always
  type: list
  elements: str
  sample: [http://127.0.0.1:41613/metrics]
components:
  description:
    - What O(manager=stateful_set) has in place of RV(metrics_urls), each pod as M(turbokube.scale.load_phase) takes it.
    - They are asked through the API server of their cluster, by an account that may do nothing else.
  returned: with O(manager=stateful_set)
  type: list
  elements: dict
  sample: []
"""

import json
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.turbokube.scale.plugins.module_utils._arguments import (
    TARGET_ARGUMENTS,
    TARGET_RULES,
    target_of,
)
from ansible_collections.turbokube.scale.plugins.module_utils._library import errors_as_failures, library_module

if t.TYPE_CHECKING:
    from turbokube.vnode.fleet import Result
    from turbokube.vnode.spec import Spec

_CAPACITY = {
    "cpu": {"type": "str", "default": "2"},
    "memory": {"type": "str", "default": "64Gi"},
    "pods": {"type": "int", "default": 1024},
}
_FAULT = {
    "after": {"type": "float", "required": True},
    "share": {"type": "float", "required": True},
    "action": {"type": "str", "choices": ["silence", "not_ready", "disappear"], "required": True},
    "duration": {"type": "float", "default": 0},
}
_STATEFUL_SET = {
    "kubeconfig": {"type": "path", "required": True},
    "context": {"type": "str"},
    "namespace": {"type": "str"},
    "image": {"type": "str"},
    "image_pull_policy": {"type": "str", "choices": ["Always", "IfNotPresent", "Never"], "default": "IfNotPresent"},
    "image_pull_secret": {"type": "str", "default": "", "no_log": False},
    "vnodes_per_pod": {"type": "int", "default": 128},
    "pods_per_vnode": {"type": "float", "default": 32},
    "cpu": {"type": "str", "default": ""},
    "memory": {"type": "str", "default": ""},
    "node_selector": {"type": "dict", "default": {}},
    "tolerations": {"type": "list", "elements": "dict", "default": []},
}
_ARGUMENTS: dict[str, t.Any] = {
    **TARGET_ARGUMENTS,
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "state_dir": {"type": "path", "required": True},
    "run": {"type": "str", "required": True},
    "count": {"type": "int"},
    "name_prefix": {"type": "str", "default": "vnode-"},
    "placement": {"type": "str", "choices": ["namespace", "cluster"], "default": "namespace"},
    "vnodes_per_namespace": {"type": "int", "default": 8},
    "lease_interval": {"type": "float", "default": 10},
    "lease_duration": {"type": "int", "default": 40},
    "status_interval": {"type": "float", "default": 300},
    "start_delay": {"type": "str", "default": "0"},
    "ready_delay": {"type": "str", "default": "0"},
    "run_time": {"type": "str", "default": ""},
    "failure_rate": {"type": "float", "default": 0},
    "seed": {"type": "int", "default": 0},
    "faults": {"type": "list", "elements": "dict", "default": [], "options": _FAULT},
    "stop_delay": {"type": "str", "default": "0"},
    "capacity": {"type": "dict", "default": {}, "options": _CAPACITY},
    "connections": {"type": "int", "default": 8},
    "processes": {"type": "int", "default": 1},
    "hosts": {"type": "int", "default": 1},
    "host": {"type": "int", "default": 0},
    "metrics_address": {"type": "str", "default": "127.0.0.1"},
    "metrics_port": {"type": "int", "default": 0},
    "manager": {"type": "str", "choices": ["process", "systemd", "stateful_set"], "default": "process"},
    "stateful_set": {"type": "dict", "options": _STATEFUL_SET},
    "engine": {
        "type": "str",
        "choices": ["builtin", "kwok", "kubemark", "virtual_kubelet"],
        "default": "builtin",
    },
    "binary": {"type": "path", "default": ""},
    "fidelity": {"type": "str", "choices": ["lease", "kubelet", "node"], "default": "lease"},
    "join": {"type": "str", "choices": ["certificate", "csr"], "default": "certificate"},
    "images": {"type": "int", "default": 50},
    "serve": {"type": "bool", "default": False},
    "serve_port": {"type": "int", "default": 10250},
    "node_ip_range": {"type": "str", "default": ""},
    "pod_cpu_usage": {"type": "str", "default": "0"},
    "pod_memory_usage": {"type": "str", "default": ""},
    "wait": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 600},
}
_NOT_OF_THE_SPEC = {
    *TARGET_ARGUMENTS,
    "state",
    "state_dir",
    "capacity",
    "count",
    "faults",
    "wait",
    "timeout",
    "manager",
    "processes",
    "stateful_set",
}


def main() -> t.NoReturn:
    module = library_module(
        _ARGUMENTS,
        required_if=[("state", "present", ["count"]), ("manager", "stateful_set", ["stateful_set"])],
        supports_check_mode=True,
        **TARGET_RULES,
    )
    with errors_as_failures(module):
        module.exit_json(**_apply(module))


def _apply(module: AnsibleModule) -> dict[str, t.Any]:
    from turbokube.vnode import fleet
    from turbokube.vnode.spec import Fault, Spec

    wish = module.params
    spec = Spec(
        count=wish["count"] or 0,
        faults=[Fault(**fault) for fault in wish["faults"]],
        processes=wish["processes"] * max(1, wish["hosts"]),
        **{name: wish[name] for name in _ARGUMENTS if name not in _NOT_OF_THE_SPEC},
        **wish["capacity"],
    )
    state, timeout = Path(wish["state_dir"]), float(wish["timeout"])
    if wish["manager"] == "stateful_set":
        return _carried(module, spec, state, timeout)
    if wish["state"] == "absent":
        result = fleet.absent(target_of(wish), state, spec, timeout=timeout, check_mode=module.check_mode)
    else:
        result = fleet.present(
            lambda: target_of(wish),
            state,
            spec,
            wait=wish["wait"],
            timeout=timeout,
            check_mode=module.check_mode,
            manager=wish["manager"],
        )
    return _answer(spec, result)


def _carried(module: AnsibleModule, spec: Spec, state: Path, timeout: float) -> dict[str, t.Any]:
    """By the pods of another cluster."""
    import msgspec

    from turbokube.api.credentials import from_kubeconfig
    from turbokube.workload import fleet
    from turbokube.workload.pods import Carrier, namespace_of

    wish, how = module.params, module.params["stateful_set"]
    cluster = from_kubeconfig(how["kubeconfig"], how["context"])
    namespace = how["namespace"] or namespace_of(spec.run)
    spec = msgspec.structs.replace(spec, block=how["vnodes_per_pod"])
    if wish["state"] == "absent":
        gone = fleet.absent(
            target_of(wish), cluster, state, spec, namespace, timeout=timeout, check_mode=module.check_mode
        )
        return _answer(spec, gone)
    if not how["image"]:
        module.fail_json(msg="stateful_set.image is missing; it is required when state is present")
    carrier = Carrier(
        namespace=namespace,
        image=how["image"],
        pull=how["image_pull_policy"],
        pull_secret=how["image_pull_secret"],
        **{name: how[name] for name in ("cpu", "memory", "node_selector", "tolerations")},
    )
    result = fleet.present(
        lambda: target_of(wish),
        cluster,
        state,
        spec,
        carrier,
        pods_per_vnode=how["pods_per_vnode"],
        wait=wish["wait"],
        timeout=timeout,
        check_mode=module.check_mode,
    )
    components = [
        {name: value for name, value in msgspec.to_builtins(one).items() if value is not None}
        for one in result.components
    ]
    return _answer(spec, result) | {"components": components}


def _answer(spec: Spec, result: Result) -> dict[str, t.Any]:
    answer = {
        "changed": result.changed,
        "count": spec.count,
        "joined": result.status.get("joined"),
        "ready": result.status.get("ready"),
        "pid": result.pid,
        "metrics_url": result.metrics_url,
        "metrics_urls": result.metrics_urls,
        "started": result.started,
        "diff": {"before": _text(result.before), "after": _text(result.after)},
    }
    return {name: value for name, value in answer.items() if value is not None}


def _text(facts: dict[str, t.Any]) -> str:
    return json.dumps(facts, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    main()
