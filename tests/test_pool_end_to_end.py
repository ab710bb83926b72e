"""A catalog on a pool of real processes: dubbed, dubbed while they are killed, and without a credential left anywhere.

One test, so that there is one pool, in however many processes the suite runs.
"""

from __future__ import annotations

import json
import logging

import pytest

from models import tables as t
from tests.pool import check
from tests.pool.chaos import CHUNKS, live_through
from tests.pool.secrets import NEEDLES, fail_in_many_ways, written
from tests.pool.stack import Dubbed, Stack

FEW = (0,)
"""Of `make chaos`: a shard's process is killed after half of its chunks."""


def test_a_catalog_on_a_pool(pool: Stack, dubbed: Dubbed, subtests: pytest.Subtests, capfd: pytest.CaptureFixture[str],
                             caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with subtests.test("undisturbed"):
        assert_dubbed(pool, dubbed)
    for seed in FEW:
        with subtests.test("chaos", seed=seed):
            live_through(pool, dubbed, seed)
    with subtests.test("event"):
        assert_once_more(pool, dubbed)
    with subtests.test("secrets"):
        assert fail_in_many_ways(pool, dubbed, pool.place("secrets", like=dubbed.speech)) == [4, 5, 5]
        said = "".join(capfd.readouterr())
        assert "the fake translator has no Italian today" in said
        everything = [("output", said.encode()), ("log", caplog.text.encode()), *written(pool)]
        shard = dubbed.place.attempts()[0].shard.encode()
        assert any(shard in data for where, data in everything if "prefect.db" in where)  # this is where to look
        assert any(b"Italian" in data for where, data in everything if where == "secrets: executions")
        assert {(where, one) for where, data in everything for one in NEEDLES if one.encode() in data} == set()


def assert_dubbed(pool: Stack, dubbed: Dubbed) -> None:
    """All is delivered, made by shards on the GPU pool, and accounted for."""
    place = dubbed.place
    check.assert_at_rest(pool, place)
    for language in ("es", "fr"):
        folder = place.out / "fake" / "e1" / language
        assert json.loads((folder / "report.json").read_text())["deliverable"]["generated_s"] == 4.0
        assert (folder / f"e1.{language}.mp4").stat().st_size > 0
    attempts = place.attempts()
    assert {one.state for one in attempts if one.chunks} == {"done"}
    assert sum(one.chunks for one in attempts) == CHUNKS
    assert {one.pool for one in attempts} == {"gpu"}
    assert all(one.gpu_seconds > one.startup_seconds >= 0 for one in attempts if one.chunks)
    assert len(check.results(place, check.SHOT)) == 4
    assert place.count(t.Execution, t.Execution.step == check.SHOT, t.Execution.outcome == "computed") == 4
    assert pool.keys(f"{place.name}/artifacts/")


def assert_once_more(pool: Stack, dubbed: Dubbed) -> None:
    """An event has one language dubbed anew from a step on, and nothing else."""
    place = dubbed.place
    before = place.count(t.Execution, t.Execution.outcome == "computed")
    asked = {"catalog": str(dubbed.catalog), "episode": "fake/e1", "language": "es", "from_step": "inspect",
             "config": str(place.config)}
    run = pool.asked_by_event(**asked)
    assert (run["state"]["type"], run["parameters"]) == ("COMPLETED", {**asked, "line": "", "text": ""}), run["state"]
    assert place.count(t.Execution, t.Execution.outcome == "computed") > before
