"""Service level indicators of a run, by their definitions, from its bundle.

Definitions: kubernetes/community, sig-scalability/slos (api_call_latency.md, pod_startup_latency.md). Times are UNIX
seconds, durations seconds. A value that cannot be told is None; a pod that never started has started after inf.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from turbokube.bundle.reader import Reader

from .pods import percentile
from .series import GAP_INTERVALS, Metrics, Series, quantile_interval

# api_call_latency.md: "99th percentile over last 5 minutes".
API_WINDOW_S = 300.0
# Which clock the API server offers, best first: 1.26 and newer; 1.23 to 1.25; older (with webhooks and APF queues).
API_METRICS = (
    "apiserver_request_sli_duration_seconds",
    "apiserver_request_slo_duration_seconds",
    "apiserver_request_duration_seconds",
)
MUTATING = frozenset(("POST", "PUT", "PATCH", "APPLY", "DELETE"))
READING = frozenset(("GET", "LIST"))
WIDE_READS = frozenset(("read, namespace", "read, cluster"))
# Streams and calls whose length the client decides.
_STREAMS = frozenset(("attach", "exec", "log", "portforward", "proxy"))
# Resources that are answers to a question, not kept anywhere ("virtual" in api_call_latency.md).
_VIRTUAL = frozenset(
    ("componentstatuses", "selfsubjectreviews", "selfsubjectrulesreviews", "tokenreviews")
) | frozenset(f"{whose}subjectaccessreviews" for whose in ("", "local", "self"))
CHURN_WINDOW_S = 5.0
# Worst window of lease renewals, and how often those renew that are no nodes: client-go's leader election retries
# every 2 s (component-base, LeaderElectionConfiguration's RetryPeriod), an API server's identity lease every 10 s.
LEASE_WINDOW_S = 60.0
LEASE_JITTER = 0.04  # of the interval: the most that a kubelet waits longer (leaseController, controller.go)
ELECTION_RENEWALS_S = 1 / 2.0
IDENTITY_RENEWALS_S = 1 / 10.0
NODE_RENEWALS_S = 1 / 10.0  # a kubelet's by default (nodeLeaseDurationSeconds 40, a quarter of which is its interval)
# What of the interruptions is not the target: the agent writes its own, and components by their names.
_OURS = frozenset(("agent", "fleet", "phase", "unattended"))

# When a pod was created, scheduled and running: as the watch saw it; by the object's own times where it was listed.
CREATED = "CASE WHEN listed OR seen IS NULL THEN created ELSE seen END"
SCHEDULED = "CASE WHEN listed OR bound_seen IS NULL THEN scheduled ELSE bound_seen END"
RUNNING = "CASE WHEN listed AND running_seen IS NOT NULL THEN COALESCE(started, running_seen) ELSE running_seen END"


@dataclass(frozen=True, slots=True)
class Interruption:
    """Something did not answer, or we did not look, in [started, ended]."""

    started: float
    ended: float
    what: str
    detail: str
    ours: bool  # the measurement was away, not the target

    def overlaps(self, begin: float, end: float) -> bool:
        return self.started <= end and self.ended >= begin


@dataclass(frozen=True, slots=True)
class Calls:
    """API calls of one series in one window.

    `within`: how many took no longer than the limit, None if that is no bucket's edge.
    """

    begin: float
    end: float
    n: int
    within: int | None
    p99: tuple[float, float] | None

    @property
    def share(self) -> float | None:
        return self.within / self.n if self.n and self.within is not None else None


@dataclass(frozen=True, slots=True)
class CallSeries:
    """One (resource, verb) of mutating or (resource, scope) of reading calls."""

    resource: str
    kind: str  # verb, or "read, <scope>"
    limit: float
    whole: Calls
    windows: tuple[Calls, ...]


@dataclass(frozen=True, slots=True)
class ApiLatency:
    """`metric`: which clock; None if no API server was scraped."""

    metric: str | None
    windows: tuple[tuple[float, float], ...] = ()
    series: tuple[CallSeries, ...] = ()


@dataclass(frozen=True, slots=True)
class Throughput:
    """Pods that ran, from the first creation to the last one running. `peak`: best window of `window` s."""

    pods: int
    begin: float | None
    end: float | None
    window: float
    average: float | None
    peak: float | None
    churn: tuple[tuple[float, float], ...]  # (begin, per second) of windows of CHURN_WINDOW_S: slos.md's churn

    def busiest(self, begin: float = -math.inf, end: float = math.inf) -> float:
        """The highest churn in a span."""
        return max((rate for at, rate in self.churn if at < end and at + CHURN_WINDOW_S > begin), default=0.0)


@dataclass(frozen=True, slots=True)
class LeaseRatio:
    """Lease renewals made ÷ renewals due, by one witness, while the number of nodes stood still."""

    source: str  # fleet, apiserver
    overall: float | None
    seconds: float
    windows: tuple[tuple[float, float, float], ...]  # begin, end, ratio of each 60 s window

    @property
    def worst(self) -> tuple[float, float, float] | None:
        """The window that is farthest from 1."""
        return max(self.windows, key=lambda window: abs(window[2] - 1), default=None)


@dataclass(frozen=True, slots=True)
class Nodes:
    """Of the vnodes: the last count, the fewest Ready, how often one became NotReady, and when."""

    total: int
    ready: int
    fewest_ready_share: float
    notready: int
    notready_at: tuple[float, ...]


def interruptions(reader: Reader) -> tuple[Interruption, ...]:
    """All of a run, in order; one without an end lasts until the end of the record."""
    rows = reader.query(
        "SELECT started, COALESCE(ended, 9e12) AS ended, what, detail FROM interruptions ORDER BY started"
    )
    return tuple(
        Interruption(row["started"], row["ended"], row["what"] or "", row["detail"] or "", is_ours(row["what"] or ""))
        for row in rows
    )


def is_ours(what: str) -> bool:
    """Whether an interruption is of the measurement (the agent, the fleet, a pause), not of the target."""
    who = what.split()[0].rstrip(":").partition("-")[0] if what else ""  # fleet-3 is the fleet's
    return who in ("agent", "observer", "scraper", "unattended", "pause", "fleet")


def windows(begin: float, end: float, length: float = API_WINDOW_S) -> tuple[tuple[float, float], ...]:
    """Whole windows one after another and, if time is left, the last `length` seconds; a short run is one window."""
    if end - begin <= length:
        return ((begin, end),)
    found = [(begin + n * length, begin + (n + 1) * length) for n in range(int((end - begin) // length))]
    if end - found[-1][1] > 1.0:
        found.append((end - length, end))
    return tuple(found)


def call_key(labels: Any) -> tuple[str, str] | None:
    """(resource, verb) or (resource, "read, scope") of a request's labels; None if the SLI leaves it out."""
    verb, resource, subresource = labels.get("verb", ""), labels.get("resource", ""), labels.get("subresource", "")
    group = labels.get("group", "")
    if not resource or resource in _VIRTUAL or subresource in _STREAMS:
        return None
    if "." in group and not group.endswith(".k8s.io"):  # a custom resource's or an aggregated API's
        return None
    name = f"{resource}/{subresource}" if subresource else resource
    if verb in MUTATING:
        return name, verb
    if verb in READING and labels.get("scope"):
        return name, f"read, {labels['scope']}"
    return None


def call_limit(kind: str, limits: dict[str, float]) -> float:
    """The SLO's seconds for a series: by scope for wider reads, `single` for all else."""
    return limits[kind.removeprefix("read, ")] if kind in WIDE_READS else limits["single"]


def api_latency(metrics: Metrics, limits: dict[str, float]) -> ApiLatency:
    """API call latency per series and window, summed over the API servers."""
    metric = next((name for name in API_METRICS if metrics.has(f"{name}_bucket")), None)
    times = [
        t for name, kind in metrics.kinds.items() if kind == "kube-apiserver" for t in metrics.scrapes.get(name, [])
    ]
    if metric is None or not times:
        return ApiLatency(None)
    spans = windows(min(times), max(times))
    counts: dict[tuple[str, str], list[dict[float, float]]] = {}
    for rise in metrics.rises(f"{metric}_bucket"):
        if (key := call_key(rise.series.labels)) is None:
            continue
        edge = float(rise.series.labels["le"])
        buckets = counts.setdefault(key, [defaultdict(float) for _ in range(len(spans) + 1)])
        buckets[-1][edge] += rise.amount
        for number, (begin, end) in enumerate(spans):
            if begin < rise.time <= end:
                buckets[number][edge] += rise.amount
    whole = (spans[0][0], spans[-1][1])
    found = []
    for (resource, kind), tables in sorted(counts.items()):
        edges = set(tables[-1])  # an edge whose count rose nowhere in a window still is an edge
        limit = call_limit(kind, limits)
        per = [
            _calls(begin, end, table, edges, limit) for (begin, end), table in zip((*spans, whole), tables, strict=True)
        ]
        found.append(CallSeries(resource, kind, limit, per[-1], tuple(per[:-1])))
    return ApiLatency(metric, spans, tuple(found))


def _calls(begin: float, end: float, table: dict[float, float], edges: set[float], limit: float) -> Calls:
    buckets = {edge: table.get(edge, 0.0) for edge in edges}
    n = round(buckets.get(math.inf, max(buckets.values(), default=0.0)))
    # buckets below the fastest call never rise and so are not kept: the limit's is missing only if all were slower
    within = round(buckets.get(limit, 0.0)) if limit in buckets or min(edges, default=0.0) > limit else None
    return Calls(begin, end, n, within, quantile_interval(buckets, 0.99))


def rate_window(seconds: float) -> float:
    """Length of the windows of pods/s: 5 s for runs of minutes, 15 s for long ones."""
    return 5.0 if seconds <= 900 else 10.0 if seconds <= 1800 else 15.0


def per_window(reader: Reader, moment: str, start: float, window: float) -> dict[int, int]:
    """Pods per window: (number of the window after `start`) → how many have their `moment` in it."""
    sql = "SELECT CAST((t - ?) / ? AS INTEGER) AS w, COUNT(*) FROM (SELECT {} AS t FROM pods) WHERE t >= ? GROUP BY w"
    return {row[0]: row[1] for row in reader.query(sql.format(moment), start, window, start)}


def throughput(reader: Reader) -> Throughput:
    """Pods/s from the first pod's creation to the last one's running, best window, and the churn."""
    begin, end, count = reader.query(
        f"SELECT MIN(created), MAX({RUNNING}), COUNT(running_seen) FROM pods WHERE created IS NOT NULL"
    )[0]
    churned = churn(reader)
    if begin is None or end is None or not count:
        return Throughput(0, None, None, rate_window(0), None, None, churned)
    window = rate_window(end - begin)
    best = max(per_window(reader, RUNNING, begin, window).values(), default=0)
    length = max(end - begin, 1.0)  # creationTimestamp has whole seconds
    return Throughput(count, begin, end, window, count / length, best / window, churned)


def churn(reader: Reader) -> tuple[tuple[float, float], ...]:
    """Pods created and deleted and requests of the generator, per second, in windows; slos.md names it.

    It wants the count of a second; creationTimestamp has whole seconds, so that windows of one would tell nothing.
    """
    begin = reader.query(
        "SELECT MIN(t) FROM (SELECT MIN(created) AS t FROM pods UNION ALL SELECT MIN(second) FROM requests)"
    )[0][0]
    if begin is None:
        return ()
    found: dict[int, int] = {}
    moments = ("created", "CASE WHEN phase IS NULL THEN deleted_seen END")
    sql = "SELECT CAST((second - ?) / ? AS INTEGER), SUM(sent) FROM requests GROUP BY 1"
    sent = {row[0]: row[1] for row in reader.query(sql, begin, CHURN_WINDOW_S)}
    for counts in (sent, *(per_window(reader, moment, begin, CHURN_WINDOW_S) for moment in moments)):
        for slot, count in counts.items():
            found[slot] = found.get(slot, 0) + count
    return tuple((begin + slot * CHURN_WINDOW_S, n / CHURN_WINDOW_S) for slot, n in sorted(found.items()))


def nodes(reader: Reader) -> Nodes | None:
    """What the observer saw of the vnodes; None when it saw nothing."""
    rows = reader.query("SELECT time, total, ready, notready_events FROM nodes ORDER BY time")
    if not rows:
        return None
    flips = tuple(
        after["time"] for before, after in itertools.pairwise(rows)
        if after["notready_events"] > before["notready_events"]
    )  # fmt: skip
    share = min((row["ready"] / row["total"] for row in rows if row["total"]), default=0.0)
    most = max(row["notready_events"] for row in rows)
    return Nodes(rows[-1]["total"], rows[-1]["ready"], share, most, flips)


class LeasePeriod:
    """The mean seconds from one renewal of a Lease to the next that is due.

    At fidelity `lease` a clock decides, and it is the interval. A kubelet waits from the answer to its last renewal for
    the interval and up to LEASE_JITTER of it more (wait.JitterUntil, sliding), so its mean has half of that and the
    latency of a renewal in it.
    """

    def __init__(self, metrics: Metrics, interval: float, fidelity: str = "lease") -> None:
        self.interval = interval
        self._mean = interval
        self._spent: list[tuple[float, float, float]] = []
        self._answered: list[tuple[float, float, float]] = []
        if fidelity != "lease":
            self._mean *= 1 + LEASE_JITTER / 2
            self._spent, self._answered = (
                _rises(metrics, f"turbokube_fleet_lease_latency_seconds_{what}", lambda series: True)
                for what in ("sum", "count")
            )

    def of(self, begin: float, end: float) -> float:
        """That of the time from `begin` to `end`."""
        answered = _made(self._answered, begin, end)
        return self._mean + (_made(self._spent, begin, end) / answered if answered else 0.0)


def lease_ratios(reader: Reader, metrics: Metrics, period: LeasePeriod) -> tuple[LeaseRatio, ...]:
    """Renewals made ÷ renewals due (nodes / period per second), by the fleet's counter and by the API servers'."""
    spans = steady(reader, period.interval)
    fleet = _rises(metrics, "turbokube_fleet_lease_renewals_total", lambda series: True)
    served = _rises(metrics, "apiserver_request_total", is_lease_put)
    nodes = reader.query("SELECT COALESCE(MAX(count), 0) FROM counts WHERE source = 'others' AND resource = 'nodes'")
    others = other_renewals(metrics) + nodes[0][0] * NODE_RENEWALS_S
    found = []
    for source, kind, rises, aside in (("fleet", "fleet", fleet, 0.0), ("apiserver", "kube-apiserver", served, others)):
        each = [metrics.scrapes[one] for one, what in metrics.kinds.items() if what == kind and one in metrics.scrapes]
        times = _common(each, GAP_INTERVALS * metrics.interval)
        if rises and times:
            found.append(_ratio(source, spans, rises, times, period, aside))
    return tuple(found)


def oldest_renewal(metrics: Metrics) -> float | None:
    """The greatest age that any vnode's lease had, in seconds."""
    return max((value for _, _, value in metrics.samples("turbokube_fleet_lease_oldest_renewal_seconds")), default=None)


def is_lease_put(series: Series) -> bool:
    """Whether a series counts lease renewals that were accepted."""
    labels = series.labels
    return labels.get("resource") == "leases" and labels.get("verb") == "PUT" and labels.get("code", "200")[0] == "2"


def other_renewals(metrics: Metrics) -> float:
    """Lease PUTs per second that no vnode sends: leader elections and the API servers' own."""
    kinds = list(metrics.kinds.values())
    leading = (series for series, _, value in metrics.samples("leader_election_master_status") if value > 0)
    elections = len({series.labels.get("name", series.component) for series in leading})
    if not metrics.has("leader_election_master_status"):
        elections = kinds.count("kube-scheduler") + min(1, kinds.count("kube-controller-manager"))
    return elections * ELECTION_RENEWALS_S + kinds.count("kube-apiserver") * IDENTITY_RENEWALS_S


def steady(reader: Reader, interval: float) -> list[tuple[float, float, int]]:
    """(begin, end, nodes) of the spans in which the number of nodes stands, an interval after it came to stand."""
    spans: list[tuple[float, float, int]] = []
    for time, total in reader.query("SELECT time, total FROM nodes ORDER BY time"):
        if spans and spans[-1][2] == total:
            spans[-1] = (spans[-1][0], time, total)
        else:
            spans.append((time, time, total))
    return [(begin + interval, end, total) for begin, end, total in spans if total > 0 and end > begin + interval]


def _common(each: Sequence[Sequence[float]], gap: float) -> list[float]:
    """The moments of all components' scrapes from when the last began until the first ended.

    One that is silent for longer than `gap` at an end is not waited for: what it did not do then was not done.
    """
    begin, end = min((times[0] for times in each), default=0.0), max((times[-1] for times in each), default=0.0)
    begin = max((times[0] for times in each if times[0] - begin <= gap), default=begin)
    end = min((times[-1] for times in each if end - times[-1] <= gap), default=end)
    return sorted(t for times in each for t in times if begin <= t <= end)


def _rises(metrics: Metrics, metric: str, wanted: Any) -> list[tuple[float, float, float]]:
    """(since, time, amount) of the wanted rises of a counter, by time."""
    table: dict[tuple[str, float, float], float] = defaultdict(float)
    for rise in metrics.rises(metric):
        if wanted(rise.series):
            table[rise.series.component, rise.since, rise.time] += rise.amount
    return sorted(((since, time, amount) for (_, since, time), amount in table.items()), key=lambda row: row[1])


def _made(rises: Sequence[tuple[float, float, float]], begin: float, end: float) -> float:
    """How much of the rises falls into (begin, end], each spread evenly over its time."""
    made = 0.0
    for since, time, amount in rises[bisect.bisect_right(rises, begin, key=lambda row: row[1]) :]:
        overlap = min(end, time) - max(begin, since)
        if time > since and overlap > 0:
            made += amount * overlap / (time - since)
        elif since >= end:
            break
    return made


def _ratio(
    source: str,
    spans: Iterable[tuple[float, float, int]],
    rises: Sequence[tuple[float, float, float]],
    times: Sequence[float],
    period: LeasePeriod,
    aside: float,
) -> LeaseRatio:
    """The ratio over all spans and per window of 60 s, from scrape to scrape; `aside` renewals/s are no vnode's."""
    made = due = seconds = 0.0
    found: list[tuple[float, float, float]] = []
    for begin, end, count in spans:
        inside = times[bisect.bisect_left(times, begin) : bisect.bisect_right(times, end)]
        if len(inside) < 2:
            continue
        length = inside[-1] - inside[0]
        made += _made(rises, inside[0], inside[-1]) - aside * length
        due += count / period.of(inside[0], inside[-1]) * length
        seconds += length
        for first in inside:
            at = bisect.bisect_left(inside, first + LEASE_WINDOW_S)
            if at < len(inside):
                last = inside[at]
                rate = _made(rises, first, last) / (last - first) - aside
                found.append((first, last, rate / (count / period.of(first, last))))
    return LeaseRatio(source, made / due if due else None, seconds, tuple(found))


def lags(reader: Reader, metrics: Metrics) -> dict[str, tuple[int, float, float]]:
    """(samples, p99, max) of our own measured lag: loop, send and observer per second, the fleet's loop per scrape."""
    values: dict[str, list[float]] = {}
    for who, seconds in reader.query("SELECT who, seconds FROM lag WHERE seconds IS NOT NULL"):
        values.setdefault(who, []).append(seconds)
    fleet = [value for _, _, value in metrics.samples("turbokube_fleet_loop_lag_seconds")]
    if fleet:
        values["fleet"] = fleet
    found = {}
    for who, each in values.items():
        each.sort()
        found[who] = (len(each), percentile(each, 0, 0.99) or 0.0, each[-1])
    return found


def coverage(metrics: Metrics, phases: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Per API server, the share of the load's time that lies between two successful scrapes without a gap."""
    begin = min((phase["started"] for phase in phases if phase["started"]), default=None)
    end = max((phase["ended"] for phase in phases if phase["ended"]), default=None)
    if begin is None or end is None or end <= begin:
        return {}
    found = {}
    for name in sorted(name for name, kind in metrics.kinds.items() if kind == "kube-apiserver"):
        times = metrics.scrapes.get(name, [])
        seen = sum(
            max(0.0, min(end, b) - max(begin, a)) for a, b in itertools.pairwise(times) if metrics.whole(name, a, b)
        )
        found[name] = seen / (end - begin)
    return found


def recorded(reader: Reader, phases: Sequence[dict[str, Any]], gaps: Sequence[Interruption]) -> float | None:
    """The share of the load's seconds that the agent has a record of, its named absences aside; None without load."""
    spans = [(phase["started"], phase["ended"]) for phase in phases if phase["started"] and phase["ended"]]
    if not spans:
        return None
    begin, end = min(span[0] for span in spans), max(span[1] for span in spans)
    away = sum(
        max(0.0, min(gap.ended, end) - max(gap.started, begin)) for gap in gaps if gap.what in ("agent", "phase")
    )
    seconds = int(end - begin - away)
    if seconds < 1:
        return 1.0
    rows = reader.query("SELECT COUNT(*) FROM lag WHERE who = 'loop' AND time > ? AND time <= ?", begin, end + 1.0)
    return min(1.0, float(rows[0][0]) / seconds)
