"""The directory of a workflow.

<state directory>/<workflow> or <workflow>@<key>/
  workflow.json    the only truth, see `record.py`: replaced whole and durably, before a phase begins and after it ended
  workflow.lock    held while that is read, changed and replaced: answers come while a run is at work
  lock             held for the whole run, or rollback
  events.jsonl     what happened, a line per change, for people: nothing is read from it
  stop             present: somebody asked the run to stop
  logs/NAME.log    what the commands of a phase printed, and its errors
  phases/NAME/     the job of a phase with items, see `job.py`
  snapshots/       archives of the workspace, see `snapshots.py`
"""

from __future__ import annotations

import json
import math
import os
import traceback
from contextlib import contextmanager, suppress
from typing import Any

from batchkit import files
from batchkit.errors import DamageError, JobLocked, UsageError
from batchkit.job import check_name, names as directories_with
from batchkit.locks import held, holder
from batchkit.workflow.record import FORMAT, START, FlowRecord, now
from batchkit.workflow.states import MOVES, check_move

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

_PATIENCE = 1.0
"""Seconds for which the lock is tried: somebody may only be looking at it."""

FILE = "workflow.json"


def full_name(name: str, key: str | None) -> str:
    """Return the name of one instance of a workflow. Raises `UsageError` for one that cannot be a directory's."""
    if "@" in name:
        raise UsageError(f"the workflow's name {name!r} has a '@', which stands before the key of an instance")
    if key == "":
        raise UsageError("the key of an instance is empty; give one, or leave --key out")
    return check_name(name if key is None else f"{name}@{key}", "workflow")


def check_point_name(name: str, what: str) -> None:
    """Refuse a name that a phase or a snapshot, whose files have it, cannot have. Raises `UsageError`."""
    if "@" in name:
        raise UsageError(f"the {what} name {name!r} has a '@', which stands before a number in the names of its files")
    if name == START:
        raise UsageError(f"the {what} name '{START}' means the point before everything; give another one")
    check_name(name, what)


class Store:
    """One workflow on disk."""

    def __init__(self, state_dir: str, name: str) -> None:
        """Name the directory; nothing is touched. name: with the key, if there is one."""
        self.name = check_name(name, "workflow")
        self.state_dir = os.path.abspath(state_dir)
        self.path = os.path.join(self.state_dir, name)
        self.jobs = self.file("phases")
        self.snapshots = self.file("snapshots")

    def file(self, name: str) -> str:
        """Return the path of a file in it."""
        return os.path.join(self.path, name)

    def log_path(self, home: str) -> str:
        """Return the path of a phase's log."""
        return self.file(f"logs/{home}.log")

    def make(self) -> None:
        """Make the directories; durable on return."""
        if os.path.exists(self.file("job.json")):
            raise UsageError(f"'{self.path}' is the directory of a job; give the workflow another name")
        files.make_directory(self.state_dir, 0o700)
        files.refuse_shared_directory(self.state_dir)
        for path in (self.path, self.jobs, self.snapshots, self.file("logs")):
            files.make_directory(path, 0o700)

    # The state

    def find(self) -> FlowRecord | None:
        """Return how the workflow stands; `None` if it has never begun. Raises `DamageError`."""
        path = self.file(FILE)
        data = files.read_bytes(path)
        if data is None:
            return None
        try:
            entry = json.loads(data)
            known = entry["format"]
        except (ValueError, TypeError, KeyError):
            raise _unreadable(path) from None
        if known != FORMAT:
            raise DamageError(
                f"'{path}' has the format {known!r}, and this batchkit knows {FORMAT}; use the one that wrote it"
            )
        try:
            if not all(phase["status"] in MOVES for phase in entry["phases"].values()):
                raise _unreadable(path)
            return FlowRecord.of_json(entry)
        except (TypeError, KeyError, AttributeError):
            raise _unreadable(path) from None

    def load(self) -> FlowRecord:
        """Return how the workflow stands. Raises `UsageError` if it has never begun, `DamageError`."""
        record = self.find()
        if record is None:
            known = ", ".join(names(self.state_dir)) or "none"
            raise UsageError(f"there is no workflow '{self.name}' in '{self.state_dir}'; workflows there: {known}")
        return record

    def refuse_lost(self) -> None:
        """Raise `DamageError` where the state is gone and what it spoke of is there."""
        if os.path.exists(self.file("events.jsonl")) and not os.path.exists(self.file(FILE)):
            raise DamageError(
                f"'{self.file(FILE)}' is gone, and what it spoke of is there; put it back, or remove '{self.path}' to "
                "start from the beginning"
            )

    def create(self, record: FlowRecord) -> None:
        """Store the first state; durable on return."""
        with self._guarded():
            self._save(record)
        self.note({"event": "created", "workflow": self.name})

    def update(self, change: Callable[[FlowRecord], T], event: dict[str, Any] | None = None) -> T:
        """Change the state and store it, durable on return; others do so in their turn. Raises for illegal moves.

        event: what happened, for people, beside the moves of phases.
        """
        with self._guarded():
            record = self.load()
            before = {name: phase.status for name, phase in record.phases.items()}
            done = change(record)
            moves = [(name, before.get(name, phase.status), phase) for name, phase in record.phases.items()]
            for name, old, phase in moves:
                check_move(name, old, phase.status)
            self._save(record)
        if event is not None:
            self.note(event)
        for name, old, phase in moves:
            if old != phase.status:
                why = phase.error or phase.reason
                self.note({"phase": name, "from": old, "to": phase.status, **({"why": why} if why else {})})
        return done

    def _save(self, record: FlowRecord) -> None:
        record.updated = now()
        files.replace(self.file(FILE), _encoded(record.as_json(), indent=1))

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        with held(self.file("workflow.lock"), math.inf, signed=False):
            yield

    # For people

    def note(self, entry: dict[str, Any]) -> None:
        """Append a line to the events, if that can be done. Not synced: nothing depends on it."""
        path = self.file("events.jsonl")
        line = _encoded({"time": now(), **entry})
        with suppress(OSError), open(path, "ab", buffering=0) as file:
            if file.tell() and not _ends_a_line(path):
                line = b"\n" + line
            file.write(line)

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what happened; torn lines are passed over."""
        for line in (files.read_bytes(self.file("events.jsonl")) or b"").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict):
                yield entry

    def log(self, home: str, text: str) -> None:
        """Append to a phase's log, if that can be done: nothing depends on it."""
        with suppress(OSError), open(self.log_path(home), "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)

    def log_error(self, phase: str, what: str, error: BaseException) -> None:
        """Append to a phase's log what went wrong, with the traceback."""
        text = "".join(traceback.format_exception(error))
        self.log(self.load().phases[phase].home, f"{now()} {what}\n{text}")

    # Runs

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the workflow. Raises `JobLocked`, naming the holder."""
        path = self.file("lock")
        with held(path, _PATIENCE) as got:
            if not got:
                raise JobLocked(
                    f"the workflow '{self.name}' is being run by {holder(path)}; wait for it, or: "
                    f"batchkit workflow stop {self.name}"
                )
            yield

    def running(self) -> bool:
        """Tell whether a run or a rollback is at work now."""
        if not os.path.exists(self.file("lock")):
            return False
        with held(self.file("lock"), 0) as got:
            return not got

    def ask_to_stop(self) -> None:
        """Ask the run to stop."""
        files.show(self.file("stop"), b"")

    def asked_to_stop(self) -> bool:
        """Tell whether somebody has asked."""
        return os.path.exists(self.file("stop"))

    def pass_request_on(self, stop: Callable[[str], None]) -> None:
        """Stop a run if somebody has asked; its watch calls this now and then."""
        if self.asked_to_stop():
            stop("request")

    def forget_request(self) -> None:
        """Remove the request: it was for the run before."""
        files.remove(self.file("stop"))

    def remove(self) -> None:
        """Remove all of it, the state behind what it speaks of: what was cut off is removed by the next call."""
        for path in (self.jobs, self.snapshots, self.file("logs")):
            files.remove_tree(path)
        files.remove(self.file("events.jsonl"))
        files.remove(self.file(FILE))
        files.remove_tree(self.path)
        files.sync_directory(self.state_dir)


def names(state_dir: str) -> list[str]:
    """Return the names of the workflows in a state directory, sorted."""
    return directories_with(state_dir, FILE)


def _encoded(entry: dict[str, Any], indent: int | None = None) -> bytes:
    """Return JSON as people read it, with escapes where it holds halves of characters, as names of files may."""
    try:
        return json.dumps(entry, indent=indent, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(entry, indent=indent).encode() + b"\n"


def _unreadable(path: str) -> DamageError:
    return DamageError(f"'{path}' is not readable; put back a copy, nothing is run from the beginning without it")


def _ends_a_line(path: str) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
