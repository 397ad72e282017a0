"""Results as rows for a database, which decides itself what fits: nothing is refused here that it might take.

Columns of plain values are columns of a frame. Where the values of one do not go together, all of them become text,
as the database would read it; its type is that of the first ones. Nested values become JSON.
"""

from __future__ import annotations

import datetime
import json
from typing import Any, NamedTuple

import polars as pl

from batchkit.frames.columns import Mismatch, column, frame_of_columns
from batchkit.plain import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

JSON = "json"
"""The type of a column of nested values."""

_NESTED = (dict, list, tuple)
_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=plain).encode


class Loose(NamedTuple):
    """Rows on their way into a database.

    frame: their columns. types: what types these would have in a table made for them: polars types, or `JSON`.
    """

    frame: pl.DataFrame
    types: Mapping[str, Any]

    def first(self, name: str) -> int | None:
        """Return the index of the first row that has something in a column; `None` if none has."""
        return self.frame[name].is_not_null().arg_max() if self.frame[name].count() else None


def of_table(frame: pl.DataFrame) -> Loose:
    """Return the rows of a frame."""
    return Loose(frame, dict(frame.schema))


def of_rows(rows: Sequence[Mapping[str, Any]]) -> Loose:
    """Return dicts as rows; a missing key is null. Raises `Mismatch` for what has no text either."""
    names = dict.fromkeys(str(name) for row in rows for name in row)
    columns, types = [], {}
    for name in names:
        values = [row.get(name) for row in rows]
        try:
            made, types[name] = _column(name, values)
        except UnicodeEncodeError as error:
            raise Mismatch(name, _first_half(values), "text with half of a surrogate pair", "") from error
        columns.append(made)
    return Loose(frame_of_columns(columns), types)


def _column(name: str, values: list[Any]) -> tuple[pl.Series, Any]:
    """Return a column, and the type that it would have in a table made for it."""
    if any(isinstance(value, _NESTED) for value in values):
        texts = [
            value if value is None else _text(name, index, value, nested=True) for index, value in enumerate(values)
        ]
        return pl.Series(name, texts, dtype=pl.String), JSON
    try:
        made = column(name, values)
    except Mismatch as error:
        texts = [value if value is None else _text(name, index, value) for index, value in enumerate(values)]
        first = column(name, values[: error.index])
        known = first.dtype if error.index and first.dtype != pl.Null else pl.String()
        return pl.Series(name, texts, dtype=pl.String), known
    return made, made.dtype


def _first_half(values: Sequence[Any]) -> int | None:
    """Return the index of the first value with text that UTF-8 has no form for."""
    for index, value in enumerate(values):
        try:
            str(_json(value) if isinstance(value, _NESTED) else value).encode()
        except UnicodeEncodeError:
            return index
    return None


def _text(name: str, index: int, value: Any, *, nested: bool = False) -> str:
    try:
        if nested:
            return _json(value)
        if isinstance(value, bytes):
            return "\\x" + value.hex()
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, str | int | float):
            return str(value)
        if isinstance(value, datetime.datetime):
            return value.isoformat(" ")
        return str(plain(value))
    except (TypeError, ValueError) as error:
        raise Mismatch(name, index, str(error), "") from error


def nulled(rows: Loose, names: Sequence[str]) -> Loose:
    """Return rows with null for empty texts in these columns."""
    frame = rows.frame
    columns = [frame[name] for name in names if frame.schema[name] == pl.String and (frame[name] == "").any()]
    if not columns:
        return rows
    return rows._replace(frame=frame.with_columns(column.replace("", None) for column in columns))


def renamed(rows: Loose, names: Sequence[str]) -> Loose:
    """Return rows with other names for their columns."""
    if list(names) == rows.frame.columns:
        return rows
    new = dict(zip(rows.frame.columns, names, strict=True))
    types = {new.get(name, name): dtype for name, dtype in rows.types.items()}
    return Loose(rows.frame.rename(new), types)
