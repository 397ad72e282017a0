"""SQLite: Python's own driver, one prepared statement for many rows.

A table that is made here is STRICT where SQLite has that (3.37), so that a value of another type is refused.
"""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any
from urllib.parse import quote

from batchkit.databases.address import quoted
from batchkit.databases.base import Column, Refused, Session, on_conflict
from batchkit.errors import StorageError
from batchkit.frames.copying import bindable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from batchkit.databases.address import Place, Table
    from batchkit.frames.loose import Loose

_PATIENCE = 60.0
"""Seconds to wait for another connection that is writing."""

_TOGETHER = 50
"""Rows that one execution of a statement inserts: two thirds of the time that they take one by one."""

_OF_ROWS = ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG", "SQLITE_RANGE")


class SqliteSession(Session):
    """A connection to a file."""

    suffix = " STRICT" if sqlite3.sqlite_version_info >= (3, 37) else ""

    def __init__(self, place: Place, *, reading: bool = False) -> None:
        """Connect; reading: to a file that is there, to change nothing. Raises `StorageError`."""
        self._path = str(place.path)
        # Not mode=ro: that cannot open a WAL database without its -shm, nor undo what a crash has left half done.
        name = f"file:{quote(self._path)}?mode={'rw' if reading else 'rwc'}"
        with self.talking():
            self._connection = sqlite3.connect(
                name, timeout=_PATIENCE, isolation_level=None, uri=True, check_same_thread=False
            )
        self._begin_due = False
        self._thread: ThreadPoolExecutor | None = None
        self._committing: Future[object] | None = None
        if reading:
            self.run("PRAGMA query_only = ON")

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.DataError, OverflowError, sqlite3.InterfaceError) as error:
            raise Refused(str(error)) from error
        except sqlite3.Error as error:
            name = getattr(error, "sqlite_errorname", "")
            if name.startswith(_OF_ROWS):
                raise Refused(str(error)) from error
            raise StorageError(f"the database '{self._path}' says: {error}; mend that and run it again") from error

    def run(self, sql: str, values: Sequence[Any] = ()) -> tuple[int, list[tuple[Any, ...]]]:
        """Execute a statement."""
        self._ready()
        with self.talking():
            cursor = self._connection.execute(sql, values)
            rows = cursor.fetchall()
            return cursor.rowcount, rows

    def select(self, sql: str, values: Sequence[Any] = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Query; all rows are fetched, so that no lock is left."""
        self._ready()
        with self.talking():
            cursor = self._connection.execute(sql, values)
            return [column[0] for column in cursor.description or ()], cursor.fetchall()

    def begin(self) -> None:
        """Begin a transaction that nobody else writes beside, with the first statement in it."""
        self._begin_due = self.in_transaction = True

    def _ready(self) -> None:
        """Wait for the last commit, and begin the transaction that is due."""
        self.settle()
        if self._begin_due:
            with self.talking():
                self._connection.execute("BEGIN IMMEDIATE")
            self._begin_due = False

    def commit_later(self) -> None:
        """Commit in a thread: the disk is waited for while the next rows are made ready."""
        self.in_transaction = False
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "batchkit-commit")
        self._committing = self._thread.submit(self._connection.execute, "COMMIT")

    def settle(self) -> None:
        """Wait for the last commit. What it was refused for is no fault of the rows that come behind it."""
        committing, self._committing = self._committing, None
        if committing is None:
            return
        try:
            with self.talking():
                committing.result()
        except Refused as error:
            raise StorageError(f"the database refuses to commit: {error}; mend that and run it again") from error

    def rollback(self) -> None:
        """Undo the transaction, unless SQLite has done that itself."""
        self._begin_due = False
        self.settle()
        if self._connection.in_transaction:
            self.run("ROLLBACK")
        self.in_transaction = False

    def columns(self, table: Table) -> list[Column] | None:
        """Return the columns of a table."""
        schema = "" if table.schema is None else f"{quoted(table.schema)}."
        rows = self.query(f"PRAGMA {schema}table_xinfo({quoted(table.name)})")
        return [Column(row[1], row[2], given=row[6] > 1) for row in rows if row[6] != 1] or None

    def type_of(self, dtype: Any) -> str:
        """Return one of the five types of STRICT tables."""
        if dtype == "json":
            return "TEXT"
        if dtype.is_integer() or str(dtype) == "Boolean" or str(dtype).startswith("Duration"):
            return "INTEGER"
        return "REAL" if dtype.is_float() else "BLOB" if str(dtype) == "Binary" else "TEXT"

    def insert(self, table: Table, rows: Loose, columns: Sequence[Column]) -> None:
        """Insert with one prepared statement."""
        self._many(table, rows, columns, "")

    def upsert(self, table: Table, rows: Loose, columns: Sequence[Column], key: Sequence[str]) -> None:
        """Do the same, row after row over what is there."""
        self._many(table, rows, columns, on_conflict(columns, key))

    def _many(self, table: Table, rows: Loose, columns: Sequence[Column], conflict: str) -> None:
        """Insert so many rows by each execution, and those that are left over one by one."""
        frame = rows.frame.select([column.name for column in columns])
        known = self._connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        together = max(1, min(_TOGETHER, known // len(columns)))
        whole = frame.height // together * together
        values = chain.from_iterable(bindable(frame.head(whole)))
        groups = zip(*[values] * (together * len(columns)), strict=True)
        left = bindable(frame.slice(whole))
        self._ready()
        with self.talking():
            self._connection.executemany(f"{_insert(table, columns, together)} {conflict}", groups)
            self._connection.executemany(f"{_insert(table, columns, 1)} {conflict}", left)

    def like(self, new: Table, old: Table) -> None:
        """Create it by the statement that made the other one, and its indexes by theirs."""
        schema = "" if old.schema is None else f"{quoted(old.schema)}."
        found = self.query(
            f"SELECT type, sql FROM {schema}sqlite_schema WHERE tbl_name = ? COLLATE NOCASE AND sql IS NOT NULL "  # noqa: S608  # quoted
            "AND type = 'table'",
            [old.name],
        )
        if not found:
            raise StorageError(f"'{old}' is no table; give one, or another name")
        statement = found[0][1]
        body = statement[statement.index("(") :] if "(" in statement else ""
        self.run(f"CREATE TABLE {new.sql} {body}")
        for number, (columns,) in enumerate(self._unique_indexes(old)):
            name = quoted(f"{new.name}_{number}")
            self.run(f"CREATE UNIQUE INDEX {schema}{name} ON {quoted(new.name)} ({columns})")

    def _unique_indexes(self, table: Table) -> list[tuple[str]]:
        schema = "" if table.schema is None else f"{quoted(table.schema)}."
        found = self.query(f"PRAGMA {schema}index_list({quoted(table.name)})")
        made = []
        for row in found:
            if row[2] and row[3] == "c" and not row[4]:  # unique, by CREATE INDEX, whole
                names = self.query(f"PRAGMA {schema}index_info({quoted(row[1])})")
                if all(name[2] is not None for name in names):
                    made.append((", ".join(quoted(name[2]) for name in names),))
        return made

    def close(self) -> None:
        """Close the connection."""
        if self._thread is not None:
            self._thread.shutdown()
        with suppress(sqlite3.Error):
            self._connection.close()


def _insert(table: Table, columns: Sequence[Column], rows: int) -> str:
    names = ", ".join(quoted(column.name) for column in columns)
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table.sql} ({names}) VALUES {', '.join([row] * rows)}"  # noqa: S608  # quoted
