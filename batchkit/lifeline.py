"""Process groups that do not outlive us, however we end: the kernel sees to it, where it can (Linux)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal

KERNEL_DOES = hasattr(fcntl, "F_SETSIG")
"""Whether the kernel can kill for us; elsewhere somebody has to watch."""


def tie(end: int, group: int) -> None:
    """Have a group of processes killed when the pipe ends of which `end` is the reading end.

    That is a signal of the kernel for input on a descriptor (`O_ASYNC`, see fcntl(2)), and the end of input is one.
    """
    fcntl.fcntl(end, fcntl.F_SETOWN, -group)
    fcntl.fcntl(end, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_ASYNC)


def untie(end: int) -> None:
    """Take that back."""
    fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) & ~os.O_ASYNC)


class Lifeline:
    """A pipe to a child, which has its reading end and need not know: when our end closes, its whole group is killed.

    A child cannot be tied before it is there: one that was started in the very moment in which we are killed lives on.

    fds: what the child is to inherit.
    """

    def __init__(self) -> None:
        """Make the pipe; elsewhere than on Linux there is none."""
        self._ends = os.pipe() if KERNEL_DOES else ()
        self.fds = self._ends[:1]

    def tie(self, group: int) -> None:
        """Have a group of processes killed when we end."""
        if self._ends:
            with contextlib.suppress(OSError):  # all of it has ended, or belongs to another user
                tie(self._ends[0], group)

    def untie(self) -> None:
        """Let go of the group: what is left of it lives on."""
        if self._ends:
            untie(self._ends[0])
        for fd in self._ends:
            os.close(fd)
        self._ends = ()
