"""The nouns of the GPU pool: shards that wait, are worked off and cost, as the queue hands them around.

Times are seconds; leases and ages are measured by the database's clock alone, never by a worker's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.records import Shard

ShardState = Literal["queued", "dispatched", "running", "done", "failed", "cancelled"]
LIVE: frozenset[ShardState] = frozenset({"queued", "dispatched", "running"})
"""States in which a shard will still be worked on: it owns its shots."""
EVICTED = "EvictedError"
"""`error_class` of an attempt whose process was told to stop."""
CAPACITY = "CapacityError"
"""`error_class` of an attempt that found no GPU, or too little free memory on it."""
LOST = "LostError"
"""`error_class` of an attempt whose lease ran out: its process died (killed for its memory, say, or with its node), or
could not reach the database."""
UNSTARTED = "StartError"
"""`error_class` of an attempt whose process ended before it took its shard: an image that cannot be pulled, say."""
FREE: frozenset[str] = frozenset({EVICTED, CAPACITY})
"""`error_class` of attempts that cost none of a shard's tries: they say something of the place, not of the shard."""
TRIES = 3
"""An attempt that got on costs nothing; so many that did not end a shard."""
WAITS = {EVICTED: (0.0, 0.0), LOST: (5.0, 5.0), CAPACITY: (60.0, 1800.0)}
"""`error_class` → seconds until the next attempt, the first time and at most; each time they are twice as many."""
ANY_WAIT = (10.0, 900.0)
"""Of all others: weights that lack on a node, a GPU that is too small, a full disk, the network, a program's fault."""


@dataclass(frozen=True)
class Packed:
    """A shard that is ready to be queued."""

    shard: Shard
    estimate_s: float
    """GPU seconds its shots should take by the engine's own model, start-up not counted: what past runs taught is left
    out, so that they can be held against it."""
    recipes: tuple[str, ...]
    """Of its shots, in the order of `shard.requests`."""


@dataclass(frozen=True)
class Waiting:
    """An attempt that a process is to be started for."""

    shard: str
    attempt: int
    episode: str
    language: str
    estimate_s: float
    priority: int
    """Of its catalog; the larger goes first."""


@dataclass(frozen=True)
class Lease:
    """The right of one process to work on a shard; `attempt` fences off all earlier ones."""

    shard: str
    attempt: int
    seconds: float
    """It holds so long after each heartbeat."""
    artifact: str
    """SHA-256 of its SHARD.json in the store."""
    episode: str
    language: str


@dataclass(frozen=True)
class Beat:
    """What an attempt has done so far: sums, that only grow."""

    gpu_seconds: float
    """From the start of the process, or the end of its shard before this one."""
    startup_seconds: float
    """Of these, until the generator was ready; 0 where it was ready already."""
    chunks: int
    frames: int
    chunks_done: int = 0
    """Of the shard's chunks, those that are in the store, whoever made them."""
    chunks_total: int = 0


@dataclass(frozen=True)
class ShotOutcome:
    """What became of a shot in the newest shard that has it."""

    recipe: str
    shard: str
    state: ShardState
    """Of the shard."""
    flagged: bool
    """It failed with two seeds, and is left alone until somebody asks for it again."""
    error_class: str
    error: str


@dataclass(frozen=True)
class ShardLine:
    """A shard as `status` shows it."""

    shard: str
    catalog: str
    episode: str
    language: str
    state: ShardState
    attempt: int
    shots: int
    frames: int
    """To be made in all."""
    frames_made: int
    """By its newest attempt."""
    chunks: int
    """By its newest attempt."""
    chunks_done: int
    """That were in the store when it was last heard of, whoever made them."""
    chunks_total: int
    """0: nobody has counted yet."""
    estimate_s: float
    gpu_seconds: float
    """Of all its attempts."""
    beat_age_s: float | None
    """Since its newest attempt was last heard of; None: not yet."""
    owner: str
    error_class: str
    error: str


@dataclass(frozen=True)
class History:
    """What an engine's last finished attempts took."""

    frames: int = 0
    seconds: float = 0.0
    """GPU seconds of these frames, start-up not counted."""
    estimated: float = 0.0
    """What those attempts' shards were expected to take (`Packed.estimate_s`)."""
    startups: tuple[float, ...] = ()
    """Start-up seconds of those attempts that loaded the engine, newest first."""


@dataclass(frozen=True)
class Spent:
    """What one episode in one language took on one pool; language '' is what languages share."""

    episode: str
    language: str
    pool: str
    """'' for CPU steps."""
    gpu_seconds: float
    """Of all attempts."""
    lost_seconds: float
    """Of these, what attempts took that did not finish their shard."""
    cpu_seconds: float
    startup_seconds: float = 0.0
    """Of the GPU seconds, until generators were ready."""
