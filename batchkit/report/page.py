"""One self-contained HTML page about a job's past: no network, light and dark, for desks and phones."""

from __future__ import annotations

import datetime
import json
import os
from html import escape
from importlib.util import find_spec
from itertools import islice
from typing import Any

from batchkit import __version__, files
from batchkit.errors import UsageError
from batchkit.overview import overview_of
from batchkit.progress import duration
from batchkit.report.figures import figures
from batchkit.report.sampling import sampled
from batchkit.run import failures_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from batchkit.job import JobDirectory, Manifest
    from batchkit.model import Failure
    from batchkit.overview import Overview
    from batchkit.report.sampling import Sample

_FAILURES = 10_000
"""Failures that are looked at, at most."""

_EXAMPLES = 3
_RUNS = 100
_TITLES = {
    "progress": "Progress",
    "throughput": "Throughput",
    "batches": "How long a batch took",
    "timeline": "When shards were worked on",
    "failures": "Failures by type",
}

_CSS = """
:root{color-scheme:light dark;--ink:#1f2328;--soft:#656d76;--back:#f6f8fa;--card:#fff;--edge:#d0d7de}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#8d96a0;--back:#0d1117;--card:#161b22;--edge:#30363d}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1200px;margin:0 auto;padding:24px 16px;display:grid;gap:16px}
main{grid-template-columns:repeat(2,minmax(0,1fr))}
header,.wide{grid-column:1/-1}h1{margin:0;font-size:26px;overflow-wrap:anywhere}h2{margin:0 0 8px;font-size:16px}
section{background:var(--card);border:1px solid var(--edge);border-radius:10px;padding:16px;min-width:0}
.soft{color:var(--soft)}.bar{height:10px;border-radius:5px;background:var(--edge);margin:10px 0;overflow:hidden}
.bar div{height:100%;background:#3b82f6}.plot{height:300px;overflow:hidden}.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
td,th{text-align:left;padding:4px 12px 4px 0;vertical-align:top}
th{color:var(--soft);font-weight:500;white-space:nowrap}tr+tr td{border-top:1px solid var(--edge)}
td{white-space:nowrap}td:last-child{white-space:normal;overflow-wrap:anywhere;min-width:12em}
@media(max-width:760px){main{grid-template-columns:minmax(0,1fr);padding:12px}.plot{height:250px}}
"""

_SCRIPT = """
const dark = matchMedia("(prefers-color-scheme: dark)");
function draw() {
  const ink = dark.matches ? "#e6edf3" : "#1f2328", grid = dark.matches ? "#30363d" : "#e4e8ec";
  for (const [name, figure] of Object.entries(FIGURES)) {
    const layout = structuredClone(figure.layout);
    Object.assign(layout, {paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: {color: ink, family: "system-ui, sans-serif"}, margin: {l: 8, r: 8, t: 8, b: 8}});
    for (const axis of ["xaxis", "yaxis"])
      Object.assign(layout[axis], {gridcolor: grid, zerolinecolor: grid, automargin: true});
    Plotly.react(name, figure.data, layout, {responsive: true, displayModeBar: false});
  }
}
dark.addEventListener("change", draw);
draw();
"""


def write_report(directory: JobDirectory, manifest: Manifest, path: str | os.PathLike[str]) -> None:
    """Write a page about a job's past to a file, which appears whole. Raises `UsageError` without plotly."""
    name = os.path.abspath(path)
    file = files.AppendFile(f"{name}.new", mode=files.SHARED)
    try:
        file.append(page(directory, manifest).encode())
    finally:
        file.close()
    files.rename(f"{name}.new", name)


def page(directory: JobDirectory, manifest: Manifest) -> str:
    """Return the page. Time and memory are bounded, however many commits there are: they are sampled."""
    script = _plotly()
    seen, samples = overview_of(directory, manifest), sampled(directory, manifest)
    counts, examples = _failures(failures_of(directory, manifest))
    plots = figures(samples, seen.runs, counts)
    drawn = json.dumps(plots).replace("<", "\\u003c")
    parts = [
        _head(seen),
        *(_plot(name, wide=name not in {"throughput", "batches"}) for name in _TITLES if name in plots),
        _examples(examples),
        _runs(seen),
        _facts("Options", {**manifest.definition, **(manifest.options or {})}),
        _facts("Environment", _environment(directory, manifest)),
        f'<p class="soft wide">{escape(_sampled(samples))} Written {_clock(None)} by batchkit {__version__}.</p>',
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(directory.name)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_CSS}</style></head><body><main>'
        f"{''.join(parts)}</main><script>{script}</script><script>const FIGURES = {drawn};{_SCRIPT}</script>"
        "</body></html>\n"
    )


def _plotly() -> str:
    """Return plotly.js; its Python side takes half a second to import, and is not needed."""
    found = find_spec("plotly")
    if found is None or found.origin is None:
        raise UsageError("a report needs plotly; install it: pip install 'batchkit[report]'")
    with open(os.path.join(os.path.dirname(found.origin), "package_data", "plotly.min.js"), encoding="utf-8") as file:
        return file.read()


def _failures(failures: Iterable[Failure]) -> tuple[dict[str, int], dict[str, list[Failure]]]:
    counts: dict[str, int] = {}
    examples: dict[str, list[Failure]] = {}
    for failure in islice(failures, _FAILURES):
        counts[failure.error] = counts.get(failure.error, 0) + 1
        if counts[failure.error] <= _EXAMPLES:
            examples.setdefault(failure.error, []).append(failure)
    ordered = sorted(counts, key=lambda name: -counts[name])
    return {name: counts[name] for name in ordered}, {name: examples[name] for name in ordered}


def _head(seen: Overview) -> str:
    one = seen.status
    share = "" if one.share is None else f'<div class="bar"><div style="width:{one.share:.1%}"></div></div>'
    counts = [f"{one.done:,} done", f"{one.failed:,} failed", f"{one.skipped:,} skipped"]
    counts += [f"about {seen.left:,} left"] if seen.left else []
    counts += [f"{len(seen.runs):,} runs", f"{duration(seen.seconds)} in all"]
    counts += [f"{one.share:.1%}"] if one.share is not None else []
    reason = f" · {escape(one.reason)}" if one.reason else ""
    return (
        f'<header><h1>{escape(one.job)}</h1><div><b>{escape(one.status)}</b><span class="soft">{reason}</span></div>'
        f'{share}<div class="soft">{escape(" · ".join(counts))}</div></header>'
    )


def _plot(name: str, *, wide: bool) -> str:
    title = escape(_TITLES[name])
    return f'<section class="{"wide" if wide else ""}"><h2>{title}</h2><div class="plot" id="{name}"></div></section>'


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[Any]], *, note: str = "") -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(_text(cell))}</td>' for cell in row)}</tr>" for row in rows)
    lines = f"<thead><tr>{names}</tr></thead>" if names else ""
    return (
        f'<section class="wide"><h2>{escape(title)}</h2><div class="scroll"><table>{lines}<tbody>{body}</tbody></table>'
        f'</div><div class="soft">{escape(note)}</div></section>'
    )


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _examples(examples: dict[str, list[Failure]]) -> str:
    rows = [
        (name, _text(failure.item)[:200], failure.where, failure.message[:300])
        for name, found in examples.items()
        for failure in found
    ]
    note = f"At most {_EXAMPLES} of each type, of the first {_FAILURES:,} failures."
    return _table("Failures, examples", ("type", "item", "where", "message"), rows, note=note) if rows else ""


def _runs(seen: Overview) -> str:
    rows = [
        (
            str(run.run) + (f" ({run.part})" if run.part else ""),
            _clock(run.start),
            duration(run.seconds) if run.seconds is not None else "",
            f"{run.new:,}" if run.new is not None else "",
            f"{run.new / run.seconds:,.0f}/s" if run.new and run.seconds else "",
            run.workers,
            run.host,
            (run.status or "at work, or killed") + (f": {run.reason}" if run.reason else ""),
        )
        for run in seen.runs[: -_RUNS - 1 : -1]
    ]
    head = ("run", "began", "took", "items", "speed", "workers", "host", "end")
    note = f"The last {_RUNS} of {len(seen.runs):,}." if len(seen.runs) > _RUNS else ""
    return _table("Runs", head, rows, note=note) if rows else ""


def _facts(title: str, facts: dict[str, Any]) -> str:
    return _table(title, (), [(name, value) for name, value in facts.items() if value is not None])


def _environment(directory: JobDirectory, manifest: Manifest) -> dict[str, Any]:
    starts = [entry for entry in directory.runs() if "start" in entry]
    last = starts[-1] if starts else {}
    known = {name: last.get(name) for name in ("host", "python", "batchkit")}
    return {"job": manifest.job, "begun": _clock(manifest.created), "state": directory.path, **known}


def _sampled(samples: Sequence[Sample]) -> str:
    total = sum(sample.total for sample in samples)
    read = sum(len(sample.commits) for sample in samples)
    if read >= total:
        return f"From all {total:,} commits."
    return f"From {read:,} of {total:,} commits, taken evenly over the job: single slow batches between are not seen."


def _clock(at: float | None) -> str:
    then = datetime.datetime.now().astimezone() if at is None else datetime.datetime.fromtimestamp(at).astimezone()
    return then.strftime("%Y-%m-%d %H:%M:%S %Z")
