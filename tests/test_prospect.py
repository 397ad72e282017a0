"""`batchkit plan`: what a job would be, before it runs."""

from __future__ import annotations

import datetime
import gzip
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from batchkit import Job, UsageError, csv, lines
from batchkit.prospect import items_in, prospect
from batchkit.sources import reader_of

if TYPE_CHECKING:
    from tests.conftest import Cli


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a directory of one's own, with a function that leaves a trace."""
    monkeypatch.chdir(tmp_path)
    Path("m.py").write_text(
        "def f(x):\n    with open('calls.txt', 'a') as file:\n        file.write(x + '\\n')\n    return x\n"
    )


def words(count: int, path: str = "items.txt") -> None:
    """Make lines of very different lengths."""
    chance = random.Random(count)
    Path(path).write_text("".join("x" * chance.randrange(1, 80) + "\n" for _ in range(count)))


def test_a_large_text_is_estimated_from_a_few_places() -> None:
    """With a range that holds the true number, and is narrow."""
    words(200_000)
    guess, exact = items_in(lines("items.txt"))
    assert guess is not None
    assert not exact
    assert guess.low < 200_000 < guess.high
    assert guess.high / guess.low < 1.1


def test_a_text_whose_lines_grow_is_estimated_too() -> None:
    """Which its beginning alone would not tell."""
    Path("items.txt").write_text("".join("x" * (n // 3000) + "\n" for n in range(200_000)))
    guess, _ = items_in(lines("items.txt"))
    assert guess is not None
    assert guess.low < 200_000 < guess.high


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=9), max_size=40))
def test_a_small_text_is_counted(items: list[str]) -> None:
    """It was read as a whole."""
    Path("items.txt").write_bytes("".join(f"{item}\n" for item in items).encode())
    guess, exact = items_in(lines("items.txt"))
    assert exact
    assert guess is not None
    assert guess.likely == len(items)


def test_rows_of_parquet_are_known_and_csv_is_looked_at_from_the_beginning() -> None:
    """To enter a CSV file in the middle it is read from its beginning, which would be counting."""
    frame = pl.DataFrame({"a": range(100_000_000, 100_200_000)})
    frame.write_parquet("rows.parquet")
    frame.write_csv("rows.csv")
    known, exact = items_in(reader_of("rows.parquet"))
    assert (known and known.likely, exact) == (200_000, True)
    guess, exact = items_in(csv("rows.csv"))
    assert guess is not None
    assert not exact
    assert guess.low < 200_000 < guess.high


def test_what_nobody_has_counted_is_unknown() -> None:
    """A guess would be a number made up."""
    with gzip.open("items.txt.gz", "wt") as file:
        file.write("a\n" * 10)
    assert items_in(lines("items.txt.gz")) == (None, False)
    seen = prospect(lines("items.txt.gz"), None, 5, keep=False)
    assert (seen.items, seen.guess, seen.sampled) == (None, None, 5)


def test_a_sample_is_thrown_away(cli: Cli) -> None:
    """No job, no output; the function was called, and that is said."""
    words(500)
    ended = cli("plan", "items.txt", "-f", "m.py:f", "-o", "o.txt", "--sample", "20")
    assert ended.code == 0
    assert "items     500\n" in ended.out
    assert "sample    20 items in " in ended.out
    assert "results thrown away" in ended.out
    assert "about 1 more run, done around" in ended.out
    assert not Path("o.txt").exists()
    assert not Path(".batchkit").exists()
    assert len(Path("calls.txt").read_text().splitlines()) == 20


def test_a_sample_is_kept(cli: Cli) -> None:
    """It is the job's first run, and the next goes on behind it."""
    words(500)
    options = ("items.txt", "-f", "m.py:f", "-o", "o.txt", "-b", "10")
    ended = cli("plan", *options, "--sample", "20", "--keep")
    assert ended.code == 0
    assert "results kept as the job's" in ended.out
    assert Job("items-f").status().done == 20
    assert cli("process", *options).code == 0
    assert len(Path("calls.txt").read_text().splitlines()) == 500
    again = cli("plan", *options, "--keep")
    assert "sample    0 items" in again.out
    assert "forecast" not in again.out


def test_workers_and_limits_are_reckoned_with() -> None:
    """Two do twice as much; a limit tells how many runs."""

    def slow(item: str) -> str:
        return str(sum(range(len(item) * 100)))

    words(5_000)
    one, two = (prospect(lines("items.txt"), slow, 400, keep=False, workers=count) for count in (1, 2))
    assert (one.shards, two.shards) == (1, 2)
    assert one.guess is not None
    assert two.guess is not None
    assert one.guess.seconds.likely == pytest.approx(one.seconds * 4_600 / 400, rel=0.5)
    assert two.guess.seconds.likely == pytest.approx(two.seconds / 2 * 5_000 / 400, rel=0.3)
    limited = prospect(lines("items.txt"), slow, 400, keep=False, max_time=0.01)
    assert limited.guess is not None
    assert limited.guess.runs.likely >= 2
    tonight = datetime.datetime.now().astimezone() + datetime.timedelta(hours=2)
    until = prospect(lines("items.txt"), slow, 400, keep=False, until=tonight)
    assert until.guess is not None
    assert until.guess.run_seconds == pytest.approx(7200, abs=60)


def test_json_holds_all_of_it(cli: Cli) -> None:
    """For scripts."""
    words(500)
    ended = cli("plan", "items.txt", "-f", "m.py:f", "--json", "--sample", "5")
    found: dict[str, Any] = json.loads(ended.out)
    assert found["items"]["likely"] == 500
    assert found["sampled"] == 5
    assert set(found["guess"]) == {"seconds", "runs", "run_seconds", "at", "sample"}


def test_standard_input_cannot_be_planned(cli: Cli) -> None:
    """What a sample took of it would be gone."""
    ended = cli("plan", "-", "-f", "m.py:f", stdin="a\n")
    assert ended.code == 2
    assert "standard input can be read once" in ended.err


def test_a_function_that_fails_in_the_sample_says_so(cli: Cli) -> None:
    """Which is what a plan is for."""
    words(5)
    Path("bad.py").write_text("def f(x):\n    return 1 / 0\n")
    ended = cli("plan", "items.txt", "-f", "bad.py:f")
    assert ended.code == 1
    assert "ZeroDivisionError: division by zero; mend it, or plan with" in ended.err
    ended = cli("plan", "items.txt", "--keep")
    assert ended.code == 2
    assert "--keep needs -o FILE" in ended.err


def test_results_in_memory_cannot_be_kept() -> None:
    """There is no job that they would belong to."""
    with pytest.raises(UsageError, match="cannot be kept"):
        prospect(reader_of(["a", "b"]), None, 1, keep=True, progress="none")
