"""What the journals of a shard keep of its past, read from wherever one looks: they may be larger than memory.

A shard's past is its history files, by the number of their first commit, and then its journal (see `journal.py`). One
is never read as a whole here: a look costs a read of a few kilobytes, so that finding one of millions of commits, or
a sample of them, takes milliseconds.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from batchkit import files, journal
from batchkit.errors import DamageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchkit.model import Checkpoint


class Chapter(NamedTuple):
    """One file of a shard's past.

    begin: where its first commit stands, behind the header; end: its size. Both bytes.
    """

    path: str
    begin: int
    end: int

    def at(self, offset: int) -> tuple[int, Checkpoint] | None:
        """Return the first proved commit that begins at `offset` or behind it, with where; `None`: there is none."""
        for start, line in self._lines(max(offset, self.begin)):
            point = journal.commit_in(line)
            if point is not None:
                return start, point
        return None

    def between(self, start: int, stop: int) -> Iterator[Checkpoint]:
        """Yield the proved commits that begin in these bytes of the file."""
        for offset, line in self._lines(max(start, self.begin)):
            if offset >= stop:
                return
            point = journal.commit_in(line)
            if point is not None:
                yield point

    def _lines(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Yield the whole lines that begin at `offset` or behind it, with where they begin."""
        with open(self.path, "rb") as file:
            if offset > self.begin:  # perhaps within a line: go on behind its end
                file.seek(offset - 1)
                offset += len(file.readline()) - 1
            file.seek(offset)
            while line := file.readline():
                if not line.endswith(b"\n"):
                    return  # it is being written
                yield offset, line[:-1]
                offset += len(line)


def chapters(path: str, job: str) -> list[Chapter]:
    """Return the files of a shard's past, oldest first, as they are now. Raises `DamageError`.

    path: of its journal. job: the uuid; what stands there of an earlier start of the job is passed over.
    """
    directory, name = os.path.split(path.removesuffix(".jsonl"))
    with files.naming("read", directory):
        names = [each for each in os.listdir(directory) if each.startswith(f"{name}.history-")]
    old = sorted(names, key=lambda each: int(each.removesuffix(".jsonl").rpartition("-")[2]))
    found = []
    for each in [*(os.path.join(directory, one) for one in old), path]:
        with files.naming("read", each), open(each, "rb") as file:
            line = file.readline()
            size = os.fstat(file.fileno()).st_size
        header = journal.decode(line[:-1])
        if header is None or "job" not in header:
            raise DamageError(f"the journal '{each}' has no valid header; put back a copy")
        if header["job"] == job:
            found.append(Chapter(each, len(line), size))
    return found


def first_where(chapters_: list[Chapter], reached: Callable[[Checkpoint], bool]) -> Checkpoint | None:
    """Return the first commit for which `reached` is true, which stays true from there on; `None`: none does.

    By bisection over files and bytes.
    """
    for index, chapter in enumerate(chapters_):
        following = chapters_[index + 1].at(0) if index + 1 < len(chapters_) else None
        if following is not None and not reached(following[1]):
            continue  # all of this one is before it, and more
        found = _first_in(chapter, reached)
        if found is not None:
            return found
    return None


def _first_in(chapter: Chapter, reached: Callable[[Checkpoint], bool]) -> Checkpoint | None:
    low, high, found = chapter.begin, chapter.end, None
    while low < high:
        middle = (low + high) // 2
        at = chapter.at(middle)
        if at is None or reached(at[1]):
            high, found = middle, found if at is None else at[1]
        else:
            low = at[0] + 1
    return found
