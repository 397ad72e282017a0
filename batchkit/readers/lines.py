"""Lines of text files, of pipes and of standard input; the cursor is `[file index, byte offset]`.

Bytes are read in blocks and decoded once per block: on lines of 60 bytes that costs half of iterating over the file.
Blocks above 64 KiB are slower again (page faults of large allocations).

What is a line: bytes up to the delimiter, split nowhere else (not at form feeds or U+2028). With the default
delimiter LF, one CR before it belongs to the line end. A last line without delimiter is an item. A UTF-8 byte order
mark at the beginning of a file is dropped. An item never crosses a file.
"""

from __future__ import annotations

import glob
import os
import stat
from typing import Any

from batchkit import files
from batchkit.errors import InputChanged, SourceError, UsageError
from batchkit.fingerprint import BLOCK, before, compare, describe, proof_of
from batchkit.model import Batch, Cursor, Span, Verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

READ_SIZE = 64 << 10
MAX_ITEM_BYTES = 64 << 20
COUNT_LINES_WITHIN = 64 << 20
"""Line numbers in messages are counted up to this offset; beyond it the count would take longer than it is worth."""

_BOM = b"\xef\xbb\xbf"
_BLANK = " \t\r\n\v\f"
_BLANK_BYTES = _BLANK.encode()
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
        self._delimiter = delimiter
        self._skip_blank = skip_blank
        self._limit = max_item_bytes
        self._paths = _resolve(self._patterns)
        self.restartable = all(_regular(path) for path in self._paths)
        if not self.restartable and len(self._paths) > 1:
            raise UsageError("standard input or a pipe cannot be one of several sources; give it alone")
        self._sizes = [os.stat(path).st_size for path in self._paths] if self.restartable else []
        first = self._paths[0]
        self.name = "stdin" if first == "-" else os.path.splitext(os.path.basename(first))[0]
        self.durable = True
        self._pipe: _Pipe | None = None

    def identity(self) -> Any:
        """Return paths and options."""
        sources = [path if path == "-" else os.path.abspath(path) for path in self._patterns]
        return {
            "kind": "lines",
            "sources": sources,
            "delimiter": self._delimiter,
            "skip_blank": self._skip_blank,
        }

    def fingerprint(self) -> Any:
        """Return size, time and first block of each file; `None` for a pipe."""
        return [describe(os.path.abspath(path)) for path in self._paths] if self.restartable else None

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
                yield from self._batches(source, index, start, batch_size)

    def _open(self, index: int, start: int, stop: int | None) -> _Bytes:
        if self.restartable:
            return _Bytes(self._paths[index], start, stop)
        if self._pipe is None:
            self._pipe = _Pipe(self._paths[0])
        self._pipe.advance(start)
        return self._pipe

    def _batches(self, source: _Bytes, index: int, offset: int, batch_size: int) -> Iterator[Batch]:
        """Regroup blocks of whole lines into batches."""
        before = source.before
        lines: list[str] = []
        pieces: list[bytes] = []
        held = 0

        def batch(length: int | None = None) -> LineBatch:
            nonlocal before, offset, lines, pieces, held
            raw = b"".join(pieces)
            made = LineBatch(self, lines, index, offset, raw, before, length)
            offset = made.stop[1]
            before = raw[-BLOCK:] if len(raw) >= BLOCK else (before + raw)[-BLOCK:]
            lines, pieces, held = [], [], 0
            return made

        try:
            for text, block, giant in self._blocks(source):
                if giant is not None:
                    if lines:
                        yield batch()
                    lines, pieces = [""], [block]
                    yield batch(giant)
                    continue
                for part, piece in self._portions(text, block, batch_size, lambda: len(lines)):
                    lines = lines + part if lines else part
                    pieces.append(piece)
                    held += len(piece)
                    if len(lines) >= batch_size or held >= self._limit:
                        yield batch()
        except SourceError:
            if lines:
                yield batch()
            raise
        if lines:
            yield batch()

    def _portions(
        self, text: list[str], block: bytes, batch_size: int, waiting: Any
    ) -> Iterator[tuple[list[str], bytes]]:
        """Split a block of lines where batches end: `(lines, their bytes)`, the first completing what is waiting."""
        start = at = 0
        total = len(text)
        delimiter = self._delimiter
        while start < total:
            stop = min(start + batch_size - waiting(), total)
            part = text[start:stop]
            if stop == total:
                end = len(block)
            else:
                # Joining again is three times faster than adding up the lengths of the lines.
                joined = delimiter.join(part)
                bytes_ = len(joined) if joined.isascii() else len(joined.encode("utf-8", "surrogateescape"))
                end = at + bytes_ + len(delimiter.encode())
            yield part, block[at:end]
            start, at = stop, end

    def _blocks(self, source: _Bytes) -> Iterator[tuple[list[str], bytes, int | None]]:
        """Yield `(lines, bytes, None)` per block, and `([], last bytes, length)` for a line beyond the limit."""
        delimiter = self._delimiter.encode()
        held: list[bytes] = []
        size = 0
        while block := source.read():
            while size + len(block) > self._limit and not _end_of_last(held, block, delimiter):
                tail, length, block = _pass_giant([*held, block], source, delimiter)  # noqa: PLW2901
                held, size = [], 0
                yield [], tail, length
            end = _end_of_last(held, block, delimiter)
            if not end:
                held.append(block)
                size += len(block)
                continue
            whole = b"".join((*held, block[:end]))
            lines = _decode(whole).split(self._delimiter)
            # Not empty only where delimiters may overlap ("||" in "a|||b"): splitting from the left decides.
            over = lines.pop().encode("utf-8", "surrogateescape")
            yield lines, whole[: len(whole) - len(over)], None
            held = [over + block[end:]] if over or end < len(block) else []
            size = len(over) + len(block) - end
        if size:
            whole = b"".join(held)
            yield [_decode(whole)], whole, None

    def items_of(self, lines: list[str], raw: bytes, *, first: bool) -> tuple[list[Any], dict[int, str]]:
        """Return the items of whole lines, and why some of them are none."""
        items: list[Any] = lines
        if self._delimiter == "\n" and b"\r" in raw:
            items = [line[:-1] if line.endswith("\r") else line for line in lines]
            if not raw.endswith(b"\n"):
                items[-1] = lines[-1]
        if first and raw.startswith(_BOM):
            items[0] = items[0][1:]
        if self._skip_blank:
            items = [item for item in items if item.strip(_BLANK)]
        unreadable: dict[int, str] = {}
        if not raw.isascii():
            unreadable = {at: "not valid UTF-8" for at, item in enumerate(items) if not _valid(item)}
        if len(raw) > self._limit:
            for at, item in enumerate(items):
                if len(item) > self._limit or len(item.encode("utf-8", "surrogateescape")) > self._limit:
                    unreadable[at] = f"longer than {self._limit:,} bytes (--max-item-bytes)"
        for at in unreadable:
            items[at] = None
        return items, unreadable

    def place(self, raw: bytes, index: int) -> int:
        """Return where in `raw` the item at `index` begins."""
        delimiter = self._delimiter.encode()
        at = 0
        for line in raw.split(delimiter):
            if not (self._skip_blank and not line.strip(_BLANK_BYTES)):
                if index == 0:
                    return at
                index -= 1
            at += len(line) + len(delimiter)
        return len(raw)

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Compare size, times and first block of each file, and the block before the cursor."""
        if not self.restartable:
            return self._check_pipe(cursor, proof)
        if fingerprint is None:
            return Verdict("changed", f"'{self._paths[0]}' was a pipe")
        now = self.fingerprint()
        if len(now) < len(fingerprint):
            return Verdict("changed", f"{len(fingerprint)} files were {len(now)} files now")
        grown = f"'{now[-1]['path']}' is new" if len(now) > len(fingerprint) else ""
        try:
            for index, was in enumerate(fingerprint):
                verdict = compare(was, now[index])
                if verdict.kind == "appended" and index == len(fingerprint) - 1:
                    verdict = self._appended(was, index, cursor, verdict)
                    grown = grown or verdict.why
                elif verdict.kind == "appended":
                    return Verdict("changed", f"{verdict.why}, and it is not the last file")
                if verdict.kind == "changed":
                    return verdict
            index, offset = cursor
            if proof is not None and offset > now[index]["size"]:
                return Verdict("changed", f"'{now[index]['path']}' ends before the cursor")
            if proof is not None and proof_of(before(now[index]["path"], offset)) != proof:
                return Verdict("changed", f"the lines before byte {offset:,} of '{now[index]['path']}' were changed")
        except OSError as error:
            raise SourceError(f"cannot read '{error.filename or self._paths[0]}': {error.strerror}") from error
        return Verdict("appended", grown) if grown else Verdict("same")

    def _check_pipe(self, cursor: Cursor, proof: int | None) -> Verdict:
        """Read up to the cursor, the only way to know a pipe again, and look whether more is there."""
        if proof is None:
            return Verdict("same")
        try:
            source = self._open(0, cursor[1], None)
        except InputChanged as error:
            return Verdict("changed", str(error))
        if proof_of(source.before) != proof:
            return Verdict("changed", f"what came before byte {cursor[1]:,} is not what it was")
        if not source.peek():
            return Verdict("same")
        if not source.before.endswith(self._delimiter.encode()):
            return Verdict("changed", "the last line had no line end, was done, and goes on now")
        return Verdict("appended", "there is more of it")

    def _appended(self, was: dict[str, Any], index: int, cursor: Cursor, verdict: Verdict) -> Verdict:
        """A last line without delimiter that is done, and then grew, was another line."""
        if cursor != [index, was["size"]] or not was["size"]:
            return verdict
        delimiter = self._delimiter.encode()
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
                line = file.read(offset).count(self._delimiter.encode()) + 1
            return f"'{path}' line {line:,} (byte {offset:,})"
        return f"'{path}' byte {offset:,}"


def _bytes_of(span: Span, sizes: list[int]) -> int:
    (first, start), (last, stop) = span.start, span.stop
    return sum(sizes[first:last]) - int(start) + int(stop)


def share_done(identity: Any, fingerprint: Any, plan: list[Span], cursors: list[Cursor]) -> float | None:
    """Return the share of a plan that is done, from what a job's manifest says of its input; `None` if unknown."""
    if identity.get("kind") != "lines" or fingerprint is None:
        return None
    sizes = [facts["size"] for facts in fingerprint]
    total = sum(_bytes_of(span, sizes) for span in plan)
    done = sum(_bytes_of(Span(span.start, cursor), sizes) for span, cursor in zip(plan, cursors, strict=True))
    return done / total if total else None


class LineBatch(Batch):
    """A batch of lines that still knows its bytes, so that it can be split at any line."""

    __slots__ = ("_before", "_raw", "_reader")

    def __init__(  # noqa: PLR0913, PLR0917  # made per batch: keywords cost 0.3 µs
        self,
        reader: LineReader,
        lines: list[str],
        index: int,
        offset: int,
        raw: bytes,
        before: bytes,
        giant: int | None = None,
    ) -> None:
        """Take whole lines and their bytes; `giant`: the length of a line that was too long to keep."""
        self.start = [index, offset]
        self.stop = [index, offset + (len(raw) if giant is None else giant)]
        self.proof = proof_of(raw if len(raw) >= BLOCK else before + raw)
        self._reader, self._raw, self._before = reader, raw, before
        if giant is None:
            self.items, self.unreadable = reader.items_of(lines, raw, first=offset == 0)
        else:
            self.items = [None]
            self.unreadable = {0: f"a line of {giant:,} bytes, longer than --max-item-bytes"}

    def _cut(self, items: list[Any], unreadable: dict[int, str], start: int, stop: int) -> LineBatch:
        cut = LineBatch.__new__(LineBatch)
        raw, earlier = self._raw[start:stop], (self._before + self._raw[:start])[-BLOCK:]
        index, offset = self.start
        cut.start, cut.stop = [index, offset + start], [index, offset + stop]
        cut.proof = proof_of(earlier + raw)
        cut._reader, cut._raw, cut._before = self._reader, raw, earlier
        cut.items, cut.unreadable = items, unreadable
        return cut

    def split(self, count: int) -> tuple[Batch, Batch]:
        """Return the first `count` items and the rest."""
        at = self._reader.place(self._raw, count)
        head = {index: why for index, why in self.unreadable.items() if index < count}
        rest = {index - count: why for index, why in self.unreadable.items() if index >= count}
        return (
            self._cut(self.items[:count], head, 0, at),
            self._cut(self.items[count:], rest, at, len(self._raw)),
        )

    def coordinate(self, index: int) -> list[int]:
        """Return file index and byte offset of an item."""
        if index == 0 and len(self.items) == 1 and self.unreadable:
            return list(self.start)
        file, offset = self.start
        return [file, offset + self._reader.place(self._raw, index)]


class _Bytes:
    """The bytes of one file from `start` to `stop` (`None`: its end), in blocks.

    before: the at most `BLOCK` bytes before the next block.
    """

    def __init__(self, path: str, start: int, stop: int | None) -> None:
        self._path = path
        self._at = start
        self._stop = stop
        self._fd = -1
        try:
            self._fd = os.dup(0) if path == "-" else files.kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.before = b""
            if start:
                self.before = files.kernel.pread(self._fd, min(start, BLOCK), max(0, start - BLOCK))
                os.lseek(self._fd, start, os.SEEK_SET)
        except OSError as error:
            self.close()
            raise self._error(error) from error

    def read(self) -> bytes:
        """Return the next block; empty at the end. Raises `SourceError`."""
        want = READ_SIZE if self._stop is None else min(READ_SIZE, self._stop - self._at)
        if want == 0:
            return b""
        try:
            block = files.kernel.read(self._fd, want)
        except OSError as error:
            raise self._error(error) from error
        if not block and self._stop is not None:
            raise SourceError(f"'{self._path}' shrank while it was read: it ends at byte {self._at:,}")
        self._at += len(block)
        return block

    def _error(self, error: OSError) -> SourceError:
        where = f" at byte {self._at:,}" if self._at else ""
        return SourceError(f"cannot read '{self._path}'{where}: {error.strerror}; run the same command again to go on")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> _Bytes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Pipe(_Bytes):
    """Standard input or a pipe: to get to an offset, what comes before it is read and thrown away."""

    def __init__(self, path: str) -> None:
        super().__init__(path, 0, None)
        self._peeked = b""

    def advance(self, offset: int) -> None:
        """Read up to `offset`. Raises `InputChanged` if there is not so much."""
        at = self._at - len(self._peeked)
        while at < offset:
            block = self.read()
            if not block:
                raise InputChanged(f"'{self._path}' ends at byte {at:,}, before the cursor")
            self._peeked = block[offset - at :]
            self.before = (self.before + block[: offset - at])[-BLOCK:]
            at = min(offset, at + len(block))

    def peek(self) -> bytes:
        """Return the next block without taking it; empty at the end."""
        self._peeked = self.read()
        return self._peeked

    def read(self) -> bytes:
        """Return the next block."""
        if self._peeked:
            block, self._peeked = self._peeked, b""
            return block
        return super().read()


def _decode(block: bytes) -> str:
    """Decode what is UTF-8; bytes that are not become lone surrogates, by which their lines are known."""
    return block.decode("utf-8", "surrogateescape")


def _valid(item: str) -> bool:
    if item.isascii():
        return True
    try:
        item.encode()
    except UnicodeEncodeError:
        return False
    return True


def _end_of_last(held: list[bytes], block: bytes, delimiter: bytes) -> int:
    """Return where in `block` the last delimiter ends, which may begin in what is held; 0 if there is none."""
    if len(delimiter) == 1:
        return block.rfind(delimiter) + 1
    keep = len(delimiter) - 1
    earlier = b"".join(held[-keep:])[-keep:]
    at = (earlier + block).rfind(delimiter)
    return at + len(delimiter) - len(earlier) if at >= 0 else 0


def _pass_giant(held: list[bytes], source: _Bytes, delimiter: bytes) -> tuple[bytes, int, bytes]:
    """Read past a line that is too long to keep: its last bytes, its length, and what was read behind it."""
    tail = b"".join(held)
    length = len(tail)
    keep = len(delimiter) - 1
    while block := source.read():
        earlier = tail[len(tail) - keep :]
        at = (earlier + block).find(delimiter)
        end = at + len(delimiter) - len(earlier) if at >= 0 else len(block)
        tail = (tail + block[:end])[-BLOCK:]
        length += end
        if at >= 0:
            return tail, length, block[end:]
    return tail[-BLOCK:], length, b""


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
