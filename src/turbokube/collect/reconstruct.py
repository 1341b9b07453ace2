"""What happened to a cluster's workloads before anybody watched: from creation times and the Events that are left.

Events tell of Deployments how they were scaled and rolled, of what is gone that it was there. They are kept for an hour
by default (kube-apiserver --event-ttl), and like objects they tell whole seconds.
"""

from __future__ import annotations

import itertools
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TypeVar, cast
from urllib.parse import urlencode

import msgspec

from turbokube.api.target import Target
from turbokube.api.transport import Transport
from turbokube.api.watch import ListMeta
from turbokube.bundle import trace
from turbokube.bundle.trace import Operation, Trace

from .record import COLLECTIONS, Choice, Metadata, Object, Session, creation, wanted

T = TypeVar("T")
_PAGE = 500
_APART_S = 0.001  # so that what follows from another comes after it in the order of time
# deployment controller (scaleReplicaSet in sync.go): "from" since 1.27
_SCALED = re.compile(r"Scaled (?:up|down) replica set (\S+?) (?:from (\d+) )?to (\d+)")
_MADE = re.compile(r"[Cc]reated? [Pp]od:? (\S+)")  # controllers of ReplicaSets, Jobs, StatefulSets


class _Involved(msgspec.Struct, gc=False):
    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class Event(msgspec.Struct, rename="camel", gc=False):
    metadata: Metadata
    involved_object: _Involved
    reason: str | None = None
    message: str | None = None
    event_time: datetime | None = None
    first_timestamp: datetime | None = None
    last_timestamp: datetime | None = None
    count: int | None = None

    @property
    def first(self) -> float:
        """UNIX time of the first occurrence."""
        moment = self.event_time or self.first_timestamp or self.metadata.creation_timestamp
        return moment.timestamp() if moment else 0.0

    @property
    def last(self) -> float:
        """UNIX time of the last occurrence."""
        return max(self.first, self.last_timestamp.timestamp() if self.last_timestamp else 0.0)


class _List(msgspec.Struct):
    metadata: ListMeta
    items: list[msgspec.Raw] | None = None


async def reconstruct(target: Target, window: float, choice: Choice, *, keep_names: bool = False) -> Trace:
    """The trace of the last `window` seconds; what is older was there before. Raises ApiError, Unreachable."""
    async with Session(target) as session:
        objects = {kind: await _all(session.transport, path, Object) for kind, path in COLLECTIONS.items()}
        events = await _all(session.transport, "/api/v1/events", Event)
    begin = time.time() - window
    operations, notes = tell(objects, events, begin, choice)
    return trace.make(
        operations, keep_names=keep_names, method="reconstructed", kubernetes=session.version, began=begin,
        seconds=window, notes=notes,
    )  # fmt: skip


def tell(
    objects: dict[trace.Kind, list[Object]], events: Iterable[Event], begin: float, choice: Choice
) -> tuple[list[Operation], list[str]]:
    """Operations since `begin`, and what must be known of them."""
    of: defaultdict[str, list[Event]] = defaultdict(list)
    for event in sorted(events, key=lambda event: event.first):
        if event.involved_object.namespace in choice and event.last >= begin:
            of[event.involved_object.uid].append(event)
    there = {found.metadata.uid for each in objects.values() for found in each}
    standing = [
        _standing(kind, found, of[found.metadata.uid], begin)
        for kind, each in objects.items() for found in each if wanted(found, choice)
    ]  # fmt: skip
    gone = list(_gone(objects, {uid: each for uid, each in of.items() if each and uid not in there}, begin))
    _in_turn([*standing, *gone])
    notes = [
        "times are whole seconds, as objects and Events tell them",
        "what Events do not tell, or are too old to tell, is not in it: scales of StatefulSets, the first of what was"
        " deleted",
    ]
    if gone:
        notes.append(f"{len(gone)} objects are gone; their last Event is taken for their deletion")
    return [one for life in (*standing, *gone) for one in life], notes


def _in_turn(lives: list[list[Operation]]) -> None:
    """Have each object end before the next of its name begins, whatever whole seconds and late Events say."""
    named: defaultdict[tuple[str, str, str], list[list[Operation]]] = defaultdict(list)
    for life in lives:
        named[life[0].key].append(life)
    for each in named.values():
        each.sort(key=lambda life: (life[-1].verb != "delete", life[0].t))  # what stands is the last
        for life, following in itertools.pairwise(each):
            until = following[0].t = max(following[0].t, life[0].t + _APART_S * len(life))
            following[0].before = False
            for left, one in enumerate(reversed(life), 1):
                one.t = min(one.t, until - _APART_S * left)
        for life in each:
            for before, one in itertools.pairwise(life):
                one.t = max(one.t, before.t)


def _standing(kind: trace.Kind, found: Object, events: list[Event], begin: float) -> list[Operation]:
    moment = found.metadata.creation_timestamp
    since = (moment.timestamp() if moment else 0.0) - begin
    made = creation(kind, found, max(0.0, since), before=since < 0)
    return [made, *(_changes(made, events, begin) if kind == "Deployment" else ())]


def _changes(made: Operation, events: Iterable[Event], begin: float) -> Iterator[Operation]:
    """Scales and rolls of a Deployment by the scaling of its ReplicaSets; sets the replicas that it was made with.

    A ReplicaSet that comes new is a roll; until those before it are down to 0, their scaling is the roll's own.
    """
    sets: dict[str, int] = {}
    current, replicas, rolling = "", 0, False
    for event in events:
        said = _SCALED.search(event.message or "") if event.reason == "ScalingReplicaSet" else None
        if said is None:
            continue
        name, was, to = said[1], said[2], int(said[3])
        when = max(made.t, event.first - begin)
        first, fresh = not sets, name not in sets
        sets[name] = to
        if first:
            current, replicas = name, int(was) if made.before and was else to
            made.replicas = replicas
            if replicas != to:
                yield _later(made, "scale", when, to)
                replicas = to
        elif fresh:
            current, rolling = name, True
            yield _later(made, "roll", when)
        elif (rolling and sum(sets.values()) == sets[current] != replicas) or (not rolling and name == current):
            replicas = sets[current]
            yield _later(made, "scale", when, replicas)
        rolling = rolling and sum(sets.values()) != sets[current]


def _later(made: Operation, verb: trace.Verb, when: float, replicas: int | None = None) -> Operation:
    return Operation(
        t=max(when, made.t + _APART_S), verb=verb, kind=made.kind, namespace=made.namespace, name=made.name,
        replicas=replicas,
    )  # fmt: skip


def _gone(
    objects: dict[trace.Kind, list[Object]], of: dict[str, list[Event]], begin: float
) -> Iterator[list[Operation]]:
    """What was done to each object that is there no more, from uid → Events."""
    involved = {uid: each[0].involved_object for uid, each in of.items()}
    owners = {(one.namespace, one.name) for one in involved.values() if one.kind not in ("Pod", "Node")}
    owners |= {(found.metadata.namespace, found.metadata.name) for kind, each in objects.items() if kind != "Pod"
               for found in each}  # fmt: skip
    deployments = {(one.namespace, one.name) for one in involved.values() if one.kind == "Deployment"}
    deployments |= {(found.metadata.namespace, found.metadata.name) for found in objects.get("Deployment", ())}
    pods = [(one, of[uid]) for uid, one in involved.items() if one.kind == "Pod"]
    for uid, one in involved.items():
        if one.kind not in trace.KINDS or (one.kind == "ReplicaSet" and _owned(one, deployments)):
            continue
        if one.kind == "Pod" and _owned(one, owners):
            continue
        prefix = f"{one.name}-"
        own = [event for pod, each in pods if pod.namespace == one.namespace and pod.name.startswith(prefix)
               for event in each]  # fmt: skip
        yield _life(one, of[uid], own if one.kind != "Pod" else [], begin)


def _owned(one: _Involved, owners: set[tuple[str, str]]) -> bool:
    """Whether its name is made of that of an owner in its namespace."""
    parts = one.name.split("-")
    return any((one.namespace, "-".join(parts[:count])) in owners for count in range(1, len(parts)))


def _life(one: _Involved, events: list[Event], pods: list[Event], begin: float) -> list[Operation]:
    """What the Events of one object, and of its pods, tell of it."""
    made_pods = [event for event in events if event.reason == "SuccessfulCreate" and _MADE.search(event.message or "")]
    made = Operation(
        t=max(0.0, events[0].first - begin), verb="create", kind=cast(trace.Kind, one.kind), namespace=one.namespace,
        name=one.name, before=events[0].first < begin,
    )  # fmt: skip
    if one.kind in ("StatefulSet", "ReplicaSet", "Job"):
        made.replicas = max(1, sum(event.count or 1 for event in made_pods))
    if one.kind == "Job":
        made.parallelism = made.replicas
        done = [event.last for event in events if event.reason == "Completed"]
        made.run_time = done[0] - events[0].first if done else None
    changes = []
    if one.kind == "Deployment":
        made.replicas = 1
        changes = list(_changes(made, events, begin))
    last = max(event.last for event in (*events, *pods)) - begin
    return [made, *changes, _later(made, "delete", max([last, *(each.t + _APART_S for each in changes)]))]


async def _all(transport: Transport, path: str, kind: type[T]) -> list[T]:
    """A whole collection, by pages."""
    decoder = msgspec.json.Decoder(kind)
    found: list[T] = []
    token = ""
    while True:
        query = urlencode({"limit": str(_PAGE)} | ({"continue": token} if token else {}))
        answer = await transport.request("GET", f"{path}?{query}", timeout=60.0)
        page = msgspec.json.decode(answer.checked().body, type=_List)
        found += [decoder.decode(item) for item in page.items or []]
        if not (token := page.metadata.continue_):
            return found
