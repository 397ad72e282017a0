"""A source of one's own: its cursors are JSON, whatever it yields, and what it says of itself is its own business."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from batchkit.readers.share import share_done

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.usefixtures("workdir")


class Pairs:
    """Ten items whose cursors are tuples; comes back from JSON as lists."""

    def __init__(self, facts: Any = None) -> None:
        self._facts = facts

    def fingerprint(self) -> Any:
        return self._facts

    def read(self, cursor: Any) -> Iterator[tuple[Any, int]]:
        first = 0 if cursor is None else cursor[0] * 4 + cursor[1] + 1
        for number in range(first, 10):
            yield (number // 4, number % 4), number


@pytest.mark.parametrize("facts", [[], ["a"], [{"size": 3}], {"items": "x"}, {"items": 5}, "text"], ids=str)
def test_a_source_may_say_of_itself_whatever_it_likes(facts: Any) -> None:
    """Nobody takes it for facts of files or the length of a list: the share that is done is unknown."""
    result = batchkit.process(Pairs(facts), job="job", output="out.txt", batch_size=3, max_items=4)
    assert result.share is None
    status = batchkit.Job("job").status()
    assert (status.status, status.done, status.share) == ("paused", 4, None)
    result = batchkit.process(Pairs(facts), job="job", output="out.txt")
    assert (result.completed, result.done) == (True, 10)
    assert batchkit.Job("job").status().share in {None, 1.0}


def test_the_share_of_a_source_that_is_not_batchkits_is_unknown() -> None:
    """Also where cursors and facts look like those of files, and are not."""
    for kind in ("source", "stream", "query"):
        for facts in ([{"size": 9, "path": "a"}], {"items": 3}, None):
            assert share_done(kind, facts, [], [[0, 1]]) is None or not facts


def test_the_key_of_an_item_is_the_same_wherever_its_batch_begins() -> None:
    """Cursors that are tuples are lists once they were in the journal; keys do not show which they are."""
    keys: dict[int, set[str]] = {}
    fault = [4]

    def note(number: int) -> int:
        keys.setdefault(number, set()).update(batchkit.current_batch().item_keys)
        if number in fault:
            raise RuntimeError("not now")
        return number

    for size, at in ((3, 4), (10, 5), (1, 7), (4, 9), (2, -1)):
        fault[:] = [at]
        try:
            batchkit.process(Pairs(), note, job="job", output="out.txt", batch_size=size)
        except batchkit.ItemError as error:
            assert error.item == at  # noqa: PT017  # it is raised in all runs but the last
    assert [len(each) for _, each in sorted(keys.items())] == [1] * 10
    assert len(set().union(*keys.values())) == 10


def test_the_key_of_a_call_is_the_same_in_the_run_that_repeats_it() -> None:
    """First in the midst of what was read, then at a cursor that stood in the journal: the same items, the same key."""
    seen: list[tuple[list[int], str, list[str]]] = []
    fault = [True]

    def note(numbers: list[int]) -> list[int]:
        now = batchkit.current_batch()
        seen.append((numbers, now.key, now.item_keys))
        if 4 in numbers and fault:
            fault.pop()
            raise RuntimeError("not now")
        return numbers

    options: dict[str, Any] = {"batched": True, "job": "job", "output": "out.txt", "batch_size": 2}
    with pytest.raises(batchkit.ItemError):
        batchkit.process(Pairs(), note, **options, isolate="none")
    batchkit.process(Pairs(), note, **options)
    assert seen[2] == seen[3]
    assert seen[2][0] == [4, 5]
    assert seen[2][1].endswith(":0.3-1.0"), "the cursors before its first and its last item"
    of_items = [key for _, _, keys in seen[:2] + seen[3:] for key in keys]
    assert len(set(of_items)) == len(of_items) == 10


@pytest.mark.parametrize("at", [0, 5])
def test_what_a_source_raises_is_told_in_one_line_behind_what_came_before(at: int) -> None:
    """Where reading begins, and later on; what came before it is kept, and the next run goes on there."""
    fault = [at]

    class Broken(Pairs):
        def read(self, cursor: Any) -> Iterator[tuple[Any, int]]:
            for pair in super().read(cursor):
                if pair[1] in fault:
                    raise OSError("the line broke\nand nobody mended it")
                yield pair

    with pytest.raises(batchkit.SourceError, match="the line broke and nobody mended it") as caught:
        batchkit.process(Broken(), job="job", output="out.txt", batch_size=3)
    assert "\n" not in str(caught.value)
    assert batchkit.Job("job").status().done == at
    with pytest.raises(batchkit.SourceError, match="the line broke and nobody") as caught:
        batchkit.process(Broken(), job="job", output="out.txt", batch_size=3)
    assert "\n" not in str(caught.value)
    fault.clear()
    assert batchkit.process(Broken(), job="job", output="out.txt").done == 10


def test_a_file_object_is_a_stream_and_no_source_of_ones_own() -> None:
    """It has `read`, but it can be walked: also one that is no file of Python's own, such as a temporary one."""
    with tempfile.NamedTemporaryFile("w+") as file:
        file.write("one\ntwo\nthree\n")
        file.seek(0)
        assert not isinstance(file, io.IOBase)
        paused = batchkit.process(file, str.strip, job="job", output="out.txt", max_items=1)
        assert (paused.completed, paused.done) == (False, 1)
        file.seek(0)
        assert batchkit.process(file, str.strip, job="job", output="out.txt").new == 2
    assert Path("out.txt").read_text() == "one\ntwo\nthree\n"
