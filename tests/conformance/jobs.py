"""A small job over any writer, to be run, stopped, killed and looked at."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import batchkit
from batchkit import files, journal
from tests.conformance.writers import NAMED
from tests.kernels import CHANGING, Hooked, Killing, installed

if TYPE_CHECKING:
    from pathlib import Path

    from batchkit.files import Kernel
    from tests.children import Nursery

ITEMS = 7
GROWN = 10


class WriterJob:
    """A job of seven items with an output of a kind, by its name; may be pickled.

    small_journals: whether journals are renewed after every other commit.
    """

    def __init__(self, directory: Path, case: str, *, small_journals: bool = False, **options: Any) -> None:
        """Write the source, beside the directory."""
        self.directory = directory
        self._name = case
        self._small_journals = small_journals
        self.options = options
        self.source = directory.parent / "items.txt"
        self.case = NAMED[case]
        self.clear()

    def __getstate__(self) -> dict[str, Any]:
        """Leave the case to its name."""
        return {**self.__dict__, "case": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Find the case again."""
        self.__dict__.update(state, case=NAMED[state["_name"]])

    @property
    def output(self) -> Path:
        """Where the results stand in the end."""
        return self.directory / (self.case.output or "state/job/results.jsonl")

    def clear(self, items: int = ITEMS) -> None:
        """Begin with an empty directory and so many items."""
        files.remove_tree(str(self.directory)) if self.directory.exists() else None
        self.directory.mkdir()
        self.source.write_text("".join(f"{number}\n" for number in range(items)))

    def grow(self) -> None:
        """Append items to the input."""
        with self.source.open("a") as file:
            file.write("".join(f"{number}\n" for number in range(ITEMS, GROWN)))

    def run(self, function: Any = None, **more: Any) -> batchkit.Result:
        """Run the job, or go on with it."""
        if self._small_journals:
            journal.COMPACT_AT, journal.LONG = 500, 300
        output = None if self.case.output is None else f"{self.directory}/{self.case.output}"
        options = {"batch_size": 2, "progress": "none", "job": "job", "output": output, **self.options, **more}
        state = self.directory / "state"
        return batchkit.process(str(self.source), function or self.case.function, state_dir=state, **options)

    def count(self, names: tuple[str, ...] = CHANGING, **more: Any) -> int:
        """Count the calls of these kinds in a run."""
        with installed(Hooked(names)) as kernel:
            self.run(**more)
        count: int = kernel.count
        return count

    def killed(self, nursery: Nursery, at: int, *, torn: bool = False, **more: Any) -> bool:
        """Run in a process that is killed before its changing call `at`; return whether it was."""
        code = nursery.run(_run_in, self, Killing, (at, torn), more)
        assert code in {0, -signal.SIGKILL}
        return code == -signal.SIGKILL

    def results(self) -> list[Any]:
        """Return the published results, as another program sees them."""
        return self.case.read(self.output)

    def results_so_far(self) -> list[Any]:
        """Return what a killed run has stored; nothing if it had not begun."""
        try:
            return list(batchkit.Job("job", self.directory / "state").results())
        except batchkit.UsageError:
            return []

    def check(self, items: int = ITEMS) -> None:
        """See that the job is whole and left nothing lying about."""
        assert self.results() == self.case.expected(items)
        [found] = batchkit.jobs(self.directory / "state")
        assert (found.status().status, found.status().done) == ("completed", items)
        assert list(found.results()) == self.case.expected(items)
        left = {path.name for path in self.directory.rglob("*") if path.is_file() and path.parent != self.output}
        shards = {f"{number:05}.{kind}" for number in (0, 1) for kind in ("jsonl", "lock")}
        known = {self.output.name, "job.json", "plan.json", "lock", "publish.jsonl", "runs.jsonl", *shards}
        assert {name for name in left if ".history-" not in name} <= known
        if self.output.is_dir():
            assert {os.path.splitext(path.name)[0] for path in self.output.iterdir()} <= {"00000", "00001"}


def _run_in(job: WriterJob, make: type[Kernel], arguments: tuple[Any, ...], more: dict[str, Any]) -> None:
    at, torn = arguments
    with installed(make(at, torn=torn)):  # type: ignore[call-arg]
        job.run(**more)
