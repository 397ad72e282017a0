"""Locks of the kernel (flock), which die with the process that holds them; nothing is left behind to repair.

The lock files stay: removing one would let two processes hold locks of the same name. Their text says who took the
lock last, for messages only.
"""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from batchkit import files
from batchkit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def held(path: str, patience: float, *, signed: bool | None = None) -> Iterator[bool]:
    """Try to hold a lock for at most `patience` seconds; yield whether it is held.

    signed: whether who holds it is written into the file; `None`: unless there is no patience, for that is a probe, and
    the text stays the holder's.
    """
    signed = patience > 0 if signed is None else signed

    def sign(fd: int) -> None:
        text = json.dumps({"pid": os.getpid(), "host": os.uname().nodename, "since": time.time()})
        files.overwrite(fd, text.encode() + b"\n")

    lock = FileLock(
        path,
        mode=files.PRIVATE,
        thread_local=False,
        fallback_to_soft=False,
        preserve_lock_file=True,
        on_acquired=sign if signed else None,
    )
    try:
        lock.acquire(
            timeout=-1 if math.isinf(patience) else patience, poll_interval=0.05 if patience < math.inf else 0.002
        )
    except Timeout:
        yield False
        return
    except OSError as error:
        raise StorageError(f"cannot lock '{path}': {error.strerror or error}") from error
    try:
        yield True
    finally:
        lock.release()


def pid_in(path: str) -> int | None:
    """Return the process that holds the lock, or held it last; `None` if nobody knows."""
    try:
        return int(json.loads(files.read_bytes(path) or b"")["pid"])
    except (ValueError, KeyError, TypeError, StorageError):
        return None


def holder(path: str) -> str:
    """Return who holds the lock, or held it last, for messages."""
    try:
        who = json.loads(files.read_bytes(path) or b"")
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(who["since"]))
        return f"pid {who['pid']} on {who['host']} since {since}"
    except (ValueError, KeyError, TypeError, StorageError):
        return "another process"
