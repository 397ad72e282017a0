"""Several files as one list of bytes: what they are known by, and how they are opened at a cursor.

A cursor is `[file index, offset]`; in a compressed file offsets count the unpacked bytes. Where a source can only be
read forwards (a pipe, a compressed file), what `check` has opened and read up to the cursor, `open` takes over.
"""

from __future__ import annotations

import os
from typing import Any

from batchkit.compression import require, suffix_of
from batchkit.errors import InputChanged, SourceError, UsageError
from batchkit.fingerprint import before, compare, describe, fewer, proof_of
from batchkit.model import Cursor, Span, Verdict
from batchkit.readers.archive_index import ArchiveIndex
from batchkit.readers.archives import ArchiveBytes
from batchkit.readers.blocks import FileBytes, ForwardBytes
from batchkit.readers.paths import regular, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.readers.blocks import Blocks

RESCAN_TOLD = 8 << 20
"""Unpacking again what is done is worth a word from so many bytes on: what an index cannot save, and a blink."""


COUNT_WITHIN = 64 << 20
"""Lines are counted up to this offset; beyond it the count would take longer than it is worth."""

COUNT_WITHIN_ARCHIVE = 8 << 20


class Listing:
    """The files of a reader, with the sizes they had when it was made: what is appended later is a later run's.

    paths: in order. restartable: whether they are plain files; else the only one is standard input or a pipe.
    ending: what ends an item in them, in bytes.
    """

    def __init__(self, patterns: list[str], ending: bytes) -> None:
        """Find the files. Raises `UsageError`, `SourceError`."""
        self.patterns = patterns
        self.ending = ending
        self.paths = resolve(patterns)
        self.restartable = all(regular(path) for path in self.paths)
        if not self.restartable and len(self.paths) > 1:
            raise UsageError("standard input or a pipe cannot be one of several sources; give it alone")
        self._facts = [os.stat(path) for path in self.paths] if self.restartable else []
        self._suffixes = [suffix_of(path) for path in self.paths]
        for suffix in {suffix for suffix in self._suffixes if suffix is not None}:
            require(suffix)
        self.sizes = sizes_of(self.paths, [facts.st_size for facts in self._facts]) if self.restartable else []
        self._opened: tuple[int, ForwardBytes] | None = None
        self._directory: str | None = None
        self._counted = (-1, 0, 0)  # file, offset, lines before it
        self._unpacked = (-1, b"")
        self._fingerprint: list[dict[str, Any]] | None = None  # taken once: there may be many files, and many shards

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what is open: another process opens its own."""
        return {**self.__dict__, "_opened": None, "_unpacked": (-1, b"")}

    def whole(self) -> Span:
        """Return the span of all there is now; its end is unknown behind a pipe or a compressed file."""
        last = len(self.paths) - 1
        size = self.sizes[last] if self.restartable else None
        return Span([0, 0], None if size is None else [last, size])

    def pieces(self, span: Span) -> list[tuple[int, int, int | None]]:
        """Return the files of a span: index, first byte, and the byte behind the last one (`None`: the file's end)."""
        first, offset = span.start
        last = len(self.paths) - 1 if span.stop is None else span.stop[0]
        found = []
        for index in range(first, last + 1):
            stop = span.stop[1] if span.stop is not None and index == last else (self.sizes or [None])[index]
            found.append((index, offset if index == first else 0, stop))
        return found

    def weight(self, index: int, start: int, stop: int | None) -> int:
        """Return about how much a stretch of a file is: its bytes; of a compressed file all that it has on the disk."""
        if stop is not None and (self._suffixes[index] is None or stop <= start):
            return max(0, stop - start)
        return self._facts[index].st_size

    def keep_in(self, directory: str) -> None:
        """Keep what helps to resume in this directory of the job."""
        self._directory = directory

    def _index(self, index: int) -> ArchiveIndex | None:
        """Return what is known of a compressed file from earlier runs; `None` if nothing can be kept."""
        if self._directory is None or not self.restartable:
            return None
        path = os.path.join(self._directory, f"archive-{index:05}.index")
        return ArchiveIndex(path, describe(os.path.abspath(self.paths[index]), self._facts[index]))

    def open(self, index: int, start: int, stop: int | None) -> Blocks:
        """Open a file at `start`. Raises `SourceError`; `InputChanged` if there is not so much of it."""
        if self.restartable and self._suffixes[index] is None:
            return FileBytes(self.paths[index], start, stop)
        source = self._forward(index, start)
        self._opened = None if self.restartable else self._opened  # a pipe has to be kept: there is no other
        return source

    def _forward(self, index: int, offset: int) -> ForwardBytes:
        """Return the source of a file that can be read forwards only, at `offset`; it stays `_opened`."""
        if self._opened is not None and (self._opened[0] != index or self._opened[1].at > offset):
            if not self.restartable:
                raise SourceError(f"'{self.paths[0]}' cannot be read twice")
            self._opened[1].close()
            self._opened = None
        if self._opened is None:
            self._opened = index, self._near(index, offset)
        source = self._opened[1]
        source.advance(offset)
        return source

    def _near(self, index: int, offset: int) -> ForwardBytes:
        """Open a file as near before an offset as its index can."""
        path, suffix, known = self.paths[index], self._suffixes[index], self._index(index)
        if suffix is None or known is None:
            return self.begin(index)
        archive = ArchiveBytes(path, suffix, self._facts[index].st_size, known, offset)
        source = ForwardBytes(archive, path, archive.at)
        if archive.at:
            try:
                source.advance(offset)
            except (SourceError, InputChanged):  # the index may be wrong; the file itself decides
                archive.close()
                known.forget()
                archive = ArchiveBytes(path, suffix, self._facts[index].st_size, known)
                source = ForwardBytes(archive, path)
        return source

    def pipe(self) -> ForwardBytes:
        """Return the pipe at its beginning, for a look at it; what was read has to be given back."""
        return self._forward(0, 0)

    def begin(self, index: int) -> ForwardBytes:
        """Open a file at its beginning, for whoever only wants a look at it and closes it."""
        path, suffix = self.paths[index], self._suffixes[index]
        size = self._facts[index].st_size if self.restartable else None
        source = FileBytes(path, 0, size) if suffix is None else ArchiveBytes(path, suffix, size)
        return ForwardBytes(source, path)

    def fingerprint(self) -> Any:
        """Return size, time and first block of each file, as they lie on the disk; `None` for a pipe."""
        if not self.restartable:
            return None
        if self._fingerprint is None:
            self._fingerprint = self._described()
        return self._fingerprint

    def _described(self) -> list[dict[str, Any]]:
        return [describe(os.path.abspath(path), facts) for path, facts in zip(self.paths, self._facts, strict=True)]

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Compare size, times and first block of each file, and the block before the cursor."""
        if not self.restartable:
            return self._check_forward(cursor, proof, Verdict("same"))
        if fingerprint is None:
            return Verdict("changed", f"'{self.paths[0]}' was a pipe")
        try:
            verdict = self._check_files(fingerprint, cursor)
            if verdict.kind == "changed":
                return verdict
            if self._suffixes[cursor[0]] is not None:
                return self._check_forward(cursor, proof, verdict)
            return self._check_proof(cursor, proof) or verdict
        except OSError as error:
            raise SourceError(f"cannot read '{error.filename or self.paths[0]}': {error.strerror}") from error

    def _check_files(self, fingerprint: list[dict[str, Any]], cursor: Cursor) -> Verdict:
        now = self.fingerprint()
        if len(now) < len(fingerprint):
            return fewer(fingerprint, now)
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

    def _appended(self, was: dict[str, Any], index: int, cursor: Cursor, verdict: Verdict) -> Verdict:
        """A last line without its end that is done, and then grew, was another line."""
        if self._suffixes[index] is not None or cursor != [index, was["size"]] or not was["size"]:
            return verdict
        if before(was["path"], was["size"]).endswith(self.ending):
            return verdict
        return Verdict("changed", f"the last line of '{was['path']}' had no line end, was done, and then grew")

    def _check_proof(self, cursor: Cursor, proof: int | None) -> Verdict | None:
        """Return that the input was changed before the cursor, if it was."""
        index, offset = cursor
        path = os.path.abspath(self.paths[index])
        if proof is None or proof_of(before(path, offset)) == proof:
            return None
        return Verdict("changed", f"what stands before byte {offset:,} of '{path}' is not what was read there")

    def _check_forward(self, cursor: Cursor, proof: int | None, verdict: Verdict) -> Verdict:
        """Read up to the cursor, the only way to know a pipe or an archive again, and look whether more is there."""
        index, offset = cursor
        known = self._index(index) if verdict.kind == "same" else None
        if proof is None or (known is not None and known.holds == offset):  # all of it is done: no need to go there
            return verdict
        why, more = "", False
        try:
            source = self._forward(index, offset)
        except InputChanged as error:
            why = str(error)
        else:
            more = _goes_on(source)
            if proof_of(source.before) != proof:
                why = f"what came before byte {offset:,} of '{self.paths[index]}' is not what it was"
            elif more and source.before and not source.before.endswith(self.ending):
                why = "the last line had no line end, was done, and goes on now"
        if why:
            return Verdict("changed", why)
        if self.restartable:
            return self._costs(source, index, verdict)
        return Verdict("appended", "there is more of it") if more else verdict

    def _costs(self, source: ForwardBytes, index: int, verdict: Verdict) -> Verdict:
        """Say what it took to get to the cursor, where that was noticeable and there is nothing else to say."""
        if verdict.kind != "same" or source.at - source.begun < RESCAN_TOLD:
            return verdict
        why = f"'{self.paths[index]}' had to be unpacked again up to byte {source.at:,}, where the work goes on"
        return Verdict("same", why if self._suffixes[index] == ".gz" else f"{why}; a .gz file keeps an index for that")

    def count(self, index: int, offset: int) -> int | None:
        """Return how many lines end before `offset`, where an item begins; `None` if that would take long.

        The next look goes on from there, so that naming every failed item costs one more reading at most.
        """
        plain = self.restartable and self._suffixes[index] is None
        if not self.restartable or offset > (COUNT_WITHIN if plain else COUNT_WITHIN_ARCHIVE):
            return None
        known_in, at, found = self._counted
        if known_in != index or at > offset:
            at = found = 0
        if plain:
            found += self._lines_between(index, at, offset)
        else:
            found += self._beginning(index).count(self.ending, at, offset)
        self._counted = index, offset, found
        return found

    def _lines_between(self, index: int, at: int, offset: int) -> int:
        found, held = 0, b""
        with FileBytes(self.paths[index], at, offset) as source:
            while block := source.read():
                *lines, held = (held + block).split(self.ending)
                found += len(lines)
        return found

    def _beginning(self, index: int) -> bytes:
        """Return what a compressed file begins with, unpacked; kept, since it cannot be entered in the middle."""
        if self._unpacked[0] != index:
            source, blocks, size = self.begin(index), [], 0
            try:
                while size < COUNT_WITHIN_ARCHIVE and (block := source.read()):
                    blocks.append(block)
                    size += len(block)
            except SourceError:  # damaged behind: what is asked for comes before
                pass
            finally:
                source.close()
            self._unpacked = index, b"".join(blocks)
        return self._unpacked[1]

    def extent(self, span: Span) -> int | None:
        """Return the bytes of a span; `None` where they are unknown."""
        return None if span.stop is None else bytes_of(span, self.sizes)


def _goes_on(source: ForwardBytes) -> bool:
    try:
        return bool(source.peek())
    except SourceError:  # whoever reads on will be told
        return False


def sizes_of(paths: list[str], sizes: list[int]) -> list[int | None]:
    """Return what files hold in bytes, given their sizes; `None` for compressed ones, of which nobody knows."""
    return [None if suffix_of(path) else size for path, size in zip(paths, sizes, strict=True)]


def bytes_of(span: Span, sizes: list[int | None]) -> int | None:
    """Return the bytes of a span of files with these sizes; `None` where they are unknown."""
    first, start = span.start
    last, stop = span.stop or span.start
    whole = sizes[first:last]
    return None if None in whole else sum(size or 0 for size in whole) - int(start) + int(stop)
