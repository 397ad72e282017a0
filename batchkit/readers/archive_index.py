"""What helps to get back to a cursor in a compressed file: a cache, which may be missing, old or unreadable.

Of a .gz file it keeps points at which unpacking can begin again; of any, how much it holds, once that is known. One
line: CRC-32 of the JSON text, a space, the JSON object `{"format", "file", "holds", "points"}`: `file` is what
`fingerprint.describe` says of the file; `holds` its unpacked bytes or null; each point `Point`, its window packed by
zlib, in base64. The file is replaced whole.

A cursor only moves forward, so that the newest points count: eight of them are kept 4 MiB apart, older ones at doubling
distances. That is about 20 for a file of any size, some 400 KB, and a way of at most 4 MiB to the newest cursor.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from contextlib import suppress
from typing import Any, NamedTuple

from batchkit import files
from batchkit.errors import StorageError

FORMAT = 1
SPACING = 4 << 20
"""Unpacked bytes between points: 10 to 40 ms of unpacking."""

SAVE_SECONDS = 2.0
"""Seconds between two savings while reading: what has to be unpacked again after a crash."""

_NEWEST = 8


class Point(NamedTuple):
    """A place between two deflate blocks of a gzip file.

    at: unpacked bytes before it. taken: compressed bytes before it; of the last of them, the upper `bits` bits come
    behind it. crc, length: checksum and number of the member's bytes so far. window: the at most 32 KiB before it.
    """

    at: int
    taken: int
    bits: int
    crc: int
    length: int
    window: bytes


class ArchiveIndex:
    """The index of one compressed file.

    holds: the unpacked bytes of the file; `None` while unknown.
    """

    def __init__(self, path: str, file: dict[str, Any]) -> None:
        """Take what `path` says, if it is of this `file`, or of what it was before it grew."""
        self._path = path
        self._file = file
        self._points: list[Point] = []
        self.holds: int | None = None
        self._saved = 0.0
        self._fresh = False
        with suppress(StorageError, ValueError, KeyError, TypeError, zlib.error):
            self._load()

    def _load(self) -> None:
        data = files.read_bytes(self._path) or b""
        crc, _, text = data.partition(b" ")
        if int(crc, 16) != zlib.crc32(text):
            return
        known = json.loads(text)
        if known["format"] != FORMAT or not _continues(known["file"], self._file):
            return
        if known["file"]["size"] == self._file["size"]:
            self.holds = known["holds"]
        self._points = [Point._make([*row[:5], zlib.decompress(base64.b64decode(row[5]))]) for row in known["points"]]

    def nearest(self, offset: int) -> Point | None:
        """Return the last point up to an offset of the contents."""
        return max((point for point in self._points if point.at <= offset), default=None)

    def forget(self) -> None:
        """Drop everything: it led to what cannot be read."""
        self._points, self.holds = [], None

    def due(self, at: int) -> bool:
        """Tell whether a point at this offset is wanted."""
        return at // SPACING > (self._points[-1].at // SPACING if self._points else 0)

    def add(self, point: Point) -> None:
        """Keep a point behind all others, and fewer of the old ones."""
        self._points.append(point)
        newest = point.at // SPACING
        self._points = [one for one in self._points if _kept(one.at // SPACING, newest)]
        self._fresh = True

    def end(self, holds: int) -> None:
        """Know how much the file holds."""
        self._fresh = self._fresh or self.holds != holds
        self.holds = holds

    def save(self, *, now: bool = False) -> None:
        """Store what is new, if it is time or wanted `now`. A disk that refuses costs nothing but the cache."""
        if not self._fresh or not (now or time.monotonic() - self._saved >= SAVE_SECONDS):
            return
        points = [[*point[:5], base64.b64encode(zlib.compress(point.window, 1)).decode()] for point in self._points]
        known = {"format": FORMAT, "file": self._file, "holds": self.holds, "points": points}
        text = json.dumps(known).encode()
        with suppress(StorageError):
            files.replace(self._path, b"%08x %b" % (zlib.crc32(text), text))
        self._fresh = False
        self._saved = time.monotonic()


def _kept(number: int, newest: int) -> bool:
    """Tell whether the point with this number is among those to keep: denser towards the newest."""
    age = (newest - number) // _NEWEST
    return number % (1 << age.bit_length()) == 0


def _continues(was: dict[str, Any], now: dict[str, Any]) -> bool:
    """Tell whether a file is the one it was, or grew."""
    same = was["path"] == now["path"] and was["head"] == now["head"]
    return same and (was["size"] < now["size"] or (was["size"], was["mtime_ns"]) == (now["size"], now["mtime_ns"]))
