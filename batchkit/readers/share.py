"""How much of a job's input is done, from what its manifest says of it, without looking at the input."""

from __future__ import annotations

from typing import Any

from batchkit.compression import suffix_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.model import Cursor, Span


_FILES = {"lines", "csv", "ndjson", "parquet"}
"""Kinds of source whose cursor is `[file index, offset]`, and whose fingerprint is a list of facts of files."""


def share_done(kind: str, fingerprint: Any, plan: Sequence[Span], cursors: Sequence[Cursor]) -> float | None:
    """Return the share of a plan that is done, 0 to 1; `None` if unknown: pipes, compressed files, streams.

    kind: of the source, as its reader's identity says.
    """
    coordinates = [span.start for span in plan], [span.stop for span in plan], cursors
    places = [_places(kind, fingerprint, each) for each in coordinates]
    if any(place is None for each in places for place in each):
        return None
    starts, stops, done = ([place or 0 for place in each] for each in places)
    total = sum(stops) - sum(starts)
    return (sum(done) - sum(starts)) / total if total else None


def _places(kind: str, fingerprint: Any, coordinates: Sequence[Cursor]) -> list[int | None]:
    """Return how far from the beginning of the input coordinates are; `None` where that is unknown."""
    if kind == "sequence":
        return list(coordinates)
    if kind not in _FILES or fingerprint is None:
        return [None for _ in coordinates]
    before = [0]
    for facts in fingerprint:
        if suffix_of(facts["path"]) is not None:
            return [None for _ in coordinates]
        before.append(before[-1] + int(facts.get("rows", facts["size"])))
    return [None if each is None else before[each[0]] + int(each[1]) for each in coordinates]
