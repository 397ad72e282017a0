"""Turns at a file that one process at a time may have open, beside the database's own lock.

DuckDB's is not enough where several processes open and close a file all the time: with version 2.0, one that opens it
just when another has closed it may lose what that one committed. So all processes of batchkit take a lock of the
directory besides, from before a file is opened until after it is closed; it leaves no file behind, and goes with its
process. Where the file system has no such locks (NFS), only the database's counts.
"""

from __future__ import annotations

import fcntl
import os
import threading
from typing import NamedTuple


class _Hold(NamedTuple):
    descriptor: int
    times: int


_holds: dict[str, _Hold] = {}
_guard = threading.Lock()


def take(path: str) -> bool:
    """Take a turn at a file, or one more within the process; return whether there was one to be had."""
    directory = os.path.dirname(path)
    with _guard:
        held = _holds.get(directory)
        if held is not None:
            _holds[directory] = held._replace(times=held.times + 1)
            return True
        try:
            descriptor = os.open(directory, os.O_RDONLY)
        except OSError:  # the database will say what is wrong
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError:  # no such locks here
            os.close(descriptor)
            return True
        _holds[directory] = _Hold(descriptor, 1)
        return True


def give_back(path: str) -> None:
    """Give a turn back; with the last one of the process, others may have theirs."""
    directory = os.path.dirname(path)
    with _guard:
        held = _holds.get(directory)
        if held is None:
            return
        if held.times > 1:
            _holds[directory] = held._replace(times=held.times - 1)
            return
        del _holds[directory]
        fcntl.flock(held.descriptor, fcntl.LOCK_UN)  # also of what a forked process has of it
        os.close(held.descriptor)
