"""What every reader holds: the same items, in order, from any cursor, and a word when its source is another."""

from __future__ import annotations

import copy
import itertools
import json
import os
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import batchkit
from batchkit.model import Batch, Span
from tests.conformance.readers import READERS, ReaderCase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ROWS = ["a", "é 🐎\u2028", "x,y;z\t'", "d" * 5000, " e ", "\\N", "zuletzt"]
MORE = ["+one", "+two", "+three"]
OTHER = ["Z", "ß 🐴\u2029", "X,Y;Z\t'", "D" * 5000, " E ", "\\n", "Zuletzt"]

pytestmark = pytest.mark.usefixtures("workdir")


@pytest.fixture(params=READERS, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Iterator[ReaderCase]:
    """Give each kind of source; standard input is put back afterwards."""
    kept = os.dup(0)
    yield request.param
    os.dup2(kept, 0)
    os.close(kept)


def slow(value: Any) -> Any:
    """Leave an example out of the quick part."""
    return pytest.param(value, marks=pytest.mark.slow)


def through_json(value: Any) -> Any:
    """Return a cursor or fingerprint as a journal gives it back."""
    return json.loads(json.dumps(value))


def batches_of(case: ReaderCase, directory: Path, rows: Sequence[str], size: int, cursor: Any = None) -> list[Batch]:
    """Read from a cursor to the end."""
    reader = case.reader(directory, rows)
    whole = reader.whole()
    return list(reader.read(whole if cursor is None else Span(cursor, whole.stop), size))


def items_of(batches: Sequence[Batch]) -> list[Any]:
    """Return all items."""
    return [item for batch in batches for item in batch.items]


def commits(case: ReaderCase, directory: Path, rows: Sequence[str]) -> list[tuple[Any, int]]:
    """Return cursor and proof behind each item, as commits would keep them."""
    return [through_json([batch.stop, batch.proof]) for batch in batches_of(case, directory, rows, 1)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_all_items_come_in_order_and_batches_are_no_larger_than_asked(
    case: ReaderCase, size: int, tmp_path: Path
) -> None:
    """Whatever the batch size: the same items, in batches of at most so many."""
    case.put(tmp_path, ROWS)
    batches = batches_of(case, tmp_path, ROWS, size)
    assert items_of(batches) == case.items(ROWS)
    assert all(0 < len(batch.items) <= size for batch in batches)
    assert all(not batch.unreadable for batch in batches)


@pytest.mark.parametrize("size", [2, 3, 7])
def test_a_batch_can_be_split_at_every_place(case: ReaderCase, size: int, tmp_path: Path) -> None:
    """The parts have the items, coordinates and proofs that batches read in that way would have had."""
    case.put(tmp_path, ROWS)
    marks = commits(case, tmp_path, ROWS)
    expected, at = case.items(ROWS), 0
    for batch in batches_of(case, tmp_path, ROWS, size):
        count = len(batch.items)
        assert [batch.coordinate(0), batch.coordinate(count)] == [batch.start, batch.stop]
        for place in range(1, count):
            head, rest = batch.split(place)
            assert [*head.items, *rest.items] == list(batch.items) == expected[at : at + count]
            assert [len(head.items), len(rest.items)] == [place, count - place]
            assert [head.start, rest.start, rest.stop] == [batch.start, batch.coordinate(place), batch.stop]
            assert through_json([head.stop, head.proof]) == marks[at + place - 1]
            assert through_json([rest.stop, rest.proof]) == marks[at + count - 1]
            assert [rest.coordinate(index) for index in range(count - place)] == [
                batch.coordinate(index) for index in range(place, count)
            ]
            if place > 1:
                first, second = head.split(1)
                assert [*first.items, *second.items, *rest.items] == list(batch.items)
        at += count
    assert at == len(ROWS)


def test_coordinates_increase_and_reading_from_each_gives_exactly_the_rest(case: ReaderCase, tmp_path: Path) -> None:
    """The coordinate of an item is a cursor: reading from it begins with that item."""
    case.put(tmp_path, ROWS)
    expected, at = case.items(ROWS), 0
    for batch in batches_of(case, tmp_path, ROWS, 3):
        places = [through_json(batch.coordinate(index)) for index in range(len(batch.items))]
        known = [place for place in places if place is not None]
        assert all(earlier != later for earlier, later in itertools.pairwise(known))
        if "cursors" not in case.name:  # whose order is their own
            assert known == sorted(known)
        for index, place in enumerate(places):
            rest = batches_of(case, tmp_path, ROWS, 100, place) if place is not None else None
            assert rest is None or items_of(rest) == expected[at + index :]
        at += len(batch.items)


@pytest.mark.parametrize("size", [2, slow(1), slow(100)])
def test_every_cursor_leads_to_the_rest_in_a_fresh_reader(case: ReaderCase, size: int, tmp_path: Path) -> None:
    """A cursor that went through JSON: the same input, and what comes behind; through a pickle, too."""
    case.put(tmp_path, ROWS)
    fingerprint = through_json(case.reader(tmp_path, ROWS).fingerprint())
    expected = case.items(ROWS)
    for done, (cursor, proof) in enumerate(commits(case, tmp_path, ROWS), 1):
        reader = case.reader(tmp_path, ROWS)
        verdict = reader.check(fingerprint, cursor, proof)
        assert verdict.kind == "same" or (
            done < len(ROWS) and verdict.kind == "appended" and reader.whole().stop is None
        )
        assert items_of(list(reader.read(Span(cursor, reader.whole().stop), size))) == expected[done:]
        if reader.restartable:
            again = pickle.loads(pickle.dumps(case.reader(tmp_path, ROWS)))  # noqa: S301  # our own
            assert items_of(list(again.read(Span(cursor, again.whole().stop), size))) == expected[done:]
        assert isinstance(reader.describe(cursor), str)


def test_a_reader_knows_itself_by_json(case: ReaderCase, tmp_path: Path) -> None:
    """Identity and fingerprint are JSON, the same each time, and name and unit are words."""
    case.put(tmp_path, ROWS)
    first, second = case.reader(tmp_path, ROWS), case.reader(tmp_path, ROWS)
    assert through_json(first.identity()) == second.identity()
    assert through_json(first.fingerprint()) == through_json(second.fingerprint())
    assert first.unit in {"B", "items"}
    assert first.name
    extent = first.extent(first.whole())
    assert extent is None or extent >= len(ROWS)


def run(case: ReaderCase, directory: Path, rows: Sequence[str], seen: list[Any], **options: Any) -> batchkit.Result:
    """Run a job over the source, noting each item that the function sees."""

    def note(item: Any) -> str:
        seen.append(copy.deepcopy(item))
        return f"{len(seen)}"

    options = {"job": "job", "state_dir": directory / "state", "progress": "none", "sync_interval": None, **options}
    return batchkit.process(case.source(directory, rows), note, **options)


@pytest.mark.parametrize("size", [3, slow(1), slow(100)])
def test_a_job_stopped_after_any_number_of_items_sees_each_item_once(
    case: ReaderCase, size: int, tmp_path: Path
) -> None:
    """Runs of k items each, for every k: all items, in order, and none of them twice."""
    case.put(tmp_path, ROWS)
    for count in (2, 3, 7) if size == 3 else range(1, len(ROWS) + 1):
        seen: list[Any] = []
        result = run(case, tmp_path, ROWS, seen, batch_size=size, max_items=count, job=f"job-{count}")
        while not result.completed:
            assert result.new == count
            result = run(case, tmp_path, ROWS, seen, batch_size=size, max_items=count, job=f"job-{count}")
        assert seen == case.items(ROWS)
        assert result.done == len(ROWS)
        assert list(result.results()) == [f"{number}" for number in range(1, len(ROWS) + 1)]
        result = run(case, tmp_path, ROWS, seen, job=f"job-{count}")
        assert (result.completed, result.new) == (True, 0)


@pytest.mark.parametrize("done", [2, None, slow(0), slow(5), slow(7)])
def test_a_source_that_grew_gives_its_new_items_too(case: ReaderCase, done: int | None, tmp_path: Path) -> None:
    """Appended items are taken by a job that is at any place, also one that was completed (`None`)."""
    if case.add is None:
        pytest.skip("this source cannot grow")
    case.put(tmp_path, ROWS)
    seen: list[Any] = []
    run(case, tmp_path, ROWS, seen, batch_size=2, max_items=done)
    case.add(tmp_path, ROWS, MORE)
    result = run(case, tmp_path, [*ROWS, *MORE], seen, batch_size=2)
    assert seen == case.items([*ROWS, *MORE])
    assert (result.completed, result.done) == (True, len(ROWS) + len(MORE))
    assert len(list(result.results())) == len(ROWS) + len(MORE)


def test_a_source_that_grows_again_and_again_gives_each_item_once(case: ReaderCase, tmp_path: Path) -> None:
    """Growth while paused, and twice after completion."""
    if case.add is None:
        pytest.skip("this source cannot grow")
    rows = list(ROWS)
    case.put(tmp_path, rows)
    seen: list[Any] = []
    for number in range(3):
        more = [f"{number} {row}" for row in MORE]
        case.add(tmp_path, rows, more)
        rows += more
        run(case, tmp_path, rows, seen, max_items=1)
        result = run(case, tmp_path, rows, seen, batch_size=2)
        assert (result.completed, seen) == (True, case.items(rows))


@pytest.mark.parametrize("done", [3, slow(1), slow(7)])
def test_other_items_in_the_place_of_those_done_are_refused(case: ReaderCase, done: int, tmp_path: Path) -> None:
    """What was done is not what is there now: exit 5, and the job is left as it was."""
    case.put(tmp_path, ROWS)
    seen: list[Any] = []
    run(case, tmp_path, ROWS, seen, batch_size=2, max_items=done)
    case.put(tmp_path, OTHER)
    if case.name == "range":
        pytest.skip("a range has no other items in the place of the same first one")
    with pytest.raises(batchkit.InputChanged) as caught:
        run(case, tmp_path, OTHER, seen)
    assert (caught.value.exit_code, "\n" in str(caught.value)) == (5, False)
    assert seen == case.items(ROWS)[:done]
    result = run(case, tmp_path, OTHER, seen, restart=True)
    assert (result.completed, seen[done:]) == (True, case.items(OTHER))


def test_fewer_items_than_were_done_are_refused(case: ReaderCase, tmp_path: Path) -> None:
    """A source that shrank is another one."""
    case.put(tmp_path, ROWS)
    seen: list[Any] = []
    run(case, tmp_path, ROWS, seen, max_items=5)
    case.put(tmp_path, ROWS[:3])
    if case.name == "keyset":
        pytest.skip("whoever reads behind a key does not see what is missing before it")
    with pytest.raises((batchkit.InputChanged, batchkit.SourceError)):
        run(case, tmp_path, ROWS[:3], seen)
    assert seen == case.items(ROWS)[:5]


def test_a_source_without_items_is_completed_at_once(case: ReaderCase, tmp_path: Path) -> None:
    """Nothing to do is success, also when it is done again."""
    case.put(tmp_path, [])
    for _ in range(2):
        seen: list[Any] = []
        result = run(case, tmp_path, [], seen)
        assert (result.completed, result.done, seen, list(result.results())) == (True, 0, [], [])


def test_a_source_that_was_empty_may_grow(case: ReaderCase, tmp_path: Path) -> None:
    """A completed job over nothing goes on with what comes."""
    if case.add is None:
        pytest.skip("this source cannot grow")
    if case.name in {"keyset", "text-cursors", "nested-cursors"}:
        pytest.skip("says itself that it is another when its first row is")
    case.put(tmp_path, [])
    seen: list[Any] = []
    run(case, tmp_path, [], seen)
    case.add(tmp_path, [], MORE)
    result = run(case, tmp_path, MORE, seen)
    assert (result.completed, len(seen)) == (True, len(MORE))


@pytest.mark.parametrize("row", ["x", "", "🐎" * 30_000])
def test_one_item_is_an_item(case: ReaderCase, row: str, tmp_path: Path) -> None:
    """A single one: short, empty, or longer than a block."""
    if not row and case.name in {"range", "lines-unended", "stdin"}:
        pytest.skip("has no empty item")
    if case.name == "stdin":
        row = row[:5000]
    case.put(tmp_path, [row])
    seen: list[Any] = []
    result = run(case, tmp_path, [row], seen)
    assert (result.completed, result.done, seen) == (True, 1, case.items([row]))


TEXTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1, max_size=20),
    min_size=1,
    max_size=12,
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=TEXTS, size=st.integers(1, 5), place=st.integers(0, 11))
def test_any_text_comes_back_whole_from_any_place(
    case: ReaderCase, tmp_path: Path, rows: list[str], size: int, place: int
) -> None:
    """Whatever the texts: in full, and from any cursor."""
    if rows[-1].startswith("<") or any("|" in row or row.startswith("\ufeff") for row in rows):
        return  # the delimiter of a case; a byte order mark
    if case.name == "range" or (case.name == "lines-unended" and not rows[-1]):
        return
    case.put(tmp_path, rows)
    batches = batches_of(case, tmp_path, rows, size)
    expected = case.items(rows)
    assert items_of(batches) == expected
    place = min(place, len(batches) - 1)
    done = sum(len(batch.items) for batch in batches[: place + 1])
    rest = batches_of(case, tmp_path, rows, size, through_json(batches[place].stop))
    assert items_of(rest) == expected[done:]
