"""Connections that are the user's own: what `transaction` does with them, whatever their settings are.

Told by the module of their type: no driver is loaded here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from typing import Any

from batchkit.databases.base import LOCK
from batchkit.databases.checkpoints import COLUMNS, NAME
from batchkit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_TRANSACTION = "SELECT txid_current()"

_IDLE, _GONE = 0, 4
"""States of libpq's connections: in no transaction; closed or lost, as the next statement says."""


class Borrowed(ABC):
    """A connection of the user's. The driver's errors pass as they are."""

    for_update = ""
    """What stands behind a query that waits for whoever is changing the rows, and holds them."""

    def __init__(self, connection: Any) -> None:
        """Borrow it."""
        self._connection = connection

    @abstractmethod
    def run(self, sql: str, values: Sequence[Any] = ()) -> tuple[int, list[tuple[Any, ...]]]:
        """Execute a statement; return how many rows it changed, -1: unknown, and the rows it gave."""

    @abstractmethod
    def idle(self) -> bool:
        """Tell whether no transaction is open."""

    @abstractmethod
    def begin(self) -> None:
        """Begin a transaction that will write."""

    @abstractmethod
    def whole(self) -> bool:
        """Tell whether the open transaction is the one that was begun here; once, at its end."""

    def commit(self) -> None:
        """Commit."""
        self.run("COMMIT")

    def sure(self) -> bool:
        """Tell whether nothing was committed for sure, after `commit` has raised something."""
        return not self.idle()

    def rollback(self) -> None:
        """Undo the open transaction, if there is one. A connection that is gone has none."""
        with suppress(Exception):  # drivers have errors of their own; what went wrong before is raised anyway
            if not self.idle():
                self.run("ROLLBACK")

    def make_table(self) -> None:
        """Make the table of checkpoints if it is missing; in a transaction of the caller."""
        self.run(f"CREATE TABLE IF NOT EXISTS {NAME} ({COLUMNS})")


class _Sqlite(Borrowed):
    def run(self, sql: str, values: Sequence[Any] = ()) -> tuple[int, list[tuple[Any, ...]]]:
        cursor = self._connection.cursor()
        cursor.row_factory = None
        try:
            cursor.execute(sql, values)
            return cursor.rowcount, cursor.fetchall()
        finally:
            cursor.close()

    def idle(self) -> bool:
        if getattr(self._connection, "autocommit", None) is False:
            raise UsageError(
                "transaction() cannot tell what a sqlite3 connection with autocommit=False has begun already; "
                "open it without that"
            )
        return not self._connection.in_transaction

    def begin(self) -> None:
        self.run("BEGIN IMMEDIATE")
        self.run("SAVEPOINT batchkit_transaction")  # gone with the transaction, whatever is begun after it

    def whole(self) -> bool:
        try:
            self.run("RELEASE batchkit_transaction")
        except Exception as error:
            if "no such savepoint" in str(error):
                return False
            raise
        return True


class _Psycopg(Borrowed):
    for_update = " FOR UPDATE"

    def run(self, sql: str, values: Sequence[Any] = ()) -> tuple[int, list[tuple[Any, ...]]]:
        with self._connection.cursor(row_factory=lambda _: tuple) as cursor:
            cursor.execute(sql.replace("?", "%s"), values or None)
            return cursor.rowcount, cursor.fetchall() if cursor.description else []

    def idle(self) -> bool:
        return self._connection.info.transaction_status in {_IDLE, _GONE}

    def begin(self) -> None:
        if self._connection.autocommit:
            self.run("BEGIN")
        self._begun = self.run(_TRANSACTION)

    def whole(self) -> bool:
        return self._connection.info.transaction_status != _IDLE and self.run(_TRANSACTION) == self._begun

    def commit(self) -> None:
        self._connection.commit()

    def sure(self) -> bool:
        return not (self._connection.closed or self._connection.broken)  # then the server has answered: it undid it

    def rollback(self) -> None:
        with suppress(Exception):
            self._connection.rollback()

    def make_table(self) -> None:
        if self.run("SELECT to_regclass(?)", [NAME])[1] == [(None,)]:
            self.run("SELECT pg_advisory_xact_lock(?)", [LOCK])
            super().make_table()


class _Duck(Borrowed):
    def run(self, sql: str, values: Sequence[Any] = ()) -> tuple[int, list[tuple[Any, ...]]]:
        result = self._connection.execute(sql, values or None)
        rows = result.fetchall()
        changed = rows[0][0] if sql.startswith("UPDATE") else -1
        return changed, rows

    def idle(self) -> bool:
        return self.run(_TRANSACTION) != self.run(_TRANSACTION)

    def begin(self) -> None:
        self.run("BEGIN")
        self._begun = self.run(_TRANSACTION)

    def whole(self) -> bool:
        return self.run(_TRANSACTION) == self._begun

    def sure(self) -> bool:
        return True  # it is in this process: what it says is how it is

    def rollback(self) -> None:
        with suppress(Exception):
            self.run("ROLLBACK")


_KINDS: dict[tuple[str, str], type[Borrowed]] = {
    ("sqlite3", "Connection"): _Sqlite,
    ("psycopg", "Connection"): _Psycopg,
    ("duckdb", "DuckDBPyConnection"): _Duck,
    ("_duckdb", "DuckDBPyConnection"): _Duck,
}


def borrowed(connection: object) -> Borrowed:
    """Return what works on a connection. Raises `UsageError` for what is none of those known."""
    for kind in type(connection).__mro__:
        found = _KINDS.get((kind.__module__.partition(".")[0], kind.__name__))
        if found is not None:
            return found(connection)
    raise UsageError(
        f"transaction() takes a connection of sqlite3, psycopg or duckdb, not a {type(connection).__module__}."
        f"{type(connection).__qualname__}"
    )
