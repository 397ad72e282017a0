"""What a file of an output is made of: what is published, parts, and the results of rounds in their places."""

from __future__ import annotations

from typing import Any, NamedTuple

from batchkit.errors import DamageError, OutputChanged
from batchkit.writers.base import Header, Piece
from batchkit.writers.inserting import by_shard, cuts, origins, woven

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from batchkit.model import Mark
    from batchkit.writers.base import Kind, Round


class Stream(NamedTuple):
    """A file of an output, of consecutive shards.

    first: the first of them. whole: the published file, `None` if there is none; frozen: last marks of the shards in
    it. parts: those of the shards behind them, with their last marks. lead: the header that none of them has. bare:
    paths of the parts that are known to have none.
    """

    first: int
    whole: Piece | None
    frozen: Sequence[Mark]
    parts: Sequence[tuple[Piece, Mark]]
    lead: Piece | None = None
    bare: Container[str] = ()

    @property
    def plain(self) -> list[Piece]:
        """The pieces without anything new put in."""
        before = [piece for piece in (self.lead, self.whole) if piece is not None]
        return [*before, *(part for part, _ in self.parts)]


class Merge:
    """Puts the rounds of a job that are not merged yet into the files of its output.

    headers: how many places the header of each round's part takes; kept in the log, for then the part is gone.
    """

    def __init__(self, kind: Kind, rounds: Sequence[Round], published: dict[str, Any] | None) -> None:
        """Look at the rounds; published: the log's word on what is published, which says what is merged."""
        self._kind = kind
        self._merged = (published or {}).get("rounds", 0)
        self._parts = [Piece(each.path, each.mark[0] if each.mark else 0) for each in rounds]
        known = [None] * self._merged
        self._found: list[Header | None] = [*known, *map(kind.header, self._parts[self._merged :])]
        before = (published or {}).get("headers", [])[: len(rounds)]
        self.headers: list[int] = [*before, *(_places(found) for found in self._found[self._merged :])]
        self._inserts = by_shard(rounds, self.headers)

    def pieces(self, stream: Stream) -> list[Piece]:
        """Return the pieces of a file; as `Stream.plain` has them if nothing new belongs into it.

        Raises `OutputChanged` if the columns of a round are not those of the file.
        """
        shards = range(stream.first, stream.first + len(stream.frozen) + len(stream.parts))
        new = self._new_in(shards)
        if not new:
            return stream.plain
        bases = [(piece, self._kind.places(piece)) for piece in [stream.whole] if piece is not None]
        bases += [(part, self._kind.extent(mark) or self._kind.places(part)) for part, mark in stream.parts]
        begins = self._origins(stream, bases)
        header, behind = self._header_of(stream, bases)
        self._refuse_others(header, new, stream)
        inserted = cuts(zip(shards, begins, strict=True), self._inserts, self._merged, behind)
        pieces = woven(bases, inserted, self._parts)
        first = min(new)
        if stream.lead is not None:
            pieces.insert(0, stream.lead)
        elif header is None and self.headers[first]:
            pieces.insert(0, self._parts[first]._replace(stop=self.headers[first]))
        return pieces

    def _new_in(self, shards: Iterable[int]) -> set[int]:
        """Return which rounds that are not merged have something for these shards."""
        inserts = (insert for shard in shards for insert in self._inserts.get(shard, ()))
        return {insert.round for insert in inserts if insert.round >= self._merged}

    def _origins(self, stream: Stream, bases: Sequence[tuple[Piece, int]]) -> list[int]:
        frozen = range(stream.first, stream.first + len(stream.frozen))
        inserts = (insert for shard in frozen for insert in self._inserts.get(shard, ()))
        merged = sum(insert.stop - insert.start for insert in inserts if insert.round < self._merged)
        parts = [places for _, places in bases[stream.whole is not None :]]
        published = sum(places for _, places in bases) - sum(parts)
        begins = origins(published, list(map(self._kind.extent, stream.frozen)), merged, parts)
        if stream.whole is not None and begins[0] < 0:
            raise DamageError(f"'{stream.whole.path}' holds less than its job has stored; --restart starts over")
        return begins

    def _header_of(self, stream: Stream, bases: Sequence[tuple[Piece, int]]) -> tuple[Header | None, int]:
        """Return the header of a file and where in the bases it ends: it stands before the first result of all."""
        if stream.lead is not None:
            return self._kind.header(stream.lead), 0
        at = 0
        for piece, places in bases:
            header = self._kind.header(piece) if places and piece.path not in stream.bare else None
            if header is not None:
                return header, at + header.places
            at += places
        return None, 0

    def _refuse_others(self, header: Header | None, new: Iterable[int], stream: Stream) -> None:
        """Refuse rows of other columns than the file's, among which they would be read wrongly."""
        found = [header, *(self._found[index] for index in sorted(new))]
        names = [each.names for each in found if each is not None]
        other = next((each for each in names if each != names[0]), None)
        if other is not None:
            where = next(piece.path for piece in stream.plain if piece is not stream.lead)
            raise OutputChanged(
                f"results that were stored later have the columns {', '.join(other)}, and '{where}' has "
                f"{', '.join(names[0])}; start over with --restart"
            )


def _places(header: Header | None) -> int:
    return 0 if header is None else header.places
