"""Who listens to a run on the command line: a command at its end, a file of metrics, a log of JSON."""

from __future__ import annotations

from typing import Any

import click

from batchkit.cli.options import LOG_FORMAT, several

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from batchkit.events import Event

_KINDS = ("start", "batch", "failure", "stop", "complete")


def _remember(ctx: click.Context, _option: click.Parameter, value: str) -> str:
    ctx.meta[LOG_FORMAT] = value
    return value


listeners = several(
    click.option(
        "--notify",
        metavar="COMMAND",
        help="When the run ends, run this by a shell: what happened is on its standard input and in $BATCHKIT_STATUS, "
        "_JOB, _REASON, _DONE, _FAILED, _SECONDS, _OUTPUT, _SUMMARY.",
    ),
    click.option(
        "--metrics-file",
        metavar="FILE.prom",
        help="Keep metrics here, for the textfile collector of Prometheus' node exporter.",
    ),
    click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        callback=_remember,
        help="Of what is said on standard error; json: an object a line.",
    ),
)


def hooks_of(notify: str | None, metrics_file: str | None, log_format: str) -> dict[str, Any]:
    """Return the hooks that the options ask for, as `process` takes them. Raises `UsageError`."""
    heard: dict[str, list[Callable[[Event], Any]]] = {kind: [] for kind in _KINDS}
    if log_format == "json":
        for kind in ("start", "failure", "stop", "complete"):
            heard[kind].append(_log)
    if metrics_file is not None:
        from batchkit.metrics import MetricsFile  # noqa: PLC0415  # few runs need it

        metrics = MetricsFile(metrics_file)
        for kind in _KINDS:
            heard[kind].append(metrics)
    if notify is not None:
        from batchkit.notify import Notifier  # noqa: PLC0415  # as above

        heard["stop"].append(Notifier(notify))
        heard["complete"].append(Notifier(notify))
    return {f"on_{kind}": _all_of(each) for kind, each in heard.items() if each}


def _all_of(listening: list[Callable[[Event], Any]]) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        errors = []
        for each in listening:
            try:
                each(event)
            except Exception as error:  # noqa: BLE001  # the others are to hear of it, too
                errors.append(error)
        if errors:
            raise errors[0]

    return tell


def _log(event: Event) -> None:
    from batchkit.progress import json_line  # noqa: PLC0415  # as above

    facts = {name: value for name, value in event._asdict().items() if name not in {"kind", "time", "failure"}}
    if event.failure is not None:
        names = ("where", "error", "message", "attempts")
        facts = {"job": event.job, **{name: getattr(event.failure, name) for name in names}}
    click.echo(json_line(event.kind, **facts), err=True)
