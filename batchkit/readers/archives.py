"""The bytes within a compressed file, in blocks; offsets count the unpacked bytes.

The file is read through blocks of its own, up to the size it had when the reader was made, so that what is appended
meanwhile is not taken for half a member.
"""

from __future__ import annotations

from batchkit.compression import CompressionFault, Decompressor
from batchkit.errors import SourceError
from batchkit.readers import blocks
from batchkit.readers.blocks import FileBytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.readers.blocks import Blocks


class ArchiveBytes:
    """The bytes within one compressed file, from its beginning; see `Blocks`.

    A file that ends within a member, or is damaged, raises `SourceError` behind everything that can be unpacked; it
    is never taken for the end. (The checksum of a member stands at its end: damage that only it can tell is found
    there, behind the items before it.)
    """

    before = b""

    def __init__(self, path: str, suffix: str, size: int | None) -> None:
        """Open the file, of which `size` bytes count (`None`: all). Raises `SourceError`."""
        self._path = path
        self._raw: Blocks = FileBytes(path, 0, size)
        self._unpacked = Decompressor(suffix, self._raw.read)

    def read(self) -> bytes:
        """Return the next block; empty at the end. Raises `SourceError`."""
        try:
            return self._unpacked.read(blocks.READ_SIZE)
        except CompressionFault as fault:
            raise _error(self._path, fault) from fault

    def close(self) -> None:
        """Close the file. Harmless when repeated."""
        self._raw.close()


def _error(path: str, fault: CompressionFault) -> SourceError:
    """Return what to tell people of a fault."""
    where = f"behind byte {fault.at:,} of its contents (compressed byte {fault.taken:,})"
    if fault.truncated:
        return SourceError(f"'{path}' is cut off {where}: {fault}; complete the file and run the same command again")
    return SourceError(
        f"'{path}' is damaged {where}: {fault}; put a sound copy in its place and go on with --on-input-change continue"
    )
