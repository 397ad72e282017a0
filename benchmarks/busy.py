"""The functions that `parallel.py` has called: busy or waiting, the same for batchkit and for its peers.

Each process notes the time of its first call, once, in a file of its own in the directory named by $STAMPS; every
further call costs one look at a global.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time

LOOPS = int(os.environ.get("LOOPS", "200"))
"""How much `burn` does: a constant amount of work, whatever the machine does meanwhile."""

WAIT = 0.005
"""Seconds that a waiting call takes."""

SHORT, LONG = 0.001, 0.1
"""Seconds that calls of `uneven` take."""

_called = False


def _stamp() -> None:
    global _called  # noqa: PLW0603  # an instance would be pickled with every task of some peers, and stamp again
    _called = True
    path = os.path.join(os.environ["STAMPS"], f"first-{os.getpid()}")
    with contextlib.suppress(FileExistsError), open(path, "x", encoding="ascii") as file:
        file.write(repr(time.time()))


def churn(loops: int) -> int:
    """Keep a core busy for a constant number of steps."""
    total = 0
    for number in range(loops):
        total = (total * 31 + number) & 0xFFFF
    return total


def burn(line: str) -> str:
    """Keep a core busy, then return the line with what came out."""
    if not _called:
        _stamp()
    return f"{line} {churn(LOOPS)}"


def burn_all(lines: list[str]) -> list[str]:
    """Do the same to a batch, for those who make batches of their own."""
    return [burn(line) for line in lines]


def nap(line: str) -> str:
    """Wait in a thread."""
    if not _called:
        _stamp()
    time.sleep(WAIT)
    return line


def uneven(line: str) -> str:
    """Wait shortly, or a hundred times as long for a line that begins with one."""
    if not _called:
        _stamp()
    time.sleep(LONG if line.startswith("1 ") else SHORT)
    return line


async def nap_async(line: str) -> str:
    """Wait in an event loop."""
    if not _called:
        _stamp()
    await asyncio.sleep(WAIT)
    return line
