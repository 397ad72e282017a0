"""Parts that are written at the same time make one output: one header, the same columns and types, rows in order."""

from __future__ import annotations

import csv
import errno
import io
import itertools
import json
import os
import signal
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import batchkit
from batchkit import files
from batchkit.writers.agreement import Agreement
from batchkit.writers.base import ResultError
from batchkit.writers.kinds import output_for
from tests.children import in_child
from tests.kernels import CHANGING, Failing, Hooked, Killing, PowerCut, Recording, Unsynced, installed, materialize
from tests.test_inserts import Item, Work, as_stored, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CASES = ["out.csv", "out.tsv", "out.csv.gz", "out.csv.zst", "out.parquet", "csv/", "csv.gz/", "parquet/"]


def rows_of(path: Path) -> list[Any]:
    """Return the rows of an output, as other programs read them."""
    if path.is_dir():
        return [row for each in sorted(path.iterdir()) for row in read(each)]
    if path.suffix == ".tsv":
        return list(csv.DictReader(io.StringIO(path.read_text()), delimiter="\t"))
    return read(path)


class TestAgreement:
    """The parties alone."""

    def test_who_proposes_first_is_right(self, tmp_path: Path) -> None:
        """The others get what that one proposed, and what comes later builds on it."""
        one, two, three = (Agreement(str(tmp_path)) for _ in range(3))
        assert (one.newest(), two.newest()) == (None, None)
        mine = {"columns": ["a"]}
        assert one.propose(mine) is mine
        assert two.propose({"columns": ["b"]}) == {"format": 1, "columns": ["a"]}
        assert two.propose({"columns": ["b"]}) == {"columns": ["b"]}
        assert three.newest() == {"format": 1, "columns": ["b"]}
        assert one.propose({"columns": ["c"]})["columns"] == ["b"]
        assert sorted(os.listdir(tmp_path)) == ["columns-0", "columns-1"]

    def test_there_is_none_where_there_are_no_parts(self, tmp_path: Path) -> None:
        """As behind the publication, when a round is at work."""
        assert Agreement(str(tmp_path / "out.csv.parts")).newest() is None

    @pytest.mark.parametrize("data", [b"", b"{", b'{"format": 2}'])
    def test_what_cannot_be_read_is_named(self, tmp_path: Path, data: bytes) -> None:
        """Nobody guesses."""
        (tmp_path / "columns-0").write_bytes(data)
        with pytest.raises(batchkit.DamageError, match="columns-0"):
            Agreement(str(tmp_path)).newest()

    @pytest.mark.parametrize("torn", [False, True])
    def test_a_kill_at_any_call_leaves_the_old_or_the_new(self, tmp_path: Path, *, torn: bool) -> None:
        """And whoever proposes next has it there whole."""
        ends = set()
        for at in itertools.count(1):
            directory = tmp_path / f"{torn}{at}"
            directory.mkdir()
            Agreement(str(directory)).propose({"columns": None})

            def run(directory: Path = directory, at: int = at) -> None:
                agreement = Agreement(str(directory))
                agreement.newest()
                with installed(Killing(at, torn=torn)):
                    agreement.propose({"columns": ["a"]})

            code = in_child(run)
            next_one = Agreement(str(directory))
            found = (next_one.newest() or {})["columns"]
            ends.add((code, found and tuple(found)))
            if found is None:
                assert next_one.propose({"columns": ["b"]}) == {"columns": ["b"]}
            if code == 0:
                break
        assert ends == {(-signal.SIGKILL, None), (-signal.SIGKILL, ("a",)), (0, ("a",))}

    def test_a_power_cut_never_takes_back_what_somebody_relies_on(self, tmp_path: Path) -> None:
        """What `propose` and `newest` returned is there in every state of the disk; else the old or the new."""
        for at in itertools.count(1):
            directory = tmp_path / f"{at}"
            directory.mkdir()
            kernel = Recording(directory)
            known: list[Any] = []

            def run(directory: Path = directory, known: list[Any] = known) -> None:
                one, two = Agreement(str(directory)), Agreement(str(directory))
                for names in (None, ["a"], ["a", "b"]):
                    known.append(one.propose({"columns": names})["columns"])
                    known.append((two.newest() or {})["columns"])

            kernel.cut_at = at
            cut = kernel.dies_during(run)
            last = known[-1] if known else "none"
            for what, state in kernel.distinct_states(seed=at):
                materialize(directory, state)
                terms = Agreement(str(directory)).newest()
                found = "none" if terms is None else terms["columns"]
                order = ["none", None, ["a"], ["a", "b"]]
                assert 0 <= order.index(found) - order.index(last) <= 1, f"{what}, before call {at}"
            if not cut:
                break

    def test_a_disk_that_refuses_is_an_error_of_ours(self, tmp_path: Path) -> None:
        """Also where it comes up while rows are made to fit: it is no row's failure."""
        shared = Shared(tmp_path, "out.parquet")
        shared.share()
        shared.begin(1)
        with installed(Failing(("link",), 1, errno.ENOSPC)), pytest.raises(batchkit.StorageError, match="columns-1"):
            shared.write(0, [{"a": 1}])
        shared.write(0, [{"a": 1}])


class Shared(Work):
    """An output whose shards are written at the same time, to be killed and gone on with; results of any kind."""

    def __init__(self, directory: Path, name: str) -> None:
        super().__init__(directory, name)
        self.first = 0
        self.writers: dict[int, Any] = {}
        self.rows: dict[int, list[list[Any]]] = {}
        self.commits: dict[int, list[Any]] = {}

    def share(self) -> None:
        """Let them write at the same time from now on, as a run does when it begins."""
        self._close()
        numbers = range(self.first + len(self.commits))
        marks = [*self.marks[: self.first], *(commits[-1] if commits else None for commits in self.commits.values())]
        self.output.prepare([], afresh=False)
        self.output.share(marks, frozen=self.first, rounds=[], order=numbers)
        for shard in self.writers:
            self.open(shard)

    def begin(self, count: int) -> None:
        """Begin so many shards."""
        for shard in range(self.first + len(self.writers), self.first + len(self.writers) + count):
            self.output.prepare([shard], afresh=False)
            self.rows[shard], self.commits[shard] = [], []
            self.writers[shard] = None
        for shard in self.writers:
            self.open(shard)

    def open(self, shard: int) -> None:
        """Open a shard's writer, as a run does that goes on."""
        numbers = range(self.first + len(self.commits))
        writer = self.output.writer(shard, frozen=self.first, order=numbers)
        chosen = writer.intact(self.commits[shard])
        del self.commits[shard][chosen + 1 :]
        del self.rows[shard][chosen + 1 :]
        writer.open(self.commits[shard][chosen] if chosen >= 0 else None)
        self.writers[shard] = writer

    def write(self, shard: int, rows: Sequence[Any], *, commit: bool = True) -> None:
        """Write a batch."""
        self.writers[shard].write(rows)
        if commit:
            self.commits[shard].append(json.loads(json.dumps(self.writers[shard].mark())))
            self.rows[shard].append(list(rows))

    def _close(self) -> None:
        for writer in self.writers.values():
            if writer is not None:
                writer.close()

    def resume(self) -> None:
        """Drop what is not committed, as after a kill, and go on."""
        self._close()
        for shard in self.writers:
            self.open(shard)

    def end(self) -> None:
        """Publish what is there."""
        for writer in self.writers.values():
            writer.sync()
        self._close()
        self.marks += [commits[-1] if commits else None for commits in self.commits.values()]
        self.first += len(self.commits)
        self.writers, self.commits = {}, {}
        assert self.stored() == self.all_rows()
        assert self.publish()
        assert rows_of(self.path) == self.all_rows() == self.stored()
        assert not self.output._parts._entries()

    def all_rows(self) -> list[Any]:
        """Return the rows in input order, as they come back."""
        name = self.name.replace("tsv", "csv")
        return [as_stored(name, row) for batches in self.rows.values() for batch in batches for row in batch]


def row(shard: int, number: int) -> dict[str, Any]:
    """Return a row; one column is null at first."""
    return {"shard": shard, "number": number, "late": None if number < 2 else f"{number}", "same": "x"}


@pytest.fixture(params=CASES)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    """Give an output of each kind, with nothing in it."""
    with installed(Unsynced()):
        yield Shared(tmp_path, request.param)


def test_the_last_part_may_be_first_to_have_results(shared: Shared) -> None:
    """The header comes before the first row all the same."""
    shared.share()
    shared.begin(3)
    for shard in (2, 0, 2, 1):
        shared.write(shard, [row(shard, number) for number in range(3)])
    shared.end()


def test_a_job_that_one_writer_began_goes_on_with_several(shared: Shared) -> None:
    """The header stays where that one wrote it, in front of the first part with rows."""
    shared.begin(1)
    shared.write(0, [row(0, 0), row(0, 1)])
    shared.share()
    shared.begin(2)
    shared.write(2, [row(2, 0)])
    shared.write(0, [row(0, 2)])
    shared.write(1, [row(1, 5)])
    shared.end()


def test_the_part_with_the_header_may_lose_all_its_rows(shared: Shared) -> None:
    """As after a power cut: it writes its header again, with the columns that were agreed on; or somebody does."""
    for again in (True, False):
        work = Shared(shared.directory / f"{again}", shared.name)
        work.begin(1)
        work.write(0, [row(0, 0)])
        work.share()
        work.begin(1)
        work.write(1, [row(1, 0)])
        del work.commits[0][:], work.rows[0][:]
        work.resume()
        if again:
            work.write(0, [dict(reversed(row(0, 7).items()))])
        work.end()


def test_the_first_to_store_decides_for_all(shared: Shared) -> None:
    """A row of other columns fails, in whichever part; one with its keys in another order is put in order."""
    shared.share()
    shared.begin(3)
    shared.write(1, [row(1, 0)])
    for shard in (0, 1, 2):
        with pytest.raises(ResultError, match=r"no column .other.*it has shard, number, late, same"):
            shared.write(shard, [row(shard, 1) | {"other": 1}])
        shared.write(shard, [dict(reversed(row(shard, 1).items()))])
    shared.end()


@pytest.mark.parametrize("name", ["out.parquet", "parquet/"])
def test_a_type_is_decided_once(tmp_path: Path, name: str) -> None:
    """By the first value that any part stores; another type fails its row at once, not when all is done."""
    shared = Shared(tmp_path, name)
    shared.share()
    shared.begin(3)
    for shard in range(3):
        shared.write(shard, [{"a": None, "b": [], "c": {"d": None}}])
    shared.write(1, [{"a": "text", "b": None, "c": None}])
    with pytest.raises(ResultError, match="its column 'a' is Int64 here and String before") as error:
        shared.write(0, [{"a": "fine", "b": [1], "c": None}, {"a": 1, "b": None, "c": None}])
    assert error.value.index == 1
    shared.write(2, [pl.DataFrame({"a": ["x"], "b": [[2.5]], "c": [{"d": 1}]})])
    shared.rows[2][-1] = [{"a": "x", "b": [2.5], "c": {"d": 1}}]
    with pytest.raises(ResultError, match=r"its column 'c\.d' is String here and Int64 before"):
        shared.write(0, [{"a": "x", "b": [1.5], "c": {"d": "text"}}])
    with pytest.raises(ResultError, match=r"its column 'a' is Int64 here and String before"):
        shared.write(0, [pl.DataFrame({"a": [1], "b": [[2.5]], "c": [{"d": 1}]})])
    shared.write(0, [{"a": "x", "b": [1.5], "c": {"d": 3}}])
    shared.end()


def test_a_schema_that_is_given_needs_no_agreement(tmp_path: Path) -> None:
    """And costs none."""
    output = output_for(str(tmp_path / "out.parquet"), "uuid", str(tmp_path), schema="a=int")
    output.prepare([0, 1], afresh=True)
    output.share([None, None], frozen=0, rounds=[], order=[0, 1])
    assert sorted(os.listdir(tmp_path / "out.parquet.parts")) == ["00000", "00001", "owner"]


@pytest.mark.parametrize("name", CASES)
def test_parts_that_know_the_columns_pay_nothing(tmp_path: Path, name: str) -> None:
    """A batch is one write, as it is for one writer alone: nothing is looked up."""
    shared = Shared(tmp_path, name)
    shared.share()
    shared.begin(2)
    for shard in (0, 1):
        shared.write(shard, [row(shard, 5)])
    with installed(Hooked(("open", "read", "pread", *CHANGING))) as kernel:
        for number in range(10):
            shared.write(number % 2, [row(0, number)])
    assert kernel.count == 10


@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz", "csv/"])
def test_names_that_cannot_be_written_fail_their_row(tmp_path: Path, name: str) -> None:
    """Nothing is agreed on then."""
    shared = Shared(tmp_path, name)
    shared.share()
    shared.begin(2)
    with pytest.raises(ResultError, match="UTF-8"):
        shared.write(1, [{"\ud800": 1}])
    shared.write(0, [row(0, 0)])
    shared.end()


def test_nothing_at_all_is_an_output_that_can_be_read(shared: Shared) -> None:
    """No part has results; the next ones may have some."""
    shared.share()
    shared.begin(2)
    shared.write(1, [None])
    shared.rows[1].clear()
    shared.end()
    shared.begin(1)
    shared.share()
    shared.begin(1)
    shared.write(3, [row(3, 0)])
    shared.write(2, [row(2, 0)])
    shared.end()


step = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 3), st.integers(0, 4)),
    st.tuples(st.just("lose"), st.integers(0, 3), st.integers(0, 4)),
    st.sampled_from([("resume",), ("share",), ("publish",), ("begin",)]),
)


@pytest.mark.parametrize("name", CASES)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(step, max_size=20), serially=st.booleans())
def test_any_interleaving_makes_one_output(
    tmp_path_factory: pytest.TempPathFactory, name: str, steps: list[tuple[Any, ...]], serially: bool
) -> None:
    """Writers of several parts, kills, further parts, publications and growth in any order; one begins alone or not."""
    with installed(Unsynced()):
        work = Shared(tmp_path_factory.mktemp("shared"), name)
        numbers = itertools.count()

        def begin() -> None:
            work.begin(1)
            if serially:
                work.write(work.first, [row(work.first, next(numbers))])
            work.share()
            work.begin(1)

        begin()
        for what, *arguments in steps:
            if what in {"write", "lose"}:
                shard, count = work.first + arguments[0] % len(work.writers), arguments[1]
                work.write(shard, [row(shard, next(numbers)) for _ in range(count)], commit=what == "write")
                if what == "lose":
                    work.resume()
            elif what == "publish":
                work.end()
                begin()
            elif what == "begin":
                work.begin(1)
            else:
                getattr(work, what)()
        work.end()


class Rounds(Work):
    """The same with rounds: each shard is written by agreement."""

    def shard(self, *items: Item) -> None:
        """Work on a new shard, behind a run's beginning."""
        marks = [*self.marks]
        order = range(len(marks))
        self.output.prepare([], afresh=False)
        self.output.share(marks, frozen=self._done["shards"], rounds=self._left(), order=order)
        super().shard(*items)


@pytest.mark.slow
@pytest.mark.parametrize("name", [case for case in CASES if case != "out.tsv"])
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    shards=st.lists(
        st.lists(st.builds(Item, st.integers(0, 2), st.integers(0, 2)), max_size=4), min_size=1, max_size=4
    ),
    steps=st.lists(st.sampled_from(["shard", "round", "publish"]), max_size=9),
    first=st.sampled_from([Work, Rounds]),
)
def test_rounds_come_between_what_was_written_by_agreement(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    shards: list[list[Item]],
    steps: list[str],
    first: type[Work],
) -> None:
    """In their places, with the columns that were agreed on, or that they decide themselves if nobody has before."""
    with installed(Unsynced()):
        work = first(tmp_path_factory.mktemp("rounds"), name)
        left = iter(shards)
        work.shard(*next(left))
        work.__class__ = Rounds
        for what in steps:
            if what == "shard":
                items = next(left, None)
                if items is not None:
                    work.shard(*(item._replace(round=item.round and item.round + len(work.rounds)) for item in items))
            elif what == "round":
                work.round()
            else:
                work.check()
        work.check()


def test_a_merge_with_a_header_in_front_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the header's place in the blocks."""
    monkeypatch.setattr("batchkit.writers.lines._COPY", 40)
    monkeypatch.setattr("batchkit.writers.lines._SYNC_EVERY", 80)
    with installed(Unsynced()):
        for name, steps in itertools.product(("out.csv", "out.csv.gz"), range(3, 40, 4)):
            work = Rounds(tmp_path / f"{name}{steps}", name)
            for _ in range(3):
                work.shard(*[Item(2, number % 2) for number in range(8)])
            attempts = 0
            while not work.publish(_steps(steps)):
                attempts += 1
                work.again()
            assert work.results() == work.expected()
            work.round()
            work.check()
            assert attempts or steps > 6


def _steps(count: int) -> Callable[[], bool]:
    left = iter(range(count))
    return lambda: next(left, None) is not None


SOAK_GZ = pytest.param("out.csv.gz", marks=pytest.mark.soak)
SOAK_DIRECTORY = pytest.param("csv/", marks=pytest.mark.soak)
SOAK_FOUR = pytest.param((4,), marks=pytest.mark.soak)
SOAK_DOWN = pytest.param((3, 1), marks=pytest.mark.soak)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.csv", SOAK_GZ, SOAK_DIRECTORY])
@pytest.mark.parametrize("serially", [False, True])
def test_power_cuts_at_any_call_leave_parts_that_go_together(tmp_path: Path, name: str, *, serially: bool) -> None:
    """Two writers in turns: from each state of the disk both go on with what is proved, under one header."""
    states = 0
    for at in itertools.count(1):
        directory = tmp_path / f"{at}"
        directory.mkdir()
        shared = Shared(directory, name)
        kernel = Recording(directory)
        kernel.adopt()
        kernel.cut_at = at

        def run(shared: Shared = shared) -> None:
            shared.begin(1)
            if serially:
                shared.write(0, [row(0, 0)])
            shared.share()
            shared.begin(1)
            for number in (1, 2):
                for shard in (1, 0):
                    shared.write(shard, [row(shard, number)])
                    if number == 1:
                        shared.writers[shard].sync()

        cut = kernel.dies_during(run)
        shared._close()
        for what, state in kernel.distinct_states(seed=at):
            materialize(directory, state)
            with installed(Unsynced()):
                _go_on(shared, f"{what}, cut before call {at}")
            states += 1
        if not cut:
            break
    assert states > 60


def _go_on(before: Shared, what: str) -> None:
    after = Shared(before.directory, before.name)
    after.output.prepare([], afresh=False)
    for shard in range(2):
        if not os.path.exists(after.output._parts.part(shard)):
            after.output.prepare([shard], afresh=False)
        after.rows[shard] = list(before.rows.get(shard, []))
        after.commits[shard] = list(before.commits.get(shard, []))
    for shard in range(2):  # recovery looks before anybody writes
        after.open(shard)
        after.writers[shard].close()
    after.share()
    for shard in range(2):
        after.open(shard)
    for shard in (1, 0):
        after.write(shard, [row(shard, 9)])
    try:
        after.end()
    except AssertionError as error:
        raise AssertionError(what) from error


class Machine(Recording):
    """One whose watching thread, which only looks for requests, finds nothing any more when it is off."""

    def around(self, number: int, name: str, call: Callable[..., Any], *args: Any, **extra: Any) -> Any:
        try:
            return super().around(number, name, call, *args, **extra)
        except PowerCut:
            if name == "open" and threading.current_thread().name == "batchkit-watch":
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)) from None
            raise


class Inline:
    """Runs each worker where it is asked for, one after the other."""

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run it."""
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments))
        except Exception as error:  # noqa: BLE001  # as an executor does
            future.set_exception(error)
        return future


COUNT = 240


def late(line: str) -> Any:
    """Return a row whose columns are null at first; some items have none, some fail until they are mended."""
    number = int(line)
    if number % 11 == 7 and not os.path.exists("mended"):
        raise ValueError("not yet")
    if number % 5 == 1:
        return None
    return {
        "id": number,
        "late": None if number < COUNT // 2 else number / 4,
        "never": None,
        "list": [number] * (number % 2),
    }


def expected(numbers: Sequence[int], name: str, *, mended: bool) -> list[Any]:
    """Return what is stored of these items."""
    rows = []
    for number in numbers:
        if number % 5 != 1 and (mended or number % 11 != 7):
            each = {
                "id": number,
                "late": None if number < COUNT // 2 else number / 4,
                "never": None,
                "list": [number] * (number % 2),
            }
            text = {key: "" if field is None else str(field) for key, field in each.items()}
            rows.append(each if "parquet" in name else text)
    return rows


OUTPUTS = ["out.csv", "out.csv.gz", "out.tsv", "out.parquet", "csv/", "parquet/"]


def process(name: str, workers: int, **options: Any) -> batchkit.Result:
    """Run the job with so many workers, or go on with it."""
    kind = {"output": "out/", "output_format": name.rstrip("/")} if name.endswith("/") else {"output": name}
    common = {"batch_size": 3, "job": "job", "progress": "none", "on_error": "skip", "sync_interval": None}
    return batchkit.process("items.txt", late, workers=workers, **kind, **common, **options)  # type: ignore[arg-type]


def items(start: int, stop: int) -> None:
    """Append items to the input."""
    with Path("items.txt").open("a") as file:
        file.write("".join(f"{number}\n" for number in range(start, stop)))


def check_rows(name: str, count: int, *, mended: bool) -> None:
    """See that the output is whole, and that everybody reads the same."""
    found = rows_of(Path("out" if name.endswith("/") else name))
    wanted = expected(range(count), name, mended=mended)
    assert found == wanted
    if name.endswith("parquet"):
        assert pl.read_parquet(name).schema["late"] == pl.Float64
    stored = list(batchkit.Job("job").results())
    assert stored == wanted
    assert not Path(f"{name.rstrip('/')}.parts").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("workdir")
@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("turns", [(1, 4, 2), SOAK_FOUR, SOAK_DOWN])
def test_any_numbers_of_workers_give_one_output(name: str, turns: tuple[int, ...]) -> None:
    """Runs with other numbers of workers, then a round over what failed, growth, and one more round."""
    items(0, COUNT)
    for workers in turns[:-1]:
        assert process(name, workers, max_items=COUNT // len(turns)).status == "paused"
        assert not Path("out" if name.endswith("/") else name).exists()
    assert process(name, turns[-1]).completed
    check_rows(name, COUNT, mended=False)
    Path("mended").touch()
    assert batchkit.Job("job").retry(progress="none").failed == 0
    check_rows(name, COUNT, mended=True)
    items(COUNT, COUNT + 60)
    assert process(name, turns[0]).completed
    check_rows(name, COUNT + 60, mended=True)


@pytest.mark.slow
@pytest.mark.usefixtures("workdir")
@pytest.mark.parametrize("name", OUTPUTS)
def test_failures_of_a_paused_job_come_in_their_places(name: str) -> None:
    """Several workers, a round in between, then the rest with another number of workers."""
    items(0, COUNT)
    assert process(name, 4, max_items=COUNT // 2).status == "paused"
    Path("mended").touch()
    batchkit.Job("job").retry(progress="none")
    assert process(name, 2).completed
    check_rows(name, COUNT, mended=True)


def disagreeing(line: str) -> Any:
    """Return rows of other types and columns in the first and the second half."""
    number = int(line)
    return {"id": number, "a": number if number < COUNT // 2 else f"{number}"} | ({"b": 1} if number == 3 else {})


@pytest.mark.slow
@pytest.mark.usefixtures("workdir")
def test_workers_that_disagree_lose_the_rows_that_do_not_fit_and_nothing_else() -> None:
    """As with one worker: the rows fail one by one, and the output is published."""
    items(0, COUNT)
    result = batchkit.process(
        "items.txt", disagreeing, output="out.parquet", workers=4, on_error="skip", progress="none", batch_size=3
    )
    frame = pl.read_parquet("out.parquet")
    assert result.completed
    assert (result.done, result.failed, result.done + result.failed) == (frame.height, COUNT - frame.height, COUNT)
    assert frame.height >= COUNT // 2 - 1
    assert frame["id"].is_sorted()
    assert all("column" in failure.message for failure in result.failures())


@pytest.mark.soak
@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz"])
def test_power_cuts_of_a_shared_job_give_the_exact_output(workdir: Path, name: str) -> None:
    """Whole jobs, cut at every call, and gone on with in every state of the disk; with workers or by one."""
    source = workdir / "items.txt"
    source.write_text("".join(f"{number}\n" for number in range(12)))
    directory = workdir / "work"
    output = directory / name

    def run(workers: int) -> None:
        options: Any = {"executor": Inline()} if workers > 1 else {}
        batchkit.process(
            str(source), numbered, output=output, state_dir=directory / "state", batch_size=2, sync_interval=0,
            progress="none", workers=workers, **options,
        )  # fmt: skip

    directory.mkdir()
    run(2)
    wanted = output.read_bytes() if name.endswith("csv") else read(output)
    states = 0
    for at in itertools.count(1):
        files.remove_tree(str(directory))
        directory.mkdir()
        kernel = Machine(directory)
        kernel.cut_at = at
        if not kernel.dies_during(lambda: run(2)):
            break
        for what, state in itertools.islice(kernel.distinct_states(seed=at), 2 if at % 4 else None):
            materialize(directory, state)
            with installed(Unsynced()):
                run(1 + states % 2)
            found = output.read_bytes() if name.endswith("csv") else read(output)
            assert found == wanted, f"cut before call {at}, {what}"
            states += 1
    assert states > 100


def numbered(line: str) -> dict[str, str]:
    """Return a row that shows its item."""
    return {"item": line, "twice": line * 2}
