"""Locks of the kernel (flock), which die with the process that holds them; nothing is left behind to repair.

The lock files stay: removing one would let two processes hold locks of the same name. Their text says who took the
lock last, for messages only.

Between hosts that share a directory there are leases, too: a file that its holder touches now and then. One that has
not been touched for some time is anybody's, though its holder may be asleep and not know: see `leased`.
"""

from __future__ import annotations

import json
import math
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from filelock import FileLock, SoftFileLease, Timeout

from batchkit import files
from batchkit.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEASE = 30.0
"""Seconds without a sign of life after which a lease is anybody's. All hosts must agree."""


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


@contextmanager
def leased(path: str, lost: Callable[[], None], say: Callable[[str], None]) -> Iterator[bool]:
    """Try to hold a lease; yield whether it is held.

    lost: called in a thread when somebody else took it, because this process gave no sign of life for `LEASE` seconds:
    it must stop then. Of a dead process of this host a lease is taken over at once; whether one of another host lives
    is seen after `LEASE` seconds only, and waited for, of which `say` tells.
    """
    lease = SoftFileLease(
        path, lease_duration=LEASE, on_compromise=lambda _: lost(), thread_local=False, mode=files.PRIVATE
    )
    try:
        lease.acquire(timeout=1.0)
    except Timeout:
        if _facts_of(path).get("host") == os.uname().nodename:
            yield False
            return
        say(f"another host holds '{path}'; waiting up to {LEASE + 10:.0f} s to see whether it is alive")
        try:
            lease.acquire(timeout=LEASE + 10)
        except Timeout:
            yield False
            return
    except OSError as error:
        raise StorageError(f"cannot lease '{path}': {error.strerror or error}") from error
    try:
        yield True
    finally:
        lease.release()


def lease_looks_held(path: str) -> bool:
    """Tell whether a lease is probably held: it was touched lately. For looking only: clocks of hosts differ."""
    try:
        recent = time.time() - os.stat(path).st_mtime < 2 * LEASE
    except FileNotFoundError:
        return False
    facts = _facts_of(path)
    if recent and facts.get("host") == os.uname().nodename and facts.get("pid", "").isdigit():
        with suppress(PermissionError):  # somebody else's process lives, too
            try:
                os.kill(int(facts["pid"]), 0)
            except ProcessLookupError:
                return False
    return recent


def lease_holder(path: str) -> str:
    """Return who holds a lease, for messages."""
    facts = _facts_of(path)
    return f"pid {facts['pid']} on {facts['host']}" if {"pid", "host"} <= facts.keys() else "another process"


def _facts_of(path: str) -> dict[str, str]:
    text = (files.read_bytes(path) or b"").decode(errors="replace")
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


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
