"""One dub of one pair by one arm, and its figures; each is kept as a file of JSON.

A pair is a source and the voice of another clip. Arms see the same pairs with the same noise.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from infinitetalk.audio import SAMPLE_RATE
from infinitetalk.engine import Engine, Speaker, Take
from infinitetalk.errors import BadInputError
from infinitetalk.evaluate import picture
from infinitetalk.evaluate.clips import BY_TRUTH, Case
from infinitetalk.evaluate.identity import FaceEmbedder
from infinitetalk.evaluate.measure import Floats, Pixels
from infinitetalk.evaluate.public import READER, instruments
from infinitetalk.evaluate.report import judge
from infinitetalk.evaluate.sets import Instruments
from infinitetalk.experiment.arms import Arm
from infinitetalk.plan import ChunkSize, plan
from infinitetalk.shapes import TEMPORAL
from infinitetalk.small.config import SmallConfig
from infinitetalk.small.load import DIT, load, load_transformer
from infinitetalk.train.data import Clips
from infinitetalk.train.latents import RATE, TalkingClip

BASE, FORKED, HELD, DUBS = "base", "forks", "held", "dubs"
"""Folders of an experiment."""
OWN = ("colour error", "copy", "copy at ends")
"""Figures that are taken here."""
FACES_EVERY = 16
"""Frames between two whose face is looked at."""
CURVE_EVERY = 8
"""Frames between two of the kept curves."""
SHOWN = 12
"""Frames of a pair on the sheet."""


@dataclass(frozen=True)
class How:
    """How everything is dubbed."""

    pairs: int = 60
    seeds: int = 3
    ablation_seeds: int = 1
    chunks: int = 8
    """Of the arm that has the fewest."""
    sampler_steps: int = 8
    guidance: float = 1.0
    """Scale of guidance by audio; 1: none."""
    color: float = 0.0
    """Strength of the colour correction. It hides the drift that is to be measured, and is no part of the paper."""
    sdedit: float = 0.8
    """Share of noise that chunks begin with where they begin with the source."""

    def __post_init__(self) -> None:
        """Refuse what is no experiment."""
        if min(self.pairs, self.seeds, self.ablation_seeds, self.sampler_steps) < 1 or self.chunks < 2:
            raise BadInputError("nothing would be compared", where="experiment",
                                hint="Give 1 or more pairs, seeds and steps, and 2 or more chunks")
        if not 0 < self.sdedit < 1:
            raise BadInputError(f"{self.sdedit} is no share of noise", where="experiment", hint="Give 0 to 1")

    def frames(self, config: SmallConfig) -> int:
        """Of a dub: chunks that share one frame are the fewest."""
        return config.frames + (self.chunks - 1) * (config.frames - 1)


class Pair(NamedTuple):
    """Numbers of held-out clips."""

    source: int
    voice: int


class Item(NamedTuple):
    """What is made and measured in one go."""

    arm: Arm
    pair: int
    seed: int

    def file(self, work: Path) -> Path:
        """Where its figures are kept."""
        return work / DUBS / self.arm.folder / f"{self.pair:04d}-{self.seed}.json"


def pairs(clips: int, count: int) -> list[Pair]:
    """So many pairs of different clips; each clip is a source equally often, but for one.

    Raises:
        BadInputError: There are not so many.
    """
    if count > clips * (clips - 1):
        raise BadInputError(f"{clips} clips make {clips * (clips - 1)} pairs, not {count}", where="held-out clips",
                            hint="Render more of them, or take fewer pairs")
    return [Pair(at % clips, (at % clips + 1 + at // clips) % clips) for at in range(count)]


def items(arms: Sequence[Arm], how: How) -> list[Item]:
    """Everything there is to do, in such an order that arms are even wherever it is cut off."""
    return [Item(arm, pair, seed) for seed in range(max(how.seeds, how.ablation_seeds)) for pair in range(how.pairs)
            for arm in arms if seed < (1 if not arm.weights else how.ablation_seeds if arm.ablation else how.seeds)]


class Bench:
    """Dubs and measures, by what lies in an experiment's folder."""

    def __init__(self, work: Path, how: How, networks: Path | None = None) -> None:
        """Nothing is loaded yet.

        Args:
            work: The experiment's folder: base, forks and held-out clips are there.
            how: How to dub.
            networks: Folder of published networks, for faces.
        """
        self._work, self._how, self._networks = work, how, networks
        self._engines: dict[str, Engine] = {}

    @cached_property
    def config(self) -> SmallConfig:
        """Of the weights."""
        return SmallConfig.read(self._work / BASE)

    @cached_property
    def clips(self) -> list[TalkingClip]:
        """Held-out ones that are long enough and say what their mouth does.

        Raises:
            BadInputError: There are fewer than two.
        """
        least = self._how.frames(self.config)
        found = [clip for clip in Clips(self._work / HELD, "test") if len(clip.frames) >= least and clip.visemes.any()]
        if len(found) < 2:
            seconds = -(-least // RATE) + 1
            raise BadInputError(f"{len(found)} held-out clips have {least} frames", where="--test",
                                hint=f"infinidub world render --split test --size {self.config.side} "
                                     f"--seconds {seconds} --clips {self._how.pairs} --out …")
        return found

    @cached_property
    def pairs(self) -> list[Pair]:
        """Those that are dubbed."""
        return pairs(len(self.clips), self._how.pairs)

    @cached_property
    def instruments(self) -> Instruments:
        """What looks at pictures."""
        reader = self._work / BASE / READER
        found, _ = instruments(self._networks, reader if reader.is_file() else None)
        return replace(found, faces=Sparse(found.faces) if found.faces else None)

    def make(self, item: Item) -> None:
        """Dub, measure and keep one item.

        Raises:
            BadWeightsError: Weights are absent or damaged.
            BadResultError: A network gave numbers that are not finite.
        """
        pair = self.pairs[item.pair]
        source, voice = self.clips[pair.source], self.clips[pair.source if item.arm.own_voice else pair.voice]
        frames = self._dubbed(item, source, voice) if item.arm.weights else np.array(
            source.frames[:self._how.frames(self.config)])
        told = self._measured(item, frames, source, voice)
        file = item.file(self._work)
        file.parent.mkdir(parents=True, exist_ok=True)
        if item.pair == item.seed == 0:
            _save_strip(file.with_suffix(".png"), frames)
        writing = file.with_suffix(".writing")
        writing.write_text(json.dumps({"source": pair.source, **told}, allow_nan=False), encoding="utf-8")
        writing.replace(file)

    @cached_property
    def _base(self) -> Engine:
        return load(self._work / BASE)

    def _engine(self, weights: str) -> Engine:
        if weights not in self._engines:
            base = self._base
            forked = load_transformer(self._work / FORKED / weights / DIT, self.config)
            self._engines[weights] = Engine(replace(base.networks, transformer=forked), base.text, base.audio,
                                            persons=1)
        return self._engines[weights]

    def _dubbed(self, item: Item, source: TalkingClip, voice: TalkingClip) -> Pixels:
        how, total = self._how, self._how.frames(self.config)
        speech = np.ascontiguousarray(voice.speech[:total * SAMPLE_RATE // RATE], np.float32)
        take = Take(source.frames.__getitem__, total, Fraction(RATE), (self.config.side, self.config.side),
                    (Speaker(speech),), seed=item.seed * how.pairs + item.pair)
        made = self._engine(item.arm.weights).dub(
            take, item.arm.stream(self.config, how.sampler_steps, how.guidance, how.color))
        return np.concatenate([chunk.frames for chunk in made])

    def _measured(self, item: Item, frames: Pixels, source: TalkingClip, voice: TalkingClip) -> dict[str, Any]:
        total, size = len(frames), item.arm.size(self.config)
        truth = np.array(source.frames[:total])
        case = Case(f"{item.arm.name} {item.pair}", RATE, frames, np.array(source.mouth[:total]), "truth",
                    np.array(voice.visemes[:total]), BY_TRUTH, source=truth)
        judged, _ = judge(case, self.instruments, size.frames, size.context, windows=False)
        apart = np.linalg.norm(picture.mean_colours(frames) - picture.mean_colours(truth), axis=1)
        measures = {one.name: {"value": one.value, "covered": one.covered, "of": one.of, "why": one.why,
                               "by": one.instrument} for one in judged.measures}
        own = {"colour error": float(apart[-size.frames:].mean()), **_copies(item.arm, frames, truth, size)}
        measures |= {name: {"value": own.get(name), "covered": total, "of": total, "why": "" if name in own else
                            "no reference is told beside the chunks", "by": "pixels"} for name in OWN}
        for name in {"CSIM", "CSIM*", "face distance"} & set(measures):
            measures[name]["of"] = len(range(0, total, FACES_EVERY))
        return {"figures": measures, "apart": [round(float(one), 5) for one in apart[::CURVE_EVERY]]}


class Sparse:
    """Looks at some frames only: a face network takes longer than everything else together."""

    def __init__(self, faces: FaceEmbedder) -> None:
        self._faces, self.name, self.centre = faces, f"{faces.name}, every {FACES_EVERY} frames", faces.centre

    def embed(self, frames: Pixels) -> Floats:
        """See `FaceEmbedder`."""
        seen = self._faces.embed(frames[::FACES_EVERY])
        whole = np.full((len(frames), seen.shape[1]), np.nan, np.float32)
        whole[::FACES_EVERY] = seen
        return whole


def _copies(arm: Arm, frames: Pixels, source: Pixels, size: ChunkSize) -> dict[str, float]:
    """How much one frame of a later chunk is its reference, and how often that one lies at the chunk's ends.

    Only where the reference is told beside the chunk: those of I2V and FL2V are frames of it, and always copied.
    """
    if not arm.weights or not arm.reference.carries:
        return {}
    ratios, at_ends = [], []
    for span in plan(len(frames), size)[1:]:
        new = frames[span.first_new:span.first_new + span.new]
        if len(new) <= 2 * TEMPORAL:
            continue  # it is all ends
        found = picture.copy(new, source[span.start:span.start + 1])
        ratios.append(found.ratio)
        at_ends.append(not TEMPORAL <= found.frame < len(new) - TEMPORAL)
    return {"copy": float(np.mean(ratios)), "copy at ends": float(np.mean(at_ends))} if ratios else {}


def _save_strip(file: Path, frames: Pixels) -> None:
    from PIL import Image

    at = np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)
    Image.fromarray(np.concatenate(list(frames[at]), axis=1)).save(file)
