"""Shards hold every shot once and are worth their start; workers that take the longest first lose next to nothing."""

from __future__ import annotations

import random
import statistics
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.pool import Packed
from models.recipe import sha256
from models.records import Artifact, EngineRef, ShotRequest
from tasks.pack import bound, makespan, pack

STARTUP = 90.0
LEAST = 19 * STARTUP
SOURCE = Artifact(sha256="0" * 64, size=1, media_type="video/mp4")


def shot(number: int) -> ShotRequest:
    return ShotRequest(shot=f"S{number:04d}", source=SOURCE, start=0, end=50, width=64, height=64, rate="25", tracks=(),
                       generator=EngineRef(name="pulse"))


SHOTS = [shot(number) for number in range(1, 400)]
RECIPES = [sha256(one.shot.encode()) for one in SHOTS]


def packed(seconds: list[float], **options: float) -> tuple[Packed, ...]:
    return pack(SHOTS[:len(seconds)], seconds, RECIPES[:len(seconds)], episode="s/e", language="es",
                **{"startup_s": STARTUP, **options})


@given(st.lists(st.floats(0.01, 5000), max_size=60), st.floats(0, 500), st.floats(0.01, 0.9))
def test_shards_hold_every_shot_once_in_order_and_are_worth_their_start(seconds: list[float], startup: float,
                                                                        share: float) -> None:
    shards = packed(seconds, startup_s=startup, share=share)
    assert [r.shot for one in shards for r in one.shard.requests] == [r.shot for r in SHOTS[:len(seconds)]]
    assert [recipe for one in shards for recipe in one.recipes] == RECIPES[:len(seconds)]
    assert sum(one.estimate_s for one in shards) == pytest.approx(sum(seconds))
    least = startup * (1 - share) / share
    if sum(seconds) >= least:
        assert all(one.estimate_s >= least * (1 - 1e-9) for one in shards)
        assert all(one.estimate_s <= 2 * least + max(seconds) + 1e-6 for one in shards)
    else:
        assert len(shards) <= 1


def best(seconds: list[float], least: float) -> float:
    """Least Σ time² by trying every way to cut."""
    found = sum(seconds) ** 2
    for cuts in product((False, True), repeat=len(seconds) - 1):
        runs = [[seconds[0]]]
        for cut, one in zip(cuts, seconds[1:], strict=True):
            runs.append([one]) if cut else runs[-1].append(one)
        if all(sum(run) >= least for run in runs):
            found = min(found, sum(sum(run) ** 2 for run in runs))
    return found


@given(st.lists(st.integers(1, 30), min_size=1, max_size=9), st.integers(0, 40))
def test_no_other_cut_into_whole_shards_is_more_even(times: list[int], least: int) -> None:
    shards = packed([float(one) for one in times], startup_s=float(least), share=0.5)
    assert sum(one.estimate_s ** 2 for one in shards) == best([float(one) for one in times], least)


def test_a_shards_name_tells_its_content() -> None:
    def name(shots: list[int], language: str = "es") -> str:
        (one,) = pack([SHOTS[i] for i in shots], [1.0] * len(shots), [RECIPES[i] for i in shots], episode="s/e",
                      language=language)
        return one.shard.id

    assert len({name([0, 1]), name([0, 2]), name([0, 1], "fr")}) == 3
    assert name([0, 1]) == name([0, 1])


def test_estimates_are_noted_without_what_past_runs_taught() -> None:
    """Else the next run would take the corrected figure for the model's, and correct it back."""
    assert [one.estimate_s for one in packed([LEAST, LEAST], correction=2.0)] == [LEAST / 2, LEAST / 2]


def test_no_shots_make_no_shard() -> None:
    assert packed([]) == ()


# -- a thousand catalogs ----------------------------------------------------------------------------------------------


def catalog(seed: int) -> tuple[list[list[float]], int]:
    """GPU seconds of the shots of each episode and language, and how many workers there are."""
    chance = random.Random(seed)
    speed = chance.choice([4.0, 16.0, 120.0])  # GPU seconds a second of picture
    made = []
    for _ in range(chance.randint(1, 16)):
        shots = [speed * min(chance.lognormvariate(1.2, 0.8), 60.0) for _ in range(chance.randint(3, 60))]
        made += [[one for one in shots if chance.random() < 0.8] for _ in range(chance.randint(1, 4))]
    return made, chance.choice([1, 2, 4, 8, 16, 64])


def test_a_thousand_catalogs_are_packed_near_the_bound() -> None:
    ratios, shares = [], []
    for seed in range(1000):
        jobs, workers = catalog(seed)
        times = []
        for seconds in jobs:
            estimates = [one.estimate_s for one in packed(seconds)]
            times += [STARTUP + one for one in estimates]
            if sum(seconds) >= LEAST:  # else it is one short shard
                shares += [STARTUP / (STARTUP + one) for one in estimates]
                assert max(estimates) <= max(3 * LEAST, 2 * LEAST + max(seconds))
        if times:
            ratio = makespan(times, workers) / bound(times, workers)
            assert 1 - 1e-9 <= ratio <= 4 / 3 + 1e-9
            if len(times) >= 10 * workers:
                ratios.append(ratio)
    assert max(shares) <= 0.05 + 1e-9
    assert len(ratios) > 200
    assert statistics.median(ratios) <= 1.02


def least_makespan(seconds: list[float], workers: int) -> float:
    """By trying every way to share them out."""
    return min(max(sum(one for one, who in zip(seconds, whose, strict=True) if who == worker)
                   for worker in range(workers)) for whose in product(range(workers), repeat=len(seconds)))


@given(st.lists(st.integers(1, 12), min_size=1, max_size=7), st.integers(1, 3))
def test_no_schedule_beats_the_bound(times: list[int], workers: int) -> None:
    seconds = [float(one) for one in times]
    assert bound(seconds, workers) <= least_makespan(seconds, workers) + 1e-9


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 14))
def test_taking_the_longest_first_needs_no_more_than_four_thirds_of_the_bound(times: list[int], workers: int) -> None:
    seconds = [float(one) for one in times]
    assert bound(seconds, workers) <= makespan(seconds, workers) + 1e-9
    assert makespan(seconds, workers) <= 4 / 3 * bound(seconds, workers) + 1e-9


def test_the_bound_knows_that_a_long_job_leaves_its_worker_no_room() -> None:
    """Six workers, one job of a whole and eleven of 5/11: nobody can pair the long one, so somebody has three."""
    times = [11.0] + 11 * [5.0]
    assert makespan(times, 6) == 15
    assert bound(times, 6) == 15
