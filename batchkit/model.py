"""The values that move through a job.

The hot ones are named tuples or slotted classes rather than frozen dataclasses: making a frozen dataclass of eight
fields costs 1.5 µs, a named tuple 0.5 µs, and one of each is made per batch.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Item: TypeAlias = Any
"""One unit of input: a line (`str`), or whatever an in-memory source holds."""

Cursor: TypeAlias = Any
"""A JSON value that only its reader understands: the coordinate of the first item not yet committed."""

Mark: TypeAlias = Any
"""A JSON value that only its writer understands: how far its stored results are covered by a checkpoint."""


class Span(NamedTuple):
    """A half-open range `[start, stop)` of the input, in its reader's coordinates; `stop=None`: end unknown."""

    start: Cursor
    stop: Cursor | None


class Shard(NamedTuple):
    """One span of a job with a journal and a part of its own, which are named by `number`: that never changes.

    first: how many items of the input come before the span; `None`: nobody has counted.
    """

    number: int
    span: Span
    first: int | None = None


class Batch:
    """Consecutive items, handled and committed together.

    items: the items, in input order; a place named in `unreadable` holds `None`. A list, or another sequence whose
    slices are such sequences too; rows of a table have their `frame`.
    start, stop: coordinates of the first item and of the first item after the batch.
    proof: CRC-32 of what was consumed just before `stop`, by which a resume knows the input again.
    unreadable: index → reason, for items that could not be read (invalid UTF-8, over-long).
    number: of the first item in the whole input, from 1; `None` or not set: nobody has counted. Set by
        whoever feeds the loop.
    """

    __slots__ = ("items", "number", "proof", "start", "stop", "unreadable")

    items: Sequence[Item]
    start: Cursor
    stop: Cursor
    proof: int
    unreadable: Mapping[int, str]
    number: int | None

    def split(self, count: int) -> tuple[Batch, Batch]:
        """Return the first `count` items and the rest, each a batch of its own; `0 < count < len(items)`."""
        raise NotImplementedError

    def coordinate(self, index: int) -> Cursor:
        """Return the coordinate of the item at `index`; `len(items)` gives `stop`."""
        raise NotImplementedError

    def number_of(self, index: int) -> int | None:
        """Return the number of the item at `index` in the whole input, from 1; `None`: nobody has counted."""
        number = getattr(self, "number", None)
        return None if number is None else number + index


class Outcome(NamedTuple):
    """What calling the function on a batch gave.

    results: in input order, a list or a table (`frames.rows`), whose rows are the results; a `None` stores nothing.
    done: how many items, from the beginning of the batch, are done (fewer than the batch: it was cut, or `error`).
    error: what the item after them raised; `None` if nothing was.
    sizes: results per item where that is not one each (generator functions); else `None`.
    one_each: whether `results[i]` belongs to item `i`.
    tries: item → attempts already made where that is not one, if there are to be no more; `None`: one each, and what
        failed may be tried again.
    """

    results: Any
    done: int
    error: BaseException | None = None
    sizes: Sequence[int] | None = None
    one_each: bool = True
    tries: Mapping[int, int] | None = None

    def item_of(self, result: int) -> int | None:
        """Return the index of the item that gave `results[result]`; `None` if that cannot be known."""
        if self.sizes is None:
            return result if self.one_each else None
        for index, size in enumerate(self.sizes):
            result -= size
            if result < 0:
                return index
        return None

    def part(self, start: int, stop: int) -> Outcome:
        """Return the outcome of the items `[start, stop)`, of which it is known which results are whose."""
        if self.sizes is None:
            return Outcome(self.results[start:stop], stop - start, one_each=self.one_each)
        first, sizes = sum(self.sizes[:start]), self.sizes[start:stop]
        return Outcome(self.results[first : first + sum(sizes)], stop - start, sizes=sizes)


class Failure(NamedTuple):
    """An item that failed for good, as it is kept.

    item: as it was read; `None` if it could not be. where: its position, for people. error, message: the exception's
    type and text; traceback: its traceback, cut to the end of it; "" if there is none. attempts: calls in all runs.
    run: number of the run, time: seconds since the epoch. at: the item's coordinate. shard, number: which item of which
    shard, from 0; they change with nothing. place: where its results would stand, see `Writer.place`.
    unreadable: whether it could not be read. kept_as_text: whether `item` is only a text about it (no form in JSON).
    """

    item: Item
    where: str
    error: str
    message: str
    traceback: str
    attempts: int
    run: int
    time: float
    at: Cursor
    shard: int
    number: int
    place: int | None
    unreadable: bool = False
    kept_as_text: bool = False


class Checkpoint(NamedTuple):
    """Everything one commit of one shard says; the journal stores it as one line.

    seq: number of this commit in its shard, from 1. stop: the cursor; the batch began at that of the commit before.
    done, failed, skipped: item counts of the shard so far, in all runs.
    proof: see `Batch.proof`. mark: see `Mark`; `None` where the writer stores nothing that could be cut.
    run: number of the run that made it, from 1; time: seconds since the epoch; seconds: what the batch took.
    end: whether the shard is at its end. kept: the mark of the shard's failures; `None` while it has none.
    """

    seq: int
    stop: Cursor
    done: int
    failed: int
    skipped: int
    proof: int
    mark: Mark
    run: int
    time: float
    seconds: float
    end: bool = False
    kept: Mark = None

    @property
    def handled(self) -> int:
        """Items of the shard that were done, failed or were skipped."""
        return self.done + self.failed + self.skipped


class Verdict(NamedTuple):
    """Is this input still the one the job began with? kind: same, appended or changed; why: for people.

    moved: whether a changed input's cursors mean other items than they did, so that going on would be wrong for sure.
    """

    kind: str
    why: str = ""
    moved: bool = False
