"""Lines compressed as gzip or Zstandard: each commit ends a member or frame, so that a part can be cut there."""

from __future__ import annotations

from typing import Any

from batchkit import compression
from batchkit.errors import DamageError
from batchkit.writers.formats import lines_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

    def render(self, results: Sequence[Any]) -> bytes:
        """Return one member with the results; nothing for none."""
        data = self._form.render(results)
        return compression.compress(self._suffix, data) if data else b""

    def lines(self, chunks: Iterator[bytes]) -> Iterator[str]:
        """Decompress and decode the lines. Raises `DamageError`."""
        try:
            yield from lines_of(compression.decompressed(self._suffix, chunks))
        except compression.CompressionFault as error:
            raise DamageError(f"the stored results cannot be unpacked: {error}; the next run mends that") from error
