"""Kill workflows, and rollbacks of them, at every boundary: the end is the one of a run that nobody disturbed."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests import small_flow
from tests.interrupted import Flow, at_state_writes, at_system_calls
from tests.migration import EXAMPLE, NAMES, Migration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.children import Nursery
    from tests.interrupted import Kill
    from tests.postgres import Server

pytestmark = pytest.mark.slow


def series(kills: Iterator[Kill], begin: Callable[[], None], act: Callable[[Kill | None], int]) -> Iterator[Kill]:
    """Begin, act and be killed, act again, for one kill after the other until one comes too late; yield in between."""
    for kill in kills:
        begin()
        code = act(kill)
        if code != -signal.SIGKILL:
            assert code == 0, f"undisturbed until {kill}"
            return
        assert act(None) == 0, kill
        yield kill


# The migration


class Shop:
    """The migration of a database, and its state: both can be put back to where they were."""

    def __init__(self, server: Server, directory: Path) -> None:
        self.work = directory / "work"
        self.work.mkdir()
        self.kept = directory / "kept"
        self.migration = Migration(server, self.work, "crashing")
        self.flow = Flow(EXAMPLE, str(self.work), self.migration.params, self.migration.env)

    def keep(self) -> None:
        """Remember how all is now."""
        shutil.copytree(self.work, self.kept)
        self.migration.copy(self.migration.name, "crashing_kept")

    def put_back(self) -> None:
        """Let all be as it was then."""
        shutil.rmtree(self.work)
        shutil.copytree(self.kept, self.work)
        self.migration.copy("crashing_kept", self.migration.name)

    def picture(self) -> Any:
        """Return state, database and files, apart from times."""
        state = self.flow.state()
        if state["phases"]["look"]["result"] is not None:
            del state["phases"]["look"]["result"]["bytes"]  # of the server, which cleans up when it likes
        return state, self.migration.content(), sorted(self.flow.tree("migration"))


@pytest.fixture(scope="module")
def shop(postgres_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Give a database to migrate."""
    return Shop(postgres_server, tmp_path_factory.mktemp("shop"))


def test_a_kill_at_any_state_write_of_the_migration_costs_nothing(shop: Shop, nursery: Nursery) -> None:
    """Before and behind each: run again, it ends as if nothing had been; each script is applied exactly once."""
    shop.migration.begin()
    assert shop.flow.run(nursery) == 0
    expected = shop.picture()
    assert [row[0] for row in shop.migration.rows("SELECT script FROM schema_migrations ORDER BY at")] == NAMES
    assert shop.migration.rows("SELECT DISTINCT cents FROM accounts") == [(500,)]
    kills = series(at_state_writes(), shop.migration.begin, lambda kill: shop.flow.run(nursery, kill))
    count = 0
    for kill in kills:
        count += 1
        assert shop.picture() == expected, kill
    assert count == 2 * 10  # creation, start and end of four phases, the gate that is skipped


def test_a_kill_at_any_state_write_of_a_rollback_of_the_migration_costs_nothing(shop: Shop, nursery: Nursery) -> None:
    """Rolled back again, the database is as it was before all this, and the next run applies each script once."""
    shop.migration.begin()
    before = shop.migration.content()
    assert shop.flow.run(nursery) == 0
    done = shop.migration.content()
    shop.keep()
    assert shop.flow.rollback(nursery, "backup") == 0
    expected = shop.picture()
    assert expected[1] == before
    kills = series(at_state_writes(), shop.put_back, lambda kill: shop.flow.rollback(nursery, "backup", kill))
    count = 0
    for kill in kills:
        count += 1
        assert shop.picture() == expected, kill
    assert count == 2 * 10  # beginning and end, and as much for each of four phases
    assert shop.flow.run(nursery) == 0
    assert shop.migration.content() == done


# Without a database


class Small:
    """The small workflow."""

    def __init__(self, directory: Path) -> None:
        self.work = directory / "work"
        self.kept = directory / "kept"
        self.flow = Flow(small_flow.__file__, str(self.work))
        self.begin()

    def begin(self) -> None:
        """Let nothing be there."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()

    def keep(self) -> None:
        """Remember how all is now."""
        shutil.copytree(self.work, self.kept)

    def put_back(self) -> None:
        """Let all be as it was then."""
        shutil.rmtree(self.work)
        shutil.copytree(self.kept, self.work)

    def picture(self) -> Any:
        """Return state and files, apart from times; what is beside them counts, too."""
        beside = sorted(path.name for path in self.work.iterdir())
        return self.flow.state(), self.flow.tree("workspace"), self.flow.tree("outside"), beside


@pytest.fixture
def small(tmp_path: Path) -> Small:
    """Give the small workflow, not begun."""
    return Small(tmp_path)


@pytest.mark.parametrize("every", [7, pytest.param(1, marks=pytest.mark.soak)])
def test_a_kill_at_any_system_call_of_a_workflow_costs_nothing(small: Small, nursery: Nursery, every: int) -> None:
    """Parallel phases, items and snapshot: run again, all is as if it had not been killed. Every n-th call of them."""
    assert small.flow.run(nursery) == 0
    expected = small.picture()
    assert expected[0]["phases"]["total"]["result"] == {"sum": 14, "left": 4, "right": 3}
    count = 0
    for kill in series(at_system_calls(every), small.begin, lambda kill: small.flow.run(nursery, kill)):
        count += 1
        assert small.picture() == expected, kill
    assert count > 100 // every


def test_a_kill_at_any_system_call_of_a_rollback_costs_nothing(small: Small, nursery: Nursery) -> None:
    """The workspace is as the snapshot has it, what was outside is gone; the next run ends as the first one."""
    assert small.flow.run(nursery) == 0
    done = small.picture()
    small.keep()
    assert small.flow.rollback(nursery, "work") == 0
    expected = small.picture()
    assert expected[1]["changed"] == b"as it was"
    assert expected[2] == {}
    count = 0
    for kill in series(at_system_calls(), small.put_back, lambda kill: small.flow.rollback(nursery, "work", kill)):
        count += 1
        assert small.picture() == expected, kill
        if count % 7 == 0:
            assert small.flow.run(nursery) == 0
            assert small.picture()[1:] == done[1:]
    assert count > 40
