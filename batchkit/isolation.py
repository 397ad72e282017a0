"""Calls in a process of their own: a function that takes its interpreter down, or hangs, costs one item.

The child runs `worker`, is replaced when it dies, and sends each result as soon as it is there.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from typing import Any, NamedTuple

from batchkit import wire
from batchkit.calling import check, is_async
from batchkit.child import Child, Cut, Late, pickled
from batchkit.errors import BatchkitError, WorkerDied
from batchkit.model import Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.current import Identity
    from batchkit.model import Batch

_ASYNC_GRACE = 1.0
"""Seconds that a late async call has for being cancelled, which leaves the child and its connections alive."""


class IsolatedCaller:
    """Calls the function on batches as `calling.Caller` does, in a child process.

    function: as for `Caller`, and such that it can be pickled by cloudpickle. A class whose instances are called is
    made in the child, and again in each that replaces it. `None` passes items through, without any child.
    batch: the batch in hand, `None` between batches. batched: whether the function takes whole batches. identity: what
    `current_batch()` knows of job and shard; may be set between calls.

    A call that ends its process is its item's (batched: its batch's) error, `WorkerDied`; one that takes too long is,
    as `TimeoutError`, and its process is killed with all that it started. Results before that item are kept; the next
    call begins in a new child. An error of the function has its traceback as text in `__batchkit_traceback__`.
    If the parent dies, however it does, so do the child and all that it started.
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
        """Start the child and make the function there.

        batch_format: as for `Caller`. timeout: seconds that a call may take, of an item or, if `batched`, of a batch,
        counted from when the child has its arguments; `None`: no limit.
        Raises `UsageError` for a function that cannot be pickled; `BatchkitError` if the child cannot load or make it.
        """
        check(function)
        self.batch: Batch | None = None
        self.batched = batched
        self.identity = identity
        self._timeout = timeout
        self._limit = timeout
        if timeout is not None and is_async(function):
            self._limit = timeout + _ASYNC_GRACE
        self._child: Child | None = None
        self._owner = os.getpid()
        self._generates = False
        self._number = 0  # of the stretch, by which it is cut
        self._forget()
        self._function = b""
        if function is not None:
            packed = pickled(function, {"batched": batched, "batch_format": batch_format, "timeout": timeout})
            self._cut = Cut()
            self._function = packed
            try:
                self._living()
            except BaseException:
                self.close()
                raise

    def _forget(self) -> None:
        self.batch = None
        self._seq = self._first = 0
        self._items: Any = []
        self._at = 0  # index in the stretch of the item that failed
        self._base: int | None = None  # index of the first item that the child has; None: it has none

    def __call__(self, batch: Batch, seq: int, first: int = 0, stop: int | None = None) -> Outcome:
        """Call the function on items of a batch, all of which can be read, until one fails or until `cut`.

        first, stop: only these; the outcome counts them from `first`. Raises `BatchkitError` if the child died before
        and a new one cannot be made ready, and what the function raises that is no item's failure, such as
        `KeyboardInterrupt`.
        """
        items = batch.items if stop is None else batch.items[first:stop]
        if not self._function:
            return Outcome(items, len(items))
        self._forget()
        if not len(items):
            return Outcome([], 0, sizes=[] if self._generates else None)
        self._number += 1
        self.batch, self._seq, self._first = batch, seq, first
        self._items = items if self.batched and hasattr(items, "frame") else list(items)
        return self._run(0)

    def one(self, batch: Batch, seq: int, index: int, item: Any) -> Outcome:
        """Call a function that is not batched with `item`, which is that of a batch at `index`; raises as above."""
        self._forget()
        self._base = None  # the child has other items
        self.batch, self._seq, self._first, self._items = batch, seq, index, [item]
        return self._run(0)

    def go_on(self) -> Outcome:
        """Go on behind the item that failed, in a new child if need be; the outcome counts the items from there.

        A batched call fails as a whole: nothing is left then.
        """
        if self.batched or self._at + 1 >= len(self._items):
            self._forget()
            return Outcome([], 0, sizes=[] if self._generates else None)
        return self._run(self._at + 1)

    def again(self) -> Outcome:
        """Call the function once more on the item, or the items, that failed; `go_on` still goes on behind them."""
        return self._run(self._at, single=True)

    def cut(self) -> None:
        """End the stretch in hand after its current item; may come from a signal handler or another thread.

        Does not wait. A batched call is not cut, and a stretch that is over does not mind.
        """
        if self._function and not self.batched:
            self._cut.set(self._number)

    def close(self) -> None:
        """Let the child close what was made of a class and end; kill it if it takes more than some seconds.

        Raises `BatchkitError` if closing failed. What the function started and left running lives on. Harmless when
        repeated, and in a process that the parent forked.
        """
        child, self._child = self._child, None
        if self._owner != os.getpid():
            return
        try:
            if child is not None:
                child.close()
        finally:
            if self._function:
                self._cut.close()

    def abandon(self) -> None:
        """Kill the child, whoever is calling through it, and let go of everything."""
        self._kill()
        with contextlib.suppress(BatchkitError):
            self.close()

    def _run(self, first: int, *, single: bool = False) -> Outcome:
        """Have the items from `first` on called, or only that one; whatever this raises, no child is left behind."""
        answers = _Answers([] if self._generates else None)
        order = _Order(first, single)
        try:
            child = self._living()
            self._tell(child, order)
            error = self._listen(child, order, answers)
        except BaseException:
            self._kill()
            raise
        done = len(self._items) if answers.whole else answers.done
        if error is None and (not single or self.batched):
            self._forget()
        elif not single:
            self._at = first + done
        one_each = answers.one_each and not (self.batched and error is not None)
        return Outcome(answers.results, done, error, answers.sizes, one_each)

    def _living(self) -> Child:
        """Return a child that is ready."""
        if self._child is not None and self._child.dead():
            self._kill()
        if self._child is None:
            self._child = Child(self._cut)
            try:
                self._generates = self._child.make(self._function)
            except BaseException:
                self._kill()
                raise
        return self._child

    def _kill(self) -> None:
        child, self._child, self._base = self._child, None, None
        if child is not None:
            child.kill()

    def _tell(self, child: Child, order: _Order, *, apart: bool = False) -> None:
        """Tell the child to go, and send it the items if it has none; that it has died is found out by listening."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if self._base is None or apart:
                self._base = order.first
                child.talk.send(wire.STRETCH, self._packed(self._items[order.first :], apart=apart))
            child.talk.send(wire.GO, pickle.dumps((self._number, order.first - self._base, order.single)))

    def _packed(self, items: Any, *, apart: bool) -> bytes:
        """Return items as they are sent: each for itself where together they cannot be pickled, or not be read."""
        packed: Any = None
        if not apart:
            with contextlib.suppress(Exception):  # whatever an object's own methods raise; the item in question tells
                packed = wire.packed_by_value(items)
        if packed is None:
            packed = [wire.Sealed(item) for item in items]
        return pickle.dumps((tuple(self.identity), self._seq, packed), 5)

    def _listen(self, child: Child, order: _Order, answers: _Answers) -> BaseException | None:
        """Collect what the child sends until it is done; return the error if it failed, died or ran out of time."""
        clock: float | None = None  # when the call in hand began
        fresh = False  # whether that was since we last waited
        while True:
            message = child.talk.take()
            if message is None:
                if fresh:
                    clock, fresh = time.monotonic(), False
                end = self._wait(child, clock)
                if end is not None:
                    return end
                continue
            kind, payload = message
            if kind in _RESULTS:
                fresh = True
                try:
                    answers.add(kind, payload)
                except Exception as error:  # noqa: BLE001  # whatever an object's own methods raise
                    self._kill()  # it is ahead of us
                    return TypeError(f"the result cannot be read back: {type(error).__name__}: {error}")
            elif kind == wire.BEGIN:
                fresh = True
            elif kind == wire.DONE:
                return None
            elif kind == wire.FAILED:
                return wire.unpacked_error(payload)
            else:
                self._reply(child, kind, payload, order)

    def _wait(self, child: Child, clock: float | None) -> Exception | None:
        """Wait for messages during a call that began at `clock`; return the error if that ended the child."""
        try:
            child.more(None if clock is None or self._limit is None else clock + self._limit)
        except Late:
            self._kill()
            return TimeoutError(f"the call took longer than {self._timeout:g} s")
        except WorkerDied as death:
            self._kill()
            return WorkerDied(f"the worker died, {death.args[0]}")
        return None

    def _reply(self, child: Child, kind: int, payload: bytearray, order: _Order) -> None:
        """Answer what the child asks; raise what is no item's error."""
        if kind == wire.RAISED:
            raise wire.unpacked_error(payload)
        if kind == wire.SPLIT:
            self._tell(child, order, apart=True)
            return
        assert kind == wire.ASK, f"a message of kind {kind}"
        assert self.batch is not None, "there is a call"
        assert self._base is not None, "for which items were sent"
        index = self._first + self._base + pickle.loads(payload)  # noqa: S301  # from our own child
        place = self.batch.coordinate(index), self.batch.number_of(index)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            child.talk.send(wire.PLACE, pickle.dumps(place))


class _Order(NamedTuple):
    """What the child is to do: the items from `first` on, or that `single` one."""

    first: int
    single: bool


_RESULTS = {wire.RESULT, wire.VALUES, wire.BATCH}


class _Answers:
    """The results that have come so far, of `done` items; sizes: as in `Outcome`."""

    def __init__(self, sizes: list[int] | None) -> None:
        self.results: Any = []
        self.sizes = sizes
        self.done = 0
        self.whole = False  # whether all items of a batched call are
        self.one_each = True

    def add(self, kind: int, payload: bytearray) -> None:
        """Take a message in. Raises whatever stands in the way of unpickling it."""
        got = pickle.loads(payload)  # noqa: S301  # from our own child
        if kind == wire.RESULT:
            self.results.append(got)
        elif kind == wire.VALUES:
            assert self.sizes is not None, "the function generates"
            self.results += got
            self.sizes.append(len(got))
        else:
            self.results, self.one_each = got
            self.whole = True
        self.done += 1
