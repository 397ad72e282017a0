"""Kernels to put in the place of `batchkit.files.kernel`: they count, kill, fail, write little, or record."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchkit import files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    State = dict[str, tuple[bytes, int] | None]
    """Path → bytes and time of a file, `None` for a directory."""

    Names = dict[str, "_Inode | None"]
    Change = tuple[str, str, Any]

CHANGING = ("write", "ftruncate", "fsync", "fdatasync", "replace", "link", "unlink", "mkdir", "rmdir")
"""The calls after each of which the disk, or what is known to be on it, is another."""


@contextmanager
def installed(kernel: Any) -> Iterator[Any]:
    """Let batchkit make its system calls through `kernel` while the block runs."""
    before = files.kernel
    files.kernel = kernel
    try:
        yield kernel
    finally:
        files.kernel = before


class Hooked(files.Kernel):
    """The kernel in place, with a hook before each of the calls named."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.count = 0
        self._lock = threading.Lock()
        for name in names:
            setattr(self, name, self._hooked(name, getattr(files.kernel, name)))

    def _hooked(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def hooked(*args: Any, **extra: Any) -> Any:
            with self._lock:
                self.count += 1
                number = self.count
            return self.around(number, name, call, *args, **extra)

        return hooked

    def around(self, number: int, name: str, call: Callable[..., Any], *args: Any, **extra: Any) -> Any:
        """Make the call; subclasses do something else before, after or instead."""
        del number, name
        return call(*args, **extra)


class Killing(Hooked):
    """Kills the process right before its n-th changing call; `torn`: in the middle of it, if it is a write."""

    def __init__(self, at: int, *, torn: bool = False) -> None:
        super().__init__(CHANGING)
        self._at = at
        self._torn = torn

    def around(self, number: int, name: str, call: Callable[..., Any], *args: Any, **extra: Any) -> Any:
        if number == self._at:
            if self._torn and name == "write":
                descriptor, data = args
                call(descriptor, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **extra)


class Failing(Hooked):
    """Fails the n-th call of the kinds named with an error number; `lasting`: and all later ones."""

    def __init__(self, names: tuple[str, ...], at: int, error: int, *, lasting: bool = True) -> None:
        super().__init__(names)
        self._at = at
        self._error = error
        self._lasting = lasting

    def around(self, number: int, name: str, call: Callable[..., Any], *args: Any, **extra: Any) -> Any:
        if number == self._at or (self._lasting and number > self._at):
            if name == "close":
                call(*args)  # a close that reports an error has closed all the same
            raise OSError(self._error, os.strerror(self._error))
        return call(*args, **extra)


class Stingy(files.Kernel):
    """Writes at most three bytes at a time, as a kernel may."""

    @staticmethod
    def write(descriptor: int, data: bytes) -> int:  # type: ignore[override]
        """Write a little."""
        return os.write(descriptor, data[:3])


class Unsynced(files.Kernel):
    """Never syncs: for tests of what has nothing to do with power cuts, which run many jobs."""

    @staticmethod
    def fsync(descriptor: int) -> None:  # type: ignore[override]
        """Do nothing."""

    @staticmethod
    def fdatasync(descriptor: int) -> None:  # type: ignore[override]
        """Do nothing."""


class PowerCut(BaseException):
    """The machine went off."""


class _Inode:
    """A file's bytes and time: as the running system sees them, and as the disk has them for sure."""

    def __init__(self) -> None:
        self.now = bytearray()
        self.time = 0
        self.durable = b""
        self.durable_time = 0


class Recording(Hooked):
    """The real kernel below one directory, remembering what of it a power cut would leave.

    A file's bytes are durable up to its last sync; a name is durable once its directory was synced after the change.
    Everything else may be there or not, in part, or (data) in zeros at its full length.

    cut_at: the number of the changing call that the power cut comes before; `None`: never. changes: calls so far.
    """

    def __init__(self, root: Path) -> None:
        super().__init__((*CHANGING, "open", "close"))
        self._model = threading.RLock()
        self.cut_at: int | None = None
        self.changes = 0
        self._root = str(root)
        self._paths: dict[int, str] = {}
        self._names: Names = {}
        self._durable: Names = {}
        self._pending: dict[str, list[Change]] = {}

    def around(self, number: int, name: str, call: Callable[..., Any], *args: Any, **extra: Any) -> Any:
        del number
        with self._model:
            self.changes += name in CHANGING
            if self.cut_at is not None and self.changes >= self.cut_at and name != "close":
                raise PowerCut
            return getattr(self, f"on_{name}")(call, *args, **extra)

    def _change(self, kind: str, path: str, value: Any = None) -> None:
        change = (kind, path, value)
        self._pending.setdefault(os.path.dirname(path), []).append(change)
        _apply(self._names, change)

    def _inode(self, descriptor: int) -> _Inode | None:
        return self._names.get(self._paths.get(descriptor, ""))

    def on_open(self, call: Callable[..., Any], path: str, flags: int, mode: int = 0o777) -> int:
        """Open; a file that this makes has a new name, not yet durable."""
        new = bool(flags & os.O_CREAT) and not os.path.lexists(path)
        descriptor: int = call(path, flags, mode)
        if path.startswith(self._root):
            self._paths[descriptor] = path
            if new:
                self._change("add", path, _Inode())
        return descriptor

    def on_close(self, call: Callable[..., Any], descriptor: int) -> None:
        """Close; durable is what was synced before."""
        self._paths.pop(descriptor, None)
        call(descriptor)

    def on_fsync(self, call: Callable[..., Any], descriptor: int) -> None:
        """Make a file's bytes and time, or a directory's names durable."""
        self.on_fdatasync(call, descriptor)
        inode = self._inode(descriptor)
        if inode is not None:
            inode.durable_time = inode.time
        for change in self._pending.pop(self._paths.get(descriptor, ""), []):
            _apply(self._durable, change)

    def on_fdatasync(self, call: Callable[..., Any], descriptor: int) -> None:
        """Make a file's bytes durable, but not its time."""
        call(descriptor)
        inode = self._inode(descriptor)
        if inode is not None:
            inode.durable = bytes(inode.now)

    def on_write(self, call: Callable[..., Any], descriptor: int, data: bytes) -> int:
        """Write at the descriptor's position."""
        inode = self._inode(descriptor)
        at = 0 if inode is None else os.lseek(descriptor, 0, os.SEEK_CUR)
        written: int = call(descriptor, data)
        if inode is not None:
            inode.now[at : at + written] = data[:written]
            inode.time = os.fstat(descriptor).st_mtime_ns
        return written

    def on_ftruncate(self, call: Callable[..., Any], descriptor: int, length: int) -> None:
        """Cut or lengthen."""
        call(descriptor, length)
        inode = self._inode(descriptor)
        if inode is not None:
            del inode.now[length:]
            inode.now.extend(bytes(length - len(inode.now)))
            inode.time = os.fstat(descriptor).st_mtime_ns

    def on_replace(self, call: Callable[..., Any], source: str, target: str) -> None:
        """Rename: one change of the target's directory."""
        call(source, target)
        self._change("rename", target, (self._names[source], source))
        for descriptor, path in self._paths.items():
            if path == source:
                self._paths[descriptor] = target

    def on_link(self, call: Callable[..., Any], source: str, target: str) -> None:
        """Add a name."""
        call(source, target)
        self._change("add", target, self._names[source])

    def on_unlink(self, call: Callable[..., Any], path: str) -> None:
        """Remove a name."""
        call(path)
        self._change("remove", path)

    def on_mkdir(self, call: Callable[..., Any], path: str, mode: int = 0o777) -> None:
        """Make a directory."""
        call(path, mode)
        self._change("add", path)

    def on_rmdir(self, call: Callable[..., Any], path: str) -> None:
        """Remove a directory."""
        call(path)
        self._change("remove", path)

    def adopt(self) -> None:
        """Take what the directory holds for what the disk has for sure."""
        for above, directories, names in os.walk(self._root):
            for name in directories:
                self._names[os.path.join(above, name)] = None
            for name in names:
                path = os.path.join(above, name)
                inode = self._names[path] = _Inode()
                with open(path, "rb") as file:
                    inode.now = bytearray(file.read())
                inode.time = os.stat(path).st_mtime_ns
        self.settle()

    def dies_during(self, run: Callable[[], object]) -> bool:
        """Run something on this machine; return whether it went off before the end."""
        try:
            with installed(self):
                run()
        except PowerCut:
            return True
        return False

    def settle(self) -> None:
        """Let everything reach the disk by itself, as it does after half a minute."""
        self._durable = dict(self._names)
        self._pending.clear()
        for inode in self._names.values():
            if inode is not None:
                inode.durable, inode.durable_time = bytes(inode.now), inode.time

    def states(self, seed: int) -> Iterator[tuple[str, State]]:
        """Yield (what happened, files and directories) for disk states that a cut now may leave."""
        yield "everything survived", self._state(self._names, _now)
        yield "nothing unsynced survived", self._state(self._durable, _durable)
        yield "names survived, data did not", self._state(self._names, _durable)
        yield "data survived, names did not", self._state(self._durable, _now)
        yield "data are zeros at full length", self._state(self._names, _zeros)
        yield "data are torn", self._state(self._names, _torn)
        pick = random.Random(seed)
        for number in range(3):
            names = dict(self._durable)
            for pending in self._pending.values():
                for change in pending[: pick.randint(0, len(pending))]:
                    _apply(names, change)
            fates = pick.choices((_now, _durable, _zeros, _torn), k=len(names))
            chosen = dict(zip(map(id, names.values()), fates, strict=True))
            state = self._state(names, lambda inode, chosen=chosen: chosen[id(inode)](inode))  # type: ignore[misc]
            yield f"a mixture (seed {seed}, number {number})", state

    def distinct_states(self, seed: int) -> Iterator[tuple[str, State]]:
        """Yield the same, but each state only once."""
        seen: list[State] = []
        for what, state in self.states(seed):
            if state not in seen:
                seen.append(state)
                yield what, state

    def _state(self, names: Names, fate: Callable[[_Inode], bytes]) -> State:
        state: State = {}
        for path, inode in sorted(names.items()):
            if os.path.dirname(path) in {self._root, *state}:
                state[path] = (
                    None if inode is None else (fate(inode), inode.time if fate is _now else inode.durable_time)
                )
        return state


def _apply(names: Names, change: Change) -> None:
    kind, path, value = change
    if kind == "remove":
        names.pop(path, None)
    elif kind == "add":
        names[path] = value
    else:
        inode, source = value
        names[path] = inode
        if names.get(source) is inode:
            names.pop(source)


def _now(inode: _Inode) -> bytes:
    return bytes(inode.now)


def _durable(inode: _Inode) -> bytes:
    return inode.durable


def _zeros(inode: _Inode) -> bytes:
    return inode.durable + bytes(max(0, len(inode.now) - len(inode.durable)))


def _torn(inode: _Inode) -> bytes:
    known = len(inode.durable)
    return bytes(inode.now[: known + (len(inode.now) - known) // 2]) if len(inode.now) > known else inode.durable


def materialize(root: Path, state: State) -> None:
    """Make a directory hold exactly these files and directories."""
    shutil.rmtree(root)
    root.mkdir()
    for path, facts in state.items():
        if facts is None:
            os.mkdir(path, 0o700)
        else:
            with open(path, "wb") as file:
                file.write(facts[0])
            os.utime(path, ns=(facts[1], facts[1]))
