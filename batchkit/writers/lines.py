"""Text, JSONL and CSV files. Exactly once: see `part`."""

from __future__ import annotations

import os
from typing import Any

from batchkit import files
from batchkit.writers.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.writers.formats import Format

HEAD = 64 << 10
"""Bytes at the beginning of an output in which a header is looked for."""


class LineWriter:
    """Appends the rendered results of a shard to its part file."""

    def __init__(self, path: str, form: Format, earlier: Sequence[str]) -> None:
        """Write to the part at `path`; `earlier`: files of the same output, the first of which decides the header."""
        self._part = Part(path)
        self._form = form
        self._earlier = earlier
        self.mark = self._part.mark

    def intact(self, marks: Sequence[list[int]]) -> int:
        """Return the index of the last mark that the part covers."""
        return self._part.intact(marks)

    def open(self, mark: list[int] | None) -> None:
        """Cut the part to the mark."""
        self._part.open(mark)
        heads = map(head, (*self._earlier, self._part.path))
        self._form.resume(next(filter(None, heads), b""))

    def write(self, results: Sequence[Any]) -> None:
        """Render and append."""
        data = self._form.render(results)
        if data:
            self._part.append(data)

    def sync(self) -> None:
        """Make it durable."""
        self._part.sync()

    def close(self) -> None:
        """Close the part."""
        self._part.close()


def head(path: str) -> bytes:
    """Return the first bytes of a file; none if it is missing."""
    with files.naming("read", path):
        try:
            fd = files.kernel.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b""
        try:
            return files.kernel.pread(fd, HEAD, 0)
        finally:
            files.kernel.close(fd)
