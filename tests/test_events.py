"""Who listens to a run: hooks, a command at its end, metrics, a log of JSON."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from batchkit import BatchkitError, Event, InputChanged, ItemError, process
from batchkit.metrics import EVERY, MetricsFile
from batchkit.notify import Notifier

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import Cli

KINDS = ("start", "batch", "failure", "stop", "complete")

pytestmark = pytest.mark.usefixtures("workplace")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a directory of one's own, with a list and a function that fails for every tenth item."""
    monkeypatch.chdir(tmp_path)
    Path("items.txt").write_text("".join(f"{n}\n" for n in range(1, 31)))
    Path("m.py").write_text("def f(x):\n    if int(x) % 10 == 0:\n        raise ValueError('ten')\n    return x\n")


def no_tens(item: int) -> int:
    """Return the item; tens fail."""
    if item % 10 == 0:
        raise ValueError(f"{item} is a ten")
    return item


def heard(source: Any, function: Callable[..., Any], **options: Any) -> list[Event]:
    """Return what hooks hear of a run, which may raise."""
    events: list[Event] = []
    hooks: dict[str, Any] = {f"on_{kind}": events.append for kind in KINDS}
    with suppress(BatchkitError):
        process(source, function, progress="none", **hooks, **options)
    return events


def kinds(events: list[Event]) -> str:
    """Return the first letters of the kinds: Start, Batch, Failure, End by stop or Complete."""
    return "".join({"stop": "E"}.get(event.kind, event.kind[0].upper()) for event in events)


@pytest.mark.parametrize("job", [None, "named"])
def test_hooks_hear_of_the_start_each_batch_each_failure_and_the_end(job: str | None) -> None:
    """In the order in which it happens, with the counts of that moment."""
    events = heard(range(1, 31), no_tens, batch_size=10, on_error="skip", job=job)
    assert kinds(events) == "SBFBFBFC"
    assert [(event.done, event.failed, event.new) for event in events if event.kind == "batch"] == [
        (9, 1, 10), (18, 2, 20), (27, 3, 30),
    ]  # fmt: skip
    assert [event.failure.message for event in events if event.failure] == ["10 is a ten", "20 is a ten", "30 is a ten"]
    assert {event.status for event in events[:-1]} == {"running"}
    assert events[-1].status == "completed"
    assert events[-1].share == 1.0
    assert {event.job for event in events} == {job}


def test_a_resumed_run_tells_of_what_is_new_in_it() -> None:
    """Counts are the job's; batches and failures of earlier runs are not told again."""
    first = heard(range(1, 31), no_tens, batch_size=10, on_error="skip", job="j", max_items=15)
    assert kinds(first) == "SBFBE"
    assert first[-1].status == "paused"
    assert first[-1].reason == "the number of items asked for is done"
    second = heard(range(1, 31), no_tens, batch_size=10, on_error="skip", job="j")
    assert kinds(second) == "SBFBFC"
    assert (second[0].done, second[0].failed, second[0].new) == (14, 1, 0)
    assert [event.failure.item for event in second if event.failure] == [20, 30]
    assert kinds(heard(range(1, 31), no_tens, batch_size=10, on_error="skip", job="j")) == "SC"


@pytest.mark.slow
def test_with_workers_the_parent_tells_of_everything_once() -> None:
    """Batches may come together; no failure is lost or told twice."""
    events = heard(range(1, 201), no_tens, batch_size=5, on_error="skip", job="j", workers=2)
    assert kinds(events)[0] == "S"
    assert kinds(events)[-1] == "C"
    assert sorted(event.failure.item for event in events if event.failure) == list(range(10, 201, 10))
    assert [event.new for event in events if event.kind == "batch"][-1] == 200


def test_an_error_is_a_stop_with_the_counts_so_far() -> None:
    """Whoever is told by on_stop alone learns of it, too."""
    events: list[Event] = []
    with pytest.raises(ItemError):
        process(range(1, 31), no_tens, batch_size=4, job="j", progress="none", on_stop=events.append)
    assert [(event.kind, event.status, event.done) for event in events] == [("stop", "failed", 9)]
    assert "10 is a ten" in str(events[0].reason)


def test_an_error_before_the_work_begins_is_told_as_well() -> None:
    """A changed input is what a nightly job has to tell somebody about."""
    process("items.txt", output="o.txt", max_items=3, progress="none")
    Path("items.txt").write_text("other\n")
    events: list[Event] = []
    with pytest.raises(InputChanged):
        process("items.txt", output="o.txt", progress="none", on_start=events.append, on_stop=events.append)
    assert [(event.kind, event.status) for event in events] == [("stop", "failed")]


def test_a_hook_that_fails_is_said_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Monitoring must not end a night's work."""

    def broken(event: Event) -> None:
        raise RuntimeError(f"no {event.kind}")

    result = process(range(10), batch_size=5, on_batch=broken, on_complete=broken, progress="log")
    assert result.completed
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 3
    assert said[0] == "batchkit: the hook on_batch failed (RuntimeError: no batch); for the run that changes nothing"


def test_notify_runs_a_command_with_what_happened(cli: Cli) -> None:
    """On its standard input in a line, and in variables; its own output does not mix with results."""
    words = ("process", "items.txt", "-f", "m.py:f", "--on-error", "skip", "-b", "5", "-q")
    command = 'cat > told.txt; echo "$BATCHKIT_STATUS $BATCHKIT_DONE $BATCHKIT_FAILED" >> told.txt; echo noise'
    ended = cli(*words, "--max-items", "12", "--notify", command)
    assert ended.code == 75
    assert "noise" not in ended.out
    assert Path("told.txt").read_text().splitlines() == [
        "items-f: paused, 11 items done, 1 failed, the number of items asked for is done", "paused 11 1",
    ]  # fmt: skip
    ended = cli(*words, "--notify", "exit 9")
    assert ended.code == 3


def test_a_notification_that_fails_is_said(cli: Cli) -> None:
    """The exit code stays the run's."""
    ended = cli("process", "items.txt", "-o", "o.txt", "--notify", "exit 9")
    assert ended.code == 0
    assert "the hook on_complete failed ('exit 9' exited with 9)" in ended.err


def test_a_notification_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run waits for the lock."""
    monkeypatch.setattr("batchkit.notify.PATIENCE", 0.1)
    event = Event("stop", "j", "paused", None, 0, 0, 0, 0, None, 0.0, 0.0)
    with pytest.raises(BatchkitError, match="took more than"):
        Notifier("sleep 60")(event)


def samples(path: str) -> dict[tuple[str, ...], float]:
    """Return the values of a metrics file, by name and labels, as Prometheus' own parser reads them."""
    parser = pytest.importorskip("prometheus_client.parser")
    return {
        (sample.name, *(value for name, value in sorted(sample.labels.items()) if name != "job")): sample.value
        for family in parser.text_string_to_metric_families(Path(path).read_text())
        for sample in family.samples
    }


def test_metrics_are_kept_in_a_file(cli: Cli) -> None:
    """As the textfile collector takes them."""
    words = ("process", "items.txt", "-f", "m.py:f", "-o", "o.txt", "--on-error", "skip", "-b", "5")
    assert cli(*words, "--max-items", "15", "--metrics-file", "batchkit.prom").code == 75
    found = samples("batchkit.prom")
    assert found["batchkit_items", "done"] == 14
    assert found["batchkit_items", "failed"] == 1
    assert found["batchkit_run_items",] == 15
    assert found["batchkit_status", "paused"] == 1
    assert found["batchkit_status", "running"] == 0
    assert cli(*words, "--metrics-file", "batchkit.prom").code == 3
    assert samples("batchkit.prom")["batchkit_share_done",] == 1.0
    assert not [each for each in Path.cwd().iterdir() if ".prom." in each.name]


def test_metrics_are_written_now_and_then_while_a_run_is_at_work() -> None:
    """A file for each of a million batches would be work of its own."""
    pytest.importorskip("prometheus_client")
    now = 100.0
    metrics = MetricsFile("m.prom", lambda: now)
    event = Event("batch", "j", "running", None, 0, 0, 0, 0, None, 1.0, 1.0)
    metrics(event)
    metrics(event._replace(done=5))
    assert samples("m.prom")["batchkit_items", "done"] == 0
    now += EVERY
    metrics(event._replace(done=7))
    assert samples("m.prom")["batchkit_items", "done"] == 7
    metrics(event._replace(kind="stop", done=8, status="failed"))
    assert samples("m.prom")["batchkit_items", "done"] == 8


@pytest.mark.parametrize("path", ["m.txt", "nowhere/m.prom"])
def test_a_metrics_file_that_cannot_be_is_refused_before_the_run(cli: Cli, path: str) -> None:
    """Nobody wants to learn of it in the morning."""
    ended = cli("process", "items.txt", "-o", "o.txt", "--metrics-file", path)
    assert ended.code == 2
    assert f"the metrics file '{path}' has to end in .prom" in ended.err
    assert not Path(".batchkit").exists()


def test_metrics_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client library is an extra."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(BatchkitError, match=r"pip install 'batchkit\[metrics\]'"):
        MetricsFile("m.prom")


def test_a_log_of_json_is_json_in_every_line(cli: Cli) -> None:
    """What is said, too: warnings, errors."""
    words = ("process", "items.txt", "-f", "m.py:f", "-o", "o.txt", "-b", "5", "--log-format", "json")
    ended = cli(*words, "--on-error", "skip", "--max-items", "12")
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert [line["event"] for line in lines] == ["start", "failure", "stop"]
    assert lines[1]["message"] == "ten"
    assert lines[2]["done"] == 11
    with Path("items.txt").open("a") as file:
        file.write("31\n")
    ended = cli(*words, "--on-input-change", "continue")
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert {"message", "start", "stop"} <= {line["event"] for line in lines}
    assert ended.code == 1
    assert lines[-1]["event"] == "message"
    assert "ten" in lines[-1]["text"]
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_progress_as_json_has_share_and_seconds_left(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines between start and end."""
    from batchkit.progress import Progress  # noqa: PLC0415  # its clock is a fake here

    now = 0.0
    progress = Progress("json", name="j", unit="items", total=100, at=0, items=0, clock=lambda: now)
    now = 10.0
    progress.show(25, 25, 1)
    line = json.loads(capsys.readouterr().err)
    assert (line["event"], line["share"], line["seconds_left"], line["rate"], line["failed"]) == (
        "progress", 0.25, 30.0, 2.5, 1,
    )  # fmt: skip
