"""The rows of a batch: dicts for who takes them one by one, a frame for who takes them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class Records(Sequence[Any]):
    """Rows of strings that become dicts when they are looked at.

    columns: the names. values: a row's strings in the order of `columns`; `None` for a row that could not be read,
    which is `None` as an item, too.
    """

    __slots__ = ("columns", "values")

    def __init__(self, columns: Sequence[str], values: Sequence[Sequence[str] | None]) -> None:
        """Keep them."""
        self.columns = columns
        self.values = values

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    @overload
    def __getitem__(self, index: int) -> dict[str, str] | None: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> dict[str, str] | Records | None:
        """Return a row as a dict, or some rows as `Records`."""
        if isinstance(index, slice):
            return Records(self.columns, self.values[index])
        row = self.values[index]
        return None if row is None else dict(zip(self.columns, row, strict=True))

    def __iter__(self) -> Iterator[dict[str, str] | None]:
        """Yield the rows as dicts."""
        columns = self.columns
        for row in self.values:
            yield None if row is None else dict(zip(columns, row))  # noqa: B905  # checked when read; strict costs 5 %

    def __repr__(self) -> str:
        """Return number and columns."""
        return f"<{len(self):,} records of {', '.join(self.columns)}>"

    @property
    def frame(self) -> Any:
        """The rows as a polars frame of strings, without those that could not be read."""
        from batchkit.frames.rows import frame_of_strings  # noqa: PLC0415  # polars takes its time to load

        return frame_of_strings(self.columns, [row for row in self.values if row is not None])
