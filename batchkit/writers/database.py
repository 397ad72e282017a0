"""A table of a database as output. Exactly once, see `loader`."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from typing import Any

from batchkit.databases.base import Conflict, ConnectionLost, Refused
from batchkit.databases.checkpoints import WHOLE, Checkpoints, Row
from batchkit.databases.connecting import connect
from batchkit.databases.landing import Landing, key_of
from batchkit.errors import OutputChanged, StorageError
from batchkit.writers.loader import DatabaseWriter, among_others
from batchkit.writers.memory import MemoryOutput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from batchkit.databases.address import Table, Target
    from batchkit.databases.base import Session
    from batchkit.writers.base import PublishLog, Round
    from batchkit.writers.loader import Patience


class DatabaseOutput(MemoryOutput):
    """A table that rows are added to (`append`), or put over those with the same key (`upsert`).

    With `replace` they gather in a table of their own, whose rows take the place of all others in one transaction when
    the job is at its end; rows that later runs find are added.

    patience: how lost connections are had again; `None`: not at all.
    """

    def __init__(
        self,
        target: Target,
        job: str,
        name: str,
        *,
        schema: Mapping[str, Any] | None = None,
        several: bool = False,
        gathered: str | None = None,
    ) -> None:
        """Write for the job with this uuid and name.

        schema: types of the columns of a table that is made; `None`: those of the first rows. several: whether other
        processes write, too. gathered: uuid of the job in whose table the rows gather, `None`: this one's.
        """
        super().__init__()
        self.target = target
        self.place = target.place
        self.path = target.shown
        self.label = f"batchkit {job[:8]}"
        self.schema = schema
        self.several = several
        self.patience: Patience | None = None
        self.job = job
        self.name = name
        self._gathered = gathered or job
        self.checkpoints = Checkpoints(target.table, job, name)

    @property
    def repeatable(self) -> bool:
        """Whether starting over does not store rows twice."""
        return self.target.mode != "append"

    def has_rows(self) -> bool:
        """Tell whether the database has rows of the job, whatever the job's files know."""
        return bool(self._patiently(self.checkpoints.has_rows))

    @property
    def aside(self) -> Table:
        """The table in which rows gather."""
        return self.target.table.beside(f"batchkit_load_{self._gathered.replace('-', '')[:12]}")

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Give a connection for a moment."""
        with closing(connect(self.place, self.label)) as session:
            yield session

    def _patiently(self, do: Callable[[Session], Any]) -> Any:
        """Give a connection for a moment, again and again where it is lost; what is done can be done twice."""

        def once() -> Any:
            with self.session() as session:
                return do(session)

        return once() if self.patience is None else self.patience(once, ConnectionLost)

    def _transaction(self, do: Callable[[Session], None], *, alone: bool = False) -> None:
        """Do something in a transaction, which can be done twice; alone: when no shard is at work any more."""

        def whole(session: Session) -> None:
            try:
                session.begin()
                do(session)
                session.commit()
            except Conflict:
                session.rollback()
                if alone:
                    session.evict()  # what is in the way may have been left behind by a run that is gone
                raise
            except Refused as error:  # by what only all rows together are against
                session.rollback()
                raise StorageError(
                    f"the database '{self.place.shown}' says: {error}; mend that and run it again"
                ) from error

        self._patiently(lambda session: among_others(lambda: whole(session), session.rollback))

    def refuse_foreign(self, *, replace: bool) -> None:
        """Connect once, so that what is wrong with the address is said before the job begins."""
        del replace
        self._patiently(self._look_at_target)

    def _look_at_target(self, session: Session) -> None:
        columns = session.columns(self.target.table)
        if columns is not None:
            key_of(self.target.table, columns, self.target.key)
        if self.target.mode == "replace":
            self._refuse_following(session)

    def _refuse_following(self, session: Session) -> None:
        """Raise `StorageError` where rows of other tables would go with the old ones."""
        others = session.following(self.target.table)
        if others:
            raise StorageError(
                f"replacing the rows of '{self.target.table}' would delete or change those of '{others[0]}', whose "
                "foreign key says ON DELETE CASCADE or SET; change that, or give mode=upsert"
            )

    def refuse_taken_over(self) -> None:
        """Raise `OutputChanged` if rows were stored in a table that is gone: others alone would make it anew."""
        self._patiently(self._refuse_gone)

    def _refuse_gone(self, session: Session) -> None:
        records = self.checkpoints.records(session)
        gathering = self.target.mode == "replace" and records.get(WHOLE) is None
        table = self.aside if gathering else self.target.table
        points = [json.loads(record) for shard, record in records.items() if shard != WHOLE and record is not None]
        rows = sum(point["mark"] or 0 for point in points)
        if rows and session.columns(table) is None:
            raise OutputChanged(
                f"the table '{table}' is gone, in which the job '{self.name}' has stored {rows:,} rows; put it "
                f"back, or load all anew: batchkit rm {self.name}"
            )

    def prepare(self, shards: Sequence[int], *, afresh: bool) -> None:
        """Make the rows in which the database keeps how far the shards are; durable on return."""
        del afresh  # another start of the job has another uuid
        self._transaction(lambda session: self.checkpoints.make(session, shards))

    def writer(  # type: ignore[override]
        self, shard: int, *, frozen: int, rounds: Sequence[Round] = (), order: Sequence[int] | None = None
    ) -> DatabaseWriter:
        """Return the writer of a shard; what comes after the first publication is not gathered."""
        del rounds, order
        target = self.target
        gathering = target.mode == "replace" and not frozen
        landing = Landing(
            self.aside if gathering else target.table,
            like=target.table if gathering else None,
            key=target.key,
            schema=self.schema,
        )
        return DatabaseWriter(self, shard, landing)

    def round_output(
        self, uuid: str, path: str, *, frozen: int, order: Sequence[int], rounds: Sequence[Round]
    ) -> RoundOfRows:
        """Return the output of a round, whose rows go where those of the job do."""
        del path, order, rounds
        return RoundOfRows(self, uuid, frozen)

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
        """Let gathered rows take their place, and note that all is stored, in one transaction."""
        del keep_going, replace, order
        done = log.done()
        covers = {"shards": len(marks), "rounds": len(rounds)}
        if done is None or {name: done.get(name, 0) for name in covers} != covers:
            self._transaction(lambda session: self._appear(session, json.dumps(covers)), alone=True)
            log.write({"state": "done", **covers, "files": []})
        return True

    def _appear(self, session: Session, covers: str) -> None:
        self.checkpoints.make(session, [WHOLE])
        known = self.checkpoints.find(session, WHOLE, lock=True)
        assert known is not None, "made above"
        if self.target.mode == "replace":
            self._take_place(session, first=known.record is None)
        self.checkpoints.advance(session, WHOLE, known.seq, Row(known.seq + 1, covers))

    def _take_place(self, session: Session, *, first: bool) -> None:
        """Put the gathered rows into the table, the first time in the place of all others."""
        aside, table = self.aside, self.target.table
        gathered, there = session.columns(aside), session.columns(table)
        if there is None:
            if gathered is not None:
                session.rename(aside, table)
            return
        if first:
            self._refuse_following(session)
            session.run(f"DELETE FROM {table.sql}")  # noqa: S608  # quoted
        if gathered is not None:
            session.move(aside, table, [column for column in there if not column.given])
            session.run(f"DROP TABLE {aside.sql}")

    def verify(self, done: dict[str, Any]) -> None:
        """Raise `OutputChanged` if the database does not know that it has the rows: all of them, with later ones."""
        known = self._patiently(lambda session: self.checkpoints.find(session, WHOLE))
        covered = json.loads((known and known.record) or "{}")
        if any(covered.get(name, 0) < done.get(name, 0) for name in ("shards", "rounds")):
            raise OutputChanged(self.unknown())

    def unknown(self) -> str:
        """Return what is said where the database does not know the job."""
        return (
            f"the database '{self.place.shown}' does not know what the job '{self.name}' has stored in "
            f"'{self.target.table}': it was replaced, perhaps by an older state, or its table batchkit_checkpoint "
            "was emptied; put it back, or give the load another --job NAME"
        )

    def forget(self) -> None:
        """Remove what is gathered, and all that the database knows of the job; its rows in the table stay."""
        self._transaction(self._forget, alone=True)

    def _forget(self, session: Session) -> None:
        session.run(f"DROP TABLE IF EXISTS {self.aside.sql}")
        self.checkpoints.remove(session)


class RoundOfRows(DatabaseOutput):
    """Where the rows of a round go: to those of its job."""

    def __init__(self, output: DatabaseOutput, uuid: str, frozen: int) -> None:
        """Write for the round with this uuid; frozen: how many shards of the job are published."""
        super().__init__(
            output.target,
            uuid,
            output.name,
            schema=output.schema,
            several=output.several,
            gathered=output.job,
        )
        self._frozen = frozen

    def writer(  # type: ignore[override]
        self, shard: int, *, frozen: int, rounds: Sequence[Round] = (), order: Sequence[int] | None = None
    ) -> DatabaseWriter:
        """Return the writer of the round."""
        del frozen
        return super().writer(shard, frozen=self._frozen, rounds=rounds, order=order)

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
        """Note that everything is stored."""
        del keep_going, replace, rounds, order
        if log.done() is None:
            log.write({"state": "done", "shards": len(marks), "files": []})
        return True

    def verify(self, done: dict[str, Any]) -> None:
        """Do nothing: the job's own row tells."""

    def refuse_taken_over(self) -> None:
        """Do nothing: the job was asked before."""
