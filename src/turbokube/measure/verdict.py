"""What a run's numbers mean: PASS, FAIL or INCONCLUSIVE. Every limit is a gate, a report or not applicable.

PASS: every gate held. FAIL: one did not, whatever else is unclear. INCONCLUSIVE: no gate is known to be broken, but one
could not be judged: too few samples, nothing recorded, vnodes of another fidelity than was asked for, or our own
measured lag is beyond what the numbers bear. CPU is never a reason: a machine that is busy all the time may measure
well, and measured lag says whether it does.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from turbokube.bundle.reader import Reader

from . import fidelity, sli
from .series import Metrics

PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
GATE, REPORT, NOT_APPLICABLE = "gate", "report", "not applicable"
Limits = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit and what became of it. `outcome`: pass, fail, inconclusive; "" when it is not a gate."""

    name: str
    title: str
    role: str
    outcome: str
    value: str
    limit: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """`word` with its reasons, one sentence each."""

    word: str
    reasons: tuple[str, ...]
    limits: tuple[Limit, ...]


@dataclass(frozen=True)
class Facts:
    """All indicators of a run."""

    meta: dict[str, Any]
    phases: tuple[dict[str, Any], ...]
    pods: sli.Pods
    nodes: sli.Nodes | None
    api: sli.ApiLatency
    startups: tuple[sli.Startup, ...]
    throughput: sli.Throughput
    leases: tuple[sli.LeaseRatio, ...]
    oldest_renewal: float | None
    interruptions: tuple[sli.Interruption, ...]
    counts: dict[tuple[str, str], int]  # (source, resource) → objects
    lags: dict[str, tuple[int, float, float]]  # who → samples, p99, max
    coverage: dict[str, float]  # API server → share of the load's time between its scrapes
    fidelity: fidelity.Fidelity  # as measured

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


def load_limits() -> dict[str, Any]:
    """The dated table of limits."""
    text = importlib.resources.files(__package__).joinpath("limits.json").read_bytes()
    found: dict[str, Any] = msgspec.json.decode(text)
    return found


def lease_interval(meta: Mapping[str, Any]) -> float:
    """The profile's seconds between two renewals; the kubelet's 10 where it says nothing."""
    return float((meta.get("profile") or {}).get("turbokube_lease_interval_s") or 10.0)


def lease_period(metrics: Metrics, meta: Mapping[str, Any]) -> sli.LeasePeriod:
    """When renewals of a Lease are due, by the profile's interval and the fidelity of the vnodes."""
    engine = (meta.get("profile") or {}).get("turbokube_engine") or "builtin"
    # engines of others wait as the kubelet does, whatever their fidelity
    fidelity = str(meta.get("fidelity") or "lease") if engine == "builtin" else "kubelet"
    return sli.LeasePeriod(metrics, lease_interval(meta), fidelity)


def gather(reader: Reader, metrics: Metrics, limits: Limits) -> Facts:
    """Read all indicators from a bundle."""
    meta = reader.meta()
    counted = sli.pods(reader)
    phases = tuple(dict(row) for row in reader.query("SELECT * FROM phases ORDER BY started"))
    leases = sli.lease_ratios(reader, metrics, lease_period(metrics, meta))
    return Facts(
        meta=meta,
        phases=phases,
        pods=counted,
        nodes=sli.nodes(reader),
        api=sli.api_latency(metrics, limits["api_call"]),
        startups=sli.startups(reader, counted),
        throughput=sli.throughput(reader),
        leases=leases,
        oldest_renewal=sli.oldest_renewal(metrics),
        interruptions=sli.interruptions(reader),
        counts={
            (row["source"], row["resource"]): row["count"]
            for row in reader.query("SELECT source, resource, count FROM counts ORDER BY time")
        },
        lags=sli.lags(reader, metrics),
        coverage=sli.coverage(metrics, phases),
        fidelity=fidelity.measure(reader, metrics, leases, lease_interval(meta)),
    )


def judge(facts: Facts, limits: Limits) -> Verdict:
    """The verdict on a run."""
    if not facts.pods.planned:
        reason = "no load was recorded in this bundle"
        return Verdict(INCONCLUSIVE, (reason,), ())
    found = [
        *_phases(facts),
        *_pods(facts),
        *_nodes(facts),
        _fidelity(facts),
        *_counts(facts),
        *_leases(facts, limits["lease_ratio"], limits["lag"]),
        *_api(facts, limits),
        _startup(facts, limits["pod_startup"]),
        *_lags(facts, limits["lag"]),
        *_interrupted(facts),
    ]
    word = PASS
    for outcome, meaning in (("inconclusive", INCONCLUSIVE), ("fail", FAIL)):
        if any(limit.outcome == outcome for limit in found):
            word = meaning
    return Verdict(word, tuple(_reasons(found, facts)), tuple(found))


def _reasons(found: Iterable[Limit], facts: Facts) -> Iterable[str]:
    """Broken gates first, then what could not be told, then what else a reader must know."""
    found = list(found)
    for outcome in ("fail", "inconclusive"):
        yield from (f"{limit.title}: {limit.reason or limit.value}" for limit in found if limit.outcome == outcome)
    if not any(limit.outcome in ("fail", "inconclusive") for limit in found):
        gates = [limit for limit in found if limit.outcome == "pass"]
        yield f"all {len(gates)} gates held"
    yield from (_named(gap, facts) for gap in facts.interruptions)
    yield from (f"{limit.title}: {limit.reason}" for limit in found if limit.role == NOT_APPLICABLE)


def clock(time: float) -> str:
    """Time of day in UTC."""
    seconds = int(time) % 86400
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _named(gap: sli.Interruption, facts: Facts) -> str:
    if gap.ours:
        seen = facts.startups[0].n - facts.startups[0].never if facts.startups else 0
        return (
            f"measurement interrupted ({gap.what}) {span(gap)}: startup percentiles cover the {seen} pods that were"
            " observed live"
        )
    return f"outage of {gap.what} {span(gap)}" + (f" ({gap.detail})" if gap.detail else "")


def span(gap: sli.Interruption) -> str:
    """From when to when, in UTC, and for how long."""
    if gap.ended > 8e12:
        return f"{clock(gap.started)} UTC until the end of the record"
    return f"{clock(gap.started)}–{clock(gap.ended)} UTC ({gap.ended - gap.started:.0f} s)"


def _gate(name: str, title: str, held: bool, value: str, limit: str, reason: str = "") -> Limit:
    return Limit(
        name, title, GATE, "pass" if held else "fail", value, limit, "" if held else reason or f"{value}, not {limit}"
    )


def _unknown(name: str, title: str, value: str, limit: str, reason: str) -> Limit:
    return Limit(name, title, GATE, "inconclusive", value, limit, reason)


def during(facts: Facts, held_outside: bool | Callable[[], bool], spans: Iterable[tuple[float, float]] = ()) -> str:
    """ " during the outage of …" for what broke only where an outage overlaps; empty otherwise."""
    held = held_outside() if callable(held_outside) else held_outside
    hit = [gap for gap in facts.outages if not spans or any(gap.overlaps(*each) for each in spans)]
    if not held or not hit:
        return ""
    return ", during the outage of " + ", ".join(f"{gap.what} {span(gap)}" for gap in hit)


def _phases(facts: Facts) -> Iterable[Limit]:
    for phase in facts.phases:
        name, title = f"phase-{phase['name']}", f"Phase {phase['name']} ended"
        if phase["state"] == "done":
            yield _gate(name, title, True, "done", "done")
        elif phase["state"] == "deadline":
            yield _gate(
                name, title, False, "deadline", "done", phase["note"] or "its deadline passed before all was done"
            )
        else:
            why = (
                f"it is {phase['state']}: the run is not over"
                if phase["state"] == "running"
                else f"it was {phase['state']}"
            )
            yield _unknown(name, title, phase["state"] or "", "done", why)


def _pods(facts: Facts) -> Iterable[Limit]:
    pods = facts.pods
    missing = pods.planned - pods.running
    why = f"{missing:,} of {pods.planned:,} pods never ran" if missing > 0 else f"{-missing:,} pods too many ran"
    value = f"{pods.running:,} of {pods.planned:,}"
    yield _gate("pods-running", "Every pod ran", missing == 0, value, f"{pods.planned:,}", why)
    twice = pods.restarted + pods.surplus
    yield _gate(
        "pods-once", "Every pod ran exactly once", not twice, f"{pods.restarted:,} restarted, {pods.surplus:,} surplus",
        "0 restarted, 0 surplus",
    )  # fmt: skip
    withdrawn = f", {pods.withdrawn:,} deleted before they ran" if pods.withdrawn else ""
    yield _gate("pods-lost", "No pod was lost", not pods.lost, f"{pods.lost:,} lost{withdrawn}", "0 lost")


def _nodes(facts: Facts) -> Iterable[Limit]:
    title = "No vnode became NotReady"
    nodes = facts.nodes
    if nodes is None:
        yield _unknown("nodes-ready", title, "nothing recorded", "0 times", "no vnode was ever observed")
        return
    value = f"{nodes.notready:,} times, {nodes.ready:,} of {nodes.total:,} Ready at the end"
    held = nodes.notready == 0 and nodes.ready == nodes.total
    # the node lifecycle controller says so only a grace period after the leases stopped
    grace = float((facts.meta.get("profile") or {}).get("turbokube_node_monitor_grace_s") or 50.0)
    late = [(time - 2 * grace, time) for time in nodes.notready_at]
    inside = bool(late) and all(any(gap.overlaps(*each) for gap in facts.outages) for each in late)
    why = (
        f"{nodes.notready:,} times one did, {nodes.total - nodes.ready:,} of {nodes.total:,} were not Ready at the end"
    )
    yield _gate("nodes-ready", title, held, value, "0 times, all Ready", why + during(facts, inside, late))


def _fidelity(facts: Facts) -> Limit:
    """Numbers hold for the level that they were measured at: at another one, what was asked for is not answered."""
    asked, found = facts.asked_fidelity, facts.fidelity
    name, title, value = "fidelity", "Fidelity of the vnodes, as the API servers counted it", found.words
    if not found.level:
        return Limit(name, title, REPORT, "", value, asked, found.reason)
    if found.level == asked:
        return _gate(name, title, True, value, asked)
    return _unknown(
        name,
        title,
        value,
        asked,
        f"{asked} was asked for, {value} was measured" + (f" ({found.reason})" if found.reason else ""),
    )


def _counts(facts: Facts) -> Iterable[Limit]:
    """The report's numbers against the store's own; the API's where the store cannot be asked."""
    ours = {"pods": facts.pods.seen - facts.pods.gone}
    if facts.nodes:
        ours |= {"nodes": facts.nodes.total, "leases": facts.counts.get(("observer", "leases"), facts.nodes.total)}
    for resource, count in ours.items():
        name, title = f"counts-{resource}", f"The report's {resource} agree with the store's"
        source = next((name for name in ("store", "api") if (name, resource) in facts.counts), None)
        if source is None:
            yield _unknown(
                name, title, f"{count:,} here", "the store's count", "neither the store nor the API was counted"
            )
            continue
        theirs = facts.counts[source, resource]
        where = "the store" if source == "store" else "the API"
        yield _gate(name, title, count == theirs, f"{count:,} here, {theirs:,} in {where}", "equal")


def _leases(facts: Facts, band: Limits, lag: Limits) -> Iterable[Limit]:
    """Overall by each witness; the worst window by the fleet, whose scrape does not wait for a busy API server."""
    words = f"{band['least']:g}–{band['most']:g}"
    if not any(ratio.overall is not None for ratio in facts.leases):
        yield _unknown(
            "lease-ratio", "Leases are renewed on time", "", words, "no renewals were recorded while vnodes were joined"
        )
        return
    for ratio in facts.leases:
        yield from _lease_ratio(facts, ratio, band, words, _fleet_lag(facts, lag))
    if facts.oldest_renewal is not None:
        value = f"{facts.oldest_renewal:.1f} s"
        yield Limit("lease-oldest", "Oldest lease renewal", REPORT, "", value, f"interval {facts.lease_interval:g} s")


def _fleet_lag(facts: Facts, lag: Limits) -> float:
    """The fleet's own lag if it is beyond its limit, else 0: what a wrong ratio may come from instead of the target."""
    _, p99, _ = facts.lags.get("fleet", (0, 0.0, 0.0))
    return p99 if p99 > lag["fleet"] else 0.0


def _lease_ratio(facts: Facts, ratio: sli.LeaseRatio, band: Limits, words: str, late: float) -> Iterable[Limit]:
    who = "the fleet" if ratio.source == "fleet" else "the API servers"
    name, title = f"lease-ratio-{ratio.source}", f"Lease renewals, counted by {who}, against those due"
    value = "" if ratio.overall is None else f"{ratio.overall:.3f} over {ratio.seconds:.0f} s"
    if ratio.overall is None or ratio.seconds < band["least_seconds"]:
        steady = f"{ratio.seconds:.0f} s between scrapes with a steady number of vnodes"
        why = f"{steady}, {band['least_seconds']:g} s are needed"
        yield _unknown(name, title, value, words, why)
        return

    def inside(value: float) -> bool:
        return bool(band["least"] <= round(value, 4) <= band["most"])

    calm = [
        window for window in ratio.windows if not any(gap.overlaps(window[0], window[1]) for gap in facts.interruptions)
    ]
    outside = bool(calm) and all(inside(window[2]) for window in calm)
    yield _lease_limit(facts, (name, title, value, words), inside(ratio.overall), during(facts, outside), late)
    worst = ratio.worst
    if worst is None:
        return
    value = f"{worst[2]:.3f} at {clock(worst[0])} UTC"
    name, title = f"{name}-worst", f"Worst 60 s of lease renewals, counted by {who}"
    if ratio.source == "fleet":
        words_during = during(facts, outside, [(worst[0], worst[1])])
        yield _lease_limit(facts, (name, title, value, words), inside(worst[2]), words_during, late)
    else:
        yield Limit(
            name, title, REPORT, "", value, words, "the scrape of a busy API server may itself be a second late"
        )


def _lease_limit(facts: Facts, words: tuple[str, str, str, str], held: bool, outage: str, late: float) -> Limit:
    name, title, value, limit = words
    if not held and late and not outage:
        return _unknown(
            name,
            title,
            value,
            limit,
            f"{value}, but the fleet itself lagged by {late:.1f} s: the target may not be why",
        )
    return _gate(name, title, held, value, limit, f"{value}, not {limit}{outage}")


def _api(facts: Facts, limits: Limits) -> Iterable[Limit]:
    """One gate per series with enough calls: each of its windows, or the whole run where only that has enough."""
    rule, judged = limits["api_call"], 0
    least = rule["least_calls"]
    for series in facts.api.series:
        name = f"api-{series.resource}-{series.kind}".replace(", ", "-").replace("/", "-").lower()
        title = f"API calls {series.resource} {series.kind}"
        bound = f"≤ {rule['slow_share']:.0%} over {series.limit:g} s"
        units = [calls for calls in series.windows if calls.n >= least] or [series.whole]
        if units[0].n < least or any(calls.share is None for calls in units):
            why = (
                "the limit is no edge of a bucket"
                if units[0].n >= least
                else f"{series.whole.n} calls are too few to judge by"
            )
            yield Limit(name, title, REPORT, "", calls_words(series.whole, series.limit), bound, why)
            continue
        judged += 1
        yield _call_gate(facts, (name, title, bound), series, units, rule["slow_share"])
    if not judged:
        why = "no API server was scraped" if facts.api.metric is None else f"no series has {least} calls"
        yield _unknown("api-calls", "API call latency", "", "p99 of 5 minutes", why)
    for server, share in facts.coverage.items():
        enough = limits["coverage"]["least"]
        name, title = f"coverage-{server}", f"Scrapes of {server} cover the load"
        if share < enough and not any(server in gap.what for gap in facts.outages):
            yield _unknown(
                name,
                title,
                f"{share:.0%}",
                f"≥ {enough:.0%}",
                f"only {share:.0%} of the load's time lies between scrapes",
            )
        else:
            yield Limit(name, title, REPORT, "", f"{share:.0%}", f"≥ {enough:.0%}")


def _call_gate(
    facts: Facts, words: tuple[str, str, str], series: sli.CallSeries, units: list[sli.Calls], slow: float
) -> Limit:
    bad = [calls for calls in units if (calls.share or 0.0) < 1 - slow]
    worst = min(units, key=lambda calls: calls.share or 0.0)
    met = f"{len(units) - len(bad)} of {len(units)} windows met; worst: " if len(units) > 1 else ""
    spans = [(calls.begin, calls.end) for calls in bad]
    outside = all(any(gap.overlaps(*each) for gap in facts.outages) for each in spans)
    value = met + calls_words(worst, series.limit)
    name, title, bound = words
    return _gate(name, title, not bad, value, bound, f"{value}{during(facts, outside, spans)}")


def calls_words(calls: sli.Calls, limit: float) -> str:
    """Calls in words: the share above the limit is exact, the p99 an interval."""
    slow = "" if calls.within is None else f"{calls.n - calls.within:,} over {limit:g} s of "
    return f"{slow}{calls.n:,} calls, p99 {interval_words(calls.p99)}"


def interval_words(interval: tuple[float, float] | None) -> str:
    """The edges of a bucket in words."""
    if interval is None:
        return "–"
    low, high = interval
    return f"over {low:g} s" if high == float("inf") else f"{low:g}–{high:g} s"


def _startup(facts: Facts, rule: Limits) -> Limit:
    """p99 from intended to seen running: a watch that lags makes it longer, never shorter, so a pass stands."""
    start, churn = facts.startups[0], facts.throughput.churn
    p99 = start.percentiles["p99"]
    value = "nothing observed" if p99 is None else f"p99 {seconds_words(p99)} of {start.n:,} pods"
    bound, title, name = f"p99 ≤ {rule['p99']:g} s", "Pod startup", "pod-startup"
    if churn > rule["churn"]:
        why = f"{value}; precondition churn ≤ {rule['churn']:g}/s not met (busiest 5 s: {churn:.0f}/s)"
        return Limit(name, title, NOT_APPLICABLE, "", value, bound, why)
    if p99 is None:
        return _unknown(name, title, value, bound, "no pod was observed")
    lag = facts.lags.get("observer", (0, 0.0, 0.0))[1]
    if p99 > rule["p99"] >= p99 - lag:
        return _unknown(name, title, value, bound, f"{value}, but the observer itself lagged by {lag:.2f} s")
    return _gate(name, title, p99 <= rule["p99"], value, bound)


def seconds_words(value: float | None) -> str:
    """A duration in words."""
    if value is None:
        return "–"
    return "never" if value == float("inf") else f"{value:.0f} s" if value >= 100 else f"{value:.3g} s"


def _lags(facts: Facts, rule: Limits) -> Iterable[Limit]:
    """Our own lag. It breaks no gate; beyond its limit the numbers that hang on it are not to be trusted."""
    titles = {"loop": "Event loop of the agent", "send": "Sending of the load", "observer": "Observer's watch"}
    for who, title in titles.items():
        name, title, bound = f"lag-{who}", f"{title}: lag", f"p99 ≤ {rule[who]:g} s"
        if who not in facts.lags:
            if who == "send":
                continue
            yield _unknown(name, title, "not measured", bound, "it was not measured")
            continue
        n, p99, most = facts.lags[who]
        value = f"p99 {p99:.3g} s, max {most:.3g} s of {n:,}"
        yield (
            _gate(name, title, True, value, bound)
            if p99 <= rule[who]
            else _unknown(name, title, value, bound, f"{value}, not {bound}")
        )
    if "fleet" in facts.lags:
        n, p99, most = facts.lags["fleet"]
        value = f"p99 {p99:.3g} s, max {most:.3g} s of {n:,}"
        yield Limit("lag-fleet", "Event loop of the fleet: lag", REPORT, "", value, f"p99 ≤ {rule['fleet']:g} s")


def _interrupted(facts: Facts) -> Iterable[Limit]:
    for number, gap in enumerate(facts.interruptions):
        role = "measurement" if gap.ours else "target"
        yield Limit(
            f"interruption-{number}",
            f"Interruption of the {role}",
            REPORT,
            "",
            f"{gap.what} {span(gap)}",
            "none",
            gap.detail,
        )
