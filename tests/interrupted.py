"""Workflows in processes of their own that are killed at a state write, or at a system call."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batchkit.errors import PhaseFailed
from batchkit.workflow.finding import find_workflow
from tests.kernels import Hooked, Killing, installed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from tests.children import Nursery

TIMES = {"created", "updated", "started", "completed", "seconds", "attempts", "at", "time", "restored"}
"""What of a state may be another after a kill."""


class KillingAtState(Hooked):
    """Kills the process right before its n-th write of `workflow.json` counts, or right behind that."""

    def __init__(self, at: int, *, behind: bool) -> None:
        super().__init__(("replace",))
        self._left = at
        self._behind = behind

    def around(self, number: int, name: str, call: Callable[..., Any], *args: Any, **extra: Any) -> Any:
        del number, name
        if os.path.basename(args[1]) != "workflow.json":
            return call(*args, **extra)
        self._left -= 1
        if self._left == 0 and not self._behind:
            os.kill(os.getpid(), signal.SIGKILL)
        done = call(*args, **extra)
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return done


class Kill(NamedTuple):
    """When a process is killed: at a write of the state, or, `behind` being `None`, before a changing system call."""

    at: int
    behind: bool | None = None

    def kernel(self) -> AbstractContextManager[Any]:
        """Let batchkit make its system calls so."""
        if self.behind is None:
            return installed(Killing(self.at))
        return installed(KillingAtState(self.at, behind=self.behind))


class Flow(NamedTuple):
    """A workflow, the directory in which it is run, and what it is run with."""

    spec: str
    directory: str
    params: Mapping[str, Any] = {}
    env: Mapping[str, str] = {}

    def run(self, nursery: Nursery, kill: Kill | None = None) -> int:
        """Run it; return how the process ended, see `in_child`. A phase that fails is exit code 1."""
        return nursery.run(_do, self, None, kill)

    def rollback(self, nursery: Nursery, to: str, kill: Kill | None = None) -> int:
        """Roll it back."""
        return nursery.run(_do, self, to, kill)

    def state(self) -> Any:
        """Return its state, without times and attempts."""
        [path] = Path(self.directory).glob(".batchkit/*/workflow.json")
        return _timeless(json.loads(path.read_text()))

    def tree(self, name: str) -> dict[str, bytes | None]:
        """Return what a directory of it holds; `None` for a directory."""
        found = Path(self.directory, name)
        return {str(path.relative_to(found)): None if path.is_dir() else path.read_bytes() for path in found.rglob("*")}


def _do(flow: Flow, to: str | None, kill: Kill | None) -> None:
    os.chdir(flow.directory)
    os.environ.pop("BATCHKIT_STATE_DIR", None)
    os.environ.update(flow.env)
    workflow = find_workflow(flow.spec)
    with contextlib.nullcontext() if kill is None else kill.kernel():
        if to is not None:
            workflow.rollback(to, progress="none")
            return
        try:
            workflow.run(params=flow.params, progress="none")
        except PhaseFailed:
            os._exit(1)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _timeless(each) for name, each in value.items() if name not in TIMES}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def at_state_writes() -> Iterator[Kill]:
    """Yield a kill before and one behind each write of the state, without end."""
    at = 0
    while True:
        at += 1
        yield Kill(at, behind=False)
        yield Kill(at, behind=True)


def at_system_calls(every: int = 1) -> Iterator[Kill]:
    """Yield a kill before each changing system call, or every n-th, without end."""
    return (Kill(at) for at in itertools.count(every, every))
