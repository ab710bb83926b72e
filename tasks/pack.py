"""Missing shots → shards of even length, long enough for their start-up; and how good a list of shards can be. Pure.

Shards are of one episode and language. Workers take the longest first (LPT: Graham, "Bounds on multiprocessing timing
anomalies", SIAM J. Appl. Math. 17, 1969).
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from models.pool import Packed
from models.recipe import canonical, sha256
from models.records import Shard, ShotRequest


def pack(requests: Sequence[ShotRequest], seconds: Sequence[float], recipes: Sequence[str], *, episode: str,
         language: str, startup_s: float = 90.0, share: float = 0.05, correction: float = 1.0) -> tuple[Packed, ...]:
    """Cut shots, in the order of the episode, into runs of nearly equal time.

    Args:
        requests: The shots.
        seconds: GPU seconds of each, start-up not counted.
        recipes: Of each.
        episode: Named in each shard.
        language: BCP-47, named in each shard.
        startup_s: From the start of a process until its generator is ready.
        share: Largest part of a shard's time that start-up may take, 0 < share < 1; only the one shard made of too
            little for this exceeds it.
        correction: What past runs made `seconds` of the engine's own model (`Estimator.correction`). Shards note their
            estimates without it: held against them, the next runs say what correction the model needs.
    """
    packed = []
    for start, end in _runs(seconds, startup_s * (1 - share) / share):
        names = tuple(recipes[start:end])
        content = {"episode": episode, "language": language, "recipes": names}
        shard = Shard(id=f"shard-{sha256(canonical(content))[:20]}", episode=episode, language=language,
                      requests=tuple(requests[start:end]))
        packed.append(Packed(shard, sum(seconds[start:end]) / correction, names))
    return tuple(packed)


def _runs(seconds: Sequence[float], least: float) -> list[tuple[int, int]]:
    """Cuts [start, end) of least Σ time², each of at least `least`: as many as there can be, and as even.

    The last run before `end` begins behind the latest place that leaves two whole runs, for those two would be better
    than one. So no run is longer than 2·`least` and its longest shot, and the search takes n × (shots of a run) steps.
    """
    until = [0.0, *accumulate(seconds)]
    total, count = until[-1], len(seconds)
    if total < least:
        return [(0, count)] if count else []
    latest = [-1]  # end → latest start of a whole run that ends there; -1: there is none
    cost, begin = [0.0], [0]
    for end in range(1, count + 1):
        latest.append(min(end, bisect_right(until, until[end] - least)) - 1)
        begin.append(-1)
        cost.append(float("inf"))
        if latest[end] < 0:
            continue
        for start in range(latest[latest[end]] + 1, latest[end] + 1):
            this = cost[start] + (until[end] - until[start]) ** 2
            if this < cost[end]:
                cost[end], begin[end] = this, start
    runs: list[tuple[int, int]] = []
    end = count
    while end:
        runs.append((begin[end], end))
        end = begin[end]
    return runs[::-1]


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Seconds until `workers` that take the longest first are through."""
    busy = [0.0] * workers
    for one in sorted(seconds, reverse=True):
        heapq.heapreplace(busy, busy[0] + one)
    return max(busy)


def bound(seconds: Sequence[float], workers: int) -> float:
    """Seconds that no schedule can beat, and taking the longest first needs no more than 4/3 of.

    With W workers and p in falling order, p₁ first: Σp/W, p₁, and for j ≤ W the least that 2W+1−j jobs can make of it:
    either one worker has three of them, 3·p_{2W+1−j}, or all have at most two, p_j + p_{2W+1−j}.

    That 4/3 holds: the job that ends last begins when all are busy, at Σp/W at the latest. If it is no longer than a
    third of the bound, that is all. Else all jobs down to it fit as pairs below the bound, and pairs are what taking
    the longest first makes of them.
    """
    p = sorted(seconds, reverse=True)
    if not p:
        return 0.0
    found = max(sum(p) / workers, p[0])
    for j in range(workers + 1):
        last = 2 * workers - j  # p[last] is p_{2W+1−j}
        if last < len(p):
            found = max(found, 3 * p[last] if j == 0 else p[j - 1] + p[last] if j == workers
                        else min(p[j - 1] + p[last], 3 * p[last]))
    return found
