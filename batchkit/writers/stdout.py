"""Results on standard output. At least once: what was printed and not committed at a crash is printed again."""

from __future__ import annotations

import sys
from typing import Any

from batchkit import files
from batchkit.errors import UsageError
from batchkit.writers.formats import Text
from batchkit.writers.memory import MemoryOutput
from batchkit.writers.values import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from batchkit.writers.base import Round


class OutputClosed(Exception):  # no error: whoever read the results has enough of them
    """Nobody reads standard output any more (`| head`)."""


class Stdout:
    """The process's standard output, as bytes."""

    def __init__(self) -> None:
        """Find it. Raises `UsageError` if there is none."""
        try:
            self._fd = sys.stdout.fileno()
        except (OSError, ValueError, AttributeError) as error:
            raise UsageError("standard output is no file here; give output= a path, or none") from error

    def write(self, data: bytes) -> None:
        """Print. Raises `OutputClosed` when nobody reads any more."""
        try:
            while data:
                data = data[files.kernel.write(self._fd, data) :]
        except BrokenPipeError as error:
            raise OutputClosed from error
        except OSError as error:
            raise files.storage_error("write", "standard output", error) from error


class StdoutOutput(MemoryOutput):
    """Standard output: there is nothing to own and nothing to publish."""

    def writer(  # type: ignore[override]
        self,
        shard: int,  # noqa: ARG002  # the seam's
        *,
        frozen: int,  # noqa: ARG002
        rounds: Sequence[Round] = (),  # noqa: ARG002
        order: Sequence[int] | None = None,  # noqa: ARG002
    ) -> StdoutWriter:
        """Return a writer to the process's standard output."""
        return StdoutWriter()


class StdoutWriter:
    """Prints the results of a batch in one write."""

    def __init__(self) -> None:
        """Print text."""
        self._form = Text()
        self._out = Stdout()

    def intact(self, marks: Sequence[Any]) -> int:
        """Return the last: what was printed cannot be looked at again."""
        return len(marks) - 1

    def open(self, mark: None) -> None:  # noqa: ARG002  # the seam's
        """Let what Python has buffered go first."""
        sys.stdout.flush()

    def write(self, results: Sequence[Any]) -> None:
        """Print. Raises `OutputClosed` when nobody reads any more."""
        self._out.write(self._form.render(listed(results)))

    def mark(self) -> None:
        """Return nothing: there is nothing to cut back to."""

    def place(self) -> None:
        """Return nothing: what was printed stays as it is."""

    def sync(self) -> None:
        """Do nothing: a pipe cannot be synced."""

    def close(self) -> None:
        """Leave standard output open."""
