r"""Frames as the text that `COPY ... FROM STDIN` of PostgreSQL reads, and as the values that SQLite takes.

The text format, https://www.postgresql.org/docs/current/sql-copy.html: fields between tabs, `\N` for null, and a
backslash before what would be taken for one of these. The server reads it faster than CSV.
"""

from __future__ import annotations

import io
import json
from typing import Any

import polars as pl

from batchkit.plain import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_TOGETHER = 2_500
"""Rows that are rendered at a time: the server reads some while the next are made."""

_BYTES_TOGETHER = 1 << 20

_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=plain).encode
_NULL = "\\N"
_TIME = "%Y-%m-%d %H:%M:%S%.6f"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}


def copy_text(frame: pl.DataFrame, arrays: Collection[str] = ()) -> Iterator[bytes]:
    """Yield rows as the text of COPY, some at a time. arrays: columns whose lists are arrays and not JSON."""
    height = max(1, min(_TOGETHER, _BYTES_TOGETHER * frame.height // max(1, bytes_of(frame))))
    first = max(1, height // 4)  # so that the server begins soon
    for piece in (frame.head(first), *frame.slice(first).iter_slices(height)):
        made = [(series.name, _copied(series, array=series.name in arrays)) for series in piece.get_columns()]
        columns = piece.with_columns([series.alias(name) for name, series in made if series is not None])
        text = _rendered(columns)
        if not _is_unmistakable(text, columns):
            text = _rendered(columns.with_columns(map(_escaped, columns.select(pl.col(pl.String)).get_columns())))
        yield text


def bytes_of(frame: pl.DataFrame) -> int:
    """Return how large a frame is; texts that rows share, which polars counts once, are counted for each."""
    texts = [series for series in frame.get_columns() if series.dtype == pl.String]
    others = frame.drop([series.name for series in texts])
    return int(others.estimated_size()) + sum(int(series.str.len_bytes().sum() or 0) for series in texts)


def _rendered(piece: pl.DataFrame) -> bytes:
    """Return columns of plain values as they are, between tabs."""
    buffer = io.BytesIO()
    form: dict[str, Any] = {"include_header": False, "separator": "\t", "null_value": _NULL, "quote_style": "never"}
    piece.write_csv(buffer, datetime_format=_TIME, **form)
    return buffer.getvalue()


def _is_unmistakable(text: bytes, piece: pl.DataFrame) -> bool:
    """Tell whether nothing in a text is to be escaped: it has the tabs, lines and nulls of the rows and no more.

    Counting bytes costs a fiftieth of looking through each column.
    """
    nulls = sum(series.null_count() for series in piece.get_columns())
    return (
        text.count(b"\t") == piece.height * (piece.width - 1)
        and text.count(b"\n") == piece.height
        and text.count(b"\\") == nulls
        and b"\r" not in text
    )


def _copied(series: pl.Series, *, array: bool) -> pl.Series | None:
    """Return a column as the texts or numbers of COPY, not yet escaped; `None`: as it is."""
    dtype = series.dtype
    if dtype in {pl.String, pl.Boolean} or dtype.is_numeric():
        return _arrays(series) if array else None
    if dtype == pl.Binary:
        return "\\x" + series.bin.encode("hex")
    if dtype.is_temporal():
        return _of_time(series)
    if array:
        return _arrays(series)
    return as_json(series) if dtype.is_nested() else series.cast(pl.String)


def _of_time(series: pl.Series) -> pl.Series | None:
    dtype = series.dtype
    if dtype == pl.Duration:
        return series.dt.total_microseconds().cast(pl.String) + " microseconds"
    if not isinstance(dtype, pl.Datetime) or dtype == pl.Datetime("us"):
        return None
    if dtype.time_zone is None:
        return series.cast(pl.String)
    return series.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(pl.String) + "+00"


def _arrays(series: pl.Series) -> pl.Series:
    """Return lists as arrays; those of dicts come as JSON. What is no list is left to the database."""
    values = series.to_list()
    if series.dtype == pl.String:
        return pl.Series([None if text is None else _array_of(text) for text in values], dtype=pl.String)
    if not series.dtype.is_nested():
        return series.cast(pl.String)
    return pl.Series(map(_array, values), dtype=pl.String)


def _array_of(text: str) -> str | None:
    """Return a list in JSON as an array, another text as it is: it may be an array as the database writes it."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _array(value) if isinstance(value, list) else text


def _escaped(series: pl.Series) -> pl.Series:
    return series.str.replace_many(_ESCAPES)


def _array(value: Any) -> str | None:
    """Return a list as PostgreSQL writes arrays."""
    if value is None:
        return None
    return "{" + ",".join(_element(each) for each in value) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple | pl.Series):
        return _array(value) or ""
    text = _json(value) if isinstance(value, dict) else str(value)
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def as_json(series: pl.Series) -> pl.Series:
    """Return nested values as JSON texts. Raises `ValueError` for what has no form in it, such as NaN."""
    texts = [None if value is None else _json(value) for value in series.to_list()]
    return pl.Series(series.name, texts, dtype=pl.String)


def bindable(frame: pl.DataFrame) -> Iterator[tuple[Any, ...]]:
    """Yield rows as values that SQLite takes: times and decimals as text, durations in microseconds, JSON."""
    return zip(*(_bindable(series).to_list() for series in frame.get_columns()), strict=True)


def _bindable(series: pl.Series) -> pl.Series:
    dtype = series.dtype
    if dtype == pl.Duration:
        return series.dt.total_microseconds()
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return series.dt.convert_time_zone("UTC").dt.replace_time_zone(None).cast(pl.String) + "+00:00"
    if dtype == pl.Time:
        return series.dt.to_string("iso")  # a cast would drop what is less than a second
    if dtype.is_nested():
        return as_json(series)
    plainly = dtype.is_integer() or dtype.is_float() or dtype in {pl.Boolean, pl.String, pl.Binary, pl.Null}
    return series if plainly else series.cast(pl.String)
