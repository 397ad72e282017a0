"""`batchkit report`: a page about a job's past."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import batchkit
from batchkit import history
from batchkit.job import JobDirectory
from batchkit.model import Checkpoint
from batchkit.overview import RunFacts
from batchkit.report import sampling
from batchkit.report.figures import figures
from batchkit.report.sampling import Sample, active, progress, sampled
from tests.test_cli import one_line
from tests.test_history import commit

if TYPE_CHECKING:
    from tests.conftest import Cli

pytestmark = pytest.mark.usefixtures("workdir")


def fail(item: str) -> str:
    """Fail for some."""
    if item.endswith("7"):
        raise ValueError(f"<b>{item}</b>")
    return item


def job(**options: Any) -> None:
    """Work on two hundred lines in two runs."""
    Path("items.txt").write_text("".join(f"{number}\n" for number in range(200)))
    for most in (80, None):
        batchkit.process(
            "items.txt", fail, job="j", output="o.txt", batch_size=5, on_error="skip", max_items=most, **options
        )


def figures_in(page: str) -> dict[str, Any]:
    """Return the plots of a page."""
    found = re.search(r"const FIGURES = (\{.*?\});\n", page)
    assert found is not None
    plots: dict[str, Any] = json.loads(found[1])
    return plots


def test_a_page_tells_the_job_s_past(cli: Cli) -> None:
    """Plots whose figures are those of the journals, runs, failures, options; nothing from the network."""
    job()
    ended = cli("report", "j", "-o", "r.html")
    assert (ended.code, one_line(ended)) == (0, "j: → r.html\n")
    page = Path("r.html").read_text()
    plots = figures_in(page)
    assert list(plots) == ["progress", "throughput", "batches", "timeline", "failures"]
    assert plots["progress"]["data"][0]["y"][-1] == 200
    assert plots["progress"]["data"][1]["y"][-1] == 20
    assert len(plots["progress"]["layout"]["shapes"]) == 2
    assert sum(plots["batches"]["data"][0]["y"]) == 40
    assert plots["failures"]["data"][0]["x"] == [20]
    assert "From all 4" in page
    assert "paused: the number of items asked for is done" in page
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", page)


def test_what_comes_from_data_is_no_html(cli: Cli) -> None:
    """Items and messages stand in the page as text."""
    job()
    cli("report", "j")
    page = Path("j.html").read_text()
    assert "&lt;b&gt;7&lt;/b&gt;" in page
    assert "<b>7</b>" not in page


def test_shards_have_rows_of_their_own() -> None:
    """And the progress is that of all of them."""
    job(workers=2)
    batchkit.Job("j").report("r.html")
    plots = figures_in(Path("r.html").read_text())
    assert {row for row in plots["timeline"]["data"][0]["y"] if row} >= {"shard 0", "shard 1"}
    assert plots["progress"]["data"][0]["y"][-1] == 200


@pytest.mark.parametrize("items", [[], ["1"]])
def test_a_job_without_much_of_a_past_has_a_page(items: list[str]) -> None:
    """No items, and one."""
    batchkit.process(items, str, job="j")
    batchkit.Job("j").report("r.html")
    assert "<h1>j</h1>" in Path("r.html").read_text()


def test_an_earlier_page_is_replaced_and_a_missing_directory_is_told(cli: Cli) -> None:
    """In one line."""
    job()
    Path("j.html").write_text("old")
    assert cli("report", "j").code == 0
    assert Path("j.html").read_text() != "old"
    ended = cli("report", "j", "-o", "none/r.html")
    assert ended.code == 1
    assert "none/r.html" in one_line(ended)


def test_a_long_past_is_sampled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than all is read, and how far the job was stays exact."""
    Path("items.txt").write_text("".join(f"{number}\n" for number in range(3000)))
    batchkit.process("items.txt", str, job="j", output="o.txt", batch_size=1)
    monkeypatch.setattr(sampling, "MOST", 60_000)
    directory = JobDirectory(".batchkit", "j")
    manifest = directory.load()
    assert manifest is not None
    [sample] = sampled(directory, manifest)
    assert 200 < len(sample.commits) < 2000
    assert sample.total == 3001
    assert all(point.handled == min(point.seq, 3000) for point in sample.commits)
    gaps = [b.seq - a.seq for a, b in zip(sample.commits, sample.commits[1:], strict=False)]
    assert max(gaps) < 1000
    assert progress([sample])[-1][1:] == (3000, 0)
    whole = history.chapters(directory.shard_path(0), manifest.job)
    assert sum(chapter.end for chapter in whole) > 5 * sampling.MOST


def test_gaps_in_the_work_are_seen() -> None:
    """A new run, or a long wait between commits; the commits here take half a second each."""
    commits = [commit(seq, seq)._replace(time=1000.0 + 0.5 * seq) for seq in range(1, 5)]
    late = [commit(seq, seq)._replace(time=1100.0 + 0.5 * seq) for seq in range(5, 7)]
    assert active([*commits, *late], 0.1) == [(1000.0, 1002.0), (1102.0, 1103.0)]
    assert active(commits[::3], 0.1) == [(1000.0, 1002.0)]


def test_between_two_runs_the_curve_is_level() -> None:
    """Nothing was done, though the next commit comes long after the last one."""
    facts = [
        RunFacts(number, start, start + 5, 5.0, "paused", None, 5, None, 1, "h", None)
        for number, start in ((1, 1000.0), (2, 2000.0))
    ]
    commits = [
        Checkpoint(seq, seq, 5 * seq, 0, 0, 0, None, seq, at, 1.0, kept=None) for seq, at in ((1, 1004.0), (2, 2004.0))
    ]
    curve = figures([Sample(0, commits, 2)], facts, {})["progress"]["data"][0]
    assert curve["y"][:4] == [0, 5, 5, 10]
