"""The bytes within a compressed file, in blocks; offsets count the unpacked bytes.

The file is read through blocks of its own, up to the size it had when the reader was made, so that what is appended
meanwhile is not taken for half a member.
"""

from __future__ import annotations

from typing import Any

from batchkit.compression import CompressionFault, Decompressor
from batchkit.errors import SourceError
from batchkit.fingerprint import BLOCK
from batchkit.readers import blocks
from batchkit.readers.blocks import FileBytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.compression import Member
    from batchkit.readers.archive_index import ArchiveIndex


class ArchiveBytes:
    """The bytes within one compressed file; see `Blocks`.

    A file that ends within a member, or is damaged, raises `SourceError` behind everything that can be unpacked; it
    is never taken for the end. (The checksum of a member stands at its end: damage that only it can tell is found
    there, behind the items before it.)

    at: where reading begins, in unpacked bytes: the beginning, or a place that an index knows.
    """

    def __init__(
        self, path: str, suffix: str, size: int | None, index: ArchiveIndex | None = None, offset: int = 0
    ) -> None:
        """Open the file, of which `size` bytes count (`None`: all), at or before `offset`. Raises `SourceError`.

        index: is used and added to.
        """
        self._path = path
        self._index = index
        self.at = 0
        self.before = b""
        indexed = index if suffix == ".gz" and index is not None and _inflating().available() else None
        point = indexed.nearest(offset) if indexed is not None else None
        start = 0 if point is None else point.taken - (1 if point.bits else 0)
        self._raw = FileBytes(path, start, size)
        if indexed is None:
            self._unpacked = Decompressor(suffix, self._raw.read)
            return

        def begin(at: int, taken: int) -> Member:
            member: Member = _inflating().Inflater(at, taken, indexed.due, indexed.add)
            return member

        self._unpacked = Decompressor(suffix, self._raw.read, begin)
        if point is not None:
            data = self._raw.read()
            last, data = (data[:1], data[1:]) if point.bits else (b"", data)
            member = _inflating().Inflater.resumed(point, last, indexed.due, indexed.add)
            self._unpacked.go_on(member, data, at=point.at, taken=point.taken)
            self.at, self.before = point.at, point.window[-BLOCK:]

    def read(self) -> bytes:
        """Return the next block; empty at the end. Raises `SourceError`."""
        try:
            block = self._unpacked.read(blocks.READ_SIZE)
        except CompressionFault as fault:
            raise _error(self._path, fault) from fault
        if self._index is not None:
            if not block:
                self._index.end(self._unpacked.at)
            self._index.save(now=not block)
        return block

    def close(self) -> None:
        """Close the file and store what the index learned. Harmless when repeated."""
        self._raw.close()
        if self._index is not None:
            self._index.save(now=True)


def _inflating() -> Any:
    from batchkit.readers import inflating  # noqa: PLC0415  # ctypes takes its time to load

    return inflating


def _error(path: str, fault: CompressionFault) -> SourceError:
    """Return what to tell people of a fault."""
    where = f"behind byte {fault.at:,} of its contents (compressed byte {fault.taken:,})"
    if fault.truncated:
        return SourceError(f"'{path}' is cut off {where}: {fault}; complete the file and run the same command again")
    return SourceError(
        f"'{path}' is damaged {where}: {fault}; put a sound copy in its place and go on with --on-input-change continue"
    )
