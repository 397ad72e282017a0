"""A file as a job's output: parts while the job works, one whole file when it is done.

    results.jsonl.parts/owner      whose parts these are, JSON: {"format": 1, "job": "<uuid>", "state": "<directory>"}
    results.jsonl.parts/00000      the part of shard 0, and so on
    results.jsonl.parts/joined     published results with new parts behind them, until renamed

Publishing appends parts 1… to part 0 and renames that to the output's name; results that come later (the input grew)
are appended to a copy, which then replaces the published file whole. The log (`publish.jsonl` in the job's directory)
holds `{"state": "joining", "shards", "offset"}` at synced offsets, `{"state": "finishing", "shards", "size", "from"}`
before the rename and `{"state": "done", "shards", "size", "mtime_ns", "tail"}` after it. A crash anywhere between
repeats only what the log does not cover.
"""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple
from zlib import crc32

from batchkit import files
from batchkit.errors import DamageError, OutputChanged, UsageError
from batchkit.writers import formats
from batchkit.writers.lines import LineWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.writers.base import PublishLog

OWNER_FORMAT = 1
_COPY = 1 << 20
_SYNC_EVERY = 64 << 20
_TAIL = 4096


class _Piece(NamedTuple):
    """The first `length` bytes of a file, to be appended."""

    path: str
    length: int


class FileOutput:
    """Results in one text, JSONL or CSV file, each stored exactly once."""

    def __init__(self, path: str, job: str, state: str) -> None:
        """Write to `path` (absolute, links resolved) for the job with the uuid `job` and the directory `state`."""
        self.path = path
        self._parts = path + ".parts"
        self._job = job
        self._state = state

    def refuse_foreign(self, *, replace: bool) -> None:
        """Raise `UsageError` for a path that cannot be written, is another job's, or exists and may not be replaced."""
        formats.for_path(self.path)
        if os.path.isdir(self.path):
            raise UsageError(f"the output '{self.path}' is a directory; give a file in it")
        directory = os.path.dirname(self.path)
        if not os.path.isdir(directory) and directory != self._state:
            raise UsageError(f"there is no directory '{directory}' for the output; run: mkdir -p '{directory}'")
        owner = self._owner()
        if owner is not None and not self._is_ours(owner) and not replace:
            raise UsageError(
                f"the output '{self.path}' is being written by the job in '{owner['state']}'; "
                "give another -o, or take it over with --overwrite"
            )
        if owner is None and set(self._entries()) - {"owner.new"}:
            raise UsageError(f"'{self._parts}' is in the way and not batchkit's; move it, or give another -o")
        if os.path.lexists(self.path) and not os.path.isfile(self.path):
            raise UsageError(f"the output '{self.path}' is no plain file; for standard output give -o -")
        if not replace and os.path.lexists(self.path):
            raise UsageError(f"the output '{self.path}' exists and is not this job's; give another -o, or --overwrite")

    def other_owner(self) -> str | None:
        """Return the directory of another job whose parts stand there; `None` if there is none."""
        owner = self._owner()
        return None if owner is None or self._is_ours(owner) else str(owner["state"])

    def _is_ours(self, owner: dict[str, Any]) -> bool:
        """Tell ours by uuid (the state may have moved) or by directory (the job may have started over)."""
        return bool(owner["job"] == self._job or owner["state"] == self._state)

    def refuse_taken_over(self) -> None:
        """Raise `OutputChanged` if the parts there are another job's by now."""
        owner = self._owner()
        if owner is not None and owner["job"] != self._job:
            raise OutputChanged(
                f"the output '{self.path}' was taken over by the job in '{owner['state']}'; "
                "take it back with --restart --overwrite, or give another -o and --job"
            )

    def _owner(self) -> dict[str, Any] | None:
        data = files.read_bytes(os.path.join(self._parts, "owner"))
        if not data:
            return None
        owner: dict[str, Any] = json.loads(data)
        if owner.get("format") != OWNER_FORMAT:
            raise DamageError(f"'{self._parts}/owner' has format {owner.get('format')!r}, not {OWNER_FORMAT}")
        return owner

    def _entries(self) -> list[str]:
        try:
            return os.listdir(self._parts)
        except FileNotFoundError:
            return []

    def _part(self, shard: int) -> str:
        return os.path.join(self._parts, f"{shard:05d}")

    def prepare(self, shards: Sequence[int], *, afresh: bool) -> None:
        """Make the parts directory ours, and the parts of new shards empty."""
        if afresh:
            self._clear()
        files.make_directory(self._parts)
        owner = {"format": OWNER_FORMAT, "job": self._job, "state": self._state}
        files.replace(os.path.join(self._parts, "owner"), json.dumps(owner).encode() + b"\n")
        for shard in shards:
            files.AppendFile(self._part(shard), mode=files.SHARED).close()
        files.sync_directory(self._parts)

    def writer(self, shard: int, *, frozen: int) -> LineWriter:
        """Return the writer of a shard's part."""
        published = [self.path] if frozen else []
        earlier = [*published, *map(self._part, range(frozen, shard))]
        return LineWriter(self._part(shard), formats.for_path(self.path), earlier)

    def publish(
        self, marks: Sequence[list[int]], log: PublishLog, keep_going: Callable[[], bool], *, replace: bool
    ) -> bool:
        """Join the parts and rename; goes on where an earlier attempt ended."""
        done = log.done()
        if done is not None and done["shards"] == len(marks):
            return True
        self.refuse_taken_over()
        if not self._join(marks, log, keep_going):
            return False
        self.finish(log, replace=replace)
        return True

    def _join(self, marks: Sequence[list[int]], log: PublishLog, keep_going: Callable[[], bool]) -> bool:
        """Append the pieces to one file, sync it and log `finishing`; `False`: stopped before the end."""
        shards, done, last = len(marks), log.done(), log.last() or {}
        source, begun, pieces = self._pieces(marks, done)
        total = begun + sum(piece.length for piece in pieces)
        known = last.get("state") == "joining" and last["shards"] == shards
        target = files.AppendFile(source, max(begun, last["offset"]) if known else begun, mode=files.SHARED)
        try:
            files.sync_directory(self._parts)  # an offset in the log is worth nothing without the file's name
            while target.length < total and keep_going():
                stretch = min(total, target.length + _SYNC_EVERY)
                while target.length < stretch and keep_going():
                    target.append(_at(pieces, target.length - begun))
                target.sync()
                log.write({"state": "joining", "shards": shards, "offset": target.length, "done": done})
            target.sync()
        finally:
            target.close()
        if target.length < total:
            return False
        log.write({"state": "finishing", "shards": shards, "size": total, "from": source, "done": done})
        return True

    def _pieces(self, marks: Sequence[list[int]], done: dict[str, Any] | None) -> tuple[str, int, list[_Piece]]:
        """Return the file to join into, how much of it stands already, and what to append to it."""
        frozen = done["shards"] if done else 0
        if done:
            self.verify(done)
            source, begun = os.path.join(self._parts, "joined"), 0
            pieces = [_Piece(self.path, done["size"])]
        else:
            source, begun = self._part(0), marks[0][0]
            frozen, pieces = 1, []
        pieces += [_Piece(self._part(shard), marks[shard][0]) for shard in range(frozen, len(marks))]
        return source, begun, pieces

    def finish(self, log: PublishLog, *, replace: bool) -> None:
        """Rename a joined file to the output's name and log it, if the log says that this is due.

        Repeats a rename that was cut short. Raises `OutputChanged` where a file that may not be replaced came up.
        """
        finishing = log.last() or {}
        if finishing.get("state") != "finishing":
            return
        source, done = finishing["from"], finishing["done"]
        if files.size(source) is not None:
            if done is not None:
                self.verify(done)
            elif os.path.lexists(self.path) and not replace:
                raise OutputChanged(
                    f"a file '{self.path}' came up that is not this job's; move it, or give --overwrite"
                )
            files.sync_file(source)  # also its time, by which it will be known again: fdatasync leaves that out
            files.rename(source, self.path)
        elif files.size(self.path) != finishing["size"]:
            raise DamageError(f"'{source}' is gone before it became '{self.path}'; --restart starts over")
        facts = os.stat(self.path)
        log.write(
            {
                "state": "done",
                "shards": finishing["shards"],
                "size": facts.st_size,
                "mtime_ns": facts.st_mtime_ns,
                "tail": self._tail(facts.st_size),
            }
        )
        self.remove_parts()

    def _tail(self, size: int) -> int:
        with files.naming("read", self.path):
            fd = files.kernel.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return crc32(files.kernel.pread(fd, _TAIL, max(0, size - _TAIL)))
            finally:
                files.kernel.close(fd)

    def verify(self, done: dict[str, Any]) -> None:
        """Compare length, time and last bytes of the published file."""
        again = "put it back, or start over with --restart"
        try:
            facts = os.stat(self.path)
        except FileNotFoundError:
            raise OutputChanged(f"the output '{self.path}' of this completed job is gone; {again}") from None
        same = (facts.st_size, facts.st_mtime_ns) == (done["size"], done["mtime_ns"])
        if not same or self._tail(facts.st_size) != done["tail"]:
            raise OutputChanged(f"the output '{self.path}' was changed after this job had published it; {again}")

    def stored(self, marks: Sequence[list[int] | None], log: PublishLog) -> Iterator[Any]:
        """Yield the results that stand in the published file and in the parts up to their marks."""
        done, last = log.done(), log.last() or {}
        form = formats.for_path(self.path)
        if last.get("state") == "finishing":
            joined = last["from"] if files.size(last["from"]) is not None else self.path
            return form.parse(_lines_of(_Piece(joined, last["size"])))
        frozen = done["shards"] if done else 0
        pieces = [_Piece(self.path, done["size"])] if done else []
        for shard in range(frozen, len(marks)):
            mark = marks[shard]
            pieces.append(_Piece(self._part(shard), mark[0] if mark else 0))
        return form.parse(line for piece in pieces for line in _lines_of(piece))

    def remove_parts(self) -> None:
        """Remove the parts directory if it is ours."""
        owner = self._owner()
        if owner is not None and self._is_ours(owner):
            self._clear()

    def _clear(self) -> None:
        """Remove the parts, last of all the word whose they are: without it nobody would dare to."""
        for name in self._entries():
            if name != "owner":
                files.remove(os.path.join(self._parts, name))
        files.remove_tree(self._parts)


def _lines_of(piece: _Piece) -> Iterator[str]:
    """Yield the lines of a piece, with their ends."""
    left = piece.length
    if left:
        with open(piece.path, encoding="utf-8", newline="\n") as file:
            for line in file:
                if left <= 0:
                    return
                left -= len(line.encode())
                yield line


def _at(pieces: Sequence[_Piece], offset: int) -> bytes:
    """Return a chunk of the concatenated pieces from `offset` on."""
    for path, length in pieces:
        if offset < length:
            with files.naming("read", path):
                fd = files.kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    chunk = files.kernel.pread(fd, min(_COPY, length - offset), offset)
                finally:
                    files.kernel.close(fd)
            if not chunk:
                raise DamageError(f"'{path}' is shorter than the {length:,} bytes it had; --restart starts over")
            return chunk
        offset -= length
    raise AssertionError("the offset lies behind the last piece")
