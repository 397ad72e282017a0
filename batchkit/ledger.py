"""Which items of a shard a database of the function's own has already; see `transactions`.

An item's position is its coordinate in the input ("at"), if the source can be divided: shards may be cut elsewhere in
another run. Otherwise it is the number of its shard and its number there ("no"). Both never change, and have an order.
A range is `[kind, start, stop]`, without the item at `stop`. The record of a shard is JSON:

    {"settled": {kind: [start, stop]},   the journal has committed all of these: done, failed or skipped
     "done": [range, ...],               their statements are committed; the journal need not know of it yet
     "kept": [range, ...]}               the same, where the journal may have failures: a retry is to know better

It is written in the transactions of the function. After a power cut the journal may lack commits of the last second,
but none with failures (`processor` syncs these): whatever is settled and does not stand there is done.
"""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any, NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from batchkit.errors import BatchkitError
    from batchkit.model import Batch, Checkpoint, Cursor

    Range = list[Any]


class AlreadyDone(BaseException):
    """Leaves a function whose items are all, or in part, in the database; parts: see `Ledger.parts`."""

    def __init__(self, parts: list[tuple[int, int, bool]]) -> None:
        """Say which."""
        super().__init__("no transaction: the database has these items")
        self.parts = parts


class Ended(BaseException):
    """Ends the run with an error, whatever the function catches and whatever the policy for failures is."""

    def __init__(self, error: BatchkitError) -> None:
        """Say why."""
        super().__init__(str(error))
        self.error = error


class Key(NamedTuple):
    """Names a record in the database.

    job: the uuid of the job, or of a round, with what tells it from the checkpoints of loads; failed_in: the same of
    the job whose failures a round works over, `None`: it is no round. name: of the job, for people.
    """

    job: str
    failed_in: str | None
    shard: int
    name: str


class Call(NamedTuple):
    """The items that a function is called with: `size` of them in a batch, from `first` on."""

    batch: Batch
    first: int
    size: int


class State(NamedTuple):
    """What the record of a shard says."""

    settled: dict[str, list[Any]]
    done: list[Range]
    kept: list[Range]


class Ledger:
    """Knows which items of a shard are in the database; made for one shard in one run.

    used: whether the function has asked for a transaction. seq: number of the newest record, `None`: not looked yet.
    open: whether a transaction is. stored: the call whose transaction was committed last. swallowed: whether the
    function was to be left, see `AlreadyDone`, and may not have been.
    """

    def __init__(
        self, key: Key, *, ordered: bool, start: Cursor, point: Callable[[], Checkpoint], sync: Callable[[], None]
    ) -> None:
        """Know nothing yet.

        ordered: whether items are known by coordinates. start: the shard's. point: tells the newest commit, behind
        which the batch in hand begins; sync: makes it durable.
        """
        self.key = key
        self.used = self.open = self.swallowed = False
        self.seq: int | None = None
        self.stored: Call | None = None
        self.answered: list[int] = []
        self._kind = "at" if ordered and key.failed_in is None else "no"
        self._start = start if self._kind == "at" else [key.shard, 0]
        self._point = point
        self._sync = sync
        self._failed = point().failed
        self._state = State({}, [], [])
        self._elsewhere: list[Range] = []
        self._before_round: list[Range] = []

    def load(self, rows: Iterable[tuple[str, int, int, str | None]]) -> None:
        """Take in the rows of the job's shards, of this one too: job, shard, seq, record."""
        self._elsewhere, self._before_round = [], []
        if self._point().failed > self._failed:
            self._sync()  # so far `processor` had no reason to, and what is settled is to lack no failures
        for job, shard, seq, text in rows:
            known = {"settled": {}, "done": [], "kept": [], **json.loads(text or "{}")}
            state = State(**known)
            if job != self.key.job:
                self._before_round += [*state.done, *state.kept]
            elif shard != self.key.shard:
                self._elsewhere += [*_settled(state), *state.done, *state.kept]
            else:
                self.seq = seq
                if self._point().failed > self._failed:  # before anybody looked: perhaps what is done
                    state = state._replace(done=[], kept=[*state.kept, *state.done])
                self._state = state

    def parts(self, call: Call) -> list[tuple[int, int, bool]] | None:
        """Return the stretches of a call that are done, and those that are not: start, stop, whether done.

        They count from the call's first item. `None`: nothing is done.
        """
        batch, first, size = call
        ranges = [*_settled(self._state), *self._state.done, *self._state.kept, *self._elsewhere]
        ranges = [
            [kind, start, stop]
            for kind, start, stop in ranges
            if stop > self._position(batch, kind, first) and start < self._position(batch, kind, first + size)
        ]
        if not ranges and not self._before_round:
            return None
        parts = []
        for done, group in groupby(range(first, first + size), lambda index: self._has(batch, index, ranges)):
            indexes = list(group)
            parts.append((indexes[0] - first, indexes[-1] + 1 - first, done))
        return parts if any(done for _, _, done in parts) else None

    def _has(self, batch: Batch, index: int, ranges: list[Range]) -> bool:
        return any(start <= self._position(batch, kind, index) < stop for kind, start, stop in ranges) or any(
            start <= _failed_position(batch, kind, index) < stop for kind, start, stop in self._before_round
        )

    def _position(self, batch: Batch, kind: str, index: int) -> Any:
        if kind == "no":
            return [self.key.shard, self._point().handled + index]
        # Its ends a batch knows; for what is between, it looks at all of its items.
        at = batch.start if index == 0 else batch.stop if index == len(batch.items) else batch.coordinate(index)
        return list(at) if isinstance(at, tuple) else at

    def with_call(self, call: Call) -> State:
        """Return what the record is to say once the transaction of a call is committed."""
        batch, first, size = call
        kind, base = self._kind, self._position(batch, self._kind, 0)
        start, settled = self._state.settled.get(kind, [self._start, base])
        new = [kind, self._position(batch, kind, first), self._position(batch, kind, first + size)]
        done = [each for each in self._state.done if each[0] != kind or each[2] > base]
        if done and done[-1][0] == kind and done[-1][2] == new[1]:
            new = [kind, done.pop()[1], new[2]]
        return self._state._replace(
            settled={**self._state.settled, kind: [start, max(settled, base)]}, done=[*done, new]
        )

    def committed(self, call: Call, state: State) -> None:
        """Take note of a call whose transaction was committed with this record."""
        assert self.seq is not None, "nothing is committed before the record was read"
        self.seq, self._state, self.stored = self.seq + 1, state, call
        self.answered.append(call.first)


def text_of(state: State) -> str:
    """Return a record as it is stored."""
    return json.dumps(state._asdict(), separators=(",", ":"))


def _settled(state: State) -> list[Range]:
    return [[kind, *each] for kind, each in state.settled.items()]


def _failed_position(batch: Batch, kind: str, index: int) -> Any:
    """Return the position that an item of a round had in the job, where it failed."""
    if kind == "at":
        return batch.coordinate(index)
    entry = batch.entries[index]  # type: ignore[attr-defined]  # the reader of a round gives such batches
    return [entry["shard"], entry["number"]]
