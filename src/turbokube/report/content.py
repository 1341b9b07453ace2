"""The numbers of a report, as report.json has them. Its keys stay: `schema` counts when one changes its meaning."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

from turbokube.bundle.reader import Reader
from turbokube.measure import sli
from turbokube.measure.facts import Facts, limits_of
from turbokube.measure.outcome import clock, interval_words, seconds_words, span
from turbokube.measure.pods import Startup
from turbokube.measure.preconditions import Precondition
from turbokube.measure.series import Metrics, quantile_interval
from turbokube.measure.verdict import Verdict, gather, judge
from turbokube.profile.schema import PREFIX, variables

from . import experts, loads
from .cost import cost
from .plots import CONTROL_PLANE, Plots, short

SCHEMA = 1
_OURS = ("fleet", "agent")  # the agent is load generator, observer and scraper
OWN_SHARE = 0.08  # of the CPU that a run uses: more, and at fidelity lease we measure ourselves


def build(reader: Reader) -> dict[str, Any]:
    """Everything that a report tells about a bundle; JSON has no infinity, so `never` and null stand for it."""
    limits = limits_of(reader.meta())
    metrics = Metrics(reader)
    facts = gather(reader, metrics, limits)
    verdict = judge(facts, limits)
    begin, end = _span(reader, facts)
    plots = Plots(reader, metrics, facts, (begin, end)).all()
    processes = _processes(metrics, begin, end)
    spent, bottleneck = own(metrics, processes), loads.bound(reader, metrics)
    paid = cost(reader, facts, begin, end, spent["of_cpu_seconds"])
    others = experts.Experts(reader, metrics, end - begin).build()
    found = {
        "schema": SCHEMA,
        "run": facts.meta.get("run", ""),
        "verdict": verdict.word,
        "reasons": verdict.reasons,
        "headline": _headline(facts, verdict, bottleneck, paid),
        "conditions": _conditions(facts, processes, spent, paid),
        "own": spent,
        "cost": paid,
        "slo": {key: limits[key] for key in ("name", "dated", "source")},
        "limits": [dataclasses.asdict(limit) for limit in verdict.limits],
        "preconditions": _preconditions(facts, limits["preconditions"]["churn"]),
        "offered": loads.offered(facts),
        "watches": loads.watches(reader, facts),
        "bottleneck": bottleneck,
        "namespaces": loads.namespace_times(loads.namespaces(reader)),
        "pods": dataclasses.asdict(facts.pods),
        "nodes": dataclasses.asdict(facts.nodes) if facts.nodes else None,
        "fidelity": {"asked": facts.asked_fidelity, **dataclasses.asdict(facts.fidelity)},
        "throughput": dataclasses.asdict(facts.throughput) | {"churn": facts.throughput.busiest()},
        "startup": [_startup(start) for start in facts.startups],
        "api": _api(facts),
        "leases": [_lease(ratio) for ratio in facts.leases],
        "oldest_renewal": facts.oldest_renewal,
        "scheduler": _scheduler(metrics),
        "experts": others.numbers,
        "tables": {name: [dataclasses.asdict(table) for table in each] for name, each in others.tables.items()},
        "processes": processes,
        "lag": {who: {"n": n, "p99": p99, "max": most} for who, (n, p99, most) in sorted(facts.lags.items())},
        "counts": _counts(facts),
        "scrapes": _scrapes(reader),
        "interruptions": [_interruption(gap, end) for gap in facts.interruptions],
        "phases": facts.phases,
        "profile": facts.meta.get("profile") or {},
        "begin": begin,
        "end": end,
        "bands": _bands(facts, begin, end),
        "plots": [plot.data(begin) for plot in plots],
    }
    return {key: finite(value) for key, value in found.items()}


def finite(value: Any) -> Any:
    """Infinity becomes None, tuples lists; floats keep microseconds."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value


def _span(reader: Reader, facts: Facts) -> tuple[float, float]:
    """The time that the plots cover: all that was recorded."""
    row = reader.query(
        "SELECT MIN(t), MAX(t) FROM (SELECT MIN(time) AS t FROM scrapes UNION ALL SELECT MAX(time) FROM scrapes"
        " UNION ALL SELECT MIN(created) FROM pods UNION ALL SELECT MAX(running_seen) FROM pods"
        " UNION ALL SELECT MIN(started) FROM phases UNION ALL SELECT MAX(ended) FROM phases)"
    )[0]
    return (row[0] or 0.0, max(row[1] or 0.0, (row[0] or 0.0) + 1.0))


def _headline(
    facts: Facts, verdict: Verdict, bottleneck: dict[str, Any] | None, paid: dict[str, Any] | None
) -> list[dict[str, str]]:
    """What stands on top, each number with its condition."""
    pods, load = facts.pods, facts.throughput
    outcomes = {limit.name: limit for limit in verdict.limits}
    tiles = [
        ("Pods running", f"{pods.running:,} of {pods.planned:,}", f"{pods.lost:,} lost, {pods.restarted:,} restarted")
    ]
    if facts.nodes:
        nodes = facts.nodes
        tiles.append(("Nodes Ready", f"{nodes.ready:,} of {nodes.total:,}", f"NotReady {nodes.notready:,} times"))
    told = "measured; " if facts.fidelity.level else ""
    tiles.append(("Fidelity", facts.fidelity.words, f"{told}{facts.asked_fidelity} was asked for"))
    if load.average is not None and load.begin is not None and load.end is not None:
        took = f"{load.end - load.begin:,.0f} s from first created to last running"
        tiles.append(("Pods per second", f"{load.average:.1f}", f"{took}; best {load.window:g} s: {load.peak:.0f}"))
    if facts.startups and facts.startups[0].n:
        start = facts.startups[0]
        p50 = seconds_words(start.percentiles["p50"])
        tiles.append(
            (
                "Pod startup p99",
                seconds_words(start.percentiles["p99"]),
                f"p50 {p50}, n {start.n:,}, intended → seen running",
            )
        )
    for ratio in facts.leases[:1]:
        if ratio.overall is not None:
            worst = f"worst 60 s {ratio.worst[2]:.3f}" if ratio.worst else "no whole 60 s"
            tiles.append(("Leases renewed", f"{100 * ratio.overall:.1f} %", f"of those due; {worst}"))
    api = [limit for name, limit in outcomes.items() if name.startswith("api-")]
    if judged := [limit for limit in api if limit.role == "gate"]:
        held = sum(limit.outcome == "pass" for limit in judged)
        void = sum(limit.role == "not applicable" for limit in api)
        note = "series with n ≥ 300, ≤ 1 % of calls over 1 s or 30 s" + (f"; {void} not applicable" if void else "")
        tiles.append(("API call SLO", f"{held} of {len(judged)} held", note))
    if bottleneck is not None:
        tiles.append(("What bound", bottleneck["cause"] or bottleneck["words"].partition(":")[0], bottleneck["words"]))
    if paid and paid["pods_per_usd"]:
        note = f"{paid['node_hours_per_usd']:,.0f} node-hours per USD; {paid['words']}"
        tiles.append(("Load to cost", f"{paid['pods_per_usd']:,.0f} pods per USD", note))
    return [{"title": title, "value": value, "note": note} for title, value, note in tiles]


def _conditions(
    facts: Facts, processes: list[dict[str, Any]], spent: dict[str, Any], paid: dict[str, Any] | None
) -> list[tuple[str, str]]:
    """Under what the numbers hold."""
    lags = sorted(facts.lags.items())
    meta = facts.meta
    profile, target, hardware = (meta.get(key) or {} for key in ("profile", "target", "hardware"))
    machine = (
        [f"{hardware['cores']} cores", f"{hardware['memory_bytes'] / 2**30:.0f} GiB"] if "cores" in hardware else []
    )
    machine += [str(hardware[key]) for key in ("cpu_model", "kernel") if hardware.get(key)]
    rows = [
        ("Versions", _words(meta.get("versions"))),
        ("Control plane", _words({key: value for key, value in target.items() if key != "flags"})),
        ("Flags set by the profile", _words(target.get("flags")) or "none"),
        ("Client QPS and burst", _pair(profile, "client_qps", "client_burst")),
        ("Settings that are not TurboKube's defaults", _differences(profile)),
        ("Fidelity of the vnodes", f"{facts.asked_fidelity} asked for; {_fidelity(facts)}"),
        ("Engine", str(meta.get("engine") or "")),
        ("Load", _load(profile, facts) if profile else ""),
        ("Objects", _objects(profile) if profile else ""),
        ("Requests of the load", loads.mix(facts)),
        ("Load generators", loads.generators(meta.get("segments") or [])),
        ("Bytes of one object", _words({k: f"{v:,}" for k, v in (meta.get("object_bytes") or {}).items()})),
        ("Lease", f"every {facts.lease_interval:g} s, lasts {profile.get('turbokube_lease_duration_s', 40)} s"),
        ("Machine", ", ".join(machine)),
        ("Our own load", _own(processes)),
        ("CPU of fleet, generator, observer and scraper", _own_words(spent)),
        ("Cost", paid["words"] if paid else ""),
        ("Our own lag", "; ".join(f"{who} p99 {p99:.3g} s, max {most:.3g} s" for who, (_, p99, most) in lags)),
        ("API latency metric", facts.api.metric or "none"),
        ("Windows", _windows(facts)),
        ("Started", _when(meta.get("started"))),
    ]  # fmt: skip
    return [(name, words) for name, words in rows if words]


def _fidelity(facts: Facts) -> str:
    """What was measured, and by what."""
    found = facts.fidelity
    each = ", ".join(f"{name} {value:.2f}" for name, value in found.per_node.items())
    words = f"measured {found.level}" if found.level else f"it cannot be told what was measured: {found.reason}"
    return words + (f"; per vnode: {each}" if each else "")


def _when(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment)) if moment else ""


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {_words(each)}" for key, each in sorted(value.items()) if each not in (None, "", {}, [])
        )
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value if value is not None else "")


def _pair(profile: dict[str, Any], *names: str) -> str:
    found = [f"{profile[f'turbokube_{name}']:g}" for name in names if f"turbokube_{name}" in profile]
    return " / ".join(found) + " for scheduler and controller manager" if found else ""


def _differences(profile: dict[str, Any]) -> str:
    """Every variable that was given another value, but names of files, folders and runs."""
    aside = {f"{PREFIX}{name}" for name in ("profile", "run", "home", "kubeconfig", "context", "binaries", "template")}
    known = variables()
    changed = {name: profile[name] for name in known if profile.get(name, known[name].default) != known[name].default}
    return ", ".join(f"{name} {value}" for name, value in changed.items() if name not in aside)


def _load(profile: dict[str, Any], facts: Facts) -> str:
    rate = profile.get("turbokube_rate") or 0
    pace = (
        f"{rate:g} deployments/s"
        if rate
        else f"{profile.get('turbokube_concurrency', '?')} namespaces at a time (closed loop)"
    )
    if profile.get("turbokube_phases"):
        return f"phases {loads.shapes(facts)}; placement {profile.get('turbokube_placement', 'namespace')}"
    kinds = ", ".join(str(phase["name"]) for phase in facts.phases)
    return f"phases {kinds}; {pace}; placement {profile.get('turbokube_placement', 'namespace')}"


def _objects(profile: dict[str, Any]) -> str:
    names = ("namespaces", "vnodes_per_namespace", "deployments_per_namespace", "replicas")
    sizes = [
        f"{profile[f'turbokube_{name}']} {name.replace('_', ' ')}" for name in names if f"turbokube_{name}" in profile
    ]
    template = profile.get("turbokube_template") or "the built-in deployment"
    token = "with" if profile.get("turbokube_automount_token", True) else "without"
    return f"{', '.join(sizes)}; template: {template}, {token} ServiceAccount token"


def own(metrics: Metrics, processes: list[dict[str, Any]]) -> dict[str, Any]:
    """CPU seconds of what measures and plays, its share of all that the run used, and what else the machine did."""
    total = sum(row["cpu_seconds"] for row in processes)
    ours = sum(row["cpu_seconds"] for row in processes if row["kind"] in _OURS)
    busy = metrics.totals("turbokube_machine_cpu_seconds_total", lambda series: series.labels.get("mode")).get("busy")
    return {
        "cpu_seconds": ours,
        "of_cpu_seconds": total,
        "share": ours / total if total else None,
        "limit": OWN_SHARE,
        "others_cpu_seconds": None if busy is None else max(0.0, busy - total),
    }


def _own_words(of: dict[str, Any]) -> str:
    if of["share"] is None:
        return ""
    used = f"{of['cpu_seconds']:,.0f} s, {of['share']:.1%} of what all processes of the run used"
    others = of["others_cpu_seconds"]
    beside = "" if others is None else f"; what else ran on the agent's machine: {others:,.0f} s"
    return f"{used} ({of['of_cpu_seconds']:,.0f} s){beside}"


def _own(processes: list[dict[str, Any]]) -> str:
    words = []
    for kind in _OURS:
        rows = [row for row in processes if row["kind"] == kind]
        cores, memory = (sum(row[key] for row in rows) for key in ("cores", "memory_bytes"))
        several = f" ({len(rows)} processes)" if len(rows) > 1 else ""
        words += [f"{kind}{several} {cores:.2f} cores, {memory / 2**20:.0f} MiB"] if rows else []
    return "; ".join(words)


def _windows(facts: Facts) -> str:
    spans = facts.api.windows
    if len(spans) == 1:
        return f"the run is shorter than 5 minutes: one window of {spans[0][1] - spans[0][0]:.0f} s"
    return f"{len(spans)} windows of 5 minutes; a run is no cluster-day, so each is told as met or not" if spans else ""


def _preconditions(facts: Facts, churn: float) -> list[dict[str, Any]]:
    """Of the SLOs: all of them, churn first."""
    busiest = facts.throughput.busiest()
    first = Precondition(
        "churn", f"Churn, busiest {sli.CHURN_WINDOW_S:g} s", f"{busiest:.0f}/s", f"≤ {churn:g}/s", busiest <= churn
    )
    return [dataclasses.asdict(each) for each in (first, *facts.preconditions)]


def _startup(start: Startup) -> dict[str, Any]:
    return {
        "clock": start.clock,
        "n": start.n,
        "never": start.never,
        "unseen": start.unseen,
        "percentiles": start.percentiles,
        "words": {name: seconds_words(value) for name, value in start.percentiles.items()},
    }


def _api(facts: Facts) -> dict[str, Any]:
    series = sorted((each for each in facts.api.series if each.whole.n), key=lambda each: -each.whole.n)
    rows = [
        {
            "resource": each.resource,
            "kind": each.kind,
            "limit": each.limit,
            "whole": _calls(each.whole),
            "windows": [_calls(window) for window in each.windows],
        }
        for each in series
    ]
    return {"metric": facts.api.metric, "windows": facts.api.windows, "series": rows}


def _calls(each: sli.Calls) -> dict[str, Any]:
    return {**dataclasses.asdict(each), "share": each.share, "p99_words": interval_words(each.p99)}


def _lease(ratio: sli.LeaseRatio) -> dict[str, Any]:
    worst = ratio.worst
    words = f"{worst[2]:.3f} at {clock(worst[0])} UTC" if worst else "–"
    return {
        "source": ratio.source,
        "overall": ratio.overall,
        "seconds": ratio.seconds,
        "worst": worst,
        "worst_words": words,
    }


def _scheduler(metrics: Metrics) -> dict[str, Any]:
    attempts: dict[str, float] = {}
    for rise in metrics.rises("scheduler_schedule_attempts_total"):
        result = rise.series.labels.get("result", "")
        attempts[result] = attempts.get(result, 0.0) + rise.amount
    found: dict[str, Any] = {"attempts": attempts, "latency": []}
    for title, metric in (
        ("pod in the queue → bound", "scheduler_pod_scheduling_sli_duration_seconds"),
        ("choosing a node", "scheduler_scheduling_algorithm_duration_seconds"),
    ):
        for buckets in metrics.histogram(metric, lambda series: "").values():
            intervals = {f"p{q * 100:g}": quantile_interval(buckets, q) for q in (0.5, 0.99)}
            words = {name: interval_words(interval) for name, interval in intervals.items()}
            row = {"title": title, "n": buckets.get(math.inf, 0.0), **words, "intervals": intervals}
            found["latency"].append(row)
    return found


def _processes(metrics: Metrics, begin: float, end: float) -> list[dict[str, Any]]:
    """CPU-seconds, mean cores, greatest memory and more per process: the control plane first, then ours."""
    rows: dict[str, dict[str, Any]] = {}
    for name, kind in metrics.kinds.items():
        rows[name] = {"component": name, "kind": kind, "cpu_seconds": 0.0, "memory_bytes": 0.0}
    for rise in metrics.rises("process_cpu_seconds_total"):
        rows[rise.series.component]["cpu_seconds"] += rise.amount
    for series, _, value in metrics.samples("process_resident_memory_bytes"):
        row = rows[series.component]
        row["memory_bytes"] = max(row["memory_bytes"], value)
    more = experts.processes(metrics)
    for name, row in rows.items():
        row.update(dict.fromkeys(experts.OF_A_PROCESS) | more.get(name, {}))
    for row in rows.values():
        row["cores"] = row["cpu_seconds"] / (end - begin)
    return sorted(rows.values(), key=lambda row: (row["kind"] not in CONTROL_PLANE, -row["cpu_seconds"]))


def _counts(facts: Facts) -> list[dict[str, Any]]:
    resources = sorted({resource for _, resource in facts.counts})
    sources = ("store", "api", "others", "observer")
    return [
        {"resource": name, **{source: facts.counts.get((source, name)) for source in sources}} for name in resources
    ]


def _scrapes(reader: Reader) -> list[dict[str, Any]]:
    sql = (
        "SELECT component, COUNT(*) AS total, COALESCE(SUM(ok), 0) AS ok, MAX(duration) AS slowest FROM scrapes"
        " GROUP BY component ORDER BY component"
    )
    return [dict(row) for row in reader.query(sql)]


def _interruption(gap: sli.Interruption, end: float) -> dict[str, Any]:
    return {
        "started": gap.started, "ended": min(gap.ended, end), "what": gap.what, "detail": gap.detail, "ours": gap.ours,
        "words": span(gap),
    }  # fmt: skip


def _bands(facts: Facts, begin: float, end: float) -> list[dict[str, Any]]:
    """Phases and interruptions as spans of time that every time plot marks."""
    bands = [
        {"kind": "phase", "label": phase["name"], "from": short(phase["started"] - begin),
         "to": short((phase["ended"] or end) - begin)}
        for phase in facts.phases if phase["started"]
    ]  # fmt: skip
    for gap in facts.interruptions:
        kind = "ours" if gap.ours else "outage"
        bands.append(
            {
                "kind": kind,
                "label": gap.what,
                "from": short(gap.started - begin),
                "to": short(min(gap.ended, end) - begin),
            }
        )
    return bands
