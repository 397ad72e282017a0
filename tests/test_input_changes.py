"""The input is known: same → resume, appended → take the new items too, changed → refuse and say what changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import batchkit
from batchkit.errors import DefinitionChanged, InputChanged, OutputChanged

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 400
"""Lines of 100 bytes: 40 KB, so that first block, cursor and the rest are apart."""

pytestmark = pytest.mark.usefixtures("workdir")


def lines(count: int = COUNT, first: int = 0) -> str:
    """Return numbered lines of 100 bytes."""
    return "".join(f"{number:<99}\n" for number in range(first, first + count))


def run(*sources: str, **options: Any) -> batchkit.Result:
    """Run or resume the job `load` over files."""
    return batchkit.process(batchkit.lines(*(sources or ("items.txt",))), None, job="load", output="out.txt", **options)


def append(text: str, path: str = "items.txt") -> None:
    """Append to a file."""
    with Path(path).open("a") as file:
        file.write(text)


def change(offset: int, path: str = "items.txt") -> None:
    """Change a byte in place, and the modification time for certain."""
    with Path(path).open("r+b") as file:
        file.seek(offset)
        file.write(b"#")
    touch(path)


def touch(path: str = "items.txt") -> None:
    """Give a file another modification time."""
    facts = os.stat(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 10**9))


@pytest.fixture
def paused(workdir: Path) -> batchkit.Result:  # noqa: ARG001  # works in it
    """Leave a job paused after 200 of 400 lines."""
    Path("items.txt").write_text(lines())
    return run(max_items=200)


@pytest.fixture
def completed(workdir: Path) -> batchkit.Result:  # noqa: ARG001  # works in it
    """Leave a job completed."""
    Path("items.txt").write_text(lines())
    return run()


class TestOneFile:
    """A file that is the same, grew, or changed."""

    @pytest.mark.usefixtures("paused")
    def test_the_same_file_is_gone_on_with(self) -> None:
        """Nothing changed: the rest is done."""
        assert run().new == COUNT - 200
        assert Path("out.txt").read_text() == Path("items.txt").read_text()

    @pytest.mark.parametrize("state", ["paused", "completed"])
    def test_appended_lines_are_taken_too(self, request: pytest.FixtureRequest, state: str) -> None:
        """Only appended: resume and take the new items too, before completion and after it."""
        before: batchkit.Result = request.getfixturevalue(state)
        append(lines(5, COUNT))
        result = run()
        assert (result.completed, result.new) == (True, COUNT + 5 - before.done)
        assert Path("out.txt").read_text() == Path("items.txt").read_text()

    @pytest.mark.usefixtures("completed")
    def test_appending_again_and_again_is_fine(self) -> None:
        """Each run takes what is new, also in pieces, and the published output grows with it."""
        for number in range(4):
            append(lines(3, COUNT + 3 * number))
            if number % 2:
                run(max_items=1)
            assert run().completed
            assert Path("out.txt").read_text() == Path("items.txt").read_text()

    @pytest.mark.usefixtures("completed")
    def test_appended_while_an_appended_part_is_paused(self) -> None:
        """An unfinished tail may grow like any other unfinished part."""
        append(lines(10, COUNT))
        run(max_items=4)
        append(lines(10, COUNT + 10))
        assert run().done == COUNT + 20
        assert Path("out.txt").read_text() == Path("items.txt").read_text()

    def test_an_unfinished_last_line_may_be_finished_before_it_was_done(self) -> None:
        """A last line without newline that no run has done is done as it stands when it is its turn."""
        Path("items.txt").write_text("a\nb\nunfin")
        run(max_items=2)
        append("ished\nc\n")
        run()
        assert Path("out.txt").read_text() == "a\nb\nunfinished\nc\n"

    def test_a_last_line_that_was_done_and_then_grew_is_changed(self) -> None:
        """It was already done with other content."""
        Path("items.txt").write_text("a\nb\nunfin")
        run()
        append("ished\nc\n")
        with pytest.raises(InputChanged, match=r"items\.txt.*no line end"):
            run()

    def test_a_last_line_whose_newline_came_late_is_changed(self) -> None:
        """What stood there without line end may have been half a line: batchkit cannot tell, so it asks."""
        Path("items.txt").write_text("a\nb")
        run()
        append("\nc\n")
        with pytest.raises(InputChanged):
            run()
        assert run(on_input_change="restart").done == 3

    def test_an_empty_file_that_grew_is_appended(self) -> None:
        """Nothing was done, so anything is new."""
        Path("items.txt").write_bytes(b"")
        assert run().done == 0
        append("a\nb\n")
        assert run().done == 2
        assert Path("out.txt").read_text() == "a\nb\n"

    @pytest.mark.parametrize("state", ["paused", "completed"])
    @pytest.mark.parametrize(
        ("edit", "words"),
        [
            (lambda: Path("items.txt").write_text(lines(300)), "shrank from 40,000 to 30,000 bytes"),
            (lambda: Path("items.txt").write_text(""), "shrank"),
            (lambda: Path("items.txt").write_text(lines(COUNT, 1000)), "first 4,096 bytes"),
            (lambda: Path("items.txt").write_text(lines(COUNT + 10, 1000)), "first 4,096 bytes"),
            (lambda: change(50), "first 4,096 bytes"),
            (lambda: change(19_950), "written again|before byte"),
            (lambda: change(10_050), "written again"),
            (lambda: change(30_050), "written again"),
            (touch, "written again"),
        ],
        ids=[
            "shrank",
            "emptied",
            "replaced",
            "replaced longer",
            "first block",
            "before the cursor",
            "done",
            "left",
            "touched",
        ],
    )
    def test_a_changed_file_is_refused_and_nothing_is_changed(
        self, request: pytest.FixtureRequest, state: str, edit: Callable[[], Any], words: str
    ) -> None:
        """Exit 5; the message names job, file, what changed and what next; a put back file is gone on with."""
        request.getfixturevalue(state)
        before = Path("items.txt").read_bytes()
        facts = os.stat("items.txt")
        edit()
        with pytest.raises(InputChanged, match=words) as caught:
            run()
        assert caught.value.exit_code == 5
        for word in ("'load'", "items.txt", "--restart", "--on-input-change continue"):
            assert word in str(caught.value)
        Path("items.txt").write_bytes(before)
        os.utime("items.txt", ns=(facts.st_atime_ns, facts.st_mtime_ns))
        assert run().done == COUNT
        assert Path("out.txt").read_bytes() == before

    @pytest.mark.usefixtures("paused")
    def test_lines_before_the_cursor_changed_in_a_file_that_grew_too(self) -> None:
        """Growing hides no change just before the cursor."""
        change(19_950)
        append(lines(5))
        with pytest.raises(InputChanged, match="before byte 20,000"):
            run()

    @pytest.mark.usefixtures("paused")
    def test_a_file_that_is_gone_is_named(self) -> None:
        """A missing file is no changed file."""
        Path("items.txt").unlink()
        with pytest.raises(batchkit.UsageError, match=r"no file 'items\.txt'"):
            run()


class TestWhatToDo:
    """on_input_change."""

    @pytest.mark.usefixtures("paused")
    def test_restart_does_everything_again(self) -> None:
        """`restart`: a changed input is begun anew."""
        Path("items.txt").write_text(lines(300, 1000))
        result = run(on_input_change="restart")
        assert (result.completed, result.new, result.done) == (True, 300, 300)
        assert Path("out.txt").read_text() == lines(300, 1000)

    @pytest.mark.usefixtures("completed")
    def test_restart_of_a_completed_job_replaces_its_output(self) -> None:
        """The published file is the job's own and may be replaced."""
        Path("items.txt").write_text(lines(300, 1000))
        assert run(on_input_change="restart").done == 300
        assert Path("out.txt").read_text() == lines(300, 1000)

    @pytest.mark.usefixtures("paused")
    def test_restart_leaves_an_unchanged_job_alone(self) -> None:
        """What did not change is resumed."""
        assert run(on_input_change="restart").new == COUNT - 200

    @pytest.mark.usefixtures("paused")
    def test_continue_goes_on_at_the_cursor(self) -> None:
        """`continue`: what is done stays done, the rest is read from the file as it is now; the next run knows it."""
        change(30_050)
        assert run(on_input_change="continue", max_items=10).new == 10
        result = run()
        assert (result.completed, result.done) == (True, COUNT)
        assert Path("out.txt").read_text().splitlines()[300] == Path("items.txt").read_text().splitlines()[300]

    @pytest.mark.usefixtures("completed")
    def test_continue_takes_a_touched_file(self) -> None:
        """A completed job whose input was only touched has nothing new to do."""
        touch()
        assert run(on_input_change="continue").new == 0
        assert run().new == 0

    @pytest.mark.usefixtures("paused")
    def test_continue_behind_the_end_is_refused(self) -> None:
        """There is nothing to go on with where the input ends before the cursor."""
        Path("items.txt").write_text(lines(100))
        with pytest.raises(InputChanged, match="before the cursor"):
            run(on_input_change="continue")

    @pytest.mark.usefixtures("paused")
    def test_continue_in_a_shorter_file_stops_at_its_end(self) -> None:
        """What is left is what stands behind the cursor now."""
        Path("items.txt").write_text(lines(250))
        result = run(on_input_change="continue")
        assert (result.completed, result.new) == (True, 50)


class TestSeveralFiles:
    """Several files are one list, and only its end may grow."""

    @pytest.fixture(autouse=True)
    def files(self, workdir: Path) -> None:  # noqa: ARG002  # works in it
        """Leave three files of ten lines."""
        for number, name in enumerate(("p1", "p2", "p3")):
            Path(f"{name}.txt").write_text(lines(10, 10 * number))

    @pytest.mark.parametrize("done", [5, 15, None])
    def test_the_last_file_may_grow(self, done: int | None) -> None:
        """Growth of the last file is appended."""
        run("p*.txt", max_items=done)
        append(lines(5, 30), "p3.txt")
        assert run("p*.txt").done == 35
        assert Path("out.txt").read_text() == lines(35)

    @pytest.mark.parametrize("done", [5, 15, None])
    @pytest.mark.parametrize("name", ["p1.txt", "p2.txt"])
    def test_any_other_file_may_not(self, done: int | None, name: str) -> None:
        """Growth of any file but the last is changed, whether it is done or not."""
        run("p*.txt", max_items=done)
        append(lines(1), name)
        with pytest.raises(InputChanged, match=rf"{name}.*not the last file"):
            run("p*.txt")

    @pytest.mark.parametrize("done", [5, 25, None])
    def test_a_new_file_at_the_end_is_appended(self, done: int | None) -> None:
        """A new match that sorts behind the last is appended, also if the last one grew before."""
        run("p*.txt", max_items=done)
        append(lines(2, 30), "p3.txt")
        Path("p4.txt").write_text(lines(3, 32))
        assert run("p*.txt").done == 35
        assert Path("out.txt").read_text() == lines(35)
        Path("p5.txt").write_bytes(b"")
        assert run("p*.txt").new == 0
        append(lines(1, 35), "p5.txt")
        assert run("p*.txt").new == 1

    @pytest.mark.parametrize("done", [5, None])
    @pytest.mark.parametrize("name", ["p0.txt", "p11.txt", "p22.txt"])
    def test_a_new_file_before_the_last_is_changed(self, done: int | None, name: str) -> None:
        """A new match that sorts before the last is changed, naming it."""
        run("p*.txt", max_items=done)
        Path(name).write_text(lines(1))
        with pytest.raises(InputChanged, match=name):
            run("p*.txt")

    @pytest.mark.parametrize("name", ["p1.txt", "p3.txt"])
    def test_a_file_less_is_changed(self, name: str) -> None:
        """A file that is gone from a pattern is changed."""
        run("p*.txt", max_items=5)
        Path(name).unlink()
        with pytest.raises(InputChanged, match="2 files"):
            run("p*.txt")

    def test_a_change_in_a_later_file_is_seen_before_it_is_reached(self) -> None:
        """Every file is compared at the start."""
        run("p*.txt", max_items=5)
        change(50, "p3.txt")
        with pytest.raises(InputChanged, match=r"p3\.txt"):
            run("p*.txt")

    def test_a_last_line_without_newline_in_a_middle_file_stays_its_own(self) -> None:
        """An item never crosses a file, over resumes too."""
        Path("p1.txt").write_text("a\nb")
        Path("p2.txt").write_text("c\nd")
        Path("p3.txt").write_text("e")
        while not run("p*.txt", max_items=1).completed:
            pass
        assert Path("out.txt").read_text() == "a\nb\nc\nd\ne\n"


class TestOutput:
    """The published output is known too."""

    @pytest.mark.parametrize(
        ("edit", "words"),
        [
            (lambda: append("more\n", "out.txt"), "was changed after"),
            (lambda: change(10, "out.txt"), "was changed after"),
            (lambda: Path("out.txt").write_bytes(b""), "was changed after"),
            (lambda: Path("out.txt").unlink(), "is gone"),
        ],
        ids=["appended", "edited", "emptied", "deleted"],
    )
    @pytest.mark.parametrize("grown", [False, True])
    @pytest.mark.usefixtures("completed")
    def test_a_published_output_that_was_edited_is_refused(
        self, edit: Callable[[], Any], words: str, *, grown: bool
    ) -> None:
        """Exit 5, naming the file and what next, also before appended results would join it; `restart` starts over."""
        edit()
        if grown:
            append(lines(5, COUNT))
        with pytest.raises(OutputChanged, match=words) as caught:
            run()
        assert caught.value.exit_code == 5
        assert "out.txt" in str(caught.value)
        assert "--restart" in str(caught.value)
        assert run(restart=True, overwrite=True).completed
        assert Path("out.txt").read_text() == Path("items.txt").read_text()

    @pytest.mark.usefixtures("completed")
    def test_a_restart_replaces_the_jobs_own_output_without_being_told_twice(self) -> None:
        """The message says `--restart`, and that is enough."""
        append("more\n", "out.txt")
        with pytest.raises(OutputChanged):
            run()
        assert run(restart=True).completed
        assert Path("out.txt").read_text() == Path("items.txt").read_text()

    @pytest.mark.usefixtures("completed")
    def test_an_edited_output_is_seen_before_the_function_runs_again(self) -> None:
        """Raise early at the edge: no item is done for an output that cannot take it."""
        append("more\n", "out.txt")
        append(lines(5, COUNT))
        with pytest.raises(OutputChanged):
            run()
        assert batchkit.Job("load").status().done == COUNT


class TestDefinition:
    """The same name with another definition is refused, naming what differs."""

    @staticmethod
    def shout(item: str) -> str:
        """Be another function."""
        return item.upper()

    @pytest.mark.parametrize(
        ("differing", "word"),
        [
            ({"source": "other.txt"}, "source"),
            ({"function": str.strip}, "function"),
            ({"output": "other.out.txt"}, "output"),
            ({"output": None}, "output"),
            ({"function": str.split, "batched": True}, "batched"),
            ({"source": ["a"]}, "source"),
        ],
    )
    @pytest.mark.usefixtures("paused")
    def test_what_differs_is_named(self, differing: dict[str, Any], word: str) -> None:
        """Exit 5 with the old and the new value, `--job` and `--restart`."""
        Path("other.txt").write_text(lines())
        options: dict[str, Any] = {"source": "items.txt", "function": None, "output": "out.txt", "job": "load"}
        options.update(differing)
        with pytest.raises(DefinitionChanged, match=word) as caught:
            batchkit.process(options.pop("source"), options.pop("function"), **options)
        assert caught.value.exit_code == 5
        for part in ("'load'", "--job", "--restart"):
            assert part in str(caught.value)
        assert run().completed

    @pytest.mark.parametrize(
        ("options", "words"),
        [({"delimiter": ";"}, ["delimiter", ";"]), ({"skip_blank": True}, ["skip_blank"])],
    )
    @pytest.mark.usefixtures("paused")
    def test_how_lines_are_read_belongs_to_the_definition(self, options: dict[str, Any], words: list[str]) -> None:
        """Delimiter and blank rule define a job, and the message names the one that differs."""
        with pytest.raises(DefinitionChanged) as caught:
            batchkit.process(batchkit.lines("items.txt", **options), None, job="load", output="out.txt")
        for word in words:
            assert word in str(caught.value)

    @pytest.mark.usefixtures("paused")
    def test_the_message_shows_what_the_sources_were(self) -> None:
        """Old and new path are both in it."""
        Path("other.txt").write_text(lines())
        with pytest.raises(DefinitionChanged, match=r"items\.txt.*other\.txt"):
            run("other.txt")

    @pytest.mark.usefixtures("paused")
    def test_everything_else_may_change(self) -> None:
        """Batch size, budgets, sync interval, progress and the limit of an item's bytes are of each run."""
        reader = batchkit.lines("items.txt", max_item_bytes=1000)
        result = batchkit.process(
            reader, None, job="load", output="out.txt", batch_size=7, batch_seconds=1, sync_interval=0,
            max_time="1h", max_items=10, progress="none",
        )  # fmt: skip
        assert result.done == 210
        assert run().completed

    @pytest.mark.usefixtures("paused")
    def test_another_directory_is_no_other_source(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sources are resolved: the same file by another relative path is the same."""
        Path("sub").mkdir()
        monkeypatch.chdir("sub")
        result = batchkit.process("../items.txt", None, job="load", output="../out.txt", state_dir="../.batchkit")
        assert result.done == COUNT


class TestOrder:
    """A cursor counts the files of a pattern in the order of their names: another order is another input."""

    @staticmethod
    def put(name: str, *numbers: int) -> None:
        """Write a file of numbers, as its suffix says."""
        if name.endswith(".parquet"):
            pl.DataFrame({"n": numbers}).write_parquet(name)
        else:
            Path(name).write_text("".join(f"{each}\n" for each in ("n", *numbers)))

    @pytest.mark.parametrize(
        ("suffix", "done"), [("txt", 1), ("txt", None), ("csv", 3), ("parquet", 3), ("parquet", None)]
    )
    def test_a_file_that_sorts_before_the_others_cannot_be_gone_on_with(self, suffix: str, done: int | None) -> None:
        """Going on would leave out its items and repeat others: exit 5, and the message offers only to start over."""
        for name in ("p2", "p3"):
            self.put(f"{name}.{suffix}", 1, 2)
        batchkit.process(f"p*.{suffix}", output="kept/", job="load", max_items=done)
        before = batchkit.Job("load").status().done
        self.put(f"p1.{suffix}", 3, 4)
        for wish in ("stop", "continue"):
            with pytest.raises(InputChanged, match="in the place of") as caught:
                batchkit.process(f"p*.{suffix}", output="kept/", job="load", on_input_change=wish)
            assert caught.value.exit_code == 5
            assert "--restart" in str(caught.value)
            assert "continue" not in str(caught.value)
        assert batchkit.Job("load").status().done == before
        Path(f"p1.{suffix}").unlink()
        assert batchkit.process(f"p*.{suffix}", output="kept/", job="load").completed

    @pytest.mark.parametrize("suffix", ["txt", "parquet"])
    def test_a_file_less_before_the_last_cannot_be_gone_on_with(self, suffix: str) -> None:
        """The others have moved up."""
        for name in ("p1", "p2", "p3"):
            self.put(f"{name}.{suffix}", 1, 2)
        batchkit.process(f"p*.{suffix}", output="kept/", job="load", max_items=3)
        Path(f"p1.{suffix}").unlink()
        with pytest.raises(InputChanged, match="2 files") as caught:
            batchkit.process(f"p*.{suffix}", output="kept/", job="load", on_input_change="continue")
        assert "continue" not in str(caught.value)

    @pytest.mark.parametrize(
        ("pattern", "first", "earlier"),
        [("part-*.csv", "part-2.csv", "part-1.csv"), ("*.txt", "b.txt", "a.txt"), ("p?.parquet", "p2", "p1")],
    )
    def test_a_job_over_a_pattern_keeps_its_name_when_an_earlier_file_comes(
        self, pattern: str, first: str, earlier: str
    ) -> None:
        """It is the same job, which says that its input changed, and not a new one that begins anew."""
        suffix = os.path.splitext(pattern)[1]
        self.put(first.removesuffix(suffix) + suffix, 1)
        name = batchkit.process(pattern, output="kept/").job
        assert name
        self.put(earlier.removesuffix(suffix) + suffix, 2)
        with pytest.raises(InputChanged, match=f"'{name}'"):
            batchkit.process(pattern, output="kept/")
        assert os.listdir(".batchkit") == [name]


class TestOutputsAmongInputs:
    """An output that the pattern of the input would match is an input of the next run."""

    @pytest.mark.parametrize(
        ("pattern", "output"),
        [("*.txt", "out.txt"), ("in/*.csv", "in/out.csv"), ("*", "out.jsonl"), ("in/**/*.csv", "in/deep/out.csv")],
    )
    def test_an_output_that_matches_the_input_is_refused_before_anything_is_done(
        self, pattern: str, output: str
    ) -> None:
        """Wrong usage, which names both; nothing is begun."""
        Path("in/deep").mkdir(parents=True)
        for path in ("a.txt", "in/a.csv", "in/deep/b.csv"):
            Path(path).write_text("a\n1\n")
        with pytest.raises(batchkit.UsageError, match="would match the input") as caught:
            batchkit.process(batchkit.lines(pattern), output=output, job="load")
        assert pattern in str(caught.value)
        assert Path(output).name in str(caught.value)
        assert not list(Path(".batchkit").rglob("job.json"))

    def test_a_file_in_the_directory_that_a_recursive_pattern_begins_with_matches_it(self) -> None:
        """`**` stands for no directory, too."""
        Path("in/deep").mkdir(parents=True)
        Path("in/deep/a.csv").write_text("a\n1\n")
        with pytest.raises(batchkit.UsageError, match="would match the input"):
            batchkit.process("in/**/*.csv", output="in/out.csv", job="load")

    def test_a_directory_whose_files_match_the_input_is_refused(self) -> None:
        """Its files are what the pattern would find."""
        Path("in").mkdir()
        pl.DataFrame({"n": [1]}).write_parquet("in/a.parquet")
        with pytest.raises(batchkit.UsageError, match="would match the input"):
            batchkit.process("*/*.parquet", output="out/", job="load")

    @pytest.mark.parametrize(
        "output",
        [
            "in/deep/out.txt",
            "out.txt",
            "in/out.jsonl",
            "in/.out.txt",
        ],
    )
    def test_an_output_that_the_pattern_does_not_find_is_taken(self, output: str) -> None:
        """A star ends at a directory, and finds no hidden files."""
        Path("in/deep").mkdir(parents=True)
        Path("in/a.txt").write_text("a\n")
        for _ in range(2):
            assert batchkit.process("in/*.txt", output=output, job="load").done == 1


def test_a_file_whose_own_name_looks_like_a_pattern_is_no_pattern() -> None:
    """It is read as the file that it is, and an output that the pattern would find is none of its business."""
    Path("a[1].txt").write_text("a\n")
    assert batchkit.process("a[1].txt", output="a1.txt", job="load").done == 1


class TestParts:
    """The parts of an output were tampered with."""

    @pytest.mark.parametrize(
        "data",
        [
            b"{half of it",
            b"\xff\xfe\x00",
            b'{"format": 9}\n',
            *(data for data in (b"[]\n", b"5\n", b'{"format": 1}\n')),
        ],
    )
    @pytest.mark.usefixtures("paused")
    def test_an_owner_that_cannot_be_read_is_one_clear_error(self, data: bytes) -> None:
        """It names the file and what to do, and that works."""
        Path("out.txt.parts/owner").write_bytes(data)
        with pytest.raises(batchkit.DamageError, match=r"out\.txt\.parts/owner") as caught:
            run()
        assert "\n" not in str(caught.value)
        shutil.rmtree("out.txt.parts")
        assert run(restart=True).completed
        assert Path("out.txt").read_text() == lines()

    @pytest.mark.parametrize("output", ["out.txt", "out.csv", "out.jsonl.gz", "out.parquet", "kept/"])
    def test_deleted_parts_of_a_paused_job_are_an_error_that_says_how_to_start_over(self, output: str) -> None:
        """What was committed is gone: only a restart gets it back."""
        source = [{"n": number} for number in range(6)]
        options: dict[str, Any] = {"output": output, "job": "load", "batch_size": 1}
        batchkit.process(source, max_items=3, **options)
        shutil.rmtree(f"{output.rstrip('/')}.parts")
        with pytest.raises(batchkit.BatchkitError, match="--restart") as caught:
            batchkit.process(source, **options)
        assert "\n" not in str(caught.value)
        result = batchkit.process(source, restart=True, **options)
        assert (result.completed, result.new) == (True, 6)
        assert len(list(result.results())) == 6
