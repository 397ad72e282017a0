"""The plan of a job: shards cut further, so that there is work for everybody.

The plan is changed in one step: when `plan.json` is replaced, the journals and parts of new shards are there already.
A crash before it leaves files that nobody reads, whose numbers the next new shards take.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

from batchkit.job import free_numbers
from batchkit.model import Shard, Span
from batchkit.readers.base import count, split
from batchkit.resume import new_shard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.job import JobDirectory
    from batchkit.model import Cursor
    from batchkit.readers.base import Reader
    from batchkit.resume import ShardState
    from batchkit.writers.base import Output, Round


class Place(NamedTuple):
    """What the shards of a job have in common.

    slices: how many slices the job has. frozen: how many shards are published. rounds: those whose results are not in
    the published output yet.
    """

    job: JobDirectory
    uuid: str
    slices: int
    output: Output
    frozen: int
    rounds: Sequence[Round]


class Division(NamedTuple):
    """A shard that keeps what it has done and what follows up to a border, and what is to be new shards.

    rest: their spans, each with the number of items before it, `None`: nobody has counted.
    """

    own: Shard
    rest: list[tuple[Span, int | None]]


def divided(reader: Reader, shard: Shard, cursor: Cursor, handled: int, pieces: int, *, numbered: bool) -> Division:
    """Divide what is left of a shard into at most so many pieces.

    cursor, handled: how far it is. numbered: whether it is to be known how many items come before each.
    """
    spans = split(reader, Span(cursor, shard.span.stop), pieces)
    first = shard.first + handled if numbered and shard.first is not None else None
    rest = []
    for before, span in itertools.pairwise(spans):
        first = None if first is None else first + count(reader, before)
        rest.append((span, first))
    return Division(shard._replace(span=Span(shard.span.start, spans[0].stop)), rest)


def carry_out(place: Place, divisions: Sequence[Division]) -> None:
    """Put what shards were divided into in their places in the plan; durable on return."""
    with place.job.plan_locked():
        plan = place.job.load_plan(place.uuid, place.slices)
        new: list[Shard] = []
        for own, rest in divisions:
            numbers = free_numbers((shard.number for shard in [*plan, *new]), own.number, place.slices)
            named = [Shard(number, *piece) for number, piece in zip(numbers, rest, strict=False)]
            at = next(index for index, shard in enumerate(plan) if shard.number == own.number)
            plan[at : at + 1] = [own, *named]
            new += named
        _save(place, plan, new)


def _save(place: Place, plan: Sequence[Shard], new: Sequence[Shard]) -> None:
    """Make the journals and parts of new shards, then replace the plan; durable on return."""
    for shard in new:
        new_shard(place.job, place.uuid, shard)
    numbers = [shard.number for shard in new]
    place.output.prepare(numbers, afresh=False)
    place.job.save_plan(place.uuid, place.slices, plan, numbers)


def for_workers(place: Place, reader: Reader, states: Sequence[ShardState], workers: int, *, numbered: bool) -> None:
    """Cut unfinished shards so that there is one for each worker, if that can be. Durable on return.

    One is enough: who is done earlier takes of what others have left, see `sharing`.
    """
    left = [state for state in states if not state.ended]
    if not left or len(left) >= workers:
        return
    sizes = [reader.extent(Span(state.cursor, state.shard.span.stop)) for state in left]
    total = sum(size or 0 for size in sizes)
    divisions = []
    for state, size in zip(left, sizes, strict=True):
        pieces = round(workers * (size or 0) / total) if total and None not in sizes else -(-workers // len(left))
        handled = 0 if state.base is None else state.base.handled
        divisions.append(divided(reader, state.shard, state.cursor, handled, pieces, numbered=numbered))
    divisions = [division for division in divisions if division.rest]
    if divisions:
        carry_out(place, divisions)
