"""Help, reference and completion: whatever there is to type can be found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import batchkit
from batchkit.cli import main

ROOT = Path(__file__).parent.parent


def every(command: click.Command = main, path: str = "batchkit") -> list[tuple[str, click.Command]]:
    """Return all commands with what is typed for them."""
    found = [(path, command)]
    if isinstance(command, click.Group):
        ctx = click.Context(command)
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            found += every(child, f"{path} {name}")
    return found


COMMANDS = every()
IDS = [path for path, _ in COMMANDS]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=IDS)
def test_every_command_has_examples_of_itself(path: str, command: click.Command) -> None:
    """In its help, which also says what it does; each option says what it is for."""
    epilog = command.epilog or ""
    assert "Example" in epilog
    assert f"  {path} " in epilog
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{path} {parameter.opts}"


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=IDS)
def test_every_command_and_option_is_in_the_reference(path: str, command: click.Command) -> None:
    """`docs/commands.md`, under its own heading."""
    page = (ROOT / "docs/commands.md").read_text()
    section = page.split(f"\n## {path}\n", 1)[1].split("\n## ", 1)[0]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            for word in parameter.opts:
                assert word in section, f"{path} {word}"


def test_the_reference_is_current() -> None:
    """Else: `make docs`."""
    done = subprocess.run([sys.executable, "docs/build.py", "--check"], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_the_readme_names_every_command() -> None:
    """Where people look first."""
    text = (ROOT / "README.md").read_text()
    assert [path for path, _ in COMMANDS if path not in text] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_understands_the_script(shell: str, tmp_path: Path) -> None:
    """Checked by the shell itself where it is at hand."""
    script = subprocess.run(
        [sys.executable, "-m", "batchkit", "completion", shell], capture_output=True, text=True, check=True
    ).stdout
    assert f"_BATCHKIT_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


def completed(words: str, count: int) -> str:
    """Return what bash is answered for the word with this number."""
    env = {**os.environ, "_BATCHKIT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(count)}
    return subprocess.run(
        [sys.executable, "-m", "batchkit"], env=env, capture_output=True, text=True, check=True
    ).stdout


def test_commands_and_options_are_completed() -> None:
    """As bash asks for it."""
    assert "plain,process\n" in completed("batchkit proc", 1)
    assert "plain,--batch-size\n" in completed("batchkit process --batch-s", 2)


def test_names_of_jobs_are_completed(workdir: Path) -> None:
    """Those in the state directory that is named, too."""
    batchkit.process(["a"], str, job="fetch-a")
    batchkit.process(["a"], str, job="load-b", state_dir=workdir / "there")
    assert completed("batchkit status fe", 2) == "plain,fetch-a\n"
    assert completed("batchkit rm fetch-a ", 3) == "plain,fetch-a\n"
    assert completed("batchkit stop --state-dir there l", 4) == "plain,load-b\n"
