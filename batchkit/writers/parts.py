"""The parts directory of an output: results so far, and whose they are.

results.jsonl.parts/owner      JSON: {"format": 1, "job": "<uuid>", "state": "<directory>"}
results.jsonl.parts/00000      the part of shard 0, and so on
results.jsonl.parts/joined     what becomes the output, until renamed
"""

from __future__ import annotations

import json
import os
from typing import Any

from batchkit import files
from batchkit.errors import DamageError, OutputChanged, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OWNER_FORMAT = 1


class Parts:
    """The directory beside an output in which its parts gather."""

    def __init__(self, output: str, job: str, state: str) -> None:
        """Name it for the job with the uuid `job` and the directory `state`."""
        self.path = output + ".parts"
        self._output = output
        self._job = job
        self._state = state

    def part(self, shard: int) -> str:
        """Return the path of a shard's part."""
        return os.path.join(self.path, f"{shard:05d}")

    def joined(self, shard: int | None = None) -> str:
        """Return the path of what becomes the output, or a shard's piece of it."""
        return os.path.join(self.path, "joined" if shard is None else f"joined-{shard:05d}")

    def refuse_foreign(self, *, replace: bool) -> None:
        """Raise `UsageError` if another job's parts stand there, unless `replace`, or anything else does."""
        owner = self._owner()
        if owner is not None and not self._is_ours(owner) and not replace:
            raise UsageError(
                f"the output '{self._output}' is being written by the job in '{owner['state']}'; "
                "give another -o, or take it over with --overwrite"
            )
        if owner is None and set(self._entries()) - {"owner.new"}:
            raise UsageError(f"'{self.path}' is in the way and not batchkit's; move it, or give another -o")

    def refuse_taken_over(self) -> None:
        """Raise `OutputChanged` if the parts there are another job's by now."""
        owner = self._owner()
        if owner is not None and owner["job"] != self._job:
            raise OutputChanged(
                f"the output '{self._output}' was taken over by the job in '{owner['state']}'; "
                "take it back with --restart --overwrite, or give another -o and --job"
            )

    def other_owner(self) -> str | None:
        """Return the directory of another job whose parts stand there; `None` if there is none."""
        owner = self._owner()
        return None if owner is None or self._is_ours(owner) else str(owner["state"])

    def _is_ours(self, owner: dict[str, Any]) -> bool:
        """Tell ours by uuid (the state may have moved) or by directory (the job may have started over)."""
        return bool(owner["job"] == self._job or owner["state"] == self._state)

    def _owner(self) -> dict[str, Any] | None:
        data = files.read_bytes(os.path.join(self.path, "owner"))
        if not data:
            return None
        try:
            owner: dict[str, Any] = json.loads(data)
        except ValueError:
            owner = {}
        if not isinstance(owner, dict) or not {"format", "job", "state"} <= owner.keys():
            raise DamageError(
                f"'{self.path}/owner' is not readable; remove '{self.path}' and start over with --restart"
            )
        if owner.get("format") != OWNER_FORMAT:
            raise DamageError(f"'{self.path}/owner' has format {owner.get('format')!r}, not {OWNER_FORMAT}")
        return owner

    def _entries(self) -> list[str]:
        try:
            return os.listdir(self.path)
        except FileNotFoundError:
            return []

    def prepare(self, shards: Sequence[int], *, afresh: bool) -> None:
        """Make the directory ours, and the parts of new shards empty; durable on return."""
        if afresh:
            self._clear()
        files.make_directory(self.path)
        owner = {"format": OWNER_FORMAT, "job": self._job, "state": self._state}
        if self._owner() != owner:  # else another slice may be about to look at it
            files.replace(os.path.join(self.path, "owner"), json.dumps(owner).encode() + b"\n")
        for shard in shards:
            files.AppendFile(self.part(shard), mode=files.SHARED).close()
        files.sync_directory(self.path)

    def remove(self) -> None:
        """Remove the directory if it is ours."""
        owner = self._owner()
        if owner is not None and self._is_ours(owner):
            self._clear()

    def _clear(self) -> None:
        """Remove the parts, last of all the word whose they are: without it nobody would dare to."""
        for name in self._entries():
            if name != "owner":
                files.remove(os.path.join(self.path, name))
        files.remove_tree(self.path)
