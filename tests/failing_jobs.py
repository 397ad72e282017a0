"""A small job in which items fail, to be run, retried, killed and looked at: what tests/test_failure_crashes.py breaks.

Of its items some fail for good, some are dropped on purpose, one cannot be read, and some have no result. Two rounds
over the failures mend most of them: the first and the last item among them, and two that stand side by side.
"""

from __future__ import annotations

import re
import shutil
import signal
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

import batchkit
from batchkit import journal
from batchkit.rounds import rounds_of
from tests.kernels import CHANGING, Failing, Hooked, Killing, Recording, Unsynced, installed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from batchkit.files import Kernel
    from tests.children import Nursery

ITEMS = 48
UNREADABLE = 30
DROPPED = {11, 29}
SILENT = {3, 22}
"""Items without a result."""

BAD = frozenset({0, 5, 6, 23, 41, 47})
BROKEN = {"process": BAD, "first": BAD - {0, 6, 47}, "second": frozenset({23})}
"""Items that fail in a run of the job, and in the first and second round over its failures."""


class Step(NamedTuple):
    """A run of the job: "process", or a round, "first" or "second", with further options."""

    what: str
    options: tuple[tuple[str, Any], ...] = ()


PROCESS = Step("process")
PAUSED = Step("process", (("max_items", 33),))
"""In the middle of the job, with four failures behind it and more to come."""

FIRST = Step("first")
SECOND = Step("second")


class Told(NamedTuple):
    """All that a job has to tell: its results as another program reads them, its failures, its counts."""

    results: Any
    failures: Sequence[tuple[Any, ...]]
    counts: tuple[str, int, int, int]


class FailingJob:
    """A job over an output by its name; may be pickled.

    small_journals: whether journals are renewed after every few commits.
    """

    def __init__(self, directory: Path, output: str, *, small_journals: bool = False, **options: Any) -> None:
        """Write the source, beside the directory."""
        self.directory = directory
        self.output = directory / output.rstrip("/")
        self.source = directory.parent / "items.txt"
        self._name = output
        self._small_journals = small_journals
        self._options = options
        self._saved = directory.parent / "saved"
        self.clear()

    def clear(self) -> None:
        """Begin with an empty directory and all items."""
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir()
        lines = [b"\xff\xfe" if number == UNREADABLE else b"%d" % number for number in range(ITEMS)]
        self.source.write_bytes(b"".join(line + b"\n" for line in lines))

    def save(self) -> None:
        """Remember the directory as it is, for `restore`."""
        shutil.rmtree(self._saved, ignore_errors=True)
        shutil.copytree(self.directory, self._saved)

    def restore(self) -> None:
        """Make the directory again what it was when it was saved, with the times that files had."""
        shutil.rmtree(self.directory)
        shutil.copytree(self._saved, self.directory)

    def run(self, step: Step) -> batchkit.Result:
        """Run one step."""
        if self._small_journals:
            journal.COMPACT_AT, journal.LONG = 900, 500
        function = self._function(BROKEN[step.what])
        options = {"batch_size": 5, "progress": "none", **self._options, **dict(step.options)}
        state = self.directory / "state"
        if step.what != "process":
            return batchkit.Job("job", state).retry(function, **options)
        output = f"{self.directory}/{self._name}"
        options = {"job": "job", "on_error": "skip", "output": output, **options}
        return batchkit.process(str(self.source), function, state_dir=state, **options)

    def run_all(self, steps: Sequence[Step]) -> None:
        """Run several, without waiting for the disk."""
        with installed(Unsynced()):
            for step in steps:
                self.run(step)

    def _function(self, broken: frozenset[int]) -> Any:
        text = self.output.suffix == ".txt"

        def work(line: str) -> Any:
            return _row(int(line), broken)

        def works(line: str) -> Iterator[str]:
            number = int(line)
            if number not in SILENT:
                yield f"{number} begun"  # stored only if the item does not fail later
            if _row(number, broken):
                yield f"{number} done"

        works.__qualname__ = works.__name__ = "work"
        return works if text else work

    def count(self, step: Step, names: tuple[str, ...] = CHANGING) -> int:
        """Count the calls of these kinds in a step."""
        with installed(Hooked(names)) as kernel:
            self.run(step)
        count: int = kernel.count
        return count

    def killed(self, nursery: Nursery, step: Step, at: int, *, torn: bool = False) -> bool:
        """Run a step in a process that is killed before its changing call `at`; return whether it was."""
        code = nursery.run(_run_in, self, step, Killing, (at, torn))
        assert code in {0, -signal.SIGKILL}
        return code == -signal.SIGKILL

    def cut(self, kernel: Recording, step: Step, at: int | None) -> bool:
        """Run a step until the power goes off before its changing call `at`; return whether it did."""
        kernel.cut_at, kernel.changes = at, 0
        return kernel.dies_during(lambda: self.run(step))

    def refused(self, step: Step, failing: Failing) -> batchkit.BatchkitError | None:
        """Run a step on a disk that refuses; return the error of ours that it ends with, if it does."""
        try:
            with installed(failing):
                self.run(step)
        except batchkit.BatchkitError as error:
            return error
        return None

    def rounds_over(self) -> int:
        """Return how many rounds are over: their results published, if the job is."""
        job = batchkit.Job("job", self.directory / "state")
        manifest = job._manifest()
        ended = sum(state.ended for state in rounds_of(job._directory, manifest.job))
        published = job._directory.publish_log(manifest.job).done()
        return ended if published is None else int(published.get("rounds", 0))

    def ended(self, step: Step) -> bool:
        """Tell whether a round came to its end: another call would begin the next one."""
        return step.what != "process" and self.rounds_over() >= ("first", "second").index(step.what) + 1

    def began(self, step: Step) -> bool:
        """Tell whether a round was begun: it is over the failures that there were then."""
        number = ("first", "second").index(step.what) + 1
        return (self.directory / f"state/job/retries/{number:05}/job.json").exists()

    def finish(self, steps: Sequence[Step]) -> None:
        """Run the steps; in the place of a round that came to its end, the job, which tidies up."""
        for step in steps:
            self.run_all([PROCESS if self.ended(step) else step])

    def look(self) -> None:
        """See that looking at the job, however it was left, tells each failure once."""
        for found in batchkit.jobs(self.directory / "state"):
            found.status()
            failures = [(each.shard, each.number) for each in found.failures()]
            assert failures == sorted(set(failures))

    def told(self) -> Told:
        """Return what the job tells."""
        [found] = batchkit.jobs(self.directory / "state")
        status = found.status()
        failures = [
            (each.item, each.where, each.shard, each.number, each.error, each.message, each.attempts, each.place)
            for each in found.failures()
        ]
        return Told(self._results(), failures, (status.status, status.done, status.failed, status.skipped))

    def _results(self) -> Any:
        if self.output.suffix == ".parquet":
            return pl.read_parquet(self.output).to_dicts()
        if self.output.is_dir():
            return {path.name: pl.read_parquet(path).to_dicts() for path in self.output.iterdir()}
        return self.output.read_bytes()

    def check(self, expected: Told) -> None:
        """See that the job is whole, tells what it should, and left nothing lying about."""
        told = self.told()
        assert told.results == expected.results
        assert told.failures == expected.failures
        assert told.counts == expected.counts
        left = {str(path.relative_to(self.directory)) for path in self.directory.rglob("*") if path.is_file()}
        other = {name for name in left if not _KNOWN.fullmatch(name)}
        assert other == {"out/00000.parquet" if self.output.is_dir() else self._name}, other


_KNOWN = re.compile(
    r"state/job/(retries/\d{5}/)?((job|plan)\.json|lock|publish\.jsonl|runs\.jsonl|items\.jsonl"
    r"|shards/\d{5}\.(jsonl|lock|failures\.jsonl|history-\d+\.jsonl))"
)
"""What may stand in a job's directory once it is completed: not the part of any round."""


def _row(number: int, broken: frozenset[int]) -> dict[str, Any] | None:
    if number in DROPPED:
        raise batchkit.SkipItem
    if number in broken:
        raise ValueError(f"not number {number}")
    return None if number in SILENT else {"number": number, "text": f'é,"{number}"', "late": None if number < 7 else 1}


def numbers(broken: frozenset[int]) -> list[int]:
    """Return the items that have results, in order, if these fail."""
    return [n for n in range(ITEMS) if n not in {UNREADABLE, *DROPPED, *SILENT, *broken}]


def _run_in(job: FailingJob, step: Step, make: type[Kernel], arguments: tuple[Any, ...]) -> None:
    at, torn = arguments
    with installed(make(at, torn=torn)):  # type: ignore[call-arg]
        job.run(step)
