"""A limit and what became of it, and numbers in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from turbokube.profile.limits import Known

from . import sli

PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
GATE, REPORT, NOT_APPLICABLE = "gate", "report", "not applicable"


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
class Bound:
    """One limit that was set. `outcome`: pass, fail, inconclusive, or empty: not applicable."""

    scope: str  # name of the phase; empty: the run
    name: str
    known: Known
    limit: float
    outcome: str
    value: str
    reason: str = ""


def gate(name: str, title: str, held: bool, value: str, limit: str, reason: str = "") -> Limit:
    return Limit(
        name, title, GATE, "pass" if held else "fail", value, limit, "" if held else reason or f"{value}, not {limit}"
    )


def unknown(name: str, title: str, value: str, limit: str, reason: str) -> Limit:
    return Limit(name, title, GATE, "inconclusive", value, limit, reason)


def void(name: str, title: str, value: str, limit: str, reason: str) -> Limit:
    """A limit that nothing hangs on here."""
    return Limit(name, title, NOT_APPLICABLE, "", value, limit, reason)


def during(
    outages: Iterable[sli.Interruption],
    held_outside: bool | Callable[[], bool],
    spans: Iterable[tuple[float, float]] = (),
) -> str:
    """ " during the outage of …" for what broke only where an outage overlaps; empty otherwise."""
    held = held_outside() if callable(held_outside) else held_outside
    hit = [gap for gap in outages if not spans or any(gap.overlaps(*each) for each in spans)]
    if not held or not hit:
        return ""
    return ", during the outage of " + ", ".join(f"{gap.what} {span(gap)}" for gap in hit)


def clock(time: float) -> str:
    """Time of day in UTC."""
    seconds = int(time) % 86400
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def span(gap: sli.Interruption) -> str:
    """From when to when, in UTC, and for how long."""
    if gap.ended > 8e12:
        return f"{clock(gap.started)} UTC until the end of the record"
    return f"{clock(gap.started)}–{clock(gap.ended)} UTC ({gap.ended - gap.started:.0f} s)"


def calls_words(calls: sli.Calls, limit: float) -> str:
    """Calls in words: the share above the limit is exact, the p99 an interval."""
    slow = "" if calls.within is None else f"{calls.n - calls.within:,} over {limit:g} s of "
    return f"{slow}{calls.n:,} calls, p99 {interval_words(calls.p99)}"


def interval_words(interval: tuple[float, float] | None) -> str:
    """The edges of a bucket in words."""
    if interval is None:
        return "–"
    low, high = interval
    if high < 0.01:
        return f"{1000 * low:g}–{1000 * high:g} ms"
    return f"over {low:g} s" if high == float("inf") else f"{low:g}–{high:g} s"


def seconds_words(value: float | None) -> str:
    """A duration in words."""
    if value is None:
        return "–"
    return "never" if value == float("inf") else f"{value:.0f} s" if value >= 100 else f"{value:.3g} s"
