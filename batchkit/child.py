"""The process in which a function is called, as its parent sees it: started, listened to, buried."""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from importlib.machinery import ModuleSpec, SourceFileLoader
from typing import Any

from batchkit import wire
from batchkit.calling import name_of
from batchkit.errors import BatchkitError, UsageError, WorkerDied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_GRACE = 5.0
"""Seconds that a child has for ending by itself."""
_TICK = 0.5
"""Seconds between looks at a silent child: its connection may be held open by a process that it forked."""


class Late(Exception):
    """The child has sent nothing until the deadline."""


class Cut:
    """A number in memory shared with the child, of the stretch that is to end: looking at it costs the child 40 ns."""

    def __init__(self) -> None:
        """Begin with 0."""
        self._file = tempfile.TemporaryFile() if not hasattr(os, "memfd_create") else _memory()  # noqa: SIM115
        self._file.truncate(8)
        self._shared = mmap.mmap(self._file.fileno(), 8)

    def fileno(self) -> int:
        """Return the descriptor that the child maps, too."""
        return self._file.fileno()

    def set(self, number: int) -> None:
        """Write the number; in signal handlers and threads, too. Does nothing once it is closed."""
        with contextlib.suppress(ValueError):
            self._shared[:] = number.to_bytes(8, sys.byteorder)

    def close(self) -> None:
        """Let go of the memory. Harmless when repeated."""
        self._shared.close()
        self._file.close()


def _memory() -> Any:
    return open(os.memfd_create("batchkit-cut"), "r+b", buffering=0)  # closed by `Cut`


class Child:
    """A process of `batchkit.worker`, in a session of its own: Ctrl-C is for the parent.

    talk: the messages. If this object goes, or the parent does, the child is killed with all that it started.
    """

    def __init__(self, cut: Cut) -> None:
        """Start it. Raises `BatchkitError` if there can be no more processes."""
        ours, theirs = socket.socketpair()
        read, write = os.pipe()
        self._lifeline = open(write, "wb", buffering=0)  # noqa: SIM115  # closed when the child has ended
        self.talk = wire.Wire(ours)
        passed = (theirs.fileno(), read, cut.fileno())
        try:
            self._process = subprocess.Popen(  # noqa: S603  # ourselves
                [sys.executable, *_flags(), "-P", "-m", "batchkit.worker", *map(str, passed)],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([_ROOT, *_python_path()])},
                pass_fds=passed,
                start_new_session=True,
            )
        except BaseException as error:
            self._let_go()
            if isinstance(error, OSError):
                raise BatchkitError(f"cannot start a worker process: {error}") from error
            raise
        finally:
            theirs.close()
            os.close(read)
        self._poll = select.poll()
        self._poll.register(ours, select.POLLIN)
        _children.add(self)

    def make(self, function: bytes) -> bool:
        """Make the pickled function there; return whether it is a generator function.

        Raises `BatchkitError` if it cannot be made, or if the child dies of it.
        """
        try:
            kind, payload = self._answer(wire.MAKE, function)
        except WorkerDied as error:
            raise BatchkitError(f"the worker process died as it started ({error.args[0]})") from None
        if kind == wire.FAILED:
            raise wire.unpacked_error(payload)
        return bool(payload[0])

    def run(self, task: bytes) -> bytearray:
        """Run a task there, see `pickled_task`, and return its pickled result.

        Raises what the task raises; `WorkerDied`, with no more than how it ended, if the process does.
        """
        kind, payload = self._answer(wire.TASK, task)
        if self._await_end():
            self._process.wait()  # what it has started and left running may live on
        if kind == wire.FAILED:
            raise wire.unpacked_error(payload)
        return payload

    def _answer(self, kind: int, payload: bytes) -> tuple[int, bytearray]:
        """Say what the child is for, and return the first thing that it says."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # listening tells more
            self.talk.send(wire.HELLO, pickle.dumps(_imports()))
            self.talk.send(kind, payload)
        return self._next(None)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def signal_group(self) -> None:
        """Kill the process and all of its group without waiting; whoever listens to it buries it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS has the latter for zombies
            os.killpg(self._process.pid, signal.SIGKILL)

    def more(self, deadline: float | None) -> None:
        """Wait until the child has sent something; the messages are then in `talk`.

        deadline: a reading of `time.monotonic`, at which this raises `Late`; `None`: none. Raises `WorkerDied` with no
        more than how it ended ("signal 9", "exit status 3") once all it sent has been taken.
        """
        while True:
            left = _TICK if deadline is None else min(_TICK, max(0.0, deadline - time.monotonic()))
            if self._poll.poll(left * 1000):
                if self.talk.fill():
                    return
                raise WorkerDied(self._bury())
            if deadline is not None and time.monotonic() >= deadline:
                raise Late
            if self.dead() and not self._poll.poll(0):
                raise WorkerDied(self._bury())

    def _next(self, deadline: float | None) -> tuple[int, bytearray]:
        while (message := self.talk.take()) is None:
            self.more(deadline)
        return message

    def dead(self) -> bool:
        """Tell whether the process has ended. It stays a zombie: its group's number is nobody else's until then."""
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):
            return self._process.poll() is not None
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # somebody waits for all children, or nobody is to
            return True

    def _await_end(self) -> bool:
        deadline = time.monotonic() + _GRACE
        pause = 0.0005
        while not self.dead():
            if time.monotonic() >= deadline:
                return False
            time.sleep(pause)
            pause = min(0.05, 2 * pause)
        return True

    def _bury(self) -> str:
        """Return how it ended; a child that only closed its connection is killed."""
        self._await_end()
        self.kill()
        code = self._process.returncode
        return f"signal {-code}" if code < 0 else f"exit status {code}"

    def kill(self) -> None:
        """Kill the process and all of its group, and wait for it. Harmless when repeated."""
        try:
            if self._process.returncode is None:
                self.signal_group()
                self._process.wait()
        finally:
            self._let_go()

    def close(self) -> None:
        """Have it close what it made and end; what it started lives on. After some seconds it is killed.

        Raises `BatchkitError` if closing failed.
        """
        if self.dead():
            self.kill()
            return
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.talk.send(wire.CLOSE)
            _, payload = self._next(time.monotonic() + _GRACE)
            if self._await_end():
                self._process.wait()
        except Late:
            return
        except WorkerDied as error:
            raise BatchkitError(
                f"closing the function failed: the worker died, {error.args[0]}; run it again"
            ) from None
        finally:
            self.kill()
        if payload:
            raise wire.unpacked_error(payload)

    def _let_go(self) -> None:
        self.talk.close()
        self._lifeline.close()


_children: weakref.WeakSet[Child] = weakref.WeakSet()


def _leave_them() -> None:
    """Let go of all children in a process that the parent forked: living on, it would keep them alive."""
    for child in list(_children):
        child._let_go()  # noqa: SLF001  # of this module


os.register_at_fork(after_in_child=_leave_them)


_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _python_path() -> list[str]:
    return [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []


def _flags() -> list[str]:
    """Return the interpreter's options, as far as they change what a function does."""
    flags = ["-" + "O" * sys.flags.optimize] if sys.flags.optimize else []
    flags += [f"-W{option}" for option in sys.warnoptions]
    return flags + [f"-X{name}" if value is True else f"-X{name}={value}" for name, value in sys._xoptions.items()]  # noqa: SLF001


def _imports() -> dict[str, Any]:
    """Return what the child needs to import what the parent did."""
    files = {}
    for name, module in list(sys.modules.items()):
        if "." in name or name in sys.stdlib_module_names:
            continue
        spec = getattr(module, "__spec__", None)
        # What `loading` took from a file has a name that may mean another module on `sys.path`, or none.
        if not isinstance(spec, ModuleSpec) or spec.name != name:
            continue
        if isinstance(spec.loader, SourceFileLoader) and spec.submodule_search_locations is None and spec.origin:
            files[name] = os.path.abspath(spec.origin)
    return {"path": sys.path, "files": files, "pythonpath": os.environ.get("PYTHONPATH")}


def pickled_task(function: Callable[..., Any], args: Any, kwargs: Any) -> bytes:
    """Pickle a call, for `Child.run`. Raises `UsageError`."""
    return _pickled((function, args, kwargs), "the job", "leave out workers")


def pickled(function: Callable[..., Any], options: dict[str, Any]) -> bytes:
    """Pickle a function and how to call it, for `Child.make`. Raises `UsageError`."""
    return _pickled((function, options), f"the function {name_of(function)}", "give a class that does so in __init__")


def _pickled(value: Any, what: str, otherwise: str) -> bytes:
    try:
        return wire.packed_by_value(value)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{what} cannot be sent to a worker process: {type(error).__name__}: {error}; "
            f"let the function make what is in the way itself, or {otherwise}"
        ) from error
