"""How many items and batches a run may still do, where several workers share that: leased in small amounts.

    quota.json    {"items": most or null, "batches": …, "shards": {"<number>": [items, batches at the run's beginning,
                  items, batches granted]}}; replaced under `quota.lock`, of no use to any other run

Grants are kept by shard and settled with what was committed there whenever the shard is opened or closed. So nothing is
lost with a worker that dies: who takes its shard gives back what it did not use.
"""

from __future__ import annotations

import json
import math
import os
from typing import Any

from batchkit import files
from batchkit.locks import held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.model import Checkpoint

_SHARE = 4
"""A lease takes at most this part of what is left, divided by the workers."""


class Quota:
    """The quota of one run, in the directory of its job."""

    def __init__(self, path: str, workers: int) -> None:
        """Name it: `quota.json`, wherever that is."""
        self._path = path
        self._lock = os.path.splitext(path)[0] + ".lock"
        self._workers = workers

    def begin(self, items: float, batches: float) -> None:
        """Allow so many of both, of which none are used."""
        self._save({"items": _finite(items), "batches": _finite(batches), "shards": {}})

    def settle(self, shard: int, handled: int, seq: int) -> None:
        """Take back what was granted and not used; handled, seq: items and batches of the shard, in all runs.

        Call it under the shard's lock, and before any lease for the shard: others have leases of their own.
        """
        with held(self._lock, math.inf):
            entry = self._load()
            known = entry["shards"].setdefault(str(shard), [handled, seq, 0, 0])
            known[2:] = handled - known[0], seq - known[1]
            self._save(entry)

    def settle_at(self, shard: int, point: Checkpoint | None) -> None:
        """Do so by the newest commit of a shard; `None`: it has none. The record of its end is no batch."""
        self.settle(shard, *((0, 0) if point is None else (point.handled, point.seq - point.end)))

    def lease(self, shard: int, *, items: bool, batches: bool) -> tuple[float, float]:
        """Grant a shard some more items, batches or both, whatever is asked for; 0: there are none left."""
        with held(self._lock, math.inf):
            entry = self._load()
            known = entry["shards"][str(shard)]
            granted = [0.0, 0.0]
            for index, (name, wanted) in enumerate((("items", items), ("batches", batches))):
                if wanted:
                    used = sum(each[2 + index] for each in entry["shards"].values())
                    granted[index] = self._part(entry[name], used)
                    known[2 + index] += 0 if math.isinf(granted[index]) else granted[index]
            self._save(entry)
            return granted[0], granted[1]

    def _part(self, most: int | None, used: int) -> float:
        if most is None:
            return math.inf
        left = max(0, most - used)
        return min(left, max(1, left // (_SHARE * self._workers)))

    def _load(self) -> dict[str, Any]:
        data = files.read_bytes(self._path)
        assert data is not None, "the run has begun it"
        entry: dict[str, Any] = json.loads(data)
        return entry

    def _save(self, entry: dict[str, Any]) -> None:
        """Replace it whole, for a worker may be killed at any time; nothing of it is to survive a power cut."""
        files.show(self._path, json.dumps(entry).encode())


def _finite(most: float) -> int | None:
    return None if math.isinf(most) else int(most)
