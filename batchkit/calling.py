"""How the user's function is called, and what it may know about the call."""

from __future__ import annotations

import contextlib
import contextvars
import copy
import functools
import inspect
import os
import sys
import traceback
from itertools import chain
from typing import Any, NoReturn

from batchkit.budget import Interrupted
from batchkit.current import CurrentBatch, Identity
from batchkit.errors import BatchkitError, UsageError
from batchkit.ledger import AlreadyDone, Call, Ended
from batchkit.model import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchkit.awaiting import EventLoop
    from batchkit.ledger import Ledger
    from batchkit.model import Batch


_NOTHING: list[Any] = []
_STOPS = (KeyboardInterrupt, Interrupted)
"""What ends a run, wherever it is raised."""

_caller: contextvars.ContextVar[Caller] = contextvars.ContextVar("batchkit_caller")


def current_batch() -> CurrentBatch:
    """Return what batchkit knows about the call in progress. Raises `UsageError` outside of one."""
    caller = _caller.get(None)
    if caller is None or caller.batch is None:
        raise UsageError("current_batch() works only inside a function that batchkit is calling")
    return caller.current()


def calling() -> tuple[Ledger, Call]:
    """Return the ledger for the call in progress, and what it is called with.

    Raises `UsageError` outside of a call; in one that has no ledger, this ends the run.
    """
    caller = _caller.get(None)
    if caller is None or caller.batch is None:
        raise UsageError("transaction() works only inside a function that batchkit is calling")
    if caller.ledger is None or caller.loop is not None:
        raise Ended(
            UsageError(
                "transaction() needs a job with a name or a file, and plain calls in the run's own process, one after "
                "the other: no async function, concurrency, rate, timeout or isolate_process"
            )
        )
    return caller.ledger, caller.call()


class Caller:
    """Calls the function on batches; made once per worker.

    function: called with an item, or with the list of items if `batched`; `None` passes items through. A class whose
    instances can be called is made once and closed at the end (`close()` or context manager). An async function is
    awaited, one call at a time, in an event loop of its own: `loop`, and `awaited` is what it calls; else both `None`.
    ledger: of the shard, for transactions of the function's own; `None`: it can have none.
    """

    def __init__(
        self,
        function: Callable[..., Any] | None,
        *,
        batched: bool,
        identity: Identity,
        batch_format: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Make the function ready. Raises `BatchkitError` if a class cannot be made.

        batch_format: what a batched function is called with: "polars", "arrow", "dicts" (a list of the items); `None`:
        a polars.DataFrame for rows of a table, else a list.
        timeout: seconds that a call of an async function may take; `None`: no limit. Others cannot be ended from here.
        """
        self._batch_format = batch_format
        self.batch: Batch | None = None
        self.ledger: Ledger | None = None
        self._pid, self._forks = os.getpid(), _forks
        self.identity = identity
        self.batched = batched
        self._seq = 0
        self._work: Any = _NOTHING
        self._left: Any = iter(())
        self._results: list[Any] = []
        self._first = 0
        self._in_hand: Any = None
        self._call = self._call_batch if batched else self._call_each
        self._close: Callable[[], object] = lambda: None
        self._function = function if function is None else self._make(function)
        self._outer = _caller.set(self)
        called = _called(self._function)
        self._generates = not batched and (inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called))
        self.loop: EventLoop | None = None
        self.awaited: Callable[..., Any] | None = None
        if is_async(self._function):
            from batchkit.awaiting import EventLoop  # noqa: PLC0415  # loads asyncio

            assert self._function is not None, "None is no async function"
            self.loop, self.awaited = EventLoop(timeout), self._function
            self._function = self.loop.calling(self._function)

    def sibling(self) -> Caller:
        """Return another that calls the same function, made in the thread (or task) that calls through it.

        `current_batch()` is its own there. It is not to be closed.
        """
        other = copy.copy(self)
        other._begin()  # noqa: SLF001  # of this class
        return other

    def _begin(self) -> None:
        self.batch = None
        self._work = self._results = _NOTHING
        self._call = self._call_batch if self.batched else self._call_each
        _caller.set(self)

    def _make(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not _makes_callables(function):
            return function
        try:
            made = function()
        except Exception as error:
            raise BatchkitError(f"cannot make a {name_of(function)}: {type(error).__name__}: {error}") from error
        if hasattr(made, "__enter__") and hasattr(made, "__exit__"):
            self._close = lambda: made.__exit__(None, None, None)
            entered = made.__enter__()
            return entered if callable(entered) else made  # type: ignore[no-any-return]
        if hasattr(made, "close"):
            self._close = made.close
        return made  # type: ignore[no-any-return]

    def __call__(self, batch: Batch, seq: int, first: int = 0, stop: int | None = None) -> Outcome:
        """Call the function on items of a batch, all of which can be read, until one fails or until `cut`.

        first, stop: only these; the outcome counts them from `first`.
        """
        items = batch.items if stop is None else batch.items[first:stop]
        if self._function is None:
            return Outcome(items, len(items))
        self.batch, self._seq, self._first = batch, seq, first
        if self.batched:
            self._work = items
        else:
            self._work = work = list(items)
            self._left = iter(work)
        return self._guarded()

    def one(self, batch: Batch, seq: int, index: int, item: Any) -> Outcome:
        """Call a function that is not batched with `item`, which is that of a batch at `index`."""
        self.batch, self._seq, self._first = batch, seq, index
        self._work = work = [item]
        self._left = iter(work)
        return self._guarded()

    async def aone(self, batch: Batch, seq: int, index: int, item: Any) -> Outcome:
        """Do the same in the loop of an async function."""
        assert self.loop is not None, "the function is async"
        self.batch, self._seq, self._first, self._results = batch, seq, index, _NOTHING
        try:
            value = await self.loop.within_limit(self.awaited, item)
        except _STOPS:
            raise
        except BaseException as raised:  # noqa: BLE001  # as in `_call_each`
            return Outcome([], 0, raised, [] if self._generates else None)
        finally:
            self.batch = None
        return Outcome(value, 1, sizes=[len(value)]) if self._generates else Outcome([value], 1)

    async def awhole(self, batch: Batch, seq: int, first: int, stop: int) -> Outcome:
        """Await a batched function on items of a batch, in the loop of it."""
        assert self.loop is not None, "the function is async"
        self.batch, self._seq, self._first = batch, seq, first
        self._work = items = batch.items[first:stop]
        try:
            results = listed(await self.loop.within_limit(self.awaited, self._argument(items)))
        except _STOPS:
            raise
        except BaseException as raised:  # noqa: BLE001  # as in `_call_batch`
            return Outcome([], 0, raised, one_each=False)
        finally:
            self.batch, self._work = None, _NOTHING
        return Outcome(results, len(items), one_each=len(results) == len(items))

    def go_on(self) -> Outcome:
        """Go on behind the item that failed; the outcome counts the items from there.

        A batched call fails as a whole: nothing is left then.
        """
        if self.batched:
            return Outcome([], 0)
        self._first += len(self._results) + 1
        return self._guarded()

    def again(self) -> Outcome:
        """Call the function once more on what failed, item or items; leaves alone what `go_on` goes on with."""
        if self.batched:
            return self._guarded()
        state = self.batch, self._work, self._left, self._results, self._first, self._in_hand
        self._first += len(self._results)
        self._left = iter([self._in_hand])
        try:
            return self._guarded()
        finally:
            self.batch, self._work, self._left, self._results, self._first, self._in_hand = state

    def _guarded(self) -> Outcome:
        """Make the calls that are due; a process that the function forked never comes back from here."""
        outcome = None
        try:
            outcome = self._call()
        finally:
            if _forks != self._forks and os.getpid() != self._pid:
                _leave_child(None if outcome is None else outcome.error)
        if outcome.error is None:
            # Let go of the batch here: held until the next one, it would keep that out of the processor's cache.
            self.batch = None
            self._work = self._results = _NOTHING
        return outcome

    def _call_each(self) -> Outcome:
        """Call the function item by item.

        `results` keeps what came before an exception, and tells by its length which item is in hand. The loop ends
        early when the list that feeds it is emptied: being cut costs nothing until it happens.
        """
        results = self._results = []
        append = results.append
        call: Any = self._function
        if self._generates:
            call = functools.partial(_collect, call)
        error: BaseException | None = None
        while True:
            try:
                for item in self._left:
                    append(call(item))
            except _STOPS:
                raise
            except AlreadyDone:
                self.ledger.swallowed = False  # type: ignore[union-attr]  # which raised it
                append([] if self._generates else None)
                continue
            except BaseException as raised:  # noqa: BLE001  # whatever else it raises is the item's; so are panics of Rust
                error = raised
                self._in_hand = item
            break
        if (ledger := self.ledger) is not None and ledger.used:
            answers = [results[index - self._first] for index in ledger.answered if index - self._first < len(results)]
            self._account_for(ledger, error, answers)
        elif isinstance(error, Ended):
            raise error.error
        count = len(results)
        if self._generates:
            return Outcome(list(chain.from_iterable(results)), count, error, [len(each) for each in results])
        return Outcome(results, count, error)

    def _call_batch(self) -> Outcome:
        items = self._work
        if not len(items):
            return Outcome([], 0)
        argument = self._argument(items)
        if self.ledger is not None:
            self.ledger.stored = None
        try:
            results = self._function(argument)  # type: ignore[misc]
            results = listed(results)
        except _STOPS:
            raise
        except AlreadyDone as known:
            return self._call_parts(items, known.parts)
        except BaseException as raised:  # noqa: BLE001  # as above
            self._account_for(self.ledger, raised, [])
            return Outcome([], 0, raised, one_each=False)
        if (ledger := self.ledger) is not None and ledger.used:
            self._account_for(ledger, None, [results] if ledger.answered else [])
        return Outcome(results, len(items), one_each=len(results) == len(items))

    def _call_parts(self, items: Any, parts: list[tuple[int, int, bool]]) -> Outcome:
        """Call a batched function on what of its items its database does not have; if that fails, all of it does."""
        assert self.ledger is not None, "which knows the parts"
        self.ledger.swallowed = False
        first, outcome = self._first, Outcome([], 0)
        for start, stop, done in parts:
            if not done and outcome.error is None:
                self._first, self._work = first + start, items[start:stop]
                outcome = self._call_batch()
        self._first, self._work = first, items
        return Outcome([], 0 if outcome.error else len(items), outcome.error, one_each=False)

    def _account_for(self, ledger: Ledger | None, error: BaseException | None, answers: list[Any]) -> None:
        """See that calls with transactions went as these must; answers: what they returned. Raises `BatchkitError`."""
        if isinstance(error, Ended):
            raise error.error
        if ledger is None or not ledger.used:
            return
        answered = [answer for answer in answers if not _is_nothing(answer)]
        ledger.answered = []
        if error is not None and ledger.stored == self.call():
            raise BatchkitError(
                f"the function raised {type(error).__name__} behind its transaction, which is committed: {error}; "
                "let the transaction be the last thing that can fail, and run it again to go on behind it"
            ) from error
        if ledger.open or ledger.swallowed:
            raise UsageError(
                "the function has not left batchkit.transaction() as it must: use it in a with statement, and let what "
                "it raises pass"
            )
        if answered:
            raise UsageError(
                "the function returned results of a call with a transaction(), after which they can be lost; store "
                "them in that transaction, and return nothing"
            )

    def call(self) -> Call:
        """Return what the function is called with just now."""
        assert self.batch is not None, "asked from within a call"
        if self.batched:
            return Call(self.batch, self._first, len(self._work))
        return Call(self.batch, self._first + len(self._results), 1)

    def _argument(self, items: Sequence[Any]) -> Any:
        """Return what a batched function is called with."""
        wanted, frame = self._batch_format, getattr(items, "frame", None)
        if wanted == "dicts" or (wanted is None and frame is None):
            return list(items)
        if wanted != "arrow" and frame is not None:
            return frame
        from batchkit.frames.rows import shaped  # noqa: PLC0415  # loads polars

        return shaped(items, wanted)

    def current(self) -> CurrentBatch:
        """Describe the call in progress."""
        assert self.batch is not None, "only called from within a call"
        if self.batched:
            return CurrentBatch(self.identity, self._seq, self.batch, self._first, len(self._work))
        return CurrentBatch(self.identity, self._seq, self.batch, self._first + len(self._results), 1)

    def cut(self) -> None:
        """End the stretch in hand after its current item; may come from a signal handler or another thread."""
        if not self.batched:
            self._work.clear()

    def close(self) -> None:
        """Close what was made of a class; `current_batch()` is the outer run's again, if there is one."""
        _caller.reset(self._outer)
        try:
            self._close()
        except Exception as error:
            raise BatchkitError(
                f"closing the function failed: {type(error).__name__}: {error}; run it again"
            ) from error
        finally:
            if self.loop is not None:
                self.loop.close()


_forks = 0
"""How often this process was forked off another: asking the kernel who we are after every batch costs 0.2 µs."""


def _count_fork() -> None:
    global _forks  # noqa: PLW0603  # it belongs to the process
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def _leave_child(error: BaseException | None) -> NoReturn:
    """End a process that the function forked and that comes back from it: only the one that began may commit."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error)
        code = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    os._exit(code)


def listed(results: Any) -> Any:
    """Return what a batched function returned as a list, or as a polars.DataFrame if it is a table."""
    if results is None:
        return []
    if isinstance(results, str | bytes | dict):
        raise TypeError(f"a batched function returns a list of results, not a {type(results).__name__}")
    if hasattr(results, "__arrow_c_stream__") or hasattr(results, "collect_schema"):
        from batchkit.frames.rows import is_table, table_of  # noqa: PLC0415  # loads polars

        if is_table(results):
            return table_of(results)
    if not hasattr(results, "__iter__"):
        raise TypeError(f"a batched function returns a list of results, not a value of type {type(results).__name__}")
    return list(results)


def _is_nothing(answer: Any) -> bool:
    if answer is None or not hasattr(answer, "__len__"):
        return answer is None
    return len(answer) == 0 or (isinstance(answer, list) and all(each is None for each in answer))


def _collect(function: Callable[..., Any], item: Any) -> list[Any]:
    return list(function(item))


def _makes_callables(function: Any) -> bool:
    """Tell a class whose instances are called from one, such as `int`, that is itself the function."""
    return isinstance(function, type) and any("__call__" in kind.__dict__ for kind in function.__mro__)


def check(function: Callable[..., Any] | None) -> None:
    """Raise `UsageError` for what cannot be called."""
    if function is not None and not callable(function):
        raise UsageError(f"the function is {function!r}, which cannot be called")


def is_async(function: Any) -> bool:
    """Tell whether calls of a function, a class that makes such or an object that is called are to be awaited."""
    called: Any = function.__call__ if _makes_callables(function) else _called(function)
    return inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)


def _called(function: Any) -> Any:
    """Return what runs when `function` is called: itself, what a partial holds, or an object's `__call__`."""
    function = _unwrapped(function)
    return function if function is None or inspect.isroutine(function) else type(function).__call__


def _unwrapped(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def command_of(function: Any) -> Any:
    """Return the function if it is a `commands.Command`, which ends its own processes in time; `None` for others."""
    return function if getattr(function, "__batchkit_command__", None) is True else None


def name_of(function: Callable[..., Any] | None) -> str | None:
    """Return the name by which a job knows its function; `None` for none.

    That is its own, unless who makes the job has given it one that stays when the function is renamed.
    """
    if function is None:
        return None
    if (given := getattr(function, "__batchkit_name__", None)) is not None:
        return str(given)
    function = _unwrapped(function)
    return str(getattr(function, "__qualname__", type(function).__qualname__)).replace("<locals>.", "")
