"""Syncing while the work goes on: a thread flushes what was written, the loop writes the next batches.

Waiting for the disk in the loop would cost a tenth of a run that writes 100 MB a second. The protocol does not need
the wait: a commit counts by the CRC of its output, and a mark says "synced" only after the sync has returned.
"""

from __future__ import annotations

import threading
from typing import Protocol


class Syncable(Protocol):
    """Something with bytes to make durable."""

    def sync(self) -> None:
        """Make what was written before the call durable."""


class Syncer:
    """Syncs streams in the order given, in the background or now.

    An error is final: it is raised by whatever is called next, and nothing is synced any more.
    """

    def __init__(self, *streams: Syncable) -> None:
        """Sync nothing yet."""
        self._streams = streams
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None

    def begin(self) -> None:
        """Wait for the sync that was begun last, if it still runs, and begin another."""
        self.wait()
        self._thread = threading.Thread(target=self._sync, name="batchkit-sync", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the sync that was begun last. Raises what it raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self.error is not None:
            raise self.error

    def now(self) -> None:
        """Make everything written so far durable on return."""
        self.wait()
        self._sync()
        self.wait()

    def _sync(self) -> None:
        try:
            for stream in self._streams:
                stream.sync()
        except BaseException as error:  # noqa: BLE001  # whatever it is, it is raised in the loop's own thread
            self.error = error
