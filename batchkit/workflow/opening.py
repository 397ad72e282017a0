"""Whether what is declared and what the state file says are the same workflow."""

from __future__ import annotations

import json
import os
from typing import Any

from batchkit import files
from batchkit.errors import DefinitionChanged, UsageError
from batchkit.job import names as job_names
from batchkit.workflow import snapshots
from batchkit.workflow.context import as_json
from batchkit.workflow.record import FlowRecord, PhaseRecord
from batchkit.workflow.rollback import remove_job
from batchkit.workflow.states import PENDING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batchkit.workflow.phases import Declared
    from batchkit.workflow.store import Store


def opened(flow: Declared, store: Store, given: dict[str, Any], key: str | None, *, dry: bool = False) -> FlowRecord:
    """Return the state of a workflow with all its phases in it; where it is new, store it.

    given: parameters of this call. dry: store nothing. Raises `UsageError` for what is wrong with the declaration,
    `DefinitionChanged` for what was another when the workflow began.
    """
    if not flow.phases:
        raise UsageError(f"the workflow '{flow.name}' has no phases; declare some: @flow.phase")
    if flow.workspace is not None:
        snapshots.check_workspace(flow.workspace, store.state_dir)
    unknown = sorted(set(given) - set(flow.params))
    if unknown:
        known = ", ".join(flow.params) or "none"
        raise UsageError(f"the workflow '{flow.name}' has no parameter '{unknown[0]}'; it has: {known}")
    record = store.find()
    shape = None if record is None else _shape(record)
    if record is None:
        store.refuse_lost()
        params = {name: as_json(value, f"the parameter '{name}'") for name, value in {**flow.params, **given}.items()}
        record = FlowRecord(flow.name, key, flow.file, params=params, given=given, workspace=flow.workspace)
    else:
        _refuse_changes(flow, store, record, given)
    _add_phases(flow, record)
    if dry:
        return record
    if flow.workspace is not None:
        files.make_directory(flow.workspace)
    if shape is None:
        store.create(record)
    elif shape != _shape(record):
        store.update(lambda stored: _add_phases(flow, stored))
    return record


def _shape(record: FlowRecord) -> list[Any]:
    return [(name, phase.kind, phase.after) for name, phase in record.phases.items()]


def _refuse_changes(flow: Declared, store: Store, record: FlowRecord, given: dict[str, Any]) -> None:
    now = {**flow.params, **record.given, **given}
    now = {name: as_json(value, f"the parameter '{name}'") for name, value in now.items()}
    for name in sorted(now.keys() | record.params.keys()):
        if now.get(name) != record.params.get(name) or (name in now) != (name in record.params):
            was, new = _shown(record.params, name), _shown(now, name)
            raise DefinitionChanged(
                f"the workflow '{store.name}' began with {name}={was}, and now it is {new}; give it as it was, run "
                f"another instance with --key KEY, or start over: batchkit workflow clean {store.name}"
            )
    if record.workspace != flow.workspace:
        raise DefinitionChanged(
            f"the workflow '{store.name}' began with the workspace '{record.workspace}', and now it is "
            f"'{flow.workspace}'; run it where it was begun, or start over: batchkit workflow clean {store.name}"
        )
    for name, phase in record.phases.items():
        if name not in flow.phases and phase.status != PENDING:
            added = [each for each in flow.phases if each not in record.phases]
            rename = f"batchkit workflow rename {store.name} {name} {added[0] if len(added) == 1 else 'NEW'}"
            raise DefinitionChanged(
                f"the phase '{name}' is {phase.status} and not in the file any more; if it was renamed: {rename}; if "
                f"it was removed: batchkit workflow reset {store.name} {name} --only"
            )
        kind = flow.phases[name].kind if name in flow.phases else phase.kind
        if kind != phase.kind and phase.status != PENDING:
            raise DefinitionChanged(
                f"the phase '{name}' is {phase.status} as a {phase.kind}, and now it is a {kind}; give it another name"
            )


def _shown(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "not there"


def _add_phases(flow: Declared, record: FlowRecord) -> None:
    """Bring the phases of the state into the order of the file; what is gone from that has never begun."""
    homes = {phase.home for phase in record.phases.values()}
    phases: dict[str, PhaseRecord] = {}
    for name in flow.before:
        phase = record.phases.get(name)
        if phase is None:
            home = next(each for each in _homes(name) if each not in homes)
            homes.add(home)
            phase = PhaseRecord(home=home)
        phase.kind, phase.after = flow.phases[name].kind, list(flow.before[name])
        phases[name] = phase
    record.phases = phases


def _homes(name: str) -> list[str]:
    return [name, *(f"{name}~{number}" for number in range(2, 100))]


def tidy(flow: Declared, store: Store, say: Callable[[str], None]) -> None:
    """Say what was changed in phases that are over, which changes nothing; remove what no phase has any more."""
    record = store.load()
    for name, phase in record.phases.items():
        if flow.phases[name].has_changed(phase):
            say(f"the code of '{name}' was changed since it was {phase.status}; it stays so: to run it again: "
                f"batchkit workflow reset {store.name} {name}")  # fmt: skip
    current = {phase.job for phase in record.phases.values()}
    for job in job_names(store.jobs):
        if job not in current:
            remove_job(store, job, say)
    archives = {point.archive for point in record.points}
    for name in os.listdir(store.snapshots):
        if name.removesuffix(".json") not in archives:  # of a run that was killed, or a point that is gone
            files.remove(os.path.join(store.snapshots, name))
