"""Slices of a job: what hosts that share a directory work on at once."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import SoftFileLease

import batchkit
from batchkit import job as jobs, locks
from batchkit.errors import DefinitionChanged, ItemError, JobLocked, StorageError, UsageError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from tests.conftest import Cli

pytestmark = pytest.mark.usefixtures("workdir")

LINES = [f"item {number}" for number in range(2_000)]
JOB = Path(".batchkit/sliced")


@pytest.fixture(autouse=True)
def _items(workdir: Path) -> None:
    """Have a list."""
    (workdir / "items.txt").write_text("".join(f"{line}\n" for line in LINES))


def upper(line: str) -> str:
    """Return the line in upper case."""
    return line.upper()


def run(shard: str | None, function: Callable[[str], Any] = upper, **options: Any) -> batchkit.Result:
    """Work on a slice, or on the whole job; all functions are the same to the job."""
    if hasattr(function, "__code__"):
        function.__qualname__ = "function"
    given = {"batch_size": 50, "job": "sliced", "output": "out.txt", "progress": "none", **options}
    return batchkit.process("items.txt", function, shard=shard, **given)


def written() -> list[str]:
    """Return the lines of the output."""
    return Path("out.txt").read_text().splitlines()


UPPER = [line.upper() for line in LINES]


class TestSlices:
    """One after the other, and at once."""

    @pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
    def test_the_last_slice_to_end_publishes(self, order: tuple[int, ...]) -> None:
        """In any order; before that, each slice is completed and there is no output."""
        for number in order[:-1]:
            result = run(f"{number}/3")
            assert (result.status, result.exit_code, result.output) == ("completed", 0, None)
            assert result.summary().startswith(f"sliced (slice {number}/3): completed, ")
            assert "the output appears when all slices are done" in result.summary()
            assert not Path("out.txt").exists()
            assert batchkit.Job("sliced").status().status == "paused"
        result = run(f"{order[-1]}/3")
        assert (result.completed, result.output) == (True, os.path.abspath("out.txt"))
        assert written() == UPPER
        status = batchkit.Job("sliced").status()
        assert (status.status, status.done, status.runs) == ("completed", len(LINES), 3)

    def test_a_slice_does_its_own_items_only(self) -> None:
        """All together do each item once, whatever the number of workers and batches."""
        seen: list[int] = []
        for number, workers in ((2, 1), (1, 2), (3, 1), (4, 3)):
            before = batchkit.Job("sliced").status().done if seen else 0
            seen.append(run(f"{number}/4", workers=workers, batch_size=7 * number).done)
            assert batchkit.Job("sliced").status().done == before + seen[-1]
        assert sum(seen) == len(LINES)
        assert all(400 <= done <= 600 for done in seen)  # of about the same size
        assert written() == UPPER

    @pytest.mark.slow
    def test_budgets_are_those_of_the_slice(self) -> None:
        """And a slice that has work left is paused, though others are done."""
        assert run("1/2", max_items=33, workers=2).done == 33
        assert run("2/2", max_items=40).exit_code == 75
        assert run("2/2").done > 900
        assert run("1/2", max_items=1).done == 34
        assert run("1/2").completed
        assert written() == UPPER

    def test_more_slices_than_items_leave_some_empty(self) -> None:
        """An empty slice is done at once."""
        Path("items.txt").write_text("a\nb\n")
        done = [run(f"{number}/5").done for number in range(1, 6)]
        assert (sum(done), written()) == (2, ["A", "B"])

    def test_one_run_without_a_slice_does_what_is_left_of_all(self) -> None:
        """With any number of workers; and a slice that comes later has nothing to do."""
        run("2/3", max_items=100)
        run("3/3")
        assert run(None, workers=2).completed
        assert written() == UPPER
        assert run("1/3").completed

    @pytest.mark.slow
    def test_items_are_numbered_over_all_slices(self) -> None:
        """`{#}` is the number in the whole list, in every slice."""
        Path("items.txt").write_text("".join(f"{number}\n" for number in range(1, 41)))
        for number in (3, 1, 2):
            run(f"{number}/3", batchkit.command("echo {} {#}"), workers=number)
        assert written() == [f"{number} {number}" for number in range(1, 41)]

    @pytest.mark.slow
    def test_failures_are_listed_and_retried_over_all_slices(self) -> None:
        """In input order, and their results come into their places."""

        def function(line: str) -> str:
            if line.endswith("7") and not Path("mended").exists():
                raise ValueError(line)
            return line.upper()

        for number in (2, 1, 3):
            result = run(f"{number}/3", function, on_error="skip", workers=1 + number % 2)
            assert "see: batchkit failures sliced, run them again: batchkit retry sliced" in result.summary()
        job = batchkit.Job("sliced")
        assert [failure.item for failure in job.failures()] == [line for line in LINES if line.endswith("7")]
        Path("mended").touch()
        assert job.retry(function).completed
        assert written() == UPPER

    def test_runs_are_recorded_with_their_slice(self) -> None:
        """Each slice has a history of its own, and the job shows all."""
        run("1/2", max_items=10)
        run("1/2")
        run("2/2")
        entries = [json.loads(line) for line in (JOB / "slices/00001.runs.jsonl").read_text().splitlines()]
        assert [(entry["slice"], entry["run"]) for entry in entries if "end" in entry] == [("1/2", 1), ("1/2", 2)]
        assert batchkit.Job("sliced").status().runs == 3

    @pytest.mark.slow
    def test_slices_work_at_once(self, start_cli: Callable[..., subprocess.Popen[str]]) -> None:
        """Four processes begin the job together; one of them publishes."""
        words = ("process", "items.txt", "-x", "echo -- {}", "-o", "out.txt", "--job", "sliced")
        started = [start_cli(*words, "--shard", f"{number}/4") for number in range(1, 5)]
        ended = [process.communicate()[1] for process in started]
        assert [process.returncode for process in started] == [0] * 4, ended
        assert written() == [f"-- {line}" for line in LINES]

    @pytest.mark.slow
    def test_a_killed_slice_goes_on_where_it_was(self, start_cli: Callable[..., subprocess.Popen[str]]) -> None:
        """On the same host at once: its lease died with it."""
        words = ("process", "items.txt", "-x", "sh -c 'sleep 0.001; echo \"$1\"' -- {}", "-o", "out.txt", "-b", "20")
        process = start_cli(*words, "--job", "sliced", "--shard", "2/2", "-w", "2")
        deadline = time.monotonic() + 30
        while not (JOB / "job.json").exists() or batchkit.Job("sliced").status().done < 60:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert batchkit.Job("sliced").status().status == "running"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        status = batchkit.Job("sliced").status()
        assert status.status == "paused"  # its lease is still there, and its process is not
        done = status.done
        for number in (2, 1):
            again = start_cli(*words, "--job", "sliced", "--shard", f"{number}/2", "-w", "2")
            said = again.communicate()
            assert again.returncode == 0, said
        assert done >= 60
        assert written() == LINES


class TestRefusals:
    """What does not go together."""

    def test_another_number_of_slices_is_refused(self, cli: Cli) -> None:
        """With what to do; so is a slice of a job that was begun as a whole."""
        run("1/3")
        with pytest.raises(DefinitionChanged, match="was begun in 3 slices, and this is slice 1/4"):
            run("1/4")
        batchkit.process("items.txt", upper, job="whole", output="whole.txt", max_items=3, progress="none")
        with pytest.raises(DefinitionChanged, match="was begun as a whole"):
            run("1/4", job="whole", output="whole.txt")
        code, _, err = cli("process", "items.txt", "-o", "x.txt", "--shard", "4/3")
        assert (code, "give a slice such as '3/8'" in err) == (2, True)

    def test_a_slice_cannot_start_the_job_over(self) -> None:
        """Nor print, nor read what cannot be cut, nor live in memory."""
        with pytest.raises(UsageError, match="batchkit reset"):
            run("1/2", restart=True)
        with pytest.raises(UsageError, match="-o FILE"):
            run("1/2", output="-")
        with pytest.raises(UsageError, match="files that can be read from anywhere"):
            batchkit.process(range(9), shard="1/2", job="x")

    @pytest.mark.slow
    def test_who_holds_a_slice_keeps_others_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The same slice and a run of the whole job, not the other slices; and a whole run keeps slices out."""
        monkeypatch.setattr(jobs, "SLICE_PATIENCE", 0.2)
        seen: list[str] = []

        def function(line: str) -> str:
            if not seen:
                seen.append(line)
                assert batchkit.Job("sliced").status().status == "running"
                with pytest.raises(JobLocked, match=f"slice 1/2 of the job 'sliced' is being run by pid {os.getpid()}"):
                    run("1/2")
                with pytest.raises(JobLocked, match="slice 1 of the job 'sliced' is being run"):
                    run(None)
                assert run("2/2").completed
            return line.upper()

        assert run("1/2", function).completed
        assert written() == UPPER

        def locked_out(line: str) -> str:
            with pytest.raises(JobLocked, match="is being run by"):
                run("1/2", job="whole", output="whole.txt")
            return line

        Path("items.txt").write_text("a\n")
        assert run(None, locked_out, job="whole", output="whole.txt").completed

    @pytest.mark.parametrize(
        ("given", "shard"),
        [
            ({"ID": "5", "MIN": "5", "MAX": "7", "COUNT": "3"}, (1, 3)),
            ({"ID": "0", "MIN": "0", "MAX": "7", "COUNT": "8"}, (1, 8)),
            ({"ID": "9", "MIN": "1", "MAX": "13", "COUNT": "4"}, (3, 4)),
            ({"ID": "4", "MIN": "4", "MAX": "4", "COUNT": "1"}, (1, 1)),
        ],
    )
    def test_slurm_says_which_slice_this_is(
        self, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], shard: tuple[int, int]
    ) -> None:
        """By the number of the task among those of its array, wherever that begins and however it steps."""
        for name, value in given.items():
            monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
        run("slurm")
        assert (JOB / f"slices/{shard[0]:05}.runs.jsonl").exists() == (shard[1] > 0)
        assert json.loads((JOB / "job.json").read_text())["slices"] == shard[1]

    def test_uneven_array_jobs_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of tasks 1, 2 and 7, nobody knows from one which slice it is; nor outside of an array job."""
        with pytest.raises(UsageError, match="no task of a Slurm array job"):
            run("slurm")
        for given in (("2", "1", "7", "3"), ("12", "1", "4", "4"), ("1", "5", "9", "5"), ("1", "1", "1", "2")):
            for name, value in zip(("ID", "MIN", "MAX", "COUNT"), given, strict=True):
                monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
            with pytest.raises(UsageError, match="not evenly numbered"):
                run("slurm")


class TestLeases:
    """What happens to who is not heard of for too long."""

    @pytest.mark.slow
    @pytest.mark.parametrize("workers", [1, 2])
    def test_who_lost_the_lease_commits_nothing_more(self, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
        """It stops with an error; what it had committed stands, and another run does the rest."""
        monkeypatch.setattr(locks, "LEASE", 0.3)
        Path("stolen").unlink(missing_ok=True)

        def function(line: str) -> str:
            with contextlib.suppress(FileExistsError):
                os.close(os.open("stolen", os.O_CREAT | os.O_EXCL))
                lease = JOB / "slices/00001.lease"
                new = re.sub("token=(.)", lambda found: f"token={'12'[found[1] == '1']}", lease.read_text())
                Path("new").write_text(new)
                os.replace("new", lease)
            time.sleep(0.01)
            return line.upper()

        with pytest.raises(StorageError, match="another host has taken over this slice"):
            run("1/2", function, workers=workers)
        (JOB / "slices/00001.lease").unlink(missing_ok=True)
        done = batchkit.Job("sliced").status().done
        assert done < len(LINES) // 2
        for number in (1, 2):
            run(f"{number}/2")
        assert written() == UPPER

    def test_a_holder_that_wakes_up_late_writes_where_nobody_reads(self) -> None:
        """What it still has open is replaced by copies when its slice is taken over."""
        with pytest.raises(ItemError):
            run("1/2", _failing_at(300))
        (JOB / "slices/00001.held").touch()  # as one that was never given back
        part, journal = Path("out.txt.parts/00000"), JOB / "shards/00000.jsonl"
        with part.open("r+b") as asleep, journal.open("ab") as log:
            begun: list[str] = []

            def function(line: str) -> str:
                if not begun:
                    begun.append(line)
                    asleep.seek(0)
                    asleep.write(b"late\n" * 100)
                    asleep.flush()
                    log.write(b"late\n")
                    log.flush()
                return line.upper()

            assert run("1/2", function).completed
        assert run("2/2").completed
        assert written() == UPPER
        assert not (JOB / "slices/00001.held").exists()

    def test_of_another_host_a_lease_is_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Until it has not been renewed for so long; then the slice is taken over."""
        monkeypatch.setattr(locks, "LEASE", 0.6)
        run("1/2", max_items=10)
        lease = JOB / "slices/00001.lease"
        held = SoftFileLease(str(lease), lease_duration=0.6, heartbeat_interval=0.2)
        held.acquire()
        text = lease.read_text()
        held.release()
        elsewhere = text.replace(f"host={os.uname().nodename}\n", "host=elsewhere.example\n")
        lease.write_text(elsewhere)
        assert batchkit.Job("sliced").status().status == "running"
        assert run("1/2").completed


def _failing_at(number: int) -> Callable[[str], str]:
    def function(line: str) -> str:
        if line == LINES[number]:
            raise ValueError(line)
        return line.upper()

    return function
