"""The objects that a real machine's kubelet writes of itself: Node, CSINode, Lease, Events. Bodies of requests.

They are those of kubelet 1.36, less what has no meaning here (docs/fidelity.md compares).
"""

from __future__ import annotations

import functools
import hashlib
from typing import Any, NamedTuple

import msgspec

from ...api import messages
from .. import objects
from ..clock import rfc3339
from ..spec import RUN_LABEL, Spec

_json = msgspec.json.encode


class Told(NamedTuple):
    """An Event about a Node, and how often the kubelet tells of it."""

    reason: str
    message: str
    times: int = 1


# of a kubelet that starts; the conditions are told thrice, since they are set thrice
STARTING = (
    Told("Starting", "Starting kubelet."),
    Told("NodeHasSufficientMemory", "Node {name} status is now: NodeHasSufficientMemory", 3),
    Told("NodeHasNoDiskPressure", "Node {name} status is now: NodeHasNoDiskPressure", 3),
    Told("NodeHasSufficientPID", "Node {name} status is now: NodeHasSufficientPID", 3),
    Told("NodeAllocatableEnforced", "Updated Node Allocatable limit across pods"),
)
READY = Told("NodeReady", "Node {name} status is now: NodeReady")
NOT_READY = Told("NodeNotReady", "Node {name} status is now: NodeNotReady")

# What NodeRestriction keeps nodes from giving themselves, and a node at `lease` has
_FORBIDDEN_LABELS = {
    "kubernetes.io/role": "agent",
    "alpha.service-controller.kubernetes.io/exclude-balancer": "true",
}
_NOT_YET = ("False", "KubeletNotReady", "CSINode is not yet initialized")
_MIGRATED = ",".join(
    f"kubernetes.io/{plugin}"
    for plugin in ("aws-ebs", "azure-disk", "azure-file", "cinder", "gce-pd", "portworx-volume", "vsphere-volume")
)
_FEATURES = {"recursiveReadOnlyMounts": True, "userNamespaces": False}
_DECLARED = (
    "ExtendWebSocketsToKubelet",
    "InPlacePodLevelResourcesVerticalScaling",
    "InPlacePodVerticalScalingInitContainers",
    "RestartAllContainersOnContainerExits",
)


def node(spec: Spec, index: int, version: str, now: float) -> bytes:
    """The Node that a kubelet registers: not Ready yet, and as large as its images make it."""
    name = spec.name(index)
    status = objects.status(spec, index, version, now)
    more = {"ephemeral-storage": "1Ti", "hugepages-1Gi": "0", "hugepages-2Mi": "0"}
    status["capacity"] = status["allocatable"] = status["capacity"] | more
    ready = status["conditions"][-1]
    ready["status"], ready["reason"], ready["message"] = _NOT_YET
    status["images"] = _images(spec.images)
    status["runtimeHandlers"] = [{"name": handler, "features": _FEATURES} for handler in ("", "runc")]
    status["features"] = {"supplementalGroupsPolicy": True}
    status["declaredFeatures"] = _DECLARED
    labels = {
        RUN_LABEL: spec.run,
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/exclude-from-external-load-balancers": "true",
        "type": "virtual-kubelet",
    }
    annotations = {"volumes.kubernetes.io/controller-managed-attach-detach": "true"}
    metadata = {"name": name, "labels": labels, "annotations": annotations}
    body = {"metadata": metadata, "spec": {"taints": [objects.taint(spec, index)]}, "status": status}
    return messages.encode("v1", "Node", messages.NODE, body)


def forbidden_labels() -> bytes:
    """The merge patch with which the fleet completes a Node."""
    return _json({"metadata": {"labels": _FORBIDDEN_LABELS}})


def ready(now: float, up: bool = True) -> bytes:
    """The patch of a kubelet that has become ready or not, or sees that somebody has declared it lost."""
    moment = rfc3339(now)
    conditions = [
        {
            "lastHeartbeatTime": moment,
            "lastTransitionTime": moment,
            "message": message,
            "reason": reason,
            "status": value,
            "type": kind,
        }
        for kind, value, reason, message in objects.conditions(up)
    ]
    order = [{"type": kind} for kind, *_ in objects.CONDITIONS]
    return _json({"status": {"$setElementOrder/conditions": order, "conditions": conditions}})


def csi_node(spec: Spec, name: str, uid: str) -> bytes:
    """The CSINode of a machine without CSI drivers."""
    metadata = {
        "name": name,
        "labels": {RUN_LABEL: spec.run},
        "annotations": {"storage.alpha.kubernetes.io/migrated-plugins": _MIGRATED},
        "ownerReferences": [_owner(name, uid)],
    }
    return messages.encode("storage.k8s.io/v1", "CSINode", messages.CSI_NODE, {"metadata": metadata, "spec": {}})


def lease(spec: Spec, name: str, uid: str, now: float) -> bytes:
    """A Lease to be created."""
    metadata = {
        "name": name,
        "namespace": "kube-node-lease",
        "labels": {RUN_LABEL: spec.run},
        "ownerReferences": [_owner(name, uid)],
    }
    terms = {"holderIdentity": name, "leaseDurationSeconds": spec.lease_duration, "renewTime": now}
    body = {"metadata": metadata, "spec": terms}
    return messages.encode("coordination.k8s.io/v1", "Lease", messages.LEASE, body)


def delete_options() -> bytes:
    """DeleteOptions that say nothing, as client-go sends them."""
    return messages.encode("meta.k8s.io/v1", "DeleteOptions", messages.DELETE_OPTIONS, {})


def event(name: str, told: Told, now: float) -> tuple[str, bytes]:
    """An Event about a Node, as a kubelet's recorder posts it to namespace default; and the Event's name."""
    offset = sum(told.reason.encode())  # of two told in one instant
    itself = f"{name}.{int(now * 1e9) + offset:x}"
    body = {
        "metadata": {"name": itself, "namespace": "default"},
        "involvedObject": {"kind": "Node", "name": name, "apiVersion": "v1"},
        "reason": told.reason,
        "message": told.message.format(name=name),
        "source": {"component": "kubelet", "host": name},
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "type": "Normal",
        "reportingComponent": "kubelet",
        "reportingInstance": name,
    }
    return itself, messages.encode("v1", "Event", messages.EVENT, body)


def proxy_event(name: str, now: float) -> bytes:
    """The Event with which a kube-proxy says that it has started, in its own group's form."""
    body = {
        "metadata": {"name": f"{name}.{int(now * 1e9):x}", "namespace": "default"},
        "eventTime": now,
        "reportingController": "kube-proxy",
        "reportingInstance": f"kube-proxy-{name}",
        "action": "StartKubeProxy",
        "reason": "Starting",
        "regarding": {"kind": "Node", "name": name, "apiVersion": "v1"},
        "type": "Normal",
    }
    return messages.encode("events.k8s.io/v1", "Event", messages.EVENTS_EVENT, body)


def event_again(name: str, told: Told, count: int, now: float) -> bytes:
    """The patch of an Event that is told for the `count`th time."""
    return _json({"count": count, "lastTimestamp": rfc3339(now), "message": told.message.format(name=name)})


def _owner(name: str, uid: str) -> dict[str, str]:
    return {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}


@functools.lru_cache(maxsize=4)
def _images(count: int) -> list[dict[str, Any]]:
    """A machine's images, the largest first; the same on all, as where all run the same workloads."""
    found = []
    for number in range(count, 0, -1):
        digest = hashlib.sha256(b"%d" % number).hexdigest()
        name = f"registry.example/turbokube/image-{number:02d}"
        found.append({"names": [f"{name}@sha256:{digest}", f"{name}:v1.36.{number}"], "sizeBytes": (10 + number) << 20})
    return found
