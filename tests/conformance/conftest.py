"""What the suites share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.kernels import Unsynced, installed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _unsynced() -> Iterator[None]:
    """Do without syncs, which are most of the time of a small job."""
    with installed(Unsynced()):
        yield
