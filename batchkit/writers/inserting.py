"""Where results that come later stand among those that are there: arithmetic of places, nothing here touches a disk.

The base of a file is what is in it without the results of rounds: a header if its kind has one, and shard by shard the
results. A place of a shard is counted from that shard's origin in the base. A merged insert stands in the published
file already and moves everything behind it by its length.
"""

from __future__ import annotations

from itertools import accumulate
from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from batchkit.writers.base import Piece, Round


class Placed(NamedTuple):
    """An insert in its shard, in the order in which inserts stand there: by number, then by round.

    round: index of its round. place: in the shard; start, stop: in the round's part, behind the header.
    """

    number: int
    round: int
    place: int
    start: int
    stop: int


class Cut(NamedTuple):
    """The places [start, stop) of a round's part, to be put in at a place of a file as it is."""

    at: int
    round: int
    start: int
    stop: int


def by_shard(rounds: Sequence[Round], headers: Sequence[int]) -> dict[int, list[Placed]]:
    """Return the inserts that are not empty, shard by shard; headers: places that the parts' headers take."""
    found: dict[int, list[Placed]] = {}
    for index, (each, header) in enumerate(zip(rounds, headers, strict=True)):
        for shard, number, place, start, stop in each.inserts:
            if stop > header and stop > start:  # a first result brings the header: its insert begins before it
                found.setdefault(shard, []).append(Placed(number, index, place, max(start, header), stop))
    for inserts in found.values():
        inserts.sort()
    return found


def origins(published: int, extents: Sequence[int], merged: int, parts: Sequence[int]) -> list[int]:
    """Return where in the base each shard of a file begins.

    published: places of the published file, 0 if there is none; extents: of the shards in it; merged: places of the
    merged inserts in it; parts: places of the parts behind it. What the published file has beyond its shards stands at
    its beginning: an empty member, the header of a round, shards of unknown extent, into which nothing is ever put.
    """
    lead = published - merged - sum(extents)
    return [*accumulate([*extents, *parts], initial=lead)][:-1]


def cuts(
    shards: Iterable[tuple[int, int]], inserts: Mapping[int, Sequence[Placed]], merged: int, behind: int
) -> Iterator[Cut]:
    """Yield what is to be put into a file, in order.

    shards: number and origin of each, in order; merged: how many rounds the file holds already; behind: where the
    header ends, before which nothing is put.
    """
    moved = 0
    for shard, origin in shards:
        for insert in inserts.get(shard, ()):
            if insert.round < merged:
                moved += insert.stop - insert.start
            else:
                yield Cut(max(origin + insert.place, behind) + moved, insert.round, insert.start, insert.stop)


def woven(bases: Iterable[tuple[Piece, int]], inserted: Iterable[Cut], parts: Sequence[Piece]) -> list[Piece]:
    """Return the pieces of a file with the cuts put in; bases: what is there, with its places; parts: of the rounds."""
    pieces: list[Piece] = []
    rest = iter(inserted)
    cut = next(rest, None)
    begin = 0
    for base, places in bases:
        at = 0
        while cut is not None and cut.at <= begin + places:
            _add(pieces, base, at, cut.at - begin)
            at = cut.at - begin
            _add(pieces, parts[cut.round], cut.start, cut.stop)
            cut = next(rest, None)
        _add(pieces, base, at, places)
        begin += places
    assert cut is None, "an insert lies behind the end of its shard"
    return pieces


def _add(pieces: list[Piece], piece: Piece, start: int, stop: int) -> None:
    """Append a range of a piece, if there is something in it, to the one before where that goes on."""
    assert start <= stop, "places fall within a shard"
    if pieces and pieces[-1].path == piece.path and pieces[-1].stop == start:
        pieces[-1] = pieces[-1]._replace(stop=stop)
    elif start < stop:
        pieces.append(piece._replace(start=start, stop=stop))
