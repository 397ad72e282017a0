# ruff: noqa: DTZ001  # times without a zone are a type, too
"""Rows that PostgreSQL gets in the binary format of COPY: the same values as by texts, the same refusals."""

from __future__ import annotations

import datetime as dt
import sys
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import batchkit
from batchkit.databases import postgres as driver
from batchkit.frames import packing
from batchkit.frames.packing import copy_binary
from tests.test_load_types import COLUMNS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.postgres import Database

COUNT = 60
PACKED: dict[str, list[str]] = {
    "truth": ["boolean"],
    "int8": ["smallint", "integer", "bigint"],
    "uint8": ["smallint", "integer", "bigint"],
    "int16": ["smallint", "integer", "bigint"],
    "uint16": ["integer", "bigint"],
    "int32": ["integer", "bigint"],
    "uint32": ["bigint"],
    "int64": ["bigint"],
    "float32": ["real"],
    "float64": ["double precision"],
    "text": ["text", "character varying", "character varying(30)"],
    "date": ["date"],
    "datetime": ["timestamp", "timestamp(0)"],
    "zoned": ["timestamptz"],
}
"""Columns of `COLUMNS` → types that they are packed for; (0) and `timestamp(0)` among them round as ever."""

_texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=20)
_times = st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31))


@pytest.fixture(params=["binary", "text"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Send all rows in one format, however few they are, some pieces at a time."""
    monkeypatch.setattr(driver, "_MANY", 0 if request.param == "binary" else sys.maxsize)
    monkeypatch.setattr(packing, "_TOGETHER", 7)
    return str(request.param)


def load(database: Database, source: Any, **options: Any) -> batchkit.Result:
    """Load into the table `kept`, in batches of 20."""
    given = {"output": database.url(table="kept"), "batch_size": 20, "progress": "none", "job": "load"}
    return batchkit.process(source, **{**given, **options})


def cycled(series: pl.Series, *, nulls: bool) -> pl.Series:
    """Return the values of a column again and again."""
    values = series if nulls else series.drop_nulls()
    return pl.concat([values] * COUNT).head(COUNT)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize("nulls", [False, True], ids=["full", "nulls"])
@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in PACKED.items() for kind in kinds])
def test_every_type_comes_as_it_does_by_texts(
    postgres: Database, workdir: Path, name: str, kind: str, nulls: bool
) -> None:
    """Beside others, with and without nulls, in pieces: the server is asked to compare."""
    series = cycled(COLUMNS[name], nulls=nulls)
    frame = pl.DataFrame({"n": range(COUNT), "v": series, "t": cycled(COLUMNS["text"], nulls=nulls), "w": series})
    frame.write_parquet(workdir / "all.parquet")
    postgres.run(f"CREATE TABLE kept (n bigint, v {kind}, t text, w {kind})")
    load(postgres, workdir / "all.parquet")
    postgres.run(f"CREATE TABLE wanted (n bigint, v {kind}, t text, w {kind})")
    with postgres.connect() as connection:
        rows = list(zip(*(column.to_list() for column in frame.get_columns()), strict=True))
        connection.cursor().executemany("INSERT INTO wanted VALUES (%s, %s, %s, %s)", rows)
    difference = "SELECT * FROM (TABLE kept EXCEPT ALL TABLE wanted) a UNION ALL (TABLE wanted EXCEPT ALL TABLE kept)"
    assert postgres.rows(difference) == []


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in PACKED.items() for kind in kinds])
def test_what_has_the_values_of_a_type_is_packed(name: str, kind: str) -> None:
    """By the names that the server has for types."""
    names = {"timestamp": "timestamp without time zone", "timestamptz": "timestamp with time zone"}
    packed = copy_binary(pl.DataFrame({"v": COLUMNS[name]}), [names.get(kind, kind)])
    assert (packed is None) == (kind == "timestamp(0)")


@pytest.mark.parametrize(
    ("series", "kind"),
    [
        (COLUMNS["int64"], "integer"),
        (COLUMNS["uint32"], "integer"),
        (COLUMNS["uint8"], "boolean"),
        (COLUMNS["float32"], "double precision"),
        (COLUMNS["float64"], "real"),
        (COLUMNS["text"], "jsonb"),
        (COLUMNS["text"], "bigint"),
        (COLUMNS["text"], "text[]"),
        (COLUMNS["text"], "character varying(9)[]"),
        (COLUMNS["int64"], "text"),
        (COLUMNS["millis"], "timestamp without time zone"),
        (COLUMNS["nanos"], "timestamp without time zone"),
        (COLUMNS["zoned"], "timestamp without time zone"),
        (COLUMNS["datetime"], "timestamp with time zone"),
        (COLUMNS["decimal"], "numeric(38,2)"),
        (pl.Series([2**63 - 1], dtype=pl.Int64).cast(pl.Datetime("us")), "timestamp without time zone"),
        (pl.Series([-(2**63) + 1], dtype=pl.Int64).cast(pl.Datetime("us")), "timestamp without time zone"),
        (pl.Series([-(2**31)], dtype=pl.Int32).cast(pl.Date), "date"),
        (pl.Series([2**31 - 1], dtype=pl.Int32).cast(pl.Date), "date"),
    ],
    ids=lambda given: given if isinstance(given, str) else given.dtype,
)
def test_what_the_server_would_take_for_something_else_goes_as_text(series: pl.Series, kind: str) -> None:
    """Numbers of another width, times of another unit or far away: it reads the text, or says why not."""
    assert copy_binary(pl.DataFrame({"n": [0] * len(series), "v": series}), ["bigint", kind]) is None


@pytest.mark.usefixtures("form", "workdir")
def test_a_row_that_the_server_refuses_is_the_failure_of_its_item(postgres: Database) -> None:
    """A null, a check, a length, a text with a zero byte: each is found, and all others are stored."""
    postgres.run("CREATE TABLE kept (n bigint CHECK (n <> 13), t character varying(5) NOT NULL, f double precision)")
    texts: list[str | None] = ["fine"] * COUNT
    texts[4], texts[25], texts[59] = None, "too long", "a\0b"
    frame = pl.DataFrame({"n": range(COUNT), "t": texts, "f": [None, 0.1] * (COUNT // 2)})
    result = load(postgres, frame.lazy(), on_error="skip")
    assert (result.done, result.failed) == (COUNT - 4, 4)
    assert [failure.item["n"] for failure in batchkit.Job("load").failures()] == [4, 13, 25, 59]
    stored = postgres.rows("SELECT n, f FROM kept ORDER BY n")
    assert stored == [(n, [None, 0.1][n % 2]) for n in range(COUNT) if n not in {4, 13, 25, 59}]


@pytest.mark.parametrize("mode", ["append", "upsert", "replace"])
@pytest.mark.usefixtures("form")
def test_every_mode_takes_them(postgres: Database, workdir: Path, mode: str) -> None:
    """Those that put rows aside first, too, and the one that makes the table."""
    frame = pl.DataFrame({"n": range(COUNT), "t": [f"n{n}" for n in range(COUNT)]})
    frame.write_parquet(workdir / "all.parquet")
    if mode == "upsert":
        postgres.run("CREATE TABLE kept (n bigint PRIMARY KEY, t text)")
        postgres.run("INSERT INTO kept VALUES (7, 'old')")
    key = {"key": "n"} if mode == "upsert" else {}
    load(postgres, workdir / "all.parquet", output=postgres.url(table="kept", mode=mode, **key))
    assert postgres.rows("SELECT * FROM kept ORDER BY n") == frame.rows()


@pytest.mark.usefixtures("workdir")
def test_numpy_is_loaded_for_many_rows_only_and_may_be_missing(
    postgres: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then texts do."""
    forms: list[Any] = []

    def spy(*args: Any) -> Any:
        forms.append(copy_binary(*args))
        return forms[-1]

    monkeypatch.setattr(packing, "copy_binary", spy)
    rows = [{"n": n, "t": None if n % 2 else "even"} for n in range(COUNT)]
    monkeypatch.setattr(driver, "_MANY", COUNT - 20)
    load(postgres, rows)
    assert len(forms) == 2
    assert None not in forms
    monkeypatch.setitem(sys.modules, "batchkit.frames.packing", None)
    load(postgres, rows, job="other")
    assert len(forms) == 2
    assert postgres.rows("SELECT n, t FROM kept ORDER BY n") == sorted(
        (row["n"], row["t"]) for row in rows for _ in range(2)
    )


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(
    rows=st.lists(
        st.tuples(
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | _texts,
            st.none() | st.floats(allow_nan=False),
            st.none() | _texts,
            st.none() | st.booleans(),
            st.none() | _times,
        ),
        min_size=1,
        max_size=30,
    )
)
@pytest.mark.usefixtures("workdir")
def test_any_row_comes_back(postgres: Database, monkeypatch: pytest.MonkeyPatch, rows: list[tuple[Any, ...]]) -> None:
    """Whatever lengths and nulls there are beside each other."""
    monkeypatch.setattr(packing, "_TOGETHER", 7)
    kinds: dict[str, Any] = {
        "a": pl.Int64,
        "b": pl.String,
        "c": pl.Float64,
        "d": pl.String,
        "e": pl.Boolean,
        "f": pl.Datetime("us"),
    }
    types = ["bigint", "text", "double precision", "text", "boolean", "timestamp without time zone"]
    packed = copy_binary(pl.DataFrame(rows, schema=kinds, orient="row"), types)
    assert packed is not None
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(kinds, types, strict=True))
    with postgres.connect() as connection:
        connection.execute("DROP TABLE IF EXISTS kept")
        connection.execute(f"CREATE TABLE kept ({columns})".encode())
        with connection.cursor().copy("COPY kept FROM STDIN (FORMAT binary)") as copy:
            for piece in packed:
                copy.write(piece)
        assert connection.execute("SELECT * FROM kept").fetchall() == rows
