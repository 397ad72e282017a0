"""Results of rounds come in their places, between those that are there: published or not, in files of each kind."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

import batchkit
from batchkit import compression, files
from batchkit.job import PublishLog
from batchkit.writers import lines
from batchkit.writers.agreement import Agreement
from batchkit.writers.base import Insert, Piece, Round
from batchkit.writers.inserting import Cut, Placed, by_shard, cuts, origins, woven
from batchkit.writers.kinds import output_for
from batchkit.writers.memory import MemoryOutput
from batchkit.writers.walking import Walk
from tests.kernels import Hooked, Killing, PowerCut, Recording, Unsynced, installed, materialize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.children import Nursery

NEVER = 9
"""The round of an item that fails for good."""

CASES = ["out.txt", "out.jsonl", "out.csv", "out.csv.gz", "out.jsonl.zst", "out.parquet"]
DIRECTORIES = ["jsonl/", "csv/", "csv.gz/", "parquet/"]
QUICK = ["out.txt", "out.csv", "jsonl/"]
REST = [name for name in [*CASES, *DIRECTORIES] if name not in QUICK]


class Item(NamedTuple):
    """An item: how many results it gives, and in which round; 0: when its shard was worked on."""

    results: int
    round: int = 0


def value(name: str, shard: int, number: int, result: int) -> Any:
    """Return a result of an item."""
    text = f'é "{shard}",\n{number}' if ".csv" in f".{name}" else f"{shard}-{number}-{result}"
    if name.endswith("txt"):
        return text
    return {"shard": shard, "text": text, "late": None if (shard, number) < (0, 2) else number / 4, "result": result}


def as_stored(name: str, result: Any) -> Any:
    """Return what comes back of a result."""
    if ".csv" in f".{name}":
        return {key: "" if each is None else str(each) for key, each in result.items()}
    return result


def read(path: Path) -> list[Any]:
    """Return the results in a file, as other programs read them."""
    if path.suffix == ".parquet":
        return pl.read_parquet(path, hive_partitioning=False).to_dicts()
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = b"".join(compression.decompressed(".zst", [data]))
    if ".csv" in path.name:
        return list(csv.DictReader(io.StringIO(data.decode(), newline="")))
    texts = data.decode().split("\n")[:-1]
    return texts if path.suffix == ".txt" else [json.loads(text) for text in texts]


class Work:
    """An output under work: shards, rounds and publications in any order, and what must come of it."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.directory = directory
        self.rounds: list[Round] = []
        self.marks: list[Any] = []
        self._shards: list[list[Item]] = []
        self._places: dict[tuple[int, int], int] = {}
        files.make_directory(f"{directory}/state")
        self.again()

    def again(self) -> None:
        """Make everything new that a process holds in memory."""
        kind = self.name.rstrip("/") if self.name.endswith("/") else None
        path = f"{self.directory}/out/" if kind else f"{self.directory}/{self.name}"
        self.output = output_for(path, "uuid", f"{self.directory}/state", output_format=kind)
        self.path = Path(path)
        self.log = PublishLog(f"{self.directory}/state/publish.jsonl", "uuid")

    @property
    def _done(self) -> dict[str, Any]:
        return self.log.done() or {"shards": 0, "rounds": 0}

    def _left(self) -> list[Round]:
        return self.rounds[self._done["rounds"] :]

    def shard(self, *items: Item) -> None:
        """Work on a new shard."""
        shard = len(self._shards)
        self.output.prepare([shard], afresh=False)
        writer = self.output.writer(shard, frozen=self._done["shards"], rounds=self._left())
        writer.open(None)
        for number, item in enumerate(items):
            place = writer.place()
            assert place is not None
            self._places[shard, number] = place
            if not item.round:
                writer.write(self._results(shard, number, item))
        self._end(writer, self.marks)
        self._shards.append([*items])

    def round(self) -> None:
        """Work on the items that come in the next round."""
        path = f"{self.directory}/state/round-{len(self.rounds) + 1}"
        writer = self.output.round_writer(path, self._done["shards"], range(len(self._shards)), self._left())
        writer.open(None)
        inserts = []
        for shard, items in enumerate(self._shards):
            for number, item in enumerate(items):
                if item.round == len(self.rounds) + 1:
                    start = writer.place()
                    writer.write(self._results(shard, number, item))
                    stop = writer.place()
                    assert start is not None
                    assert stop is not None
                    inserts.append(Insert(shard, number, self._places[shard, number], start, stop))
        marks: list[Any] = []
        self._end(writer, marks)
        self.rounds.append(Round(path, marks[0] if inserts else None, inserts))

    def _end(self, writer: Any, marks: list[Any]) -> None:
        writer.sync()
        marks.append(json.loads(json.dumps(writer.mark())))
        writer.close()

    def _results(self, shard: int, number: int, item: Item) -> list[Any]:
        return [value(self.name, shard, number, result) for result in range(item.results)]

    def expected(self, shards: int | None = None, rounds: int | None = None) -> list[Any]:
        """Return the results in input order, after so many shards and rounds; `None`: all there were."""
        rounds = len(self.rounds) if rounds is None else rounds
        return [
            as_stored(self.name, result)
            for shard, items in enumerate(self._shards[:shards])
            for number, item in enumerate(items)
            if item.round <= rounds
            for result in self._results(shard, number, item)
        ]

    def results(self) -> list[Any]:
        """Return what is published."""
        if self.path.is_dir():
            return [result for path in sorted(self.path.iterdir()) for result in read(path)]
        return read(self.path)

    def stored(self) -> list[Any]:
        """Return what the output says is stored."""
        return list(self.output.stored(self.marks, self.log, self.rounds))

    def publish(self, keep_going: Callable[[], bool] = lambda: True) -> bool:
        """Publish; the parts of merged rounds go."""
        self.output.finish(self.log, replace=False)  # as a job does when it is opened
        if self._done["shards"] == len(self.marks) and (self.log.last() or {})["state"] != "joining":
            self.output.remove_parts()
        if not self.output.publish(self.marks, self.log, keep_going, replace=False, rounds=self.rounds):
            return False
        for each in self.rounds:
            Path(each.path).unlink(missing_ok=True)
        return True

    def check(self) -> None:
        """See that everything is there before and after it is published, and nothing is left lying about."""
        assert self.stored() == self.expected()
        assert self.publish()
        assert self.results() == self.expected() == self.stored()
        assert not self.output._parts._entries()


@pytest.fixture(params=[*CASES, *DIRECTORIES])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Work]:
    """Give an output of each kind, with nothing in it."""
    with installed(Unsynced()):
        yield Work(tmp_path, request.param)


@pytest.mark.parametrize("published", [False, True])
def test_results_of_a_round_come_in_their_places(work: Work, *, published: bool) -> None:
    """At the beginning, between, at the end; several of one item, none of another; in two shards."""
    work.shard(Item(1, 1), Item(2), Item(3, 1), Item(0, 1), Item(1), Item(2, 1))
    work.shard(Item(1, 1), Item(1), Item(1, NEVER), Item(1, 1))
    if published:
        work.check()
    work.round()
    work.check()


@pytest.mark.parametrize("published", [(), (0,), (1,), (0, 1, 2), (2,)])
def test_rounds_come_between_the_results_of_each_other(work: Work, published: tuple[int, ...]) -> None:
    """Items that failed one behind the other share a place: their order is that of the input, whichever round."""
    work.shard(Item(1, 3), Item(1, 1), Item(1, 2), Item(1), Item(1, 2), Item(2, 3), Item(1, 1), Item(0, 2))
    work.shard(Item(1, 2), Item(1, 1), Item(1, 3))
    for number in range(3):
        if number in published:
            work.check()
        work.round()
    work.check()


@pytest.mark.parametrize("published", [False, True])
def test_all_results_may_come_in_rounds(work: Work, *, published: bool) -> None:
    """The first round that has results decides the columns; a round without any result changes nothing."""
    work.shard(Item(1, 3), Item(1, 2))
    work.shard(Item(1, 2), Item(0, 1), Item(2, 3))
    for _ in range(3):
        if published:
            work.check()
        work.round()
    work.check()
    work.round()
    work.check()


@pytest.mark.parametrize("merged", [False, True])
def test_shards_that_come_later_come_behind_the_rounds(work: Work, *, merged: bool) -> None:
    """Whether the round is merged by then or not; and rounds go on in all shards."""
    work.shard(Item(1, 1), Item(0), Item(1, 2))
    work.round()
    if merged:
        work.check()
    work.shard(Item(1, 2), Item(1), Item(2, 3))
    work.check()
    work.shard(Item(1), Item(1, 3))
    work.round()
    work.round()
    work.check()


def test_a_file_that_gets_nothing_is_left_alone(tmp_path: Path) -> None:
    """In a directory only the files of shards with new results are replaced; a round of nothing writes no file."""
    work = Work(tmp_path, "csv/")
    work.shard(Item(1), Item(1))
    work.shard(Item(1), Item(1, 1), Item(0, 2))
    work.check()
    before = {path.name: path.stat().st_ino for path in work.path.iterdir()}
    work.round()
    work.check()
    after = {path.name: path.stat().st_ino for path in work.path.iterdir()}
    assert {name for name, number in before.items() if after[name] != number} == {"00001.csv"}
    work.round()
    work.check()
    assert {path.name: path.stat().st_ino for path in work.path.iterdir()} == after


def test_the_log_says_how_many_rounds_are_published(tmp_path: Path) -> None:
    """And nothing is done once all are; a log without the word has none."""
    work = Work(tmp_path, "out.txt")
    work.shard(Item(1), Item(1, 1))
    work.publish()
    assert (work.log.done() or {})["rounds"] == 0
    work.round()
    work.publish()
    done = work.log.done() or {}
    assert (done["shards"], done["rounds"]) == (1, 1)
    size = files.size(f"{tmp_path}/state/publish.jsonl")
    work.publish()
    assert files.size(f"{tmp_path}/state/publish.jsonl") == size
    work.log.write({key: each for key, each in done.items() if key not in {"rounds", "headers"}})
    work.rounds.clear()
    assert work.publish()


def stopping(steps: int) -> Callable[[], bool]:
    """Return what says to go on for so many times."""
    left = iter(range(steps))
    return lambda: next(left, None) is not None


@pytest.mark.parametrize("name", ["out.txt", "out.csv.gz", "out.parquet", "jsonl/", "parquet/"])
@pytest.mark.parametrize("lost", [False, True])
def test_a_merge_that_is_stopped_goes_on(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, *, lost: bool
) -> None:
    """After any number of steps, also where what was joined has gone meanwhile, or one more round has come."""
    monkeypatch.setattr(lines, "_COPY", 40)
    monkeypatch.setattr(lines, "_SYNC_EVERY", 80)
    with installed(Unsynced()):
        for steps in range(1, 40, 3):
            work = Work(tmp_path / f"{steps}", name)
            for _ in range(2):
                work.shard(*[Item(2, number % 3) for number in range(12)])
            work.publish()
            before = work.results()
            work.round()
            stopped = [not work.publish(stopping(steps)) for _ in range(3)]
            if stopped[0]:
                assert work.stored() == work.expected()
                assert work.results() == before or stopped != [True] * 3
            if lost and os.path.exists(work.output._parts.path):
                files.remove_tree(work.output._parts.path)
            if steps % 2 and stopped[-1]:
                work.round()
            work.check()


def test_what_was_joined_is_not_joined_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt goes on at its synced offset, or with the first file of a directory that is not joined."""
    monkeypatch.setattr(lines, "_COPY", 40)
    monkeypatch.setattr(lines, "_SYNC_EVERY", 80)
    for name in ("out.txt", "jsonl/"):
        work = Work(tmp_path / name, name)
        for _ in range(3):
            work.shard(*[Item(1, number % 2) for number in range(100)])
        work.publish()
        work.round()
        attempts = [work.publish(stopping(20)) for _ in range(60)]
        assert attempts.count(False) > 2
        assert attempts[-1], "each began at the beginning"
        work.check()


class Offsets:
    """The log of an attempt whose joined file is gone."""

    def __init__(self) -> None:
        self.offset = 5
        self.keep_going = lambda: True
        self.notes: list[int] = []

    def note(self, offset: int) -> None:
        self.notes.append(offset)


def test_an_offset_is_taken_back_before_a_file_is_made_again(tmp_path: Path) -> None:
    """Else a later attempt could believe the offset of a file that a power cut left full of zeros."""
    part = tmp_path / "part"
    part.write_text("a\nb\n")
    joining = Offsets()
    kind = lines.LineKind(output_for(f"{tmp_path}/x.txt", "", "")._kind._form)  # type: ignore[attr-defined]
    piece = kind.join([Piece(str(part), 4, start=2, stop=4)], f"{tmp_path}/joined", joining)
    assert piece == Piece(f"{tmp_path}/joined", 2, whole=True)
    assert joining.notes == [0, 2]


def test_rows_of_other_columns_are_refused(tmp_path: Path) -> None:
    """Where files have headers of their own, a round may have other columns than one of them: nothing is mixed up."""
    work = Work(tmp_path, "csv/")
    work.shard(Item(1, 1), Item(1))
    work.shard(Item(1))
    part = Path(work.output._parts.part(0))
    part.write_bytes(part.read_bytes().replace(b"shard,", b"other,", 1))
    nothing = Agreement(f"{tmp_path}/nothing")
    work.output.round_writer = lambda path, *_: work.output._kind.writer(path, (), agreement=nothing)  # type: ignore[method-assign]
    work.round()
    with pytest.raises(batchkit.OutputChanged, match=r"have the columns shard, text, late, result, and .* has other,"):
        work.publish()


def test_a_writer_without_parts_has_no_places() -> None:
    """Nothing can be merged into memory or standard output."""
    writer = MemoryOutput().writer(0, frozen=0)
    writer.open(None)
    place: Callable[[], int | None] = writer.place
    assert place() is None


def test_marks_of_older_versions_are_read(tmp_path: Path) -> None:
    """A Parquet part whose marks do not count rows: they are counted when it is opened, and when it is merged."""
    work = Work(tmp_path, "out.parquet")
    work.shard(Item(3), Item(1))
    work.marks[0] = work.marks[0][:3]
    writer = work.output.writer(0, frozen=0)
    assert writer.intact(work.marks) == 0
    writer.open(work.marks[0])
    assert (writer.place(), writer.mark()[3]) == (4, 4)
    writer.close()
    work.shard(Item(1, 1), Item(1), Item(2, 2))
    work.round()
    work.check()
    work.round()
    work.check()


def test_a_round_is_private_and_of_the_output_s_own_kind(tmp_path: Path) -> None:
    """It lies in the state directory, and may quote the input; its columns are those that the output has."""
    work = Work(tmp_path, "out.csv")
    work.shard(Item(1), Item(1, 1))
    work.round()
    path = Path(work.rounds[0].path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes().startswith(b"shard,text,late,result\n")


def test_a_hundred_thousand_inserts_are_merged_in_linear_time(tmp_path: Path) -> None:
    """Four times as many pieces cost no more than some four times the reads."""
    counts = []
    for count in (1000, 4000):
        work = Work(tmp_path / f"{count}", "out.txt")
        with installed(Unsynced()):
            work.shard(*[Item(1, number % 2) for number in range(count)])
            work.round()
        with installed(Hooked(("open", "pread", "write"))) as kernel:
            work.publish()
        counts.append(kernel.count)
    assert counts[1] < 5 * counts[0]
    assert counts[1] < 2.5 * 4000


class TestPlaces:
    """The arithmetic alone."""

    def test_an_insert_begins_behind_the_header_of_its_round(self) -> None:
        """The first result brings the header; what is empty is no insert."""
        inserts = [Insert(0, 2, 5, 0, 0), Insert(0, 3, 5, 0, 9), Insert(1, 0, 0, 9, 11)]
        other = [Insert(0, 1, 5, 0, 7), Insert(1, 1, 0, 7, 7)]
        rounds = [Round("a", None, inserts), Round("b", None, other)]
        assert by_shard(rounds, [4, 3]) == {
            0: [Placed(1, 1, 5, 3, 7), Placed(3, 0, 5, 4, 9)],
            1: [Placed(0, 0, 0, 9, 11)],
        }

    def test_shards_begin_behind_what_a_published_file_has_beyond_them(self) -> None:
        """Merged inserts do not count: the base is without them."""
        assert origins(0, [], 0, [3, 0, 4]) == [0, 3, 3]
        assert origins(30, [10, 8], 5, [6, 1]) == [7, 17, 25, 31]

    def test_merged_inserts_move_what_comes_behind_them(self) -> None:
        """And nothing is put before the header."""
        inserts = {0: [Placed(0, 1, 0, 0, 4), Placed(1, 0, 0, 4, 6), Placed(2, 1, 0, 4, 5)], 1: [Placed(0, 1, 2, 5, 8)]}
        found = list(cuts([(0, 0), (1, 9)], inserts, 1, 3))
        assert found == [Cut(3, 1, 0, 4), Cut(5, 1, 4, 5), Cut(13, 1, 5, 8)]

    def test_files_are_cut_where_something_is_put_in(self) -> None:
        """Also at their beginning and end; ranges that touch are one."""
        a, b, part = Piece("a", 9), Piece("b", 9), Piece("r", 9)
        found = woven([(a, 4), (b, 2)], [Cut(0, 0, 0, 1), Cut(3, 0, 1, 2), Cut(3, 0, 2, 3), Cut(6, 0, 3, 4)], [part])
        assert [(piece.path, piece.start, piece.stop) for piece in found] == [
            ("r", 0, 1), ("a", 0, 3), ("r", 1, 3), ("a", 3, 4), ("b", 0, 2), ("r", 3, 4),
        ]  # fmt: skip

    def test_a_walk_loads_what_it_needs_once(self) -> None:
        """Blocks that are passed over are not loaded, blocks that several ranges share are loaded once."""
        loaded = []

        def block(number: int) -> tuple[int, Callable[[], int]]:
            def load() -> int:
                loaded.append(number)
                return number

            return 10, load

        walk = Walk(iter([block(number) for number in range(5)]))
        ranges = [(12, 14), (14, 14), (15, 16), (38, 45), (45, None)]
        assert [list(walk.take(*each)) for each in ranges] == [
            [(1, 10, 2, 2)], [], [(1, 10, 5, 1)], [(3, 10, 8, 2), (4, 10, 0, 5)], [(4, 10, 5, 5)],
        ]  # fmt: skip
        assert loaded == [1, 3, 4]


ITEMS = st.lists(st.builds(Item, st.integers(0, 3), st.sampled_from([0, 0, 1, 2, 3])), max_size=6)
STEPS = st.lists(st.one_of(ITEMS, st.sampled_from(["round", "publish"])), max_size=9)


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(first=ITEMS, steps=STEPS)
@example(first=[Item(0, 1)], steps=["publish", "round", [Item(1)], "publish"])
@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in REST)])
def test_any_order_of_shards_rounds_and_publications_gives_the_results_in_input_order(
    tmp_path_factory: pytest.TempPathFactory, name: str, first: list[Item], steps: list[Any]
) -> None:
    """Compared with the plain list, before and after each publication."""
    with installed(Unsynced()):
        work = Work(tmp_path_factory.mktemp("work"), name)
        work.shard(*first)
        for step in steps:
            if step == "publish":
                work.check()
            elif step == "round":
                work.round()
            else:
                rounds = len(work.rounds)
                work.shard(*[item._replace(round=item.round and item.round + rounds) for item in step])
            assert work.stored() == work.expected()
            work.again()
        work.check()


def merging(directory: Path, name: str) -> Work:
    """Return a job's output with two published shards and a round that is at its end."""
    work = Work(directory, name)
    work.shard(Item(1, 1), Item(1), Item(2, 1), Item(1))
    work.shard(Item(1), Item(1, 1))
    work.publish()
    work.round()
    return work


def _merge(directory: Path, name: str, rounds: list[Round], marks: list[Any], at: int) -> None:
    """Publish in a child, which is killed before its changing call `at`, or in the middle of it."""
    work = Work(directory, name)
    work.rounds, work.marks = rounds, marks
    with installed(Killing(at, torn=True)):
        work.publish()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.txt", "out.csv.gz", "out.parquet", "csv/", "parquet/"])
def test_a_kill_at_any_boundary_of_a_merge_costs_nothing(tmp_path: Path, nursery: Nursery, name: str) -> None:
    """Until the new file is there whole, the old one is; the next attempt completes it."""
    at = 0
    code = -1
    while code:
        at += 1
        work = merging(tmp_path / f"{at}", name)
        before = work.results()
        code = nursery.run(_merge, work.directory, name, work.rounds, work.marks, at)
        assert code in {0, -9}
        if not name.endswith("/"):
            assert work.results() in (before, work.expected())
        assert work.stored() == work.expected()
        work.again()
        work.check()
    assert at > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.txt", "out.csv.gz", "out.parquet", "jsonl/"])
def test_a_power_cut_in_a_merge_leaves_what_can_be_completed(tmp_path: Path, name: str) -> None:
    """Whatever reached the disk by itself: the published file is the old one or the new one, and the merge goes on."""
    states = at = 0
    cut = True
    while cut:
        at += 1
        directory = tmp_path / f"{at}"
        directory.mkdir()
        kernel = Recording(directory)
        with installed(kernel):
            work = merging(directory, name)
        kernel.settle()
        kernel.changes, kernel.cut_at = 0, at
        try:
            with installed(kernel):
                work.publish()
            cut = False
        except PowerCut:
            pass
        for what, state in kernel.states(seed=at) if cut else ():
            materialize(directory, state)
            work.again()
            try:
                assert work.stored() == work.expected()
                work.check()
            except Exception as error:
                raise AssertionError(f"cut before call {at}, {what}: {error}") from error
            states += 1
    assert states > 50
