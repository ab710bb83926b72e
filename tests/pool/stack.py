"""A whole GPU pool on one machine, of real processes that can be killed and started again.

PostgreSQL with our tables; an S3 server behind a proxy; Prefect's server, and two workers that start processes, one for
CPU flows and one for shards. Everything listens on loopback and ends with the block, by its process id.

Prefect's own database is a file: the PostgreSQL of the tests lacks an extension that Prefect wants. The S3 server keeps
its objects in memory, so that killing it would lose what no real one loses: its proxy is killed instead.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import sqlalchemy as sa

from models import tables as t
from models.engines import ENGINES
from tasks.ledger import Ledger
from tests import fakes, s3_server
from tests.postgres_server import PostgresServer

ROOT = Path(__file__).parents[2]
BUCKET = "pool"
PATIENCE_S = 240
"""Of every wait: a busy machine is slow, and only what hangs may fail."""
GRACE_S = 60
"""Between SIGTERM and SIGKILL."""
LEASE_S = 4
CPU, GPU = "cpu", "gpu"
CONFIG = "infinidub.toml"
PLANTED = {"database": "planted-database-password", "engine": "planted-engine-key"}
"""Credentials of the pool that must be found nowhere; the S3 server's are its own. PostgreSQL trusts any here."""
AT_ONCE = 2
"""Shards that the GPU worker makes at once."""


def until(what: str, look: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """The first true answer of `look`."""
    deadline = time.monotonic() + patience_s
    while not (found := look()):
        assert time.monotonic() < deadline, f"not seen in time: {what}"
        time.sleep(0.1)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass
class Program:
    """A process that is started again with the same arguments."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    up: Callable[[], object] = field(default=lambda: True)
    """Whether it does its work."""
    process: subprocess.Popen[bytes] | None = None
    groups: list[int] = field(default_factory=list)
    """Process groups of all its lives: what it left behind when it was killed is in them."""

    def start(self, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=self.environment, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)
        self.groups.append(self.process.pid)
        if wait:
            self.wait_up()

    def wait_up(self) -> None:
        def look() -> object:
            assert self.process
            assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()[-3000:]}"
            return self.up()

        until(f"{self.name} is up", look)

    def stop(self, how: signal.Signals) -> None:
        """Send it a signal, and wait for its end; what does not go is killed, as Kubernetes does after its grace."""
        assert self.process
        with suppress(ProcessLookupError):
            self.process.send_signal(how)
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:  # Prefect's worker was seen to stay
            self.process.kill()
            self.process.wait(PATIENCE_S)

    def sweep(self) -> None:
        """End whatever is left of all its lives."""
        for group in self.groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        if self.process:
            self.process.wait(PATIENCE_S)


@dataclass
class Place:
    """A database, a prefix of the bucket and folders: what one catalog's runs share."""

    stack: Stack
    name: str
    folder: Path
    database: str
    machine: int = 1

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def config(self) -> Path:
        return self.folder / CONFIG

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.database)

    def write_config(self, generator: str = "pulse", **settings: str | float) -> None:
        """What its processes are told."""
        values = {"out": str(self.out), "state": str(self.folder / f"machine-{self.machine}"),
                  "database": self.database, "store": f"s3://{BUCKET}/{self.name}", "store_endpoint": self.stack.store,
                  "cpu_pool": CPU, "gpu_pool": GPU, "dispatch": "prefect", "lease_s": LEASE_S, "multi": False,
                  "check_speech": False} | settings
        lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        self.config.write_text("\n".join([*lines, "[engines]", f"generator = {json.dumps(generator)}", ""]))

    def parent(self, catalog: Path, *more: str) -> Program:
        """`infinidub run` of a catalog here: not started yet."""
        return Program("parent", [sys.executable, "-m", "tests.fakes", "run", str(catalog), "--config",
                                  str(self.config), "--json", *more], self.stack.environment,
                       self.folder / "parent.log")

    def attempts(self, *states: str) -> list[t.ShardAttempt]:
        query = sa.select(t.ShardAttempt).order_by(t.ShardAttempt.dispatched)
        with self.ledger.session() as session:
            found = session.scalars(query.where(t.ShardAttempt.state.in_(states)) if states else query).all()
            session.expunge_all()
            return list(found)

    def count(self, table: type[t.Table], *where: Any) -> int:
        with self.ledger.session() as session:
            return session.scalar(sa.select(sa.func.count()).select_from(table).where(*where)) or 0


@dataclass
class Stack:
    """The processes, and what is needed to speak to them."""

    folder: Path
    postgres: PostgresServer
    s3: str
    """Address of the S3 server itself."""
    store: str
    """Address of the proxy before it: all that the pool's processes know."""
    environment: dict[str, str]
    patience_s: float = PATIENCE_S
    """Of waiting for a flow run's end."""
    programs: dict[str, Program] = field(default_factory=dict)
    places: list[Place] = field(default_factory=list)

    @property
    def journal(self) -> Path:
        """A line for every chunk that any process made."""
        return Path(self.environment["TEST_JOURNAL"])

    def place(self, name: str, like: Place | None = None) -> Place:
        """A new one, with all that another has in its database and its bucket."""
        folder = self.folder / name
        folder.mkdir()
        if like is None:
            database = self.postgres.create(name)
        else:
            database = self.postgres.create(name, like=like.name)
            client = s3_server.client(self.s3)
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{like.name}/"):
                for one in page.get("Contents", ()):
                    client.copy_object(Bucket=BUCKET, Key=name + one["Key"].removeprefix(like.name),
                                       CopySource={"Bucket": BUCKET, "Key": one["Key"]})
        made = Place(self, name, folder, database.replace("postgres@", f"postgres:{PLANTED['database']}@"))
        made.write_config()
        self.places.append(made)
        return made

    def keys(self, prefix: str) -> list[str]:
        client = s3_server.client(self.s3)
        return [one["Key"] for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
                for one in page.get("Contents", ())]

    @contextmanager
    def inside(self) -> Iterator[pytest.MonkeyPatch]:
        """In this process, as in one of the stack's: its environment, the fakes for engines."""
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name not in self.environment]:
                patch.delenv(name)
            for name, value in self.environment.items():
                patch.setenv(name, value)
            for port, names in list(ENGINES.items()):
                patch.setitem(ENGINES, port, names)
            fakes.install()
            with temporary_settings({PREFECT_API_URL: self.environment["PREFECT_API_URL"]}):
                yield patch

    def prefect(self, path: str, method: str = "POST", **asked: Any) -> Any:
        """Ask Prefect's API, again where its server is down or busy: on a file it says so when two write at once."""
        def ask() -> httpx.Response | None:
            try:
                answer = httpx.request(method, f"{self.environment['PREFECT_API_URL']}/{path}",
                                       json=asked or None, timeout=30)
            except httpx.TransportError:
                return None
            if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
                return None
            return answer.raise_for_status()

        return until("Prefect's answer", ask).json()

    def flow_run(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        """Have a deployment run, as a form in the user interface does, and wait for its end."""
        found = self.prefect(f"deployments/name/{deployment}", "GET")
        run = self.prefect(f"deployments/{found['id']}/create_flow_run", parameters=parameters,
                           state={"type": "SCHEDULED"}, idempotency_key=uuid4().hex)
        return self.ended(run["id"])

    def hold(self, deployment: str) -> None:
        """Wait until Prefect has planned what its schedule says, and take that back: none may begin within tests."""
        found = self.prefect(f"deployments/name/{deployment}", "GET")
        until(f"runs of {deployment} that are planned", lambda: self.prefect(
            "flow_runs/filter", deployments={"id": {"any_": [found["id"]]}}, flow_runs={"state": {"name": {
                "any_": ["Scheduled"]}}}))
        self.prefect(f"deployments/{found['id']}/pause_deployment")

    def asked_by_event(self, **payload: Any) -> dict[str, Any]:
        """Emit the event that asks for a language once more, and wait for the end of the flow run that it starts."""
        from prefect.events import Event

        event = Event(event="infinidub.rerun.requested", resource={"prefect.resource.id": "infinidub.rerun"},
                      payload=payload)
        httpx.post(f"{self.environment['PREFECT_API_URL']}/events", timeout=30,
                   json=[event.model_dump(mode="json")]).raise_for_status()
        [run] = until("the flow run that was asked for", lambda: self.prefect("flow_runs/filter", deployments={
            "name": {"any_": ["rerun-language"]}}))
        return self.ended(run["id"])

    def ended(self, flow_run: str) -> dict[str, Any]:
        """A flow run once it has ended."""
        def look() -> dict[str, Any] | None:
            run: dict[str, Any] = self.prefect(f"flow_runs/{flow_run}", "GET")
            return run if run["state"]["type"] in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"} else None

        return dict(until("the flow run's end", look, self.patience_s))

    def unended(self) -> list[dict[str, Any]]:
        """Flow runs that Prefect takes for not ended."""
        kinds = ["SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED"]
        runs: list[dict[str, Any]] = self.prefect("flow_runs/filter",
                                                  flow_runs={"state": {"type": {"any_": kinds}}})
        return [run for run in runs if not run["auto_scheduled"]]


@dataclass(frozen=True)
class Dubbed:
    """A catalog that the pool dubbed undisturbed, and one of which only the speech is done."""

    catalog: Path
    speech: Place
    place: Place


def dub(stack: Stack) -> Dubbed:
    """One episode into two languages; the nightly deployment does it, on the worker for CPU flows."""
    from flows.cli import run_command

    catalog = fakes.series(stack.folder / "series", cast={"es": {"A": "ana"}, "fr": {"A": "bob"}})
    speech = stack.place("speech")
    with stack.inside():  # without pictures it is the speech that is done
        assert run_command(["run", str(catalog), "--config", str(speech.config), "--generator", "passthrough",
                            "--set", "prefect=false", "--set", 'dispatch="here"']) == 0
    place = stack.place("undisturbed", like=speech)
    ended = stack.flow_run("localize-catalog/nightly", catalog=str(catalog), config=str(place.config))
    assert ended["state"]["type"] == "COMPLETED", ended["state"]
    return Dubbed(catalog, speech, place)


def _environment(folder: Path, port: int) -> dict[str, str]:
    """Of all processes: nothing of the user's own settings, the fakes for engines, Prefect quiet."""
    home = {name: value for name, value in os.environ.items() if not name.startswith(("INFINIDUB_", "PREFECT_"))}
    return home | s3_server.CREDENTIALS | {
        "PREFECT_HOME": str(folder / "prefect"), "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{folder}/prefect.db",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_CLI_COLORS": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1", "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false", "PREFECT_SERVER_DATABASE_TIMEOUT": "60",
        "INFINIDUB_SECRETS__OPENAI_API_KEY": PLANTED["engine"], "TEST_CHUNK_S": "0.1",
        "TEST_JOURNAL": str(folder / "journal"),
        "PYTHONPATH": str(ROOT / "tests" / "site"), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def pool_stack(fakes: bool = True) -> Iterator[Stack]:
    """Everything up, deployments registered; what workers start has the fakes for engines, or the real ones."""
    folder = Path(tempfile.mkdtemp(prefix="infinidub-pool-"))
    with ExitStack() as ending:
        ending.callback(shutil.rmtree, folder, ignore_errors=True)
        postgres = ending.enter_context(PostgresServer())
        s3 = ending.enter_context(s3_server.s3_server())
        s3_server.client(s3).create_bucket(Bucket=BUCKET)
        port, proxy_port = free_port(), free_port()
        stack = Stack(folder, postgres, s3, f"http://127.0.0.1:{proxy_port}", _environment(folder, port))
        stack.journal.touch()

        def program(name: str, *command: str, up: Callable[[], object]) -> Program:
            made = Program(name, [sys.executable, "-m", *command], stack.environment, folder / f"{name}.log", up)
            ending.callback(made.sweep)
            stack.programs[name] = made
            return made

        api = stack.environment["PREFECT_API_URL"]
        server = program("server", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port),
                         up=lambda: _answers(f"{api}/health"))
        proxy = program("store", "tests.faulty_proxy", s3, str(proxy_port), up=lambda: _listens(proxy_port))
        server.start(wait=False)
        proxy.start()
        server.wait_up()
        workers = [program(name, "prefect", "worker", "start", "--pool", name, "--type", "process", "--name", name,
                           "--limit", str(AT_ONCE),  # without its type it ends where the server is away
                           up=lambda name=name: _online(stack, name)) for name in (CPU, GPU)]
        for worker in workers:
            stack.prefect("work_pools/", name=worker.name, type="process")
            if fakes:  # for all that it starts, too
                worker.environment = stack.environment | {"TEST_FAKES": "1"}
            worker.start(wait=False)
        _register(stack)
        for worker in workers:
            worker.wait_up()
        for deployment in ("localize-catalog/nightly", "sweep/gc"):
            stack.hold(deployment)
        yield stack


def _register(stack: Stack) -> None:
    """The deployments as `infinidub deploy` registers them, but for the reaper's schedule: tests reap themselves."""
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file",
               str(ROOT / "prefect.yaml")]
    done = subprocess.run(command, cwd=ROOT, text=True,
                          env=stack.environment | {"INFINIDUB_CPU_POOL": CPU, "INFINIDUB_GPU_POOL": GPU,
                                                   "REAPER_ACTIVE": "false", "PWD": str(ROOT)},
                          capture_output=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=3).status_code == 200
    except httpx.HTTPError:
        return False


def _online(stack: Stack, pool: str) -> bool:
    try:
        return any(one["status"] == "ONLINE" for one in stack.prefect(f"work_pools/{pool}/workers/filter"))
    except httpx.HTTPError:
        return False
