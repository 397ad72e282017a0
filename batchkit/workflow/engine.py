"""Running the phases of a workflow: those whose predecessors are over at once, each in a thread of its own."""

from __future__ import annotations

import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import Any

from batchkit.api import process
from batchkit.budget import part_of
from batchkit.errors import BatchkitError, UsageError
from batchkit.existing import Job
from batchkit.progress import duration
from batchkit.result import Result
from batchkit.workflow import snapshots
from batchkit.workflow.context import Context, Paused, Waiting, as_json
from batchkit.workflow.phases import Gate, Phase, name_of
from batchkit.workflow.record import Question, now
from batchkit.workflow.states import COMPLETED, FAILED, OVER, PAUSED, RUNNING, SKIPPED, WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchkit.budget import Budget
    from batchkit.workflow.record import FlowRecord, PhaseRecord, Point
    from batchkit.workflow.store import Store

_LOOK_EVERY = 0.2
"""Seconds between looks at what others asked for while phases run."""

CANNOT_BEGIN = "cannot begin"

CLOSED = "no"
"""The answer that keeps a gate closed."""


class Engine:
    """One run.

    failed: phases that failed in it, or could not begin, with the reason. left: why it ends with phases left that
    could have run; `None` while it need not.
    """

    def __init__(  # noqa: PLR0913  # what a run is made of
        self,
        phases: Mapping[str, Phase],
        before: Mapping[str, list[str]],
        store: Store,
        budget: Budget,
        *,
        wanted: set[str],
        steps: int | None,
        parallel: int,
        progress: str,
        say: Callable[[str], None],
        wish: Callable[[FlowRecord, str], None],
    ) -> None:
        """Prepare to run the phases `wanted`, at most `steps` of them, `parallel` at once.

        before: what each waits for. wish: notes in the state, in one write with a failure, that it is to be gone back.
        """
        self._phases = phases
        self._before = before
        self._store = store
        self._budget = budget
        self._wanted = wanted
        self._steps = steps
        self._parallel = parallel
        self._progress = progress
        self._say = say
        self._wish = wish
        self._owner = os.getpid()
        self._tried: set[str] = set()
        self._running: dict[str, Future[None]] = {}
        self.failed: dict[str, str] = {}
        self.left: str | None = None

    def run(self) -> None:
        """Run until nothing can go on, or is to."""
        with (
            self._budget.watched(partial(self._store.pass_request_on, self._budget.stop)),
            ThreadPoolExecutor(self._parallel, "batchkit-phase") as pool,
        ):
            while True:
                self._begin_what_can(pool)
                if not self._running:
                    return
                ended, _ = wait(self._running.values(), _LOOK_EVERY, FIRST_COMPLETED)
                for name in [name for name, future in self._running.items() if future in ended]:
                    self._running.pop(name).result()

    # What can begin

    def _begin_what_can(self, pool: ThreadPoolExecutor) -> None:
        while (name := self._next()) is not None:
            self._tried.add(name)
            context = self._admitted(self._phases[name])
            if context is not None:
                self._running[name] = pool.submit(self._perform, self._phases[name], context)

    def _next(self) -> str | None:
        """Return a phase that can begin now; `None` if none can, or is to."""
        if self.failed or len(self._running) >= self._parallel:
            return None
        record = self._store.load()
        able = [name for name in self._before if self._is_able(name, record)]
        if not able:
            return None
        if not self._budget.go_on():
            self.left = self._budget.reason
        elif self._steps == 0:
            self.left = "step"
        else:
            first = next((name for name in able if self._is_barrier(name, record)), able[0])
            return None if self._running and self._is_barrier(first, record) else first
        return None

    def _is_able(self, name: str, record: FlowRecord) -> bool:
        state = record.phases[name]
        asking = any(question.phase == name for question in record.open_questions().values())
        tried = name in self._tried and not (state.status == WAITING and not asking)
        return (
            name in self._wanted
            and name not in self._running
            and not tried
            and state.status not in OVER
            and not (asking and state.status == WAITING)
            and all(record.phases[other].status in OVER for other in self._before[name])
        )

    def _is_barrier(self, name: str, record: FlowRecord) -> bool:
        """Tell whether nothing else may run when a phase begins: the workspace is archived then."""
        return self._phases[name].is_archived_before(record.phases[name])

    # Beginning

    def _admitted(self, phase: Phase) -> Context | None:
        """Bring a phase to its start; `None` if it does not begin: skipped, blocked, waiting, or a gate."""
        record = self._store.load()
        context = Context(self._store, record, phase.name, self._budget)
        try:
            if not self._may_begin(phase, record, context):
                return None
            point = self._snapshot(phase, record) if self._is_barrier(phase.name, record) else None
        except Waiting:
            self._store.update(lambda record: _suspend(record.phases[phase.name]))
            return None
        except Paused:
            self.left = self._budget.reason
            return None
        except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever the user's function raises
            self._block(phase, error)
            return None
        attempt = self._store.update(lambda record: _start(record, phase, point))
        if attempt is None:
            return None
        context.attempt = attempt
        if self._steps is not None:
            self._steps -= 1
        self._say(f"{phase.name}: begun" if context.attempt == 1 else f"{phase.name}: begun, attempt {context.attempt}")
        return context

    def _may_begin(self, phase: Phase, record: FlowRecord, context: Context) -> bool:
        """Ask what is to be asked before a phase begins; tell whether it can be performed now."""
        if isinstance(phase, Gate) and self._stays_closed(phase, record):
            return False
        if record.phases[phase.name].order is None and phase.when is not None and not phase.when(context):
            self._skip(phase)
            return False
        for check in phase.requirements:
            _demand(check, context, "requirement")
        if isinstance(phase, Gate):
            self._answered(phase)
            return False
        return True

    def _skip(self, phase: Phase) -> None:
        def skip(record: FlowRecord) -> None:
            state = record.phases[phase.name]
            if state.status in OVER:
                return
            state.status, state.order, state.error = SKIPPED, record.next_order(), None
            state.reason = f"'{name_of(phase.when)}' says no"

        self._store.update(skip)
        self._say(f"{phase.name}: skipped, '{name_of(phase.when)}' says no")

    def _block(self, phase: Phase, error: BaseException) -> None:
        """Note why a phase cannot begin; it stays what it is."""
        text = _text_of(error)

        def note(record: FlowRecord) -> None:
            record.phases[phase.name].error = text
            self._wish(record, phase.name)

        self._store.update(note, {"phase": phase.name, "event": "cannot begin", "why": text})
        self._store.log_error(phase.name, "failed", error)
        self.failed[phase.name] = f"{CANNOT_BEGIN}: {text}"

    def _snapshot(self, phase: Phase, record: FlowRecord) -> Point:
        assert record.workspace is not None, "checked when the workflow was opened"
        name = free_name(record, phase.name)
        self._say(f"{phase.name}: archiving '{record.workspace}' first")
        archive = os.path.join(self._store.snapshots, f"{name}.tar.gz")
        point = snapshots.take(record.workspace, archive, name, self._budget.go_on)
        point.phase = phase.name
        return point

    # Gates

    def _stays_closed(self, gate: Gate, record: FlowRecord) -> bool:
        """Tell whether a gate that was closed by its answer still is: a new answer is needed."""
        asked = record.questions.get(gate.name)
        if record.phases[gate.name].status == FAILED and asked is not None and asked.answer == CLOSED:
            self.failed[gate.name] = record.phases[gate.name].error or "closed"
            return True
        return False

    def _answered(self, gate: Gate) -> None:
        """Take the answer of a gate, or ask for it."""
        asking = Question(gate.name, gate.prompt, list(gate.choices))

        def take(record: FlowRecord) -> PhaseRecord:
            asked, state = record.questions.get(gate.name), record.phases[gate.name]
            if state.status in OVER:  # skipped meanwhile
                return state
            if asked is None or asked.answer is None:
                record.questions[gate.name] = asking
                _suspend(state)
            else:
                _settle(record, gate.name)
            return state

        state = self._store.update(take)
        if state.status == FAILED:
            self.failed[gate.name] = state.error or "closed"
        self._say(f"{gate.name}: {state.status}")

    # A phase at work

    def _perform(self, phase: Phase, context: Context) -> None:
        """Call the function of a phase, see whether what it did is right, and store how it ended."""
        begun = time.monotonic()
        result, error, cause = None, None, None
        try:
            with part_of(self._budget) as inside:
                result = self._called(phase, context)
                if any(run.reason is not None for run in inside) and phase.items is None:
                    raise Paused  # noqa: TRY301  # also where the function did not look at what a run inside of it said
            context.keep(result)
            for check in phase.checks:
                _demand(check, context, "check")
            status = COMPLETED
        except Waiting:
            status = WAITING
        except Paused:
            status = PAUSED
        except (Exception, SystemExit) as raised:  # noqa: BLE001  # whatever the user's function raises
            status, error, cause = FAILED, _text_of(raised), raised
        if os.getpid() != self._owner:  # a process that the function forked: none of our business
            os._exit(0)
        seconds = time.monotonic() - begun
        self._store.update(lambda record: self._end(record, phase, status, result, error, seconds))
        if cause is not None:
            self._store.log_error(phase.name, "failed", cause)
            self.failed[phase.name] = error or "failed"
        if status == PAUSED:
            self.left = self.left or self._budget.reason or "phase"
        self._say(f"{phase.name}: {status}, {duration(seconds)}")

    def _called(self, phase: Phase, context: Context) -> Any:
        """Return the result of a phase. Raises `Paused` if a run of items ended early."""
        assert phase.function is not None, "gates are not performed"
        if phase.items is None:
            value = phase.function(context)
            if not isinstance(value, Result):
                return as_json(value, f"what the phase '{phase.name}' returned")
        else:
            state = self._store.load().phases[phase.name]
            value = self._processed(phase, context, state)
        if not value.completed:
            raise Paused
        return counts_of(value)

    def _processed(self, phase: Phase, context: Context, state: PhaseRecord) -> Result:
        source = phase.items(context) if callable(phase.items) else phase.items
        if hasattr(source, "__next__"):
            source = list(source)  # a generator would have to be read anew up to the cursor
        assert phase.function is not None, "as above"
        function = partial(phase.function, context)
        function.__batchkit_name__ = state.home  # type: ignore[attr-defined]  # renaming the phase renames no job
        options = {"overwrite": state.published, "progress": self._progress, **phase.options}
        return process(source, function, job=state.job, state_dir=self._store.jobs, **options)

    def _end(
        self, record: FlowRecord, phase: Phase, status: str, result: Any, error: str | None, seconds: float
    ) -> None:
        state = record.phases[phase.name]
        state.status, state.error = status, error
        state.seconds = round(state.seconds + seconds, 3)
        state.reason = None
        if status == COMPLETED:
            state.result, state.completed = result, now()
        if phase.items is not None:
            state.progress = progress_of(self._store, state)
        if status == FAILED:
            self._wish(record, phase.name)


def _start(record: FlowRecord, phase: Phase, point: Point | None) -> int | None:
    """Begin a phase, behind the point it can be gone back to from; return which attempt it is.

    `None`: it does not begin, for somebody has skipped it since the run looked at it.
    """
    state = record.phases[phase.name]
    if state.status in OVER:
        return None
    if point is not None:
        point.order, point.halfway = record.order, record.halfway()
        record.points = [each for each in record.points if not (each.restored and each.phase == phase.name)] + [point]
        state.point = point.name
    if state.order is None:
        state.order, state.started = record.next_order(), now()
    if state.status != WAITING or not state.attempts:  # an answer continues an attempt
        state.attempts += 1
    state.status = RUNNING
    state.error = state.reason = None
    state.code = phase.code()
    return state.attempts


def _suspend(state: PhaseRecord) -> None:
    if state.status in OVER:  # skipped meanwhile
        return
    state.status, state.error = WAITING, None


def _settle(record: FlowRecord, name: str) -> None:
    """Let a gate's answer open it or keep it closed."""
    state, question = record.phases[name], record.questions[name]
    if state.order is None:
        state.order, state.started = record.next_order(), now()
    if question.answer == CLOSED:
        state.status, state.error = FAILED, f"{question.by} answered '{CLOSED}'"
    else:
        state.status, state.error, state.result, state.completed = COMPLETED, None, question.answer, now()


def free_name(record: FlowRecord, name: str) -> str:
    """Return a name that no snapshot has, for none is ever written over, and no other phase: it would mean that."""
    taken = {point.name for point in record.points} | (record.phases.keys() - {name})
    return next(
        each for each in (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3))) if each not in taken
    )


def counts_of(result: Result) -> dict[str, Any]:
    """Return what of a run of items is kept as the result of its phase."""
    return {"done": result.done, "failed": result.failed, "skipped": result.skipped, "output": result.output}


def progress_of(store: Store, state: PhaseRecord) -> dict[str, Any] | None:
    """Return how far the items of a phase are, as its job knows; what was known, if that cannot be read."""
    if not os.path.exists(os.path.join(store.jobs, state.job, "job.json")):
        return None
    try:
        status = Job(state.job, store.jobs).status()
    except BatchkitError:
        return state.progress
    return {
        "done": status.done, "failed": status.failed, "skipped": status.skipped, "total": status.total,
        "share": None if status.share is None else round(status.share, 4),
    }  # fmt: skip


def _demand(check: Callable[[Context], Any], context: Context, what: str) -> None:
    """Raise unless a check says yes."""
    value = check(context)
    if value is None:
        raise UsageError(f"the {what} '{name_of(check)}' returned None; it must return true, or raise")
    if not value:
        raise BatchkitError(f"the {what} '{name_of(check)}' says no")


def _text_of(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, BatchkitError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
