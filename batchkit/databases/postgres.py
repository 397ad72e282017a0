"""PostgreSQL, by psycopg: COPY."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from typing import Any

from batchkit.databases.address import Table, quoted
from batchkit.databases.base import LOCK, Column, Conflict, ConnectionLost, Refused, Session, on_conflict
from batchkit.errors import StorageError, UsageError
from batchkit.frames.copying import copy_text

try:
    import psycopg
    from psycopg import errors
except ModuleNotFoundError as error:
    raise UsageError("PostgreSQL needs psycopg; run: pip install 'batchkit[postgres]'") from error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchkit.databases.address import Place
    from batchkit.frames.loose import Loose

_OF_ROWS = ("22", "23", "42804", "44", "P0001", "42846", "54")
"""SQLSTATEs of what is wrong with a row: data exceptions, constraints, types, views' checks, triggers, sizes."""

_OF_OTHERS = ("40001", "40P01", "55P03")
"""SQLSTATEs of what another transaction is the cause of: serialization, deadlock, lock not available."""

_OF_LOST = ("08", "57P01", "57P02", "57P03", "57P05", "25P03")
"""SQLSTATEs with which a server ends a connection; the driver may not have seen yet that it is closed."""

_PATIENCE = "30s"
"""How long another transaction is waited for before it counts as left behind."""

_MANY = 50_000
"""Rows sent by a connection from which on numpy is loaded for more: as text these take as long as that."""

_EVICT = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE (application_name = ? OR starts_with(application_name, ?))
    AND pid <> pg_backend_pid() AND usename = current_user
"""

_KINDS = {
    "Boolean": "boolean",
    "Int8": "smallint",
    "Int16": "smallint",
    "Int32": "integer",
    "Int64": "bigint",
    "UInt8": "smallint",
    "UInt16": "integer",
    "UInt32": "bigint",
    "UInt64": "numeric(20,0)",
    "Float32": "real",
    "Float64": "double precision",
    "Binary": "bytea",
    "Date": "date",
    "Time": "time",
}

_COLUMNS = """
    SELECT attname, format_type(atttypid, atttypmod), typcategory = 'A', attgenerated <> ''
    FROM pg_attribute JOIN pg_type ON pg_type.oid = atttypid
    WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""

_DEFERRED = "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(?) AND condeferrable)"

_IS_VIEW = "SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass(?) AND relkind = 'v')"

_FOLLOWING = """
    SELECT DISTINCT conrelid::regclass::text FROM pg_constraint
    WHERE confrelid = to_regclass(?) AND contype = 'f' AND confdeltype IN ('c', 'n', 'd')
"""

_COUNTERS = """
    SELECT attname, pg_get_serial_sequence(?, attname) FROM pg_attribute
    WHERE attrelid = to_regclass(?) AND attidentity <> ''
"""

_AT_LINE = re.compile(r"^COPY .*, line (\d+)", re.MULTILINE)


class PostgresSession(Session):
    """A connection to a server."""

    overriding = "OVERRIDING SYSTEM VALUE"
    for_update = " FOR UPDATE"

    def __init__(self, place: Place, label: str, *, reading: bool = False) -> None:
        """Connect; reading: every transaction is read-only.

        Raises `ConnectionLost` where there is no server, `StorageError` where it does not let us in.
        """
        self._shown = place.shown
        self._label = label
        self._advice = "" if reading else ", or give --retries to wait for it"
        self._secret = place.server.get("password")
        given: dict[str, Any] = {"application_name": label, **place.server}
        with self.talking():
            self._connection = psycopg.connect(**given, autocommit=True)
        self.run(f"SET lock_timeout = '{_PATIENCE}'")
        if reading:
            self.run("SET default_transaction_read_only = on")
        self._deferred: dict[str, bool] = {}
        self._views: dict[str, bool] = {}
        self._sent = 0

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except psycopg.Error as error:
            raise self._told(error) from error

    def _told(self, error: psycopg.Error) -> Exception:
        state = error.sqlstate or ""
        text = _text_of(error)
        if self._secret:
            text = text.replace(self._secret, "***")
        if state.startswith(_OF_ROWS):
            line = _AT_LINE.search(error.diag.context or "")
            return Refused(text, int(line[1]) - 1 if line else None)
        if state.startswith(_OF_OTHERS):
            return Conflict(f"the database '{self._shown}' says: {text}; run it again")
        if self._is_lost(error):
            never = not hasattr(self, "_connection")
            what = f"cannot connect to '{self._shown}'" if never else f"the connection to '{self._shown}' was lost"
            kept = "" if never else "everything committed is kept, "
            return ConnectionLost(f"{what}: {text}; {kept}run it again to go on{self._advice}")
        return StorageError(f"the database '{self._shown}' says: {text}; mend that and run it again")

    def _is_lost(self, error: psycopg.Error) -> bool:
        connection = getattr(self, "_connection", None)
        if connection is None:  # a wrong password stays wrong; psycopg gives no state for it
            said = str(error)
            return isinstance(error, errors.CannotConnectNow) or not (
                "authentication failed" in said or "no password supplied" in said or "does not exist" in said
            )
        return bool(connection.closed or connection.broken) or (error.sqlstate or "").startswith(_OF_LOST)

    def run(self, sql: str, values: Sequence[Any] = ()) -> tuple[int, list[tuple[Any, ...]]]:
        """Execute a statement."""
        with self.talking():
            text = sql.replace("%", "%%").replace("?", "%s") if values else sql
            cursor = self._connection.execute(text.encode(), values or None)
            return cursor.rowcount, cursor.fetchall() if cursor.description else []

    def value(self, number: int) -> str:
        """Return the server's own form: psycopg's would take every % of a query for one."""
        return f"${number}"

    def select(self, sql: str, values: Sequence[Any] = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Query."""
        with self.talking():
            cursor = psycopg.RawCursor(self._connection).execute(sql.encode(), values)
            return [column.name for column in cursor.description or ()], cursor.fetchall()

    def lock(self) -> None:
        """Take an advisory lock."""
        self.run("SELECT pg_advisory_xact_lock(?)", [LOCK])

    def evict(self) -> None:
        """Let the server end what others have left open; who is about a whole job means all of its shards."""
        self.run(_EVICT, [self._label, f"{self._label}/"])

    def columns(self, table: Table) -> list[Column] | None:
        """Return the columns of a table."""
        return [Column(*row) for row in self.query(_COLUMNS, [table.sql])] or None

    def type_of(self, dtype: Any) -> str:
        """Return the type that holds all values of a polars type."""
        name = str(dtype)
        if name == "json" or name.startswith(("List", "Struct", "Array")):
            return "jsonb"
        if name.startswith("Datetime"):
            return "timestamp" if dtype.time_zone is None else "timestamptz"
        if name.startswith("Duration"):
            return "interval"
        if name.startswith("Decimal"):
            return f"numeric({dtype.precision},{dtype.scale})"
        return _KINDS.get(name, "text")

    def insert(self, table: Table, rows: Loose, columns: Sequence[Column]) -> None:
        """Send the rows by COPY, which views do not take."""
        if table.sql not in self._views:
            self._views[table.sql] = bool(self.query(_IS_VIEW, [table.sql])[0][0])
        if self._views[table.sql]:
            aside, names = self._put_aside(table, rows, columns), ", ".join(quoted(column.name) for column in columns)
            self.run(f'INSERT INTO {table.sql} ({names}) SELECT {names} FROM {aside.sql} ORDER BY "batchkit order"')  # noqa: S608
            return
        frame = rows.frame.select([column.name for column in columns])
        names = ", ".join(quoted(column.name) for column in columns)
        packed = self._packed(frame, columns)
        form = "text" if packed is None else "binary"
        statement = f"COPY {table.sql} ({names}) FROM STDIN (FORMAT {form})".encode()
        with self.talking(), self._connection.cursor().copy(statement) as copy:
            for piece in packed or copy_text(frame, {column.name for column in columns if column.array}):
                copy.write(piece)
        self._check_deferred(table)

    def _packed(self, frame: Any, columns: Sequence[Column]) -> Iterator[bytes | bytearray] | None:
        """Return rows in the binary format of COPY; `None` where they have none, or are too few to load numpy for."""
        self._sent += frame.height
        if self._sent < _MANY:
            return None
        try:
            from batchkit.frames.packing import copy_binary  # noqa: PLC0415  # loads numpy
        except ModuleNotFoundError:
            return None
        return copy_binary(frame, [column.type for column in columns])

    def _check_deferred(self, table: Table) -> None:
        """Let constraints that wait for the end of the transaction be checked now: then it is known for what rows."""
        if table.sql not in self._deferred:
            self._deferred[table.sql] = bool(self.query(_DEFERRED, [table.sql])[0][0])
        if self._deferred[table.sql]:
            self.run("SET CONSTRAINTS ALL IMMEDIATE")
            self.run("SET CONSTRAINTS ALL DEFERRED")

    def upsert(self, table: Table, rows: Loose, columns: Sequence[Column], key: Sequence[str]) -> None:
        """Send the rows into a table of this connection's own, and from there over those with the same key.

        In order of the keys: so no two connections wait for each other.
        """
        aside = self._put_aside(table, rows, columns)
        names, keys = ", ".join(quoted(column.name) for column in columns), ", ".join(map(quoted, key))
        self.run(
            f"INSERT INTO {table.sql} ({names}) {self.overriding} SELECT DISTINCT ON ({keys}) {names} FROM {aside.sql} "  # noqa: S608
            f'ORDER BY {keys}, "batchkit order" DESC {on_conflict(columns, key)}'
        )
        self._check_deferred(table)

    def _put_aside(self, table: Table, rows: Loose, columns: Sequence[Column]) -> Table:
        """Send rows into a table of this connection's own, which is gone after the transaction; return it."""
        aside = Table("pg_temp", "batchkit_rows")
        names = ", ".join(quoted(column.name) for column in columns)
        self.run(f"DROP TABLE IF EXISTS {aside.sql}")
        self.run(
            f"CREATE TEMPORARY TABLE batchkit_rows ON COMMIT DROP AS SELECT {names} FROM {table.sql} LIMIT 0"  # noqa: S608
        )
        self.run('ALTER TABLE pg_temp.batchkit_rows ADD "batchkit order" bigint GENERATED ALWAYS AS IDENTITY')
        self.insert(aside, rows, columns)
        return aside

    def following(self, table: Table) -> list[str]:
        """Return the tables with a foreign key that says so."""
        return [str(row[0]) for row in self.query(_FOLLOWING, [table.sql])]

    def like(self, new: Table, old: Table) -> None:
        """Create it with everything of the other one, whose counters it shares."""
        self.run(f"CREATE TABLE {new.sql} (LIKE {old.sql} INCLUDING ALL EXCLUDING IDENTITY)")
        for name, counter in self.query(_COUNTERS, [old.sql, old.sql]):
            literal = counter.replace("'", "''")
            self.run(f"ALTER TABLE {new.sql} ALTER {quoted(name)} SET DEFAULT nextval('{literal}')")

    def close(self) -> None:
        """Close the connection."""
        with suppress(psycopg.Error):
            self._connection.close()


def _text_of(error: psycopg.Error) -> str:
    """Return what the server said, in one line, or what the driver did."""
    diagnosis = error.diag
    said = [diagnosis.message_primary, diagnosis.message_detail]
    return " ".join(" (".join(part for part in said if part).split()) + (")" if all(said) else "") or " ".join(
        str(error).split()
    )
