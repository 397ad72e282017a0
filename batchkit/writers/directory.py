"""A directory as a job's output: each shard's results are a file of their own in it, and nothing is joined.

    out/00000.parquet     the results of shard 0, and so on; items that are appended later become further files

Files are numbered in input order, which need not be the numbers of the shards. A round's results go into the files of
their shards: those files are made anew and replaced.

Each file appears whole, by rename; that all are there, the job's status says.
"""

from __future__ import annotations

import os
import re
from typing import Any

from batchkit import files
from batchkit.errors import UsageError
from batchkit.writers.base import Piece
from batchkit.writers.merging import Stream
from batchkit.writers.output import FileOutput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.writers.base import Kind, PublishLog


_FILE = re.compile(r"\d{5}\.(txt|jsonl|ndjson|csv|tsv|parquet)(\.gz|\.zst)?")
"""Names of the files that a directory output has."""


class DirectoryOutput(FileOutput):
    """Results in the files of a directory, each result stored exactly once."""

    def __init__(self, path: str, kind: Kind, job: str, state: str, suffix: str) -> None:
        """Write to the directory `path`; suffix: of its files, such as ".parquet"."""
        super().__init__(path, kind, job, state)
        self.path = path + "/"
        self._suffix = suffix

    def _file(self, shard: int) -> str:
        return f"{self.path}{shard:05d}{self._suffix}"

    def refuse_foreign(self, *, replace: bool) -> None:
        """Raise `UsageError` for a path that is no directory, or one that is not empty and may not be replaced."""
        above = os.path.dirname(self.path.rstrip("/"))
        if not os.path.isdir(above):
            raise UsageError(f"there is no directory '{above}' for the output; run: mkdir -p '{above}'")
        self._parts.refuse_foreign(replace=replace)
        if os.path.lexists(self.path.rstrip("/")) and not os.path.isdir(self.path):
            raise UsageError(f"the output '{self.path}' is no directory; give another -o")
        if not replace and os.path.isdir(self.path) and os.listdir(self.path):
            raise UsageError(
                f"the output '{self.path}' holds files that are not this job's; give another -o, or --overwrite"
            )

    def _published(self, frozen: int) -> list[str]:
        return [self._file(shard) for shard in range(frozen)]

    def _streams(self, marks: Sequence[Any], done: dict[str, Any] | None, order: Sequence[int] | None) -> list[Stream]:
        """Return a file for each shard; only those that get something new are written."""
        published = done["files"] if done else []
        whole = [Piece(facts["path"], facts["size"], whole=True) for facts in published]
        frozen = [Stream(shard, piece, [marks[shard]], ()) for shard, piece in enumerate(whole)]
        left = enumerate(self._left(marks, len(whole), order), len(whole))
        return frozen + [Stream(shard, None, (), [part]) for shard, part in left]

    def _names(self, first: int) -> tuple[str, str]:
        return self._parts.joined(first), self._file(first)

    def finish(self, log: PublishLog, *, replace: bool) -> None:
        """Make the directory and rename the joined files into it, if the log says that this is due."""
        finishing = log.last() or {}
        if finishing.get("state") == "finishing":
            files.make_directory(self.path.rstrip("/"))
        super().finish(log, replace=replace)

    def _replaced(self, finishing: dict[str, Any], log: PublishLog, *, replace: bool) -> None:
        if replace and finishing["done"] is None:
            self._remove_others(finishing, log.ever())

    def _remove_others(self, finishing: dict[str, Any], published: set[str]) -> None:
        """Remove the files of an output that this one replaces: what the job had published, or else another had."""
        ours = {target for _, target, _ in finishing["files"]}
        for name in os.listdir(self.path):
            path = os.path.join(self.path, name)
            if path not in ours and (path in published if published else _FILE.fullmatch(name)):
                files.remove(path)
        files.sync_directory(self.path)
