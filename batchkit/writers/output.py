"""A file as a job's output: parts while the job works, one whole file when it is done.

Publishing joins the parts, as the output's kind does it, and renames what came of that to the output's name; results
that come later (the input grew) are joined with the published file, which the new one then replaces whole. The log
(`publish.jsonl` in the job's directory) holds `{"state": "joining", "shards", "offset"}` at synced offsets,
`{"state": "finishing", "shards", "files": [[from, to, size], …]}` before the renames, and `{"state": "done", "shards",
"files": [{"path", "size", "mtime_ns", "tail"}, …]}` after them. A crash anywhere between repeats only what the log does
not cover.
"""

from __future__ import annotations

import os
from typing import Any
from zlib import crc32

from batchkit import files
from batchkit.errors import DamageError, OutputChanged, UsageError
from batchkit.writers.base import Piece
from batchkit.writers.parts import Parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.writers.base import Kind, PublishLog, Writer

_TAIL = 4096


class FileOutput:
    """Results in one file, each stored exactly once."""

    def __init__(self, path: str, kind: Kind, job: str, state: str) -> None:
        """Write to `path` (absolute, links resolved) for the job with the uuid `job` and the directory `state`."""
        self.path = path
        self._kind = kind
        self._state = state
        self._parts = Parts(path, job, state)
        self.refuse_taken_over = self._parts.refuse_taken_over
        self.other_owner = self._parts.other_owner
        self.prepare = self._parts.prepare
        self.remove_parts = self._parts.remove

    def refuse_foreign(self, *, replace: bool) -> None:
        """Raise `UsageError` for a path that is a directory, another job's, or exists and may not be replaced."""
        if os.path.isdir(self.path):
            raise UsageError(f"the output '{self.path}' is a directory; end it with '/' to keep parts in it")
        directory = os.path.dirname(self.path)
        if not os.path.isdir(directory) and directory != self._state:
            raise UsageError(f"there is no directory '{directory}' for the output; run: mkdir -p '{directory}'")
        self._parts.refuse_foreign(replace=replace)
        if os.path.lexists(self.path) and not os.path.isfile(self.path):
            raise UsageError(f"the output '{self.path}' is no plain file; for standard output give -o -")
        if not replace and os.path.lexists(self.path):
            raise UsageError(f"the output '{self.path}' exists and is not this job's; give another -o, or --overwrite")

    def writer(self, shard: int, *, frozen: int) -> Writer:
        """Return the writer of a shard's part."""
        published = self._published(frozen)
        return self._kind.writer(self._parts.part(shard), [*published, *map(self._parts.part, range(frozen, shard))])

    def _published(self, frozen: int) -> list[str]:
        """Return the files that hold the first `frozen` shards."""
        return [self.path] if frozen else []

    def publish(self, marks: Sequence[Any], log: PublishLog, keep_going: Callable[[], bool], *, replace: bool) -> bool:
        """Join the parts and rename; goes on where an earlier attempt ended."""
        done = log.done()
        if done is not None and done["shards"] == len(marks):
            return True
        self.refuse_taken_over()
        if done is not None:
            self.verify(done)
        joined = self._join(marks, done, log, keep_going)
        if joined is None:
            return False
        log.write({"state": "finishing", "shards": len(marks), "files": joined, "done": done})
        self.finish(log, replace=replace)
        return True

    def _join(
        self, marks: Sequence[Any], done: dict[str, Any] | None, log: PublishLog, keep_going: Callable[[], bool]
    ) -> list[tuple[str, str, int]] | None:
        """Make the files to be renamed: (from, to, size) each; `None`: stopped before the end."""
        frozen = done["shards"] if done else 0
        pieces = [Piece(self._parts.part(shard), marks[shard][0]) for shard in range(frozen, len(marks))]
        if done:
            pieces.insert(0, Piece(self.path, done["files"][0]["size"], whole=True))
        joining = Joining(log, len(marks), done, keep_going)
        piece = self._kind.join(pieces, self._parts.joined(), joining)
        return None if piece is None else [(piece.path, self.path, piece.length)]

    def finish(self, log: PublishLog, *, replace: bool) -> None:
        """Rename joined files to the output's name and log it, if the log says that this is due.

        Repeats renames that were cut short. Raises `OutputChanged` where a file that may not be replaced came up.
        """
        finishing = log.last() or {}
        if finishing.get("state") != "finishing":
            return
        done = finishing["done"]
        published = done["files"] if done is not None else []
        if any(files.size(source) is not None for source, _, _ in finishing["files"]):
            self.verify({"files": published})
        ours = {facts["path"] for facts in published}
        for source, target, size in finishing["files"]:
            _rename(source, target, size, replace=replace or target in ours)
        self._replaced(finishing, log, replace=replace)
        new = [_facts_of(target) for _, target, _ in finishing["files"]]
        known = {facts["path"]: facts for facts in [*published, *new]}
        log.write({"state": "done", "shards": finishing["shards"], "files": list(known.values())})
        self.remove_parts()

    def _replaced(self, finishing: dict[str, Any], log: PublishLog, *, replace: bool) -> None:
        """Remove what the new files replace under other names; nothing for a single file."""

    def verify(self, done: dict[str, Any]) -> None:
        """Compare length, time and last bytes of the published files."""
        for facts in done["files"]:
            again = "put it back, or start over with --restart"
            if files.size(facts["path"]) is None:
                raise OutputChanged(f"the output '{facts['path']}' of this completed job is gone; {again}")
            if _facts_of(facts["path"]) != facts:
                raise OutputChanged(
                    f"the output '{facts['path']}' was changed after this job had published it; {again}"
                )

    def stored(self, marks: Sequence[Any], log: PublishLog) -> Iterator[Any]:
        """Yield the results that stand in the published file and in the parts up to their marks."""
        return self._kind.results(self._pieces_stored(marks, log))

    def _pieces_stored(self, marks: Sequence[Any], log: PublishLog) -> list[Piece]:
        done, last = log.done(), log.last() or {}
        if last.get("state") == "finishing":
            return self._pieces_joined(last)
        frozen = done["shards"] if done else 0
        pieces = [Piece(facts["path"], facts["size"], whole=True) for facts in done["files"]] if done else []
        for shard in range(frozen, len(marks)):
            mark = marks[shard]
            pieces.append(Piece(self._parts.part(shard), mark[0] if mark else 0))
        return pieces

    def _pieces_joined(self, finishing: dict[str, Any]) -> list[Piece]:
        """Return what a publication that was cut short has joined, behind what it leaves as it is."""
        joined = finishing["files"]
        replaced = {target for _, target, _ in joined}
        published = finishing["done"]["files"] if finishing["done"] else []
        left = [Piece(facts["path"], facts["size"], whole=True) for facts in published if facts["path"] not in replaced]
        return left + [
            Piece(source if files.size(source) is not None else target, size, whole=True)
            for source, target, size in joined
        ]


class Joining:
    """What a kind may ask and tell while it joins: how far an earlier attempt came, and whether to go on."""

    def __init__(
        self, log: PublishLog, shards: int, done: dict[str, Any] | None, keep_going: Callable[[], bool]
    ) -> None:
        """Read the log."""
        self._log = log
        self._entry = {"state": "joining", "shards": shards, "done": done}
        self.keep_going = keep_going
        last = log.last() or {}
        self.offset = last["offset"] if last.get("state") == "joining" and last["shards"] == shards else 0

    def note(self, offset: int) -> None:
        """Log that so many bytes are joined and synced."""
        self._log.write({**self._entry, "offset": offset})


def _rename(source: str, target: str, size: int, *, replace: bool) -> None:
    """Rename a joined file, or see that this was done."""
    if files.size(source) is not None:
        if os.path.lexists(target) and not replace:
            raise OutputChanged(f"a file '{target}' came up that is not this job's; move it, or give --overwrite")
        files.sync_file(source)  # also its time, by which it will be known again: fdatasync leaves that out
        files.rename(source, target)
    elif files.size(target) != size:
        raise DamageError(f"'{source}' is gone before it became '{target}'; --restart starts over")


def _facts_of(path: str) -> dict[str, Any]:
    """Return what a published file is known by."""
    with files.naming("read", path):
        fd = files.kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            facts = os.fstat(fd)
            tail = crc32(files.kernel.pread(fd, _TAIL, max(0, facts.st_size - _TAIL)))
        finally:
            files.kernel.close(fd)
    return {"path": path, "size": facts.st_size, "mtime_ns": facts.st_mtime_ns, "tail": tail}
