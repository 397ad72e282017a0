"""Transactions of a function's own, in which its statements and what they are for are committed together.

The table is that of loads, `batchkit_checkpoint` (see `databases.checkpoints`), in the database that the connection
looks into first. A shard of the job has a row: `job` is the uuid with ":function" behind it, `record` as in `ledger`.
It is made and committed before the first transaction, so that each can hold it from its beginning: whatever a process
that was killed has sent for commit is over by then.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

from batchkit.calling import calling
from batchkit.databases.borrowed import borrowed
from batchkit.databases.checkpoints import NAME, now
from batchkit.errors import StorageError, UsageError
from batchkit.ledger import AlreadyDone, Ended, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchkit.databases.borrowed import Borrowed
    from batchkit.ledger import Call, Key, Ledger


@contextmanager
def transaction(connection: Any) -> Iterator[None]:
    """Commit the statements of a block together with the note that the items of this call are done.

        def load(rows):
            with batchkit.transaction(connection):
                connection.executemany("INSERT INTO users VALUES (?, ?)", rows)

    connection: of sqlite3, psycopg or duckdb, without an open transaction. It is not to be committed or rolled back in
    the block; where the block raises, it is rolled back. One block a call. The items of a call whose transaction was
    committed count as done, whatever happens then: their function is left at the `with`, and what it had not been
    called for yet is called for alone. So it returns nothing: what it returned once would be lost.

    Exactly once, whenever the process is killed, and through power cuts as far as the database keeps what it commits.
    Raises `UsageError` outside of a call. What is wrong inside of one, or cannot be known (a connection lost while it
    commits), ends the run, whatever is done about failing items; the next run knows.
    """
    ledger, call = calling()
    if ledger.open or ledger.stored == call:
        raise Ended(UsageError("a call can have one transaction() only; put all statements into one block"))
    ledger.used = ledger.open = True
    try:
        database = _taken(connection)
        _begin(database, ledger)
        try:
            _leave_if_done(ledger, call)
            yield
            _finish(database, ledger, call)
        except BaseException:
            database.rollback()
            raise
    finally:
        ledger.open = False


def _taken(connection: Any) -> Borrowed:
    try:
        database = borrowed(connection)
        idle = database.idle()
    except UsageError as error:
        raise Ended(error) from error
    if not idle:
        raise Ended(
            UsageError(
                "the connection has an open transaction already; commit or undo that before batchkit.transaction(), or "
                "put its statements into the block"
            )
        )
    return database


def _leave_if_done(ledger: Ledger, call: Call) -> None:
    parts = ledger.parts(call)
    if parts is not None:
        ledger.swallowed = True
        raise AlreadyDone(parts)


def _begin(database: Borrowed, ledger: Ledger) -> None:
    """Begin a transaction that holds the shard's row."""
    for looked in (False, True):
        if looked or ledger.seq is None:
            ledger.load(_look(database, ledger.key))
        try:
            database.begin()
            seq = _seq(database, ledger.key)
        except BaseException:
            database.rollback()
            raise
        if seq == ledger.seq:
            return
        database.rollback()
        if seq is not None:
            break
    raise Ended(
        StorageError(
            f"another run has stored items of the job '{ledger.key.name}' in this database meanwhile, or its "
            f"transactions are in several databases, where they cannot be followed; run it again"
        )
    )


def _look(database: Borrowed, key: Key) -> list[Any]:
    """Make the shard's row if it is missing, and return those of all shards that this one may be a part of.

    Waits for the end of what earlier connections have begun.
    """
    jobs = [key.job, key.failed_in or key.job]
    try:
        database.begin()
        database.make_table()
        database.run(
            f"INSERT INTO {NAME} VALUES (?, ?, ?, NULL, 0, NULL, ?) ON CONFLICT (job, shard) DO NOTHING",  # noqa: S608
            [key.job, key.shard, key.name, now()],
        )
        _, rows = database.run(
            f"SELECT job, shard, seq, record FROM {NAME} WHERE job IN (?, ?) ORDER BY job, shard{database.for_update}",  # noqa: S608
            jobs,
        )
        database.commit()
    except BaseException:
        database.rollback()
        raise
    return rows


def _seq(database: Borrowed, key: Key) -> int | None:
    """Hold the row of the shard; return the number of its record, `None`: there is no such row."""
    sql = f"SELECT seq FROM {NAME} WHERE job = ? AND shard = ?{database.for_update}"  # noqa: S608
    _, rows = database.run(sql, [key.job, key.shard])
    return rows[0][0] if rows else None


def _finish(database: Borrowed, ledger: Ledger, call: Call) -> None:
    """Add the record, and commit."""
    if not database.whole():
        raise Ended(
            UsageError(
                "the function has committed or rolled back inside of batchkit.transaction(), so what it stored is not "
                "noted; leave that to the block"
            )
        )
    state, key = ledger.with_call(call), ledger.key
    changed, _ = database.run(
        f"UPDATE {NAME} SET seq = seq + 1, record = ?, updated = ? WHERE job = ? AND shard = ? AND seq = ?",  # noqa: S608
        [text_of(state), now(), key.job, key.shard, ledger.seq],
    )
    assert changed == 1, "the transaction holds the row"
    try:
        database.commit()
    except Exception as error:
        if database.sure():
            raise
        raise Ended(
            StorageError(
                f"the connection was lost while it committed: {' '.join(str(error).split())}; the next run finds out "
                "whether that arrived"
            )
        ) from error
    ledger.committed(call, state)
