"""Item and batch budgets that several workers share, and the counts over shards."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest

from batchkit.model import Checkpoint, Shard, Span
from batchkit.quota import Quota
from batchkit.readers.sequence import SequenceReader
from batchkit.tally import Tally

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("items", "workers"), [(1_003, 4), (1, 4), (7, 2), (100_000, 3)])
def test_leases_add_up_to_the_budget_and_grow_small_at_its_end(tmp_path: Path, items: int, workers: int) -> None:
    """Never more than a fourth of what is left for each, never none while there are any."""
    quota = Quota(str(tmp_path / "quota.json"), workers)
    quota.begin(items, math.inf)
    for shard in range(workers):
        quota.settle(shard, 10 * shard, shard)
    granted: list[float] = []
    while True:
        more, batches = quota.lease(len(granted) % workers, items=True, batches=True)
        assert math.isinf(batches)
        if not more:
            break
        granted.append(more)
        assert more <= max(1, items / (4 * workers))
    assert sum(granted) == items
    assert granted == sorted(granted, reverse=True)
    assert len(granted) < 2 + 4 * workers * (1 + math.log(items + 1)) + 4 * workers


def test_what_is_not_used_is_taken_back(tmp_path: Path) -> None:
    """By what was committed, whoever held it; again and again is once."""
    quota = Quota(str(tmp_path / "quota.json"), 1)
    quota.begin(16, math.inf)
    quota.settle(3, 100, 9)
    quota.settle(4, 0, 0)
    assert quota.lease(3, items=True, batches=True) == (4, math.inf)
    assert quota.lease(3, items=True, batches=True) == (3, math.inf)
    for _ in range(2):
        quota.settle(3, 101, 10)
    assert quota.lease(4, items=True, batches=True) == (3, math.inf)
    quota.settle(4, 3, 1)
    left = 0.0
    while more := quota.lease(4, items=True, batches=True)[0]:
        left += more
    assert left == 16 - 1 - 3


def test_which_limit_is_reached_is_told(tmp_path: Path) -> None:
    """The one of which there are none left; nothing of the other is granted."""
    quota = Quota(str(tmp_path / "quota.json"), 1)
    quota.begin(40, 1)
    quota.settle(0, 0, 0)
    assert quota.lease(0, items=True, batches=True) == (10, 1)
    quota.settle(0, 2, 1)
    for _ in range(3):
        items, batches = quota.lease(0, items=True, batches=True)
        assert items > 0
        assert batches == 0
    quota.settle(0, 2, 1)
    quota.begin(0, 5)
    quota.settle(0, 0, 0)
    assert quota.lease(0, items=True, batches=True)[0] == 0


def test_the_record_of_a_shards_end_is_no_batch(tmp_path: Path) -> None:
    """It has a number of its own in the journal, and nothing was handled."""
    quota = Quota(str(tmp_path / "quota.json"), 1)
    quota.begin(math.inf, 2)
    quota.settle_at(0, None)
    assert quota.lease(0, items=True, batches=True) == (math.inf, 1)
    quota.settle_at(0, point(5, 1))
    quota.settle_at(0, point(5, 2, end=True))
    quota.settle_at(1, None)
    assert quota.lease(1, items=True, batches=True) == (math.inf, 1)
    assert quota.lease(1, items=True, batches=True)[1] == 0


@pytest.mark.slow
def test_no_order_of_deaths_grants_more_than_there_is(tmp_path: Path) -> None:
    """Workers that lease, commit some and die: what is committed is all that counts in the end."""
    pick = random.Random(1)
    for _ in range(5):
        most, done = pick.randint(1, 100), [0, 0, 0]
        quota = Quota(str(tmp_path / "quota.json"), 3)
        quota.begin(most, math.inf)
        dry = 0
        while dry < 3:
            shard = pick.randrange(3)
            quota.settle(shard, done[shard], done[shard])  # taken over, or gone on with
            more = int(quota.lease(shard, items=True, batches=True)[0])
            dry = 0 if more else dry + 1
            done[shard] += pick.randint(0, more)
            for each in range(3):
                quota.settle(each, done[each], done[each])
        assert sum(done) == most


def point(done: int, seq: int = 1, *, failed: int = 0, skipped: int = 0, end: bool = False) -> Checkpoint:
    """Return a commit behind so many items."""
    return Checkpoint(seq, done + failed + skipped, done, failed, skipped, 0, None, 1, 0.0, 0.0, end)


def test_counts_are_those_of_all_shards_in_the_plan() -> None:
    """In input order, whatever order they were told in; what is done of each is counted from its own beginning."""
    tally = Tally(SequenceReader(range(100)), [Shard(0, Span(0, 100))], [None])
    assert (tally.total, tally.at, tally.handled, tally.share) == (100, 0, 0, 0.0)
    tally.take_plan([Shard(0, Span(0, 40)), Shard(2, Span(40, 70)), Shard(1, Span(70, 100))])
    tally.put(1, point(5)._replace(stop=75))
    tally.put(0, point(8, failed=1, skipped=1))
    tally.put(2, point(30, end=True)._replace(stop=70))
    assert [each and each.done for each in tally.points] == [8, 30, 5]
    assert (tally.done, tally.failed, tally.skipped, tally.handled) == (43, 1, 1, 45)
    assert (tally.at, tally.share, tally.total) == (45, 0.45, 100)
    assert not tally.ended
    for number in range(3):
        tally.put(number, point(1, end=True))
    assert tally.ended


def test_only_what_is_asked_for_is_granted(tmp_path: Path) -> None:
    """Who has batches left and wants items gets no more batches, and nothing of what is used up."""
    quota = Quota(str(tmp_path / "quota.json"), 1)
    quota.begin(100, 3)
    quota.settle(0, 0, 0)
    assert quota.lease(0, items=True, batches=True) == (25, 1)
    assert quota.lease(0, items=False, batches=True) == (0, 1)
    assert quota.lease(0, items=True, batches=False) == (18, 0)
    assert quota.lease(0, items=False, batches=True) == (0, 1)
    assert quota.lease(0, items=True, batches=True) == (14, 0)
    quota.settle(0, 57, 3)
    assert quota.lease(0, items=True, batches=False) == (10, 0)
