"""The command line: one file per group of commands; each parses, calls the library and prints."""

from __future__ import annotations

import os
import sys
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Any

import click

from batchkit import __version__
from batchkit.cli.options import VERBOSE, say
from batchkit.errors import BatchkitError

_COMMANDS = {
    "process": "process",
    "plan": "plan",
    "check": "check",
    "status": "status",
    "failures": "failures",
    "retry": "failures",
    "locate": "locate",
    "report": "report",
    "stop": "steer",
    "extend": "steer",
    "reset": "jobs",
    "rm": "jobs",
    "prune": "jobs",
    "workflow": "flows",
    "completion": "completion",
}
ABORTED = 128
"""A second signal ends with this plus its number, as shells show a process killed by it."""


class _Group(click.Group):
    """Imports a command's module when it is asked for, and prints errors in one place."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's
        if cmd_name not in _COMMANDS:
            return None
        command = getattr(import_module(f"batchkit.cli.{_COMMANDS[cmd_name]}"), cmd_name)
        return command if isinstance(command, click.Command) else None

    def main(self, *args: Any, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        if sys.stderr is None:  # closed: the next file that is opened would be taken for it
            sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # until the process ends
        try:
            super().main(*args, **extra)
        except click.exceptions.Exit as error:
            sys.exit(error.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except click.UsageError as error:
            message = error.format_message()
            message += "" if message.endswith((".", "?")) else "."
            say(f"{message} See: {error.ctx.command_path if error.ctx else 'batchkit'} --help")
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            say("aborted; run the same command again to go on")
            sys.exit(ABORTED + 2)
        finally:
            _drop_unheard()

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BatchkitError as error:
            if ctx.meta.get(VERBOSE):
                traceback.print_exception(error)
            say(" ".join(str(error).splitlines()))
            sys.exit(error.exit_code)
        except BrokenPipeError:  # of what a command prints: whoever read it has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        except OSError as error:
            say(f"cannot print: {error.strerror}")
            sys.exit(1)


def _drop_unheard() -> None:
    """Let go of what standard error does not take: Python would try again at the end, and exit with 120."""
    try:
        sys.stderr.flush()
    except (OSError, ValueError):
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@click.command(
    cls=_Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  batchkit process items.txt -f mymodule:fetch -o results.jsonl
  batchkit process items.txt -f mymodule:fetch -o results.jsonl --max-time 55m
  batchkit status items-fetch
  batchkit failures items-fetch
  batchkit retry items-fetch
  batchkit workflow run flow.py

Run and resume are the same command. Exit codes: 0 completed, 1 failed, 2 wrong usage,
3 completed but some items failed and were kept, 4 another run holds the job, 5 the input or the
job's definition changed, 6 a workflow waits for an answer, 75 stopped cleanly with work left,
130/143 aborted by a second signal.""",
)
@click.version_option(__version__, prog_name="batchkit", message="%(prog)s %(version)s")
def main() -> None:
    """Work through a long list in batches, and go on after any stop, kill or power cut."""
