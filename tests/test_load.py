"""Two hundred shards dispatched to real processes: `make load` prints what each of them costs beside its pictures."""

from __future__ import annotations

import os
import time
from fractions import Fraction

import numpy as np
import pytest
import sqlalchemy as sa

from flows.pool import Queue
from flows.settings import load_settings
from flows.wiring import open_workspace
from models import tables as t
from models.pool import LIVE
from models.records import ShotRequest
from tasks.generate import generate_shot
from tasks.media import FrameWriter
from tests.pool import check
from tests.pool.stack import Stack
from tests.pulse import REF

SHARDS = int(os.environ.get("LOAD_SHARDS", "200"))
PATIENCE_S = 60 * SHARDS


@pytest.mark.load
def test_hundreds_of_shards_are_dispatched_and_made_once(pool: Stack) -> None:
    place = pool.place("load")
    film = place.folder / "film.mkv"
    with FrameWriter(film, 64, 48, Fraction(25)) as writer:
        for i in range(9 + SHARDS):
            writer.write(np.full((48, 64, 3), i % 256, np.uint8))
    with pool.inside():
        from flows.deployments import Deployments  # Prefect, with the stack's environment

        settings = load_settings(place.config)
        space = open_workspace(settings)
        source = space.store.put_file(film, "video/x-matroska")
        space.ledger.note_artifact(source)
        run_id = space.ledger.begin_run("run", {}, {})
        queue = Queue(space, Deployments(), catalog="load", config=str(place.config))
        requests = [ShotRequest(shot="S0001", source=source, start=n, end=n + 9, width=64, height=48, rate="25",
                                tracks=(), generator=REF) for n in range(SHARDS)]
        began = time.monotonic()
        for n, request in enumerate(requests):
            queue.order(space.work(run_id, episode=f"load/e{n // 2:03d}", language=("es", "fr")[n % 2]), [request], 0)
        queued = time.monotonic()
        while place.count(t.ShardRow, t.ShardRow.state.in_(LIVE)):
            assert time.monotonic() - queued < PATIENCE_S
            queue.tick()
            time.sleep(1)
        took = time.monotonic() - queued
        space.ledger.end_run(run_id, "done")
    assert place.count(t.ShardRow, t.ShardRow.state == "done") == SHARDS
    assert set(check.results(place, check.SHOT)) == {generate_shot.recipe(request) for request in requests}
    attempts = place.attempts()
    with place.ledger.session() as session:
        size = session.scalar(sa.select(sa.func.pg_database_size(sa.func.current_database()))) or 0
    print(f"{SHARDS} shards: queued in {queued - began:.1f} s, made in {took:.0f} s ({took / SHARDS:.2f} s each), "  # noqa: T201
          f"{len({one.flow_run for one in attempts})} flow runs, {len({one.owner for one in attempts})} processes, "
          f"{len(attempts)} attempts, database {size / 1e6:.1f} MB")
    check.assert_at_rest(pool, place)
