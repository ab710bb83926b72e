"""The verb `generate`: the InfiniteTalk engine by itself, one picture or video and one track a speaker → one MP4."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flows.generate_progress import watching
from flows.generate_setup import found_lora, found_weights, machine
from flows.options import Config, Json, answer
from flows.settings import Settings, load_settings
from flows.show import MARKS, clock, stderr
from models.errors import EngineError, InfinidubError, InfrastructureError, InputError, SetupError

if TYPE_CHECKING:
    from infinitetalk.engine import Engine
    from infinitetalk.job import Job, Ready
    from infinitetalk.kept import Kept
    from infinitetalk.stream import StreamSettings

INSTALL = "pip install 'infinidub[infinitetalk]'"
LEAST_CHUNK = 13
"""Frames: nine are taken over from the chunk before, and the codec makes four at once."""
REFERENCES = ("source", "image", "i2v", "fl2v")

Out = Annotated[Path, typer.Option("--out", metavar="MP4", help="The file to make.", show_default=False)]
Image = Annotated[Path | None, typer.Option("--image", metavar="FILE", show_default=False,
                                            help="The picture that is to speak, for as long as the sound lasts.")]
Video = Annotated[Path | None, typer.Option("--video", metavar="FILE", show_default=False,
                                            help="The video that is to speak, in place of a picture. Its length stays:"
                                                 " after shorter sound the mouth is shut, longer sound is refused"
                                                 " unless --frames cuts it.")]
Audio = Annotated[list[Path] | None, typer.Option("--audio", metavar="FILE", show_default=False,
                                                  help="What is said; twice for two people.")]
Box = Annotated[list[str] | None, typer.Option("--box", metavar="X,Y,W,H", show_default=False,
                                               help="Where each speaker is, in the order of --audio; left and right"
                                                    " unless given.")]
Bystander = Annotated[list[str] | None, typer.Option("--bystander", metavar="X,Y,W,H", show_default=False,
                                                     help="Where somebody is who keeps silent. Repeatable.")]
Turns = Annotated[bool, typer.Option("--turns", help="Two speak one after the other, rather than at once.")]
Input = Annotated[Path | None, typer.Option("--input", metavar="JSON", show_default=False,
                                            help="A job in the published format, instead of the above; it lasts as long"
                                                 " as its sound, a video's last picture held.")]
Root = Annotated[Path | None, typer.Option("--input-root", metavar="DIR", show_default=False,
                                           help="Folder that its paths count from and stay in; its own unless given.")]
Prompt = Annotated[str | None, typer.Option("--prompt", help="What is to be seen.", show_default=False)]
Negative = Annotated[str, typer.Option("--negative", help="What is not to be seen; the usual faults unless given.",
                                       show_default=False)]
Weights = Annotated[str, typer.Option("--weights", metavar="NAME|DIR", show_default=False,
                                      help="In models.lock, or a folder as published. By --size unless given.")]
Size = Annotated[str, typer.Option("--size", metavar="480|720|WxH", help="Pixels of the result.")]
Bucket = Annotated[bool, typer.Option("--bucket", help="A published size, rather than the source's own aspect.")]
Preset = Annotated[str, typer.Option("--preset", help="How to sample: best, cached, fast-8, fast-4.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Over the preset's.", show_default=False)]
Shift = Annotated[float | None, typer.Option("--shift", help="Over the preset's.", show_default=False)]
TextScale = Annotated[float | None, typer.Option("--text-scale", help="Over the preset's; 1 is none.",
                                                 show_default=False)]
AudioScale = Annotated[float | None, typer.Option("--audio-scale", help="Over the preset's; 1 is none.",
                                                  show_default=False)]
Projected = Annotated[bool, typer.Option("--apg", help="Adaptive projected guidance: strong scales without glaring"
                                                       " colours.")]
Color = Annotated[float, typer.Option("--color", help="How much colours are held to the first picture's, 0 to 1.")]
Lora = Annotated[list[str] | None, typer.Option("--lora", metavar="FILE[:SCALE]", show_default=False,
                                                help="Merged into the weights; also a name in models.lock."
                                                     " Repeatable.")]
Frames = Annotated[int | None, typer.Option("--frames", metavar="N", show_default=False,
                                            help="At most; longer sound is cut.")]
Chunk = Annotated[int, typer.Option("--chunk", metavar="N", help="Frames made at once, 13 or more, 4k+1; fewer"
                                                                 " take less memory.")]
Tail = Annotated[str, typer.Option("--tail", help="The last chunk: short (as long as needed) or full.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Another one makes another film.")]
Reference = Annotated[str | None, typer.Option("--reference", show_default=False,
                                               help=f"{', '.join(REFERENCES)}; image for a picture, source for a video"
                                                    " unless given.")]
State = Annotated[Path | None, typer.Option("--state", metavar="DIR", show_default=False,
                                           help="Where chunks are kept until the file is made: called again, it goes"
                                                " on.")]
Person = Annotated[list[str] | None, typer.Option("--person", metavar="NAME", show_default=False,
                                                  help="Who is seen; repeatable. In production everybody must have"
                                                       " agreed (`consent add`, its --scope the name of --out without"
                                                       " suffix, or '*'); '' says that nobody is known.")]
Device = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1; auto: a GPU if there is one.")]
Memory = Annotated[str, typer.Option("--memory", help="auto, resident, fp8 or offload.")]
Attention = Annotated[str, typer.Option("--attention", help="auto, sdpa, or what is installed: flash3, flash2, sage.")]


def generate(
        out: Out, image: Image = None, video: Video = None, audio: Audio = None, box: Box = None,
        bystander: Bystander = None, turns: Turns = False, job_file: Input = None, input_root: Root = None,
        prompt: Prompt = None, negative: Negative = "", weights: Weights = "", size: Size = "480",
        bucket: Bucket = False, preset: Preset = "best", steps: Steps = None, shift: Shift = None,
        text_scale: TextScale = None, audio_scale: AudioScale = None, apg: Projected = False, color: Color = 1.0,
        lora: Lora = None, frames: Frames = None, chunk: Chunk = 81, tail: Tail = "short", seed: Seed = 0,
        reference: Reference = None, person: Person = None, state: State = None, device: Device = "auto",
        memory: Memory = "auto", attention: Attention = "auto", config: Config = None, as_json: Json = False) -> int:
    """Make a picture or a video say what is in a sound file (InfiniteTalk)."""
    started, settings = time.monotonic(), load_settings(config)
    behind = _agreed(person, out, settings)
    with _errors(out, state):
        from infinitetalk import kept as keep
        from infinitetalk.job import opened

        job = _job(image, video, audio, (box, bystander), turns, job_file, input_root, prompt)
        job = replace(job, negative=negative, size=_size(size), bucket=bucket, frames=frames, seed=seed)
        scales = {"text": text_scale, "audio": audio_scale, "apg": apg}
        how = _settings(job, preset, {"steps": steps, "shift": shift}, scales, (reference, chunk, tail, color))
        loras = [found_lora(one, settings) for one in lora or ()]
        _check_out(out, state, (job.picture, *job.audio, job_file, *(path for path, _ in loras)))
        on = machine(device, memory, attention, settings)
        with ExitStack() as stack:
            ready = stack.enter_context(opened(job))
            warnings = _warned((*ready.warnings, *_unlikely(preset, loras)))
            using = found_weights(weights, how.sampling.size, job.needs_two, loras, settings)
            identity = ready.identity(how, repr((using.identity(), on.rounding)))
            kept = stack.enter_context(keep.keeping(state, identity))
            stderr.print("  loading the networks …", highlight=False)
            told = _made(ready, using.load(on, ready.take.size, chunk), how, out, kept)
    told |= {"seconds": round(time.monotonic() - started, 1), "warnings": warnings, "consents": behind}
    answer(as_json, told, _line(told))
    return 0


def _agreed(people: Sequence[str] | None, out: Path, settings: Settings) -> list[int]:
    """Numbers of the consents behind the pictures; the file's name without its suffix is what they are for.

    Raises:
        InputError: In production, nobody said who is seen.
        ConsentError: One is missing.
    """
    from flows.wiring import open_workspace
    from tasks.consent import likenesses, require

    if not settings.production:
        return []
    if people is None:
        raise InputError("production asks who is seen", where="--person",
                         hint="Name everybody with --person NAME; or say --person '' where nobody is known")
    needs = likenesses(name for name in people if name.strip())
    return [one.id for one in require(open_workspace(settings).ledger, needs, out.stem, "")] if needs else []


# -- what is to be made -----------------------------------------------------------------------------------------------


def _job(image: Path | None, video: Path | None, audio: Sequence[Path] | None,
         boxes: tuple[Sequence[str] | None, Sequence[str] | None], turns: bool, job_file: Path | None,
         root: Path | None, prompt: str | None) -> Job:
    from infinitetalk.inputs import parse_box
    from infinitetalk.job import Job
    from infinitetalk.job_file import read_job

    if job_file:
        if image or video or audio or any(boxes) or turns:
            raise InputError("says already who speaks, and what", where="--input",
                             hint="Leave out --image, --video, --audio, --box, --bystander and --turns")
        job = read_job(job_file, root)
        return job if prompt is None else replace(job, prompt=prompt)
    picture = image or video
    if picture is None or (image and video) or not audio:
        raise InputError("say what is to be made", hint="Give one of --image and --video, and --audio once or twice;"
                                                        " or --input")
    speakers, others = (tuple(parse_box(text) for text in texts or ()) for texts in boxes)
    return Job(picture=picture, audio=tuple(audio), moving=video is not None,
               lasts="picture" if video else "sound", order="add" if turns else "para",
               boxes=speakers, bystanders=others, prompt=prompt or "")


def _size(text: str) -> Any:
    """A size class, or (H, W)."""
    if text in {"480", "720"}:
        return text
    found = re.fullmatch(r"([0-9]{1,9})[x×]([0-9]{1,9})", text, re.ASCII)
    if not found:
        raise InputError(f"{text[:40]!r} is no size", where="--size",
                         hint="Say 480, 720 or e.g. 832x464: multiples of 16")
    return int(found[2]), int(found[1])


def _settings(job: Job, name: str, schedule: dict[str, Any], scales: dict[str, Any],
              rest: tuple[str | None, int, str, float]) -> StreamSettings:
    from infinitetalk import reference as references
    from infinitetalk.guidance import Apg
    from infinitetalk.pictures import AREAS
    from infinitetalk.plan import ChunkSize
    from infinitetalk.sampling import preset
    from infinitetalk.stream import StreamSettings

    chosen, chunk, tail, color = rest
    if chunk < LEAST_CHUNK or (chunk - LEAST_CHUNK) % 4:
        raise InputError(f"{chunk} is no length of a chunk", where="--chunk",
                         hint=f"Say {LEAST_CHUNK} or more, 4k+1: {LEAST_CHUNK}, 17, 21 … 81")
    chosen = chosen or ("source" if job.moving else "image")
    if chosen not in REFERENCES:
        raise InputError(f"there is no reference {chosen[:40]!r}", where="--reference",
                         hint=f"There are: {', '.join(REFERENCES)}")
    which = job.size if isinstance(job.size, str) else min(
        AREAS, key=lambda one: abs(AREAS[one] - job.size[0] * job.size[1]))  # type: ignore[operator]
    sampling = preset(name, which)
    scales = {**scales, "apg": Apg() if scales["apg"] else None}
    sampling = replace(sampling, **_given(schedule), guidance=replace(sampling.guidance, **_given(scales)))
    kinds = {"source": references.Source, "image": references.Image, "i2v": references.I2V, "fl2v": references.FL2V}
    return StreamSettings(size=ChunkSize(chunk), sampling=sampling, reference=kinds[chosen](),
                          color=color, tail=tail)  # type: ignore[arg-type]


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _check_out(out: Path, state: Path | None, given: Iterable[Path | None]) -> None:
    """Refuse an output that is no MP4, would replace what it is made of or what is kept, or cannot be written."""
    from infinitetalk.writing import check_writable

    where = f"--out {out}"
    if out.suffix.lower() != ".mp4" or out.is_dir():
        raise InputError("is no name for an MP4", where=where, hint="Name a file that ends in .mp4")
    try:
        same = next((one for one in given if one and one.exists() and out.exists() and out.samefile(one)), None)
    except OSError as error:
        raise InputError(f"cannot be looked at ({(error.strerror or str(error)).lower()})", where=where,
                         hint="Name another file") from error
    if same:
        raise InputError(f"is the same file as {same}, and would replace it", where=where, hint="Name another file")
    if state and out.parent.resolve() == state.resolve():
        raise InputError("lies in the folder of --state, which is emptied at the end", where=where,
                         hint="Name a file elsewhere")
    check_writable(out)


def _unlikely(preset: str, loras: Sequence[Any]) -> Iterator[str]:
    """Options that are rarely meant so."""
    if preset.startswith("fast") and not loras:
        yield f"--preset {preset} without a LoRA that was distilled for it blurs: add --lora lightx2v-i2v-480p"


# -- making it --------------------------------------------------------------------------------------------------------


def _made(ready: Ready, engine: Engine, how: StreamSettings, out: Path, kept: Kept) -> dict[str, Any]:
    """Make it, and say on stderr how far it is; what is told of it."""
    from infinitetalk.job import run

    with watching() as watch:
        for made in run(ready, engine, how, out, kept, watch.step):
            watch.chunk(made.chunks, made.of)
    take, rate = ready.take, ready.source_rate
    return {"video": str(out.absolute()), "frames": take.frames, "fps": float(take.rate),
            "source_fps": float(rate) if rate else None, "width": take.size[1], "height": take.size[0],
            "duration_s": float(take.frames / take.rate), "speakers": len(take.speakers), "chunks": made.of,
            "chunks_reused": made.reused, "seed": take.seed}


def _line(told: dict[str, Any]) -> str:
    """The closing line."""
    divided = told["source_fps"] not in {None, told["fps"]}
    rate = f" ({told['fps']:g} a second, of the source's {told['source_fps']:g})" if divided else ""
    return (f"{MARKS['done']} {escape(told['video'])}  {clock(told['duration_s'])}, {told['width']}×{told['height']},"
            f" {told['frames']} frames{rate} in {told['seconds']} s")


def _warned(warnings: Iterable[str]) -> list[str]:
    """The warnings, once they are on stderr."""
    told = list(warnings)
    for warning in told:
        stderr.print(f"warning: {escape(warning)}", highlight=False, soft_wrap=True)
    return told


@contextmanager
def _errors(out: Path, state: Path | None) -> Iterator[None]:
    """The engine's errors, and those of the disk, as the project's own; of a stop, what it leaves."""
    try:
        from infinitetalk import errors
    except ImportError as error:
        raise SetupError(f"{error.name} is not installed", where="infinitetalk", hint=INSTALL) from error
    kinds: Iterable[tuple[type[errors.InfiniteTalkError], type[InfinidubError]]] = (
        (errors.BadInputError, InputError), (errors.BadWeightsError, SetupError), (errors.TooLargeError, SetupError),
        (errors.BadResultError, EngineError))
    try:
        yield
    except errors.InfiniteTalkError as error:
        kind = next((ours for theirs, ours in kinds if isinstance(error, theirs)), InfinidubError)
        raise kind(error.what, where=error.where, hint=error.hint) from error
    except ImportError as error:
        raise SetupError(f"{error.name} is not installed", where="infinitetalk", hint=INSTALL) from error
    except KeyboardInterrupt:
        kept = "run the same command again to go on" if state else "nothing was kept; --state DIR keeps what is made"
        raise KeyboardInterrupt(kept) from None
    except OSError as error:
        raise InfrastructureError(f"cannot be written ({error.strerror or error})", where=str(out),
                                  hint="See that the disk has space, then repeat") from error
