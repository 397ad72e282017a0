"""A stand-in for the home of polars."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    import polars


def frame_of_strings(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> polars.DataFrame:
    """Return rows of strings as a frame."""
    import polars as pl  # noqa: PLC0415

    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
