"""Findings: what somebody claims of control planes, judged by runs that differ in what the claim is about.

A claim is data (playbooks/findings/claims): its cases, each a group of runs of one setting, and the rules that its
verdict follows from. A rule holds a number against two spans, one within the other: inside of the inner one it holds,
outside of the outer one it fails, between them nothing is decided. Runs of a case are repeats; a rule holds or fails
only if it does so for every pairing of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from turbokube import disk
from turbokube.bundle import runs
from turbokube.bundle.reader import Reader
from turbokube.bundle.writer import BundleError

from .compare import number
from .figures import Record, figure

CONFIRMED, REFUTED, NOT_SHOWN = "CONFIRMED", "REFUTED", "NOT SHOWN"
FILE = "verdict.json"
Span = tuple[float | None, float | None]  # None: without an end


class ClaimError(ValueError):
    """A claim that cannot be judged, in one sentence."""


class Shown(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure that is told of every case; of one phase alone where that is named."""

    figure: str
    phase: str = ""


class Rule(Shown, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The figure of a case, divided by that of another case or by a number if `over` says so.

    `says`: the part of the claim that it is, or with `needs` what the runs must have for a verdict at all.
    """

    says: str
    of: str
    holds: Span
    over: str | float | None = None
    beyond: Span | None = None  # as `holds` unless told
    needs: bool = False


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One finding. `cases`: name → what it is; the first is what a comparison holds the others against."""

    name: str
    claim: str
    source: str
    cases: dict[str, str]
    rules: list[Rule]
    figures: list[Shown] = []


Measured = Mapping[tuple[str, str], Mapping[str, Sequence[float | None]]]  # (figure, phase) → case → of each run


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a rule. `outcome`: holds, fails, undecided or unknown; `words` tell the numbers."""

    outcome: str
    words: str
    needs: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of the whole claim. `reasons`: the rules it follows from."""

    word: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Written:
    """What was judged. `bundles`: case → the runs that count; `figures`: a sentence each."""

    path: Path
    changed: bool
    verdict: Verdict
    figures: tuple[str, ...]
    notes: tuple[str, ...]
    bundles: dict[str, list[Path]]


def claim_of(data: Any) -> Claim:
    """A claim from data as YAML gives it. Raises ClaimError."""
    try:
        claim = msgspec.convert(data, Claim)
    except msgspec.ValidationError as error:
        raise ClaimError(f"the claim is not as it should be: {error}") from None
    for at, rule in enumerate(claim.rules):
        for case in [rule.of] + ([rule.over] if isinstance(rule.over, str) else []):
            if case not in claim.cases:
                raise ClaimError(f"rules[{at}] of {claim.name} is about {case}, which is not one of its cases")
        if rule.beyond and not (_within(rule.holds[0], rule.beyond) and _within(rule.holds[1], rule.beyond)):
            raise ClaimError(f"rules[{at}] of {claim.name}: beyond has to enclose holds")
    for each in (*claim.rules, *claim.figures):
        try:
            figure(each.figure)
        except KeyError:
            raise ClaimError(f"{claim.name} wants the figure {each.figure}, which there is none of") from None
    return claim


def judge(claim: Claim, measured: Measured) -> Verdict:
    """CONFIRMED when every rule holds, REFUTED when one fails, NOT SHOWN when neither can be said of these runs."""
    judged = [_judge(rule, measured) for rule in claim.rules]
    lacking = [each for each in judged if each.needs and each.outcome != "holds"]
    told = tuple(each.words for each in judged)
    if lacking:
        return Verdict(NOT_SHOWN, (*(f"not given: {each.words}" for each in lacking), *told))
    outcomes = {each.outcome for each in judged if not each.needs}
    return Verdict(REFUTED if "fails" in outcomes else CONFIRMED if outcomes == {"holds"} else NOT_SHOWN, told)


def _judge(rule: Rule, measured: Measured) -> Judged:
    values = _values(rule, measured)
    name = f"{figure(rule.figure).title}{f' in phase {rule.phase}' if rule.phase else ''}"
    what = f"{name}, {rule.of}{f' ÷ {rule.over}' if rule.over is not None else ''}"
    if not values:
        return Judged("unknown", f"{rule.says}: unknown, since nothing tells the {what}", rule.needs)
    low, high = min(values), max(values)
    beyond = rule.beyond or rule.holds
    if _within(low, rule.holds) and _within(high, rule.holds):
        outcome = "holds"
    elif all(not _within(value, beyond) for value in values):
        outcome = "fails"
    else:
        outcome = "undecided"
    spread = number(low) if low == high else f"{number(low)} to {number(high)}"
    return Judged(outcome, f"{rule.says}: {outcome} ({what}: {spread}; holds {_span(rule.holds)})", rule.needs)


def _values(rule: Rule, measured: Measured) -> list[float]:
    """The rule's number for every pairing of repeats; empty when a run lacks it."""
    cases = measured.get((rule.figure, rule.phase), {})
    above = cases.get(rule.of, ())
    below: Sequence[float | None] = cases.get(rule.over, ()) if isinstance(rule.over, str) else (rule.over or 1.0,)
    if None in above or None in below:
        return []
    return [a / b if b else math.inf for a in above for b in below if a is not None and b is not None]


def _within(value: float | None, span: Span) -> bool:
    """Whether a value, or an end that may be open, lies in a span."""
    low, high = span
    if value is None:
        return low is None or high is None
    return (low is None or value >= low) and (high is None or value <= high)


def _span(span: Span) -> str:
    low, high = span
    if low is None or high is None:
        return f"up to {high:g}" if high is not None else f"from {low:g}" if low is not None else "always"
    return f"{low:g} to {high:g}"


def write(claim: Claim, home: Path, folder: Path, *, dry: bool = False) -> Written:
    """Judge a claim by the runs in `home` and write verdict.json into `folder`; with `dry`, only tell.

    A case's runs are those of the name <claim>-<case>, and of that name with a number behind it. Raises BundleError
    when a case has none.
    """
    bundles = {case: repeats(home / "runs", f"{claim.name}-{case}") for case in claim.cases}
    shown = list(dict.fromkeys((each.figure, each.phase) for each in (*claim.figures, *claim.rules)))
    runs_of = {case: [_figures(folder, shown) for folder in found] for case, found in bundles.items()}
    measured = {key: {case: [run[key] for run in found] for case, found in runs_of.items()} for key in shown}
    verdict = judge(claim, measured)
    sentences = [_sentence(*key, values) for key, values in measured.items()]
    notes = [note for case, found in bundles.items() for folder in found for note in _notes(case, folder)]
    content = {
        "claim": claim,
        "verdict": verdict.word,
        "reasons": verdict.reasons,
        "figures": [
            {"figure": name, "phase": phase, "title": figure(name).title, "unit": figure(name).unit, "cases": values}
            for (name, phase), values in measured.items()
        ],
        "notes": notes,
        "runs": {case: [folder.name for folder in found] for case, found in bundles.items()},
    }
    text = msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"
    path = folder / FILE
    changed = not path.is_file() or path.read_bytes() != text
    if changed and not dry:
        folder.mkdir(parents=True, exist_ok=True)
        disk.replace(path, text, 0o666)
    return Written(path, changed, verdict, tuple(sentences), tuple(notes), bundles)


def repeats(folder: Path, name: str) -> list[Path]:
    """Finished runs of a name, the oldest first: the newest, and those that had the same settings as it."""
    found = [(run, path) for path in (folder / name, *folder.glob(f"{name}-[0-9]*"))
             if path.name.removeprefix(name).lstrip("-").isdigit() or path.name == name
             if (run := runs.read(path)) and run.get("finished")]  # fmt: skip
    if not found:
        raise BundleError(f"{folder} holds no finished run {name}")
    found.sort(key=lambda each: each[0]["finished"])
    newest = found[-1][0].get("profile") or {}
    return [path for run, path in found if not _differs(run.get("profile") or {}, newest)]


def _differs(one: dict[str, Any], other: dict[str, Any]) -> bool:
    try:
        runs.same_profile("", one, other)
    except BundleError:
        return True
    return False


def _figures(folder: Path, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float | None]:
    """The figures of one run."""
    with Reader(folder) as reader:
        records = {phase: Record(reader, phase) for _, phase in wanted}
        return {(name, phase): figure(name).measure(records[phase]) for name, phase in wanted}


def _sentence(name: str, phase: str, cases: Mapping[str, Sequence[float | None]]) -> str:
    """A figure of all cases."""
    known = figure(name)
    values = (
        f"{case} {' | '.join('–' if value is None else number(value) for value in each)}"
        for case, each in cases.items()
    )
    unit = f", {known.unit}" if known.unit else ""
    return f"{known.title}{f' in phase {phase}' if phase else ''}{unit}: {', '.join(values)}"


def _notes(case: str, folder: Path) -> list[str]:
    """What bound each run, and what else is to be known of it."""
    with Reader(folder) as reader:
        bound = Record(reader).bound
        ended = reader.query("SELECT name, state, note FROM phases WHERE state != 'done'")
    notes = [f"{case}: phase {row['name']} ended as {row['state']}" for row in ended]
    return [*([f"{case}: what bound: {bound.words}"] if bound else []), *notes]
