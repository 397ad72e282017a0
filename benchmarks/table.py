"""Make or compare tables, in a process of its own: `table.py make FILE ROWS`, `table.py same FILE FILE`.

A child's peak memory, as the kernel counts it, begins with that of its parent, so the parent loads no polars.
"""

from __future__ import annotations

import sys

import polars as pl

GROUP = 100_000


def make(path: str, rows: int) -> None:
    """Write a table of an int, a str and a float column, the same every time, in row groups of 100,000 rows."""
    number = pl.int_range(rows, dtype=pl.Int64, eager=True).alias("id")
    frame = pl.select(
        number,
        (pl.lit("name-") + (number * 7919 % 1_000_003).cast(pl.String)).alias("name"),
        ((number * 104_729 % 99_991).cast(pl.Float64) / 7).alias("value"),
    )
    frame.write_parquet(path, row_group_size=GROUP)


def same(first: str, second: str) -> bool:
    """Compare two tables row by row, in order."""
    one, other = pl.scan_parquet(first), pl.scan_parquet(second)
    rows = one.select(pl.len()).collect().item()
    if rows != other.select(pl.len()).collect().item():
        return False
    step = 1_000_000
    return all(one.slice(at, step).collect().equals(other.slice(at, step).collect()) for at in range(0, rows, step))


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], int(sys.argv[3]))
    else:
        sys.exit(not same(sys.argv[2], sys.argv[3]))
