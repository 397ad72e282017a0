"""From what was asked for to files that can be read: paths, patterns, standard input."""

from __future__ import annotations

import glob
import os
import re
import stat
import sys

from batchkit.compression import suffix_of
from batchkit.errors import SourceError, UsageError

_NO_TEXT = (".parquet", ".zip", ".7z", ".tar", ".tgz")


def resolve(patterns: list[str]) -> list[str]:
    """Return the files that paths and glob patterns name. Raises `UsageError` or `SourceError`."""
    if not patterns:
        raise UsageError("no input: give a file, a pattern, or - for standard input")
    paths: list[str] = []
    for pattern in patterns:
        if is_pattern(pattern):
            matches = sorted(path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path))
            if not matches:
                raise UsageError(f"no file matches '{pattern}'")
            paths += matches
        else:
            paths.append(pattern)
    for path in paths:
        _refuse_unreadable(path)
    return paths


def _refuse_unreadable(path: str) -> None:
    if path == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed; give a file, or something to read from")
        return
    if not os.path.exists(path):
        raise UsageError(f"there is no file '{path}'")
    if os.path.isdir(path):
        raise UsageError(f"'{path}' is a directory; give its files, for example '{os.path.join(path, '*')}'")
    if unpacked(path).endswith(_NO_TEXT):
        raise UsageError(f"'{path}' is not a text file; its lines mean nothing")
    if not os.access(path, os.R_OK):
        raise SourceError(f"cannot read '{path}': Permission denied")


def unpacked(path: str) -> str:
    """Return a path without the suffix that says how the file is compressed."""
    return path[: len(path) - len(suffix_of(path) or "")]


def stem(path: str) -> str:
    """Return a file's name without its directory and suffixes, for names of jobs."""
    return "stdin" if path == "-" else os.path.splitext(os.path.basename(unpacked(path)))[0]


def name_of(pattern: str) -> str:
    """Return a name for what a path or pattern names, which stays the same when more files match."""
    if not is_pattern(pattern):
        return stem(pattern.rstrip("/"))
    name = re.sub(r"[][*?!]+", "", stem(pattern)).strip("-_. ")
    above = os.path.basename(os.path.dirname(pattern))
    return name or (above if above and not glob.has_magic(above) else "items")


def is_pattern(source: str) -> bool:
    """Tell a glob pattern from the name of a file."""
    return source != "-" and not os.path.lexists(source) and glob.has_magic(source)


def patterns_of(sources: list[str]) -> list[str]:
    """Return the patterns among sources, of a directory the one that its Parquet files match: what more may match."""
    directories = [os.path.join(glob.escape(source), "**", "*.parquet") for source in sources if os.path.isdir(source)]
    return [source for source in sources if is_pattern(source)] + directories


def regular(path: str) -> bool:
    """Tell whether a path names a plain file, which can be read again."""
    return path != "-" and stat.S_ISREG(os.stat(path).st_mode)
