"""The Events that a kubelet's recorder makes of pods and their containers."""

from __future__ import annotations

import zlib
from typing import Any

from .. import objects
from ..clock import rfc3339

NORMAL, WARNING = "Normal", "Warning"
STARTED = "Container started"
# reason and message, in the order in which a kubelet tells of a container whose image is there
START = (
    ("Pulled", 'Container image "{image}" already present on machine and can be accessed by the pod'),
    ("Created", "Container created"),
    ("Started", STARTED),
)


def event(
    pod: objects.Pod,
    node: str,
    reason: str,
    message: str,
    now: float,
    *,
    container: str = "",
    kind: str = NORMAL,
) -> dict[str, Any]:
    """A core/v1 Event as client-go's recorder makes it, about a pod or one of its containers; without its own kind."""
    meta, moment = pod.metadata, rfc3339(now)
    about: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "namespace": meta.namespace,
        "name": meta.name,
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
    }
    if container:
        about["fieldPath"] = f"spec.containers{{{container}}}"
    return {
        "metadata": {"name": name(pod, f"{reason}/{container}", now), "namespace": meta.namespace},
        "involvedObject": about,
        "reason": reason,
        "message": message,
        "type": kind,
        "count": 1,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "source": {"component": "kubelet", "host": node},
        "reportingComponent": "kubelet",
        "reportingInstance": node,
    }


def name(pod: objects.Pod, what: str, now: float) -> str:
    """client-go names Events by the clock; what they are about keeps those of one instant apart."""
    return f"{pod.metadata.name[:230]}.{int(now * 1e9) + zlib.crc32(what.encode()) % 1_000_000:x}"


def again(count: int, message: str, now: float) -> dict[str, Any]:
    """The patch of an Event that was told before, as client-go's correlator makes it."""
    return {"count": count, "lastTimestamp": rfc3339(now), "message": message}


def backing_off(pod: objects.Pod, container: str) -> str:
    """What the Event of a restart that is put off says."""
    meta = pod.metadata
    return f"Back-off restarting failed container {container} in pod {meta.name}_{meta.namespace}({meta.uid})"
