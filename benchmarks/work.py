"""The functions that the benchmarks call, the same for batchkit and for the bare loop."""

from __future__ import annotations

import os
import time
from typing import Any


def upper(line: str) -> str:
    """Do next to nothing, so that everything measured is overhead."""
    return line.upper()


def table(batch: Any) -> Any:
    """Return a batch as it is, so that everything measured is overhead."""
    return batch


def nothing(_batch: Any) -> None:
    """Store nothing."""


class _Stamping:
    """Writes down when it was called first, to the file named by $FIRST_CALL."""

    def __init__(self) -> None:
        """Wait for the first call."""
        self._called = False

    def stamp(self) -> None:
        """Write the time down, once."""
        if not self._called:
            self._called = True
            with open(os.environ["FIRST_CALL"], "w", encoding="ascii") as file:
                file.write(repr(time.time()))


class Stamped(_Stamping):
    """`upper` that writes down when it was called first."""

    def __call__(self, line: str) -> str:
        """Return the line in upper case."""
        self.stamp()
        return line.upper()


class StampedTable(_Stamping):
    """`nothing` that writes down when it was called first."""

    def __call__(self, _batch: Any) -> None:
        """Store nothing."""
        self.stamp()
