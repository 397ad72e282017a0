"""Items of a list, a tuple, a range or a dict; the cursor is an index."""

from __future__ import annotations

from batchkit.errors import UsageError
from batchkit.model import Cursor, Span, Verdict
from batchkit.readers.base import IndexBatch, proof_of_item

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from batchkit.model import Batch, Item


class SequenceReader:
    """Reads what can be indexed. Resuming in another process needs the same items in the same order again."""

    name = "items"
    unit = "items"
    restartable = True
    durable = False
    files: Sequence[str] = ()

    def __init__(self, items: Sequence[Item]) -> None:
        """Read `items`; not copied, so leave them alone while the job runs."""
        self._items = items

    def identity(self) -> Any:
        """Return the kind of source."""
        return {"kind": "sequence"}

    def fingerprint(self) -> Any:
        """Return the number of items and a digest of the first."""
        items = self._items
        return {"items": len(items), "head": proof_of_item(items[0]) if len(items) else None}

    def whole(self) -> Span:
        """Return the span of all items."""
        return Span(0, len(self._items))

    def read(self, span: Span, batch_size: int) -> Iterator[Batch]:
        """Yield slices of the sequence."""
        stop = len(self._items) if span.stop is None else span.stop
        for start in range(span.start, stop, batch_size):
            items = self._items[start : min(start + batch_size, stop)]
            yield IndexBatch(items if hasattr(items, "frame") else list(items), start)

    def split(self, span: Span, count: int) -> list[Span]:
        """Cut a span into at most `count` of the same length, but for one."""
        start, stop = span.start, len(self._items) if span.stop is None else span.stop
        borders = sorted({start + (stop - start) * number // count for number in range(count)} | {start})
        return [Span(at, end) for at, end in zip(borders, [*borders[1:], span.stop], strict=True)]

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Compare length, first item, and the item before the cursor."""
        now = self.fingerprint()
        was_items, now_items = fingerprint["items"], now["items"]
        if now_items < was_items:
            return Verdict("changed", f"the list shrank from {was_items:,} to {now_items:,} items")
        if was_items and now["head"] != fingerprint["head"]:
            return Verdict("changed", "the first item is not what it was")
        if proof is not None and cursor and proof_of_item(self._items[cursor - 1]) != proof:
            return Verdict("changed", f"item {cursor - 1:,}, the last one done, is not what it was")
        if now_items > was_items:
            return Verdict("appended", f"the list grew from {was_items:,} to {now_items:,} items")
        return Verdict("same")

    def extent(self, span: Span) -> int:
        """Return the number of items in a span."""
        return int(span.stop if span.stop is not None else len(self._items)) - int(span.start)

    def describe(self, cursor: Cursor) -> str:
        """Return the index of an item, from 0."""
        return f"item {cursor:,}"


def as_sequence(source: object) -> Sequence[Item] | None:
    """Return what can be read by index: lists, tuples, ranges, the pairs of a dict; `None` for anything else."""
    if isinstance(source, dict):
        return list(source.items())
    if isinstance(source, list | tuple | range):
        return source
    if isinstance(source, set | frozenset):
        raise UsageError("a set has no order to resume in; pass sorted(items) instead")
    return None
