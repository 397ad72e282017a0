"""An output of the user's own: any object that has a writer for each shard."""

from __future__ import annotations

from typing import Any, Protocol

from batchkit.writers.memory import MemoryOutput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchkit.writers.base import PublishLog, Writer


class Target(Protocol):
    """What an output of one's own implements.

    It may also have `clear()`, called when the job begins and when it starts over: forget what was stored before, in
    all shards; and `publish()`, called when everything is stored. Both may be called again after a crash, `publish`
    also after a later run that found more items.
    """

    def writer(self, shard: int) -> Writer:
        """Return what stores the results of a shard, see `writers.base.Writer`; items that come later are a new shard.

        Exactly once, if its `mark()` says how far it has stored (a JSON value, which the journal keeps), `open(mark)`
        drops what lies past that, and `intact(marks)` tells which is the last that is really there.
        """


class TargetOutput(MemoryOutput):
    """Hands the results to the user's writers; what they hold is theirs to name, to read and to remove."""

    def __init__(self, own: Target) -> None:
        """Write to `own`."""
        super().__init__()
        self._own = own

    def writer(self, shard: int, *, frozen: int) -> Writer:  # type: ignore[override]
        """Return the user's writer of a shard."""
        del frozen
        return self._own.writer(shard)

    def prepare(self, shards: Sequence[int], *, afresh: bool) -> None:
        """Let the user's output forget what an earlier start of the job had stored."""
        del shards
        clear = getattr(self._own, "clear", None)
        if afresh and clear is not None:
            clear()

    def publish(self, marks: Sequence[Any], log: PublishLog, keep_going: Callable[[], bool], *, replace: bool) -> bool:
        """Let the user's output publish, once for each number of shards."""
        del keep_going, replace
        done = log.done()
        if done is None or done["shards"] != len(marks):
            publish = getattr(self._own, "publish", None)
            if publish is not None:
                publish()
            log.write({"state": "done", "shards": len(marks), "files": []})
        return True
