"""Values as JSON that gives them back: nothing comes back as anything else than it was."""

from __future__ import annotations

import datetime
import enum
import json
import math
import uuid
import zoneinfo
from collections import OrderedDict
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings, strategies as st

from batchkit.tagged import NotKept, decode, encode

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
ZONES = st.sampled_from(
    [
        None,
        datetime.UTC,
        datetime.timezone(datetime.timedelta(hours=-5, minutes=-30)),
        BERLIN,
        zoneinfo.ZoneInfo("America/New_York"),
    ]
)

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=10)
"""Lone surrogates, too."""

HASHABLE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    ANY_TEXT,
    st.floats(allow_nan=False),
    st.binary(max_size=10),
    st.dates(),
    st.datetimes(timezones=ZONES, allow_imaginary=True),
    st.times(timezones=st.sampled_from([None, datetime.UTC])),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.complex_numbers(allow_nan=False),
    st.builds(Path, st.text("ab/. ", max_size=5)),
)
KEYS = st.one_of(HASHABLE, st.just("$"), st.just("v"), st.tuples(HASHABLE, HASHABLE))


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.dictionaries(ANY_TEXT, inner, max_size=4),
        st.sets(KEYS, max_size=4),
        st.frozensets(KEYS, max_size=4),
    )


VALUES = st.recursive(st.one_of(HASHABLE, st.just(math.nan), st.just(Decimal("sNaN"))), _nested, max_leaves=15)


def through(value: Any) -> Any:
    """Return what a value is after it was a line of JSON, as RFC 8259 defines it."""
    line = json.dumps(encode(value), allow_nan=False)
    assert "\n" not in line
    return decode(json.loads(line))


def told(value: Any) -> Any:
    """Return what tells a value from all others: 1 from True and 1.0, NaN is NaN, the order of keys counts."""
    if type(value) is int:
        return int, hex(value)
    if isinstance(value, list | tuple):
        return type(value), [told(each) for each in value]
    if isinstance(value, dict):
        return dict, [(told(key), told(each)) for key, each in value.items()]
    if isinstance(value, set | frozenset):
        return type(value), sorted(repr(told(each)) for each in value)
    if isinstance(value, datetime.datetime | datetime.time):
        return type(value), value.replace(tzinfo=None).isoformat(), value.fold, value.utcoffset(), str(value.tzinfo)
    return type(value), repr(value)


class Colour(enum.Enum):
    """Something of the user's own."""

    RED = 1


class Point(NamedTuple):
    """A tuple with names."""

    x: int


class Silent:
    """Something that cannot even be shown."""

    def __repr__(self) -> str:
        """Fail."""
        raise RuntimeError("no repr")


class TestRoundTrip:
    """What comes back."""

    @settings(max_examples=300, deadline=None)
    @given(VALUES)
    def test_a_nested_value_comes_back_as_it_was(self, value: Any) -> None:
        """Types, order and all digits; the JSON between is strict."""
        assert told(through(value)) == told(value)

    @pytest.mark.parametrize(
        "value",
        [
            {"$": "float", "v": "nan"},
            {"$": {"$": "text", "v": "no"}},
            [{"$": []}],
            {1: "int", "1": "text"},
            {None: 1, True: 2, 2.5: 3},
            {(1, ("a",)): {b"\x00": {frozenset([1])}}},
            float("-inf"),
            -0.0,
            complex(math.nan, math.inf),
            Decimal("1.10"),
            Decimal("-0E-7"),
            Decimal("NaN123"),
            "\ud800 \x00 \u2028",
            datetime.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=1),
            datetime.datetime(2026, 10, 25, 2, 30, tzinfo=BERLIN, fold=0),
            datetime.datetime.min,  # noqa: DTZ901  # without a zone on purpose
            datetime.datetime.max,  # noqa: DTZ901  # without a zone on purpose
            datetime.time(1, 2, 3, 4, tzinfo=datetime.timezone(datetime.timedelta(seconds=-3661))),
            datetime.date(1, 1, 1),
            datetime.timedelta(-1, 1, 1),
            datetime.timedelta.max,
            uuid.UUID(int=0),
            Path("a b/ü"),
            2**200,
            [-(10**5_000)],
            set(),
            (),
            {},
        ],
    )
    def test_a_value_that_is_easily_lost_comes_back(self, value: Any) -> None:
        """Dicts that look like tags, keys that JSON would make one of, both hours of a clock change, zeros."""
        assert told(through(value)) == told(value)

    def test_plain_json_stays_as_people_can_read_it(self) -> None:
        """What JSON can say carries no tag."""
        plain = {"a": [1, 2.5, None, True, "x"], "b": {"c": {}}}
        assert encode(plain) == plain


class TestWhatCannotBeKept:
    """What has no form in JSON."""

    @pytest.mark.parametrize(
        "value",
        [
            object(),
            Colour.RED,
            Point(1),
            OrderedDict(a=1),
            len,
            bytearray(b"a"),
            PurePosixPath("a"),
            datetime.datetime(2026, 1, 1, tzinfo=type("Zone", (datetime.tzinfo,), {})()),
            range(3),
        ],
        ids=lambda value: type(value).__name__,
    )
    @pytest.mark.parametrize("around", [lambda value: value, lambda value: {"a": [(1, value)]}], ids=["bare", "deep"])
    def test_a_value_of_another_type_is_kept_as_a_text_about_it(self, value: Any, around: Any) -> None:
        """It does not come back as something else: `NotKept` has the text."""
        line = json.dumps(encode(around(value)), allow_nan=False)
        with pytest.raises(NotKept) as caught:
            decode(json.loads(line))
        assert caught.value.text == repr(value)

    def test_a_text_about_a_value_has_an_end(self) -> None:
        """Failures of items of any size leave a file of a size."""
        assert len(encode(range(10**9))["v"]) < 100
        assert len(encode(bytearray(10**6))["v"]) == 2_000

    def test_a_value_that_cannot_be_shown_is_named_by_its_type(self) -> None:
        """Its `__repr__` may raise whatever it likes."""
        assert encode(Silent()) == {"$": "text", "v": "a Silent (RuntimeError in its repr)"}

    def test_a_value_that_holds_itself_is_kept_as_a_text(self) -> None:
        """There is no end to it in JSON."""
        endless: list[Any] = [1]
        endless.append(endless)
        with pytest.raises(NotKept, match=r"\[1, \[...\]\]"):
            decode(json.loads(json.dumps(encode(endless))))
