"""The database behind plain functions: the only module that opens sessions.

Each function is one short transaction. `unique(recipe)` on `results` decides races: the loser adopts the winner's row.
"""

from __future__ import annotations

import fcntl
import os
import re
import threading
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from models import tables as t
from models.errors import InfrastructureError, InputError, StorageFullError
from models.pool import LIVE
from models.records import Artifact, LineEdit


@dataclass(frozen=True)
class Attempt:
    """What one execution row says about itself when it starts."""

    recipe: str
    step: str
    item: str = ""
    episode: str = ""
    language: str = ""
    engine: str = ""
    weights: Mapping[str, str] | None = None
    seed: int | None = None


SWEEPING = 4812378
"""Number of PostgreSQL's advisory lock of `Ledger.sweeping`; `tasks.shards` has the next ones."""
AT_ONCE = 1000
"""Values in one `IN (…)`: SQLite takes 32,766 parameters."""


def batches(values: Iterable[str]) -> Iterator[list[str]]:
    """Values, each once, in order, as lists that fit into one `IN (…)`."""
    ordered = sorted(set(values))
    for start in range(0, len(ordered), AT_ONCE):
        yield ordered[start:start + AT_ONCE]


def _inode(stat: os.stat_result) -> int:
    """File systems may number their files with 64 bits; the database's integers have a sign."""
    return stat.st_ino % 2**63


def _now() -> datetime:
    return datetime.now(UTC)


SECRET = re.compile("pass|secret|token|key", re.IGNORECASE)


def shown(url: sa.URL) -> str:
    """A database's URL for people: without its password, and without what may be secret in its query."""
    query = {name: "***" if SECRET.search(name) else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


def shown_address(address: str) -> str:
    """The same of an address as it was given; of one that cannot be read, nothing is shown."""
    try:
        return shown(sa.make_url(address))
    except (sa.exc.ArgumentError, ValueError):
        return "***"


def _open(url: str) -> sa.Engine:
    try:
        return _engine(url)
    except (sa.exc.ArgumentError, ValueError, ImportError) as error:  # its text may hold the password
        raise InputError("is no database URL that this program can open", where="database",
                         hint="Give sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/NAME, with %XX for "
                              "special characters in the password") from error


def _engine(url: str) -> sa.Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": 60})

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        # WAL lets a reader (`status`) look on while a run writes; NORMAL is safe against a killed process.
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.isolation_level = None  # the driver must not begin transactions by itself: see below

    @sa.event.listens_for(engine, "begin")
    def _immediate(connection: sa.Connection) -> None:
        # Two that read first and write later fail with "database is locked"; taking the lock first waits instead.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


class Ledger:
    """Runs, executions, results and the domain rows of one database."""

    def __init__(self, url: str) -> None:
        """Open `url` and bring its tables up to date.

        Args:
            url: SQLAlchemy URL: `sqlite:///path` or `postgresql+psycopg://…`.

        Raises:
            InputError: It is no URL, or one of another database.
            InfrastructureError: The database cannot be reached or migrated.
        """
        self.engine = _open(url)
        self._lock = threading.Lock()
        self._migrate()

    def _migrate(self) -> None:
        config = alembic.config.Config()
        config.set_main_option("script_location", str(files("models") / "migrations"))
        config.set_main_option("path_separator", "os")
        try:
            with self.engine.begin() as connection:
                if self._postgresql:  # two flows may start at the same second
                    connection.execute(sa.text("SELECT pg_advisory_xact_lock(4812377)"))
                config.attributes["connection"] = connection
                alembic.command.upgrade(config, "head")
        except SQLAlchemyError as error:
            raise self._error(error) from error

    def _error(self, error: SQLAlchemyError) -> InfrastructureError:
        where = shown(self.engine.url)
        cause = str(getattr(error, "orig", error)).splitlines()[0]
        if "disk is full" in cause or "No space left" in cause:
            return StorageFullError("no space left for the database", where=where,
                                    hint="Free some space and run the same command again: it goes on where it stopped")
        hint = "Is the server up, and may this user write?" if isinstance(error, OperationalError) else ""
        return InfrastructureError(f"the database failed: {cause}", where=where, hint=hint)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One transaction; database errors become `InfrastructureError` (without the password)."""
        try:
            with Session(self.engine, expire_on_commit=False) as session, session.begin():
                yield session
        except SQLAlchemyError as error:
            raise self._error(error) from error

    @property
    def _postgresql(self) -> bool:
        return self.engine.dialect.name == "postgresql"

    @contextmanager
    def entering(self) -> Iterator[Session]:
        """A transaction in which a run or shard comes to life: it waits while somebody is `sweeping`."""
        with self._gate(fcntl.LOCK_SH), self.session() as session:
            if self._postgresql:
                session.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(SWEEPING)))
            yield session

    @contextmanager
    def sweeping(self) -> Iterator[bool]:
        """Keep runs and shards from coming to life while the block lasts. Yields whether none is live now."""
        with ExitStack() as held:
            held.enter_context(self._gate(fcntl.LOCK_EX))
            if self._postgresql:  # held by a transaction of its own, as long as that is open
                held.enter_context(self.session()).execute(sa.select(sa.func.pg_advisory_xact_lock(SWEEPING)))
            with self.session() as session:
                runs = sa.select(t.Run.id).where(t.Run.state == "running").limit(1)
                shards = sa.select(t.ShardRow.id).where(t.ShardRow.state.in_(LIVE)).limit(1)
                quiet = session.scalar(runs) is None and session.scalar(shards) is None
            yield quiet

    @contextmanager
    def _gate(self, kind: int) -> Iterator[None]:
        """SQLite's stand-in for an advisory lock: a file beside the database, since a transaction stops all others."""
        name = self.engine.url.database
        if self._postgresql or not name or name == ":memory:":
            yield
            return
        path = Path(name).with_name(Path(name).name + ".sweeping")
        try:
            file = path.open("wb")
        except OSError as error:
            raise InfrastructureError(f"cannot be written to ({error.strerror})", where=str(path)) from error
        with file:
            fcntl.flock(file, kind)
            yield

    # -- runs ---------------------------------------------------------------------------------------------------------

    def begin_run(self, command: str, parameters: Mapping[str, Any], environment: Mapping[str, Any],
                  catalog: str = "", lease_s: float | None = None) -> str:
        """Open a run and return its id.

        Args:
            command: The verb.
            parameters: What it was asked for, as plain JSON.
            environment: Facts about this machine.
            catalog: Whose bound on shards in flight it counts for; '' where it dubs none.
            lease_s: It is taken for dead so many seconds after the last `keep_run`; None: never.
        """
        run = t.Run(id=str(uuid.uuid4()), command=command, parameters=dict(parameters), catalog=catalog,
                    environment=dict(environment), flow_run=None, state="running", started=_now(), ended=None,
                    lease_until=None if lease_s is None else t.clock() + lease_s)
        with self.entering() as session:
            session.add(run)
            session.flush()
            return run.id

    def keep_run(self, run_id: str, lease_s: float) -> bool:
        """Say that a run is alive for another `lease_s` seconds. False: it was closed meanwhile."""
        query = (sa.update(t.Run).where(t.Run.id == run_id, t.Run.state == "running")
                 .values(lease_until=t.clock() + lease_s).returning(t.Run.id))
        with self.session() as session:
            return session.scalar(query) is not None

    def end_run(self, run_id: str, state: str) -> None:
        """Close a run as 'done', 'failed' or 'cancelled'; what is still marked running in it shares its fate."""
        with self.session() as session:
            self.close_runs(session, [run_id], state)

    @staticmethod
    def close_runs(session: Session, run_ids: Collection[str], state: str) -> None:
        """Close runs, their executions, and shards that their own processes worked off: those have no lease."""
        fate = "cancelled" if state == "cancelled" else "failed"
        session.execute(sa.update(t.Run).where(t.Run.id.in_(run_ids))
                        .values(state=state, ended=_now(), lease_until=None))
        session.execute(sa.update(t.Execution).where(t.Execution.run_id.in_(run_ids), t.Execution.outcome == "running")
                        .values(outcome=fate, ended=_now()))
        own = session.scalars(sa.update(t.ShardRow).where(
            t.ShardRow.run_id.in_(run_ids), t.ShardRow.state == "running", t.ShardRow.lease_until.is_(None))
            .values(state=fate, updated=_now()).returning(t.ShardRow.id)).all()
        session.execute(sa.update(t.ShardAttempt).where(t.ShardAttempt.shard.in_(own), t.ShardAttempt.ended.is_(None))
                        .values(state=fate, ended=t.clock()))

    # -- results ------------------------------------------------------------------------------------------------------

    def find(self, recipe: str) -> Artifact | None:
        """The artifact that holds the result of a recipe, if it was ever computed."""
        query = (sa.select(t.ArtifactRow).join(t.Result, t.Result.artifact == t.ArtifactRow.sha256)
                 .where(t.Result.recipe == recipe))
        with self.session() as session:
            row = session.scalar(query)
            return Artifact(sha256=row.sha256, size=row.size, media_type=row.media_type) if row else None

    def find_many(self, recipes: Iterable[str]) -> dict[str, Artifact]:
        """The same of many at once: recipe → artifact, of those that were computed."""
        query = (sa.select(t.Result.recipe, t.ArtifactRow.sha256, t.ArtifactRow.size, t.ArtifactRow.media_type)
                 .join(t.ArtifactRow, t.Result.artifact == t.ArtifactRow.sha256))
        with self.session() as session:
            return {row.recipe: Artifact(sha256=row.sha256, size=row.size, media_type=row.media_type)
                    for some in batches(recipes) for row in session.execute(query.where(t.Result.recipe.in_(some)))}

    def note_artifact(self, artifact: Artifact) -> None:
        """Note a file in the store that is no result: whoever knows its hash can get it, and no sweep removes it."""
        with self.session() as session:
            self._insert_or_ignore(session, t.ArtifactRow, sha256=artifact.sha256, size=artifact.size,
                                   media_type=artifact.media_type, created=_now())

    def artifact(self, digest: str) -> Artifact:
        """What is known of a file in the store.

        Raises:
            InfrastructureError: Nothing.
        """
        with self.session() as session:
            row = session.get(t.ArtifactRow, digest)
        if row is None:
            raise InfrastructureError(f"artifact {digest[:12]}… is not known", where="database")
        return Artifact(sha256=row.sha256, size=row.size, media_type=row.media_type)

    def forget(self, recipe: str, artifact: Artifact) -> None:
        """Drop a result whose files are gone, so that it is computed anew; not the one that another put there since."""
        lost = sa.and_(t.Result.recipe == recipe, t.Result.artifact == artifact.sha256)
        with self.session() as session:
            session.execute(sa.delete(t.ResultFile).where(
                t.ResultFile.recipe.in_(sa.select(t.Result.recipe).where(lost))))
            session.execute(sa.delete(t.Result).where(lost))

    def begin(self, run_id: str, attempt: Attempt) -> int:
        """Open an execution row; its attempt number counts earlier tries at the same recipe in the same run."""
        with self.session() as session:
            earlier = session.scalar(sa.select(sa.func.count()).select_from(t.Execution).where(
                t.Execution.run_id == run_id, t.Execution.recipe == attempt.recipe, t.Execution.outcome != "reused"))
            row = self._execution(run_id, attempt, "running")
            row.attempt = 1 + (earlier or 0)
            session.add(row)
            session.flush()
            return row.id

    def reused(self, run_id: str, attempts: Iterable[Attempt]) -> None:
        """Note that results were taken over instead of computed."""
        with self.session() as session:
            for attempt in attempts:
                row = self._execution(run_id, attempt, "reused")
                row.ended, row.cpu_seconds = row.started, 0.0
                session.add(row)

    @staticmethod
    def _execution(run_id: str, attempt: Attempt, outcome: str) -> t.Execution:
        return t.Execution(run_id=run_id, recipe=attempt.recipe, step=attempt.step, item=attempt.item,
                           episode=attempt.episode, language=attempt.language, engine=attempt.engine,
                           weights=dict(attempt.weights or {}), seed=attempt.seed, outcome=outcome, started=_now(),
                           ended=None, cpu_seconds=None, error_class=None, error=None)

    def note_seed(self, execution: int, seed: int) -> None:
        """Note the seed that an execution really uses."""
        with self.session() as session:
            session.execute(sa.update(t.Execution).where(t.Execution.id == execution).values(seed=seed))

    def fail(self, execution: int, error: BaseException, cpu_seconds: float) -> None:
        """Close an execution with its error."""
        outcome = "failed" if isinstance(error, Exception) else "cancelled"
        with self.session() as session:
            session.execute(sa.update(t.Execution).where(t.Execution.id == execution).values(
                outcome=outcome, ended=_now(), cpu_seconds=cpu_seconds,
                error_class=type(error).__name__, error=str(error)[:2000]))

    def finish(self, execution: int, result: t.Result, artifact: Artifact, files_in: set[str],
               files_out: Iterable[Artifact], cpu_seconds: float) -> Artifact:
        """Insert a result and close its execution, in one transaction.

        Returns:
            The artifact that counts: `artifact`, or that of a writer who was first.
        """
        outputs = {a.sha256: a for a in [*files_out, artifact]}
        with self.session() as session:
            for row in sorted(outputs.values(), key=lambda a: a.sha256):  # two writers never wait for each other
                self._insert_or_ignore(session, t.ArtifactRow, sha256=row.sha256, size=row.size,
                                       media_type=row.media_type, created=_now())
            first = self._insert_or_ignore(session, t.Result, recipe=result.recipe, step=result.step,
                                           version=result.version, artifact=artifact.sha256, request=result.request,
                                           created=_now())
            if first:
                for direction, names in (("in", files_in), ("out", set(outputs))):
                    session.add_all(t.ResultFile(recipe=result.recipe, direction=direction, sha256=name)
                                    for name in names)
            session.execute(sa.update(t.Execution).where(t.Execution.id == execution).values(
                outcome="computed" if first else "adopted", ended=_now(), cpu_seconds=cpu_seconds))
        return artifact if first else (self.find(result.recipe) or artifact)

    @staticmethod
    def _insert(session: Session, table: type[t.Table]) -> postgresql.Insert | sqlite.Insert:
        """An insert that can say what to do where the key is taken."""
        return (postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert)(table)

    @classmethod
    def _insert_or_ignore(cls, session: Session, table: type[t.Table], **values: Any) -> bool:
        """Insert a row unless its key is taken; says whether it was inserted."""
        key = sa.inspect(table).primary_key[0]
        query = cls._insert(session, table).values(**values).on_conflict_do_nothing().returning(key)
        return session.execute(query).first() is not None  # a row count is not to be had from every driver

    # -- domain rows --------------------------------------------------------------------------------------------------

    def save(self, rows: Iterable[t.Table]) -> None:
        """Insert or replace domain rows (episodes, shots, shards, deliveries) by their keys."""
        with self.session() as session:
            for row in rows:
                self._upsert(session, row)

    @classmethod
    def _upsert(cls, session: Session, row: t.Table) -> None:
        columns = type(row).__table__.columns.keys()
        values = {name: value for name, value in vars(row).items() if name in columns}
        keys = [column.name for column in sa.inspect(type(row)).primary_key]
        query = cls._insert(session, type(row)).values(**values)
        session.execute(query.on_conflict_do_update(index_elements=keys, set_={
            name: query.excluded[name] for name in values if name not in keys}))

    def replace_lines(self, episode: str, language: str, rows: Iterable[t.LineRow]) -> None:
        """Make `rows` the lines of an episode in a language ('' is the transcript)."""
        self._replace(t.LineRow, episode, language, rows)

    def replace_shots(self, episode: str, language: str, rows: Iterable[t.ShotRow]) -> None:
        """Make `rows` the shots of an episode in a language."""
        self._replace(t.ShotRow, episode, language, rows)

    def _replace(self, table: type[t.LineRow] | type[t.ShotRow], episode: str, language: str,
                 rows: Iterable[t.Table]) -> None:
        with self.session() as session:
            if self._postgresql:  # two that replace the same rows take turns
                session.execute(sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(
                    f"{table.__tablename__} {episode} {language}"))))
            session.execute(sa.delete(table).where(table.episode == episode, table.language == language))
            session.add_all(rows)

    def takes(self, episode: str, language: str) -> dict[str, int]:
        """Step → how often it was asked to be done anew; '' holds the steps that languages share."""
        with self.session() as session:
            rows = session.scalars(sa.select(t.Take).where(t.Take.episode == episode, t.Take.language == language))
            return {row.step: row.take for row in rows}

    def raise_takes(self, episode: str, language: str, steps: Iterable[str]) -> None:
        """Ask for `steps` to be done anew from the next run on."""
        with self.session() as session:
            for step in sorted(steps):  # in one order, so that two callers never wait for each other
                query = self._insert(session, t.Take).values(episode=episode, language=language, step=step, take=1)
                session.execute(query.on_conflict_do_update(
                    index_elements=["episode", "language", "step"], set_={"take": t.Take.take + 1}))

    def edits(self, episode: str, language: str) -> dict[str, LineEdit]:
        """Line id → text set by a person, and the source text that it is for."""
        with self.session() as session:
            rows = session.scalars(sa.select(t.Edit).where(t.Edit.episode == episode, t.Edit.language == language))
            return {row.line: LineEdit(text=row.text, source=row.source) for row in rows}

    def known_hash(self, path: Path) -> str | None:
        """The hash of a file outside the store, if it was hashed before and did not change since.

        Raises:
            InputError: Its name is not UTF-8.
        """
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise InputError("the name of this file is not UTF-8", where=ascii(str(path)), hint="Rename it") from error
        stat = path.stat()
        with self.session() as session:
            row = session.get(t.KnownFile, str(path))
            same = row and (row.size, row.mtime_ns, row.inode) == (stat.st_size, stat.st_mtime_ns, _inode(stat))
            return row.sha256 if row and same else None

    def remember_hash(self, path: Path, digest: str) -> None:
        """Keep the hash of a file outside the store."""
        stat = path.stat()
        self.save([t.KnownFile(path=str(path), size=stat.st_size, mtime_ns=stat.st_mtime_ns, inode=_inode(stat),
                               sha256=digest)])
