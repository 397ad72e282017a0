"""Results of polars queries, as streams."""

from __future__ import annotations

from typing import Any

import polars as pl

from batchkit.frames.parquet import streamed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

Query = pl.LazyFrame

_ROWS = 10_000
"""Rows of a block, about."""


def is_query(value: Any) -> bool:
    """Tell a query from other sources."""
    return isinstance(value, pl.LazyFrame)


def rows_from(query: Query, start: int, stop: int | None, batch_size: int) -> Iterator[pl.DataFrame]:
    """Run a query and yield its rows `[start, stop)` in blocks of whole batches."""
    block = max(1, _ROWS // batch_size) * batch_size
    return streamed(query.slice(start, None if stop is None else stop - start), block)


def row_and_next(query: Query, index: int) -> list[dict[str, Any]]:
    """Return a row of a query and the next one, as far as they are there."""
    return query.slice(index, 2).collect().to_dicts()
