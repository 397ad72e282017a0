"""Several workers on one job: the same results, budgets, stops and errors as with one."""

from __future__ import annotations

import glob
import gzip
import json
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import batchkit
from batchkit import journal
from batchkit.destination import Destination
from batchkit.errors import UsageError
from batchkit.job import JobDirectory
from batchkit.plan import Place
from batchkit.sharing import Sharing, ask
from tests.conftest import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.conftest import Cli

ITEMS = 400


@pytest.fixture(autouse=True)
def _items(workdir: Path) -> None:
    """Give items to work on."""
    write(workdir, ITEMS)


def write(directory: Path, items: int) -> None:
    """Write the source."""
    (directory / "items.txt").write_text("".join(f"{number}\n" for number in range(items)))


def run(function: Callable[..., Any] | None = None, **options: Any) -> batchkit.Result:
    """Run the job with four workers."""
    options = {"job": "job", "output": "out.txt", "workers": 4, "progress": "none", "batch_size": 10, **options}
    return batchkit.process("items.txt", function, **options)


def numbers(directory: Path, name: str = "out.txt") -> list[int]:
    """Return the results."""
    return [int(line) for line in (directory / name).read_text().split()]


def batches(directory: Path) -> int:
    """Return how many batches were committed, in all runs."""
    found = [journal.last(str(path)) for path in (directory / ".batchkit/job/shards").glob("?????.jsonl")]
    return sum(point.seq - point.end for point in found if point is not None)


def eventually(holds: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


class TestResults:
    """Whatever the number of workers, the output is the one that a single worker writes."""

    @pytest.mark.parametrize("batched", [False, True])
    def test_results_are_in_input_order(self, workdir: Path, *, batched: bool) -> None:
        """With functions that this interpreter made: closures are sent by value."""
        add = 1_000

        def plus(item: Any) -> Any:
            return [int(each) + add for each in item] if batched else int(item) + add

        result = run(plus, batched=batched)
        assert (result.status, result.done, result.total, result.new) == ("completed", ITEMS, ITEMS, ITEMS)
        assert numbers(workdir) == list(range(1_000, 1_000 + ITEMS))
        assert [int(each) for each in result.results()] == numbers(workdir)
        assert run(plus, batched=batched, workers=2).new == 0

    @pytest.mark.slow
    def test_a_generator_function_gives_any_number_of_results(self, workdir: Path) -> None:
        """Each in its item's place."""

        def some(item: str) -> Iterator[int]:
            yield from [int(item)] * (int(item) % 3)

        run(some)
        assert numbers(workdir) == [n for n in range(ITEMS) for _ in range(n % 3)]

    @pytest.mark.slow
    def test_a_lambda_and_no_function_do(self, workdir: Path) -> None:
        """As they do with one worker."""
        run(lambda item: item[::-1], job="mirror", output="mirrored.txt")
        run()
        assert (workdir / "out.txt").read_text() == (workdir / "items.txt").read_text()
        assert numbers(workdir, "mirrored.txt") == [int(str(n)[::-1]) for n in range(ITEMS)]

    @pytest.mark.slow
    def test_a_class_is_made_once_in_each_worker_and_closed(self, workdir: Path) -> None:
        """Whatever number of shards it works on."""

        class Counting:
            def __init__(self) -> None:
                with open("made", "a") as file:
                    file.write(f"{os.getpid()}\n")
                self.calls = 0

            def __call__(self, item: str) -> str:
                self.calls += 1
                return item

            def close(self) -> None:
                with open("closed", "a") as file:
                    file.write(f"{os.getpid()} {self.calls}\n")

        run(Counting)
        made = (workdir / "made").read_text().split()
        closed = dict(line.split() for line in (workdir / "closed").read_text().splitlines())
        assert len(made) == len(set(made)) <= 4
        assert sorted(made) == sorted(closed)
        assert sum(map(int, closed.values())) == ITEMS

    @pytest.mark.slow
    def test_functions_from_files_and_of_the_main_program_do(self, workdir: Path, cli: Cli) -> None:
        """On the command line, and in a script without `if __name__`."""
        (workdir / "work.py").write_text("ADD = 7\n\ndef work(line):\n    return int(line) + ADD\n")
        ended = cli("process", "items.txt", "-f", "work.py:work", "-o", "a.txt", "-w", "3", "-q")
        assert (ended.code, ended.err) == (0, "")
        script = """
            import batchkit

            ADD = 7

            def work(line):
                return int(line) + ADD

            batchkit.process("items.txt", work, job="b", output="b.txt", workers=3, progress="none")
            """
        (workdir / "main.py").write_text(textwrap.dedent(script))
        assert subprocess.run([sys.executable, "main.py"], cwd=workdir, check=False).returncode == 0
        assert numbers(workdir, "a.txt") == numbers(workdir, "b.txt") == list(range(7, ITEMS + 7))

    @pytest.mark.slow
    def test_calls_have_the_keys_that_they_have_with_one_worker(self, workdir: Path) -> None:
        """An item's key is its job's and its place's, whoever calls."""

        def key(item: str) -> str:
            current = batchkit.current_batch()
            assert current.item_keys == [current.key]
            return f"{item} {current.key.partition('-')[2] or current.key[32:]}"

        run(key)
        run(key, job="alone", output="alone.txt", workers=1)
        assert (workdir / "out.txt").read_text() == (workdir / "alone.txt").read_text()

    @pytest.mark.slow
    @pytest.mark.parametrize("suffix", ["txt", "jsonl.gz", "parquet", "parts/"])
    def test_any_number_of_workers_goes_on_with_any_job(self, workdir: Path, suffix: str) -> None:
        """Paused again and again, with other numbers of workers."""

        def row(item: str) -> dict[str, Any]:
            return {"n": int(item), "text": item * 3}

        schema = "n=int, text=str" if suffix in {"parquet", "parts/"} else None
        function = (lambda item: item * 2) if suffix == "txt" else row
        options = {"output": f"out.{suffix}", "schema": schema}
        for workers, most in [(1, 30), (4, 101), (2, 57), (3, 150), (4, None)]:
            result = run(function, **options, workers=workers, max_items=most)
            assert result.new == (most or ITEMS - 338)
            assert result.status == ("completed" if most is None else "paused")
        if suffix == "txt":
            assert numbers(workdir) == [int(f"{n}{n}") for n in range(ITEMS)]
        elif suffix == "jsonl.gz":
            with gzip.open("out.jsonl.gz", "rt") as file:
                assert [json.loads(line)["n"] for line in file] == list(range(ITEMS))
        elif suffix == "parquet":
            assert pl.read_parquet("out.parquet")["n"].to_list() == list(range(ITEMS))
        else:
            parts = [pl.read_parquet(path)["n"].to_list() for path in sorted((workdir / "out.parts").glob("*.parquet"))]
            assert [n for part in parts for n in part] == list(range(ITEMS))

    @pytest.mark.slow
    def test_starting_over_leaves_nothing_of_the_parts_there_were(self, workdir: Path) -> None:
        """Neither results nor failures of shards with the same numbers."""

        def picky(item: str) -> str:
            if int(item) % 10 == 3:
                raise ValueError(item)
            return f"{item} "

        run(picky, on_error="skip", max_items=333)
        result = run(lambda item: item, job="job", on_error="skip", restart=True)
        assert (result.done, result.failed) == (ITEMS, 0)
        assert numbers(workdir) == list(range(ITEMS))
        assert list(result.failures()) == []

    @pytest.mark.slow
    def test_what_is_appended_is_done_by_several(self, workdir: Path) -> None:
        """Behind a completed job and behind a paused one."""
        run(max_items=350)
        write(workdir, 600)
        assert run(workers=3).new == 250
        write(workdir, 1_000)
        assert run().new == 400
        assert numbers(workdir) == list(range(1_000))

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "files"])
    def test_other_sources_are_shared_too(self, workdir: Path, kind: str) -> None:
        """Tables, and several files, compressed ones among them, of which idle workers take the rest."""

        def number(row: Any) -> int:
            time.sleep(0.0005)
            return int(row) if isinstance(row, str) else int(row["n"])

        frame = pl.DataFrame({"n": range(ITEMS), "text": ["a\nb"] * ITEMS})
        source: Any = f"in.{kind}"
        if kind == "csv":
            frame.write_csv("in.csv")
        elif kind == "jsonl":
            frame.write_ndjson("in.jsonl")
        elif kind == "parquet":
            frame.write_parquet("in.parquet", row_group_size=33)
        else:
            source = "part*"
            for part in range(4):
                text = "".join(f"{n}\n" for n in range(part * 100, part * 100 + 100)).encode()
                packed = part != 1
                (workdir / f"part{part}.txt{'.gz' if packed else ''}").write_bytes(
                    gzip.compress(text) if packed else text
                )
        batchkit.process(source, number, job="job", output="out.txt", workers=3, batch_size=7, progress="none")
        assert numbers(workdir) == list(range(ITEMS))

    def test_what_can_be_read_only_once_is_done_by_one_worker(self, workdir: Path, cli: Cli) -> None:
        """A pipe: and it is said."""
        text = (workdir / "items.txt").read_text()
        ended = cli("process", "-", "-w", "3", "-o", "out.txt", "--progress", "log", stdin=text)
        assert ended.code == 0
        assert "one worker does it all" in ended.err
        assert numbers(workdir) == list(range(ITEMS))

    def test_items_of_a_list_are_shared(self, workdir: Path) -> None:
        """If they are a job: then there are files through which workers are told what to do."""
        result = batchkit.process(
            list(range(ITEMS)), lambda n: n, job="list", output="out.txt", workers=3, progress="none"
        )
        assert result.status == "completed"
        assert numbers(workdir) == list(range(ITEMS))

    @pytest.mark.slow
    def test_standard_output_has_the_results_in_input_order(self, workdir: Path, cli: Cli) -> None:
        """Whoever was done first."""
        text = "def work(line):\n    import time\n    time.sleep(0.002)\n    return line\n"
        (workdir / "work.py").write_text(text)
        ended = cli("process", "items.txt", "-f", "work.py:work", "-w", "4", "-q", "-b", "10")
        assert ended.code == 0
        assert ended.out == (workdir / "items.txt").read_text()


class TestBudgets:
    """Limits are those of the run, whatever number of workers shares them."""

    @pytest.mark.slow
    @pytest.mark.parametrize(("most", "size"), [(1_003, 7), (1, 10), (5, 100), (0, 10)])
    def test_so_many_items_exactly(self, workdir: Path, most: int, size: int) -> None:
        """Done and committed; the rest is the next run's."""
        write(workdir, 2_000)
        result = run(max_items=most, batch_size=size)
        assert (result.status, result.new, result.done) == ("paused", most, most)
        assert result.reason == "the number of items asked for is done"
        assert batchkit.Job("job").status().done == most
        assert run().new == 2_000 - most
        assert numbers(workdir) == list(range(2_000))

    @pytest.mark.slow
    def test_failures_and_dropped_items_count(self) -> None:
        """Each is an item that was handled."""

        def picky(item: str) -> None:
            if int(item) % 3 == 1:
                raise ValueError(item)
            if int(item) % 3 == 2:
                raise batchkit.SkipItem

        result = run(picky, on_error="skip", max_items=101)
        assert result.done + result.failed + result.skipped == result.new == 101

    @pytest.mark.slow
    @pytest.mark.parametrize(("items", "most"), [(400, 7), (40, 7), (400, 1), (400, 13)])
    def test_so_many_batches_exactly(self, workdir: Path, items: int, most: int) -> None:
        """Also where shards come to their ends, whose records are no batches."""
        write(workdir, items)
        result = run(max_batches=most, batch_size=4)
        assert (result.status, batches(workdir)) == ("paused", most)
        assert result.reason == "the number of batches asked for is done"

    @pytest.mark.slow
    @pytest.mark.parametrize("most", [ITEMS, ITEMS + 3])
    def test_a_budget_of_all_items_completes_the_job(self, workdir: Path, most: int) -> None:
        """Although a worker may have found none left while another had some."""
        for attempt in range(3):
            assert run(max_items=most, batch_size=1 + 16 * attempt, restart=True).status == "completed"
        assert numbers(workdir) == list(range(ITEMS))

    @pytest.mark.slow
    def test_a_worker_that_found_none_left_pauses_no_job_that_others_complete(self, workdir: Path) -> None:
        """The last grant, of more than its shard holds, comes to its end when the other one has gone."""

        def held_up(item: str) -> str:
            while item == "0" and not os.path.exists("last"):
                time.sleep(0.01)
            if item == str(ITEMS - 1):
                with open("last", "w"):
                    pass
                time.sleep(2.5)
            return item

        assert run(held_up, max_items=ITEMS, batch_size=1, workers=2).status == "completed"
        assert numbers(workdir) == list(range(ITEMS))

    @pytest.mark.slow
    def test_what_a_dead_worker_was_granted_is_not_lost(self, workdir: Path) -> None:
        """It dies when all that was left is its own, and the one in its place begins with another shard."""
        write(workdir, 100)

        def dies(item: str) -> str:
            if int(item) >= 53 and not os.path.exists("died"):
                with open("waiting", "w"):
                    pass
                time.sleep(2.5)
                with open("died", "w"):
                    pass
                os.kill(os.getpid(), signal.SIGKILL)
            while int(item) < 50 and not os.path.exists("waiting"):
                time.sleep(0.01)
            return item

        assert run(dies, workers=2, batch_size=4, max_items=30).new == 30
        assert batchkit.Job("job").status().done == 30

    @pytest.mark.slow
    def test_the_time_limit_is_everybodys(self, workdir: Path) -> None:
        """What is committed until then stays."""
        write(workdir, 10_000)

        def slow(item: str) -> str:
            time.sleep(0.05)
            return item

        begun = time.monotonic()
        result = run(slow, max_time=1.5)
        assert result.status == "paused"
        assert result.reason is not None
        assert "time" in result.reason
        assert 0 < result.new == result.done < 400
        assert time.monotonic() - begun < 10

    def test_a_moment_in_the_past_does_nothing(self) -> None:
        """`until` is a limit like any other."""
        assert run(until="2020-01-01T00:00").new == 0

    @pytest.mark.slow
    def test_a_time_limit_alone_stops_nobody_between_shards(self, workdir: Path) -> None:
        """There is nothing to lease then, and a worker takes one shard after the other."""
        for most in (30, 40, 50):
            run(workers=4, max_items=most, batch_size=3)
        assert len(json.loads((workdir / ".batchkit/job/plan.json").read_text())["shards"]) > 2
        assert run(workers=2, max_time="10m").completed
        assert numbers(workdir) == list(range(ITEMS))

    @pytest.mark.slow
    @pytest.mark.parametrize(("items", "most", "workers"), [(120, 100, 2), (130, 100, 2), (105, 100, 4), (90, 5, 3)])
    def test_limits_of_items_and_batches_hold_together(self, items: int, most: int, workers: int) -> None:
        """Whichever comes first; neither is exceeded while there is some of the other."""
        result = run(workers=workers, max_items=items, max_batches=most, batch_size=1, job="both", output="both.txt")
        assert result.new == min(items, most)

    def test_what_was_given_away_while_a_resume_waited_is_not_forgotten(self, workdir: Path) -> None:
        """A worker that outlives its run may still divide its shard; the next run goes by the plan as it is then."""
        run(workers=1, max_items=20)
        directory = JobDirectory(str(workdir / ".batchkit"), "job")
        manifest = directory.load()
        assert manifest is not None
        output = Destination("out.txt").make(directory, manifest.job)
        place = Place(directory, manifest.job, 1, output, 0, ())
        reader = batchkit.lines("items.txt")
        point = journal.last(directory.shard_path(0))
        assert point is not None

        def outlive() -> None:
            with directory.shard_locked(0):
                held.set()
                eventually(directory.running)  # the next run has read the plan, or will at once
                time.sleep(0.3)
                owner = Sharing(place, reader, manifest.plan[0], numbered=False)
                ask(directory.shard_path(0))
                assert owner.give(point) is not None

        held = threading.Event()
        orphan = threading.Thread(target=outlive)
        orphan.start()
        assert held.wait(PATIENCE)
        assert run(workers=1).completed
        orphan.join()
        assert numbers(workdir) == list(range(ITEMS))
        assert len(json.loads((workdir / ".batchkit/job/plan.json").read_text())["shards"]) == 2
        assert batchkit.Job("job").status().status == "completed"

    @pytest.mark.slow
    def test_a_signal_is_heard_when_nothing_is_left_to_lease(
        self, workdir: Path, start_cli: Callable[..., subprocess.Popen[str]]
    ) -> None:
        """One worker has stopped for the budget's end, another is at work on the last it was granted."""
        (workdir / "slow.py").write_text(
            "import time\n\ndef slow(item):\n    time.sleep(0.2 if int(item) < 200 else 0)\n    return item\n"
        )
        words = ("-f", "slow.py:slow", "-w", "2", "-b", "5", "-o", "out.txt", "--job", "job", "--max-items", "390")
        with start_cli("process", "items.txt", *words) as process:
            eventually(
                lambda: (workdir / ".batchkit/job/job.json").exists() and batchkit.Job("job").status().done > 210
            )
            time.sleep(0.5)  # the fast one finds that none are left
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 75
            assert time.monotonic() - begun < 5
            assert process.stderr is not None
            assert "asked to stop by SIGTERM" in process.stderr.read()


class TestStops:
    """A request to stop ends all workers, with what they have done committed."""

    SLOW = "import os, time\n\ndef work(line):\n    time.sleep(0.5)\n    return line\n"

    def started(self, workdir: Path, start_cli: Callable[..., subprocess.Popen[str]]) -> subprocess.Popen[str]:
        """Start a job with items of half a second, and wait until all workers are at it."""
        (workdir / "work.py").write_text(self.SLOW)
        words = "process items.txt -f work.py:work -o out.txt -w 4 -b 50 --job job -q --batch-seconds 0.2"
        process = start_cli(*words.split())
        eventually(lambda: batches(workdir) >= 4)
        return process

    @pytest.mark.slow
    def test_the_first_signal_ends_the_items_in_hand(
        self, workdir: Path, start_cli: Callable[..., subprocess.Popen[str]]
    ) -> None:
        """Within seconds; the exit code says that there is work left."""
        with self.started(workdir, start_cli) as process:
            begun = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, err = process.communicate(timeout=PATIENCE)
            assert time.monotonic() - begun < 4
            assert (process.returncode, out) == (75, ""), err
        assert children_of(process.pid) == []
        done = batchkit.Job("job").status().done
        (workdir / "work.py").write_text("def work(line):\n    return line\n")
        result = run(load(workdir), batch_size=100)
        assert result.new == ITEMS - done
        assert numbers(workdir) == list(range(ITEMS))

    @pytest.mark.slow
    def test_the_second_signal_leaves_at_once(
        self, workdir: Path, start_cli: Callable[..., subprocess.Popen[str]]
    ) -> None:
        """No worker lives on, and the next run goes on from what was committed."""
        (workdir / "work.py").write_text(self.SLOW.replace("0.5", "60 if int(line) % 100 == 5 else 0.05"))
        words = "process items.txt -f work.py:work -o out.txt -w 4 -b 50 --job job -q --batch-seconds 0.2"
        with start_cli(*words.split()) as process:
            eventually(lambda: batches(workdir) >= 4)
            workers = children_of(process.pid)
            assert len(workers) == 4
            process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
            assert process.returncode == 128 + signal.SIGTERM
        eventually(lambda: not any(map(alive, workers)))
        (workdir / "work.py").write_text("def work(line):\n    return line\n")
        assert run(load(workdir)).status == "completed"
        assert numbers(workdir) == list(range(ITEMS))

    @pytest.mark.slow
    def test_the_status_of_a_live_run_tells_how_far_it_is(
        self, workdir: Path, start_cli: Callable[..., subprocess.Popen[str]]
    ) -> None:
        """From the journals, while the workers write them."""
        with self.started(workdir, start_cli) as process:
            status = batchkit.Job("job").status()
            assert status.status == "running"
            assert status.done >= 4
            assert status.share is not None
            assert 0 < status.share < 1
            eventually(lambda: batchkit.Job("job").status().done > status.done)
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)


class TestErrors:
    """What ends a run with one worker ends it with several."""

    @pytest.mark.slow
    def test_an_item_that_fails_ends_the_run_and_is_named(self, workdir: Path) -> None:
        """The others commit what they have, and the next run goes on there."""

        def picky(item: str) -> str:
            time.sleep(0.001)
            if item == "250" and not os.path.exists("mended"):
                raise ValueError("not this one")
            return item

        with pytest.raises(batchkit.ItemError, match=r"line 251.*not this one") as caught:
            run(picky)
        assert "\n" not in str(caught.value)
        assert isinstance(caught.value, batchkit.ItemError)
        assert isinstance(caught.value.__cause__, ValueError)
        assert batchkit.Job("job").status().status == "failed"
        done = batchkit.Job("job").status().done
        (workdir / "mended").touch()
        assert run(picky).new == ITEMS - done
        assert numbers(workdir) == list(range(ITEMS))

    @pytest.mark.slow
    def test_the_exit_code_is_one(self, workdir: Path, cli: Cli) -> None:
        """With one line about it."""
        (workdir / "work.py").write_text("def work(line):\n    return 1 / (int(line) - 333)\n")
        ended = cli("process", "items.txt", "-f", "work.py:work", "-o", "out.txt", "-w", "4", "-q")
        assert ended.code == 1
        assert ended.err.count("\n") == 1
        assert "line 334" in ended.err

    @pytest.mark.slow
    def test_failures_are_kept_in_input_order_and_tried_again_in_their_places(self, workdir: Path) -> None:
        """Over shards that were cut further, run by run."""

        def picky(item: str) -> str:
            time.sleep(0.001)
            if int(item) % 7 == 3:
                raise ValueError(item)
            return item

        run(picky, on_error="skip", workers=1, max_items=50)
        run(picky, on_error="skip", workers=3, max_items=100)
        result = run(picky, on_error="skip")
        bad = [n for n in range(ITEMS) if n % 7 == 3]
        job = batchkit.Job("job")
        assert result.failed == len(bad)
        assert [int(each.item) for each in result.failures()] == [int(each.item) for each in job.failures()] == bad
        assert [each.where for each in job.failures()] == [f"'items.txt' line {n + 1} (byte {at(n):,})" for n in bad]
        assert numbers(workdir) == [n for n in range(ITEMS) if n % 7 != 3]
        again = job.retry(lambda item: int(item) if int(item) % 2 else 1 / 0, progress="none")
        assert again.failed == sum(n % 2 == 0 for n in bad)
        assert numbers(workdir) == [n for n in range(ITEMS) if n % 7 != 3 or n % 2]
        job.retry(lambda item: item, progress="none")
        assert numbers(workdir) == list(range(ITEMS))

    @pytest.mark.slow
    def test_too_many_failures_of_all_workers_end_the_run(self) -> None:
        """Counted over all shards, soon after there are so many."""

        def bad(item: str) -> None:
            time.sleep(0.01)
            raise ValueError(item)

        with pytest.raises(batchkit.TooManyFailures):
            run(bad, on_error="skip", max_failures=20, batch_size=1)
        assert 20 < batchkit.Job("job").status().failed < ITEMS

    def test_what_cannot_be_sent_is_said(self) -> None:
        """A lock is of this process."""
        lock = threading.Lock()
        with pytest.raises(batchkit.UsageError, match="cannot be sent to a worker process"):
            run(lambda item: lock and item)


class TestSharing:
    """Who has nothing to do takes of what is left."""

    @pytest.mark.slow
    @pytest.mark.parametrize("workers", [2, 4])
    @pytest.mark.parametrize("size", [1, 100])
    def test_the_rest_of_a_live_shard_is_done_by_others(self, workdir: Path, workers: int, size: int) -> None:
        """A worker is held up until it is asked, and then until somebody else did some of what was its."""
        border = ITEMS // workers - 20  # within the first shard

        def held_up(item: str) -> str:
            deadline = time.monotonic() + 20
            if item == "5":
                with open("owner", "w") as file:
                    file.write(str(os.getpid()))
                while not glob.glob(".batchkit/job/shards/00000.wanted"):
                    assert time.monotonic() < deadline, "nobody asked"
                    time.sleep(0.005)
                time.sleep(0.5)  # it is looked for now and then
            while item == "6" and not os.path.exists("helped"):
                assert time.monotonic() < deadline, "nobody helped"
                time.sleep(0.005)
            if 6 < int(item) < border:
                with open("owner") as owner, open("helped" if owner.read() != str(os.getpid()) else "mine", "w"):
                    pass
            return item

        run(held_up, batch_size=size, workers=workers)
        assert numbers(workdir) == list(range(ITEMS))
        assert batchkit.Job("job").status().done == ITEMS
        plan = json.loads((workdir / ".batchkit/job/plan.json").read_text())["shards"]
        assert len(plan) > workers

    @pytest.mark.slow
    def test_nothing_is_given_of_what_has_no_rest(self, workdir: Path) -> None:
        """Workers that ask in vain do not hold up the one that is left."""
        write(workdir, 3)

        def slow(item: str) -> str:
            time.sleep(0.5)
            return item

        assert run(slow).status == "completed"
        assert numbers(workdir) == [0, 1, 2]


class TestExecutors:
    """Anything with the face of an executor can run the workers."""

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ["threads", "processes"])
    def test_workers_run_in_what_is_given(self, workdir: Path, kind: str) -> None:
        """It is not shut down: it is not ours."""
        made: Any = (
            ThreadPoolExecutor(4)
            if kind == "threads"
            else ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn"))
        )
        with made as executor:
            for round_number in range(2):
                result = run(executor=executor, batch_size=3, restart=True, max_items=203 if round_number else None)
            assert (result.status, result.new) == ("paused", 203)
            assert run(executor=executor).status == "completed"
            assert executor.submit(len, "abc").result() == 3
        assert numbers(workdir) == list(range(ITEMS))

    @pytest.mark.slow
    def test_many_open_files_are_no_hindrance(self, workdir: Path) -> None:
        """Descriptors of workers may have high numbers."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 2_048:
            pytest.skip("this machine does not let us open so many files")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2_048), hard))
        try:
            with ExitStack() as stack:
                for _ in range(1_100):
                    stack.enter_context(open(os.devnull, encoding="ascii"))
                assert run(workers=2).completed
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert numbers(workdir) == list(range(ITEMS))

    @pytest.mark.slow
    def test_functions_without_a_name_reach_any_executor(self, workdir: Path) -> None:
        """They are sent as to our own processes."""
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as executor:
            run(lambda line: str(int(line)), executor=executor, workers=2)
        assert numbers(workdir) == list(range(ITEMS))

    def test_what_is_no_executor_is_refused(self) -> None:
        """Before anything begins; so is one that was shut down, with everything left as it was."""
        wrong: list[Any] = [5, ThreadPoolExecutor]
        for executor in wrong:
            with pytest.raises(UsageError, match="give an instance with submit"):
                run(executor=executor)
        with ThreadPoolExecutor(2) as executor, pytest.raises(UsageError, match="executor is for several workers"):
            run(executor=executor, workers=1)
        with pytest.raises(UsageError, match="the executor takes no work"):
            run(executor=executor)
        nobody: Any = None
        with pytest.raises(UsageError, match="workers is None"):
            run(workers=nobody)

    def test_threads_share_compressed_files(self, workdir: Path) -> None:
        """Each reads its own."""
        for part in range(4):
            text = "".join(f"{n}\n" for n in range(part * 1_000, part * 1_000 + 1_000))
            (workdir / f"part{part}.txt.gz").write_bytes(gzip.compress(text.encode()))
        with ThreadPoolExecutor(4) as executor:
            batchkit.process(
                "part*.gz", None, output="out.txt", workers=4, executor=executor, batch_size=7, progress="none"
            )
        assert numbers(workdir) == list(range(4_000))


def at(number: int) -> int:
    """Return the byte at which an item begins."""
    return sum(len(str(n)) + 1 for n in range(number))


def load(directory: Path) -> Any:
    """Return the function of a file, as the command line does."""
    from batchkit.loading import load as loaded  # noqa: PLC0415

    return loaded(f"{directory}/work.py:work")


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started and not yet buried."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    if int(file.read().rpartition(")")[2].split()[1]) == pid:
                        found.append(int(name))
            except OSError:
                continue
    return found


def alive(pid: int) -> bool:
    """Tell whether a process runs, as anything but a zombie."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
