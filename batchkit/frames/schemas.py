"""The schema of an output: given in advance, or found as results come; and tables made to fit it."""

from __future__ import annotations

import datetime
import decimal
import re
from typing import Any

import polars as pl

from batchkit.errors import UsageError
from batchkit.frames.columns import Mismatch
from batchkit.frames.reading import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

Schema = dict[str, pl.DataType]

_NAMES: dict[str, Any] = {
    "bool": pl.Boolean,
    "str": pl.String,
    "int": pl.Int64,
    "float": pl.Float64,
    "bytes": pl.Binary,
    "date": pl.Date,
    "time": pl.Time,
    "datetime": pl.Datetime("us"),
    "duration": pl.Duration("us"),
    **{f"{kind}{bits}": getattr(pl, f"{title}{bits}") for kind, title in (("int", "Int"), ("uint", "UInt"))
       for bits in (8, 16, 32, 64)},
    "float32": pl.Float32,
    "float64": pl.Float64,
}  # fmt: skip
_TYPES = {datetime.date: pl.Date, datetime.timedelta: pl.Duration("us"), decimal.Decimal: pl.Decimal(38, 9)}


def parse(schema: Mapping[str, Any] | str) -> Schema:
    """Return a schema given as a mapping (polars types, Python types, names) or as text, "id=int, tags=list[str]".

    Names: bool, str, int, float, bytes, date, time, datetime, datetime[UTC], duration, decimal(PRECISION,SCALE),
    int8 to uint64, float32, list[...]. Raises `UsageError`.
    """
    if isinstance(schema, str):
        pairs = [pair.partition("=") for pair in re.split(r",(?![^(]*\))", schema)]
        if any(not name.strip() or not kind.strip() for name, _, kind in pairs):
            raise UsageError(f"the schema is {schema!r}; give column=type pairs, such as 'id=int, price=float'")
        schema = {name.strip(): kind.strip() for name, _, kind in pairs}
    try:
        return {name: _dtype(kind) for name, kind in schema.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"the schema {schema!r} cannot be used: {error}") from error


def _dtype(kind: Any) -> pl.DataType:
    if not isinstance(kind, str):
        kind = _TYPES.get(kind, kind) if isinstance(kind, type) else kind
        return (
            pl.Schema({"": kind})[""] if isinstance(kind, pl.DataType) else pl.DataFrame(schema={"": kind}).schema[""]
        )
    text = kind.strip().lower()
    if text.startswith("list[") and text.endswith("]"):
        return pl.List(_dtype(kind.strip()[5:-1]))
    if match := re.fullmatch(r"decimal\((\d+),\s*(\d+)\)", text):
        return pl.Decimal(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"datetime\[(.+)\]", kind.strip(), re.IGNORECASE):
        return pl.Datetime("us", match[1])
    if text not in _NAMES:
        raise ValueError(f"{kind!r} is no type; there are {', '.join(_NAMES)}, datetime[UTC], decimal(10,2), list[int]")
    return pl.DataFrame(schema={"": _NAMES[text]}).schema[""]


def names(schema: Schema) -> dict[str, str]:
    """Return a schema as JSON: column → name of its type."""
    return {name: str(dtype) for name, dtype in schema.items()}


def unify(column: str, known: Any, found: Any) -> Any:
    """Return the type that holds what two batches have in a column. Raises `Mismatch`.

    Nulls go with everything; fields that structs lack are null; decimals keep the greater scale if it is the known one.
    """
    if found in (known, pl.Null):
        return known
    if known == pl.Null:
        return found
    if isinstance(known, pl.List) and isinstance(found, pl.List):
        return pl.List(unify(f"{column}[]", known.inner, found.inner))
    if isinstance(known, pl.Struct) and isinstance(found, pl.Struct):
        fields = {field.name: field.dtype for field in known.fields}
        for field in found.fields:
            if field.name not in fields:
                raise Mismatch(f"{column}.{field.name}", None, str(field.dtype), "not there")
            fields[field.name] = unify(f"{column}.{field.name}", fields[field.name], field.dtype)
        return pl.Struct(fields)
    if isinstance(known, pl.Decimal) and isinstance(found, pl.Decimal) and found.scale <= known.scale:
        return known
    raise Mismatch(column, None, str(found), str(known))


def fit(series: pl.Series, dtype: Any, *, exact: bool) -> pl.Series:
    """Return a column in the type of an output, exactly that. Raises `Mismatch`.

    exact: whether the type may be another only where the output's holds nulls; else values are converted as far as
    none of them changes (whole numbers to floats), and text is read.
    """
    found = series.dtype
    if found == dtype:
        return series
    try:
        unified = unify(series.name, dtype, found)
    except Mismatch:
        if exact:
            raise
        return _converted(series, dtype)
    return _cast(series, unified)


def _converted(series: pl.Series, dtype: Any) -> pl.Series:
    """Return a column converted without loss."""
    found = series.dtype
    if found == pl.String:
        return fit(read(series, dtype), dtype, exact=False)
    if found.is_numeric() and dtype.is_numeric():
        return _without_loss(series, dtype)
    if isinstance(found, pl.Datetime) and isinstance(dtype, pl.Datetime):
        if (found.time_zone is None) == (dtype.time_zone is None):
            return _without_loss(series, dtype)
    elif isinstance(found, pl.Duration) and isinstance(dtype, pl.Duration):
        return _without_loss(series, dtype)
    elif isinstance(found, pl.List) and isinstance(dtype, pl.List):
        flat = fit(
            series.explode(empty_as_null=False, keep_nulls=False).rename(f"{series.name}[]"), dtype.inner, exact=False
        )
        values = iter(flat)
        rows = [None if row is None else [next(values) for _ in row] for row in series.to_list()]
        return pl.Series(series.name, rows, dtype=dtype, strict=True)
    raise Mismatch(series.name, None, str(found), str(dtype))


def _without_loss(series: pl.Series, dtype: Any) -> pl.Series:
    """Cast, and see that nothing is lost by casting back. Raises `Mismatch` at the first value that does not come back.

    A float may become a shorter one, which is rounded as floats are, but not infinite.
    """
    converted = series.cast(dtype, strict=False)
    if series.dtype.is_float() and dtype.is_float():
        lost = converted.is_infinite() & ~series.is_infinite()
    else:
        lost = converted.cast(series.dtype, strict=False).ne_missing(series)
    if lost.any():
        index = lost.arg_max() or 0
        raise Mismatch(series.name, index, f"{series[index]!r:.60}", str(dtype))
    return converted


def _cast(series: pl.Series, dtype: Any) -> pl.Series:
    """Cast to a type that holds everything; structs, of which polars casts only equal ones, by way of dicts."""
    if series.dtype != dtype and _holds_struct(dtype):
        return pl.Series(series.name, series.to_list(), dtype=dtype, strict=True)
    return series.cast(dtype, strict=True)


def without_place(dtype: Any) -> str | None:
    """Return what a type has in it that Parquet files or Arrow frames have no place for; `None` if there is nothing."""
    if isinstance(dtype, pl.Struct):
        found = (without_place(field.dtype) for field in dtype.fields)
        return next((what for what in found if what), None) if dtype.fields else "an empty dict"
    if isinstance(dtype, pl.Array) and not dtype.size:
        return "an array of no values"
    if isinstance(dtype, pl.List | pl.Array):
        return without_place(dtype.inner)
    return "a Python object" if dtype == pl.Object else None


def _holds_struct(dtype: Any) -> bool:
    return isinstance(dtype, pl.Struct) or (isinstance(dtype, pl.List) and _holds_struct(dtype.inner))
