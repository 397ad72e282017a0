"""Lines of text files, of pipes and of standard input; the cursor is `[file index, byte offset]`.

What a line is, `splitting` says; an item never crosses a file.
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from typing import Any

from batchkit.errors import InputChanged, SourceError, UsageError
from batchkit.fingerprint import before, compare, describe, proof_of
from batchkit.model import Batch, Cursor, Span, Verdict
from batchkit.readers.blocks import FileBytes, PipeBytes
from batchkit.readers.splitting import Splitter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MAX_ITEM_BYTES = 64 << 20
COUNT_LINES_WITHIN = 64 << 20
"""Line numbers in messages are counted up to this offset; beyond it the count would take longer than it is worth."""

_UNKNOWN_FORMATS = (".parquet", ".gz", ".zst", ".bz2", ".xz", ".zip")


class LineReader:
    """Reads the lines of one or more files as one list.

    sources: paths and glob patterns, in order (a pattern's matches are sorted), or `-` alone for standard input.
    delimiter: what ends a line. skip_blank: whether lines of white space only are no items.
    max_item_bytes: a longer line fails as an item; also bounds the bytes of a batch, and so the memory.
    """

    unit = "B"

    def __init__(
        self,
        sources: Iterable[str | os.PathLike[str]],
        *,
        delimiter: str = "\n",
        skip_blank: bool = False,
        max_item_bytes: int = MAX_ITEM_BYTES,
    ) -> None:
        """Find the files and their sizes; what is appended later is a later run's. Raises `UsageError`."""
        if not delimiter:
            raise UsageError("the delimiter is empty; give at least one character")
        if max_item_bytes < 1:
            raise UsageError(f"max_item_bytes is {max_item_bytes}; give at least 1")
        self._patterns = [os.fspath(source) for source in sources]
        self._splitter = Splitter(delimiter, skip_blank=skip_blank, limit=max_item_bytes)
        self._paths = _resolve(self._patterns)
        self.restartable = all(_regular(path) for path in self._paths)
        if not self.restartable and len(self._paths) > 1:
            raise UsageError("standard input or a pipe cannot be one of several sources; give it alone")
        self._facts = [os.stat(path) for path in self._paths] if self.restartable else []
        self._sizes = [facts.st_size for facts in self._facts]
        first = self._paths[0]
        self.name = "stdin" if first == "-" else os.path.splitext(os.path.basename(first))[0]
        self.durable = True
        self.files: Sequence[str] = [path for path in self._paths if path != "-"]
        self._pipe: PipeBytes | None = None

    def identity(self) -> Any:
        """Return paths and options."""
        sources = [path if path == "-" else os.path.abspath(path) for path in self._patterns]
        return {
            "kind": "lines",
            "sources": sources,
            "delimiter": self._splitter.delimiter,
            "skip_blank": self._splitter.skip_blank,
        }

    def fingerprint(self) -> Any:
        """Return size, time and first block of each file; `None` for a pipe."""
        if not self.restartable:
            return None
        return [describe(os.path.abspath(path), facts) for path, facts in zip(self._paths, self._facts, strict=True)]

    def whole(self) -> Span:
        """Return the span of all lines there are now."""
        last = len(self._paths) - 1
        return Span([0, 0], [last, self._sizes[last]] if self.restartable else None)

    def read(self, span: Span, batch_size: int) -> Iterator[Batch]:
        """Seek to the span's start (a pipe is read up to it) and yield its batches."""
        first, offset = span.start
        last = len(self._paths) - 1 if span.stop is None else span.stop[0]
        for index in range(first, last + 1):
            start = offset if index == first else 0
            stop = None if span.stop is None else span.stop[1] if index == last else self._sizes[index]
            with self._open(index, start, stop) as source:
                yield from self._splitter.batches(source, index, start, batch_size)

    def _open(self, index: int, start: int, stop: int | None) -> FileBytes:
        if self.restartable:
            return FileBytes(self._paths[index], start, stop)
        return self._open_pipe(start)

    def _open_pipe(self, offset: int) -> PipeBytes:
        if self._pipe is None:
            self._pipe = PipeBytes(self._paths[0])
        self._pipe.advance(offset)
        return self._pipe

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Compare size, times and first block of each file, and the block before the cursor."""
        if not self.restartable:
            return self._check_pipe(cursor, proof)
        if fingerprint is None:
            return Verdict("changed", f"'{self._paths[0]}' was a pipe")
        try:
            verdict = self._check_files(fingerprint, cursor)
            return self._check_proof(cursor, proof) or verdict if verdict.kind != "changed" else verdict
        except OSError as error:
            raise SourceError(f"cannot read '{error.filename or self._paths[0]}': {error.strerror}") from error

    def _check_files(self, fingerprint: list[dict[str, Any]], cursor: Cursor) -> Verdict:
        now = self.fingerprint()
        if len(now) < len(fingerprint):
            return Verdict("changed", f"there are {len(now)} files where there were {len(fingerprint)}")
        last = len(fingerprint) - 1
        found = Verdict("appended", f"'{now[-1]['path']}' is new") if len(now) > len(fingerprint) else Verdict("same")
        for index, was in enumerate(fingerprint):
            verdict = compare(was, now[index])
            if verdict.kind == "appended":
                grown = self._appended(was, index, cursor, verdict)
                verdict = grown if index == last else Verdict("changed", f"{verdict.why}, and it is not the last file")
            if verdict.kind == "changed":
                return verdict
            if verdict.kind == "appended":
                found = verdict
        return found

    def _check_proof(self, cursor: Cursor, proof: int | None) -> Verdict | None:
        """Return that the input was changed before the cursor, if it was."""
        index, offset = cursor
        path = os.path.abspath(self._paths[index])
        if proof is None or proof_of(before(path, offset)) == proof:
            return None
        return Verdict("changed", f"what stands before byte {offset:,} of '{path}' is not what was read there")

    def _check_pipe(self, cursor: Cursor, proof: int | None) -> Verdict:
        """Read up to the cursor, the only way to know a pipe again, and look whether more is there."""
        if proof is None:
            return Verdict("same")
        try:
            source = self._open_pipe(cursor[1])
        except InputChanged as error:
            return Verdict("changed", str(error))
        if proof_of(source.before) != proof:
            return Verdict("changed", f"what came before byte {cursor[1]:,} is not what it was")
        if not source.peek():
            return Verdict("same")
        if source.before and not source.before.endswith(self._splitter.delimiter.encode()):
            return Verdict("changed", "the last line had no line end, was done, and goes on now")
        return Verdict("appended", "there is more of it")

    def _appended(self, was: dict[str, Any], index: int, cursor: Cursor, verdict: Verdict) -> Verdict:
        """A last line without delimiter that is done, and then grew, was another line."""
        if cursor != [index, was["size"]] or not was["size"]:
            return verdict
        delimiter = self._splitter.delimiter.encode()
        if before(was["path"], was["size"]).endswith(delimiter):
            return verdict
        return Verdict("changed", f"the last line of '{was['path']}' had no line end, was done, and then grew")

    def extent(self, span: Span) -> int | None:
        """Return the bytes of a span."""
        if span.stop is None:
            return None
        return _bytes_of(span, self._sizes)

    def describe(self, cursor: Cursor) -> str:
        """Return file, line (where counting is cheap) and byte."""
        index, offset = cursor
        path = self._paths[index]
        if path == "-":
            return f"standard input byte {offset:,}"
        if self.restartable and offset <= COUNT_LINES_WITHIN:
            with open(path, "rb") as file:
                line = file.read(offset).count(self._splitter.delimiter.encode()) + 1
            return f"'{path}' line {line:,} (byte {offset:,})"
        return f"'{path}' byte {offset:,}"


def _bytes_of(span: Span, sizes: list[int]) -> int:
    first, start = span.start
    last, stop = span.stop or span.start
    return sum(sizes[first:last]) - int(start) + int(stop)


def share_done(identity: Any, fingerprint: Any, plan: list[Span], cursors: list[Cursor]) -> float | None:
    """Return the share of a plan that is done, from what a job's manifest says of its input; `None` if unknown."""
    if identity.get("kind") != "lines" or fingerprint is None:
        return None
    sizes = [facts["size"] for facts in fingerprint]
    total = sum(_bytes_of(span, sizes) for span in plan)
    done = sum(_bytes_of(Span(span.start, cursor), sizes) for span, cursor in zip(plan, cursors, strict=True))
    return done / total if total else None


def _resolve(patterns: list[str]) -> list[str]:
    """Return the files that paths and glob patterns name. Raises `UsageError` or `SourceError`."""
    if not patterns:
        raise UsageError("no input: give a file, a pattern, or - for standard input")
    paths: list[str] = []
    for pattern in patterns:
        if pattern != "-" and not os.path.lexists(pattern) and glob.has_magic(pattern):
            matches = sorted(path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
            if not matches:
                raise UsageError(f"no file matches '{pattern}'")
            paths += matches
        else:
            paths.append(pattern)
    for path in paths:
        _refuse_unreadable(path)
    return paths


def _refuse_unreadable(path: str) -> None:
    if path == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed; give a file, or something to read from")
        return
    if not os.path.exists(path):
        raise UsageError(f"there is no file '{path}'")
    if os.path.isdir(path):
        raise UsageError(f"'{path}' is a directory; give its files, for example '{os.path.join(path, '*')}'")
    if path.endswith(_UNKNOWN_FORMATS):
        raise UsageError(f"'{path}' is not a text file; this version reads lines of plain text only")
    if not os.access(path, os.R_OK):
        raise SourceError(f"cannot read '{path}': Permission denied")


def _regular(path: str) -> bool:
    return path != "-" and stat.S_ISREG(os.stat(path).st_mode)
