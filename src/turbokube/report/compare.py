"""Runs side by side: compare.html and compare.json from two or more groups of bundles, which are only read.

The first group is what the others are held against. Runs of one group are repeats: they tell how far a number moves by
itself, and only with them can a difference be told from chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from turbokube import disk
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import FILE, BundleError
from turbokube.profile.schema import PREFIX, variables

from . import readings
from .content import build, finite
from .readings import Reading
from .render import page
from .uncertainty import CONFIDENCE, difference, estimate

SCHEMA = 1
NAMES = ("compare.html", "compare.json")
# How a run is driven and where it lies, not what is run
_ASIDE = frozenset(
    f"{PREFIX}{name}"
    for name in (
        "profile", "run", "home", "kubeconfig", "context", "binaries", "preflight", "collect_on", "fail_on_verdict",
        "compare", "compare_to",
    )
)  # fmt: skip
_TABLES = frozenset(("meta", "phases", "objects", "pods", "samples"))
_ABSENT = "–"
_FOREMOST = ("Pods", "Pod startup", "Offered and achieved")  # sections that a terminal tells of single runs
_FAR = 0.1  # of the first group's mean: what is pointed out where single runs cannot tell chance


@dataclass(frozen=True)
class Run:
    """One bundle: where it lies, what it was made with, what its report tells."""

    folder: Path
    name: str
    meta: dict[str, Any]
    content: dict[str, Any]
    readings: dict[str, Reading]


Groups = Mapping[str, Sequence[Run]]


@dataclass(frozen=True, slots=True)
class Written:
    """What was made. `changed`: names of the files whose content is new; `differences`: the sentences on top."""

    paths: dict[str, Path]
    changed: tuple[str, ...]
    verdicts: dict[str, dict[str, str]]
    warnings: tuple[str, ...]
    differences: tuple[str, ...]


def write(groups: Mapping[str, Sequence[Path]], folder: Path, *, dry: bool = False) -> Written:
    """Write the comparison of these bundles into `folder`; with `dry`, only tell what would change.

    Raises BundleError, in one sentence, when there is nothing to compare, or a bundle is missing or of another kind.
    """
    content = compare(read(groups))
    as_json = msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
    texts = {"compare.html": page("compare.html.j2", content), "compare.json": as_json}
    changed = tuple(name for name, text in texts.items() if not _same(folder / name, text))
    if changed and not dry:
        folder.mkdir(parents=True, exist_ok=True)
        for name in changed:
            disk.replace(folder / name, texts[name], 0o666)
    return Written(
        {name: folder / name for name in NAMES},
        changed,
        {group["label"]: {run["run"]: run["verdict"] for run in group["runs"]} for group in content["groups"]},
        tuple(content["warnings"]),
        tuple(_sentences(content)),
    )


def _same(path: Path, text: bytes) -> bool:
    return path.is_file() and path.read_bytes() == text


def find(home: Path, names: Sequence[str]) -> list[Path]:
    """The bundles that are named: paths, absolute or in `home`, or names of its runs; * and ? as in a shell.

    Raises BundleError when a pattern matches no bundle.
    """
    found: list[Path] = []
    for name in names:
        path = home / name if "/" in name else home / "runs" / name
        if not set("*?") & set(name):
            found.append(path)
            continue
        pattern = path.relative_to(path.anchor) if path.anchor else path
        matching = sorted(each.parent for each in Path(path.anchor).glob(f"{pattern}/{FILE}"))
        if not matching:
            raise BundleError(f"no bundle matches {path}")
        found += matching
    return found


def read(groups: Mapping[str, Sequence[Path]]) -> dict[str, list[Run]]:
    """The runs of each group. Raises BundleError."""
    if len(groups) < 2:
        raise BundleError(f"{len(groups)} group of runs is named; a comparison needs two or more")
    seen: dict[Path, str] = {}
    for label, folders in groups.items():
        if not folders:
            raise BundleError(f"group {label} names no bundle")
        for folder in folders:
            if (path := folder.resolve()) in seen:
                raise BundleError(f"{folder} is named twice, in {seen[path]} and {label}: a run is no repeat of itself")
            seen[path] = label
    names = [folder.name for folder in seen]
    return {
        label: [_run(folder, folder.name if names.count(folder.name) == 1 else str(folder)) for folder in folders]
        for label, folders in groups.items()
    }


def _run(folder: Path, name: str) -> Run:
    with Reader(folder) as reader:
        tables = {row["name"] for row in reader.query("SELECT name FROM sqlite_master")}
        if missing := sorted(_TABLES - tables):
            raise BundleError(f"{folder} is not the bundle of a run: its {reader.path.name} has no {missing[0]}")
        content = build(reader)
        meta = reader.meta()
    return Run(folder, name, meta, content, {each.name: each for each in readings.of(content)})


def compare(groups: Groups) -> dict[str, Any]:
    """Everything that the page and compare.json tell."""
    settings = _settings(groups)
    indicators = list(_indicators(groups))
    found = {
        "schema": SCHEMA,
        "confidence": CONFIDENCE,
        "groups": [{"label": label, "runs": [_told(run) for run in runs]} for label, runs in groups.items()],
        "warnings": list(_warnings(groups, settings)),
        "settings": settings,
        "indicators": indicators,
        "limits": list(_limits(groups)),
        "plots": list(_plots(groups)),
        "bands": [],
        "begin": 0.0,
    }
    return {key: finite(value) for key, value in found.items()}


def _told(run: Run) -> dict[str, Any]:
    """A run's own words."""
    return {
        "run": run.name,
        "folder": str(run.folder),
        "verdict": run.content["verdict"],
        "reasons": list(run.content["reasons"]),
        "bound": (run.content.get("bottleneck") or {}).get("words") or "",
        "headline": list(run.content["headline"]),
        "started": run.meta.get("started"),
        "conditions": [list(each) for each in run.content["conditions"]],
    }


# what they were made with


def _settings(groups: Groups) -> list[dict[str, Any]]:
    """Every setting and condition: its value in each run of each group, and whether they differ."""
    flat = {label: [_conditions(run) for run in runs] for label, runs in groups.items()}
    every = [one for runs in flat.values() for one in runs]
    rows = []
    for what, name in dict.fromkeys(key for one in every for key in one):
        values = {label: [one.get((what, name), _ABSENT) for one in runs] for label, runs in flat.items()}
        within = [label for label, each in values.items() if len(set(each)) > 1]
        differ = len({value for each in values.values() for value in each}) > 1
        rows.append({"what": what, "name": name, "values": values, "differs": differ, "within": within})
    return sorted(rows, key=lambda row: not row["differs"])


def _conditions(run: Run) -> dict[tuple[str, str], str]:
    """(part, name) → words: all that a number may hang on."""
    meta, found = run.meta, {}
    profile = meta.get("profile") or {}
    known = {name: one.default for name, one in variables().items()}
    fidelity = run.content.get("fidelity") or {}
    level = fidelity.get("level")
    found[("fidelity", "asked for")] = str(meta.get("fidelity") or _ABSENT)
    found[("fidelity", "measured")] = str(level or "cannot be told")
    found[("fleet", "engine")] = str(meta.get("engine") or _ABSENT)
    target = {key: value for key, value in (meta.get("target") or {}).items() if key not in ("name", "flags")}
    parts = {
        "profile": {key: value for key, value in {**known, **profile}.items() if key not in _ASIDE},
        "version": {**(meta.get("versions") or {}), "turbokube": meta.get("turbokube_version", _ABSENT)},
        "control plane": target,
        "hardware": meta.get("hardware") or {},
    }
    for part, values in parts.items():
        found.update({(part, name): words for name, words in _flat(values)})
    # the profile of an old bundle may lack what sets a flag; the target knows those that were given
    said = {name for part, name in found if part == "profile"}
    for name, words in _flat((meta.get("target") or {}).get("flags") or {}):
        if not any(one.startswith(f"{PREFIX}{name.partition('.')[0]}_") for one in said):
            found[("flag", name)] = words
    return found


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested settings by their path; items of a list go by their name where they have one."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from _flat(each, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list) and any(isinstance(each, dict) for each in value):
        for number, each in enumerate(value):
            name = each.get("name") or each.get("kind") if isinstance(each, dict) else None
            yield from _flat(each, f"{path}.{name}" if name else f"{path}[{number}]")
    else:
        yield path, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | dict):
        return msgspec.json.encode(value).decode() if value else "none"
    # 16000 and 16000.0 are one setting
    return f"{value:g}" if isinstance(value, float) and value < 1e6 else "" if value is None else str(value)


# what came out


def _indicators(groups: Groups) -> Iterator[dict[str, Any]]:
    """A row per reading that any run has, in the order of the page."""
    labels = list(groups)
    known: dict[str, Reading] = {}
    for run in (run for runs in groups.values() for run in runs):
        for name, reading in run.readings.items():
            known.setdefault(name, reading)
    order = list(dict.fromkeys(reading.section for reading in known.values()))
    for reading in sorted(known.values(), key=lambda each: order.index(each.section)):
        found = {label: [each.readings.get(reading.name) for each in groups[label]] for label in labels}
        base = _column(reading, found[labels[0]])
        columns = {labels[0]: base} | {
            label: _against(reading, base, _column(reading, found[label])) for label in labels[1:]
        }
        row = {name: getattr(reading, name) for name in ("name", "section", "title", "unit", "better")}
        yield row | {"kind": "value" if reading.edges is None else "interval", "groups": columns}


def _column(reading: Reading, found: Sequence[Reading | None]) -> dict[str, Any]:
    """What one group has: every run's number, and what they come to together."""
    if reading.edges is not None:
        spans = [each.edges if each else None for each in found]
        edges = [each for each in spans if each]
        low, high = (min(e[0] for e in edges), max(e[1] for e in edges)) if edges else (None, None)
        words = _interval_words(low, high, reading.unit)
        return {"n": len(edges), "values": spans, "low": low, "high": high, "words": words}
    values = [each.value if each else None for each in found]
    there = [value for value in values if value is not None]
    if not there:
        return {"n": 0, "values": values, "mean": None, "deviation": None, "words": _ABSENT}
    one = estimate(there)
    words = number(one.mean) + (f" ± {number(one.deviation)}" if one.deviation is not None else "")
    return {"n": one.n, "values": values, "mean": one.mean, "deviation": one.deviation, "words": words}


def _against(reading: Reading, base: dict[str, Any], column: dict[str, Any]) -> dict[str, Any]:
    """The column with its difference from the first group's, and what may be said of it."""
    if not base["n"] or not column["n"]:
        return {**column, "outcome": "", "difference": _ABSENT}
    if reading.edges is not None:
        return {**column, **_intervals_apart(base, column)}
    gap = difference(*([value for value in each["values"] if value is not None] for each in (base, column)))
    if gap.value is None:
        same = base["mean"] == column["mean"]
        outcome = "same" if same else _better(reading.better, column["mean"] - base["mean"])
        return {**column, "outcome": outcome, "difference": "none" if same else "one of them is never"}
    words = signed(gap.value)
    if base["mean"]:
        words += f" ({signed(round(100 * gap.value / abs(base['mean']), 1))} %)"
    found = {**column, "delta": gap.value, "low": gap.low, "high": gap.high}
    if gap.low is None or gap.high is None:
        far = abs(gap.value) >= _FAR * abs(base["mean"]) and gap.value
        return {**found, "outcome": "unknown" if gap.value else "same", "difference": words, "far": bool(far)}
    words += f", {signed(gap.low)} to {signed(gap.high)}"
    apart = gap.low > 0 or gap.high < 0
    return {**found, "outcome": _better(reading.better, gap.value) if apart else "same", "difference": words}


def _intervals_apart(base: dict[str, Any], column: dict[str, Any]) -> dict[str, Any]:
    """Buckets tell a difference only where those of the groups do not overlap."""
    low, high, base_low, base_high = column["low"], column["high"], base["low"], base["high"]
    if low < base_high and high > base_low:
        same = (low, high) == (base_low, base_high)
        return {"outcome": "same", "difference": "in the same bucket" if same else "buckets overlap"}
    words = f"{'higher' if low >= base_high else 'lower'}: no bucket in common"
    if min(base["n"], column["n"]) < 2:
        return {"outcome": "unknown", "difference": words, "far": True}
    return {"outcome": "worse" if low >= base_high else "better", "difference": words}


def _better(better: str, value: float) -> str:
    if not better:
        return "differs"
    return "better" if (value < 0) == (better == readings.LESS) else "worse"


def number(value: float) -> str:
    """Four significant digits; whole numbers as they are."""
    if math.isinf(value):
        return "never"
    if value == int(value) or abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:,.4g}"


def signed(value: float) -> str:
    """A difference, with its sign."""
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{number(abs(value))}"


def _interval_words(low: float | None, high: float | None, unit: str) -> str:
    if low is None or high is None:
        return _ABSENT
    return f"over {low:g} {unit}" if math.isinf(high) else f"{low:g}–{high:g} {unit}"


# what must be known beside it


def _warnings(groups: Groups, settings: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What weakens the comparison: one sentence each."""
    for label in groups:
        if odd := [row["name"] for row in settings if label in row["within"]]:
            more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
            yield f"The runs of {label} are no repeats of each other: they differ in {', '.join(odd[:5])}{more}."
    single = [label for label, runs in groups.items() if len(runs) == 1]
    if single:
        have = "have one run each" if len(single) > 1 else "has one run"
        yield f"{' and '.join(single)} {have}: how far numbers move by themselves is unknown, so no difference is sure."
    for what, words in (("hardware", "on different hardware"), ("fidelity", "with vnodes of different fidelity")):
        names = [row["name"] for row in settings if row["what"] == what and row["differs"]]
        if names:
            yield f"The runs were made {words} ({', '.join(names)})."
    for run in (run for runs in groups.values() for run in runs):
        if run.content["verdict"] == "INCONCLUSIVE":
            yield f"{run.name} is INCONCLUSIVE: {run.content['reasons'][0]}."
        if not run.meta.get("finished"):
            yield f"{run.name} is not finished: what it has so far is compared."
        if gaps := len(run.content["interruptions"]):
            yield f"{run.name} was interrupted {gaps} time{'s' if gaps > 1 else ''}."


def _limits(groups: Groups) -> Iterator[dict[str, Any]]:
    """Every gate of any run, with what became of it in each; those that differ or broke come first."""
    every = {label: [{limit["name"]: limit for limit in run.content["limits"]} for run in runs]
             for label, runs in groups.items()}  # fmt: skip
    rows = []
    for name in dict.fromkeys(name for runs in every.values() for limits in runs for name in limits):
        found = {label: [limits.get(name) for limits in runs] for label, runs in every.items()}
        there = [limit for runs in found.values() for limit in runs if limit]
        if any(limit["outcome"] for limit in there):
            outcomes = {label: [(limit or {}).get("outcome") or _ABSENT for limit in runs]
                        for label, runs in found.items()}  # fmt: skip
            values = {label: [(limit or {}).get("value", _ABSENT) for limit in runs] for label, runs in found.items()}
            words = {outcome for runs in outcomes.values() for outcome in runs}
            row = {"name": name, "title": there[0]["title"], "limit": there[0]["limit"], "outcomes": outcomes}
            rows.append({**row, "values": values, "notable": bool(words - {"pass", _ABSENT})})
    yield from sorted(rows, key=lambda row: not row["notable"])


def _plots(groups: Groups) -> Iterator[dict[str, Any]]:
    """Lines of all runs on one set of axes: the first group's first. Time counts from each run's own load."""
    every = [(f"{label} {run.name}", run) for label, runs in groups.items() for run in runs]
    rates, shares = [], []
    for name, run in every:
        plots = {plot["name"]: plot for plot in run.content["plots"]}
        if "pods" in plots and run.content["throughput"]["begin"] is not None:
            plot = plots["pods"]
            line = next(each for each in plot["lines"] if each["name"] == "running")
            origin = run.content["throughput"]["begin"] - run.content["begin"]
            xs = [round(plot["start"] + cell * plot["step"] - origin, 1) for cell in range(len(line["y"]))]
            inside = [cell for cell, x in enumerate(xs) if x >= -plot["step"]]
            rates.append({"name": name, "x": [xs[cell] for cell in inside], "y": [line["y"][cell] for cell in inside]})
        if "startup" in plots:
            shares.append({**plots["startup"]["lines"][0], "name": name})
    axis = "seconds since the first pod"
    if rates:
        yield _plot("pods", "Pods per second that began to run", "pods/s", rates, axis)
    if shares:
        yield _plot("startup", "Pod startup, intended → seen running", "% of pods", shares, "seconds")


def _plot(name: str, title: str, unit: str, lines: list[dict[str, Any]], axis: str) -> dict[str, Any]:
    return {
        "name": name, "title": title, "unit": unit, "style": "line", "note": "", "axis": axis, "log": False,
        "band": None, "lines": lines,
    }  # fmt: skip


def _sentences(content: dict[str, Any]) -> Iterator[str]:
    """What differs, for a terminal."""
    first = content["groups"][0]["label"]
    for row in content["settings"]:
        if row["differs"]:
            values = (f"{label} {' | '.join(dict.fromkeys(each))}" for label, each in row["values"].items())
            yield f"{row['what']} {row['name']}: {', '.join(values)}"
    for row in content["indicators"]:
        for label, column in row["groups"].items():
            outcome = column.get("outcome")
            if outcome in ("better", "worse", "differs") or (column.get("far") and row["section"] in _FOREMOST):
                unit = f" {row['unit']}" if row["kind"] == "value" else ""
                yield (
                    f"{row['title']}: {row['groups'][first]['words']} → {label} {column['words']}{unit}"
                    f" ({column['difference']}): {outcome}"
                )
