"""The limits that a profile sets for a phase, or for the whole run: how each is measured, and between what it lies.

A value is told as an interval wherever that is all that is known: a histogram knows the bucket, a list the latest
moment. A limit within the interval is neither held nor broken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from turbokube.profile.limits import Known, known_limits

from . import offered, pods, sli
from .facts import Facts
from .outcome import Bound
from .series import Metrics, Series, Span, quantile_interval

# With no slow call among 3 / (1 - q), the 95 % bound on the slow share is 1 - q ("rule of three").
RULE_OF_THREE = 3.0
NOT_OFFERED = "a closed loop means no rate"


@dataclass(frozen=True, slots=True)
class Measured:
    """The value lies in [low, high], or (low, high] where `above`; None: not known. `why`: it means nothing here."""

    low: float | None = None
    high: float | None = None
    words: str = ""
    why: str = ""
    above: bool = False


@dataclass(frozen=True, slots=True)
class _Scope:
    """What a limit is measured over. `phases`: names of those within."""

    facts: Facts
    metrics: Metrics
    name: str
    phases: tuple[str, ...]
    span: Span | None  # None: it has not ended


def least_samples(q: float) -> int:
    """So many calls are needed to judge a quantile by."""
    return max(1, math.ceil(RULE_OF_THREE / (1 - q) - 1e-9)) if q < 1 else 1


def bounds(facts: Facts, metrics: Metrics) -> list[Bound]:
    """Every limit of every phase, then those of the run."""
    found: list[Bound] = []
    for phase in facts.phases:
        limits = offered.spec(phase).get("limits") or {}
        span = (phase["started"], phase["ended"]) if phase["started"] and phase["ended"] else None
        found += _judge(_Scope(facts, metrics, phase["name"], (phase["name"],), span), limits)
    names = tuple(phase["name"] for phase in facts.phases)
    begun = [phase["started"] for phase in facts.phases if phase["started"]]
    ended = [phase["ended"] for phase in facts.phases]
    span = (min(begun), max(ended)) if begun and all(ended) else None
    run = (facts.meta.get("profile") or {}).get("turbokube_limits") or {}
    return found + _judge(_Scope(facts, metrics, "", names, span), run)


def _judge(scope: _Scope, limits: Mapping[str, Any]) -> list[Bound]:
    known = known_limits()
    return [_bound(scope, name, known[name], float(limits[name])) for name in known if name in limits]


def _bound(scope: _Scope, name: str, known: Known, limit: float) -> Bound:
    if scope.span is None:
        return Bound(scope.name, name, known, limit, "inconclusive", "", "it has not ended")
    found = _MEASURES[name](scope)
    outcome = _outcome(found, known.bound, limit, own=name == "lag_p99_s")
    reason = found.why
    if outcome == "inconclusive" and found.low is not None:
        reason = f"{found.words}: the limit lies within what is known" if not reason else f"{found.words}: {reason}"
    return Bound(scope.name, name, known, limit, outcome, found.words, reason)


def _outcome(found: Measured, bound: str, limit: float, own: bool) -> str:
    """`own`: our own lag breaks nothing, it only takes from what can be told."""
    if found.why == NOT_OFFERED:
        return ""
    if found.low is None or found.high is None or found.why:
        return "inconclusive"
    if bound == "least":
        held, broken = found.low >= limit, found.high < limit
    else:
        held, broken = found.high <= limit, found.low >= limit if found.above else found.low > limit
    return "pass" if held else "fail" if broken and not own else "inconclusive"


# measures


def _exact(value: float | None, unit: str, nothing: str, n: str = "") -> Measured:
    if value is None:
        return Measured(why=nothing)
    words = "never" if value == math.inf else f"{value:.2%}" if unit == "share" else f"{value:.3g} {unit}".strip()
    return Measured(value, value, words + n)


def _seconds(scope: _Scope) -> Measured:
    begin, end = scope.span or (0.0, 0.0)
    return _exact(end - begin, "s", "")


def _pods_per_s(scope: _Scope) -> Measured:
    spans = [scope.facts.spans[name] for name in scope.phases if name in scope.facts.spans]
    if not spans:
        return Measured(why="no pod ran")
    count = sum(n for n, _, _ in spans)
    length = max(max(end for _, _, end in spans) - min(begin for _, begin, _ in spans), 1.0)
    return _exact(count / length, "pods/s", "", f" of {count:,} pods")


def _offers(scope: _Scope) -> list[offered.Offer]:
    return [offer for offer in scope.facts.offers if offer.phase in scope.phases]


def _achieved(scope: _Scope) -> Measured:
    """The worst of the phases in the scope: one that is behind is not made up for by another."""
    offers = _offers(scope)
    shares = [offer.achieved_share for offer in offers if offer.achieved_share is not None]
    if offers and not shares:
        return Measured(why=NOT_OFFERED)
    return _exact(min(shares, default=None), "share", "no request was meant")


def _share(what: str, of: str) -> Callable[[_Scope], Measured]:
    def measure(scope: _Scope) -> Measured:
        counts = [offer.counts for offer in _offers(scope)]
        total, part = (sum(each[name] for each in counts) for name in (of, what))
        n = f", {part:,} of {total:,}"
        return _exact(part / total if total else None, "share", f"no request was {of.replace('intended', 'meant')}", n)

    return measure


def _request(name: str, q: float) -> Callable[[_Scope], Measured]:
    def measure(scope: _Scope) -> Measured:
        every = [latency for offer in _offers(scope) for latency in offer.latency]
        enough = [latency for latency in every if latency.n >= least_samples(q)]
        if not enough:
            most = max((latency.n for latency in every), default=0)
            return Measured(why=f"{most} requests of a kind are too few to judge by, {least_samples(q)} are needed")
        worst = max(enough, key=lambda latency: latency.percentiles[name] or 0.0)
        return _exact(worst.percentiles[name], "s", "", f" of {worst.n:,} {worst.resource} {worst.verb}")

    return measure


def _startup(name: str, q: float) -> Callable[[_Scope], Measured]:
    """A watch that lags makes a startup longer, never shorter; one that only a list showed took at most so long."""

    def measure(scope: _Scope) -> Measured:
        facts = scope.facts
        start = pods.startup(each for (phase, _), each in facts.starts.items() if phase in scope.phases)
        n = start.n + start.unseen
        if n < least_samples(q):
            return Measured(why=f"{n} pods are too few to judge by, {least_samples(q)} are needed")
        low, high = start.least[name], start.most[name]
        assert low is not None
        assert high is not None
        low = max(0.0, low - facts.lags.get("observer", (0, 0.0, 0.0))[1])
        words = _exact(high, "s", "", f" of {n:,} pods").words
        return Measured(low, high, f"at most {words}" if start.unseen else words)

    return measure


def _api(kinds: Callable[[str], bool]) -> Callable[[_Scope], Measured]:
    def measure(scope: _Scope) -> Measured:
        metric = scope.facts.api.metric
        if metric is None:
            return Measured(why="no API server was scraped")

        def key(series: Series) -> str | None:
            found = sli.call_key(series.labels)
            return " ".join(found) if found and kinds(found[1]) else None

        return _worst(scope.metrics.histogram(metric, key, scope.span or (0.0, 0.0)), "calls")

    return measure


def _waited(metric: str, label: str, what: str) -> Callable[[_Scope], Measured]:
    """p99 of a histogram, worst of what `label` tells apart; `component` tells those apart."""

    def measure(scope: _Scope) -> Measured:
        def key(series: Series) -> str | None:
            return series.component if label == "component" else series.labels.get(label, "") if label else ""

        if not scope.metrics.has(f"{metric}_bucket"):
            return Measured(why=f"nothing was scraped of {metric}")
        return _worst(scope.metrics.histogram(metric, key, scope.span or (0.0, 0.0)), what)

    return measure


def _worst(tables: Mapping[str, Mapping[float, float]], what: str) -> Measured:
    found = []
    for name, buckets in tables.items():
        n = buckets.get(math.inf, 0.0)
        interval = quantile_interval(buckets, 0.99)
        if interval is not None and n >= least_samples(0.99):
            found.append((interval[1], interval[0], name, n))
    if not found:
        most = max((buckets.get(math.inf, 0.0) for buckets in tables.values()), default=0.0)
        return Measured(why=f"{most:.0f} {what} are too few to judge by, {least_samples(0.99)} are needed")
    high, low, name, n = max(found)
    edges = f"over {low:g} s" if high == math.inf else f"{low:g}–{high:g} s"
    return Measured(low, high, f"{edges} of {n:,.0f} {name} {what}".replace("  ", " "), above=True)


def _rejected(scope: _Scope) -> Measured:
    metric = "apiserver_flowcontrol_rejected_requests_total"
    if scope.facts.api.metric is None:
        return Measured(why="no API server was scraped")
    return _exact(sum(scope.metrics.totals(metric, lambda series: "", scope.span or (0.0, 0.0)).values()), "", "")


def _store_share(scope: _Scope) -> Measured:
    _, end = scope.span or (0.0, 0.0)

    def most(metric: str) -> float | None:  # only what changes is kept, and the file never shrinks
        return max((value for _, time, value in scope.metrics.samples(metric) if time <= end), default=None)

    quota, size = most("etcd_server_quota_backend_bytes"), most("etcd_mvcc_db_total_size_in_bytes")
    share = None if size is None or not quota else size / quota
    return _exact(share, "share", "the store tells no size and quota")


def _lag(scope: _Scope) -> Measured:
    worst: Sequence[float] = [offer.lag[1] for offer in _offers(scope) if offer.lag[1] is not None]
    return _exact(max(worst, default=None), "s", "it was not measured")


_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_MEASURES: dict[str, Callable[[_Scope], Measured]] = {
    "seconds": _seconds,
    "pods_per_s": _pods_per_s,
    "achieved_share": _achieved,
    "failed_share": _share("failed", "intended"),
    "throttled_share": _share("throttled", "sent"),
    "retried_share": _share("retried", "sent"),
    **{f"request_{name}_s": _request(name, q) for name, q in _QUANTILES.items()},
    **{f"pod_startup_{name}_s": _startup(name, q) for name, q in _QUANTILES.items()},
    "api_p99_s": _api(lambda kind: kind not in sli.WIDE_READS),
    "api_list_p99_s": _api(lambda kind: kind in sli.WIDE_READS),
    "apf_wait_p99_s": _waited("apiserver_flowcontrol_request_wait_duration_seconds", "priority_level", "requests"),
    "apf_rejected": _rejected,
    "scheduling_p99_s": _waited("scheduler_pod_scheduling_sli_duration_seconds", "", "pods"),
    "workqueue_wait_p99_s": _waited("workqueue_queue_duration_seconds", "name", "items"),
    "client_wait_p99_s": _waited("rest_client_rate_limiter_duration_seconds", "component", "requests"),
    "fsync_p99_s": _waited("etcd_disk_wal_fsync_duration_seconds", "component", "writes"),
    "commit_p99_s": _waited("etcd_disk_backend_commit_duration_seconds", "component", "commits"),
    "store_share": _store_share,
    "lag_p99_s": _lag,
}
