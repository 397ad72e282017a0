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
from itertools import zip_longest
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from batchkit.errors import UsageError

SCHEMES = {"sqlite": "sqlite", "duckdb": "duckdb", "postgresql": "postgresql", "postgres": "postgresql"}
_TARGET = ("table", "mode", "key")
_SOURCE = ("table", "query", "cursor")
MODES = ("append", "replace", "upsert")

_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://")

_HOST = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^:\[\]]*))(?::(\d+))?")
"""A host, IPv6 in brackets, and its port."""

_PLAIN = '.,"'
"""What needs no escape in the parameters of an address, besides letters and digits."""

_NAME = re.compile(r'"((?:[^"]|"")+)"|([^."]+)')


class Secretive(dict[str, str]):
    """Parameters of a connection, whose `repr` shows only their names."""

    def __repr__(self) -> str:
        """Return their names."""
        return f"<{', '.join(self)}>"


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

    kind: a value of `SCHEMES`. path: of its file, absolute; `None` for a server. server: libpq's parameters, with the
    password; none for a file.
    """

    kind: str
    path: str | None
    server: Secretive = Secretive()

    @property
    def shown(self) -> str:
        """The address for people and for the job's files: without a password."""
        if self.path is not None:
            return f"{self.kind}:///{quote(self.path, safe='/ ')}"
        return self._of_server(self.server.get("user"))

    def identity(self) -> str:
        """Return what tells this database from others, whoever connects to it."""
        return self.shown if self.path is not None else self._of_server(None)

    def _of_server(self, user: str | None) -> str:
        """Return the address of a server; sockets, whose names are paths, and services stand behind a "?"."""
        known = {name: self.server[name] for name in ("host", "port", "service") if name in self.server}
        where = ""
        if "/" not in known.get("host", "/"):
            hosts = known.pop("host").split(",")
            ports = known.pop("port", "").split(",")
            bracketed = [f"[{host}]" if ":" in host else host for host in hosts]
            pairs = zip_longest(bracketed, ports, fillvalue="")
            where = ",".join(f"{host}:{port}" if port else host for host, port in pairs)
        who = f"{quote(user)}@" if user else ""
        more = "&".join(f"{name}={quote(value, safe='/')}" for name, value in known.items())
        return f"{self.kind}://{who}{where}/{quote(self.server.get('dbname', ''))}" + (f"?{more}" if more else "")


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


def refuse_unknown(text: object) -> None:
    """Raise `UsageError` for the URL of something that is neither a file nor a database we know; without a password."""
    found = _SCHEME.match(text) if isinstance(text, str) else None
    if found is not None and found[1] not in SCHEMES:
        raise UsageError(
            f"'{found[0]}' is not known: give a path, or the address of a table: sqlite:///, duckdb:/// or postgresql://"
        )


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


def _split(url: str, known: tuple[str, ...]) -> tuple[Place, dict[str, str]]:
    """Return the database of an address, and what of its parameters is ours. Messages show no password."""
    scheme, _, rest = url.partition("://")
    kind = SCHEMES[scheme]
    head, _, parameters = rest.partition("?")
    pairs = [pair.partition("=") for pair in parameters.split("&") if pair]
    if not all(equals for _, equals, _ in pairs):
        raise _unreadable(kind)
    values = {unquote(name): _decoded(value, ours=name in known) for name, _, value in pairs}
    given = {name: value for name, value in values.items() if name in known}
    others = {name: value for name, value in values.items() if name not in known}
    if kind == "postgresql":
        return Place(kind, None, Secretive({**_server(head), **others})), given
    if others:
        raise UsageError(f"'{next(iter(others))}' is no parameter of a {kind} address; known are {', '.join(known)}")
    host, _, path = head.partition("/")
    if host:
        raise UsageError(f"the address '{kind}://{head}' names a host; give {kind}:///file, with three slashes")
    if not path or path == ":memory:":
        raise UsageError(f"the address '{kind}://{head}' names no file; give {kind}:///file.db")
    return Place(kind, os.path.realpath(unquote(path))), given


def _decoded(value: str, *, ours: bool) -> str:
    """Return the value of a parameter; a plus is a space in ours that were encoded as forms are, and never libpq's."""
    return unquote(value.replace("+", " ") if ours and " " not in value else value)


def _server(head: str) -> dict[str, str]:
    """Return libpq's parameters for `user:password@host:port,host:port/database`, any of which may be missing."""
    authority, _, database = head.partition("/")
    who, _, where = authority.rpartition("@")
    user, _, password = who.partition(":")
    matches = [_HOST.fullmatch(part) for part in where.split(",")]
    if not all(matches) or "@" in database:
        raise _unreadable("postgresql")
    hosts = [unquote(match[1] or match[2]) for match in matches if match]
    ports = [match[3] or "" for match in matches if match]
    found = {"user": unquote(user), "password": unquote(password), "dbname": unquote(database)}
    found |= {"host": ",".join(hosts).strip(","), "port": ",".join(ports) if any(ports) else ""}
    return {name: value for name, value in found.items() if value}


def _unreadable(kind: str) -> UsageError:
    return UsageError(
        f"the {kind} address cannot be read; write it as in {kind}://user@host/database?table=NAME, and of a name or a "
        "password the characters @ : / ? # & % as %40 %3A %2F %3F %23 %26 %25"
    )


def _with(address: str, parameters: dict[str, str]) -> str:
    query = "&".join(f"{name}={quote(value, safe=_PLAIN)}" for name, value in parameters.items())
    return f"{address}{'&' if '?' in address else '?'}{query}"
