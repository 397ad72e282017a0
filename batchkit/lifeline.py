"""Process groups that do not outlive us, however we end: the kernel sees to it, where it can (Linux)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal

_TIES = hasattr(fcntl, "F_SETSIG")


class Lifeline:
    """A pipe to a child, which has its reading end and need not know: when our end closes, its whole group is killed.

    That is a signal of the kernel for input on a descriptor (`O_ASYNC`, see fcntl(2)), and the end of input is one.
    fds: what the child is to inherit.
    """

    def __init__(self) -> None:
        """Make the pipe; elsewhere than on Linux there is none."""
        self._ends = os.pipe() if _TIES else ()
        self.fds = self._ends[:1]

    def tie(self, group: int) -> None:
        """Have a group of processes killed when we end."""
        if not self._ends:
            return
        end = self._ends[0]
        with contextlib.suppress(OSError):  # all of it has ended, or belongs to another user
            fcntl.fcntl(end, fcntl.F_SETOWN, -group)
            fcntl.fcntl(end, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) | os.O_ASYNC)

    def untie(self) -> None:
        """Let go of the group: what is left of it lives on."""
        if self._ends:
            end = self._ends[0]
            fcntl.fcntl(end, fcntl.F_SETFL, fcntl.fcntl(end, fcntl.F_GETFL) & ~os.O_ASYNC)
        for fd in self._ends:
            os.close(fd)
        self._ends = ()
