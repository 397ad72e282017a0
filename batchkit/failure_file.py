"""The failures of a shard, kept beside its journal: `shards/NNNNN.failures.jsonl`, mode 0600.

Format 1. One JSON object a line. The first is the header, each further one a failure, in input order:

    {"format":1,"job":"<uuid>","shard":0,"schema":"<base64>"}
    {"shard":0,"number":57,"at":…,"where":"…","place":…,"item":…,"error":"ValueError","message":"…","traceback":"…",
     "attempts":1,"run":1,"time":…}          "nth", the number in the whole input, from 1, is added where it is known,
                                             and "unreadable":true where the item could not be read

`item` is tagged JSON, see `tagged`. `schema` is an empty Arrow IPC stream with the columns of the items, if they are
rows of a table, else null. In the file of a round (see `rounds`), an item that was done or skipped has a line, too:

    {"shard":0,"number":57,"place":…,"start":…,"stop":…}     its results stand at [start, stop) of the round's part
    {"shard":0,"number":57,"skipped":true}

The file is a stream with a mark, see `writers.part`: what the newest commit does not cover does not count. It is made
when the first line comes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

from batchkit import files
from batchkit.errors import DamageError
from batchkit.model import Failure
from batchkit.writers.part import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from batchkit.model import Mark

FORMAT = 1

_json = json.JSONEncoder(separators=(",", ":")).encode


class FailureFile:
    """What is kept of failures, appended entry by entry. In the page cache until `sync`."""

    def __init__(self, path: str, job: str, shard: int) -> None:
        """Name the file; job: the uuid."""
        self.path = path
        self._part = Part(path, mode=files.PRIVATE)
        self._header = {"format": FORMAT, "job": job, "shard": shard}
        self._opened = False

    def intact(self, marks: Sequence[Mark]) -> int:
        """Return the index of the last of consecutive marks that the file covers; `None`: nothing was kept yet."""
        if not marks or marks[len(marks) - 1] is None:
            return len(marks) - 1
        return self._part.intact(_Marks(marks))

    def open(self, mark: Mark) -> None:
        """Cut the file to the mark and make that durable; `None`: it is made when the first entry comes."""
        if mark is not None:
            self._part.open(mark)
            self._opened = True

    def keep(self, entry: dict[str, Any], schema: Callable[[], str | None] = lambda: None) -> None:
        """Append an entry; schema: tells the columns of the item's table, for the header."""
        if not self._opened:
            self._part.open(None)
            self._part.append(_json({**self._header, "schema": schema()}).encode() + b"\n")
            self._opened = True
        self._part.append(_json(entry).encode() + b"\n")

    def mark(self) -> Mark:
        """Return how far it goes, for the commit that covers it; `None` while there is nothing in it."""
        return self._part.mark() if self._opened else None

    def sync(self) -> None:
        """Make it durable."""
        if self._opened:
            self._part.sync()

    def close(self) -> None:
        """Close the file; syncs nothing."""
        self._part.close()


class FailuresInMemory:
    """What is kept of failures by a run that leaves nothing on disk: `kept`, the entries."""

    def __init__(self) -> None:
        """Begin with none."""
        self.kept: list[dict[str, Any]] = []

    def keep(self, entry: dict[str, Any], schema: Callable[[], str | None] = lambda: None) -> None:
        """Remember an entry."""
        del schema
        self.kept.append(entry)

    def mark(self) -> Mark:
        """Return how many there are."""
        return [len(self.kept)]

    def between(self, start: Mark, stop: Mark) -> Iterator[Failure]:
        """Yield the failures between two marks; `None`: the beginning."""
        return map(failure_of, self.kept[0 if start is None else start[0] : 0 if stop is None else stop[0]])

    def sync(self) -> None:
        """Do nothing."""


class _Marks(Sequence[Any]):
    """Marks with those from before the first failure as what they mean."""

    def __init__(self, marks: Sequence[Mark]) -> None:
        self._marks = marks

    def __len__(self) -> int:
        return len(self._marks)

    def __getitem__(self, index: Any) -> Any:
        mark = self._marks[index]
        return [0, 0, 0] if mark is None else mark


def header(path: str) -> dict[str, Any]:
    """Return the header of a file with failures. Raises `DamageError`."""
    with files.naming("read", path), open(path, "rb") as file:
        return _header_of(path, file.readline())


def entries(path: str, mark: Mark, start: Mark = None) -> Iterator[dict[str, Any]]:
    """Yield the entries between two marks. Raises `DamageError`; an item's value stays tagged.

    start: `None`: from the first on.
    """
    if mark is None:
        return
    with files.naming("read", path):
        try:
            file = open(path, "rb")  # noqa: SIM115  # closed below
        except FileNotFoundError:
            raise DamageError(f"'{path}' is gone; put it back, or start over with --restart") from None
    with file:
        line = file.readline()
        _header_of(path, line)
        at = len(line)
        if start is not None:
            at = file.seek(start[0])
        while at < mark[0]:
            line = file.readline()
            at += len(line)
            try:
                yield json.loads(line)
            except ValueError:
                raise DamageError(f"'{path}' is damaged at byte {at - len(line):,}; --restart starts over") from None


def _header_of(path: str, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    if not isinstance(entry, dict) or entry.get("format") != FORMAT:
        raise DamageError(f"'{path}' has no header of format {FORMAT}; put back a copy, or start over with --restart")
    return entry


def failure_of(entry: dict[str, Any]) -> Failure:
    """Return the failure that an entry is."""
    from batchkit.tagged import NotKept, decode  # noqa: PLC0415  # 10 ms of imports that few runs need

    known = {name: entry[name] for name in Failure._fields if name in entry}
    try:
        item, as_text = decode(entry["item"]), False
    except NotKept as error:
        item, as_text = error.text, True
    return Failure(**{**known, "item": item, "kept_as_text": as_text})


def path_beside(journal: str) -> str:
    """Return the path of the failures of the shard with this journal."""
    stem, _ = os.path.splitext(journal)
    return f"{stem}.failures.jsonl"
