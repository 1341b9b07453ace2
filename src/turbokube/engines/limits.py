"""What each foreign engine can be told, and the sentence that refuses the rest."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from ..vnode.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Limits:
    """An engine's. `only`: options that can have one value there; all others are free. `why`, in words."""

    fidelities: tuple[str, ...]
    only: dict[str, Any] = field(default_factory=dict)
    why: str = ""


# What none of them has: engine builtin's own.
_OURS: dict[str, Any] = {"processes": 1, "faults": [], "serve": False, "failure_rate": 0.0}
# The kubelet's own code decides these, and hollow-node has no flags for them (pkg/kubemark/hollow_kubelet.go;
# capacity: pkg/kubelet/cadvisor/testing/cadvisor_fake.go, 1 core and 4,026,531,840 bytes)
_HOLLOW: dict[str, Any] = {
    "lease_interval": 10.0,
    "lease_duration": 40,
    "status_interval": 300.0,
    "cpu": "1",
    "memory": "3840Mi",
    "start_delay": "0",
    "ready_delay": "0",
    "run_time": "",
    "stop_delay": "0",
}
# node/lease_controller_v1.go: 40 s, a quarter of it; node/node.go: status every minute; the mock runs pods at once
_MOCK: dict[str, Any] = {
    "lease_interval": 10.0,
    "lease_duration": 40,
    "status_interval": 60.0,
    "start_delay": "0",
    "ready_delay": "0",
    "run_time": "",
    "stop_delay": "0",
}

LIMITS = {
    "kwok": Limits(fidelities=("lease",), only=_OURS, why="KWOK's nodes share its connection and its watches"),
    "kubemark": Limits(
        fidelities=("kubelet", "node"), only=_OURS | _HOLLOW, why="its hollow nodes are as the kubelet's code has them"
    ),
    "virtual_kubelet": Limits(
        fidelities=("lease",), only=_OURS | _MOCK, why="it and its mock provider have no options for that"
    ),
}


def mismatches(engine: str, options: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Options of a spec that an engine cannot have: name → (a value that is allowed, and in words what is)."""
    limits = LIMITS.get(engine)
    if limits is None:
        return {}
    found: dict[str, tuple[Any, str]] = {}
    if "fidelity" in options and options["fidelity"] not in limits.fidelities:
        found["fidelity"] = (limits.fidelities[0], " or ".join(limits.fidelities))
    for option, value in limits.only.items():
        if option in options and options[option] != value:
            found[option] = (value, f"{value:g}" if isinstance(value, float) else str(value) or "none")
    if engine == "kwok" and (quarter := options["lease_duration"] / 4) != options["lease_interval"]:
        # NodeLeaseDurationSeconds / 4 (kwok, pkg/kwok/controllers/controller.go)
        found["lease_interval"] = (quarter, f"{quarter:g}, a quarter of lease_duration")
    return found


def refusal(spec: Spec) -> str:
    """One sentence with all that does not go together with the spec's engine; empty when all does."""
    if spec.engine not in LIMITS:
        return ""
    wrong = mismatches(spec.engine, msgspec.structs.asdict(spec))
    if wrong:
        parts = ", ".join(f"{name} {getattr(spec, name)!r} (allowed is {words})" for name, (_, words) in wrong.items())
        return f"engine is {spec.engine!r}, which does not go with {parts}: {LIMITS[spec.engine].why}"
    if not (os.path.isfile(spec.binary) and os.access(spec.binary, os.X_OK)):
        return f"binary is {spec.binary!r}; allowed with engine {spec.engine} is the path of its executable file"
    return ""
