"""What every writer holds: the same results after any stops, readable at every stage, and no file taken unasked."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import batchkit
from tests.conformance.jobs import GROWN, ITEMS, WriterJob
from tests.conformance.test_readers import slow
from tests.conformance.writers import NAMED, WRITERS, WriterCase

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILES = [case.name for case in WRITERS if case.output]


@pytest.fixture(params=[case.name for case in WRITERS])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> WriterJob:
    """Give a small job with each kind of output."""
    return WriterJob(tmp_path / "work", request.param, sync_interval=None)


def files_of(path: Path) -> dict[str, bytes]:
    """Return what stands in an output."""
    paths = sorted(path.iterdir()) if path.is_dir() else [path]
    return {each.name: each.read_bytes() for each in paths}


def stored(job: WriterJob, result: batchkit.Result) -> list[Any]:
    """Return the results so far, which the result of a run and the job agree on."""
    results = list(result.results())
    assert list(batchkit.Job("job", job.directory / "state").results()) == results
    return results


@pytest.mark.parametrize("count", [1, 3, slow(2), slow(4), slow(5), slow(6), slow(7)])
def test_stops_after_any_number_of_items_leave_no_trace_in_the_results(job: WriterJob, count: int) -> None:
    """Runs of k items each give what one run gives, and all results so far can be read between them."""
    done = 0
    result = None
    while result is None or not result.completed:
        result = job.run(max_items=count)
        done += result.new
        assert stored(job, result) == job.case.expected(done)
        assert result.completed or job.case.output is None or not job.output.exists()
    job.check()


@pytest.mark.parametrize("size", [1, 3, 100])
def test_the_batch_size_leaves_no_trace_in_the_results(job: WriterJob, size: int) -> None:
    """Whatever the batches: the same results."""
    job.run(batch_size=size)
    job.check()


def test_a_source_without_items_gives_an_output_that_can_be_read(job: WriterJob) -> None:
    """An empty file of each kind is a valid one."""
    job.clear(items=0)
    for _ in range(2):
        result = job.run()
        assert (result.completed, stored(job, result)) == (True, [])
        assert job.results() == []


def nothing(_: str) -> None:
    """Store nothing."""


def test_results_of_none_store_nothing(job: WriterJob) -> None:
    """A job whose function only has side effects gives a valid, empty output."""
    result = job.run(nothing)
    assert (result.done, stored(job, result), job.results()) == (ITEMS, [], [])


@pytest.mark.parametrize("done", [4, None, slow(0), slow(1), slow(7)])
def test_items_that_come_later_give_results_behind_the_others(job: WriterJob, done: int | None) -> None:
    """At any place of the job, also after it was completed."""
    job.run(max_items=done)
    job.grow()
    result = job.run(max_items=1)
    if not result.completed:
        assert stored(job, result) == job.case.expected((ITEMS if done is None else done) + 1)
        result = job.run()
    assert stored(job, result) == job.case.expected(GROWN)
    job.check(GROWN)


def test_results_that_come_after_none_at_all_are_the_whole_output(job: WriterJob) -> None:
    """An empty output that is published is replaced by one with results."""
    job.clear(items=0)
    job.run()
    job.source.write_text("".join(f"{number}\n" for number in range(ITEMS)))
    result = job.run()
    assert stored(job, result) == job.case.expected(ITEMS) == job.results()


def once_more(line: str) -> Any:
    """Return a result that the usual function does not give."""
    return {"id": int(line), "text": "again"}


def test_a_restart_keeps_the_old_output_until_the_new_one_replaces_it(job: WriterJob) -> None:
    """Readers see all old results or all new ones."""
    job.run()
    before = files_of(job.output)
    if job.case.output is not None:
        result = job.run(once_more, restart=True, max_items=3)
        assert files_of(job.output) == before
        assert len(stored(job, result)) == 3
    result = job.run(once_more, restart=job.case.output is None)
    assert (result.completed, len(stored(job, result)), len(job.results())) == (True, ITEMS, ITEMS)
    assert "again" in str(job.results()[0])


def spoil(path: Path) -> None:
    """Change a byte of a file, in the first one of a directory."""
    if path.is_dir():
        path = min(path.iterdir())
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("grown", [False, True])
def test_a_published_output_that_was_changed_is_refused_and_left_alone(job: WriterJob, grown: bool) -> None:
    """Whoever edited it decides: exit 5."""
    job.run()
    spoil(job.output)
    before = files_of(job.output)
    if grown:
        job.grow()
    for _ in range(2):
        with pytest.raises(batchkit.OutputChanged) as caught:
            job.run()
        assert (caught.value.exit_code, "\n" in str(caught.value)) == (5, False)
        assert files_of(job.output) == before
    job.run(restart=True)
    job.check(GROWN if grown else ITEMS)


@pytest.mark.parametrize("case", FILES)
def test_an_output_of_somebody_else_is_refused_and_replaced_if_that_is_asked_for(tmp_path: Path, case: str) -> None:
    """What stands there is not touched without overwrite=True, and then stays until the new one is whole."""
    job = WriterJob(tmp_path / "work", case, sync_interval=None)
    foreign = job.output / "00000.txt" if str(job.case.output).endswith("/") else job.output
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("mine\n")
    with pytest.raises(batchkit.UsageError):
        job.run()
    assert foreign.read_text() == "mine\n"
    job.run(overwrite=True, max_items=3)
    assert foreign.read_text() == "mine\n"
    job.run()
    job.check()


def several(case: WriterCase) -> Any:
    """Return a generator function that gives no, one or two results per item."""

    def function(line: str) -> Iterator[Any]:
        for _ in range(int(line) % 3):
            yield case.function(line)

    return function


def test_a_generator_function_gives_any_number_of_results_per_item(job: WriterJob) -> None:
    """None of them, some of them, a stop between items: each once."""
    function = several(job.case)
    for count in (1, 2, None):
        result = job.run(function, max_items=count)
    expected = [
        job.case.stored(job.case.result(number))
        for number in range(ITEMS)
        for _ in range(number % 3)
        if job.case.result(number) is not None
    ]
    assert (result.completed, stored(job, result), job.results()) == (True, expected, expected)


def test_a_batched_function_gives_a_list_of_results(job: WriterJob) -> None:
    """Of any length; `None` among them stores nothing."""

    def batched(lines: list[str]) -> list[Any]:
        return [job.case.function(line) for line in lines] + [None]

    for count in (2, None):
        result = job.run(batched, batched=True, max_items=count)
    assert stored(job, result) == job.case.expected(ITEMS)
    job.check()


def table(lines: list[str]) -> pl.DataFrame:
    """Return a table as the results of a batch."""
    return pl.DataFrame({"line": lines, "length": [len(line) for line in lines], "word": ["é,"] * len(lines)})


def test_the_rows_of_a_table_are_results(job: WriterJob) -> None:
    """With every writer: a dict per row."""
    for count in (2, None):
        result = job.run(table, batched=True, max_items=count)
    found = job.results()
    assert len(found) == ITEMS == len(stored(job, result))
    assert "é," in str(found[0])
    if isinstance(found[0], dict):
        assert [str(row["line"]) for row in found] == [f"{number}" for number in range(ITEMS)]


def test_the_format_may_be_given_by_name(job: WriterJob) -> None:
    """output_format= says what the file is, whatever it is called."""
    if job.case.output is None or job.case.output.endswith("/"):
        pytest.skip("has no name of its own")
    name, _, packed = job.case.output.removeprefix("out.").partition(".")
    output_format = {"txt": "text"}.get(name, name) + (f".{packed}" if packed else "")
    other = job.directory / "out.data"
    options = {"output": other, "output_format": output_format}
    job.run(**options, max_items=3)
    job.run(**options)
    os.rename(other, job.output)
    assert job.results() == job.case.expected(ITEMS)


@pytest.mark.parametrize("case", [case for case in WRITERS if case.output], ids=lambda case: case.name)
def test_memory_holds_results_as_they_are(case: WriterCase) -> None:
    """Without a job nothing is on the disk and nothing is converted."""
    result = batchkit.process([f"{number}" for number in range(ITEMS)], case.function, batch_size=2, progress="none")
    results = [case.result(number) for number in range(ITEMS)]
    assert list(result.results()) == [each for each in results if each is not None]


def test_standard_output_gets_every_result_over_any_number_of_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without crashes: once each, in order."""
    job = WriterJob(tmp_path / "work", "text", output="-")
    while not job.run(max_items=2).completed:
        pass
    assert capfd.readouterr().out == "".join(result + "\n" for result in job.case.expected(ITEMS))


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(VALUES, min_size=1, max_size=6), stop=st.integers(1, 5))
@pytest.mark.parametrize("case", ["jsonl", "jsonl-gz", "jsonl-zst", "directory-jsonl"])
def test_any_json_value_comes_back_as_it_was(tmp_path: Path, case: str, values: list[Any], stop: int) -> None:
    """Whatever the value, with a stop on the way."""
    job = WriterJob(tmp_path / "work", case, sync_interval=None)
    job.clear(items=len(values))

    def value(line: str) -> Any:
        return {"value": copy.deepcopy(values[int(line)])}

    job.run(value, max_items=stop)
    job.run(value)
    assert NAMED[case].read(job.output) == [{"value": value} for value in values]
