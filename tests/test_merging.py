"""Parts become one Parquet file: stopped, gone on with, and flat in memory."""

from __future__ import annotations

import os
import random
import signal
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

import batchkit
from batchkit import files
from batchkit.frames import parquet
from batchkit.writers import lines
from batchkit.writers.base import Piece
from batchkit.writers.formats import Text
from tests.kernels import Hooked, installed

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = 20_000


class Asking(Hooked):
    """Asks the process to stop at the n-th write into the file that becomes the output."""

    def __init__(self, at: int) -> None:
        super().__init__(("write",))
        self._at = at
        self.writes = 0

    def around(self, number: int, name: str, call: Any, *args: Any, **extra: Any) -> Any:
        del number, name
        if Path(os.readlink(f"/proc/self/fd/{args[0]}")).name == "joined":
            self.writes += 1
            if self.writes == self._at:
                os.kill(os.getpid(), signal.SIGTERM)
        return call(*args, **extra)


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a row group after every ten rows."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", 10)


@pytest.mark.slow
@pytest.mark.usefixtures("small_groups")
@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="asks Linux which file is written")
def test_a_request_to_stop_ends_a_merge_and_the_next_run_merges_all(workdir: Path) -> None:
    """A merge is stopped within a batch of where the request came; half of it is never the output."""
    source = pl.DataFrame({"n": range(ROWS)})
    source.write_parquet("in.parquet")

    def run() -> batchkit.Result:
        return batchkit.process("in.parquet", output="out.parquet", batch_size=10, progress="none")

    with installed(Asking(3)) as kernel:
        result = run()
    assert (result.status, result.done, result.left) == ("paused", ROWS, 0)
    assert result.reason == "asked to stop by SIGTERM"
    assert "the output is still to be written" in result.summary()
    assert kernel.writes < ROWS // 10
    assert not (workdir / "out.parquet").exists()
    assert [row["n"] for row in batchkit.Job("in").results()] == list(range(ROWS))
    result = run()
    assert (result.status, result.new) == ("completed", 0)
    assert pl.read_parquet("out.parquet").equals(source)
    assert not (workdir / "out.parquet.parts").exists()


@pytest.mark.usefixtures("workdir")
def test_items_that_are_appended_are_merged_behind_the_published_ones() -> None:
    """The published file is read again, the new part comes behind it, and the whole replaces it."""
    os.mkdir("in")
    pl.DataFrame({"n": range(7), "s": None}).write_parquet("in/1.parquet")

    def run() -> batchkit.Result:
        return batchkit.process(
            "in", lambda row: {**row, "s": row["n"] if row["n"] > 6 else None}, output="out.parquet", batch_size=3
        )

    run()
    assert pl.read_parquet("out.parquet").schema["s"] == pl.Null
    pl.DataFrame({"n": range(7, 12), "s": None}).write_parquet("in/2.parquet")
    assert run().new == 5
    out = pl.read_parquet("out.parquet")
    assert out.rows() == [(number, number if number > 6 else None) for number in range(12)]
    assert out.schema["s"] == pl.Int64
    assert run().new == 0


@pytest.mark.usefixtures("workdir")
def test_a_result_that_does_not_fit_what_is_published_is_refused() -> None:
    """The schema of the published file counts for what comes later."""
    os.mkdir("in")
    pl.DataFrame({"n": [1]}).write_parquet("in/1.parquet")

    def run() -> batchkit.Result:
        return batchkit.process("in", lambda row: {"n": row["n"] if row["n"] < 2 else "two"}, output="out.parquet")

    run()
    before = Path("out.parquet").read_bytes()
    pl.DataFrame({"n": [2]}).write_parquet("in/2.parquet")
    with pytest.raises(batchkit.ItemError, match="'n' is String here and Int64 before"):
        run()
    assert Path("out.parquet").read_bytes() == before


@pytest.mark.usefixtures("small_groups", "workdir")
def test_a_full_disk_while_merging_is_one_clear_error_and_the_next_run_completes() -> None:
    """What polars makes of the error is not what people see."""
    source = pl.DataFrame({"n": range(ROWS)})
    source.write_parquet("in.parquet")

    class Full(files.Kernel):
        def write(self, descriptor: int, data: bytes) -> int:  # type: ignore[override]
            if "joined" in os.readlink(f"/proc/self/fd/{descriptor}"):
                raise OSError(28, os.strerror(28))
            return os.write(descriptor, data)

    with installed(Full()), pytest.raises(batchkit.StorageError, match=r"cannot write '.*joined': No space left"):
        batchkit.process("in.parquet", output="out.parquet", batch_size=10)
    assert not Path("out.parquet").exists()
    batchkit.process("in.parquet", output="out.parquet", batch_size=10)
    assert pl.read_parquet("out.parquet").equals(source)


def group_sizes(path: str) -> list[int]:
    """Return the bytes of each row group, before compression."""
    facts = pytest.importorskip("pyarrow.parquet").ParquetFile(path).metadata
    groups = map(facts.row_group, range(facts.num_row_groups))
    return [sum(group.column(index).total_uncompressed_size for index in range(group.num_columns)) for group in groups]


@pytest.mark.usefixtures("workdir")
def test_row_groups_are_bounded_by_bytes_where_rows_become_wider(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows say nothing about the last ones; polars keeps a whole row group in memory while it writes it."""
    monkeypatch.setattr(parquet, "GROUP_BYTES", 20_000)
    chance = random.Random(1)
    rows = [{"n": number, "text": "x"} for number in range(100)]
    rows += [{"n": number, "text": chance.randbytes(1000).hex()} for number in range(100, 200)]
    batchkit.process(range(200), rows.__getitem__, output="out.parquet", job="job", batch_size=10, progress="none")
    sizes = group_sizes("out.parquet")
    assert sum(sizes) > 10 * parquet.GROUP_BYTES
    assert max(sizes) < 2 * parquet.GROUP_BYTES
    assert len(sizes) < 60, "and not smaller than need be"
    assert pl.read_parquet("out.parquet").to_dicts() == rows


@pytest.mark.usefixtures("workdir")
def test_row_groups_are_bounded_by_bytes_where_a_published_file_is_merged_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Many light rows in it say nothing about the heavy ones; its own row groups do."""
    monkeypatch.setattr(parquet, "GROUP_BYTES", 20_000)
    chance = random.Random(1)
    rows = [{"n": number, "text": "x"} for number in range(1000)]
    rows += [{"n": number, "text": chance.randbytes(1000).hex()} for number in range(1000, 1100)]
    for count in (1099, 1100):
        batchkit.process(range(count), rows.__getitem__, output="out.parquet", job="job", batch_size=50)
    assert pl.read_parquet("out.parquet").to_dicts() == rows
    assert max(group_sizes("out.parquet")) < 2 * parquet.GROUP_BYTES


class TestGroupRows:
    """How many rows a row group has, from bytes and rows of what is to be written."""

    def test_small_rows_make_groups_of_the_usual_number(self) -> None:
        """Whatever comes in, or if nothing does."""
        assert parquet.group_rows([]) == parquet.GROUP_ROWS
        assert parquet.group_rows([(parquet.GROUP_ROWS * 8, parquet.GROUP_ROWS)] * 3) == parquet.GROUP_ROWS

    @pytest.mark.parametrize("before", [0, 1, 50, 100])
    def test_the_heaviest_rows_decide_wherever_they_stand(self, before: int) -> None:
        """Light rows before and behind them make no difference."""
        light = [(1000, 1000)] * before
        wide = [(parquet.GROUP_BYTES // 2, 50)] * 20
        found = parquet.group_rows([*light, *wide, *light])
        assert 50 <= found <= 100

    def test_a_row_that_is_too_large_is_a_group_of_its_own(self) -> None:
        """Less than a row cannot be."""
        assert parquet.group_rows([(8, 1), (3 * parquet.GROUP_BYTES, 1), (8, 1)]) == 1
        assert parquet.group_rows([(30 * parquet.GROUP_BYTES, 10)]) == 1

    @settings(max_examples=60, deadline=None)
    @given(extents=st.lists(st.tuples(st.integers(1, 5000), st.integers(1, 60)), min_size=1, max_size=30))
    def test_no_group_holds_much_more_than_it_may(self, extents: list[tuple[int, int]]) -> None:
        """At most twice as much, wherever groups begin among the pieces, if it has more than a row."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parquet, "GROUP_BYTES", 5000)
            found = parquet.group_rows(extents)
        weights = [size / height for size, height in extents for _ in range(height)]
        heaviest = max(sum(weights[at : at + found]) for at in range(0, len(weights), found))
        assert found == 1 or heaviest <= 2 * 5000


class Attempt:
    """An attempt to join that is stopped after some stretches."""

    def __init__(self, offset: int, stretches: int) -> None:
        self.offset = offset
        self.keep_going: Callable[[], Any] = chain(repeat(1, stretches), repeat(0)).__next__
        self.notes: list[int] = []

    def note(self, offset: int) -> None:
        """Remember."""
        self.notes.append(offset)


@pytest.mark.parametrize("published", [False, True])
def test_lines_are_joined_on_from_where_an_attempt_had_synced(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, *, published: bool
) -> None:
    """What lies before the offset is not copied again, and what lies behind it is not believed."""
    monkeypatch.setattr(lines, "_COPY", 100)
    monkeypatch.setattr(lines, "_SYNC_EVERY", 300)
    data = [bytes([65 + number]) * (1000 + number) for number in range(4)]
    for number, part in enumerate(data):
        (workdir / f"{number}").write_bytes(part)
    pieces = [Piece(f"{workdir}/{number}", len(part)) for number, part in enumerate(data)]
    pieces[0] = pieces[0]._replace(whole=published)
    kind = lines.LineKind(Text())
    first = Attempt(0, 20)
    assert kind.join(pieces, f"{workdir}/joined", first) is None
    joined = workdir / ("joined" if published else "0")
    assert first.notes[-1] == joined.stat().st_size
    offset = first.notes[1]
    half = bytearray(joined.read_bytes())
    half[:offset] = b"#" * offset
    half[offset:] = b"?" * (len(half) - offset + 77)
    joined.write_bytes(half)
    second = Attempt(offset, 1000)
    piece = kind.join(pieces, f"{workdir}/joined", second)
    total = sum(map(len, data))
    assert piece == Piece(str(joined), total, whole=True)
    assert joined.read_bytes() == b"#" * offset + b"".join(data)[offset:]
    assert second.notes == sorted(second.notes)
    assert (second.notes[0] > offset, second.notes[-1]) == (True, total)
    if published:
        assert (workdir / "0").read_bytes() == data[0], "a published file is copied, never appended to"
