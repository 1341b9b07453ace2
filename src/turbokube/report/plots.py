"""The plots of a report, as data that page.js draws. A time plot has a value per cell of its grid, None for a gap."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from turbokube.bundle.reader import Reader
from turbokube.measure import sli
from turbokube.measure.facts import Facts, lease_period
from turbokube.measure.offered import INTENDED
from turbokube.measure.series import Grid, Line, Metrics, Series, grid

_MOST_LINES = 9  # what a legend and a palette bear; the rest is summed up
_CDF_POINTS = 200
_MOST_PHASES = 24
_WRONG = ("throttled", "retried", "failed")
CONTROL_PLANE = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kine")


@dataclass(frozen=True)
class Plot:
    """One plot. `x` is the grid's (time) or each line's own; `style`: line, area (stacked), scatter."""

    name: str
    title: str
    unit: str
    lines: Mapping[str, Any]  # name → values, or (x, y) pairs of lists when `axis` is set
    cells: Grid | None = None
    style: str = "line"
    note: str = ""
    axis: str = ""  # title of an x axis that is not time
    log: bool = False
    band: tuple[float, float] | None = None  # of y: where a limit wants the line

    def data(self, origin: float) -> dict[str, Any]:
        """What page.js reads; times are seconds after `origin`."""
        found: dict[str, Any] = {
            key: getattr(self, key) for key in ("name", "title", "unit", "style", "note", "axis", "log")
        }
        found["band"] = self.band
        if self.cells:
            found["start"] = short(self.cells.start + self.cells.step / 2 - origin)
            found["step"] = self.cells.step
            found["lines"] = [{"name": name, "y": [short(y) for y in line]} for name, line in self.lines.items()]
        else:
            found["lines"] = [
                {"name": name, "x": [short(x) for x in xs], "y": [short(y) for y in ys]}
                for name, (xs, ys) in self.lines.items()
            ]
        return found


def short(value: float | None) -> float | None:
    """Four significant digits, as a page needs; None for what JSON has no word for."""
    if value is None or not math.isfinite(value):
        return None
    found = float(f"{value:.4g}") if abs(value) < 10_000 else round(value)
    return int(found) if found == int(found) else found


@dataclass
class Plots:
    """Draws on a bundle for every plot that it has data for."""

    reader: Reader
    metrics: Metrics
    facts: Facts
    span: tuple[float, float]
    cells: Grid = field(init=False)

    def __post_init__(self) -> None:
        self.cells = grid(*self.span, self.metrics.interval)

    def all(self) -> list[Plot]:
        """All plots in the order of the page; those without data are left out."""
        makers: tuple[Callable[[], Iterable[Plot]], ...] = (
            self.pods, self.by_nodes, self.startup, self.requests, self.latency, self.store, self.processes,
            self.nodes, self.leases, self.scheduler, self.fairness, self.watches, self.controllers,
            self.offered, self.generator, self.lag,
        )  # fmt: skip
        return [plot for maker in makers for plot in maker() if any(_has(line) for line in plot.lines.values())]

    def _time(self, name: str, title: str, unit: str, lines: Mapping[str, Line], **more: Any) -> Plot:
        return Plot(name, title, unit, lines, self.cells, **more)

    @cached_property
    def _pod_lines(self) -> tuple[Grid, dict[str, Line]]:
        window = sli.rate_window(self.span[1] - self.span[0])
        cells = grid(*self.span, window, most=400)
        blind = [(gap.started, gap.ended) for gap in self.facts.interruptions if gap.what == "agent"]
        lines: dict[str, Line] = {}
        for name, moment in (("created", sli.CREATED), ("scheduled", sli.SCHEDULED), ("running", sli.RUNNING)):
            counts = sli.per_window(self.reader, moment, cells.start, cells.step)
            lines[name] = [
                None if _inside(cells.edges(cell), blind) else counts.get(cell, 0) / cells.step
                for cell in range(cells.count)
            ]
        return cells, lines

    def pods(self) -> Iterable[Plot]:
        cells, lines = self._pod_lines
        note = f"windows of {cells.step:g} s"
        yield Plot("pods", "Pods per second", "pods/s", lines, cells, note=note)

    def by_nodes(self) -> Iterable[Plot]:
        cells, lines = self._pod_lines
        totals = self.reader.query("SELECT time, total FROM nodes ORDER BY time")
        counts = [row["total"] for row in totals]
        if counts and min(counts) < 0.9 * max(counts):
            moments, title = [(row["time"], row["total"]) for row in totals], "nodes joined"
        else:
            sql = f"SELECT MIN({sli.RUNNING}) AS t FROM pods WHERE running_seen IS NOT NULL GROUP BY node ORDER BY t"
            moments = [(row["t"], number + 1) for number, row in enumerate(self.reader.query(sql))]
            title = "nodes that carry pods"
        xs: list[float | None] = []
        ys: list[float | None] = []
        at, load = 0, self.facts.throughput
        for cell, rate in enumerate(lines["running"]):
            begin, end = cells.edges(cell)
            inside = load.begin is not None and load.end is not None and load.begin <= begin and end <= load.end
            if not inside or any(gap.overlaps(begin, end) for gap in self.facts.interruptions):
                continue
            while at < len(moments) and moments[at][0] <= end:
                at += 1
            if at and rate is not None:
                xs.append(moments[at - 1][1])
                ys.append(rate)
        note = f"each dot is a whole window of {cells.step:g} s without an interruption"
        yield Plot(
            "by-nodes", "Pods per second against nodes", "pods/s", {"running": (xs, ys)}, None, "scatter", note, title
        )

    def startup(self) -> Iterable[Plot]:
        lines = {}
        for start in self.facts.startups:
            values = start.values
            if len(values):
                picks = sorted({round(n * (len(values) - 1) / _CDF_POINTS) for n in range(_CDF_POINTS + 1)})
                lines[start.clock] = ([values[n] for n in picks], [100 * (n + 1) / start.n for n in picks])
        note = "share of all pods, those that never started included; the objects' own times are whole seconds"
        yield Plot("startup", "Pod startup", "% of pods", lines, None, "line", note, "seconds")

    def requests(self) -> Iterable[Plot]:
        rates = self.metrics.rates("apiserver_request_total", _resource_verb, self.cells)
        yield self._time("requests", "Requests by resource and verb", "requests/s", _most(rates), style="area")
        total, leases = _sum(rates.values()), _sum(line for name, line in rates.items() if name.startswith("leases "))
        share: Line = [100 * (b or 0) / a if a else None for a, b in zip(total, leases, strict=True)]
        failed = self.metrics.rates("apiserver_request_total", _failed, self.cells)
        yield self._time("lease-share", "Share of leases in all requests", "%", {"leases": share})
        yield self._time("failed", "Requests that were refused or failed", "requests/s", _most(failed))

    def latency(self) -> Iterable[Plot]:
        if self.facts.api.metric is None:
            return
        lines = self.metrics.quantile_lines(self.facts.api.metric, _verb, self.cells, (0.99,))
        named = {name: line for (name, _), line in sorted(lines.items())}
        note = "interpolated within the histogram's bucket; the table has the exact shares"
        yield self._time("latency", "API call latency, p99 by verb", "s", named, note=note, log=True)

    def store(self) -> Iterable[Plot]:
        for name, title, metric in (
            ("fsync", "Store: fsync of the log", "etcd_disk_wal_fsync_duration_seconds"),
            ("commit", "Store: commit", "etcd_disk_backend_commit_duration_seconds"),
            ("sql", "Store: SQL statements", "kine_sql_time_seconds"),
            ("store-latency", "Store, as the API servers see it", "etcd_request_duration_seconds"),
        ):
            lines = self.metrics.quantile_lines(metric, lambda series: "", self.cells, (0.5, 0.99))
            named = {f"p{q * 100:g}": [None if y is None else 1000 * y for y in line] for (_, q), line in lines.items()}
            yield self._time(name, title, "ms", named, note="over all members")
        sizes = {}
        for name, metric in (("file", "total_size"), ("in use", "total_size_in_use")):
            for component, line in self.metrics.levels(
                f"etcd_mvcc_db_{metric}_in_bytes", _component, self.cells
            ).items():
                sizes[f"{component} {name}"] = _scaled(line, 2**-20)
        quota = max((value for _, _, value in self.metrics.samples("etcd_server_quota_backend_bytes")), default=0.0)
        most = max((y for line in sizes.values() for y in line if y is not None), default=0.0)
        note = f"quota {quota / 2**20:,.0f} MiB, {100 * most * 2**20 / quota:.1f} % of it used at most" if quota else ""
        yield self._time("size", "Store: size", "MiB", sizes, note=note)

    def processes(self) -> Iterable[Plot]:
        cpu = self.metrics.rates("process_cpu_seconds_total", _process, self.cells)
        yield self._time("cpu", "CPU by process", "cores", _most(cpu), style="area", note="ours are fleet and agent")
        memory = self.metrics.levels("process_resident_memory_bytes", _process, self.cells)
        lines = {name: _scaled(line, 2**-20) for name, line in memory.items()}
        yield self._time("memory", "Resident memory by process", "MiB", _most(lines))

    def nodes(self) -> Iterable[Plot]:
        rows = self.reader.query("SELECT time, total, ready FROM nodes ORDER BY time")
        lines: dict[str, Line] = {"total": [], "Ready": []}
        at = 0
        for cell in range(self.cells.count):
            while at + 1 < len(rows) and rows[at + 1]["time"] <= self.cells.edges(cell)[1]:
                at += 1
            known = bool(rows) and rows[at]["time"] <= self.cells.edges(cell)[1]
            lines["total"].append(rows[at]["total"] if known else None)
            lines["Ready"].append(rows[at]["ready"] if known else None)
        yield self._time("nodes", "Nodes", "nodes", lines)

    def leases(self) -> Iterable[Plot]:
        nodes = next(iter(self.nodes())).lines["total"]
        period, lines = lease_period(self.metrics, self.facts.meta), {}
        periods = [period.of(*self.cells.edges(cell)) for cell in range(len(nodes))]
        fleet = self.metrics.rates("turbokube_fleet_lease_renewals_total", lambda series: "by the fleet", self.cells)
        others = sli.other_renewals(self.metrics)
        served = self.metrics.rates(
            "apiserver_request_total",
            lambda series: "by the API servers" if sli.is_lease_put(series) else None,
            self.cells,
        )
        for name, aside, line in [(n, 0.0, y) for n, y in fleet.items()] + [(n, others, y) for n, y in served.items()]:
            pairs = zip(line, nodes, periods, strict=True)
            lines[name] = [None if y is None or not count else (y - aside) * mean / count for y, count, mean in pairs]
        due = f"nodes / {period.interval:g} s" if periods == [period.interval] * len(periods) else "renewals due"
        note = f"renewals made ÷ {due}; leader elections are taken off what the API servers count"
        yield self._time("leases", "Lease renewals made of those due", "ratio", lines, note=note, band=(0.97, 1.03))

    def scheduler(self) -> Iterable[Plot]:
        attempts = self.metrics.rates("scheduler_schedule_attempts_total", _label("result"), self.cells)
        yield self._time("attempts", "Scheduling attempts by result", "attempts/s", attempts)
        pending = self.metrics.levels("scheduler_pending_pods", _label("queue"), self.cells)
        yield self._time("pending", "Scheduler queues", "pods", pending)

    def fairness(self) -> Iterable[Plot]:
        prefix = "apiserver_flowcontrol_"
        seats = self.metrics.levels(f"{prefix}current_executing_seats", _label("priority_level"), self.cells)
        yield self._time("seats", "Priority and fairness: seats taken", "seats", _most(seats), note="by priority level")
        queued = self.metrics.levels(f"{prefix}current_inqueue_requests", _label("priority_level"), self.cells)
        rejected = self.metrics.rates(f"{prefix}rejected_requests_total", _label("priority_level"), self.cells)
        lines = {f"{name}, waiting": line for name, line in queued.items()}
        lines |= {f"{name}, rejected/s": line for name, line in rejected.items()}
        busy = {name: line for name, line in lines.items() if any(line)}
        yield self._time("queues", "Priority and fairness: waiting and rejected", "requests", _most(busy))

    def watches(self) -> Iterable[Plot]:
        events = self.metrics.rates("apiserver_watch_events_total", _label("resource"), self.cells)
        yield self._time("watch-events", "Events sent to watchers by resource", "events/s", _most(events))
        held = self.metrics.levels("apiserver_longrunning_requests", _watched, self.cells)
        yield self._time("watches", "Watches open by resource", "watches", _most(held))

    def controllers(self) -> Iterable[Plot]:
        depth = self.metrics.levels("workqueue_depth", _label("name"), self.cells)
        busy = {name: line for name, line in depth.items() if any(line)}
        yield self._time("workqueues", "Controller queues", "items", _most(busy), note="those that ever were not empty")
        held = self.metrics.rates("rest_client_rate_limiter_duration_seconds_sum", _component, self.cells)
        note = "seconds per second that requests waited for the client's own QPS limit"
        yield self._time(
            "limiter", "Client-side throttling", "s/s", {n: y for n, y in held.items() if any(y)}, note=note
        )

    def offered(self) -> Iterable[Plot]:
        """One plot per phase, over its own time."""
        for offer in self.facts.offers[:_MOST_PHASES]:
            if offer.begin is None or offer.end is None:
                continue
            cells = grid(offer.begin, offer.end, 1.0, most=300)
            lines: dict[str, Line] = {name: [0.0] * cells.count for name in ("intended", "accepted", *_WRONG)}
            sql = "SELECT second, SUM({}), {} FROM requests WHERE phase = ? GROUP BY second"
            sums = ", ".join(f"SUM({name})" for name in ("accepted", *_WRONG))
            for second, *values in self.reader.query(sql.format(INTENDED, sums), offer.phase):
                cell = cells.cell(second + 0.5)
                if 0 <= cell < cells.count:
                    for line, value in zip(lines.values(), values, strict=True):
                        line[cell] = (line[cell] or 0.0) + (value or 0) / cells.step
            kept = {name: line for name, line in lines.items() if name in ("intended", "accepted") or any(line)}
            kind = "open loop" if offer.open_loop else "closed loop: intended is what was sent first"
            yield Plot(f"offered-{offer.phase}", f"Phase {offer.phase}", "requests/s", kept, cells, note=kind)

    def generator(self) -> Iterable[Plot]:
        cells = grid(*self.span, 1.0, most=300)
        lines: dict[str, Line] = {name: [0.0] * cells.count for name in ("accepted", "throttled", "retried", "failed")}
        slowest: Line = [None] * cells.count
        sql = "SELECT second, SUM(accepted), SUM(throttled), SUM(retried), SUM(failed), MAX(latency_max) FROM requests"
        for second, *values, most in self.reader.query(sql + " GROUP BY second"):
            cell = cells.cell(second + 0.5)
            if 0 <= cell < cells.count:
                for line, value in zip(lines.values(), values, strict=True):
                    line[cell] = (line[cell] or 0.0) + value / cells.step
                slowest[cell] = max(slowest[cell] or 0.0, most or 0.0)
        kept = {name: line for name, line in lines.items() if name == "accepted" or any(line)}
        yield Plot("sent", "The load: requests of the generator", "requests/s", kept, cells)
        yield Plot(
            "seen-latency", "The load: slowest request as the generator saw it", "s", {"slowest": slowest}, cells
        )

    def lag(self) -> Iterable[Plot]:
        cells = grid(*self.span, 1.0, most=300)
        lines: dict[str, Line] = {}
        for time, who, seconds in self.reader.query("SELECT time, who, seconds FROM lag ORDER BY time"):
            line, cell = lines.setdefault(who, [None] * cells.count), cells.cell(time)
            if 0 <= cell < cells.count and seconds is not None:
                line[cell] = max(line[cell] or 0.0, 1000 * seconds)
        yield Plot("lag", "Lag of the measurement itself", "ms", lines, cells, note="worst of each window")


def _has(line: Any) -> bool:
    values = line[1] if isinstance(line, tuple) else line
    return any(value is not None for value in values)


def _inside(edges: tuple[float, float], spans: Iterable[tuple[float, float]]) -> bool:
    return any(begin < edges[1] and end > edges[0] for begin, end in spans)


def _scaled(line: Line, factor: float) -> Line:
    return [None if value is None else value * factor for value in line]


def _sum(lines: Iterable[Line]) -> Line:
    return [None if all(y is None for y in ys) else sum(y or 0.0 for y in ys) for ys in zip(*lines, strict=True)]


def _most(lines: Mapping[str, Line], most: int = _MOST_LINES) -> dict[str, Line]:
    """The largest lines by their sum; the others added up."""
    order: Sequence[str] = sorted(lines, key=lambda name: -sum(y or 0.0 for y in lines[name]))
    found = {name: lines[name] for name in order[:most]}
    if len(order) > most + 1:
        found[f"{len(order) - most} others"] = _sum(lines[name] for name in order[most:])
    elif len(order) > most:
        found[order[most]] = lines[order[most]]
    return found


def _component(series: Series) -> str:
    return series.component


def _process(series: Series) -> str:
    """A component, the processes of the fleet as one."""
    return "fleet" if series.kind == "fleet" else series.component


def _label(name: str) -> Callable[[Series], str | None]:
    return lambda series: series.labels.get(name)


def _watched(series: Series) -> str | None:
    return series.labels.get("resource") if series.labels.get("verb") == "WATCH" else None


def _verb(series: Series) -> str | None:
    key = sli.call_key(series.labels)
    return (
        None
        if key is None
        else f"LIST {series.labels['scope']}"
        if series.labels["verb"] == "LIST"
        else series.labels["verb"]
    )


def _resource_verb(series: Series) -> str:
    labels = series.labels
    resource = labels.get("resource") or "other"
    return (
        f"{resource}/{labels['subresource']} {labels['verb']}"
        if labels.get("subresource")
        else f"{resource} {labels['verb']}"
    )


def _failed(series: Series) -> str | None:
    code = series.labels.get("code", "")
    return f"{code} {_resource_verb(series)}" if code.startswith(("4", "5")) and code not in ("404",) else None
