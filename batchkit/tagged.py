"""Values as JSON that gives them back as they were: dates, decimals, bytes, tuples, NaN and so on carry a tag.

A tagged value is `{"$": type, "v": JSON value}`; so is a dict with a key "$", or with keys that are no strings.
"""

from __future__ import annotations

import base64
import datetime
import math
import uuid
import zoneinfo
from decimal import Decimal
from pathlib import Path
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TAG, VALUE = "$", "v"
_TEXT_LENGTH = 2_000
_PRINTED_BITS = 14_000
"""Python refuses to print longer integers, see `sys.set_int_max_str_digits`; in base 16 it prints any."""


class NotKept(Exception):
    """A value that has no form in tagged JSON was kept only as a text about it.

    text: that text.
    """

    def __init__(self, text: str) -> None:
        """Keep the text."""
        super().__init__(text)
        self.text = text


def encode(value: Any) -> Any:
    """Return a JSON value for any value; one of which no form is known becomes its `repr`."""
    try:
        return _encoded(value)
    except RecursionError:  # it holds itself, or is as deep as if it did
        return {TAG: "text", VALUE: shown(value)}


def _encoded(value: Any) -> Any:
    kind = type(value)
    if value is None or kind in {str, bool} or (kind is int and value.bit_length() <= _PRINTED_BITS):
        return value
    if kind is float:
        return value if math.isfinite(value) else {TAG: "float", VALUE: repr(value)}
    if kind is list:
        return [_encoded(each) for each in value]
    if kind is dict:
        if all(type(key) is str for key in value) and TAG not in value:
            return {key: _encoded(each) for key, each in value.items()}
        return {TAG: "dict", VALUE: [[_encoded(key), _encoded(each)] for key, each in value.items()]}
    return _tagged(value, kind)


def _tagged(value: Any, kind: type) -> Any:
    for name, (of_kind, to_json, _) in _KINDS.items():
        if kind is of_kind or (of_kind is Path and isinstance(value, Path)):
            plain = to_json(value)
            return {TAG: "text", VALUE: shown(value)} if plain is None else {TAG: name, VALUE: plain}
    return {TAG: "text", VALUE: shown(value)}


def shown(value: Any) -> str:
    """Return the `repr` of a value, cut to a length, or what its type is if it has none."""
    try:
        return repr(value)[:_TEXT_LENGTH]
    except Exception as error:  # noqa: BLE001  # whatever a foreign `__repr__` raises
        return f"a {type(value).__name__} ({type(error).__name__} in its repr)"


def decode(value: Any) -> Any:
    """Return the value that `encode` was given. Raises `NotKept` where only a text of it is known."""
    if isinstance(value, list):
        return [decode(each) for each in value]
    if not isinstance(value, dict):
        return value
    if TAG not in value:
        return {key: decode(each) for key, each in value.items()}
    if value[TAG] == "text":
        raise NotKept(value[VALUE])
    return _KINDS[value[TAG]][2](value[VALUE])


def _zoned(value: datetime.datetime | datetime.time) -> Any:
    """Return text and name of the zone; `None` for a zone of which only Python code knows the rules."""
    zone = value.tzinfo
    if zone is None or type(zone) is datetime.timezone:
        return [value.isoformat(), None, value.fold]
    if isinstance(zone, zoneinfo.ZoneInfo) and zone.key:
        return [value.replace(tzinfo=None).isoformat(), zone.key, value.fold]
    return None


def _in_zone(kind: Any) -> Callable[[Any], Any]:
    def made(plain: list[Any]) -> Any:
        text, key, fold = plain
        value = kind.fromisoformat(text).replace(fold=fold)
        return value if key is None else value.replace(tzinfo=zoneinfo.ZoneInfo(key))

    return made


_KINDS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "float": (float, repr, float),
    "int": (int, hex, lambda plain: int(plain, 16)),
    "dict": (dict, list, lambda pairs: {decode(key): decode(each) for key, each in pairs}),
    "tuple": (tuple, lambda value: [_encoded(each) for each in value], lambda plain: tuple(map(decode, plain))),
    "set": (set, lambda value: [_encoded(each) for each in value], lambda plain: set(map(decode, plain))),
    "frozenset": (
        frozenset,
        lambda value: [_encoded(each) for each in value],
        lambda plain: frozenset(map(decode, plain)),
    ),
    "bytes": (bytes, lambda value: base64.b64encode(value).decode(), base64.b64decode),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "datetime": (datetime.datetime, _zoned, _in_zone(datetime.datetime)),
    "time": (datetime.time, _zoned, _in_zone(datetime.time)),
    "timedelta": (
        datetime.timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda plain: datetime.timedelta(*plain),
    ),
    "decimal": (Decimal, str, Decimal),
    "uuid": (uuid.UUID, str, uuid.UUID),
    "complex": (
        complex,
        lambda value: [encode(value.real), encode(value.imag)],
        lambda plain: complex(*map(decode, plain)),
    ),
    "path": (Path, str, Path),
}
"""Name → type, what makes a JSON value of it (`None`: cannot be), what makes it again."""
