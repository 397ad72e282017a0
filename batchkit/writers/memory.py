"""Results kept in memory, for jobs that leave nothing on disk."""

from __future__ import annotations

from typing import Any

from batchkit.writers.values import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchkit.writers.base import PublishLog, Round


class MemoryOutput:
    """A list; exactly once within the process, gone with it."""

    path: str | None = None

    def __init__(self) -> None:
        """Begin with an empty list."""
        self.results: list[Any] = []

    def refuse_foreign(self, *, replace: bool) -> None:
        """Accept: nobody else knows the list."""

    def refuse_taken_over(self) -> None:
        """Accept."""

    def prepare(self, shards: Sequence[int], *, afresh: bool) -> None:
        """Do nothing."""

    def writer(
        self,
        shard: int,  # noqa: ARG002  # the seam's
        *,
        frozen: int,  # noqa: ARG002
        rounds: Sequence[Round] = (),  # noqa: ARG002
        order: Sequence[int] | None = None,  # noqa: ARG002
    ) -> MemoryWriter:
        """Return a writer that appends to the list."""
        return MemoryWriter(self.results)

    def share(self, marks: Sequence[Any], *, frozen: int, rounds: Sequence[Round], order: Sequence[int]) -> None:
        """Do nothing: results have no columns here."""

    def publish(
        self,
        marks: Sequence[Any],  # noqa: ARG002  # the seam's
        log: PublishLog,  # noqa: ARG002
        keep_going: Callable[[], bool],  # noqa: ARG002
        *,
        replace: bool,  # noqa: ARG002
        rounds: Sequence[Round] = (),  # noqa: ARG002
        order: Sequence[int] | None = None,  # noqa: ARG002
    ) -> bool:
        """Do nothing: the list is there."""
        return True

    def finish(self, log: PublishLog, *, replace: bool) -> None:
        """Do nothing."""

    def other_owner(self) -> str | None:
        """Return `None`: nobody else knows the list."""
        return None

    def verify(self, done: dict[str, Any]) -> None:
        """Do nothing."""

    def remove_parts(self) -> None:
        """Do nothing."""

    def forget(self) -> None:
        """Do nothing."""


class MemoryWriter:
    """Appends to a list."""

    def __init__(self, results: list[Any]) -> None:
        """Append to `results`."""
        self._results = results

    def intact(self, marks: Sequence[Any]) -> int:
        """Return the last: there is no earlier process to doubt."""
        return len(marks) - 1

    def open(self, mark: int | None) -> None:
        """Do nothing."""

    def write(self, results: Sequence[Any]) -> None:
        """Append what is not `None`."""
        self._results.extend(result for result in listed(results) if result is not None)

    def mark(self) -> int:
        """Return the number of results."""
        return len(self._results)

    def place(self) -> None:
        """Return nothing: nothing is merged into a list."""

    def sync(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
