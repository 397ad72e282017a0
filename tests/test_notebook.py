"""Notebooks: what they show, a real kernel that runs the example, and its stop button."""

from __future__ import annotations

import json
import queue
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import batchkit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_client.manager import KernelManager

pytestmark = pytest.mark.usefixtures("workdir")

EXAMPLE = Path(__file__).parent.parent / "examples" / "notebook.ipynb"


class TestShown:
    """Cards and tables, without a kernel."""

    def test_rows_become_a_table(self) -> None:
        """With every column that any of them has."""
        result = batchkit.process([1, 2], lambda item: {"a": item} if item == 1 else {"a": item, "b": "x"})
        assert result.to_polars().equals(pl.DataFrame({"a": [1, 2], "b": [None, "x"]}))

    def test_other_results_become_a_column(self) -> None:
        """Whatever they are, and also when there are none."""
        assert batchkit.process(["a", "b"], str.upper).to_polars().to_dict(as_series=False) == {"result": ["A", "B"]}
        assert batchkit.process([], str.upper).to_polars().columns == ["result"]

    def test_results_in_a_file_become_a_table(self) -> None:
        """Read from where they are stored."""
        result = batchkit.process(range(3), lambda item: {"n": item}, output="o.jsonl")
        assert result.to_polars()["n"].to_list() == [0, 1, 2]

    def test_a_result_is_a_card(self) -> None:
        """It says how far the job is and what comes next; nothing of the data is taken for HTML."""
        result = _paused()
        shown = result._repr_html_()
        assert "● paused" in shown
        assert "4 of 10" in shown
        assert "width:40.0%" in shown
        assert "run it again to go on" in shown
        assert "&lt;lambda&gt;" in result._replace(job="<lambda>")._repr_html_()

    def test_a_job_is_a_card(self) -> None:
        """As it stands when it is looked at."""
        _paused()
        assert "● paused" in batchkit.Job("j")._repr_html_()
        batchkit.process(range(10), str, job="j")
        assert "● completed" in batchkit.Job("j")._repr_html_()


def _paused() -> batchkit.Result:
    return batchkit.process(range(10), str, job="j", max_items=4)


class Kernel:
    """A kernel at work, as a notebook has one."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager = manager
        self._client = client

    def begin(self, code: str) -> str:
        """Send a cell; return the number of the request."""
        return str(self._client.execute(code))

    def messages(self, request: str) -> Iterator[dict[str, Any]]:
        """Yield what the kernel says of a request until it is idle again. Fails after a minute of silence."""
        while True:
            try:
                message = self._client.get_iopub_msg(timeout=60)
            except queue.Empty:
                pytest.fail("the kernel says nothing")
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                return
            yield message


@pytest.fixture
def kernel(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """Start a kernel in the test's directory."""
    from jupyter_client.manager import start_new_kernel  # noqa: PLC0415  # half a second that only these tests need

    monkeypatch.setenv("PYTHONPATH", str(Path(batchkit.__file__).parent.parent))
    monkeypatch.setenv("IPYTHONDIR", str(workdir / "ipython"))
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(workdir))
    try:
        yield Kernel(manager, client)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.cleanup_resources()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::UserWarning")
class TestInAKernel:
    """With a running event loop, widgets and a stop button."""

    def test_the_example_runs_from_top_to_bottom(self, kernel: Kernel) -> None:
        """Each cell without an error; results are shown as cards."""
        cells = [cell for cell in json.loads(EXAMPLE.read_text())["cells"] if cell["cell_type"] == "code"]
        shown = []
        for cell in cells:
            for message in kernel.messages(kernel.begin("".join(cell["source"]))):
                assert message["msg_type"] != "error", message["content"]["evalue"]
                if message["msg_type"] == "execute_result":
                    shown.append(message["content"]["data"])
        cards = [each["text/html"] for each in shown if "●" in each.get("text/html", "")]
        assert ["paused" in cards[0], "completed" in cards[1]] == [True, True]
        assert "4" in cards[1]
        assert "nobody has measured city 13" in str(shown)
        assert "CITY 99" in str(shown[-1])

    def test_the_stop_button_ends_a_run_with_a_committed_batch(self, kernel: Kernel) -> None:
        """The cell returns a result, not a traceback; the next run goes on behind it. The bar is a widget."""
        running = kernel.begin(
            "import batchkit, time\n"
            "def slow(item):\n    open('begun', 'a').close()\n    time.sleep(0.02)\n    return item\n"
            "result = batchkit.process(range(100_000), slow, job='slow', batch_size=10)\n"
            "print('ended', result.status, result.done > 0)"
        )
        seen: list[str] = []
        for message in kernel.messages(running):
            seen.append(json.dumps(message["content"], default=str))
            if "widget-view+json" in seen[-1]:
                kernel.manager.interrupt_kernel()
        assert "ended paused True" in "".join(seen)
        assert "Traceback" not in "".join(seen)
        status = batchkit.Job("slow").status()
        assert (status.status, status.done > 0) == ("paused", True)
