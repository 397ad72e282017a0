"""What a run is asked to do, and how."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from batchkit.calling import command_of, name_of
from batchkit.events import NO_HOOKS, Hooks
from batchkit.failures import Patience, Policy
from batchkit.limit import Limit
from batchkit.progress import sayer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.budget import Budget
    from batchkit.destination import Destination, MemoryDestination, RoundDestination
    from batchkit.job import JobDirectory
    from batchkit.readers.base import Reader
    from batchkit.writers.base import Output


class Work(NamedTuple):
    """What is to be done, and how: the caller's part of a run.

    sync_interval: seconds or `None`. batch_format: see `Caller`. timeout: seconds per call, `None`: no limit. isolated:
    whether the function is called in a process of its own. options: what `retry` is to know of the call, JSON values.
    round_of: uuid of the job whose failures these items are; `None`: they are not. numbered: whether the function asks
    for the number of its item. workers: how many processes work at once. executor: what runs them, with the face of
    `concurrent.futures.Executor`; `None`: our own. concurrency: calls in flight in each of them. rate: how often calls
    may begin, such as "10/s"; `None`: as often as they can. hooks: what hears of the run.
    """

    reader: Reader
    function: Callable[..., Any] | None
    batched: bool
    batch_size: int
    destination: Destination | RoundDestination | MemoryDestination
    sync_interval: float | None
    budget: Budget
    progress: str
    begun: float
    batch_format: str | None = None
    policy: Policy = Policy()
    limit: Limit = Limit(None)
    timeout: float | None = None
    isolated: bool = False
    options: dict[str, Any] | None = None
    round_of: str | None = None
    numbered: bool = False
    workers: int = 1
    executor: Any = None
    concurrency: int = 1
    rate: str | None = None
    hooks: Hooks = NO_HOOKS

    def definition(self, job: JobDirectory) -> dict[str, Any]:
        """Return what may not change between the runs of the job."""
        if self.round_of is not None:
            return {"round_of": self.round_of, "output": None}
        identity = self.reader.identity()
        function = {"function": name_of(self.function), "batched": self.batched}
        return {"source": identity, **function, **self.destination.definition(job)}

    def make_output(self, job: JobDirectory, uuid: str) -> Output:
        """Return the output for the job with this uuid, which waits for lost connections as the policy says."""
        output = self.destination.make(job, uuid)
        if hasattr(output, "patience"):
            output.patience = Patience(self.policy, self.budget, sayer(self.progress))
        return output

    def default_name(self) -> str | None:
        """Return `stem-function`, or `stem-program`; `None` for a source in memory whose results stay there too."""
        if not self.reader.durable and not self.destination.kept:
            return None
        command = command_of(self.function)
        parts = [self.reader.name, name_of(self.function) if command is None else command.name]
        name = re.sub(r"[^\w.-]+", "-", "-".join(part for part in parts if part)).strip("-.")
        return name or "job"
