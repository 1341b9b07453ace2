"""The bundle's one writer: a thread of its own, so that no disk ever holds up the load."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from . import tables

FILE = "bundle.sqlite"
_INTERVAL_S = 0.5  # between commits: what a SIGKILL can lose at most, with the commit's own time


class BundleError(ValueError):
    """A bundle that cannot be used as asked. The message is one sentence for the user."""


class Writer:
    """Rows go in at once, from any thread; they are committed in order, in batches, at most half a second later.

    What is committed survives SIGKILL (WAL, synchronous=NORMAL: only a power cut can take the last batch).
    `error` tells why writing ended, None while all is well.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / FILE
        self.error: str | None = None
        self._batch: list[tuple[str, Sequence[Sequence[Any]]]] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._committed = threading.Condition()
        self._taken = self._done = 0  # statements handed in, statements committed
        self._closing = False
        connection = self._connect()
        self._widths = {table: len(names) for table, names in tables.make(connection).items()}
        connection.close()
        self._thread = threading.Thread(target=self._run, name="bundle", daemon=True)
        self._thread.start()

    def insert(self, table: str, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows, every column in the schema's order; a row with the same key is replaced."""
        marks = ", ".join("?" * self._widths[table])
        self.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", list(rows))

    def execute(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Any statement, once per row of parameters."""
        with self._lock:
            self._batch.append((sql, rows))
            self._taken += 1

    def meta(self, **values: Any) -> None:
        """Set values of table meta; they are kept as JSON."""
        self.insert("meta", [(key, msgspec.json.encode(value).decode()) for key, value in values.items()])

    def flush(self, timeout: float = 30.0) -> None:
        """Wait until all that was handed in is committed. Raises BundleError if it cannot be."""
        with self._lock:
            goal = self._taken
        self._wake.set()
        with self._committed:
            self._committed.wait_for(lambda: self._done >= goal or self.error is not None, timeout)
        if self._done < goal:
            raise BundleError(f"{self.path} cannot be written: {self.error or 'the disk does not answer'}")

    def close(self, *, finish: bool = False) -> None:
        """Commit what is left and end. With `finish`, everything is in the one file, without WAL."""
        self._closing = True
        self._wake.set()
        self._thread.join()
        if self.error is not None:
            raise BundleError(f"{self.path} cannot be written: {self.error}")
        connection = self._connect()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if finish:
            connection.execute("PRAGMA journal_mode=DELETE")
        connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, timeout=30.0)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    def _run(self) -> None:
        connection = self._connect()
        try:
            while True:
                self._wake.wait(_INTERVAL_S)
                self._wake.clear()
                closing = self._closing
                self._commit(connection)
                if closing:
                    return
        except sqlite3.Error as error:
            self.error = str(error)
        finally:
            connection.close()
            with self._committed:
                self._committed.notify_all()

    def _commit(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            batch, self._batch = self._batch, []
        if batch:
            connection.execute("BEGIN IMMEDIATE")
            for sql, rows in batch:
                connection.executemany(sql, rows)
            connection.execute("COMMIT")
        with self._committed:
            self._done += len(batch)
            self._committed.notify_all()
