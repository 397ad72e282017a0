"""The plots of a report, as plotly.js takes them: plain JSON, see its figure reference."""

from __future__ import annotations

import datetime
import math
from bisect import bisect_right
from itertools import pairwise
from typing import Any

from batchkit.report.sampling import active, progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from batchkit.overview import RunFacts
    from batchkit.report.sampling import Sample

_POINTS = 1500
"""Points of a curve, at most: more cannot be seen."""

_RUNS = 200
"""The newest runs, as many as are shown."""

_BINS = 120
_BARS = 40
_BLUE, _RED, _GREEN = "#3b82f6", "#d64545", "#2e9e5b"

Figure = dict[str, Any]


def figures(samples: Sequence[Sample], runs: Sequence[RunFacts], failures: Mapping[str, int]) -> dict[str, Figure]:
    """Return the plots of a job by name; those for which there is nothing to show are left out."""
    points = progress(samples)
    found: dict[str, Figure] = {}
    if points:
        found["progress"] = _progress(points, runs)
        found["throughput"] = _throughput(points, runs)
        found["batches"] = _batches([commit.seconds for each in samples for commit in each.commits if not commit.end])
        found["timeline"] = _timeline(samples)
    if failures:
        found["failures"] = _bars(failures)
    return found


def _figure(data: list[Figure], x: str, y: str, **layout: Any) -> Figure:
    axes: Figure = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}, "rangemode": "tozero"}}
    for name, value in layout.items():
        axes[name] = {**axes.get(name, {}), **value} if isinstance(value, dict) else value
    return {"data": data, "layout": axes}


def _moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).isoformat(timespec="milliseconds")  # noqa: DTZ006  # plots are local


def _thin(points: Sequence[Any]) -> list[Any]:
    step = max(1, math.ceil(len(points) / _POINTS))
    return [*points[::step], points[-1]]


def _progress(points: Sequence[tuple[float, int, int]], runs: Sequence[RunFacts]) -> Figure:
    thin = sorted([*_starts(points, runs), *_thin(points)])
    x = [_moment(at) for at, _, _ in thin]
    curves = [("items", _BLUE, [items for _, items, _ in thin])]
    if points[-1][2]:
        curves.append(("failed", _RED, [failed for _, _, failed in thin]))
    data: list[Figure] = [
        {"type": "scatter", "mode": "lines", "name": name, "line": {"color": colour}, "x": x, "y": y}
        for name, colour, y in curves
    ]
    bands = [
        {"type": "rect", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0}, "opacity": 0.08}
        | {"fillcolor": _GREEN, "x0": _moment(run.start), "x1": _moment(run.end or points[-1][0])}
        for run in runs[-_RUNS:]
    ]
    return _figure(data, "", "items", shapes=bands)


def _starts(points: Sequence[tuple[float, int, int]], runs: Sequence[RunFacts]) -> list[tuple[float, int, int]]:
    """Return how far the job was when runs began, for nothing was done since the commit before."""
    times = [at for at, _, _ in points]
    known = [(0.0, 0, 0), *points]
    return [(run.start, *known[bisect_right(times, run.start)][1:]) for run in runs[-_RUNS:]]


def _throughput(points: Sequence[tuple[float, int, int]], runs: Sequence[RunFacts]) -> Figure:
    """Items a second in equal stretches of time; the count at their borders is interpolated between commits."""
    points = sorted([*_starts(points, runs), *points])
    first, last = points[0][0], points[-1][0]
    width = max((last - first) / _BINS, 1e-3)
    times = [at for at, _, _ in points]
    counts = [count for _, count, _ in points]
    edges = [first + width * index for index in range(_BINS + 1)]
    reached = [_at(edge, times, counts) for edge in edges]
    rates = [(after - before) / width for before, after in pairwise(reached)]
    x = [_moment(edge + width / 2) for edge in edges[:-1]]
    line = {"color": _BLUE, "shape": "hvh"}
    data = [{"type": "scatter", "mode": "lines", "fill": "tozeroy", "line": line, "x": x, "y": rates}]
    return _figure(data, "", "items a second")


def _at(moment: float, times: Sequence[float], counts: Sequence[int]) -> float:
    index = bisect_right(times, moment)
    if index == 0:
        return 0.0
    if index == len(times):
        return float(counts[-1])
    before, after = times[index - 1], times[index]
    part = (moment - before) / (after - before) if after > before else 0.0
    return counts[index - 1] + part * (counts[index] - counts[index - 1])


def _batches(seconds: Sequence[float]) -> Figure:
    """How many batches took how long, in bins of equal ratio."""
    known = [max(each, 1e-6) for each in seconds] or [1e-6]
    low, high = math.log10(min(known)), math.log10(max(known))
    width = max((high - low) / _BARS, 1e-3)
    counts = [0] * (_BARS + 1)
    for each in known:
        counts[min(_BARS, int((math.log10(each) - low) / width))] += 1
    middles = [10 ** (low + width * (index + 0.5)) for index in range(_BARS + 1)]
    widths = [10 ** (low + width * (index + 1)) - 10 ** (low + width * index) for index in range(_BARS + 1)]
    data = [{"type": "bar", "x": middles, "y": counts, "width": widths, "marker": {"color": _BLUE}}]
    return _figure(data, "seconds a batch", "batches", xaxis={"type": "log"})


def _timeline(samples: Sequence[Sample]) -> Figure:
    """A row for each shard: when it was worked on."""
    ends = [commit.time for sample in samples for commit in (*sample.commits[:1], *sample.commits[-1:])]
    least = max((max(ends) - min(ends)) / 400, 0.05)
    x: list[str | None] = []
    y: list[str | None] = []
    for sample in samples:
        for begun, ended in active(sample.commits, least):
            x += [_moment(begun), _moment(ended), None]
            y += [f"shard {sample.shard}", f"shard {sample.shard}", None]
    line = {"width": max(2, min(14, 400 // max(1, len(samples)))), "color": _GREEN}
    data = [{"type": "scatter", "mode": "lines", "connectgaps": False, "line": line, "x": x, "y": y}]
    around = [len(samples) - 0.5, -0.5]
    return _figure(data, "", "", yaxis={"type": "category", "range": around, "autorange": False})


def _bars(failures: Mapping[str, int]) -> Figure:
    names = list(failures)[::-1]
    x = [failures[name] for name in names]
    width = min(0.5, 0.12 * len(names))  # one kind alone would fill the plot
    data = [{"type": "bar", "orientation": "h", "y": names, "x": x, "marker": {"color": _RED}, "width": width}]
    return _figure(data, "items", "", yaxis={"type": "category"})
