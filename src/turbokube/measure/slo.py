"""The official SLOs: API call latency and pod startup, in their windows, where their preconditions are met.

A window that meets the SLO outside of the preconditions has met it; one that does not has not broken it: there the SLO
promises nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import pods, sli
from .facts import Facts
from .outcome import REPORT, Limit, calls_words, during, gate, seconds_words, unknown, void

Limits = Mapping[str, Any]
Words = tuple[str, str, str]  # name, title and limit


def unmet(facts: Facts, churn: float, spans: Sequence[tuple[float, float]]) -> str:
    """Which preconditions were not met in any of these spans, in words; empty if all were."""
    busiest = max((facts.throughput.busiest(*span) for span in spans), default=0.0)
    broken = [each for each in facts.preconditions if each.voids and each.met is False]
    found = [f"{each.title} {each.limit} ({each.value})" for each in broken]
    found += [f"churn ≤ {churn:g}/s (busiest {sli.CHURN_WINDOW_S:g} s: {busiest:.0f}/s)"] if busiest > churn else []
    return f"precondition not met: {'; '.join(found)}" if found else ""


def api(facts: Facts, limits: Limits) -> Iterable[Limit]:
    """One per series with enough calls: each of its windows, or the whole run where only that has enough."""
    least, slow, judged = limits["samples"]["least"], limits["samples"]["slow_share"], 0
    for series in facts.api.series:
        name = f"api-{series.resource}-{series.kind}".replace(", ", "-").replace("/", "-").lower()
        title = f"API calls {series.resource} {series.kind}"
        bound = f"≤ {slow:.0%} over {series.limit:g} s"
        units = [calls for calls in series.windows if calls.n >= least] or [series.whole]
        few = units[0].n < least
        if few or any(calls.share is None for calls in units):
            why = f"{series.whole.n} calls are too few to judge by" if few else "the limit is no edge of a bucket"
            yield Limit(name, title, REPORT, "", calls_words(series.whole, series.limit), bound, why)
            continue
        judged += 1
        yield _calls(facts, (name, title, bound), series, units, limits)
    if not judged:
        why = "no API server was scraped" if facts.api.metric is None else f"no series has {least} calls"
        yield unknown("api-calls", "API call latency", "", "p99 of 5 minutes", why)
    yield from _coverage(facts, limits["coverage"]["least"])


def _calls(facts: Facts, words: Words, series: sli.CallSeries, units: list[sli.Calls], limits: Limits) -> Limit:
    name, title, bound = words
    good = 1 - limits["samples"]["slow_share"]
    bad = [calls for calls in units if (calls.share or 0.0) < good]
    worst = min(units, key=lambda calls: calls.share or 0.0)
    met = f"{len(units) - len(bad)} of {len(units)} windows met; worst: " if len(units) > 1 else ""
    value = met + calls_words(worst, series.limit)
    spans = [(calls.begin, calls.end) for calls in bad]
    reasons = [unmet(facts, limits["preconditions"]["churn"], [span]) for span in spans]
    if bad and all(reasons):
        return void(name, title, value, bound, f"{value}; {reasons[0]}")
    judged = [span for span, reason in zip(spans, reasons, strict=True) if not reason]
    outside = all(any(gap.overlaps(*each) for gap in facts.outages) for each in judged)
    return gate(name, title, not bad, value, bound, f"{value}{during(facts.outages, outside, judged)}")


def _coverage(facts: Facts, enough: float) -> Iterable[Limit]:
    for server, share in facts.coverage.items():
        name, title = f"coverage-{server}", f"Scrapes of {server} cover the load"
        value, limit = f"{share:.0%}", f"≥ {enough:.0%}"
        if share < enough and not any(server in gap.what for gap in facts.outages):
            yield unknown(name, title, value, limit, f"only {share:.0%} of the load's time lies between scrapes")
        else:
            yield Limit(name, title, REPORT, "", value, limit)


def startup(facts: Facts, limits: Limits) -> Limit:
    """p99 from intended to seen running: a watch that lags makes it longer, never shorter, so a pass stands."""
    rule, least = limits["pod_startup"]["p99"], limits["samples"]["least"]
    words = "pod-startup", "Startup of stateless pods", f"p99 ≤ {rule:g} s"
    name, title, bound = words
    windows = startups(facts)
    units = [unit for unit in windows if _pods(unit[1]) >= least]
    if not units:
        span, whole = (-math.inf, math.inf), pods.startup(pods.stateless(facts.starts))
        n, value = _pods(whole), _value(whole)
        reason = unmet(facts, limits["preconditions"]["churn"], [span])
        stateful = bool(facts.starts) and not any(stateless for _, stateless in facts.starts)
        if not n and facts.pods.planned and not stateful:
            return unknown(name, title, "nothing observed", bound, "no pod was observed")
        if not n or reason:
            return void(name, title, value, bound, f"{value}; {reason}" if n else "no stateless pod was asked for")
        return unknown(name, title, value, bound, f"{n} pods are too few to judge by, {least} are needed")
    return _startup(facts, words, units, rule, limits["preconditions"]["churn"])


def _startup(
    facts: Facts, words: Words, units: Sequence[tuple[tuple[float, float], pods.Startup]], rule: float, churn: float
) -> Limit:
    name, title, bound = words
    lag = facts.lags.get("observer", (0, 0.0, 0.0))[1]
    worst = max(units, key=lambda unit: unit[1].most["p99"] or 0.0)
    over = [unit for unit in units if (unit[1].most["p99"] or 0.0) > rule]
    met = f"{len(units) - len(over)} of {len(units)} windows met; worst: " if len(units) > 1 else ""
    value = met + _value(worst[1])
    reasons = [unmet(facts, churn, [span]) for span, _ in over]
    if over and all(reasons):
        return void(name, title, value, bound, f"{value}; {reasons[0]}")
    judged = [start for (_, start), reason in zip(over, reasons, strict=True) if not reason]
    broken = [start for start in judged if (start.least["p99"] or 0.0) - lag > rule]
    if judged and not broken:
        unseen = sum(start.unseen for start in judged)
        why = f"the observer itself lagged by {lag:.2f} s" + (
            f", and {unseen:,} pods were not seen live" if unseen else ""
        )
        return unknown(name, title, value, bound, f"{value}, but {why}")
    return gate(name, title, not over, value, bound)


def startups(facts: Facts) -> list[tuple[tuple[float, float], pods.Startup]]:
    """The startups of stateless pods in windows of 5 minutes of their intended times."""
    columns = list(pods.stateless(facts.starts))
    moments = [moment for each in columns if each.intended for moment in (min(each.intended), max(each.intended))]
    if not moments:
        return []
    spans = sli.windows(min(moments), max(moments) + 1e-3)
    return [(span, pods.startup(columns, *span)) for span in spans]


def _pods(start: pods.Startup) -> int:
    return start.n + start.unseen


def _value(start: pods.Startup) -> str:
    if not _pods(start):
        return "nothing observed"
    most = "at most " if start.unseen else ""
    return f"p99 {most}{seconds_words(start.most['p99'])} of {_pods(start):,} pods"
