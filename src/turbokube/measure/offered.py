"""What a phase meant to send against what the API servers took of it, by the load generator's own account.

Rates are per second, latencies seconds from the intended time to the answer that accepted the request.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from turbokube.bundle.reader import Reader

from .pods import QUANTILES, percentile

COUNTS = ("intended", "sent", "accepted", "throttled", "retried", "failed")
# Bundles of before it was kept: each request was sent once more for each 429 and each retry
INTENDED = "COALESCE(intended, sent - throttled - retried)"


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one (resource, verb). Percentiles are upper edges of buckets that lie 5 % apart."""

    resource: str
    verb: str
    n: int
    percentiles: dict[str, float | None]  # p50, p90, p99, max


@dataclass(frozen=True, slots=True)
class Offer:
    """One phase. `begin` and `end`: the first second in which something was meant, and the end of the last answer's."""

    phase: str
    open_loop: bool
    counts: dict[str, int]  # COUNTS
    begin: float | None
    end: float | None
    offered_rate: float | None
    achieved_rate: float | None
    latency: tuple[Latency, ...]
    lag: tuple[int, float | None, float | None]  # samples, p99 and max of how late the generator sent

    @property
    def achieved_share(self) -> float | None:
        """Of the rate that was meant; None in a closed loop, which means no rate, and where nothing was meant."""
        if not self.open_loop or not self.offered_rate or self.achieved_rate is None:
            return None
        return self.achieved_rate / self.offered_rate


def spec(phase: Mapping[str, Any]) -> dict[str, Any]:
    """What a row of table phases was asked to do."""
    found: dict[str, Any] = msgspec.json.decode(phase.get("spec") or "{}")
    return found


def offers(reader: Reader, phases: Sequence[Mapping[str, Any]]) -> tuple[Offer, ...]:
    """One for each phase that sent anything, in their order."""
    found = []
    for phase in phases:
        sums = ", ".join(f"SUM({INTENDED if name == 'intended' else name}) AS {name}" for name in COUNTS)
        rows = reader.query(
            f"SELECT second, {sums} FROM requests WHERE phase = ? GROUP BY second ORDER BY second", phase["name"]
        )
        if rows:
            found.append(_offer(reader, phase, rows))
    return tuple(found)


def _offer(reader: Reader, phase: Mapping[str, Any], rows: Sequence[sqlite3.Row]) -> Offer:
    counts = {name: sum(row[name] or 0 for row in rows) for name in COUNTS}
    meant = [row["second"] for row in rows if row["intended"]]
    taken = [row["second"] for row in rows if row["accepted"]]
    offered = achieved = None
    if meant:
        seconds = meant[-1] - meant[0] + 1
        offered = counts["intended"] / seconds
        # the answer to what was sent at the end of a second may fall into the next one
        achieved = counts["accepted"] / max(seconds, taken[-1] - meant[0] if taken else 0)
    end = max((*meant, *taken), default=None)
    return Offer(
        phase["name"], bool(spec(phase).get("rate")), counts, meant[0] if meant else None,
        None if end is None else end + 1, offered, achieved, _latency(reader, phase["name"]), _lag(reader, phase),
    )  # fmt: skip


def _latency(reader: Reader, phase: str) -> tuple[Latency, ...]:
    tables: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for row in reader.query(
        "SELECT resource, verb, le, count FROM latencies WHERE phase = ? AND count > 0 ORDER BY le", phase
    ):
        tables.setdefault((row["resource"], row["verb"]), []).append((row["le"], row["count"]))
    return tuple(
        Latency(*key, sum(count for _, count in table), bucket_percentiles(table))
        for key, table in sorted(tables.items(), key=lambda item: -sum(count for _, count in item[1]))
    )


def bucket_percentiles(table: Sequence[tuple[float, int]]) -> dict[str, float | None]:
    """p50, p90, p99 and max of (upper edge, count of this bucket alone), in the order of the edges."""
    n = sum(count for _, count in table)
    found: dict[str, float | None] = {}
    for name, q in [(f"p{q * 100:g}", q) for q in QUANTILES] + [("max", 1.0)]:
        rank, below = max(1, math.ceil(q * n - 1e-9)), 0
        found[name] = None
        for edge, count in table:
            below += count
            if below >= rank:
                found[name] = edge
                break
    return found


def _lag(reader: Reader, phase: Mapping[str, Any]) -> tuple[int, float | None, float | None]:
    rows = reader.query(
        "SELECT seconds FROM lag WHERE who = 'send' AND seconds IS NOT NULL AND time >= ? AND time <= ?"
        " ORDER BY seconds", phase["started"] or 0.0, (phase["ended"] or math.inf) + 1.0,
    )  # fmt: skip
    values = [row[0] for row in rows]
    return len(values), percentile(values, 0, 0.99), values[-1] if values else None
