"""The way from a user's YAML to phases: defaults, overrides, and sentences about what cannot be read."""

from __future__ import annotations

import contextlib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from .phase_rules import check, check_together, nearest
from .phases import KINDS, Common, Create, ObjectSet, Phase, Replay


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

    def default_deployments(self) -> ObjectSet:
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
        problems = check_together(groups, [phase for phase in earlier if phase.name not in named])
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
            hint = nearest(name, by_name) if by_name else f"{path} is empty"
            problems.append(f"{path}_override has {key}, but no phase is called {name}; {hint}")
        elif not rest or not _set(by_name[name], rest.split("."), value):
            problems.append(f"{path}_override has {key}, which is not a place in phase {name}")
    if problems:
        raise PhasesError(problems)
    return changed


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
        problems.append(f"{where}.kind is {kind!r}; {nearest(str(kind), KINDS)}" if kind else f"{where} has no kind")
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
    names = {"run", "seed", "namespaces", "concurrency", "deadline"}
    names |= Create.internal - Common.internal if struct is Create else set()
    if of is not None:
        settings["namespaces"], settings["first_namespace"] = of.namespaces, of.first_namespace
        names |= {"first_namespace"}
    with contextlib.suppress(TypeError, ValueError):  # what is no number is told of later
        settings["deadline"] += float(raw.get("duration", 0))
    filled = {name: settings[name] for name in names} | {"name": raw["kind"]} | raw
    if struct is Replay and "namespaces" not in raw:
        filled["namespaces"] = 0
    if struct is Create and not raw.get("objects"):
        filled["objects"] = [msgspec.to_builtins(defaults.default_deployments())]
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
            yield f"{where} has {key}, which {_article(struct)} does not know; {nearest(key, names)}"
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
