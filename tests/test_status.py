"""`batchkit status`: what people see when they come back."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import batchkit
from tests.test_steering import running

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli

    Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.usefixtures("workdir")
README = Path(__file__).parent.parent / "README.md"


def paused(items: int = 30, **options: object) -> batchkit.Result:
    """Work on some of a hundred items."""
    return batchkit.process(range(100), str, job="j", max_items=items, batch_size=10, **options)  # type: ignore[arg-type]


def test_a_job_at_a_glance(cli: Cli) -> None:
    """State, bar, counts, runs, why the last one ended, what to do next."""
    paused(20)
    paused(10)
    shown = cli("status", "j").out
    assert shown.startswith("j: paused, 30 items done (30.0%)")
    assert f"{'█' * 7}{'░' * 17}  30% 30 done, about 70 left, 0 failed" in shown
    assert re.search(r"runs      2, \d", shown)
    assert re.search(r"last run  ended \d{4}-.* the number of items asked for is done", shown)
    assert re.search(r"forecast  about 1 more run, done around .* from 2 runs\)", shown)
    assert "next      run the same command again" in shown


def test_the_next_step_of_a_job_with_failures_is_to_look_at_them(cli: Cli) -> None:
    """And there is nothing to forecast."""
    batchkit.process([1, 0], lambda item: 1 // item, job="j", on_error="skip")
    shown = cli("status", "j").out
    assert "next      batchkit failures j" in shown
    assert "forecast" not in shown


def test_a_run_that_failed_has_brought_something_too() -> None:
    """What it did before counts for the forecast, though it does not say how far it came."""

    def fail(item: int) -> int:
        return 60 // (60 - item)

    with pytest.raises(batchkit.ItemError):
        batchkit.process(range(100), fail, job="j", batch_size=10)
    guess = batchkit.Job("j").overview().forecast
    assert guess is not None
    assert guess.sample == 1
    assert guess.seconds.likely > 0


def test_shards_have_lines_of_their_own(cli: Cli) -> None:
    """With what is done of each."""
    Path("items.txt").write_text("".join(f"{number:05}\n" for number in range(1000)))
    cli("process", "items.txt", "-o", "o.txt", "-w", "2", "--job", "j", "--max-items", "500")
    shown = cli("status", "j", "--shards").out
    shards = json.loads(cli("status", "j", "--json").out)["shards"]
    assert len(re.findall(r"^  shard \d", shown, re.MULTILINE)) == len(shards) >= 2
    assert sum(shard["done"] for shard in shards) == 500


@pytest.mark.parametrize("flag", ["--watch", "--shards"])
def test_what_is_for_one_job_needs_its_name(cli: Cli, flag: str) -> None:
    """Exit 2, rather than nothing."""
    assert cli("status", flag).code == 2


def test_the_documented_fields_are_those_that_are_printed(cli: Cli) -> None:
    """Of a job, its runs, its shards and the forecast."""
    paused()
    seen = json.loads(cli("status", "j", "--json").out)
    table = README.read_text().split("`Job(name).overview()`:", 1)[1].split("\nTimes are", 1)[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    assert {name for first, _ in rows for name in re.findall(r"`(\w+)`", first)} == seen.keys()
    inner = {first.strip(" `"): set(re.findall(r"`(\w+)`", second)) for first, second in rows}
    assert inner["history"] == seen["history"][0].keys()
    assert inner["shards"] == seen["shards"][0].keys()
    assert inner["forecast"] - {"low", "likely", "high"} == seen["forecast"].keys()
    [listed] = json.loads(cli("status", "--json").out)
    assert list(listed) == list(seen)[:11]


@pytest.mark.slow
def test_a_run_at_work_shows_its_speed_and_its_end(start_cli: Start, cli: Cli) -> None:
    """What to type is how to stop it."""
    Path("items.txt").write_text("".join(f"{number}\n" for number in range(5000)))
    Path("slow.py").write_text(
        "import time\nfrom pathlib import Path\n"
        "def slow(item):\n    Path('reached').touch()\n    time.sleep(0.05)\n    return item\n"
    )
    with running(start_cli, "-b", "1", "--max-time", "1000h") as process:
        while not (seen := batchkit.Job("j").overview()).rate:
            pass
        shown = cli("status", "j").out
        process.kill()
    assert seen.status.status == "running"
    assert 0 < seen.rate <= 20
    assert "at work since" in shown
    assert "to end before" in shown
    assert "done in about" in shown
    assert "next      batchkit stop j" in shown
    assert "and was killed" in cli("status", "j").out


@pytest.mark.slow
def test_on_a_terminal_all_jobs_are_a_table() -> None:
    """As wide as it is; and --watch ends when the job does not run."""
    paused()
    parent, child = pty.openpty()
    for words in (["status"], ["status", "j", "--watch"]):
        subprocess.run(
            [sys.executable, "-m", "batchkit", *words], stdout=child, check=True, env={**os.environ, "COLUMNS": "100"}
        )
    os.close(child)
    seen = os.read(parent, 10_000).decode()
    os.close(parent)
    assert re.search(r"JOB +STATUS +PROGRESS +DONE +FAILED +LAST COMMIT", seen)
    assert re.search(r"‖  j +paused +███░░░░░░░  30% +30 +\d", seen)
    assert "last run" in seen
