"""What becomes of items that fail: tried again, found among the others, dropped, kept, or the end of the run."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from batchkit.errors import RetryLater, SkipItem, UnreadableItem, WorkerDied
from batchkit.model import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Mapping

    from batchkit.budget import Budget
    from batchkit.model import Batch

_SHOWN = 80
"""Characters of an item that a message shows."""

_TELL_WAITS = 5.0
"""Seconds from which on a person is told of a wait."""


class Policy(NamedTuple):
    """What is done about failures.

    on_error: "stop" the run at the first item that fails for good, or "skip": keep it as a failure and go on.
    retries: further attempts. retry_on: types of exceptions for which they are made.
    retry_wait: seconds before the second attempt, doubled before each further one, plus chance; retry_max_wait: the
    most.
    isolate: "bisect": a batch that fails as a whole is halved until the failing items stand alone; "none": all of its
    items fail.
    """

    on_error: str = "stop"
    retries: int = 0
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    retry_wait: float = 1.0
    retry_max_wait: float = 60.0
    isolate: str = "bisect"


def short(item: Any) -> str:
    """Return an item for a message."""
    from batchkit.tagged import shown  # noqa: PLC0415  # 10 ms of imports that few runs need

    text = shown(item)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def text_of(error: BaseException | None) -> str:
    """Return the text of an exception, whatever its `__str__` may raise."""
    try:
        return str(error)
    except Exception as raised:  # noqa: BLE001  # it is the user's own
        return f"({type(raised).__name__} in its __str__)"


class Done(NamedTuple):
    """Items from `first` on whose calls came back, in so many attempts: as many as `outcome.done` says."""

    first: int
    outcome: Outcome
    attempts: int = 1


class Failed(NamedTuple):
    """An item that failed for good with `error`, after so many attempts; `length` items of a batch not narrowed."""

    first: int
    length: int
    error: BaseException
    attempts: int


class Skipped(NamedTuple):
    """`length` items that the function dropped on purpose: one, or a batch that was not narrowed."""

    first: int
    length: int


class Calls(Protocol):
    """What calls the function: `calling.Caller`, where the contract is, and what stands in for it."""

    batched: bool

    def __call__(self, batch: Batch, seq: int, first: int = 0, stop: int | None = None) -> Outcome:
        """Call the function on items of a batch until one fails."""

    def go_on(self) -> Outcome:
        """Go on behind the item that failed."""

    def again(self) -> Outcome:
        """Call the function once more on what failed."""


class Attempts:
    """Works through batches in which something fails."""

    def __init__(self, caller: Calls, policy: Policy, budget: Budget, say: Callable[[str], None]) -> None:
        """Call through `caller`; `say` tells people of long waits."""
        self._caller = caller
        self._policy = policy
        self._budget = budget
        self._retries = Retries(policy, budget, say)
        self._paced: Callable[[], bool] = getattr(caller, "paced", lambda: True)

    def pieces(self, batch: Batch, seq: int, outcome: Outcome | None) -> Generator[Done | Failed | Skipped]:
        """Yield what becomes of the items of a batch, in order, as far as they are worked through.

        It ends early, between items, when the run is asked to stop, the batch is cut, or the budget ends while waiting.
        outcome: of the whole batch, if it was called already.
        """
        if outcome is not None:
            yield from self._settled(batch, seq, 0, len(batch.items), outcome)
            return
        first = 0
        for unreadable in [*sorted(batch.unreadable), len(batch.items)]:
            if first < unreadable:
                reached = yield from self.stretch(batch, seq, first, unreadable)
                if reached < unreadable:
                    return
            if unreadable < len(batch.items):
                yield Failed(unreadable, 1, UnreadableItem(batch.unreadable[unreadable]), 1)
            first = unreadable + 1

    def go_on(self) -> bool:
        """Tell whether further calls may be made: there is no request to stop, and it is before the deadline.

        Where there is a rate, it has waited until the next one may begin.
        """
        return self._budget.go_on() and self._paced()

    def stretch(self, batch: Batch, seq: int, first: int, stop: int) -> Generator[Done | Failed | Skipped, None, int]:
        """Yield the same for the items `[first, stop)`, all of which can be read."""
        return (yield from self._settled(batch, seq, first, stop, self._caller(batch, seq, first, stop)))

    def _settled(
        self, batch: Batch, seq: int, first: int, stop: int, outcome: Outcome
    ) -> Generator[Done | Failed | Skipped, None, int]:
        """Take a stretch from its first outcome to its end; return the index up to which it was worked through."""
        if self._caller.batched:
            return (yield from self._whole(batch, seq, first, stop, outcome))
        return (yield from self._each(batch, first, outcome))

    def _each(self, batch: Batch, first: int, outcome: Outcome) -> Generator[Done | Failed | Skipped, None, int]:
        """Take a stretch of single calls, one of which may have failed."""
        while True:
            if outcome.done:
                yield Done(first, outcome)
            first += outcome.done
            if outcome.error is None:
                return first
            again = self._tried_again(batch, first, outcome)
            if again is None:
                return first
            last, attempts = again
            yield _verdict(first, 1, last, attempts)
            first += 1
            outcome = self._caller.go_on()

    def _whole(
        self, batch: Batch, seq: int, first: int, stop: int, outcome: Outcome
    ) -> Generator[Done | Failed | Skipped, None, int]:
        """Take a stretch that was called at once."""
        if outcome.error is None:
            yield Done(first, outcome)
            return stop
        again = self._tried_again(batch, first, outcome)
        if again is None:
            return first
        last, attempts = again
        if last.error is None or stop - first == 1 or self._policy.isolate == "none":
            yield _verdict(first, stop - first, last, attempts)
            return stop
        return (yield from self.narrowed(batch, seq, first, stop))

    def narrowed(self, batch: Batch, seq: int, first: int, stop: int) -> Generator[Done | Failed | Skipped, None, int]:
        """Halve a stretch of several items that failed as a whole until the failing ones stand alone.

        If nothing fails in the first half, something will in the second: that is not called before it is halved. So k
        bad items among n cost about k log2(n) calls. No item is blamed without a call of its own.
        """
        middle = (first + stop) // 2
        blamed = False
        for start, end, suspect in ((first, middle, False), (middle, stop, True)):
            if not self.go_on():
                return start
            if suspect and not blamed and end - start > 1:
                reached = yield from self.narrowed(batch, seq, start, end)
            else:
                outcome = self._caller(batch, seq, start, end)
                blamed = outcome.error is not None
                if blamed and end - start > 1:
                    reached = yield from self.narrowed(batch, seq, start, end)
                else:
                    reached = yield from self._whole(batch, seq, start, end, outcome)
            if reached < end:
                return reached
        return stop

    def _tried_again(self, batch: Batch, first: int, failed: Outcome) -> tuple[Outcome, int] | None:
        """Call once more what failed, from the item at `first` on, unless that was done already; see `Retries`."""
        assert failed.error is not None, "asked only then"
        if failed.tries is None:
            return self._retries.run(batch.items[first], failed.error, self._caller.again, foremost=lambda: first == 0)
        return Outcome([], 0, failed.error), failed.tries.get(failed.done, 1)


class Retries:
    """Makes further attempts at a call that failed, as often as the policy says, and waits in between.

    What fails after a request to stop is part of the stop: Ctrl-C also reached what the function had started.
    """

    def __init__(self, policy: Policy, budget: Budget, say: Callable[[str], None]) -> None:
        """`say` tells people of long waits. May be used by several threads at once."""
        self._policy = policy
        self._budget = budget
        self._say = say

    def run(
        self, item: Any, error: BaseException, again: Callable[[], Outcome], *, foremost: Callable[[], bool]
    ) -> tuple[Outcome, int] | None:
        """Call `again`; return the last outcome and the number of attempts; `None`: it is to be left to the next run.

        again: may raise `Stopped`. error: what the first attempt raised. foremost: tells whether nothing that is to be
        committed comes before it.
        """
        series = _Series(error)
        if self._worth_another(series):
            from tenacity import Retrying  # noqa: PLC0415  # 50 ms, and few runs need it

            def call() -> None:
                if not series.is_known():
                    series.add(again())

            def sleep(seconds: float) -> None:
                self._before(seconds, foremost())
                if not self._budget.wait(seconds):
                    raise Stopped

            try:
                Retrying(sleep=sleep, **self._rules(item, series))(call)
            except Stopped:
                return None
            except _GivenUp:
                pass
        return self._ended(series)

    async def arun(
        self, item: Any, error: BaseException, again: Callable[[], Awaitable[Outcome]], *, foremost: Callable[[], bool]
    ) -> tuple[Outcome, int] | None:
        """Do the same in an event loop."""
        series = _Series(error)
        if self._worth_another(series):
            import asyncio  # noqa: PLC0415  # who has a loop has loaded it

            from tenacity import AsyncRetrying  # noqa: PLC0415  # as above

            async def call() -> None:
                if not series.is_known():
                    series.add(await again())

            async def sleep(seconds: float) -> None:
                self._before(seconds, foremost())
                for nap in self._budget.naps(seconds):
                    await asyncio.sleep(nap)
                if self._budget.reason is not None:
                    raise Stopped

            try:
                await AsyncRetrying(sleep=sleep, **self._rules(item, series))(call)
            except Stopped:
                return None
            except _GivenUp:
                pass
        return self._ended(series)

    def _rules(self, item: Any, series: _Series) -> Mapping[str, Any]:
        backoff = _backoff(self._policy)
        return {
            "retry": lambda _: self._worth_another(series),
            "stop": lambda _: False,  # the line above says when: it depends on the error
            "wait": lambda state: self._pause(item, series, lambda: backoff(state)),
        }

    def _worth_another(self, series: _Series) -> bool:
        error, attempts = series.outcome.error, series.attempts
        if error is None or isinstance(error, SkipItem) or self._budget.asked:
            return False
        if isinstance(error, WorkerDied) and attempts == 1:
            return True  # whoever killed it may have meant another: only a second death is the item's
        return attempts <= self._policy.retries and isinstance(error, (RetryLater, *self._policy.retry_on))

    def _pause(self, item: Any, series: _Series, backoff: Callable[[], float]) -> float:
        """Return for how many seconds to wait before the next attempt; a long wait is told."""
        error, attempts = series.outcome.error, series.attempts
        if isinstance(error, WorkerDied) and attempts == 1:
            return 0.0
        seconds = min(backoff(), self._policy.retry_max_wait)
        if isinstance(error, RetryLater) and error.after is not None:
            seconds = error.after
        if seconds >= _TELL_WAITS:
            what = " ".join(f"{short(item)}: {type(error).__name__}: {text_of(error)}".split())
            self._say(f"attempt {attempts} failed, the next one is in {seconds:.0f} s: {what}")
        return seconds

    def _before(self, seconds: float, foremost: bool) -> None:  # noqa: FBT001  # of this class
        """Give up where the run would end by waiting, and has not come any further than where it began.

        A wait beyond the time limit is left to the next run. But where that begins with the item and the same happens,
        no run would ever come any further: then the last attempt counts.
        """
        if foremost and not self._budget.progressed and not self._budget.allows(seconds):
            raise _GivenUp

    def _ended(self, series: _Series) -> tuple[Outcome, int] | None:
        if series.outcome.error is not None and self._budget.asked:
            return None
        return series.outcome, series.attempts


class Patience:
    """Has lost connections again: as often, and after such waits, as calls are tried again."""

    def __init__(self, policy: Policy, budget: Budget, say: Callable[[str], None]) -> None:
        """`say` tells people of each wait."""
        self._policy = policy
        self._budget = budget
        self._say = say

    def __call__(self, operation: Callable[[], Any], lost: type[Exception]) -> Any:
        """Call until it does not raise `lost`, and return what it returns. The last such error is raised."""
        try:
            return operation()
        except lost as error:
            if not self._policy.retries:
                raise
            first = error
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt  # noqa: PLC0415  # as above

        def sleep(seconds: float) -> None:
            self._say(f"{first}; trying again in {seconds:.1f} s")
            if not self._budget.wait(seconds):
                raise first

        sleep(self._policy.retry_wait)
        again = Retrying(
            retry=retry_if_exception_type(lost),
            stop=stop_after_attempt(self._policy.retries),
            wait=_backoff(self._policy),
            sleep=sleep,
            reraise=True,
        )
        return again(operation)


def _backoff(policy: Policy) -> Any:
    from tenacity import wait_exponential, wait_random  # noqa: PLC0415  # 50 ms, and few runs need it

    return wait_exponential(policy.retry_wait, policy.retry_max_wait) + wait_random(0, policy.retry_wait)


class _Series:
    """The attempts at one call so far; outcome: of the last."""

    def __init__(self, error: BaseException) -> None:
        self.outcome = Outcome([], 0, error)
        self.attempts = 1
        self._told = False

    def is_known(self) -> bool:
        """Tell the first time that the first attempt was made already."""
        told, self._told = self._told, True
        return not told

    def add(self, outcome: Outcome) -> None:
        """Take in a further attempt."""
        self.outcome, self.attempts = outcome, self.attempts + 1


class _GivenUp(Exception):
    """There will be no further attempt."""


class Stopped(Exception):
    """The run is to stop instead of waiting."""


def _verdict(first: int, count: int, outcome: Outcome, attempts: int) -> Done | Failed | Skipped:
    """Say what became of an item, or of `count` that were called at once, in the last attempt."""
    if outcome.error is None:
        return Done(first, outcome, attempts)
    if isinstance(outcome.error, SkipItem):
        return Skipped(first, count)
    return Failed(first, count, outcome.error, attempts)
