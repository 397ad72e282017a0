"""The worker process: `python -m batchkit.worker` calls the function for an `isolation.IsolatedCaller`.

It never outlives its parent: a pipe that only the parent holds open ends with it, and that kills the worker and all
that the function started, also in the middle of a call.
"""

from __future__ import annotations

import contextlib
import importlib.util
import mmap
import os
import pickle
import select
import signal
import socket
import sys
import threading
from typing import Any, NoReturn

from batchkit import wire
from batchkit.budget import STOP_SIGNALS
from batchkit.calling import Caller
from batchkit.current import Identity
from batchkit.errors import BatchkitError, UsageError
from batchkit.lifeline import KERNEL_DOES, tie, untie
from batchkit.model import Batch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec

    from batchkit.model import Cursor, Item


class _Files:
    """Finds the modules that the parent took from files, wherever these are, by the names that they have there."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Return where a module is; `None`: others may know."""
        path = self._files.get(name)
        return None if path is None else importlib.util.spec_from_file_location(name, path)


class _Stretch(Batch):
    """The items that the parent sent; it is asked for their coordinates and numbers."""

    __slots__ = ("_ask",)

    def __init__(self, items: Sequence[Item], ask: Callable[[int], tuple[Cursor, int | None]]) -> None:
        self.items = items
        self._ask = ask

    def coordinate(self, index: int) -> Cursor:
        return self._ask(index)[0]

    def number_of(self, index: int) -> int | None:
        return self._ask(index)[1]


class _Worker:
    """Answers the parent's messages, one after the other."""

    def __init__(self, talk: wire.Wire, cut: memoryview) -> None:
        """Talk with the parent; `cut` is shared with it and holds the number of the newest stretch to be cut."""
        self._talk = talk
        self._cut = cut
        self._mouth = threading.Lock()  # a function's own threads may ask while this one sends results
        self._calling = False  # whether the parent is listening
        self._batch: _Stretch | None = None
        self._seq = 0

    def begin(self) -> tuple[int, bytearray]:
        """Import from where the parent does, and return what it wants: MAKE or TASK."""
        imports = pickle.loads(self._expect(wire.HELLO))  # noqa: S301  # from our own parent
        sys.path[:] = imports["path"]
        sys.meta_path.insert(0, _Files(imports["files"]))
        if imports["pythonpath"] is None:  # ours was for finding this module
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = imports["pythonpath"]
        message = self._talk.receive()
        if message is None:
            _die()
        return message

    def run(self, payload: bytearray) -> None:
        """Make one call and send what comes of it."""
        try:
            function, args, kwargs = pickle.loads(payload)  # noqa: S301  # from our own parent
            answer = wire.RETURN, wire.packed(function(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001  # whatever it is, the parent raises it
            answer = wire.FAILED, wire.packed_error(error)
        self._say(*answer)

    def make(self, payload: bytearray) -> Caller | None:
        """Make the function as the parent says; `None`: it could not be, and the parent knows."""
        try:
            function, options = pickle.loads(payload)  # noqa: S301  # from our own parent
            caller = Caller(function, identity=Identity("", "", 0), **options)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever importing it raises
            if not isinstance(error, BatchkitError):
                trouble = BatchkitError(f"the worker process cannot load the function: {type(error).__name__}: {error}")
                error = trouble.with_traceback(error.__traceback__)
            self._say(wire.FAILED, wire.packed_error(error))
            return None
        generates = caller(_Stretch([], self._ask), 0, 0, 0).sizes is not None
        self._say(wire.READY, bytes([generates]))
        return caller

    def serve(self, caller: Caller) -> None:
        """Call the function as often as the parent wants, until it says `CLOSE`."""
        while True:
            message = self._talk.receive()
            if message is None:
                _die()
            kind, payload = message
            if kind == wire.CLOSE:
                break
            if kind == wire.STRETCH:
                self._take(caller, payload)
            elif kind == wire.GO:
                self._go(caller, *pickle.loads(payload))  # noqa: S301  # as above

    def _take(self, caller: Caller, payload: bytearray) -> None:
        """Take a stretch in; where that fails, GO tells."""
        identity, self._seq, items = pickle.loads(payload)  # noqa: S301  # as above
        caller.identity = Identity(*identity)
        if isinstance(items, bytes):
            try:
                items = pickle.loads(items)  # noqa: S301  # as above
            except Exception as error:  # noqa: BLE001  # whatever an object's own methods raise
                items = error
        self._batch = _Stretch(items, self._ask)

    def _go(self, caller: Caller, number: int, first: int, single: bool) -> None:  # noqa: FBT001  # from a message
        """Call the function on the items from `first` on, or that one; the last message ends it."""
        batch = self._batch
        assert batch is not None, "the parent sends items before it wants them done"
        if isinstance(batch.items, Exception):
            self._say(wire.SPLIT)
            return
        self._calling = True
        self._say(wire.BEGIN)
        try:
            if caller.batched:
                error = self._call_batch(caller, batch)
            else:
                stop = first + 1 if single else len(batch.items)
                error = self._call_each(caller, batch, range(first, stop), 0 if single else number)
            last = (wire.DONE, b"") if error is None else (wire.FAILED, wire.packed_error(error))
        except BaseException as raised:  # noqa: BLE001  # KeyboardInterrupt and the like are the run's, not the item's
            last = (wire.RAISED, wire.packed_error(raised))
        with self._mouth:  # nobody is waiting for an answer any more
            self._calling = False
        self._say(*last)

    def _call_each(self, caller: Caller, batch: _Stretch, places: range, number: int) -> BaseException | None:
        """Send each item's results; return what the first to fail raised."""
        items: Any = batch.items
        cut, seq = self._cut, self._seq
        for index in places:
            if cut[0] == number and number:
                break
            try:
                if type(items[index]) is wire.Sealed:
                    items[index] = items[index].open()
                outcome = caller(batch, seq, index, index + 1)
                if outcome.error is not None:
                    return outcome.error
                if outcome.sizes is None:
                    kind, payload = wire.RESULT, wire.packed(outcome.results[0])
                else:
                    kind, payload = wire.VALUES, wire.packed(outcome.results)
            except TypeError as error:  # an item or a result that cannot be pickled
                return error
            self._say(kind, payload)
        return None

    def _call_batch(self, caller: Caller, batch: _Stretch) -> BaseException | None:
        try:
            if type(batch.items[0]) is wire.Sealed:
                batch.items = [item.open() for item in batch.items]
            outcome = caller(batch, self._seq, 0, len(batch.items))
            if outcome.error is not None:
                return outcome.error
            payload = wire.packed((outcome.results, outcome.one_each))
        except TypeError as error:  # as above
            return error
        self._say(wire.BATCH, payload)
        return None

    def _ask(self, index: int) -> tuple[Cursor, int | None]:
        """Ask the parent, who is listening while the function runs, for an item's coordinate and number."""
        with self._mouth:
            if not self._calling:
                raise UsageError("current_batch() was asked after its call had ended")
            try:
                self._talk.send(wire.ASK, pickle.dumps(index))
            except OSError as error:
                raise UsageError("current_batch() does not reach into a process that the function forked") from error
            place, number = pickle.loads(self._expect(wire.PLACE))  # noqa: S301  # as above
        return place, number

    def _say(self, kind: int, payload: bytes = b"") -> None:
        try:
            with self._mouth:
                self._talk.send(kind, payload)
        except OSError:  # the parent is gone
            _die()

    def _expect(self, kind: int) -> bytearray:
        message = self._talk.receive()
        if message is None:
            _die()
        assert message[0] == kind, f"message {message[0]} where {kind} was due"
        return message[1]


def _die() -> NoReturn:
    """End this process at once, and with it all that the function started."""
    os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _die_with_parent(lifeline: int) -> None:
    """Kill this process group as soon as the pipe ends that the parent holds open.

    Where the kernel can do that itself (Linux), it must: a thread would wait in vain for a call that is stuck in C, and
    Python warns of threads where a function forks.
    """
    if KERNEL_DOES:
        tie(lifeline, os.getpgrp())
        poll = select.poll()  # for select(2) its number may be too high
        poll.register(lifeline, select.POLLIN)
        if poll.poll(0):  # it had ended before
            _die()
        return

    def watch() -> None:
        os.read(lifeline, 1)
        if not _leaving.is_set():
            _die()

    threading.Thread(target=watch, name="batchkit-lifeline", daemon=True).start()


_leaving = threading.Event()


def _live_on(lifeline: int) -> None:
    """Take that back: at a normal end, what the function started may live on."""
    _leaving.set()
    if KERNEL_DOES:
        untie(lifeline)


def _leave_signals_to_the_parent() -> None:
    """Let a stop request that reaches every process of a service end no call: that is for the parent to decide.

    Handled by doing nothing rather than ignored: what is ignored stays so in the programs that a function starts.
    """
    numbers = [getattr(signal, name) for name in STOP_SIGNALS]
    earlier = {number: signal.getsignal(number) for number in numbers}
    for number, handler in earlier.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)

    def restore() -> None:
        for number, handler in earlier.items():
            with contextlib.suppress(TypeError, ValueError):  # one that C code set; a thread's fork: no handlers there
                signal.signal(number, handler)

    os.register_at_fork(after_in_child=restore)


def main(connection: int, lifeline: int, cut: int) -> int:
    """Work for the parent until it says so, or is gone. The arguments are descriptors; returns the exit status."""
    for each in (connection, lifeline, cut):
        os.set_inheritable(each, False)  # noqa: FBT003  # positional only
    _die_with_parent(lifeline)
    _leave_signals_to_the_parent()
    shared = mmap.mmap(cut, 8, access=mmap.ACCESS_READ)
    talk = wire.Wire(socket.socket(fileno=connection))

    def let_go() -> None:  # a process that the function forks: it must not keep the parent waiting when this one dies
        talk.close()
        os.close(lifeline)

    os.register_at_fork(after_in_child=let_go)
    for stream in (sys.stdout, sys.stderr):  # what a function printed before it killed its process is what helps
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    worker = _Worker(talk, memoryview(shared).cast("Q"))
    kind, payload = worker.begin()
    if kind == wire.TASK:
        worker.run(payload)
        _live_on(lifeline)
        return 0
    caller = worker.make(payload)
    if caller is None:
        return 1
    worker.serve(caller)
    trouble = b""
    try:
        caller.close()
    except BatchkitError as error:
        trouble = wire.packed_error(error)
    _live_on(lifeline)
    talk.send(wire.CLOSED, trouble)
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
