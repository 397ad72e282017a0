"""The table in which rows land: found, or made for the first of them; columns are found by their names."""

from __future__ import annotations

from typing import Any

from batchkit.databases.base import Refused
from batchkit.errors import StorageError
from batchkit.frames.loose import nulled, renamed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from batchkit.databases.address import Table
    from batchkit.databases.base import Column, Session
    from batchkit.frames.loose import Loose


class Landing:
    """A table, as one writer knows it.

    table: its name; like: another that it is made like, if that is there and it is not. key: columns that name a row,
    for rows that are put over others; () for rows that are added. schema: types of columns of a table that is made;
    `None`: those of the first rows.
    """

    def __init__(
        self, table: Table, *, like: Table | None, key: Sequence[str], schema: Mapping[str, Any] | None
    ) -> None:
        """Ask nobody yet."""
        self.table = table
        self._like = like
        self._key = key
        self._schema = schema or {}
        self._columns: list[Column] | None = None
        self._keyed = False  # whether the key is in the table's names

    def names(self, session: Session) -> list[str]:
        """Return the columns in which something can be stored, in order; none if there is no table yet."""
        if self._columns is None:
            self._columns = self._found(session)
        return [column.name for column in self._columns or () if not column.given]

    def ready(self, session: Session, rows: Loose) -> None:
        """See to it that there is a table, in a transaction of its own where none is open.

        Raises `Refused` for rows that no table can be made for, and `StorageError` where it has not the key's columns.
        """
        if self._columns is None:
            self._columns = self._found(session) or self._made(session, rows)
        if not self._keyed:
            self._key = key_of(self.table, self._columns or (), self._key)
            self._keyed = True

    def put(self, session: Session, rows: Loose) -> None:
        """Store rows, in the transaction that is open. Raises `Refused`."""
        fitted, columns = self._fitted(rows)
        if self._key:
            self._refuse_without_key(fitted.frame.columns, self._key)
            _refuse_null_keys(fitted, self._key)
            session.upsert(self.table, fitted, columns, self._key)
        else:
            session.insert(self.table, fitted, columns)

    def _found(self, session: Session) -> list[Column] | None:
        columns = session.columns(self.table)
        if columns is None and self._like is not None and session.columns(self._like) is not None:
            like = self._like
            session.make_once(self.table, lambda: session.like(self.table, like))
            columns = session.columns(self.table)
        return columns

    def _made(self, session: Session, rows: Loose) -> list[Column] | None:
        types = {**rows.types, **self._schema}
        folded = {name.lower(): name for name in types}
        key = [name if name in types else folded.get(name.lower(), name) for name in self._key]
        self._refuse_without_key(types, key)
        session.make_once(self.table, lambda: session.create(self.table, types, key))
        return session.columns(self.table)

    def _refuse_without_key(self, names: Collection[str], key: Sequence[str]) -> None:
        missing = [name for name in key if name not in names]
        if missing:
            raise Refused(f"it has no column '{missing[0]}', which is of the key", 0)

    def _fitted(self, rows: Loose) -> tuple[Loose, list[Column]]:
        """Return rows with the table's names for their columns, and these columns. Raises `Refused`."""
        known = {column.name: column for column in self._columns or ()}
        folded = {column.name.lower(): column for column in self._columns or ()}
        columns = []
        for name in rows.frame.columns:
            column = known.get(name) or folded.get(name.lower())
            if column is None or column.given:
                why = "has no column" if column is None else "computes its column"
                raise Refused(f"the table '{self.table}' {why} '{name}'; it has {', '.join(known)}", rows.first(name))
            columns.append(column)
        named = renamed(rows, [column.name for column in columns])
        return nulled(named, [column.name for column in columns if not column.textual]), columns


def _refuse_null_keys(rows: Loose, key: Sequence[str]) -> None:
    """Raise `Refused` for a row without a part of its key: databases would store it anew each time, or drop it."""
    for name in key:
        if rows.frame[name].null_count():
            raise Refused(f"its '{name}' is null, which is of the key", rows.frame[name].is_null().arg_max())


def key_of(table: Table, columns: Sequence[Column], key: Sequence[str]) -> list[str]:
    """Return the columns of a key by the names that the table has for them. Raises `StorageError` if it has not."""
    known = {column.name: column.name for column in columns}
    folded = {column.name.lower(): column.name for column in columns}
    for name in key:
        if name not in known and name.lower() not in folded:
            raise StorageError(
                f"the table '{table}' has no column '{name}', which is in the key; it has {', '.join(known)}"
            )
    return [known.get(name) or folded[name.lower()] for name in key]
