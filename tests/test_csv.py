"""CSV: rows as `csv.DictReader` reads them, at cursors from which reading goes on; what is malformed fails alone."""

from __future__ import annotations

import csv
import gzip
import io
import os
import pickle
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import batchkit
from batchkit.errors import SourceError, UsageError
from batchkit.model import Batch, Span
from batchkit.readers import blocks
from batchkit.readers.delimited import CsvReader
from batchkit.readers.records import Records

BOM = b"\xef\xbb\xbf"
pytestmark = pytest.mark.usefixtures("workdir")


def reader_of(data: bytes | str, **options: Any) -> CsvReader:
    """Return a reader of a file that holds `data`."""
    Path("rows.csv").write_bytes(data.encode() if isinstance(data, str) else data)
    return CsvReader(["rows.csv"], **options)


def batches_of(reader: CsvReader, size: int = 3, start: Any = None) -> list[Batch]:
    """Return the batches from a cursor on."""
    return list(reader.read(Span(start or [0, 0], reader.whole().stop), size))


def rows_of(reader: CsvReader, start: Any = None) -> list[Any]:
    """Return the items from a cursor on."""
    return [row for batch in batches_of(reader, start=start) for row in batch.items]


def reasons_of(reader: CsvReader) -> list[str]:
    """Return why some rows could not be read."""
    return [why for batch in batches_of(reader) for why in batch.unreadable.values()]


def reference(data: str, separator: str = ",") -> list[Any]:
    """Return the rows of Python's own reader."""
    return list(csv.DictReader(io.StringIO(data, newline=""), delimiter=separator))


class TestWhatARowIs:
    """The rules, one by one."""

    @pytest.mark.parametrize(
        "data",
        [
            "a,b\n1,2\n3,4\n",
            "a,b\n1,2\n3,4",
            "a,b\r\n1,2\r\n",
            "a,b\n,\n",
            "a,b\n\n1,2\n\r\n3,4\n\n",
            'a,b\n"1,5","x ""y"" z"\n',
            'a,b\n"one\ntwo",2\n"one\r\n\r\ntwo\n",2\n3,4\n',
            'a,b\n"one\ntwo","three\nfour"\n"\n","\n"\n',
            'a,b\n" 1 ", 2 \n',
            'a\n""\nx\n',
            '"a","b\nc"\n1,2\n',
            "á,b\nž,🐎\n",
            "a,b\n",
            "a,b",
            'a,b\n5" pipe,6\n1,"x"y\n',
            "a,b\n1,\x002\x0c\u2028\x85\n",
        ],
    )
    def test_rows_are_those_of_the_standard_library(self, data: str) -> None:
        """Values are strings, an empty field is "", blank lines are no rows, quoted fields hold anything."""
        assert rows_of(reader_of(data)) == reference(data)

    def test_a_byte_order_mark_is_no_part_of_the_first_name(self) -> None:
        """Also where the first name is quoted, and where there is no header."""
        assert rows_of(reader_of(BOM + b"a,b\n1,2\n")) == [{"a": "1", "b": "2"}]
        assert rows_of(reader_of(BOM + b'"a\nx",b\n1,2\n')) == [{"a\nx": "1", "b": "2"}]
        assert rows_of(reader_of(BOM + b'"1\nx",2\n', header=False)) == [{"column_1": "1\nx", "column_2": "2"}]

    def test_an_empty_file_has_no_rows(self) -> None:
        """Without a header there is nothing to name."""
        assert rows_of(reader_of("")) == rows_of(reader_of("\n\n")) == rows_of(reader_of("", header=False)) == []

    def test_tabs_can_separate(self) -> None:
        """A TSV file is a CSV file with another separator."""
        assert rows_of(reader_of('a\tb\n1,5\t"2\t3"\n', separator="\t")) == [{"a": "1,5", "b": "2\t3"}]

    @pytest.mark.parametrize("separator", ["", ",,", '"', "\n", "\r"])
    def test_other_separators_are_refused(self, separator: str) -> None:
        """One character, no quote, no line end."""
        with pytest.raises(UsageError, match="separator"):
            reader_of("a,b\n", separator=separator)

    def test_without_a_header_columns_are_numbered(self) -> None:
        """`header=False`: the first line is a row."""
        assert rows_of(reader_of("1,2\n3,4\n", header=False)) == [
            {"column_1": "1", "column_2": "2"},
            {"column_1": "3", "column_2": "4"},
        ]

    def test_a_field_may_be_larger_than_the_standard_library_allows(self) -> None:
        """Only `max_item_bytes` bounds a field, not the 128 KiB of `csv.field_size_limit`."""
        text = "x\n" * 200_000
        assert rows_of(reader_of(f'a,b\n1,"{text}"\n2,\n')) == [{"a": "1", "b": text}, {"a": "2", "b": ""}]


class TestColumns:
    """Names and choice."""

    def test_chosen_columns_come_in_the_order_asked_for(self) -> None:
        """`columns` keeps only these."""
        assert rows_of(reader_of("a,b,c\n1,2,3\n", columns=["c", "a"])) == [{"c": "3", "a": "1"}]
        assert rows_of(reader_of("a,b,c\n1,2,3\n4,5\n", columns=["b"])) == [{"b": "2"}, None]
        assert rows_of(reader_of("1,2\n", columns=["column_2"], header=False)) == [{"column_2": "2"}]

    def test_an_unknown_column_is_refused_by_name(self) -> None:
        """The error names those there are."""
        with pytest.raises(UsageError, match="no column 'x'; there are a, b"):
            reader_of("a,b\n", columns=["x"])

    @pytest.mark.parametrize("columns", [[], ["a", "a"]])
    def test_a_choice_that_makes_no_row_is_refused(self, columns: list[str]) -> None:
        """At least one column, none twice."""
        with pytest.raises(UsageError, match="columns"):
            reader_of("a,b\n", columns=columns)

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"a,a\n", "the name 'a' twice"),
            (b"a,,c\n", "no name for column 2"),
            (b"a,\xff\n", "not valid UTF-8"),
            (b'a,"b\n1,2\n', "does not close it"),
            (b"a\rb\n", "not CSV"),
            (b'"' + b"x\n" * 600_000, "does not end within"),
        ],
    )
    def test_a_header_that_names_nothing_is_refused(self, data: bytes, words: str) -> None:
        """Before anything begins, by file and reason."""
        with pytest.raises(SourceError, match=words):
            reader_of(data)

    def test_every_file_has_the_same_header(self) -> None:
        """Each file's header is read and dropped; another one is an error that names both files."""
        Path("1.csv").write_text("")
        Path("2.csv").write_text("a,b\n1,2\n")
        Path("3.csv").write_bytes(BOM + b'"a",b\r\n3,4')
        Path("4.csv").write_text("a,c\n5,6\n")
        assert [row["a"] for row in rows_of(CsvReader(["1.csv", "2.csv", "3.csv"]))] == ["1", "3"]
        with pytest.raises(SourceError, match=r"the header of '4.csv' is 'a,c', that of '2.csv' is 'a,b'"):
            rows_of(CsvReader(["?.csv"]))

    def test_reading_on_in_a_later_file_takes_the_names_of_the_first(self) -> None:
        """The cursor may stand in any file."""
        Path("1.csv").write_text("a,b\n1,2\n")
        Path("2.csv").write_text("a,b\n3,4\n5,6\n")
        reader = CsvReader(["?.csv"])
        assert rows_of(reader, [1, 8]) == [{"a": "5", "b": "6"}]
        assert rows_of(pickle.loads(pickle.dumps(reader)), [1, 0]) == rows_of(reader, [1, 4])  # noqa: S301  # our own


class TestUnreadableRows:
    """What is malformed costs one item."""

    def test_a_row_has_as_many_fields_as_the_header(self) -> None:
        """The rows around it are items."""
        reader = reader_of("a,b,c,d\n1,2,3,4\n1,2,3\n1,2,3,4,5\n5,6,7,8\n")
        assert [row and row["a"] for row in rows_of(reader)] == ["1", None, None, "5"]
        assert reasons_of(reader) == ["it has 3 fields, the header has 4", "it has 5 fields, the header has 4"]

    def test_invalid_utf8_fails_the_row_and_no_other(self) -> None:
        """As for lines."""
        reader = reader_of(b'a,b\n1,2\n\xff,"3\n4"\n5,6\n')
        assert [row and row["a"] for row in rows_of(reader)] == ["1", None, "5"]
        assert reasons_of(reader) == ["not valid UTF-8"]

    def test_a_carriage_return_within_a_line_has_to_be_quoted(self) -> None:
        """Rows end at LF or CRLF; files with CR alone are of another time."""
        reader = reader_of('a,b\n1\r2,3\n"1\r2",3\n')
        assert rows_of(reader) == [None, {"a": "1\r2", "b": "3"}]
        assert "carriage return" in reasons_of(reader)[0]

    @pytest.mark.parametrize("block", [1, 5, 64 << 10])
    def test_a_quote_that_is_never_closed_costs_its_line(self, monkeypatch: pytest.MonkeyPatch, block: int) -> None:
        """At the end of the file reading goes on behind the line that opened it: it does not swallow the rest."""
        monkeypatch.setattr(blocks, "READ_SIZE", block)
        reader = reader_of('a,b\n1,2\n"x,3\n4,5\n6,7')
        assert [row and row["a"] for row in rows_of(reader)] == ["1", None, "4", "6"]
        assert "a quote is opened and not closed" in reasons_of(reader)[0]
        assert len(reasons_of(reader_of('a,b\n1,2\n3,"4'))) == 1

    @pytest.mark.parametrize("block", [50, 64 << 10])
    def test_a_quote_that_is_not_closed_within_the_limit_costs_its_line(
        self, monkeypatch: pytest.MonkeyPatch, block: int
    ) -> None:
        """`max_item_bytes` bounds how far the closing quote is looked for, and so the memory."""
        monkeypatch.setattr(blocks, "READ_SIZE", block)
        rows = "".join(f"{number},x\n" for number in range(40_000))
        reader = reader_of(f'a,b\n"open,0\n{rows}"end",1\n', max_item_bytes=1000)
        found = rows_of(reader)
        assert found == [None, *({"a": str(number), "b": "x"} for number in range(40_000)), {"a": "end", "b": "1"}]
        (why,) = reasons_of(reader)
        assert "not closed within 1,000 bytes" in why

    def test_a_line_that_is_too_long_is_one_item(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without quotes a giant line ends at its line end."""
        monkeypatch.setattr(blocks, "READ_SIZE", 64)
        reader = reader_of(f"a,b\n1,{'x' * 5000}\n2,y\n", max_item_bytes=100)
        assert rows_of(reader) == [None, {"a": "2", "b": "y"}]

    def test_the_run_stops_at_the_row_and_names_its_place(self) -> None:
        """File, physical line and byte."""
        Path("rows.csv").write_text('a,b\n"1\n2",2\n3\n')
        with pytest.raises(batchkit.ItemError, match=r"'rows.csv' line 4 \(byte 12\).*it has 1 field"):
            batchkit.process(CsvReader(["rows.csv"]), str, job="load")


class TestRecords:
    """The rows of a batch."""

    def test_rows_can_be_indexed_sliced_and_walked(self) -> None:
        """Dicts one by one, and `Records` of some."""
        records = Records(["a", "b"], [["1", "2"], None, ["3", "4"]])
        assert (len(records), records[0], records[1], records[-1]) == (
            3,
            {"a": "1", "b": "2"},
            None,
            {"a": "3", "b": "4"},
        )
        assert list(records) == [records[0], None, records[2]]
        assert list(records[1:]) == [None, records[2]]
        assert isinstance(records[1:], Records)
        assert list(pickle.loads(pickle.dumps(records))) == list(records)  # noqa: S301  # our own
        with pytest.raises(IndexError):
            records[3]

    def test_rows_can_be_had_as_a_frame(self) -> None:
        """Of strings; rows that could not be read are left out."""
        (batch,) = batches_of(reader_of("a,b\n1,x\n2\n3,\n"), 10)
        records: Any = batch.items
        assert records.frame.to_dicts() == [{"a": "1", "b": "x"}, {"a": "3", "b": ""}]


def test_a_row_is_its_bytes_wherever_it_is_split() -> None:
    """Coordinates, splits and proofs of a batch with quoted line ends and blank lines."""
    reader = reader_of('a,b\n1,2\n\n"3\n\n4",5\n6,7\n')
    (batch,) = batches_of(reader, 10)
    assert [batch.coordinate(index) for index in range(4)] == [[0, 4], [0, 9], [0, 18], [0, 22]]
    head, rest = batch.split(2)
    assert (head.stop, list(head.items), list(rest.items)) == ([0, 18], list(batch.items)[:2], [{"a": "6", "b": "7"}])
    assert (rest.proof, rest.stop) == (batch.proof, batch.stop)


PIECES = ['"', ",", "\n", "\r", "\r\n", " ", "a", "b", "é", "\u2028", "\0", "x" * 30]
FIELDS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


def _cell(field: str, *, quoted: bool) -> str:
    """Write a field as RFC 4180 wants it; `csv.writer` leaves a CR unquoted where lines end at LF."""
    return '"' + field.replace('"', '""') + '"' if quoted or set(field) & set('",\r\n') else field


QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(
    table=st.integers(1, 4).flatmap(
        lambda width: st.lists(st.lists(FIELDS, min_size=width, max_size=width), max_size=9)
    ),
    ending=st.sampled_from(["\n", "\r\n"]),
    always=st.booleans(),
    last=st.booleans(),
    size=st.integers(1, 5),
    block=st.integers(1, 40),
    packed=st.booleans(),
)
def test_any_table_comes_back_and_reading_goes_on_at_every_row(
    table: list[list[str]], ending: str, *, always: bool, last: bool, size: int, block: int, packed: bool
) -> None:
    """Whatever fields hold, for any block and batch size, compressed or not: the rows, from every cursor on."""
    width = len(table[0]) if table else 1
    names = [f"n{number}" for number in range(width)]
    lines = [",".join(_cell(field, quoted=always or width == 1) for field in row) for row in [names, *table]]
    data = "".join(line + ending for line in lines)
    data = data if last else data.removesuffix(ending)
    expected = [dict(zip(names, row, strict=True)) for row in table]
    path = Path("table.csv.gz" if packed else "table.csv")
    path.write_bytes(gzip.compress(data.encode()) if packed else data.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "READ_SIZE", block)
        reader = CsvReader([path])
        found = batches_of(reader, size)
        assert [row for batch in found for row in batch.items] == expected
        fingerprint, done = reader.fingerprint(), 0
        for batch in found:
            assert not batch.unreadable
            assert len(batch.items) <= size
            fresh = CsvReader([path])
            assert fresh.check(fingerprint, batch.stop, batch.proof).kind == "same"
            for index in range(len(batch.items) + 1):
                assert rows_of(fresh, batch.coordinate(index)) == expected[done + index :]
            done += len(batch.items)


@QUICK
@given(
    data=st.lists(st.sampled_from([b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"a", b"b,c", b"\xff"]), max_size=30),
    size=st.integers(1, 5),
    block=st.integers(1, 40),
    limit=st.sampled_from([3, 10, 1 << 20]),
)
def test_whatever_the_bytes_are_reading_goes_on_at_every_row(
    data: list[bytes], size: int, block: int, limit: int
) -> None:
    """Malformed or not: the same rows and failures for any blocks, and from every cursor on; no byte is lost."""
    raw = b"a,b\n" + b"".join(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "READ_SIZE", block)
        reader = reader_of(raw, max_item_bytes=limit)
        found = batches_of(reader, size)
        rows = [row for batch in found for row in batch.items]
        assert not found or found[-1].stop == [0, len(raw)]
        for earlier, later in pairwise(found):
            assert earlier.stop == later.start
        patch.setattr(blocks, "READ_SIZE", 1 << 16)
        assert rows_of(reader) == rows
        done = 0
        for batch in found:
            for index in range(len(batch.items) + 1):
                assert rows_of(reader, batch.coordinate(index)) == rows[done + index :]
            done += len(batch.items)


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    """The header comes through the pipe; a resume reads it again before it passes what is done."""
    data = b"a,b\n" + b"".join(b"%d,x\n" % number for number in range(1000))
    readers = [_from_pipe(tmp_path / f"pipe{number}", data) for number in range(2)]
    first = next(iter(readers[0].read(readers[0].whole(), 10)))
    assert (first.items[9], readers[0].restartable) == ({"a": "9", "b": "x"}, False)
    assert readers[1].check(None, first.stop, first.proof).kind == "appended"
    assert rows_of(readers[1], first.stop)[0] == {"a": "10", "b": "x"}


def _from_pipe(path: Path, data: bytes) -> CsvReader:
    """Return a reader of a pipe that holds data; small enough to be within the pipe at once."""
    os.mkfifo(path)
    keep = os.open(path, os.O_RDWR)
    os.write(keep, data)
    reader = CsvReader([path])
    reader._find_columns()
    os.close(keep)
    return reader


def test_a_job_over_rows_is_paused_and_completed() -> None:
    """Quoted line ends everywhere, many blocks; appended rows are taken, too."""
    chance = random.Random(5)
    rows = [{"id": str(number), "text": "\n" * chance.randrange(3) + '"'} for number in range(20_000)]
    with Path("rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "text"])
        writer.writeheader()
        writer.writerows(rows)
    assert batchkit.process(CsvReader(["rows.csv"]), job="load", max_items=7777).new == 7777
    result = batchkit.process(CsvReader(["rows.csv"]), job="load")
    assert list(result.results()) == rows
    with Path("rows.csv").open("a") as file:
        file.write('more,"1\n2"\n')
    assert batchkit.process(CsvReader(["rows.csv"]), job="load").new == 1


def test_a_byte_order_mark_is_dropped_where_the_first_batch_is_cut_and_there_is_no_header() -> None:
    """A first batch of one row, or of none, is split off before the rows behind it; the mark is nobody's."""
    reader = CsvReader
    Path("rows.csv").write_bytes(BOM + b"1,x\n2,y\n3,z\n")
    paused = batchkit.process(reader(["rows.csv"], header=False), job="load", output="out.jsonl", max_items=1)
    assert list(paused.results()) == [{"column_1": "1", "column_2": "x"}]
    result = batchkit.process(reader(["rows.csv"], header=False), job="load", output="out.jsonl")
    assert [row["column_1"] for row in result.results()] == ["1", "2", "3"]
    (batch,) = batches_of(reader(["rows.csv"], header=False), 10)
    assert [list(part.items) for part in batch.split(0)] == [[], list(batch.items)]
    for index in range(4):
        assert rows_of(reader(["rows.csv"], header=False), batch.coordinate(index)) == list(batch.items)[index:]
