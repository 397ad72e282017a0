"""JSON lines (ndjson.org, jsonlines.org): an item is the JSON value (RFC 8259) of a line."""

from __future__ import annotations

from json import JSONDecodeError, JSONDecoder
from typing import Any, NoReturn

from batchkit.readers.lines import MAX_ITEM_BYTES, SplitReader, at_least_one
from batchkit.readers.splitting import Splitter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from collections.abc import Iterable


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_value_of = JSONDecoder(parse_constant=_refuse).decode


class _JsonSplitter(Splitter):
    """Lines, of which each that is not blank holds a JSON value."""

    def __init__(self, limit: int) -> None:
        """Lines end at LF."""
        super().__init__("\n", skip_blank=True, limit=limit)

    def items_of(self, lines: list[str], raw: bytes, *, first: bool) -> tuple[Any, dict[int, str]]:
        """Return the values of whole lines, and why some of them have none."""
        texts, unreadable = super().items_of(lines, raw, first=first)
        if not unreadable:
            try:
                return list(map(_value_of, texts)), unreadable
            except (ValueError, RecursionError):
                pass
        values: list[Any] = []
        for at, text in enumerate(texts):
            value = None
            if at not in unreadable:
                try:
                    value = _value_of(text)
                except (ValueError, RecursionError) as error:
                    unreadable[at] = f"not valid JSON: {_reason(error)}"
            values.append(value)
        return values, unreadable


def _reason(error: Exception) -> str:
    if isinstance(error, JSONDecodeError):
        return f"{error.msg} (column {error.colno})"
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


class NdjsonReader(SplitReader):
    """Reads files of JSON lines as one list of their values.

    sources: as for `LineReader`, compressed files too. max_item_bytes: a longer line fails as an item.
    Blank lines are no items. A line that is not JSON fails as an item, and so do NaN and Infinity, which JSON does not
    know. Numbers are `int` or `float`; of a key that is there twice, the last value counts.
    """

    kind = "ndjson"

    def __init__(self, sources: Iterable[str | os.PathLike[str]], *, max_item_bytes: int = MAX_ITEM_BYTES) -> None:
        """Find the files and their sizes; what is appended later is a later run's. Raises `UsageError`."""
        super().__init__(sources, _JsonSplitter(at_least_one(max_item_bytes)))

    def options(self) -> dict[str, Any]:
        """Return nothing: JSON leaves nothing to choose."""
        return {}
