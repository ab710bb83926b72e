"""From a delivered file back to its source: every step behind it, with inputs, engines, weights, seeds and runs.

Three ways lead there: the file's own content, which the database knows; the content credentials in it, which can be
verified anywhere; and the watermark in its sound, which leads from an altered copy to the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import ConfigDict
from sqlalchemy.orm import Session, aliased

from models import tables as t
from models.credentials import Credentials
from models.engines.c2pa_reader import read_credentials
from models.errors import InputError, MediaError
from models.ports import Watermarker
from models.records import Record, Sha256
from tasks.consent import Consent, consents_behind
from tasks.ledger import Ledger
from tasks.media import audio_blocks, probe
from tasks.store import hash_file


class _Row(Record):
    """Made from a row of a table."""

    model_config = ConfigDict(frozen=True, extra="forbid", from_attributes=True)


class TracedRun(_Row):
    """The run in which a step was computed."""

    id: str
    command: str
    started: datetime
    environment: dict[str, Any]


class TracedItem(_Row):
    """A line or a shot that was computed, or taken over, inside a step."""

    item: str
    step: str
    recipe: str
    outcome: str
    engine: str
    weights: dict[str, str]
    seed: int | None


class TracedExecution(TracedItem):
    """How a step was computed."""

    episode: str
    language: str
    attempt: int
    started: datetime
    ended: datetime | None
    cpu_seconds: float | None


class TracedInput(Record):
    """Something a step built on: a record or a file."""

    sha256: Sha256
    recipe: str | None = None
    """The recipe it came from; None when the user gave it."""
    path: str = ""
    """Of a given file: where it lay when it was read."""


class TracedStep(Record):
    """One step behind the file."""

    recipe: str
    step: str
    version: int
    parameters: dict[str, Any]
    """Plain values of the request; what it builds on is in `inputs`."""
    inputs: tuple[TracedInput, ...]
    execution: TracedExecution | None
    run: TracedRun | None
    items: tuple[TracedItem, ...]
    consents: tuple[Consent, ...]
    """What people agreed to, on which it stands."""


class FoundMark(Record):
    """A watermark that is heard in a file."""

    track: int
    """Which sound track of the file, from 0."""
    watermarker: str
    payload: str
    """Eight hexadecimal digits: the beginning of the recipe of the step that marked the sound."""
    false_alarm: float
    """Bound of the probability that unmarked sound gives so clear an answer."""
    recipe: str | None = None
    """The whole recipe; None where the database does not know it."""


class Trace(Record):
    """Everything behind one file; the first step made it, and every step stands before what it builds on."""

    file: str
    sha256: Sha256
    episode: str = ""
    language: str = ""
    steps: tuple[TracedStep, ...] = ()
    """Of a file that is known by its mark alone: what is behind its sound."""
    credentials: Credentials | None = None
    """None: there are none in the file."""
    marks: tuple[FoundMark, ...] = ()
    """Looked for only where the database does not know the file."""

    @property
    def tampered(self) -> bool:
        """The file is not what was signed."""
        return self.credentials is not None and self.credentials.state == "invalid"

    @property
    def sources(self) -> tuple[TracedInput, ...]:
        """The files that were given by the user."""
        given = {i.sha256: i for step in self.steps for i in step.inputs if i.recipe is None and i.path}
        return tuple(given.values())


def trace(ledger: Ledger | None, file: Path, watermarkers: Mapping[str, Watermarker],
          roots: Path | None = None) -> Trace:
    """Find out how a file was made.

    Args:
        ledger: The database of the state folder it was made with; None where there is none.
        file: A delivered file, or a copy of one under any name.
        watermarkers: What may have marked it, by name.
        roots: PEM file with the certificates of trusted signers (see `read_credentials`).

    Raises:
        InputError: Nothing at all is known of the file, or it cannot be read.
    """
    found = Trace(file=str(file), sha256=hash_file(file), credentials=read_credentials(file, roots))
    if ledger is not None:
        with ledger.session() as session:
            found = _known(session, found)
    if not found.steps:
        marks = tuple(_marks(file, watermarkers))
        found = found.model_copy(update={"marks": marks})
        if ledger is not None and marks:
            with ledger.session() as session:
                found = _marked(session, found)
    if not (found.steps or found.credentials or found.marks):
        raise InputError("no run that is noted here made this file", where=str(file),
                         hint="Is it altered, or made with another --state? `infinidub config` shows which is used")
    return found


def _known(session: Session, found: Trace) -> Trace:
    """With the steps behind a file whose content is known."""
    delivery = session.scalar(sa.select(t.Delivery).where(t.Delivery.sha256 == found.sha256).limit(1))
    makers = _makers(session, found.sha256, set()) or (_same_delivery(session, delivery) if delivery else [])
    return _with_steps(session, found, makers[0].recipe, delivery) if makers else found


def _marked(session: Session, found: Trace) -> Trace:
    """With the steps behind the sound that is heard in a file."""
    marks = tuple(mark.model_copy(update={"recipe": session.scalar(sa.select(t.Result.recipe).where(
        t.Result.step == "watermark", t.Result.recipe.startswith(mark.payload)).limit(1))}) for mark in found.marks)
    found = found.model_copy(update={"marks": marks})
    recipe = next((mark.recipe for mark in marks if mark.recipe), None)
    return _with_steps(session, found, recipe) if recipe else found


def _with_steps(session: Session, found: Trace, first: str, delivery: t.Delivery | None = None) -> Trace:
    steps = tuple(_walk(session, first))
    named = delivery or steps[0].execution
    return found.model_copy(update={"steps": steps, "episode": named.episode if named else "",
                                    "language": named.language if named else ""})


def _marks(file: Path, watermarkers: Mapping[str, Watermarker]) -> Iterator[FoundMark]:
    """What is heard in the sound tracks of a file, if it is a media file."""
    with suppress(MediaError):
        for number, track in enumerate(probe(file).audio):
            for name, engine in watermarkers.items():
                blocks = (block[:, 0] for block in audio_blocks(file, channels=1, stream=track.index))
                if mark := engine.detect(blocks):
                    yield FoundMark(track=number, watermarker=name, payload=f"{mark.payload:08x}",
                                    false_alarm=mark.false_alarm)


def _same_delivery(session: Session, delivery: t.Delivery) -> list[t.Result]:
    """Makers of the files delivered beside this one: a report is written at delivery and is no result itself."""
    beside = session.scalars(sa.select(t.Delivery.sha256).where(
        t.Delivery.episode == delivery.episode, t.Delivery.language == delivery.language))
    return [maker for digest in beside for maker in _makers(session, digest, set())]


def _makers(session: Session, digest: str, above: set[str], used: datetime | None = None) -> list[t.Result]:
    """Results that brought this content (SHA-256 of a file or record) into the world, the first one first.

    A plan names the source's picture in its result, and an ingest that mended nothing hands on the file that it was
    given: who also had it as input did not make it. `above` are recipes on the way from the traced file. Where it is
    known when the content was used, whoever made it only later (the file of all languages has the same subtitles) is
    left out, and whoever had made it last by then comes first (of a line that was edited, the plan and the bed may be
    to the bit what they were with its old text), items before the steps that hand them on.
    """
    out, given = aliased(t.ResultFile), aliased(t.ResultFile)
    had_it = sa.exists().where(given.recipe == out.recipe, given.direction == "in", given.sha256 == digest)
    query = (sa.select(t.Result).join(out, out.recipe == t.Result.recipe)
             .where(out.direction == "out", out.sha256 == digest, ~had_it).order_by(t.Result.created))
    found = [one for one in session.scalars(query) if one.recipe not in above]
    before = [one for one in found if used and one.created <= used]
    return sorted(before[::-1] or found, key=lambda one: not _is_item(session, one))


def _is_item(session: Session, result: t.Result) -> bool:
    """Whether it is a line, a shot or a track; `assemble.multi` is a step like `assemble`."""
    return bool(session.scalar(sa.select(t.Execution.item).where(t.Execution.recipe == result.recipe).limit(1)))


def _walk(session: Session, first: str) -> Iterator[TracedStep]:
    """Steps in an order in which each stands before all that it builds on."""
    order: list[str] = []
    edges: dict[str, list[TracedInput]] = {}

    def visit(recipe: str, above: set[str]) -> None:
        if recipe in edges:
            return
        edges[recipe] = _inputs(session, recipe, above | {recipe})
        for one in edges[recipe]:
            if one.recipe:
                visit(one.recipe, above | {recipe})
        order.append(recipe)

    visit(first, set())
    for recipe in reversed(order):
        yield _step(session, recipe, edges[recipe])


def _inputs(session: Session, recipe: str, above: set[str]) -> list[TracedInput]:
    digests = session.scalars(sa.select(t.ResultFile.sha256).where(
        t.ResultFile.recipe == recipe, t.ResultFile.direction == "in").order_by(t.ResultFile.sha256))
    used, found = session.get_one(t.Result, recipe).created, []
    made = {digest: _makers(session, digest, above, used) for digest in digests.all()}
    sure = {makers[0].recipe for makers in made.values() if len(makers) == 1}
    for digest, makers in made.items():  # of several, the one that another input is from
        makers.sort(key=lambda one: (not _is_item(session, one), one.recipe not in sure))
        path = session.scalar(sa.select(t.KnownFile.path).where(t.KnownFile.sha256 == digest).limit(1))
        if makers or path:
            found.append(TracedInput(sha256=digest, recipe=makers[0].recipe if makers else None,
                                     path="" if makers else path or ""))
    return found


def _step(session: Session, recipe: str, inputs: Sequence[TracedInput]) -> TracedStep:
    result = session.get_one(t.Result, recipe)
    row = session.scalar(sa.select(t.Execution).where(
        t.Execution.recipe == recipe, t.Execution.outcome == "computed").order_by(t.Execution.id).limit(1))
    return TracedStep(
        recipe=recipe, step=result.step, version=result.version, inputs=tuple(inputs),
        parameters={name: value for name, value in result.request.items() if not isinstance(value, dict | list)},
        execution=TracedExecution.model_validate(row) if row else None,
        run=TracedRun.model_validate(session.get_one(t.Run, row.run_id)) if row else None,
        items=tuple(TracedItem.model_validate(item) for item in _items(session, row)) if row else (),
        consents=consents_behind(session, [recipe]).get(recipe, ()))


def _items(session: Session, step: t.Execution) -> Iterator[t.Execution]:
    """What was computed or taken over inside a step's execution."""
    yield from session.scalars(sa.select(t.Execution).where(
        t.Execution.run_id == step.run_id, t.Execution.episode == step.episode, t.Execution.language == step.language,
        t.Execution.step.startswith(f"{step.step}.", autoescape=True), t.Execution.started >= step.started,
        t.Execution.started <= (step.ended or step.started),
        t.Execution.outcome.in_(("computed", "adopted", "reused"))).order_by(t.Execution.item))
