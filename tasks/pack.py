"""Missing shots → shards of even length, long enough for their start-up; and how good a list of shards can be. Pure.

Shards are of one episode and language. Workers take the longest first (LPT: Graham, "Bounds on multiprocessing timing
anomalies", SIAM J. Appl. Math. 17, 1969).
"""

from __future__ import annotations

from collections.abc import Sequence

from models.pool import Packed
from models.records import ShotRequest


def pack(requests: Sequence[ShotRequest], seconds: Sequence[float], recipes: Sequence[str], *, episode: str,
         language: str, startup_s: float = 90.0, share: float = 0.05) -> tuple[Packed, ...]:
    """Cut shots, in the order of the episode, into runs of nearly equal time.

    Args:
        requests: The shots.
        seconds: GPU seconds of each.
        recipes: Of each.
        episode: Named in each shard.
        language: BCP-47, named in each shard.
        startup_s: From the start of a process until its generator is ready.
        share: Largest part of a shard's time that start-up may take, 0 < share < 1; only the one shard made of too
            little for this exceeds it.
    """
    raise NotImplementedError


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Seconds until `workers` that take the longest first are through."""
    raise NotImplementedError


def bound(seconds: Sequence[float], workers: int) -> float:
    """Seconds that no schedule can beat: max(Σp/W, p₁, p_W + p_{W+1}, 3·p_{2W+1}), p in falling order."""
    raise NotImplementedError
