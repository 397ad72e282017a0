"""How results become the bytes of a text, JSONL or CSV file, and results again."""

from __future__ import annotations

import base64
import csv
import dataclasses
import datetime
import decimal
import io
import json
import math
import os
import random
import uuid
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import polars as pl
import pytest
from hypothesis import given, settings, strategies as st

import batchkit
from batchkit import compression
from batchkit.errors import UsageError
from batchkit.writers.base import ResultError
from batchkit.writers.formats import Format, Jsonl, Text
from batchkit.writers.kinds import output_for
from batchkit.writers.rows import Csv

SURROGATE = "a\ud800b"
QUICK = settings(max_examples=60, deadline=None)

pytestmark = pytest.mark.usefixtures("workdir")


@dataclasses.dataclass
class City:
    """A result that is a dataclass."""

    name: str
    people: int | None = None


def refused(form: Format, results: list[Any]) -> ResultError:
    """Return the error that rendering raises."""
    with pytest.raises(ResultError) as caught:
        form.render(results)
    return caught.value


def rows(data: bytes, delimiter: str = ",") -> list[list[str]]:
    """Return the rows that any CSV reader sees."""
    return list(csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter))


class TestText:
    """Strings as they are, one a line."""

    @pytest.mark.parametrize(
        ("results", "expected"),
        [
            ([], b""),
            ([""], b"\n"),
            (["a", "b"], b"a\nb\n"),
            (["a", None, "b"], b"a\nb\n"),
            ([None, None], b""),
            (["é", "🐎"], "é\n🐎\n".encode()),
            ([1, 2.5, True, [1, "é"], {"a": None}], '1\n2.5\ntrue\n[1, "é"]\n{"a": null}\n'.encode()),
            (["a", 1], b"a\n1\n"),
            (["tab\tand\x0cfeed\u2028"], "tab\tand\x0cfeed\u2028\n".encode()),
        ],
    )
    def test_strings_stay_as_they_are(self, results: list[Any], expected: bytes) -> None:
        """One string a line, anything else as JSON, `None` not at all; the output ends with LF."""
        assert Text().render(results) == expected

    @pytest.mark.parametrize(
        ("results", "index"),
        [(["a", "b\nc"], 1), ([1, "b\nc"], 1), (["a", SURROGATE], 1), (["a", None, math.nan], 2), ([{1, 2}], 0)],
    )
    def test_what_a_line_cannot_hold_is_refused_by_index(self, results: list[Any], index: int) -> None:
        """A line break, a lone surrogate and what JSON does not know are that result's failure."""
        assert refused(Text(), results).index == index

    @QUICK
    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))))
    def test_any_text_without_line_breaks_comes_back(self, texts: list[str]) -> None:
        """`parse` gives the strings that `render` was given."""
        data = Text().render(texts).decode()
        assert list(Text().parse(iter(io.StringIO(data, newline="\n")))) == texts


class TestJsonl:
    """One JSON value a line."""

    @pytest.mark.parametrize(
        ("result", "expected"),
        [
            ("é\n", '"é\\n"'),
            ({"a": [1, None]}, '{"a": [1, null]}'),
            (datetime.date(2026, 1, 2), '"2026-01-02"'),
            (datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC), '"2026-01-02T03:04:00+00:00"'),
            (datetime.time(3, 4), '"03:04:00"'),
            (decimal.Decimal("1.10"), '"1.10"'),
            (uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
            (PurePosixPath("a/b"), '"a/b"'),
            (City("Brno", 400), '{"name": "Brno", "people": 400}'),
            (
                {"at": datetime.date(2026, 1, 2), "of": City("B")},
                '{"at": "2026-01-02", "of": {"name": "B", "people": null}}',
            ),
            (0, "0"),
            (False, "false"),
            ("", '""'),
        ],
    )
    def test_values_take_the_form_that_json_has_for_them(self, result: object, expected: str) -> None:
        """Dates, decimals, UUIDs, paths and dataclasses become what JSON has for them; text is UTF-8."""
        assert Jsonl().render([result]) == expected.encode() + b"\n"

    def test_none_stores_nothing(self) -> None:
        """A result of `None` is no line."""
        assert Jsonl().render([None, 1, None]) == b"1\n"
        assert Jsonl().render([None]) == Jsonl().render([]) == b""

    @pytest.mark.parametrize(
        "bad", [math.nan, math.inf, {1, 2}, object(), SURROGATE, {(1, 2): 3}, b"bytes", City, [[math.nan]]]
    )
    def test_what_json_cannot_hold_is_refused_by_index(self, bad: object) -> None:
        """NaN, sets, bytes, lone surrogates, tuple keys are that result's failure."""
        error = refused(Jsonl(), ["good", None, bad])
        assert (error.index, bool(error.why)) == (2, True)

    def test_a_value_that_holds_itself_is_refused(self) -> None:
        """A circular result is its own failure."""
        circle: list[Any] = []
        circle.append(circle)
        assert refused(Jsonl(), [1, circle]).index == 1

    @QUICK
    @given(
        st.lists(
            st.recursive(
                st.booleans()
                | st.integers()
                | st.floats(allow_nan=False, allow_infinity=False)
                | st.text(st.characters(exclude_categories=["Cs"])),
                lambda inner: (
                    st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
                ),
                max_leaves=8,
            )
        )
    )
    def test_any_json_value_comes_back(self, values: list[Any]) -> None:
        """`parse` gives the values that `render` was given, one line each."""
        data = Jsonl().render(values)
        assert data.count(b"\n") == len(values)
        assert list(Jsonl().parse(iter(io.StringIO(data.decode(), newline="\n")))) == values


class TestCsv:
    """Rows with a header."""

    @pytest.mark.parametrize(
        ("results", "expected"),
        [
            ([{"a": 1, "b": "x"}, {"b": "y"}], b"a,b\n1,x\n,y\n"),
            ([{"a": 1, "b": None}], b"a,b\n1,\n"),
            ([[1, 2], (3, 4)], b"column_1,column_2\n1,2\n3,4\n"),
            (["x", 5], b"result\nx\n5\n"),
            ([City("Brno", 400)], b"name,people\nBrno,400\n"),
            ([{"a": 'x"y', "b": "1,2"}, {"a": "line\nbreak"}], b'a,b\n"x""y","1,2"\n"line\nbreak",\n'),
            ([None, {"a": 1}, None], b"a\n1\n"),
            ([None], b""),
            ([], b""),
            ([{"a": "é"}], "a\né\n".encode()),
        ],
    )
    def test_the_first_result_decides_the_columns(self, results: list[Any], expected: bytes) -> None:
        """Keys of a dict, else column_1 … of a list, else `result`; missing and `None` are empty; RFC 4180 but LF."""
        assert Csv().render(results) == expected

    def test_the_header_comes_once(self) -> None:
        """Only the first rendered batch with results has a header."""
        form = Csv()
        assert form.render([None]) == b""
        assert form.render([{"a": 1}]) == b"a\n1\n"
        assert form.render([{"a": 2}]) == b"2\n"

    @pytest.mark.parametrize(
        ("bad", "words"),
        [({"a": 1, "c": 2}, "'c'"), ([1, 2, 3], "3 fields"), ("x", "1 fields"), ({"a": SURROGATE}, "UTF-8")],
    )
    def test_what_does_not_fit_the_columns_is_refused_by_index(self, bad: object, words: str) -> None:
        """An unknown column, another number of fields and a lone surrogate are that result's failure."""
        error = refused(Csv(), [{"a": 1, "b": 2}, None, bad])
        assert error.index == 2
        assert words in error.why

    def test_a_surrogate_in_a_row_that_is_a_list_is_refused_by_its_own_index(self) -> None:
        """The failing result is named also among lists, dataclasses and plain values."""
        assert refused(Csv(), [["a"], [SURROGATE]]).index == 1
        assert refused(Csv(), [City("a"), City(SURROGATE)]).index == 1
        assert refused(Csv(), ["a", SURROGATE]).index == 1

    def test_a_surrogate_in_a_key_is_refused(self) -> None:
        """A column whose name cannot be encoded is the failure of the result that brought it."""
        assert refused(Csv(), [{SURROGATE: 1}]).index == 0

    def test_a_refused_batch_decides_nothing(self) -> None:
        """After a `ResultError` nothing was written, so the next first result decides the columns."""
        form = Csv()
        refused(form, [{"a": SURROGATE}])
        assert form.render([{"b": 1}]) == b"b\n1\n"

    def test_keys_that_are_no_strings_keep_their_values(self) -> None:
        """The columns are the keys of a dict, whatever they are; no value is lost."""
        assert Csv().render([{1: "x", 2: "y"}, {1: "z"}]) == b"1,2\nx,y\nz,\n"

    def test_what_has_no_form_as_text_is_refused(self) -> None:
        """A value whose `str` fails is that result's failure, as any result that the output cannot hold."""

        class Mute:
            def __str__(self) -> str:
                raise ValueError("no words")

        assert refused(Csv(), ["a", Mute()]).index == 1

    def test_a_class_is_no_dataclass_row(self) -> None:
        """A dataclass itself, given instead of an instance, ends in a row or a refusal, not in another error."""
        try:
            Csv().render([City])
        except ResultError as error:
            assert error.index == 0  # noqa: PT017  # either is fine, nothing else is

    def test_tabs_separate_tsv(self) -> None:
        """.tsv has the same rules with tabs."""
        assert Csv("\t").render([{"a": "1,2", "b": "x\ty"}]) == b'a\tb\n1,2\t"x\ty"\n'

    def test_resume_takes_the_columns_that_stand_there(self) -> None:
        """A resumed output has its header already: rows keep its order and no header is repeated."""
        form = Csv()
        assert form.resume(iter(['b,"a,x"\n', "1,2\n"]))
        assert form.render([{"a,x": 4, "b": 3}]) == b"3,4\n"
        assert refused(form, [{"c": 1}]).index == 0

    def test_resume_of_an_empty_output_decides_anew(self) -> None:
        """Nothing written, nothing decided."""
        form = Csv()
        assert not form.resume(iter([]))
        assert form.render([{"a": 1}]) == b"a\n1\n"

    @QUICK
    @given(
        st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"])), st.integers()), min_size=1),
        st.sampled_from([",", "\t"]),
    )
    def test_any_text_comes_back(self, values: list[tuple[str, int]], delimiter: str) -> None:
        """Every CSV reader sees the same values again, line breaks of all kinds included."""
        results = [{"a": text, "b": number} for text, number in values]
        data = Csv(delimiter).render(results)
        expected = [["a", "b"], *([text, str(number)] for text, number in values)]
        assert rows(data, delimiter) == expected
        parsed = list(Csv(delimiter).parse(iter(io.StringIO(data.decode(), newline=""))))
        assert parsed == [{"a": text, "b": str(number)} for text, number in values]


class TestChoice:
    """The suffix decides."""

    @pytest.mark.parametrize(
        ("path", "expected"),
        [
            ("a.txt", '{"n":1}'), ("a", '{"n":1}'), ("a.log", '{"n":1}'), ("a.JSONL", '{"n":1}'),
            ("a.ndjson", '{"n":1}'), ("a.csv", "n\n1"), ("a.tsv", "n\n1"),
        ],
    )  # fmt: skip
    def test_the_suffix_chooses_the_format(self, tmp_path: Path, path: str, expected: str) -> None:
        """.jsonl and .ndjson, .csv and .tsv, anything else is text."""
        batchkit.process([{"n": 1}], output=tmp_path / path, state_dir=tmp_path / "state", progress="none")
        assert (tmp_path / path).read_text().replace(" ", "") == expected + "\n"

    @pytest.mark.parametrize("path", ["a.json", "a.txt.bz2", "a.xlsx", "a.parquet.gz"])
    def test_formats_that_cannot_be_written_are_refused(self, path: str) -> None:
        """A suffix that asks for what cannot be written is refused, naming what can be."""
        with pytest.raises(UsageError, match=r"\.parquet"):
            output_for(f"/{path}", "job", "/state")

    @pytest.mark.parametrize(("path", "address"), [("a.db", "sqlite"), ("a.sqlite", "sqlite"), ("a.duckdb", "duckdb")])
    def test_the_file_of_a_database_is_refused_with_the_address_of_a_table(self, path: str, address: str) -> None:
        """Rows go into a table, which only an address names."""
        with pytest.raises(UsageError, match=f"{address}:///FILE.table=NAME"):
            output_for(f"/{path}", "job", "/state")


class TestInJobs:
    """The same in whole jobs."""

    def test_a_bad_result_fails_its_item_and_keeps_those_before(self) -> None:
        """A result that the output cannot hold is that item's failure; everything before it is kept."""
        Path("in.txt").write_text("1\n2\n3\n4\n")
        bad = {"3": math.nan}

        def number(line: str) -> float:
            return bad.get(line, float(line))

        with pytest.raises(batchkit.ItemError, match=r"cannot be stored") as caught:
            batchkit.process("in.txt", number, output="out.jsonl")
        assert (caught.value.item, caught.value.position) == ("3", "'in.txt' line 3 (byte 4)")
        assert isinstance(caught.value.__cause__, ResultError)
        bad.clear()
        assert batchkit.process("in.txt", number, output="out.jsonl").new == 2
        assert Path("out.jsonl").read_text() == "1.0\n2.0\n3.0\n4.0\n"

    def test_a_bad_result_of_a_generator_fails_its_item(self) -> None:
        """With several results an item, the item that gave the bad one fails, and none of its results stay."""

        def twice(item: int) -> Any:
            yield item
            yield math.nan if item == 2 else -item

        with pytest.raises(batchkit.ItemError, match="item 1") as caught:
            batchkit.process([1, 2, 3], twice, output="out.jsonl", job="twice")
        assert caught.value.item == 2
        assert list(batchkit.Job("twice").results()) == [1, -1]

    @pytest.mark.parametrize("name", ["out.csv", "out.tsv"])
    def test_a_header_comes_once_over_resumed_runs(self, name: str) -> None:
        """A CSV that several runs wrote has one header, before the first row."""
        Path("in.txt").write_text("".join(f"{number}\n" for number in range(7)))

        def row(line: str) -> dict[str, str] | None:
            return None if line == "0" else {"n": line, "x": "a,b"}

        runs = 0
        while not batchkit.process("in.txt", row, output=name, max_batches=1, batch_size=1).completed:
            runs += 1
        delimiter = "\t" if name.endswith("tsv") else ","
        assert runs == 6
        assert rows(Path(name).read_bytes(), delimiter) == [
            ["n", "x"],
            *([str(number), "a,b"] for number in range(1, 7)),
        ]

    @pytest.mark.parametrize("paused_at", [None, 1])
    def test_a_header_comes_once_over_an_appended_input(self, paused_at: int | None) -> None:
        """Results of lines appended after completion join the published CSV: one header, no row lost."""
        Path("in.txt").write_text("1\n2\n")

        def row(line: str) -> dict[str, str]:
            return {"n": line, "square": str(int(line) ** 2)}

        batchkit.process("in.txt", row, output="out.csv")
        with Path("in.txt").open("a") as file:
            file.write("3\n4\n5\n")
        if paused_at:
            batchkit.process("in.txt", row, output="out.csv", max_items=paused_at)
        result = batchkit.process("in.txt", row, output="out.csv")
        assert (result.completed, result.done) == (True, 5)
        assert Path("out.csv").read_text() == "n,square\n1,1\n2,4\n3,9\n4,16\n5,25\n"

    def test_a_header_comes_once_where_the_first_input_gave_no_results(self) -> None:
        """A completed job without a row has no header; the first row of an appended input brings it."""
        Path("in.txt").write_text("1\n")

        def row(line: str) -> dict[str, str] | None:
            return None if line == "1" else {"n": line}

        batchkit.process("in.txt", row, output="out.csv")
        assert Path("out.csv").read_bytes() == b""
        for line in ("2", "3"):
            with Path("in.txt").open("a") as file:
                file.write(f"{line}\n")
            batchkit.process("in.txt", row, output="out.csv")
        assert Path("out.csv").read_text() == "n\n2\n3\n"

    def test_an_appended_row_keeps_the_columns_of_the_published_file(self) -> None:
        """The first result of all decides the columns, also for later runs."""
        batchkit.process([{"a": 1, "b": 2}], None, output="out.csv", job="rows")
        batchkit.process([{"a": 1, "b": 2}, {"b": 4, "a": 3}], None, output="out.csv", job="rows")
        assert Path("out.csv").read_text() == "a,b\n1,2\n3,4\n"

    @pytest.mark.parametrize(
        ("name", "results"),
        [
            ("out.txt", ["a\rb", "\r", "c\r", "d\x0be\u2028f\x85g", ""]),
            ("out.jsonl", ["a\rb\n", {"x": ["\r"]}, "é\u2028", "", 0]),
            ("out.csv", [{"a": "x\ry"}, {"a": "x\r\ny"}, {"a": "x\ny"}, {"a": "\u2028"}, {"a": ""}]),
        ],
    )
    def test_results_come_back_as_they_were_stored(self, name: str, results: list[Any]) -> None:
        """`results()` gives one value per stored result: only LF ends a line, as in every file batchkit reads."""
        assert list(batchkit.process(results, None, output=name, job="same").results()) == results

    def test_results_of_an_appended_csv_come_back_while_it_is_paused(self) -> None:
        """`results()` yields what is stored so far, in input order, from the published file and the new part."""
        Path("in.txt").write_text("1\n2\n")

        def row(line: str) -> dict[str, str]:
            return {"n": line}

        batchkit.process("in.txt", row, output="out.csv")
        with Path("in.txt").open("a") as file:
            file.write("3\n4\n5\n")
        paused = batchkit.process("in.txt", row, output="out.csv", max_items=2)
        assert [one["n"] for one in paused.results()] == ["1", "2", "3", "4"]

    def test_a_published_csv_can_be_read_by_anything(self) -> None:
        """A value that is a list or dict still is one field."""
        batchkit.process([{"a": [1, 2], "b": {"c": 3}}], None, output="out.csv")
        assert len(rows(Path("out.csv").read_bytes())[1]) == 2

    def test_text_output_of_values_is_json(self) -> None:
        """Values that are no strings stand as JSON in a text file."""
        batchkit.process([1, {"a": 2}], None, output="out.txt")
        assert [json.loads(line) for line in Path("out.txt").read_text().splitlines()] == [1, {"a": 2}]


def unpacked(name: str) -> bytes:
    """Return what a compressed output holds."""
    suffix = compression.suffix_of(name) or ""
    return b"".join(compression.decompressed(suffix, [Path(name).read_bytes()]))


class Place(NamedTuple):
    """A result that is a named tuple."""

    name: str
    people: int


class TestCompressedHeaders:
    """A compressed CSV has its header where no other tool would look for it: inside its first member."""

    def test_a_header_comes_once_behind_a_first_batch_of_many_blocks(self) -> None:
        """However far the first member reaches before anything of it can be unpacked, its header is found again."""
        chance = random.Random(3)
        noise = [base64.b64encode(chance.randbytes(90)).decode() for _ in range(1500)]

        def row(number: int) -> dict[str, str]:
            return {"n": str(number), "noise": noise[number]}

        options: dict[str, Any] = {"output": "out.csv.zst", "job": "job", "batch_size": 1400}
        batchkit.process(range(1500), row, max_items=1400, **options)
        assert Path("out.csv.zst.parts/00000").stat().st_size > 64 << 10
        batchkit.process(range(1500), row, **options)
        assert rows(unpacked("out.csv.zst")) == [["n", "noise"], *([str(at), text] for at, text in enumerate(noise))]

    @pytest.mark.parametrize("name", ["out.csv.gz", "out.csv.zst"])
    def test_a_header_comes_once_behind_a_published_output_without_results(self, name: str) -> None:
        """An empty member stands there first; the header of the next part is the only one, after a pause, too."""
        Path("in.txt").write_text("1\n")

        def row(line: str) -> dict[str, str] | None:
            return None if line == "1" else {"n": line}

        assert batchkit.process("in.txt", row, output=name).completed
        assert unpacked(name) == b""
        Path("in.txt").write_text("1\n2\n3\n4\n")
        assert not batchkit.process("in.txt", row, output=name, max_items=1).completed
        assert batchkit.process("in.txt", row, output=name).completed
        assert unpacked(name) == b"n\n2\n3\n4\n"


class TestDirectories:
    """A directory holds a whole file per shard."""

    @pytest.mark.parametrize("output_format", ["csv", "tsv", "csv.gz"])
    def test_results_of_a_directory_of_csv_files_hold_no_header(self, output_format: str) -> None:
        """Each file has its own header, and none of them is a row."""
        Path("in.txt").write_text("1\n2\n")

        def row(line: str) -> dict[str, str]:
            return {"n": line}

        for count in (2, 3, 4):
            Path("in.txt").write_text("".join(f"{number}\n" for number in range(1, count + 1)))
            result = batchkit.process("in.txt", row, output="out/", output_format=output_format)
            assert list(result.results()) == [{"n": str(number)} for number in range(1, count + 1)]
        assert len(list(Path("out").iterdir())) == 3

    def test_the_results_of_a_directory_that_is_paused_hold_no_header(self) -> None:
        """Neither that of a published file nor that of a part."""
        Path("in.txt").write_text("1\n2\n")
        batchkit.process("in.txt", lambda line: {"n": line}, output="out/", output_format="csv", job="job")
        Path("in.txt").write_text("1\n2\n3\n4\n")
        result = batchkit.process(
            "in.txt", lambda line: {"n": line}, output="out/", output_format="csv", job="job", max_items=1
        )
        assert list(result.results()) == [{"n": "1"}, {"n": "2"}, {"n": "3"}]

    @pytest.mark.parametrize("name", ["run.v2/", "2026.11.23/", "plain/"])
    def test_a_directory_with_a_dot_in_its_name_holds_parquet(self, name: str) -> None:
        """Only the suffix of a format says which; any other belongs to the name."""
        batchkit.process([{"n": 1}], output=name, job="job")
        assert [path.name for path in Path(name).iterdir()] == ["00000.parquet"]
        assert pl.read_parquet(Path(name) / "00000.parquet").to_dicts() == [{"n": 1}]

    def test_what_a_replaced_directory_held_goes_at_the_first_publication_and_never_later(self) -> None:
        """Files that an earlier output left go, files with other names and files that come later stay."""
        Path("in.txt").write_text("1\n")
        os.mkdir("out")
        stale = [Path("out/00000.jsonl"), Path("out/00001.csv"), Path("out/00007.csv.gz")]
        others = [Path("out/notes.txt"), Path("out/000.csv"), Path("out/_SUCCESS")]
        for path in (*stale, *others):
            path.write_text(path.name)
        options: dict[str, Any] = {"output": "out/", "output_format": "csv", "job": "job", "overwrite": True}

        def row(line: str) -> dict[str, str]:
            return {"n": line}

        batchkit.process("in.txt", row, **options, max_items=0)
        assert all(path.exists() for path in (*stale, *others)), "nothing goes before there is something instead"
        batchkit.process("in.txt", row, **options)
        assert sorted(Path("out").iterdir()) == sorted([Path("out/00000.csv"), *others])
        foreign = Path("out/00042.csv")
        foreign.write_text("put there later")
        Path("in.txt").write_text("1\n2\n")
        assert batchkit.process("in.txt", row, **options).completed
        assert sorted(Path("out").iterdir()) == sorted(
            [*map(Path, ("out/00000.csv", "out/00001.csv")), *others, foreign]
        )
        assert foreign.read_text() == "put there later"
        assert [path.read_text() for path in others] == [path.name for path in others]

    def test_a_restart_without_leave_to_overwrite_removes_only_what_the_job_had_published(self) -> None:
        """The files of its own output go, also those beyond the new ones; another's stay."""
        Path("in.txt").write_text("1\n")
        options: dict[str, Any] = {"output": "out/", "output_format": "csv", "job": "job"}
        batchkit.process("in.txt", lambda line: {"n": line}, **options)
        Path("in.txt").write_text("1\n2\n")
        batchkit.process("in.txt", lambda line: {"n": line}, **options)
        foreign = Path("out/00042.csv")
        foreign.write_text("another's")
        batchkit.process("in.txt", lambda line: {"n": line}, restart=True, **options)
        assert sorted(Path("out").iterdir()) == [Path("out/00000.csv"), foreign]


def test_a_named_tuple_keeps_its_names_in_csv() -> None:
    """Its fields are the columns, as those of a dataclass are."""
    places = [Place("Wien", 2), Place("Graz", 0)]
    batchkit.process(places, lambda place: place, output="out.csv", job="job")
    assert Path("out.csv").read_text() == "name,people\nWien,2\nGraz,0\n"
