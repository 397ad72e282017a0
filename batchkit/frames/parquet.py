"""Parquet files: what is in them, blocks of rows from any place, and streams of frames into one file."""

from __future__ import annotations

from functools import partial
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from batchkit.frames.aside import aside

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence
    from typing import BinaryIO

MAGIC = b"PAR1"
"""The first bytes of every Parquet file, and the last (https://parquet.apache.org/docs/file-format/)."""

ERRORS = (OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What polars raises for files that it cannot read; it panics on some that are damaged."""

STRETCH = 64 << 20
"""Decoded bytes that one query covers: what is in memory of a huge row group, which a query takes as a whole."""

BLOCK = 4 << 20
"""Decoded bytes of a block."""

PROBE = 1000
"""Rows of the first block, which tells how wide the rows are."""

GROUP_ROWS = 100_000
GROUP_BYTES = 64 << 20
"""Row groups of a file that is written: at most so many rows, and about so many bytes."""


def line_of(error: BaseException) -> str:
    """Return the first line of what polars says."""
    return (str(error) or type(error).__name__).splitlines()[0]


def rows_of(path: str) -> int:
    """Return the number of rows, from the file's footer. Raises `OSError` or `polars.exceptions.PolarsError`."""
    return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())


def schema_of(path: str) -> dict[str, pl.DataType]:
    """Return the columns and their types, from the file's footer. Raises as `rows_of`."""
    return dict(pl.read_parquet_schema(path))


def blocks(frame: pl.LazyFrame, start: int, stop: int, batch_size: int) -> Generator[pl.DataFrame]:
    """Yield the rows `[start, stop)` in blocks of whole batches; the next blocks are read meanwhile.

    Row groups before `start` are skipped. In memory are a block or two and what polars reads ahead: row groups, but of
    no more rows than `STRETCH` bytes hold. Before a place that cannot be read, blocks get smaller, so that all rows up
    to there come first; then raises what polars raised.
    """
    width = None
    careful: int | None = None
    while start < stop:
        block = _whole(PROBE if width is None else BLOCK // width, batch_size)
        rows = careful or (block if width is None else _whole(STRETCH // width, block))
        begun, end = start, min(stop, start + rows)
        try:
            for part in streamed(frame.slice(start, end - start), min(block, rows)):
                if start == begun:  # once a query: looking through all texts of a block takes a millisecond
                    width = max(1, int(part.estimated_size()) // part.height)
                start += part.height
                yield part
        except ERRORS:
            left = (end - start) // 2  # by halves: a query may decode a whole row group, however few rows it gives
            careful = _whole(left, batch_size) if left >= batch_size else left
            if not careful:
                raise
        else:
            if start < end:
                break


def streamed(query: pl.LazyFrame, rows: int) -> Iterator[pl.DataFrame]:
    """Run a query as a stream and yield its result in blocks of so many rows, in order."""
    batches = query.collect_batches(chunk_size=rows, maintain_order=True)
    while (block := aside(partial(next, batches, None))) is not None:
        if block.height:
            yield block


def frames(path: str) -> Generator[pl.DataFrame]:
    """Yield all rows of a file, block by block."""
    return blocks(pl.scan_parquet(path, glob=False, hive_partitioning=False), 0, rows_of(path), 1)


def _whole(rows: int, unit: int) -> int:
    """Return about so many rows in whole units, at least one."""
    return max(1, rows // unit) * unit


def scan(path: str, columns: list[str] | None, constants: dict[str, pl.Series]) -> pl.LazyFrame:
    """Return the rows of a file with constant columns added, and of these only `columns`, in that order."""
    frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    frame = frame.with_columns([pl.lit(value).first().alias(name) for name, value in constants.items()])
    return frame if columns is None else frame.select(columns)


def group_rows(extents: Sequence[tuple[int, int]]) -> int:
    """Return the rows of a row group such that none holds much more than `GROUP_BYTES`; polars keeps one in memory.

    extents: bytes and rows of consecutive pieces of what is to be written.
    """
    rows = GROUP_ROWS
    while rows > 1 and _heaviest(extents, rows) > GROUP_BYTES:
        rows //= 2
    return rows


def _heaviest(extents: Sequence[tuple[int, int]], rows: int) -> int:
    """Return the bytes of the heaviest group of so many rows."""
    heaviest = held = weight = 0
    for size, height in extents:
        held += min(height, rows)
        weight += size if height <= rows else size * rows // height
        heaviest = max(heaviest, weight)
        if held >= rows:
            held = weight = 0
    return heaviest


def write(frames: Iterator[pl.DataFrame], schema: dict[str, pl.DataType], file: BinaryIO, group: int) -> None:
    """Write frames of a schema as one Parquet file, streaming. Raises what `frames` and `file` raise.

    group: rows of a row group. zstd at level 1: the size of the usual level 3 at two thirds of its time.
    """

    def source(
        with_columns: list[str] | None, predicate: Any, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        del predicate, n_rows, batch_size
        for frame in frames:
            yield frame if with_columns is None else frame.select(with_columns)

    if not schema:  # no result ever came: a file without columns
        pl.DataFrame().write_parquet(file)
        return
    lazy = register_io_source(source, schema=schema)
    options: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "row_group_size": group}
    aside(lambda: lazy.sink_parquet(file, maintain_order=True, **options))
