"""The seam of the databases: an open connection, what it can do, and the errors it knows.

All three speak the same small SQL: names in double quotes, `?` for values (which PostgreSQL's driver has otherwise),
`INSERT ... ON CONFLICT`. What differs is in their modules: types, bulk paths, locks, errors.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from batchkit.databases.address import quoted
from batchkit.errors import StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from batchkit.databases.address import Table
    from batchkit.frames.loose import Loose


_NOT_TEXT = re.compile(r"int|serial|numeric|decimal|real|double|float|bool|date|time|uuid|json|money|\[\]")
"""Names of types that have no empty text."""


LOCK = 0x6261746368
""""batch": PostgreSQL's advisory lock under which tables are created."""


class Refused(Exception):
    """Rows that the database does not take, in its own words; the statement was undone, the transaction may be lost.

    row: the index of the row that it names, `None`: it names none.
    """

    def __init__(self, why: str, row: int | None = None) -> None:
        """Keep both."""
        super().__init__(why)
        self.row = row


class ConnectionLost(StorageError):
    """The connection is gone; what was not committed is undone. It may be had again."""


class Conflict(StorageError):
    """Another transaction was in the way; trying the whole transaction again may work."""


class Column(NamedTuple):
    """A column of a table.

    type: as the database names it. array: whether it holds arrays. given: whether the database computes it, so that
    nothing can be stored in it.
    """

    name: str
    type: str
    array: bool = False
    given: bool = False

    @property
    def textual(self) -> bool:
        """Whether an empty text is a value of its type, and not what CSV has for nothing."""
        return _NOT_TEXT.search(self.type.lower()) is None


class Session(ABC):
    """An open connection, in which nothing is done outside of a transaction."""

    exclusive = False
    """Whether other processes cannot even read while the connection is open."""

    savepoints = True
    """Whether a part of a transaction can be undone."""

    in_transaction = False

    suffix = ""
    """What stands behind the columns of a table that is created."""

    overriding = ""
    """What lets values into columns that are counted up."""

    for_update = ""
    """What stands behind a query that waits for whoever is changing the rows, and holds them."""

    @abstractmethod
    def talking(self) -> AbstractContextManager[None]:
        """Turn the driver's errors into `Refused`, `ConnectionLost`, `Conflict` or `StorageError`."""

    @abstractmethod
    def run(self, sql: str, values: Sequence[Any] = ()) -> tuple[int, list[tuple[Any, ...]]]:
        """Execute a statement; return how many rows it changed and the rows it gave. Errors as of `talking`."""

    @abstractmethod
    def select(self, sql: str, values: Sequence[Any] = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Return the names of the columns and the rows that a query gives; its values are `value(1)`, `value(2)` …."""

    @abstractmethod
    def columns(self, table: Table) -> list[Column] | None:
        """Return the columns of a table, in order; `None` if there is no such table."""

    @abstractmethod
    def type_of(self, dtype: Any) -> str:
        """Return the type of a column for values of a polars type; "json" for nested values."""

    @abstractmethod
    def insert(self, table: Table, rows: Loose, columns: Sequence[Column]) -> None:
        """Store rows by the fastest way there is; columns: those of the table that the rows have, in their order."""

    @abstractmethod
    def upsert(self, table: Table, rows: Loose, columns: Sequence[Column], key: Sequence[str]) -> None:
        """Store rows over those with the same key; of several with one key the last counts."""

    @abstractmethod
    def like(self, new: Table, old: Table) -> None:
        """Make an empty table with the columns, the checks and the indexes of another."""

    @abstractmethod
    def close(self) -> None:
        """Close the connection; what is not committed is undone. Never raises."""

    def begin(self) -> None:
        """Begin a transaction that will write."""
        self.run("BEGIN")
        self.in_transaction = True

    def commit(self) -> None:
        """Commit; durable on return. After `ConnectionLost` nobody knows whether it was."""
        self.in_transaction = False
        self.run("COMMIT")

    def commit_later(self) -> None:
        """Commit, durable when `settle` returns; the next statement raises what went wrong, if not that."""
        self.commit()

    def settle(self) -> None:  # noqa: B027  # most commit at once
        """Wait for the last commit."""

    def rollback(self) -> None:
        """Undo the transaction, if one is open and can be undone at all."""
        if self.in_transaction:
            self.in_transaction = False
            self.run("ROLLBACK")

    def lock(self) -> None:  # noqa: B027  # only servers have others
        """Hold off others who want to create the same tables, until the end of the transaction."""

    def evict(self) -> None:  # noqa: B027  # as above
        """End other connections with our label, and with ours/..., that were left behind; where there are servers."""

    def following(self, table: Table) -> list[str]:  # noqa: ARG002  # of most databases, none
        """Return the tables whose rows change, or go, with those that are deleted from this one."""
        return []

    def rename(self, table: Table, new: Table) -> None:
        """Rename a table, within its schema."""
        self.run(f"ALTER TABLE {table.sql} RENAME TO {quoted(new.name)}")

    def move(self, table: Table, target: Table, columns: Sequence[Column]) -> None:
        """Copy all rows of a table into another that has these columns, too."""
        names = ", ".join(quoted(column.name) for column in columns)
        self.run(f"INSERT INTO {target.sql} ({names}) {self.overriding} SELECT {names} FROM {table.sql}")  # noqa: S608

    def query(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows that a statement gives."""
        return self.run(sql, values)[1]

    def value(self, number: int) -> str:
        """Return what stands for a value in `select`, whatever text of users there is around it; number: from 1."""
        return f"?{number}"

    def make_once(self, table: Table, make: Callable[[], None]) -> None:
        """Make a table that is missing, though others may want the same; alone, in a transaction of its own."""
        alone = not self.in_transaction
        if alone:
            self.begin()
        self.lock()
        if self.columns(table) is None:
            make()
        if alone:
            self.commit()

    def create(self, table: Table, types: Mapping[str, Any], key: Sequence[str]) -> None:
        """Make a table with these columns; key: its primary key, may be empty."""
        parts = [f"{quoted(name)} {self.type_of(dtype)}" for name, dtype in types.items()]
        if key:
            parts.append(f"PRIMARY KEY ({', '.join(map(quoted, key))})")
        self.run(f"CREATE TABLE {table.sql} ({', '.join(parts)}){self.suffix}")


def on_conflict(columns: Sequence[Column], key: Sequence[str]) -> str:
    """Return what puts new values over those of a row with the same key."""
    others = [quoted(column.name) for column in columns if column.name not in key]
    news = ", ".join(f"{name} = excluded.{name}" for name in others)
    return f"ON CONFLICT ({', '.join(map(quoted, key))}) DO " + (f"UPDATE SET {news}" if others else "NOTHING")
