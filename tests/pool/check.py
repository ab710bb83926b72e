"""What must hold when a pool has come to rest, whatever happened to it before."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from flows.pool import FORGOTTEN_S
from flows.upkeep import crash
from models import tables as t
from models.pool import LIVE
from models.recipe import sha256
from tasks import shards
from tests.pool.stack import Place, Stack, until

SHOT = "generate.shot"
UNSIGNED = ("assemble", "assemble.multi")
"""What makes files as they are before they are signed."""


def files(out: Path) -> dict[str, str]:
    """Path → hash of everything that was delivered; reports name the folder that they lie in.

    Of a signed file, that it is there: two signatures are never the same.
    """
    return {str(path.relative_to(out)): "" if path.suffix == ".mp4" else sha256(
        path.read_bytes().replace(bytes(out), b"OUT")) for path in sorted(out.rglob("*")) if path.is_file()}


def results(place: Place, *steps: str) -> dict[str, str]:
    """Recipe → hash of the result, of all that these steps made."""
    with place.ledger.session() as session:
        rows = session.execute(sa.select(t.Result.recipe, t.Result.artifact).where(t.Result.step.in_(steps)))
        return dict(row._tuple() for row in rows)


def assert_as_undisturbed(place: Place, undisturbed: Place) -> None:
    """The same files, bit for bit, and every shot computed once."""
    assert files(place.out) == files(undisturbed.out)
    assert results(place, SHOT, *UNSIGNED) == results(undisturbed, SHOT, *UNSIGNED)
    twice = sa.select(t.Execution.recipe).where(t.Execution.step == SHOT, t.Execution.outcome == "computed").group_by(
        t.Execution.recipe).having(sa.func.count() > 1)
    with place.ledger.session() as session:
        assert session.scalars(twice).all() == []


def assert_at_rest(stack: Stack, place: Place) -> None:
    """Nobody works or believes that somebody does, and nothing half-done is kept."""
    assert place.count(t.ShardRow, t.ShardRow.state.in_(LIVE)) == 0
    with place.ledger.session() as session:
        assert session.scalars(sa.select(t.ShardAttempt.shard).where(t.ShardAttempt.ended.is_(None))).all() == []

    def closed() -> bool:
        shards.reap_runs(place.ledger)
        return not place.count(t.Run, t.Run.state == "running")

    until("the end of all runs", closed)
    assert place.count(t.Execution, t.Execution.outcome == "running") == 0

    def ended() -> bool:
        with stack.inside():
            crash(shards.ended(place.ledger, 3.0, FORGOTTEN_S))
        return not stack.unended()

    until("the end of all flow runs", ended)
    assert [key for key in stack.keys(f"{place.name}/") if "/checkpoints/" in key] == []
