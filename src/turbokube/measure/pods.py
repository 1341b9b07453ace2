"""Pods against what was asked for: the ledger says which ought to run, the observer which did, and when.

A pod that a phase took away (scaled down, deleted, rolled, churned) is not lost, and one that completed did what it was
to do. Times are UNIX seconds, durations seconds.
"""

from __future__ import annotations

import bisect
import math
import sqlite3
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from turbokube.bundle.reader import Reader

QUANTILES = (0.5, 0.9, 0.99)
_JOBS = frozenset(("Job", "CronJob"))
INTENDED, OBJECTS, SEEN = "intended → seen running", "created → started, by the objects", "first seen → seen running"


@dataclass(frozen=True, slots=True)
class Pods:
    """What became of the pods that were asked for."""

    planned: int
    intended: int  # those whose creation was due: fewer when a phase ended early
    seen: int
    running: int  # ran at some time
    gone: int  # ended or deleted, whoever asked for it
    lost: int  # ran and ended though nobody asked for it, or ended before they ran and were not replaced
    restarted: int
    surplus: int  # ran beyond their owners' replicas
    withdrawn: int  # deleted before they ran: a controller made one too many, or a phase took it away
    never: int  # of the planned: did not run, and nobody took them away
    removed: int = 0  # deleted because a phase asked for it
    completed: int = 0  # Succeeded, or Failed where the owner is a Job


@dataclass(frozen=True, slots=True)
class Startup:
    """Percentiles of one clock. `n` counts the `never` started ones, whose time is infinite; `unseen` are left out.

    Unseen are those that only a list showed. `least` and `most` are the percentiles with them: as if they had been the
    fastest of all, and as if they had run when the list told of them and no sooner.
    """

    clock: str
    n: int
    never: int
    unseen: int
    percentiles: dict[str, float | None]  # p50, p90, p99, max
    values: array[float] = field(repr=False)  # the finite ones, sorted
    least: dict[str, float | None] = field(default_factory=dict)
    most: dict[str, float | None] = field(default_factory=dict)


@dataclass(slots=True)
class Starts:
    """Startups by the first clock, a column each."""

    intended: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("d"))  # infinite: it never ran
    listed: array[int] = field(default_factory=lambda: array("b"))  # 1: it took at most so long

    def add(self, intended: float, seconds: float, listed: int = 0) -> None:
        self.intended.append(intended)
        self.seconds.append(seconds)
        self.listed.append(listed)


@dataclass(slots=True)
class Intent:
    """A moment at which pods of an owner were meant to be made. `rolled`: one by one, as its owner sees fit."""

    time: float
    phase: str
    rolled: bool = False


@dataclass(slots=True)
class Owner:
    """Whose pods were asked for, as the ledger has it."""

    kind: str = ""
    stateless: bool = True
    intents: list[Intent] = field(default_factory=list)
    planned: int = 0  # pods that are to run, first or last
    due: int = 0  # of these: those whose time had come
    may: int = 0  # pods beyond that that may have run: a patch may replace what it changes
    allowed: int = 0  # pods that were taken away on request
    wanted: int = 0  # pods that are to live at the end
    # what the observer saw
    made: int = 0
    ran: int = 0
    gone: int = 0
    ran_gone: int = 0

    def count(self, ran: bool, gone: bool) -> None:
        """One of its pods."""
        self.made += 1
        self.ran += ran
        self.gone += gone
        self.ran_gone += ran and gone

    @property
    def never(self) -> int:
        """Pods that ought to have run, did not, and were not taken away before."""
        return max(0, self.planned - self.ran - max(0, self.allowed - self.ran_gone))

    @property
    def lost(self) -> int:
        """Pods that ran and went though nobody asked for it, or that are missing of those that were made."""
        alive = self.made - self.gone
        return max(0, self.ran_gone - self.allowed, min(self.made, self.planned) - self.allowed - alive)

    @property
    def surplus(self) -> int:
        """Pods that ran beyond those that ought to."""
        return max(0, self.ran - self.planned - self.may)

    def intent(self, moment: float) -> Intent | None:
        """The last intent before a pod came to be; None for a pod that nobody meant."""
        at = bisect.bisect_right(self.intents, moment, key=lambda intent: intent.time)
        return self.intents[at - 1] if at else self.intents[0] if self.intents else None


@dataclass(frozen=True, slots=True)
class Load:
    """Everything about the pods of a run."""

    pods: Pods
    startups: tuple[Startup, ...]
    starts: dict[tuple[str, bool], Starts]  # by phase, and whether they are stateless
    spans: dict[str, tuple[int, float, float]]  # phase → pods that ran, first creation, last running


def owners(reader: Reader) -> dict[tuple[str, str], Owner]:
    """(namespace, name) → owner, of everything that owns pods; what phases did to them later is counted in."""
    found: dict[tuple[str, str], Owner] = {}
    spaces: dict[str, list[Owner]] = {}
    for row in reader.query("SELECT phase, kind, namespace, name, intended, replicas, stateless FROM objects"):
        if not row["replicas"] and not row["stateless"]:
            continue
        owner = found.setdefault((row["namespace"], row["name"]), Owner())
        spaces.setdefault(row["namespace"], []).append(owner)
        owner.kind, owner.stateless = row["kind"], row["stateless"] != 0
        owner.planned += row["replicas"]
        owner.wanted += row["replicas"]
        if row["intended"] is not None:
            owner.due += row["replicas"]
            owner.intents.append(Intent(row["intended"], row["phase"]))
    done = "SELECT * FROM actions WHERE sent IS NOT NULL ORDER BY COALESCE(accepted, sent), number"
    for row in reader.query(done):
        if row["kind"] == "Namespace":
            for owner in spaces.get(row["name"], ()):
                _act(owner, row)
        elif (owner_ := found.get((row["namespace"], row["name"]))) is not None:
            _act(owner_, row)
    for owner in found.values():
        owner.intents.sort(key=lambda intent: intent.time)
    return found


def _act(owner: Owner, row: sqlite3.Row) -> None:
    """Count an action in. One that was sent and not answered may have been done: it forgives, and demands nothing."""
    now, then = owner.wanted, row["replicas"]
    verb, answered = row["verb"], row["accepted"] is not None
    if verb == "delete":
        then = 0
    elif then is None:
        then = now
    made = then if verb == "create" else now if verb == "roll" else max(0, then - now)
    owner.allowed += now if verb in ("delete", "roll", "patch") else max(0, now - then)
    if verb == "patch" or not answered:
        owner.may += made or then
    elif made:
        owner.planned += made
        owner.due += made
        owner.intents.append(Intent(row["intended"], row["phase"], verb == "roll"))
    if answered:
        owner.wanted = then


def load(reader: Reader) -> Load:
    """Count all pods against the ledger, and take their times."""
    tally = _Tally(owners(reader))
    sql = (
        "SELECT namespace, owner, created, seen, started, running_seen, deleted_seen, COALESCE(listed, 0),"
        " COALESCE(restarts, 0), phase FROM pods"
    )
    for row in reader.connection.execute(sql):
        tally.pod(*row)
    return tally.result()


class _Tally:
    """Sums over pods, one after another."""

    def __init__(self, known: dict[tuple[str, str], Owner]) -> None:
        self.known = known
        self.stray = Owner()  # of pods that nobody asked for
        self.seen = self.running = self.gone = self.restarted = self.completed = 0
        self.unseen = 0
        self.starts: dict[tuple[str, bool], Starts] = {}
        self.spans: dict[str, tuple[int, float, float]] = {}
        self.objects, self.watched = array("d"), array("d")

    def pod(
        self,
        space: str,
        name: str,
        created: float | None,
        seen: float,
        started: float | None,
        running: float | None,
        deleted: float | None,
        listed: int,
        restarts: int,
        phase: str | None,
    ) -> None:
        """Count one in."""
        owner = self.known.get((space, name), self.stray)
        completed = phase == "Succeeded" or (phase == "Failed" and owner.kind in _JOBS)
        ran, gone = running is not None or completed, deleted is not None and not completed
        self.seen += 1
        self.running += ran
        self.gone += gone
        self.restarted += restarts > 0
        self.completed += completed
        if phase == "Failed" and completed:
            return  # the Job makes another in its place
        owner.count(ran, gone)
        begun = created if listed and created is not None else seen
        intent = owner.intent(begun)
        if not ran or intent is None:
            return
        ended = running or deleted or begun
        self._span(intent.phase, created or seen, ended)
        since = begun if intent.rolled else intent.time
        self._starts(intent, owner).add(intent.time, max(0.0, ended - since), int(bool(listed)))
        if not owner.stateless:
            return
        self.unseen += bool(listed)
        if running is not None and started is not None and created is not None:
            self.objects.append(started - created)
        if running is not None and not listed:
            self.watched.append(running - seen)

    def _starts(self, intent: Intent, owner: Owner) -> Starts:
        return self.starts.setdefault((intent.phase, owner.stateless), Starts())

    def _span(self, phase: str, created: float, running: float) -> None:
        n, first, last = self.spans.get(phase, (0, created, running))
        self.spans[phase] = (n + 1, min(first, created), max(last, running))

    def result(self) -> Load:
        """What it all comes to."""
        each = list(self.known.values())
        for owner in each:
            late = max(0, owner.never - (owner.planned - owner.due))  # what was not due is not late
            if late and owner.intents:
                last = owner.intents[-1]
                for _ in range(late):
                    self._starts(last, owner).add(last.time, math.inf)
        first = startup(stateless(self.starts))
        return Load(self._pods(each), (first, *self._others(first.never)), self.starts, self.spans)

    def _pods(self, each: Sequence[Owner]) -> Pods:
        return Pods(
            planned=sum(owner.planned for owner in each),
            intended=sum(owner.due for owner in each),
            seen=self.seen,
            running=self.running,
            gone=self.gone,
            lost=sum(owner.lost for owner in each),
            restarted=self.restarted,
            surplus=sum(owner.surplus for owner in (*each, self.stray)),
            withdrawn=sum(owner.gone - owner.ran_gone for owner in (*each, self.stray)),
            never=sum(owner.never for owner in each),
            removed=sum(min(owner.gone, owner.allowed) for owner in each),
            completed=self.completed,
        )

    def _others(self, never: int) -> Iterable[Startup]:
        for clock, values, unseen in ((OBJECTS, self.objects, 0), (SEEN, self.watched, self.unseen)):
            found = array("d", sorted(values))
            yield Startup(clock, len(found) + never, never, unseen, percentiles(found, never), found)


def stateless(starts: Mapping[tuple[str, bool], Starts]) -> Iterable[Starts]:
    """Those that the SLI of pod startup is of."""
    return (each for (_, without_state), each in starts.items() if without_state)


def startup(columns: Iterable[Starts], begin: float = -math.inf, end: float = math.inf) -> Startup:
    """The percentiles of those that were intended in [begin, end)."""
    live, late, never = array("d"), array("d"), 0
    for starts in columns:
        for intended, seconds, listed in zip(starts.intended, starts.seconds, starts.listed, strict=True):
            if begin <= intended < end:
                if seconds == math.inf:
                    never += 1
                else:
                    (late if listed else live).append(seconds)
    values = array("d", sorted(live))
    least = percentiles(array("d", [0.0] * len(late)) + values, never)
    most = percentiles(sorted(live + late), never)
    return Startup(INTENDED, len(values) + never, never, len(late), percentiles(values, never), values, least, most)


def percentiles(values: Sequence[float], never: int) -> dict[str, float | None]:
    """p50, p90, p99 and max of sorted values and `never` infinite ones."""
    return {f"p{q * 100:g}": percentile(values, never, q) for q in QUANTILES} | {"max": percentile(values, never, 1)}


def percentile(values: Sequence[float], never: int, q: float) -> float | None:
    """Nearest-rank percentile of sorted `values` and `never` infinite ones; None when there is nothing at all."""
    n = len(values) + never
    rank = max(1, math.ceil(q * n - 1e-9))
    return None if n == 0 else values[rank - 1] if rank <= len(values) else math.inf
