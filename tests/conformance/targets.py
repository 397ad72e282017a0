"""An output of one's own: rows of an SQLite table, each stored exactly once by its shard and number."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class TableTarget:
    """A table, and how often it was published."""

    def __init__(self, path: Path) -> None:
        """Make the table."""
        self._path = path
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("CREATE TABLE IF NOT EXISTS rows (shard, number, row, PRIMARY KEY (shard, number))")
            connection.execute("CREATE TABLE IF NOT EXISTS published (rows)")

    def writer(self, shard: int) -> TableWriter:
        """Return the writer of a shard."""
        return TableWriter(self._path, shard)

    def publish(self) -> None:
        """Note how many rows there are."""
        with closing(sqlite3.connect(self._path)) as connection, connection:
            connection.execute("INSERT INTO published SELECT count(*) FROM rows")

    def rows(self) -> list[Any]:
        """Return the rows."""
        with closing(sqlite3.connect(self._path)) as connection:
            return [json.loads(row) for (row,) in connection.execute("SELECT row FROM rows ORDER BY shard, number")]

    def published(self) -> list[int]:
        """Return how many rows there were at each publication."""
        with closing(sqlite3.connect(self._path)) as connection:
            return [rows for (rows,) in connection.execute("SELECT rows FROM published")]


class TableWriter:
    """Writes the rows of a shard; its mark is their number. Exactly once."""

    def __init__(self, path: Path, shard: int) -> None:
        """Open nothing yet."""
        self._path = path
        self._shard = shard
        self._connection: sqlite3.Connection | None = None
        self._rows = 0

    def intact(self, marks: Sequence[int]) -> int:
        """Return the index of the last mark with so many rows."""
        with closing(sqlite3.connect(self._path)) as connection:
            [(rows,)] = connection.execute("SELECT count(*) FROM rows WHERE shard = ?", (self._shard,))
        return max((index for index, mark in enumerate(marks) if mark <= rows), default=-1)

    def open(self, mark: int | None) -> None:
        """Delete what lies past the mark."""
        self._rows = mark or 0
        self._connection = sqlite3.connect(self._path)
        with self._connection:
            where = (self._shard, self._rows)
            self._connection.execute("DELETE FROM rows WHERE shard = ? AND number >= ?", where)

    def write(self, results: Sequence[Any]) -> None:
        """Insert."""
        assert self._connection is not None
        rows = [json.dumps(result, default=str) for result in results if result is not None]
        numbered = [(self._shard, number, row) for number, row in enumerate(rows, self._rows)]
        with self._connection:
            self._connection.executemany("INSERT INTO rows VALUES (?, ?, ?)", numbered)
        self._rows += len(rows)

    def mark(self) -> int:
        """Return the number of rows."""
        return self._rows

    def sync(self) -> None:
        """Do nothing: a transaction is durable."""

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
