"""Several bundles of one phase, each of a segment of its namespaces, as one: sums are exact, no row is taken twice."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .reader import Reader
from .writer import Writer

_AS_THEY_ARE = ("objects", "actions", "pods", "requests", "watches", "lag")
_ROWS = 5000  # handed over at once
# of series of segment k: k·_APART to (k+1)·_APART, so that no writer's own numbers meet them
_APART = 1_000_000


def merge(writer: Writer, folders: Mapping[int, Path]) -> list[dict[str, Any]]:
    """Hand every row of the segments' bundles, by their numbers, to `writer`, again if an earlier agent did.

    Tells how much each was. What is the whole run's is left to the run's own agent: its phases, its Nodes, its counts.
    Raises BundleError.
    """
    latencies: collections.Counter[tuple[Any, ...]] = collections.Counter()
    told = []
    phases = {name for folder in folders.values() for name in _phases(folder)}
    for table in ("requests", "watches"):
        writer.execute(f"DELETE FROM {table} WHERE phase = ?", [(name,) for name in phases])
    for number, folder in sorted(folders.items()):
        with Reader(folder) as reader:
            for table in _AS_THEY_ARE:
                _hand_over(writer, table, [tuple(row) for row in reader.query(f"SELECT * FROM {table}")])
            for *key, count in reader.query("SELECT * FROM latencies"):
                latencies[tuple(key)] += count
            _interruptions(writer, reader, number)
            _samples(writer, reader, number)
            told.append(_told(reader, number))
    writer.insert("latencies", [(*key, count) for key, count in latencies.items()])
    return told


def _phases(folder: Path) -> list[str]:
    with Reader(folder) as reader:
        return [row[0] for row in reader.query("SELECT name FROM phases")]


def _hand_over(writer: Writer, table: str, rows: list[tuple[Any, ...]]) -> None:
    for at in range(0, len(rows), _ROWS):
        writer.insert(table, rows[at : at + _ROWS])


def _interruptions(writer: Writer, reader: Reader, number: int) -> None:
    """A segment's are not the run's: those of its agent are told of it by its number."""
    rows = reader.query("SELECT started, ended, what, detail FROM interruptions")
    writer.execute("DELETE FROM interruptions WHERE what = ?", [(f"{row[2]}-{number}",) for row in rows])
    writer.insert("interruptions", [(row[0], row[1], f"{row[2]}-{number}", row[3]) for row in rows])


def _samples(writer: Writer, reader: Reader, number: int) -> None:
    """What each segment's agent took."""
    base = (number + 1) * _APART
    writer.execute("DELETE FROM samples WHERE series BETWEEN ? AND ?", [(base, base + _APART - 1)])
    series = reader.query("SELECT * FROM series WHERE kind = 'agent'")
    writer.insert("series", [(base + row["id"], f"agent-{number}", *tuple(row)[2:]) for row in series])
    ids = {row["id"] for row in series}
    samples = [tuple(row) for row in reader.query("SELECT series, time, value FROM samples") if row["series"] in ids]
    _hand_over(writer, "samples", [(base + one, *rest) for one, *rest in samples])


def _told(reader: Reader, number: int) -> dict[str, Any]:
    (pods, ran), (objects,) = (
        tuple(reader.query(sql)[0])
        for sql in (
            "SELECT count(*), count(running_seen) FROM pods",
            "SELECT count(accepted) FROM objects WHERE kind != 'Namespace'",
        )
    )
    sql = "SELECT min(started) AS started, max(ended) AS ended, state, note FROM phases"
    phase = dict(reader.query(sql)[0])
    lag = reader.query("SELECT coalesce(max(seconds), 0.0) FROM lag")[0][0]
    return {"segment": number, "pods": pods, "running": ran, "objects": objects, "lag_s": lag, **phase}
