"""Running a program to its end, or to the end of its time: without a shell, in a session of its own."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import threading
import time
from typing import IO, Any, NamedTuple

from batchkit.errors import CommandFailed, UsageError
from batchkit.lifeline import Lifeline

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_MOST = 64 << 20
"""Bytes of standard output, which is kept in memory."""
_TAIL = 8 << 10
"""Bytes of standard error, of which the end tells most."""
_GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a program whose time is up."""
_HURRY = 0.5
"""The same where a person wants to leave at once."""
_TICK = 0.01
"""Seconds between looks at what is about to end."""
_BLOCK = 1 << 16
_BLOCKS_IN_PIPE = 16
"""More than a pipe holds on any platform."""

_living: dict[int, None] = {}
"""The programs that run, by the number of their group: a dict needs no lock, which a signal handler must not take."""

_starting: dict[int, None] = {}
"""The threads that are starting one."""
_leaving = False
"""Whether none may be started."""


class Ended(NamedTuple):
    """How a program ended.

    status: its exit status; negative: the number of the signal that killed it. out: all of its standard output.
    err: the end of its standard error, at most 8 KB.
    """

    status: int
    out: bytes
    err: bytes


def run(  # noqa: PLR0913  # what a program can be given
    words: Sequence[bytes],
    *,
    path: str | None = None,
    given: bytes | None = None,
    env: Mapping[bytes, bytes] | None = None,
    timeout: float | None = None,
    cwd: str | None = None,
    into: int | None = None,
    heard: Callable[[bytes], object] | None = None,
) -> Ended:
    """Run a program with `words` as its arguments, the first of which is its name; safe in many threads at once.

    path: of the program; `None`: it is looked for by its name. given: its standard input; `None`: nothing.
    env: its environment; `None`: ours. timeout: in seconds, `None`: no limit. cwd: where it runs; `None`: here.
    into: a descriptor that its standard output goes to, of which nothing is kept then; `None`: it is kept.
    heard: gets what it prints at once, standard error too.

    What it leaves running when it ends lives on and is not waited for: what that prints later is lost. Whatever this
    raises, the program and all that it started in its group has ended: `TimeoutError`; `CommandFailed` for more than
    64 MiB of output; `OSError` if it cannot be started. However this process ends, they are killed then, on Linux.
    """
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(_source(given))
        lifeline = Lifeline()
        stack.callback(lifeline.untie)
        process = _start(words, path, source, env, lifeline, cwd, into)
        stack.callback(_living.pop, process.pid)
        talk = _Talk(stack.enter_context(process.stderr), heard)  # type: ignore[arg-type]  # a pipe, as asked for
        out = None if process.stdout is None else _Output(stack.enter_context(process.stdout), heard)
        return _attended(process, out, talk, timeout)


def _start(
    words: Sequence[bytes],
    path: str | None,
    source: IO[bytes] | None,
    env: Mapping[bytes, bytes] | None,
    lifeline: Lifeline,
    cwd: str | None,
    into: int | None,
) -> subprocess.Popen[bytes]:
    thread = threading.get_ident()
    _starting[thread] = None
    try:
        if _leaving:
            raise CommandFailed("not run: everything is about to end")
        process = subprocess.Popen(  # noqa: S603  # what the user asks for
            words,
            executable=path,
            stdin=subprocess.DEVNULL if source is None else source,
            stdout=subprocess.PIPE if into is None else into,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=env,
            cwd=cwd,
            pass_fds=lifeline.fds,
            start_new_session=True,  # Ctrl-C is for us, and the group can be ended as a whole
        )
        lifeline.tie(process.pid)
        _living[process.pid] = None
    finally:
        _starting.pop(thread, None)
    return process


def hear_children() -> None:
    """Make sure that the status of programs can be known: some parents leave us with SIGCHLD ignored.

    Then the kernel keeps no status, and each program would seem to have succeeded. Raises `UsageError` if that cannot
    be changed from this thread.
    """
    if signal.getsignal(signal.SIGCHLD) is not signal.SIG_IGN:
        return
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    except ValueError:
        raise UsageError(
            "SIGCHLD is ignored in this process, so that nobody could know how commands end; make the command in the "
            "main thread, or reset the signal there: signal.signal(signal.SIGCHLD, signal.SIG_DFL)"
        ) from None


def kill_all() -> None:
    """End all programs that run, with what they started: for those who leave at once, also from signal handlers.

    Takes at most half a second, which they have to clean up; no new ones are started meanwhile.
    """
    global _leaving  # noqa: PLW0603  # it belongs to the process
    until = time.monotonic() + _HURRY
    try:
        _leaving = True
        while time.monotonic() < until and _starting.keys() - {threading.get_ident()}:
            time.sleep(_TICK)
        for group in list(_living):
            _signal(group, signal.SIGTERM)
        while time.monotonic() < until and not all(map(_is_over, list(_living))):
            time.sleep(_TICK)
        for group in list(_living):
            _signal(group, signal.SIGKILL)
    finally:
        _leaving = False


def _source(given: bytes | None) -> contextlib.AbstractContextManager[IO[bytes] | None]:
    """Return a file that holds bytes: unlike a pipe it takes them all at once, whoever reads it or not."""
    if given is None:
        return contextlib.nullcontext()
    file = _memory() if hasattr(os, "memfd_create") else tempfile.TemporaryFile()  # noqa: SIM115  # the caller closes it
    try:
        file.write(given)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _memory() -> Any:
    return open(os.memfd_create("batchkit"), "w+b")


class _Output:
    """All that comes out of a pipe."""

    def __init__(self, pipe: Any, heard: Callable[[bytes], object] | None = None) -> None:
        self.fd: int = pipe.fileno()
        self._heard = heard
        self._blocks: list[bytes] = []
        self._size = 0

    def take(self, block: bytes) -> None:
        """Keep a block. Raises `CommandFailed` if it is all too much."""
        self._blocks.append(block)
        self._size += len(block)
        if self._size > _MOST:
            raise CommandFailed(f"it printed more than {_MOST >> 20} MiB; let it write to a file instead")

    def read(self) -> bool:
        """Read a block; return whether there can be more."""
        block = os.read(self.fd, _BLOCK)
        if self._heard is not None:
            self._heard(block)
        self.take(block)
        return bool(block)

    def read_rest(self) -> None:
        """Read what is there, and wait for nothing: what holds the other end open may live for long."""
        os.set_blocking(self.fd, False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(_BLOCKS_IN_PIPE):
                if not self.read():
                    break

    def all(self) -> bytes:
        """Return what was kept."""
        return b"".join(self._blocks)


class _Talk(_Output):
    """The end of what comes out of a pipe."""

    def take(self, block: bytes) -> None:
        self._blocks = [(self.all() + block)[-_TAIL:]] if block else self._blocks


def _attended(process: subprocess.Popen[bytes], out: _Output | None, err: _Output, timeout: float | None) -> Ended:
    """Listen to a program until it ends, or end it. out: `None`: its standard output goes elsewhere."""
    pipes = [err] if out is None else [out, err]
    try:
        in_time = _listen(process, pipes, None if timeout is None else time.monotonic() + timeout)
        if in_time:
            status = process.wait()
            for pipe in pipes:
                pipe.read_rest()
            return Ended(status, b"" if out is None else out.all(), err.all())
    except BaseException as error:
        _end(process, _GRACE if isinstance(error, Exception) else _HURRY)
        raise
    _end(process, _GRACE)
    err.read_rest()
    late = TimeoutError(f"the command took longer than {timeout:g} s")
    talk = err.all().decode(errors="replace").rstrip()
    late.__batchkit_traceback__ = f"{talk}\nTimeoutError: {late}" if talk else ""  # type: ignore[attr-defined]
    raise late


def _listen(process: subprocess.Popen[bytes], heard: Sequence[_Output], deadline: float | None) -> bool:
    """Take what a program prints until it has ended; return False if that is not before the deadline."""
    pipes = {pipe.fd: pipe for pipe in heard}
    with _watch(process) as watch:
        poll = select.poll()
        for fd in (*pipes, *watch):
            poll.register(fd, select.POLLIN)
        while process.poll() is None:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if left == 0:
                return False
            if not pipes and not watch:
                return _waited(process, left)
            wait = left if watch else min(_TICK, left or _TICK)
            for fd, _ in poll.poll(None if wait is None else wait * 1000):
                if fd in pipes and not pipes[fd].read():
                    poll.unregister(fd)
                    del pipes[fd]
    return True


@contextlib.contextmanager
def _watch(process: subprocess.Popen[bytes]) -> Iterator[list[int]]:
    """Give a descriptor that can be read once a process has ended; none where there is no such thing."""
    watch = []
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # kernels before 5.3, and some sandboxes
            watch = [os.pidfd_open(process.pid)]
    try:
        yield watch
    finally:
        for fd in watch:
            os.close(fd)


def _waited(process: subprocess.Popen[bytes], left: float | None) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(left)
    return process.returncode is not None


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a program's group: SIGTERM, and SIGKILL for what is still there after so many seconds."""
    until = time.monotonic() + grace
    gone = False
    try:
        _signal(process.pid, signal.SIGTERM)
        while not gone and time.monotonic() < until:
            time.sleep(_TICK)
            gone = process.poll() is not None and not _signal(process.pid, 0)
    finally:
        if not gone:
            _signal(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # in the kernel's hands: a dead network disk, say
                process.wait(_GRACE)


def _signal(group: int, number: int) -> bool:
    """Send a signal to a group; return whether it has any members."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):  # the latter also for zombies on macOS
        return False
    return True


def _is_over(pid: int) -> bool:
    """Tell whether a process has ended, and leave it to those who wait for it."""
    if not hasattr(os, "waitid"):
        return False
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True
