"""What was offered and what came of it: per phase, per namespace, and what bound it."""

from __future__ import annotations

import csv
import dataclasses
import io
import time
from array import array
from collections.abc import Iterable
from typing import Any

from turbokube.bundle.reader import Reader
from turbokube.measure import bottleneck
from turbokube.measure.facts import Facts
from turbokube.measure.offered import Offer, spec
from turbokube.measure.outcome import seconds_words
from turbokube.measure.pods import percentiles
from turbokube.measure.series import Metrics

CSV_HEAD = ("sequence", "time (ms)", "begin", "end")


def offered(facts: Facts) -> list[dict[str, Any]]:
    """Every phase that sent anything."""
    kinds = {phase["name"]: spec(phase).get("kind") or phase["kind"] for phase in facts.phases}
    return [_offer(offer, str(kinds.get(offer.phase, ""))) for offer in facts.offers]


def _offer(offer: Offer, kind: str) -> dict[str, Any]:
    samples, p99, most = offer.lag
    return {
        "phase": offer.phase,
        "kind": kind,
        "open_loop": offer.open_loop,
        "begin": offer.begin,
        "end": offer.end,
        **offer.counts,
        "offered_rate": offer.offered_rate,
        "achieved_rate": offer.achieved_rate,
        "achieved_share": offer.achieved_share,
        "lag": {"n": samples, "p99": p99, "max": most},
        "latency": [
            {
                "resource": each.resource,
                "verb": each.verb,
                "n": each.n,
                **each.percentiles,
                "words": {name: seconds_words(value) for name, value in each.percentiles.items()},
            }
            for each in offer.latency
        ],
    }


def watches(reader: Reader, facts: Facts) -> list[dict[str, Any]]:
    """Watches that phases held, per phase and resource: the most at once, sums, events and bytes per second."""
    rows = reader.query(
        "SELECT phase, resource, MAX(held) AS held, SUM(opened) AS opened, SUM(resumed) AS resumed,"
        " SUM(failed) AS failed, SUM(events) AS events, SUM(bytes) AS bytes,"
        " MAX(second) - MIN(second) + 1 AS seconds FROM watches GROUP BY phase, resource"
    )
    order = [phase["name"] for phase in facts.phases]
    return sorted((dict(row) for row in rows), key=lambda row: (order.index(row["phase"]), row["resource"]))


def mix(facts: Facts) -> str:
    """Who asked how: SLOs hold for JSON and protobuf, for cached and consistent reads, so a report names the mix."""
    specs = {phase["name"]: spec(phase) for phase in facts.phases}
    parts: dict[str, int] = {}
    for offer in facts.offers:
        asked = specs.get(offer.phase, {})
        words = "writes in JSON"
        if asked.get("kind") == "read":
            kind = "cached" if asked.get("resource_version") == "0" else "consistent"
            words = f"{kind} {asked.get('verb', 'list')}s in {'protobuf' if asked.get('protobuf') else 'JSON'}"
        parts[words] = parts.get(words, 0) + offer.counts["accepted"]
    return ", ".join(f"{count:,} {words}" for words, count in parts.items())


def shapes(facts: Facts) -> str:
    """The phases in words: name, kind and rate."""
    words = []
    for phase in facts.phases:
        asked = spec(phase)
        kind, rate = asked.get("kind") or phase["kind"], asked.get("rate")
        name = phase["name"] if phase["name"] == kind else f"{phase['name']} ({kind})"
        words.append(f"{name} at {_rate(rate)}" if rate else name)
    return ", ".join(words)


def _rate(rate: Any) -> str:
    if isinstance(rate, dict):
        return ", ".join(f"{name} {value}" for name, value in rate.items())
    return f"{rate:g}/s"


def bound(reader: Reader, metrics: Metrics) -> dict[str, Any] | None:
    """What bound the load; None where there were no pods."""
    found = bottleneck.name(reader, metrics)
    return None if found is None else {**dataclasses.asdict(found), "ratio": found.ratio}


def namespaces(reader: Reader) -> list[tuple[str, float, float]]:
    """(name, begin, end) of each whole namespace, in the order of their ends.

    From when the namespace stood until everything that its phase created in it was ready, as the author of the
    test `basic` measured it.
    """
    rows = reader.query(
        "SELECT n.name, n.ready AS begun, MAX(o.ready) AS ended FROM objects n JOIN objects o"
        " ON o.namespace = n.name AND o.phase = n.phase AND o.kind != 'Namespace'"
        " WHERE n.kind = 'Namespace' AND n.ready IS NOT NULL GROUP BY n.name"
        " HAVING SUM(o.ready IS NULL) = 0 ORDER BY ended, n.name"
    )
    return [(row["name"], row["begun"], row["ended"]) for row in rows]


def namespaces_csv(rows: Iterable[tuple[str, float, float]]) -> bytes:
    """namespaces.csv: the columns of the original's first, then the moments (UTC)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEAD)
    for name, begin, end in rows:
        writer.writerow((name, round(1000 * max(0.0, end - begin)), _moment(begin), _moment(end)))
    return text.getvalue().encode()


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"


def namespace_times(rows: Iterable[tuple[str, float, float]]) -> dict[str, Any]:
    """Percentiles of the namespaces' times, in seconds."""
    values = array("d", sorted(max(0.0, end - begin) for _, begin, end in rows))
    found = percentiles(values, 0)
    return {"n": len(values), **found, "words": {name: seconds_words(value) for name, value in found.items()}}


def generators(segments: list[dict[str, Any]]) -> str:
    """How many pods shared the load, and how evenly; empty where the agent fired it alone."""
    if not segments:
        return ""
    shares = [one["running"] for one in segments]
    begun = [one["started"] for one in segments]
    took = [one["ended"] - one["started"] for one in segments if one["ended"]]
    workers = len({one.get("worker") for one in segments})
    where = f"{len(segments)} in pods on {workers} worker{'s' * (workers > 1)}"
    return f"{where}: {min(shares):,} to {max(shares):,} pods each, begun within {max(begun) - min(begun):.2f} s" + (
        f", at work for {min(took):.1f} to {max(took):.1f} s" if took else ""
    )
