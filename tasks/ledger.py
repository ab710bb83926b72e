"""The database behind plain functions: the only module that opens sessions.

Each function is one short transaction. `unique(recipe)` on `results` decides races: the loser adopts the winner's row.
"""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
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
                if connection.dialect.name == "postgresql":  # two flows may start at the same second
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

    # -- runs ---------------------------------------------------------------------------------------------------------

    def begin_run(self, command: str, parameters: Mapping[str, Any], environment: Mapping[str, Any],
                  catalog: str = "") -> str:
        """Open a run and return its id.

        Args:
            command: The verb.
            parameters: What it was asked for, as plain JSON.
            environment: Facts about this machine.
            catalog: Whose bound on shards in flight it counts for; '' where it dubs none.
        """
        if catalog:
            raise NotImplementedError
        run = t.Run(id=str(uuid.uuid4()), command=command, parameters=dict(parameters),
                    environment=dict(environment), flow_run=None, state="running", started=_now(), ended=None)
        with self.session() as session:
            session.add(run)
        return run.id

    def keep_run(self, run_id: str, lease_s: float) -> bool:
        """Say that a run is alive for another `lease_s` seconds. False: it was closed meanwhile."""
        raise NotImplementedError

    @contextmanager
    def sweeping(self) -> Iterator[bool]:
        """Keep runs and shards from beginning while the block lasts. Yields whether none is live now."""
        raise NotImplementedError
        yield False

    def end_run(self, run_id: str, state: str) -> None:
        """Close a run as 'done', 'failed' or 'cancelled'; executions still marked running share its fate."""
        with self.session() as session:
            session.execute(sa.update(t.Run).where(t.Run.id == run_id).values(state=state, ended=_now()))
            session.execute(sa.update(t.Execution).where(t.Execution.run_id == run_id, t.Execution.outcome == "running")
                            .values(outcome="cancelled" if state == "cancelled" else "failed", ended=_now()))

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
        raise NotImplementedError

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
            if session.get_bind().dialect.name == "postgresql":  # two that replace the same rows take turns
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

    def edit(self, episode: str, language: str, line: str, edit: LineEdit, author: str) -> None:
        """Set the text of one line."""
        self.save([t.Edit(episode=episode, language=language, line=line, text=edit.text, source=edit.source,
                          author=author, updated=_now())])

    def undo_edit(self, episode: str, language: str, line: str) -> None:
        """Remove the text that was set for a line."""
        with self.session() as session:
            session.execute(sa.delete(t.Edit).where(t.Edit.episode == episode, t.Edit.language == language,
                                                    t.Edit.line == line))

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
