"""The objects that a kubelet reads, and those of its node that it writes: Node, Lease, their updates."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from .clock import rfc3339, rfc3339_micro
from .spec import RUN_LABEL, Spec

_encode = msgspec.json.encode

# type, status, reason, message: the words of the kubelet (pkg/kubelet/nodestatus/setters.go)
CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)
_NO_NETWORK = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: cni plugin not initialized"
)

PENDING, RUNNING, ENDING, SUCCEEDED, FAILED = "Pending", "Running", "Terminating", "Succeeded", "Failed"
PHASES = (PENDING, RUNNING, ENDING, SUCCEEDED, FAILED)  # of a pod; Terminating is one here, as kubectl has it


def conditions(ready: bool) -> tuple[tuple[str, str, str, str], ...]:
    """Those of a node; of one that is not ready since its network is not."""
    return CONDITIONS if ready else (*CONDITIONS[:-1], ("Ready", "False", "KubeletNotReady", _NO_NETWORK))


class _Part(msgspec.Struct, rename="camel", gc=False):
    """A struct of an object's JSON, reduced to what is needed; `gc=False` since none can be in a cycle."""


class Meta(_Part, rename="camel", gc=False):
    name: str
    uid: str
    namespace: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: str = ""
    resource_version: str = ""
    deletion_timestamp: str = ""
    deletion_grace_period_seconds: int = 0


class BareMeta(_Part, rename="camel", gc=False):
    name: str
    resource_version: str = ""


class Taint(_Part, gc=False):
    key: str


class Condition(_Part, gc=False):
    type: str
    status: str


class NodeSpec(_Part, rename="camel", gc=False):
    pod_c_i_d_r: str = msgspec.field(default="", name="podCIDR")
    taints: list[Taint] = []


class NodeStatus(_Part, gc=False):
    conditions: list[Condition] = []


class Node(_Part, gc=False):
    """What the engine needs of a Node."""

    metadata: Meta
    spec: NodeSpec
    status: NodeStatus

    @property
    def ready(self) -> bool:
        """Ready, and none of the taints with which the control plane says that it has not noticed yet."""
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions) and not any(
            taint.key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
            for taint in self.spec.taints
        )


class Bare(_Part, gc=False):
    """Any object, for those who only count."""

    metadata: BareMeta


class LeaseSpec(_Part, rename="camel", gc=False):
    renew_time: datetime | None = None


class Lease(_Part, gc=False):
    """What the engine needs of a Lease that exists already."""

    metadata: BareMeta
    spec: LeaseSpec


class Resources(_Part, gc=False):
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}


class Reference(_Part, gc=False):
    name: str = ""


class ValueSource(_Part, rename="camel", gc=False):
    config_map_key_ref: Reference | None = None
    secret_key_ref: Reference | None = None


class Variable(_Part, rename="camel", gc=False):
    value_from: ValueSource | None = None


class VariableSource(_Part, rename="camel", gc=False):
    config_map_ref: Reference | None = None
    secret_ref: Reference | None = None


class VolumeMount(_Part, rename="camel", gc=False):
    name: str
    mount_path: str = ""
    read_only: bool = False


class Container(_Part, rename="camel", gc=False):
    name: str
    image: str = ""
    image_pull_policy: str = ""
    resources: Resources | None = None
    restart_policy: str = ""  # Always: an init container that is a sidecar
    env: list[Variable] = []
    env_from: list[VariableSource] = []
    volume_mounts: list[VolumeMount] = []


class TokenProjection(_Part, rename="camel", gc=False):
    audience: str = ""
    expiration_seconds: int = 3600


class Projection(_Part, rename="camel", gc=False):
    service_account_token: TokenProjection | None = None
    config_map: Reference | None = None
    secret: Reference | None = None


class ProjectedVolume(_Part, gc=False):
    sources: list[Projection] | None = None


class SecretVolume(_Part, rename="camel", gc=False):
    secret_name: str = ""


class Volume(_Part, rename="camel", gc=False):
    config_map: Reference | None = None
    secret: SecretVolume | None = None
    projected: ProjectedVolume | None = None


class PodSpec(_Part, rename="camel", gc=False):
    node_name: str = ""
    host_network: bool = False
    restart_policy: str = "Always"
    service_account_name: str = ""
    containers: list[Container] = []
    init_containers: list[Container] = []
    volumes: list[Volume] = []
    image_pull_secrets: list[Reference] = []


class PodCondition(_Part, rename="camel", gc=False):
    type: str
    status: str
    last_transition_time: str | None = None  # null where it was never set, as with the times below


class Waiting(_Part, gc=False):
    reason: str = ""


class Running(_Part, rename="camel", gc=False):
    started_at: str | None = None


class Terminated(_Part, rename="camel", gc=False):
    exit_code: int = 0
    started_at: str | None = None
    finished_at: str | None = None


class ContainerState(_Part, gc=False):
    waiting: Waiting | None = None
    running: Running | None = None
    terminated: Terminated | None = None


class ContainerStatus(_Part, rename="camel", gc=False):
    name: str
    ready: bool = False
    restart_count: int = 0
    state: ContainerState | None = None
    last_state: ContainerState | None = None


class PodStatus(_Part, rename="camel", gc=False):
    phase: str = ""
    pod_i_p: str = msgspec.field(default="", name="podIP")
    start_time: str = ""
    conditions: list[PodCondition] = []
    container_statuses: list[ContainerStatus] = []


class Pod(_Part, gc=False):
    """What the engine needs of a Pod."""

    metadata: Meta
    spec: PodSpec
    status: PodStatus


# nodes


def node(spec: Spec, index: int, version: str, now: float) -> bytes:
    """The Node that a kubelet registers; Ready from the start, since nothing else has to come up."""
    name = spec.name(index)
    labels = {
        RUN_LABEL: spec.run,
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/role": "agent",
        "type": "virtual-kubelet",
        "node.kubernetes.io/exclude-from-external-load-balancers": "true",
        "alpha.service-controller.kubernetes.io/exclude-balancer": "true",
    }
    return _encode(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": [taint(spec, index)]},
            "status": status(spec, index, version, now),
        }
    )


def node_status(spec: Spec, index: int, version: str, now: float, changed: bool, ready: bool = True) -> bytes:
    """A patch of everything in a node's status, as a kubelet's first after its start.

    `changed`: the conditions were otherwise before, so that now is their transition.
    """
    whole = status(spec, index, version, now, ready)
    if not changed:
        for condition in whole["conditions"]:
            del condition["lastTransitionTime"]
    return _encode({"status": whole})


def node_heartbeat(now: float) -> bytes:
    """A patch of the conditions' heartbeat times, as a kubelet's when nothing else has changed."""
    beats = [{"type": kind, "lastHeartbeatTime": rfc3339(now)} for kind, *_ in CONDITIONS]
    order = [{"type": kind} for kind, *_ in CONDITIONS]
    return _encode({"status": {"$setElementOrder/conditions": order, "conditions": beats}})


def taint(spec: Spec, index: int) -> dict[str, str]:
    """What keeps pods of others off a vnode."""
    if spec.placement == "cluster":
        return {"key": "turbokube.io/vnode", "value": "true", "effect": "NoSchedule"}
    return {
        "key": "turbokube.io/namespace",
        "value": f"{index // spec.vnodes_per_namespace:04x}",
        "effect": "NoSchedule",
    }


def status(spec: Spec, index: int, version: str, now: float, ready: bool = True) -> dict[str, Any]:
    """A Node's status."""
    name, moment = spec.name(index), rfc3339(now)
    capacity = {"cpu": spec.cpu, "memory": spec.memory, "pods": str(spec.pods)}
    identity = hashlib.sha256(name.encode()).hexdigest()[:32]
    return {
        "capacity": capacity,
        "allocatable": capacity,
        "conditions": [
            {
                "type": kind,
                "status": value,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": moment,
                "lastTransitionTime": moment,
            }
            for kind, value, reason, message in conditions(ready)
        ],
        "addresses": [
            {"type": "InternalIP", "address": spec.address(index)},
            {"type": "Hostname", "address": name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": spec.serve_port}},
        "nodeInfo": {
            "machineID": identity,
            "systemUUID": identity,
            "bootID": identity,
            "kernelVersion": "6.12.0",
            "osImage": "TurboKube virtual node",
            "containerRuntimeVersion": "containerd://2.1.0",
            "kubeletVersion": version,
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    }


# leases

_LEASE = (
    b'{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"%b","namespace":"kube-node-lease",'
    b'"labels":{"' + RUN_LABEL.encode() + b'":"%b"},"resourceVersion":"%b",'
    b'"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"%b","uid":"%b"}]},'
    b'"spec":{"holderIdentity":"%b","leaseDurationSeconds":%d,"renewTime":"%b"}}'
)


def lease(spec: Spec, name: str, uid: str, version: bytes, now: float) -> bytes:
    """A vnode's Lease, owned by its Node; `version` is the last answer's resourceVersion, b"" to create it."""
    identity = name.encode()
    moment = rfc3339_micro(now).encode()
    return _LEASE % (
        identity,
        spec.run.encode(),
        version,
        identity,
        uid.encode(),
        identity,
        spec.lease_duration,
        moment,
    )


def resource_version(body: bytes) -> bytes:
    """The resourceVersion in an answer, by search: an object's own is the first one in it."""
    start = body.index(b'"resourceVersion":"') + 19
    return body[start : body.index(b'"', start)]


def references(pod: Pod) -> Iterator[tuple[str, str]]:
    """What a kubelet watches for a pod: ("configmaps" or "secrets", name), each once for each place that names it."""
    for volume in pod.spec.volumes:
        if volume.config_map:
            yield "configmaps", volume.config_map.name
        if volume.secret:
            yield "secrets", volume.secret.secret_name
        for source in (volume.projected and volume.projected.sources) or ():
            if source.config_map:
                yield "configmaps", source.config_map.name
            if source.secret:
                yield "secrets", source.secret.name
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        yield from _variables(container)
    for secret in pod.spec.image_pull_secrets:
        yield "secrets", secret.name


def _variables(container: Container) -> Iterator[tuple[str, str]]:
    for every in container.env_from:
        if every.config_map_ref:
            yield "configmaps", every.config_map_ref.name
        if every.secret_ref:
            yield "secrets", every.secret_ref.name
    for one in container.env:
        if one.value_from and one.value_from.config_map_key_ref:
            yield "configmaps", one.value_from.config_map_key_ref.name
        if one.value_from and one.value_from.secret_key_ref:
            yield "secrets", one.value_from.secret_key_ref.name
