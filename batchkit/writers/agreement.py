"""What the writers of several parts agree on, so that these make one output: columns and types.

results.csv.parts/columns-0    JSON: {"format": 1, …}, the terms, as the run began that lets several workers write
results.csv.parts/columns-1    what the first of them to have a result proposed; and so on

The kind of the output says what stands there besides the format. Each is made once and never changed; the last one is
what counts. Who proposes a further one that is there already has lost, and goes by it. So nobody waits for anybody, and
only a change of columns or types costs anything.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from batchkit import files
from batchkit.errors import DamageError

AGREEMENT_FORMAT = 1
_NAME = re.compile(r"columns-(\d+)")

Terms = dict[str, Any]


class Agreement:
    """One party to it. Durable is what any call returns: what is written after it may rely on it."""

    def __init__(self, directory: str) -> None:
        """Agree in the parts directory of an output."""
        self._directory = directory
        self._last = -1

    @property
    def path(self) -> str:
        """The file of what was last agreed on, as far as this party knows."""
        return os.path.join(self._directory, f"columns-{self._last}")

    def newest(self) -> Terms | None:
        """Return what counts now; `None`: nothing is to be agreed on, each part decides by what comes before it."""
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return None
        found = [int(match[1]) for match in map(_NAME.fullmatch, names) if match]
        if not found:
            return None
        self._last = max(found)
        files.sync_directory(self._directory)  # who made it may have been killed before it did that
        return self._read()

    def _read(self) -> Terms:
        try:
            terms: Terms = json.loads(files.read_bytes(self.path) or b"")
        except ValueError as error:
            raise DamageError(f"'{self.path}' is not readable; start over with --restart") from error
        if terms.get("format") != AGREEMENT_FORMAT:
            raise DamageError(f"'{self.path}' has format {terms.get('format')!r}, not {AGREEMENT_FORMAT}")
        return terms

    def propose(self, terms: Terms) -> Terms:
        """Propose what is to count from now on; return what does: `terms` itself, or what another was faster with."""
        self._last += 1
        data = json.dumps({"format": AGREEMENT_FORMAT, **terms}).encode() + b"\n"
        if files.create(self.path, data):
            return terms
        theirs = self.newest()
        if theirs is None:
            raise DamageError(f"'{self.path}' is gone; start over with --restart")
        return theirs
