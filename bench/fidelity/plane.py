"""A control plane that writes down every request, and what its API server says of itself."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.control_plane import ControlPlane, control_plane

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
# Requests with their bodies where a trace is wanted, else who, what, when; never the token that was asked for.
_POLICY: dict[str, object] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
_BODIES: list[dict[str, object]] = [
    {"level": "Request", "userGroups": ["system:nodes"], "verbs": ["create", "update", "patch", "delete"]},
    {"level": "Request", "users": ["system:kube-proxy"], "verbs": ["create", "update", "patch", "delete"]},
]


@dataclass
class Sample:
    """One look at the API server. Seconds, bytes; what is counted is counted since its start."""

    at: float
    cpu: float
    resident: int
    heap: int  # in use after a collection, with goroutines' stacks
    goroutines: int
    watches: dict[str, int] = field(default_factory=dict)  # resource → open now
    dispatched: dict[str, float] = field(default_factory=dict)  # APF's priority level → requests


@dataclass(frozen=True)
class Audited:
    """A control plane and its audit log."""

    plane: ControlPlane
    log: Path

    @property
    def port(self) -> int:
        """Of the API server, at 127.0.0.1."""
        ports: dict[str, int] = json.loads((self.plane.state / "ports.json").read_text())
        return ports["kube-apiserver-0"]

    @property
    def pki(self) -> Path:
        """Where ca.crt and ca.key are."""
        return self.plane.state / "pki"

    def sample(self) -> Sample:
        """Have the API server collect its garbage, and look at it."""
        self.plane.kubectl("get", "--raw", "/debug/pprof/heap?gc=1&debug=1")
        text = self.plane.kubectl("get", "--raw", "/metrics")
        found = list(metrics(text))
        one = {name: value for name, _, value in found if name.startswith(("process_", "go_"))}
        watches: dict[str, int] = {}
        dispatched: dict[str, float] = {}
        for name, labels, value in found:
            if name == "apiserver_longrunning_requests" and labels.get("verb") == "WATCH":
                resource = labels["resource"]
                watches[resource] = watches.get(resource, 0) + int(value)
            elif name == "apiserver_flowcontrol_dispatched_requests_total":
                level = labels["priority_level"]
                dispatched[level] = dispatched.get(level, 0.0) + value
        return Sample(
            at=time.time(),
            cpu=one["process_cpu_seconds_total"],
            resident=int(one["process_resident_memory_bytes"]),
            heap=int(one["go_memstats_heap_inuse_bytes"] + one["go_memstats_stack_inuse_bytes"]),
            goroutines=int(one["go_goroutines"]),
            watches=watches,
            dispatched=dispatched,
        )


@contextlib.contextmanager
def audited(folder: Path, *, bodies: bool = False) -> Iterator[Audited]:
    """A control plane whose requests are written to `folder`/audit.log, within a second or so."""
    folder.mkdir(parents=True, exist_ok=True)
    policy, log = folder / "audit-policy.json", folder / "audit.log"
    wanted = {**_POLICY, "rules": [*_BODIES, {"level": "Metadata"}]} if bodies else _POLICY
    policy.write_text(json.dumps(wanted))
    arguments = {
        "audit-policy-file": str(policy),
        "audit-log-path": str(log),
        "audit-log-maxsize": "4096",
        "audit-log-mode": "batch",
        "audit-log-batch-max-wait": "1s",
        "audit-log-batch-buffer-size": "100000",
    }
    with control_plane(state=folder / "state", control_plane_apiserver_args=arguments) as plane:
        yield Audited(plane, log)


def metrics(text: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Name, labels and value of each line of Prometheus's text format."""
    for name, labels, value in _SAMPLE.findall(text):
        yield name, dict(_LABEL.findall(labels)), float(value)
