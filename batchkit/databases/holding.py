"""Turns at a database that one process at a time may have open, beside the database's own lock.

DuckDB's is not enough where several processes open and close a file all the time: with version 2.0, one that opened it
just when another had closed it was seen to lose what it committed. So all processes of a user of batchkit take a lock
besides, from before a file is opened until after it is closed: of an empty file in the directory for temporary files,
which is named after the database and stays. It goes with its process.
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
    times: int


_holds: dict[str, _Hold] = {}
_guard = threading.Lock()


def take(path: str) -> bool:
    """Take a turn at a database, or one more within the process; return whether there was one to be had."""
    with _guard:
        held = _holds.get(path)
        if held is not None:
            _holds[path] = held._replace(times=held.times + 1)
            return True
        try:
            descriptor = os.open(_lock_of(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:  # nothing can be written there: the database's own lock must do
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        _holds[path] = _Hold(descriptor, 1)
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
        fcntl.flock(held.descriptor, fcntl.LOCK_UN)  # also of what a forked process has of it
        os.close(held.descriptor)


def _lock_of(path: str) -> str:
    name = hashlib.sha256(path.encode()).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"batchkit-{os.getuid()}-{name}.lock")
