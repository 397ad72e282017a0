"""The commit log of one shard: format, append, recovery, compaction.

Format 1. One line per entry: `CRC SP JSON LF`, where CRC is the CRC-32 of the JSON's bytes as eight hexadecimal
digits and JSON is ASCII on one line. The first line is the header, each further one a commit:

    {"format":1,"job":"<uuid>","shard":0,"span":[start,stop]}
    {"seq":1,"to":…,"done":100,"failed":0,"skipped":0,"tail":…,"out":[offset,crc,synced],"run":1,
     "time":…,"seconds":…}          "end":true is added at the end of the shard, "kept":[offset,crc,synced] once an
                                    item has failed

`to` is the cursor, and so the first coordinate of the next batch (the first of all begins with the span); `tail` is
the CRC-32 of the input just before it; `out` the writer's mark and `kept` that of the failures. `seq` grows by one
from line to line. A journal is trusted up to the first line whose CRC, form or sequence is wrong and no further: what
a power cut left behind that line (a torn end, zeros at full length, old blocks) proves nothing.

A journal is never appended to after a crash. Opening a shard writes a new one, header and chosen record, by rename;
the proved records before it move to `NNNNN.history-SEQ.jsonl` (a journal too), which recovery never reads.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple
from zlib import crc32

from batchkit import files
from batchkit.errors import DamageError
from batchkit.model import Checkpoint, Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchkit.model import Mark

FORMAT = 1
COMPACT_AT = 8 << 20
"""Bytes after which a journal is renewed."""

TAIL = 4 << 10
"""Bytes at a journal's end among which its newest commit is."""

LONG = 256 << 10
"""Bytes above which a journal is renewed at a clean stop."""

_OF_INTS = "[]0123456789, -"
"""What ints and lists of ints are written with."""

_json = json.JSONEncoder(separators=(",", ":")).encode

_COMMIT = '{"seq":%d,"to":%s,"done":%d,"failed":%d,"skipped":%d,"tail":%d,"out":%s,"run":%d,"time":%.3f,"seconds":%.6f}'


def encode(entry: Mapping[str, Any]) -> bytes:
    """Return one line of a log: CRC, JSON, LF."""
    line = _json(entry).encode()
    return b"%08x %b\n" % (crc32(line), line)


def decode(line: bytes) -> dict[str, Any] | None:
    """Return the entry of one line without its LF; `None` if its CRC or form is wrong."""
    if not _proved(line):
        return None
    entry = json.loads(line[9:])
    return entry if isinstance(entry, dict) else None


def _proved(line: bytes) -> bool:
    return line[8:9] == b" " and line[:8] == b"%08x" % crc32(line[9:])


def _encode_checkpoint(point: Checkpoint) -> bytes:
    seq, stop, done, failed, skipped, proof, mark, run, time, seconds, end, kept = point
    stop, mark = repr(stop), repr(mark)
    if (stop + mark).strip(_OF_INTS):  # else Python writes them as JSON does, five times as fast
        stop, mark = _json(point.stop), _json(point.mark)
    text = _COMMIT % (seq, stop, done, failed, skipped, proof, mark, run, time, seconds)
    if end:
        text = text[:-1] + ',"end":true}'
    if kept is not None:
        text = f'{text[:-1]},"kept":{_json(kept)}}}'
    line = text.encode()
    return b"%08x %b\n" % (crc32(line), line)


def _decode_checkpoint(line: bytes) -> Checkpoint:
    entry = json.loads(line[9:])
    names = ("seq", "to", "done", "failed", "skipped", "tail", "out", "run", "time", "seconds")
    return Checkpoint._make([*(entry[name] for name in names), entry.get("end", False), entry.get("kept")])


def commit_in(line: bytes) -> Checkpoint | None:
    """Return the commit that a line without its LF proves; `None`: it is none."""
    return None if _sequence(line) is None else _decode_checkpoint(line)


class Header(NamedTuple):
    """The first line of a journal: whose it is."""

    job: str
    shard: int
    span: Span

    def line(self) -> bytes:
        """Return it as a line of the journal."""
        return encode({"format": FORMAT, "job": self.job, "shard": self.shard, "span": self.span})


class Past:
    """The proved part of a journal: its commits, decoded only when looked at.

    header: the first line. broken: whether more than a torn end or zeros stood behind the last proved line.
    """

    def __init__(self, header: Header, lines: list[bytes], *, broken: bool) -> None:
        """Keep the proved lines as they are."""
        self.header = header
        self.broken = broken
        self._lines = lines

    def __len__(self) -> int:
        """Return the number of proved commits."""
        return len(self._lines)

    def __getitem__(self, index: int) -> Checkpoint:
        """Return the commit at `index`."""
        return _decode_checkpoint(self._lines[index])

    def marks(self, stream: str) -> Sequence[Mark]:
        """Return the marks of the commits for a stream, "mark" or "kept", decoded one by one."""
        return _Marks(self, stream)

    def bytes_until(self, index: int) -> bytes:
        """Return the commits up to and with the one at `index`, as they stand in the file."""
        return b"".join(line + b"\n" for line in self._lines[: index + 1])


class _Marks(Sequence[Any]):
    def __init__(self, past: Past, stream: str) -> None:
        self._past = past
        self._stream = stream

    def __len__(self) -> int:
        return len(self._past)

    def __getitem__(self, index: Any) -> Any:
        return getattr(self._past[index], self._stream)


def read(path: str) -> Past:
    """Return what a journal proves. Raises `DamageError` where it has no valid header: nothing is guessed."""
    data = files.read_bytes(path)
    if data is None:
        raise DamageError(f"the journal '{path}' is gone; put it back, or start over with --restart")
    position = data.find(b"\n") + 1
    header = _header(path, data[: max(0, position - 1)])
    lines: list[bytes] = []
    expected = None
    while (end := data.find(b"\n", position)) >= 0:
        line = data[position:end]
        number = _sequence(line)
        if number is None or expected not in {None, number}:
            break
        lines.append(line)
        expected = number + 1
        position = end + 1
    return Past(header, lines, broken=_holds_proof(data[position:]))


def _sequence(line: bytes) -> int | None:
    """Return the sequence number of a proved commit; `None` for any other line.

    It is read off the line's own beginning: parsing the JSON of every line would cost ten times more.
    """
    number = line[16 : line.find(b",", 16)]
    return int(number) if _proved(line) and line.startswith(b'{"seq":', 9) and number.isdigit() else None


def _header(path: str, line: bytes) -> Header:
    entry = decode(line)
    if entry is None or "format" not in entry:
        raise DamageError(f"the journal '{path}' has no valid header; put back a copy, or start over with --restart")
    if entry["format"] != FORMAT:
        raise DamageError(f"the journal '{path}' has format {entry['format']!r}; this batchkit knows format {FORMAT}")
    return Header(entry["job"], entry["shard"], Span(*entry["span"]))


def _holds_proof(rest: bytes) -> bool:
    """Tell whether whole, valid lines follow a wrong one: then the file was damaged, not just cut short."""
    return any(_proved(line) for line in rest.split(b"\n")[:-1])


def last(path: str) -> Checkpoint | None:
    """Return the newest proved commit, for looking only; `None` if there is none yet."""
    past = read(path)
    return past[len(past) - 1] if len(past) else None


def newest(path: str) -> Checkpoint | None:
    """Return the same from the file's end only, whatever stands before: for looking at a live shard, often."""
    size = files.size(path)
    if not size:
        return None
    with files.naming("read", path):
        fd = files.kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = files.kernel.pread(fd, TAIL, max(0, size - TAIL))
        finally:
            files.kernel.close(fd)
    for line in reversed(data.split(b"\n")):
        if (point := commit_in(line)) is not None:
            return point
    return None if size <= TAIL else last(path)  # a cursor of the user's own may be long


class Journal:
    """The journal of a shard at work.

    A commit survives a killed process when `append` returns, and a power cut when `sync` has returned.

    full: whether it is due for `renew`.
    """

    def __init__(self, path: str, header: Header, base: Checkpoint | None) -> None:
        """Begin a new journal at `path` with `base` as its first commit; durable on return."""
        self.path = path
        self._header = header
        self._file = self._begin(base)

    def _begin(self, base: Checkpoint | None) -> files.AppendFile:
        lines = self._header.line() + (b"" if base is None else _encode_checkpoint(base))
        files.replace(self.path, lines)
        file = files.AppendFile(self.path, len(lines))
        self._base = self._newest = base
        self.full = False
        self._first = 1 if base is None else base.seq
        return file

    def append(self, point: Checkpoint) -> None:
        """Commit: the one line that moves progress."""
        self._file.append(_encode_checkpoint(point))
        self._newest = point
        self.full = self._file.length > COMPACT_AT

    @property
    def long(self) -> bool:
        """Whether reading it again would take a resume more than a few milliseconds."""
        return self._file.length > LONG

    def sync(self) -> None:
        """Make every commit so far durable on return."""
        self._file.sync()

    def renew(self, mark: Mark, kept: Mark) -> None:
        """Move the past out of the way and go on in a new journal.

        mark, kept: of results and failures after a sync: the first record of a journal must stand by itself, without
        those before it.
        """
        if self._newest is None or self._newest is self._base:
            return
        self.sync()
        files.link(self.path, _history(self.path, self._first))
        self._file.close()
        self._file = self._begin(self._newest._replace(mark=mark, kept=kept))

    def close(self) -> None:
        """Close the file; syncs nothing."""
        self._file.close()


class NoJournal:
    """The journal of a job that leaves nothing on disk."""

    full = False

    def append(self, point: Checkpoint) -> None:
        """Forget the commit."""

    def sync(self) -> None:
        """Do nothing."""

    def renew(self, mark: Mark, kept: Mark) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def archive(path: str, past: Past, index: int) -> None:
    """Keep the commits up to `index` as history; named by the first, so that a repeated attempt replaces itself."""
    if index < 1:
        return  # the base record alone stands in the history of the journal before
    files.replace(_history(path, past[0].seq), past.header.line() + past.bytes_until(index))


def _history(path: str, first: int) -> str:
    return f"{path.removesuffix('.jsonl')}.history-{first}.jsonl"
