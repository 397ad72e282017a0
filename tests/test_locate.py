"""`batchkit locate`: what became of an item."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from batchkit import InputChanged, Job, SkipItem, UsageError, process

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.conftest import Cli


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a directory of one's own."""
    monkeypatch.chdir(tmp_path)


def lines(count: int) -> None:
    """Make an input of so many lines."""
    Path("items.txt").write_text("".join(f"item {n}\n" for n in range(1, count + 1)))


def kind(item: str) -> str:
    """Fail for every seventh, skip every fifth."""
    number = int(item.split()[1])
    if number % 7 == 0:
        raise ValueError(f"{number} is a seven")
    if number % 5 == 0:
        raise SkipItem
    return item


def run(**options: object) -> Job:
    """Run over the lines and return the job."""
    process("items.txt", kind, job="j", output="o.txt", on_error="skip", progress="none", **options)  # type: ignore[arg-type]
    return Job("j")


def test_an_item_is_told_with_run_shard_and_batch() -> None:
    """Run and batch are those of the commit that covers it."""
    lines(40)
    run(batch_size=4, max_items=20)
    job = run(batch_size=4)
    first, later = job.locate(1), job.locate(23)
    assert (first.status, first.run, first.shard, first.batch, first.items) == ("done", 1, 0, 1, 4)
    assert (later.status, later.run, later.batch) == ("done", 2, 6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 60),
    size=st.integers(1, 9),
    stops=st.lists(st.integers(1, 20), max_size=3),
)
def test_every_item_is_where_a_plain_count_says(count: int, size: int, stops: Iterable[int]) -> None:
    """Over any runs and batches; what was skipped is told as far as it is known."""
    lines(count)
    process("items.txt", kind, job="j", output="o.txt", on_error="skip", progress="none", max_items=0, restart=True)
    for items in stops:
        run(batch_size=size, max_items=items)
    job = run(batch_size=size)
    for number in range(1, count + 1):
        found = job.locate(number)
        expected = "failed" if number % 7 == 0 else "skipped" if number % 5 == 0 else "done"
        assert found.number == number
        assert expected in found.status.split(" or ")
        assert (found.failure is not None) == (number % 7 == 0)
    with pytest.raises(UsageError, match=f"has {count:,} items; there is no item {count + 1:,}"):
        job.locate(count + 1)


def test_a_failure_that_a_retry_did_is_done_with_what_it_failed_of() -> None:
    """The number of the retry is told, too."""
    lines(30)
    job = run(batch_size=5)
    assert job.locate(14).status == "failed"
    job.retry(lambda item: item if item != "item 21" else 1 / 0, progress="none")
    found, again = job.locate(14), job.locate(21)
    assert (found.status, found.retry) == ("done", 1)
    assert found.failure is not None
    assert found.failure.message == "14 is a seven"
    assert (again.status, again.retry) == ("failed", 1)
    assert again.failure is not None
    assert again.failure.error == "ZeroDivisionError"


def test_what_was_not_reached_is_to_do() -> None:
    """Of one shard, that is known of everything behind the cursor."""
    lines(30)
    job = run(max_items=10)
    assert job.locate(11).status == "to do"
    assert job.locate(5000).status == "to do"


@pytest.mark.slow
def test_shards_are_counted_through() -> None:
    """Of unfinished ones nobody knows what stands behind them; when all is done, each item is found."""
    Path("items.txt").write_text("".join(f"item {n}\n" for n in range(1, 2001)))
    job = run(workers=2, batch_size=10)
    assert {found.shard for found in map(job.locate, range(1, 2001, 50))} >= {0, 1}
    assert all(job.locate(n).status == "failed" for n in range(7, 2001, 70))


@pytest.mark.parametrize("size", [1, 1000])
def test_an_item_is_found_by_its_text(size: int) -> None:
    """All of them, if there are several."""
    Path("items.txt").write_text("item 1\nitem 2\nitem 1\n")
    job = run(batch_size=size)
    assert list(job.find("item 1")) == [1, 3]
    assert list(job.find("item")) == []


def test_rows_are_found_by_a_column() -> None:
    """Or by all of the row, as JSON."""
    Path("rows.csv").write_text("id,name\n1,ann\n2,bob\n3,ann\n")
    process("rows.csv", job="rows", output="o.csv", progress="none")
    job = Job("rows")
    assert list(job.find("name=ann")) == [1, 3]
    assert list(job.find('{"id": "2", "name": "bob"}')) == [2]
    assert list(job.find("name=eve")) == []


def test_values_that_are_no_text_are_found_by_their_json() -> None:
    """Lines of JSON may be numbers."""
    Path("n.jsonl").write_text("1\n2\n[3]\n")
    process("n.jsonl", job="n", output="o.jsonl", progress="none")
    assert list(Job("n").find("[3]")) == [3]


def test_a_changed_input_is_not_searched() -> None:
    """Its numbers would be those of other items."""
    lines(5)
    job = run()
    Path("items.txt").write_text("other\n" * 9)
    with pytest.raises(InputChanged, match="--line N"):
        list(job.find("other"))


def test_an_input_in_memory_is_located_by_number_only() -> None:
    """What was in a list is gone."""
    process(["a", "b"], job="mem", progress="none")
    assert Job("mem").locate(2).status == "done"
    with pytest.raises(UsageError, match="--line N"):
        list(Job("mem").find("a"))


def test_the_command_tells_in_lines_and_as_json(cli: Cli) -> None:
    """With the error of what failed."""
    lines(20)
    run(batch_size=5)
    ended = cli("locate", "j", "item 7")
    assert ended.code == 0
    assert ended.out.startswith("j: item 7 failed\n  run 1, shard 0, batch 2 (5 items in ")
    assert "ValueError: 7 is a seven (1 attempt), 'items.txt' line 7 (byte 42)" in ended.out
    ended = cli("locate", "j", "--line", "7", "--json")
    found = json.loads(ended.out)
    assert [(each["status"], each["failure"]["error"]) for each in found] == [("failed", "ValueError")]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("locate", "j"), 2, "say which item: its text, or --line N"),
        (("locate", "j", "item 1", "--line", "1"), 2, "say which item"),
        (("locate", "j", "nothing"), 1, "there is no item 'nothing' in its input"),
        (("locate", "j", "--line", "99"), 2, "has 20 items; there is no item 99"),
        (("locate", "other", "--line", "1"), 2, "there is no job 'other'"),
    ],
)
def test_wrong_questions_are_told_in_a_line(cli: Cli, words: tuple[str, ...], code: int, said: str) -> None:
    """With what to ask instead."""
    lines(20)
    run()
    ended = cli(*words)
    assert ended.code == code
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1
