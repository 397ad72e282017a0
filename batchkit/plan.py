"""The plan of a job: shards cut further, so that there is work for everybody.

The plan is changed in one step: when `plan.json` is replaced, the journals and parts of new shards are there already.
A crash before it leaves files that nobody reads, whose numbers the next new shards take.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

from batchkit.model import Shard, Span
from batchkit.readers.base import count, split
from batchkit.resume import new_shard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


_NO_NUMBER = -1


def divided(reader: Reader, shard: Shard, cursor: Cursor, handled: int, pieces: int, *, numbered: bool) -> list[Shard]:
    """Return an unfinished shard, which keeps what it has done, and new ones over the rest: `pieces` at most, together.

    cursor, handled: how far it is. numbered: whether it is to be known how many items come before each. The new ones
    have no numbers yet.
    """
    spans = split(reader, Span(cursor, shard.span.stop), pieces)
    shards = [shard._replace(span=Span(shard.span.start, spans[0].stop))]
    first = shard.first + handled if numbered and shard.first is not None else None
    for before, span in itertools.pairwise(spans):
        first = None if first is None else first + count(reader, before)
        shards.append(Shard(_NO_NUMBER, span, first))
    return shards


def replaced(place: Place, divisions: Sequence[list[Shard]]) -> list[Shard]:
    """Put what shards were divided into in their places in the plan; durable on return. Returns the first of each."""
    with place.job.plan_locked():
        plan = place.job.load_plan(place.uuid, place.slices)
        new: list[Shard] = []
        for own, *others in divisions:
            numbers = free_numbers([*plan, *new], own.number, place.slices)
            named = [shard._replace(number=number) for shard, number in zip(others, numbers, strict=False)]
            at = next(index for index, shard in enumerate(plan) if shard.number == own.number)
            plan[at : at + 1] = [own, *named]
            new += named
        _save(place, plan, new)
    return [own for own, *_ in divisions]


def free_numbers(plan: Sequence[Shard], number: int, slices: int) -> Iterator[int]:
    """Yield numbers that no shard has, in the slice of the shard with this number."""
    return itertools.count(
        max(each.number for each in plan if each.number % slices == number % slices) + slices, slices
    )


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
    divisions = [shards for shards in divisions if len(shards) > 1]
    if divisions:
        replaced(place, divisions)
