"""A folder of clips → what the transformer learns from, encoded once and kept beside the run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.small import codec, speech
from infinitetalk.small.config import SmallConfig
from infinitetalk.train.data import Clips, prepare
from infinitetalk.train.dit import Lessons
from infinitetalk.train.latents import ClipEncoder, EncodedClip, TalkingClip
from infinitetalk.world.speech import Split

CLIPS, LATENTS = "clips", "latents"
SPLITS: tuple[Split, Split] = ("train", "test")
ENCODING = b"4"
"""Raised with what is kept of a clip."""
LIGHT, TINT = 0.15, 0.06
"""Standard deviations of the logarithms of a gamma, and of a gain per colour, by which mirror images differ."""
EACH = 10
"""Of clips without a split, one in so many is held out."""


@dataclass(frozen=True)
class Taught:
    """Lessons, and what could not be used for them."""

    lessons: Lessons
    skipped: dict[str, str]
    """Why, by name."""


def lessons(data: Path, out: Path, config: SmallConfig, told: Callable[[str], None] = lambda name: None, *,
            close: bool = True) -> Taught:
    """Encode what is not encoded yet, by the trained codec and speech encoder in `out`; those to learn from in mirror
    image, too.

    Args:
        data: Folder of clips, written by `infinidub world render` or full of talking video.
        out: Holds `codec.safetensors` and `speech.safetensors`; gets `clips/` and `latents/`.
        config: Sizes.
        told: Is told the name of each clip.
        close: Whether clips are close-ups, or as they were filmed (see `data.prepare`).

    Raises:
        BadInputError: No clip can be used for training, or none to hold out.
        BadWeightsError: The codec or the speech encoder is absent or of another configuration.
    """
    files = [out / codec.WEIGHTS, out / speech.WEIGHTS]
    absent = next((file for file in files if not file.exists()), None)
    if absent:
        raise BadWeightsError("is not there", where=str(absent), hint=f"Train it first: infinidub train {absent.stem}")
    small = codec.SmallCodec.read(files[0], config.codec)
    encode = ClipEncoder(small, speech.SpeechFeatures.read(files[1], config.speech), config.frames, config.side)
    # latents of one codec mean nothing to another
    of = b"".join(file.read_bytes() for file in files) + config.digest().encode() + ENCODING
    known = hashlib.sha256(of).hexdigest()[:16]
    kept = out / LATENTS / known
    kept.mkdir(parents=True, exist_ok=True)
    skipped = dict(prepare(data, out / CLIPS, config.side, told, close=close).skipped)
    found = {split: _encoded(_clips(out / CLIPS, split), encode, kept, skipped, told, both=split == "train")
             for split in SPLITS}
    train, held = found["train"], found["test"]
    if not held:  # real video does not say who is in it
        train, held = [ways for index, ways in enumerate(train) if index % EACH], train[::EACH]
    if not train or not held:
        raise BadInputError(f"{len(train)} clips to learn from and {len(held)} to hold out, {len(skipped)} skipped",
                            where=str(data), hint=f"Give more, of {config.frames} frames at least")
    return Taught(Lessons([one for ways in train for one in ways], [ways[0] for ways in held]), skipped)


def _clips(folder: Path, split: Split) -> Sequence[TalkingClip]:
    try:
        return Clips(folder, split)
    except BadInputError:
        return []


def mirrored(clip: TalkingClip, draw: np.random.Generator) -> TalkingClip:
    """Left and right exchanged, and in other light: nearly another person, who says the same."""
    side = clip.frames.shape[2]
    mouth = np.array([side, 0, side, 0]) + clip.mouth[:, [2, 1, 0, 3]] * np.array([-1, 1, -1, 1])
    known = clip.mouth.any(1, keepdims=True)
    levels = (np.arange(256)[:, None] / 255) ** np.exp(draw.normal(0, LIGHT)) * np.exp(draw.normal(0, TINT, 3))
    levels = np.rint(255 * levels.clip(0, 1)).astype(np.uint8)  # (256, 3)
    return replace(clip, frames=levels[clip.frames[:, :, ::-1], np.arange(3)],
                   mouth=np.where(known, mouth, 0).astype(np.float32))


def _encoded(clips: Sequence[TalkingClip], encode: ClipEncoder, kept: Path, skipped: dict[str, str],
             told: Callable[[str], None], *, both: bool) -> list[list[EncodedClip]]:
    """Each clip, and on request its mirror image beside it."""
    found: list[list[EncodedClip]] = []
    for clip in clips:
        name = hashlib.sha256(clip.frames.tobytes() + clip.speech.tobytes()).hexdigest()[:16]
        try:
            files = [kept / f"{name}{way}.safetensors" for way in ("", "-mirrored")[:1 + both]]
            for file in files:
                if not file.exists():
                    told(file.stem)
                    draw = np.random.default_rng(int(name, 16))
                    encode(clip if file is files[0] else mirrored(clip, draw)).save(file)
            found.append([EncodedClip.load(file) for file in files])
        except BadInputError as error:
            skipped[name] = str(error)
    return found
