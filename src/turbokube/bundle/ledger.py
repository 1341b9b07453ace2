"""What is to be created, was sent, was accepted and is ready: the memory from which an interrupted phase goes on."""

from __future__ import annotations

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

    @property
    def key(self) -> tuple[str, str, str]:
        return self.kind, self.namespace, self.name


_row = attrgetter(*(field.name for field in fields(Entry)))


class Ledger:
    """All entries of a run in memory; each change goes to the writer as a whole row."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        with Reader(writer.path.parent) as reader:
            rows = [Entry(*row) for row in reader.query("SELECT * FROM objects ORDER BY namespace, name")]
        self._entries = {entry.key: entry for entry in rows}

    def plan(self, phase: str, kind: str, namespace: str, name: str, replicas: int = 0) -> Entry:
        """The entry of an object: the one that is known, or a new planned one."""
        entry = Entry(phase, kind, namespace, name, replicas=replicas)
        known = self._entries.get(entry.key)
        if known is not None:
            return known
        self._entries[entry.key] = entry
        self.save(entry)
        return entry

    def save(self, *entries: Entry) -> None:
        """Keep entries as they are now."""
        self._writer.insert("objects", [_row(entry) for entry in entries])

    def of(self, phase: str) -> Iterator[Entry]:
        """The entries of a phase."""
        return (entry for entry in self._entries.values() if entry.phase == phase)

    def get(self, kind: str, namespace: str, name: str) -> Entry | None:
        """The entry of one object, None if it is not planned."""
        return self._entries.get((kind, namespace, name))
