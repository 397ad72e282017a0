"""Run something in a real child process, which may be killed."""

from __future__ import annotations

import importlib
import os
import pickle
import pkgutil
import subprocess
import sys
import traceback
import warnings
from typing import TYPE_CHECKING

import batchkit

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def in_child(do: Callable[[], object]) -> int:
    """Run `do` in a forked process; return its exit code, negative for a signal. What it raises is exit code 99.

    For what does not use polars: its threads would be missing in the child, if they have begun here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads, which Python 3.12 counts
        child = os.fork()
    if child == 0:
        code = 99
        try:
            do()
            code = 0
        except BaseException:  # noqa: BLE001  # nothing may leave the child, or pytest would go on in it
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


class Nursery:
    """A process that has loaded batchkit and polars and never used them, so that it has no pools of threads yet.

    Its children may use polars: they make pools of their own. (The threads that loading it starts hold no locks while
    they wait, and the allocator's are made for forks.) A child costs a fork and the start of these threads, 10 ms; a
    new interpreter would take half a second.
    """

    def __init__(self) -> None:
        """Start it."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.children"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def run(self, do: Callable[..., object], *arguments: Any) -> int:
        """Run a function of a module in a child, as `in_child` does. Both are pickled."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        pickle.dump((do, arguments), self._process.stdin)
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _nurse(orders: BinaryIO, reports: BinaryIO) -> None:
    """Run what is ordered, child by child, and report how each ended."""
    threads = _threads()
    while True:
        try:
            do, arguments = pickle.load(orders)  # noqa: S301  # from our own parent
        except EOFError:
            return
        assert _threads() <= threads, "something has started threads: children may hang"
        code = in_child(lambda do=do, arguments=arguments: do(*arguments))  # type: ignore[misc]
        reports.write(b"%d\n" % code)
        reports.flush()


def _threads() -> int:
    return len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 0


if __name__ == "__main__":
    for module in pkgutil.walk_packages(batchkit.__path__, "batchkit."):  # and with some of them polars
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    _nurse(sys.stdin.buffer, sys.stdout.buffer)
