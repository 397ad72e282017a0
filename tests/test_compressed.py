"""Compressed lines: the same items, cursors that count unpacked bytes, and faults that are never taken for the end."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import pickle
import random
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import batchkit
from batchkit import compression
from batchkit.compression import CompressionFault, Decompressor, compress, decompressed, suffix_of
from batchkit.errors import SourceError, UsageError
from batchkit.model import Batch, Span, Verdict
from batchkit.readers import archive_index, blocks, inflating, listing
from batchkit.readers.lines import LineReader
from batchkit.readers.share import share_done
from tests.kernels import Failing, installed

if TYPE_CHECKING:
    from collections.abc import Callable

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".zst": lambda data: compress(".zst", data),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
TEXT = "".join(f"line {number}\n" for number in range(50)).encode()
HEADER = 10  # bytes of a gzip header
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

suffixes = pytest.mark.parametrize("suffix", PACK)
pytestmark = pytest.mark.usefixtures("workdir")


def noise(size: int, seed: int = 0) -> bytes:
    """Return lines that hardly compress."""
    chance = random.Random(seed)
    return b"".join(chance.randbytes(30).hex().encode() + b"\n" for _ in range(size // 61))


def packed(suffix: str, *members: bytes, name: str = "items.txt") -> str:
    """Write members one behind the other; return the file's name."""
    Path(name + suffix).write_bytes(b"".join(PACK[suffix](member) for member in members))
    return name + suffix


def batches_of(reader: LineReader, size: int = 7, start: Any = None) -> list[Batch]:
    """Return the batches from a cursor on."""
    return list(reader.read(Span(start or [0, 0], reader.whole().stop), size))


def items_of(reader: LineReader, start: Any = None) -> list[Any]:
    """Return the items from a cursor on."""
    return [item for batch in batches_of(reader, start=start) for item in batch.items]


def until_fault(reader: LineReader) -> tuple[list[Any], SourceError | None]:
    """Return the items, and the error behind them if there is one."""
    items: list[Any] = []
    try:
        for batch in reader.read(reader.whole(), 3):
            items += batch.items
    except SourceError as error:
        return items, error
    return items, None


@suffixes
class TestLines:
    """What a compressed file holds is read as if it were not compressed."""

    @QUICK
    @given(cuts=st.lists(st.integers(0, len(TEXT)), max_size=4), block=st.integers(1, 300), size=st.integers(1, 60))
    def test_members_and_blocks_may_end_anywhere(self, suffix: str, cuts: list[int], block: int, size: int) -> None:
        """Members one behind the other are one file; items, coordinates and proofs are those of the plain one."""
        edges = [0, *sorted(cuts), len(TEXT)]
        path = packed(suffix, *(TEXT[start:stop] for start, stop in pairwise(edges)))
        Path("plain.txt").write_bytes(TEXT)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "READ_SIZE", block)
            found = batches_of(LineReader([path]), size)
            plain = batches_of(LineReader(["plain.txt"]), size)
        assert [item for batch in found for item in batch.items] == [item for batch in plain for item in batch.items]
        assert (found[-1].stop, found[-1].proof) == (plain[-1].stop, plain[-1].proof)

    def test_reading_goes_on_at_any_cursor(self, suffix: str) -> None:
        """The proof of each cursor is found again, and exactly the rest is read."""
        path = packed(suffix, TEXT[:100], TEXT[100:])
        fingerprint = LineReader([path]).fingerprint()
        everything = TEXT.decode().splitlines()
        done = 0
        for batch in batches_of(LineReader([path])):
            done += len(batch.items)
            reader = LineReader([path])
            assert reader.check(fingerprint, batch.stop, batch.proof).kind == "same"
            assert items_of(reader, batch.stop) == everything[done:]

    def test_a_job_goes_on_and_completes(self, suffix: str) -> None:
        """A paused job over a compressed file is gone on with, and its end is unknown until it is there."""
        path = packed(suffix, TEXT)
        paused = batchkit.process(path, output="out.txt", batch_size=5, max_items=20)
        assert (paused.completed, paused.share) == (False, None)
        assert batchkit.process(path, output="out.txt").new == 30
        assert Path("out.txt").read_bytes() == TEXT

    def test_an_appended_member_is_taken_too(self, suffix: str) -> None:
        """A compressed file that grew by a member is appended, before completion and after."""
        path = packed(suffix, TEXT)
        batchkit.process(path, output="out.txt")
        with Path(path).open("ab") as file:
            file.write(PACK[suffix](b"more\n"))
        assert batchkit.process(path, output="out.txt").new == 1
        assert Path("out.txt").read_bytes() == TEXT + b"more\n"

    def test_a_last_line_that_was_done_and_goes_on_is_a_change(self, suffix: str) -> None:
        """The last item had no newline and the file then grew on that very line: it was another line."""
        path = packed(suffix, b"a\nb")
        batchkit.process(path, output="out.txt")
        with Path(path).open("ab") as file:
            file.write(PACK[suffix](b"c\n"))
        with pytest.raises(batchkit.InputChanged, match="goes on"):
            batchkit.process(path, output="out.txt")

    def test_another_content_before_the_cursor_is_a_change(self, suffix: str) -> None:
        """The bytes before the cursor are proved, whatever size and times say."""
        path = packed(suffix, TEXT)
        batch = batches_of(LineReader([path]))[3]
        packed(suffix, TEXT.upper())
        reader = LineReader([path])
        verdict = reader.check(reader.fingerprint(), batch.stop, batch.proof)
        assert (verdict.kind, "byte" in verdict.why) == ("changed", True)
        packed(suffix, TEXT[:20])
        reader = LineReader([path])
        assert reader.check(reader.fingerprint(), batch.stop, batch.proof).kind == "changed"

    def test_cut_off_at_any_byte_the_whole_lines_come_first(self, suffix: str) -> None:
        """Truncated within a member: whole lines, then an error naming the file; at its border: the end."""
        first, second = (PACK[suffix](part) for part in (TEXT[:200], TEXT[200:]))
        whole = first + second
        everything = TEXT.decode().splitlines()
        for size in range(len(whole) + 1):
            Path("cut.txt" + suffix).write_bytes(whole[:size])
            items, error = until_fault(LineReader(["cut.txt" + suffix]))
            if size in {len(first), len(whole)}:
                expected = (TEXT[:200] if size == len(first) else TEXT).decode().splitlines()
                assert (items, error) == (expected, None)
            else:
                assert items == everything[: len(items)]
                assert error is not None
                assert "cut off" in str(error), size

    def test_a_damaged_file_is_no_end(self, suffix: str) -> None:
        """Damage is an error that names file and both offsets, behind whole lines; damage can hide from no checksum."""
        data = noise(300_000)
        damaged = bytearray(PACK[suffix](data))
        damaged[len(damaged) // 2] ^= 0x55
        Path("bad.txt" + suffix).write_bytes(damaged)
        items, error = until_fault(LineReader(["bad.txt" + suffix]))
        assert error is not None
        assert f"'bad.txt{suffix}' is damaged behind byte" in str(error)
        assert "compressed byte" in str(error)
        before = data.decode().splitlines()
        assert len(items) <= len(before)

    def test_bytes_that_are_no_member_behind_the_last_are_damage(self, suffix: str) -> None:
        """What follows and is not compressed is neither read nor passed over."""
        path = packed(suffix, TEXT)
        with Path(path).open("ab") as file:
            file.write(b"these are no compressed bytes")
        items, error = until_fault(LineReader([path]))
        assert items == TEXT.decode().splitlines()
        assert error is not None
        assert "damaged" in str(error)

    def test_a_download_that_is_completed_is_gone_on_with(self, suffix: str) -> None:
        """What came before the fault is committed; once the file is whole, the same command does the rest."""
        data = noise(400_000)
        path = packed(suffix, data)
        whole = Path(path).read_bytes()
        Path(path).write_bytes(whole[: len(whole) * 3 // 4])
        with pytest.raises(SourceError, match="cut off"):
            batchkit.process(path, output="out.txt", job="load")
        done = batchkit.Job("load").status().done
        Path(path).write_bytes(whole)
        result = batchkit.process(path, output="out.txt", job="load")
        assert done + result.new == data.count(b"\n")
        assert Path("out.txt").read_bytes() == data

    def test_an_error_of_the_disk_is_no_end_either(self, suffix: str) -> None:
        """EIO below the compressed bytes stops the run at a whole line."""
        path = packed(suffix, noise(400_000))
        with installed(Failing(("read",), 2, errno.EIO)):
            _, error = until_fault(LineReader([path]))
        assert error is not None
        assert "Input/output error" in str(error)

    def test_an_empty_file_is_cut_off(self, suffix: str) -> None:
        """No member at all is what an interrupted download leaves; one that holds nothing has no items."""
        Path("none.txt" + suffix).write_bytes(b"")
        assert "cut off" in str(until_fault(LineReader(["none.txt" + suffix]))[1])
        assert until_fault(LineReader([packed(suffix, b"")])) == ([], None)

    def test_a_few_bytes_that_unpack_to_many_come_in_blocks(self, suffix: str) -> None:
        """One call never gives out more than asked for."""
        chunks = iter([PACK[suffix](b"\0" * 30_000_000)])
        unpacked = Decompressor(suffix, lambda: next(chunks, b""))
        total = 0
        while block := unpacked.read(65536):
            assert len(block) <= 65536
            total += len(block)
        assert (total, unpacked.at) == (30_000_000, 30_000_000)

    def test_the_position_of_an_item_is_line_and_byte_of_the_contents(self, suffix: str) -> None:
        """A message about an item names the file, and line and byte within what it holds."""
        path = packed(suffix, b"a\nbb\n\xff\n")
        assert LineReader([path]).describe([0, 5]) == f"'{path}' line 3 (byte 5)"

    def test_what_is_appended_while_reading_is_the_next_runs(self, suffix: str) -> None:
        """The compressed size is fixed when the reader is made, so half a member that is just written is no fault."""
        path = packed(suffix, TEXT)
        reader = LineReader([path])
        with Path(path).open("ab") as file:
            file.write(PACK[suffix](b"more\n")[:-3])
        assert items_of(reader) == TEXT.decode().splitlines()

    def test_a_reader_that_has_opened_its_file_can_be_sent_to_a_worker(self, suffix: str) -> None:
        """Readers hold paths; what `check` opened stays behind."""
        path = packed(suffix, TEXT)
        batch = batches_of(LineReader([path]))[2]
        reader = LineReader([path])
        reader.check(reader.fingerprint(), batch.stop, batch.proof)
        copy = pickle.loads(pickle.dumps(reader))  # noqa: S301  # our own
        assert items_of(copy, batch.stop) == items_of(reader, batch.stop)


class TestSeveralFiles:
    """Compressed and plain files among each other."""

    def test_compressed_and_plain_files_are_one_list(self) -> None:
        """Each is read in its way; where the last is plain the end is known, but how much there is, is not."""
        packed(".gz", b"a\nb\n", name="1.txt")
        Path("2.txt").write_text("c\nd")
        packed(".xz", b"e", name="3.txt")
        Path("4.txt").write_text("f\n")
        reader = LineReader(["?.txt*"])
        assert items_of(reader) == ["a", "b", "c", "d", "e", "f"]
        assert reader.whole() == Span([0, 0], [3, 2])
        assert reader.extent(reader.whole()) is None
        assert reader.extent(Span([2, 0], [3, 0])) is None
        assert reader.extent(Span([0, 0], [0, 4])) == 4
        assert LineReader(["1.txt.gz"]).whole() == Span([0, 0], None)

    def test_the_share_done_is_unknown(self) -> None:
        """Of compressed files nobody knows how much they hold."""
        packed(".gz", TEXT)
        for sources in (["items.txt.gz"], ["items.txt.gz", "plain.txt"]):
            Path("plain.txt").write_text("x\n")
            reader = LineReader(sources)
            plan = [reader.whole()]
            assert share_done("lines", reader.fingerprint(), plan, [[0, 4]]) is None

    def test_a_job_is_named_without_the_suffix(self) -> None:
        """`items.txt.gz` and `items.txt` are the same list for the default name."""
        assert LineReader([packed(".gz", TEXT)]).name == "items"

    @pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.zip", "a.parquet.gz"])
    def test_archives_of_files_are_refused(self, name: str) -> None:
        """The lines of a tar mean nothing."""
        Path(name).write_bytes(b"x")
        with pytest.raises(UsageError, match="not a text file"):
            LineReader([name])


class TestPadding:
    """What may stand behind a member."""

    @pytest.mark.parametrize("suffix", [".gz", ".xz"])
    def test_zeros_behind_a_member_are_padding(self, suffix: str) -> None:
        """Tapes and block devices pad with zeros; another member may follow."""
        part = PACK[suffix](TEXT)
        Path("pad.txt" + suffix).write_bytes(part + b"\0" * 512 + part + b"\0" * 70_000)
        assert until_fault(LineReader(["pad.txt" + suffix])) == (2 * TEXT.decode().splitlines(), None)

    def test_zeros_alone_are_no_gzip_file(self) -> None:
        """A power cut may leave full length in zeros."""
        Path("zeros.txt.gz").write_bytes(b"\0" * 512)
        assert "damaged" in str(until_fault(LineReader(["zeros.txt.gz"]))[1])


@pytest.fixture
def indexed(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let an index have a point every 50 KB, and be kept in a directory."""
    if not inflating.available():
        pytest.skip("this system has no zlib to be used by ctypes")
    monkeypatch.setattr(archive_index, "SPACING", 50_000)
    monkeypatch.setattr(listing, "RESCAN_TOLD", 150_000)
    directory = Path("job")
    directory.mkdir()
    return directory


def keeping(directory: Path, path: str = "items.txt.gz") -> LineReader:
    """Return a reader that keeps its index in a directory."""
    reader = LineReader([path])
    reader.keep_in(str(directory))
    return reader


class TestIndex:
    """What a job keeps to get back into a gzip file; a cache."""

    def test_a_resume_unpacks_the_last_stretch_only(self, indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """From any cursor near the end, what is read of the file is a fraction of what was done; the rest is exact."""
        data = noise(900_000)
        packed(".gz", data[:500_000], data[500_000:])
        found = batches_of(keeping(indexed), 500)
        fingerprint = LineReader(["items.txt.gz"]).fingerprint()
        monkeypatch.setattr(blocks, "READ_SIZE", 4096)
        everything = data.decode().splitlines()
        done = 0
        for batch in found[:-1]:
            done += len(batch.items)
            reader = keeping(indexed)
            assert reader.check(fingerprint, batch.stop, batch.proof) == Verdict("same")
            assert items_of(reader, batch.stop) == everything[done:]
        source = keeping(indexed)._listing._near(0, found[-2].stop[1])
        assert found[-2].stop[1] - source.begun < 150_000

    def test_a_member_that_was_entered_in_the_middle_is_still_proved(self, indexed: Path) -> None:
        """The checksum goes on from the point: damage at the member's end is found by a resumed run, too."""
        data = noise(200_000)
        path = Path(packed(".gz", data))
        found = batches_of(keeping(indexed), 500)
        whole = path.read_bytes()
        facts = path.stat()
        for at in (-8, -4):
            bad = bytearray(whole)
            bad[at] ^= 1
            path.write_bytes(bad)
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
            reader = keeping(indexed)
            assert reader._listing._near(0, found[-2].stop[1]).begun > 0
            with pytest.raises(SourceError, match="damaged"):
                items_of(keeping(indexed), found[-2].stop)
            path.write_bytes(whole[:at])
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
            with pytest.raises(SourceError, match="cut off"):
                items_of(keeping(indexed), found[-2].stop)
            path.write_bytes(whole)
            os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))

    @pytest.mark.parametrize(
        "spoil",
        [
            lambda path: path.write_bytes(b"nonsense"),
            lambda path: path.write_bytes(path.read_bytes()[:-5]),
            lambda path: path.write_bytes(b"\0" * 100),
            lambda path: path.unlink(),
            lambda path: (path.unlink(), path.mkdir()),
        ],
    )
    def test_an_index_that_is_no_good_is_ignored(self, indexed: Path, spoil: Callable[[Path], Any]) -> None:
        """Unreadable, torn, missing: the file is unpacked from its beginning, and the work goes on."""
        data = noise(200_000)
        packed(".gz", data)
        batch = batches_of(keeping(indexed), 500)[-2]
        (index,) = indexed.iterdir()
        spoil(index)
        reader = keeping(indexed)
        verdict = reader.check(reader.fingerprint(), batch.stop, batch.proof)
        assert (verdict.kind, "unpacked again up to byte" in verdict.why) == ("same", True)
        assert items_of(reader, batch.stop) == data[batch.stop[1] :].decode().splitlines()

    def test_an_index_of_another_file_is_ignored(self, indexed: Path) -> None:
        """Other size, time or first block: stale."""
        packed(".gz", noise(200_000))
        batch = batches_of(keeping(indexed), 500)[-2]
        other = noise(200_000, seed=1)
        packed(".gz", other)
        assert items_of(keeping(indexed), batch.stop) == other[batch.stop[1] :].decode().splitlines()

    def test_an_index_that_leads_astray_is_ignored(self, indexed: Path) -> None:
        """A file that seems to have grown, and did not: if a point cannot be used, the file itself decides."""
        data = noise(200_000)
        packed(".gz", data)
        batch = batches_of(keeping(indexed), 500)[-2]
        path = Path("items.txt.gz")
        head = path.read_bytes()[:60_000]
        path.write_bytes(head + b"\xff" * 300_000)
        with pytest.raises(SourceError, match=r"damaged|cut off"):
            items_of(keeping(indexed), batch.stop)

    def test_an_appended_file_is_entered_through_its_old_index(self, indexed: Path) -> None:
        """Points before the old end stay good when a member is appended."""
        packed(".gz", noise(200_000))
        batch = batches_of(keeping(indexed), 500)[-1]
        fingerprint = LineReader(["items.txt.gz"]).fingerprint()
        with Path("items.txt.gz").open("ab") as file:
            file.write(gzip.compress(b"more\n"))
        reader = keeping(indexed)
        assert reader._listing._near(0, batch.stop[1]).begun > 0
        assert reader.check(fingerprint, batch.stop, batch.proof).kind == "appended"
        assert items_of(reader, batch.stop) == ["more"]

    def test_how_much_a_file_held_is_forgotten_when_it_grew(self, indexed: Path) -> None:
        """Else its end would be taken for reached at the cursor, and nothing before it be proved; points stay good."""
        packed(".gz", noise(200_000))
        batches_of(keeping(indexed), 500)
        (path,) = indexed.iterdir()

        def index() -> archive_index.ArchiveIndex:
            return archive_index.ArchiveIndex(str(path), LineReader(["items.txt.gz"]).fingerprint()[0])

        before = index()
        assert (before.holds, before.nearest(10**9) is not None) == (len(noise(200_000)), True)
        with Path("items.txt.gz").open("ab") as file:
            file.write(gzip.compress(b"more\n"))
        grown = index()
        assert (grown.holds, grown.nearest(10**9)) == (None, before.nearest(10**9))

    def test_the_index_stays_small(self, indexed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Newest points are near each other and old ones far apart: their number grows with the logarithm."""
        monkeypatch.setattr(archive_index, "SPACING", 100_000)
        packed(".gz", noise(6_000_000))
        batches_of(keeping(indexed), 5000)
        (path,) = indexed.iterdir()
        index = archive_index.ArchiveIndex(str(path), LineReader(["items.txt.gz"]).fingerprint()[0])
        places = [point.at for point in index._points]
        assert len(places) < 40
        gaps = [later - earlier for earlier, later in pairwise(places)]
        assert max(gaps[-6:]) < 250_000
        assert gaps[0] > 500_000

    @suffixes
    def test_what_is_done_to_its_end_is_not_unpacked_again(self, indexed: Path, suffix: str) -> None:
        """How much a file holds is kept: at its end nothing has to be proved that size and time do not."""
        path = packed(suffix, noise(100_000))
        batch = batches_of(keeping(indexed, path), 500)[-1]
        reader = keeping(indexed, path)
        fingerprint = reader.fingerprint()
        with installed(Failing(("read",), 3, errno.EIO)):  # only the index may be read
            assert reader.check(fingerprint, batch.stop, batch.proof) == Verdict("same")

    @suffixes
    def test_what_has_to_be_unpacked_again_is_said(self, indexed: Path, suffix: str) -> None:
        """Without an index, a resume says what it cost, if that is worth a word."""
        path = packed(suffix, noise(200_000))
        found = batches_of(LineReader([path]), 500)
        reader = LineReader([path])
        verdict = reader.check(reader.fingerprint(), found[-2].stop, found[-2].proof)
        assert verdict.why.startswith(f"'{path}' had to be unpacked again up to byte {found[-2].stop[1]:,}")
        assert reader.check(reader.fingerprint(), found[0].stop, found[0].proof).why == ""
        assert indexed.exists()

    def test_a_disk_that_refuses_the_index_does_not_stop_the_work(self, indexed: Path) -> None:
        """It is only a cache."""
        data = noise(200_000)
        packed(".gz", data)
        with installed(Failing(("write",), 1, errno.ENOSPC)):
            assert items_of(keeping(indexed)) == data.decode().splitlines()

    def test_without_the_systems_zlib_everything_works_but_the_index(
        self, indexed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Python's own zlib reads the file; a resume begins at its beginning."""
        monkeypatch.setattr(inflating, "available", lambda: False)
        data = noise(200_000)
        packed(".gz", data)
        batch = batches_of(keeping(indexed), 500)[-2]
        reader = keeping(indexed)
        assert "again" in reader.check(reader.fingerprint(), batch.stop, batch.proof).why
        assert items_of(reader, batch.stop) == data[batch.stop[1] :].decode().splitlines()

    @QUICK
    @given(seed=st.integers(0, 10**6), level=st.integers(0, 9), draw=st.data())
    def test_any_gzip_file_can_be_entered_at_any_point(self, seed: int, level: int, draw: st.DataObject) -> None:
        """Whatever blocks a compressor makes, and wherever they end within a byte: the rest is the same."""
        if not inflating.available():
            pytest.skip("this system has no zlib to be used by ctypes")
        chance = random.Random(seed)
        words = [chance.randbytes(chance.randrange(1, 9)).hex() for _ in range(chance.randrange(2, 400))]
        data = " ".join(chance.choices(words, k=12_000)).encode()
        cut = draw.draw(st.integers(0, len(data)), label="member border")
        whole = b"".join(gzip.compress(part, compresslevel=level) for part in (data[:cut], data[cut:]))
        points: list[archive_index.Point] = []
        assert _unpacked(whole, None, points, draw.draw(st.integers(300, 70_000), label="block")) == data
        for point in draw.draw(st.lists(st.sampled_from(points), max_size=3), label="points") if points else []:
            assert _unpacked(whole, point, [], 5000) == data[point.at :]


def _unpacked(whole: bytes, point: archive_index.Point | None, points: list[archive_index.Point], size: int) -> bytes:
    """Unpack a gzip file from a point on, taking points wherever they can be."""

    def begin(at: int, taken: int) -> inflating.Inflater:
        return inflating.Inflater(at, taken, lambda _at: True, points.append)

    start = point.taken if point is not None else 0
    chunks = iter([whole[at : at + 3000] for at in range(start, len(whole), 3000)])
    unpacked = Decompressor(".gz", lambda: next(chunks, b""), begin)
    if point is not None:
        member = inflating.Inflater.resumed(point, whole[start - 1 : start], lambda _at: True, points.append)
        unpacked.go_on(member, b"", at=point.at, taken=start)
    found = []
    while block := unpacked.read(size):
        found.append(block)
    assert unpacked.taken == len(whole)
    return b"".join(found)


class TestCompression:
    """The driver: names, libraries, and what writers use."""

    def test_a_suffix_says_how_a_file_is_compressed(self) -> None:
        """Only the last suffix counts."""
        assert [suffix_of(name) for name in ("a.gz", "b.csv.zst", "c.gz.txt", "-")] == [".gz", ".zst", None, None]

    @pytest.mark.parametrize("suffix", [".gz", ".zst"])
    def test_what_is_compressed_comes_back(self, suffix: str) -> None:
        """Calls one behind the other are one file; equal data give equal bytes."""
        data = compress(suffix, TEXT) + compress(suffix, b"") + compress(suffix, b"more")
        assert compress(suffix, TEXT) == compress(suffix, TEXT)
        pieces = [data[at : at + 9] for at in range(0, len(data), 9)]
        assert b"".join(decompressed(suffix, pieces)) == TEXT + b"more"
        assert list(decompressed(suffix, [])) == list(decompressed(suffix, [b""])) == []
        with pytest.raises(CompressionFault) as caught:
            list(decompressed(suffix, [data[:-2]]))
        assert (caught.value.truncated, caught.value.taken) == (True, len(data) - 2)

    def test_a_gzip_member_names_no_time(self) -> None:
        """Bytes 4 to 7 are the time, RFC 1952."""
        assert compress(".gz", TEXT)[4:8] == bytes(4)

    def test_a_zstd_frame_tells_its_size_and_is_proved(self) -> None:
        """Any damage is found by the frame's checksum."""
        data = bytearray(compress(".zst", TEXT))
        assert compression._zstd().get_frame_info(bytes(data)).decompressed_size == len(TEXT)
        data[-1] ^= 1
        with pytest.raises(CompressionFault) as caught:
            list(decompressed(".zst", [bytes(data)]))
        assert not caught.value.truncated

    @pytest.mark.parametrize("suffix", [".bz2", ".xz", ".txt"])
    def test_other_suffixes_are_not_written(self, suffix: str) -> None:
        """Only `.gz` and `.zst` are."""
        with pytest.raises(UsageError, match=r"\.gz or \.zst"):
            compress(suffix, TEXT)
        with pytest.raises(UsageError, match=r"\.gz or \.zst"):
            list(decompressed(suffix, [TEXT]))

    def test_an_unknown_suffix_is_refused(self) -> None:
        """Known ones are named."""
        with pytest.raises(UsageError, match=r"\.bz2"):
            compression.require(".lz4")

    def test_a_missing_library_is_named_before_anything_begins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The error says what to install."""
        path = packed(".zst", TEXT)
        compression._codec.cache_clear()
        for name in ("backports.zstd", "compression.zstd", "backports", "compression"):
            monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(UsageError, match=r"pip install 'batchkit\[zstd\]'"):
            LineReader([path])

    def test_importing_it_loads_no_library(self) -> None:
        """Reading plain lines pays for none."""
        script = (
            "import sys, batchkit.api; "
            "print({'gzip', 'ctypes', 'csv', 'backports.zstd', 'compression'} & sys.modules.keys())"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        assert done.stdout == "set()\n"

    @pytest.mark.parametrize("name", ["X.TXT.GZ", "x.Txt.Gz", "X.CSV.ZST"])
    def test_a_suffix_says_so_in_capitals_too(self, name: str) -> None:
        """As files from other systems are called."""
        pack = PACK[os.path.splitext(name)[1].lower()]
        Path(name).write_bytes(pack(b"n\n1\n"))
        expected = [{"n": "1"}] if ".CSV" in name else ["n", "1"]
        assert list(batchkit.process(name, job="job").results()) == expected
