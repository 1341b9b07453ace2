"""A profile's phases: what each kind of load may be told, and the way from a user's YAML to a phase that is checked."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import msgspec

from .limits import check_limits

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kKMGTP]i?)?")
_MOST_NAMESPACES = 0x10000  # as many are named
BUILT_IN = ("deployment", "statefulset", "daemonset", "job", "service", "configmap", "secret", "pod")

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
    "bytes": (0, 1_500_000),  # what the API server takes of one object
    "factor": (0, 1000),
    "share": (0, 1),
    "repeat": (1, 1_000_000),
    "duration": (0, 604800),
    "limit": (0, 100_000),
    "held": (0, 100_000),
    "speed": (1e-3, 1e6),
    "schedulers": (0, 256),
}


class Shape(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A rate that is not constant: exactly one of its fields is set. After the last step or the ramp its end stays."""

    poisson: float | None = None  # mean per second; seeded
    steps: tuple[tuple[float, float], ...] = ()  # (per second, seconds)
    ramp: tuple[float, float, float] | None = None  # from, to (per second), seconds


class Between(msgspec.Struct, frozen=True, rename={"least": "from", "most": "to"}, forbid_unknown_fields=True):
    """A number that is drawn for each object, both ends included; seeded."""

    least: int
    most: int


class ObjectSet(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`count` objects of one template in every namespace of a phase.

    `template` is a built-in one or a path; `source` its text when it is a path. `vars` are the template's own.
    """

    template: str = "deployment"
    source: str = ""
    name: str = ""  # objects are called <name>-<number>; empty: after the template
    count: int = 1
    replicas: int = 1
    bytes: int = 1024  # payload of a ConfigMap or a Secret
    vars: dict[str, Any] = {}

    @property
    def pods(self) -> int:
        """Pods of one object, as far as the template's name tells; a daemonset's depend on the Nodes."""
        return {"service": 0, "configmap": 0, "secret": 0, "daemonset": 0, "pod": 1}.get(self.template, self.replicas)

    @property
    def stem(self) -> str:
        """What the names of its objects begin with."""
        if self.name:
            return self.name
        if self.template in BUILT_IN:
            return self.template
        file = self.template.rsplit("/", 1)[-1].split(".", 1)[0].lower()
        return re.sub(r"[^a-z0-9]+", "-", file).strip("-")[:40] or "object"


class Common(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag=str.lower):
    """What every phase may be told. Durations and deadlines are in seconds, rates per second; rate 0: closed loop.

    `run` and `seed` are the run's, not the user's.
    """

    internal: ClassVar[frozenset[str]] = frozenset({"run", "seed"})

    run: str = ""
    seed: int = 0
    name: str
    deadline: float = 1800.0
    rate: float | Shape = 0.0
    concurrency: int = 4
    limits: dict[str, float] = {}  # judged by the verdict; they change nothing of the load
    namespaces: int
    first_namespace: int = 0

    @property
    def kind(self) -> str:
        return str(self.__struct_config__.tag)

    def namespace(self, index: int) -> str:
        """Name of the run's namespace of that number."""
        return f"turbokube-{index:04x}"

    @property
    def indices(self) -> range:
        """The numbers of the phase's namespaces."""
        return range(self.first_namespace, self.first_namespace + self.namespaces)

    def same_work(self, other: Phase) -> bool:
        """Whether `other` asks for the same; deadline and limits may be moved."""
        moved = {"deadline": other.deadline, "limits": other.limits}
        return bool(msgspec.structs.replace(self, **moved) == other)


class Create(Common, frozen=True, kw_only=True):
    """Namespaces with sets of objects in each, until every pod runs."""

    internal: ClassVar[frozenset[str]] = Common.internal | {
        "placement", "schedulers", "automount_token", "pod_memory", "pod_cpu"
    }  # fmt: skip

    objects: tuple[ObjectSet, ...]
    placement: Literal["namespace", "cluster"] = "namespace"
    schedulers: int = 0  # extra schedulers, over which the namespaces are dealt out
    automount_token: bool = True
    pod_memory: str = "32Mi"
    pod_cpu: str = ""


class _Of(Common, frozen=True, kw_only=True):
    """What works on objects that the phase `of` has created; `template`: of which set, by its name; empty: all."""

    of: str
    template: str = ""
    share: float = 1.0


class Scale(_Of, frozen=True, kw_only=True):
    """New numbers of replicas, awaited. Exactly one of `replicas` and `factor` (of what the object has) is set."""

    replicas: int | Between | None = None
    factor: float | None = None


class Roll(_Of, frozen=True, kw_only=True):
    """A new annotation in the pods' template, so that every pod is replaced; awaited."""


class Patch(_Of, frozen=True, kw_only=True):
    """A merge patch; its texts may be jinja. Each object so often, or again and again for a time."""

    patch: dict[str, Any]
    repeat: int = 1
    duration: float = 0.0


class Churn(_Of, frozen=True, kw_only=True):
    """Deletes and re-creates a share of the objects, or of the namespaces, again and again for `duration`."""

    by: Literal["object", "namespace"] = "object"
    duration: float


class Delete(_Of, frozen=True, kw_only=True):
    """Deletes objects; with `wait` the phase ends when they and their pods are gone."""

    propagation: Literal["background", "foreground", "orphan"] = "background"
    wait: bool = True


class Read(Common, frozen=True, kw_only=True):
    """Reads for `duration`. `held` watches are kept open at once; `resource_version` "0" is served from the cache."""

    verb: Literal["get", "list", "watch"] = "list"
    resource: str = "pods"  # plural, or plural.group
    namespaced: bool = False  # each call asks one namespace of the phase, not all of the cluster
    resource_version: str = ""
    limit: int = 0
    selector: str = ""
    held: int = 0
    protobuf: bool = False
    duration: float


class Pause(Common, frozen=True, kw_only=True):
    """Nothing is sent."""

    duration: float


class Wait(Common, frozen=True, kw_only=True, rename={"for_": "for"}):
    """Until something holds, or the deadline."""

    for_: Literal["pods_running", "pods_gone", "nodes_ready", "objects"]
    of: str = ""


class Scrape(Common, frozen=True, kw_only=True):
    """A scrape of all components, or of those named, at this moment."""

    components: tuple[str, ...] = ()


class Replay(Common, frozen=True, kw_only=True):
    """What a trace holds, at its own times divided by `speed`; `namespaces` 0: as many as the trace has."""

    trace: str
    speed: float = 1.0
    propagation: Literal["background", "foreground", "orphan"] = "background"


Phase = Create | Scale | Roll | Patch | Churn | Delete | Read | Pause | Wait | Scrape | Replay
KINDS: dict[str, type[Phase]] = {str(one.__struct_config__.tag): one for one in typing.get_args(Phase)}


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a phase has where it says nothing: the run's settings."""

    run: str = ""
    seed: int = 0
    namespaces: int = 32
    deployments: int = 32
    replicas: int = 8
    concurrency: int = 4
    deadline: float = 1800.0
    template: str = ""
    placement: Literal["namespace", "cluster"] = "namespace"
    schedulers: int = 0
    automount_token: bool = True
    pod_memory: str = "32Mi"
    pod_cpu: str = ""

    def deployments_of_today(self) -> ObjectSet:
        """The set that a create phase without objects has."""
        return ObjectSet(
            template=self.template or "deployment", name="turbokube", count=self.deployments, replicas=self.replicas
        )


class PhasesError(ValueError):
    """Phases that cannot be run. `problems`: a sentence each, with the path of what is wrong."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = list(problems)


def parse(
    items: Sequence[Any],
    defaults: Defaults,
    overrides: Mapping[str, Any] | None = None,
    *,
    path: str = "turbokube_phases",
    earlier: Iterable[Phase] = (),
) -> list[tuple[Phase, ...]]:
    """Items of YAML → groups of phases: each group's run side by side, one group after the other.

    `overrides`: as of `override`. `earlier`: phases of the run so far, to which these may refer. Raises PhasesError.
    """
    problems: list[str] = []
    places = list(_places(override(items, overrides or {}, path), path, problems))
    groups: list[list[tuple[str, Phase]]] = [[] for _ in items]
    creates = {phase.name: phase for phase in earlier if isinstance(phase, Create)}
    for group, where, raw in places:
        made = _phase(raw, where, defaults, problems, creates)
        if made is not None:
            groups[group].append((where, made))
        if isinstance(made, Create):
            creates[made.name] = made
    if not problems:
        named = {phase.name for group in groups for _, phase in group}
        problems = list(_together_problems(groups, [phase for phase in earlier if phase.name not in named]))
    if problems:
        raise PhasesError(problems)
    return [tuple(phase for _, phase in group) for group in groups]


def single(raw: dict[str, Any], defaults: Defaults) -> Phase:
    """One phase by itself. Raises PhasesError, whose paths begin within the phase."""
    problems: list[str] = []
    made = _phase(raw, "", defaults, problems)
    if made is None or problems:
        raise PhasesError(problems)
    return made


def override(items: Sequence[Any], overrides: Mapping[str, Any], path: str = "turbokube_phases") -> list[Any]:
    """A copy of the items with single values replaced: "phase.field", "phase.objects.0.count" → value.

    Raises PhasesError if there is no such place.
    """
    changed: list[Any] = _plain(list(items))
    problems: list[str] = []
    by_name = {str(raw.get("name") or raw.get("kind")): raw for _, _, raw in _places(changed, path, [])}
    for key, value in overrides.items():
        name, _, rest = key.partition(".")
        if name not in by_name:
            hint = _nearest(name, by_name) if by_name else f"{path} is empty"
            problems.append(f"{path}_override has {key}, but no phase is called {name}; {hint}")
        elif not rest or not _set(by_name[name], rest.split("."), value):
            problems.append(f"{path}_override has {key}, which is not a place in phase {name}")
    if problems:
        raise PhasesError(problems)
    return changed


def objects_of(phase: Create) -> int:
    """How many objects it creates, without the namespaces themselves."""
    return phase.namespaces * sum(one.count for one in phase.objects)


def pods_of(phase: Create) -> int:
    """How many pods come of them, as far as can be told: not those of daemonsets, which depend on the Nodes."""
    without = ("service", "configmap", "secret", "daemonset")
    return phase.namespaces * sum(
        one.count * (1 if one.template == "pod" else one.replicas)
        for one in phase.objects
        if one.template not in without
    )


def most_pods(groups: Sequence[Sequence[Phase]]) -> tuple[int, int]:
    """The most pods that there are at any time, in all and in one namespace, as far as can be told before."""
    per: dict[str, dict[str, float]] = {}  # create phase → set → its pods in a namespace
    creates: dict[str, Create] = {}
    most, most_here = 0, 0.0
    for group in groups:
        for phase in group:
            if isinstance(phase, Create):
                creates[phase.name] = phase
                per[phase.name] = {one.stem: float(one.count * one.pods) for one in phase.objects}
            elif isinstance(phase, Scale):
                _scaled(phase, creates[phase.of], per[phase.of])
        here = {name: sum(pods.values()) for name, pods in per.items()}
        most = max(most, math.ceil(sum(phase.namespaces * here[name] for name, phase in creates.items())))
        starts = {phase.first_namespace for phase in creates.values()}
        sums = (sum(here[name] for name, phase in creates.items() if start in phase.indices) for start in starts)
        most_here = max(most_here, *sums, 0.0)
    return most, math.ceil(most_here)


def _scaled(phase: Scale, of: Create, pods: dict[str, float]) -> None:
    for one in of.objects:
        if phase.template not in ("", one.stem) or not one.pods:
            continue
        asked = phase.replicas.most if isinstance(phase.replicas, Between) else phase.replicas
        then = one.count * asked if asked is not None else pods[one.stem] * (phase.factor or 0.0)
        pods[one.stem] += phase.share * (then - pods[one.stem])


def words(phase: Phase) -> str:
    """What a phase does, in one line for a person."""
    parts = [_does(phase)]
    if isinstance(phase, Create | Scale | Roll | Patch | Churn | Delete) or (
        isinstance(phase, Read) and not phase.held
    ):
        parts.append(_pace(phase.rate) if phase.rate else f"{phase.concurrency} at once")
    return f"{phase.name}: {', '.join(parts)}"


def _does(phase: Phase) -> str:
    match phase:
        case Create():
            sets = ", ".join(f"{one.count} x {one.stem}{_each(one)}" for one in phase.objects)
            return f"create {sets} in each of {phase.namespaces} namespaces ({pods_of(phase)} pods)"
        case Scale():
            to = phase.replicas if phase.factor is None else f"{phase.factor:g} times the"
            to = f"{to.least} to {to.most}" if isinstance(to, Between) else to
            return f"scale {_which(phase)} to {to} replicas"
        case Churn():
            what = _which(phase) if phase.by == "object" else f"{phase.share:.0%} of the namespaces of {phase.of}"
            return f"delete and re-create {what} for {phase.duration:g} s"
        case Patch():
            return f"patch {_which(phase)}" + (f" for {phase.duration:g} s" if phase.duration else "")
        case Roll() | Delete():
            return f"{phase.kind} {_which(phase)}"
        case Read():
            where = f"each of {phase.namespaces} namespaces" if phase.namespaced else "the cluster"
            what = f"hold {phase.held} watches" if phase.held else phase.verb
            return f"{what} of {phase.resource} in {where} for {phase.duration:g} s"
        case Pause():
            return f"pause for {phase.duration:g} s"
        case Wait():
            return f"wait for {phase.for_}{f' of {phase.of}' if phase.of else ''}"
        case Scrape():
            return f"scrape {', '.join(phase.components) or 'all components'}"
        case Replay():
            return f"replay {phase.trace} at {phase.speed:g} times its speed"


def _each(one: ObjectSet) -> str:
    return f" of {one.replicas} replicas" if one.pods and one.template != "pod" else ""


def _which(phase: _Of) -> str:
    return f"{phase.share:.0%} of {phase.template or 'the objects'} of {phase.of}"


def _pace(rate: float | Shape) -> str:
    if not isinstance(rate, Shape):
        return f"{rate:g} a second"
    if rate.poisson is not None:
        return f"{rate.poisson:g} a second at random"
    if rate.ramp is not None:
        return f"{rate.ramp[0]:g} to {rate.ramp[1]:g} a second in {rate.ramp[2]:g} s"
    return " then ".join(f"{step:g} a second for {seconds:g} s" for step, seconds in rate.steps)


def check(phase: Phase, path: str = "") -> list[str]:
    """What is wrong with a phase by itself: sentences that name the value and what is allowed."""
    return list(_problems(phase, path))


# from YAML to Structs


def _places(items: Sequence[Any], path: str, problems: list[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number of the group, path and raw dict of each phase."""
    for number, item in enumerate(items):
        where = f"{path}[{number}]"
        side = item.get("together") if isinstance(item, dict) and "together" in item else None
        if side is not None and (len(item) > 1 or not isinstance(side, list) or not side):
            problems.append(f"{where} has together, which must be a list of phases with nothing beside it")
            continue
        for inner, raw in enumerate([item] if side is None else side):
            place = where if side is None else f"{where}.together[{inner}]"
            if isinstance(raw, dict):
                yield number, place, raw
            else:
                problems.append(f"{place} is {raw!r}; it must be a phase, a dictionary with kind")


def _plain(value: Any) -> Any:
    """A copy without the subclasses that a templating engine makes of plain types."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _phase(
    raw: dict[str, Any],
    where: str,
    defaults: Defaults,
    problems: list[str],
    creates: Mapping[str, Create] = types.MappingProxyType({}),
) -> Phase | None:
    kind = raw.get("kind")
    if kind not in KINDS:
        problems.append(f"{where}.kind is {kind!r}; {_nearest(str(kind), KINDS)}" if kind else f"{where} has no kind")
        return None
    struct = KINDS[kind]
    unknown = list(_unknown(raw, struct, where))
    if unknown:
        problems += unknown
        return None
    filled = _filled(raw, struct, defaults, creates.get(str(raw.get("of"))))
    try:
        made: Phase = msgspec.convert(filled, struct, strict=False)
    except msgspec.ValidationError as error:
        problems.append(_said(str(error), filled, where, struct))
        return None
    problems += check(made, where)
    return made


def _filled(raw: dict[str, Any], struct: type[Phase], defaults: Defaults, of: Create | None) -> dict[str, Any]:
    """With the run's settings, or the namespaces of the phase that it is of, where the phase says nothing."""
    settings = msgspec.to_builtins(defaults)
    names = {"run", "seed", "namespaces", "concurrency", "deadline"} | (Create.internal if struct is Create else set())
    if of is not None:
        settings["namespaces"], settings["first_namespace"] = of.namespaces, of.first_namespace
        names |= {"first_namespace"}
    with contextlib.suppress(TypeError, ValueError):  # what is no number is told of later
        settings["deadline"] += float(raw.get("duration", 0))
    filled = {name: settings[name] for name in names} | {"name": raw["kind"]} | raw
    if struct is Replay and "namespaces" not in raw:
        filled["namespaces"] = 0
    if struct is Create and not raw.get("objects"):
        filled["objects"] = [msgspec.to_builtins(defaults.deployments_of_today())]
    return filled


def _unknown(given: Any, struct: type[msgspec.Struct], where: str) -> Iterator[str]:
    """Keys, at any depth, that no Struct has."""
    if not isinstance(given, dict):
        return
    allowed = {field.encode_name: field for field in msgspec.structs.fields(struct)}
    for hidden in (*getattr(struct, "internal", ()), "source"):
        allowed.pop(hidden, None)
    names = [*allowed, *(["kind"] if struct.__struct_config__.tag_field else [])]
    for key, value in given.items():
        if key not in names:
            yield f"{where} has {key}, which {_article(struct)} does not know; {_nearest(key, names)}"
        elif key in allowed:
            yield from _unknown_within(value, allowed[key].type, f"{where}.{key}")


def _unknown_within(value: Any, kind: Any, where: str) -> Iterator[str]:
    for struct in _structs(kind):
        for number, one in enumerate(value) if isinstance(value, list) else [(None, value)]:
            yield from _unknown(one, struct, where if number is None else f"{where}[{number}]")


def _structs(kind: Any) -> Iterator[type[msgspec.Struct]]:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    elif isinstance(kind, types.GenericAlias | types.UnionType) or typing.get_origin(kind) is not None:
        for one in typing.get_args(kind):
            yield from _structs(one)


def _article(struct: type[msgspec.Struct]) -> str:
    tag = struct.__struct_config__.tag
    return f"kind {tag}" if tag else {"ObjectSet": "a set of objects", "Shape": "a rate"}.get(struct.__name__, "it")


def _nearest(word: str, allowed: Iterable[str]) -> str:
    known = list(allowed)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"it must be one of {', '.join(known)}"


_WORDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "array": "a list",
    "object": "a dictionary", "null": "nothing",
}  # fmt: skip


def _choices(struct: type[msgspec.Struct], name: str) -> tuple[str, ...]:
    """What a field of few words may be."""
    kinds = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    return typing.get_args(kinds.get(name, str))


def _said(error: str, raw: dict[str, Any], where: str, struct: type[msgspec.Struct]) -> str:
    """A sentence of msgspec's → one that names the path, the value and what is allowed."""
    said, _, at = error.partition(" - at `$")
    inside = at.rstrip("`")
    value: Any = raw
    for key in re.findall(r"\.([^.\[\]]+)|\[(\d+)\]", inside):
        name, index = key
        value = value[int(index)] if index else value.get(name) if isinstance(value, dict) else None
    if missing := re.search(r"missing required field `(\w+)`", said):
        return f"{where}{inside} has no {missing[1]}"
    if "enum value" in said:
        return f"{where}{inside} is {value!r}; it must be one of {', '.join(_choices(struct, inside[1:]))}"
    expected = re.search(r"Expected `([^`]+)`", said)
    if expected and "length" not in said:
        words = " or ".join(_WORDS.get(one.strip(), one.strip()) for one in expected[1].split("|") if "null" not in one)
        return f"{where}{inside} is {value!r}; it must be {words}"
    return f"{where}{inside} is {value!r}: {said[0].lower()}{said[1:]}"


def _set(within: Any, keys: list[str], value: Any) -> bool:
    """Put a value at a path of keys and list indices."""
    key, *rest = keys
    if isinstance(within, list):
        if not key.isdigit() or int(key) >= len(within):
            return False
        if rest:
            return _set(within[int(key)], rest, value)
        within[int(key)] = value
        return True
    if not isinstance(within, dict):
        return False
    if rest:
        return _set(within.setdefault(key, {}), rest, value)
    within[key] = value
    return True


# what must hold


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
            yield f"{dot}objects[{number}].template is {one.template}; {_nearest(one.template, BUILT_IN)}, or a path"


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
    of = phase.of if isinstance(phase, _Of | Wait) else ""
    if not of:
        return
    if of not in creates:
        hint = _nearest(of, creates) if creates else "there is none before it"
        yield f"{where}.of is {of}, but it must be a create phase that ends before this one begins; {hint}"
    elif isinstance(phase, _Of) and phase.template:
        stems = [one.stem for one in creates[of].objects]
        if phase.template not in stems:
            yield f"{where}.template is {phase.template}, which {of} has no set of; {_nearest(phase.template, stems)}"


def _clash_problems(phase: Create, where: str, made: list[tuple[str, Create]]) -> Iterator[str]:
    for place, other in made:
        shared = {one.stem for one in phase.objects} & {one.stem for one in other.objects}
        apart = phase.indices.stop <= other.indices.start or other.indices.stop <= phase.indices.start
        if shared and not apart:
            yield (
                f"{where} creates {', '.join(sorted(shared))} in namespaces that {place} does it in; "
                "give its objects another name, or another first_namespace"
            )
