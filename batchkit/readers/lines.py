"""Lines of text files, compressed files, pipes and standard input; the cursor is `[file index, byte offset]`.

What a line is, `splitting` says; an item never crosses a file. Other readers of files with lines build on this one.
"""

from __future__ import annotations

import os
from typing import Any

from batchkit.errors import UsageError
from batchkit.readers.cutting import behind_delimiter, cut
from batchkit.readers.listing import Listing
from batchkit.readers.paths import name_of, patterns_of
from batchkit.readers.splitting import Splitter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from batchkit.model import Batch, Cursor, Span, Verdict
    from batchkit.readers.cutting import Stretch

MAX_ITEM_BYTES = 64 << 20


class SplitReader:
    """Reads what a `Splitter` makes of the bytes of one or more files as one list.

    kind: of source, in a job's definition.
    """

    kind: str
    unit = "B"
    durable = True

    def __init__(self, sources: Iterable[str | os.PathLike[str]], splitter: Splitter) -> None:
        """Find the files and their sizes; what is appended later is a later run's. Raises `UsageError`."""
        self._splitter = splitter
        self._listing = Listing([os.fspath(source) for source in sources], splitter.delimiter.encode())
        paths = self._listing.paths
        self.restartable = self._listing.restartable
        self.name = name_of(self._listing.patterns[0])
        self.patterns = patterns_of(self._listing.patterns)
        self.files: Sequence[str] = [path for path in paths if path != "-"]

    def options(self) -> dict[str, Any]:
        """Return the options that decide what the items are, for `identity`."""
        raise NotImplementedError

    def identity(self) -> Any:
        """Return paths and options."""
        sources = [path if path == "-" else os.path.abspath(path) for path in self._listing.patterns]
        return {"kind": self.kind, "sources": sources, **self.options()}

    def keep_in(self, directory: str) -> None:
        """Keep what helps to resume in this directory of the job: how to get back into compressed files."""
        self._listing.keep_in(directory)

    def fingerprint(self) -> Any:
        """Return size, time and first block of each file; `None` for a pipe."""
        return self._listing.fingerprint()

    def whole(self) -> Span:
        """Return the span of all items there are now; its end is unknown behind a pipe or a compressed file."""
        return self._listing.whole()

    def split(self, span: Span, count: int) -> list[Span]:
        """Cut a span into at most `count` of about the same size; a compressed file is not cut, nor is a pipe."""
        if not self.restartable:
            return [span]
        pieces = self._listing.pieces(span)
        stretches = [(index, max(start, self._first(index)), stop) for index, start, stop in pieces]
        return cut(
            span, count, [(each, size) for each in stretches if (size := self._listing.weight(*each))], self._border
        )

    def _border(self, stretch: Stretch, offset: int) -> int | None:
        """Return where the first item of a stretch begins at an offset or behind it."""
        path = self._listing.paths[stretch[0]]
        return behind_delimiter(path, self._splitter.delimiter.encode(), stretch, offset)

    def _first(self, index: int) -> int:
        """Return the offset of the first item of a file."""
        del index
        return 0

    def read(self, span: Span, batch_size: int) -> Iterator[Batch]:
        """Go to the span's start (a pipe is read up to it, a compressed file unpacked) and yield its batches."""
        for index, start, stop in self._listing.pieces(span):
            start = max(start, self._first(index))  # noqa: PLW2901
            if start == stop:
                continue
            source = self._listing.open(index, start, stop)
            try:
                yield from self._splitter.batches(source, index, start, batch_size)
            finally:
                source.close()

    def check(self, fingerprint: Any, cursor: Cursor, proof: int | None) -> Verdict:
        """Compare size, times and first block of each file, and the block before the cursor.

        A pipe is read and a compressed file unpacked up to the cursor for that; `read` goes on from there.
        """
        return self._listing.check(fingerprint, cursor, proof)

    def extent(self, span: Span) -> int | None:
        """Return the bytes of a span; `None` where they are unknown: behind a pipe, over whole compressed files."""
        return self._listing.extent(span)

    def describe(self, cursor: Cursor) -> str:
        """Return file, line (where counting is cheap) and byte."""
        index, offset = cursor
        path = self._listing.paths[index]
        if path == "-":
            return f"standard input byte {offset:,}"
        lines = self._listing.count(index, offset)
        return f"'{path}' byte {offset:,}" if lines is None else f"'{path}' line {lines + 1:,} (byte {offset:,})"


class LineReader(SplitReader):
    """Reads the lines of one or more files as one list.

    sources: paths and glob patterns, in order (a pattern's matches are sorted), or `-` alone for standard input. Files
        that end in .gz, .zst, .bz2 or .xz are unpacked.
    delimiter: what ends a line. skip_blank: whether lines of white space only are no items.
    max_item_bytes: a longer line fails as an item; also bounds the bytes of a batch, and so the memory.
    """

    kind = "lines"

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
        super().__init__(sources, Splitter(delimiter, skip_blank=skip_blank, limit=at_least_one(max_item_bytes)))

    def options(self) -> dict[str, Any]:
        """Return delimiter and rule for blank lines."""
        return {"delimiter": self._splitter.delimiter, "skip_blank": self._splitter.skip_blank}


def at_least_one(max_item_bytes: int) -> int:
    """Return a limit that an item can keep. Raises `UsageError`."""
    if max_item_bytes < 1:
        raise UsageError(f"max_item_bytes is {max_item_bytes}; give at least 1")
    return max_item_bytes
