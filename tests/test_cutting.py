"""Spans cut for several workers: together they are what was cut, item for item."""

from __future__ import annotations

import gzip
import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

from batchkit.model import Span
from batchkit.readers.base import count, split
from batchkit.readers.delimited import CsvReader
from batchkit.readers.lines import LineReader
from batchkit.readers.ndjson import NdjsonReader
from batchkit.readers.parquet import ParquetReader
from batchkit.readers.sequence import SequenceReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.readers.base import Reader

FILES = settings(max_examples=50, deadline=None)


def told(reader: Reader, span: Span, size: int) -> list[tuple[Any, Any, str | None]]:
    """Return coordinate, item and fault of each item of a span, and see that each batch's proof is good."""
    fingerprint, found, at = reader.fingerprint(), [], span.start
    for batch in reader.read(span, size):
        for index, item in enumerate(batch.items):
            found.append((batch.coordinate(index), item, batch.unreadable.get(index)))
        verdict = reader.check(fingerprint, batch.stop, batch.proof)
        assert verdict.kind == "same", verdict
        at = batch.stop
    assert reader.check(fingerprint, at, None).kind == "same"
    return found


def check_cuts(reader: Reader, counts: Sequence[int] = (2, 3, 7), starts: int = 4) -> int:
    """Cut the whole and rests of it in several ways; return the largest number of pieces that there were."""
    whole = reader.whole()
    everything = told(reader, whole, 2)
    most = 1
    batches = list(reader.read(whole, 1))
    picked = batches[:: max(1, len(batches) // starts)]
    for cursor, most_pieces in itertools.product([whole.start, *(batch.stop for batch in picked)], counts):
        span = Span(cursor, whole.stop)
        spans = split(reader, span, most_pieces)
        assert len(spans) <= most_pieces
        assert [each.start for each in spans] == [cursor, *(each.stop for each in spans[:-1])]
        assert spans[-1].stop == whole.stop
        assert len({str(each.start) for each in spans}) == len(spans)
        rest = told(reader, span, 3)
        pieces = [told(reader, each, 3) for each in spans]
        assert list(itertools.chain.from_iterable(pieces)) == rest
        assert rest == everything[len(everything) - len(rest) :]
        most = max(most, len(spans))
        for each in spans:  # and a piece is cut again
            again = split(reader, each, 2)
            assert list(itertools.chain.from_iterable(told(reader, one, 3) for one in again)) == told(reader, each, 3)
    return most


class Directory:
    """Files that are gone after the test."""

    def __init__(self) -> None:
        """Make a place for them."""
        self._held = tempfile.TemporaryDirectory()

    def __enter__(self) -> Path:
        """Return it."""
        return Path(self._held.__enter__())

    def __exit__(self, *problem: object) -> None:
        """Remove them."""
        self._held.__exit__(*problem)  # type: ignore[arg-type]


def written(directory: Path, contents: Sequence[bytes], suffix: str, packed: Sequence[bool] = ()) -> list[str]:
    """Write files, some of them compressed; return their paths."""
    paths = []
    for number, (data, pack) in enumerate(itertools.zip_longest(contents, packed, fillvalue=False)):
        path = directory / f"{number:03}{suffix}{'.gz' if pack else ''}"
        path.write_bytes(gzip.compress(data) if pack else data)  # type: ignore[arg-type]
        paths.append(str(path))
    return paths


LINES = st.lists(st.sampled_from([b"a", b"bb", b"", b"  ", b"\r", b"x\r", b"\xff", "é€".encode(), b"\0", b"y" * 40]))


@pytest.mark.slow
@FILES
@given(
    contents=st.lists(st.tuples(LINES, st.booleans(), st.booleans()), min_size=1, max_size=4),
    delimiter=st.sampled_from(["\n", "\0", "||", "ab", "€", "\r\n"]),
    blank=st.booleans(),
)
def test_lines_cut_anywhere_are_the_same_lines(
    contents: list[tuple[list[bytes], bool, bool]], delimiter: str, *, blank: bool
) -> None:
    """CRLF, NUL, long and multi-byte delimiters, byte order marks, blank lines, empty files, no last line end."""
    end = delimiter.encode()
    files = [
        (b"\xef\xbb\xbf" if mark else b"") + end.join(lines) + (end if ended else b"")
        for lines, ended, mark in contents
    ]
    with Directory() as directory:
        paths = written(directory, files, ".txt")
        check_cuts(LineReader(paths, delimiter=delimiter, skip_blank=blank))


@pytest.mark.slow
@FILES
@given(
    contents=st.lists(st.tuples(st.lists(st.sampled_from([b"a", b"bcd", b""])), st.booleans()), min_size=2, max_size=5)
)
def test_compressed_files_are_whole_pieces(contents: list[tuple[list[bytes], bool]]) -> None:
    """A compressed file is not cut, the plain ones beside it are; from within a compressed one the rest is given."""
    with Directory() as directory:
        files = [b"".join(line + b"\n" for line in lines) for lines, _ in contents]
        check_cuts(LineReader(written(directory, files, ".txt", [packed for _, packed in contents])))


def test_a_live_shard_that_ends_before_a_compressed_file_can_be_cut(tmp_path: Path) -> None:
    """The rest of a compressed file, up to the beginning of the next one, stays as it is."""
    files = [b"".join(b"%d\n" % number for number in range(3000))] * 3
    reader = LineReader(written(tmp_path, files, ".txt", [True] * 3))
    for start in ([0, 0], [0, 6], [1, 0]):
        span = Span(start, [2, 0])
        pieces = split(reader, span, 4)
        assert [each.start for each in pieces][1:] == [each.stop for each in pieces][:-1]
        assert told(reader, span, 500) == [each for piece in pieces for each in told(reader, piece, 500)]


@pytest.mark.parametrize("delimiter", ["aa", "||", "aba", "\n\n"])
def test_where_a_delimiter_may_overlap_itself_a_file_is_not_cut(tmp_path: Path, delimiter: str) -> None:
    """Which "||" of "a|||b" ends the item can only be told from the left."""
    [path] = written(tmp_path, [f"x{delimiter}{delimiter[0]}y{delimiter}".encode() * 100], ".txt")
    reader = LineReader([path], delimiter=delimiter)
    assert check_cuts(reader) == 1


def test_a_delimiter_that_cannot_overlap_itself_is_cut_at(tmp_path: Path) -> None:
    """Whole multi-byte delimiters only, also where a block ends in the middle of one."""
    [path] = written(tmp_path, ["x€é€".encode() * 300_000], ".txt")
    reader = LineReader([path], delimiter="€")
    spans = split(reader, reader.whole(), 16)
    assert len(spans) == 16
    assert sum(count(reader, span) for span in spans) == 600_000


@pytest.mark.slow
@FILES
@given(
    numbers=st.lists(
        st.sampled_from([b'{"a": 1}', b"", b'{"a": "\\n"}', b"broken", b"[1]", b'"x"', b' {"a":2}\r', b"\xff"]),
        max_size=30,
    ),
    ended=st.booleans(),
    files=st.integers(1, 3),
)
def test_json_lines_cut_anywhere_are_the_same(numbers: list[bytes], files: int, *, ended: bool) -> None:
    """Broken lines fail as the same items."""
    with Directory() as directory:
        data = b"\n".join(numbers) + (b"\n" if ended else b"")
        check_cuts(NdjsonReader(written(directory, [data] * files, ".jsonl")))


CELLS = st.sampled_from(["a", "", '"x"', '"a\nb"', '"a""b"', '"a,b"', '"', 'x"y', '"a"b', "é", "\r", '"\r\n"'])


@pytest.mark.slow
@FILES
@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=30),
    end=st.sampled_from(["\n", "\r\n"]),
    files=st.integers(1, 3),
    header=st.booleans(),
)
def test_csv_cut_anywhere_gives_the_same_rows(rows: list[list[str]], end: str, files: int, *, header: bool) -> None:
    """Line ends in quotes and malformed quotes: no piece begins within a record."""
    with Directory() as directory:
        data = end.join([*(["k,v"] if header else ["1,2"]), *(",".join(row) for row in rows)]) + end
        check_cuts(CsvReader(written(directory, [data.encode()] * files, ".csv"), header=header))


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(heights=st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_parquet_rows_are_cut_at_any_row(heights: list[int]) -> None:
    """Across files, empty ones among them."""
    with Directory() as directory:
        for number, height in enumerate(heights):
            frame = pl.DataFrame({"n": range(number * 100, number * 100 + height)}, schema={"n": pl.Int64})
            frame.write_parquet(directory / f"{number}.parquet", row_group_size=4)
        reader = ParquetReader([str(directory)])
        assert check_cuts(reader, counts=(2, 5)) == max(1, min(5, sum(heights)))


@FILES
@given(length=st.integers(0, 40), counts=st.lists(st.integers(1, 60), min_size=1, max_size=4))
def test_sequences_are_cut_evenly(length: int, counts: list[int]) -> None:
    """No two pieces differ by more than one item."""
    reader = SequenceReader(range(length))
    check_cuts(reader, counts=counts)
    sizes = [reader.extent(span) for span in split(reader, reader.whole(), counts[0])]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("suffix", [".txt", ".parquet"])
def test_files_of_one_size_are_cut_between_them(tmp_path: Path, suffix: str) -> None:
    """As many pieces as there are files, where that is what is asked for."""
    for number in range(4):
        if suffix == ".txt":
            (tmp_path / f"{number}.txt").write_text("a\n" * 10)
        else:
            pl.DataFrame({"n": range(10)}).write_parquet(tmp_path / f"{number}.parquet")
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    reader = LineReader(paths) if suffix == ".txt" else ParquetReader(paths)
    assert [span.start for span in split(reader, reader.whole(), 4)] == [[index, 0] for index in range(4)]


def test_pieces_are_of_about_the_same_size(tmp_path: Path) -> None:
    """In bytes, within an item of it."""
    paths = written(tmp_path, [b"".join(b"%d\n" % number for number in range(9_999))] * 3, ".txt")
    reader = LineReader(paths)
    sizes = [reader.extent(span) or 0 for span in split(reader, reader.whole(), 8)]
    assert len(sizes) == 8
    assert max(sizes) - min(sizes) <= 10
