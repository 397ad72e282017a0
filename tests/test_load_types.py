# ruff: noqa: DTZ001  # times without a zone are a type, too
"""Values of every type in tables of databases: what was stored is what was there."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import math
import struct
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

import batchkit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.tables import Tables

UTC = dt.UTC
BERLIN = "Europe/Berlin"


def zoned(*times: dt.datetime | None) -> pl.Series:
    """Return times of UTC in Berlin's."""
    return pl.Series(times, dtype=pl.Datetime("us")).dt.replace_time_zone("UTC").dt.convert_time_zone(BERLIN)


COLUMNS: dict[str, pl.Series] = {
    "truth": pl.Series([True, None, False]),
    "int8": pl.Series([-128, None, 127], dtype=pl.Int8),
    "uint8": pl.Series([0, None, 255], dtype=pl.UInt8),
    "int16": pl.Series([-(2**15), None, 2**15 - 1], dtype=pl.Int16),
    "uint16": pl.Series([0, None, 2**16 - 1], dtype=pl.UInt16),
    "int32": pl.Series([-(2**31), None, 2**31 - 1], dtype=pl.Int32),
    "uint32": pl.Series([0, None, 2**32 - 1], dtype=pl.UInt32),
    "int64": pl.Series([-(2**63), None, 2**63 - 1], dtype=pl.Int64),
    "float32": pl.Series([0.1, None, -math.inf], dtype=pl.Float32),
    "float64": pl.Series([1e308, 5e-324, math.inf, None, 0.1, -2.5e-7, 2.0**53 + 2]),
    "text": pl.Series(["a\tb\nc\rd\\e", "\\N", "\\.", "", None, "'q' \"Q\" `,;", "é🐎\u2028\x01\x7f", " "]),
    "binary": pl.Series([b"\x00\xff\\x00\n\t", None, b"", bytes(range(256))]),
    "date": pl.Series([dt.date(1, 1, 1), dt.date(9999, 12, 31), None, dt.date(1969, 12, 31), dt.date(2024, 2, 29)]),
    "time": pl.Series([dt.time(0), dt.time(23, 59, 59, 999_999), None, dt.time(12, 0, 0, 5)]),
    "datetime": pl.Series(
        [dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999_999), None, dt.datetime(1969, 12, 31, 23, 1)]
    ),
    "millis": pl.Series([1, None, -1], dtype=pl.Int64).cast(pl.Datetime("ms")),
    "nanos": pl.Series([1_000, None, -1_000], dtype=pl.Int64).cast(pl.Datetime("ns")),
    "zoned": zoned(
        dt.datetime(2026, 10, 25, 0, 30), dt.datetime(2026, 10, 25, 1, 30), None, dt.datetime(1900, 1, 1, 0, 0, 0, 7)
    ),
    "duration": pl.Series(
        [dt.timedelta(days=-1, microseconds=1), None, dt.timedelta(0), dt.timedelta(days=9_999, seconds=1)]
    ),
    "decimal": pl.Series(
        [decimal.Decimal("123456789012345678901234567890.12"), None, decimal.Decimal("-0.01")], dtype=pl.Decimal(38, 2)
    ),
    "numbers": pl.Series([[1, None], [], None, [2**40]]),
    "texts": pl.Series([['a,"\\{}\n', None, ""], [], None, ["NULL"]]),
    "lists": pl.Series([[[1.5], []], [], None]),
    "struct": pl.Series([{"a": 1, "b": None}, {"a": None, "b": ["x"]}, None]),
    "fixed": pl.Series([[1, 2], None, [3, 4]], dtype=pl.Array(pl.Int32, 2)),
    "nothing": pl.Series([None, None], dtype=pl.Null),
    "category": pl.Series(["x", None, "\t"], dtype=pl.Categorical),
    "choice": pl.Series(["x", None, "y"], dtype=pl.Enum(["x", "y"])),
}


def stored(series: pl.Series, kind: str) -> list[Any]:
    """Return what a database gives back of a column; SQLite has five types, and the others are texts or numbers."""
    values = series.to_list()
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is not None:
        values = [value and value.astimezone(UTC) for value in values]
    if kind != "sqlite":
        return values
    if series.dtype.is_nested():
        return [value if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    if series.dtype == pl.Duration:
        return [value if value is None else value // dt.timedelta(microseconds=1) for value in values]
    return [str(value) if isinstance(value, decimal.Decimal | dt.date | dt.time) else value for value in values]


def as_python(value: Any, kind: str, name: str) -> Any:
    """Return what a query gave, without what is only the driver's form of it."""
    if name == "zoned" and value is not None:
        return value.astimezone(UTC) if kind == "postgres" else dt.datetime.fromisoformat(str(value)).astimezone(UTC)
    if name == "float32" and value is not None:
        return struct.unpack("f", struct.pack("f", value))[0]  # PostgreSQL's driver reads 0.1 as a float of 64 bits
    if name in {"datetime", "millis", "nanos", "date", "time"} and kind == "sqlite" and value is not None:
        return type_of(name).fromisoformat(value)
    return value


def type_of(name: str) -> Any:
    """Return Python's type for a column of SQLite's texts."""
    return {"date": dt.date, "time": dt.time}.get(name, dt.datetime)


@pytest.mark.parametrize("name", COLUMNS)
def test_every_type_comes_back_as_it_was(tables: Tables, workdir: Path, name: str) -> None:
    """From a Parquet file into a table that is made for it, on the edges of each type."""
    series = COLUMNS[name]
    frame = pl.DataFrame({"n": range(len(series)), "v": series})
    frame.write_parquet(workdir / "all.parquet")
    batchkit.process(workdir / "all.parquet", output=tables.url(table="kept"), batch_size=3, progress="none")
    text = name == "zoned" and tables.kind == "duckdb"  # its driver gives zoned times with a package more only
    what = "CAST(timezone('UTC', v) AS text) || '+00:00'" if text else "v"
    found = [value for (value,) in tables.rows(f"SELECT {what} FROM kept ORDER BY n")]  # noqa: S608
    wanted = stored(series, tables.kind)
    if name in {"date", "time", "datetime", "millis", "nanos", "zoned"}:
        wanted = stored(series, "any")
    assert [as_python(value, tables.kind, name) for value in found] == wanted


def put(tables: Tables, values: Sequence[Any], job: str, dtype: str) -> list[Any]:
    """Store values as rows of dicts into a table that is there, and return what comes back."""
    tables.run("DROP TABLE IF EXISTS kept")
    tables.run(f"CREATE TABLE kept (n bigint, v {dtype})")
    rows = [{"n": number, "v": value} for number, value in enumerate(values)]
    batchkit.process(rows, output=tables.url(table="kept"), progress="none", job=job)
    return [value for (value,) in tables.rows("SELECT v FROM kept ORDER BY n")]


_jobs = iter(range(1_000_000))
EXAMPLES = [pytest.param(10, marks=pytest.mark.slow, id="sample"), pytest.param(100, marks=pytest.mark.soak, id="many")]


def come_back(values: st.SearchStrategy[Any], examples: int, check: Callable[[Any], None]) -> None:
    """Check so many examples of values, the same in each run."""

    @settings(max_examples=examples, deadline=None, derandomize=True)
    @given(values)
    def every(values: Any) -> None:
        check(values)

    every()


_texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=20)
_tricky = st.lists(st.sampled_from(["\\", "N", ".", "\t", "\n", "\r", '"', "'", ",", "{", "}", "\x1a", "é", ""])).map(
    "".join
)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_text_comes_back(tables: Tables, examples: int) -> None:
    """Tabs, line ends, backslashes, what COPY would take for the end or for null, and the empty text beside null."""

    def check(values: list[Any]) -> None:
        assert put(tables, values, f"texts{next(_jobs)}", "text") == values

    come_back(st.lists(st.none() | _texts | _tricky, min_size=1, max_size=30), examples, check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_integer_comes_back(tables: Tables, examples: int) -> None:
    """Up to 64 bits."""

    def check(values: list[Any]) -> None:
        assert put(tables, values, f"integers{next(_jobs)}", "bigint") == values

    come_back(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=30), examples, check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_float_comes_back(tables: Tables, examples: int) -> None:
    """To the last bit."""

    def check(values: list[Any]) -> None:
        assert put(tables, values, f"floats{next(_jobs)}", "double precision") == values

    come_back(st.lists(st.none() | st.floats(allow_nan=False), min_size=1, max_size=30), examples, check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_bytes_come_back(tables: Tables, examples: int) -> None:
    """Zero bytes too."""

    def check(values: list[Any]) -> None:
        kind = "bytea" if tables.kind == "postgres" else "blob"
        assert put(tables, values, f"bytes{next(_jobs)}", kind) == values

    come_back(st.lists(st.none() | st.binary(max_size=30), min_size=1, max_size=30), examples, check)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_any_list_of_texts_comes_back_as_an_array(tables: Tables, examples: int) -> None:
    """Of DuckDB and PostgreSQL; SQLite, which has no arrays, gets JSON."""

    def check(values: list[Any]) -> None:
        found = put(tables, values, f"lists{next(_jobs)}", "text" if tables.kind == "sqlite" else "text[]")
        assert ([json.loads(text) for text in found] if tables.kind == "sqlite" else found) == values

    come_back(st.lists(st.lists(st.none() | _tricky | _texts, max_size=4), min_size=1, max_size=10), examples, check)


def test_what_is_no_number_is_kept_where_there_is_a_place_for_it(tables: Tables) -> None:
    """SQLite has none, and makes it null, as it does for everybody."""
    [first, second] = put(tables, [math.nan, -0.0], "nan", "double precision")
    assert first is None if tables.kind == "sqlite" else math.isnan(first)
    assert second == 0.0


def test_integers_beyond_64_bits_are_kept_where_a_column_has_a_place_for_them(tables: Tables) -> None:
    """A text of digits is what SQLite keeps of them."""
    values = [1, 2**63, 2**64 - 1, 10**30, -(10**30)]
    wanted = {"sqlite": "text", "duckdb": "decimal(38,0)", "postgres": "numeric"}[tables.kind]
    assert [int(value) for value in put(tables, values, "large", wanted)] == values


@pytest.mark.everywhere
def test_dicts_and_lists_are_json(tables: Tables) -> None:
    """Of whatever shape: each row may have another."""
    values = [{"a": [1, {"b": None}]}, {"ü": "x\n"}, [1, "2", None], {}, None]
    kind = {"sqlite": "text", "duckdb": "json", "postgres": "jsonb"}[tables.kind]
    found = put(tables, values, "nested", kind)
    assert [json.loads(value) if isinstance(value, str) else value for value in found] == values


def test_values_of_several_types_in_a_column_become_what_the_column_is(tables: Tables) -> None:
    """The database reads them, as it would read them in a statement."""
    assert put(tables, [1, "2", decimal.Decimal(3)], "mixed", "bigint") == [1, 2, 3]
    assert put(tables, ["a", 1, 2.5, True], "mixed-texts", "text") == ["a", "1", "2.5", "true"]


def test_a_column_of_which_only_nulls_are_known_takes_texts(tables: Tables) -> None:
    """The first batch decides about a table that is made."""
    rows = [{"n": 1, "v": None}, {"n": 2, "v": "x"}]
    batchkit.process(rows, output=tables.url(table="kept"), batch_size=1, progress="none")
    assert tables.rows("SELECT v FROM kept ORDER BY n") == [(None,), ("x",)]
