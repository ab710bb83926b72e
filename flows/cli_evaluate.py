"""The verb `evaluate`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from flows.options import Json, answer
from flows.show import stderr
from models.errors import InfrastructureError, InputError, SetupError

if TYPE_CHECKING:
    from infinitetalk.evaluate.report import Summary

Generated = Annotated[Path, typer.Argument(metavar="GENERATED", help="A video, or a folder of videos.")]
Source = Annotated[Path | None, typer.Option(metavar="VIDEO", show_default=False,
                                             help="What it was made of; where its truth lies beside it, that says where"
                                                  " mouths are. For a folder, a folder with files of the same names.")]
Audio = Annotated[Path | None, typer.Option(metavar="FILE", show_default=False,
                                            help="What it should say; its own sound unless given. Or a folder.")]
Truth = Annotated[Path | None, typer.Option(metavar="CLIP", show_default=False,
                                            help="A clip of `world render` whose speech drove it. Or a folder.")]
Reference = Annotated[str | None, typer.Option(metavar="PICTURE|N", show_default=False,
                                               help="What frames must not be copies of, and faces must be like: a"
                                                    " picture, or the number of a frame of the source.")]
Chunk = Annotated[int, typer.Option(min=1, help="Frames made at once.")]
Context = Annotated[int, typer.Option(min=0, help="Of them, taken from the chunk before.")]
Person = Annotated[int, typer.Option(min=0, help="Which of the people that the truth knows.")]
Side = Annotated[int, typer.Option(min=32, max=2048, help="Longer side that pictures are measured at.")]
Frames = Annotated[int | None, typer.Option(min=1, metavar="N", show_default=False, help="At most.")]
Reader = Annotated[Path | None, typer.Option(metavar="FILE", show_default=False,
                                             help="Weights of another lip reader (safetensors).")]
Networks = Annotated[Path | None, typer.Option(metavar="DIR", show_default=False,
                                               help="Published networks that papers measure with.")]
Report = Annotated[Path | None, typer.Option(metavar="FILE.md", show_default=False, help="Write a report, too.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the intervals.")]


def evaluate(generated: Generated, source: Source = None, audio: Audio = None, truth: Truth = None,
             reference: Reference = None, chunk: Chunk = 81, context: Context = 9, person: Person = 0,
             side: Side = 256, frames: Frames = None, reader: Reader = None, networks: Networks = None,
             report: Report = None, seed: Seed = 0, as_json: Json = False) -> int:
    """Judge dubbed pictures: do lips follow the speech, do colours drift, chunks join, references show through."""
    try:
        from infinitetalk.errors import BadWeightsError, InfiniteTalkError
        from infinitetalk.evaluate.report import as_data, as_markdown
    except ImportError as error:
        raise SetupError(f"{error.name} is not installed", where="infinitetalk.evaluate",
                         hint="pip install 'infinidub[infinitetalk]'") from error
    _check_report(report)
    how = {"reference": reference, "person": person, "side": side, "most": frames}
    try:
        summary, absent = _judged(generated, (source, audio, truth), how, (chunk, context), reader, networks, seed)
    except BadWeightsError as error:
        raise SetupError(error.what, where=error.where, hint=error.hint) from error
    except InfiniteTalkError as error:
        raise InputError(error.what, where=error.where, hint=error.hint) from error
    data = as_data(summary) | {"absent": absent}
    if report:
        _write(report, as_markdown(summary))
    answer(as_json, data, *_tables(summary), f"[dim]{escape(str(data['note']))}[/]",
           f"report: {escape(str(report))}" if report else "")
    return 0


def _judged(generated: Path, others: tuple[Path | None, ...], how: dict[str, Any], chunks: tuple[int, int],
            reader: Path | None, networks: Path | None, seed: int) -> tuple[Summary, dict[str, str]]:
    """Judge every video; one that cannot be judged is said and counted, unless it is the only one."""
    from infinitetalk.errors import InfiniteTalkError
    from infinitetalk.evaluate.clips import pairs, read_case
    from infinitetalk.evaluate.public import instruments
    from infinitetalk.evaluate.report import judge, summarise
    from infinitetalk.evaluate.sets import Pool

    tools, absent = instruments(networks, reader)
    judged, skipped, pool = [], {}, Pool(tools, 0)
    found = pairs(generated, others)
    for path, (source, audio, truth) in found:
        stderr.print(f"  {escape(path.name)} …", highlight=False, soft_wrap=True)
        try:
            one, its = judge(read_case(path, source, audio, truth, finder=tools.finder, **how), tools, *chunks)
        except InfiniteTalkError as error:
            if not generated.is_dir():
                raise
            skipped[path.name] = str(error)
            continue
        judged.append(one)
        pool = pool.joined(its)
    if not judged:
        raise InputError(f"none of {len(found)} videos can be judged", where=str(generated),
                         hint=next(iter(skipped.values()), ""))
    return summarise(judged, pool, skipped, seed), absent


def _check_report(path: Path | None) -> None:
    if path and (path.suffix.lower() != ".md" or path.is_dir()):
        raise InputError("is no name for a report", where=f"--report {path}", hint="Name a file that ends in .md")


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise InfrastructureError(f"cannot be written ({error.strerror or error})", where=str(path),
                                  hint="See that the disk has space, then repeat") from error


def _tables(summary: Summary) -> list[Any]:
    """A table a video, or one of means where there are several; then who was left out."""
    parts: list[Any] = []
    if len(summary.judged) == 1:
        video = summary.judged[0]
        parts.append(f"[bold]{escape(video.name)}[/]  {video.frames} frames, {video.with_mouth} with a mouth")
        parts += [f"[dim]{escape(note)}[/]" for note in video.notes]
        parts.append(_table(("figure", "value", "covers", "means", "by"), [
            (one.name, "–" if one.value is None else f"{one.value:.4g}", f"{one.covered} of {one.of}",
             one.meaning if one.value is not None else f"not taken: {one.why}", one.instrument)
            for one in video.measures]))
    else:
        parts.append(_table(("figure", "mean", "95 % interval", "clips"), [
            *((name, f"{one.mean:.4g}", f"{one.low:.4g} … {one.high:.4g}", f"{one.clips} of {one.clips + one.left_out}")
              for name, one in summary.means.items()),
            *((one.name, "–" if one.value is None else f"{one.value:.4g}", one.why, f"{one.covered} of {one.of}")
              for one in summary.pooled)]))
    parts += [f"[red]✗[/] {escape(name)}: {escape(why)}" for name, why in summary.skipped.items()]
    return parts


def _table(names: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for name in names:
        table.add_column(name)
    for row in rows:
        table.add_row(*map(escape, row))
    return table
