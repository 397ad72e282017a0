"""Metrics of a run in Prometheus' text format, in a file that its node exporter's textfile collector reads.

Written whole, by a rename, by Prometheus' own client library; so a reader sees one state or the next.
"""

from __future__ import annotations

import os
import time

from batchkit.errors import StorageError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.events import Event

EVERY = 5.0
"""Seconds between two writes while a run is at work: Prometheus looks each 15 or 60."""

_STATES = ["running", "completed", "paused", "failed"]


class MetricsFile:
    """Writes what it hears of a run to a file."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Name the file, `NAME.prom`. Raises `UsageError` without prometheus_client, or where it cannot be."""
        try:
            import prometheus_client  # noqa: PLC0415  # 60 ms, and an extra
        except ImportError:
            raise UsageError("metrics need prometheus_client; install it: pip install 'batchkit[metrics]'") from None
        directory = os.path.dirname(path) or "."
        if not path.endswith(".prom") or not os.path.isdir(directory):
            raise UsageError(f"the metrics file '{path}' has to end in .prom, in a directory that exists")
        self._path = path
        self._clock = clock
        self._due = 0.0
        self._prometheus = prometheus_client
        registry = self._registry = prometheus_client.CollectorRegistry()

        def gauge(name: str, text: str, *labels: str) -> prometheus_client.Gauge:
            return prometheus_client.Gauge(f"batchkit_{name}", text, ("job", *labels), registry=registry)

        self._items = gauge("items", "Items of the job in all runs", "outcome")
        self._share = gauge("share_done", "How much of the input is done, 0 to 1; NaN: unknown")
        self._new = gauge("run_items", "Items done, failed or skipped in this run")
        self._seconds = gauge("run_seconds", "Seconds since the run began")
        self._updated = gauge("updated_timestamp_seconds", "When this was true")
        self._status = prometheus_client.Enum(
            "batchkit_status", "Of the run", ("job",), registry=registry, states=_STATES
        )

    def __call__(self, event: Event) -> None:
        """Write the file, if it is time to. Raises `StorageError`."""
        if event.kind in {"batch", "failure"} and self._clock() < self._due:
            return
        self._due = self._clock() + EVERY
        job = event.job or "memory"
        for outcome in ("done", "failed", "skipped"):
            self._items.labels(job, outcome).set(getattr(event, outcome))
        self._share.labels(job).set(float("nan") if event.share is None else event.share)
        self._new.labels(job).set(event.new)
        self._seconds.labels(job).set(event.seconds)
        self._updated.labels(job).set(event.time)
        self._status.labels(job).state(event.status)
        try:
            self._prometheus.write_to_textfile(self._path, self._registry)
        except OSError as error:
            raise StorageError(f"cannot write the metrics '{self._path}': {error.strerror}") from error
