"""Values that JSON does not know, as it knows them: dates, decimals, UUIDs, paths, dataclasses, array scalars."""

from __future__ import annotations

import os
from typing import Any


def plain(value: Any) -> Any:
    """Return what JSON has for a value that it does not know. Raises `TypeError` if it has nothing.

    Only those who need it pay for these imports.
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
