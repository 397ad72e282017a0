"""Results as lists, as rows and as JSON."""

from __future__ import annotations

import json
from typing import Any

from batchkit.plain import plain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def listed(results: Sequence[Any]) -> list[Any]:
    """Return the results of a batch as a list: of a table, its rows as dicts."""
    if isinstance(results, list):
        return results
    return list(results.iter_rows(named=True) if hasattr(results, "iter_rows") else results)


def as_row(result: Any) -> dict[str, Any]:
    """Return a result as a row: a named tuple has its names, a list or tuple `column_1` …, any other is `result`."""
    if isinstance(result, dict):
        return result
    if hasattr(result, "__dataclass_fields__"):
        import dataclasses  # noqa: PLC0415  # only results that need it pay for the import

        return dataclasses.asdict(result)
    if hasattr(result, "_asdict"):  # a named tuple
        return dict(result._asdict())
    if isinstance(result, list | tuple):
        return {f"column_{number}": value for number, value in enumerate(result, 1)}
    return {"result": result}


json_line = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=plain).encode
"""Return a value as one line of JSON. Raises `TypeError` or `ValueError` for what has no form in it."""
