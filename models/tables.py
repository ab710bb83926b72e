"""What the database remembers. SQLite on a laptop, PostgreSQL in production; the same tables.

`results` is the one truth for reuse: a recipe is in it once, or not at all. `executions` is the history: every time a
step or an item was computed, reused or failed, in which run, by which engine, at what cost.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.sql.functions import FunctionElement


class clock(FunctionElement[float]):  # noqa: N801 - it reads as the SQL function that it is
    """Seconds since 1970 by the database's own clock, at the moment at which a row is looked at.

    PostgreSQL's `now()` would be the start of the transaction, which may have waited for a lock since.
    """

    type = sa.Double()
    inherit_cache = True


@compiles(clock, "postgresql")
def _clock_postgresql(_element: clock, _compiler: Any, **_options: Any) -> str:
    return "CAST(extract(epoch FROM clock_timestamp()) AS double precision)"


@compiles(clock, "sqlite")
def _clock_sqlite(_element: clock, _compiler: Any, **_options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"  # unixepoch('subsec') needs SQLite 3.42


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """Aware datetimes in UTC, also from SQLite, which keeps no time zone."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """To UTC."""
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """From the database: SQLite says no zone, PostgreSQL that of the connection."""
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


class Table(DeclarativeBase):
    """Base of all tables; constraint names are fixed so that migrations can find them."""

    metadata = sa.MetaData(naming_convention={
        "ix": "ix_%(column_0_label)s", "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s", "pk": "pk_%(table_name)s",
    })
    type_annotation_map: ClassVar = {dict[str, Any]: sa.JSON, list[Any]: sa.JSON, datetime: UtcDateTime,
                                     float: sa.Double}


class Run(Table):
    """One start of the program: who asked for what, where, with which versions."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    command: Mapped[str]
    parameters: Mapped[dict[str, Any]]
    environment: Mapped[dict[str, Any]]
    """Host, Python and library versions, git revision: facts that must not enter a recipe."""
    flow_run: Mapped[str | None]
    state: Mapped[str] = mapped_column(sa.String(16))
    """running, done, failed, cancelled."""
    failures: Mapped[list[Any] | None]
    """[episode, language] of what failed, '' for what languages share; none as long as it runs."""
    started: Mapped[datetime]
    ended: Mapped[datetime | None]
    catalog: Mapped[str] = mapped_column(default="")
    """Whose bound on shards in flight it counts for; '' where it dubs none."""
    lease_until: Mapped[float | None]
    """`clock()` after which it is taken for dead; none: it never said that it is alive, and is left alone."""


class ArtifactRow(Table):
    """A file in the store."""

    __tablename__ = "artifacts"
    sha256: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    size: Mapped[int] = mapped_column(sa.BigInteger)
    media_type: Mapped[str]
    created: Mapped[datetime]


class Result(Table):
    """A finished recipe and the artifact that holds its result record."""

    __tablename__ = "results"
    recipe: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    step: Mapped[str] = mapped_column(sa.String(64))
    version: Mapped[int]
    artifact: Mapped[str] = mapped_column(sa.ForeignKey("artifacts.sha256"))
    request: Mapped[dict[str, Any]]
    created: Mapped[datetime]


class ResultFile(Table):
    """Which files and records went into a result ('in') and came out of it ('out'): the edges that `trace` walks."""

    __tablename__ = "result_files"
    recipe: Mapped[str] = mapped_column(sa.ForeignKey("results.recipe", ondelete="CASCADE"), primary_key=True)
    direction: Mapped[str] = mapped_column(sa.String(3), primary_key=True)
    sha256: Mapped[str] = mapped_column(sa.String(64), primary_key=True, index=True)


class Execution(Table):
    """One attempt at a step or an item, or its reuse."""

    __tablename__ = "executions"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(sa.ForeignKey("runs.id"), index=True)
    recipe: Mapped[str] = mapped_column(sa.String(64), index=True)
    step: Mapped[str] = mapped_column(sa.String(64))
    item: Mapped[str] = mapped_column(default="")
    episode: Mapped[str] = mapped_column(default="", index=True)
    language: Mapped[str] = mapped_column(default="")
    attempt: Mapped[int] = mapped_column(default=1)
    outcome: Mapped[str] = mapped_column(sa.String(16))
    """running, computed, reused, adopted (another writer was first), failed, cancelled."""
    engine: Mapped[str] = mapped_column(default="")
    weights: Mapped[dict[str, Any]]
    seed: Mapped[int | None] = mapped_column(sa.BigInteger)
    started: Mapped[datetime]
    ended: Mapped[datetime | None]
    cpu_seconds: Mapped[float | None]
    error_class: Mapped[str | None]
    error: Mapped[str | None]


class Episode(Table):
    """An episode as last ingested."""

    __tablename__ = "episodes"
    id: Mapped[str] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(default="")
    source_path: Mapped[str]
    source_sha256: Mapped[str] = mapped_column(sa.String(64))
    source: Mapped[dict[str, Any]]
    """The `Source` record."""
    updated: Mapped[datetime]


class LineRow(Table):
    """A line in one language ('' is the transcript), with its timing report once it is voiced."""

    __tablename__ = "lines"
    episode: Mapped[str] = mapped_column(primary_key=True)
    language: Mapped[str] = mapped_column(primary_key=True)
    line: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    speaker: Mapped[str]
    text: Mapped[str]
    start: Mapped[int] = mapped_column(sa.BigInteger)
    end: Mapped[int] = mapped_column(sa.BigInteger)
    report: Mapped[dict[str, Any]]


class ShotRow(Table):
    """A shot in one language: what is done with it, and its clip."""

    __tablename__ = "shots"
    episode: Mapped[str] = mapped_column(primary_key=True)
    language: Mapped[str] = mapped_column(primary_key=True)
    shot: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    start: Mapped[int]
    end: Mapped[int]
    kind: Mapped[str] = mapped_column(sa.String(16))
    reason: Mapped[str]
    recipe: Mapped[str | None] = mapped_column(sa.String(64))


class ShardRow(Table):
    """A list of shots for one GPU process: an entry of the queue. `tasks.shards` has its states and moves."""

    __tablename__ = "shards"
    id: Mapped[str] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(sa.ForeignKey("runs.id"), index=True)
    """The run that queued it last."""
    episode: Mapped[str]
    language: Mapped[str]
    shots: Mapped[list[Any]]
    state: Mapped[str] = mapped_column(sa.String(16))
    updated: Mapped[datetime]
    """When it changed its state last, for people."""
    catalog: Mapped[str] = mapped_column(default="")
    artifact: Mapped[str] = mapped_column(sa.String(64), default="")
    """SHA-256 of its SHARD.json in the store; '' where the run's own process works it off."""
    engine: Mapped[str] = mapped_column(default="")
    frames: Mapped[int] = mapped_column(default=0)
    """To be generated."""
    estimate_s: Mapped[float] = mapped_column(default=0.0)
    """GPU seconds expected, start-up not counted."""
    priority: Mapped[int] = mapped_column(default=0)
    in_flight: Mapped[int] = mapped_column(default=1)
    """Bound of its catalog."""
    attempt: Mapped[int] = mapped_column(default=0)
    """Number of the newest, 0 before the first; it is never set back."""
    tries_left: Mapped[int] = mapped_column(default=3)
    not_before: Mapped[float] = mapped_column(default=0.0)
    deadline: Mapped[float] = mapped_column(default=0.0)
    lease_until: Mapped[float | None]
    """These three: seconds of `clock()`. A lease is there exactly while an attempt is dispatched or running."""
    error_class: Mapped[str] = mapped_column(default="")
    error: Mapped[str] = mapped_column(default="")
    __table_args__ = (sa.Index("ix_shards_state_priority", "state", "priority"),
                      sa.Index("ix_shards_catalog_state", "catalog", "state"),
                      sa.Index("ix_shards_episode_language", "episode", "language"))


class ShardShot(Table):
    """Which shard makes a shot, or made it last: no two live ones have the same."""

    __tablename__ = "shard_shots"
    recipe: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    shard: Mapped[str] = mapped_column(sa.ForeignKey("shards.id"), index=True)
    shot: Mapped[str] = mapped_column(sa.String(32))
    flagged: Mapped[bool] = mapped_column(default=False)
    """It failed with two seeds: no shard takes it until somebody asks for it again."""
    error_class: Mapped[str] = mapped_column(default="")
    error: Mapped[str] = mapped_column(default="")


class ShardAttempt(Table):
    """One process's go at a shard: what it did and cost, however it ended."""

    __tablename__ = "shard_attempts"
    shard: Mapped[str] = mapped_column(sa.ForeignKey("shards.id"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(sa.ForeignKey("runs.id"), index=True)
    """The run that it was for: whose costs it is."""
    pool: Mapped[str]
    flow_run: Mapped[str | None]
    """Of Prefect, or name of the Job; none as long as nobody noted it."""
    owner: Mapped[str] = mapped_column(default="")
    device: Mapped[str] = mapped_column(default="")
    state: Mapped[str] = mapped_column(sa.String(16))
    """dispatched, running, done, failed, returned, lost, cancelled."""
    dispatched: Mapped[float]
    started: Mapped[float | None]
    beat: Mapped[float | None]
    ended: Mapped[float | None]
    """These four: seconds of `clock()`."""
    gpu_seconds: Mapped[float] = mapped_column(default=0.0)
    startup_seconds: Mapped[float] = mapped_column(default=0.0)
    chunks: Mapped[int] = mapped_column(default=0)
    frames: Mapped[int] = mapped_column(default=0)
    """These two: made by this process."""
    chunks_done: Mapped[int] = mapped_column(default=0, server_default="0")
    chunks_total: Mapped[int] = mapped_column(default=0, server_default="0")
    """These two: of the whole shard, whoever made them; 0 as long as nobody has counted."""
    error_class: Mapped[str] = mapped_column(default="")
    error: Mapped[str] = mapped_column(default="")


class Edit(Table):
    """A target text set by a person; it wins over engine and script while the source text stays what it was."""

    __tablename__ = "edits"
    episode: Mapped[str] = mapped_column(primary_key=True)
    language: Mapped[str] = mapped_column(primary_key=True)
    line: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    text: Mapped[str]
    source: Mapped[str] = mapped_column(sa.String(64))
    """SHA-256 of the source text."""
    author: Mapped[str]
    updated: Mapped[datetime]


class CastMember(Table):
    """Somebody who speaks in a series. What he sounds like is in the rows of `CastSpeaker` that point here."""

    __tablename__ = "cast_members"
    series: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """From 1, in the order in which they were first heard; shown as M1, M2 …"""
    name: Mapped[str] = mapped_column(default="")
    gender: Mapped[str] = mapped_column(sa.String(8), default="")
    person: Mapped[str] = mapped_column(default="")
    """Name of the real person whose voice and face these are. These three are set by people only, '' until then."""
    merged_into: Mapped[int | None]
    """Number of the member that he turned out to be."""
    author: Mapped[str] = mapped_column(default="")
    """Who decided something about him last; '' for nobody yet."""
    updated: Mapped[datetime]


class CastSpeaker(Table):
    """A speaker of one episode: which member he is, and what he sounds like there."""

    __tablename__ = "cast_speakers"
    episode: Mapped[str] = mapped_column(primary_key=True)
    speaker: Mapped[str] = mapped_column(primary_key=True)
    series: Mapped[str]
    member: Mapped[int]
    found: Mapped[str] = mapped_column(sa.String(8))
    """voice, name, new, person: how it is known that he is that member."""
    likeness: Mapped[float | None]
    """Cosine with the member's other voices, where that decided."""
    name: Mapped[str] = mapped_column(default="")
    """As a transcript or diarization calls him."""
    pitch_hz: Mapped[float | None]
    embedding: Mapped[list[Any]]
    space: Mapped[str] = mapped_column(sa.String(64), default="")
    """Which engine's embedding: those of two cannot be compared."""
    updated: Mapped[datetime]
    __table_args__ = (sa.ForeignKeyConstraint(["series", "member"], ["cast_members.series", "cast_members.number"]),
                      sa.Index("ix_cast_speakers_series_member", "series", "member"))


class CastVoiceRow(Table):
    """A member's voice in one language, by one synthesizer: chosen once, and the same in all episodes."""

    __tablename__ = "cast_voices"
    series: Mapped[str] = mapped_column(primary_key=True)
    member: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    language: Mapped[str] = mapped_column(primary_key=True)
    synthesizer: Mapped[str] = mapped_column(primary_key=True)
    voice: Mapped[str]
    share: Mapped[int]
    """How many others of the series had this voice already when it was given to him: two runs that choose at the same
    time cannot both be the first."""
    chosen: Mapped[str] = mapped_column(sa.String(8))
    """default, person."""
    author: Mapped[str] = mapped_column(default="")
    updated: Mapped[datetime]
    __table_args__ = (sa.UniqueConstraint("series", "language", "synthesizer", "voice", "share"),
                      sa.ForeignKeyConstraint(["series", "member"], ["cast_members.series", "cast_members.number"]))


class ConsentRow(Table):
    """What a person agreed to: that his voice is imitated, or his picture made anew."""

    __tablename__ = "consents"
    id: Mapped[int] = mapped_column(primary_key=True)
    person: Mapped[str]
    kind: Mapped[str] = mapped_column(sa.String(8))
    """voice, likeness."""
    scope: Mapped[str]
    """A series, an episode (series/id), or '*' for everything."""
    languages: Mapped[list[Any]]
    """BCP-47; none: all."""
    expires: Mapped[str] = mapped_column(sa.String(10), default="")
    """ISO date of its last day (UTC); '' for never."""
    evidence: Mapped[str] = mapped_column(default="")
    evidence_sha256: Mapped[str] = mapped_column(sa.String(64), default="")
    recorded_by: Mapped[str]
    recorded: Mapped[datetime]
    revoked_by: Mapped[str] = mapped_column(default="")
    revoked: Mapped[datetime | None]


class ConsentUse(Table):
    """Which consent stood behind a result when it was asked for: what `trace` shows."""

    __tablename__ = "consent_uses"
    recipe: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    consent: Mapped[int] = mapped_column(sa.ForeignKey("consents.id"), primary_key=True)
    run_id: Mapped[str] = mapped_column(sa.ForeignKey("runs.id"))
    noted: Mapped[datetime]


class TargetLine(Table):
    """A line of an episode and its text in one language, as it was translated last: what is reviewed."""

    __tablename__ = "target_lines"
    episode: Mapped[str] = mapped_column(primary_key=True)
    language: Mapped[str] = mapped_column(primary_key=True)
    line: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    place: Mapped[int]
    """Its number in the episode, from 0."""
    speaker: Mapped[str]
    start: Mapped[int] = mapped_column(sa.BigInteger)
    end: Mapped[int] = mapped_column(sa.BigInteger)
    source: Mapped[str]
    text: Mapped[str]
    origin: Mapped[str] = mapped_column(sa.String(16))
    flags: Mapped[list[Any]]
    candidates: Mapped[list[Any]]
    """Texts of the others that it was chosen from."""


class Approval(Table):
    """Somebody found a line right as it was then; it lapses where its source or its text changes."""

    __tablename__ = "approvals"
    episode: Mapped[str] = mapped_column(primary_key=True)
    language: Mapped[str] = mapped_column(primary_key=True)
    line: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    digest: Mapped[str] = mapped_column(sa.String(64))
    """Of source and text: `models.review.digest`."""
    who: Mapped[str]
    updated: Mapped[datetime]


class Lock(Table):
    """A text that stays whatever engines, scripts, imports and edits say, until somebody unlocks it."""

    __tablename__ = "locks"
    episode: Mapped[str] = mapped_column(primary_key=True)
    language: Mapped[str] = mapped_column(primary_key=True)
    line: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    text: Mapped[str]
    source: Mapped[str]
    start: Mapped[int] = mapped_column(sa.BigInteger)
    end: Mapped[int] = mapped_column(sa.BigInteger)
    """What was said in the source then, and when: another line may come to bear the same id."""
    who: Mapped[str]
    updated: Mapped[datetime]


class Review(Table):
    """How far the review of one language of an episode is."""

    __tablename__ = "reviews"
    episode: Mapped[str] = mapped_column(primary_key=True)
    language: Mapped[str] = mapped_column(primary_key=True)
    script: Mapped[str] = mapped_column(sa.String(64))
    """SHA-256 of transcript and translation that `target_lines` holds."""
    state: Mapped[str] = mapped_column(sa.String(16))
    """open: nobody asked for it; awaiting; approved."""
    since: Mapped[datetime | None]
    deadline: Mapped[float | None]
    """`clock()` at which the time for it is over; none where that was told already."""
    on_timeout: Mapped[str] = mapped_column(sa.String(16))
    """approve or wait."""


class ReviewEvent(Table):
    """Who did what to a language's texts, and when; rows are only ever added."""

    __tablename__ = "review_events"
    id: Mapped[int] = mapped_column(primary_key=True)
    episode: Mapped[str]
    language: Mapped[str]
    line: Mapped[str] = mapped_column(sa.String(32), default="")
    """'' is all of the language."""
    what: Mapped[str] = mapped_column(sa.String(16))
    """ask, export, import, edit, undo, approve, lock, unlock, time-out."""
    who: Mapped[str]
    at: Mapped[datetime]
    details: Mapped[dict[str, Any]]
    __table_args__ = (sa.Index("ix_review_events_episode_language", "episode", "language"),)


class Take(Table):
    """How often a step was asked to be done anew (`infinidub redo --from`)."""

    __tablename__ = "takes"
    episode: Mapped[str] = mapped_column(primary_key=True)
    language: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    take: Mapped[int]


class KnownFile(Table):
    """Hash of a file outside the store, good while size, change time and inode stay: spares hashing it every night."""

    __tablename__ = "known_files"
    path: Mapped[str] = mapped_column(primary_key=True)
    size: Mapped[int] = mapped_column(sa.BigInteger)
    mtime_ns: Mapped[int] = mapped_column(sa.BigInteger)
    inode: Mapped[int] = mapped_column(sa.BigInteger)
    sha256: Mapped[str] = mapped_column(sa.String(64))


class Delivery(Table):
    """A file delivered outside the store: what `trace` looks up, and what must not be overwritten unnoticed."""

    __tablename__ = "deliveries"
    path: Mapped[str] = mapped_column(primary_key=True)
    episode: Mapped[str]
    language: Mapped[str]
    sha256: Mapped[str] = mapped_column(sa.String(64), index=True)
    record: Mapped[dict[str, Any]]
    """The `Deliverable` it belongs to."""
    updated: Mapped[datetime]
