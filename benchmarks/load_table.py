"""What `load.py` runs beside batchkit, each in a process of its own.

`load_table.py make ROWS` writes load.parquet and load.csv, the same rows in both. `load_table.py polars DSN` and
`load_table.py duckdb csv|parquet` are the peers that are libraries. `load_table.py same KIND DSN|FILE` reads the table
`t` of a database back and ends with 1 unless it has the rows of load.parquet, each of them once.
"""

from __future__ import annotations

import io
import sqlite3
import sys
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Callable

GROUP = 100_000
TIMES = "%Y-%m-%d %H:%M:%S%.6f"
WORDS = ["north", "of the river", "late, but complete", "returned", "to be called", "paid in full", "Zürich", "no note"]


def frame_of(rows: int) -> pl.DataFrame:
    """Return rows of an int, two texts, a float, a bool and a timestamp, the same every time."""
    number = pl.int_range(rows, dtype=pl.Int64, eager=True).alias("id")
    words = pl.Series(WORDS)
    begin = pl.datetime(2020, 1, 1, time_unit="us")
    return pl.select(
        number,
        (pl.lit("customer-") + (number * 7919 % 1_000_003).cast(pl.String)).alias("name"),
        (words[number * 31 % len(WORDS)] + ", " + words[number // 7 % len(WORDS)]).alias("note"),
        ((number * 104_729 % 99_991).cast(pl.Float64) / 7).alias("value"),
        (number % 3 == 0).alias("flag"),
        (begin + (number * 61_000_123).cast(pl.Duration("us"))).alias("made"),
    )


def make(rows: int) -> None:
    """Write both files; in the CSV, which has no header, a bool is 1 or 0, which all three databases read."""
    frame = frame_of(rows)
    frame.write_parquet("load.parquet", row_group_size=GROUP)
    plain = frame.with_columns(pl.col("flag").cast(pl.Int8))
    plain.write_csv("load.csv", include_header=False, datetime_format=TIMES)


def write_database(dsn: str) -> None:
    """Let polars write the table, by ADBC."""
    frame = pl.read_parquet("load.parquet")
    frame.write_database("t", dsn, engine="adbc", if_table_exists="append")


def copy(kind: str) -> None:
    """Let DuckDB read the file itself."""
    import duckdb  # noqa: PLC0415  # each peer imports what it needs

    options = "HEADER false" if kind == "csv" else "FORMAT parquet"
    with duckdb.connect("load.duckdb") as connection:
        connection.execute(f"COPY t FROM 'load.{kind}' ({options})")


def from_postgres(dsn: str) -> pl.DataFrame:
    """Return the table of a server."""
    import psycopg  # noqa: PLC0415

    text = io.BytesIO()
    query = b"COPY (SELECT id, name, note, value, flag::int AS flag, made FROM t) TO STDOUT (FORMAT csv, HEADER)"
    with psycopg.connect(dsn) as connection, connection.cursor().copy(query) as rows:
        for part in rows:
            text.write(part)
    text.seek(0)
    return pl.read_csv(text, schema_overrides={"made": pl.String, "value": pl.Float64})


def from_sqlite(path: str) -> pl.DataFrame:
    """Return the table of a file of SQLite's."""
    rows = sqlite3.connect(path).execute("SELECT id, name, note, value, flag, made FROM t").fetchall()
    return pl.DataFrame(rows, schema=["id", "name", "note", "value", "flag", "made"], orient="row")


def from_duckdb(path: str) -> pl.DataFrame:
    """Return the table of a file of DuckDB's."""
    import duckdb  # noqa: PLC0415

    with duckdb.connect(path, read_only=True) as connection:
        return pl.DataFrame(connection.sql("SELECT id, name, note, value, flag, made FROM t"))


SOURCES: dict[str, Callable[[str], pl.DataFrame]] = {
    "postgres": from_postgres,
    "sqlite": from_sqlite,
    "duckdb": from_duckdb,
}


def same(kind: str, place: str) -> bool:
    """Compare all rows; in which order they were stored is nobody's promise."""
    found = SOURCES[kind](place).with_columns(pl.col("flag").cast(pl.Boolean)).sort("id")
    if found["made"].dtype == pl.String:
        found = found.with_columns(pl.col("made").str.to_datetime(time_unit="us"))
    return found.equals(pl.read_parquet("load.parquet"))


if __name__ == "__main__":
    what, *words = sys.argv[1:]
    if what == "make":
        make(int(words[0]))
    elif what == "polars":
        write_database(words[0])
    elif what == "duckdb":
        copy(words[0])
    else:
        sys.exit(not same(*words))
