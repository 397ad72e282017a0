"""Hive partitions: directories named `key=value` are columns of the files below them.

As Hive, Spark and polars write them: values are URL-quoted, `__HIVE_DEFAULT_PARTITION__` is null. A column of whole
numbers or of dates in all files has that type, any other is text.
"""

from __future__ import annotations

import datetime
import os
from contextlib import suppress
from typing import Any
from urllib.parse import unquote

from batchkit.errors import SourceError
from batchkit.frames.rows import constants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_NULL = "__HIVE_DEFAULT_PARTITION__"


def partitions(files: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the constant columns of each file, given as path and the root below which directories count.

    Raises `SourceError` if not all have the same keys.
    """
    texts = [_keys(os.path.relpath(os.path.dirname(path) or ".", root or ".")) for path, root in files]
    for (path, _), keys in zip(files, texts, strict=True):
        if keys.keys() != texts[0].keys():
            raise SourceError(
                f"'{path}' lies in partitions {list(keys)}, '{files[0][0]}' in {list(texts[0])}; give them in two jobs"
            )
    columns = {name: _typed([keys[name] for keys in texts]) for name in texts[0]}
    series = {name: constants(values) for name, values in columns.items()}
    return [{name: values[index : index + 1] for name, values in series.items()} for index in range(len(files))]


def _keys(directory: str) -> dict[str, str | None]:
    pairs = [part.partition("=") for part in directory.split(os.sep) if "=" in part]
    return {unquote(name): None if value == _NULL else unquote(value) for name, _, value in pairs}


def _typed(texts: list[str | None]) -> list[Any]:
    """Return the values as whole numbers or dates, if all of them are."""
    for read in (_whole_number, datetime.date.fromisoformat):
        with suppress(ValueError):
            return [None if text is None else read(text) for text in texts]
    return texts


def _whole_number(text: str) -> int:
    """Return a number that is written as Python would write it: `007` is text."""
    number = int(text)
    if str(number) != text or number.bit_length() > 63:  # noqa: PLR2004  # bits of a column of whole numbers
        raise ValueError(text)
    return number
