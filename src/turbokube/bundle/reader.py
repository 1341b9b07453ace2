"""Reading a bundle, finished or still being written."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from . import tables
from .writer import FILE, BundleError


class Reader:
    """A read-only view. `query` gives rows that are read by index or by column name."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / FILE
        if not self.path.is_file():
            raise BundleError(f"{Path(folder)} holds no {FILE}: it is not the bundle of a run")
        self.connection = sqlite3.connect(f"file:{self.path}?mode=ro", uri=True, timeout=10.0)
        try:
            tables.complete(self.connection)
        except sqlite3.DatabaseError as error:
            self.connection.close()
            raise BundleError(f"{self.path} cannot be read: {error}") from None
        self.connection.row_factory = sqlite3.Row

    def query(self, sql: str, *parameters: Any) -> list[sqlite3.Row]:
        """All rows of a SELECT."""
        try:
            return self.connection.execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise BundleError(f"{self.path} cannot be read: {error}") from None

    def meta(self) -> dict[str, Any]:
        """Table meta, decoded."""
        return {row["key"]: msgspec.json.decode(row["value"]) for row in self.query("SELECT key, value FROM meta")}

    def close(self) -> None:
        """Let go of the file."""
        self.connection.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
