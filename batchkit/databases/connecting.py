"""Opening a connection to a database by its address."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from batchkit.databases.address import Place
    from batchkit.databases.base import Session


def connect(place: Place, label: str = "batchkit", *, reading: bool = False) -> Session:
    """Return an open connection; label: what a server knows it by. reading: nothing can be changed through it.

    Raises `UsageError` where the driver is missing, `StorageError` where it cannot connect.
    """
    if place.kind == "sqlite":
        from batchkit.databases.sqlite import SqliteSession  # noqa: PLC0415  # only who needs a driver loads it

        return SqliteSession(place, reading=reading)
    if place.kind == "duckdb":
        from batchkit.databases.duck import DuckSession  # noqa: PLC0415  # as above

        return DuckSession(place, reading=reading)
    from batchkit.databases.postgres import PostgresSession  # noqa: PLC0415  # as above

    return PostgresSession(place, label, reading=reading)
