"""What each foreign engine can be told, and the sentence that refuses the rest."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..vnode.spec import Spec


@dataclass(frozen=True, kw_only=True)
class Limits:
    """An engine's. `only`: options that have one value there, and whose words they are; all others are free."""

    fidelities: tuple[str, ...]
    only: dict[str, Any] = field(default_factory=dict)
    why: str = ""


# What none of them has: it is this project's engine's own.
_OURS: dict[str, Any] = {"processes": 1, "faults": [], "serve": False, "failure_rate": 0.0, "join": "certificate"}
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
# pkg node/lease_controller_v1.go: 40 s, a quarter of it; internal/provider/mock: pods run at once
_MOCK: dict[str, Any] = {
    name: value for name, value in _HOLLOW.items() if name not in ("cpu", "memory", "status_interval")
} | {"status_interval": 60.0}

LIMITS = {
    "kwok": Limits(fidelities=("lease",), only=_OURS, why="KWOK's nodes share their connections and watches"),
    "kubemark": Limits(
        fidelities=("kubelet", "node"), only=_OURS | _HOLLOW, why="hollow-node has no flags for anything else"
    ),
    "virtual_kubelet": Limits(
        fidelities=("lease",), only=_OURS | _MOCK, why="virtual-kubelet and its mock provider have no options for it"
    ),
}


def mismatches(spec: Spec) -> dict[str, tuple[Any, str]]:
    """Options that the spec's engine cannot have: option → (the value that is allowed, and in words what is)."""
    limits = LIMITS.get(spec.engine)
    if limits is None:
        return {}
    found: dict[str, tuple[Any, str]] = {}
    if spec.fidelity not in limits.fidelities:
        found["fidelity"] = (limits.fidelities[0], " or ".join(limits.fidelities))
    for option, value in limits.only.items():
        if getattr(spec, option) != value:
            found[option] = (value, repr(value) if value in ("", []) else f"{value}")
    if spec.engine == "kwok" and spec.lease_interval * 4 != spec.lease_duration:
        # NodeLeaseDurationSeconds / 4 (kwok, pkg/kwok/controllers/controller.go)
        found["lease_interval"] = (spec.lease_duration / 4, f"{spec.lease_duration / 4:g}, a quarter of lease_duration")
    return found


def refusal(spec: Spec) -> str:
    """One sentence with all that does not go together with the spec's engine; empty when all does."""
    wrong = mismatches(spec)
    if not wrong:
        return _binary(spec)
    parts = ", ".join(
        f"{option} {getattr(spec, option)!r} (allowed is {words})" for option, (_, words) in wrong.items()
    )
    return f"engine is {spec.engine!r}, which does not go with {parts}: {LIMITS[spec.engine].why}"


def _binary(spec: Spec) -> str:
    if spec.engine in LIMITS and not (os.path.isfile(spec.binary) and os.access(spec.binary, os.X_OK)):
        return f"binary is {spec.binary!r}; allowed with engine {spec.engine} is the path of its executable file"
    return ""
