"""The verb `qc`: measure a finished language again, or any clip beside what it was made of."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.markup import escape
from rich.table import Table

from flows.options import Config, Json, Out, Set, State, answer, flags
from models.errors import GateError, InputError

if TYPE_CHECKING:  # imported inside the verb: they pull in database and media libraries
    from models.loudness import Preset
    from models.records import Artifact, Check, Inspection, Source
    from tasks.step import Work

STATES = {"passed": "[green]✓[/]", "failed": "[red]✗[/]", "not measured": "[dim]–[/]"}
SUBTITLES = ("srt", "vtt")


@dataclass(frozen=True)
class Found:
    """What was measured, and on what."""

    title: str
    work: Work
    inspection: Inspection
    source: Source
    dubbed: Artifact
    altered: tuple[str, ...] = ()
    """Delivered files that are not what was measured."""

    @property
    def failed(self) -> list[str]:
        """What holds the delivery up, in words."""
        changed = [f"{path} is not the file that was measured" for path in self.altered]
        return changed + [check.words for check in self.inspection.checks if check.failed]


def qc(what: Annotated[str, typer.Argument(metavar="EPISODE|FILE", show_default=False,
                                           help="An episode that was dubbed, by its full id; or any video.")],
       lang: Annotated[str | None, typer.Option(metavar="TAG", show_default=False,
                                                help="Language of the dub; of a FILE, that of its subtitles.")] = None,
       source: Annotated[Path | None, typer.Option(metavar="VIDEO", show_default=False,
                                                   help="What FILE was made of.")] = None,
       subtitles: Annotated[Path | None, typer.Option(metavar="FILE", show_default=False,
                                                      help="Subtitles of FILE, SRT or WebVTT.")] = None,
       gate: Annotated[str | None, typer.Option(metavar="PRESET", show_default=False,
                                                help="Loudness to hold it to: r128, netflix, web; as it was made for"
                                                     " unless given.")] = None,
       html: Annotated[Path | None, typer.Option(metavar="FILE.html", show_default=False,
                                                 help="Write the report as one page, too.")] = None,
       out: Out = None, state: State = None, config: Config = None, assignments: Set = None,
       as_json: Json = False) -> int:
    """Check a finished language, or any clip beside its source; a missed gate is exit code 3."""
    from tasks.qc_page import qc_page
    from tasks.store import writing

    if html and (html.suffix.lower() not in {".html", ".htm"} or html.is_dir()):
        raise InputError("is no name for a page", where=f"--html {html}", hint="Name a file that ends in .html")
    preset = _preset(gate)
    file = Path(what) if source or Path(what).is_file() else None
    if file is None and (subtitles or not lang):
        raise InputError("say of which language" if not lang else "only FILE is given subtitles", where=what,
                         hint="Write: infinidub qc EPISODE --lang TAG; or: infinidub qc FILE --source VIDEO")
    given = flags(out, state, None, assignments)
    with (_clip(file, source, subtitles, lang, preset, given, config) if file else
          _episode(what, lang or "", preset, given, config)) as found:
        if html:
            page = found.work.store.path(qc_page(found.work, found.title, found.inspection, found.source, found.dubbed))
            with writing(html) as partial:
                partial.write_bytes(page.read_bytes())
    return _said(found, html, as_json)


def _preset(name: str | None) -> Preset | None:
    from models.loudness import PRESETS, PresetName

    if name is None:
        return None
    for known in get_args(PresetName):
        if known == name:
            return PRESETS[known]
    raise InputError(f"no preset is called {name!r}", where="--gate", hint=f"There are: {', '.join(PRESETS)}")


# -- a language that was dubbed ---------------------------------------------------------------------------------------


class _InspectedError(Exception):
    """Everything up to the inspection was looked up, and that was done."""


@contextmanager
def _episode(episode: str, language: str, preset: Preset | None, given: dict[str, Any],
             config: Path | None) -> Iterator[Found]:
    """Look a finished language up; measure it where it was not, or was by another preset."""
    from flows.cli_run import again
    from flows.pipeline import Pipeline
    from flows.runs import session
    from models.records import Inspection
    from tasks.inspect import InspectRequest
    from tasks.publish import altered
    from tasks.step import NotDoneError, Q, R, Step, lookup, perform

    order = again("qc", given, config, episode=episode, languages=[language])
    job, kept = order.selected[0].job, list[tuple[InspectRequest, Inspection]]()

    def run(work: Work, what: Step[Q, R], request: Q) -> R:
        if not isinstance(request, InspectRequest):
            return lookup(work, what, request)
        asked = request.model_copy(update={"loudness": preset}) if preset else request
        result = perform(work, what, asked)  # type: ignore[arg-type]
        if isinstance(result, Inspection):
            kept.append((asked, result))
        raise _InspectedError

    with session(order.settings, "qc", order.noted()) as one:
        work, pipeline = one.work(job.id, language), Pipeline(one.space, job, run, dry=True)
        try:
            pipeline.localize(work, pipeline.prepare(one.work(job.id)), language)
        except NotDoneError as missing:
            raise InputError(f"is not finished: the step {missing} was not done, or something before it changed",
                             where=f"{job.id}·{language}", hint="Run it first; `infinidub status` tells more") from None
        except _InspectedError:
            request, inspection = kept[0]
        yield Found(f"{job.id} · {language}", work, inspection, request.source, request.assembled.video,
                    tuple(altered(work, job.id, language, job.out)))


# -- any clip ---------------------------------------------------------------------------------------------------------


@contextmanager
def _clip(file: Path, source: Path | None, subtitles: Path | None, language: str | None, preset: Preset | None,
          given: dict[str, Any], config: Path | None) -> Iterator[Found]:
    """Measure a video beside its source; nothing is kept."""
    from flows.runs import session
    from flows.settings import load_settings
    from models.loudness import PRESETS
    from models.records import Assembled
    from tasks.ingest import IngestRequest, ingest
    from tasks.inspect import InspectRequest, inspect
    from tasks.shots import ShotsRequest, find_shots
    from tasks.step import perform

    if source is None:
        raise InputError("is a file: what was it made of?", where=str(file), hint="Name its source with --source")
    kind = subtitles.suffix.lstrip(".").lower() if subtitles else ""
    if subtitles and kind not in SUBTITLES:
        raise InputError("is neither SRT nor WebVTT", where=str(subtitles))
    with tempfile.TemporaryDirectory(prefix="infinidub-qc-") as folder:
        apart = {"out": folder, "state": folder, "database": f"sqlite:///{folder}/infinidub.db", "store": "",
                 "dispatch": "here"}
        settings = load_settings(config, {**given, **apart})
        with session(settings, "qc", {}) as one:
            space, work = one.space, one.work("", language or "")
            original = perform(work, ingest, IngestRequest(original=space.import_file(source)))
            shots = perform(work, find_shots, ShotsRequest(
                video=original.video, frames=original.frames, rate=original.rate, width=original.width,
                height=original.height, detector=space.engine("shot-detector"), faces=space.engine("face-detector")))
            video = space.import_file(file)
            made = Assembled(
                language=language or "und", video=video, frames=original.frames, rate=original.rate, generated_frames=0,
                subtitles={kind: space.import_file(subtitles)} if subtitles else {}, video_copied=False)
            inspection = perform(work, inspect, InspectRequest(
                source=original, shots=shots, assembled=made, language=language or "und", recognizer=None,
                embedder=space.engine("face-embedder") if "face-embedder" in settings.engines else None,
                scorer=space.lip_scorer(),
                loudness=preset or PRESETS[settings.loudness]))
            yield Found(file.name, work, inspection, original, video)


# -- what is said of it -----------------------------------------------------------------------------------------------


def _said(found: Found, html: Path | None, as_json: bool) -> int:
    inspection, failed = found.inspection, found.failed
    code = GateError.exit_code if failed else 0
    error = {"error": {"class": GateError.__name__, "message": "; ".join(failed), "hint": "", "exit_code": code}}
    data = {"what": found.title, "language": inspection.language, "passed": not failed,
            "measured": inspection.measured, "checks": [check.data for check in inspection.checks],
            "heard": [line.model_dump(mode="json") for line in inspection.heard], "altered": list(found.altered),
            "html": str(html) if html else None, **(error if failed else {})}
    verdict = f"[red]✗ failed: {escape('; '.join(failed))}[/]" if failed else "[green]✓ passed[/]"
    answer(as_json, data, f"[bold]{escape(found.title)}[/]  {inspection.measured} of {len(inspection.checks)} checks"
           " could be made", _table(inspection.checks), verdict, f"page: {escape(str(html))}" if html else "")
    return code


def _table(checks: tuple[Check, ...]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("", "check", "measured", "bar", "worst, or why it was not measured"):
        table.add_column(name)
    for check in checks:
        mark = STATES[check.state] if check.gate or check.state != "failed" else "[yellow]![/]"
        table.add_row(mark, check.name, check.measured, escape(check.bar), escape(check.why or check.worst))
    return table
