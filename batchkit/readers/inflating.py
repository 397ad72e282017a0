"""Unpacks gzip members (RFC 1952) and takes points at which unpacking can begin again.

Done with the system's zlib, because Python's `zlib` can neither stop between two deflate blocks nor begin at one; the
way is that of zlib's own example, examples/zran.c. Libraries that do this (indexed_gzip, rapidgzip) were measured and
turned down: both take a file that is cut off within a member for its end, and indexed_gzip does not compare checksums.
Here the checksum goes on from a point, so that a member is proved at its end wherever it was entered.
"""

from __future__ import annotations

import ctypes
import sys
import zlib
from functools import cache

from batchkit.readers.archive_index import Point

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_WINDOW = 32 << 10
_OK, _STREAM_END, _BUFFER_ERROR = 0, 1, -5
_NO_FLUSH, _BLOCK = 0, 5
_GZIP, _RAW = 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS
_TRAILER = 8
_NAMES = ("libz.1.dylib", "libz.dylib") if sys.platform == "darwin" else ("libz.so.1", "libz.so")


class _Stream(ctypes.Structure):
    """z_stream_s of zlib.h."""

    _fields_ = (
        ("next_in", ctypes.c_void_p),
        ("avail_in", ctypes.c_uint),
        ("total_in", ctypes.c_ulong),
        ("next_out", ctypes.c_void_p),
        ("avail_out", ctypes.c_uint),
        ("total_out", ctypes.c_ulong),
        ("msg", ctypes.c_char_p),
        ("state", ctypes.c_void_p),
        ("zalloc", ctypes.c_void_p),
        ("zfree", ctypes.c_void_p),
        ("opaque", ctypes.c_void_p),
        ("data_type", ctypes.c_int),
        ("adler", ctypes.c_ulong),
        ("reserved", ctypes.c_ulong),
    )


@cache
def _library() -> ctypes.CDLL | None:
    """Return zlib; `None` where the system has none that can tell its window (before 1.2.8)."""
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
            library.zlibVersion.restype = ctypes.c_char_p
            stream, integer, data = ctypes.POINTER(_Stream), ctypes.c_int, ctypes.c_char_p
            library.inflateInit2_.argtypes = (stream, integer, data, integer)
            library.inflate.argtypes = (stream, integer)
            library.inflateEnd.argtypes = (stream,)
            library.inflatePrime.argtypes = (stream, integer, integer)
            library.inflateSetDictionary.argtypes = (stream, data, ctypes.c_uint)
            library.inflateGetDictionary.argtypes = (stream, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint))
        except (OSError, AttributeError):
            continue
        return library
    return None


def available() -> bool:
    """Tell whether this system can take points."""
    return _library() is not None


class Inflater:
    """One gzip member; the same face as `compression.Member`.

    Raises `zlib.error` for damaged bytes. Whether a point is due is asked between any two blocks.
    """

    def __init__(self, at: int, taken: int, due: Callable[[int], bool], add: Callable[[Point], None]) -> None:
        """Begin a member behind `at` unpacked and `taken` compressed bytes; `add` gets points where they are `due`."""
        self._due, self._add = due, add
        self._start(_GZIP)
        self._at, self._taken, self._length, self._crc = at, taken, 0, 0
        self._raw = False

    @classmethod
    def resumed(cls, point: Point, last: bytes, due: Callable[[int], bool], add: Callable[[Point], None]) -> Inflater:
        """Go on at a point; `last` is the byte before it, if some of its bits come behind it."""
        self = cls(point.at, point.taken, due, add)
        self.close()
        self._start(_RAW)
        if point.bits:
            self._library.inflatePrime(self._stream, point.bits, last[0] >> (8 - point.bits))
        self._library.inflateSetDictionary(self._stream, point.window, len(point.window))
        self._length, self._crc = point.length, point.crc
        self._raw = True
        return self

    def _start(self, bits: int) -> None:
        library = _library()
        assert library is not None, "ask available() first"
        self._library = library
        self._stream = _Stream()
        code = library.inflateInit2_(self._stream, bits, library.zlibVersion(), ctypes.sizeof(_Stream))
        if code != _OK:
            raise MemoryError(f"zlib cannot begin: {code}")
        self._open = True
        self._input = b""
        self._ended = False
        self.needs_input = True
        self.eof = False

    @property
    def unused_data(self) -> bytes:
        """What stands behind the end of the member."""
        return self._input

    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes:
        """Take `data` and return at most `max_length` bytes; the rest comes with the next calls."""
        assert max_length > 0
        self._input += data
        block = b"" if self._ended else self._inflate(max_length)
        if self._ended and not self.eof:
            self._prove()
        full = len(block) == max_length  # then zlib may hold more, even where it took all of the input
        self.needs_input = not self.eof and not full and (self._ended or not self._input)
        return block

    def _inflate(self, size: int) -> bytes:
        stream, given = self._stream, self._input
        buffer = ctypes.create_string_buffer(size)
        stream.next_in = ctypes.cast(ctypes.c_char_p(given), ctypes.c_void_p)
        stream.avail_in = len(given)
        stream.next_out = ctypes.addressof(buffer)
        stream.avail_out = size
        counted = 0
        code = _OK
        while code == _OK and stream.avail_out and (stream.avail_in or not counted):
            left, behind = stream.avail_in, self._taken - stream.avail_in
            wanted = self._due(self._at)
            code = self._library.inflate(stream, _BLOCK if wanted else _NO_FLUSH)
            self._taken = behind + left + (left - stream.avail_in)
            new = size - stream.avail_out - counted
            if self._raw and new:
                self._crc = zlib.crc32(ctypes.string_at(ctypes.addressof(buffer) + counted, new), self._crc)
            counted += new
            self._at += new
            self._length += new
            if wanted and code == _OK and stream.data_type & 0xC0 == 0x80:  # noqa: PLR2004  # see zlib.h on data_type
                self._add(self._point())
            if not new and left == stream.avail_in:
                break
        self._input = given[len(given) - stream.avail_in :]
        if code == _STREAM_END:
            self._ended = True
            self.close()
        elif code not in {_OK, _BUFFER_ERROR}:
            raise zlib.error((stream.msg or b"invalid data").decode())
        return ctypes.string_at(buffer, counted)

    def _point(self) -> Point:
        window = ctypes.create_string_buffer(_WINDOW)
        length = ctypes.c_uint(0)
        self._library.inflateGetDictionary(self._stream, window, length)
        crc = self._crc if self._raw else int(self._stream.adler)
        bits = self._stream.data_type & 7
        return Point(self._at, self._taken, bits, crc, self._length, window.raw[: length.value])

    def _prove(self) -> None:
        """Compare what follows a member that was entered in the middle; otherwise zlib itself does."""
        if not self._raw:
            self.eof = True
        elif len(self._input) >= _TRAILER:
            found = self._input[:_TRAILER]
            self._input = self._input[_TRAILER:]
            if found[:4] != self._crc.to_bytes(4, "little"):
                raise zlib.error("incorrect data check")
            if found[4:] != (self._length % 2**32).to_bytes(4, "little"):
                raise zlib.error("incorrect length check")
            self.eof = True

    def close(self) -> None:
        """Free what zlib holds. Harmless when repeated."""
        if self._open:
            self._open = False
            self._library.inflateEnd(self._stream)

    def __del__(self) -> None:
        """Free what zlib holds, where reading ended before the member did."""
        if getattr(self, "_open", False):
            self.close()
