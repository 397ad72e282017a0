"""Databases that tests load into, all with the same face: an SQLite file, a DuckDB file, a database of PostgreSQL."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlencode

import duckdb

if TYPE_CHECKING:
    from pathlib import Path


class Tables(Protocol):
    """A database that begins empty.

    kind: "sqlite", "duckdb" or "postgres".
    """

    kind: str

    def url(self, **parameters: str) -> str:
        """Return its address as batchkit takes it, with parameters such as `table`."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what a query gives, asked by a connection of its own."""

    def run(self, sql: str) -> None:
        """Execute a statement, and commit it."""


class SqliteTables:
    """A file of SQLite."""

    kind = "sqlite"

    def __init__(self, path: Path) -> None:
        """Use a file that need not exist."""
        self.path = path

    def url(self, **parameters: str) -> str:
        """Return its absolute address."""
        return f"sqlite:///{self.path}?{urlencode(parameters)}"

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what a query gives."""
        with closing(sqlite3.connect(self.path)) as connection:
            return connection.execute(sql).fetchall()

    def run(self, sql: str) -> None:
        """Execute a statement."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute(sql)


class DuckTables:
    """A file of DuckDB, which nobody else may have open meanwhile."""

    kind = "duckdb"

    def __init__(self, path: Path) -> None:
        """Use a file that need not exist."""
        self.path = path

    def url(self, **parameters: str) -> str:
        """Return its absolute address."""
        return f"duckdb:///{self.path}?{urlencode(parameters)}"

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return what a query gives."""
        with duckdb.connect(str(self.path)) as connection:
            return connection.execute(sql).fetchall()

    def run(self, sql: str) -> None:
        """Execute a statement."""
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(sql)
