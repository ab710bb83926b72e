"""Fixtures: a place to work in, made of the real store and ledger in a temporary folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from models.recipe import sha256
from models.records import EngineRef
from tasks.ledger import Ledger
from tasks.step import Work
from tasks.store import FileStore

if TYPE_CHECKING:  # what servers need is absent where the extras are tested
    from tests.pool.stack import Dubbed, Stack
    from tests.postgres_server import PostgresServer


class GivenEngines:
    """Engines by port, put in by the test."""

    def __init__(self) -> None:
        self.by_port: dict[str, Any] = {}

    def get(self, port: str, ref: EngineRef) -> Any:
        return self.by_port[port]


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database with all its tables, to be copied: migrations would take most of the time of a small test."""
    path = tmp_path_factory.mktemp("tables") / "infinidub.db"
    Ledger(f"sqlite:///{path}").engine.dispose()
    return path


def place_to_work(folder: Path, tables: Path) -> Work:
    shutil.copy(tables, folder / "infinidub.db")
    ledger = Ledger(f"sqlite:///{folder}/infinidub.db")
    scratch = folder / "scratch"
    scratch.mkdir()
    return Work(store=FileStore(folder / "store"), ledger=ledger, engines=GivenEngines(), scratch=scratch,
                run_id=ledger.begin_run("test", {}, {}), episode="series/e01", language="es")


@pytest.fixture
def work(tmp_path: Path, tables: Path) -> Work:
    return place_to_work(tmp_path, tables)


@pytest.fixture(scope="module")
def module_work(tmp_path_factory: pytest.TempPathFactory, tables: Path) -> Work:
    """The same for all tests of a module, where what they work on is dear to make."""
    return place_to_work(tmp_path_factory.mktemp("work"), tables)


@pytest.fixture
def fake_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fakes in the place of the default engines."""
    from tests import fakes

    fakes.install_while(monkeypatch)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresServer]:
    """A real server, ended with the tests."""
    from tests.postgres_server import PostgresServer

    with PostgresServer() as server:
        yield server


@pytest.fixture
def postgresql(postgresql_server: PostgresServer, tmp_path: Path) -> str:
    """SQLAlchemy URL of an empty database of the test's own."""
    return postgresql_server.create("t" + sha256(str(tmp_path).encode())[:16])


@pytest.fixture(scope="session")
def pool() -> Iterator[Stack]:
    """A whole GPU pool of real processes, ended with the tests."""
    from tests.pool.stack import pool_stack

    with pool_stack() as stack:
        yield stack


@pytest.fixture(scope="session")
def dubbed(pool: Stack) -> Dubbed:
    """What that pool makes when nobody disturbs it."""
    from tests.pool.stack import dub

    return dub(pool)
