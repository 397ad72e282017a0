"""What several workers make, on standard output and in memory."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from batchkit.errors import ItemError, UsageError
from batchkit.journal import last
from batchkit.model import Checkpoint
from batchkit.writers.printed import PrintedOutput

if TYPE_CHECKING:
    from tests.conftest import Cli

pytestmark = pytest.mark.usefixtures("workdir")

LINES = [f"item {number}" for number in range(3_000)]
COMMAND = [sys.executable, "-m", "batchkit", "process", "items.txt", "--job", "printed", "-b", "50"]


@pytest.fixture(autouse=True)
def _items(workdir: Path) -> None:
    """Have a list."""
    (workdir / "items.txt").write_text("".join(f"{line}\n" for line in LINES))


def appended(*options: str) -> int:
    """Run a job whose results go behind what the file has; return the exit code."""
    with Path("out.txt").open("ab") as out:
        return subprocess.run([*COMMAND, *options], stdout=out, stderr=subprocess.DEVNULL, check=False).returncode


class TestStandardOutput:
    """Stored as parts first, printed in input order."""

    def test_results_are_printed_in_input_order(self, cli: Cli) -> None:
        """All of them, once; a completed job prints nothing, and keeps nothing."""
        ended = cli("process", "items.txt", "--job", "printed", "-w", "3")
        assert (ended.code, ended.out.splitlines()) == (0, LINES)
        again = cli("process", "items.txt", "--job", "printed", "-w", "3")
        assert (again.code, again.out) == (0, "")
        assert not Path(".batchkit/printed/printed.parts").exists()
        assert batchkit.Job("printed").status().status == "completed"

    @pytest.mark.parametrize("workers", [(3, 1, 2), (1, 3, 1), (2, 2, 1)])
    @pytest.mark.slow
    def test_a_job_that_was_stopped_goes_on_behind_what_is_printed(self, workers: tuple[int, int, int]) -> None:
        """With any number of workers; a run with one may have printed without parts before."""
        codes = [
            appended("-w", str(workers[0]), "--max-items", "700"),
            appended("-w", str(workers[1]), "--max-items", "5"),
        ]
        assert (codes, appended("-w", str(workers[2]))) == ([75, 75], 0)
        assert Path("out.txt").read_text().splitlines() == LINES

    @pytest.mark.slow
    def test_items_that_are_appended_are_printed_behind(self) -> None:
        """After completion, in later runs."""
        assert appended("-w", "2") == 0
        with Path("items.txt").open("a") as items:
            items.write("more\nand more\n")
        assert (appended("-w", "3"), appended("-w", "2")) == (0, 0)
        assert Path("out.txt").read_text().splitlines() == [*LINES, "more", "and more"]

    @pytest.mark.slow
    def test_an_empty_file_for_the_second_half_is_refused(self) -> None:
        """The first half would be missing there."""
        assert appended("-w", "2", "--max-items", "500") == 75
        with Path("other.txt").open("wb") as out:
            ended = subprocess.run([*COMMAND, "-w", "2"], stdout=out, stderr=subprocess.PIPE, text=True, check=False)
        assert (ended.returncode, "append with >>" in ended.stderr) == (2, True)
        assert appended("-w", "2") == 0
        assert Path("out.txt").read_text().splitlines() == LINES

    @pytest.mark.slow
    def test_kills_repeat_results_at_most(self) -> None:
        """Nothing is lost, and what is printed twice stands in a row with what came before."""
        command = [*COMMAND, "-w", "2", "-x", "echo {}"]
        for _ in range(4):
            with Path("out.txt").open("ab") as out:
                process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
                time.sleep(1.0)  # somewhere in the middle, wherever that is
                process.send_signal(signal.SIGKILL)
                process.wait()
        with Path("out.txt").open("ab") as out:
            assert subprocess.run(command, stdout=out, stderr=subprocess.DEVNULL, check=False).returncode == 0
        found = Path("out.txt").read_text().splitlines()
        assert sorted(set(found)) == sorted(LINES)
        expected = iter(LINES)
        assert all(line in expected for line in dict.fromkeys(found))

    @pytest.mark.slow
    def test_a_reader_that_has_enough_ends_the_run(self) -> None:
        """As in a pipe to head: quietly, with what is committed kept."""
        process = subprocess.Popen([*COMMAND, "-w", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read().decode()
        process.stderr.close()
        assert (process.wait(), "nobody reads the output" in said) == (75, True)

    @pytest.mark.parametrize("done", range(0, 60, 7))
    def test_what_is_committed_is_printed_as_it_comes(self, workdir: Path, capfd: Any, done: int) -> None:
        """Up to the first shard that is not at its end; shards that were cut meanwhile keep their place."""
        (workdir / "job").mkdir()
        output = PrintedOutput(str(workdir / "job"), "uuid")
        output.prepare([0, 1, 2], afresh=True)
        writers = {number: output.writer(number, frozen=0) for number in (0, 1, 2)}
        points: dict[int, Any] = dict.fromkeys(writers)
        for step in range(60):
            number = (2, 0, 1)[step // 20]
            if points[number] is None:
                writers[number].open(None)
            writers[number].write([f"{number} {step}"])
            mark = writers[number].mark()
            points[number] = Checkpoint(step, 0, 1, 0, 0, 0, mark, 1, 0.0, 0.0, step % 20 == 19)
            if step >= done:
                order = [0, 1] if step < 20 else [0, 2, 1]
                output.print_committed(order, [points[each] for each in order], lambda: True)
        for writer in writers.values():
            writer.close()
        steps = [*range(20, 40), *range(20), *range(40, 60)]
        assert capfd.readouterr().out.splitlines() == [f"{(2, 0, 1)[step // 20]} {step}" for step in steps]

    @pytest.mark.slow
    def test_a_position_that_cannot_be_read_is_told_in_one_line(self, cli: Cli) -> None:
        """Nothing is printed by guessing, and nothing is lost."""
        words = ("process", "items.txt", "--job", "printed", "-w", "2")
        assert cli(*words, "--max-items", "300").code == 75
        Path(".batchkit/printed/printed.json").write_bytes(b"")
        for again in (words, ("status", "printed")):
            ended = cli(*again)
            assert (ended.code, ended.out, ended.err.count("\n")) == (1, "", 1)
            assert "printed.json' is not readable" in ended.err

    def test_all_that_is_committed_is_printed_when_a_budget_ends(self, cli: Cli) -> None:
        """As far as it goes without a gap."""
        ended = cli("process", "items.txt", "--job", "printed", "-w", "2", "--max-items", "1600", "-b", "10")
        found = ended.out.splitlines()
        assert found == LINES[: len(found)]
        shard = json.loads(Path(".batchkit/printed/plan.json").read_text())["shards"][0]
        done = last(f".batchkit/printed/shards/{shard[0]:05}.jsonl")
        assert done is not None
        assert len(found) >= done.done


class TestMemory:
    """A run that leaves nothing on disk, with several workers."""

    def test_results_come_back_as_the_objects_they_are(self) -> None:
        """Not as JSON: sets, tuples and whatever else can be pickled; in input order."""
        result = batchkit.process(range(500), lambda number: (number, {number}), workers=3, batch_size=20)
        assert list(result.results()) == [(number, {number}) for number in range(500)]
        assert (result.job, result.output, result.completed) == (None, None, True)
        assert not Path(".batchkit").exists()

    @pytest.mark.slow
    def test_failures_come_back_too(self) -> None:
        """In input order, with their items."""
        result = batchkit.process(list(range(300)), _odd, workers=2, on_error="skip")
        assert [failure.item for failure in result.failures()] == list(range(0, 300, 2))
        assert (result.exit_code, list(result.results())) == (3, list(range(1, 300, 2)))

    def test_a_result_that_cannot_be_sent_fails_its_item(self) -> None:
        """And says why."""
        with pytest.raises(ItemError, match="cannot be stored: the result cannot be pickled"):
            batchkit.process(range(10), lambda _: threading.Lock(), workers=2)

    def test_a_function_that_cannot_be_sent_is_refused(self) -> None:
        """Before anything begins, with what to do."""
        lock = threading.Lock()
        with pytest.raises(UsageError, match="cannot be sent to a worker process"):
            batchkit.process(range(10), lambda number: (lock, number), workers=2)

    def test_iterables_are_read_by_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Which is said, and changes nothing else."""
        result = batchkit.process((number for number in range(50)), lambda number: 2 * number, workers=4)
        assert list(result.results()) == list(range(0, 100, 2))
        assert "one worker does it all" in capsys.readouterr().err


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError(number)
    return number
