"""The directory of a job: manifest, lock, plan, history of runs, log of publishing, derived status.

    <state directory>/<job>/
      job.json                 the manifest, format 2: who the job is and what defines it
      plan.json                format 1: {"format", "job": "<uuid>", "shards": [[number, start, stop, items before it]]}
      lock                     a kernel lock, held for the whole run; its text (pid, host, since) is for messages only
      runs.jsonl               one JSON line at the start of a run and one at its end
      publish.jsonl            see `writers/output.py`; lines as in a journal
      shards/NNNNN.jsonl       the journals; see `journal.py`
      shards/NNNNN.failures.jsonl  the items that failed; see `failure_file.py`
      shards/NNNNN.lock        held by whoever may write that shard
      retries/NNNNN/           a job each: the failures, run again; see `rounds.py`

    and while several workers are at it

      request.json             what others ask of the run; see `steering.py`
      stop                     {"run", "reason"}: the workers of that run are to stop
      plan.lock                held by whoever changes the plan
      quota.json               items and batches that may still be done; see `quota.py`
      shards/NNNNN.wanted      somebody asks for the rest of that shard; see `sharing.py`
      shards/NNNNN.deadly      workers died on it; see `pool.py`

Nothing in it says "running": the lock is the kernel's and dies with its process.
"""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from contextlib import contextmanager
from itertools import chain, count
from typing import Any, NamedTuple

from batchkit import files, journal
from batchkit.errors import DamageError, JobLocked, UsageError
from batchkit.locks import held, holder, lease_holder, lease_looks_held, leased, pid_in
from batchkit.model import Checkpoint, Shard, Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

STATE_DIR = ".batchkit"
FORMAT = 2
PLAN_FORMAT = 1
LOCK_PATIENCE = 1.0
"""Seconds for which a starting run tries the job's lock, so that a `status` looking at it cannot turn it away."""

SHARD_PATIENCE = 10.0
"""Seconds for which a resume waits for the lock of a shard that a worker of a dead run may still hold."""


SLICE_PATIENCE = 60.0
"""Seconds for which a run of a slice tries the job's lock, which the others hold for moments."""


class Slice(NamedTuple):
    """One of several parts of a job, from 1, that different hosts work on at once.

    The shards of a slice are those whose numbers leave `number - 1` when divided by `of`, their count: so each slice
    can make new ones without asking the others.
    """

    number: int
    of: int

    def __str__(self) -> str:
        """Return it as it is given."""
        return f"{self.number}/{self.of}"

    def has(self, shard: int) -> bool:
        """Tell whether a shard is of this slice."""
        return shard % self.of == self.number - 1


class Manifest(NamedTuple):
    """What `job.json` and `plan.json` say.

    job: the uuid, new whenever the job starts over. ready: whether journals and parts were made. definition: what may
    not change between runs. fingerprint: the reader's; replace: whether the output may replace a file that stands
    there. plan: the shards, in input order; empty before `ready`. options: of the last run, for `retry`.
    """

    job: str
    name: str
    created: float
    ready: bool
    definition: dict[str, Any]
    fingerprint: Any
    output: str | None
    replace: bool
    plan: list[Shard]
    options: dict[str, Any] | None = None
    slices: int = 1


def new_manifest(  # keyword-only fields of one value
    *, name: str, definition: dict[str, Any], fingerprint: Any, output: str | None, replace: bool, plan: list[Shard]
) -> Manifest:
    """Return the manifest of a job that begins now."""
    begun: dict[str, Any] = {"job": uuid.uuid4().hex, "created": time.time(), "ready": False}
    return Manifest(
        **begun, name=name, definition=definition, fingerprint=fingerprint, output=output, replace=replace, plan=plan
    )


class Status(NamedTuple):
    """How a job stands; every field is derived when asked for.

    status: new, running, paused, completed or failed. reason: why the last run ended, or who runs it now; `None` if
    there is nothing to say. done, failed, skipped: items in all runs. total: items of the job, `None` while unknown.
    output: the file with the results, `None` if they were printed. updated: seconds since the epoch of the last commit;
    `None` before the first. runs: runs begun. share: how much of the input is done, 0 to 1; `None` if unknown.
    """

    job: str
    status: str
    reason: str | None
    done: int
    failed: int
    skipped: int
    total: int | None
    output: str | None
    updated: float | None
    runs: int
    share: float | None


def check_name(name: str, what: str = "job") -> str:
    """Return the name of a job, or of something else, if it can be one. Raises `UsageError`.

    Names never lead out of the state directory.
    """
    bad = not name or name[0] in "-." or len(name.encode()) > 200  # noqa: PLR2004  # file systems end at 255
    if bad or any(char in '/\\:*?"<>|' or not char.isprintable() for char in name):
        raise UsageError(
            f"the {what} name {name!r} cannot be used; give a plain name without separators, such as 'load'"
        )
    return name


class JobDirectory:
    """One job on disk."""

    def __init__(self, state_dir: str, name: str, part: Slice | None = None) -> None:
        """Name the directory; nothing is touched. part: the slice that this run works on; `None`: on the whole job."""
        self.name = check_name(name)
        self.state_dir = os.path.abspath(state_dir)
        self.path = os.path.join(self.state_dir, name)
        self.part = part

    def _file(self, name: str) -> str:
        return os.path.join(self.path, name)

    def own(self, name: str) -> str:
        """Return the path of a file that each slice has for itself."""
        return self._file(name if self.part is None else f"slices/{self.part.number:05d}.{name}")

    def has(self, shard: int) -> bool:
        """Tell whether this run may work on a shard."""
        return self.part is None or self.part.has(shard)

    def shard_path(self, number: int) -> str:
        """Return the path of a shard's journal."""
        return self._file(f"shards/{number:05d}.jsonl")

    def make(self) -> None:
        """Make the directories; durable on return. Refuses a state directory that others may write into."""
        files.make_directory(self.state_dir, 0o700)
        files.refuse_shared_directory(self.state_dir)
        files.make_directory(self.path, 0o700)
        files.make_directory(self._file("shards"), 0o700)
        if self.part is not None:
            files.make_directory(self._file("slices"), 0o700)

    # The manifest

    def load(self) -> Manifest | None:
        """Return the manifest; `None` if the job does not exist. Raises `DamageError`."""
        entry = self._load("job.json", FORMAT)
        if entry is None:
            return None
        return Manifest(**entry, plan=self.load_plan(entry["job"], entry.get("slices", 1)) if entry["ready"] else [])

    def load_plan(self, job: str, slices: int) -> list[Shard]:
        """Return the shards of the job with this uuid, in input order. Raises `DamageError`."""
        return list(chain.from_iterable(self._slice_of_plan(job, Slice(at, slices)) for at in range(1, slices + 1)))

    def load_own_plan(self, job: str, slices: int) -> list[Shard]:
        """Return those of them that this run may work on."""
        return self.load_plan(job, slices) if self.part is None else self._slice_of_plan(job, self.part)

    def _slice_of_plan(self, job: str, part: Slice) -> list[Shard]:
        name = _plan_name(part)
        entry = self._load(name, PLAN_FORMAT)
        if entry is None or entry["job"] != job:
            raise DamageError(f"'{self._file(name)}' is gone or of another start of the job; --restart starts over")
        return [Shard(number, Span(start, stop), first) for number, start, stop, first in entry["shards"]]

    def _load(self, name: str, known: int) -> dict[str, Any] | None:
        path = self._file(name)
        data = files.read_bytes(path)
        if data is None:
            return None
        try:
            entry = json.loads(data)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or "format" not in entry:
            raise DamageError(f"'{path}' is not readable; put back a copy, or remove the job: batchkit rm {self.name}")
        if entry.pop("format") != known:
            raise DamageError(f"'{path}' has another format than {known}; use the batchkit that wrote it")
        return entry

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest, all but the plan; durable on return."""
        entry = {"format": FORMAT, **manifest._asdict()}
        del entry["plan"]
        files.replace(self._file("job.json"), json.dumps(entry, indent=1).encode() + b"\n")

    def save_plan(self, job: str, slices: int, plan: Sequence[Shard], only: Iterable[int] | None = None) -> None:
        """Replace the plan of the job with this uuid; durable on return.

        only: shards of the slices that were changed; `None`: all may be.
        """
        changed = range(slices) if only is None else {number % slices for number in only}
        for part in (Slice(number + 1, slices) for number in changed):
            shards = [[shard.number, *shard.span, shard.first] for shard in plan if part.has(shard.number)]
            entry = {"format": PLAN_FORMAT, "job": job, "shards": shards}
            files.replace(self._file(_plan_name(part)), json.dumps(entry).encode() + b"\n")

    # Locks

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the job's lock; of a whole job its slices, too. Raises `JobLocked`, naming the holder."""
        path = self._file("lock")
        with held(path, LOCK_PATIENCE if self.part is None else SLICE_PATIENCE) as got:
            if not got:
                raise JobLocked(f"the job '{self.name}' is being run by {holder(path)}; wait for it or stop it")
            if self.part is None:
                self._refuse_live_slices()
            yield

    def _refuse_live_slices(self) -> None:
        """Refuse to work on a job while others work on parts of it."""
        for path in self._leases():
            with leased(path, _nothing, _nothing) as got:
                if not got:
                    raise JobLocked(
                        f"slice {_number_in(path)} of the job '{self.name}' is being run by {lease_holder(path)}; "
                        "wait for it or stop it"
                    )

    def _leases(self) -> list[str]:
        directory = self._file("slices")
        names = os.listdir(directory) if os.path.isdir(directory) else []
        return [os.path.join(directory, name) for name in sorted(names) if name.endswith(".lease")]

    @contextmanager
    def slice_locked(self, lost: Callable[[], None], say: Callable[[str], None]) -> Iterator[bool]:
        """Hold the slice of this run; yield whether its last run ended without giving it back. Raises `JobLocked`.

        lost: called in a thread if another host took it: see `locks.leased`.
        """
        path, mark = self.own("lease"), self.own("held")
        with leased(path, lost, say) as got:
            if not got:
                raise JobLocked(f"slice {self.part} of the job '{self.name}' is being run by {lease_holder(path)}")
            left = os.path.exists(mark)
            files.show(mark, b"")
            try:
                yield left
            finally:
                files.remove(mark)

    @contextmanager
    def shard_locked(self, number: int) -> Iterator[None]:
        """Hold a shard's lock, waiting for a worker that outlived its run. Raises `JobLocked`."""
        path = self._shard_lock(number)
        with held(path, SHARD_PATIENCE) as got:
            if not got:
                raise JobLocked(f"shard {number} of the job '{self.name}' is still held by {holder(path)}")
            yield

    def await_workers(self, plan: Sequence[Shard]) -> None:
        """Wait until nobody works on our shards: workers may outlive their run by a moment. Raises `JobLocked`."""
        for shard in plan:
            if self.has(shard.number) and os.path.exists(self._shard_lock(shard.number)):
                with self.shard_locked(shard.number):
                    pass

    @contextmanager
    def shard_taken(self, number: int) -> Iterator[bool]:
        """Try to hold a shard's lock; yield whether it is held, or somebody else works on the shard."""
        with held(self._shard_lock(number), 0, signed=True) as got:
            yield got

    def worker_of(self, number: int) -> int | None:
        """Return the process that works on a shard, or did last; `None` if nobody knows."""
        return pid_in(self._shard_lock(number))

    def _shard_lock(self, number: int) -> str:
        return self._file(f"shards/{number:05d}.lock")

    @contextmanager
    def plan_locked(self) -> Iterator[None]:
        """Hold what whoever changes the plan holds while it does."""
        with held(self.own("plan.lock"), math.inf):
            yield

    def deadly(self, number: int) -> int | None:
        """Return behind which commit of a shard workers died in this run; `None`: none did."""
        data = files.read_bytes(self._file(f"shards/{number:05d}.deadly"))
        return None if data is None else int(json.loads(data)["seq"])

    def note_deadly(self, number: int, seq: int) -> None:
        """Note behind which commit of a shard workers died."""
        files.show(self._file(f"shards/{number:05d}.deadly"), json.dumps({"seq": seq}).encode())

    def clear_requests(self) -> None:
        """Remove what an earlier run left for its workers."""
        directory = self._file("shards")
        with files.naming("read", directory):
            left = [entry.path for entry in os.scandir(directory) if entry.name.endswith((".wanted", ".deadly"))]
            left = [path for path in left if self.has(_number_in(path))]
        for path in [*left, self.own("stop")]:
            files.remove(path)

    def claim(self) -> bytes:
        """Return what is another text as soon as another run holds the job, or the slice; workers look at it."""
        if self.part is None:
            return files.read_bytes(self._file("lock")) or b""
        lines = (files.read_bytes(self.own("lease")) or b"").splitlines()
        return b"".join(line for line in lines if line.startswith(b"token="))

    def live_parts(self) -> list[JobDirectory]:
        """Return what is worked on now, if anything is: the slices, each by itself, or the whole job."""
        held_ones = [_number_in(path) for path in self._leases() if lease_looks_held(path)]
        if not held_ones:
            return [self]
        manifest = self.load()
        of = max(held_ones) if manifest is None else manifest.slices
        return [JobDirectory(self.state_dir, self.name, Slice(number, of)) for number in held_ones]

    # Requests to stop

    def ask_to_stop(self, run: int, reason: str) -> None:
        """Ask the workers of a run to stop; others ignore it."""
        files.show(self.own("stop"), json.dumps({"run": run, "reason": reason}).encode())

    def asked_to_stop(self, run: int) -> str | None:
        """Return why the workers of a run are to stop; `None` if they are not."""
        data = files.read_bytes(self.own("stop"))
        entry = {} if data is None else json.loads(data)
        reason: str | None = entry.get("reason") if entry.get("run") == run else None
        return reason

    def running(self) -> bool:
        """Tell whether a run holds the job or a slice now."""
        if any(map(lease_looks_held, self._leases())):
            return True
        if not os.path.exists(self._file("lock")):
            return False
        with held(self._file("lock"), 0) as got:
            return not got

    def holder(self) -> str:
        """Return who holds the lock, or held it last, for messages."""
        leases = [path for path in self._leases() if lease_looks_held(path)]
        if leases:
            slices = ", ".join(str(_number_in(path)) for path in leases)
            return f"{lease_holder(leases[0])}{' and others' if len(leases) > 1 else ''} (slices {slices})"
        return holder(self._file("lock"))

    def clean(self) -> None:
        """Remove requests to workers, and of a whole job what a cut-off replacement left; only under the lock."""
        self.clear_requests()
        if self.part is not None:
            return
        for directory in filter(os.path.isdir, (self.path, self._file("shards"), self._file("slices"))):
            with files.naming("read", directory):
                left = [entry.path for entry in os.scandir(directory) if entry.name.endswith(".new")]
            for path in left:
                files.remove(path)

    # History

    def runs(self) -> list[dict[str, Any]]:
        """Return the entries of `runs.jsonl`, for a whole job those of its slices, too; torn lines are passed over."""
        paths = [self.own("runs.jsonl")]
        if self.part is None and os.path.isdir(self._file("slices")):
            names = sorted(os.listdir(self._file("slices")))
            paths += [self._file(f"slices/{name}") for name in names if name.endswith(".runs.jsonl")]
        entries = []
        for line in chain.from_iterable((files.read_bytes(path) or b"").splitlines() for path in paths):
            try:
                entries.append(json.loads(line))
            except ValueError:
                continue
        known = [entry for entry in entries if isinstance(entry, dict)]
        return (
            known
            if len(paths) == 1
            else sorted(known, key=lambda entry: float(entry.get("end", entry.get("start", 0))))
        )

    def record_run(self, entry: dict[str, Any]) -> None:
        """Append a line to `runs.jsonl`. For people: nothing depends on it, so it is not synced."""
        part = {} if self.part is None else {"slice": str(self.part)}
        _append_line(self.own("runs.jsonl"), json.dumps({**entry, **part}).encode() + b"\n", sync=False)

    def publish_log(self, job: str) -> PublishLog:
        """Return the log of publishing of the job with this uuid."""
        return PublishLog(self._file("publish.jsonl"), job)

    def may_replace(self, manifest: Manifest) -> bool:
        """Tell whether the file under the job's output name is its own, or one it was allowed to replace."""
        return manifest.replace or self.publish_log(manifest.job).done() is not None

    def reset(self, manifest: Manifest) -> None:
        """Forget what was done; durable on return."""
        self.save(manifest._replace(ready=False, replace=self.may_replace(manifest)))

    # Looking

    def commits(self, manifest: Manifest) -> list[Checkpoint | None]:
        """Return the newest commit of each shard, for looking only."""
        return [journal.newest(self.shard_path(shard.number)) for shard in manifest.plan]

    def remove(self) -> None:
        """Remove the job's directory; its output stays."""
        files.remove_tree(self.path)
        files.sync_directory(self.state_dir)


class PublishLog:
    """The entries of `publish.jsonl` that belong to one job uuid."""

    def __init__(self, path: str, job: str) -> None:
        """Name the file."""
        self._path = path
        self._job = job

    def last(self) -> dict[str, Any] | None:
        """Return the newest proved entry; `None` if there is none."""
        last = None
        for line in (files.read_bytes(self._path) or b"").split(b"\n"):
            entry = journal.decode(line)
            if entry is not None and entry.get("job") == self._job:
                last = entry
        return last

    def settle(self) -> None:
        """Make durable what a killed run left; what is found may be only in the page cache."""
        if os.path.exists(self._path):
            files.sync_file(self._path)
            files.sync_directory(os.path.dirname(self._path))

    def done(self) -> dict[str, Any] | None:
        """Return the newest `done` entry: what is published, and not to be joined again; `None` if nothing is."""
        last = self.last() or {}
        done: dict[str, Any] | None = last if last.get("state") == "done" else last.get("done")
        return done

    def ever(self) -> set[str]:
        """Return the files that the job has ever published, before it started over, too."""
        entries = [journal.decode(line) for line in (files.read_bytes(self._path) or b"").split(b"\n")]
        done = [entry for entry in entries if entry is not None and entry.get("state") == "done"]
        return {facts["path"] for entry in done for facts in entry["files"]}

    def write(self, entry: dict[str, Any]) -> None:
        """Append an entry; durable on return."""
        _append_line(self._path, journal.encode({"format": FORMAT, "job": self._job, **entry}), sync=True)


def _append_line(path: str, line: bytes, *, sync: bool) -> None:
    """Append a line behind whatever a crash left: after a torn end it begins a new line."""
    torn = not (files.read_bytes(path) or b"\n").endswith(b"\n")
    file = files.AppendFile(path, files.size(path) or 0)
    try:
        file.append(b"\n" + line if torn else line)
        if sync:
            file.sync()
    finally:
        file.close()
    if sync:  # also where the file was there already: its name may be only in the page cache of a killed run
        files.sync_directory(os.path.dirname(path))


def _number_in(path: str) -> int:
    """Return the number of the slice or shard that a file is named by."""
    return int(os.path.basename(path).partition(".")[0])


def free_numbers(known: Iterable[int], number: int, slices: int) -> Iterator[int]:
    """Yield numbers that no shard has, in the slice of the shard with this number. known: those of all shards."""
    return count(max(each for each in known if each % slices == number % slices) + slices, slices)


def _plan_name(part: Slice) -> str:
    return "plan.json" if part.of == 1 else f"slices/{part.number:05d}.plan.json"


def _nothing(*_: object) -> None:
    """Do nothing."""


def names(state_dir: str, file: str = "job.json") -> list[str]:
    """Return the names of the jobs in a state directory, sorted. file: what each of them has, and nothing else."""
    with files.naming("read", state_dir):
        try:
            entries = [entry.name for entry in os.scandir(state_dir) if entry.is_dir()]
        except FileNotFoundError:
            return []
    return sorted(name for name in entries if os.path.exists(os.path.join(state_dir, name, file)))


def state_directory(given: str | os.PathLike[str] | None) -> str:
    """Return the state directory: the one given, $BATCHKIT_STATE_DIR, or `.batchkit` here."""
    return os.path.abspath(given or os.environ.get("BATCHKIT_STATE_DIR") or STATE_DIR)
