"""Where a round stores its results until they are merged into the output of its job."""

from __future__ import annotations

from typing import Any

from batchkit import files
from batchkit.writers.memory import MemoryOutput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchkit.writers.base import PublishLog, Round, Writer


class RoundOutput(MemoryOutput):
    """One part file, each result stored exactly once; whoever publishes the job's output merges it."""

    def __init__(self, path: str, writer: Callable[[], Writer]) -> None:
        """Write to the file at `path`; writer: makes what does."""
        super().__init__()
        self._path = path
        self._writer = writer

    def prepare(self, shards: Sequence[int], *, afresh: bool) -> None:
        """Make the file empty; durable on return."""
        del shards, afresh
        files.AppendFile(self._path).close()

    def writer(  # type: ignore[override]
        self, shard: int, *, frozen: int, rounds: Sequence[Round] = (), order: Sequence[int] | None = None
    ) -> Writer:
        """Return the writer of the file."""
        del shard, frozen, rounds, order
        return self._writer()

    def publish(
        self,
        marks: Sequence[Any],
        log: PublishLog,
        keep_going: Callable[[], bool],
        *,
        replace: bool,
        rounds: Sequence[Round] = (),
        order: Sequence[int] | None = None,
    ) -> bool:
        """Note that everything is stored."""
        del keep_going, replace, rounds, order
        done = log.done()
        if done is None or done["shards"] != len(marks):
            log.write({"state": "done", "shards": len(marks), "files": []})
        return True
