"""What a person sees while a job works: a bar on a terminal or in a notebook, now and then a line otherwise.

The share done comes from the reader's units (bytes of files, items of lists), so nothing is counted beforehand. After
a resume the bar starts where the job is; rates count this run only.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

MODES = ("auto", "bar", "log", "json", "none")
FIRST_LOOK = 0.4
"""Seconds before anything is shown: shorter runs need neither a bar nor the 40 ms of importing one."""

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {unit}, {remaining} left"
_NO_BAR = "{desc}: {unit}, {elapsed}"
BAR_EVERY = 0.1
LOG_EVERY = (5.0, 30.0)
"""Seconds before the first line and between the later ones."""

_FIRST = {"bar": FIRST_LOOK, "log": LOG_EVERY[0], "json": LOG_EVERY[0]}


class Progress:
    """Shows how far a run is.

    name: the job's. total: extent of the whole job in `unit`s ("B" or "items"), `None` while unknown. at: extent done
    before this run. items: items done before this run.
    """

    def __init__(  # noqa: PLR0913  # keyword-only facts of one run
        self,
        mode: str,
        *,
        name: str,
        unit: str,
        total: int | None,
        at: int,
        items: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Show nothing yet; `mode` is one of `MODES`."""
        self._stream = sys.stderr if stream is None else stream
        self._mode = _chosen(self._stream) if mode == "auto" else mode
        self._name, self._unit, self._total = name, unit, total
        self._at_first, self._items_first = at, items
        self._clock = clock
        self._begun = clock()
        self._due = self._begun + {"bar": FIRST_LOOK, "log": LOG_EVERY[0], "json": LOG_EVERY[0]}.get(
            self._mode, float("inf")
        )
        self._bar: Any = None
        self._alone = threading.current_thread() is threading.main_thread()  # else it may be one of several bars
        self._lock = threading.Lock()

    def show(self, at: int, items: int, failed: int = 0) -> float:
        """Show that `at` units and `items` items of the job are done, `failed` of them in vain, if it is time to.

        Returns the reading of the clock from which on there is something to show again.
        """
        now = self._clock()
        if now < self._due or not self._lock.acquire(blocking=False):  # the watch may be showing it
            return self._due
        try:
            if self._mode == "bar":
                self._due = now + BAR_EVERY
                self._show_bar(at, items, failed, now)
            else:
                self._due = now + LOG_EVERY[1]
                line = self._line if self._mode == "log" else self._json_line
                self._stream.write(line(at, items, failed, now) + "\n")
                self._stream.flush()
        except (OSError, ValueError):  # nobody looks any more; that is no reason to stop working
            self._due = float("inf")
        finally:
            self._lock.release()
        return self._due

    def _show_bar(self, at: int, items: int, failed: int, now: float) -> None:
        if self._bar is None:
            self._bar = self._make_bar()
        self._bar.unit = f"{items:,} items{_of_which(failed)}, {self._rate(items, now):,.0f}/s"
        self._bar.n = at
        self._bar.refresh()

    def _make_bar(self) -> Any:
        if _in_notebook() and find_spec("ipywidgets") is not None:  # else a bar of text does
            from tqdm.notebook import tqdm  # noqa: PLC0415  # 60 ms, and only long runs show a bar
        else:
            from tqdm import tqdm  # type: ignore[assignment]  # noqa: PLC0415
        bar = tqdm(
            desc=self._name,
            total=self._total,
            initial=self._at_first,
            file=self._stream if not _in_notebook() else None,
            ncols=None if _in_notebook() else max(40, shutil.get_terminal_size().columns - 3),  # room for an echoed ^C
            bar_format=_BAR if self._total else _NO_BAR,
            leave=self._alone,
        )
        bar.start_t -= self._clock() - self._begun
        return bar

    def _rate(self, items: int, now: float) -> float:
        return (items - self._items_first) / max(now - self._begun, 1e-9)

    def _line(self, at: int, items: int, failed: int, now: float) -> str:
        parts = [f"{items:,} items done{_of_which(failed)}", f"{self._rate(items, now):,.0f}/s"]
        speed = (at - self._at_first) / max(now - self._begun, 1e-9)
        if self._total:
            parts.insert(0, f"{at / self._total:.0%}")
            if speed > 0:
                parts.append(f"about {duration((self._total - at) / speed)} left")
        return f"{self._name}: {', '.join(parts)}"

    def _json_line(self, at: int, items: int, failed: int, now: float) -> str:
        speed = (at - self._at_first) / max(now - self._begun, 1e-9)
        share = at / self._total if self._total else None
        left = (self._total - at) / speed if self._total and speed > 0 else None
        counts = {"items": items, "failed": failed, "rate": round(self._rate(items, now), 3)}
        return json_line("progress", job=self._name, **counts, share=share, seconds_left=left)

    def close(self) -> None:
        """Leave the bar as it stands; one of several goes, for the others move up."""
        if self._bar is not None:
            with suppress(OSError, ValueError):
                self._bar.close()
                if not self._alone:
                    self._stream.write("\r")  # where the line of a bar that goes is blanked, but not left


def _of_which(failed: int) -> str:
    return f" ({failed:,} failed)" if failed else ""


def _chosen(stream: TextIO | None) -> str:
    if stream is None:  # closed
        return "none"
    return "bar" if _in_notebook() or stream.isatty() else "log"


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return type(running).__name__ == "ZMQInteractiveShell"


def duration(seconds: float) -> str:
    """Return seconds as people write them: `4.2s`, `3m 05s`, `2h 10m`."""
    if round(seconds, 1) < 60:  # noqa: PLR2004  # seconds of a minute
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:  # noqa: PLR2004  # minutes of an hour
        return f"{minutes}m {rest:02d}s"
    return f"{minutes // 60}h {minutes % 60:02d}m"


def sayer(progress: str, name: str = "batchkit") -> Callable[[str], None]:
    """Return what tells people something: on standard error, or nowhere where progress is off.

    name: of who talks.
    """
    if progress == "none":
        return _say_nothing
    return _say_json if progress == "json" else partial(_say, name)


def _say(name: str, text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # nobody may listen
        line = f"{name}: {text}"
        if (bars := sys.modules.get("tqdm")) is not None:
            bars.tqdm.write(line, file=sys.stderr)  # above what bars there are
        else:
            sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def json_line(event: str, **facts: Any) -> str:
    """Return a line of a log for machines: when, what, and facts of it, JSON values."""
    import json  # noqa: PLC0415  # few runs log so

    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"time": now, "event": event, **facts}, ensure_ascii=False)


def _say_json(text: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # nobody may listen
        sys.stderr.write(json_line("message", text=text) + "\n")
        sys.stderr.flush()


def _say_nothing(_text: str) -> None:
    pass
