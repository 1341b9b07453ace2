"""A profile's phases: what each kind of load may be told, and how it is put into words."""

from __future__ import annotations

import math
import re
import typing
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import msgspec

BUILT_IN = ("deployment", "statefulset", "daemonset", "job", "service", "configmap", "secret", "pod")


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

    `run`, `seed` and `segment` are the run's, not the user's.
    """

    internal: ClassVar[frozenset[str]] = frozenset({"run", "seed", "segment"})

    run: str = ""
    seed: int = 0
    segment: str = ""  # which one of several load generators this is for; its pods are labelled with it
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


class OfPhase(Common, frozen=True, kw_only=True):
    """What works on objects that the phase `of` has created; `template`: of which set, by its name; empty: all."""

    of: str
    template: str = ""
    share: float = 1.0


class Scale(OfPhase, frozen=True, kw_only=True):
    """New numbers of replicas, awaited. Exactly one of `replicas` and `factor` (of what the object has) is set."""

    replicas: int | Between | None = None
    factor: float | None = None


class Roll(OfPhase, frozen=True, kw_only=True):
    """A new annotation in the pods' template, so that every pod is replaced; awaited."""


class Patch(OfPhase, frozen=True, kw_only=True):
    """A merge patch; its texts may be jinja. Each object so often, or again and again for a time."""

    patch: dict[str, Any]
    repeat: int = 1
    duration: float = 0.0


class Churn(OfPhase, frozen=True, kw_only=True):
    """Deletes and re-creates a share of the objects, or of the namespaces, again and again for `duration`."""

    by: Literal["object", "namespace"] = "object"
    duration: float


class Delete(OfPhase, frozen=True, kw_only=True):
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


def objects_of(phase: Create) -> int:
    """How many objects it creates, without the namespaces themselves."""
    return phase.namespaces * sum(one.count for one in phase.objects)


def pods_of(phase: Create) -> int:
    """How many pods come of them, as far as can be told: not those of daemonsets, which depend on the Nodes."""
    return phase.namespaces * sum(one.count * one.pods for one in phase.objects)


def most_pods(
    groups: Sequence[Sequence[Phase]], namespaces: int, replayed: Callable[[Replay], tuple[int, int]]
) -> tuple[int, int]:
    """The most pods that there are at any time, in all and in one namespace, as far as can be told before.

    `replayed`: the most pods of a replay, and those that it leaves; each namespace's vnodes have a share of them.
    """
    per: dict[str, dict[str, float]] = {}  # create phase → set → its pods in a namespace
    creates: dict[str, Create] = {}
    most, most_here, left = 0, 0.0, 0
    for group in groups:
        replays = [replayed(phase) for phase in group if isinstance(phase, Replay)]
        others = left + sum(one[0] for one in replays)
        left += sum(one[1] for one in replays)
        for phase in group:
            if isinstance(phase, Create):
                creates[phase.name] = phase
                per[phase.name] = {one.stem: float(one.count * one.pods) for one in phase.objects}
            elif isinstance(phase, Scale):
                _scaled(phase, creates[phase.of], per[phase.of])
        here = {name: sum(pods.values()) for name, pods in per.items()}
        most = max(most, others + math.ceil(sum(phase.namespaces * here[name] for name, phase in creates.items())))
        starts = {phase.first_namespace for phase in creates.values()}
        sums = (sum(here[name] for name, phase in creates.items() if start in phase.indices) for start in starts)
        most_here = max(most_here, others / namespaces + max(sums, default=0.0))
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


def _which(phase: OfPhase) -> str:
    return f"{phase.share:.0%} of {phase.template or 'the objects'} of {phase.of}"


def _pace(rate: float | Shape) -> str:
    if not isinstance(rate, Shape):
        return f"{rate:g} a second"
    if rate.poisson is not None:
        return f"{rate.poisson:g} a second at random"
    if rate.ramp is not None:
        return f"{rate.ramp[0]:g} to {rate.ramp[1]:g} a second in {rate.ramp[2]:g} s"
    return " then ".join(f"{step:g} a second for {seconds:g} s" for step, seconds in rate.steps)
