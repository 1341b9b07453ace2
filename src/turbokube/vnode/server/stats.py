"""A vnode's usage as a kubelet tells it: Prometheus' text and the Summary of stats/v1alpha1.

Names, labels, help and stability as pkg/kubelet/metrics/collectors/resource_metrics.go of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ...profile.rules import quantity
from ..clock import rfc3339
from ..spec import Spec
from .usage import PodUsage, Usage

_HELP = {
    "container_cpu_usage_seconds_total": "Cumulative cpu time consumed by the container in core-seconds",
    "container_memory_working_set_bytes": "Current working set of the container in bytes",
    "container_start_time_seconds": "Start time of the container since unix epoch in seconds",
    "node_cpu_usage_seconds_total": "Cumulative cpu time consumed by the node in core-seconds",
    "node_memory_working_set_bytes": "Current working set of the node in bytes",
    "pod_cpu_usage_seconds_total": "Cumulative cpu time consumed by the pod in core-seconds",
    "pod_memory_working_set_bytes": "Current working set of the pod in bytes",
    "resource_scrape_error": "1 if there was an error while getting container metrics, 0 otherwise",
}
_ALPHA_HELP = {
    "kubelet_node_name": "The node's name. The count is always 1.",
    "kubelet_running_containers": "Number of containers currently running",
    "kubelet_running_pods": "Number of pods that have a running pod sandbox",
    "kubernetes_build_info": "The version of the node, which is that of its control plane",
    "process_start_time_seconds": "Start time of the process since unix epoch in seconds.",
    "scrape_error": "1 if there was an error while getting container metrics, 0 otherwise",
}


def resource_metrics(usage: Usage, node: str, now: float) -> str:
    """What GET /metrics/resource answers; samples carry the time `now`, in milliseconds."""
    stamp = int(now * 1000)
    families: dict[str, list[str]] = {name: [] for name in _HELP}
    for pod in usage.running(node):
        whose = f'namespace="{pod.namespace}",pod="{pod.name}"'
        for one in pod.running:
            labels = f'{{container="{one.name}",{whose}}}'
            families["container_cpu_usage_seconds_total"].append(f"{labels} {one.cpu_seconds(now):.9f} {stamp}")
            families["container_memory_working_set_bytes"].append(f"{labels} {one.memory:.0f} {stamp}")
            families["container_start_time_seconds"].append(f"{labels} {one.started:.3f}")
        families["pod_cpu_usage_seconds_total"].append(f"{{{whose}}} {pod.cpu_seconds(now):.9f} {stamp}")
        families["pod_memory_working_set_bytes"].append(f"{{{whose}}} {pod.memory:.0f} {stamp}")
    spent, _, memory = usage.node(node, now)
    families["node_cpu_usage_seconds_total"].append(f" {spent:.9f} {stamp}")
    families["node_memory_working_set_bytes"].append(f" {memory:.0f} {stamp}")
    families["resource_scrape_error"].append(" 0")
    families["scrape_error"] = [" 0"]
    return _exposition(families)


def kubelet_metrics(usage: Usage, node: str, version: str) -> str:
    """What GET /metrics answers: the few of a kubelet's metrics that a vnode can tell."""
    running = list(usage.running(node))
    containers = sum(len(pod.running) for pod in running)
    return _exposition(
        {
            "kubelet_node_name": [f'{{node="{node}"}} 1'],
            "kubelet_running_containers": [f'{{container_state="running"}} {containers}'],
            "kubelet_running_pods": [f" {len(running)}"],
            "kubernetes_build_info": [f'{{git_version="{version}"}} 1'],
            "process_start_time_seconds": [f" {usage.began:.3f}"],
        }
    )


def memory_capacity(spec: Spec) -> float:
    """A vnode's memory in bytes."""
    return quantity(spec.memory)


def summary(usage: Usage, node: str, capacity: float, now: float) -> bytes:
    """What GET /stats/summary answers: CPU and memory, since a vnode has neither network nor file systems."""
    spent, cores, memory = usage.node(node, now)
    about = {
        "nodeName": node,
        "startTime": rfc3339(usage.began),
        "cpu": _cpu(spent, cores, now),
        "memory": {**_memory(memory, now), "availableBytes": max(0, int(capacity - memory))},
    }
    return msgspec.json.encode({"node": about, "pods": [_pod(pod, now) for pod in usage.running(node)]})


def _pod(pod: PodUsage, now: float) -> dict[str, Any]:
    return {
        "podRef": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "startTime": rfc3339(pod.started),
        "containers": [
            {
                "name": one.name,
                "startTime": rfc3339(one.started),
                "cpu": _cpu(one.cpu_seconds(now), one.cores, now),
                "memory": _memory(one.memory, now),
            }
            for one in pod.running
        ],
        "cpu": _cpu(pod.cpu_seconds(now), pod.cores, now),
        "memory": _memory(pod.memory, now),
    }


def _cpu(spent: float, cores: float, now: float) -> dict[str, Any]:
    return {"time": rfc3339(now), "usageNanoCores": int(cores * 1e9), "usageCoreNanoSeconds": int(spent * 1e9)}


def _memory(size: float, now: float) -> dict[str, Any]:
    whole = int(size)
    return {"time": rfc3339(now), "usageBytes": whole, "workingSetBytes": whole, "rssBytes": whole}


def _exposition(families: dict[str, list[str]]) -> str:
    """Families by name → labels and values of their samples; those without any are left out, as client_golang does."""
    lines: list[str] = []
    for name, samples in families.items():
        if samples:
            lines += [*_head(name), *(name + sample for sample in samples)]
    return "\n".join(lines) + "\n"


def _head(name: str) -> Iterable[str]:
    stability = "STABLE" if name in _HELP else "ALPHA"
    yield f"# HELP {name} [{stability}] {_HELP.get(name) or _ALPHA_HELP[name]}"
    yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
