"""Results on standard output where several workers bring them: stored as parts first, and printed in input order.

    <job>/printed.parts/NNNNN     the results of a shard, a line each
    <job>/printed.json            {"job": "<uuid>", "shard", "offset"}: all before this place of this part is printed

At least once: what was printed just before a crash may be printed again. A job that has begun so goes on so, whatever
the number of workers.
"""

from __future__ import annotations

import json
import os
from typing import Any

from batchkit import files
from batchkit.errors import DamageError
from batchkit.writers.formats import Text
from batchkit.writers.lines import LineWriter
from batchkit.writers.parts import Parts
from batchkit.writers.stdout import Stdout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchkit.writers.base import PublishLog, Round

_CHUNK = 1 << 20


def is_printed(directory: str, job: str) -> bool:
    """Tell whether the job with this uuid and directory has begun to store what it prints."""
    return _position(directory).get("job") == job


def _position(directory: str) -> dict[str, Any]:
    path = os.path.join(directory, "printed.json")
    data = files.read_bytes(path)
    try:
        entry: dict[str, Any] = {} if data is None else json.loads(data)
    except ValueError:
        raise DamageError(f"'{path}' is not readable; put back a copy, or start over with --restart") from None
    return entry


class PrintedOutput:
    """Parts of a job, printed from the first on as far as they are committed."""

    path: str | None = None

    def __init__(self, directory: str, job: str) -> None:
        """Print for the job with this directory and uuid."""
        self._directory = directory
        self._job = job
        self._parts = Parts(os.path.join(directory, "printed"), job, directory)
        self.remove_parts = self.forget = self._parts.remove
        self.other_owner = self._parts.other_owner
        self.refuse_taken_over = self._parts.refuse_taken_over
        self._out = Stdout()

    def refuse_foreign(self, *, replace: bool) -> None:
        """Accept: the parts are in the job's own directory."""

    @property
    def begun(self) -> bool:
        """Whether anything of this job may have been printed."""
        position = _position(self._directory)
        return position.get("job") == self._job and (position["shard"] is not None)

    def share(self, marks: Sequence[Any], *, frozen: int, rounds: Sequence[Round], order: Sequence[int]) -> None:
        """Do nothing: lines of text have no columns."""

    def prepare(self, shards: Sequence[int], *, afresh: bool) -> None:
        """Make the parts of new shards; durable on return."""
        self._parts.prepare(shards, afresh=afresh)
        if afresh or not is_printed(self._directory, self._job):
            self._note(None, 0)

    def writer(
        self, shard: int, *, frozen: int, rounds: Sequence[Round] = (), order: Sequence[int] | None = None
    ) -> PrintedWriter:
        """Return the writer of a shard's part."""
        del frozen, rounds, order
        if not is_printed(self._directory, self._job):  # the job printed without parts before
            self._parts.prepare((), afresh=False)
            self._note(None, 0)
        return PrintedWriter(self._parts.part(shard), Text(), (), agreement=self._parts.agreement(), mode=files.PRIVATE)

    def print_committed(self, order: Sequence[int], points: Sequence[Any], go_on: Callable[[], bool]) -> bool:
        """Print what is committed and not printed yet, in input order; tell if everything of these shards is.

        points: the newest commits of the shards, in input order; `None`: none yet. Raises `OutputClosed`.
        """
        position = _position(self._directory)
        known = position.get("shard")
        at = order.index(known) if known in order else 0
        offset = position.get("offset", 0) if known in order else 0
        for number, point in zip(order[at:], points[at:], strict=True):
            length = point.mark[0] if point is not None and point.mark else 0
            if not self._print(number, offset, length, go_on) or point is None or not point.end:
                return False
            offset = 0
        return True

    def _print(self, shard: int, offset: int, length: int, go_on: Callable[[], bool]) -> bool:
        """Print bytes of a part; tell if all of them are printed."""
        if offset >= length:
            return True
        with files.naming("read", self._parts.part(shard)), open(self._parts.part(shard), "rb") as part:
            part.seek(offset)
            while offset < length and go_on():
                data = part.read(min(_CHUNK, length - offset))
                self._out.write(data)
                offset += len(data)
                self._note(shard, offset)
        return offset >= length

    def _note(self, shard: int | None, offset: int) -> None:
        entry = {"job": self._job, "shard": shard, "offset": offset}
        files.replace(os.path.join(self._directory, "printed.json"), json.dumps(entry).encode())

    def publish(  # of marks only the lengths are needed, and those of all shards
        self,
        marks: Sequence[Any],
        log: PublishLog,
        keep_going: Callable[[], bool],
        *,
        replace: bool,
        rounds: Sequence[Round] = (),
        order: Sequence[int] | None = None,
    ) -> bool:
        """Print what is left."""
        del replace, rounds
        ends = [_End(mark) for mark in marks]
        if not self.print_committed(range(len(marks)) if order is None else order, ends, keep_going):
            return False
        done = log.done()
        if done is None or done["shards"] != len(marks):
            log.write({"state": "done", "shards": len(marks), "files": []})
        return True

    def finish(self, log: PublishLog, *, replace: bool) -> None:
        """Do nothing: printing goes on where it was."""

    def verify(self, done: dict[str, Any]) -> None:
        """Do nothing: what was printed is nobody's to look at."""


class _End:
    """What `print_committed` needs of a shard at its end."""

    end = True

    def __init__(self, mark: Any) -> None:
        self.mark = mark


class PrintedWriter(LineWriter):
    """Appends results to a part. Exactly once there; printing it is at least once."""

    def intact(self, marks: Sequence[Any]) -> int:
        """Return the index of the last mark that the part covers; `None`: the results were printed as they came."""
        return super().intact([[0, 0, 0] if mark is None else mark for mark in marks])
