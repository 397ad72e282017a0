"""What the suites share."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.kernels import Unsynced, installed

if TYPE_CHECKING:
    from collections.abc import Iterator

IN_MEMORY = "/dev/shm"
"""Where Linux keeps files in memory."""


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """Give a directory in memory, where there is one: syncs, most of the time of a small job, cost nothing there."""
    if not os.access(IN_MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as directory:
        yield Path(directory)


@pytest.fixture(autouse=True)
def _unsynced() -> Iterator[None]:
    """Do without syncs where they would cost something all the same."""
    with installed(Unsynced()):
        yield
