"""Whether a cluster's workers have room for pods of one kind: how many of them, how much memory and CPU."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import msgspec

from .cluster import Meta

_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60}
_QUANTITY = re.compile(r"([0-9.]+(?:e[0-9]+)?)(m|[kMGTPE]i?|Ki)?")
# of a node's range: its network's, its broadcast, and the gateway on the node itself
_NOT_FOR_PODS = 3
_TOLD = 10  # nodes that a refusal tells of
_OVER = ("Succeeded", "Failed")


class _Condition(msgspec.Struct):
    type: str
    status: str


class _Taint(msgspec.Struct):
    key: str
    effect: str = ""
    value: str = ""


class _NodeSpec(msgspec.Struct, rename="camel"):
    unschedulable: bool = False
    taints: list[_Taint] = []
    pod_c_i_d_r: str = msgspec.field(default="", name="podCIDR")


class _NodeStatus(msgspec.Struct):
    allocatable: dict[str, str] = {}
    conditions: list[_Condition] = []


class Node(msgspec.Struct):
    """A worker, perhaps."""

    metadata: Meta
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)

    @property
    def ready(self) -> bool:
        """Whether the control plane holds it for Ready."""
        return any(one.type == "Ready" and one.status == "True" for one in self.status.conditions)


class _Resources(msgspec.Struct):
    requests: dict[str, str] = {}


class _Container(msgspec.Struct):
    resources: _Resources = msgspec.field(default_factory=_Resources)


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    host_network: bool = False
    containers: list[_Container] = []


class _Waiting(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _State(msgspec.Struct):
    waiting: _Waiting | None = None


class _ContainerStatus(msgspec.Struct):
    state: _State = msgspec.field(default_factory=_State)
    started: bool | None = None


class _PodStatus(msgspec.Struct, rename="camel"):
    phase: str = ""
    conditions: list[_Condition] = []
    container_statuses: list[_ContainerStatus] = []


class Pod(msgspec.Struct):
    """A pod of anybody's."""

    metadata: Meta
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)

    @property
    def ready(self) -> bool:
        """Whether its readiness probe succeeds."""
        return any(one.type == "Ready" and one.status == "True" for one in self.status.conditions)

    @property
    def started(self) -> bool:
        """Whether its container runs."""
        return any(one.started for one in self.status.container_statuses)


class Need(msgspec.Struct, frozen=True):
    """What one pod requests: cores, bytes."""

    cores: float
    memory: float


class Room(msgspec.Struct, frozen=True):
    """How many such pods a worker takes, and what keeps it from taking more."""

    worker: str
    pods: int
    bound: str


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number. Raises ValueError for what is none."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    return float(found[1]) * (_UNITS | _BINARY)[found[2] or ""]


def rooms(
    nodes: list[Node], pods: list[Pod], need: Need, wanted: dict[str, str], tolerations: list[dict[str, Any]]
) -> list[Room]:
    """What each worker takes that such pods may go to. `pods`: those of others, which stay; `wanted`: labels."""
    found = []
    for node in nodes:
        if not obstacle(node, wanted, tolerations):
            there = [pod for pod in pods if pod.spec.node_name == node.metadata.name and pod.status.phase not in _OVER]
            found.append(_room(node, there, need))
    return found


def obstacle(node: Node, wanted: dict[str, str], tolerations: list[dict[str, Any]]) -> str:
    """What keeps such pods from a node whatever its room; empty when nothing does."""
    if not node.ready:
        return "not Ready"
    if node.spec.unschedulable:
        return "cordoned"
    if missing := [f"{key}={value}" for key, value in wanted.items() if node.metadata.labels.get(key) != value]:
        return f"without the label {missing[0]}"
    hard = [taint for taint in node.spec.taints if taint.effect in ("NoSchedule", "NoExecute")]
    kept = [taint.key for taint in hard if not any(_tolerates(one, taint) for one in tolerations)]
    return f"tainted {kept[0]}" if kept else ""


def problem(found: list[Room], replicas: int, block: int, others: dict[str, str]) -> str:
    """Why so many replicas do not fit, with what would; empty when they do. `others`: closed nodes, and why."""
    have = sum(room.pods for room in found)
    if have >= replicas:
        return ""
    if not have:
        bounds = others | {room.worker: room.bound for room in found}
        each = "; ".join(f"{name}: {words}" for name, words in list(bounds.items())[-_TOLD:]) or "it has no node"
        return f"the fleet cluster has no room for a single pod of {block} vnodes: {each}"
    least = min(found, key=lambda room: room.pods)
    return (
        f"{replicas} pods of {block} vnodes do not fit on {len(found)} workers, which take {have} "
        f"({least.worker} {least.pods}: {least.bound}); set vnodes_per_pod to {-(-replicas * block // have)} or more, "
        f"or have more workers"
    )


def _room(node: Node, there: list[Pod], need: Need) -> Room:
    offered = node.status.allocatable
    most = int(quantity(offered.get("pods", "110")))
    bounds = {f"maxPods is {most}, and {len(there)} pods of others are there": most - len(there)}
    if node.spec.pod_c_i_d_r:
        usable = ipaddress.ip_network(node.spec.pod_c_i_d_r).num_addresses - _NOT_FOR_PODS
        taken = sum(not pod.spec.host_network for pod in there)
        bounds[f"its range {node.spec.pod_c_i_d_r} has {usable} addresses for pods"] = usable - taken
    for name, each, words in (("memory", need.memory, "memory"), ("cpu", need.cores, "CPU")):
        have = quantity(offered.get(name, "0")) - sum(_requests(pod, name) for pod in there)
        amount = f"{have / 2**20:.0f} MiB" if name == "memory" else f"{have:.2f} cores"
        bounds[f"{amount} of {words} are free"] = int(have / each) if each else most
    bound = min(bounds, key=lambda words: bounds[words])
    return Room(node.metadata.name, max(0, bounds[bound]), bound)


def _requests(pod: Pod, name: str) -> float:
    return sum(quantity(one.resources.requests.get(name, "0")) for one in pod.spec.containers)


def _tolerates(toleration: dict[str, Any], taint: _Taint) -> bool:
    if toleration.get("effect") not in (None, "", taint.effect):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.key)
    return toleration.get("key") == taint.key and toleration.get("value", "") == taint.value
