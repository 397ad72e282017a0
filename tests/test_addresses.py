"""Addresses of tables, as users write them."""

from __future__ import annotations

import os
from urllib.parse import urlencode

import pytest

from batchkit.databases.address import query, table, target
from batchkit.errors import UsageError


@pytest.mark.parametrize(
    ("url", "shown", "identity"),
    [
        ("postgresql://ann:pw@db/shop?table=t", "postgresql://ann@db/shop?table=t", "postgresql://db/shop?table=t"),
        (
            "postgres://db:5433/shop?table=a.t",
            "postgresql://db:5433/shop?table=a.t",
            "postgresql://db:5433/shop?table=a.t",
        ),
        ("postgresql:///shop?table=t", "postgresql:///shop?table=t", "postgresql:///shop?table=t"),
        (
            "postgresql://ann@/shop?host=/run/pg&port=5433&sslmode=disable&password=pw&table=t&mode=replace",
            "postgresql://ann@/shop?host=/run/pg&port=5433&table=t&mode=replace",
            "postgresql:///shop?host=/run/pg&port=5433&table=t&mode=replace",
        ),
        (
            "postgresql://ann:p%40w@one:1,[::1]:2/shop?table=t&mode=upsert&key=a,b",
            "postgresql://ann@one:1,[::1]:2/shop?table=t&mode=upsert&key=a,b",
            "postgresql://one:1,[::1]:2/shop?table=t&mode=upsert&key=a,b",
        ),
        ("sqlite:////data/a%20b.db?table=t", "sqlite:////data/a b.db?table=t", "sqlite:////data/a b.db?table=t"),
        ("duckdb:////data/a.duckdb?table=t", "duckdb:////data/a.duckdb?table=t", "duckdb:////data/a.duckdb?table=t"),
    ],
)
def test_an_address_is_shown_without_a_password_and_known_again_without_a_user(
    url: str, shown: str, identity: str
) -> None:
    """What is shown goes into the job's files; what defines a job is where the rows go, whoever connects."""
    found = target(url)
    assert (found.shown, found.identity()) == (shown, identity)
    assert target(found.shown).identity() == identity
    assert "pw" not in repr(found)


def test_a_file_is_known_by_its_absolute_path(workdir: os.PathLike[str]) -> None:
    """Relative addresses mean a file here."""
    assert target("sqlite:///a.db?table=t").place.path == os.path.join(os.fspath(workdir), "a.db")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:pw?d@db/shop?table=t",
        "postgresql://ann:pw/d@db/shop?table=t",
        "postgresql://ann:1?pw@db/shop&table=t",
        "postgresql://ann:pw:x@db:port/shop?table=t",
        "postgresql://ann:pw@db/shop?table=t&mode=merge",
        "postgresql://ann:pw@db/shop?table=t&mode=upsert",
        "postgresql://ann:pw@db/shop?table=t&key=id",
        "postgresql://ann:pw@db/shop",
        "postgresql://ann:pw@db/shop?table=a.b.c",
        "sqlite://host/a.db?table=t",
        "sqlite:///?table=t",
        "sqlite:///:memory:?table=t",
        "sqlite:///a.db?table=t&sslmode=x",
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_showing_a_password(url: str) -> None:
    """What is wrong is said in one line."""
    with pytest.raises(UsageError) as caught:
        target(url)
    assert "pw" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_tables_may_be_quoted() -> None:
    """A dot separates schema and table, but in quotes."""
    assert table("t").sql == '"t"'
    assert table("s.t").sql == '"s"."t"'
    assert table('"a.b"').sql == '"a.b"'
    assert table('s."a ""b"""').sql == '"s"."a ""b"""'


def test_the_sql_of_a_source_is_taken_as_it_is_written() -> None:
    """A plus is a plus, but in one that was encoded; what means something in an address is written as %XX."""
    found = query("sqlite:////a.db?query=SELECT id, a+b AS c FROM t WHERE d LIKE 'x%25'&cursor=id")
    assert found.query == "SELECT id, a+b AS c FROM t WHERE d LIKE 'x%'"
    sql = "SELECT a+b FROM t"
    assert query("sqlite:////a.db?" + urlencode({"query": sql, "cursor": "id"})).query == sql


@pytest.mark.parametrize("sign", ["@", "/", "?", "#", "%", "%z", "/@", "@:", "?@", "#@", "&"])
def test_a_sign_in_a_password_lets_no_part_of_it_be_shown(sign: str) -> None:
    """Where it would end the password the address is refused, saying how to write it."""
    try:
        place = query(f"postgresql://user:sec{sign}ret@host:5432/db?table=users&cursor=id").place
    except UsageError as error:
        shown = str(error)
        assert "%40" in shown
    else:
        assert place.server["password"] == f"sec{sign}ret"
        shown = place.shown + repr(place) + place.identity()
    assert "sec" not in shown
    assert "ret@" not in shown
