"""How often calls may begin: so many in a second, a minute or an hour, kept by all processes of a run together.

They are spread evenly: `600/m` is one every tenth of a second, not 600 at once and then none for a minute. In no
such period do more begin than are allowed; up to one in a hundred of these may be lost to that.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import threading
import time
from typing import Any

from batchkit.errors import UsageError

try:
    from pyrate_limiter import GCRA, AbstractClock, InMemoryStateStore, MonotonicClock, Rate, StateBucket, StateStore
    from pyrate_limiter.abstracts import RateItem
except ImportError as missing:
    raise UsageError("rate needs pyrate-limiter 4.5 or newer; run: pip install 'batchkit[rate]'") from missing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchkit.budget import Budget

_CATCH_UP = 0.02
"""Seconds for which calls that come late may be made up for at once: a sleep ends a little late every time."""


def limit_of(rate: str) -> tuple[int, int]:
    """Return `"10/s"`, `"600/m"` or `"1000/h"` as a number of calls and seconds. Raises `UsageError`."""
    found = re.fullmatch(r"(\d{1,9})/([smh])", str(rate).replace(" ", ""))
    if found is None or int(found[1]) == 0:
        raise UsageError(
            f"rate is {rate!r}; give a whole number of calls per second, minute or hour: 10/s, 600/m or 1000/h"
        )
    return int(found[1]), {"s": 1, "m": 60, "h": 3600}[found[2]]


class Pace:
    """Gives out turns: who wants to begin a call takes one. May be used by several threads at once."""

    def __init__(self, limit: int, seconds: int, path: str | None, clock: AbstractClock | None = None) -> None:
        """Allow `limit` turns in so many seconds; path: a file by which processes share them, `None`: only this one.

        clock: `None`: the system's since it was started, which all of its processes have. What the file says does not
        outlive a restart of that, and need not.
        """
        burst = 1 + min(limit // 100, int(limit * _CATCH_UP / seconds))
        # Anybody who had been idle may make `burst` calls at once and goes on evenly: `limit` in all, in any period.
        rate = Rate(limit - burst + 1, seconds * 1000, burst)
        store = InMemoryStateStore() if path is None else _FileStore(path)
        self._bucket = StateBucket([rate], GCRA(), store, clock or MonotonicClock())
        self._lock = threading.Lock()

    def due(self) -> float:
        """Take a turn and return 0, or return after how many seconds to ask again."""
        with self._lock:  # a bucket remembers its last answer
            now = self._bucket.now()  # type: ignore[no-untyped-call]  # the library's
            decision = self._bucket.put_decision(RateItem("", now))
        if decision.allowed:  # type: ignore[union-attr]  # no bucket of an event loop
            return 0.0
        return max(0.001, (decision.retry_after_ms or 0) / 1000)  # type: ignore[union-attr]  # as above

    def naps(self, budget: Budget) -> Iterator[float]:
        """Yield how long to sleep before going on, until the turn is taken, or `budget` has a reason to stop.

        A turn beyond the time limit is not waited for: then the time is used up.
        """
        while budget.go_on() and (seconds := self.due()) > 0:
            if not budget.allows(seconds):
                budget.stop("time")
                return
            yield from budget.naps(seconds)

    def wait(self, budget: Budget) -> bool:
        """Take a turn as soon as there is one; return whether the run may go on."""
        for nap in self.naps(budget):
            budget.nap(nap)
        return budget.reason is None

    def close(self) -> None:
        """Let go of the file."""
        self._bucket.close()


class _FileStore(StateStore):
    """The state in a file: a whole number of 8 bytes, the microsecond by which all that was allowed is made up for.

    The kernel's lock on the file is held for some microseconds at a time and dies with its holder.
    """

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def check(self, algorithm: Any, rates: list[Rate], now: int, weight: int) -> Any:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            state, decision = algorithm.step(rates, self._load(rates, now), now, weight)
            if decision.allowed:
                os.pwrite(self._file, _STATE.pack(int(state[0])), 0)
            return decision
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _load(self, rates: list[Rate], now: int) -> tuple[int]:
        stored = os.pread(self._file, _STATE.size, 0)
        reached = _STATE.unpack(stored)[0] if len(stored) == _STATE.size else 0
        # Further ahead than the rate ever leads, it was written before the machine was started anew.
        return (reached if reached <= 1000 * (now + 2 * rates[0].interval) else 0,)

    def read(self, algorithm: Any, rates: list[Rate]) -> Any:
        del algorithm
        return self._load(rates, time.monotonic_ns() // 1_000_000)

    def reset(self) -> None:
        os.pwrite(self._file, _STATE.pack(0), 0)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


_STATE = struct.Struct("<q")
