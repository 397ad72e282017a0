"""How many failures are too many."""

from __future__ import annotations

import math
import time
from typing import Any

from batchkit.errors import TooManyFailures, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ENOUGH_ITEMS = 1_000
ENOUGH_SECONDS = 300.0
"""A share of failures is judged once so many items are handled or a run took so long, and at the end."""


class Limit:
    """How many failures a job may have: a number of items, or a share of those handled."""

    def __init__(self, most: int | str | None, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock. most: a count, or a share such as "1%"; `None`: any number. Raises `UsageError`."""
        self.most = most
        self._clock = clock
        self._begun = clock()
        self._percent = math.inf
        self._count = math.inf
        if isinstance(most, str) and most.strip().endswith("%"):
            self._percent = _number(most.strip()[:-1], most)
            if self._percent > 100:  # noqa: PLR2004  # of a hundred
                raise UsageError(f"max_failures is {most!r}; give at most 100%")
        elif most is not None:
            self._count = _number(most, most)
            if self._count != int(self._count):
                raise UsageError(f"max_failures is {most!r}; give a whole number, or a share such as '1%'")

    def check(self, job: str | None, handled: int, failed: int, *, final: bool = False) -> None:
        """Raise `TooManyFailures` if of so many `handled` items of the job too many failed.

        final: whether nothing is left to do, so that a share is judged in any case.
        """
        enough = final or handled >= ENOUGH_ITEMS or self._clock() - self._begun >= ENOUGH_SECONDS
        # Not as a fraction of 1: 29 of 100 are more than 0.29 * 100.
        if failed > self._count or (enough and 100 * failed > self._percent * handled):
            look = "" if job is None else f"; see: batchkit failures {job}"
            again = "" if job is None else f", run them again with: batchkit retry {job}"
            raise TooManyFailures(
                f"{failed:,} of {handled:,} items failed, more than max_failures={self.most} allows{look}{again}, "
                "or give a higher limit to go on"
            )


def _number(text: Any, given: Any) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < math.inf:
        raise UsageError(f"max_failures is {given!r}; give a number of items, or a share such as '1%'")
    return number
