"""The verb `world render`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from flows.options import Json, answer
from flows.show import stderr
from models.errors import InputError, SetupError

Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder of the clips; those it has already are kept.")]
Clips = Annotated[int, typer.Option(min=1, help="How many.")]
Seed = Annotated[int, typer.Option(min=0, help="Number of the first one; the same number is the same clip.")]
Size = Annotated[int, typer.Option(min=16, max=1024, help="Rows and columns of the picture.")]
Seconds = Annotated[float, typer.Option(min=0.2, max=600, help="Length of a clip.")]
Rate = Annotated[float, typer.Option(min=1, max=240, help="Frames per second.")]
People = Annotated[int, typer.Option(min=1, max=2, help="In a picture; two take turns in speaking.")]
Part = Annotated[str, typer.Option("--split", help="train, or test: people and voices that are not in train.")]
Frame = Annotated[str, typer.Option("--framing", help="face, head, bust or half; any: one of the last three, "
                                                           "drawn for each clip.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes; 0: one for each of this machine's processors.")]
Sheet = Annotated[Path | None, typer.Option(metavar="PNG", show_default=False, help="Contact sheet of the first 12.")]
Boxes = Annotated[bool, typer.Option(help="Draw the mouths' boxes on the sheet.")]


def render(out: Out, clips: Clips = 8, seed: Seed = 0, size: Size = 128, seconds: Seconds = 4.0, rate: Rate = 25.0,
           people: People = 1, part: Part = "train", frame: Frame = "any", workers: Workers = 0, sheet: Sheet = None,
           boxes: Boxes = False, as_json: Json = False) -> int:
    """Render clips of people who do not exist, with everything that is known of them: data to train and measure on."""
    _one_of(part, ("train", "test"), "--split")
    _one_of(frame, ("any", "face", "head", "bust", "half"), "--framing")
    try:
        from infinitetalk.errors import InfiniteTalkError
        from infinitetalk.world.clip import HELD_OUT, clip_seed
        from infinitetalk.world.dataset import Settings, write
    except ImportError as error:
        raise SetupError(f"{error.name} is not installed", where="infinitetalk.world",
                         hint="pip install 'infinidub[infinitetalk,world]'") from error
    if seed + clips > HELD_OUT:
        raise InputError(f"numbers end at {HELD_OUT}", where="--seed", hint="Give a smaller one")
    settings = Settings(seconds, size, size, rate, people, None if frame == "any" else frame)  # type: ignore[arg-type]
    seeds = [clip_seed(part, seed + index) for index in range(clips)]  # type: ignore[arg-type]
    try:
        written = write(out, seeds, settings, workers or os.cpu_count() or 1, _progress)
        if sheet:
            _sheet(out, seeds, sheet, boxes)
    except InfiniteTalkError as error:
        raise InputError(error.what, where=error.where, hint=error.hint) from error
    data = {"folder": str(out), "split": part, "clips": clips, "made": written.made, "kept": written.kept,
            "frames": written.frames, "bytes": written.bytes, "sheet": str(sheet) if sheet else None}
    answer(as_json, data, f"{written.made} clips made, {written.kept} kept, {written.bytes / 1e6:.1f} MB in {out}",
           f"sheet: {sheet}" if sheet else "")
    return 0


def _one_of(value: str, known: tuple[str, ...], option: str) -> None:
    if value not in known:
        raise InputError(f"{value!r} is none of {', '.join(known)}", where=option)


def _progress(done: int, total: int) -> None:
    stderr.print(f"{done} of {total} clips", highlight=False)


def _sheet(out: Path, seeds: list[int], path: Path, boxes: bool) -> None:
    from infinitetalk.world.dataset import Recordings, clip_name
    from infinitetalk.world.sheet import contact_sheet

    folder = Recordings(out)
    contact_sheet([folder.load(clip_name(seed)) for seed in seeds[:12]], path, boxes=boxes)
