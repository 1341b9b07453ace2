"""The scraped series of a bundle: what counters rose by, gauges stood at, histograms say.

A sample is kept only when the value changed, so a counter's rise belongs to the time between the scrape before the
sample and the sample itself. A value below the one before means that the component started anew from 0.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar

import msgspec

from turbokube.bundle.reader import Reader

K = TypeVar("K", bound=Hashable)
Line = list[float | None]  # one value per cell of a grid; None: nobody looked
Buckets = Mapping[float, float]  # cumulative count by upper edge, +Inf included
Span = tuple[float, float]  # begin and end
EVER: Span = (-math.inf, math.inf)

# Two scrapes farther apart than so many intervals leave a gap, as do a failed scrape and an interruption between them.
GAP_INTERVALS = 2.5
_DEFAULT_INTERVAL_S = 15.0


@dataclass(frozen=True, slots=True)
class Series:
    """One time series: whose, of what, with which labels."""

    component: str
    kind: str
    labels: Mapping[str, str]


class Rise(NamedTuple):
    """A counter rose by `amount` in (since, time]."""

    series: Series
    since: float
    time: float
    amount: float


@dataclass(frozen=True, slots=True)
class Grid:
    """Equal cells of `step` seconds from `start` on."""

    start: float
    step: float
    count: int

    def edges(self, cell: int) -> tuple[float, float]:
        """Begin and end of a cell."""
        return self.start + cell * self.step, self.start + (cell + 1) * self.step

    def cell(self, time: float) -> int:
        """The cell that holds a time; may lie outside of the grid."""
        return math.floor((time - self.start) / self.step)


def grid(start: float, end: float, finest: float, most: int = 240) -> Grid:
    """A grid over [start, end] whose step is a multiple of `finest` such that there are at most `most` cells."""
    length = max(end - start, finest)
    step = finest * max(1, math.ceil(length / finest / most))
    return Grid(start, step, max(1, math.ceil(length / step - 1e-9)))


class Metrics:
    """All series of a bundle."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    @cached_property
    def scrapes(self) -> dict[str, list[float]]:
        """The times of each component's successful scrapes, in order."""
        times: dict[str, list[float]] = {}
        for row in self._reader.query("SELECT component, time FROM scrapes WHERE ok ORDER BY component, time"):
            times.setdefault(row["component"], []).append(row["time"])
        return times

    @cached_property
    def interval(self) -> float:
        """Median seconds between two scrapes of a component."""
        steps = sorted(b - a for times in self.scrapes.values() for a, b in itertools.pairwise(times))
        return steps[len(steps) // 2] if steps else _DEFAULT_INTERVAL_S

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Kind by component."""
        rows = self._reader.query("SELECT DISTINCT component, kind FROM series ORDER BY component")
        return {row["component"]: row["kind"] for row in rows}

    def has(self, metric: str) -> bool:
        """Whether anything was scraped of this metric."""
        return bool(self._reader.query("SELECT 1 FROM series WHERE metric = ? LIMIT 1", metric))

    def series(self, metric: str) -> dict[int, Series]:
        """The series of a metric by id."""
        rows = self._reader.query("SELECT id, component, kind, labels FROM series WHERE metric = ?", metric)
        return {row[0]: Series(row[1], row[2], msgspec.json.decode(row[3], type=dict[str, str])) for row in rows}

    def samples(self, metric: str) -> Iterator[tuple[Series, float, float]]:
        """(series, time, value) of a metric, series by series in time order."""
        known = self.series(metric)
        sql = "SELECT m.series, m.time, m.value FROM series s JOIN samples m ON m.series = s.id WHERE s.metric = ?"
        for number, time, value in self._reader.connection.execute(sql + " ORDER BY m.series, m.time", (metric,)):
            yield known[number], time, value

    def rises(self, metric: str) -> Iterator[Rise]:
        """All rises of a counter.

        The first sample counts only if its component was scraped before without it: else it is where we came in.
        """
        last: Series | None = None
        before = 0.0
        for series, time, value in self.samples(metric):
            times = self.scrapes.get(series.component) or [time]
            if series is not last:
                last, before = series, value if time <= times[0] else 0.0
            if value != before:
                at = bisect.bisect_left(times, time)
                amount = value - before if value > before else value
                yield Rise(series, times[at - 1] if at > 0 else times[0], time, amount)
                before = value

    @cached_property
    def _breaks(self) -> dict[str, list[tuple[float, float]]]:
        """By component ("" for all of them), spans of which nothing is known: failed scrapes and interruptions."""
        found: dict[str, list[tuple[float, float]]] = {}
        for row in self._reader.query("SELECT component, time FROM scrapes WHERE NOT ok"):
            found.setdefault(row["component"], []).append((row["time"], row["time"]))
        for gap in self._reader.query("SELECT started, COALESCE(ended, 9e12) AS ended, what FROM interruptions"):
            if gap["what"] in self.kinds:
                name = "" if gap["what"] == "agent" else gap["what"]  # without the agent nobody looked at anything
                found.setdefault(name, []).append((gap["started"], gap["ended"]))
        return found

    def whole(self, component: str, since: float, time: float) -> bool:
        """Whether nothing was missed of a component between two scrapes that follow each other."""
        if time - since > GAP_INTERVALS * self.interval:
            return False
        breaks = self._breaks.get(component, []) + self._breaks.get("", [])
        return not any(begin < time and end > since for begin, end in breaks)

    def covered(self, component: str, grid: Grid) -> list[float]:
        """Seconds of each cell that lie between scrapes without a gap; 0 where it is less than half of the cell."""
        seen = [0.0] * grid.count
        times = self.scrapes.get(component, [])
        for since, time in itertools.pairwise(times):
            if self.whole(component, since, time):
                _spread(seen, grid, since, time, time - since)
        return [part if part >= grid.step / 2 else 0.0 for part in seen]

    def rates(self, metric: str, key: Callable[[Series], K | None], grid: Grid) -> dict[K, Line]:
        """What series of the same key rise by per second, over the grid. Key None leaves a series out."""
        sums: dict[tuple[K, str], list[float]] = {}
        for series in self.series(metric).values():
            if (name := key(series)) is not None:
                sums.setdefault((name, series.component), [0.0] * grid.count)
        for rise in self.rises(metric):
            name, component = key(rise.series), rise.series.component
            if name is not None and self.whole(component, rise.since, rise.time):
                _spread(sums[name, component], grid, rise.since, rise.time, rise.amount)
        covers = {component: self.covered(component, grid) for _, component in sums}
        lines: dict[K, Line] = {}
        for (name, component), totals in sums.items():
            line = lines.setdefault(name, [None] * grid.count)
            for cell, seconds in enumerate(covers[component]):
                if seconds:
                    line[cell] = (line[cell] or 0.0) + totals[cell] / seconds
        return lines

    def levels(self, metric: str, key: Callable[[Series], K | None], grid: Grid) -> dict[K, Line]:
        """Where gauges stood at each cell's end, summed over series of the same key."""
        covers: dict[str, list[float]] = {}
        histories: dict[int, tuple[Series, list[float], list[float]]] = {}
        for series, time, value in self.samples(metric):
            _, times, values = histories.setdefault(id(series), (series, [], []))
            times.append(time)
            values.append(value)
        lines: dict[K, Line] = {}
        for series, times, values in histories.values():
            if (name := key(series)) is None:
                continue
            cover = covers.setdefault(series.component, self.covered(series.component, grid))
            line = lines.setdefault(name, [None] * grid.count)
            for cell in range(grid.count):
                at = bisect.bisect_right(times, grid.edges(cell)[1])
                if cover[cell] and at > 0:
                    line[cell] = (line[cell] or 0.0) + values[at - 1]
        return lines

    def totals(self, metric: str, key: Callable[[Series], K | None], span: Span = EVER) -> dict[K, float]:
        """What series of the same key rose by in a span; a rise that is in it in part counts in part."""
        found: dict[K, float] = {}
        for rise in self.rises(metric):
            if (name := key(rise.series)) is not None:
                found[name] = found.get(name, 0.0) + _within(rise, span)
        return found

    def histogram(
        self, metric: str, key: Callable[[Series], K | None], span: Span = EVER
    ) -> dict[K, dict[float, float]]:
        """Over a span, cumulative counts by upper edge, summed over series of the same key."""
        found: dict[K, dict[float, float]] = {}
        for (name, edge), count in self.totals(f"{metric}_bucket", _edge_key(key), span).items():
            found.setdefault(name, {})[edge] = count
        return found

    def quantile_lines(
        self, metric: str, key: Callable[[Series], K | None], grid: Grid, quantiles: Sequence[float]
    ) -> dict[tuple[K, float], Line]:
        """Quantiles over the grid, interpolated in the bucket; None where nothing was counted."""

        by_name: dict[K, dict[float, Line]] = {}
        for (name, edge), line in self.rates(f"{metric}_bucket", _edge_key(key), grid).items():
            by_name.setdefault(name, {})[edge] = line
        lines: dict[tuple[K, float], Line] = {}
        for name, edges in by_name.items():
            for cell in range(grid.count):
                buckets = {edge: line[cell] or 0.0 for edge, line in edges.items()}
                for q in quantiles:
                    lines.setdefault((name, q), []).append(interpolated(buckets, q))
        return lines


def _edge_key(key: Callable[[Series], K | None]) -> Callable[[Series], tuple[K, float] | None]:
    """That of a bucket: its series' and its upper edge."""

    def found(series: Series) -> tuple[K, float] | None:
        name = key(series)
        return None if name is None else (name, float(series.labels["le"]))

    return found


def _within(rise: Rise, span: Span) -> float:
    begin, end = span
    if begin <= rise.since and rise.time <= end:
        return rise.amount
    overlap = min(end, rise.time) - max(begin, rise.since)
    return rise.amount * overlap / (rise.time - rise.since) if overlap > 0 else 0.0


def _spread(cells: list[float], grid: Grid, since: float, time: float, amount: float) -> None:
    """Share `amount`, spread evenly over (since, time], among the cells."""
    if time <= since:
        return
    for cell in range(max(0, grid.cell(since)), min(grid.count - 1, grid.cell(time)) + 1):
        begin, end = grid.edges(cell)
        overlap = min(end, time) - max(begin, since)
        if overlap > 0:
            cells[cell] += amount * overlap / (time - since)


def quantile_interval(buckets: Buckets, q: float) -> tuple[float, float] | None:
    """The edges between which the q-th quantile lies, all that a histogram knows; None when it is empty.

    The upper edge may be infinite.
    """
    edges = sorted(buckets)
    total = buckets[edges[-1]] if edges else 0.0
    if total <= 0:
        return None
    rank = math.ceil(q * total - 1e-9)
    lower = 0.0
    for edge in edges:
        if buckets[edge] >= rank:
            return lower, edge
        lower = edge
    return lower, math.inf


def interpolated(buckets: Buckets, q: float) -> float | None:
    """The q-th quantile, taking a bucket's values as even between its edges, as Prometheus' histogram_quantile does.

    A quantile above the last finite edge is told as that edge.
    """
    edges = sorted(buckets)
    total = buckets[edges[-1]] if edges else 0.0
    if total <= 0:
        return None
    rank, lower, below = q * total, 0.0, 0.0
    for edge in edges:
        if buckets[edge] >= rank and buckets[edge] > below:
            return lower if math.isinf(edge) else lower + (edge - lower) * (rank - below) / (buckets[edge] - below)
        lower, below = (lower, below) if math.isinf(edge) else (edge, max(below, buckets[edge]))
    return lower
