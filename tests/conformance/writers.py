"""Every kind of output there is, one entry each: `WRITERS`. A new writer is one more entry.

Item number n of a job becomes `result(n)`; every fourth result is `None`, which stores nothing.
"""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
import io
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from batchkit import compression

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class WriterCase(NamedTuple):
    """A kind of output.

    output: its name, with "/" at the end for a directory; `None`: the job's own directory.
    result: number of the item → what the function returns. read: path → the results, as other programs read them.
    stored: result → what comes back.
    """

    name: str
    output: str | None
    result: Callable[[int], Any]
    read: Callable[[Path], list[Any]]
    stored: Callable[[Any], Any]

    def function(self, line: str) -> Any:
        """Return the result of an item."""
        return self.result(int(line))

    def expected(self, count: int) -> list[Any]:
        """Return what is stored of the first `count` items."""
        results = [self.result(number) for number in range(count)]
        return [self.stored(result) for result in results if result is not None]


def _same(result: Any) -> Any:
    return result


def _text(number: int) -> Any:
    return None if number % 4 == 3 else f"é {number} 🐎\u2028" + "x" * number


def _read_text(path: Path) -> list[Any]:
    return path.read_text("utf-8").split("\n")[:-1] if path.stat().st_size else []


def _read_text_gz(path: Path) -> list[Any]:
    return gzip.decompress(path.read_bytes()).decode().split("\n")[:-1]


def _nested(number: int) -> Any:
    """Return a row with what a table may hold; some columns are null at first, and some at the end."""
    if number % 4 == 3:
        return None
    return {
        "id": number,
        "text": f'é,"{number}"\n\t🐎',
        "late": None if number < 4 else number / 4,
        "early": None if number > 1 else datetime.date(2026, 3, number + 1),
        "price": None if number % 2 else decimal.Decimal(number).scaleb(-3),
        "nested": {"list": [number, None][: number % 3], "struct": {"x": None if number < 5 else f"{number}"}},
        "yes": number % 2 == 0,
        "never": None,
    }


def _as_json(result: Any) -> Any:
    return json.loads(json.dumps(result, default=str))


def _as_texts(result: Any) -> Any:
    return {key: _as_field(value) for key, value in result.items()}


def _as_field(value: Any) -> str:
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def _read_jsonl(path: Path) -> list[Any]:
    data = path.read_bytes()
    if path.suffix in {".gz", ".zst"}:
        data = b"".join(compression.decompressed(path.suffix, iter([data])))
    return [json.loads(line) for line in data.decode().split("\n")[:-1]]


def _read_csv(path: Path) -> list[Any]:
    text = io.StringIO(path.read_bytes().decode(), newline="")
    return list(csv.DictReader(text, delimiter="\t" if path.suffix == ".tsv" else ","))


def _read_parquet(path: Path) -> list[Any]:
    return pl.read_parquet(path, hive_partitioning=False).to_dicts()


def _each(read: Callable[[Path], list[Any]]) -> Callable[[Path], list[Any]]:
    return lambda path: [result for each in sorted(path.iterdir()) for result in read(each)]


WRITERS = [
    WriterCase("text", "out.txt", _text, _read_text, _same),
    WriterCase("text-gz", "out.txt.gz", _text, _read_text_gz, _same),
    WriterCase("jsonl", "out.jsonl", _nested, _read_jsonl, _as_json),
    WriterCase("jsonl-gz", "out.jsonl.gz", _nested, _read_jsonl, _as_json),
    WriterCase("jsonl-zst", "out.jsonl.zst", _nested, _read_jsonl, _as_json),
    WriterCase("csv", "out.csv", _nested, _read_csv, _as_texts),
    WriterCase("tsv", "out.tsv", _nested, _read_csv, _as_texts),
    WriterCase("parquet", "out.parquet", _nested, _read_parquet, _same),
    WriterCase("directory-jsonl", "out.jsonl/", _nested, _each(_read_jsonl), _as_json),
    WriterCase("directory-parquet", "out/", _nested, _each(_read_parquet), _same),
    WriterCase("own", None, _nested, _read_jsonl, _as_json),
]
NAMED = {case.name: case for case in WRITERS}
