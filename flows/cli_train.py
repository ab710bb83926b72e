"""The verbs `train codec`, `speech`, `dit` and `reader`: the small generator's networks, one command a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.options import Json, answer
from flows.show import stderr
from models.errors import InputError, SetupError

if TYPE_CHECKING:
    from infinitetalk.small.config import SmallConfig
    from infinitetalk.train.data import Clips
    from infinitetalk.train.loop import Piece

Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of clips, of `infinidub world render` or of "
                                                                  "talking video.")]
Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the weights and of the run's states.")]
Size = Annotated[str, typer.Option("--config", metavar="SIZE", help="lite (64 pixels) or nano (128).")]
Minutes = Annotated[float, typer.Option(help="How long this piece takes, 10 at most.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that is in the folder.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")]
Utterances = Annotated[int, typer.Option(help="How many utterances the speech encoder hears.")]
Start = Annotated[Path | None, typer.Option("--start", metavar="FILE", show_default=False,
                                            help="Weights of a transformer to begin with.")]
Visemes = Annotated[float, typer.Option(help="Weight of the auxiliary loss on visemes; 0: none.")]
Steps = Annotated[int, typer.Option(min=1, help="Of the whole run; the learning rate falls to nothing over them.")]
Batch = Annotated[int, typer.Option(min=1, help="Chunks a step; 24 suits a CPU, 256 a GPU.")]
Processes = Annotated[int, typer.Option(min=1, help="That train together, one thread each; 1: one, with all threads.")]
Lips = Annotated[float, typer.Option(min=0, max=1, help="Share of chunks in which the lower face alone is made anew, "
                                                       "and all else stays.")]
Filmed = Annotated[bool, typer.Option("--as-filmed", help="Clips as they were filmed, for whole frames; else close-ups "
                                                          "that follow the face.")]
Heard = Annotated[str, typer.Option("--audio", help="speech, or truth: the true visemes instead of what the encoder "
                                                    "hears, to prove everything behind it.")]
Sampler = Annotated[str, typer.Option(help="How references are drawn: M0, M1, M2 or M3.")]


def train_codec(data: Data, out: Folder, size: Size = "lite", minutes: Minutes = 10.0, resume: Resume = False,
                device: Device = "cpu", as_filmed: Filmed = False, as_json: Json = False) -> int:
    """Train the autoencoder: pixels to latents and back."""
    with _told():
        from infinitetalk.train.codec import train_codec as train

        config = _begun(out, size, out / "codec", resume)
        clips, skipped = _clips(data, out, config, close=not as_filmed)
        losses = _Losses()
        piece = train(config, clips, out, minutes, device=device, told=losses)
    return _ended("codec", piece, out, as_json, skipped=skipped, **losses.last())


def train_speech(out: Folder, size: Size = "lite", minutes: Minutes = 10.0, resume: Resume = False,
                 device: Device = "cpu", utterances: Utterances = 500, as_json: Json = False) -> int:
    """Train the speech encoder: sound to mouth shapes. It hears the synthetic world's speech; no clips are needed."""
    with _told():
        from infinitetalk.train.speech import spoken
        from infinitetalk.train.speech import train_speech as train

        config = _begun(out, size, out / "speech", resume)
        losses = _Losses()
        piece = train(config, list(spoken("train", utterances)), out, minutes, device=device, told=losses)
    return _ended("speech", piece, out, as_json, **losses.last())


def train_reader(data: Data, out: Folder, size: Size = "lite", minutes: Minutes = 10.0, resume: Resume = False,
                 device: Device = "cpu", as_filmed: Filmed = False, as_json: Json = False) -> int:
    """Train the reader of lips, which judges pictures and makes none: pixels of a mouth to mouth shapes."""
    with _told():
        from infinitetalk.train.reader import train_reader as train

        config = _begun(out, size, out / "reader", resume)
        clips, skipped = _clips(data, out, config, close=not as_filmed)
        losses = _Losses()
        piece = train(list(clips), out, minutes, device=device, told=losses)
    return _ended("reader", piece, out, as_json, skipped=skipped, **losses.last())


def train_dit(data: Data, out: Folder, size: Size = "lite", minutes: Minutes = 10.0, resume: Resume = False,
              device: Device = "cpu", start: Start = None, visemes: Visemes = 0.5, sampler: Sampler = "M3",
              lips: Lips = 0.9, as_filmed: Filmed = False, heard: Heard = "speech", steps: Steps = 20_000,
              batch: Batch = 24, processes: Processes = 1, as_json: Json = False) -> int:
    """Train the transformer; codec and speech encoder must lie in the folder. The audio gap is told as it goes."""
    with _told():
        from dataclasses import replace

        from infinitetalk.small.codec import WEIGHTS, SmallCodec
        from infinitetalk.train.dit import DitRecipe, train_transformer
        from infinitetalk.train.draw import SAMPLERS
        from infinitetalk.train.lessons import lessons
        from infinitetalk.train.team import team

        if sampler not in SAMPLERS:
            raise InputError(f"{sampler!r} draws no references", where="--sampler", hint=f"Take {', '.join(SAMPLERS)}")
        if heard not in ("speech", "truth"):
            raise InputError(f"{heard!r} cannot be heard", where="--audio", hint="Take speech or truth")
        config = _begun(out, size, out / "run", resume)
        taught = lessons(data, out, config, close=not as_filmed)
        _name_skipped(taught.skipped)
        recipe = DitRecipe()
        recipe = replace(recipe, run=replace(recipe.run, steps=steps, batch=batch),
                         flow=replace(recipe.flow, visemes=visemes), draw=replace(
                             recipe.draw, reference=sampler, audio=heard, lips=lips))  # type: ignore[arg-type]
        lines: list[dict[str, float]] = []
        with team(processes, data, out, config, minutes, recipe, start, not as_filmed) as together:
            piece = train_transformer(taught.lessons, out, config, minutes, recipe=recipe, device=device, start=start,
                                      codec=SmallCodec.read(out / WEIGHTS, config.codec), team=together,
                                      told=_watched(lines))
    return _ended("dit", piece, out, as_json, skipped=len(taught.skipped), **(lines[-1] if lines else {}))


def _begun(out: Path, size: str, run: Path, resume: bool) -> SmallConfig:
    """The configuration, once it is certain that no run is overwritten or taken up by mistake."""
    from infinitetalk.small.config import FILE, PRESETS, SmallConfig

    if size not in PRESETS:
        raise InputError(f"there is no size {size!r}", where="--config", hint=f"Take {', '.join(PRESETS)}")
    begun = (run / "state").is_dir()
    if begun and not resume:
        raise InputError("holds a run already", where=str(run), hint="Give --resume to go on, or another --out")
    if resume and not begun:
        raise InputError("holds no run to go on with", where=str(run), hint="Leave out --resume to begin one")
    if (out / FILE).exists() and SmallConfig.read(out).digest() != PRESETS[size].digest():
        raise InputError(f"holds weights of another configuration than {size}", where=str(out),
                         hint="Name another folder, or the configuration that it was begun with")
    out.mkdir(parents=True, exist_ok=True)
    PRESETS[size].save(out)
    return PRESETS[size]


def _clips(data: Path, out: Path, config: SmallConfig, *, close: bool) -> tuple[Clips, int]:
    """The clips to learn from, and how many could not be used: those are named."""
    from infinitetalk.train.data import Clips, prepare

    prepared = prepare(data, out / "clips", config.side, close=close)
    _name_skipped(prepared.skipped)
    return Clips(out / "clips", "train"), len(prepared.skipped)


def _name_skipped(skipped: Mapping[str, str]) -> None:
    """One line for each clip that cannot be used."""
    for name, why in skipped.items():
        stderr.print(f"{name} skipped: {why}", highlight=False, soft_wrap=True)


class _Losses:
    """Remembers the latest losses."""

    KEPT = 200

    def __init__(self) -> None:
        self._seen: list[float] = []

    def __call__(self, step: int, loss: float) -> None:
        self._seen = [*self._seen[-self.KEPT + 1:], loss]

    def last(self) -> dict[str, float]:
        """Their mean."""
        return {"loss": sum(self._seen) / len(self._seen)} if self._seen else {}


def _watched(lines: list[dict[str, float]]) -> Callable[[dict[str, float]], None]:
    def told(line: dict[str, float]) -> None:
        lines.append(line)
        stderr.print(f"step {line['step']:.0f}: mouth {line['mouth']:.4f}, audio gap {line['gap_shifted']:+.2%} "
                     f"(another moment) {line['gap_foreign']:+.2%} (another voice)", highlight=False)

    return told


def _ended(stage: str, piece: Piece, out: Path, as_json: bool, **figures: Any) -> int:
    told = {**figures, "stage": stage, "step": piece.step, "finished": piece.finished}
    left_out = f", {figures['skipped']} clips skipped" if figures.get("skipped") else ""
    go_on = "" if piece.finished else "; the same command with --resume goes on"
    answer(as_json, told, f"{stage}: step {piece.step}, weights in {out}{left_out}{go_on}")
    return 0


@contextmanager
def _told() -> Iterator[None]:
    """Errors of training as those of the house."""
    try:
        from infinitetalk.errors import BadInputError, InfiniteTalkError
    except ImportError as error:
        raise SetupError(f"{error.name} is not installed", where="infinitetalk",
                         hint="pip install 'infinidub[infinitetalk]'") from error
    try:
        yield
    except ImportError as error:
        raise SetupError(f"{error.name} is not installed", where="infinitetalk",
                         hint="pip install 'infinidub[infinitetalk]'") from error
    except BadInputError as error:
        raise InputError(error.what, where=error.where, hint=error.hint) from error
    except InfiniteTalkError as error:
        raise SetupError(error.what, where=error.where, hint=error.hint) from error
