"""Addresses of databases: what is secret in them is shown nowhere."""

from __future__ import annotations

import pytest

from batchkit.databases import address
from batchkit.errors import UsageError


@pytest.mark.parametrize("sign", ["@", "/", "?", "#", "%", "%z", "/@", "@:", "?@", "#@"])
def test_a_password_with_a_sign_that_would_end_it_is_refused_and_not_shown(sign: str) -> None:
    """Otherwise what is behind the sign would be a host's name in messages and files."""
    with pytest.raises(UsageError) as caught:
        address.query(f"postgresql://user:sec{sign}ret@host:5432/db?table=users&cursor=id")
    assert "sec" not in str(caught.value)
    assert "%40" in str(caught.value)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("user:s%40cret@host:5432/db", "user@host:5432/db"),
        ("user@host/db", "user@host/db"),
        ("/db?host=/tmp/x&password=s", "/db?host=/tmp/x"),
        ("u:s@[::1]:5432/db", "u@[::1]:5432/db"),
        ("u:s@one:1,two:2/db", "u@one:1,two:2/db"),
        ("", ""),
        ("host", "host"),
    ],
)
def test_an_address_is_shown_without_its_password(given: str, shown: str) -> None:
    """And without parameters that say nothing of where it is."""
    separator = "&" if "?" in given else "?"
    place = address.query(f"postgresql://{given}{separator}table=users&cursor=id").place
    assert place.shown == f"postgresql://{shown}"
    assert "s%40cret" not in repr(place)
