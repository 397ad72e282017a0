"""Cutting a span of files into several of about the same size, each of which begins with an item."""

from __future__ import annotations

from typing import Any

from batchkit.model import Span
from batchkit.readers.blocks import FileBytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.model import Batch, Cursor

Stretch = tuple[int, int, int | None]
"""Index of a file, first byte, and the byte behind the last one (`None`: the end of a file that is compressed)."""


def cut(
    span: Span, count: int, stretches: Sequence[tuple[Stretch, int]], border: Callable[[Stretch, int], int | None]
) -> list[Span]:
    """Return at most `count` spans that together are `span`.

    stretches: those of its files that are not empty, each with its size. border: gives the offset of the first item of
    a stretch that begins at an offset or behind it; `None`: there is none, or nobody can tell.
    """
    total = sum(size for _, size in stretches)
    found: list[Cursor] = []
    for number in range(1, count):
        place = _border_behind(stretches, total * number // count, border)
        if place is not None and place not in found:
            found.append(place)
    starts = [span.start, *found]
    return [Span(start, stop) for start, stop in zip(starts, [*found, span.stop], strict=True)]


def _border_behind(
    stretches: Sequence[tuple[Stretch, int]], distance: int, border: Callable[[Stretch, int], int | None]
) -> list[int] | None:
    for number, (stretch, size) in enumerate(stretches):
        index, start, stop = stretch
        if distance < size:
            if not distance:
                return [index, start] if number else None  # at its first item: the beginning of it all is no border
            at = border(stretch, start + distance) if stop is not None else None
            if at is not None:
                return [index, at]
            return [stretches[number + 1][0][0], stretches[number + 1][0][1]] if number + 1 < len(stretches) else None
        distance -= size
    return None


def behind_delimiter(path: str, delimiter: bytes, stretch: Stretch, offset: int) -> int | None:
    """Return where the first item of a file begins at an offset or behind it; `None`: none does within the stretch."""
    _, start, stop = stretch
    if any(delimiter.startswith(delimiter[at:]) for at in range(1, len(delimiter))):
        return None  # "||" in "a|||b": only from the left can be told which is one
    begin = max(start, offset - len(delimiter))
    with FileBytes(path, begin, stop) as source:
        held, at = b"", begin  # the end of what was read, which a delimiter may begin in, and where that stands
        while block := source.read():
            data = held + block
            found = data.find(delimiter)
            if found >= 0:
                border = at + found + len(delimiter)
                return border if stop is None or border < stop else None
            kept = data[len(data) - len(delimiter) + 1 :] if len(delimiter) > 1 else b""
            held, at = kept, at + len(data) - len(kept)
    return None


def behind_batch(batches: Iterator[Batch], stretch: Stretch, offset: int) -> int | None:
    """Return the same by reading on from the beginning of the stretch: where only that tells items apart."""
    for batch in batches:
        at: Any = batch.stop[1]
        if at >= offset:
            return int(at) if stretch[2] is None or at < stretch[2] else None
    return None
