"""A sliding window of batches whose calls are in flight; they are collected, and committed, in input order.

`Window` stands where the loop's `Feed` stands otherwise and reads ahead of it, `Flight` where its caller stands and
hands it what has come back.
"""

from __future__ import annotations

import sys
from collections import deque
from contextlib import ExitStack
from queue import SimpleQueue
from typing import Any, Protocol, cast

from batchkit.failures import Retries, Stopped
from batchkit.model import Outcome
from batchkit.slots import Desk, Gate, Pending, Raised, Tasks, Threads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.budget import Budget
    from batchkit.calling import Caller
    from batchkit.failures import Policy
    from batchkit.isolation import IsolatedCaller
    from batchkit.model import Batch
    from batchkit.pace import Pace

_AHEAD = 8
"""Items per slot that are read ahead of the batch in hand: by so many calls one may be slower than the others."""
_BATCHES_AHEAD = 2
"""The same in batches, for batched functions."""


class Source(Protocol):
    """What the loop is fed from otherwise, `processor.Feed`.

    far: whether reading may wait for others to write. ended: whether everything there is was given.
    """

    far: bool
    ended: bool

    def next(self, size: int, begun: float) -> Batch | None:
        """Return the next batch, as the budget says."""

    def take(self, room: int) -> Batch | None:
        """Return the next batch, of at most `room` items."""

    def close(self) -> None:
        """Let go of the source."""


_NOT_YET = Raised(BaseException())
"""Stands for what is still in flight."""


class Flight:
    """Calls the function on batches as `calling.Caller` does, but on items of several batches at once.

    Plain functions are called in threads, or, where the caller has a process of its own, in so many processes; async
    functions in one event loop. Further attempts are made there, too. What a batched function fails on is narrowed
    down by calls of the thread that runs the loop.
    """

    def __init__(  # keyword-only parts
        self,
        make: Callable[[], Caller | IsolatedCaller],
        *,
        count: int,
        budget: Budget,
        policy: Policy,
        say: Callable[[str], None],
        pace: Pace | None = None,
    ) -> None:
        """Make the function ready; no call begins before there is a `window`.

        make: makes a caller; once, or for each of `count` slots where that has a process of its own. pace: how often
        calls may begin, further attempts included; `None`: as often as they can. say: tells people of long waits.
        """
        self._make = make
        self._first = first = make()
        self.batched = first.batched
        self.identity = first.identity
        self._budget = budget
        self._pace = pace
        self._gate = Gate(budget, policy, batched=first.batched)
        self._news: SimpleQueue[None] = SimpleQueue()  # wakes the loop; may be put to in signal handlers
        self._hasty = False  # whether the batch in hand is to be committed as far as it is done
        self._window: Window
        self._made = [first]  # processes, to be closed
        self._free = [first]  # of these, those that nobody calls through
        self._direct: Caller | IsolatedCaller | None = None
        self._around = sys.exc_info()[1]
        desk = Desk(
            self._gate,
            budget,
            Retries(policy, budget, say),
            pace,
            seq=self._seq,
            foremost=self._foremost,
            told=self._told,
            identity=lambda: self.identity,
        )
        self._slots: Threads | Tasks
        caller = cast("Caller", first) if hasattr(first, "sibling") else None
        if caller is not None and caller.loop is not None:
            self._slots = Tasks(count, caller, desk)
        else:
            self._slots = Threads(count, self._made_for_slot, desk, batched=first.batched)

    def _made_for_slot(self) -> Caller | IsolatedCaller:
        if hasattr(self._first, "sibling"):
            return self._first.sibling()
        try:
            return self._free.pop()
        except IndexError:
            made = self._make()
            self._made.append(made)
            return made

    def window(self, feed: Source, seq: int) -> Window:
        """Return what feeds the loop over a shard; seq: the number of its first commit."""
        self._window = Window(self, self._gate, self._slots, feed, self._budget, seq)
        return self._window

    def _seq(self, pending: Pending) -> int:
        return self._window.seq(pending)

    def _foremost(self, pending: Pending, index: int) -> bool:
        return self._window.foremost(pending, index)

    def _told(self, pending: Pending) -> None:
        if pending.complete or self._hasty:
            self._news.put(None)

    def __call__(self, batch: Batch, seq: int, first: int = 0, stop: int | None = None) -> Outcome:
        """Return what became of items of the batch that the window gave last, when all of them are settled.

        first, stop: only these; the outcome counts them from `first`. After `cut`, some of them are enough. Where they
        are no stretch that was called in flight, they are called now. Raises what a call raised that is no item's
        failure.
        """
        pending = self._window.head
        begin, end = pending.taken + first, pending.taken + (len(batch.items) if stop is None else stop)
        if self.batched and ((begin, end) not in pending.units or begin not in self._window.fresh):
            return self._call_now(batch, seq, first, stop)
        self._window.fresh.discard(begin)
        self._await(pending, begin)
        self._stop = end
        return self._whole(pending, begin) if self.batched else self._collected(pending, begin)

    def _await(self, pending: Pending, first: int) -> None:
        """Wait until a batch is settled, or, if it is cut, the item that comes first."""
        while not pending.complete:
            if self._hasty and first in pending.came and self._window.may_split():
                return
            self._news.get()
        while not self._news.empty():  # what is settled meanwhile says so itself
            self._news.get()

    def settled(self, pending: Pending) -> None:
        """Wait until nothing of a batch is in flight."""
        while not pending.complete:
            self._news.get()

    def _whole(self, pending: Pending, first: int) -> Outcome:
        came = pending.came.pop(first)
        if isinstance(came, Raised):
            raise came.error
        return Outcome([], 0) if came is None else came

    def _collected(self, pending: Pending, first: int) -> Outcome:
        """Put together what has come from `first` on, up to what failed or is not there."""
        results: list[Any] = []
        sizes: list[int] = []
        tries: dict[int, int] = {}
        generates, index, error = False, first, None
        while index < self._stop:
            one = pending.came.get(index, _NOT_YET)
            if one is None:
                break
            if isinstance(one, Raised):
                if index == first and one is not _NOT_YET:
                    raise one.error
                self._window.split()  # what comes before it is committed first
                break
            if one.sizes is not None:
                generates = True
                sizes += one.sizes
            if one.tries is not None:
                tries[index - first] = one.tries[0]
            if one.error is not None:
                error = one.error
                break
            results += one.results
            index += 1
        self._at = pending, index
        final = tries if error is not None or tries else None
        return Outcome(results, index - first, error, sizes if generates else None, tries=final)

    def go_on(self) -> Outcome:
        """Go on behind the item that failed; the outcome counts the items from there.

        A batched call fails as a whole: nothing is left then.
        """
        if self.batched:
            return Outcome([], 0)
        pending, index = self._at
        return self._collected(pending, index + 1)

    def paced(self) -> bool:
        """Wait until a further call may begin; return whether the run may go on."""
        return self._pace is None or self._pace.wait(self._budget)

    def _call_now(self, batch: Batch, seq: int, first: int, stop: int | None) -> Outcome:
        """Call a batched function from here: whoever narrows a batch down has waited until it is `paced`."""
        if self._direct is None:
            self._direct = self._first if hasattr(self._first, "sibling") else self._made_for_slot()
        self._direct.identity = self.identity
        return self._direct(batch, seq, first, stop)

    def again(self) -> Outcome:
        """Call the batched function once more on what failed when it was called from here."""
        assert self._direct is not None, "what is called in flight is tried again there"
        if not self.paced():
            raise Stopped
        return self._direct.again()

    def cut(self) -> None:
        """Begin no more calls if the budget says so, else have the batch in hand committed as far as it is done.

        May come from a signal handler or another thread.
        """
        if self._budget.go_on():
            self._hasty = True
        self._news.put(None)

    def unhurried(self) -> None:
        """Begin with a batch that has not been cut."""
        self._hasty = False

    def close(self) -> None:
        """Close what was made of a class, when all calls in flight have ended.

        On the way out by `KeyboardInterrupt` and the like nobody waits for them.
        """
        error = sys.exc_info()[1]
        aborted = error is not self._around and error is not None and not isinstance(error, Exception)
        self._gate.closed = True
        self._gate.aborted = aborted
        try:
            self._slots.close(wait=not aborted)
        except BaseException:  # nobody waits any longer
            self._gate.aborted = True
            raise
        finally:
            self._close_all()

    def _close_all(self) -> None:
        with ExitStack() as stack:
            if self._pace is not None:
                stack.callback(self._pace.close)
            for made in self._made:
                stack.callback(getattr(made, "abandon", made.close) if self._gate.aborted else made.close)


class Window:
    """The batches of a span from the cursor on, of which the first are in flight; see `processor.Feed`.

    head: the batch in hand. fresh: of its units, those whose outcome nobody has asked for.
    """

    head: Pending

    def __init__(  # `Flight` makes it
        self, flight: Flight, gate: Gate, slots: Threads | Tasks, feed: Source, budget: Budget, seq: int
    ) -> None:
        """Read nothing yet."""
        self._flight = flight
        self._gate = gate
        self._slots = slots
        self._feed = feed
        self._budget = budget
        self._seq = seq
        self._begun = 0  # how many batches were put in line
        self._ahead: deque[Pending] = deque()
        self._items = 0  # in there
        self._in_hand = False
        self._split = False  # whether what is given back is still in flight
        self._over = False  # whether what comes next was not begun
        self._ended = False
        self._trouble: Exception | None = None
        self._room = _AHEAD * slots.count
        self._batches = _BATCHES_AHEAD * slots.count if flight.batched else 2
        self.fresh: set[int] = set()

    def next(self, size: int, begun: float) -> Batch | None:
        """Return the next batch, of at most `size` items, whose calls have begun or will; `None`: see `Feed`.

        begun: when the work on it begins, a reading of `time.monotonic`. Raises what the source raised when it was read
        ahead, behind all the batches before.
        """
        if self._in_hand:
            self._items -= len(self._ahead.popleft().rest.items)
        self._in_hand = False
        if self._over:
            return None
        self._flight.unhurried()
        if not self._ahead:
            if self._trouble is not None:
                raise self._trouble
            batch = None if self._ended else self._feed.next(size, begun)
            if batch is None:
                return None
            self._put(batch)
        self._budget.begin(begun)
        self._read_ahead(size)
        self.head = self._ahead[0]
        self.fresh = {first for first, _ in self.head.units}
        self._in_hand = True
        return self.head.rest

    def _read_ahead(self, size: int) -> None:
        ahead = self._ahead
        while not self._ended and not self._gate.closed and not self._gate.held:
            # What is done should not wait until a pipe says more.
            if not self._wants_more() or (self._feed.far and ahead[0].complete):
                return
            room = self._budget.ahead(size, self._items, len(ahead))
            try:
                batch = self._feed.take(room) if room else None
            except Exception as error:  # noqa: BLE001  # it is raised behind what was read before it
                self._trouble, batch = error, None
            if batch is None:
                self._ended = room > 0
                return
            self._put(batch)

    def _wants_more(self) -> bool:
        ahead = self._ahead
        if self._flight.batched:
            return len(ahead) < self._batches
        return self._items - len(ahead[0].rest.items) < self._room or len(ahead) < self._batches

    def _put(self, batch: Batch) -> None:
        pending = Pending(batch, self._begun, batched=self._flight.batched)
        self._begun += 1
        self._items += len(batch.items)
        self._ahead.append(pending)
        self._slots.put(pending)

    def seq(self, pending: Pending) -> int:
        """Return the number of the commit that a batch will belong to, unless one before it is split."""
        return self._seq + pending.nth

    def foremost(self, pending: Pending, index: int) -> bool:
        """Tell whether an item is the first that is not committed."""
        ahead = self._ahead
        return bool(ahead) and ahead[0] is pending and index == pending.taken

    def may_split(self) -> bool:
        """Tell whether the budget has a batch more than are in the window."""
        return self._budget.ahead(1, 0, len(self._ahead)) > 0

    def split(self) -> None:
        """Keep in flight what will be given back."""
        self._split = True

    def give_back(self, rest: Batch) -> None:
        """Take this before anything else next time, if it is still in flight; else nothing more will be."""
        head = self.head
        done = len(head.rest.items) - len(rest.items)
        head.taken += done
        self._items -= done
        number = getattr(head.rest, "number", None)
        rest.number = None if number is None else number + done
        head.rest = rest
        self._in_hand = False
        if self._split:
            self._split = False
            self._seq += 1
        else:
            self._over = True

    def drain(self) -> None:
        """Begin nothing more: what has begun is still given, and then nothing; from any thread."""
        self._gate.held = True

    def close(self) -> None:
        """Let go of the source; what was not begun is not begun any more, but calls may begin again behind a drain."""
        if self._gate.held:
            for pending in self._ahead:
                self._flight.settled(pending)
            self._gate.held = False
        elif not all(pending.complete for pending in self._ahead):
            self._gate.closed = True
        self._feed.close()

    @property
    def ended(self) -> bool:
        """Whether everything there is was given."""
        return self._feed.ended and not self._over and not self._ahead
