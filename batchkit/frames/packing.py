"""Frames as `COPY ... FROM STDIN (FORMAT binary)` of PostgreSQL reads them: half the server's work for text.

The format, https://www.postgresql.org/docs/current/sql-copy.html: of a row the number of its fields, of each field its
length, -1 for null, and its bytes, the most significant first. The server takes these for a value of the column's type
without another look, so only columns are packed whose values are those of the type.

polars joins the texts of rows, with fillers where anything else belongs, and numpy lays lengths and numbers over these:
the stretches between two texts, of many rows at a time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import polars as pl

from batchkit.frames.copying import bytes_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_TOGETHER = 10_000
"""Rows that are packed at a time: what each piece costs, whatever its size, is a tenth of these."""

_BYTES_TOGETHER = 4 << 20

_MOST = 1 << 30
"""Bytes of a frame from which on a length might not fit."""

_HEAD, _END = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"

_SMALL = (pl.Int8, pl.Int16, pl.UInt8)
_MEDIUM = (*_SMALL, pl.Int32, pl.UInt16)
_FORMS: dict[str, tuple[str, tuple[Any, ...]]] = {
    "boolean": ("u1", (pl.Boolean,)),
    "smallint": (">i2", _SMALL),
    "integer": (">i4", _MEDIUM),
    "bigint": (">i8", (*_MEDIUM, pl.Int64, pl.UInt32)),
    "real": (">f4", (pl.Float32,)),
    "double precision": (">f8", (pl.Float64,)),  # not Float32: its 0.1 is another number than that of the text
    "date": (">i4", (pl.Date,)),
    "timestamp without time zone": (">i8", (pl.Datetime("us"),)),
    "timestamp with time zone": (">i8", (pl.Datetime("us", "UTC"),)),
}
"""Types of columns → numpy's name of their bytes, and the polars types whose values they have."""

_LENGTH, _FIELDS = ">i4", ">i2"

_ZERO = np.datetime64("2000-01-01")
"""From where the server counts days, and microseconds."""

_YEARS = np.datetime64("0001-01-01"), np.datetime64("10000-01-01")
"""Some times beyond these mean infinity to the server."""


def copy_binary(frame: pl.DataFrame, types: Sequence[str]) -> Iterator[bytes | bytearray] | None:
    """Return rows in the binary format, some at a time; `None` if not all columns can be. types: of the columns."""
    columns = frame.get_columns()
    size = bytes_of(frame)
    if size >= _MOST or not all(map(_is_packable, columns, types)):
        return None
    height = max(1, min(_TOGETHER, _BYTES_TOGETHER * frame.height // max(1, size)))
    return _pieces(frame, types, height)


def _is_packable(series: pl.Series, kind: str) -> bool:
    dtype = series.dtype
    if dtype == pl.String:
        return _is_text(kind)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        dtype = pl.Datetime(dtype.time_unit, "UTC")  # in which the values are, whatever the zone
    if kind not in _FORMS or dtype not in _FORMS[kind][1]:
        return False
    return not dtype.is_temporal() or _is_of_our_time(series)


def _is_text(kind: str) -> bool:
    return kind == "text" or (kind.startswith("character varying") and not kind.endswith("[]"))


def _is_of_our_time(series: pl.Series) -> bool:
    values = (series.drop_nulls() if series.null_count() else series).to_numpy()
    first, last = _YEARS
    return not len(values) or bool(first <= values.min() and values.max() < last)


def _pieces(frame: pl.DataFrame, types: Sequence[str], height: int) -> Iterator[bytes | bytearray]:
    yield _HEAD
    for piece in frame.iter_slices(height):
        yield _packed(piece, types)
    yield _END


class _Stretch(NamedTuple):
    """Consecutive fields of a fixed width. at: where they are in each row; only: the rows that have them."""

    at: Any
    records: Any
    only: Any = slice(None)


def _packed(piece: pl.DataFrame, types: Sequence[str]) -> bytearray:
    """Return rows as fields."""
    lengths = piece.select(pl.col(pl.String).str.len_bytes().cast(pl.Int64).fill_null(-1))
    layout = _Layout(piece.height)
    layout.add(_FIELDS, piece.width)
    for series, kind in zip(piece.get_columns(), types, strict=True):
        if series.dtype == pl.String:
            layout.add_texts(series.name, lengths[series.name].to_numpy())
        elif series.null_count():
            layout.add_some(_FORMS[kind][0], series)
        else:
            form = np.dtype(_FORMS[kind][0])
            layout.add(_LENGTH, form.itemsize)
            layout.add(form, _numbers(series))
    layout.close()
    return layout.filled(piece)


def _numbers(series: pl.Series) -> Any:
    """Return values, none of them null, as the server counts them."""
    values = series.to_numpy()
    return (values - _ZERO).view(np.int64) if series.dtype.is_temporal() else values


class _Layout:
    """Where in each row everything is."""

    def __init__(self, height: int) -> None:
        """Begin with so many empty rows."""
        self._height = height
        self._ends: Any = np.zeros(height, np.int64)  # of what each row has so far, but for the fields
        self._fields: list[tuple[Any, Any]] = []  # of the stretch that is not closed
        self._stretches: list[_Stretch] = []
        self._fillers: list[pl.Expr] = []

    def add(self, form: Any, values: Any) -> None:
        """Add a field of a fixed width to every row; values: of all rows, or the same one for each."""
        self._fields.append((form, values))

    def add_texts(self, name: str, lengths: Any) -> None:
        """Add the texts of a column; lengths: of each, -1 for null."""
        self.add(_LENGTH, lengths)
        self.close()
        self._fillers.append(pl.col(name))
        self._ends = self._ends + np.maximum(lengths, 0)

    def add_some(self, form: str, series: pl.Series) -> None:
        """Add values that some rows have."""
        only, width = series.is_not_null().to_numpy(), np.dtype(form).itemsize
        self.add(_LENGTH, np.where(only, width, -1))
        self.close()
        self._stretches.append(_Stretch(self._ends, _numbers(series.drop_nulls()).astype(form), only))
        self._fillers.append(pl.when(pl.col(series.name).is_not_null()).then(pl.lit("\0" * width)))
        self._ends = self._ends + only * width

    def close(self) -> None:
        """End a stretch, behind which rows differ in length."""
        if not self._fields:
            return
        records = np.empty(self._height, [(str(number), form) for number, (form, _) in enumerate(self._fields)])
        for number, (_, values) in enumerate(self._fields):
            records[str(number)] = values
        self._fields = []
        self._stretches.append(_Stretch(self._ends, records))
        self._fillers.append(pl.lit("\0" * records.itemsize))
        self._ends = self._ends + records.itemsize

    def filled(self, piece: pl.DataFrame) -> bytearray:
        """Return the rows."""
        rows = piece.with_columns(pl.concat_str(self._fillers, ignore_nulls=True).alias("rows"))["rows"]
        filled = bytearray(rows.str.join("").cast(pl.Binary).item())
        starts = np.cumsum(self._ends) - self._ends
        for stretch in self._stretches:
            _lay(stretch.records, filled, (starts + stretch.at)[stretch.only])
        return filled


def _lay(records: Any, filled: bytearray, places: Any) -> None:
    """Put records over what is there, each at its place."""
    if not len(records):
        return
    width = records.itemsize
    everywhere = np.ndarray((len(filled) - width + 1,), f"V{width}", filled, strides=(1,))
    everywhere[places] = records.view(f"V{width}")
