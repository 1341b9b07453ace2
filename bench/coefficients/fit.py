"""Fit the costs of src/turbokube/predict/coefficients.json to the bundles of runs.

    python -m bench.coefficients.fit [--write] runs/a runs/b …

CPU: what a process used between two scrapes is the sum of idling, heartbeats, pods, and (scheduler) pods times nodes;
one least-squares fit over all such intervals of all bundles, but those in which nodes joined or left. Of runs above
fidelity `lease` only heartbeats and pods are fitted, the rest is taken to be as there. Memory: the
highest resident size so far, over nodes and pods. Store: the same of the database's file, with the heartbeats of the
last ten minutes.
"""

from __future__ import annotations

import argparse
import bisect
import dataclasses
import datetime
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import BundleError
from turbokube.predict import coefficients
from turbokube.predict.coefficients import Coefficients, Cost, LevelCost, StoreCost

OUTPUT = Path(coefficients.__file__).with_name(coefficients.FILE)
KINDS = ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "fleet", "agent")
AROUND_JOIN_S = 5.0  # joining costs what later heartbeats do not
INDEPENDENT = 0.05  # a column of which the columns before it leave less than this cannot be told from them


class FitError(Exception):
    """Bundles that nothing can be learnt from. The message is for the user."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """A value over time: `times` ascending. Linear between two points, or a staircase."""

    times: Sequence[float]
    values: Sequence[float]
    stairs: bool = False

    def __call__(self, time: float) -> float:
        """The value at a time; before the first point 0, after the last one its value."""
        at = bisect.bisect_right(self.times, time)
        if at == 0 or not self.times:
            return 0.0
        before = self.values[at - 1]
        if self.stairs or at == len(self.times):
            return before
        share = (time - self.times[at - 1]) / (self.times[at] - self.times[at - 1])
        return before + share * (self.values[at] - before)


@dataclasses.dataclass(frozen=True)
class Run:
    """What the fit needs of one bundle."""

    meta: dict[str, Any]
    nodes: Curve
    heartbeats: Curve  # so far
    pods: Curve  # work done so far: a third each when seen, bound and running
    cpu: dict[str, Curve]  # seconds, by kind
    memory: dict[str, Curve]  # bytes, highest so far, by kind
    store: Curve  # bytes, highest so far

    def joining(self, start: float, end: float) -> bool:
        """Whether the number of nodes changed in or near this time."""
        return self.nodes(start - AROUND_JOIN_S) != self.nodes(end + AROUND_JOIN_S)


def read(folder: Path) -> Run:
    """A bundle. Raises FitError if it does not have one of each component."""
    with Reader(folder) as reader:
        meta = reader.meta()
        profile = meta.get("profile") or {}
        per_renewal = 1.0 + profile.get("turbokube_lease_interval_s", 10.0) / profile.get(
            "turbokube_status_interval_s", 300.0
        )
        renewals = _series(reader, "turbokube_fleet_lease_renewals_total").get("fleet", Curve([], []))
        cpu, memory = (
            _series(reader, metric) for metric in ("process_cpu_seconds_total", "process_resident_memory_bytes")
        )
        if missing := [kind for kind in KINDS if kind not in cpu or kind not in memory]:
            raise FitError(f"{folder} has no CPU or memory of {', '.join(missing)}")
        rows = reader.query("SELECT time, total FROM nodes ORDER BY time")
        return Run(
            meta=meta,
            nodes=Curve([row[0] for row in rows], [row[1] for row in rows], stairs=True),
            heartbeats=Curve(renewals.times, [value * per_renewal for value in renewals.values]),
            pods=_pods(reader),
            cpu=cpu,
            memory={kind: _highest(curve) for kind, curve in memory.items()},
            store=_highest(_series(reader, "etcd_mvcc_db_total_size_in_bytes").get("etcd", Curve([], []))),
        )


def _series(reader: Reader, metric: str) -> dict[str, Curve]:
    """A metric of each kind of component. Raises FitError if a kind has several that have it."""
    found: dict[str, Curve] = {}
    for number, kind in [tuple(r) for r in reader.query("SELECT id, kind FROM series WHERE metric = ?", metric)]:
        if kind in found:
            raise FitError(f"{reader.path.parent} has several {kind}; a fit needs one of each component")
        rows = reader.query("SELECT time, value FROM samples WHERE series = ? ORDER BY time", number)
        found[kind] = Curve([row[0] for row in rows], [row[1] for row in rows])
    return found


def _pods(reader: Reader) -> Curve:
    moments: list[float] = []
    for column in ("seen", "bound_seen", "running_seen"):
        moments += [row[0] for row in reader.query(f"SELECT {column} FROM pods WHERE {column} IS NOT NULL")]
    moments.sort()
    return Curve(moments, [(number + 1) / 3 for number in range(len(moments))], stairs=True)


def _highest(curve: Curve) -> Curve:
    values, most = [], 0.0
    for value in curve.values:
        most = max(most, value)
        values.append(most)
    return Curve(curve.times, values, stairs=True)


def least_squares(rows: Sequence[Sequence[float]], wanted: Sequence[float]) -> list[float]:
    """Coefficients ≥ 0 that explain `wanted` by the columns of `rows`; 0 for a column that others stand for.

    Columns are taken in their order (Gram-Schmidt). If one comes out negative, it is left out and the rest done anew.
    """
    width = len(rows[0]) if rows else 0
    used = [True] * width
    while True:
        basis: dict[int, tuple[list[float], list[float]]] = {}  # column → unit vector, its shares of the columns
        for column in (index for index in range(width) if used[index]):
            vector = [row[column] for row in rows]
            length = math.hypot(*vector)
            shares = [0.0] * width
            shares[column] = 1.0
            for unit, share in basis.values():
                along = math.fsum(a * b for a, b in zip(unit, vector, strict=True))
                vector = [a - along * b for a, b in zip(vector, unit, strict=True)]
                shares = [a - along * b for a, b in zip(shares, share, strict=True)]
            rest = math.hypot(*vector)
            if length and rest / length >= INDEPENDENT:
                basis[column] = ([value / rest for value in vector], [value / rest for value in shares])
        result = [0.0] * width
        for unit, share in basis.values():
            along = math.fsum(a * b for a, b in zip(unit, wanted, strict=True))
            result = [a + along * b for a, b in zip(result, share, strict=True)]
        worst = min(range(width), key=lambda index: result[index], default=0)
        if not width or result[worst] >= 0:
            return result
        used[worst] = False


@dataclasses.dataclass(frozen=True)
class Interval:
    """What there was between two scrapes of a process: CPU seconds, heartbeats, pods, nodes."""

    seconds: float
    cpu: float
    heartbeats: float
    pods: float
    nodes: float


def _intervals(runs: Iterable[Run], kind: str) -> list[Interval]:
    """Those between joins. Raises FitError when there are none."""
    found = []
    for run in runs:
        curve = run.cpu[kind]
        for start, end in zip(curve.times, curve.times[1:], strict=False):
            spent = curve(end) - curve(start)
            if spent < 0 or run.joining(start, end):  # less than before: it was restarted
                continue
            rises = (each(end) - each(start) for each in (run.heartbeats, run.pods))
            found.append(Interval(end - start, spent, *rises, run.nodes(start)))
    if not found:
        raise FitError(f"no two scrapes of {kind} lie between joins")
    return found


def fit_cpu(runs: Iterable[Run], kind: str) -> dict[str, float]:
    """The CPU part of a Cost."""
    found = _intervals(runs, kind)
    slopes = [(one.pods * one.nodes / 1e3,) if kind == "kube-scheduler" else () for one in found]
    rows = [(one.heartbeats, one.pods, one.seconds, *slope) for one, slope in zip(found, slopes, strict=True)]
    heartbeat, pod, idle, *slope = least_squares(rows, [one.cpu for one in found])
    result = {"heartbeat_ms": heartbeat * 1e3, "pod_ms": pod * 1e3, "idle_cores": idle}
    return result | ({"pod_ms_per_1000_nodes": slope[0] * 1e3} if slope else {})


def fit_level(runs: Iterable[Run], kind: str, base: Cost) -> LevelCost:
    """The CPU at a level where `base` is that at `lease`: idling, and what nodes add to a pod, are as there."""
    found = _intervals(runs, kind)
    known = [one.seconds * base.idle_cores + one.pods * base.pod_ms_per_1000_nodes * one.nodes / 1e6 for one in found]
    left = [one.cpu - spent for one, spent in zip(found, known, strict=True)]
    heartbeat, pod = least_squares([(one.heartbeats, one.pods) for one in found], left)
    return LevelCost(heartbeat_ms=_short(heartbeat * 1e3), pod_ms=_short(pod * 1e3))


def fit_memory(runs: Iterable[Run], kind: str) -> dict[str, float]:
    """The memory part of a Cost."""
    columns: list[Callable[[Run, float], float]] = [
        lambda _run, _time: 1.0,
        lambda run, time: run.nodes(time),
        lambda run, time: run.pods(time),
    ]
    base, node, pod = _fit([(run, run.memory[kind]) for run in runs], columns)
    return {"memory_mib": base / 2**20, "node_kib": node / 2**10, "pod_kib": pod / 2**10}


def fit_store(runs: Iterable[Run], known: StoreCost) -> StoreCost:
    """The cost of the store's file."""
    columns: list[Callable[[Run, float], float]] = [
        lambda run, time: run.pods(time),
        lambda run, time: run.heartbeats(time) - run.heartbeats(time - known.kept_s),
        lambda run, time: run.nodes(time),
    ]
    pod, heartbeat, node = _fit([(run, run.store) for run in runs], columns)
    return StoreCost(
        pod_bytes=round(pod) or known.pod_bytes,
        heartbeat_bytes=round(heartbeat) or known.heartbeat_bytes,
        node_bytes=round(node) or known.node_bytes,
        kept_s=known.kept_s,
    )


def _fit(curves: list[tuple[Run, Curve]], columns: list[Callable[[Run, float], float]]) -> list[float]:
    points = [(run, time, curve(time)) for run, curve in curves for time in curve.times]
    return least_squares([[one(run, time) for one in columns] for run, time, _ in points], [p[2] for p in points])


def fit(runs: list[Run], known: Coefficients, command: str) -> Coefficients:
    """All that bundles can tell; the rest stays as it is known. Above fidelity `lease` that is the CPU at that level.

    Raises FitError for runs of several levels.
    """
    levels = {str(run.meta.get("fidelity", "lease")) for run in runs}
    if len(levels) > 1:
        raise FitError(f"a fit needs runs of one fidelity, these have {' and '.join(sorted(levels))}")
    if (level := levels.pop()) != "lease":
        return _fit_level(runs, known, command, level)
    components = {
        kind: Cost(**{name: _short(value) for name, value in (fit_cpu(runs, kind) | fit_memory(runs, kind)).items()})
        for kind in KINDS
    }
    return Coefficients(
        provenance=_provenance(runs, command) | {"levels": known.provenance.get("levels", {})},
        components=components,
        engines=known.engines,
        levels=known.levels,
        store=fit_store(runs, known.store),
        disk=known.disk,
        requests_per_pod=known.requests_per_pod,
        work=known.work,
    )


def _fit_level(runs: list[Run], known: Coefficients, command: str, level: str) -> Coefficients:
    """The CPU at one level; all else stays as it is known."""
    told = {**known.provenance.get("levels", {}), level: _provenance(runs, command)}
    costs = {kind: fit_level(runs, kind, known.components[kind]) for kind in KINDS}
    provenance = {**known.provenance, "levels": told}
    return msgspec.structs.replace(known, provenance=provenance, levels={**known.levels, level: costs})


def _provenance(runs: list[Run], command: str) -> dict[str, Any]:
    """How it was come by."""
    sizes = sorted({int(max(run.nodes.values, default=0)) for run in runs})
    pods = [round(run.pods.values[-1]) if run.pods.values else 0 for run in runs]
    hardware = runs[0].meta.get("hardware") or {}
    return {
        "date": datetime.date.fromtimestamp(runs[0].meta["started"]).isoformat(),
        "machine": f"{hardware.get('cores')} cores of {hardware.get('cpu_model')}, "
        f"{hardware.get('memory_bytes', 0) / 2**30:.0f} GiB",
        "versions": runs[0].meta.get("versions") or {},
        "command": command,
        "note": f"Fitted to {len(runs)} run(s): up to {', '.join(map(str, sizes))} nodes, {sum(pods)} pods in all.",
    }


def table(found: Coefficients) -> str:
    """The costs, for a person."""
    names = list(Cost.__struct_fields__)
    lines = [" ".join([f"{'':24}", *(f"{name:>12.12}" for name in names)])]
    for kind, cost in found.components.items():
        lines.append(" ".join([f"{kind:24}", *(f"{getattr(cost, name):12.3f}" for name in names)]))
    for level, costs in found.levels.items():
        lines += [
            f"{kind:24} at {level}: {cost.heartbeat_ms:.3f} ms per heartbeat, {cost.pod_ms:.3f} per pod"
            for kind, cost in costs.items()
        ]
    store = found.store
    lines.append(
        f"store: {store.node_bytes:.0f} bytes per node, {store.pod_bytes:.0f} per pod, "
        f"{store.heartbeat_bytes:.0f} per heartbeat of the last {store.kept_s:.0f} s"
    )
    return "\n".join([*lines, found.provenance["note"]])


def write(found: Coefficients) -> None:
    """Replace what the preflight reckons with."""
    OUTPUT.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    print(f"written to {OUTPUT}")


def _short(value: float) -> float:
    """Three significant digits; more would claim what a fit does not know."""
    return float(f"{value:.3g}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Fit the preflight's coefficients to bundles.")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="runs/NAME")
    parser.add_argument("--write", action="store_true", help=f"replace {OUTPUT.name}")
    options = parser.parse_args()
    try:
        command = "python -m bench.coefficients.fit " + " ".join(path.name for path in options.bundles)
        found = fit([read(folder) for folder in options.bundles], coefficients.load(), command)
    except (FitError, BundleError) as error:
        sys.exit(str(error))
    print(table(found))
    if options.write:
        write(found)


if __name__ == "__main__":
    main()
