"""What the functions of a phase are given: parameters, results of others, questions, commands, a memory."""

from __future__ import annotations

import copy
import json
import os
import shlex
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from batchkit import files, programs
from batchkit.budget import seconds_of
from batchkit.commands import words_of
from batchkit.errors import CommandFailed, UsageError
from batchkit.existing import Job
from batchkit.workflow.record import Question, now
from batchkit.workflow.states import COMPLETED, REVERT_FAILED, REVERTING, SKIPPED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from batchkit.budget import Budget, Duration
    from batchkit.workflow.record import FlowRecord, PhaseRecord
    from batchkit.workflow.store import Store

LARGEST = 64_000
"""Bytes that a result may have as JSON: it stands in the state file, which is written anew at every step."""

_LAST_LINES = 5


class Waiting(BaseException):
    """Raised by a question that nobody has answered yet: not an error, so no `except Exception` may catch it."""


class Paused(BaseException):
    """Raised where a phase ends early because the run is to stop."""


class Context:
    """One phase of a run, as its functions see it. Can be sent to other processes, which cannot ask or stop.

    workflow: name, with the key of the instance. phase: name. params: the parameters of this instance.
    attempt: which start of the phase this is, from 1.
    """

    def __init__(self, store: Store, record: FlowRecord, phase: str, budget: Budget) -> None:
        """Know the store, and what does not change in a run."""
        self.workflow = record.name
        self.phase = phase
        self.params: Mapping[str, Any] = MappingProxyType(record.params)
        self._workspace = record.workspace
        self.attempt = record.phases[phase].attempts
        self._home = record.phases[phase].home
        self._store = store
        self._budget: Budget | None = budget
        self._own: list[Any] = []  # the result of this phase, once there is one

    def __getstate__(self) -> dict[str, Any]:
        """Leave behind what belongs to the process of the run."""
        return {**self.__dict__, "params": dict(self.params), "_budget": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be the same elsewhere."""
        self.__dict__.update({**state, "params": MappingProxyType(state["params"])})

    @property
    def workspace(self) -> Path:
        """The directory that snapshots keep. Raises `UsageError` if there is none."""
        if self._workspace is None:
            raise UsageError("there is no workspace; declare one: Workflow(..., workspace='DIR')")
        return Path(self._workspace)

    # What others did

    def __getitem__(self, phase: str) -> Any:
        """Return the result of another phase, a copy; `None` if it was skipped. Raises `UsageError` before it is done.

        Of a phase with items: {"done", "failed", "skipped", "output"}. Its checks and its undo see the phase's own.
        """
        if phase == self.phase and self._own:
            return copy.deepcopy(self._own[0])
        record = self._record_of(phase)
        if record.status not in {COMPLETED, SKIPPED, REVERTING, REVERT_FAILED}:
            raise UsageError(
                f"the phase '{phase}' is {record.status} and has no result yet; name it in after= of this one"
            )
        return record.result

    def keep(self, result: Any) -> None:
        """Let the checks of the phase see its result."""
        self._own = [result]

    def results(self, phase: str) -> Iterator[Any]:
        """Yield what the function of a phase with items returned, in the order of its items."""
        return Job(self._record_of(phase).job, self._store.jobs).results()

    def _record_of(self, phase: str) -> PhaseRecord:
        phases = self._store.load().phases
        if phase not in phases:
            raise UsageError(f"there is no phase '{phase}'; there are: {', '.join(phases)}")
        return phases[phase]

    # Questions

    def ask(self, key: str, prompt: str, choices: Sequence[str] | None = None) -> str:
        """Return the answer to a question; without one the phase ends here, and is called anew when there is one.

        The run goes on with what does not depend on the phase, and ends with exit code 6; on a terminal it asks there.
        key: names the question in this workflow. choices: the answers there are; `None`: any text. Durable: an answer
        is asked for once. What comes before the question in the function runs again: see `once`.
        """
        asked = self._store.load().questions.get(key)
        if asked is not None and asked.phase != self.phase:
            raise UsageError(f"the phase '{asked.phase}' asks '{key}' already; give the question another key")
        if asked is not None and asked.answer is not None:
            return asked.answer
        if self._budget is None:
            raise UsageError(
                f"'{key}' is not answered, and a worker cannot wait for that; ask in a phase before this one"
            )
        question = Question(self.phase, prompt, None if choices is None else [str(each) for each in choices])

        def remember(record: FlowRecord) -> str | None:
            known = record.questions.get(key)
            if known is None or known.answer is None:
                record.questions[key] = question
            return None if known is None else known.answer

        if asked != question:
            event = {"event": "asked", "phase": self.phase, "key": key, "prompt": prompt}
            if (answer := self._store.update(remember, event)) is not None:  # given meanwhile
                return answer
        raise Waiting(key)

    # Steps inside of a phase

    def once(self, key: str, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what the function returned when it was called first: a memo of this phase, which survives crashes.

        What it returns must be JSON, of at most 64 kB. It is durable on return; a crash in between calls it once more.
        """
        known = self._store.load().phases[self.phase].once
        if key in known:
            return known[key]
        value = as_json(function(*args, **kwargs), f"what '{key}' of the phase '{self.phase}' returned")

        def remember(record: FlowRecord) -> None:
            record.phases[self.phase].once[key] = value

        self._store.update(remember)
        return value

    def run(
        self,
        command: str | Sequence[str | os.PathLike[str]],
        *,
        shell: bool = False,
        output: str | os.PathLike[str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        timeout: Duration | None = None,
    ) -> str:
        """Run a command to its end and return what it printed; the phase's log has that, too, and standard error.

        command: text, split into words as a shell would, or the words. shell: give the text to `sh -e` instead, for
        pipes. output: a file for what it prints, which appears whole when the command has succeeded. cwd: where it
        runs; `None`: here. env: variables beside ours. timeout: seconds, or such as "10m"; `None`: no limit.
        Raises `CommandFailed` with its last lines for another status than 0; `TimeoutError`.
        """
        words = _words_of(command, shell=shell)
        text = command if isinstance(command, str) else shlex.join(words)
        self.log(f"$ {text}")
        try:
            ended = self._ran(words, output, cwd, env, seconds_of(timeout, "timeout"))
        except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
            raise CommandFailed(f"cannot run '{words[0]}': {error.strerror}: '{error.filename}'") from error
        if ended.status != 0:
            said = (ended.err.strip() or ended.out.strip()).decode(errors="replace")
            last = "\n".join(said.splitlines()[-_LAST_LINES:])
            how = f"was killed by signal {-ended.status}" if ended.status < 0 else f"ended with status {ended.status}"
            raise CommandFailed(f"'{text}' {how}{f': {last}' if last else ''}", status=ended.status, stderr=said)
        if output is not None:
            files.sync_file(_aside(output))
            files.rename(_aside(output), os.path.abspath(output))
        return ended.out.decode(errors="replace")

    def _ran(
        self,
        words: Sequence[str],
        output: str | os.PathLike[str] | None,
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str] | None,
        timeout: float | None,
    ) -> programs.Ended:
        programs.hear_children()
        with ExitStack() as stack:
            log = stack.enter_context(open(self._store.log_path(self._home), "ab", buffering=0))
            into = None if output is None else stack.enter_context(open(_aside(output), "wb"))
            return programs.run(
                [os.fsencode(word) for word in words],
                env=None
                if env is None
                else {**os.environb, **{os.fsencode(k): os.fsencode(v) for k, v in env.items()}},
                timeout=timeout,
                cwd=None if cwd is None else os.fspath(cwd),
                into=None if into is None else into.fileno(),
                heard=log.write,
            )

    def log(self, text: str) -> None:
        """Write a line into the phase's log: `batchkit workflow log NAME PHASE` shows it."""
        self._store.log(self._home, f"{now()} {text}\n")

    # Stopping

    @property
    def stopping(self) -> bool:
        """Whether the run is to stop: by a budget, a signal or a request."""
        return self._budget is not None and not self._budget.go_on()

    def stop_if_asked(self) -> None:
        """End the phase here if the run is to stop; it is paused then, and called anew in the next run."""
        if self.stopping:
            raise Paused


def as_json(value: Any, what: str) -> Any:
    """Return a value as it is when it comes back from JSON. Raises `UsageError` for what is not that, or too large."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{what} cannot be kept: {error}; return plain values such as str(path), or store it in a file"
        ) from None
    if len(text) > LARGEST:
        raise UsageError(
            f"{what} has {len(text):,} bytes, more than {LARGEST:,}; store it in a file and return its path"
        )
    return json.loads(text)


def _words_of(command: str | Sequence[str | os.PathLike[str]], *, shell: bool) -> list[str]:
    if not isinstance(command, str):
        if shell:
            raise UsageError("shell=True takes the command as one text")
        return [os.fspath(word) for word in command]
    if shell:
        return ["/bin/sh", "-ec", command]
    return words_of(command, instead="give shell=True")


def _aside(output: str | os.PathLike[str]) -> str:
    """Return where a command's output gathers until it is whole."""
    return os.path.abspath(output) + ".new"
