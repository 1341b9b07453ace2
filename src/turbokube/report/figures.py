"""What a finding is judged by: single numbers of a run, each by its name, from its bundle alone.

Scraped counters are taken over the load, from the first object that was meant to the last pod that ran, or over one
phase when it is named. A figure that a bundle cannot tell is None.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from turbokube.bundle.reader import Reader
from turbokube.measure import bottleneck
from turbokube.measure.offered import bucket_percentiles
from turbokube.measure.series import EVER, Metrics, Series, Span
from turbokube.predict.caps import Cause

from . import loads

FULL = "full_"  # full_<cause>: of the load's time, the share that this was full; causes as the report names them
Key = Callable[[Series], str | None]


class Record:
    """A bundle, and the phase that is asked about."""

    def __init__(self, reader: Reader, phase: str = "") -> None:
        self.reader = reader
        self.metrics = Metrics(reader)
        self.phase = phase

    @cached_property
    def load(self) -> bottleneck.Load | None:
        return bottleneck.read_load(self.reader)

    @cached_property
    def bound(self) -> bottleneck.Bottleneck | None:
        return bottleneck.name(self.reader, self.metrics)

    @cached_property
    def span(self) -> Span:
        """Begin and end of what counters are taken over."""
        if self.phase:
            rows = self.reader.query("SELECT started, ended FROM phases WHERE name = ?", self.phase)
            return (rows[0]["started"], rows[0]["ended"] or math.inf) if rows else (0.0, 0.0)
        return (self.load.begin, self.load.end) if self.load else EVER

    @cached_property
    def pods(self) -> int:
        """Those that ran."""
        ran: int = self.reader.query("SELECT COUNT(running_seen) FROM pods")[0][0]
        return ran

    @cached_property
    def nodes(self) -> int:
        """The most that there were at once."""
        return self.reader.query("SELECT MAX(total) FROM nodes")[0][0] or 0

    def rise(self, metric: str, wanted: Callable[[Series], bool] = lambda series: True) -> float | None:
        """What the series of a metric rose by together; None where there are none."""
        found = self.metrics.totals(metric, lambda series: "" if wanted(series) else None, self.span)
        return found.get("")

    def each_pod(self, total: float | None, unit: float = 1.0) -> float | None:
        """A total in so many units, for each pod that ran."""
        return total * unit / self.pods if total is not None and self.pods else None

    def per_second(self, total: float | None) -> float | None:
        begin, end = self.span
        return total / (end - begin) if total is not None and 0 < end - begin < math.inf else None

    def mean_ms(self, metric: str, wanted: Callable[[Series], bool] = lambda series: True) -> float | None:
        """Mean of a histogram in milliseconds."""
        total, count = self.rise(f"{metric}_sum", wanted), self.rise(f"{metric}_count", wanted)
        return 1e3 * total / count if total is not None and count else None


@dataclass(frozen=True, slots=True)
class Figure:
    """`title`: what it is, for people; `measure` gives it."""

    title: str
    unit: str
    measure: Callable[[Record], float | None]


def figure(name: str) -> Figure:
    """Raises KeyError for a name that there is none of."""
    if name.startswith(FULL):
        cause = Cause(name.removeprefix(FULL)) if name.removeprefix(FULL) in set(Cause) else None
        if cause is None:
            raise KeyError(name)
        title = f"share of the load's time, {bottleneck.TITLES[cause]}"
        return Figure(title, "", lambda record: _full(record, cause))
    return FIGURES[name]


def _full(record: Record, cause: Cause) -> float | None:
    bound = record.bound
    if bound is None:
        return None
    if bound.cause == cause:
        return bound.score
    return next((each.score for each in bound.others if each.cause == cause), None)


def _achieved(record: Record) -> float | None:
    return record.load.achieved if record.load else None


def _per_vnode(record: Record) -> list[int]:
    """Pods of each vnode at the end, those without any included."""
    sql = "SELECT COUNT(*) FROM pods WHERE node IS NOT NULL AND running_seen IS NOT NULL AND deleted_seen IS NULL"
    found = [row[0] for row in record.reader.query(f"{sql} GROUP BY node")]
    return found + [0] * (record.nodes - len(found)) if found else []


def _most_over_mean(record: Record) -> float | None:
    pods = _per_vnode(record)
    return max(pods) / statistics.fmean(pods) if pods else None


def _variation(record: Record) -> float | None:
    pods = _per_vnode(record)
    return statistics.pstdev(pods) / statistics.fmean(pods) if pods else None


def _is_lease(series: Series) -> bool:
    return series.labels.get("resource") == "leases"


def _renewals(record: Record) -> float | None:
    """Lease PUTs: those of the vnodes, and one every two seconds of each component that leads."""
    return record.rise("apiserver_request_total", lambda s: _is_lease(s) and s.labels.get("verb") == "PUT")


def _share(record: Record, metric: str) -> float | None:
    leases, total = record.rise(metric, _is_lease), record.rise(metric)
    return leases / total if leases is not None and total else None


def _reads(record: Record) -> float | None:
    """Requests of API servers to the store that read."""
    return record.rise(
        "etcd_requests_total", lambda series: series.labels.get("operation", "").startswith(("get", "list"))
    )


def _cpu(kind: str) -> Callable[[Record], float | None]:
    return lambda record: record.each_pod(record.rise("process_cpu_seconds_total", lambda s: s.kind == kind), 1e3)


def _busiest_scheduler(record: Record) -> float | None:
    metric = "scheduler_scheduling_algorithm_duration_seconds_sum"
    found = record.metrics.totals(metric, lambda series: series.component, record.span)
    return record.per_second(max(found.values(), default=None))


def _read_latency(quantile: str) -> Callable[[Record], float | None]:
    def measure(record: Record) -> float | None:
        rows = record.reader.query(
            "SELECT le, SUM(count) AS count FROM latencies WHERE phase = ? GROUP BY le ORDER BY le", record.phase
        )
        return bucket_percentiles([(row["le"], row["count"]) for row in rows])[quantile] if rows else None

    return measure


def _namespace_seconds(record: Record) -> float | None:
    times = [end - begin for _, begin, end in loads.namespaces(record.reader)]
    return statistics.median(times) if times else None


def _filtering(series: Series) -> bool:
    return series.labels.get("extension_point") == "Filter"


_POINT, _ALGORITHM = (
    "scheduler_framework_extension_point_duration_seconds",
    "scheduler_scheduling_algorithm_duration_seconds",
)
_SENT = "etcd_network_client_grpc_sent_bytes_total"

FIGURES: dict[str, Figure] = {
    "pods_per_second": Figure("pods that come to run", "pods/s", _achieved),
    "pods_ran": Figure("pods that ran", "pods", lambda record: float(record.pods)),
    "nodes": Figure("nodes", "", lambda record: float(record.nodes) or None),
    "namespace_seconds": Figure("one namespace, median", "s", _namespace_seconds),
    "fewest_pods": Figure("pods of the vnode with the fewest", "", lambda r: min(_per_vnode(r), default=None)),
    "most_pods": Figure("pods of the vnode with the most", "", lambda r: max(_per_vnode(r), default=None)),
    "most_over_mean": Figure("most pods of a vnode ÷ their mean", "", _most_over_mean),
    "variation": Figure("pods of a vnode: standard deviation ÷ mean", "", _variation),
    "requests_per_second": Figure(
        "API requests", "/s", lambda record: record.per_second(record.rise("apiserver_request_total"))
    ),
    "renewals_per_second": Figure("lease renewals", "/s", lambda record: record.per_second(_renewals(record))),
    "renewals_per_node": Figure(
        "lease renewals of each node", "/s",
        lambda r: (r.per_second(_renewals(r)) or 0.0) / r.nodes if r.nodes else None,
    ),
    "lease_share_of_requests": Figure(
        "share of API requests that are for leases", "", lambda r: _share(r, "apiserver_request_total")
    ),
    "lease_share_of_store": Figure(
        "share of requests to the store that are for leases", "", lambda r: _share(r, "etcd_requests_total")
    ),
    "store_reads_per_pod": Figure("reads of the store for each pod", "", lambda r: r.each_pod(_reads(r))),
    "store_kib_per_pod": Figure("sent by the store for each pod", "KiB", lambda r: r.each_pod(r.rise(_SENT), 1 / 1024)),
    "apiserver_cpu_ms_per_pod": Figure("CPU of the API servers for each pod", "ms", _cpu("kube-apiserver")),
    "etcd_cpu_ms_per_pod": Figure("CPU of etcd for each pod", "ms", _cpu("etcd")),
    "scheduler_cpu_ms_per_pod": Figure("CPU of the schedulers for each pod", "ms", _cpu("kube-scheduler")),
    "algorithm_ms": Figure("choosing a node, mean", "ms", lambda record: record.mean_ms(_ALGORITHM)),
    "filter_ms": Figure("filtering nodes for a pod, mean", "ms", lambda record: record.mean_ms(_POINT, _filtering)),
    "scheduler_busy": Figure("share of the time that the busiest scheduler chooses nodes", "", _busiest_scheduler),
    "latency_p50_s": Figure("latency from the intended time, p50", "s", _read_latency("p50")),
    "latency_p99_s": Figure("latency from the intended time, p99", "s", _read_latency("p99")),
}  # fmt: skip
