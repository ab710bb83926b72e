"""How far everything is: a row per episode and language, from what the ledger holds. Computes and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flows.jobs import Selected
from flows.pipeline import EpisodeJob, Pipeline
from flows.steps import SHARED, STAND_INS, per_language
from flows.wiring import Workspace
from models.errors import AwaitingReviewError, SetupError
from models.pool import ShardLine
from models.records import Inspection, Plan, Record, ShotRequest, Source
from models.timebase import seconds
from tasks.cast import shown
from tasks.estimate import Estimators
from tasks.generate import missing_shots
from tasks.history import Event, delivered, events
from tasks.media import probe
from tasks.shards import history, overview
from tasks.step import NotDoneError, Q, R, Runner, Step, Work, lookup
from tasks.store import writing


class _SeenAllError(Exception):
    """Everything but publishing was looked up."""


@dataclass(frozen=True)
class Row:
    """One language of one episode."""

    episode: str
    language: str
    steps: dict[str, str]
    """Step → done, running, failed or waiting."""
    trouble: Event | None
    """The newest failure that was not made good."""
    source: Source | None
    plan: Plan | None
    below_bar: tuple[str, ...] = ()
    """What a quality gate failed, in words."""
    awaiting: str = ""
    """That its review is waited for, and how much of it is left."""

    @property
    def done(self) -> bool:
        """Whether all is delivered."""
        return all(state == "done" for state in self.steps.values())

    @property
    def state(self) -> str:
        """In a few words."""
        if self.trouble:
            return f"✗ {self.trouble.step} {self.trouble.item} {self.trouble.error_class}: {self.trouble.error}"
        now = [step for step, state in self.steps.items() if state == "running"]
        ready = sum(state == "done" for state in self.steps.values())
        if self.done and self.below_bar:
            return f"✗ {'; '.join(self.below_bar)}"
        if self.awaiting:
            return f"⏸ {self.awaiting}"
        return "✓ done" if self.done else f"▸ {now[0]}" if now else f"{ready} of {len(self.steps)} steps"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, as `status --json` prints it."""
        return {"episode": self.episode, "language": self.language, "done": self.done, "steps": self.steps,
                "failed": asdict(self.trouble) if self.trouble else None, "below_bar": list(self.below_bar),
                "awaiting": self.awaiting}


def survey(space: Workspace, selected: Sequence[Selected]) -> list[Row]:
    """A row for each selected episode and language; without plans, for which a catalog of thousands has no room."""
    return [replace(row, source=None, plan=None) for one in selected for row in _episode(space, one)]


def shard_lines(space: Workspace, catalog: Path) -> list[ShardLine]:
    """The shards of a catalog, live ones first."""
    return overview(space.ledger, catalog=str(catalog.resolve()))


def _episode(space: Workspace, one: Selected) -> list[Row]:
    job, shared = one.job, dict[str, Record]()
    news, files = events(space.ledger, job.id), delivered(space.ledger, job.id, job.out)
    try:
        prepared = Pipeline(space, job, _remembering(shared), dry=True).prepare(_work(space, job))
    except (NotDoneError, SetupError):  # an engine that is not here has done nothing yet
        prepared = None
    rows = []
    for language in one.languages:
        found, awaiting = dict(shared), ""
        if prepared is not None:
            pipeline = Pipeline(space, job, _remembering(found), dry=True)
            try:
                with suppress(NotDoneError, SetupError, _SeenAllError):
                    pipeline.localize(_work(space, job, language), prepared, language)
            except AwaitingReviewError as error:
                awaiting = error.what
        names = {STAND_INS.get(name, name) for name in found}
        paths = files.get(language, [])
        if "inspect" in names and paths and all(Path(path).is_file() for path in paths):
            names.add("publish")
        rows.append(replace(_row(space, job.id, language, names, news, found), awaiting=awaiting))
    return rows


def _row(space: Workspace, episode: str, language: str, names: set[str], news: dict[tuple[str, str], Event],
         found: dict[str, Record]) -> Row:
    steps, trouble = {}, None
    for step in (*SHARED, *per_language(space.settings), "publish"):
        key = "" if step in SHARED else language
        event = next((news[key, name] for name in (step, *STAND_INS)
                      if STAND_INS.get(name, name) == step and (key, name) in news), None)
        steps[step] = "done" if step in names else {"cancelled": "waiting"}.get(event.outcome, event.outcome) \
            if event else "waiting"
        if steps[step] == "failed":
            trouble = event
    source, plan, seen = found.get("ingest"), found.get("plan"), found.get("inspect")
    missed = [check.words for check in seen.checks if check.failed] if isinstance(seen, Inspection) else []
    return Row(episode, language, steps, trouble, source if isinstance(source, Source) else None,
               plan if isinstance(plan, Plan) else None, tuple(missed))


def forecast(space: Workspace, selected: Sequence[Selected]) -> list[dict[str, Any]]:
    """What a run would do, as plain JSON; figures that only a step will know are None."""
    known = _estimators(space)
    plans = []
    for one in selected:
        rows = _episode(space, one)
        length = _length(one.job, rows)
        plans += [_forecast(space, one.job, row, length, known) for row in rows]
    return plans


def _length(job: EpisodeJob, rows: Sequence[Row]) -> float | None:
    """Seconds of an episode, or of the part of it that is dubbed."""
    source = next((row.source for row in rows if row.source), None)
    length = float(source.frames / source.rate) if source else float(probe(job.video).duration or 0) or None
    if job.range:
        length = min(length or seconds(job.range[1]), seconds(job.range[1])) - seconds(job.range[0])
    return length


def _forecast(space: Workspace, job: EpisodeJob, row: Row, length: float | None, estimators: Estimators,
              ) -> dict[str, Any]:
    steps = [step for step, state in row.steps.items() if state != "done"]
    known: dict[str, Any] = {"shots": None, "shots_to_run": None, "generated_s": None, "passthrough_s": None,
                             "gpu_s": None, "gpu_basis": None, "gpu_cost": None}
    if row.plan is not None:
        plan, missing = row.plan, _missing(_work(space, job, row.language), row.plan)
        generated = sum(shot.end - shot.start for shot in plan.shots if shot.request)
        known = {"shots": len(plan.shots), "shots_to_run": len(missing),
                 "generated_s": round(float(generated / plan.rate), 2),
                 "passthrough_s": round(float((plan.frames - generated) / plan.rate), 2),
                 **_gpu(space, row, missing, estimators)}
    return {"episode": row.episode, "language": row.language, "duration_s": length and round(length, 2),
            "steps_to_run": steps, **known}


def _missing(work: Work, plan: Plan) -> dict[str, ShotRequest]:
    return missing_shots(work, [shot.request for shot in plan.shots if shot.request])


def _gpu(space: Workspace, row: Row, missing: dict[str, ShotRequest], estimators: Estimators) -> dict[str, Any]:
    """GPU seconds of a row's missing shots, what they stand on, and dollars where a price is set.

    On a pool each shard is counted with a start-up, though a process that goes on with the next shard saves one.
    """
    settings, took, basis = space.settings, 0.0, None
    if missing:
        first = next(iter(missing.values()))
        estimator = estimators.of(first.generator.name)
        took, basis = sum(map(estimator.seconds, missing.values())), estimator.basis(first)
        if settings.dispatch != "here":
            shards = estimator.shards(missing, episode=row.episode, language=row.language)
            took += estimator.startup_s * len(shards)
    price = settings.prices.get("here" if settings.dispatch == "here" else settings.gpu_pool)
    return {"gpu_s": round(took, 1), "gpu_basis": basis,
            "gpu_cost": None if price is None else round(took * price / 3600, 2)}


def _estimators(space: Workspace) -> Estimators:
    return Estimators(lambda engine: history(space.ledger, engine))


def _work(space: Workspace, job: EpisodeJob, language: str = "") -> Work:
    return space.work("", episode=job.id, language=language)


def _remembering(found: dict[str, Record]) -> Runner:
    def run(work: Work, what: Step[Q, R], request: Q) -> R:
        found[what.name] = result = lookup(work, what, request)
        if what.name == "inspect":
            raise _SeenAllError
        return result

    return run


def write_shards(space: Workspace, selected: Sequence[Selected], folder: Path) -> list[Path]:
    """Write a SHARD.json for each dispatch list of missing shots, of languages that are planned."""
    written, known = [], _estimators(space)
    for one in selected:
        for row in _episode(space, one):
            missing = _missing(_work(space, one.job, row.language), row.plan) if row.plan else {}
            if not missing:
                continue
            estimator = known.of(next(iter(missing.values())).generator.name)
            for part in estimator.shards(missing, episode=row.episode, language=row.language):
                people = shown(space.ledger, row.episode, part.shard.requests, one.job.people)
                shard = part.shard.model_copy(update={"people": people})
                path = folder / f"{shard.id}.json"
                with writing(path) as partial:
                    partial.write_text(shard.model_dump_json(indent=1), encoding="utf-8")
                written.append(path)
    return written
