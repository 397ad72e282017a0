"""A file as a job's output: parts while the job works, one whole file when it is done.

Publishing joins the parts, as the output's kind does it, and renames what came of that to the output's name; results
that come later (the input grew, items that had failed were done in a round) are joined with the published file, which
the new one then replaces whole. The log (`publish.jsonl` in the job's directory) holds

    {"state": "joining", "shards", "rounds", "joined": [[from, to, size], …], "into": to, "offset"}  at synced offsets
    {"state": "finishing", "shards", "rounds", "headers", "files": [[from, to, size], …]}            before the renames
    {"state": "done", "shards", "rounds", "headers", "files": [{"path", "size", "mtime_ns", "tail"}, …]}    after them

with how many shards and rounds are in the files, and how many places the header of each round's part took. Older logs
have no rounds. A crash anywhere between repeats only what the log does not cover.
"""

from __future__ import annotations

import os
from itertools import chain
from typing import Any
from zlib import crc32

from batchkit import files
from batchkit.errors import DamageError, OutputChanged, UsageError
from batchkit.writers.base import Piece
from batchkit.writers.merging import Merge, Stream
from batchkit.writers.parts import Parts
from batchkit.writers.round import RoundOutput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.writers.base import Kind, PublishLog, Round, Writer

    Joined = tuple[str, str, int]
    """A file to be renamed: from, to, size."""

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
        self.remove_parts = self.forget = self._parts.remove

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

    def writer(
        self, shard: int, *, frozen: int, rounds: Sequence[Round] = (), order: Sequence[int] | None = None
    ) -> Writer:
        """Return the writer of a shard's part; rounds: those that are not merged yet."""
        numbers = range(shard + 1) if order is None else order
        before = self._before(frozen, numbers[: numbers.index(shard)])
        beside = [each.path for each in rounds if each.mark]
        return self._kind.writer(self._parts.part(shard), before, beside, agreement=self._parts.agreement())

    def round_writer(self, path: str, frozen: int, order: Sequence[int], rounds: Sequence[Round] = ()) -> Writer:
        """Return the writer of a round's part at `path`; it stores exactly once, as those of shards do.

        frozen: how many shards are published; order: the numbers of all, in input order; rounds: earlier ones that are
        not merged yet. All of these tell columns and types.
        """
        beside = [*self._before(frozen, order), *(each.path for each in rounds if each.mark)]
        agreement = self._parts.agreement()
        return self._kind.writer(path, (), beside, agreement=agreement, apart=True, mode=files.PRIVATE)

    def round_output(
        self, uuid: str, path: str, *, frozen: int, order: Sequence[int], rounds: Sequence[Round]
    ) -> RoundOutput:
        """Return the output of a round: a part of its own, until it is merged."""
        del uuid
        return RoundOutput(path, lambda: self.round_writer(path, frozen, order, rounds))

    def share(self, marks: Sequence[Any], *, frozen: int, rounds: Sequence[Round], order: Sequence[int]) -> None:
        """Let the parts be written by agreement from now on, one that begins with what is stored."""
        agreement = self._parts.agreement()
        if agreement.newest() is not None:
            return
        published = [Piece(path, files.size(path) or 0, whole=True) for path in self._published(frozen)]
        parts = [part for part, _ in self._left(marks, frozen, order)]
        beside = [Piece(each.path, each.mark[0]) for each in rounds if each.mark]
        terms = self._kind.terms([*published, *parts], beside)
        if terms is not None:
            agreement.propose(terms)

    def detach(self, shard: int) -> None:
        """Put a copy in the place of a shard's part: whoever has it open writes where nobody reads."""
        files.detach(self._parts.part(shard))

    def _before(self, frozen: int, order: Sequence[int]) -> list[str]:
        """Return the files that hold these shards, the first of all."""
        return [*self._published(frozen), *map(self._parts.part, order[frozen:])]

    def _published(self, frozen: int) -> list[str]:
        """Return the files that hold the first `frozen` shards."""
        return [self.path] if frozen else []

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
        """Join the parts and rename; goes on where an earlier attempt ended."""
        done = log.done()
        if done is not None and (done["shards"], done.get("rounds", 0)) == (len(marks), len(rounds)):
            return True
        self.refuse_taken_over()
        if done is not None:
            self.verify(done)
            if done["shards"] == len(marks):  # the directory of the parts is gone: what is joined needs it again
                self._parts.prepare((), afresh=False)
        merge = Merge(self._kind, rounds, done)
        covers = {"shards": len(marks), "rounds": len(rounds)}
        joined = self._join(self._streams(marks, done, order), merge, Joining(log, covers, done, keep_going))
        if joined is None:
            return False
        log.write({"state": "finishing", **covers, "headers": merge.headers, "files": joined, "done": done})
        self.finish(log, replace=replace)
        return True

    def _streams(self, marks: Sequence[Any], done: dict[str, Any] | None, order: Sequence[int] | None) -> list[Stream]:
        """Return the files of the output, which here is one; done: what is published."""
        frozen = done["shards"] if done else 0
        whole = Piece(done["files"][0]["path"], done["files"][0]["size"], whole=True) if done else None
        left = self._left(marks, frozen, order)
        lead, bare = self._kind.lead(
            self._parts.agreement(), [*([whole] if whole else []), *(part for part, _ in left)]
        )
        return [Stream(0, whole, marks[:frozen], left, lead, bare)]

    def _left(self, marks: Sequence[Any], frozen: int, order: Sequence[int] | None) -> list[tuple[Piece, Any]]:
        """Return the parts of the shards that are not published, with their last marks."""
        numbers = range(len(marks)) if order is None else order
        left = zip(numbers[frozen:], marks[frozen:], strict=True)
        return [(Piece(self._parts.part(number), mark[0] if mark else 0), mark) for number, mark in left]

    def _join(self, streams: Sequence[Stream], merge: Merge, joining: Joining) -> list[Joined] | None:
        """Make the files to be renamed, those that get something new; `None`: stopped before the end."""
        joined: list[Joined] = []
        for stream in streams:
            name, target = self._names(stream.first)
            made = joining.begin(name, target)
            if made is not None:
                joined.append(made)
                continue
            pieces = merge.pieces(stream)
            if pieces == [stream.whole]:
                continue
            piece = self._kind.join(pieces, name, joining)
            if piece is None:
                return None
            joined.append((piece.path, target, piece.length))
            if len(streams) > 1 and pieces != stream.plain:  # else it is nothing to do it again
                joining.keep(joined[-1])
        return joined

    def _names(self, first: int) -> tuple[str, str]:
        """Return where the file of a stream is joined, and what it becomes; first: its first shard."""
        del first
        return self._parts.joined(), self.path

    def finish(self, log: PublishLog, *, replace: bool) -> None:
        """Rename joined files to the output's name and log it, if the log says that this is due.

        Repeats renames that were cut short. Raises `OutputChanged` where a file that may not be replaced came up.
        """
        finishing = log.last() or {}
        if finishing.get("state") != "finishing":
            return
        done = finishing["done"]
        published = done["files"] if done is not None else []
        renamed = {target for source, target, _ in finishing["files"] if files.size(source) is None}
        if len(renamed) < len(finishing["files"]):
            self.verify({"files": [facts for facts in published if facts["path"] not in renamed]})
        ours = {facts["path"] for facts in published}
        for source, target, size in finishing["files"]:
            _rename(source, target, size, replace=replace or target in ours)
        self._replaced(finishing, log, replace=replace)
        new = [_facts_of(target) for _, target, _ in finishing["files"]]
        known = {facts["path"]: facts for facts in [*published, *new]}
        merged = {"rounds": finishing.get("rounds", 0), "headers": finishing.get("headers", [])}
        log.write({"state": "done", "shards": finishing["shards"], **merged, "files": list(known.values())})
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

    def stored(
        self,
        marks: Sequence[Any],
        log: PublishLog,
        rounds: Sequence[Round] = (),
        order: Sequence[int] | None = None,
    ) -> Iterator[Any]:
        """Yield the results that stand in the published file, in the parts up to their marks, and in ended rounds."""
        done = self._standing(log)
        merge = Merge(self._kind, rounds, done)
        each = [merge.pieces(stream) for stream in self._streams(marks, done, order)]
        return chain.from_iterable(map(self._kind.results, each))

    def _standing(self, log: PublishLog) -> dict[str, Any] | None:
        """Return the log's word on what is published; what was joined counts, renamed or not."""
        last = log.last() or {}
        if last.get("state") != "finishing":
            return log.done()
        known = {facts["path"]: facts for facts in last["done"]["files"]} if last["done"] else {}
        for source, target, size in last["files"]:
            known[target] = {"path": source if files.size(source) is not None else target, "size": size}
        return {**last, "files": list(known.values())}


class Joining:
    """What a kind may ask and tell while it joins: how far an earlier attempt came, and whether to go on."""

    def __init__(
        self,
        log: PublishLog,
        covers: dict[str, int],
        done: dict[str, Any] | None,
        keep_going: Callable[[], bool],
    ) -> None:
        """Read the log; covers: how many shards and rounds are joined: only the same go on where one ended."""
        self._log = log
        self._entry = {"state": "joining", **covers, "done": done}
        self.keep_going = keep_going
        last: dict[str, Any] = {"rounds": 0, "joined": [], **(log.last() or {})}
        same = last.get("state") == "joining" and covers == {name: last[name] for name in covers}
        self._last: dict[str, Any] = last if same else {"into": "", "offset": 0}
        self._joined: dict[str, Joined] = {each[1]: tuple(each) for each in last["joined"] if same}
        self._into = ""
        self.offset = 0

    def begin(self, source: str, target: str) -> Joined | None:
        """Begin or go on with a file; return it if an earlier attempt has joined it and it is still there."""
        made = self._joined.get(target)
        if made is not None and files.size(source) == made[2]:
            return made
        self._into = target
        self.offset = self._last["offset"] if self._last.get("into", target) == target else 0
        if self._joined.pop(target, None) is not None:
            self.note(0)  # it is joined once more, and must not be taken for whole meanwhile
        return None

    def note(self, offset: int) -> None:
        """Log that so many bytes are joined and synced."""
        self._log.write({**self._entry, "joined": [*self._joined.values()], "into": self._into, "offset": offset})

    def keep(self, joined: Joined) -> None:
        """Log that a file is joined and synced."""
        self._joined[joined[1]] = joined
        self._into = ""
        self.note(0)


def _rename(source: str, target: str, size: int, *, replace: bool) -> None:
    """Rename a joined file, or see that this was done."""
    if files.size(source) is not None:
        if os.path.lexists(target) and not replace:
            raise OutputChanged(f"a file '{target}' came up that is not this job's; move it, or give --overwrite")
        files.sync_file(source)  # also its time, by which it will be known again: fdatasync leaves that out
        files.rename(source, target)
    elif files.size(target) != size:
        raise DamageError(f"'{source}' is gone before it became '{target}'; --restart starts over")
    else:
        files.sync_directory(os.path.dirname(target))  # a killed run may have left its rename only in the page cache


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
