"""When to stop: limits of one run in time, items and batches, and requests to stop.

The time limit is predictive. What a batch will take is guessed from this run's recent ones (their slowest); a batched
call that would probably not end before the deadline is not begun, and a batch of single items is made as short as
what is left allows.
"""

from __future__ import annotations

import datetime
import math
import os
import re
import signal
import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from batchkit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    Duration = str | float | datetime.timedelta

LEASE_LOST = "lease"
"""The reason of a run whose lease another host has taken: see `locks.leased`."""

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_RECENT = 8
_WATCH_EVERY = 0.1
_WAIT_STEP = 0.1
"""Seconds after which a wait looks for a request to stop: a signal handler may not wake what waits for a lock."""
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Interrupted(BaseException):
    """Raised by a stop signal while the reader waits for input: there is no item in hand to finish."""


class Terms(NamedTuple):
    """The limits of a run as its workers get them.

    deadline: a reading of the host's monotonic clock; left: the seconds until it, for other hosts; infinite: none.
    leased: whether items or batches are limited.
    """

    host: str
    deadline: float
    left: float
    batch_seconds: float
    divisible: bool
    leased: bool


class Lease(Protocol):
    """Gives more items, batches or both, whatever is asked for; 0: there are none left."""

    def __call__(self, *, items: bool, batches: bool) -> tuple[float, float]:
        """Return how many of both."""


class Budget:
    """The limits of one run.

    max_time: seconds; max_items, max_batches: counts; `None` means no limit. batch_seconds: a batch of single items is
    cut after so long. divisible: whether a batch may be cut between items (not for a batched function).
    limits: what it was given. limited: whether there is any limit but `batch_seconds`.
    progressed: whether this run has committed anything. lost: whether it must not commit any more.
    lease: gives more when what is at hand is used up; `None`: there is no more. See `quota`.
    reason: why the run is to stop: "time", "wait" (one would be too long), "items", "batches", a signal's name; `None`
    while it is not.
    """

    def __init__(  # keyword-only limits
        self,
        *,
        max_time: float | None = None,
        max_items: int | None = None,
        max_batches: int | None = None,
        batch_seconds: float | None = None,
        divisible: bool = True,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Start the clock."""
        self.reason: str | None = None
        self.progressed = False
        self.lost = False
        self.waiting = False  # whether the reader is waiting for input: nothing in hand
        self.wakeable = False  # whether a signal ends the wait: only the main thread handles any
        self.waking = False  # whether the signal on its way is our own
        self.leaving = False  # whether the one on its way is to end the run at once
        self._clock = clock
        self._sleep = sleep
        self._deadline = math.inf if max_time is None else clock() + max_time
        self._items = math.inf if max_items is None else max_items
        self._batches = math.inf if max_batches is None else max_batches
        self._batch_seconds = math.inf if batch_seconds is None or not divisible else batch_seconds
        self._divisible = divisible
        self.limits = {"max_time": max_time, "max_items": max_items, "max_batches": max_batches}
        self.limited = any(limit is not None for limit in self.limits.values())
        self.lease: Lease | None = None
        self._recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        self._begun = math.inf
        self._cut: Callable[[], None] = lambda: None
        self._inner: list[Budget] = []

    @classmethod
    def of_worker(cls, terms: Terms) -> Budget:
        """Return the budget of a worker of the run that has these terms, which leases items and batches."""
        left = terms.left if terms.host != os.uname().nodename else terms.deadline - time.monotonic()
        budget = cls(
            max_time=None if math.isinf(left) else max(0.0, left),
            batch_seconds=None if math.isinf(terms.batch_seconds) else terms.batch_seconds,
            divisible=terms.divisible,
        )
        if terms.leased:
            budget.limited = True
            budget.drop()
        return budget

    def terms(self) -> Terms:
        """Return what workers of this run have to keep to."""
        leased = not (math.isinf(self._items) and math.isinf(self._batches))
        left = self._deadline - self._clock()
        return Terms(os.uname().nodename, self._deadline, left, self._batch_seconds, self._divisible, leased)

    @property
    def left(self) -> tuple[float, float]:
        """Items and batches that may still be done."""
        return self._items, self._batches

    def drop(self) -> None:
        """Have no items and batches at hand: more are to be leased."""
        self._items = self._batches = 0

    def attach(self, cut: Callable[[], None]) -> None:
        """Name what cuts the batch in hand at the end of its current item."""
        self._cut = cut

    def room(self, size: int, now: float) -> int:
        """Return how many items the next batch may have, at most `size`; 0: stop, and `reason` says why."""
        self._begun = now
        if self.reason is not None:
            return 0
        if not self.limited:
            return size
        if self.lease is not None and (self._items <= 0 or self._batches <= 0):
            items, batches = self.lease(items=self._items <= 0, batches=self._batches <= 0)
            self._items += items
            self._batches += batches
        if self._items <= 0:
            self.reason = "items"
        elif self._batches <= 0:
            self.reason = "batches"
        room = int(min(size, max(0, self._items)))
        fits = self._fits(room, self._deadline - now)
        if fits == 0 and self.reason is None:
            self.reason = "time"
        return 0 if self.reason is not None else fits

    def begin(self, now: float) -> None:
        """Begin to count a batch's own time, where `room` was not asked for it."""
        self._begun = now

    def ahead(self, size: int, items: int, batches: int) -> int:
        """Return how many further items may be taken, at most `size`, while so many items and batches are in hand."""
        if self.reason is not None or self._batches <= batches:
            return 0
        return int(min(size, max(0, self._items - items)))

    def _fits(self, size: int, left: float) -> int:
        """Return how many of `size` items probably end within `left` seconds."""
        if left <= 0:
            return 0
        if math.isinf(left) or not self._recent:
            return size
        if not self._divisible:
            return size if max(seconds for _, seconds in self._recent) <= left else 0
        slowest = max(seconds / items for items, seconds in self._recent)
        return min(size, int(left / slowest)) if slowest > 0 else size

    def spend(self, items: int, seconds: float) -> None:
        """Count a committed batch; needed only where the run is `limited`."""
        self._begun = math.inf
        self.progressed = True
        self._items -= items
        self._batches -= 1
        if items:
            self._recent.append((items, seconds))

    def go_on(self) -> bool:
        """Tell whether work without items, such as publishing, may go on."""
        if self.reason is None and self._clock() >= self._deadline:
            self.reason = "time"
        return self.reason is None

    def allows(self, seconds: float) -> bool:
        """Tell whether a wait of so many seconds would end before the deadline."""
        return self._clock() + seconds < self._deadline

    def wait(self, seconds: float) -> bool:
        """Wait; return whether the run may go on then: there is no request to stop, and it is before the deadline.

        A wait that would go beyond the deadline is not begun: then the run is to stop now.
        """
        for nap in self.naps(seconds):
            self._sleep(nap)
        return self.reason is None

    def nap(self, seconds: float) -> None:
        """Sleep, so long as `naps` says."""
        self._sleep(seconds)

    def naps(self, seconds: float) -> Iterator[float]:
        """Yield, for `wait`, how long to sleep before asking again, until the wait is over."""
        until = self._clock() + seconds
        if not self.allows(seconds) and self.reason is None:
            self.reason = "wait"
        while self.reason is None and (left := until - self._clock()) > 0:
            yield min(left, _WAIT_STEP)

    def stop(self, reason: str) -> None:
        """Ask the run to stop at the end of the item (a batched function: of the batch) in hand."""
        if self.reason is None:
            self.reason = reason
        if self._divisible:
            self._cut()
        for inner in list(self._inner):
            inner.stop(reason)

    def adopt(self, inner: Budget) -> None:
        """Let a run that is part of this one end with it."""
        if self._deadline < inner._deadline:
            inner._deadline = self._deadline
            inner.limited = True
        self._inner.append(inner)
        if self.reason is not None:
            inner.stop(self.reason)

    def release(self, inner: Budget) -> None:
        """Let it go, when it has ended."""
        self._inner.remove(inner)

    def extend(self, seconds: float) -> None:
        """Move the deadline, if there is one, and those of the runs that are part of this one; from any thread."""
        self._deadline += seconds
        for inner in list(self._inner):
            inner.extend(seconds)

    def wake(self) -> None:
        """End a wait of the main thread for input; from any thread, when there is a reason to stop."""
        if self.waiting and self.wakeable and not self.waking:
            self.waking = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    def leave(self) -> None:
        """End the run at once, as a second stop signal does; from any thread. Without signals it stops soon."""
        if self.wakeable:
            self.leaving = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def lose(self) -> None:
        """Stop, and commit nothing more: what is worked on is somebody else's by now."""
        self.lost = True
        self.stop(LEASE_LOST)

    @property
    def asked(self) -> bool:
        """Whether somebody asked the run to stop."""
        return self.reason in STOP_SIGNALS

    def look(self) -> None:
        """Cut the batch in hand if the deadline or its own time has come; the watch calls this now and then."""
        now = self._clock()
        if self.waiting:
            self._begun = now  # the batch's own time begins when its items are there
        asked = self.reason is not None  # perhaps between granting the batch and calling: then nothing was cut
        if self._divisible and (asked or now >= self._deadline or now - self._begun >= self._batch_seconds):
            self._begun = math.inf
            self._cut()

    @contextmanager
    def waiting_for(self, *, far: bool) -> Iterator[None]:
        """Let a request to stop end the block by `Interrupted`, if it goes `far`: through a pipe or an archive."""
        self.waiting = far
        try:
            if far and self.reason is not None:
                raise Interrupted
            yield
        finally:
            self.waiting = False

    @contextmanager
    def watched(self, tick: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Look at the clock from a thread while the block runs: a reading per item would cost 56 ns each.

        tick: called now and then, too; for what is to be seen while nothing is committed.
        """
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_WATCH_EVERY):
                self.look()
                tick()
                if self.waiting and self.wakeable and self._clock() >= self._deadline:
                    self.stop("time")
                    self.wake()

        thread = threading.Thread(target=watch, name="batchkit-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


_active: list[Budget] = []
"""The budgets of the runs in the main thread, outermost first."""


def _stop_all(reason: str) -> None:
    """Stop every run: a function may itself call `process()`, and the request is for all."""
    for budget in _active:
        budget.stop(reason)


_outer = threading.local()
"""The budget of which the runs in this thread are a part, if there is one."""


@contextmanager
def part_of(budget: Budget) -> Iterator[list[Budget]]:
    """Let runs in this thread end when `budget` does; yield a list of those that began."""
    begun: list[Budget] = []
    _outer.budget, _outer.begun = budget, begun
    try:
        yield begun
    finally:
        _outer.budget = None


@contextmanager
def stopping_on_signals(
    budget: Budget, abort: Callable[[int], None], say: Callable[[str], None] = lambda _text: None
) -> Iterator[None]:
    """Turn the first stop signal into a stop request, of which `say` tells, and the second into `abort(number)`.

    Outside the main thread, where Python handles no signals, the run stops with the one it is part of, if it is of any.
    Earlier handlers are put back at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        with _adopted(budget):
            yield
        return
    seen = False

    owner = os.getpid()

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal seen
        if os.getpid() != owner:  # a process that the function forked: none of our business
            signal.signal(number, earlier[number])
            os.kill(os.getpid(), number)
            return
        if (seen or budget.leaving) and not budget.waking:
            abort(number)
        if not budget.waking:
            seen = True
            _stop_all(signal.Signals(number).name)
            say("finishing what is in hand; a second signal leaves at once")
        budget.waking = False
        if budget.waiting:
            budget.waiting = False
            raise Interrupted

    earlier: dict[int, Any] = {}
    for name in STOP_SIGNALS:
        number = getattr(signal, name)
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and shells ignore some on purpose
            earlier[number] = signal.signal(number, handle)
    _active.append(budget)
    budget.wakeable = True
    try:
        yield
    finally:
        _active.remove(budget)
        budget.wakeable = False
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def _adopted(budget: Budget) -> Iterator[None]:
    outer: Budget | None = getattr(_outer, "budget", None)
    if outer is None:
        yield
        return
    _outer.begun.append(budget)
    outer.adopt(budget)
    try:
        yield
    finally:
        outer.release(budget)


def seconds_of(duration: Duration | None, name: str) -> float | None:
    """Return `90`, `"90s"`, `"10m"`, `"2h30m"` or a `timedelta` in seconds; `None` stays. Raises `UsageError`."""
    if duration is None:
        return None
    if isinstance(duration, datetime.timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, str):
        text = duration.strip().lower()
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|[smhd]?)", text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise UsageError(f"{name} is {duration!r}; give a duration such as 90, 90s, 10m or 2h30m")
        seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in parts)
    else:
        seconds = float(duration)
    if not 0 <= seconds < math.inf:
        raise UsageError(f"{name} is {duration!r}; give a duration of at least 0")
    return seconds


def seconds_until(moment: str | datetime.datetime | None, now: datetime.datetime) -> float | None:
    """Return the seconds from `now` until a `"06:00"` (the next one), an ISO timestamp or a `datetime`; `None` stays.

    now: with time zone. A moment without one is local time. A moment in the past gives 0. Raises `UsageError`.
    """
    if moment is None:
        return None
    if isinstance(moment, str):
        clock = re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", moment.strip())
        try:
            if clock:
                hour, minute, second = (int(part or 0) for part in clock.groups())
                local = now.astimezone().replace(hour=hour, minute=minute, second=second, microsecond=0, tzinfo=None)
                if local.astimezone() <= now:
                    local += datetime.timedelta(days=1)
                moment = local
            else:
                moment = datetime.datetime.fromisoformat(moment.strip())
        except ValueError:
            raise UsageError(f"until is {moment!r}; give a time such as 06:00 or 2026-12-01T06:00") from None
    return max(0.0, (moment.astimezone() - now).total_seconds())
