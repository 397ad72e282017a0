"""What a run would do with each phase, and why."""

from __future__ import annotations

from typing import NamedTuple

from batchkit.workflow.phases import name_of
from batchkit.workflow.states import COMPLETED, FAILED, OVER, PAUSED, PENDING, RUNNING, SKIPPED, WAITING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchkit.workflow.phases import Phase
    from batchkit.workflow.record import FlowRecord, PhaseRecord


class Step(NamedTuple):
    """One phase of a plan.

    does: "run", "go on", "ask", "keep" (it is over), or "leave" (not asked for, or at work already). why: in words.
    """

    phase: str
    status: str
    does: str
    why: str


def steps_of(
    phases: Mapping[str, Phase],
    before: Mapping[str, list[str]],
    record: FlowRecord,
    wanted: set[str],
    *,
    running: bool,
) -> list[Step]:
    """Return the plan for the phases, in an order in which they could run."""
    steps = []
    for name in before:
        state = record.phases[name]
        does = _does(phases[name], state, wanted=name in wanted, running=running)
        steps.append(Step(name, state.status, does, _why(phases[name], state, before[name], record, does)))
    return steps


def _does(phase: Phase, state: PhaseRecord, *, wanted: bool, running: bool) -> str:
    if state.status in OVER:
        return "keep"
    if not wanted or (running and state.status == RUNNING):
        return "leave"
    if phase.kind == "gate":
        return "ask"
    return "run" if state.status == PENDING or phase.kind != "items" else "go on"


def _why(phase: Phase, state: PhaseRecord, before: list[str], record: FlowRecord, does: str) -> str:
    said = [_state_in_words(state, does)]
    open_ones = [name for name in before if record.phases[name].status not in OVER]
    if does not in {"keep", "leave"}:
        if open_ones:
            said.append(f"after {', '.join(open_ones)}")
        if state.order is None and phase.when is not None:
            said.append(f"only if '{name_of(phase.when)}' says so")
        said += [f"if '{name_of(check)}' holds" for check in phase.requirements]
        if phase.is_archived_before(state):
            said.append("with a snapshot first")
    if phase.has_changed(state):
        said.append("its code was changed since")
    return "; ".join(text for text in said if text)


def _state_in_words(state: PhaseRecord, does: str) -> str:
    if does == "leave":
        return "at work" if state.status == RUNNING else "not asked for"
    words = {
        COMPLETED: f"completed {state.completed}",
        SKIPPED: f"skipped: {state.reason}",
        RUNNING: "it was interrupted",
        PAUSED: "it was paused",
        FAILED: f"it failed: {state.error}",
        WAITING: "it waits for an answer",
    }
    return words.get(state.status, "")
