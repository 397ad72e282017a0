"""Going back to a point: what was begun since is undone, newest first, then the workspace is restored.

The state file says that a rollback has begun before anything is undone, and each phase's end of it in one write: a
rollback that was killed goes on where it was. An undo that was cut off is called again, so it must bear that.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from batchkit.errors import BatchkitError, DamageError, RollbackFailed, UsageError
from batchkit.existing import Job
from batchkit.job import JobDirectory, PublishLog
from batchkit.workflow import snapshots
from batchkit.workflow.context import Context, Paused, Waiting
from batchkit.workflow.record import START, Rollback, now
from batchkit.workflow.states import BEGUN, OVER, REVERT_FAILED, REVERTING, SKIPPED, WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from batchkit.budget import Budget
    from batchkit.workflow.phases import Phase
    from batchkit.workflow.record import FlowRecord, Point
    from batchkit.workflow.store import Store


class Way(NamedTuple):
    """What going back to a point means.

    to: the point, for people. phases: what is undone, newest first. without_undo: those of them of which nothing is
    undone but the state. restore: the snapshot that the workspace is restored from; `None`: it stays as it is. ended:
    whether all that is done; else a request to stop came, and the same call goes on.
    """

    to: str
    phases: list[str]
    without_undo: list[str]
    restore: str | None
    ended: bool = True


def point_of(record: FlowRecord, to: str | None) -> Rollback:
    """Return the rollback to a point: a snapshot, a phase (to before it began), or "start". Raises `UsageError`.

    to: `None`: the rollback that is unfinished; the one that ended last, if nothing has begun since, so that the same
    command goes no step further when it is run again; else the newest snapshot; else before the phase that began last.
    """
    if record.rollback is not None:
        if to not in {None, record.rollback.to}:
            raise UsageError(
                f"a rollback to '{record.rollback.to}' is unfinished; let it end first, without another point"
            )
        return record.rollback
    if to is None and record.back_at is not None:
        return record.back_at
    if to is None:
        to = _newest(record)
    phase = record.phases.get(to)
    if phase is not None and phase.order is not None:
        point = record.point(phase.point or "")
        return Rollback(to, phase.order - 1) if point is None else _to(point, to, phase.order - 1)
    point = record.point(to)
    if point is not None:
        return _to(point, to)
    if to == START:
        first = _first(record)
        return Rollback(START, 0) if first is None else _to(first, START, 0)
    if phase is not None:
        raise UsageError(f"the phase '{to}' has not begun; there is nothing to go back from")
    raise UsageError(f"there is no point '{to}' to go back to; there are: {', '.join(_points(record))}")


def _to(point: Point, name: str, order: int | None = None) -> Rollback:
    """Return the rollback to a snapshot; order: to before the phase behind this one, which may have begun later."""
    order = point.order if order is None else min(order, point.order)
    return Rollback(name, order, point.name, halfway=list(point.halfway))


def _first(record: FlowRecord) -> Point | None:
    """Return the oldest point, if it stands before all that phases have done since; `None` if there is none."""
    done = [phase.order for phase in record.phases.values() if phase.order is not None and phase.attempts]
    oldest = min(record.points, key=lambda point: point.order, default=None)
    return oldest if oldest is not None and oldest.order < min(done, default=math.inf) else None


def _newest(record: FlowRecord) -> str:
    points = [point for point in record.points if point.restored is None or _since(record, point.order)]
    if points:
        return points[-1].name
    begun = _since(record, 0)
    if not begun:
        raise UsageError("no phase has begun; there is nothing to go back from")
    return begun[0]


def _points(record: FlowRecord) -> list[str]:
    return [START, *(point.name for point in record.points), *reversed(_since(record, 0))]


def _since(record: FlowRecord, order: int, halfway: Sequence[str] = ()) -> list[str]:
    """Return the phases that began behind an order, and those that were half-way then, newest first."""
    begun = [(phase.order, name) for name, phase in record.phases.items() if phase.order is not None]
    return [
        name
        for at, name in sorted(begun, reverse=True)
        if record.phases[name].status in BEGUN and (at > order or name in halfway)
    ]


def way_back(record: FlowRecord, rollback: Rollback, phases: Mapping[str, Phase]) -> Way:
    """Return what a rollback does, or has still to do. Raises `UsageError` for phases that are not known any more."""
    names = _since(record, rollback.order, rollback.halfway)
    unknown = [name for name in names if name not in phases]
    if unknown:
        raise UsageError(
            f"the phase '{unknown[0]}' has begun and is not in the file, so nobody knows how to undo it; put it back, "
            f"or: batchkit workflow rename {record.name} {unknown[0]} NEW"
        )
    without = [name for name in names if phases[name].undoing is None and phases[name].kind != "gate"]
    return Way(
        rollback.to, names, [name for name in without if record.phases[name].status != SKIPPED], rollback.restore
    )


class Reverting:
    """One rollback at work."""

    def __init__(self, phases: Mapping[str, Phase], store: Store, budget: Budget, say: Callable[[str], None]) -> None:
        """Undo with the functions of these phases."""
        self._phases = phases
        self._store = store
        self._budget = budget
        self._say = say

    def run(self, rollback: Rollback) -> bool:
        """Go back; return whether it is done, or a request to stop came between two steps.

        Raises before anything is touched if the snapshot cannot be restored; `RollbackFailed` if an undo fails.
        """
        record = self._store.load()
        if record.rollback is None and rollback == record.back_at:
            self._say("nothing has begun since the last rollback")
            return True
        way = way_back(record, rollback, self._phases)
        archive = None if rollback.restore is None else self._archive(record, rollback.restore)
        if archive is not None and record.workspace is not None:
            snapshots.check_workspace(record.workspace, self._store.state_dir)
            if not rollback.begun:
                snapshots.refuse_leftovers(record.workspace)
                snapshots.check_restorable(archive, record.workspace)
        if way.without_undo:
            self._say(f"nothing undoes {', '.join(way.without_undo)}: what they did outside of the workspace stays")
        if not rollback.begun:
            self._begin(rollback)
        with self._budget.watched(partial(self._store.pass_request_on, self._budget.stop)):
            for name in way.phases:
                if not self._budget.go_on() or not self._revert(name):
                    return False
        if archive is not None and record.workspace is not None:
            self._say(f"restoring '{record.workspace}'")
            snapshots.restore(archive, record.workspace)
        self._finish(rollback)
        return True

    def _begin(self, rollback: Rollback) -> None:
        def begin(record: FlowRecord) -> None:
            record.rollback = replace(rollback, begun=True)

        self._store.update(begin, {"event": "rollback begun", "to": rollback.to, "why": rollback.why})

    def _archive(self, record: FlowRecord, name: str) -> str:
        point = record.point(name)
        if point is None:
            raise DamageError(f"the snapshot '{name}' is not known any more")
        return os.path.join(self._store.snapshots, point.archive)

    def _revert(self, name: str) -> bool:
        """Undo a phase; return whether it is undone: where a request to stop came, its undo is called once more."""
        phase = self._phases[name]
        record = self._store.update(lambda record: _mark_reverting(record, name))
        if phase.undoing is not None and _has_done_something(record, name):
            self._say(f"{name}: undoing")
            try:
                phase.undoing(Context(self._store, record, name, self._budget))
            except Paused:
                return False
            except (Exception, SystemExit, Waiting) as error:
                error = (
                    UsageError(f"it asks '{error}', and nobody can be asked now")
                    if isinstance(error, Waiting)
                    else error
                )
                self._fail(name, error)
                raise RollbackFailed(
                    f"the undo of '{name}' failed: {type(error).__name__}: {error}; mend that and run the rollback "
                    f"again, or, if you undid it by hand: batchkit workflow reset {self._store.name} {name} --only"
                ) from error
            if not self._budget.go_on():  # it may have ended early for that
                return False
        old = record.phases[name].job
        published = was_published(self._store, old)
        self._store.update(lambda record: _forget(record, name, published=published))
        remove_job(self._store, old, self._say)
        self._say(f"{name}: reverted")
        return True

    def _fail(self, name: str, error: BaseException) -> None:
        def fail(record: FlowRecord) -> None:
            record.phases[name].status = REVERT_FAILED
            record.phases[name].error = f"undo: {type(error).__name__}: {error}"

        self._store.update(fail)
        self._store.log_error(name, "undo failed", error)

    def _finish(self, rollback: Rollback) -> None:
        """Forget the points behind this one, and the rollback itself, in one write."""

        def finish(record: FlowRecord) -> list[str]:
            _withdraw_questions(record, rollback)
            gone = [point for point in record.points if point.order > rollback.order and point.name != rollback.restore]
            record.points = [point for point in record.points if point not in gone]
            for phase in record.phases.values():
                if record.point(phase.point or "") is None:
                    phase.point = None  # one that was reset in the middle: it is archived before it begins again
            for point in record.points:
                if point.name == rollback.restore:
                    point.restored = now()
            record.rollback, record.back_at = None, Rollback(rollback.to, rollback.order, None, rollback.why)
            return [point.archive for point in gone]

        gone = self._store.update(finish, {"event": "rollback ended", "to": rollback.to})
        for archive in gone:
            snapshots.remove(os.path.join(self._store.snapshots, archive))


def _mark_reverting(record: FlowRecord, name: str) -> FlowRecord:
    record.phases[name].status = REVERTING
    return record


def _withdraw_questions(record: FlowRecord, rollback: Rollback) -> None:
    """Let phases that wait before their start, for what was undone by now, be asked anew: answers were about that."""
    for name, phase in record.phases.items():
        blocked = any(record.phases[other].status not in OVER for other in phase.after if other in record.phases)
        if phase.order is None and (blocked or rollback.order == 0):
            record.forget_answers(name)
            if phase.status == WAITING:
                phase.begin_anew()


def _has_done_something(record: FlowRecord, name: str) -> bool:
    """Tell whether a phase was ever called: one that was skipped, or waits before its start, was not."""
    return record.phases[name].attempts > 0


def _forget(record: FlowRecord, name: str, *, published: bool) -> None:
    record.phases[name].published |= published
    record.phases[name].begin_anew()
    record.phases[name].point = None
    record.forget_answers(name)


def was_published(store: Store, name: str) -> bool:
    """Tell whether the job of a phase has ever made its output appear: then that is the phase's own."""
    job = JobDirectory(store.jobs, name)
    return bool(PublishLog(os.path.join(job.path, "publish.jsonl"), "").ever())


def remove_job(store: Store, name: str, say: Callable[[str], None]) -> None:
    """Remove the job of a phase that has another one by now; what cannot be removed is in nobody's way."""
    if not os.path.exists(os.path.join(store.jobs, name, "job.json")):
        return
    try:
        Job(name, store.jobs).remove()
    except BatchkitError as error:
        say(f"left '{os.path.join(store.jobs, name)}' behind: {error}")
