"""A live shard shared: who has nothing to do asks for what is left of it, and its owner gives.

    shards/NNNNN.wanted     a byte for each worker that asks; removed by the owner when it has answered

The owner cuts its own span shorter and makes new shards of what is behind. So the end of a job is not held up by a
shard whose items take longer than others.
"""

from __future__ import annotations

import os

from batchkit import files
from batchkit.plan import carry_out, divided

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.model import Checkpoint, Cursor, Shard
    from batchkit.plan import Place
    from batchkit.readers.base import Reader


def ask(path: str) -> None:
    """Ask the owner of the shard with the journal at `path` for some of its rest."""
    files.add_byte(_request(path))


def asked(path: str) -> bool:
    """Tell whether a request for some of the shard's rest is unanswered."""
    return os.path.exists(_request(path))


def answer(path: str) -> None:
    """Let a request be answered, whatever came of it."""
    files.remove(_request(path))


def _request(path: str) -> str:
    return f"{path.removesuffix('.jsonl')}.wanted"


class Sharing:
    """The owner's side: gives of the rest of its shard."""

    def __init__(self, place: Place, reader: Reader, shard: Shard, *, numbered: bool) -> None:
        """Own a shard. numbered: whether it is to be known how many items come before each new one."""
        self._place = place
        self._reader = reader
        self._shard = shard
        self._numbered = numbered
        self._path = place.job.shard_path(shard.number)
        answer(self._path)  # a request to an owner that died

    def wanted(self) -> bool:
        """Tell whether somebody asks."""
        return asked(self._path)

    def give(self, point: Checkpoint) -> Cursor | None:
        """Give of what follows a commit; return where the shard ends from now on, `None`: nothing could be given.

        Durable on return: only then may the shard end there.
        """
        try:
            return self._given(point)
        finally:
            answer(self._path)

    def _given(self, point: Checkpoint) -> Cursor | None:
        hands = 1 + (files.size(_request(self._path)) or 0)
        division = divided(self._reader, self._shard, point.stop, point.handled, hands, numbered=self._numbered)
        if not division.rest:
            return None
        carry_out(self._place, [division])
        self._shard = division.own
        return self._shard.span.stop
