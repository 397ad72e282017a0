"""The address of a table, or of a query, as users write it: a URL whose password appears nowhere else.

    sqlite:///relative.db?table=users          sqlite:////absolute/path.db?table=users
    duckdb:///relative.duckdb?table=users
    postgresql://user@host:5432/database?table=schema.users&mode=upsert&key=id

What batchkit does not know in the query of a PostgreSQL address is libpq's (`sslmode`, `host` of a socket, `service`);
what is not given at all comes from its environment (`PGPASSWORD`, `PGHOST` …) and from ~/.pgpass, as for psql.
"""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from batchkit.errors import UsageError

SCHEMES = {"sqlite": "sqlite", "duckdb": "duckdb", "postgresql": "postgresql", "postgres": "postgresql"}
_TARGET = ("table", "mode", "key")
_SOURCE = ("table", "query", "cursor")
MODES = ("append", "replace", "upsert")

_PLAIN = '.,"'
"""What needs no escape in the parameters of an address, besides letters and digits."""

_NAME = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


class Table(NamedTuple):
    """A table's name; schema: `None`: wherever the database looks first."""

    schema: str | None
    name: str

    @property
    def sql(self) -> str:
        """The name as SQL has it."""
        return ".".join(quoted(part) for part in (self.schema, self.name) if part is not None)

    def beside(self, name: str) -> Table:
        """Return another table of the same schema."""
        return Table(self.schema, name)

    def __str__(self) -> str:
        """Return the name for people."""
        return self.name if self.schema is None else f"{self.schema}.{self.name}"


class Place(NamedTuple):
    """A database; its `repr` shows no password.

    kind: a value of `SCHEMES`. path: of its file, absolute; `None` for a server. dsn: what a server's driver connects
    with, password and all; "" for a file.
    """

    kind: str
    path: str | None
    dsn: Dsn

    @property
    def shown(self) -> str:
        """The address for people and for the job's files: without parameters and password."""
        return f"{self.kind}:///{self.path}" if self.path is not None else self.dsn.shown

    def identity(self) -> str:
        """Return what tells this database from others, whoever connects to it."""
        return self.shown if self.path is not None else self.dsn.identity


class Dsn(str):
    """A URL for a server's driver, whose `repr` hides its password."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Return it without what is secret."""
        return repr(self.shown)

    @property
    def shown(self) -> str:
        """The URL without its password and without parameters."""
        return self._without(keep_user=True)

    @property
    def identity(self) -> str:
        """The same without the user; parameters that say where the server is are in it."""
        return self._without(keep_user=False)

    def _without(self, *, keep_user: bool) -> str:
        parts = urlsplit(self)
        who, _, where = parts.netloc.rpartition("@")
        user = who.partition(":")[0]
        place = [
            (name, value) for name, value in parse_qsl(parts.query) if name in {"host", "port", "dbname", "service"}
        ]
        query = "&".join(f"{name}={quote(value, safe='/')}" for name, value in place)
        at = f"{user}@" if user and keep_user else ""
        return f"{parts.scheme}://{at}{where}{parts.path}" + (f"?{query}" if query else "")


class Target(NamedTuple):
    """Where results go: a table, and how they get there. key: columns that name a row, for `upsert`."""

    place: Place
    table: Table
    mode: str
    key: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The address for people and for the job's files: without a password."""
        return _with(self.place.shown, self._parameters())

    def identity(self) -> str:
        """Return what defines a job: the same whoever connects."""
        return _with(self.place.identity(), self._parameters())

    def _parameters(self) -> dict[str, str]:
        known = {
            "table": str(self.table),
            "mode": self.mode if self.mode != "append" else "",
            "key": ",".join(self.key),
        }
        return {name: value for name, value in known.items() if value}


class Query(NamedTuple):
    """Where items come from: a table or a query, in the order of a unique column."""

    place: Place
    table: Table | None
    query: str | None
    cursor: str

    @property
    def sql(self) -> str:
        """What stands behind FROM."""
        return self.table.sql if self.table is not None else f"({self.query}\n) AS batchkit_source"

    def identity(self) -> dict[str, Any]:
        """Return what defines a job."""
        what = {"table": str(self.table)} if self.table is not None else {"query": self.query}
        return {"database": self.place.identity(), **what, "cursor": self.cursor}


def quoted(name: str) -> str:
    """Return an identifier as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def is_address(text: object) -> bool:
    """Tell a database's address from a path."""
    return isinstance(text, str) and text.partition(":")[0] in SCHEMES and "://" in text


def target(url: str) -> Target:
    """Return the table that an address names for results. Raises `UsageError`."""
    place, given = _split(url, _TARGET)
    mode = given.get("mode", "append")
    key = tuple(name.strip() for name in given.get("key", "").split(",") if name.strip())
    if "table" not in given:
        raise UsageError(f"the output '{place.shown}' names no table; add ?table=NAME")
    if mode not in MODES:
        raise UsageError(f"the output's mode is '{mode}'; give one of {', '.join(MODES)}")
    if (mode == "upsert") != bool(key):
        raise UsageError(
            "mode=upsert needs the columns that name a row: add &key=id" if not key else "key= is for mode=upsert"
        )
    return Target(place, table(given["table"]), mode, key)


def query(url: str) -> Query:
    """Return the query that an address names as a source. Raises `UsageError`."""
    place, given = _split(url, _SOURCE)
    if ("table" in given) == ("query" in given):
        raise UsageError(f"the source '{place.shown}' needs a table or a query: add ?table=NAME or ?query=SELECT...")
    if not given.get("cursor"):
        raise UsageError(
            f"the source '{place.shown}' needs a unique column to go by, so that it can be resumed: add &cursor=id"
        )
    known = table(given["table"]) if "table" in given else None
    return Query(place, known, given.get("query", "").strip().rstrip(";") or None, given["cursor"])


def table(text: str) -> Table:
    """Return the table that `users`, `schema.users` or `"odd.name"` names. Raises `UsageError`."""
    parts = [(first.replace('""', '"') or second).strip() for first, second in _NAME.findall(text)]
    if not 1 <= len(parts) <= 2 or not all(parts) or '"' in _NAME.sub("", text):  # noqa: PLR2004  # schema and name
        raise UsageError(f"the table is '{text}'; give NAME or SCHEMA.NAME, with \"quotes\" around a name with a dot")
    return Table(parts[0] if len(parts) > 1 else None, parts[-1])


_HOSTS = re.compile(r"((\[[^\]]*\]|[^:@,\[\]]*)(:\d*)?(,|$))*")
"""Of a server: one or more, with or without ports."""


def _refuse_unescaped(head: str) -> None:
    """Raise `UsageError` where a password has signs that end it: the rest of it would be taken for a host and shown."""
    server, _, path = head.partition("/")
    who, _, hosts = server.rpartition("@")
    odd = "@" in who or "@" in path or "#" in head or re.search(r"%(?![0-9A-Fa-f]{2})", head)
    if odd or not _HOSTS.fullmatch(hosts):
        raise UsageError(
            "the address of the PostgreSQL database is none; write it as postgresql://user:password@host:port/name, "
            "with @ : / ? # % in a name or password as %40 %3A %2F %3F %23 %25"
        )


def _split(url: str, known: tuple[str, ...]) -> tuple[Place, dict[str, str]]:
    """Return the database of an address, and what of its parameters is ours. Messages show no password."""
    scheme, _, rest = url.partition("://")
    kind = SCHEMES[scheme]
    head, _, parameters = rest.partition("?")
    pairs = parse_qsl(parameters, keep_blank_values=True)
    given = {name: value for name, value in pairs if name in known}
    others = [(name, value) for name, value in pairs if name not in known]
    if kind == "postgresql":
        _refuse_unescaped(head)
        tail = "&".join(f"{name}={quote(value, safe='/')}" for name, value in others)
        return Place(kind, None, Dsn(f"{kind}://{head}" + (f"?{tail}" if tail else ""))), given
    if others:
        raise UsageError(f"'{others[0][0]}' is no parameter of a {kind} address; known are {', '.join(known)}")
    host, _, path = head.partition("/")
    if host:
        raise UsageError(f"the address '{kind}://{head}' names a host; give {kind}:///file, with three slashes")
    if not path or path == ":memory:":
        raise UsageError(f"the address '{kind}://{head}' names no file; give {kind}:///file.db")
    return Place(kind, os.path.realpath(unquote(path)), Dsn("")), given


def _with(address: str, parameters: dict[str, str]) -> str:
    query = "&".join(f"{name}={quote(value, safe=_PLAIN)}" for name, value in parameters.items())
    return f"{address}{'&' if '?' in address else '?'}{query}"
