"""What bound a load, from the record alone: of each resource, the share of the load's time that it had no room left.

A resource that is full makes those wait that need it, and they look full in their turn: a slow store fills the
API server's seats, these the controllers' workers. So of all that were full the deepest is named first (`DEPTH`).
The machine's own cores come last and apart: on a machine that holds everything they are what is left to bind, or to be
taken by work that is not the run's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from turbokube.bundle.reader import Reader
from turbokube.predict import capacity, caps, coefficients
from turbokube.predict.caps import Cause
from turbokube.predict.machine import Machine
from turbokube.profile.schema import ProfileError, validate, variables

from .series import Grid, Line, Metrics, Series, grid, interpolated

# Named is what was full for most of the load's time; below it, something else held the load up for longer.
NAMED = 0.5
# The rate that was asked for counts as reached from here on: half of what a prediction may be wrong by.
REACHED = 0.9
# Full means, in one interval between scrapes:
WAITING = 1.0  # always at least one request waits, on average (Little's law: the sum of waits per second)
CPU = 0.85  # of what a process may use: garbage collection and the scheduling of threads take the rest
CORES = (
    0.85  # of the machine's, used by what was scraped: the kernel's work for it and short-lived processes come on top
)
BUSY = 0.95  # of the machine's, whoever uses them
SYNCING = 0.7  # of the time in fdatasync; on a machine that is full the log takes 0.4 of it, waiting for a core
LOOP = 0.8  # of the time in the scheduler's one loop
WORKERS = 0.9  # of a controller's workers at work
QUOTA = 0.95  # of the store's quota
LATE_S = 1.0  # a sending so much later than intended is late
START_S = 1.0  # a vnode that takes so long from binding to running is slow; it is told of no delay by default

DEPTH = (
    Cause.STORE,
    Cause.APISERVER_CPU,
    Cause.SEATS,
    Cause.CONTROLLER_MANAGER_QPS,
    Cause.SCHEDULER_QPS,
    Cause.SCHEDULER_CPU,
    Cause.CONTROLLER_MANAGER_CPU,
    Cause.SYNCS,
    Cause.FLEET,
    Cause.GENERATOR,
    Cause.MACHINE,
    Cause.OTHERS,
)
TITLES = {
    Cause.STORE: "the store is slow",
    Cause.APISERVER_CPU: "an API server is short of CPU",
    Cause.SEATS: "seats of API Priority and Fairness are taken",
    Cause.CONTROLLER_MANAGER_QPS: "the controller manager is held back by its own client's QPS",
    Cause.SCHEDULER_QPS: "the scheduler is held back by its own client's QPS",
    Cause.SCHEDULER_CPU: "the scheduler is short of CPU",
    Cause.CONTROLLER_MANAGER_CPU: "the controller manager is short of CPU",
    Cause.SYNCS: "a controller's workers are all at work",
    Cause.FLEET: "the fleet is slow to start pods",
    Cause.GENERATOR: "the load generator sends no faster",
    Cause.MACHINE: "all cores of the machine are in use",
    Cause.OTHERS: "other work on the machine takes its cores",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One cause. `score`: the share of the load's time that it was full, 0 to 1; `evidence`: the numbers behind it."""

    cause: Cause
    title: str
    score: float
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """What bound. `cause` is empty when nothing did, or nothing is known to have; rates are pods per second."""

    cause: str
    words: str
    score: float | None
    evidence: tuple[str, ...]
    others: tuple[Finding, ...]  # all that was looked at, the deepest that was full first
    offered: float | None = None  # in a closed loop none is
    achieved: float | None = None
    predicted: float | None = None
    predicted_by: str = ""

    @property
    def ratio(self) -> float | None:
        """Achieved ÷ predicted."""
        return self.achieved / self.predicted if self.achieved is not None and self.predicted else None


@dataclass(frozen=True)
class Load:
    """What was asked for and what came of it. Rates are from the first to the last event of the same kind."""

    begin: float
    end: float
    offered: float | None
    achieved: float | None
    late_share: float  # of the objects
    late_max: float
    bound_to_running: float  # mean seconds
    startup: float  # mean seconds from intended to running
    concurrency: int
    complete: bool


class Record:
    """The series of a run over the load's time. Cells without a phase at work do not count."""

    def __init__(self, metrics: Metrics, load: Load, spans: Iterable[tuple[float, float]], meta: Mapping[str, Any]):
        self.metrics = metrics
        self.load = load
        self.meta = meta
        self.grid: Grid = grid(load.begin, load.end, metrics.interval)
        spans = tuple(spans)
        middles = [sum(self.grid.edges(cell)) / 2 for cell in range(self.grid.count)]
        self.active = [any(begin <= middle <= end for begin, end in spans) for middle in middles]

    def rates(self, metric: str, key: Callable[[Series], str | None] = lambda series: series.kind) -> dict[str, Line]:
        """Rises per second; by kind of component unless told otherwise."""
        return self.metrics.rates(metric, key, self.grid)

    def levels(self, metric: str, key: Callable[[Series], str | None]) -> dict[str, Line]:
        """Gauges at the cells' ends."""
        return self.metrics.levels(metric, key, self.grid)

    def values(self, line: Line) -> list[float]:
        """What is known of a line while there was load."""
        cells = zip(line, self.active, strict=True) if line else ()
        return [value for value, active in cells if active and value is not None]

    def mean(self, line: Line) -> float:
        """0 when nothing is known."""
        values = self.values(line)
        return sum(values) / len(values) if values else 0.0

    def share(self, line: Line, full: float) -> float:
        """Of the load's time, the share that a line was at `full` or above."""
        values = self.values(line)
        return sum(value >= full for value in values) / len(values) if values else 0.0

    def processors(self, component: str) -> float:
        """Cores that a process may use: GOMAXPROCS as its runtime tells, else the machine's."""
        for series, _, value in self.metrics.samples("go_sched_gomaxprocs_threads"):
            if series.component == component and value:
                return value
        return self.cores

    @property
    def cores(self) -> float:
        """The machine's."""
        return float((self.meta.get("hardware") or {}).get("cores") or 1)

    def quantile(self, metric: str, q: float, wanted: Callable[[Series], bool]) -> float | None:
        """Over the whole run, interpolated in its bucket."""
        found = self.metrics.histogram(metric, lambda series: "" if wanted(series) else None)
        return interpolated(found.get("", {}), q)


def name(reader: Reader, metrics: Metrics) -> Bottleneck | None:
    """What bound the load of a bundle, beside what was predicted; None when no pods were asked for."""
    load = read_load(reader)
    if load is None:
        return None
    meta = reader.meta()
    record = Record(metrics, load, _spans(reader, load), meta)
    expected = prediction(metrics, meta)
    by = "" if expected is None else expected.bound_by
    return decide(load, findings(record), None if expected is None else expected.pods_per_second, by)


def findings(record: Record) -> list[Finding]:
    """Every cause that can be looked at, the deepest first."""
    parts: tuple[Callable[[Record], Iterator[Finding]], ...] = (
        _store,
        _cpu,
        _seats,
        _limiters,
        _scheduler,
        _workers,
        _fleet,
        _machine,
    )
    found = [finding for part in parts for finding in part(record)]
    found += _generator(record, found)
    return sorted(found, key=lambda finding: DEPTH.index(finding.cause))


def decide(load: Load, found: list[Finding], predicted: float | None = None, predicted_by: str = "") -> Bottleneck:
    """The deepest that was full for most of the time; nothing when the load got what it asked for."""
    ranked = sorted(found, key=lambda finding: finding.score < NAMED)  # stable: the deepest first
    rates = {"offered": load.offered, "achieved": load.achieved, "predicted": predicted, "predicted_by": predicted_by}
    reached = load.complete and load.offered is not None and (load.achieved or 0.0) >= REACHED * load.offered
    if reached or not ranked or ranked[0].score < NAMED:
        words = f"nothing: {_rates(load)}" if reached else f"not known: {_rates(load)}, and nothing was full"
        return Bottleneck("", words, None, (), tuple(ranked), **rates)  # type: ignore[arg-type]
    first, *others = ranked
    words = f"{first.title} ({first.score:.0%} of the load's time); {_rates(load)}"
    if any(each.cause == Cause.OTHERS and each.score >= NAMED for each in others):
        words += "; other work took the machine's cores meanwhile"
    return Bottleneck(first.cause, words, first.score, first.evidence, tuple(others), **rates)  # type: ignore[arg-type]


def _rates(load: Load) -> str:
    achieved = "no pods ran" if load.achieved is None else f"{load.achieved:.1f} pods/s were reached"
    return achieved if load.offered is None else f"{achieved} of {load.offered:.1f} offered"


# the load


_QUIET = ("pause", "wait", "scrape")  # kinds of phases that are no load


def _spans(reader: Reader, load: Load) -> list[tuple[float, float]]:
    """When phases were at work."""
    sql = "SELECT started, ended FROM phases WHERE started IS NOT NULL AND kind NOT IN (?, ?, ?)"
    return [(row["started"], row["ended"] or load.end) for row in reader.query(sql, *_QUIET)]


def read_load(reader: Reader) -> Load | None:
    """The load as ledger and observer have it."""
    rows = reader.query(
        "SELECT intended, sent, replicas FROM objects WHERE replicas > 0 AND intended IS NOT NULL ORDER BY intended"
    )
    if not rows:
        return None
    first, last = rows[0]["intended"], rows[-1]["intended"]
    total = sum(row["replicas"] for row in rows)
    ran = reader.query(
        "SELECT COUNT(running_seen) AS n, MIN(running_seen) AS first, MAX(running_seen) AS last,"
        " AVG(running_seen - bound_seen) AS start, AVG(running_seen - o.intended) AS whole FROM pods p LEFT JOIN ("
        "SELECT namespace, name, MIN(intended) AS intended FROM objects WHERE replicas > 0 GROUP BY namespace, name"
        ") o ON o.namespace = p.namespace AND o.name = p.owner WHERE NOT COALESCE(p.listed, 0)"
    )[0]
    phases = reader.query("SELECT spec, ended FROM phases WHERE kind = 'create'")
    specs = [msgspec.json.decode(phase["spec"] or "{}") for phase in phases]
    late = [max(0.0, (row["sent"] or last) - row["intended"]) for row in rows]
    return Load(
        begin=first,
        end=max(ran["last"] or 0.0, first + 1.0, *(phase["ended"] or 0.0 for phase in phases)),
        offered=_rate(total, rows[-1]["replicas"], first, last) if all(spec.get("rate") for spec in specs) else None,
        achieved=_rate(ran["n"], rows[0]["replicas"], ran["first"], ran["last"]) if ran["n"] else None,
        late_share=sum(each > LATE_S for each in late) / len(late),
        late_max=max(late),
        bound_to_running=ran["start"] or 0.0,
        startup=ran["whole"] or 0.0,
        concurrency=max((int(spec.get("concurrency") or 0) for spec in specs), default=0),
        complete=ran["n"] >= total,
    )


def _rate(count: int, aside: int, first: float, last: float) -> float | None:
    """Per second between the first and the last; `aside` of them are at one of the ends."""
    return (count - aside) / (last - first) if last > first and count > aside else None


# the causes


def _store(record: Record) -> Iterator[Finding]:
    fsync = _busiest(record, "etcd_disk_wal_fsync_duration_seconds_sum")
    commit = _busiest(record, "etcd_disk_backend_commit_duration_seconds_sum")
    sizes = record.levels("etcd_mvcc_db_total_size_in_bytes", lambda series: series.component)
    quotas = {series.component: value for series, _, value in record.metrics.samples("etcd_server_quota_backend_bytes")}
    full = {
        component: [None if value is None else value / quotas[component] for value in line]
        for component, line in sizes.items()
        if quotas.get(component)
    }
    if not fsync and not full:
        return
    syncing = max((record.share(line, SYNCING) for line in (fsync, commit) if line), default=0.0)
    filled = max((record.share(line, QUOTA) for line in full.values()), default=0.0)
    slow = [record.quantile(metric, 0.99, lambda series: True) for metric in (_FSYNC, _COMMIT)]
    evidence = [
        f"fdatasync of the log takes {record.mean(fsync):.0%} of the time, p99 {_ms(slow[0])}",
        f"commits of the backend take {record.mean(commit):.0%}, p99 {_ms(slow[1])}",
    ]
    evidence += [
        f"{component} fills {max(record.values(line), default=0.0):.0%} of its quota"
        for component, line in full.items()
        if record.share(line, QUOTA)
    ]
    yield _finding(Cause.STORE, max(syncing, filled), evidence)


_FSYNC, _COMMIT = "etcd_disk_wal_fsync_duration_seconds", "etcd_disk_backend_commit_duration_seconds"


def _cpu(record: Record) -> Iterator[Finding]:
    kinds = {
        "kube-apiserver": Cause.APISERVER_CPU,
        "kube-controller-manager": Cause.CONTROLLER_MANAGER_CPU,
    }
    used = record.rates("process_cpu_seconds_total", lambda series: series.component)
    for kind, cause in kinds.items():
        found = [
            _process(record, cause, component, used[component])
            for component in sorted(used)
            if record.metrics.kinds.get(component) == kind
        ]
        if found:
            yield max(found, key=lambda finding: finding.score)


def _process(record: Record, cause: Cause, component: str, line: Line) -> Finding:
    """A process against the cores that it may use."""
    procs = record.processors(component)
    waiting = record.rates("go_sched_latencies_seconds_sum", lambda series: series.component).get(component, [])
    evidence = [f"{component} uses {record.mean(line):.2f} of {procs:g} cores"]
    if waiting:
        evidence.append(f"{record.mean(waiting):.1f} of its goroutines wait for one")
    score = record.share(line, CPU * procs)
    if procs < record.cores:  # else what they wait for is the machine
        score = max(score, record.share(waiting, WAITING * procs))
    return _finding(cause, score, evidence)


def _seats(record: Record) -> Iterator[Finding]:
    def level(series: Series) -> str | None:
        return series.labels.get("priority_level")

    waits = record.rates("apiserver_flowcontrol_request_wait_duration_seconds_sum", level)
    refused = record.rates("apiserver_flowcontrol_rejected_requests_total", level)
    limits = record.levels("apiserver_flowcontrol_nominal_limit_seats", level)
    taken = record.levels("apiserver_flowcontrol_current_executing_seats", level)
    found = []
    for each in sorted(set(waits) | set(refused)):
        wait, refusals = waits.get(each), refused.get(each)
        score = max(
            record.share(wait or [], WAITING),
            record.share(refusals or [], WAITING),
        )
        limit = record.mean(limits[each]) if each in limits else 0.0
        evidence = [f"level {each}: {record.mean(wait or []):.1f} requests wait"]
        if each in taken and limit:
            evidence.append(f"{record.mean(taken[each]):.1f} of {limit:g} seats taken")
        if refusals and record.mean(refusals):
            evidence.append(f"{record.mean(refusals):.1f} requests a second refused")
        found.append(_finding(Cause.SEATS, score, evidence))
    if found:
        yield max(found, key=lambda finding: finding.score)


_LIMITER = "rest_client_rate_limiter_duration_seconds"


def _limiters(record: Record) -> Iterator[Finding]:
    waits = record.metrics.histogram(_LIMITER, lambda series: series.kind)
    waiting = record.rates(f"{_LIMITER}_sum")
    sent = record.rates("rest_client_requests_total")
    profile = record.meta.get("profile") or {}
    given, args = profile.get("turbokube_client_qps"), profile.get("turbokube_controller_manager_args") or {}
    for kind, cause in (
        ("kube-controller-manager", Cause.CONTROLLER_MANAGER_QPS),
        ("kube-scheduler", Cause.SCHEDULER_QPS),
    ):
        if kind not in waiting:
            continue
        half = _ms(interpolated(waits.get(kind, {}), 0.5))
        evidence = [
            f"{record.mean(waiting[kind]):.1f} requests wait in its client, half of all for {half} and longer",
            f"it sends {record.mean(sent.get(kind, [])):.0f} requests a second",
        ]
        limit = (args if kind == "kube-controller-manager" else {}).get("kube-api-qps", given)
        if limit:
            evidence.append(f"its QPS is {float(limit):g}")
        yield _finding(cause, record.share(waiting[kind], WAITING), evidence)


def _scheduler(record: Record) -> Iterator[Finding]:
    """Its loop takes one pod at a time; with several schedulers the busiest counts."""
    busy = record.rates("scheduler_scheduling_algorithm_duration_seconds_sum", lambda series: series.component)
    used = record.rates("process_cpu_seconds_total", lambda series: series.component)
    active = record.levels(
        "scheduler_pending_pods",
        lambda series: series.component if series.labels.get("queue") == "active" else None,
    )
    found = []
    for component, line in sorted(busy.items()):
        score = record.share(line, LOOP)
        evidence = [f"{component} chooses nodes for {record.mean(line):.0%} of the time"]
        if component in active:
            evidence.append(f"{record.mean(active[component]):.0f} pods wait in its active queue")
        if component in used:
            process = _process(record, Cause.SCHEDULER_CPU, component, used[component])
            score = max(score, process.score)
            evidence += process.evidence
        found.append(_finding(Cause.SCHEDULER_CPU, score, evidence))
    if found:
        yield max(found, key=lambda finding: finding.score)


_CONTROLLERS = {"replicaset": "concurrent-replicaset-syncs", "deployment": "concurrent-deployment-syncs"}


def _workers(record: Record) -> Iterator[Finding]:
    def controller(series: Series) -> str | None:
        return series.labels.get("name") if series.labels.get("name") in _CONTROLLERS else None

    busy = record.rates("workqueue_work_duration_seconds_sum", controller)
    depth = record.levels("workqueue_depth", controller)
    args = (record.meta.get("profile") or {}).get("turbokube_controller_manager_args") or {}
    found = []
    for name, line in sorted(busy.items()):
        workers = float(args.get(_CONTROLLERS[name], caps.CONCURRENT_SYNCS))
        evidence = [f"{record.mean(line):.1f} of {workers:g} workers of the {name} controller are at work"]
        if name in depth:
            evidence.append(f"{record.mean(depth[name]):.0f} wait in its queue")
        found.append(_finding(Cause.SYNCS, record.share(line, WORKERS * workers), evidence))
    if found:
        yield max(found, key=lambda finding: finding.score)


def _fleet(record: Record) -> Iterator[Finding]:
    """The share of a pod's way that lies behind its binding, if a vnode takes long."""
    load = record.load
    share = load.bound_to_running / load.startup if load.startup else 0.0
    score = min(1.0, share) if load.bound_to_running >= START_S else 0.0
    evidence = (f"from bound to running {load.bound_to_running:.2f} s of {load.startup:.2f} s on average",)
    yield _finding(Cause.FLEET, score, evidence)


def _generator(record: Record, found: list[Finding]) -> list[Finding]:
    """Late sendings; in a closed loop what is left of the time when nothing else was full."""
    load = record.load
    if load.offered is not None:
        words = (
            f"{load.late_share:.0%} of the objects were sent more than {LATE_S:g} s late, at most {load.late_max:.1f} s"
        )
        return [_finding(Cause.GENERATOR, load.late_share, (words,))]
    rest = 1.0 - max((finding.score for finding in found if finding.cause != Cause.OTHERS), default=0.0)
    words = f"a closed loop of {load.concurrency} at once, and nothing else was full for {rest:.0%} of the time"
    return [_finding(Cause.GENERATOR, rest, (words,))]


def _machine(record: Record) -> Iterator[Finding]:
    """The run's own processes against the cores; what else the machine does is another cause.

    Components on other machines are scraped, too: more than the machine does as a whole cannot be its own.
    """
    used = record.rates("process_cpu_seconds_total", lambda series: "").get("", [])
    own: Line = [None if value is None else value / record.cores for value in used]
    modes = record.rates("turbokube_machine_cpu_seconds_total", lambda series: series.labels.get("mode"))
    busy: Line = [
        None if work is None or idle is None or not work + idle else work / (work + idle)
        for work, idle in zip(modes.get("busy", []), modes.get("idle", []), strict=True)
    ]
    if busy:
        own = [None if a is None or b is None else min(a, b) for a, b in zip(own or busy, busy, strict=True)]
    evidence = [f"the run's processes use {record.mean(own):.0%} of {record.cores:g} cores"]
    if busy:
        evidence.append(f"{record.mean(busy):.0%} are in use")
    yield _finding(Cause.MACHINE, record.share(own, CORES), evidence)
    if busy:
        others: Line = [
            None if mine is None or work is None else float(work >= BUSY and mine < CORES)
            for mine, work in zip(own, busy, strict=True)
        ]
        yield _finding(Cause.OTHERS, record.share(others, 1.0), evidence)


def _busiest(record: Record, metric: str) -> Line:
    """The line of the component that has most of it; empty when there is none."""
    lines = record.rates(metric, lambda series: series.component)
    return max(lines.values(), key=record.mean, default=[])


def _finding(cause: Cause, score: float, evidence: Iterable[str]) -> Finding:
    return Finding(cause, TITLES[cause], score, tuple(evidence))


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1e3:.3g} ms"


# the prediction


def prediction(metrics: Metrics, meta: Mapping[str, Any]) -> capacity.Prediction | None:
    """What the preflight would have said of this run; None when its settings are not known."""
    known = variables()
    settings = {key: value for key, value in (meta.get("profile") or {}).items() if key in known}
    hardware = meta.get("hardware") or {}
    if not settings or "cores" not in hardware:
        return None
    try:
        profile = validate(settings)
    except ProfileError:
        return None
    memory = int(hardware.get("memory_bytes") or 0)
    machine = Machine(
        cores=float(hardware["cores"]),
        memory=memory,
        home_free=0,
        cache_free=0,
        open_files=0,
        sync_s=float(meta.get("sync_s") or 0.0),
    )
    layout = Counter(metrics.kinds.values())
    layout["kube-scheduler"] -= profile.schedulers  # which predict adds
    return capacity.predict(profile, machine, layout, coefficients.load())
