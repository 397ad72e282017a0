"""Compressed bytes: `.gz` (RFC 1952), `.zst` (RFC 8878), `.bz2`, `.xz`; the home of their libraries.

The libraries are loaded where they are used. All but zstd are Python's own; zstd is from Python 3.14 on, and earlier
it is `backports.zstd`, the same code: unlike `zstandard` it can bound what one call gives out, so that a few bytes
which unpack to gigabytes do not fill the memory.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, NamedTuple, Protocol

from batchkit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
"""Names of compressed files end so."""

_WRITTEN = (".gz", ".zst")
_UNPACK_SIZE = 64 << 10


class CompressionFault(Exception):
    """Compressed bytes cannot be unpacked any further; whoever knows their name says so in an error of its own.

    truncated: whether they only end too early; else they are damaged. at: bytes unpacked before the fault; taken:
    compressed bytes taken up to it.
    """

    def __init__(self, message: str, *, truncated: bool = False, at: int = 0, taken: int = 0) -> None:
        """Keep the place beside the message."""
        super().__init__(message)
        self.truncated = truncated
        self.at = at
        self.taken = taken


class Member(Protocol):
    """Unpacks one gzip member, zstd frame, bzip2 or xz stream; `bz2.BZ2Decompressor` is one.

    needs_input: whether nothing more comes without more input. eof: whether its end was reached, and proved by its
    checksum where it has one. unused_data: what was given to it and stands behind its end.
    """

    @property
    def needs_input(self) -> bool: ...  # noqa: D102  # described above

    @property
    def eof(self) -> bool: ...  # noqa: D102

    @property
    def unused_data(self) -> bytes: ...  # noqa: D102

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Take `data` and return at most `max_length` bytes; the rest comes with the next calls."""


class _Codec(NamedTuple):
    """What unpacks one member, what it raises for damaged bytes, and whether zeros may stand between members."""

    member: Callable[[], Member]
    errors: tuple[type[Exception], ...]
    padded: bool


def suffix_of(path: str) -> str | None:
    """Return the suffix that says how a file is compressed; `None` if none does."""
    return next((suffix for suffix in SUFFIXES if path.lower().endswith(suffix)), None)


def require(suffix: str) -> None:
    """Load the library for a suffix. Raises `UsageError` that says what to install."""
    _codec(suffix)


class Decompressor:
    """Unpacks members one behind the other, as they are read.

    at: bytes given out so far. taken: compressed bytes they took. member: what unpacks the member at hand; `None`
    between members.
    """

    def __init__(
        self, suffix: str, pull: Callable[[], bytes], begin: Callable[[int, int], Member] | None = None
    ) -> None:
        """Unpack what `pull` gives, block by block; empty: the end.

        begin: returns what unpacks a member behind so many unpacked and compressed bytes; `None`: the usual.
        """
        self._codec = _codec(suffix)
        self._begin = begin or (lambda _at, _taken: self._codec.member())
        self._pull = pull
        self._data = b""
        self._pulled = 0
        self._begun = False
        self.member: Member | None = None
        self.at = 0

    @property
    def taken(self) -> int:
        """Compressed bytes taken so far."""
        return self._pulled - len(self._data)

    def go_on(self, member: Member, data: bytes, *, at: int, taken: int) -> None:
        """Begin in the middle: with a member that gave out `at` bytes for `taken`, and the bytes pulled behind them."""
        self.member, self._data, self.at, self._pulled, self._begun = member, data, at, taken + len(data), True

    def read(self, size: int = _UNPACK_SIZE) -> bytes:
        """Return the next at most `size` bytes; empty: the end, of a whole member. Raises `CompressionFault`.

        Everything before a fault has been given out. Trailing zeros, as tapes pad archives with, are passed over.
        """
        while True:
            if self.member is None:
                if not self._more_members():
                    return b""
                self.member = self._begin(self.at, self.taken)
            if not self._data and self.member.needs_input and not self._fetch():
                raise self._fault("it ends within its compressed data", truncated=True)
            data, self._data = self._data, b""
            try:
                block = self.member.decompress(data, size)
            except self._codec.errors as error:
                self._data = data
                raise self._fault(str(error)) from error
            if self.member.eof:
                self._data = self.member.unused_data
                self.member = None
            if block:
                self.at += len(block)
                return block

    def _more_members(self) -> bool:
        """Tell whether another member follows; an archive without any was cut off."""
        while self._data or self._fetch():
            if self._begun and self._codec.padded:
                self._data = self._data.lstrip(b"\0")
            if self._data:
                self._begun = True
                return True
        if not self._begun:
            raise self._fault("it is empty", truncated=True)
        return False

    def _fetch(self) -> bool:
        self._data = self._pull()
        self._pulled += len(self._data)
        return bool(self._data)

    def _fault(self, why: str, *, truncated: bool = False) -> CompressionFault:
        return CompressionFault(why, truncated=truncated, at=self.at, taken=self.taken)


class _GzipMember:
    """One gzip member, with the face that bz2, lzma and zstd have in common."""

    def __init__(self) -> None:
        import zlib  # noqa: PLC0415  # loaded where it is used

        self._inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        tail = self._inflate.unconsumed_tail
        block = self._inflate.decompress(tail + data if tail else data, max(0, max_length))
        # A full block may leave bytes within zlib even where it took all of the input.
        self.needs_input = len(block) != max_length and not self._inflate.unconsumed_tail
        return block


def compress(suffix: str, data: bytes) -> bytes:
    """Return a whole gzip member, without a time, or a whole zstd frame, with its size and a checksum.

    What `decompressed` and every other tool read one behind the other is what such calls return one behind the other.
    Raises `UsageError` for other suffixes and for a library that is not installed.
    """
    _refuse_unwritten(suffix)
    if suffix == ".gz":
        import gzip  # noqa: PLC0415  # loaded where it is used

        return gzip.compress(data, compresslevel=6, mtime=0)
    zstd = _zstd()
    parameter = zstd.CompressionParameter
    options = {parameter.content_size_flag: 1, parameter.checksum_flag: 1}
    return bytes(zstd.compress(data, options=options))


def decompressed(suffix: str, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack what `compress` made, in blocks of at most 64 KiB; no chunks at all are nothing.

    Raises `CompressionFault` behind the last whole block, `UsageError` as `compress` does.
    """
    _refuse_unwritten(suffix)
    rest = filter(None, chunks)
    first = next(rest, b"")
    if not first:
        return
    waiting = [first]
    unpacked = Decompressor(suffix, lambda: waiting.pop() if waiting else next(rest, b""))
    while block := unpacked.read():
        yield block


def first_member(suffix: str, chunks: Iterable[bytes]) -> tuple[bytes, int]:
    """Return what the first member with something in it unpacks to, and where it ends, in compressed bytes.

    Nothing and 0 if there is none, or its end is missing. It is unpacked whole: for members known to be small. Raises
    as `decompressed`.
    """
    codec = _codec(suffix)
    member = codec.member()
    text, taken = b"", 0
    try:
        for chunk in chunks:
            taken += len(chunk)
            left = chunk
            while left:
                text += member.decompress(left)
                if not member.eof:
                    break
                left = member.unused_data
                if text:
                    return text, taken - len(left)
                member = codec.member()
    except codec.errors as error:
        raise CompressionFault(str(error)) from error
    return b"", 0


def _refuse_unwritten(suffix: str) -> None:
    if suffix not in _WRITTEN:
        raise UsageError(f"cannot write '{suffix}'; give a name that ends in {' or '.join(_WRITTEN)}")


@cache
def _codec(suffix: str) -> _Codec:
    if suffix == ".gz":
        import zlib  # noqa: PLC0415  # all of these are loaded where they are used

        return _Codec(_GzipMember, (zlib.error,), padded=True)
    if suffix == ".bz2":
        import bz2  # noqa: PLC0415

        return _Codec(bz2.BZ2Decompressor, (OSError, ValueError), padded=False)
    if suffix == ".xz":
        import lzma  # noqa: PLC0415

        return _Codec(_xz_member, (lzma.LZMAError,), padded=True)
    if suffix == ".zst":
        zstd = _zstd()
        return _Codec(zstd.ZstdDecompressor, (zstd.ZstdError,), padded=False)
    raise UsageError(f"'{suffix}' is no suffix of a compressed file; known are {', '.join(SUFFIXES)}")


def _xz_member() -> Member:
    import lzma  # noqa: PLC0415

    return lzma.LZMADecompressor(format=lzma.FORMAT_XZ)


def _zstd() -> Any:
    """Return the zstd module. Raises `UsageError` that says what to install."""
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415
        else:
            from backports import zstd  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("zstd is not installed; run: pip install 'batchkit[zstd]'") from error
    return zstd
