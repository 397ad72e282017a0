"""The recipes for schedulers do what they say: each is taken out of the page and run."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from batchkit import Job

if TYPE_CHECKING:
    from collections.abc import Mapping

PAGE = Path(__file__).parent.parent / "docs/schedulers.md"
PLACE = "/srv/crawl"


def recipes(language: str) -> list[str]:
    """Return the blocks of the page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work where the recipes do, with a batchkit on the path that stops after ten items of thirty."""
    monkeypatch.chdir(tmp_path)
    for name in ("urls.txt", "texts.txt"):
        Path(name).write_text("".join(f"{n}\n" for n in range(30)))
    for name, function in (("fetch.py", "fetch"), ("embed.py", "embed")):
        Path(name).write_text(f"def {function}(item):\n    return item\n")
    Path("bin").mkdir()
    program("batchkit", f'exec {sys.executable} -m batchkit "$@" --max-items 10')
    program("scontrol", 'echo "$@" >> requeued')
    return tmp_path


def program(name: str, body: str) -> None:
    """Put a program on the path."""
    path = Path("bin") / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def sh(script: str, shell: str = "sh", *options: str, **variables: str) -> int:
    """Run a script and return its exit code."""
    here = str(Path.cwd())
    env: Mapping[str, str] = {
        **os.environ,
        "PATH": f"{here}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(PAGE.parent.parent),
        **variables,
    }
    words = [shell, *options, "-c", script.replace(PLACE, here)]
    return subprocess.run(words, env=env, check=False, capture_output=True, timeout=60).returncode


def lines(path: str) -> int:
    """Return how many lines a file has."""
    return len(Path(path).read_text().splitlines())


def test_cron_goes_on_each_night() -> None:
    """Until it is done, and then does nothing."""
    [line] = recipes("crontab")
    *fields, command = line.strip().split(maxsplit=5)
    assert fields == ["30", "22", "*", "*", "*"]
    assert "%" not in command, "cron would take it for a line end"
    assert [sh(command) for _ in range(5)] == [75, 75, 0, 0, 0]
    assert lines("pages.jsonl") == 30
    assert "30 items done" in Path("crawl.log").read_text()


def unit(text: str) -> configparser.ConfigParser:
    """Return a unit as systemd reads it, as far as that is INI."""
    parser = configparser.ConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def test_systemd_takes_a_stop_for_success() -> None:
    """The command ends with codes that the unit names."""
    service, timer = map(unit, recipes("ini"))
    command = f"cd {service['Service']['WorkingDirectory']} && {service['Service']['ExecStart']}"
    good = {0, *map(int, service["Service"]["SuccessExitStatus"].split())}
    codes = [sh(command) for _ in range(3)]
    assert codes == [75, 75, 0]
    assert set(codes) <= good
    assert timer["Install"]["WantedBy"] == "timers.target"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_knows_every_line_of_the_units(tmp_path: Path) -> None:
    """As it says itself."""
    for name, text in zip(("crawl.service", "crawl.timer"), recipes("ini"), strict=True):
        (tmp_path / name).write_text(text)
    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "crawl.timer"), str(tmp_path / "crawl.service")],  # noqa: S607
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    complaints = [line for line in ended.stderr.splitlines() if "crawl." in line]
    assert complaints == []


def test_slurm_requeues_what_has_work_left_and_nothing_else() -> None:
    """Once for each stop; an error ends it."""
    [script] = recipes("bash")
    assert [sh(script, "bash", SLURM_JOB_ID="4711") for _ in range(3)] == [75, 75, 0]
    assert Path("requeued").read_text().splitlines() == ["requeue 4711"] * 2
    Path("embed.py").write_text("def embed(item):\n    raise ValueError('no')\n")
    Path("texts.txt").write_text("another\n")
    Path("requeued").unlink()
    assert sh(script, "bash", SLURM_JOB_ID="4711") == 5
    assert not Path("requeued").exists()


def test_github_actions_goes_on_after_a_fresh_checkout() -> None:
    """With nothing left but the directory that was cached."""
    [workflow] = recipes("yaml")
    script = workflow.split("run: |\n")[1].split("      - uses")[0]
    assert "path: state" in workflow
    for expected in (10, 20, 30):
        Path("urls.txt").write_text("".join(f"{n}\n" for n in range(30)))  # as a checkout does
        assert sh(script, "bash", "-e", "-o", "pipefail") == 0
        assert Job("urls-fetch", "state").status().done == expected
    assert lines("state/pages.jsonl") == 30


def test_github_actions_is_yaml() -> None:
    """With the steps that are spoken of."""
    yaml = pytest.importorskip("yaml")
    [text] = recipes("yaml")
    steps = yaml.safe_load(text)["jobs"]["crawl"]["steps"]
    assert [step.get("uses", "run").split("@")[0] for step in steps] == [
        "actions/checkout", "actions/setup-python", "run", "actions/cache/restore", "run", "actions/cache/save",
    ]  # fmt: skip


def test_airflow_goes_on_with_each_retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its operator takes the words that the recipe gives it."""
    tasks: list[dict[str, Any]] = []

    class FakeDag:
        def __init__(self, *_: Any, **options: Any) -> None:
            assert options["max_active_runs"] == 1

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def operator(*, task_id: str, bash_command: str, cwd: str, retries: int, retry_delay: object) -> None:
        tasks.append({"id": task_id, "command": bash_command, "cwd": cwd, "retries": retries, "delay": retry_delay})

    names = ("airflow", "airflow.providers", "airflow.providers.standard", "airflow.providers.standard.operators")
    for name in (*names, f"{names[-1]}.bash"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["airflow"], "DAG", FakeDag, raising=False)
    monkeypatch.setattr(sys.modules[f"{names[-1]}.bash"], "BashOperator", operator, raising=False)
    [recipe] = recipes("python")
    exec(compile(recipe, "recipe", "exec"), {})  # noqa: S102  # the page's own
    [task] = tasks
    codes = [sh(f"cd {task['cwd']} && {task['command']}") for _ in range(3)]
    assert codes == [75, 75, 0]
    assert task["retries"] > len(codes)
