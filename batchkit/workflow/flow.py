"""`Workflow`: how phases are declared, and what is done with them."""

from __future__ import annotations

import inspect
import os
import sys
import time
from dataclasses import replace
from functools import partial
from typing import Any, overload

from batchkit.api import process
from batchkit.budget import Budget, seconds_of, stopping_on_signals
from batchkit.errors import BatchkitError, PhaseFailed, RollbackFailed, UsageError
from batchkit.job import state_directory
from batchkit.options import check_choice
from batchkit.programs import hear_children
from batchkit.progress import MODES, sayer
from batchkit.result import reason_for_people
from batchkit.workflow.engine import CANNOT_BEGIN, Engine
from batchkit.workflow.opening import opened, tidy
from batchkit.workflow.outcome import FlowResult
from batchkit.workflow.phases import ROLLBACK, STOP, Declared, Gate, Phase, in_order, up_to
from batchkit.workflow.planning import Step, steps_of
from batchkit.workflow.record import START, Rollback
from batchkit.workflow.rollback import Reverting, Way, point_of, way_back
from batchkit.workflow.states import COMPLETED, OVER
from batchkit.workflow.store import Store, check_point_name, full_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from batchkit.budget import Duration
    from batchkit.workflow.context import Context
    from batchkit.workflow.record import FlowRecord

    Named = Phase | str

_NOT_FOR_PHASES = {
    "source",
    "function",
    "job",
    "state_dir",
    "restart",
    "overwrite",
    "abort",
    "shard",
    "on_input_change",
}
_REASONS = {
    "step": "one phase was asked for",
    "until": "the phases asked for are done",
    "phase": "a limit of a phase's own was reached",
}


class Workflow:
    """Phases in order, with a checkpoint before each begins and after it ends.

        flow = batchkit.Workflow("nightly", workspace="work")

        @flow.phase
        def extract(ctx): ...

    name: with the state directory, the identity of what was done. params: names and defaults of parameters, JSON.
    workspace: the directory that snapshots keep and restore, made if it is missing, `DIR@KEY` for an instance; `None`:
    there is none. on_failure: "stop", or "rollback" to the start: what all phases did is undone (a saga).
    """

    def __init__(
        self,
        name: str,
        *,
        params: Mapping[str, Any] | None = None,
        workspace: str | os.PathLike[str] | None = None,
        on_failure: str = STOP,
    ) -> None:
        """Declare it; nothing is touched."""
        full_name(name, None)
        check_choice("on_failure", on_failure, (STOP, ROLLBACK))
        self.name = name
        self.params = dict(params or {})
        self.workspace = None if workspace is None else os.path.abspath(workspace)
        self.phases: dict[str, Phase] = {}
        self._on_failure = on_failure
        self.file = _calling_file()

    def __repr__(self) -> str:
        """Return the name and the phases."""
        return f"<Workflow {self.name}: {', '.join(self.phases)}>"

    # Declaring

    @overload
    def phase(self, function: Callable[..., Any], **declared: Any) -> Phase: ...

    @overload
    def phase(
        self,
        *,
        name: str | None = None,
        after: Named | Sequence[Named] | None = None,
        when: Callable[[Context], Any] | None = None,
        items: Any = None,
        snapshot: bool = False,
        on_failure: str = STOP,
        rollback_to: Named | None = None,
        **options: Any,
    ) -> Callable[[Callable[..., Any]], Phase]: ...

    def phase(  # noqa: PLR0913  # the words of a declaration
        self,
        function: Callable[..., Any] | None = None,
        *,
        name: str | None = None,
        after: Named | Sequence[Named] | None = None,
        when: Callable[[Context], Any] | None = None,
        items: Any = None,
        snapshot: bool = False,
        on_failure: str = STOP,
        rollback_to: Named | None = None,
        **options: Any,
    ) -> Any:
        """Declare a phase, as a decorator with or without arguments; returns the `Phase`.

        The function is called with a `Context`; what it returns, JSON of at most 64 kB, is the phase's result. It may
        be called again after a crash: see `Context.once`.

        name: `None`: the function's. after: the phases before it; `None`: all declared so far, `[]`: none, so it runs
        beside the first. when: called before it begins; if it says no, the phase is skipped. items: makes it a
        resumable job: a source as `process()` takes it, or a function of the context that returns one; the phase's
        function is called with context and item, and `options` are keywords of `process()`. snapshot: archive the
        workspace before it begins for the first time. on_failure: "rollback" when it fails: to before it, or, for a
        check of what others did, to before the phase that `rollback_to` names.
        """
        if function is None:
            return partial(
                self.phase,
                name=name,
                after=after,
                when=when,
                items=items,
                snapshot=snapshot,
                on_failure=on_failure,
                rollback_to=rollback_to,
                **options,
            )
        name = name or str(getattr(function, "__name__", ""))
        _check_options(name, options, items=items)
        check_choice("on_failure", on_failure, (STOP, ROLLBACK))
        if rollback_to is not None and on_failure != ROLLBACK:
            raise UsageError(f"the phase '{name}' has rollback_to, which is for on_failure='rollback'; add that")
        if snapshot and self.workspace is None:
            raise UsageError(
                f"the phase '{name}' wants a snapshot, and there is no workspace: Workflow(..., workspace='DIR')"
            )
        phase = Phase(
            name,
            function,
            after=_names_of(after),
            when=when,
            items=items,
            options=options,
            snapshot=snapshot,
            on_failure=on_failure,
            rollback_to=None if rollback_to is None else self._known(rollback_to),
        )
        return self._declared(phase)

    def gate(
        self,
        name: str,
        prompt: str,
        *,
        choices: Sequence[str] = ("yes", "no"),
        after: Named | Sequence[Named] | None = None,
        when: Callable[[Context], Any] | None = None,
    ) -> Gate:
        """Declare a question that a person answers before the workflow goes on; the answer is the result.

        choices: the answers there are. "no" keeps the gate closed: the run fails until there is another answer.
        """
        if isinstance(choices, str) or not choices:
            raise UsageError(f"the gate '{name}' has choices={choices!r}; give a list of answers")
        gate = Gate(name, prompt, choices=tuple(map(str, choices)), after=_names_of(after), when=when)
        self._declared(gate)
        return gate

    def _declared(self, phase: Phase) -> Phase:
        check_point_name(phase.name, "phase")
        if phase.name in self.phases:
            raise UsageError(f"there are two phases '{phase.name}'; give one another name=")
        self.phases[phase.name] = phase
        return phase

    # Doing

    def run(  # noqa: PLR0913  # every option of a run is a keyword here
        self,
        *,
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
        until: Named | None = None,
        step: bool = False,
        max_time: Duration | None = None,
        parallel: int = 8,
        state_dir: str | os.PathLike[str] | None = None,
        progress: str = "auto",
        abort: Callable[[int], None] | None = None,
    ) -> FlowResult:
        """Run the phases that are left, those whose predecessors are over at once. Run and resume are the same call.

        What is completed stays completed; a phase that was interrupted is called again, and one with items goes on at
        the item. params: other values than the defaults; they stay with the workflow. key: one of several instances of
        the workflow, each with a state of its own. until: end behind this phase. step: end behind one. max_time: end
        before so much time has passed, between phases and inside those with items. parallel: phases at once, at most.
        progress: "auto", "bar", "log" or "none". abort: called with the number of a second stop signal; `None`: raise
        `KeyboardInterrupt`, when what is at work has ended.

        In the main thread SIGINT, SIGTERM, SIGHUP and SIGUSR1 end the run as a budget does. Raises `PhaseFailed`, when
        all that ran beside it has come to its end; `UsageError`, `JobLocked`, `ChangedError`, `DamageError`.
        """
        begun = time.monotonic()
        check_choice("progress", progress, MODES)
        if parallel < 1:
            raise UsageError(f"parallel is {parallel}; give at least 1")
        flow = self._declaration(key)
        wanted = set(self.phases) if until is None else up_to(flow.before, self._known(until))
        store = self.store(key, state_dir)
        budget = Budget(max_time=seconds_of(max_time, "max_time"), divisible=False)
        say = sayer(progress, store.name)
        hear_children()
        with stopping_on_signals(budget, _interrupt if abort is None else abort, say):
            found = opened(flow, store, dict(params or {}), key, dry=True)
            if not store.running():  # else that is said first
                self._refuse_unfinished(found)  # what is wrong is said before anything is made
            store.make()
            with store.locked():
                store.forget_request()
                self._refuse_unfinished(store.find() or found)
                opened(flow, store, dict(params or {}), key)
                tidy(flow, store, say)
                engine = Engine(
                    self.phases, flow.before, store, budget,
                    wanted=wanted, steps=1 if step else None, parallel=parallel, progress=progress, say=say,
                    wish=self._wish,
                )  # fmt: skip
                engine.run()
                if engine.failed:
                    self._fail(store, budget, engine.failed, say)
        return self._result(store, engine, wanted, time.monotonic() - begun)

    def _refuse_unfinished(self, record: FlowRecord) -> None:
        if record.rollback is not None:
            ending = f"batchkit workflow rollback {record.spec}"
            raise UsageError(f"a rollback to '{record.rollback.to}' is unfinished; let it end first: {ending}")

    def _fail(self, store: Store, budget: Budget, failed: dict[str, str], say: Callable[[str], None]) -> None:
        """Go back where that was asked for, and raise."""
        said = "; ".join(
            f"the phase '{name}' {why if why.startswith(CANNOT_BEGIN) else f'failed: {why}'}"
            for name, why in failed.items()
        )
        log = f"see: batchkit workflow log {store.name} {next(iter(failed))}"
        record = store.load()
        rollback = record.rollback
        if rollback is None:
            raise PhaseFailed(f"{said}; {log}; run it again to go on", phases=failed)
        where = "the start" if rollback.to == START else f"before '{rollback.to}'"
        left = f"the rollback to {where} is unfinished: batchkit workflow rollback {record.spec}"
        try:
            whole = Reverting(self.phases, store, budget, say).run(rollback)
        except RollbackFailed:
            raise
        except BatchkitError as error:
            raise PhaseFailed(f"{said}; {left}: {error}; {log}", phases=failed) from error
        raise PhaseFailed(f"{said}; {f'rolled back to {where}' if whole else left}; {log}", phases=failed)

    def _wish(self, record: FlowRecord, name: str) -> None:
        """Note in the state, as it is stored with a failure, that it is to be gone back: no crash forgets that."""
        wish = self._asked_for(record, name)
        if wish is not None and (record.rollback is None or wish.order < record.rollback.order):
            wish.why = f"'{name}' failed: {record.phases[name].error}"
            record.rollback = wish

    def _asked_for(self, record: FlowRecord, failed: str) -> Rollback | None:
        """Return the rollback that the failure of a phase leads to; `None` for none."""
        record = replace(record, rollback=None)
        if self._on_failure == ROLLBACK:
            return point_of(record, START)
        phase = self.phases[failed]
        to = phase.rollback_to or failed
        begun = record.phases[failed].order is not None and record.phases[to].order is not None
        return point_of(record, to) if phase.on_failure == ROLLBACK and begun else None

    def _result(self, store: Store, engine: Engine, wanted: set[str], seconds: float) -> FlowResult:
        record = store.load()
        states = {name: record.phases[name].status for name in self.phases}
        questions = {key: each for key, each in record.open_questions().items() if each.phase in wanted}
        failed = sum((record.phases[name].progress or {}).get("failed", 0) for name in self.phases)
        if all(status in OVER for status in states.values()):
            status, reason = COMPLETED, None
        elif engine.left is None and questions:
            status, reason = "waiting", None
        else:
            left = engine.left or ("until" if wanted != set(self.phases) else "time")
            status, reason = "paused", _REASONS.get(left) or reason_for_people(left)
        return FlowResult(store.name, status, reason, states, questions, failed, seconds)

    def plan(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        key: str | None = None,
        until: Named | None = None,
        state_dir: str | os.PathLike[str] | None = None,
    ) -> list[Step]:
        """Return what a run would do with each phase, and why; changes nothing."""
        flow = self._declaration(key)
        store = self.store(key, state_dir)
        wanted = set(self.phases) if until is None else up_to(flow.before, self._known(until))
        record = opened(flow, store, dict(params or {}), key, dry=True)
        return steps_of(self.phases, flow.before, record, wanted, running=store.running())

    def rollback(
        self,
        to: Named | None = None,
        *,
        key: str | None = None,
        state_dir: str | os.PathLike[str] | None = None,
        progress: str = "auto",
        abort: Callable[[int], None] | None = None,
    ) -> Way:
        """Undo what was begun since a point, newest first, and restore the workspace; can be killed and called again.

        to: a phase: to before it began, with the snapshot taken then if there is one; a snapshot; or "start". `None`:
        the rollback that is unfinished, else to the newest snapshot, else to before the phase that began last.
        Returns what it did. Raises `RollbackFailed`, `UsageError`, `DamageError`, `StorageError`, `JobLocked`.
        """
        store = self.store(key, state_dir)
        say = sayer(progress, store.name)
        budget = Budget(divisible=False)
        store.load()
        with stopping_on_signals(budget, _interrupt if abort is None else abort, say), store.locked():
            record = store.load()
            rollback = point_of(record, to if to is None else _name_of(to))
            way = way_back(record, rollback, self.phases)
            store.forget_request()
            return way._replace(ended=Reverting(self.phases, store, budget, say).run(rollback))

    def way_back(
        self, to: Named | None = None, *, key: str | None = None, state_dir: str | os.PathLike[str] | None = None
    ) -> Way:
        """Return what `rollback` would do; changes nothing."""
        record = self.store(key, state_dir).load()
        return way_back(record, point_of(record, to if to is None else _name_of(to)), self.phases)

    def store(self, key: str | None = None, state_dir: str | os.PathLike[str] | None = None) -> Store:
        """Return where an instance of the workflow keeps its state."""
        return Store(state_directory(state_dir), full_name(self.name, key))

    def _declaration(self, key: str | None) -> Declared:
        """Return what is declared by now. Raises `UsageError` for phases that cannot be put in order."""
        workspace = self.workspace if key is None or self.workspace is None else f"{self.workspace}@{key}"
        return Declared(self.name, self.phases, in_order(self.phases), self.params, workspace, self.file)

    def _known(self, phase: Named) -> str:
        name = _name_of(phase)
        if name not in self.phases:
            raise UsageError(f"there is no phase '{name}'; there are: {', '.join(self.phases)}")
        return name


def _interrupt(_number: int) -> None:
    raise KeyboardInterrupt


def _name_of(phase: Named) -> str:
    return phase.name if isinstance(phase, Phase) else phase


def _names_of(after: Named | Sequence[Named] | None) -> list[str] | None:
    if after is None:
        return None
    return [_name_of(after)] if isinstance(after, str | Phase) else [_name_of(each) for each in after]


def _check_options(name: str, options: Mapping[str, Any], *, items: Any) -> None:
    known = set(inspect.signature(process).parameters) - _NOT_FOR_PHASES
    wrong = sorted(set(options) - known)
    if wrong:
        raise UsageError(
            f"the phase '{name}' has the option '{wrong[0]}', which phases do not know; they know those of process()"
        )
    if options and items is None:
        raise UsageError(f"the phase '{name}' has '{next(iter(options))}', which is for phases with items=")


def _calling_file() -> str | None:
    """Return the file in which a workflow is declared, for messages; `None` for one that is typed in."""
    frame = sys._getframe(2)  # noqa: SLF001  # inspect.stack reads the sources of all frames
    path = frame.f_code.co_filename
    return os.path.relpath(path) if os.path.exists(path) else None
