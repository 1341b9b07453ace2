"""The tables of a bundle: made as schema.sql says, and bundles of earlier versions brought to look alike."""

from __future__ import annotations

import functools
import importlib.resources
import sqlite3


def make(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Make what is not there; returns the columns of each table."""
    connection.executescript(_schema())
    there = columns(connection)
    for table, names in _known().items():
        for name in names[len(there[table]) :]:
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {name}")
    return columns(connection)


def complete(connection: sqlite3.Connection) -> None:
    """Let a connection that cannot write see what an earlier version did not keep: as empty, or NULL."""
    there = columns(connection)
    for table, names in _known().items():
        if table not in there:
            connection.execute(f"CREATE TEMP TABLE {table}({', '.join(names)})")
        elif absent := names[len(there[table]) :]:
            nulls = ", ".join(f"NULL AS {name}" for name in absent)
            connection.execute(f"CREATE TEMP VIEW {table} AS SELECT *, {nulls} FROM main.{table}")


def columns(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """The tables of a database, and the columns of each in their order."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {row[0]: [one[1] for one in connection.execute(f"PRAGMA table_info({row[0]})")] for row in tables}


@functools.cache
def _schema() -> str:
    return importlib.resources.files(__package__).joinpath("schema.sql").read_text()


@functools.cache
def _known() -> dict[str, list[str]]:
    with sqlite3.connect(":memory:") as connection:
        connection.executescript(_schema())
        return columns(connection)
