"""Loading the rows of a shard: those of a batch and its checkpoint are committed in one transaction.

Exactly once: the database's word on how far the shard is counts, whatever the journal says (`databases.checkpoints`).
What a batch stores is kept in memory until it is committed, so that a lost connection costs nothing but time: all of it
is stored once more, unless the commit that was cut off had arrived.
"""

from __future__ import annotations

import json
import random
import time
from typing import Any, Protocol

from batchkit.databases.base import Conflict, ConnectionLost, Refused
from batchkit.databases.checkpoints import Row
from batchkit.databases.connecting import connect
from batchkit.errors import OutputChanged, StorageError
from batchkit.model import Checkpoint
from batchkit.writers.base import ResultError
from batchkit.writers.tabled import tabled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchkit.databases.address import Place
    from batchkit.databases.base import Session
    from batchkit.databases.checkpoints import Checkpoints
    from batchkit.databases.landing import Landing
    from batchkit.frames.loose import Loose

    Patience = Callable[[Callable[[], Any], type[Exception]], Any]
    """Calls something until it does not raise that any more, or for the last time."""

_CONFLICTS = 10
"""Times that a transaction is tried again because others were in its way."""


def among_others(operation: Callable[[], Any], undo: Callable[[], None]) -> Any:
    """Call a transaction until no other is in its way, or for the last time; `undo` comes before each further one."""
    for _ in range(_CONFLICTS):
        try:
            return operation()
        except Conflict:
            undo()
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311  # so that not both come again at once
    return operation()


_HELD, _IDLE = 1.0, 0.05
"""Seconds after which a connection that nobody else can work beside is given up: in all, and without use."""

_AFTER_YOU = 0.01
"""Seconds in which others can take their turn: longer than they need to see that they can."""


class Load(Protocol):
    """What the shards of a load have in common.

    label: what a server knows connections by. several: whether other processes write, too. patience: how lost
    connections are had again; `None`: not at all.
    """

    place: Place
    label: str
    several: bool
    patience: Patience | None
    checkpoints: Checkpoints

    def unknown(self) -> str:
        """Return what is said where the database does not know the job."""


class DatabaseWriter:
    """Stores the rows of a shard. Used in one thread."""

    inline = True

    def __init__(self, load: Load, shard: int, landing: Landing) -> None:
        """Store in `landing`; connects when that is needed."""
        self._load = load
        self._shard = shard
        self._landing = landing
        self._session: Session | None = None
        self._pending: list[Loose] = []
        self._stored = 0  # how many of these the open transaction has
        self._lost = False  # whether a connection was since the last commit
        self._since = 0.0  # when the connection was opened
        self._left: float | None = None  # when the newest commit was over, turns and all; `None` from the next use on
        self._idle = 0.0  # seconds between these
        self._rows = 0

    # What the database says

    def taken(self) -> Checkpoint | None:
        """Return the newest commit of the shard that the database has; `None` before the first.

        Waits for the end of whatever an earlier connection was committing. Raises `OutputChanged` where the database
        does not know the shard.
        """
        try:
            row = self._patiently(self._look)
        finally:
            self._drop()
        return None if row.record is None else Checkpoint(**json.loads(row.record))

    def _look(self) -> Row:
        """Return the row of the shard, when nobody else can change it any more."""
        session = self._connected()
        session.evict()  # whoever it is has our lock no more, and may have gone without a word
        session.begin()
        row = self._load.checkpoints.find(session, self._shard, lock=True)
        session.rollback()
        if row is None:
            raise OutputChanged(self._load.unknown())
        return row

    def intact(self, marks: Sequence[Any]) -> int:
        """Return the last: `taken` tells."""
        return len(marks) - 1

    def open(self, mark: int | None) -> None:
        """Go on behind so many rows; what was not committed is undone already."""
        self._rows = mark or 0

    # Storing

    def write(self, results: Sequence[Any]) -> None:
        """Store results as rows, to be committed with the checkpoint."""
        self._use()
        rows, indexes = tabled(results, self._names)
        if rows is None:
            return
        try:
            self._patiently(lambda: self._store(rows))
        except Refused as error:
            index = error.row if indexes is None or error.row is None else indexes[error.row]
            raise ResultError(index, str(error)) from error
        self._pending.append(rows)
        self._stored += 1

    def _names(self) -> list[str]:
        names: list[str] = self._patiently(lambda: self._landing.names(self._connected()))
        return names

    def _store(self, rows: Loose) -> None:
        """Store rows behind the pending ones; they or nothing are in the transaction afterwards."""
        session = self._connected()
        self._landing.ready(session, rows)
        self._store_pending(session)
        guarded = bool(self._stored) and session.savepoints
        if guarded:
            session.run("SAVEPOINT batchkit_rows")
        try:
            self._landing.put(session, rows)
        except Refused:
            if guarded:
                session.run("ROLLBACK TO batchkit_rows")
                session.run("RELEASE batchkit_rows")
            else:
                self._undo()
            raise
        if guarded:
            session.run("RELEASE batchkit_rows")

    def _store_pending(self, session: Session) -> None:
        """See to it that a transaction is open in which what is pending is stored."""
        if not session.in_transaction:
            self._stored = 0
            session.begin()
        while self._stored < len(self._pending):
            try:
                self._landing.put(session, self._pending[self._stored])
            except Refused as error:
                self._undo()
                raise StorageError(f"the database took rows once and not again: {error}; run it again") from error
            self._stored += 1

    def commit(self, point: Checkpoint) -> None:
        """Commit the checkpoint with what was written since the one before; durable after `sync`."""
        self._use()
        row = Row(point.seq, json.dumps(point._asdict()))
        self._patiently(lambda: self._commit(row))
        self._lost = False
        self._rows += sum(rows.frame.height for rows in self._pending)
        self._pending, self._stored = [], 0
        if self._load.several and self._session is not None and self._session.exclusive:
            self._take_turns()
        self._left = time.monotonic()  # giving the connection up took its time, in which nothing was computed

    def _take_turns(self) -> None:
        """Give the connection up if others have waited long, or would wait while the function is called.

        Opening it again is dear: while batches come fast, several of them are stored at a turn.
        """
        if time.monotonic() - self._since > _HELD or self._idle > _IDLE:
            self._drop()
            time.sleep(_AFTER_YOU)

    def _use(self) -> None:
        """Note how long nothing was stored, at the first use after a commit."""
        if self._left is not None:
            self._idle, self._left = time.monotonic() - self._left, None

    def _commit(self, row: Row) -> None:
        session = self._connected()
        if self._lost and not session.in_transaction and self._look() == row:
            return  # the commit that was cut off had arrived; one before which the connection was had again was not
        self._store_pending(session)
        try:
            self._load.checkpoints.advance(session, self._shard, row.seq - 1, row)
            session.commit_later()
        except Refused as error:  # by what is checked at the end only
            self._undo()
            raise StorageError(f"the database refuses to commit: {error}; mend that and run it again") from error

    def mark(self) -> int:
        """Return how many rows the shard has stored, with those to be committed."""
        return self._rows + sum(rows.frame.height for rows in self._pending)

    def place(self) -> None:
        """Return nothing: rows of a table have no places."""

    def sync(self) -> None:
        """Make what is committed durable, where the database has not done so yet."""
        if self._session is not None:
            self._session.settle()

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    # The connection

    def _connected(self) -> Session:
        if self._session is None:
            self._session = connect(self._load.place, f"{self._load.label}/{self._shard}")
            self._stored = 0
            self._since = time.monotonic()
            if self._lost:
                self._session.evict()  # the server may not know yet, and hold the rows for the lost one
        return self._session

    def _drop(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _undo(self) -> None:
        """Undo the open transaction, whose rows are stored again when the next ones are."""
        if self._session is not None:
            self._session.rollback()
        self._stored = 0

    def _patiently(self, operation: Callable[[], Any]) -> Any:
        """Call what can be done again as a whole, until no connection is lost and no other transaction in the way."""
        patience = self._load.patience

        def once() -> Any:
            try:
                return among_others(operation, self._undo)
            except ConnectionLost:
                self._lost = True
                self._drop()
                raise

        return once() if patience is None else patience(once, ConnectionLost)
