"""What people do to a workflow beside running it: all of it works from the state file alone."""

from __future__ import annotations

import getpass
import os
from typing import Any

from batchkit import files
from batchkit.errors import UsageError
from batchkit.existing import Job
from batchkit.job import names as job_names
from batchkit.workflow import snapshots
from batchkit.workflow.engine import free_name, progress_of
from batchkit.workflow.phases import behind
from batchkit.workflow.record import now
from batchkit.workflow.rollback import remove_job, was_published
from batchkit.workflow.states import (
    COMPLETED,
    FAILED,
    OVER,
    PENDING,
    REVERT_FAILED,
    REVERTING,
    RUNNING,
    SKIPPED,
    WAITING,
)
from batchkit.workflow.store import check_point_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.workflow.record import FlowRecord, PhaseRecord, Point
    from batchkit.workflow.store import Store


def status_of(record: FlowRecord, *, running: bool) -> str:
    """Return how a workflow stands as a whole, in a word. running: whether a run holds it."""
    found = {phase.status for phase in record.phases.values()}
    if running:
        return RUNNING if record.rollback is None else REVERTING
    if record.rollback is not None:
        return REVERT_FAILED if REVERT_FAILED in found else REVERTING
    if found <= OVER:
        return COMPLETED
    for status in (RUNNING, FAILED):
        if status in found:
            return "interrupted" if status == RUNNING else status
    if WAITING in found or record.open_questions():
        return WAITING
    return "new" if found <= {PENDING} else "paused"


def state_of(store: Store) -> dict[str, Any]:
    """Return the state as JSON, with what is derived: "status", and what the jobs of phases know by now.

    "status" is new, running, interrupted, paused, waiting, failed, completed, reverting or revert-failed; a phase that
    is "running" while no run is at work is "interrupted".
    """
    record = store.load()
    running = store.running()
    state = record.as_json()
    state["status"] = status_of(record, running=running)
    for name, phase in record.phases.items():
        if phase.status == RUNNING and not running:
            state["phases"][name]["status"] = "interrupted"
        if phase.kind == "items" and phase.status not in OVER:
            state["phases"][name]["progress"] = progress_of(store, phase)
    return state


def answer(store: Store, key: str, text: str, by: str | None = None) -> None:
    """Store the answer to a question; durable on return. by: who answers; `None`: the user of this process.

    Raises `UsageError` for a question that is not asked, is answered, or has no such choice.
    """

    def store_answer(record: FlowRecord) -> None:
        question = record.questions.get(key)
        if question is None:
            asked = ", ".join(record.open_questions()) or "none"
            raise UsageError(f"the workflow '{store.name}' does not ask '{key}'; open questions: {asked}")
        closed = record.phases[question.phase].status == FAILED
        if question.answer is not None and not closed:
            raise UsageError(f"'{key}' was answered '{question.answer}' by {question.by} at {question.at}; that stays")
        if question.choices is not None and text not in question.choices:
            raise UsageError(f"'{text}' is no answer to '{key}'; answers are: {', '.join(question.choices)}")
        question.answer, question.by, question.at = text, by or _user(), now()

    store.update(store_answer, {"event": "answered", "key": key, "answer": text, "by": by or _user()})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without users
        return f"uid {os.getuid()}"


def skip(store: Store, name: str, reason: str) -> None:
    """Let a phase be over without it running; what comes after it can begin. Raises `UsageError`."""

    def change(record: FlowRecord) -> None:
        phase = _phase(record, name, store)
        _refuse_in_rollback(record)
        if phase.status in {COMPLETED, SKIPPED, REVERTING, REVERT_FAILED}:
            raise UsageError(f"the phase '{name}' is {phase.status} and cannot be skipped")
        if phase.status == RUNNING and store.running():
            raise UsageError(f"the phase '{name}' is at work; stop the run first: batchkit workflow stop {store.name}")
        if phase.order is None:
            phase.order = record.next_order()
        phase.status, phase.reason, phase.error = SKIPPED, f"{reason} ({_user()})", None
        record.forget_answers(name)

    store.update(change)


def reset(
    store: Store, name: str | None, say: Callable[[str], None], *, only: bool = False, force: bool = False
) -> list[str]:
    """Let phases run again as if they never had; return their names. Nothing is undone: see `rollback`.

    name: this one and all that come after it; `None`: all. only: this one alone. force: also where rows that it has
    added to a table would be added once more. The snapshot before a phase that has not completed stays its own: the
    workspace may be half changed by now.
    """
    with store.locked():

        def change(record: FlowRecord) -> tuple[list[str], list[str]]:
            if name is None:
                names = list(record.phases)
            else:
                _phase(record, name, store)
                before = {each: phase.after for each, phase in record.phases.items()}
                names = [name] if only else [each for each in record.phases if each in behind(before, name)]
            if not only:
                _refuse_in_rollback(record)
            names = [each for each in names if record.phases[each].status != PENDING or record.phases[each].order]
            jobs = [record.phases[each].job for each in names]
            for each in names:
                phase = record.phases[each]
                phase.published |= was_published(store, phase.job)
                if phase.status == COMPLETED:
                    phase.point = None
                phase.begin_anew()
                record.forget_answers(each)
            return names, jobs

        if not force:
            _refuse_to_repeat(store, change)
        names, jobs = store.update(change)
        for job in jobs:
            remove_job(store, job, say)
    return names


def _refuse_to_repeat(store: Store, change: Callable[[FlowRecord], tuple[list[str], list[str]]]) -> None:
    """Raise `UsageError` where phases that begin anew would add rows to a table that it has already."""
    names, jobs = change(store.load())
    known = job_names(store.jobs)
    for name, job in zip(names, jobs, strict=True):
        if job in known and Job(job, store.jobs).would_repeat():
            raise UsageError(
                f"the rows that the phase '{name}' has added stay in the table, and running it again would add them "
                "once more; roll back to before it, or delete them and give --force"
            )


def rename(store: Store, old: str, new: str) -> None:
    """Let a phase have another name; all that it did stays its own. Raises `UsageError`."""

    def change(record: FlowRecord) -> None:
        _phase(record, old, store)
        if new == old:
            raise UsageError(f"the phase is called '{old}' already")
        if new in record.phases and record.phases[new].status != PENDING:
            raise UsageError(
                f"there is a phase '{new}' that is {record.phases[new].status}; rename or reset that first"
            )
        renamed = {new if name == old else name: phase for name, phase in record.phases.items() if name != new}
        for phase in renamed.values():
            phase.after = [new if name == old else name for name in phase.after]
        record.phases = renamed
        for question in record.questions.values():
            question.phase = new if question.phase == old else question.phase
        for point in record.points:
            point.phase = new if point.phase == old else point.phase
            point.halfway = [new if name == old else name for name in point.halfway]

    check_point_name(new, "phase")
    with store.locked():
        store.update(change, {"event": "renamed", "from": old, "to": new})


def snapshot(store: Store, name: str | None) -> Point:
    """Archive the workspace as a point to go back to. name: `None`: "by-hand", with a number."""
    with store.locked():
        record = store.load()
        if record.workspace is None:
            raise UsageError(f"the workflow '{store.name}' has no workspace: Workflow(..., workspace='DIR')")
        snapshots.check_workspace(record.workspace, store.state_dir)
        name = free_name(record, "by-hand") if name is None else name
        check_point_name(name, "snapshot")
        if record.point(name) is not None or name in record.phases:
            raise UsageError(f"there is a point '{name}' already; give another name: none is written over")
        archive = os.path.join(store.snapshots, f"{name}.tar.gz")
        point = snapshots.take(record.workspace, archive, name, lambda: True)
        point.order, point.halfway = record.order, record.halfway()

        def add(record: FlowRecord) -> None:
            record.points.append(point)
            record.back_at = None  # who goes back now means this point

        store.update(add, {"event": "snapshot", "point": name})
    return point


def clean(store: Store, *, only_snapshots: bool, force: bool) -> None:
    """Remove a workflow's state, or the archives of its points alone; the workspace stays.

    force: also where it is not completed. Raises `UsageError`.
    """
    with store.locked():
        record = store.load()
        status = status_of(record, running=False)
        if status not in {COMPLETED, "new"} and not force:
            raise UsageError(f"the workflow '{store.name}' is {status}; --force removes it all the same")
        if status == "new" and record.points and not force:
            raise UsageError(f"the workflow '{store.name}' has points to go back to; --force removes them, too")
        if only_snapshots:
            archives = [point.archive for point in record.points]

            def forget(record: FlowRecord) -> None:
                record.points = []
                for phase in record.phases.values():
                    phase.point = None

            store.update(forget, {"event": "snapshots removed"})
            for archive in archives:
                snapshots.remove(os.path.join(store.snapshots, archive))
            return
        for phase in record.phases.values():
            remove_job(store, phase.job, lambda _: None)
        store.remove()


def _refuse_in_rollback(record: FlowRecord) -> None:
    if record.rollback is not None:
        raise UsageError(f"a rollback to '{record.rollback.to}' is unfinished; let it end first")


def log_of(store: Store, name: str) -> str:
    """Return what a phase has logged."""
    phase = _phase(store.load(), name, store)
    return (files.read_bytes(store.log_path(phase.home)) or b"").decode(errors="replace")


def _phase(record: FlowRecord, name: str, store: Store) -> PhaseRecord:
    if name not in record.phases:
        raise UsageError(f"the workflow '{store.name}' has no phase '{name}'; it has: {', '.join(record.phases)}")
    return record.phases[name]
