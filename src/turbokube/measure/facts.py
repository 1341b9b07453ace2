"""All that is known of a run, and the settings that its numbers are read by."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from . import fidelity, offered, preconditions, sli
from .outcome import Bound
from .pods import Pods, Starts, Startup
from .series import Metrics


@dataclass(frozen=True)
class Facts:
    """All indicators of a run."""

    meta: dict[str, Any]
    phases: tuple[dict[str, Any], ...]
    pods: Pods
    nodes: sli.Nodes | None
    api: sli.ApiLatency
    startups: tuple[Startup, ...]
    throughput: sli.Throughput
    leases: tuple[sli.LeaseRatio, ...]
    oldest_renewal: float | None
    interruptions: tuple[sli.Interruption, ...]
    counts: dict[tuple[str, str], int]  # (source, resource) → objects
    lags: dict[str, tuple[int, float, float]]  # who → samples, p99, max
    coverage: dict[str, float]  # API server → share of the load's time between its scrapes
    fidelity: fidelity.Fidelity  # as measured
    starts: dict[tuple[str, bool], Starts] = field(default_factory=dict)
    # phase → pods that ran, first created, last running
    spans: dict[str, tuple[int, float, float]] = field(default_factory=dict)
    offers: tuple[offered.Offer, ...] = ()
    preconditions: tuple[preconditions.Precondition, ...] = ()
    recorded: float | None = None  # share of the load's seconds that there is a record of
    bounds: tuple[Bound, ...] = ()  # the profile's own limits

    @property
    def outages(self) -> tuple[sli.Interruption, ...]:
        """Interruptions of the target."""
        return tuple(gap for gap in self.interruptions if not gap.ours)

    @property
    def asked_fidelity(self) -> str:
        """The level that the run was to have."""
        return str(self.meta.get("fidelity") or "lease")

    @property
    def lease_interval(self) -> float:
        """Seconds between two renewals of a lease."""
        return lease_interval(self.meta)


def load_limits(slo: str = "current") -> dict[str, Any]:
    """The table of limits with the dated SLOs of that name in it; raises KeyError for a name that it does not have."""
    text = importlib.resources.files(__package__).joinpath("limits.json").read_bytes()
    found: dict[str, Any] = msgspec.json.decode(text)
    name = found["current"] if slo == "current" else slo
    return {"name": name, **found["slo"][name], **{key: found[key] for key in found if key not in ("current", "slo")}}


def limits_of(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a run's profile names."""
    return load_limits((meta.get("profile") or {}).get("turbokube_slo") or "current")


def lease_interval(meta: Mapping[str, Any]) -> float:
    """The profile's seconds between two renewals; the kubelet's 10 where it says nothing."""
    return float((meta.get("profile") or {}).get("turbokube_lease_interval_s") or 10.0)


def lease_period(metrics: Metrics, meta: Mapping[str, Any]) -> sli.LeasePeriod:
    """When renewals of a Lease are due, by the profile's interval and the fidelity of the vnodes."""
    engine = (meta.get("profile") or {}).get("turbokube_engine") or "builtin"
    # engines of others wait as the kubelet does, whatever their fidelity
    fidelity = str(meta.get("fidelity") or "lease") if engine == "builtin" else "kubelet"
    return sli.LeasePeriod(metrics, lease_interval(meta), fidelity)
