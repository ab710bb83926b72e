"""What the Prefect UI shows of a run beside its states: progress, timing, reports, contact sheets, the matrix."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.jobs import Selected
from flows.listener import Listener
from flows.pipeline import Localized
from flows.runs import Session
from flows.status import survey
from flows.steps import per_language
from flows.summary import summarize
from models.errors import AwaitingReviewError
from models.timebase import seconds, timecode
from tasks.publish import QC_PAGE

MATRIX_ROWS = 1000
"""Of a larger catalog the matrix is left out: looking everything up again takes minutes, and nobody reads so much."""
SHEET_HEIGHT = 2400
"""Pixels; what is below is left to the delivered file."""
MARKS = {"done": "✓", "running": "▸", "failed": "✗", "waiting": ""}


class ProgressBar:
    """A listener in front of another: moves a language's progress artifact as its steps end."""

    def __init__(self, behind: Listener, artifact: UUID, done: int, of: int) -> None:
        self._behind, self._artifact, self._done, self._of = behind, artifact, done, of

    @classmethod
    @contextmanager
    def on(cls, run: Session, what: str, done: int = 0) -> Iterator[None]:
        """Show the progress of the running flow while the block lasts; `done` steps ended before it."""
        artifact: Any = create_progress_artifact(progress=0.0, key=f"{_slug(what)}-progress", description=what)
        behind, run.listener = run.listener, cls(run.listener, artifact, done,
                                         len(per_language(run.space.settings)))
        try:
            yield
        finally:
            run.listener = behind

    def step(self, episode: str, language: str, step: str, state: str) -> None:
        """Moves the bar when a step of the language ended."""
        self._behind.step(episode, language, step, state)
        if state in {"done", "reused"} and language:
            self._done += 1
            update_progress_artifact(self._artifact, progress=min(100.0, 100 * self._done / self._of))

    def progress(self, episode: str, language: str, text: str, fraction: float) -> None:
        """Passed on: too fine for an artifact."""
        self._behind.progress(episode, language, text, fraction)

    def link(self, name: str, url: str) -> None:
        """Passed on."""
        self._behind.link(name, url)


def report_language(done: Localized) -> None:
    """Timing table, figures and contact sheet of a finished language."""
    name, key = f"{done.deliverable.episode} · {done.deliverable.language}", _key(done)
    create_table_artifact(timing_rows(done), key=f"{key}-timing", description=f"Every line of {name}: asked and spoken")
    create_markdown_artifact(report_markdown(done), key=f"{key}-report", description=f"Figures of {name}")
    create_image_artifact(image_url=image_address(Path(done.deliverable.video).with_name("contact-sheet.png")),
                          key=f"{key}-shots", description=f"Source above dub of {name}, shot by shot")


def report_awaiting(episode: str, language: str, why: AwaitingReviewError) -> None:
    """That a language waits for its review, and how it goes on."""
    create_markdown_artifact(f"# {episode} · {language}\n\n**{why.what}**\n\n{why.hint}\n",
                             key=_slug(f"{episode}-{language}-review"),
                             description=f"{episode} · {language} waits for its review")


def report_catalog(run: Session, selected: Sequence[Selected]) -> None:
    """What came of every language and what it cost; and the matrix of episodes, languages and steps."""
    series = _slug(selected[0].job.id.partition("/")[0]) if selected else "catalog"
    create_markdown_artifact(summarize(run).markdown, key=f"{series}-summary",
                             description="Dubbed, skipped, failed and why; seconds and cost")
    if sum(len(one.languages) for one in selected) > MATRIX_ROWS:
        return
    table = [{"episode": row.episode, "language": row.language, "state": row.state}
             | {step: MARKS[state] for step, state in row.steps.items()} for row in survey(run.space, selected)]
    create_table_artifact(table, key=f"{series}-status", description="Episodes, languages, steps")


def timing_rows(done: Localized) -> list[dict[str, str | float]]:
    """A row a line: when it was asked for, when it is heard, how much it was stretched."""
    return [{"line": line.id, "speaker": line.speaker, "voice": line.voice,
             "at": timecode(line.planned[0]), "onset off (ms)": round(1000 * seconds(line.start - line.planned[0])),
             "slot (s)": round(seconds(line.slot[1] - line.slot[0]), 2), "spoken (s)": round(seconds(line.length), 2),
             "stretch": round(line.stretch, 2), "overflow (s)": round(seconds(line.overflow), 2),
             "flags": ", ".join(line.flags), "text": line.text} for line in done.speech.lines]


def report_markdown(done: Localized) -> str:
    """Figures against their bars, shots, and where the files are."""
    one = done.deliverable
    wer = "not measured" if one.back_wer is None else f"{one.back_wer:.1%}"
    checks = [f"| {check.name} | {check.measured} | {check.bar} "
              f"| {check.mark} {check.why or check.worst} |" for check in done.inspection.checks]
    shots = [f"| {shot.shot} | {shot.end - shot.start} | {shot.kind} | {shot.reason} |" for shot in done.plan.shots]
    return "\n".join([
        f"# {one.episode} · {one.language}", "",
        f"**{one.duration_s:.1f} s**, {one.frames} frames at {one.fps:g} fps · {one.generated_s:.1f} s generated, "
        f"{one.passthrough_s:.1f} s passed on · {one.loudness_lufs:.1f} LUFS, {one.true_peak_dbtp:.1f} dBTP · "
        f"back-transcription WER {wer} · largest stretch {one.max_stretch:.2f}", "",
        "| check | value | bar | |", "|---|---|---|---|", *checks, "",
        "| shot | frames | picture | why |", "|---|---|---|---|", *shots, "",
        *(f"- `{path}`" for path in (one.video, *one.subtitles, *one.others, one.report,
                                     Path(one.report).with_name(QC_PAGE)))])


def image_address(image: Path) -> str:
    """A picture as a data address, small enough for Prefect's database, so that the UI needs no file server."""
    import cv2

    pixels: Any = cv2.imread(str(image))
    _, jpeg = cv2.imencode(".jpg", pixels[:SHEET_HEIGHT], [cv2.IMWRITE_JPEG_QUALITY, 75])
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode()


def _key(done: Localized) -> str:
    return _slug(f"{done.deliverable.episode}-{done.deliverable.language}")


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
