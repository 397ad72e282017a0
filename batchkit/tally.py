"""How far a job is: its shards' newest checkpoints added up."""

from __future__ import annotations

from batchkit.model import Checkpoint, Shard, Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.readers.base import Reader


class Tally:
    """Counts over all shards of a job.

    total: extent of the job in the reader's units; `None` while unknown.
    """

    def __init__(
        self,
        reader: Reader,
        plan: Sequence[Shard],
        points: Sequence[Checkpoint | None],
        resolved: tuple[int, int] = (0, 0),
    ) -> None:
        """Begin with the checkpoints that the shards have; `None`: no commit yet.

        resolved: how many failures were done and how many skipped when they were run again.
        """
        self._resolved = resolved
        self._reader = reader
        self.plan = list(plan)
        self._points = {shard.number: point for shard, point in zip(plan, points, strict=True)}
        extents = [reader.extent(shard.span) for shard in plan]
        self.total = None if None in extents else sum(extent or 0 for extent in extents)

    def take_plan(self, plan: Sequence[Shard]) -> None:
        """Take a plan in which spans were divided further."""
        self.plan = list(plan)

    def put(self, number: int, point: Checkpoint) -> None:
        """Take the newest checkpoint of a shard."""
        self._points[number] = point

    def point(self, number: int) -> Checkpoint | None:
        """Return the newest checkpoint of a shard; `None`: no commit yet."""
        return self._points.get(number)

    @property
    def points(self) -> list[Checkpoint | None]:
        """The newest checkpoint of each shard, in input order."""
        return [self._points.get(shard.number) for shard in self.plan]

    @property
    def done(self) -> int:
        """Items done."""
        return self._resolved[0] + sum(point.done for point in self.points if point is not None)

    @property
    def failed(self) -> int:
        """Items that failed for good."""
        return sum(point.failed for point in self.points if point is not None) - sum(self._resolved)

    @property
    def skipped(self) -> int:
        """Items dropped on purpose."""
        return self._resolved[1] + sum(point.skipped for point in self.points if point is not None)

    @property
    def handled(self) -> int:
        """Items done, failed or skipped."""
        return self.done + self.failed + self.skipped

    @property
    def at(self) -> int:
        """Extent done, in the reader's units."""
        covered = (
            self._reader.extent(Span(shard.span.start, point.stop))
            for shard, point in zip(self.plan, self.points, strict=True)
            if point is not None
        )
        return sum(extent or 0 for extent in covered)

    @property
    def ended(self) -> bool:
        """Whether all shards are at their end."""
        return all(point is not None and point.end for point in self.points)

    @property
    def share(self) -> float | None:
        """Share of the input done, 0 to 1; `None` if unknown."""
        return self.at / self.total if self.total else None
