"""Steering a run from outside: what others ask of it stands in a file, at which the run looks now and then.

    request.json       {"claim", "stop": null | "soon" | "now", "extra": seconds}; of a slice slices/NNNNN.request.json

`claim` is the text of the lock of the run that it is meant for: others ignore it. It works across processes and hosts
that share the directory, needs no server, and a request that comes too late does nothing.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager, suppress
from typing import Any

from batchkit import files
from batchkit.errors import StorageError, UsageError
from batchkit.locks import held

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from batchkit.budget import Budget
    from batchkit.job import JobDirectory

_LOOK_EVERY = 0.2
_PATIENCE = 5.0
"""Seconds for which one who asks waits for others who do."""

REQUEST = "request"
"""The reason of a run that somebody asked to stop: see `result.reason_for_people`."""


class Listener:
    """Hears what is asked of a run, and lets its budget know."""

    def __init__(self, job: JobDirectory, claim: bytes, budget: Budget) -> None:
        """Listen for the run that holds the job by this claim."""
        self._path = _path(job)
        self._claim = claim.decode(errors="replace")
        self._budget = budget
        self._seen: bytes | None = None
        self._extra = 0.0

    def listen(self) -> None:
        """Look once, and do what is asked; where it cannot be read now, the next look may."""
        try:
            data = files.read_bytes(self._path)
        except StorageError:
            return
        if data == self._seen:
            return
        self._seen = data
        request = _request_in(data, self._claim)
        more, self._extra = request["extra"] - self._extra, request["extra"]
        if more:
            self._budget.extend(more)
        if request["stop"] is not None:
            self._budget.stop(REQUEST)
            self._budget.wake()
        if request["stop"] == "now":
            self._budget.leave()


@contextmanager
def listening(job: JobDirectory, budget: Budget) -> Iterator[None]:
    """Hear, in a thread, what is asked of the run in the block, which holds the job's lock."""
    listener, ended = Listener(job, job.claim(), budget), threading.Event()

    def listen() -> None:
        while not ended.wait(_LOOK_EVERY):
            listener.listen()

    thread = threading.Thread(target=listen, name="batchkit-listener", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        if os.path.exists(_path(job)):
            with suppress(StorageError):  # nobody heeds what is left: the next run has another claim
                files.remove(_path(job))


def ask(job: JobDirectory, *, stop: str | None = None, extra: float = 0.0) -> None:
    """Ask the run that holds a job, or a slice of it, to stop, "soon" or "now", or to go on for so many seconds more.

    Raises `UsageError` where nothing runs.
    """
    if not job.running():
        raise UsageError(f"the job '{job.name}' is not running; see: batchkit status {job.name}")
    for part in job.live_parts():
        claim = _claim_of(part)
        with held(f"{_path(part)}.lock", _PATIENCE):
            now = _request_in(files.read_bytes(_path(part)), claim)
            asked = {"claim": claim, "stop": stop or now["stop"], "extra": now["extra"] + extra}
            files.show(_path(part), json.dumps(asked).encode())


def granted(job: JobDirectory) -> float:
    """Return the seconds that the run at work was given beyond its limit; of slices the most that one was given."""
    parts = job.live_parts()
    return max(float(_request_in(files.read_bytes(_path(part)), _claim_of(part))["extra"]) for part in parts)


def _claim_of(part: JobDirectory) -> str:
    return part.claim().decode(errors="replace")


def _path(job: JobDirectory) -> str:
    return job.own("request.json")


def _request_in(data: bytes | None, claim: str) -> dict[str, Any]:
    """Return what is asked of the run with this claim; what is meant for another one asks nothing."""
    try:
        entry = json.loads(data or b"{}")
    except ValueError:
        entry = {}
    nothing = {"stop": None, "extra": 0.0}
    return {**nothing, **entry} if isinstance(entry, dict) and entry.get("claim") == claim else nothing
