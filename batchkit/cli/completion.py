"""`batchkit completion`: what a shell is to be told so that it completes commands, options and names of jobs."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_WHERE = {
    "bash": '~/.bashrc:  eval "$(batchkit completion bash)"',
    "zsh": '~/.zshrc:   eval "$(batchkit completion zsh)"',
    "fish": "~/.config/fish/completions/batchkit.fish:  batchkit completion fish | source",
}


@click.command(
    epilog="\b\nWhere it goes:\n"
    + "\n".join(f"  {where}" for where in _WHERE.values())
    + "\n\n\b\nExample:\n  batchkit completion bash >> ~/.bashrc"
)
@click.argument("shell", type=click.Choice(list(_WHERE)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a script by which bash, zsh or fish completes commands, options and names of jobs."""
    kind = get_completion_class(shell)
    assert kind is not None, "click knows them all"
    root = ctx.find_root().command
    click.echo(kind(root, {}, "batchkit", "_BATCHKIT_COMPLETE").source())
