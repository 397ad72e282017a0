"""What a function may know about the call in progress."""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.model import Batch, Cursor


class Identity(NamedTuple):
    """What stays the same for all calls of a shard: the job's name and uuid, and the shard's number."""

    job: str
    uuid: str
    shard: int


class CurrentBatch:
    """The call in progress, as `current_batch()` gives it.

    job: the job's name. shard, seq: numbers of shard and commit; they change with plan and batch size, so build
    nothing lasting on them. cursor: coordinate of the first input item of this call.
    number: of the first item of this call in the whole input, from 1; `None`: nobody has counted.
    key: names this call, the same in every run for the same items: for idempotent requests.
    item_keys: the same for each item of the call.
    """

    def __init__(self, identity: Identity, seq: int, batch: Batch, first: int, count: int) -> None:
        """Describe the call with `count` items of `batch` from `first` on."""
        self.job = identity.job
        self.shard = identity.shard
        self.seq = seq
        self._uuid = identity.uuid
        self._batch = batch
        self._first = first
        self._count = count

    @property
    def cursor(self) -> Cursor:
        """The coordinate of the first item of this call."""
        return self._batch.coordinate(self._first)

    @property
    def number(self) -> int | None:
        """The number of the first item of this call in the whole input, from 1; `None`: nobody has counted."""
        return self._batch.number_of(self._first)

    @property
    def item_keys(self) -> list[str]:
        """A stable key for each item of this call."""
        return [self._key(index) for index in range(self._first, self._first + self._count)]

    @property
    def key(self) -> str:
        """A stable key of this call: the job's uuid and the coordinates of its first and last item."""
        first, last = self._key(self._first), self._batch.coordinate(self._first + self._count - 1)
        return first if self._count == 1 else f"{first}-{_joined(last)}"

    def _key(self, index: int) -> str:
        return f"{self._uuid}:{_joined(self._batch.coordinate(index))}"


def _joined(cursor: Cursor) -> str:
    return ".".join(map(str, cursor)) if isinstance(cursor, list) else str(cursor)
