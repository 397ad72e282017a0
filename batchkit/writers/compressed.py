"""Lines compressed as gzip or Zstandard: each commit ends a member or frame, so that a part can be cut there.

A header is a member of its own, so that results can be put between it and the first ones.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

from batchkit import compression
from batchkit.errors import DamageError
from batchkit.writers.formats import lines_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from batchkit.writers.base import Header
    from batchkit.writers.formats import Format


class Compressed:
    """A format of lines, compressed."""

    def __init__(self, form: Format, suffix: str) -> None:
        """Write `form` as `.gz` or `.zst` says. Raises `UsageError` if the library for it is missing."""
        self._form = form
        self._suffix = suffix
        self.empty = compression.compress(suffix, form.empty)
        self.parse = form.parse
        self.resume = form.resume
        self.know = form.know
        self.headed = form.headed

    @property
    def columns(self) -> Sequence[str] | None:
        """Columns that are known."""
        return self._form.columns

    def head(self, columns: Sequence[str]) -> bytes:
        """Return a member with the header."""
        return self._packed(self._form.head(columns))

    def render(self, results: Sequence[Any]) -> bytes:
        """Return one member with the results, behind one with the header if that is due; nothing for none."""
        return b"".join(self.rendered(results))

    def rendered(self, results: Sequence[Any]) -> tuple[bytes, bytes]:
        """Return both members."""
        header, data = self._form.rendered(results)
        return self._packed(header), self._packed(data)

    def _packed(self, data: bytes) -> bytes:
        return compression.compress(self._suffix, data) if data else b""

    def header(self, chunks: Iterator[bytes]) -> Header | None:
        """Return the header that is the first member with something in it. Raises `DamageError`."""
        if not self.headed:
            return None
        with _blamed():
            text, taken = compression.first_member(self._suffix, chunks)
        found = self._form.header(iter([text]))
        return None if found is None else found._replace(places=taken)

    def lines(self, chunks: Iterator[bytes]) -> Iterator[str]:
        """Decompress and decode the lines. Raises `DamageError`."""
        with _blamed():
            yield from lines_of(compression.decompressed(self._suffix, chunks))


@contextmanager
def _blamed() -> Iterator[None]:
    try:
        yield
    except compression.CompressionFault as error:
        raise DamageError(f"the stored results cannot be unpacked: {error}; the next run mends that") from error
