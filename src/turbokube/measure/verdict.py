"""What a run's numbers mean: PASS, FAIL or INCONCLUSIVE. Every limit is a gate, a report or not applicable.

PASS: every gate held. FAIL: one did not, whatever else is unclear. INCONCLUSIVE: no gate is known to be broken, but one
could not be judged: too few samples, nothing recorded, vnodes of another fidelity than was asked for, or our own
measured lag is beyond what the numbers bear. Nor is anything when the machine that measures ran out of memory or disk:
what broke may be its doing. CPU is never a reason: a machine that is busy all the time may measure
well, and measured lag says whether it does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from turbokube.bundle.reader import Reader

from . import bounds, fidelity, offered, preconditions, sli, slo
from .facts import Facts, lease_interval, lease_period
from .outcome import (
    FAIL,
    INCONCLUSIVE,
    NOT_APPLICABLE,
    PASS,
    REPORT,
    Bound,
    Limit,
    clock,
    during,
    gate,
    span,
    unknown,
    void,
)
from .pods import load
from .series import Metrics

Limits = Mapping[str, Any]
_MOST_VOID = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """`word` with its reasons, one sentence each."""

    word: str
    reasons: tuple[str, ...]
    limits: tuple[Limit, ...]


def gather(reader: Reader, metrics: Metrics, limits: Limits) -> Facts:
    """Read all indicators from a bundle."""
    meta = reader.meta()
    loaded = load(reader)
    phases = tuple(dict(row) for row in reader.query("SELECT * FROM phases ORDER BY started"))
    leases = sli.lease_ratios(reader, metrics, lease_period(metrics, meta))
    gaps = sli.interruptions(reader)
    facts = Facts(
        meta=meta,
        phases=phases,
        pods=loaded.pods,
        nodes=sli.nodes(reader),
        api=sli.api_latency(metrics, limits["api_call"]),
        startups=loaded.startups,
        throughput=sli.throughput(reader),
        leases=leases,
        oldest_renewal=sli.oldest_renewal(metrics),
        interruptions=gaps,
        counts={
            (row["source"], row["resource"]): row["count"]
            for row in reader.query("SELECT source, resource, count FROM counts ORDER BY time")
        },
        lags=sli.lags(reader, metrics),
        coverage=sli.coverage(metrics, phases),
        fidelity=fidelity.measure(reader, metrics, leases, lease_interval(meta)),
        starts=loaded.starts,
        spans=loaded.spans,
        offers=offered.offers(reader, phases),
        preconditions=tuple(preconditions.check(reader, metrics, meta, limits["preconditions"])),
        recorded=sli.recorded(reader, phases, gaps),
    )
    return replace(facts, bounds=tuple(bounds.bounds(facts, metrics)))


def judge(facts: Facts, limits: Limits) -> Verdict:
    """The verdict on a run."""
    if not facts.pods.planned and not facts.offers:
        reason = "no load was recorded in this bundle"
        return Verdict(INCONCLUSIVE, (reason,), ())
    guard = _guard(facts)
    found = [
        *_phases(facts, guard),
        *_pods(facts),
        *_nodes(facts),
        _fidelity(facts),
        *_counts(facts),
        *_leases(facts, limits["lease_ratio"], limits["lag"]),
        *slo.api(facts, limits),
        slo.startup(facts, limits),
        *_offered(facts, limits["offered"]["least"]),
        *(_bound(each) for each in facts.bounds),
        *_lags(facts, limits["lag"]),
        _record(facts, limits["record"]["least"]),
        *_interrupted(facts),
    ]
    if guard.get("ours"):
        found = [replace(limit, outcome="inconclusive") if limit.outcome == "fail" else limit for limit in found]
    if not facts.meta.get("finished"):
        found = [_unfinished(limit) for limit in found]
    word = PASS
    for outcome, meaning in (("inconclusive", INCONCLUSIVE), ("fail", FAIL)):
        if any(limit.outcome == outcome for limit in found):
            word = meaning
    return Verdict(word, tuple(_reasons(found, facts)), tuple(found))


def _unfinished(limit: Limit) -> Limit:
    """Pods that are missing in a record without an end may have run after it."""
    missing = limit.outcome == "fail" and limit.name.startswith(("pods-", "counts-"))
    return replace(limit, outcome="inconclusive") if missing else limit


def _reasons(found: Iterable[Limit], facts: Facts) -> Iterable[str]:
    """Broken gates first, then what could not be told, then what else a reader must know."""
    found = list(found)
    for outcome in ("fail", "inconclusive"):
        yield from (f"{limit.title}: {limit.reason or limit.value}" for limit in found if limit.outcome == outcome)
    if not any(limit.outcome in ("fail", "inconclusive") for limit in found):
        gates = [limit for limit in found if limit.outcome == "pass"]
        yield f"all {len(gates)} gates held"
    yield from (_named(gap, facts) for gap in facts.interruptions)
    yield from (limit.reason for limit in found if limit.name.startswith("offered-") and limit.reason)
    yield from _void([limit for limit in found if limit.role == NOT_APPLICABLE])


def _void(limits: list[Limit]) -> Iterable[str]:
    """One sentence each, or one for all where there are many."""
    if len(limits) <= _MOST_VOID:
        yield from (f"{limit.title}: not applicable: {limit.reason}" for limit in limits)
    else:
        yield f"{len(limits)} limits are not applicable, such as {limits[0].title}: {limits[0].reason}"


def _named(gap: sli.Interruption, facts: Facts) -> str:
    if gap.ours:
        seen = facts.startups[0].n - facts.startups[0].never if facts.startups else 0
        return (
            f"measurement interrupted ({gap.what}) {span(gap)}: startup percentiles cover the {seen} pods that were"
            " observed live"
        )
    return f"outage of {gap.what} {span(gap)}" + (f" ({gap.detail})" if gap.detail else "")


def _guard(facts: Facts) -> Mapping[str, Any]:
    """The guard that ended the load; nothing if none did, or the phases that it stopped were gone on with."""
    guard: Mapping[str, Any] = facts.meta.get("guard") or {}
    stopped = any(phase["state"] == "stopped" and phase["note"] == guard.get("words") for phase in facts.phases)
    return guard if stopped else {}


def _phases(facts: Facts, guard: Mapping[str, Any]) -> Iterable[Limit]:
    for phase in facts.phases:
        name, title = f"phase-{phase['name']}", f"Phase {phase['name']} ended"
        if phase["state"] == "done":
            yield gate(name, title, True, "done", "done")
        elif phase["state"] == "deadline":
            yield gate(
                name, title, False, "deadline", "done", phase["note"] or "its deadline passed before all was done"
            )
        elif guard and phase["note"] == guard["words"]:
            yield gate(name, title, False, "stopped", "done", f"a guard stopped it: {guard['words']}")
        else:
            why = (
                f"it is {phase['state']}: the run is not over"
                if phase["state"] == "running"
                else f"it was {phase['state']}" + (f": {phase['note']}" if phase["note"] else "")
            )
            yield unknown(name, title, phase["state"] or "", "done", why)


def _pods(facts: Facts) -> Iterable[Limit]:
    pods = facts.pods
    if not pods.planned and not pods.seen:
        return
    why = f"{pods.never:,} of {pods.planned:,} pods never ran"
    value = (
        f"{pods.running:,} of {pods.planned:,}" + _told(pods.completed, "completed") + _told(pods.removed, "removed")
    )
    yield gate("pods-running", "Every pod ran", not pods.never, value, f"{pods.planned:,}", why)
    # with a run time containers end and are started again: as was asked for
    asked = bool((facts.meta.get("profile") or {}).get("turbokube_run_time"))
    value = f"{pods.restarted:,} restarted{', as was asked for' if asked else ''}, {pods.surplus:,} surplus"
    once = not pods.surplus and (asked or not pods.restarted)
    yield gate("pods-once", "Every pod ran exactly once", once, value, "0 restarted, 0 surplus")
    value = f"{pods.lost:,} lost{_told(pods.withdrawn, 'deleted before they ran')}"
    yield gate("pods-lost", "No pod was lost", not pods.lost, value, "0 lost")


def _told(count: int, what: str) -> str:
    return f", {count:,} {what}" if count else ""


def _nodes(facts: Facts) -> Iterable[Limit]:
    title = "No vnode became NotReady"
    nodes = facts.nodes
    if nodes is None:
        yield unknown("nodes-ready", title, "nothing recorded", "0 times", "no vnode was ever observed")
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
    yield gate("nodes-ready", title, held, value, "0 times, all Ready", why + during(facts.outages, inside, late))


def _fidelity(facts: Facts) -> Limit:
    """Numbers hold for the level that they were measured at: at another one, what was asked for is not answered."""
    asked, found = facts.asked_fidelity, facts.fidelity
    name, title, value = "fidelity", "Fidelity of the vnodes, as the API servers counted it", found.words
    if not found.level:
        return Limit(name, title, REPORT, "", value, asked, found.reason)
    if found.level == asked:
        return gate(name, title, True, value, asked)
    return unknown(
        name,
        title,
        value,
        asked,
        f"{asked} was asked for, {value} was measured" + (f" ({found.reason})" if found.reason else ""),
    )


def _counts(facts: Facts) -> Iterable[Limit]:
    """The report's numbers against the store's own; the API's where the store cannot be asked."""
    pods = facts.pods.seen - facts.pods.gone
    # one that completed is there until somebody deletes it, which only the observer's own count tells
    ours = {"pods": facts.counts.get(("observer", "pods"), pods) if facts.pods.completed else pods}
    if facts.nodes:
        ours |= {"nodes": facts.nodes.total, "leases": facts.counts.get(("observer", "leases"), facts.nodes.total)}
    for resource, count in ours.items():
        name, title = f"counts-{resource}", f"The report's {resource} agree with the store's"
        source = next((name for name in ("store", "api") if (name, resource) in facts.counts), None)
        if source is None:
            yield unknown(
                name, title, f"{count:,} here", "the store's count", "neither the store nor the API was counted"
            )
            continue
        theirs, others = facts.counts[source, resource], facts.counts.get(("others", resource), 0)
        where = ("the store" if source == "store" else "the API") + (f", {others:,} of them no run's" if others else "")
        yield gate(name, title, count == theirs - others, f"{count:,} here, {theirs:,} in {where}", "equal")


def _leases(facts: Facts, band: Limits, lag: Limits) -> Iterable[Limit]:
    """Overall by each witness; the worst window by the fleet, whose scrape does not wait for a busy API server."""
    words = f"{band['least']:g}–{band['most']:g}"
    if not any(ratio.overall is not None for ratio in facts.leases):
        yield unknown(
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
        yield unknown(name, title, value, words, why)
        return

    def inside(value: float) -> bool:
        return bool(band["least"] <= round(value, 4) <= band["most"])

    calm = [
        window for window in ratio.windows if not any(gap.overlaps(window[0], window[1]) for gap in facts.interruptions)
    ]
    outside = bool(calm) and all(inside(window[2]) for window in calm)
    yield _lease_limit(facts, (name, title, value, words), inside(ratio.overall), during(facts.outages, outside), late)
    worst = ratio.worst
    if worst is None:
        return
    value = f"{worst[2]:.3f} at {clock(worst[0])} UTC"
    name, title = f"{name}-worst", f"Worst 60 s of lease renewals, counted by {who}"
    if ratio.source == "fleet":
        words_during = during(facts.outages, outside, [(worst[0], worst[1])])
        yield _lease_limit(facts, (name, title, value, words), inside(worst[2]), words_during, late)
    else:
        yield Limit(
            name, title, REPORT, "", value, words, "the scrape of a busy API server may itself be a second late"
        )


def _lease_limit(facts: Facts, words: tuple[str, str, str, str], held: bool, outage: str, late: float) -> Limit:
    name, title, value, limit = words
    if not held and late and not outage:
        return unknown(
            name,
            title,
            value,
            limit,
            f"{value}, but the fleet itself lagged by {late:.1f} s: the target may not be why",
        )
    return gate(name, title, held, value, limit, f"{value}, not {limit}{outage}")


def _offered(facts: Facts, least: float) -> Iterable[Limit]:
    """Whether open loops reached their rates."""
    for offer in facts.offers:
        share = offer.achieved_share
        if share is None:
            continue
        value = f"{share:.0%} of {offer.offered_rate:.3g}/s"
        reason = "" if share >= least else f"phase {offer.phase} reached {value}"
        name, title = f"offered-{offer.phase}", f"Phase {offer.phase} reached its rate"
        yield Limit(name, title, REPORT, "", value, f"≥ {least:.0%}", reason)


def _bound(each: Bound) -> Limit:
    """A limit that the profile set."""
    name = "-".join(part for part in ("limit", each.scope, each.name) if part)
    title = f"{f'Phase {each.scope}' if each.scope else 'The run'}: {each.name}"
    words = f"{'≥' if each.known.bound == 'least' else '≤'} {each.limit:g}"
    if not each.outcome:
        return void(name, title, each.value, words, each.reason)
    if each.outcome == "inconclusive":
        return unknown(name, title, each.value, words, each.reason or f"{each.value}, not {words}")
    return gate(name, title, each.outcome == "pass", each.value, words)


def _record(facts: Facts, least: float) -> Limit:
    """What is not recorded cannot be judged; that it is not over says so, too."""
    name, title, limit = "record", "The record is whole", f"≥ {least:.0%} of the load's seconds, and an end"
    share = facts.recorded
    value = "no load" if share is None else f"{share:.0%}"
    if not facts.meta.get("finished"):
        return unknown(name, title, value, limit, "the run was not finished: what came after is not in it")
    if share is not None and share < least:
        return unknown(name, title, value, limit, f"only {share:.0%} of the load's seconds are recorded")
    return gate(name, title, True, value, limit)


def _lags(facts: Facts, rule: Limits) -> Iterable[Limit]:
    """Our own lag. It breaks no gate; beyond its limit the numbers that hang on it are not to be trusted."""
    titles = {"loop": "Event loop of the agent", "send": "Sending of the load", "observer": "Observer's watch"}
    for who, title in titles.items():
        name, title, bound = f"lag-{who}", f"{title}: lag", f"p99 ≤ {rule[who]:g} s"
        if who not in facts.lags:
            if who == "send":
                continue
            yield unknown(name, title, "not measured", bound, "it was not measured")
            continue
        n, p99, most = facts.lags[who] if who != "send" else _send_lag(facts)
        value = f"p99 {p99:.3g} s, max {most:.3g} s of {n:,}"
        yield (
            gate(name, title, True, value, bound)
            if p99 <= rule[who]
            else unknown(name, title, value, bound, f"{value}, not {bound}")
        )
    if "fleet" in facts.lags:
        n, p99, most = facts.lags["fleet"]
        value = f"p99 {p99:.3g} s, max {most:.3g} s of {n:,}"
        yield Limit("lag-fleet", "Event loop of the fleet: lag", REPORT, "", value, f"p99 ≤ {rule['fleet']:g} s")


def _send_lag(facts: Facts) -> tuple[int, float, float]:
    """That of the phase whose requests left the latest: one that sends nothing would dilute it."""
    each = [
        (p99, n, most) for n, p99, most in (offer.lag for offer in facts.offers) if p99 is not None and most is not None
    ]
    if not each:
        return facts.lags["send"]
    p99, n, most = max(each)
    return n, p99, most


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
