"""The conditions of a run's numbers: hardware, versions, what the target is made of."""

from __future__ import annotations

import collections
import ipaddress
import os
import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import turbokube
from turbokube.api.target import Component, Target


def hardware() -> dict[str, Any]:
    """What this machine is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [row.partition(":")[2].strip() for row in cpuinfo.splitlines() if row.startswith("model name")]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        "cpu_model": models[0] if models else platform.machine(),
        "kernel": platform.release(),
    }


def target_facts(target: Target, version: str, profile: dict[str, Any]) -> dict[str, Any]:
    """The target without its credentials and addresses."""
    flags = {
        name.removeprefix("turbokube_").rpartition("_")[0]: value
        for name, value in profile.items()
        if name.endswith(("_args", "_env")) and value
    }
    return {
        "name": target.name,
        "kubernetes": version,
        "ours": target.ours,
        "servers": max(1, len(target.servers)),
        "components": dict(collections.Counter(component.kind for component in target.components)),
        "store": target.store.kind if target.store else None,
        "flags": flags,
    }


def elsewhere(servers: Iterable[str], components: Iterable[Component]) -> int:
    """How many addresses, but loopback's, what takes part is spoken to by."""
    hosts = {urlsplit(url).hostname for url in (*servers, *(component.url for component in components))}
    return sum(host is not None and not _is_loopback(host) for host in hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def versions(kubernetes: str, profile: dict[str, Any]) -> dict[str, Any]:
    """Versions of all that took part."""
    store = str(profile.get("turbokube_store", "etcd"))
    return {
        "turbokube": turbokube.__version__,
        "python": platform.python_version(),
        "kubernetes": kubernetes,
        store: profile.get(f"turbokube_{store}_version"),
    }
