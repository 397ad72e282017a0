"""Texts read as values of a type that a schema gives: exactly, or not at all.

Numbers as Python writes them, `true` and `false`, dates and times of ISO 8601 (2026-11-23, 2026-11-23T06:00:00Z): what
is written in other ways means different things in different countries. An empty text, as CSV has them, is null.
"""

from __future__ import annotations

import datetime
import decimal
import math
import re
from typing import Any

import polars as pl

from batchkit.frames.columns import Mismatch, column

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_FINER = re.compile(r"[.,]\d{7,}")
"""A fraction of a second that is finer than a microsecond, which Python would cut off."""


def read(series: pl.Series, dtype: Any) -> pl.Series:
    """Return a column of texts as values, in a type that holds them. Raises `Mismatch` at the first that is none."""
    reader = _reader(series.name, dtype)
    values: list[Any] = []
    for index, text in enumerate(series):
        try:
            values.append(reader(text) if text else None)
        except (ValueError, decimal.InvalidOperation, OverflowError):
            raise Mismatch(series.name, index, f"{text!r:.60}", str(dtype)) from None
    return column(series.name, values)


def _reader(name: str, dtype: Any) -> Callable[[str], Any]:
    if dtype.is_integer():
        return _integer
    if dtype.is_float():
        return _float
    if isinstance(dtype, pl.Datetime):
        return _zoned if dtype.time_zone else _local
    known: dict[Any, Callable[[str], Any]] = {
        pl.Boolean: _boolean,
        pl.Date: datetime.date.fromisoformat,
        pl.Time: _time,
        pl.Decimal: lambda text: decimal.Decimal(_plain(text)),
    }
    if dtype.base_type() not in known:
        raise Mismatch(name, None, "String", str(dtype))
    return known[dtype.base_type()]


def _plain(text: str) -> str:
    """Return a number's text. Raises `ValueError` for what Python reads and people do not write: ` 1`, `1_000`."""
    if text != text.strip() or "_" in text:
        raise ValueError(text)
    return text


def _integer(text: str) -> int:
    return int(_plain(text))


def _float(text: str) -> float:
    value = float(_plain(text))
    if math.isinf(value) and "inf" not in text.lower():
        raise OverflowError(text)
    return value


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()] if text.lower() in {"true", "false"} else _no(text)


def _no(text: str) -> Any:
    raise ValueError(text)


def _datetime(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(_no(text) if _FINER.search(text) else text)


def _zoned(text: str) -> datetime.datetime:
    value = _datetime(text)
    return value if value.tzinfo is not None else _no(text)


def _local(text: str) -> datetime.datetime:
    value = _datetime(text)
    return value if value.tzinfo is None else _no(text)


def _time(text: str) -> datetime.time:
    return datetime.time.fromisoformat(_no(text) if _FINER.search(text) else text)
