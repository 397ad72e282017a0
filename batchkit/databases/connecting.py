"""Opening a connection to a database by its address."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.databases.address import Place
    from batchkit.databases.base import Session


def connect(place: Place, label: str = "batchkit") -> Session:
    """Return an open connection; label: what a server knows it by.

    Raises `UsageError` where the driver is missing, `StorageError` where it cannot connect.
    """
    if place.kind == "sqlite":
        from batchkit.databases.sqlite import SqliteSession  # noqa: PLC0415  # only who needs a driver loads it

        return SqliteSession(place)
    if place.kind == "duckdb":
        from batchkit.databases.duck import DuckSession  # noqa: PLC0415  # as above

        return DuckSession(place)
    from batchkit.databases.postgres import PostgresSession  # noqa: PLC0415  # as above

    return PostgresSession(place, label)
