"""What is to be created, was sent, was accepted and is ready: the memory from which an interrupted phase goes on."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from operator import attrgetter

from .reader import Reader
from .writer import Writer


@dataclass(slots=True)
class Entry:
    """One row of table objects, in its column order. Times are wall clock; None: not yet."""

    phase: str
    kind: str
    namespace: str
    name: str
    intended: float | None = None
    sent: float | None = None
    accepted: float | None = None
    status: int | None = None
    retries: int = 0
    throttled: int = 0
    failed: int = 0
    replicas: int = 0
    ready: float | None = None
    stateless: int | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.namespace, self.name


@dataclass(slots=True)
class Action:
    """One row of table actions, in its column order: something done to an object that was there."""

    phase: str
    number: int
    verb: str
    kind: str
    namespace: str
    name: str
    intended: float | None = None
    sent: float | None = None
    accepted: float | None = None
    status: int | None = None
    retries: int = 0
    throttled: int = 0
    failed: int = 0
    done: float | None = None
    replicas: int | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.namespace, self.name


_Key = tuple[str, str, str]
_row = attrgetter(*(field.name for field in fields(Entry)))
_action_row = attrgetter(*(field.name for field in fields(Action)))


class Ledger:
    """All entries and actions of a run in memory; each change goes to the writer as a whole row."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        with Reader(writer.path.parent) as reader:
            rows = [Entry(*row) for row in reader.query("SELECT * FROM objects ORDER BY namespace, name")]
            acts = [Action(*row) for row in reader.query("SELECT * FROM actions ORDER BY coalesce(accepted, 9e99)")]
        self._entries = {entry.key: entry for entry in rows}
        self._actions: defaultdict[str, dict[int, Action]] = defaultdict(dict)
        self._wanted: dict[_Key, int] = {}
        self._deleted: set[_Key] = set()
        self._counted: set[tuple[str, int]] = set()  # accepted actions
        self._spaces: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in rows:
            self._spaces[entry.namespace].append(entry)
        for action in acts:
            self._take(action)

    def plan(
        self, phase: str, kind: str, namespace: str, name: str, replicas: int = 0, stateless: bool | None = None
    ) -> Entry:
        """The entry of an object: the one that is known, or a new planned one."""
        entry = Entry(phase, kind, namespace, name, replicas=replicas, stateless=stateless)
        known = self._entries.get(entry.key)
        if known is not None:
            return known
        self._entries[entry.key] = entry
        self._spaces[namespace].append(entry)
        self.save(entry)
        return entry

    def save(self, *entries: Entry) -> None:
        """Keep entries as they are now."""
        self._writer.insert("objects", [_row(entry) for entry in entries])

    def of(self, phase: str) -> Iterator[Entry]:
        """The entries of a phase."""
        return (entry for entry in self._entries.values() if entry.phase == phase)

    def within(self, namespace: str) -> list[Entry]:
        """The entries of a namespace, its own too, of whatever phase."""
        return list(self._spaces[namespace])

    def get(self, kind: str, namespace: str, name: str) -> Entry | None:
        """The entry of one object, None if it is not planned."""
        return self._entries.get((kind, namespace, name))

    # what was done to objects later on

    def actions(self, phase: str) -> dict[int, Action]:
        """The actions of a phase by their numbers; to be read, not to be changed."""
        return self._actions[phase]

    def keep(self, *actions: Action) -> None:
        """Keep actions as they are now."""
        for action in actions:
            self._take(action)
        self._writer.insert("actions", [_action_row(action) for action in actions])

    def wanted(self, entry: Entry) -> int:
        """How many pods the object is to have by all that was accepted so far; 0 if it is deleted."""
        return self._wanted.get(entry.key, entry.replicas) if self.stands(entry) else 0

    def stands(self, entry: Entry) -> bool:
        """Whether the object was accepted, and no accepted action deleted it or its namespace since."""
        return entry.accepted is not None and entry.key not in self._deleted

    def standing(self, phase: str, before: float = math.inf) -> list[Entry]:
        """The entries of a create phase that stood just before that time, Namespaces too; without it: that stand."""
        entries = [entry for entry in self.of(phase) if entry.accepted is not None and entry.accepted < before]
        deleted = self._deleted if before == math.inf else self._deleted_before(before)
        return [entry for entry in entries if entry.key not in deleted]

    def _deleted_before(self, time: float) -> set[_Key]:
        every = (action for actions in self._actions.values() for action in actions.values())
        past = [action for action in every if action.accepted is not None and action.accepted < time]
        deleted: set[_Key] = set()
        for action in sorted(past, key=lambda action: action.accepted or 0.0):
            self._apply(action, deleted)
        return deleted

    def _take(self, action: Action) -> None:
        self._actions[action.phase][action.number] = action
        count = (action.phase, action.number)
        if action.accepted is None or count in self._counted:
            return
        self._counted.add(count)
        self._apply(action, self._deleted)
        if action.replicas is not None:
            self._wanted[action.key] = action.replicas

    def _apply(self, action: Action, deleted: set[_Key]) -> None:
        """What an accepted action makes of the set of what is deleted."""
        if action.verb == "create":
            deleted.discard(action.key)
        elif action.verb == "delete":
            deleted.add(action.key)
            if action.kind == "Namespace":
                time = action.accepted or 0.0
                deleted.update(entry.key for entry in self._spaces[action.name] if (entry.accepted or 0.0) <= time)
