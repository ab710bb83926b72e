"""The verb `generate`: the InfiniteTalk engine by itself, one picture or video and one track a speaker → one MP4."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from flows.options import Config, Json, answer
from flows.settings import Settings, load_settings
from flows.show import MARKS, clock, stderr
from models.errors import InfinidubError, InfrastructureError, InputError, SetupError

if TYPE_CHECKING:
    from infinitetalk.engine import Engine
    from infinitetalk.files import Files
    from infinitetalk.job import Job, Ready
    from infinitetalk.stream import StreamSettings

INSTALL = "pip install 'infinidub[infinitetalk]'"
REFERENCES = ("source", "image", "i2v", "fl2v")

Out = Annotated[Path, typer.Option("--out", metavar="MP4", help="The file to make.", show_default=False)]
Image = Annotated[Path | None, typer.Option("--image", metavar="FILE", show_default=False,
                                            help="The picture that is to speak.")]
Video = Annotated[Path | None, typer.Option("--video", metavar="FILE", show_default=False,
                                            help="The video that is to speak, in place of a picture.")]
Audio = Annotated[list[Path] | None, typer.Option("--audio", metavar="FILE", show_default=False,
                                                  help="What is said; twice for two people.")]
Box = Annotated[list[str] | None, typer.Option("--box", metavar="X,Y,W,H", show_default=False,
                                               help="Where each speaker is, in the order of --audio; left and right"
                                                    " unless given.")]
Bystander = Annotated[list[str] | None, typer.Option("--bystander", metavar="X,Y,W,H", show_default=False,
                                                     help="Where somebody is who keeps silent. Repeatable.")]
Turns = Annotated[bool, typer.Option("--turns", help="Two speak one after the other, rather than at once.")]
Input = Annotated[Path | None, typer.Option("--input", metavar="JSON", show_default=False,
                                            help="A job in the published format, instead of the above.")]
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
Frames = Annotated[int | None, typer.Option("--frames", metavar="N", help="At most.", show_default=False)]
Chunk = Annotated[int, typer.Option("--chunk", metavar="N", help="Frames made at once, 4k+1; fewer take less memory.")]
Tail = Annotated[str, typer.Option("--tail", help="The last chunk: short (as long as needed) or full.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Another one makes another film.")]
Reference = Annotated[str | None, typer.Option("--reference", show_default=False,
                                               help=f"{', '.join(REFERENCES)}; image for a picture, source for a video"
                                                    " unless given.")]
Kept = Annotated[Path | None, typer.Option("--state", metavar="DIR", show_default=False,
                                           help="Where chunks are kept until the file is made: called again, it goes"
                                                " on.")]
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
        reference: Reference = None, state: Kept = None, device: Device = "auto", memory: Memory = "auto",
        attention: Attention = "auto", config: Config = None, as_json: Json = False) -> int:
    """Make a picture or a video say what is in a sound file (InfiniteTalk)."""
    started, settings = time.monotonic(), load_settings(config)
    with _errors(out):
        from infinitetalk import job as jobs

        job = _job(image, video, audio, (box, bystander), turns, job_file, input_root, prompt)
        job = replace(job, negative=negative, size=_size(size), bucket=bucket, frames=frames, seed=seed)
        scales = {"text": text_scale, "audio": audio_scale, "apg": apg}
        how = _settings(job, preset, {"steps": steps, "shift": shift}, scales,
                        (reference, chunk, tail, color))
        _check_out(out)
        with jobs.opened(job) as ready:
            name = weights or f"infinitetalk-{how.sampling.size}p{'-multi' if job.needs_two else ''}"
            loras = [_lora(one, settings) for one in lora or ()]
            engine = _engine(_files(name, settings, job, how.sampling.size), _device(device, settings),
                             (*ready.take.size, chunk), memory, attention, loras)
            rounding = str(engine.networks.transformer.dtype), memory == "fp8", attention == "sage"
            made = _run(ready, engine, how, out, state, repr((name, loras, rounding)))
            told = _told(ready, out, made) | {"seconds": round(time.monotonic() - started, 1)}
    answer(as_json, told, f"{MARKS['done']} {told['video']}  {clock(told['duration_s'])}, {told['width']}×"
                          f"{told['height']}, {told['frames']} frames in {told['seconds']} s")
    return 0


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
    return Job(picture=picture, audio=tuple(audio), moving=video is not None, order="add" if turns else "para",
               boxes=speakers, bystanders=others, prompt=prompt or "")


def _size(text: str) -> Any:
    """A size class, or (H, W)."""
    if text in {"480", "720"}:
        return text
    found = re.fullmatch(r"([0-9]{2,4})[x×]([0-9]{2,4})", text, re.ASCII)
    if not found:
        raise InputError(f"{text[:40]!r} is no size", where="--size", hint="Say 480, 720 or e.g. 832x464")
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


def _check_out(out: Path) -> None:
    if out.suffix.lower() != ".mp4" or out.is_dir():
        raise InputError("is no name for an MP4", where=f"--out {out}", hint="Name a file that ends in .mp4")
    out.parent.mkdir(parents=True, exist_ok=True)


# -- what it is made with ---------------------------------------------------------------------------------------------


def _files(name: str, settings: Settings, job: Job, size: str) -> Files:
    """Weights by their name in models.lock, or in a folder as they are published; of two bases the one of `size`."""
    from infinitetalk.files import BASES, Files
    from models.engines.infinitetalk_files import ENTRIES, stored_files
    from models.weights import WeightStore

    folder = Path(name).expanduser()
    if folder.is_dir():
        base = next((base for base in BASES if size in base and (folder / base).is_dir()), "")
        single, multi = (Files.under(folder, variant, base) for variant in ("single", "multi"))
        return multi if job.needs_two or not single.overlay.is_file() else single
    if name not in ENTRIES:
        raise InputError("no weights have this name, and no folder", where=f"--weights {name[:80]}",
                         hint=f"There are: {', '.join(ENTRIES)}")
    if job.needs_two and not name.endswith("-multi"):
        raise InputError("these weights do not tell two people apart", where=f"--weights {name}",
                         hint=f"Take {name}-multi")
    return stored_files(name, WeightStore(settings.weights, mirror=settings.weights_mirror).folder)


def _lora(text: str, settings: Settings) -> tuple[Path, float]:
    """FILE[:SCALE]; FILE may be a name in models.lock."""
    from models.weights import WeightStore

    found = re.fullmatch(r"(.+?)(?::(-?[0-9]+(?:\.[0-9]*)?))?", text)
    if not found:
        raise InputError(f"{text[:80]!r} is no FILE[:SCALE]", where="--lora")
    path, scale = Path(found[1]).expanduser(), float(found[2] or 1)
    store = WeightStore(settings.weights, mirror=settings.weights_mirror)
    if not path.exists() and found[1] in store.names():
        path = store.folder(found[1]) / "lora.safetensors"
    if not path.is_file():
        raise InputError("there is no such file", where=f"--lora {found[1]}")
    return path, scale


def _device(asked: str, settings: Settings) -> str:
    import torch

    here = torch.cuda.is_available()
    device = asked if asked != "auto" else settings.device if settings.device != "cpu" or not here else "cuda"
    if device.startswith("cuda") and not here:
        raise SetupError(f"the device is {device}, and torch finds no CUDA GPU", where="--device",
                         hint="Install the driver, or a torch that is built for it")
    return device


def _engine(files: Files, device: str, chunk: tuple[int, int, int], memory: str, attention: str,
            loras: Sequence[tuple[Path, float]]) -> Engine:
    """Load what makes chunks of (H, W, frames)."""
    import torch

    from infinitetalk.engine import load

    stderr.print("  loading the networks …", highlight=False)
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    return load(files, device=device, dtype=dtype, memory=memory, size=chunk[:2], frames=chunk[2],
                attention=attention, loras=loras)


# -- making it --------------------------------------------------------------------------------------------------------


def _run(ready: Ready, engine: Engine, settings: StreamSettings, out: Path, kept: Path | None, weights: str) -> Any:
    """Make it, with a bar (or a line a chunk) on stderr; the last that was told of it."""
    from infinitetalk.job import run

    made: Any = None
    with _bar() as told:
        for made in run(ready, engine, settings, out, kept=kept, weights=weights):
            told(made.chunks, made.of)
    return made


@contextmanager
def _bar() -> Iterator[Any]:
    with Progress(TextColumn("  {task.description}"), BarColumn(bar_width=24),
                  TextColumn("chunk {task.completed:.0f} of {task.total:.0f}"), TimeElapsedColumn(), console=stderr,
                  transient=True, disable=not stderr.is_terminal) as bars:
        task = bars.add_task("generating", total=1)

        def told(done: int, of: int) -> None:
            bars.update(task, completed=done, total=of)
            if not stderr.is_terminal:
                stderr.print(f"  chunk {done} of {of}", highlight=False)

        yield told


def _told(ready: Ready, out: Path, made: Any) -> dict[str, Any]:
    take = ready.take
    return {"video": str(out.absolute()), "frames": take.frames, "fps": float(take.rate), "width": take.size[1],
            "height": take.size[0], "duration_s": float(take.frames / take.rate), "speakers": len(take.speakers),
            "chunks": made.of, "chunks_reused": made.reused, "seed": take.seed}


@contextmanager
def _errors(out: Path) -> Iterator[None]:
    """The engine's errors, and those of the disk, as the project's own."""
    try:
        from infinitetalk import errors
    except ImportError as error:
        raise SetupError(f"{error.name} is not installed", where="infinitetalk", hint=INSTALL) from error
    kinds: Iterable[tuple[type[errors.InfiniteTalkError], type[InfinidubError]]] = (
        (errors.BadInputError, InputError), (errors.BadWeightsError, SetupError), (errors.TooLargeError, SetupError))
    try:
        yield
    except errors.InfiniteTalkError as error:
        kind = next((ours for theirs, ours in kinds if isinstance(error, theirs)), InfinidubError)
        raise kind(error.what, where=error.where, hint=error.hint) from error
    except ImportError as error:
        raise SetupError(f"{error.name} is not installed", where="infinitetalk", hint=INSTALL) from error
    except OSError as error:
        raise InfrastructureError(f"cannot be written ({error.strerror or error})", where=str(out),
                                  hint="See that the disk has space, then repeat") from error
