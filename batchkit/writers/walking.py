"""Going through rows of a file in ranges, block by block, once and in order."""

from __future__ import annotations

from typing import Generic, TypeVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")


class Walk(Generic[T]):
    """Gives ranges of rows from blocks that come one after the other; in memory is one block."""

    def __init__(self, blocks: Iterator[tuple[int, Callable[[], T]]]) -> None:
        """Go through blocks: their rows, and what loads one, called at most once and only for a block that is needed.

        A block that is passed over is not loaded.
        """
        self._blocks = blocks
        self._first = 0  # of the block at hand
        self._rows = 0
        self._load: Callable[[], T] | None = None
        self._loaded: T | None = None

    def take(self, start: int, stop: int | None) -> Iterator[tuple[T, int, int, int]]:
        """Yield (block, its rows, first row in it, how many) for the rows [start, stop); `None`: up to the end.

        `start` is never less than the `stop` of the call before. Ends early where the blocks do.
        """
        while stop is None or start < stop:
            behind = self._first + self._rows
            if start >= behind:
                if not self._next():
                    return
                continue
            until = behind if stop is None else min(stop, behind)
            yield self._block(), self._rows, start - self._first, until - start
            start = until

    def _next(self) -> bool:
        self._first += self._rows
        self._rows, self._load = next(self._blocks, (0, None))
        self._loaded = None
        return self._load is not None

    def _block(self) -> T:
        if self._loaded is None:
            assert self._load is not None, "there is a block at hand"
            self._loaded = self._load()
        return self._loaded
