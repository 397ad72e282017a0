"""Results that stay Python objects on their way from workers to the process that asked for them: a pickle a line.

Pickles are read by the run that wrote them only, in a directory of its own that goes with it.
"""

from __future__ import annotations

import base64
import pickle
from typing import Any

from batchkit.wire import packed
from batchkit.writers.base import ResultError
from batchkit.writers.formats import Plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Pickled(Plain):
    """Any value that can be pickled."""

    def render(self, results: Sequence[Any]) -> bytes:
        """Return the lines."""
        lines = []
        for index, result in enumerate(results):
            if result is not None:
                try:
                    lines.append(base64.b64encode(packed(result)))
                except TypeError as error:
                    raise ResultError(index, str(error)) from error
        return b"\n".join([*lines, b""])

    def parse(self, lines: Iterator[str]) -> Iterator[Any]:
        """Yield the values."""
        return (pickle.loads(base64.b64decode(line)) for line in lines)  # noqa: S301  # our own
