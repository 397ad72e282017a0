"""The table in which a database keeps how far jobs have loaded: `batchkit_checkpoint`, beside the table they load.

    job text, shard bigint   uuid of the job, and which of its shards; -1: of the job as a whole
    name text                of the job, for people
    target text              the table
    seq bigint               number of the newest commit of the shard, 0 before the first
    record text              that commit, as the journal has it; of the whole job: what is published; null: nothing yet
    updated text             when, for people

A row is made when its shard is, and changed in the transactions that store the shard's rows, each of which counts only
if `seq` was what it had left there: who was overtaken stores nothing.

Rows of functions that store by themselves, see `transactions`, have a `job` of another form.
"""

from __future__ import annotations

import datetime
import json
from typing import NamedTuple

from batchkit.errors import StorageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.databases.address import Table
    from batchkit.databases.base import Session

NAME = "batchkit_checkpoint"
COLUMNS = (
    "job text NOT NULL, shard bigint NOT NULL, name text, target text, seq bigint NOT NULL, record text, updated text, "
    "PRIMARY KEY (job, shard)"
)
WHOLE = -1
"""The "shard" of the row that is about the whole job."""


class Row(NamedTuple):
    """Where a shard stands: the number of its newest commit, and that commit as text, `None` before the first."""

    seq: int
    record: str | None


class Checkpoints:
    """The rows of one job."""

    def __init__(self, beside: Table, job: str, name: str) -> None:
        """Keep them beside a table; job: the uuid; name: for people."""
        self._table = beside.beside(NAME)
        self._target = str(beside)
        self._job = job
        self._name = name

    def make(self, session: Session, shards: Sequence[int]) -> None:
        """Make the table if it is missing, and the rows of new shards; in a transaction of the caller."""
        session.lock()
        if session.columns(self._table) is None:
            session.run(f"CREATE TABLE {self._table.sql} ({COLUMNS})")
        for shard in shards:
            session.run(
                f"INSERT INTO {self._table.sql} VALUES (?, ?, ?, ?, 0, NULL, ?) ON CONFLICT (job, shard) DO NOTHING",  # noqa: S608
                [self._job, shard, self._name, self._target, now()],
            )

    def find(self, session: Session, shard: int, *, lock: bool = False) -> Row | None:
        """Return the row of a shard; `None` if there is none. lock: wait for whoever is changing it."""
        if session.columns(self._table) is None:
            return None
        found = session.query(
            f"SELECT seq, record FROM {self._table.sql} WHERE job = ? AND shard = ?"  # noqa: S608
            + (session.for_update if lock else ""),
            [self._job, shard],
        )
        return Row(*found[0]) if found else None

    def records(self, session: Session) -> dict[int, str | None]:
        """Return the newest commit of each shard as text, by its number; none if the database does not know the job."""
        if session.columns(self._table) is None:
            return {}
        found = session.query(f"SELECT shard, record FROM {self._table.sql} WHERE job = ?", [self._job])  # noqa: S608
        return dict(found)

    def has_rows(self, session: Session) -> bool:
        """Tell whether rows of the job were committed, those of rounds as far as they are published."""
        known = [json.loads(record) for record in self.records(session).values() if record is not None]
        return any(record.get("done") or record.get("rounds") for record in known)

    def advance(self, session: Session, shard: int, before: int, row: Row) -> None:
        """Change the row of a shard, whose `seq` is `before`. Raises `StorageError` if it is not."""
        changed, _ = session.run(
            f"UPDATE {self._table.sql} SET seq = ?, record = ?, updated = ? WHERE job = ? AND shard = ? AND seq = ?",  # noqa: S608
            [row.seq, row.record, now(), self._job, shard, before],
        )
        if changed != 1:
            raise StorageError(
                f"another run has stored rows of the job '{self._name}' in '{self._target}' meanwhile; "
                "nothing is lost, run it again"
            )

    def remove(self, session: Session) -> None:
        """Forget the job, if the database knows it; in a transaction of the caller."""
        if session.columns(self._table) is not None:
            session.run(f"DELETE FROM {self._table.sql} WHERE job = ?", [self._job])  # noqa: S608


def now() -> str:
    """Return the time, for people."""
    return datetime.datetime.now(datetime.UTC).isoformat(" ", "seconds")
