"""What else those look at who know a control plane: who queues, and which resource is full. Tables, and their numbers.

A number's name ends in its unit. Where a histogram tells a quantile, the number is the upper edge of its bucket.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turbokube.bundle.reader import Reader
from turbokube.measure import sli
from turbokube.measure.outcome import interval_words
from turbokube.measure.pods import QUANTILES, percentile
from turbokube.measure.series import Metrics, Series, quantile_interval

SCHEDULED_WINDOW_S = 5.0  # of scheduler throughput, as ClusterLoader2's SchedulingThroughput has it
_MOST_ROWS = 12
OF_A_PROCESS = ("gomaxprocs", "gc_share", "gc_pause_s", "goroutines", "fds", "max_fds")
Key = Callable[[Series], str | None]


@dataclass(frozen=True)
class Table:
    """Rows under headings, everything in words."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass
class Experts:
    """Tables by the section of the page that they stand in, and all numbers by name."""

    reader: Reader
    metrics: Metrics
    seconds: float  # of the record
    tables: dict[str, list[Table]] = field(default_factory=dict)
    numbers: dict[str, float] = field(default_factory=dict)

    def build(self) -> Experts:
        """Itself, with everything that there is data for."""
        for section, part in (
            ("scheduler", self._throughput), ("scheduler", self._plugins), ("scheduler", self._queues),
            ("controllers", self._controllers), ("clients", self._clients), ("fairness", self._fairness),
            ("watch", self._watch), ("store", self._disk), ("store", self._store),
        ):  # fmt: skip
            found = part()
            if found.rows:
                self.tables.setdefault(section, []).append(found)
        return self

    # parts

    def _throughput(self) -> Table:
        rates = scheduled_rates(self.reader)
        if not rates:
            return Table("", (), [])
        marks = [(f"p{q * 100:g}", percentile(rates, 0, q) or 0.0) for q in QUANTILES]
        marks += [("max", rates[-1]), ("mean", sum(rates) / len(rates))]
        for name, value in marks:
            self.numbers[f"scheduler_throughput_{name}_per_s"] = value
        title = f"Scheduler throughput, pods/s in windows of {SCHEDULED_WINDOW_S:g} s with something to schedule"
        row = (f"{len(rates):,}", *(f"{value:.1f}" for _, value in marks))
        return Table(title, ("windows", *(name for name, _ in marks)), [row])

    def _plugins(self) -> Table:
        metric = "scheduler_framework_extension_point_duration_seconds"
        sums = self.metrics.totals(f"{metric}_sum", _label("extension_point"))
        tables = self.metrics.histogram(metric, _label("extension_point"))
        rows = [
            (name, f"{tables[name].get(math.inf, 0):,.0f}", f"{sums[name]:,.2f} s", *_quantiles(tables[name]))
            for name in sorted(sums, key=lambda name: -sums[name]) if name in tables and sums[name]
        ]  # fmt: skip
        return Table("Plugins by extension point", ("point", "n", "time", "p50 between", "p99 between"), rows)

    def _queues(self) -> Table:
        most = self._most("scheduler_pending_pods", _label("queue"))
        came = self.metrics.totals("scheduler_queue_incoming_pods_total", _label("queue"))
        for name, value in most.items():
            self.numbers[f"scheduler_pending_{name}_max"] = value
        rows = [
            (name, f"{most.get(name, 0):,.0f}", f"{came.get(name, 0):,.0f}")
            for name in sorted({*most, *came}) if most.get(name) or came.get(name)
        ]  # fmt: skip
        return Table("Scheduler queues", ("queue", "pending, at most", "came in"), rows)

    def _controllers(self) -> Table:
        added = self.metrics.totals("workqueue_adds_total", _label("name"))
        retried = self.metrics.totals("workqueue_retries_total", _label("name"))
        depth = self._most("workqueue_depth", _label("name"))
        waits = self.metrics.histogram("workqueue_queue_duration_seconds", _label("name"))
        works = self.metrics.histogram("workqueue_work_duration_seconds", _label("name"))
        order = sorted((name for name in added if added[name]), key=lambda name: -added[name])[:_MOST_ROWS]
        rows = []
        for name in order:
            counts = (f"{added[name]:,.0f}", f"{retried.get(name, 0):,.0f}", f"{depth.get(name, 0):,.0f}")
            rows.append((name, *counts, _p99(waits.get(name)), _p99(works.get(name))))
        self.numbers |= {"workqueue_depth_max": max(depth.values(), default=0.0)}
        self._edge("workqueue_wait_p99_s", [waits[name] for name in order if name in waits])
        columns = ("queue", "added", "tried again", "depth, at most", "p99 of the wait", "p99 of the work")
        return Table("Controllers' queues", columns, rows)

    def _clients(self) -> Table:
        """The controller manager's and the schedulers' own clients."""
        codes = self.metrics.totals("rest_client_requests_total", lambda s: (s.component, s.labels.get("code")))
        held = self.metrics.totals("rest_client_rate_limiter_duration_seconds_sum", _component)
        waits = self.metrics.histogram("rest_client_rate_limiter_duration_seconds", _component)
        rows = []
        for name in sorted({component for component, _ in codes}):
            sent = sum(count for (component, _), count in codes.items() if component == name)
            refused = codes.get((name, "429"), 0.0)
            limited = f"{held.get(name, 0):,.1f} s"
            rows.append((name, f"{sent:,.0f}", f"{refused:,.0f}", limited, _p99(waits.get(name))))
        self.numbers["client_limiter_held_s"] = sum(held.values())
        self._edge("client_wait_p99_s", list(waits.values()))
        columns = ("client", "requests", "answered 429", "held by its limiter", "p99 of that")
        return Table("Components as clients", columns, rows)

    def _fairness(self) -> Table:
        prefix = "apiserver_flowcontrol_"
        level = _label("priority_level")
        seats = self._most(f"{prefix}current_executing_seats", level)
        limits = self._most(f"{prefix}nominal_limit_seats", level) | self._most(f"{prefix}current_limit_seats", level)
        queued = self._most(f"{prefix}current_inqueue_requests", level)
        rejected = self.metrics.totals(f"{prefix}rejected_requests_total", level)
        passed = self.metrics.totals(f"{prefix}dispatched_requests_total", level)
        waits = self.metrics.histogram(f"{prefix}request_wait_duration_seconds", level)
        rows = []
        for name in sorted((name for name in passed if passed[name]), key=lambda name: -passed[name]):
            limit = "" if name == "exempt" or not limits.get(name) else f" of {limits[name]:,.0f}"
            counts = (
                f"{seats.get(name, 0):,.0f}{limit}",
                f"{queued.get(name, 0):,.0f}",
                f"{rejected.get(name, 0):,.0f}",
            )
            rows.append((name, f"{passed[name]:,.0f}", *counts, _p99(waits.get(name))))
        self.numbers |= {"apf_rejected": sum(rejected.values()), "apf_queued_max": max(queued.values(), default=0.0)}
        answers = self.metrics.totals("apiserver_request_total", _label("code"))
        self.numbers["answers_429"] = answers.get("429", 0.0)
        self._edge("apf_wait_p99_s", list(waits.values()))
        columns = ("priority level", "let through", "seats, at most", "waiting, at most", "refused", "p99 of the wait")
        return Table("Priority and fairness", columns, rows)

    def _watch(self) -> Table:
        events = self.metrics.totals("apiserver_watch_events_total", _all)
        sent = self.metrics.totals("apiserver_watch_events_sizes_sum", _all)
        taken = self.metrics.totals("apiserver_watch_cache_events_received_total", _all)
        waits = self.metrics.histogram("apiserver_watch_cache_read_wait_seconds", _all)
        reads = self.metrics.totals("apiserver_watch_cache_consistent_read_total", _label("fallback"))
        cut = self.metrics.totals("apiserver_terminated_watchers_total", _all)
        held = self._most("apiserver_longrunning_requests", lambda s: "" if s.labels.get("verb") == "WATCH" else None)
        rows = []
        for title, name, value, unit in (
            ("events sent to watchers", "watch_events_per_s", _per(events, self.seconds), "/s"),
            ("bytes sent to watchers", "watch_bytes_per_s", _per(sent, self.seconds), "B/s"),
            ("events taken from the store", "cache_events_per_s", _per(taken, self.seconds), "/s"),
            ("watches open, at most", "watches_max", held.get(""), ""),
            ("consistent reads that went to the store", "consistent_read_fallbacks", reads.get("true"), ""),
            ("watchers cut off for being slow", "terminated_watchers", sum(cut.values()) if events else None, ""),
        ):
            if value is not None:
                self.numbers[name] = value
                rows.append((title, f"{value:,.0f} {unit}".strip()))
        if "" in waits:
            self._edge("cache_wait_p99_s", [waits[""]])
            n = f"{waits[''].get(math.inf, 0):,.0f}"
            rows.append(("p99 of how long reads waited for the watch cache to be fresh", f"{_p99(waits[''])} of {n}"))
        return Table("Watches and the watch cache", ("what", "value"), rows)

    def _disk(self) -> Table:
        rows = []
        for title, name, metric in (
            ("fsync of the log", "fsync", "etcd_disk_wal_fsync_duration_seconds"),
            ("commit of the backend", "commit", "etcd_disk_backend_commit_duration_seconds"),
            ("round trip between members", "peer_round_trip", "etcd_network_peer_round_trip_time_seconds"),
            ("SQL statement", "sql", "kine_sql_time_seconds"),
            ("request of an API server", "store_request", "etcd_request_duration_seconds"),
        ):
            for buckets in self.metrics.histogram(metric, _all).values():
                self._edge(f"{name}_p99_s", [buckets])
                rows.append((title, f"{buckets.get(math.inf, 0):,.0f}", *_quantiles(buckets)))
        return Table("Latency of the store", ("what", "n", "p50 between", "p99 between"), rows)

    def _store(self) -> Table:
        size = self._most("etcd_mvcc_db_total_size_in_bytes", _component)
        used = self._most("etcd_mvcc_db_total_size_in_use_in_bytes", _component)
        quota = self._most("etcd_server_quota_backend_bytes", _component)
        if share := max((size[name] / quota[name] for name in size if quota.get(name)), default=0.0):
            self.numbers |= {"store_bytes_max": max(size.values()), "store_share_max": share}
        rows = [(f"file of {name}", _bytes(size[name], quota.get(name))) for name in sorted(size)]
        rows += [(f"of it in use at {name}", _bytes(used[name], None)) for name in sorted(used)]
        for title, metric in (
            ("leaders elected", "etcd_server_leader_changes_seen_total"),
            ("proposals failed", "etcd_server_proposals_failed_total"),
            ("applies slower than 100 ms", "etcd_server_slow_apply_total"),
        ):
            rows += [(title, f"{sum(self.metrics.totals(metric, _all).values()):,.0f}")] if size else []
        for title, metric in (
            ("proposals waiting, at most", "etcd_server_proposals_pending"),
            ("watchers behind, at most", "etcd_debugging_mvcc_slow_watcher_total"),
            ("events waiting for watchers, at most", "etcd_debugging_mvcc_pending_events_total"),
        ):
            rows += [(title, f"{most:,.0f}") for most in self._most(metric, _all).values()]
        sent = self.metrics.totals("etcd_network_client_grpc_sent_bytes_total", _all)
        rows += [("sent to API servers", f"{total / self.seconds / 2**20:,.2f} MiB/s") for total in sent.values()]
        return Table("The store", ("what", "value"), rows)

    # helpers

    def _most(self, metric: str, key: Key) -> dict[str, float]:
        """The most that gauges of a key stood at together, at any scrape of one component."""
        values: dict[tuple[str, str], dict[int, float]] = {}
        order = sorted(self.metrics.samples(metric), key=lambda sample: sample[1])
        found: dict[str, float] = {}
        for series, _, value in order:
            if (name := key(series)) is not None:
                now = values.setdefault((name, series.component), {})
                now[id(series)] = value
                found[name] = max(found.get(name, 0.0), sum(now.values()))
        return found

    def _edge(self, name: str, tables: Iterable[Mapping[float, float]]) -> None:
        edges = [found[1] for buckets in tables if (found := quantile_interval(buckets, 0.99))]
        if edges:
            self.numbers[name] = max(edges)


def scheduled_rates(reader: Reader) -> list[float]:
    """Pods bound per second, sorted, of each window in which there was something to schedule.

    A window counts when a pod was bound in it, or was waiting for it when it began: idle ones would only dilute.
    """
    begin = reader.query(f"SELECT MIN({sli.CREATED}) FROM pods WHERE created IS NOT NULL")[0][0]
    if begin is None:
        return []
    counts = [
        sli.per_window(reader, moment, begin, SCHEDULED_WINDOW_S)
        for moment in (sli.CREATED, sli.SCHEDULED, "CASE WHEN bound_seen IS NULL THEN deleted_seen END")
    ]
    made, bound, gone = counts
    waiting, rates = 0, []
    for window in range(max(made | bound, default=-1) + 1):
        if waiting > 0 or bound.get(window):
            rates.append(bound.get(window, 0) / SCHEDULED_WINDOW_S)
        waiting += made.get(window, 0) - bound.get(window, 0) - gone.get(window, 0)
    return sorted(rates)


def processes(metrics: Metrics) -> dict[str, dict[str, Any]]:
    """OF_A_PROCESS per component: its cores, what the garbage collector took, its longest pause, open files."""
    found: dict[str, dict[str, Any]] = {}
    spent = metrics.totals("process_cpu_seconds_total", _component)
    for name, seconds in metrics.totals("go_cpu_classes_gc_total_cpu_seconds_total", _component).items():
        if spent.get(name):
            found.setdefault(name, {})["gc_share"] = seconds / spent[name]
    for what, metric, wanted in (
        ("gomaxprocs", "go_sched_gomaxprocs_threads", None),
        ("gc_pause_s", "go_gc_duration_seconds", "1"),
        ("goroutines", "go_goroutines", None),
        ("fds", "process_open_fds", None),
        ("max_fds", "process_max_fds", None),
    ):
        for series, _, value in metrics.samples(metric):
            if wanted is None or series.labels.get("quantile") == wanted:
                row = found.setdefault(series.component, {})
                row[what] = max(row.get(what, 0.0), value)
    return found


def _label(name: str) -> Key:
    return lambda series: series.labels.get(name)


def _all(series: Series) -> str:
    return ""


def _component(series: Series) -> str:
    return series.component


def _per(totals: Mapping[str, float], seconds: float) -> float | None:
    return sum(totals.values()) / seconds if totals else None


def _quantiles(buckets: Mapping[float, float]) -> tuple[str, str]:
    return interval_words(quantile_interval(buckets, 0.5)), _p99(buckets)


def _p99(buckets: Mapping[float, float] | None) -> str:
    return interval_words(quantile_interval(buckets, 0.99)) if buckets else "–"


def _bytes(size: float, quota: float | None) -> str:
    share = f", {size / quota:.1%} of its quota" if quota else ""
    return f"{size / 2**20:,.0f} MiB{share}"
