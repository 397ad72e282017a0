"""Turns at a database that one process at a time may have open, beside the database's own lock.

DuckDB's is not enough where processes open and close a file in turns: version 2.0 reads the header, which tells where
everything else is, before it locks the file. If another process writes and closes it in between, the rest is read by
the old header: what the other one committed is lost with the next checkpoint, or blocks are read that are not there
any more. So all processes of a user of batchkit take a lock besides, from before a file is opened until after it is
closed: of an empty file in the directory for temporary files, which is named after the database and stays. It goes
with its process.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import threading
from typing import NamedTuple


class _Hold(NamedTuple):
    descriptor: int
    shared: bool
    times: int


_holds: dict[str, _Hold] = {}
_guard = threading.Lock()


def take(path: str, *, shared: bool = False) -> bool:
    """Take a turn at a database, or one more within the process; return whether there was one to be had.

    shared: beside other processes that share theirs.
    """
    with _guard:
        held = _holds.get(path)
        if held is not None:
            if held.shared and not shared:
                return False
            _holds[path] = held._replace(times=held.times + 1)
            return True
        try:
            descriptor = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:  # nothing can be written there: the database's own lock must do
            return True
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        _holds[path] = _Hold(descriptor, shared, 1)
        return True


def give_back(path: str) -> None:
    """Give a turn back; with the last one of the process, others may have theirs."""
    with _guard:
        held = _holds.get(path)
        if held is None:
            return
        if held.times > 1:
            _holds[path] = held._replace(times=held.times - 1)
            return
        del _holds[path]
        fcntl.flock(held.descriptor, fcntl.LOCK_UN)
        os.close(held.descriptor)


def _lock_of(path: str) -> str:
    name = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"batchkit-{os.getuid()}-{name}.lock")


def _let_go() -> None:
    """Leave the turns to the process that this one was forked off: living on, it would keep them."""
    global _guard  # noqa: PLW0603  # another thread may have had it
    _guard = threading.Lock()
    for held in _holds.values():
        os.close(held.descriptor)
    _holds.clear()


os.register_at_fork(after_in_child=_let_go)
