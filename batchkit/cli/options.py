"""What several commands have: options, and a way to talk."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Any, TypeVar

import click

from batchkit.errors import BatchkitError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from batchkit.existing import Job
    from batchkit.job import Status
    from batchkit.result import Result

_Command = TypeVar("_Command", bound="Callable[..., Any]")

VERBOSE = "batchkit.verbose"
"""Key of a context's `meta`: whether errors show their traceback."""

LOG_FORMAT = "batchkit.log_format"
"""Key of a context's `meta`: "json" where what is said is to be JSON."""


def _remember(ctx: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001  # click's
    if value:
        ctx.meta[VERBOSE] = True


verbose = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_remember, help="Show the traceback of an error."
)

state_dir = click.option(
    "--state-dir", metavar="DIR", help="Where jobs are kept; default: $BATCHKIT_STATE_DIR or .batchkit."
)


def complete_job(ctx: click.Context, _argument: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of the jobs in the state directory that begin so, for a shell."""
    from batchkit.job import names, state_directory  # noqa: PLC0415  # not needed for --help

    return [name for name in names(state_directory(ctx.params.get("state_dir"))) if name.startswith(incomplete)]


job_argument = click.argument("job", shell_complete=complete_job)


def say(text: str, *, prefix: str = "batchkit: ") -> None:
    """Say something on standard error; that nobody can hear it changes no exit code."""
    context = click.get_current_context(silent=True)
    if context is not None and context.meta.get(LOG_FORMAT) == "json":
        from batchkit.progress import json_line  # noqa: PLC0415  # not needed for --help

        prefix, text = "", json_line("message", text=text)
    with suppress(OSError, ValueError, AttributeError):
        click.echo(prefix + text, err=True)


def readable(jobs: Iterable[Job]) -> Iterator[tuple[Job, Status]]:
    """Yield the jobs that can be read, with their status, and say which cannot."""
    for job in jobs:
        try:
            yield job, job.status()
        except BatchkitError as error:
            say(str(error))


def several(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Return one decorator for several options."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def calls(*, defaults: bool) -> Callable[[_Command], _Command]:
    """Return the options of how the function is called, and what happens when it fails; `None`: not given.

    defaults: whether to name the defaults; else those are the last run's.
    """

    def told(default: str) -> str:
        return f"; default: {default}." if defaults else "."

    return several(
        click.option("--retries", type=click.IntRange(0), metavar="N", help=f"Call again what failed{told('0')}"),
        click.option(
            "--retry-on", metavar="ERRORS", help=f"Only after such: OSError,pkg.module:Name{told('Exception')}"
        ),
        click.option(
            "--retry-wait", metavar="DURATION", help=f"Before the second attempt; doubled before each more{told('1s')}"
        ),
        click.option("--retry-max-wait", metavar="DURATION", help=f"Wait no longer than this{told('60s')}"),
        click.option("--timeout", metavar="DURATION", help="A call that takes longer fails."),
        click.option(
            "--isolate",
            type=click.Choice(["bisect", "none"]),
            help=f"Halve a failing batch until the bad items stand alone, or let all of it fail{told('bisect')}",
        ),
        click.option(
            "--isolate-process/--no-isolate-process",
            default=None,
            help="Call the function in a process of its own, which may crash without ending the run.",
        ),
        click.option(
            "-c",
            "--concurrency",
            type=click.IntRange(1),
            metavar="N",
            help=f"Calls in flight, for functions that wait{told('1')}",
        ),
        click.option("--rate", metavar="N/s|m|h", help="Begin no more calls than 10/s, 600/m or 1000/h."),
    )


commands = several(
    click.option(
        "-x",
        "--exec",
        "each",
        metavar="COMMAND",
        help="Run a program for each item, without a shell: {} is the item, {#} its number, {name} a column of a row; "
        "without {} the item goes to standard input.",
    ),
    click.option(
        "--exec-batch", "whole", metavar="COMMAND", help="Run a program for each batch; items come by standard input."
    ),
)


def function_of(spec: str | None, each: str | None, whole: str | None) -> Callable[..., Any] | None:
    """Return what is to be called: a function by its name, or a command. Raises `UsageError`."""
    if sum(given is not None for given in (spec, each, whole)) > 1:
        raise UsageError("-f, -x and --exec-batch each say what to do with the items; give one of them")
    if spec is not None:
        from batchkit.loading import load  # noqa: PLC0415  # not needed for --help

        return load(spec)
    template = whole if each is None else each
    if template is None:
        return None
    from batchkit.commands import command  # noqa: PLC0415  # as above

    return command(template, batch=each is None)


limits = several(
    click.option("--max-time", metavar="DURATION", help="End before this much time has passed."),
    click.option("--until", metavar="TIME", help="End before this time: 06:00, or 2026-12-01T06:00."),
    click.option("--max-items", type=click.IntRange(0), metavar="N", help="End after so many items in this run."),
    click.option("--max-batches", type=click.IntRange(0), metavar="N", help="End after so many batches in this run."),
)

pace = several(
    click.option(
        "--batch-seconds",
        default="30",
        show_default=True,
        metavar="DURATION",
        help="Commit a batch of single calls early after so long.",
    ),
    click.option(
        "--sync-interval",
        default="1",
        show_default=True,
        metavar="DURATION",
        help="Sync to disk so often; 0: every batch; never.",
    ),
)

talk = several(
    click.option(
        "--progress",
        type=click.Choice(["auto", "bar", "log", "none"]),
        default="auto",
        show_default=True,
        help="What to show.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Show errors only."),
    verbose,
    click.option("--json", "as_json", is_flag=True, help="Print what the run did as JSON (needs an output file)."),
    click.option(
        "--paused-exit-code",
        type=click.IntRange(0, 255),
        default=75,
        show_default=True,
        help="Exit code with work left.",
    ),
)


def interval(value: str) -> str | None:
    """Return a sync interval as the library takes it."""
    return None if value == "never" else value


def abort(number: int) -> None:
    """Leave at once, as a second signal asks for; commands that run would not hear of it."""
    if (programs := sys.modules.get("batchkit.programs")) is not None:
        programs.kill_all()
    os._exit(128 + number)


def report(result: Result, *, quiet: bool, as_json: bool) -> None:
    """Tell what a run did."""
    if as_json:
        import json  # noqa: PLC0415  # not needed for --help

        names = ("job", "status", "reason", "done", "failed", "skipped", "total", "share", "new", "seconds", "output")
        with suppress(OSError):  # the exit code tells the truth, whoever listens
            click.echo(json.dumps({name: getattr(result, name) for name in names}))
    if not quiet:
        say(result.summary(), prefix="")
