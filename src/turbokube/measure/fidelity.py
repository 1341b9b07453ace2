"""The fidelity that a fleet had, told from what the API servers counted, never from what was asked for.

A level is what a real kubelet and kube-proxy hold open and send: docs/fidelity.md, "Watches open per node" and
"Requests per node and minute". Told apart by watches that few but nodes have: there are cluster-wide watches of pods,
Services and Nodes by others too.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from turbokube.bundle.reader import Reader

from . import sli
from .series import Metrics, Series, grid

NODE_BY_NAME = "nodes by name"
RENEWALS = "lease renewals"  # made ÷ due
# Of one node, each level with all of those before it.
LEVELS: Mapping[str, Mapping[str, int]] = {
    "lease": {RENEWALS: 1},
    "kubelet": {NODE_BY_NAME: 1, "csidrivers": 1, "runtimeclasses": 1},
    "node": {NODE_BY_NAME: 2, "endpointslices": 1, "servicecidrs": 1},
}
# At most so many cluster-wide watches are of one instance itself (1.36.3: what is open without a node).
CONTROL_PLANE: Mapping[str, Mapping[str, int]] = {
    "kube-apiserver": {"runtimeclasses": 1, "servicecidrs": 1},
    "kube-controller-manager": {"csidrivers": 2, "runtimeclasses": 1, "endpointslices": 2, "servicecidrs": 1},
    "kube-scheduler": {"csidrivers": 1},
}
KUBELET_S = 10.0  # between a kubelet's renewals: a quarter of nodeLeaseDurationSeconds, 40
# A node that is away for a while holds none: faults and re-watches may take a tenth.
LEAST = 0.9


@dataclass(frozen=True, slots=True)
class Fidelity:
    """`level`: node, kubelet, lease or none; empty when it cannot be told, for `reason`.

    `per_node`: watches, and renewals made ÷ due, per vnode, without those that may be of others.
    """

    level: str
    reason: str = ""
    per_node: dict[str, float] = field(default_factory=dict)

    @property
    def words(self) -> str:
        """The level, or that there is none to tell."""
        return self.level or "cannot be told"


def judge(nodes: int, held: Mapping[str, float], others: Mapping[str, float]) -> Fidelity:
    """The highest level of which all is there.

    `held`: all that the API servers counted of `nodes` vnodes together, by the names in LEVELS; what is absent is none.
    `others`: how much of it may be of others. Where the level hangs on whether it is, it cannot be told.
    """
    if RENEWALS not in held or len(held) == 1:  # every control plane watches something of LEVELS itself
        what = "lease renewals" if RENEWALS not in held else "watches"
        return Fidelity("", f"no API server told of {what} while the number of vnodes stood still")
    wanted = {name: count for wants in LEVELS.values() for name, count in wants.items()}
    per_node = {name: max(0.0, held.get(name, 0.0) - others.get(name, 0.0)) / nodes for name in wanted}
    reached = "none"
    for level, wants in LEVELS.items():
        short = [name for name, count in wants.items() if per_node[name] < LEAST * count]
        if not short:
            reached = level
            continue
        missing = [name for name in short if held.get(name, 0.0) < LEAST * wants[name] * nodes]
        if missing:
            each = ", ".join(f"{per_node[name]:.2f} {name}, not {wants[name]}" for name in missing)
            return Fidelity(reached, f"not {level}: a vnode has {each}", per_node)
        each = ", ".join(f"{held[name]:.0f} {name}, up to {others[name]:.0f} of others" for name in short)
        return Fidelity("", f"{reached} or {level}: with {nodes} vnodes there are {each}", per_node)
    return Fidelity(reached, "", per_node)


def measure(reader: Reader, metrics: Metrics, leases: Sequence[sli.LeaseRatio], interval: float) -> Fidelity:
    """The level of a run's fleet at its full size, by medians: joining, an outage and a fault are passed over.

    `interval`: seconds from one renewal of a Lease to the next.
    """
    spans = sli.steady(reader, interval)
    nodes = max((total for _, _, total in spans), default=0)
    if not nodes:
        return Fidelity("", "no number of vnodes stood still for long enough")
    full = [(begin, end) for begin, end, total in spans if total == nodes]
    held = _watches(metrics, full)
    ratio = _renewals(next((each for each in leases if each.source == "apiserver"), None), sli.interruptions(reader))
    if ratio is not None:
        held[RENEWALS] = nodes * ratio
    return judge(nodes, held, _others(metrics, nodes, interval))


def _renewals(ratio: sli.LeaseRatio | None, gaps: Sequence[sli.Interruption]) -> float | None:
    """Made ÷ due, the median of the windows without an interruption; of all the time in a run that has no window."""
    if ratio is None or not (ratio.windows or gaps):
        return ratio.overall if ratio else None
    calm = [each for begin, end, each in ratio.windows if not any(gap.overlaps(begin, end) for gap in gaps)]
    return statistics.median(calm) if calm else None


def _watches(metrics: Metrics, spans: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Watches open at the scrapes of these spans, by name."""
    cells = grid(spans[0][0], spans[-1][1], metrics.interval)
    inside = [n for n in range(cells.count) if any(a <= cells.edges(n)[1] <= b + cells.step for a, b in spans)]
    found = {}
    for name, line in metrics.levels("apiserver_longrunning_requests", _name, cells).items():
        values = [value for n in inside if (value := line[n]) is not None]
        if values:
            found[name] = statistics.median(values)
    return found


def _name(series: Series) -> str | None:
    """What a series counts in LEVELS' names. Only who selects one Node by its name watches at scope resource."""
    labels = series.labels
    resource, scope = labels.get("resource", ""), labels.get("scope")
    if labels.get("verb") != "WATCH":
        return None
    if resource == "nodes":
        return NODE_BY_NAME if scope == "resource" else None
    return resource if scope == "cluster" else None


def _others(metrics: Metrics, nodes: int, interval: float) -> dict[str, float]:
    """The most that the control plane and Nodes that are not the run's may have, those with kubelet and kube-proxy."""
    kinds = list(metrics.kinds.values())
    found: dict[str, float] = {}
    for kind, watches in CONTROL_PLANE.items():
        # of controller managers one leads; one that is not scraped is there all the same
        count = 1 if kind == "kube-controller-manager" else max(1, kinds.count(kind))
        for name, each in watches.items():
            found[name] = found.get(name, 0.0) + each * count
    foreign = max(0, _all_nodes(metrics) - nodes)
    for name in {name for wants in LEVELS.values() for name in wants}:
        most = max(wants.get(name, 0) for wants in LEVELS.values())
        found[name] = found.get(name, 0.0) + foreign * most * (interval / KUBELET_S if name == RENEWALS else 1)
    return found


def _all_nodes(metrics: Metrics) -> int:
    """The most Nodes that the store had, as its API servers say."""
    names = ("apiserver_resource_objects", "apiserver_storage_objects")
    counts = (metrics.samples(name) for name in names)
    return int(
        max(
            (value for each in counts for series, _, value in each if series.labels.get("resource") == "nodes"),
            default=0,
        )
    )
