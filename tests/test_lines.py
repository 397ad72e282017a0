"""What a line is, where it stands, and that reading can go on at any batch's end."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import batchkit
from batchkit.errors import SourceError, UsageError
from batchkit.model import Batch, Span
from batchkit.readers import blocks
from batchkit.readers.lines import LineReader

BOM = b"\xef\xbb\xbf"
BLANK = " \t\r\n\v\f"
HUGE = 64 << 20

pytestmark = pytest.mark.usefixtures("workdir")


def reader_of(path: Path, data: bytes, delimiter: str = "\n", limit: int = HUGE, *, blank: bool = False) -> LineReader:
    """Return a reader of a file that holds `data`."""
    path.write_bytes(data)
    return LineReader([path], delimiter=delimiter, skip_blank=blank, max_item_bytes=limit)


def items_in(path: Path, data: bytes, delimiter: str = "\n", *, blank: bool = False) -> list[object]:
    """Return the items that a file with `data` holds."""
    reader = reader_of(path, data, delimiter, blank=blank)
    return [item for batch in reader.read(reader.whole(), 3) for item in batch.items]


class TestWhatALineIs:
    """The rules, one by one."""

    @pytest.mark.parametrize(
        ("data", "expected"),
        [
            (b"a\nb\n", ["a", "b"]),
            (b"a\r\nb\r\n", ["a", "b"]),
            (b"a\nb", ["a", "b"]),
            (b"a\r\nb\r", ["a", "b\r"]),
            (b"a\r\r\nb\n", ["a\r", "b"]),
            (b"one\rstill one\n", ["one\rstill one"]),
            (b"page\x0cbreak\n", ["page\x0cbreak"]),
            ("a\u2028b\u2029c\x85d\n".encode(), ["a\u2028b\u2029c\x85d"]),
            (b"a\x00b\n", ["a\x00b"]),
            (b"a\x1cb\x1dc\x1ed\x0be\n", ["a\x1cb\x1dc\x1ed\x0be"]),
            (BOM + b"a\nb\n", ["a", "b"]),
            (b"a\n" + BOM + b"b\n", ["a", "\ufeffb"]),
            (b"", []),
            (b"one\n", ["one"]),
            (b"one", ["one"]),
            (b"\n", [""]),
            (b"a\n\n\nb\n\n", ["a", "", "", "b", ""]),
            ("žluťoučký\n🐎".encode(), ["žluťoučký", "🐎"]),
        ],
    )
    def test_lines_are_split_at_lf_only(self, tmp_path: Path, data: bytes, expected: list[str]) -> None:
        """Split at LF only, strip one CR before it; BOM off the first item; a last line without LF is an item."""
        assert items_in(tmp_path / "items.txt", data) == expected

    @pytest.mark.parametrize("data", [b"a\nb\n", b"a\nb", b"\n\n\n", b"", b"a\r\n\r\nb", b"\x0c\n\x0c"])
    def test_the_number_of_items_is_what_wc_counts(self, tmp_path: Path, data: bytes) -> None:
        """Item count = `wc -l`, + 1 without a last newline."""
        expected = data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))
        assert len(items_in(tmp_path / "items.txt", data)) == expected

    def test_blank_lines_are_no_items_if_asked(self, tmp_path: Path) -> None:
        """`skip_blank`: lines of white space only are no items; white space of other lines stays."""
        data = b"\n \na \n\t\r\n\x0b\x0c\n b\n\n"
        assert items_in(tmp_path / "items.txt", data, blank=True) == ["a ", " b"]

    def test_a_blank_first_line_behind_a_byte_order_mark_is_skipped_and_splits_right(self, tmp_path: Path) -> None:
        """The BOM belongs to no item, so a first line of BOM and spaces is blank, for items and coordinates alike."""
        data = BOM + b"  \na\nb\n"
        reader = reader_of(tmp_path / "items.txt", data, blank=True)
        (batch,) = reader.read(reader.whole(), 10)
        assert batch.items == ["a", "b"]
        assert batch.coordinate(1) == [0, data.index(b"b")]
        head, rest = batch.split(1)
        assert (head.stop, rest.items) == ([0, data.index(b"b")], ["b"])

    @pytest.mark.parametrize(
        ("delimiter", "data", "expected"),
        [
            (";", b"a;b;c", ["a", "b", "c"]),
            (";", b"a\r;b\n;", ["a\r", "b\n"]),
            ("\0", b"a b\0c\nd\0", ["a b", "c\nd"]),
            ("||", b"a||b|c||", ["a", "b|c"]),
            ("||", b"a|||b", ["a", "|b"]),
            ("||", b"a||||b", ["a", "", "b"]),
            ("\r\n", b"a\r\nb\nc\r\n", ["a", "b\nc"]),
            ("§", "a§b§".encode(), ["a", "b"]),
            ("END", b"aENDbENEND", ["a", "bEN"]),
            ("aab", b"aaabx", ["a", "x"]),
        ],
    )
    @pytest.mark.parametrize("read_size", [1, 2, 3, 64 << 10])
    def test_any_text_can_be_the_delimiter(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        delimiter: str,
        data: bytes,
        expected: list[str],
        read_size: int,
    ) -> None:
        """Delimiters of several characters, also self-overlapping ones, are found from the left, over block borders."""
        monkeypatch.setattr(blocks, "READ_SIZE", read_size)
        assert items_in(tmp_path / "items.txt", data, delimiter) == expected

    def test_an_empty_delimiter_is_refused(self, tmp_path: Path) -> None:
        """The delimiter has at least one character."""
        with pytest.raises(UsageError, match="delimiter"):
            reader_of(tmp_path / "items.txt", b"a\n", "")

    def test_a_limit_of_no_bytes_is_refused(self, tmp_path: Path) -> None:
        """`max_item_bytes` is at least 1."""
        with pytest.raises(UsageError, match="max_item_bytes"):
            reader_of(tmp_path / "items.txt", b"a\n", limit=0)


class TestSeveralFiles:
    """Several files are one list."""

    def test_files_are_read_in_the_order_given(self) -> None:
        """Paths keep their order, and an item never crosses a file."""
        Path("b.txt").write_text("b1\nb2")
        Path("a.txt").write_text("a1\na2\n")
        assert list(batchkit.process(batchkit.lines("b.txt", "a.txt")).results()) == ["b1", "b2", "a1", "a2"]

    def test_the_matches_of_a_pattern_are_sorted(self) -> None:
        """A glob pattern is its matches, sorted, in the pattern's place."""
        for name in ("p2", "p10", "p1"):
            Path(f"{name}.txt").write_text(f"{name}\n")
        Path("z.txt").write_text("z\n")
        result = batchkit.process(batchkit.lines("z.txt", "p*.txt"))
        assert list(result.results()) == ["z", "p1", "p10", "p2"]

    def test_a_file_whose_name_looks_like_a_pattern_is_that_file(self) -> None:
        """An existing path is taken as it is."""
        Path("a[1].txt").write_text("brackets\n")
        Path("a1.txt").write_text("other\n")
        assert list(batchkit.process("a[1].txt").results()) == ["brackets"]

    def test_a_directory_that_matches_a_pattern_is_left_out(self) -> None:
        """A pattern names files."""
        Path("a1").mkdir()
        Path("a2").write_text("x\n")
        assert list(batchkit.process("a*").results()) == ["x"]

    def test_each_file_may_begin_with_a_byte_order_mark(self) -> None:
        """The BOM is dropped at the beginning of every file."""
        Path("a.txt").write_bytes(BOM + b"a\n")
        Path("b.txt").write_bytes(BOM + b"b\n")
        assert list(batchkit.process("[ab].txt").results()) == ["a", "b"]

    def test_empty_files_among_others_hold_no_items(self) -> None:
        """An empty file adds nothing, first, between or last."""
        for name, text in (("1", ""), ("2", "x\n"), ("3", ""), ("4", "y"), ("5", "")):
            Path(f"{name}.txt").write_text(text)
        result = batchkit.process("?.txt")
        assert (list(result.results()), result.completed) == (["x", "y"], True)

    @pytest.mark.parametrize(
        ("source", "error", "words"),
        [
            ("no*.txt", UsageError, "no file matches"),
            ("missing.txt", UsageError, "no file 'missing.txt'"),
            ("here", UsageError, "'here' is a directory"),
            ("table.parquet", UsageError, "not a text file"),
        ],
    )
    def test_what_cannot_be_read_is_refused_by_name(self, source: str, error: type[Exception], words: str) -> None:
        """A missing file, an empty pattern, a directory and an unknown format are refused before anything begins."""
        Path("here").mkdir()
        Path("table.parquet").write_bytes(b"PAR1")
        with pytest.raises(error, match=words):
            batchkit.lines(source)

    def test_no_source_is_refused(self) -> None:
        """At least one file is needed."""
        with pytest.raises(UsageError, match="no input"):
            batchkit.lines()


class TestUnreadableItems:
    """What cannot be read is that item's failure, not the file's."""

    def test_invalid_utf8_fails_the_item_and_no_other(self, tmp_path: Path) -> None:
        """Invalid bytes are the item's failure; the lines around it are items."""
        reader = reader_of(tmp_path / "items.txt", b"a\n\xff\xfe\nb\n\xc3\n")
        (batch,) = reader.read(reader.whole(), 10)
        assert batch.items == ["a", None, "b", None]
        assert dict(batch.unreadable) == {1: "not valid UTF-8", 3: "not valid UTF-8"}

    @pytest.mark.parametrize("bad", [b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\x80"])
    def test_what_only_looks_like_utf8_fails_too(self, tmp_path: Path, bad: bytes) -> None:
        """Encoded surrogates, over-long forms and lone continuation bytes are not UTF-8."""
        reader = reader_of(tmp_path / "items.txt", b"a\n" + bad + b"\n")
        (batch,) = reader.read(reader.whole(), 10)
        assert list(batch.unreadable) == [1]

    def test_an_item_of_exactly_the_limit_can_be_read(self, tmp_path: Path) -> None:
        """`max_item_bytes`: only a longer line fails; bytes count, not characters."""
        reader = reader_of(tmp_path / "items.txt", "ééé\néééé\nabcdef\nabcdefg\n".encode(), limit=6)
        batches = list(reader.read(reader.whole(), 10))
        assert [item for batch in batches for item in batch.items] == ["ééé", None, "abcdef", None]

    @pytest.mark.parametrize("read_size", [1, 7, 64])
    def test_a_giant_line_fails_as_one_item(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_size: int
    ) -> None:
        """A line beyond `max_item_bytes` that spans many blocks is one unreadable item, and the next line is read."""
        monkeypatch.setattr(blocks, "READ_SIZE", read_size)
        data = b"a\n" + b"x" * 5000 + b"\nb\n" + b"y" * 3000
        reader = reader_of(tmp_path / "items.txt", data, limit=100)
        batches = list(reader.read(reader.whole(), 10))
        assert [item for batch in batches for item in batch.items] == ["a", None, "b", None]
        assert batches[-1].stop == [0, len(data)]

    @pytest.mark.parametrize("end", [b"\n", b"\r\n"])
    def test_whether_an_item_is_too_long_does_not_depend_on_block_borders(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
    ) -> None:
        """The limit is of the item; its line end does not count, wherever a block ends."""
        data = b"0123456789" + end + b"b" + end
        seen = set()
        for read_size in (3, 10, 11, 12, 13, 64):
            monkeypatch.setattr(blocks, "READ_SIZE", read_size)
            reader = reader_of(tmp_path / "items.txt", data, limit=10)
            seen.add(tuple(item for batch in reader.read(reader.whole(), 10) for item in batch.items))
        assert seen == {("0123456789", "b")}

    def test_whether_an_item_is_too_long_does_not_depend_on_where_a_long_delimiter_is_cut(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same for a delimiter of several characters."""
        seen = set()
        for read_size in (3, 10, 11, 12, 13, 64):
            monkeypatch.setattr(blocks, "READ_SIZE", read_size)
            reader = reader_of(tmp_path / "items.txt", b"0123456789||b||", "||", limit=10)
            seen.add(tuple(item for batch in reader.read(reader.whole(), 10) for item in batch.items))
        assert seen == {("0123456789", "b")}

    def test_a_giant_line_has_coordinates_like_any_other(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """`coordinate(len(items))` gives `stop`, also where the line was not kept."""
        monkeypatch.setattr(blocks, "READ_SIZE", 64)
        reader = reader_of(tmp_path / "items.txt", b"a\n" + b"x" * 5000 + b"\nb\n", limit=100)
        giant = next(batch for batch in reader.read(reader.whole(), 10) if batch.unreadable)
        assert giant.coordinate(0) == giant.start == [0, 2]
        assert giant.coordinate(1) == giant.stop == [0, 5003]

    def test_a_batch_ends_early_at_as_many_bytes_as_one_item_may_have(self, tmp_path: Path) -> None:
        """`max_item_bytes` also bounds the bytes of a batch, and so the memory."""
        reader = reader_of(tmp_path / "items.txt", b"x" * 49 + b"\n" + (b"y" * 49 + b"\n") * 3000, limit=1000)
        sizes = [batch.stop[1] - batch.start[1] for batch in reader.read(reader.whole(), 10_000)]
        assert max(sizes) <= 1000 + (64 << 10)

    def test_the_message_names_file_line_and_byte(self, tmp_path: Path) -> None:
        """A position for people is file, line and byte."""
        reader = reader_of(tmp_path / "items.txt", b"a\nbb\n\xff\n")
        assert reader.describe([0, 5]) == f"'{tmp_path / 'items.txt'}' line 3 (byte 5)"

    def test_an_unreadable_item_fails_the_run_at_its_position(self) -> None:
        """Everything before it is kept, the error names where it stands, and it runs again when mended."""
        Path("items.txt").write_bytes(b"a\nb\n\xff\nc\n")
        with pytest.raises(batchkit.ItemError, match=r"'items.txt' line 3 \(byte 4\).*not valid UTF-8") as caught:
            batchkit.process("items.txt", job="load")
        assert (caught.value.item, caught.value.position) == (None, "'items.txt' line 3 (byte 4)")
        assert list(batchkit.Job("load").results()) == ["a", "b"]

    def test_the_position_is_that_of_the_item_behind_skipped_lines(self) -> None:
        """Blank lines before an unreadable item are not its position."""
        Path("items.txt").write_bytes(b"\n\n\xff\n")
        with pytest.raises(batchkit.ItemError) as caught:
            batchkit.process(batchkit.lines("items.txt", skip_blank=True))
        assert caught.value.position == "'items.txt' line 3 (byte 2)"


def test_the_end_is_fixed_when_the_reader_is_made(tmp_path: Path) -> None:
    """Input grows while read: the bound is taken at the start, the tail is the next run's."""
    path = tmp_path / "items.txt"
    reader = reader_of(path, b"a\nb\n")
    with path.open("ab") as file:
        file.write(b"c\n")
    assert [item for batch in reader.read(reader.whole(), 10) for item in batch.items] == ["a", "b"]


def test_a_file_that_shrinks_under_the_reader_is_an_error_after_its_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the source cannot be read further, all whole items before that place come first; it is no end of file."""
    monkeypatch.setattr(blocks, "READ_SIZE", 4)
    path = tmp_path / "items.txt"
    reader = reader_of(path, b"a\nb\nc\nd\n")
    path.write_bytes(b"a\nb\nc")
    batches = reader.read(reader.whole(), 1)
    assert [next(batches).items, next(batches).items] == [["a"], ["b"]]
    with pytest.raises(SourceError, match="shrank"):
        next(batches)


class Line(NamedTuple):
    """One item by the simplest possible reading of the rules. content: what is left of the line; `None`: not UTF-8."""

    start: int
    stop: int
    content: bytes
    item: str | None


def reference(data: bytes, delimiter: str, *, blank: bool = False) -> list[Line]:
    """Return the items of a file, one byte string after the other."""
    end = delimiter.encode()
    found = []
    at = 0
    while at < len(data):
        next_end = data.find(end, at)
        stop = len(data) if next_end < 0 else next_end + len(end)
        content = data[at:stop] if next_end < 0 else data[at:next_end]
        if delimiter == "\n" and next_end >= 0:
            content = content.removesuffix(b"\r")
        if at == 0:
            content = content.removeprefix(BOM)
        try:
            item: str | None = content.decode()
        except UnicodeDecodeError:
            item = None
        if not (blank and item is not None and not item.strip(BLANK)):
            found.append(Line(at, stop, content, item))
        at = stop
    return found


PIECES = [
    *(b"a", b"b", b"bc", b"\n", b"\n", b"\r", b"\r\n", b"|", b"|", b"||", b"\0", b" ", b"\t", b"\x0b\x0c"),
    *("\u2028".encode(), "é".encode(), b"\xff", b"\xc3", b"\xa9", BOM, b"aba", b"x" * 1100, b"long line " * 7),
]
DATA = st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join)
DELIMITERS = st.sampled_from(["\n", "\n", "|", "||", "aba", "\0", "é", "\r\n", "bb"])
QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a path that every example writes anew."""
    return tmp_path_factory.mktemp("lines") / "items.txt"


def check_batch(batch: Batch, data: bytes, lines: list[Line]) -> None:
    """Check that a batch holds `lines`, knows where each stands, and proves what is before its end."""
    assert batch.items == [None if at in batch.unreadable else line.item for at, line in enumerate(lines)]
    assert [batch.coordinate(index) for index in range(len(lines))] == [[0, line.start] for line in lines]
    assert batch.coordinate(len(lines)) == batch.stop
    stop = batch.stop[1]
    assert batch.proof == crc32(data[max(0, stop - 512) : stop])


@QUICK
@given(
    data=DATA,
    delimiter=DELIMITERS,
    blank=st.booleans(),
    size=st.integers(1, 7),
    block=st.integers(1, 40),
    draw=st.data(),
)
def test_any_bytes_are_read_as_the_rules_say(
    file: Path, data: bytes, delimiter: str, *, blank: bool, size: int, block: int, draw: st.DataObject
) -> None:
    """From any item on, for any block and batch size: the items, coordinates, proofs and splits of the reference."""
    lines = reference(data, delimiter, blank=blank)
    reader = reader_of(file, data, delimiter, blank=blank)
    first = draw.draw(st.integers(0, len(lines)), label="first item")
    start = lines[first].start if first < len(lines) else len(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "READ_SIZE", block)
        batches = list(reader.read(Span([0, start], reader.whole().stop), size))
    at, left = start, lines[first:]
    for batch in batches:
        assert batch.start == [0, at]
        assert len(batch.items) <= size
        mine, left = left[: len(batch.items)], left[len(batch.items) :]
        assert set(batch.unreadable) == {index for index, line in enumerate(mine) if line.item is None}
        check_batch(batch, data, mine)
        for count in range(1, len(mine)):
            head, rest = batch.split(count)
            assert (head.start, head.stop, rest.stop) == (batch.start, rest.start, batch.stop)
            check_batch(head, data, mine[:count])
            check_batch(rest, data, mine[count:])
        at = batch.stop[1]
    assert (at, left) == (len(data), [])


@QUICK
@given(data=DATA, delimiter=DELIMITERS, size=st.integers(1, 7), block=st.integers(1, 40), draw=st.data())
def test_reading_on_at_any_batch_gives_exactly_the_rest(
    file: Path, data: bytes, delimiter: str, size: int, block: int, draw: st.DataObject
) -> None:
    """A cursor after a batch, or within one after a split, is where the next item begins."""
    reader = reader_of(file, data, delimiter)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "READ_SIZE", block)
        batches = list(reader.read(reader.whole(), size))
        everything = [item for batch in batches for item in batch.items]
        assert everything == [line.item for line in reference(data, delimiter)]
        if not batches:
            return
        chosen = draw.draw(st.integers(0, len(batches) - 1), label="batch")
        inside = draw.draw(st.integers(0, len(batches[chosen].items)), label="items of it")
        cursor = batches[chosen].coordinate(inside)
        before = sum(len(batch.items) for batch in batches[:chosen]) + inside
        rest = reader.read(Span(cursor, reader.whole().stop), draw.draw(st.integers(1, 7), label="batch size"))
        assert [item for batch in rest for item in batch.items] == everything[before:]


@QUICK
@given(data=DATA, delimiter=DELIMITERS, size=st.integers(1, 7), block=st.integers(1, 40), limit=st.integers(1, 80))
def test_no_item_is_longer_than_the_limit_and_none_is_lost(
    file: Path, data: bytes, delimiter: str, size: int, block: int, limit: int
) -> None:
    """With any limit the same lines are found; a longer one is unreadable, one that fits with its end is not."""
    lines = reference(data, delimiter)
    reader = reader_of(file, data, delimiter, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "READ_SIZE", block)
        batches = list(reader.read(reader.whole(), size))
    left = lines
    for batch in batches:
        mine, left = left[: len(batch.items)], left[len(batch.items) :]
        for index, line in enumerate(mine):
            if line.item is None or len(line.content) > limit:
                assert index in batch.unreadable
            elif line.stop - line.start <= limit:
                assert index not in batch.unreadable
        check_batch(batch, data, mine)
    assert left == []
