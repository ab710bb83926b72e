"""Fixtures: a place to work in, made of the real store and ledger in a temporary folder."""

from __future__ import annotations

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


@pytest.fixture
def work(tmp_path: Path) -> Work:
    ledger = Ledger(f"sqlite:///{tmp_path}/infinidub.db")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Work(store=FileStore(tmp_path / "store"), ledger=ledger, engines=GivenEngines(), scratch=scratch,
                run_id=ledger.begin_run("test", {}, {}), episode="series/e01", language="es")


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
