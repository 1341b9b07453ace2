"""What must hold of phases, each by itself and all together: a sentence for what does not, with its path."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from .limits import check_limits
from .phases import BUILT_IN, Between, Churn, Create, OfPhase, Phase, Read, Replay, Scale, Shape, Wait

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kKMGTP]i?)?")
_MOST_NAMESPACES = 0x10000  # as many are named
# Bounds of what is a number, by the name that a user knows it by: the least and the most, both allowed.
_BOUNDS: dict[str, tuple[float, float]] = {
    "namespaces": (1, _MOST_NAMESPACES),
    "first_namespace": (0, _MOST_NAMESPACES - 1),
    "concurrency": (1, 4096),
    "rate": (0, 1e6),
    "poisson": (1e-6, 1e6),
    "deadline": (1e-6, 604800),
    "count": (1, 100_000),
    "replicas": (0, 100_000),
    "from": (0, 100_000),
    "to": (0, 100_000),
    "bytes": (0, 1_048_576),  # what the API server takes in a ConfigMap or a Secret (MaxSecretSize)
    "factor": (0, 1000),
    "share": (0, 1),
    "repeat": (1, 1_000_000),
    "duration": (0, 604800),
    "limit": (0, 100_000),
    "held": (0, 100_000),
    "speed": (1e-3, 1e6),
    "schedulers": (0, 256),
}


def check(phase: Phase, path: str = "") -> list[str]:
    """What is wrong with a phase by itself: sentences that name the value and what is allowed."""
    return list(_problems(phase, path))


def check_together(groups: list[list[tuple[str, Phase]]], earlier: list[Phase]) -> list[str]:
    """What is wrong with groups of phases, each with its path: names, what they refer to, objects that two create."""
    return list(_together_problems(groups, earlier))


def nearest(word: str, allowed: Iterable[str]) -> str:
    """What somebody may have meant by a word, in words."""
    known = list(allowed)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"it must be one of {', '.join(known)}"


def _problems(phase: Phase, path: str) -> Iterator[str]:
    dot = f"{path}." if path else ""
    yield from _bounds(phase, dot)
    if phase.first_namespace + phase.namespaces > _MOST_NAMESPACES:
        total = phase.first_namespace + phase.namespaces
        yield f"{dot}first_namespace + namespaces is {total}; at most {_MOST_NAMESPACES} are named"
    for name in ("run", "name"):
        if not NAME.fullmatch(text := getattr(phase, name)) and (text or name == "name"):
            yield f"{dot}{name} is {text!r}; it must be 1 to 63 lower-case letters, digits and hyphens"
    if (duration := getattr(phase, "duration", 0.0)) >= phase.deadline > 0:
        yield f"{dot}deadline is {phase.deadline:g}; it must be more than the duration, which is {duration:g}"
    yield from _rate_problems(phase.rate, f"{dot}rate")
    yield from check_limits(f"{dot}limits", phase.limits)
    match phase:
        case Create():
            yield from _create_problems(phase, dot)
        case Scale() if (phase.replicas is None) == (phase.factor is None):
            yield f"{path or phase.name} must have either replicas or factor"
        case Scale(replicas=Between() as drawn) if drawn.least > drawn.most:
            yield f"{dot}replicas.from is {drawn.least}; it must be at most to, which is {drawn.most}"
        case Churn(by="namespace") if phase.template:
            yield f"{dot}template is {phase.template}; it has no meaning with by: namespace"
        case Churn() if phase.duration <= 0:
            yield f"{dot}duration is {phase.duration:g}; it must be more than 0 seconds"
        case Read() if phase.duration <= 0:
            yield f"{dot}duration is {phase.duration:g}; it must be more than 0 seconds"
        case Read(held=held) if held and phase.verb != "watch":
            yield f"{dot}held is {held}; only watches can be held, and verb is {phase.verb}"
        case Wait(for_="objects", of=""):
            yield f"{path or phase.name} has no of, the create phase whose objects it waits for"


def _create_problems(phase: Create, dot: str) -> Iterator[str]:
    for name in ("pod_memory", "pod_cpu"):
        if (text := getattr(phase, name)) and not _QUANTITY.fullmatch(text):
            yield f"{dot}{name} is {text!r}; it must be a quantity such as 32Mi or 100m, or empty"
    seen: dict[str, int] = {}
    for number, one in enumerate(phase.objects):
        yield from _bounds(one, f"{dot}objects[{number}].")
        if not NAME.fullmatch(one.stem) or len(one.stem) > 50:
            yield f"{dot}objects[{number}].name is {one.stem!r}; it must be 1 to 50 lower-case letters, digits, hyphens"
        if one.stem in seen:
            first = f"{dot}objects[{seen[one.stem]}]"
            yield f"{dot}objects[{number}].name is {one.stem}, as that of {first}; give one of them another name"
        seen.setdefault(one.stem, number)
        if one.template not in BUILT_IN and not re.search(r"[./]", one.template) and not one.source:
            yield f"{dot}objects[{number}].template is {one.template}; {nearest(one.template, BUILT_IN)}, or a path"


def _bounds(struct: msgspec.Struct, dot: str) -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if isinstance(value, Between | Shape):
            yield from _bounds(value, f"{dot}{field.encode_name}.")
        if field.encode_name not in _BOUNDS or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        least, most = _BOUNDS[field.encode_name]
        if field.encode_name == "namespaces" and isinstance(struct, Replay):
            least = 0
        if not value >= least:
            floor = "more than 0 seconds" if field.encode_name == "deadline" else f"at least {least:.12g}"
            yield f"{dot}{field.encode_name} is {value:.12g}; it must be {floor}"
        elif value > most:
            yield f"{dot}{field.encode_name} is {value:.12g}; it must be at most {most:.12g}"


def _rate_problems(rate: float | Shape, path: str) -> Iterator[str]:
    if not isinstance(rate, Shape):
        return
    if sum((rate.poisson is not None, bool(rate.steps), rate.ramp is not None)) != 1:
        yield f"{path} must be a number, or one of poisson, steps and ramp"
        return
    parts = list(rate.steps) + ([rate.ramp] if rate.ramp else [])
    if any(value < 0 for part in parts for value in part) or any(part[-1] <= 0 for part in parts):
        yield f"{path} has a rate below 0, or a time that is not above 0 seconds"
    elif parts and parts[-1][-2] <= 0:
        yield f"{path} ends at rate 0, at which nothing more would be sent"


def _together_problems(groups: list[list[tuple[str, Phase]]], earlier: list[Phase]) -> Iterator[str]:
    """Names, what they refer to, and objects that two phases would both create."""
    named = {phase.name: "an earlier phase" for phase in earlier}
    creates = {phase.name: phase for phase in earlier if isinstance(phase, Create)}
    made = [("an earlier phase", phase) for phase in creates.values()]
    for group in groups:
        new = [(where, phase) for where, phase in group if isinstance(phase, Create)]
        for where, phase in group:
            if phase.name in named:
                yield f"{where}.name is {phase.name}, as that of {named[phase.name]}; give one of them another name"
            named[phase.name] = where
            yield from _of_problems(phase, where, creates)
        for where, phase in new:
            yield from _clash_problems(phase, where, made)
            made.append((where, phase))
        creates |= {phase.name: phase for _, phase in new}


def _of_problems(phase: Phase, where: str, creates: Mapping[str, Create]) -> Iterator[str]:
    of = phase.of if isinstance(phase, OfPhase | Wait) else ""
    if not of:
        return
    if of not in creates:
        hint = nearest(of, creates) if creates else "there is none before it"
        yield f"{where}.of is {of}, but it must be a create phase that ends before this one begins; {hint}"
    elif isinstance(phase, OfPhase) and phase.template:
        stems = [one.stem for one in creates[of].objects]
        if phase.template not in stems:
            yield f"{where}.template is {phase.template}, which {of} has no set of; {nearest(phase.template, stems)}"


def _clash_problems(phase: Create, where: str, made: list[tuple[str, Create]]) -> Iterator[str]:
    for place, other in made:
        shared = {one.stem for one in phase.objects} & {one.stem for one in other.objects}
        apart = phase.indices.stop <= other.indices.start or other.indices.stop <= phase.indices.start
        if shared and not apart:
            yield (
                f"{where} creates {', '.join(sorted(shared))} in namespaces that {place} does it in; "
                "give its objects another name, or another first_namespace"
            )
