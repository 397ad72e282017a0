"""Write `docs/commands.md`: the help of every command, as the command line prints it.

`python docs/build.py` writes it, `--check` only tells whether it is current (exit code 1: it is not).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchkit.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parent / "commands.md"
WIDTH = 100


def commands(command: click.Command, ctx: click.Context) -> Iterator[tuple[str, str]]:
    """Yield the path and the help of a command and of those below it."""
    yield ctx.command_path, command.get_help(ctx)
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None, "it is listed"
            yield from commands(child, _context(child, name, ctx))


def _context(command: click.Command, name: str, parent: click.Context | None = None) -> click.Context:
    return click.Context(command, info_name=name, parent=parent, terminal_width=WIDTH, max_content_width=WIDTH)


def page() -> str:
    """Return the whole page."""
    parts = ["# Commands\n\nWhat `--help` says, all in one place.\n"]
    parts += [f"## {path}\n\n```text\n{text}\n```\n" for path, text in commands(main, _context(main, "batchkit"))]
    return "\n".join(parts)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text() != page())
    PAGE.write_text(page())
