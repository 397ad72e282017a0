"""DuckDB: Arrow, without a copy. Only one process at a time can have a file open."""

from __future__ import annotations

import random
import re
import time
from contextlib import contextmanager, suppress
from typing import Any

from batchkit.databases import holding
from batchkit.databases.address import quoted
from batchkit.databases.base import Column, Conflict, Refused, Session, on_conflict
from batchkit.errors import StorageError, UsageError
from batchkit.frames.loose import JSON

try:
    import duckdb
except ModuleNotFoundError as error:
    raise UsageError("DuckDB files need duckdb; run: pip install 'batchkit[duckdb]'") from error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchkit.databases.address import Place, Table
    from batchkit.frames.loose import Loose

_PATIENCE = 60.0
"""Seconds to wait for another process that has the file open."""

_KINDS = {
    "Boolean": "BOOLEAN",
    "Int8": "TINYINT",
    "Int16": "SMALLINT",
    "Int32": "INTEGER",
    "Int64": "BIGINT",
    "UInt8": "UTINYINT",
    "UInt16": "USMALLINT",
    "UInt32": "UINTEGER",
    "UInt64": "UBIGINT",
    "Float32": "REAL",
    "Float64": "DOUBLE",
    "Binary": "BLOB",
    "Date": "DATE",
    "Time": "TIME",
    "json": "JSON",
}

_COLUMNS = (
    "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = current_database() "
    "AND lower(table_name) = lower(?) AND lower(schema_name) = lower(coalesce(?, current_schema())) "
    "ORDER BY column_index"
)


class DuckSession(Session):
    """A connection to a file."""

    exclusive = True
    savepoints = False

    def __init__(self, place: Place, *, reading: bool = False) -> None:
        """Connect, waiting for others; reading: several processes may at once. Raises `StorageError`."""
        self._path = str(place.path)
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._connection = self._opened(reading=reading)
            except Conflict:
                if time.monotonic() >= until:
                    raise
                time.sleep(random.uniform(0.002, 0.02))  # noqa: S311  # so that nobody is always late
            else:
                return

    def _opened(self, *, reading: bool) -> duckdb.DuckDBPyConnection:
        self._holding = holding.take(self._path, shared=reading)
        if not self._holding:
            raise Conflict(f"another process has the database '{self._path}' open; run it again")
        try:
            return self._connection_to_file(reading=reading)
        except BaseException:
            self._give_back()
            raise

    def _connection_to_file(self, *, reading: bool) -> duckdb.DuckDBPyConnection:
        with self.talking():
            connection = self._connected(reading=reading)
        try:
            self._look_at(connection)
        except BaseException:
            connection.close()  # while others wait: an error holds what it came from, and closing writes to the file
            raise
        return connection

    def _look_at(self, connection: duckdb.DuckDBPyConnection) -> None:
        with self.talking():
            known = connection.execute("SELECT path FROM duckdb_databases() WHERE NOT internal").fetchall()
        if known == [(None,)]:  # it shows data files as views, in a database in memory
            raise StorageError(f"the file '{self._path}' is no DuckDB database; give another")

    def _connected(self, *, reading: bool) -> duckdb.DuckDBPyConnection:
        try:
            return duckdb.connect(self._path, read_only=reading)
        except duckdb.ConnectionException:  # this process has it open already, in the other way
            if not reading:
                raise
        return duckdb.connect(self._path)

    def _give_back(self) -> None:
        if self._holding:
            self._holding = False
            holding.give_back(self._path)

    @contextmanager
    def talking(self) -> Iterator[None]:
        """Turn the driver's errors into ours."""
        try:
            yield
        except (
            duckdb.DataError,
            duckdb.IntegrityError,
            duckdb.InvalidInputException,
            duckdb.NotSupportedError,
        ) as error:
            raise Refused(_text_of(error)) from error
        except duckdb.Error as error:
            text = _text_of(error)
            if isinstance(error, duckdb.TransactionException) or "lock on file" in text:
                raise Conflict(f"the database '{self._path}' says: {text}; run it again") from error
            raise StorageError(f"the database '{self._path}' says: {text}; mend that and run it again") from error

    def run(self, sql: str, values: Sequence[Any] = ()) -> tuple[int, list[tuple[Any, ...]]]:
        """Execute a statement; how many rows were changed is the row that such a statement gives."""
        with self.talking():
            rows = self._connection.execute(sql, list(values)).fetchall()
            changed = rows[0][0] if rows and len(rows[0]) == 1 and isinstance(rows[0][0], int) else -1
            return changed, rows

    def select(self, sql: str, values: Sequence[Any] = ()) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Query."""
        with self.talking():
            result = self._connection.execute(sql, list(values))
            return [column[0] for column in result.description or ()], result.fetchall()

    def columns(self, table: Table) -> list[Column] | None:
        """Return the columns of a table."""
        return [Column(*row) for row in self.query(_COLUMNS, [table.name, table.schema])] or None

    def type_of(self, dtype: Any) -> str:
        """Return the type that holds all values of a polars type."""
        name = str(dtype)
        if name.startswith(("List", "Array")):
            return f"{self.type_of(dtype.inner)}[]"
        if name.startswith("Struct"):
            return (
                "STRUCT(" + ", ".join(f"{quoted(each.name)} {self.type_of(each.dtype)}" for each in dtype.fields) + ")"
            )
        if name.startswith("Datetime"):
            local = "TIMESTAMP_NS" if dtype.time_unit == "ns" else "TIMESTAMP"
            return local if dtype.time_zone is None else "TIMESTAMPTZ"
        if name.startswith("Duration"):
            return "INTERVAL"
        if name.startswith("Decimal"):
            return f"DECIMAL({dtype.precision},{dtype.scale})"
        return _KINDS.get(name, "VARCHAR")

    def insert(self, table: Table, rows: Loose, columns: Sequence[Column]) -> None:
        """Insert from the frame itself."""
        names = ", ".join(quoted(column.name) for column in columns)
        self._from(rows, f"INSERT INTO {table.sql} ({names}) SELECT {_read(rows, columns)} FROM batchkit_rows")  # noqa: S608

    def upsert(self, table: Table, rows: Loose, columns: Sequence[Column], key: Sequence[str]) -> None:
        """Do the same over rows with the same key; of several with one key the last counts."""
        names, keys = ", ".join(quoted(column.name) for column in columns), ", ".join(map(quoted, key))
        numbered = rows._replace(frame=rows.frame.with_row_index("batchkit order"))
        self._from(
            numbered,
            f"INSERT INTO {table.sql} ({names}) SELECT {_read(rows, columns)} FROM batchkit_rows "  # noqa: S608
            f'QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY "batchkit order" DESC) = 1 '
            f"{on_conflict(columns, key)}",
        )

    def _from(self, rows: Loose, sql: str) -> None:
        with self.talking():
            self._connection.register("batchkit_rows", rows.frame)
            try:
                self._connection.execute(sql)
            finally:
                with suppress(duckdb.Error):
                    self._connection.unregister("batchkit_rows")

    def like(self, new: Table, old: Table) -> None:
        """Create it by the statement that made the other one."""
        found = self.query(
            "SELECT sql FROM duckdb_tables() WHERE database_name = current_database() AND lower(table_name) = lower(?) "
            "AND lower(schema_name) = lower(coalesce(?, current_schema()))",
            [old.name, old.schema],
        )
        if not found:
            raise StorageError(f"'{old}' is no table; give one, or another name")
        statement = str(found[0][0])
        self.run(f"CREATE TABLE {new.sql}{statement[statement.index('(') :]}")

    def close(self) -> None:
        """Close the connection."""
        with suppress(duckdb.Error):
            self._connection.close()
        self._give_back()


def _read(rows: Loose, columns: Sequence[Column]) -> str:
    """Return what is selected: JSON of ours is read as such, as what stands in a text is read by other rules."""
    names = {column.name: quoted(column.name) for column in columns}
    for column in columns:
        if rows.types.get(column.name) == JSON and column.type.endswith((")", "]")):
            names[column.name] = f"CAST(CAST({quoted(column.name)} AS JSON) AS {column.type})"
    return ", ".join(names.values())


def _text_of(error: Exception) -> str:
    """Return what the database said, in one line, without the statement of ours that it points into."""
    text = " ".join(re.sub(r"\n+LINE \d+:.*", "", str(error), flags=re.DOTALL).split())
    if "'pytz'" in text:  # with a traceback behind it
        return "a time with a zone cannot be read without pytz; run: pip install pytz"
    return text
