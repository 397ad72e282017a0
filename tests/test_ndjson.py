"""JSON lines: an item is the value of a line, and what is not JSON fails as that item."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

import batchkit
from batchkit.model import Span
from batchkit.readers import blocks
from batchkit.readers.ndjson import NdjsonReader

BOM = b"\xef\xbb\xbf"
pytestmark = pytest.mark.usefixtures("workdir")


def read(data: bytes, size: int = 100, limit: int = 64 << 20) -> tuple[list[Any], list[str]]:
    """Return the items that a file holds, and why some are none."""
    Path("items.jsonl").write_bytes(data)
    reader = NdjsonReader(["items.jsonl"], max_item_bytes=limit)
    found = list(reader.read(reader.whole(), size))
    return [item for batch in found for item in batch.items], [
        why for batch in found for why in batch.unreadable.values()
    ]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a": 1}\n[1, 2]\n"x"\n1\n1.5\ntrue\nnull\n', [{"a": 1}, [1, 2], "x", 1, 1.5, True, None]),
        (b'{"a": 1}\r\n{"a": 2}\r\n', [{"a": 1}, {"a": 2}]),
        (b'{"a": 1}', [{"a": 1}]),
        (BOM + b'{"a": 1}\n', [{"a": 1}]),
        (b"\n1\n\n \t\n2\n\r\n\n", [1, 2]),
        (b"", []),
        (b"\n\n", []),
        (b' {"a": 1} \n', [{"a": 1}]),
        ('{"a": "žluť\u2028"}\n'.encode(), [{"a": "žluť\u2028"}]),
        (b'{"a": 1, "a": 2}\n', [{"a": 2}]),
        (b"123456789012345678901234567890\n", [123456789012345678901234567890]),
    ],
)
def test_an_item_is_the_value_of_a_line(data: bytes, expected: list[Any]) -> None:
    """Lines are those of text files; blank ones are no items."""
    assert read(data) == (expected, [])


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{oops}", "not valid JSON: Expecting property name enclosed in double quotes (column 2)"),
        (b"12 x", "not valid JSON: Extra data (column 4)"),
        (b'{"a": 1}{"a": 2}', "not valid JSON: Extra data (column 9)"),
        (b"[1,", "not valid JSON: Expecting value (column 4)"),
        (b'{"a": NaN}', "not valid JSON: NaN is not JSON"),
        (b"-Infinity", "not valid JSON: -Infinity is not JSON"),
        (b"[" * 100_000, "not valid JSON: nested too deeply"),
        (b'"\xff"', "not valid UTF-8"),
        (b'"\xed\xb3\xbf"', "not valid UTF-8"),
    ],
)
def test_what_is_not_json_fails_as_that_item(line: bytes, why: str) -> None:
    """The reason names the column; the lines around it are items."""
    assert read(b"1\n\n" + line + b"\n2\n") == ([1, None, 2], [why])


def test_two_halves_of_a_value_are_not_taken_for_one() -> None:
    """Each line stands for itself, also where joined lines would be JSON."""
    items, reasons = read(b"[1\n2]\n3,4\n")
    assert (items, len(reasons)) == ([None, None, None], 3)


def test_a_line_that_is_too_long_fails_as_that_item() -> None:
    """`max_item_bytes` bounds a line."""
    items, (why,) = read(b'"' + b"x" * 200_000 + b'"\n1\n', limit=1000)
    assert (items, "longer than" in why) == ([None, 1], True)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=80, deadline=None)
@given(
    values=st.lists(VALUES, max_size=12),
    blank=st.sampled_from([b"", b"\n", b" \r\n"]),
    ascii_only=st.booleans(),
    size=st.integers(1, 6),
    block=st.integers(1, 50),
    packed=st.booleans(),
)
def test_any_values_come_back_and_reading_goes_on_at_any_of_them(
    values: list[Any], blank: bytes, *, ascii_only: bool, size: int, block: int, packed: bool
) -> None:
    """Whatever the block and batch size, compressed or not: the values, and at each coordinate exactly the rest."""
    lines = [json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass") for value in values]
    data = b"".join(line + b"\n" + blank for line in lines)
    path = Path("values.ndjson.gz" if packed else "values.ndjson")
    path.write_bytes(gzip.compress(data) if packed else data)
    reader = NdjsonReader([path])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "READ_SIZE", block)
        found = list(reader.read(reader.whole(), size))
        done = 0
        for batch in found:
            for index in range(len(batch.items) + 1):
                rest = NdjsonReader([path]).read(Span(batch.coordinate(index), reader.whole().stop), 5)
                assert [item for later in rest for item in later.items] == values[done + index :]
            done += len(batch.items)
    assert [item for batch in found for item in batch.items] == values


def test_a_job_over_json_lines_stops_at_the_bad_one_and_goes_on() -> None:
    """The error names file, line and byte; mended, the job goes on there."""
    Path("items.jsonl").write_text('{"n": 1}\n{"n": 2}\n{"n": \n{"n": 4}\n')
    with pytest.raises(batchkit.ItemError, match=r"'items.jsonl' line 3 \(byte 18\).*not valid JSON"):
        batchkit.process(NdjsonReader(["items.jsonl"]), _n, job="load")
    Path("items.jsonl").write_text('{"n": 1}\n{"n": 2}\n{"n": 3}\n{"n": 4}\n')
    result = batchkit.process(NdjsonReader(["items.jsonl"]), _n, job="load", on_input_change="continue")
    assert (list(result.results()), result.new) == ([1, 2, 3, 4], 2)


def _n(row: dict[str, int]) -> int:
    return row["n"]


def test_it_is_another_source_than_the_lines_of_the_same_file() -> None:
    """A job over the lines does not go on over the values: its definition says so."""
    Path("items.jsonl").write_text("1\n2\n")
    reader = NdjsonReader(["items.jsonl"])
    assert reader.identity() == {"kind": "ndjson", "sources": [str(Path("items.jsonl").absolute())]}
    assert batchkit.lines("items.jsonl").identity()["kind"] == "lines"
