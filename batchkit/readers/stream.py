"""Items of any iterable; it can be read once and only forwards, so resuming reads past what is done."""

from __future__ import annotations

from itertools import chain, islice

from batchkit.errors import InputChanged, SourceError
from batchkit.model import Cursor, Span, Verdict
from batchkit.readers.base import IndexBatch, proof_of_item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from batchkit.model import Batch, Item


class StreamReader:
    """Reads a generator, a cursor, a map object. Resuming costs O(items done): they are made and thrown away."""

    name = "stream"
    unit = "items"
    restartable = False
    durable = False
    files: Sequence[str] = ()

    def __init__(self, items: Iterable[Item]) -> None:
        """Read `items` once."""
        self._items: Iterator[Item] = iter(items)
        self._at = 0

    def identity(self) -> Any:
        """Return the kind of source."""
        return {"kind": "stream"}

    def fingerprint(self) -> Any:
        """Return nothing: looking at a stream would consume it."""
        return None

    def whole(self) -> Span:
        """Return the span of all items, however many."""
        return Span(0, None)

    def read(self, span: Span, batch_size: int) -> Iterator[Batch]:
        """Read up to the span's start and yield the rest."""
        start = span.start
        self._advance(start)
        failure: Exception | None = None
        while failure is None:
            chunk: list[Item] = []
            try:
                chunk.extend(islice(self._items, batch_size))  # keeps what came before an exception
            except Exception as error:  # noqa: BLE001  # the iterable is the user's
                failure = error
            if not chunk:
                break
            yield IndexBatch(chunk, start)
            start += len(chunk)
        if failure is not None:
            why = f"{type(failure).__name__}: {failure}"
            raise SourceError(f"the source failed behind item {start:,}: {why}; run it again to go on") from failure

    def _advance(self, index: int) -> list[Item]:
        """Read up to `index`; return the last item passed, if one was. Raises `InputChanged` if it ends before."""
        last: list[Item] = []
        if index > self._at:
            for _ in islice(self._items, index - self._at - 1):
                pass
            last = list(islice(self._items, 1))
            if not last:
                raise InputChanged(
                    f"the stream ends before item {index:,}, up to which it was done; --restart starts over"
                )
            self._at = index
        return last

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:  # noqa: ARG002  # the seam's
        """Read up to the cursor, the only way to know a stream again, and look whether more is there."""
        if proof is None:
            return Verdict("same")
        try:
            last = self._advance(cursor)
        except InputChanged as error:
            return Verdict("changed", str(error))
        if last and proof_of_item(last[0]) != proof:
            return Verdict("changed", f"item {cursor - 1:,}, the last one done, is not what it was")
        more = list(islice(self._items, 1))
        self._items = chain(more, self._items)
        return Verdict("appended", "there is more of it") if more else Verdict("same")

    def extent(self, span: Span) -> int | None:
        """Return the number of items in a span; `None` if its end is unknown."""
        return None if span.stop is None else int(span.stop) - int(span.start)

    def describe(self, cursor: Cursor) -> str:
        """Return the number of an item, from 0."""
        return f"item {cursor:,}"
