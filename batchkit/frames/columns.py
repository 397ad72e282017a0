"""Python values as columns, without losing any: what polars would drop or round silently is an error here.

(`pl.Series` of dicts keeps the fields of the first only, `[[1], [2.5]]` becomes `[[1], [2]]`, `[2, True]` `[2, 1]`.)
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import os
import uuid
from itertools import chain
from typing import Any

import polars as pl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_EXACT = 2**53
"""The largest whole number up to which all whole numbers are floats."""

_SMALL = 2**63

_LEFT_TO_POLARS = {
    bool, str, bytes, float, datetime.date, datetime.datetime, datetime.time, datetime.timedelta, decimal.Decimal,
}  # fmt: skip
"""Types whose values make a column when they stand alone in it."""

_CHECKED = (datetime.datetime, datetime.time, datetime.timedelta, decimal.Decimal)

_KNOWN = {*_LEFT_TO_POLARS, int, dict, list, tuple}


NO_COLUMN = ""
"""What is `wanted` in the place of what no column can hold."""


Frame = pl.DataFrame
"""A table, for those who say so without polars."""


class Mismatch(Exception):
    """A value that does not fit its column.

    column: its name, dotted for fields inside of it. index: of the row, `None`: of no single one.
    found, wanted: names of types, or `NO_COLUMN`.
    """

    def __init__(self, column: str, index: int | None, found: str, wanted: str) -> None:
        """Keep all four."""
        super().__init__(column, index, found, wanted)
        self.column, self.index, self.found, self.wanted = column, index, found, wanted


def column(name: str, values: Sequence[Any]) -> pl.Series:
    """Return a column of Python values, of the type that holds them all. Raises `Mismatch`."""
    try:
        dtype, values = _typed(name, values)
        return pl.Series(name, values, dtype=dtype, strict=True)
    except Mismatch as error:
        if error.index is None:
            error.index = _first_to_fail(name, values)
        raise


def frame_of_rows(rows: Sequence[dict[str, Any]], names: Iterable[str] | None = None) -> pl.DataFrame:
    """Return dicts as a frame; a missing key is null. names: the columns; `None`: all keys, as they come up."""
    if names is None:
        names = dict.fromkeys(chain.from_iterable(rows))
    return frame_of_columns([column(name, [row.get(name) for row in rows]) for name in names])


def frame_of_results(results: Sequence[Any]) -> pl.DataFrame:
    """Return results as a table: dicts as rows, with every column that any of them has; others in one, "result"."""
    if results and all(isinstance(each, dict) for each in results):
        return pl.DataFrame(list(results), infer_schema_length=None)
    return pl.DataFrame({"result": list(results)}, strict=False)


def frame_of_columns(columns: Iterable[pl.Series]) -> pl.DataFrame:
    """Return columns as a frame; a list of them would get other names for empty ones."""
    return pl.DataFrame({column.name: column for column in columns})


def _first_to_fail(name: str, values: Sequence[Any]) -> int | None:
    """Return the index of the first value that does not go with those before it."""
    low, high = 0, len(values)  # the first `low` go together, the first `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _typed(name, values[:middle])
        except Mismatch:
            high = middle
        else:
            low = middle
    return high - 1


def _typed(name: str, values: Sequence[Any]) -> tuple[pl.DataType | None, Sequence[Any]]:
    """Return the type of a column, `None` for the one that polars finds, and the values in plain Python types."""
    types = set(map(type, values))
    types.discard(type(None))
    if not types:
        return pl.Null(), values
    if not types <= _KNOWN:
        values = [value if value is None else _plain(name, value) for value in values]
        types = set(map(type, values)) - {type(None)}
    if types == {list, tuple}:
        types = {list}
    if types == {int, float}:
        if any(type(value) is int and abs(value) > _EXACT for value in values):
            raise Mismatch(name, None, "an integer beyond 2**53", "Float64")
        return pl.Float64(), values
    if len(types) > 1:
        first = next(type(value) for value in values if value is not None)
        other = next(type(value) for value in values if value is not None and type(value) is not first)
        raise Mismatch(name, None, _of_type(other), _of_type(first))
    return _typed_alike(name, types.pop(), values)


def _typed_alike(name: str, kind: type, values: Sequence[Any]) -> tuple[pl.DataType | None, Sequence[Any]]:
    if kind is int:
        return _integer(name, values), values
    if kind is dict:
        return _struct(name, values)
    if issubclass(kind, _CHECKED):
        return _of_time_or_decimal(name, kind, values)
    if kind in {list, tuple}:
        inner, plain = _typed(f"{name}[]", list(chain.from_iterable(value for value in values if value is not None)))
        dtype = pl.Series(plain, dtype=inner, strict=True).dtype
        items = iter(plain)
        return pl.List(dtype), [None if value is None else [next(items) for _ in value] for value in values]
    return None, values


def _integer(name: str, values: Sequence[Any]) -> pl.DataType:
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    if low >= -_SMALL and high < _SMALL:
        return pl.Int64()
    if low >= 0 and high < 2 * _SMALL:
        return pl.UInt64()
    raise Mismatch(name, None, f"an integer of {max(abs(low), high).bit_length()} bits", NO_COLUMN)


def _of_time_or_decimal(name: str, kind: type, values: Sequence[Any]) -> tuple[pl.DataType | None, Sequence[Any]]:
    """Refuse what polars would drop without a word (zones, microseconds), or panic about (NaN)."""
    known = [value for value in values if value is not None]
    if issubclass(kind, datetime.timedelta):
        return pl.Duration("us"), values
    if issubclass(kind, decimal.Decimal):
        for value in known:
            if not value.is_finite():
                raise Mismatch(name, None, f"the decimal {value}", NO_COLUMN)
    elif issubclass(kind, datetime.time):
        if any(value.tzinfo is not None for value in known):
            raise Mismatch(name, None, "a time with a zone", NO_COLUMN)
    elif len({value.tzinfo is None for value in known}) > 1:
        kinds = ["Datetime with a zone", "Datetime without one"]
        first = known[0].tzinfo is None
        raise Mismatch(name, None, kinds[not first], kinds[first])
    return None, values


def _struct(name: str, values: Sequence[Any]) -> tuple[pl.DataType, Sequence[Any]]:
    known = [value for value in values if value is not None]
    fields, columns = {}, []
    for key in dict.fromkeys(chain.from_iterable(known)):
        inner, plain = _typed(f"{name}.{key}", [value.get(key) for value in known])
        fields[str(key)] = pl.Series(plain, dtype=inner, strict=True).dtype
        columns.append(plain)
    rows = iter([dict(zip(fields, row, strict=True)) for row in zip(*columns, strict=True)] or [{}] * len(known))
    return pl.Struct(fields), [None if value is None else next(rows) for value in values]


def _plain(name: str, value: Any) -> Any:
    """Return a value of a type that columns know, for subclasses and for what has a plain form."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, uuid.UUID | os.PathLike):
        return str(value)
    if hasattr(value, "item") and hasattr(value, "dtype") and not hasattr(value, "__len__"):
        return _scalar(name, value)
    kinds: tuple[Any, ...] = (int, float, str, bytes, decimal.Decimal, dict, list, tuple)
    for kind in kinds:
        if isinstance(value, kind):
            return value if type(value) in _KNOWN else kind(value)
    if isinstance(value, datetime.date | datetime.time | datetime.timedelta):
        return value
    called = type(value).__name__
    raise Mismatch(name, None, f"{'an' if called[0] in 'aeiou' else 'a'} {called}", NO_COLUMN)


def _scalar(name: str, value: Any) -> Any:
    """Return a scalar of an array library; finer times than microseconds would become plain numbers."""
    if value.dtype.kind not in "Mm":
        return value.item()
    exact = value.astype(value.dtype.str[:2] + "8[us]")
    if exact != value and exact == exact:  # noqa: PLR0124  # "not a time" differs from itself
        raise Mismatch(name, None, f"{value}, finer than microseconds", NO_COLUMN)
    return exact.item()


def _of_type(kind: type) -> str:
    """Return the name of the column type that values of a Python type make."""
    names = {bool: "Boolean", int: "Int64", float: "Float64", str: "String", bytes: "Binary", dict: "Struct"}
    other = {datetime.date: "Date", datetime.datetime: "Datetime", list: "List", tuple: "List"}
    return names.get(kind) or other.get(kind) or kind.__name__.title()
