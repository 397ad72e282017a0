"""`batchkit workflow`: running workflows, looking at them, answering them, going back."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from batchkit.cli.options import abort, say, state_dir, verbose
from batchkit.errors import BatchkitError, UsageError
from batchkit.result import EXIT_PAUSED

if TYPE_CHECKING:
    from batchkit.workflow.flow import Workflow
    from batchkit.workflow.store import Store

_EVERY = 1.0
"""Seconds between two pictures of --watch."""

key = click.option("--key", metavar="KEY", help="One of several instances of the workflow, each with its own state.")
params = click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Another value of a parameter.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
file = click.argument("file", metavar="FILE[:NAME]")
name = click.argument("name", metavar="WORKFLOW")


@click.group(
    epilog="""\b
Examples:
  batchkit workflow plan flow.py
  batchkit workflow run flow.py --max-time 55m
  batchkit workflow status migrate-db --watch
  batchkit workflow answer migrate-db approve yes
  batchkit workflow rollback flow.py --plan

FILE is a Python file, or a module, with a workflow in it; :NAME says which where there are
several. WORKFLOW is the name that it was given, with @KEY behind it for an instance. Exit codes
are those of batchkit, and 6: a question waits for an answer."""
)
def workflow() -> None:
    """Run phases in order, each checkpointed: resume, answer, skip, roll back."""


def _found(spec: str) -> Workflow:
    from batchkit.workflow.finding import find_workflow  # noqa: PLC0415  # not needed for --help

    return find_workflow(spec)


def _store(name: str, state_dir: str | None) -> Store:
    from batchkit.job import state_directory  # noqa: PLC0415  # as above
    from batchkit.workflow.store import Store  # noqa: PLC0415

    store = Store(state_directory(state_dir), name)
    store.load()
    return store


def _params(flow: Workflow, given: tuple[str, ...]) -> dict[str, Any]:
    """Return parameters as values: of the type of their defaults, where these are not text."""
    values: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals:
            raise UsageError(f"--param {each}: give NAME=VALUE")
        if flow.params.get(name) is None or isinstance(flow.params[name], str):
            values[name] = text
            continue
        try:
            values[name] = json.loads(text)
        except ValueError:
            such = json.dumps(flow.params[name])
            raise UsageError(f"--param {each}: '{name}' is no text; give JSON, such as {such}") from None
    return values


@workflow.command(
    epilog="""\b
Examples:
  batchkit workflow run flow.py
  batchkit workflow run flow.py:nightly --until load --param day=2026-11-23
  batchkit workflow run flow.py --key eu --max-time 55m"""
)
@file
@key
@params
@click.option("--until", metavar="PHASE", help="End behind this phase.")
@click.option("--step", is_flag=True, help="End behind one phase.")
@click.option("--max-time", metavar="DURATION", help="End before this much time has passed.")
@click.option(
    "--parallel", type=click.IntRange(1), default=8, show_default=True, metavar="N", help="Phases at once, at most."
)
@click.option("--no-input", is_flag=True, help="Ask nothing on the terminal; exit with 6 where an answer is needed.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "bar", "log", "none"]),
    default="auto",
    show_default=True,
    help="What to show.",
)
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
@as_json
@state_dir
@verbose
def run(  # noqa: PLR0913  # one parameter per option
    *,
    file: str,
    key: str | None,
    params: tuple[str, ...],
    no_input: bool,
    progress: str,
    quiet: bool,
    as_json: bool,
    state_dir: str | None,
    **options: Any,
) -> None:
    """Run the phases of FILE that are left. Run and resume are the same command."""
    flow = _found(file)
    options = {**options, "progress": "none" if quiet else progress, "abort": abort, "state_dir": state_dir, "key": key}
    result = flow.run(params=_params(flow, params), **options)
    while result.status == "waiting" and not no_input and _is_terminal(sys.stdin) and _is_terminal(sys.stderr):
        _ask_here(flow.store(key, state_dir), result.questions)
        result = flow.run(params=_params(flow, params), **options)
    if as_json:
        names = ("workflow", "status", "reason", "phases", "failed", "seconds")
        questions = {
            each: {"prompt": asked.prompt, "choices": asked.choices} for each, asked in result.questions.items()
        }
        click.echo(json.dumps({**{name: getattr(result, name) for name in names}, "questions": questions}))
    if not quiet:
        say(result.summary(), prefix="")
    sys.exit(result.exit_code)


def _is_terminal(stream: Any) -> bool:
    return stream is not None and stream.isatty()  # one that is closed is None


def _ask_here(store: Store, questions: dict[str, Any]) -> None:
    from batchkit.workflow.steering import answer  # noqa: PLC0415

    for key, question in questions.items():
        kind = click.Choice(question.choices) if question.choices else str
        given = click.prompt(question.prompt, type=kind, err=True, prompt_suffix=" ")
        if key in store.load().open_questions():  # nobody has answered meanwhile
            answer(store, key, given)


@workflow.command(
    epilog="\b\nExamples:\n  batchkit workflow plan flow.py\n  batchkit workflow plan flow.py --until load --json"
)
@file
@key
@params
@click.option("--until", metavar="PHASE", help="Only what leads to this phase.")
@as_json
@state_dir
@verbose
def plan(
    *, file: str, key: str | None, params: tuple[str, ...], until: str | None, as_json: bool, state_dir: str | None
) -> None:
    """Show what a run would do with each phase, and why. Changes nothing."""
    flow = _found(file)
    steps = flow.plan(params=_params(flow, params), key=key, until=until, state_dir=state_dir)
    if as_json:
        click.echo(json.dumps([step._asdict() for step in steps], indent=1))
        return
    width = max(len(step.phase) for step in steps)
    for step in steps:
        click.echo(f"{step.does:<6}  {step.phase:<{width}}  {step.why}".rstrip())


@workflow.command(
    epilog="\b\nExamples:\n  batchkit workflow status migrate-db\n  batchkit workflow status migrate-db --watch"
)
@name
@as_json
@click.option("--watch", is_flag=True, help="Draw it anew every second while it runs.")
@state_dir
@verbose
def status(*, name: str, as_json: bool, watch: bool, state_dir: str | None) -> None:
    """Show how a workflow stands, phase by phase. Changes nothing."""
    from batchkit.cli.flow_table import drawn  # noqa: PLC0415
    from batchkit.workflow.steering import state_of  # noqa: PLC0415

    store = _store(name, state_dir)
    while True:
        state = state_of(store)
        if watch and sys.stdout.isatty():
            click.clear()
        click.echo(json.dumps(state, indent=None if watch else 1) if as_json else drawn(state, name))
        if not watch or state["status"] != "running":
            return
        time.sleep(_EVERY)


@workflow.command("list", epilog="\b\nExamples:\n  batchkit workflow list\n  batchkit workflow list --json")
@as_json
@state_dir
@verbose
def list_(*, as_json: bool, state_dir: str | None) -> None:
    """Show all workflows in the state directory."""
    from batchkit.job import state_directory  # noqa: PLC0415
    from batchkit.workflow.steering import state_of  # noqa: PLC0415
    from batchkit.workflow.store import names  # noqa: PLC0415

    directory = state_directory(state_dir)
    known = names(directory)
    found = []
    for each in known:
        try:
            found.append((each, state_of(_store(each, directory))))
        except BatchkitError as error:
            say(str(error))
    if as_json:
        click.echo(
            json.dumps(
                [{"name": each, "status": state["status"], "updated": state["updated"]} for each, state in found],
                indent=1,
            )
        )
    for each, state in () if as_json else found:
        over = sum(phase["status"] in {"completed", "skipped"} for phase in state["phases"].values())
        click.echo(f"{each}: {state['status']}, {over} of {len(state['phases'])} phases done")
    if not known and not as_json:
        say(f"no workflows in '{directory}'", prefix="")
    if len(found) < len(known):
        sys.exit(1)


@workflow.command(epilog="\b\nExamples:\n  batchkit workflow log migrate-db\n  batchkit workflow log migrate-db backup")
@name
@click.argument("phase", required=False)
@click.option("--last", type=click.IntRange(1), metavar="N", help="Only the last N lines.")
@state_dir
@verbose
def log(*, name: str, phase: str | None, last: int | None, state_dir: str | None) -> None:
    """Show what happened; of a PHASE what its commands printed, and its errors."""
    from batchkit.cli.flow_table import event_line  # noqa: PLC0415
    from batchkit.workflow.steering import log_of  # noqa: PLC0415

    store = _store(name, state_dir)
    lines = [event_line(event) for event in store.events()] if phase is None else log_of(store, phase).splitlines()
    for line in lines if last is None else lines[-last:]:
        click.echo(line)


@workflow.command(
    epilog="""\b
Examples:
  batchkit workflow answer migrate-db approve yes
  batchkit workflow answer wizard name 'Ada' --by ops"""
)
@name
@click.argument("question", metavar="KEY")
@click.argument("text", metavar="ANSWER")
@click.option("--by", metavar="WHO", help="Who answers; default: the user of this process.")
@state_dir
@verbose
def answer(*, name: str, question: str, text: str, by: str | None, state_dir: str | None) -> None:
    """Answer the question KEY of a workflow; the next run goes on with it."""
    from batchkit.workflow import steering  # noqa: PLC0415

    store = _store(name, state_dir)
    steering.answer(store, question, text, by)
    going = "it goes on" if store.running() else f"run it again to go on: batchkit workflow run {store.load().spec}"
    say(f"{name}: '{question}' is answered; {going}", prefix="")


@workflow.command(epilog="\b\nExample:\n  batchkit workflow skip migrate-db validate --reason 'checked by hand'")
@name
@click.argument("phase")
@click.option("--reason", required=True, metavar="TEXT", help="Why; it is kept with the phase.")
@state_dir
@verbose
def skip(*, name: str, phase: str, reason: str, state_dir: str | None) -> None:
    """Let PHASE be over without it running."""
    from batchkit.workflow import steering  # noqa: PLC0415

    steering.skip(_store(name, state_dir), phase, reason)
    say(f"{name}: '{phase}' is skipped", prefix="")


@workflow.command(
    epilog="\b\nExamples:\n  batchkit workflow reset migrate-db validate\n  batchkit workflow reset migrate-db"
)
@name
@click.argument("phase", required=False)
@click.option("--only", is_flag=True, help="Leave what comes after PHASE as it is.")
@click.option("--force", is_flag=True, help="Also where rows in a table would be added once more.")
@state_dir
@verbose
def reset(*, name: str, phase: str | None, only: bool, force: bool, state_dir: str | None) -> None:
    """Let PHASE and what comes after it run again, or all; nothing is undone."""
    from batchkit.workflow import steering  # noqa: PLC0415

    if only and phase is None:
        raise UsageError("--only is for one phase; name it")
    names = steering.reset(_store(name, state_dir), phase, say, only=only, force=force)
    say(f"{name}: {', '.join(names) + ' will run again' if names else 'nothing had begun'}", prefix="")


@workflow.command(epilog="\b\nExample:\n  batchkit workflow snapshot migrate-db before-lunch")
@name
@click.argument("point", required=False)
@state_dir
@verbose
def snapshot(*, name: str, point: str | None, state_dir: str | None) -> None:
    """Archive the workspace as a point to go back to."""
    from batchkit.workflow import steering  # noqa: PLC0415

    taken = steering.snapshot(_store(name, state_dir), point)
    say(f"{name}: '{taken.name}' holds {taken.files:,} files, {taken.bytes:,} bytes", prefix="")


@workflow.command(
    epilog="\b\nExamples:\n  batchkit workflow rollback flow.py --plan\n  batchkit workflow rollback flow.py migrate"
)
@file
@click.argument("point", required=False)
@key
@click.option("--plan", "only_plan", is_flag=True, help="Only show what would be done.")
@click.option("-q", "--quiet", is_flag=True, help="Show errors only.")
@as_json
@state_dir
@verbose
def rollback(
    *, file: str, point: str | None, key: str | None, only_plan: bool, quiet: bool, as_json: bool, state_dir: str | None
) -> None:
    """Undo what was begun since POINT, newest first, and restore the workspace.

    POINT is a phase (to before it began), a snapshot, or start; default: the rollback that is unfinished, else the
    newest snapshot, else before the phase that began last. A rollback that was cut off goes on where it was.
    """
    flow = _found(file)
    way = flow.way_back(point, key=key, state_dir=state_dir)
    if as_json:
        click.echo(json.dumps({name: getattr(way, name) for name in ("to", "phases", "without_undo", "restore")}))
    if only_plan:
        for line in () if as_json else _way_in_lines(way._asdict()):
            click.echo(line)
        return
    way = flow.rollback(point, key=key, state_dir=state_dir, progress="none" if quiet else "auto", abort=abort)
    if not way.ended:
        say(f"{flow.store(key, state_dir).name}: the rollback is unfinished; run it again to go on", prefix="")
        sys.exit(EXIT_PAUSED)
    if not quiet:
        say(
            f"{flow.store(key, state_dir).name}: rolled back to {'the start' if way.to == 'start' else repr(way.to)}",
            prefix="",
        )


def _way_in_lines(way: dict[str, Any]) -> list[str]:
    lines = [
        f"undo     {each}{'  (nothing undoes it)' if each in way['without_undo'] else ''}" for each in way["phases"]
    ]
    if way["restore"] is not None:
        return [*lines, f"restore  the workspace from the snapshot '{way['restore']}'"]
    return [*lines, "leave    the workspace as it is: there is no snapshot of that point"]


@workflow.command(epilog="\b\nExample:\n  batchkit workflow rename migrate-db load load-users")
@name
@click.argument("old")
@click.argument("new")
@state_dir
@verbose
def rename(*, name: str, old: str, new: str, state_dir: str | None) -> None:
    """Let the phase OLD be known as NEW, as the file calls it now."""
    from batchkit.workflow import steering  # noqa: PLC0415

    steering.rename(_store(name, state_dir), old, new)
    say(f"{name}: '{old}' is '{new}' now", prefix="")


@workflow.command(epilog="\b\nExample:\n  batchkit workflow stop migrate-db")
@name
@state_dir
@verbose
def stop(*, name: str, state_dir: str | None) -> None:
    """Ask the run at work to stop: what is in hand is finished, the rest is left for the next run."""
    store = _store(name, state_dir)
    if not store.running():
        raise UsageError(f"no run of the workflow '{name}' is at work")
    store.ask_to_stop()
    say(f"{name}: asked to stop", prefix="")


@workflow.command(
    epilog="\b\nExamples:\n  batchkit workflow clean migrate-db\n  batchkit workflow clean migrate-db --snapshots"
)
@name
@click.option("--snapshots", is_flag=True, help="Only the archives of its points.")
@click.option("--force", is_flag=True, help="Also where it is not completed.")
@state_dir
@verbose
def clean(*, name: str, snapshots: bool, force: bool, state_dir: str | None) -> None:
    """Remove what is known of a workflow; its workspace stays."""
    from batchkit.workflow import steering  # noqa: PLC0415

    steering.clean(_store(name, state_dir), only_snapshots=snapshots, force=force)
    say(f"{name}: {'its snapshots are' if snapshots else 'is'} removed", prefix="")
