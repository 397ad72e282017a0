"""Values that results hold, as JSON and CSV know them: dates, decimals, UUIDs, paths, dataclasses, array scalars."""

from __future__ import annotations

import json
import os
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def plain(value: Any) -> Any:
    """Return what JSON has for a value that it does not know. Raises `TypeError` if it has nothing.

    Only results that need it pay for these imports.
    """
    import dataclasses  # noqa: PLC0415
    import datetime  # noqa: PLC0415
    import decimal  # noqa: PLC0415
    import uuid  # noqa: PLC0415

    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal | uuid.UUID | os.PathLike):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "item") and hasattr(value, "dtype"):  # a scalar of an array library
        return str(value) if value.dtype.kind in "Mm" else value.item()
    if hasattr(value, "__await__"):
        raise TypeError(f"a {type(value).__name__} has no form in JSON; define the function with async def")
    raise TypeError(f"a {type(value).__name__} has no form in JSON")


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
