"""An output of the user's own: any object that has a writer for each shard."""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import Any, Protocol

from batchkit.errors import BatchkitError, StorageError
from batchkit.writers.base import ResultError
from batchkit.writers.memory import MemoryOutput
from batchkit.writers.values import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from batchkit.writers.base import PublishLog, Round, Storing, Writer


class Target(Protocol):
    """What an output of one's own implements.

    It may also have `clear()`, called when the job begins and when it starts over: forget what was stored before, in
    all shards; and `publish()`, called when everything is stored. Both may be called again after a crash, `publish`
    also after a later run that found more items.
    """

    def writer(self, shard: int) -> Storing:
        """Return what stores the results of a shard, see `writers.base.Storing`; items that come later are a new shard.

        Exactly once, if its `mark()` says how far it has stored (a JSON value, which the journal keeps), `open(mark)`
        drops what lies past that (`None`: everything), and `intact(marks)` tells which is the last that is really
        there; only that is asked of a writer that is never opened. All of it is called in the thread of the job.
        """


class TargetOutput(MemoryOutput):
    """Hands the results to the user's writers; what they hold is theirs to name, to read and to remove."""

    def __init__(self, own: Target) -> None:
        """Write to `own`."""
        super().__init__()
        self._own = own

    def writer(  # type: ignore[override]
        self, shard: int, *, frozen: int, rounds: Sequence[Round] = (), order: Sequence[int] | None = None
    ) -> Writer:
        """Return the user's writer of a shard."""
        del frozen, rounds, order
        with _blamed("be opened"):
            return GuardedWriter(self._own.writer(shard))

    def prepare(self, shards: Sequence[int], *, afresh: bool) -> None:
        """Let the user's output forget what an earlier start of the job had stored."""
        del shards
        clear = getattr(self._own, "clear", None)
        if afresh and clear is not None:
            with _blamed("be cleared"):
                clear()

    def publish(
        self,
        marks: Sequence[Any],
        log: PublishLog,
        keep_going: Callable[[], bool],
        *,
        replace: bool,
        rounds: Sequence[Round] = (),
        order: Sequence[int] | None = None,
    ) -> bool:
        """Let the user's output publish, once for each number of shards."""
        del keep_going, replace, rounds, order
        done = log.done()
        if done is None or done["shards"] != len(marks):
            publish = getattr(self._own, "publish", None)
            if publish is not None:
                with _blamed("publish"):
                    publish()
            log.write({"state": "done", "shards": len(marks), "files": []})
        return True


class GuardedWriter:
    """A user's writer whose errors are ours: one line that says whose they are. It is called in one thread only."""

    inline = True

    def __init__(self, own: Storing) -> None:
        """Pass everything on to `own`."""
        self._own = own

    def intact(self, marks: Sequence[Any]) -> int:
        """Ask for the last mark that is really there."""
        with _blamed("look at what it stored"):
            return self._own.intact(marks)

    def open(self, mark: Any) -> None:
        """Let it drop what lies past the mark."""
        with _blamed("be opened"):
            self._own.open(mark)

    def write(self, results: Sequence[Any]) -> None:
        """Let it store results, as a list."""
        with _blamed("store results"):
            self._own.write(listed(results))

    def mark(self) -> Any:
        """Ask how far it has stored. Raises `StorageError` for `None` and for what is no JSON value."""
        with _blamed("say how far it has stored, as a JSON value"):
            mark = json.loads(json.dumps(self._own.mark(), allow_nan=False))
            if mark is None:
                raise ValueError("None would mean that nothing is stored")
            return mark

    def place(self) -> None:
        """Return nothing: where results stand is the user's business."""

    def sync(self) -> None:
        """Let it make durable what it stored."""
        with _blamed("sync"):
            self._own.sync()

    def close(self) -> None:
        """Let it close."""
        with _blamed("close"):
            self._own.close()


@contextmanager
def _blamed(doing: str) -> Iterator[None]:
    """Turn what the user's code raises into a `StorageError`, but what it raises as ours."""
    try:
        yield
    except (BatchkitError, ResultError):
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())
        raise StorageError(f"the output could not {doing}: {why}; mend that and run it again to go on") from error
