"""The seam of the writers: what the rest of batchkit asks of a place for results.

An `Output` is the job's: it owns a name, and publishes. A `Writer` is one shard's: it stores, and knows what it has.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from batchkit.files import SHARED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Sequence

    from batchkit.model import Checkpoint, Mark
    from batchkit.writers.agreement import Agreement, Terms


class ResultError(Exception):
    """A result that the output cannot hold. Nothing of the batch was written.

    index: its place among the results, `None`: the whole batch; why: for people.
    """

    def __init__(self, index: int | None, why: str) -> None:
        """Keep both."""
        super().__init__(index, why)
        self.index = index
        self.why = why


def result_error(index: int | None, error: Exception) -> ResultError:
    """Return the error of a result that raised `error` when it was to be written."""
    if isinstance(error, ResultError):
        return ResultError(index, error.why)
    if isinstance(error, UnicodeEncodeError):
        return ResultError(index, "its text cannot be encoded as UTF-8")
    return ResultError(index, str(error) or type(error).__name__)


class Storing(Protocol):
    """Stores the results of one shard; states in its docstring whether exactly once or at least once.

    `sync` is called in a thread beside `write`, unless the writer has `inline = True`.
    """

    def intact(self, marks: Sequence[Mark]) -> int:
        """Return the index of the last of a shard's consecutive marks whose results are really there; -1: none.

        Changes nothing. Raises `DamageError` if what was known to be on disk is gone.
        """

    def open(self, mark: Mark | None) -> None:
        """Get ready to write behind `mark`, dropping what lies past it; `None`: from the beginning. Durable."""

    def write(self, results: Sequence[Any]) -> None:
        """Store the results of a batch. Raises `ResultError` before writing anything, `StorageError` later."""

    def mark(self) -> Mark:
        """Return how far results are stored; called once after each `write`, for the commit that covers it."""

    def sync(self) -> None:
        """Make what was written durable."""

    def close(self) -> None:
        """Let go of what `open` took; syncs nothing."""


class Writer(Storing, Protocol):
    """A writer as the job has it: it also tells where results stand, so that others can be put between them later.

    One that keeps checkpoints itself, in the same transaction as results, is `Transactional`, too.
    """

    def place(self) -> int | None:
        """Return where the next result would stand in the shard's part; `None`: it has none, nothing can be merged.

        In the unit of the output's kind: bytes for lines, rows for Parquet. Of what `write` stored it is durable as
        far as the mark that was taken with it is.
        """


class Transactional(Protocol):
    """What a writer also has if results count only with their checkpoint: then its word counts, not the journal's."""

    def taken(self) -> Checkpoint | None:
        """Return the newest commit that is stored; `None` before the first. Instead of `intact`, before `open`.

        Nothing that an earlier process was at can be stored any more on return.
        """

    def commit(self, point: Checkpoint) -> None:
        """Store the checkpoint together with what was written since the one before; durable after `sync`.

        What goes wrong may be raised by the next call: the checkpoint is in the journal then, which does not count.
        """


class Piece(NamedTuple):
    """Places [start, stop) of a file with results, of which the first `length` bytes count.

    whole: in the output's own form, else in that of a part. stop: `None`: all places up to `length`, and the file is
    taken as it is: a part that comes first may grow in place. data: what the file would hold, `None`: it is on disk.
    """

    path: str
    length: int
    whole: bool = False
    start: int = 0
    stop: int | None = None
    data: bytes | None = None


class Header(NamedTuple):
    """What a file begins with before its first result: how many places that takes, and the names in it."""

    places: int
    names: tuple[str, ...]


class Insert(NamedTuple):
    """Results that belong at `place` of a shard, and stand at the places [start, stop) of a round's part.

    shard: which one it is in input order, from 0. number: of the item in its shard. Inserts stand in order of (shard,
    number), in which places of a shard never fall; several may share one place. `start == stop`: the item's result was
    `None`. Places as `Writer.place` tells them.
    """

    shard: int
    number: int
    place: int
    start: int
    stop: int


class Round(NamedTuple):
    """A round that is at its end: its part, that part's last mark (`None`: it has none), and its inserts.

    The part is read until the publish log says that the round is merged, and never afterwards. Inserts in order of
    (shard, number) are in order of their `start`.
    """

    path: str
    mark: Mark
    inserts: Sequence[Insert]


class Joining(Protocol):
    """What an attempt to join may ask and tell.

    offset: how many bytes an earlier attempt had joined and synced. keep_going: `False` ends the attempt.
    """

    offset: int
    keep_going: Callable[[], bool]

    def note(self, offset: int) -> None:
        """Remember that so many bytes are joined and synced; durable on return."""


class Kind(Protocol):
    """What kind of file an output is: how its parts are written, and how they become one file."""

    def writer(
        self,
        part: str,
        before: Sequence[str],
        beside: Sequence[str] = (),
        *,
        agreement: Agreement,
        apart: bool = False,
        mode: int = SHARED,
    ) -> Writer:
        """Return the writer of a part.

        before: files of the same output, in order, the parts before this one. beside: others that results of the same
        output stand in: they only tell columns and types. agreement: if there is one, it tells these instead, and the
        part has no header. apart: whether the part stands by itself, and has a header for itself all the same. mode:
        of the part, before the umask.
        """

    def terms(self, stored: Sequence[Piece], beside: Sequence[Piece]) -> Terms | None:
        """Return what writers of parts that are written at the same time begin to agree on; `None`: there is no need.

        stored: the files of the output so far, in order; beside: others, as above. Raises `OutputChanged` where they
        do not fit each other.
        """

    def lead(self, agreement: Agreement, pieces: Sequence[Piece]) -> tuple[Piece | None, Container[str]]:
        """Return the header of a file of these pieces if none of them has it, and paths of those known to have none.

        `None` also if there is no agreement, or nothing that it would leave out of the parts.
        """

    def extent(self, mark: Mark) -> int:
        """Return how many places a shard's part has, from its last mark; 0 if there is none or it does not tell."""

    def places(self, piece: Piece) -> int:
        """Return how many places the file of a piece has. Raises `DamageError`."""

    def header(self, piece: Piece) -> Header | None:
        """Return the header that the file of a piece begins with; `None`: it has no results, or no file has one."""

    def join(self, pieces: Sequence[Piece], target: str, joining: Joining) -> Piece | None:
        """Make one whole file of the pieces, at `target` or over the first of them; durable on return.

        Pieces of the same file come in increasing order. `None`: `joining.keep_going` ended it; call again to go on.
        """

    def results(self, pieces: Sequence[Piece]) -> Iterator[Any]:
        """Yield the results that stand in the pieces, which together make one file."""


class PublishLog(Protocol):
    """The job's durable log of publishing."""

    def last(self) -> dict[str, Any] | None:
        """Return the newest entry; `None` if there is none."""

    def done(self) -> dict[str, Any] | None:
        """Return the newest `done` entry; `None` if nothing is published."""

    def ever(self) -> set[str]:
        """Return the files that the job has ever published, before it started over, too."""

    def write(self, entry: dict[str, Any]) -> None:
        """Append an entry; durable on return."""


class Output(Protocol):
    """The place where a job's results end up."""

    @property
    def path(self) -> str | None:
        """The file the results will stand in, a directory with "/" at its end; `None`: nowhere that has a name."""

    def refuse_foreign(self, *, replace: bool) -> None:
        """Raise `UsageError` if a file or another job's parts have the name, unless `replace` allows to take it."""

    def refuse_taken_over(self) -> None:
        """Raise `OutputChanged` if another job took what this one had stored."""

    def other_owner(self) -> str | None:
        """Return the directory of another job that is at work on the name; `None` if there is none."""

    def prepare(self, shards: Sequence[int], *, afresh: bool) -> None:
        """Make empty parts for new shards, `afresh`: dropping all parts there are; durable on return."""

    def writer(
        self, shard: int, *, frozen: int, rounds: Sequence[Round] = (), order: Sequence[int] | None = None
    ) -> Writer:
        """Return the writer of a shard; the first `frozen` shards are published and have no part any more.

        rounds: those that are not merged yet: their results decide columns and types, too. order: numbers of all
        shards, in input order; `None`: 0, 1, 2 and so on.
        """

    def share(self, marks: Sequence[Mark], *, frozen: int, rounds: Sequence[Round], order: Sequence[int]) -> None:
        """Let several writers write at the same time from now on; durable on return. Nobody writes during the call.

        marks: where the shards stand. rounds, order: as for `writer`.
        """

    def publish(
        self,
        marks: Sequence[Mark],
        log: PublishLog,
        keep_going: Callable[[], bool],
        *,
        replace: bool,
        rounds: Sequence[Round] = (),
        order: Sequence[int] | None = None,
    ) -> bool:
        """Make the results appear under `path`, whole; `False` if `keep_going` ended it: call again to go on.

        marks: where the shards ended, in order. replace: whether a file that is not this job's may be replaced.
        rounds: all ended rounds of the job, in order, those that are merged already, too. order: as for `writer`.
        """

    def finish(self, log: PublishLog, *, replace: bool) -> None:
        """Complete a publication that was cut short after all was joined; nothing to do otherwise."""

    def verify(self, done: dict[str, Any]) -> None:
        """Raise `OutputChanged` if the published file is not as the log's `done` entry says."""

    def remove_parts(self) -> None:
        """Remove what is not published; a published file stays."""

    def forget(self) -> None:
        """Remove what is not published, and all else that is kept of the job there: it goes, or its output does."""


class Amendable(Output, Protocol):
    """An output that the job knows again, and that items which had failed can be put into later."""

    def round_output(
        self, uuid: str, path: str, *, frozen: int, order: Sequence[int], rounds: Sequence[Round]
    ) -> Output:
        """Return where a round's results go, for the round with this uuid and the part at `path`.

        frozen, order, rounds: as for `writer`.
        """
