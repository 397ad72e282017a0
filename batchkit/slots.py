"""Calls in flight: N threads, N tasks of an event loop or N processes, each with one call in hand at a time.

Calls begin in input order, so that those that have begun are always the first ones: at a stop, all that has begun can
be committed, and nothing else has to be.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from itertools import pairwise
from queue import SimpleQueue
from typing import Any, NamedTuple

from batchkit.errors import SkipItem, UsageError
from batchkit.failures import Stopped
from batchkit.model import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.budget import Budget
    from batchkit.calling import Caller
    from batchkit.failures import Policy, Retries
    from batchkit.isolation import IsolatedCaller
    from batchkit.model import Batch
    from batchkit.pace import Pace

_RECENT = 8
"""Of so many batched calls the slowest says how long the next one will take."""


class Raised(NamedTuple):
    """What a call raised that is no item's failure, such as `KeyboardInterrupt`: it ends the run."""

    error: BaseException


class Pending:
    """A batch whose calls stand in line, are in flight or have come back.

    rest: what of it the loop has not committed, `taken` items behind its beginning. units: the stretches `[first,
    stop)` of items that are called at once; unreadable items are in none. came: what became of a unit, by its first
    item; `None`: it is left to the next run.
    """

    __slots__ = ("batch", "came", "items", "nth", "rest", "settled", "taken", "units")

    def __init__(self, batch: Batch, nth: int, *, batched: bool) -> None:
        """Begin with none of its calls made; nth: how many batches came before it."""
        self.batch = self.rest = batch
        self.nth = nth
        self.taken = 0
        self.items: Any = batch.items if batched else list(batch.items)
        self.units = _stretches(batch) if batched else _singles(batch)
        self.came: dict[int, Outcome | Raised | None] = {}
        self.settled: list[None] = []  # one for each unit: an append tells its length to all threads alike

    def settle(self, first: int, outcome: Outcome | Raised | None) -> None:
        """Say what became of a unit."""
        self.came[first] = outcome
        self.settled.append(None)

    @property
    def complete(self) -> bool:
        """Whether all units are settled."""
        return len(self.settled) == len(self.units)


def _singles(batch: Batch) -> list[tuple[int, int]]:
    unreadable = batch.unreadable
    return [(index, index + 1) for index in range(len(batch.items)) if index not in unreadable]


def _stretches(batch: Batch) -> list[tuple[int, int]]:
    borders = [-1, *sorted(batch.unreadable), len(batch.items)]
    return [(left + 1, right) for left, right in pairwise(borders) if left + 1 < right]


class Gate:
    """Decides which calls may still begin; once closed, it stays so.

    closed: nothing begins any more. held: nothing begins for now. aborted: nothing is waited for, either.
    """

    def __init__(self, budget: Budget, policy: Policy, *, batched: bool) -> None:
        """Close with the budget, or after what ends the run anyway."""
        self._budget = budget
        self._stops = policy.on_error == "stop" and not batched
        self._batched = batched
        self._seconds: deque[float] = deque([0.0], maxlen=_RECENT)
        self.closed = False
        self.held = False
        self.aborted = False

    def open(self) -> bool:
        """Tell whether a call may begin now."""
        if self.closed or self.held or not self._budget.go_on():
            return False
        if self._batched and not self._budget.allows(max(self._seconds)):
            self._budget.stop("time")  # it would probably not end in time
        return self._budget.reason is None

    def took(self, seconds: float) -> None:
        """Hear how long a call took."""
        if self._batched:
            self._seconds.append(seconds)

    def judge(self, outcome: Outcome | Raised | None) -> None:
        """Close behind what ends the run: what comes after it would be done for nothing."""
        error = outcome.error if isinstance(outcome, Outcome) else None
        if error is None and isinstance(outcome, Outcome):
            return
        if error is None or (self._stops and not isinstance(error, SkipItem)):
            self.closed = True


class Desk(NamedTuple):
    """What all slots share.

    seq: tells the number of the commit that a unit will probably belong to. foremost: tells whether a unit is the first
    that is to be committed. told: hears that a unit is settled. identity: as for `Caller`.
    """

    gate: Gate
    budget: Budget
    retries: Retries
    pace: Pace | None
    seq: Callable[[Pending], int]
    foremost: Callable[[Pending, int], bool]
    told: Callable[[Pending], None]
    identity: Callable[[], Any]

    def settle(self, pending: Pending, first: int, outcome: Outcome | Raised | None) -> None:
        """Say what became of a unit."""
        pending.settle(first, outcome)
        self.told(pending)


class Threads:
    """Slots for functions that block: each has a thread, and what calls in it, perhaps in a process."""

    def __init__(self, count: int, make: Callable[[], Caller | IsolatedCaller], desk: Desk, *, batched: bool) -> None:
        """Start the threads, in the context of the thread that does; make: called in each of them, when it begins."""
        self.count = count
        self._make = make
        self._desk = desk
        self._batched = batched
        self._line: SimpleQueue[tuple[Pending, int, int] | None] = SimpleQueue()
        self._turn = threading.Lock()
        self._threads = [
            threading.Thread(
                target=contextvars.copy_context().run, args=(self._work,), name=f"batchkit-call-{number}", daemon=True
            )
            for number in range(count)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self._line.put(None)
            self._threads = [thread for thread in self._threads if thread.ident is not None]
            self.close(wait=True)
            raise UsageError(f"cannot have {count:,} calls in flight ({error}); give a lower concurrency") from error

    def put(self, pending: Pending) -> None:
        """Have the calls of a batch made."""
        for first, stop in pending.units:
            self._line.put((pending, first, stop))

    def close(self, *, wait: bool) -> None:
        """End the threads when their calls have ended; wait: for that, too."""
        for _ in self._threads:
            self._line.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        caller = None
        while (unit := self._next()) is not None:
            pending, first, stop = unit
            outcome: Outcome | Raised | None
            try:
                caller = caller or self._make()
                outcome = self._called(caller, pending, first, stop)
            except BaseException as error:  # noqa: BLE001  # it is raised where the loop comes to it
                outcome = Raised(error)
            self._desk.gate.judge(outcome)
            self._desk.settle(pending, first, outcome)
            del unit, pending, outcome  # idle, it holds on to nothing

    def _next(self) -> tuple[Pending, int, int] | None:
        """Take the next unit that may begin, one slot after the other, or else in no order; `None`: there are no more.

        While one waits for its turn the others wait behind it, as they would have to anyway.
        """
        desk = self._desk
        with self._turn:
            while (unit := self._line.get()) is not None:
                if desk.gate.open() and (desk.pace is None or desk.pace.wait(desk.budget)):
                    return unit
                desk.settle(unit[0], unit[1], None)
        return None

    def _called(self, caller: Caller | IsolatedCaller, pending: Pending, first: int, stop: int) -> Outcome | None:
        desk = self._desk
        caller.identity = desk.identity()
        begun = time.monotonic()
        if self._batched:
            outcome = caller(pending.batch, desk.seq(pending), first, stop)
            desk.gate.took(time.monotonic() - begun)
        else:
            outcome = caller.one(pending.batch, desk.seq(pending), first, pending.items[first])
        if outcome.error is None:
            return outcome

        def again() -> Outcome:
            if desk.gate.aborted or (desk.pace is not None and not desk.pace.wait(desk.budget)):
                raise Stopped
            return caller.again()

        ended = desk.retries.run(
            pending.items[first], outcome.error, again, foremost=lambda: desk.foremost(pending, first)
        )
        return ended and final(*ended, stop - first)


class Tasks:
    """Slots for async functions: tasks of one event loop."""

    def __init__(self, count: int, caller: Caller, desk: Desk) -> None:
        """Start the tasks in the loop of `caller`."""
        import asyncio  # noqa: PLC0415  # the caller of an async function has loaded it

        assert caller.loop is not None, "the function is async"
        self.count = count
        self._caller = caller
        self._desk = desk
        self._loop = caller.loop
        self._line: deque[tuple[Pending, int, int]] = deque()
        self._ended = False
        self._more = asyncio.Event()
        self._turn = asyncio.Lock()
        self._sleep = asyncio.sleep
        self._tasks = [self._loop.start(self._work()) for _ in range(count)]

    def put(self, pending: Pending) -> None:
        """Have the calls of a batch made."""
        self._loop.soon(self._add, [(pending, first, stop) for first, stop in pending.units])

    def _add(self, units: list[tuple[Pending, int, int]]) -> None:
        self._line.extend(units)
        self._more.set()

    def close(self, *, wait: bool) -> None:
        """End the tasks when their calls have ended; wait: for that, too."""

        def end() -> None:
            self._ended = True
            self._more.set()

        self._loop.soon(end)
        if wait:
            for task in self._tasks:
                task.result()

    async def _work(self) -> None:
        caller = self._caller.sibling()
        while (unit := await self._next()) is not None:
            pending, first, stop = unit
            outcome: Outcome | Raised | None
            try:
                outcome = await self._called(caller, pending, first, stop)
            except BaseException as error:  # noqa: BLE001  # as above; it would end the loop
                outcome = Raised(error)
            self._desk.gate.judge(outcome)
            self._desk.settle(pending, first, outcome)
            del unit, pending, outcome

    async def _next(self) -> tuple[Pending, int, int] | None:
        """Do as `Threads._next` does."""
        desk = self._desk
        if desk.pace is None and self._line and desk.gate.open():  # there is no wait in between
            return self._line.popleft()
        async with self._turn:
            while True:
                while not self._line:
                    if self._ended:
                        return None
                    self._more.clear()
                    await self._more.wait()
                unit = self._line.popleft()
                if desk.gate.open() and await self._paced():
                    return unit
                desk.settle(unit[0], unit[1], None)

    async def _paced(self) -> bool:
        if self._desk.pace is not None:
            for nap in self._desk.pace.naps(self._desk.budget):
                await self._sleep(nap)
        return self._desk.budget.reason is None

    async def _called(self, caller: Caller, pending: Pending, first: int, stop: int) -> Outcome | None:
        desk, batch, seq = self._desk, pending.batch, self._desk.seq(pending)
        caller.identity = desk.identity()
        if caller.batched:
            begun = time.monotonic()
            outcome = await caller.awhole(batch, seq, first, stop)
            desk.gate.took(time.monotonic() - begun)
        else:
            outcome = await caller.aone(batch, seq, first, pending.items[first])
        if outcome.error is None:
            return outcome

        async def again() -> Outcome:
            if desk.gate.aborted or not await self._paced():
                raise Stopped
            if caller.batched:
                return await caller.awhole(batch, seq, first, stop)
            return await caller.aone(batch, seq, first, pending.items[first])

        item = pending.items[first]
        ended = await desk.retries.arun(item, outcome.error, again, foremost=lambda: desk.foremost(pending, first))
        return ended and final(*ended, stop - first)


def final(outcome: Outcome, attempts: int, count: int) -> Outcome:
    """Return the outcome of the last attempt at a unit of `count` items, which is not to be followed by another."""
    return outcome._replace(tries=dict.fromkeys(range(count), attempts))
