"""Results as rows of a table."""

from __future__ import annotations

from typing import Any

from batchkit.frames.columns import Mismatch
from batchkit.frames.loose import of_rows, of_table
from batchkit.frames.rows import is_table, table_of
from batchkit.writers.base import ResultError
from batchkit.writers.values import as_row

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from batchkit.frames.loose import Loose


def tabled(results: Sequence[Any], columns: Callable[[], Sequence[str]]) -> tuple[Loose | None, list[int] | None]:
    """Return results as rows, `None` for no row, and of each row the index of its result; `None`: its own.

    columns: tells those of the table, none if there is no table yet; lists and single values are told by their place.
    Raises `ResultError`.
    """
    whole = getattr(results, "frame", results)
    if is_table(whole):
        rows = of_table(table_of(whole))
        return (rows if rows.frame.height else None), None
    indexes: list[int] = []
    dicts: list[dict[str, Any]] = []
    for number, result in enumerate(results):
        for row in table_of(result).iter_rows(named=True) if is_table(result) else [result]:
            if row is not None:
                dicts.append(_named(number, row, columns))
                indexes.append(number)
    try:
        return (of_rows(dicts) if dicts else None), indexes
    except Mismatch as error:
        index = None if error.index is None else indexes[error.index]
        raise ResultError(index, f"its column '{error.column}' is {error.found}, which no column can hold") from error


def _named(index: int, result: Any, columns: Callable[[], Sequence[str]]) -> dict[str, Any]:
    if isinstance(result, dict):
        return result
    if hasattr(result, "_asdict") or hasattr(result, "__dataclass_fields__"):
        return as_row(result)
    names = columns()
    if not names:
        return as_row(result)
    fields = list(result) if isinstance(result, list | tuple) else [result]
    if len(fields) != len(names):
        raise ResultError(
            index,
            f"it has {len(fields)} field{'s' * (len(fields) != 1)} and the table {len(names)} columns "
            f"({', '.join(names)}); return a dict",
        )
    return dict(zip(names, fields, strict=True))
