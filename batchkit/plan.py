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
    from collections.abc import Iterable, Iterator, Sequence

    from batchkit.job import JobDirectory
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


def divided(reader: Reader, state: ShardState, pieces: int, numbers: Iterable[int], *, numbered: bool) -> list[Shard]:
    """Return an unfinished shard, which keeps what it has done, and new ones over the rest: `pieces` at most, together.

    numbers: those that are free. numbered: whether it is to be known how many items come before each.
    """
    spans = split(reader, Span(state.cursor, state.shard.span.stop), pieces)
    shards = [state.shard._replace(span=Span(state.shard.span.start, spans[0].stop))]
    first = state.behind if numbered else None
    for before, span, number in zip(spans, spans[1:], numbers, strict=False):
        first = None if first is None else first + count(reader, before)
        shards.append(Shard(number, span, first))
    return shards


def extended(plan: Sequence[Shard], changed: dict[int, list[Shard]]) -> list[Shard]:
    """Return the plan with shards replaced, by number, by what they were divided into."""
    return list(itertools.chain.from_iterable(changed.get(shard.number, [shard]) for shard in plan))


def free_numbers(plan: Sequence[Shard], number: int, slices: int) -> Iterator[int]:
    """Yield numbers that no shard has, in the slice of the shard with this number."""
    return itertools.count(
        max(each.number for each in plan if each.number % slices == number % slices) + slices, slices
    )


def save(place: Place, plan: Sequence[Shard], new: Sequence[Shard]) -> None:
    """Make the journals and parts of new shards, then replace the plan; durable on return. Call it under its lock."""
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
    plan = place.job.load_plan(place.uuid, place.slices)
    sizes = [reader.extent(Span(state.cursor, state.shard.span.stop)) for state in left]
    total = sum(size or 0 for size in sizes)
    changed: dict[int, list[Shard]] = {}
    for state, size in zip(left, sizes, strict=True):
        pieces = round(workers * (size or 0) / total) if total and None not in sizes else -(-workers // len(left))
        if pieces > 1:
            known = [*plan, *itertools.chain.from_iterable(changed.values())]
            numbers = free_numbers(known, state.number, place.slices)
            changed[state.number] = divided(reader, state, pieces, numbers, numbered=numbered)
    new = [shard for pieces in changed.values() for shard in pieces[1:]]
    if new:
        save(place, extended(plan, changed), new)
