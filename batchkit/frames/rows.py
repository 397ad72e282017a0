"""Rows of a table as items and as results: a sequence of dicts that is still a frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import polars as pl

from batchkit.errors import UsageError
from batchkit.frames.columns import Mismatch, frame_of_rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_CHUNKS = 2000

Table = pl.DataFrame
"""Several rows of columns, in memory."""


class Block:
    """Rows that were read in one piece, of which batches are slices.

    As Arrow they are kept, too, once that is asked for: converting each batch would cost a hundred microseconds.
    """

    __slots__ = ("_arrow", "frame", "height")

    def __init__(self, frame: pl.DataFrame) -> None:
        """Keep the frame."""
        self.frame = frame
        self.height = frame.height
        self._arrow: Any = None

    @property
    def arrow(self) -> Any:
        """The rows as a pyarrow.Table. Raises `UsageError` where pyarrow is missing."""
        if self._arrow is None:
            try:
                self._arrow = self.frame.to_arrow()
            except ModuleNotFoundError as error:
                raise UsageError("batch_format='arrow' needs pyarrow; run: pip install 'batchkit[arrow]'") from error
        return self._arrow


class Rows(Sequence[Any]):
    """Consecutive rows of a block: a sequence of dicts; slicing copies nothing.

    Dicts are made from whole columns: a fifth of what `DataFrame.to_dicts` costs.
    """

    __slots__ = ("_at", "_block", "_height", "frame")

    def __init__(self, block: Block, at: int, height: int) -> None:
        """Take so many rows of the block from `at` on."""
        self._block, self._at, self._height = block, at, height
        self.frame = block.frame.slice(at, height)

    @property
    def arrow(self) -> Any:
        """The rows as a pyarrow.Table, a slice of the block's. Raises `UsageError` where pyarrow is missing."""
        return self._block.arrow.slice(self._at, self._height)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle these rows, and not the whole block."""
        return whole, (self.frame,)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._height

    def __getitem__(self, index: Any) -> Any:
        """Return a row as a dict, or a slice as `Rows`."""
        if isinstance(index, slice):
            start, stop, step = index.indices(self._height)
            if step == 1:
                return Rows(self._block, self._at + start, max(0, stop - start))
            return whole(self.frame[index])
        return self.frame.row(index, named=True)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows as dicts."""
        names = self.frame.columns
        if not names:
            return repeat({}, self.frame.height)
        columns = [column.to_list() for column in self.frame.get_columns()]
        return (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def shaped(items: Sequence[Any], batch_format: str | None) -> Any:
    """Return a batch of items as a batched function wants them: "polars", "arrow" or "dicts" (a list of the items).

    None: as the items come, rows of a table as a polars.DataFrame. Raises `UsageError` if they are no rows.
    """
    if batch_format == "arrow" and isinstance(items, Rows):
        return items.arrow
    frame = getattr(items, "frame", None)
    if frame is None:
        if not all(isinstance(item, dict) for item in items):
            raise UsageError(f"batch_format={batch_format!r} needs rows, and the items are no dicts; leave it out")
        try:
            frame = frame_of_rows(list(items))
        except Mismatch as error:
            raise UsageError(
                f"the items are no table: '{error.column}' is {error.found} and {error.wanted}; give batch_format=dicts"
            ) from error
    return Block(frame).arrow if batch_format == "arrow" else frame


def whole(frame: pl.DataFrame) -> Rows:
    """Return all rows of a frame."""
    return Rows(Block(frame), 0, frame.height)


def frame_of_strings(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> pl.DataFrame:
    """Return rows of strings as a frame."""
    if not rows:
        return pl.DataFrame(schema=dict.fromkeys(columns, pl.String))
    values = zip(*rows, strict=True)
    return pl.DataFrame({name: pl.Series(each, dtype=pl.String) for name, each in zip(columns, values, strict=True)})


def frame_of_schema(schema: Mapping[str, Any]) -> pl.DataFrame:
    """Return a frame of columns without rows."""
    return pl.DataFrame(schema=schema)


def constants(values: list[Any]) -> pl.Series:
    """Return values as a column, of the type that holds them all."""
    return pl.Series(values)


def type_of(column: pl.Series) -> str:
    """Return the name of a column's type."""
    return str(column.dtype)


def is_table(value: Any) -> bool:
    """Tell a table from other values; a single column is none."""
    return isinstance(value, pl.LazyFrame) or (hasattr(value, "__arrow_c_stream__") and hasattr(value, "columns"))


def table_of(value: Any) -> Table:
    """Return as a frame what a function returned as a table: polars, or anything that exports Arrow streams."""
    if isinstance(value, pl.LazyFrame):
        return value.collect()
    return value if isinstance(value, pl.DataFrame) else pl.DataFrame(value)


def joined(tables: Sequence[Table]) -> Table | None:
    """Return tables as one, `None` for none; nulls take the type that values have in another."""
    return pl.concat(tables, how="vertical_relaxed") if tables else None


def gathered(tables: Iterable[Table], rows: int, size: int) -> Iterator[Table]:
    """Yield the tables, of one schema, in fewer pieces: of at least `rows` rows or `size` bytes, but the last."""
    held: list[Table] = []
    height = weight = 0
    for table in tables:
        held.append(table)
        height += table.height
        weight += int(table.estimated_size())
        if height >= rows or weight >= size:
            yield _in_one(held)
            held, height, weight = [], 0, 0
    if held:
        yield _in_one(held)


def _in_one(tables: Sequence[Table]) -> Table:
    """Return tables of one schema as one; of very many, of a row or two each, chunks would cost more than a copy."""
    return pl.concat(tables, rechunk=len(tables) > _CHUNKS)
