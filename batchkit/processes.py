"""Tasks in processes of their own, with the face of `concurrent.futures.Executor`.

The standard process pool breaks as a whole when one of its processes dies; here a death costs its task. A process is
started afresh (never forked off a parent with threads), runs one task and ends: tasks are long. If the parent dies,
however it does, so do the processes and all that they started.
"""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

from batchkit.child import Child, Cut, pickled_task
from batchkit.errors import WorkerDied

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def call_packed(task: bytes) -> Any:
    """Make a call that was packed by `pickled_task`: so any engine gets functions that only cloudpickle can send."""
    function, args, kwargs = pickle.loads(task)  # noqa: S301  # of the run that this process works for
    return function(*args, **kwargs)


class ProcessDied(WorkerDied):
    """The process of a task died; pid: which one that was."""

    def __init__(self, message: str, *, pid: int = 0) -> None:
        """Keep both."""
        super().__init__(message)
        self.pid = pid


class Processes(Executor):
    """Runs at most so many tasks at once, each in a process of its own."""

    def __init__(self, workers: int) -> None:
        """Start none yet."""
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="batchkit-process")
        self._lock = threading.Lock()
        self._children: set[Child] = set()
        self._killed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call in a process; what it is made of is sent by cloudpickle. Raises `UsageError` if it cannot be.

        The future raises what the call raises, and `ProcessDied` if the process ends instead.
        """
        return self._threads.submit(self._run, pickled_task(fn, args, kwargs))

    def _run(self, task: bytes) -> Any:
        cut = Cut()
        try:
            child = Child(cut)
            with self._lock:
                self._children.add(child)
                killed = self._killed
            try:
                if killed:
                    raise ProcessDied("it was killed", pid=child.pid)
                return pickle.loads(child.run(task))  # noqa: S301  # from our own child
            except WorkerDied as death:
                raise ProcessDied(f"a worker process died, {death.args[0]}", pid=child.pid) from None
            finally:
                with self._lock:
                    self._children.discard(child)
                child.kill()
        finally:
            cut.close()

    def kill(self) -> None:
        """Kill all processes, now and from now on."""
        with self._lock:
            self._killed = True
            children = list(self._children)
        for child in children:
            child.signal_group()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002  # its face
        """Take no more tasks; wait for those that run, if that is asked for."""
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
