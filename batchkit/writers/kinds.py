"""Which output a path asks for: a file or a directory, of lines or Parquet, compressed or not."""

from __future__ import annotations

import os

from batchkit.errors import UsageError
from batchkit.writers.directory import DirectoryOutput
from batchkit.writers.formats import Jsonl, Text
from batchkit.writers.lines import LineKind
from batchkit.writers.output import FileOutput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from batchkit.writers.base import Kind
    from batchkit.writers.formats import Format

FORMATS = {"text": ".txt", "jsonl": ".jsonl", "csv": ".csv", "tsv": ".tsv", "parquet": ".parquet"}
"""Names of formats, as `output_format` knows them → suffix."""

_COMPRESSIONS = (".gz", ".zst")
_NOT_WRITTEN = {".json", ".arrow", ".feather", ".bz2", ".xz", ".zip", ".xlsx"}
_DATABASES = {".db": "sqlite", ".sqlite": "sqlite", ".sqlite3": "sqlite", ".duckdb": "duckdb"}


def output_for(
    path: str, job: str, state: str, *, output_format: str | None = None, schema: Mapping[str, Any] | str | None = None
) -> FileOutput:
    """Return the output at `path` (absolute; a directory ends with "/") of the job `job` with the directory `state`.

    output_format: a name of `FORMATS`, with ".gz" or ".zst" behind it if compressed; `None`: by the path's suffix.
    schema: of a Parquet output, see `frames.schemas`; `None`: found as results come. Raises `UsageError`.
    """
    directory = path.endswith("/")
    suffix = suffix_for(path, output_format)
    kind = _kind_of(suffix, schema, alone=directory)
    if directory:
        return DirectoryOutput(path.rstrip("/"), kind, job, state, suffix)
    return FileOutput(path, kind, job, state)


def schema_names(schema: Mapping[str, Any] | str | None) -> dict[str, str] | None:
    """Return a schema as a job's definition keeps it: column → name of its type. Raises `UsageError`."""
    if schema is None:
        return None
    from batchkit.frames.schemas import names, parse  # noqa: PLC0415  # loads polars

    return names(parse(schema))


def schema_text(schema: Mapping[str, Any] | str | None) -> str | None:
    """Return a schema as text that `schema_of_text` makes the same types of. Raises `UsageError`."""
    if schema is None:
        return None
    from batchkit.frames.arrow import schema_text as text_of  # noqa: PLC0415  # as above
    from batchkit.frames.rows import frame_of_schema  # noqa: PLC0415
    from batchkit.frames.schemas import parse  # noqa: PLC0415

    return text_of(frame_of_schema(parse(schema)))


def schema_of_text(text: str | None) -> dict[str, Any] | None:
    """Return the schema that `schema_text` was given: column → type."""
    if text is None:
        return None
    from batchkit.frames.arrow import frame_like  # noqa: PLC0415  # as above

    return dict(frame_like(text, []).schema)


def suffix_for(path: str, output_format: str | None) -> str:
    """Return the suffix of what is written at a path, or in it if it ends with "/". Raises `UsageError`."""
    directory = path.endswith("/")
    if output_format is not None:
        name, dot, compression = output_format.partition(".")
        if name not in FORMATS or dot + compression not in {"", *_COMPRESSIONS}:
            raise UsageError(
                f"output_format is {output_format!r}; give one of {', '.join(FORMATS)}, or with .gz or .zst behind it"
            )
        return FORMATS[name] + dot + compression
    stem, suffix = os.path.splitext(os.path.basename(path.rstrip("/")).lower())
    if suffix in _COMPRESSIONS:
        inner = os.path.splitext(stem)[1]
        return (inner if inner in FORMATS.values() or inner == ".ndjson" else ".txt") + suffix
    known = {*FORMATS.values(), ".ndjson"}
    return ".parquet" if directory and suffix not in known else suffix


def _kind_of(suffix: str, schema: Mapping[str, Any] | str | None, *, alone: bool) -> Kind:
    inner, compression = (suffix, "")
    if suffix.endswith(_COMPRESSIONS):
        inner, compression = os.path.splitext(suffix)
    if inner == ".parquet":
        if compression:
            raise UsageError("Parquet files are compressed inside; give an output that ends in .parquet")
        from batchkit.frames.schemas import parse  # noqa: PLC0415  # loads polars
        from batchkit.writers.parquet import ParquetKind  # noqa: PLC0415

        return ParquetKind(None if schema is None else parse(schema))
    if schema is not None:
        raise UsageError("schema is for Parquet outputs only; leave it out, or give an output that ends in .parquet")
    if inner in _DATABASES:
        raise UsageError(f"a '{inner}' file is a database: give -o '{_DATABASES[inner]}:///FILE?table=NAME'")
    if inner in _NOT_WRITTEN:
        raise UsageError(
            f"cannot write '{inner}' files: give an output that ends in .parquet, .jsonl, .csv, .tsv or .txt"
        )
    form = _format_of(inner)
    if compression:
        from batchkit.writers.compressed import Compressed  # noqa: PLC0415  # loads compression libraries

        form = Compressed(form, compression)
    return LineKind(form, alone=alone)


def _format_of(suffix: str) -> Format:
    if suffix in {".csv", ".tsv"}:
        from batchkit.writers.rows import Csv  # noqa: PLC0415  # 3 ms of imports that the other formats do not need

        return Csv("\t" if suffix == ".tsv" else ",")
    return Jsonl() if suffix in {".jsonl", ".ndjson"} else Text()
