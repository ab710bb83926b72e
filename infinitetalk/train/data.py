"""Folders of clips → clips to learn from: square, of one size, 25 frames a second, read where they lie on the disk.

They are close-ups: each frame is seen through a square that follows the face (`infinitetalk.closeup`), as it is when
dubbing: the face is looked for a few times a second, and found with an error. Or they stay as they were filmed.

The synthetic world's clips come with their truth. A folder of real talking video comes without: faces are then looked
for by dlib, where it is installed, and no viseme moves, so that nothing is learnt of visemes. Where no face is found,
the mouth's box is empty, nothing is weighed up, and the picture stays as it was filmed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

from infinitetalk import closeup
from infinitetalk.audio import SAMPLE_RATE, STATE_RATE
from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.faces import HogFaces
from infinitetalk.train.latents import TalkingClip
from infinitetalk.world.clip import split_of
from infinitetalk.world.clip_file import Recording
from infinitetalk.world.dataset import Recordings
from infinitetalk.world.scene import CHANNELS
from infinitetalk.world.speech import Split

INDEX = "index.json"
PARTS = ("frames", "speech", "visemes", "mouth", "anew")
LOOKS = 2.5
"""Looks for a face in a second, as dubbing has them (`tasks.shots`)."""
ASIDE, LARGER = 0.025, 0.08
"""Standard deviations of where the detector finds a face, over its side, and of how large (logarithm), both from clip
to clip; from look to look `ASIDE` again. On rendered faces dlib's are 0.03 to 0.035 and 0.1 in all."""
SHORTEST = 9
"""Frames: below, a clip teaches nothing."""
AGAIN = "Delete the folder: it is then prepared anew"


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did."""

    clips: int
    skipped: Mapping[str, str]
    """Why, by name."""


@dataclass(frozen=True)
class _Entry:
    name: str
    frames: int
    held_out: bool


class Clips(Sequence[TalkingClip]):
    """The prepared clips of a folder; each is opened when it is asked for, and its pixels stay on the disk.

    Args:
        folder: Written by `prepare`.
        split: "train": all but those of held-out people; "test": those alone; None: all.

    Raises:
        BadInputError: The folder was not prepared, or holds no such clip.
    """

    def __init__(self, folder: Path, split: Split | None = None) -> None:
        self.folder = folder
        side, _, entries = _index(folder)
        self.side = side
        self._entries = [one for one in entries if split is None or one.held_out == (split == "test")]
        if not self._entries:
            raise BadInputError("holds no such clips", where=str(folder), hint="Render more of them, and go on")

    def __len__(self) -> int:
        """How many."""
        return len(self._entries)

    @overload
    def __getitem__(self, index: int) -> TalkingClip: ...
    @overload
    def __getitem__(self, index: slice) -> list[TalkingClip]: ...
    def __getitem__(self, index: int | slice) -> TalkingClip | list[TalkingClip]:
        """One clip, or some.

        Raises:
            BadInputError: A file is missing or damaged.
        """
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        place = self.folder / self._entries[index].name
        try:
            return TalkingClip(*(np.load(place / f"{part}.npy", mmap_mode="r") for part in PARTS))
        except (OSError, ValueError) as error:
            raise BadInputError(f"cannot be read ({error})", where=str(place), hint=AGAIN) from error


def prepare(source: Path, out: Path, side: int, told: Callable[[str], None] = lambda name: None, *,
            close: bool = True) -> Prepared:
    """Bring the clips of a folder to one size and rate; what cannot be used is named, left out and counted.

    Args:
        source: Written by `infinidub world render`, or full of talking video.
        out: Where the prepared clips are written; those that were prepared before stay.
        side: Pixels.
        told: Is told the name of each clip.
        close: Whether they are close-ups that follow the face; else they stay as they were filmed.

    Raises:
        BadInputError: No clip can be used, or `out` was prepared for another size or another way of looking.
    """
    out.mkdir(parents=True, exist_ok=True)
    entries: dict[str, _Entry] = {}
    if (out / INDEX).exists():
        before, was, kept = _index(out)
        if (before, was) != (side, close):
            raise BadInputError(f"was prepared for {_way(before, was)}, not {_way(side, close)}", where=str(out),
                                hint="Name another folder")
        entries = {one.name: one for one in kept}
    skipped: dict[str, str] = {}
    recordings = Recordings(source, need_truth=False)
    for name in recordings.names():
        if name in entries:
            continue
        told(name)
        try:
            recording = recordings.load(name)
            entries[name] = _written(out, name, _clip(recording, side, close), recording)
        except BadInputError as error:
            skipped[name] = str(error)
    if not entries:
        raise BadInputError(f"none of {len(skipped)} clips can be used", where=str(source),
                            hint=next(iter(skipped.values()), ""))
    _enter(out, side, close, entries, skipped)
    return Prepared(len(entries), skipped)


def _way(side: int, close: bool) -> str:
    return f"{side} pixels, {'close-ups' if close else 'as filmed'}"


def _clip(recording: Recording, side: int, close: bool) -> TalkingClip:
    """What is learnt from a recording: one person who talks in one square picture."""
    if len(recording.truth) > 1:
        raise BadInputError(f"shows {len(recording.truth)} people", where=recording.name, hint="Render one person")
    count = round(len(recording.frames) * STATE_RATE / recording.rate)
    if count < SHORTEST:
        raise BadInputError(f"has {count} frames at {STATE_RATE} a second", where=recording.name,
                            hint=f"Give {SHORTEST} or more")
    at = np.minimum(((np.arange(count) + 0.5) * recording.rate / STATE_RATE).astype(int), len(recording.frames) - 1)
    samples = count * SAMPLE_RATE // STATE_RATE
    speech = np.asarray(recording.speech, np.float32).mean(0)[:samples]  # (M,)
    speech = np.pad(speech, (0, samples - len(speech))).astype(np.float32)
    visemes, mouth = np.zeros((count, len(CHANNELS)), np.float32), np.zeros((count, 4), np.float32)
    if recording.truth:
        visemes, mouth = recording.truth[0].visemes[at], recording.truth[0].mouth[at]
    looks = _looked_for(recording) if close else None
    if looks is None:
        height, width = recording.frames.shape[1:3]
        frames = np.stack([_square(recording.frames[index], side) for index in at])  # (F, side, side, 3)
        mouth = closeup.within(mouth, np.array([_middle(height, width)], np.float32), side)
        return TalkingClip(frames, speech, visemes, mouth, np.zeros(4, np.float32))
    seen = closeup.follow(*looks, at)  # (F, 4)
    frames = np.stack([closeup.cut(recording.frames[index], box, side) for index, box in zip(at, seen, strict=True)])
    if recording.truth:
        mouth = closeup.within(mouth, seen, side)
    else:
        mouth = np.tile(side * np.array(closeup.MOUTH, np.float32), (count, 1))
    return TalkingClip(frames, speech, visemes, mouth, np.array(closeup.lower_face(side), np.float32))


def _looked_for(recording: Recording) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Frames (n,) in which the face was found, and its boxes (n, 4); None: nowhere, or in less than half of it.

    What is known of a rendered face is told as a detector would find it, with errors that speech has no part in: did
    the picture move with the jaw, lips would be learnt from that instead of from the sound.
    """
    count = len(recording.frames)
    looks = np.unique(np.rint(np.linspace(0, count - 1, 1 + max(4, round(count / recording.rate * LOOKS)))).astype(int))
    if recording.truth:
        rng = np.random.default_rng([recording.seed or 0, count])
        boxes = recording.truth[0].face[looks]
        middles, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
        middles = middles + ASIDE * sides * (rng.standard_normal(2) + rng.standard_normal(middles.shape))
        halves = sides / 2 * np.exp(LARGER * rng.standard_normal())
        return looks, np.concatenate((middles - halves, middles + halves), 1).astype(np.float32)
    if not HogFaces.there():
        return None
    finder = HogFaces()
    found = np.concatenate([finder.find(recording.frames[[look]]) for look in looks])  # (n, 4)
    known = np.isfinite(found).all(1)
    return (looks[known], found[known]) if 2 * known.sum() >= len(looks) else None


def _square(frame: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """The middle of a picture, scaled by averaging over what a pixel covers."""
    from PIL import Image

    if frame.shape[:2] == (side, side):
        return frame
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BOX, box=_middle(*frame.shape[:2])))


def _middle(height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the largest square in the middle of a picture."""
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    return left, top, left + edge, top + edge


def _written(out: Path, name: str, clip: TalkingClip, recording: Recording) -> _Entry:
    (out / name).mkdir(exist_ok=True)
    for part in PARTS:
        np.save(out / name / f"{part}.npy", getattr(clip, part))
    held_out = recording.seed is not None and split_of(recording.seed) == "test"
    return _Entry(name, len(clip.frames), held_out)


def _enter(out: Path, side: int, close: bool, entries: Mapping[str, _Entry], skipped: Mapping[str, str]) -> None:
    told = {"side": side, "close": close, "clips": [vars(one) for one in entries.values()], "skipped": dict(skipped)}
    writing = out / f".{INDEX}"
    writing.write_text(json.dumps(told, indent=1), encoding="utf-8")
    writing.replace(out / INDEX)


def _index(folder: Path) -> tuple[int, bool, list[_Entry]]:
    try:
        told = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return int(told["side"]), bool(told["close"]), [_Entry(**one) for one in told["clips"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInputError(f"holds no prepared clips ({error})", where=str(folder), hint=AGAIN) from error
