"""What several commands have: options, and a way to talk."""

from __future__ import annotations

from contextlib import suppress

import click

VERBOSE = "batchkit.verbose"
"""Key of a context's `meta`: whether errors show their traceback."""


def _remember(ctx: click.Context, _option: click.Parameter, value: bool) -> None:  # noqa: FBT001  # click's
    if value:
        ctx.meta[VERBOSE] = True


verbose = click.option(
    "-v", "--verbose", is_flag=True, expose_value=False, callback=_remember, help="Show the traceback of an error."
)

state_dir = click.option(
    "--state-dir", metavar="DIR", help="Where jobs are kept; default: $BATCHKIT_STATE_DIR or .batchkit."
)


def say(text: str, *, prefix: str = "batchkit: ") -> None:
    """Say something on standard error; that nobody can hear it changes no exit code."""
    with suppress(OSError, ValueError, AttributeError):
        click.echo(prefix + text, err=True)
