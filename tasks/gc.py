"""What nothing needs any more: files that no result has, checkpoints of finished shots, uploads that never ended.

A file is needed as long as a result was made of it or holds it, or it was delivered. Two things guard what is only
being made: it is young, by the store's own clock; and no run or shard is under way, nor can one begin, while files go.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from models import tables as t
from models.pool import LIVE
from tasks import shards
from tasks.ledger import Ledger, batches
from tasks.store import ARTIFACT_KEY, CHECKPOINT_KEY, Store, StoredObject

UNFINISHED_S = 24 * 3600.0
"""What is younger may still be in the making, or be waiting for its row."""
ABANDONED_S = 7 * 24 * 3600.0
"""An unfinished shot that nobody went on with for so long."""
NEEDLESS = "files that no result needs"


@dataclass(frozen=True)
class Removed:
    """How much of one kind was removed, or would be."""

    kind: str
    """In words, as the verb prints it."""
    count: int
    bytes: int


def collect(store: Store, ledger: Ledger, *, delete: bool, unused_days: int | None = None) -> list[Removed]:
    """Find what can go, and remove it.

    Args:
        store: Where it lies.
        ledger: What is still in use.
        delete: False: only say what would go.
        unused_days: Also results that no run touched for so long and that no current delivery was made of; None: keep.

    Returns:
        What went, kind by kind; without `NEEDLESS` and results where runs or shards are under way.

    Raises:
        InfrastructureError: Store or database failed; what was removed before was not needed either.
    """
    files, checkpoints, unfinished = _sorted(store.objects())
    with ledger.sweeping() as quiet:
        going = {"unfinished files": [one for one in unfinished if one.age_s > UNFINISHED_S],
                 "files of checkpoints": _over(ledger, checkpoints)}
        removed = []
        if quiet:
            unused, results, loose = _loosen(ledger, files, unused_days, delete=delete)
            going[NEEDLESS] = [files[digest] for digest in sorted(loose)]
            if unused_days is not None:
                days = f"{unused_days} day{'s' * (unused_days > 1)}"
                going[f"files of results that were not used for {days}"] = [
                    files[digest] for digest in sorted(unused)]
                removed = [Removed(f"results that were not used for {days}", results, 0)]
        for kind, objects in going.items():
            if delete:
                store.delete(one.key for one in objects)
            removed.append(Removed(kind, len(objects), sum(one.size for one in objects)))
    return removed


def _sorted(objects: Iterable[StoredObject]) -> tuple[dict[str, StoredObject], dict[str, list[StoredObject]],
                                                      list[StoredObject]]:
    """Old artifacts by hash, checkpoints' files by recipe, and the rest."""
    files, checkpoints, rest = {}, defaultdict(list), []
    for one in objects:
        if found := ARTIFACT_KEY.fullmatch(one.key):
            if one.age_s > UNFINISHED_S:
                files[found["sha256"]] = one
        elif found := CHECKPOINT_KEY.fullmatch(one.key):
            checkpoints[found["recipe"]].append(one)
        else:
            rest.append(one)
    return files, checkpoints, rest


def _over(ledger: Ledger, checkpoints: dict[str, list[StoredObject]]) -> list[StoredObject]:
    """Files of checkpoints that nobody will go on with: the shot is finished, or was left alone for long."""
    finished = ledger.find_many(checkpoints)
    alive = {recipe for recipe, shot in shards.owned(ledger, checkpoints).items() if shot.state in LIVE}
    return [one for recipe, files in sorted(checkpoints.items()) for one in files
            if recipe in finished or (recipe not in alive and min(each.age_s for each in files) > ABANDONED_S)]


def _loosen(ledger: Ledger, files: Collection[str], unused_days: int | None, *,
            delete: bool) -> tuple[set[str], int, set[str]]:
    """Remove the rows of unused results → files that these needed, number of such results, files nobody needed before.

    Without `delete` the same is done, and undone.
    """
    with ledger.session() as session:
        loose = _loose(session, files)
        unused = [] if unused_days is None else _unused(session, datetime.now(UTC) - timedelta(days=unused_days))
        for batch in batches(unused):
            session.execute(sa.delete(t.ResultFile).where(t.ResultFile.recipe.in_(batch)))
            session.execute(sa.delete(t.Result).where(t.Result.recipe.in_(batch)))
        freed = _loose(session, set(files) - loose)
        for batch in batches(loose | freed):
            session.execute(sa.delete(t.ArtifactRow).where(t.ArtifactRow.sha256.in_(batch)))
        if not delete:
            session.rollback()
    return freed, len(unused), loose


def _loose(session: Session, digests: Collection[str]) -> set[str]:
    """Those of `digests` that no result and no delivery refers to."""
    loose = set(digests)
    for batch in batches(digests):
        for column in (t.ResultFile.sha256, t.Result.artifact, t.Delivery.sha256):
            loose.difference_update(session.scalars(sa.select(column).where(column.in_(batch))))
    return loose


# -- results that nobody used -----------------------------------------------------------------------------------------


def _unused(session: Session, since: datetime) -> list[str]:
    """Recipes of results that were last made or taken over before `since`, and that nothing current builds on."""
    touched = sa.select(t.Execution.recipe).where(t.Execution.started >= since)
    old = set(session.scalars(sa.select(t.Result.recipe).where(t.Result.created < since,
                                                               t.Result.recipe.not_in(touched))))
    keep = set(session.scalars(sa.select(t.Result.recipe))) - old
    keep |= _makers(session, session.scalars(sa.select(t.Delivery.sha256).distinct()).all())
    keep = _with_what_they_build_on(session, keep)
    keep = _with_what_they_build_on(session, keep | _items(session, keep))
    return sorted(old - keep)


def _with_what_they_build_on(session: Session, recipes: set[str]) -> set[str]:
    """`recipes`, the makers of all they were made of, and the lines and shots that are in them."""
    found, new = set(recipes), set(recipes)
    while new:
        ins, outs = (
            [digest for batch in batches(new) for digest in session.scalars(sa.select(t.ResultFile.sha256).where(
                t.ResultFile.direction == direction, t.ResultFile.recipe.in_(batch)))] for direction in ("in", "out"))
        new = (_makers(session, ins) | _makers(session, outs, items=True)) - found
        found |= new
    return found


def _makers(session: Session, digests: Iterable[str], *, items: bool = False) -> set[str]:
    """Recipes of the results that hold these files; or of lines and shots alone."""
    query = sa.select(t.ResultFile.recipe).where(t.ResultFile.direction == "out")
    if items:
        query = query.join(t.Result, t.Result.recipe == t.ResultFile.recipe).where(
            t.Result.step.contains(".", autoescape=True))
    return {recipe for batch in batches(digests)
            for recipe in session.scalars(query.where(t.ResultFile.sha256.in_(batch)))}


def _items(session: Session, recipes: set[str]) -> set[str]:
    """Recipes of the lines and shots that were made or taken over inside these steps: an edit takes them over again."""
    steps = {tuple(row) for batch in batches(recipes) for row in session.execute(sa.select(
        t.Execution.run_id, t.Execution.episode, t.Execution.language, t.Execution.step).where(
            t.Execution.recipe.in_(batch)))}
    items = session.execute(sa.select(t.Execution.run_id, t.Execution.episode, t.Execution.language, t.Execution.step,
                                      t.Execution.recipe).where(t.Execution.step.contains(".", autoescape=True)))
    return {recipe for run, episode, language, step, recipe in items
            if (run, episode, language, step.partition(".")[0]) in steps}
