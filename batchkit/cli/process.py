"""`batchkit process`."""

from __future__ import annotations

import re
import sys
from typing import Any

import click

from batchkit.cli.listening import hooks_of, listeners
from batchkit.cli.options import abort, calls, commands, function_of, interval, limits, pace, report, state_dir, talk
from batchkit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.readers.base import Reader

_EPILOG = """\b
Examples:
  batchkit process items.txt -f mymodule:fetch -o results.jsonl
  batchkit process 'logs/*.txt.gz' -f path/to/file.py:parse -o rows.csv --batch-size 1000
  batchkit process data/ --columns id,text -f embed.py:embed --batched -b 10000 -o vectors.parquet
  batchkit process items.txt -f mymodule:load --batched -b 500 --max-time 55m
  batchkit process users.parquet -o 'postgresql://ann@db/shop?table=users' -b 10000 -w 4
  batchkit process users.csv -o 'sqlite:///shop.db?table=users&mode=upsert&key=id' -b 10000
  batchkit process urls.txt -f fetch.py:fetch -o pages.jsonl --on-error skip --retries 3
  batchkit process images.txt -x 'convert -- {} out/{#}.png' -o done.txt --on-error skip --timeout 30s
  batchkit process rows.csv -x 'curl -sf -o pages/{id}.html -- {url}' --retries 3
  batchkit process words.txt --exec-batch 'sort -u' -b 10000 -o sorted.txt
  batchkit process 'postgresql://host/shop?table=orders&cursor=id' -f bill.py:bill -o bills.jsonl
  find . -name '*.png' -print0 | batchkit process -0 - -f shrink.py:shrink --job shrink
  batchkit process items.txt -f fetch.py:fetch -o pages.jsonl --until 06:00 --notify 'mail -s "$BATCHKIT_SUMMARY" ann'
  batchkit process items.txt --until 06:00 --batch-size 100 > copy.txt

Run the same command again to go on where the last run stopped. Durations: 90, 90s, 10m, 2h30m; sizes: 64MB."""

_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\0": "\0", "\\\\": "\\"}
_SIZES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


class _Size(click.ParamType[int]):
    """A number of bytes: 4096, 64MB, 1GiB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        number = value.strip().lower().rstrip("bgikm")
        unit = value.strip().lower()[len(number) :]
        try:
            return int(float(number) * _SIZES[unit])
        except (ValueError, KeyError):
            self.fail(f"{value!r} is not a size; give for example 4096, 64MB or 1GiB", param, ctx)


def _unescaped(text: str) -> str:
    """Return a delimiter with its escapes resolved."""
    parts = re.split(r"(\\.?)", text)
    unknown = [part for part in parts[1::2] if part not in _ESCAPES]
    if unknown:
        raise UsageError(f"the delimiter has the escape '{unknown[0]}'; known are {' '.join(_ESCAPES)}")
    return "".join(_ESCAPES.get(part, part) for part in parts)


@click.command(epilog=_EPILOG)
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "-f", "--function", metavar="SPEC", help="pkg.module:name or path.py:name; without it and -x items pass through."
)
@commands
@click.option("--batched", is_flag=True, help="Call the function with a list of items instead of one.")
@click.option("-b", "--batch-size", default=100, show_default=True, help="Items per batch and commit.")
@click.option(
    "--batch-format",
    type=click.Choice(["polars", "arrow", "dicts"]),
    help="What a batched function gets; default: polars for tables, else a list.",
)
@click.option(
    "--input-format",
    type=click.Choice(["lines", "csv", "tsv", "ndjson", "parquet"]),
    help="What the sources are; default: by their suffix.",
)
@click.option("--columns", metavar="NAMES", help="Read only these columns of a table: a,b,c.")
@click.option(
    "-o",
    "--output",
    metavar="PATH|URL",
    help="A .txt, .jsonl, .csv, .tsv (also .gz, .zst) or .parquet file, a directory/, or a table: "
    "sqlite:///f.db?table=t, duckdb:///..., postgresql://...; default: standard output.",
)
@click.option("--output-format", metavar="NAME", help="text, jsonl, csv, tsv or parquet; default: by the suffix.")
@click.option(
    "--schema",
    metavar="COLUMNS",
    help="Of a Parquet file, or a table that is made: 'id=int, tags=list[str]'; default: as found.",
)
@click.option("--overwrite", is_flag=True, help="Replace an output that exists and is not this job's.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At an item that fails for good: stop the run, or keep it as a failure and go on.",
)
@click.option("--max-failures", metavar="N|P%", help="Stop when more items of the job failed: 100, or 1%.")
@calls(defaults=True)
@click.option(
    "-w", "--workers", "-j", "--jobs", "workers", default=1, show_default=True, metavar="N", help="Processes at work."
)
@click.option("--shard", metavar="I/N", help="Work only on this slice, such as 3/8; or slurm: of this array job.")
@limits
@click.option("--job", metavar="NAME", help="Name of the job; default: made of source and function.")
@state_dir
@click.option("--restart", is_flag=True, help="Forget what was done and start over.")
@click.option(
    "--on-input-change",
    type=click.Choice(["stop", "restart", "continue"]),
    default="stop",
    show_default=True,
    help="What to do where the input is not the one the job began with.",
)
@click.option("-d", "--delimiter", metavar="TEXT", help=r"What ends an item; default: a line end. \t, \n, \0.")
@click.option("-0", "--null", is_flag=True, help="Items end with NUL, as of find -print0.")
@click.option("--skip-blank", is_flag=True, help="Lines of white space only are no items.")
@click.option("--separator", metavar="TEXT", help=r"What stands between the fields of CSV; default: a comma. \t, ;")
@click.option("--no-header", is_flag=True, help="CSV without a header: columns are column_1, column_2, …")
@click.option("--max-item-bytes", type=_Size(), help="A longer item fails; default: 64MiB.")
@pace
@listeners
@talk
def process(  # one parameter per option that is about what the run says; the others are those of `asked`
    *,
    progress: str,
    quiet: bool,
    as_json: bool,
    paused_exit_code: int,
    notify: str | None,
    metrics_file: str | None,
    log_format: str,
    **given: Any,
) -> None:
    """Call a function on every item of SOURCE, in batches: lines of text, or rows of tables.

    SOURCE are files (also .gz, .zst, .bz2, .xz), patterns, a directory of Parquet files, or - for standard input; or
    one table or query of a database, with a unique column to go by: 'sqlite:///file.db?table=NAME&cursor=id',
    'duckdb:///file.duckdb?query=SELECT ...&cursor=id', 'postgresql://user@host/db?...'.

    A cursor is committed after every batch: stop it, kill it, cut its power, and the same command goes on where it
    was. Each result is stored exactly once in an output file; printed results and the function's own side effects
    happen at least once.
    """
    from batchkit import api  # noqa: PLC0415  # not needed for --help

    if as_json and given["output"] in {None, "-"}:
        raise UsageError("--json needs -o FILE: standard output carries the results")
    reader, function, options = asked(**given)
    result = api.process(
        reader,
        function,
        progress=_progress(progress, log_format, quiet=quiet),
        abort=abort,
        **hooks_of(notify, metrics_file, log_format),
        **options,
    )
    report(result, quiet=quiet or log_format == "json", as_json=as_json)
    sys.exit(result.exit_code if result.completed else paused_exit_code)


def asked(  # noqa: PLR0913  # one parameter per option
    *,
    sources: tuple[str, ...],
    function: str | None,
    each: str | None,
    whole: str | None,
    delimiter: str | None,
    null: bool,
    skip_blank: bool,
    separator: str | None,
    no_header: bool,
    max_item_bytes: int | None,
    input_format: str | None,
    columns: str | None,
    batch_seconds: str,
    sync_interval: str,
    retry_on: str | None,
    output: str | None,
    **options: Any,
) -> tuple[Reader, Callable[..., Any] | None, dict[str, Any]]:
    """Return source, function and options as `batchkit.process` takes them. Raises `UsageError`."""
    from batchkit import sources as readers  # noqa: PLC0415  # as above
    from batchkit.loading import load_errors  # noqa: PLC0415

    if null and delimiter:
        raise UsageError("-0 and -d both say what ends an item; give one of them")
    if retry_on is not None and not options["retries"]:
        raise UsageError("--retry-on says after which errors to call again; give --retries, too")
    reader = readers.of_paths(
        *sources,
        input_format=input_format,
        columns=None if columns is None else [name.strip() for name in columns.split(",")],
        delimiter="\0" if null else None if delimiter is None else _unescaped(delimiter),
        skip_blank=skip_blank or None,
        separator=None if separator is None else _unescaped(separator),
        header=False if no_header else None,
        max_item_bytes=max_item_bytes,
    )
    given = {
        "output": output or "-",
        "batch_seconds": interval(batch_seconds),
        "sync_interval": interval(sync_interval),
        "retry_on": Exception if retry_on is None else load_errors(retry_on),
        **{name: value for name, value in options.items() if value is not None},
    }
    return reader, function_of(function, each, whole), given


def _progress(progress: str, log_format: str, *, quiet: bool) -> str:
    if quiet or progress == "none":
        return "none"
    return "json" if log_format == "json" else progress
