"""A function to try batchkit with."""

from __future__ import annotations

import unicodedata


def slug(line: str) -> dict[str, str]:
    """Return the parts of a line such as `Zürich, CH`, and a name for it that can stand in a URL."""
    name, _, country = line.rpartition(", ")
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    words = "".join(char if char.isalnum() else " " for char in plain).split()
    return {"name": name, "country": country, "slug": "-".join([*words, country.lower()])}
