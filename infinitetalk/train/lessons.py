"""A folder of clips → what the transformer learns from, encoded once and kept beside the run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from infinitetalk.errors import BadInputError
from infinitetalk.small import codec, speech
from infinitetalk.small.config import SmallConfig
from infinitetalk.train.data import Clips, prepare
from infinitetalk.train.dit import Lessons
from infinitetalk.train.latents import ClipEncoder, EncodedClip, TalkingClip
from infinitetalk.world.speech import Split

CLIPS, LATENTS = "clips", "latents"
SPLITS: tuple[Split, Split] = ("train", "test")
ENCODING = b"3"
"""Raised with what is kept of a clip."""
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
    """Encode what is not encoded yet, by the trained codec and speech encoder in `out`.

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
    small = codec.SmallCodec.read(files[0], config.codec)
    encode = ClipEncoder(small, speech.SpeechFeatures.read(files[1], config.speech), config.frames, config.side)
    # latents of one codec mean nothing to another
    of = b"".join(file.read_bytes() for file in files) + config.digest().encode() + ENCODING
    known = hashlib.sha256(of).hexdigest()[:16]
    kept = out / LATENTS / known
    kept.mkdir(parents=True, exist_ok=True)
    skipped = dict(prepare(data, out / CLIPS, config.side, told, close=close).skipped)
    found = {split: _encoded(_clips(out / CLIPS, split), encode, kept, skipped, told) for split in SPLITS}
    train, held = found["train"], found["test"]
    if not held:  # real video does not say who is in it
        train, held = [clip for index, clip in enumerate(train) if index % EACH], train[::EACH]
    if not train or not held:
        raise BadInputError(f"{len(train)} clips to learn from and {len(held)} to hold out, {len(skipped)} skipped",
                            where=str(data), hint=f"Give more, of {config.frames} frames at least")
    return Taught(Lessons(train, held), skipped)


def _clips(folder: Path, split: Split) -> Sequence[TalkingClip]:
    try:
        return Clips(folder, split)
    except BadInputError:
        return []


def _encoded(clips: Sequence[TalkingClip], encode: ClipEncoder, kept: Path, skipped: dict[str, str],
             told: Callable[[str], None]) -> list[EncodedClip]:
    found: list[EncodedClip] = []
    for clip in clips:
        name = hashlib.sha256(clip.frames.tobytes() + clip.speech.tobytes()).hexdigest()[:16]
        file = kept / f"{name}.safetensors"
        try:
            if not file.exists():
                told(name)
                encode(clip).save(file)
            found.append(EncodedClip.load(file))
        except BadInputError as error:
            skipped[name] = str(error)
    return found
