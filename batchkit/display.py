"""How a notebook shows a result or a job: a small card, which takes light and dark from the page around it."""

from __future__ import annotations

from html import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_COLOURS = {"completed": "#2e9e5b", "running": "#3b82f6", "paused": "#d9920a", "failed": "#d64545", "new": "#8a8f98"}
_CELL = "padding:1px 14px 1px 0;text-align:left;border:0;background:none"


def card(title: str, status: str, share: float | None, facts: Mapping[str, object]) -> str:
    """Return HTML that shows how something stands.

    share: 0 to 1, drawn as a bar; `None`: unknown, no bar. facts: names and values; those that are `None` or empty are
    left out. Whatever it is given is escaped.
    """
    colour = _COLOURS.get(status, "#8a8f98")
    rows = "".join(
        f'<tr style="background:none"><td style="{_CELL};opacity:.65">{escape(name)}</td>'
        f'<td style="{_CELL}">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
        if value not in {None, ""}
    )
    return (
        '<div style="display:inline-block;border:1px solid rgba(128,128,128,.35);border-radius:8px;'
        'padding:10px 14px;min-width:20em;font-family:system-ui,sans-serif;font-size:13px;line-height:1.5">'
        f'<div><b>{escape(title)}</b> <span style="color:{colour};font-weight:600">● {escape(status)}</span></div>'
        f'{_bar(share, colour)}<table style="border:0;margin:4px 0 0;border-collapse:collapse">{rows}</table></div>'
    )


def _bar(share: float | None, colour: str) -> str:
    if share is None:
        return ""
    percent = f"{share:.1%}"
    return (
        f'<div title="{percent}" style="height:8px;border-radius:4px;margin:6px 0;background:rgba(128,128,128,.25)">'
        f'<div style="height:8px;border-radius:4px;width:{percent};background:{colour}"></div></div>'
    )
