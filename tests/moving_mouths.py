"""Drawn people whose mouth, head and colours do exactly what they are told: clips for tests of metrics, in no time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from infinitetalk.evaluate.measure import Floats, Pixels

SIDE, FRAMES = 64, 200


@dataclass(frozen=True)
class Drawn:
    """A clip with its truth."""

    frames: Pixels
    track: Floats
    boxes: Floats
    other: Pixels
    """A frame of the same scene that the clip never shows."""


def speech(rng: np.random.Generator, frames: int = FRAMES) -> Floats:
    """How open a mouth is: syllables of 3 … 7 frames with pauses, 0 … 1, (F, 1)."""
    track, at = np.zeros(frames), 0
    while at < frames:
        length = int(rng.integers(3, 8))
        track[at:at + length] = rng.uniform(0.3, 1) * (rng.random() > 0.3)
        at += length + int(rng.integers(1, 4))
    return np.clip(gaussian_filter1d(track, 1.2), 0, 1)[:, None].astype(np.float32)


def draw(seed: int, track: Floats | None = None, frames: int = FRAMES) -> Drawn:
    """A head that sways before a still wall, and speaks."""
    rng = np.random.default_rng(seed)
    track = speech(rng, frames) if track is None else track
    wall = gaussian_filter(rng.uniform(0, 1, (SIDE, SIDE, 3)), (1.5, 1.5, 0))
    wall = 0.5 + 0.35 * (wall - wall.mean()) / wall.std()
    skin, lips = rng.uniform(0.5, 0.8, 3), rng.uniform(0.3, 0.5, 3)
    sway = gaussian_filter1d(rng.normal(0, 1, (frames + 60, 2)), 6, axis=0)
    sway *= 2.0 / sway.std()
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    pictures, boxes = [], []
    for at in range(frames + 1):
        dx, dy = sway[at] if at < frames else (8.0, -6.0)
        opened = track[min(at, frames - 1), 0]
        pictures.append(_person(wall, (x - 32 - dx, y - 32 - dy), (skin, lips), opened))
        boxes.append([32 + dx - 7, 32 + dy + 4, 32 + dx + 7, 32 + dy + 14])
    levels = np.clip(np.stack(pictures) * 255 + rng.normal(0, 0.5, (frames + 1, SIDE, SIDE, 3)), 0, 255)
    pixels = levels.round().astype(np.uint8)
    return Drawn(pixels[:-1], track, np.array(boxes[:-1], np.float32), pixels[-1])


def _person(wall: Floats, at: tuple[Floats, Floats], colours: tuple[Floats, Floats], opened: float) -> Floats:
    """One picture; `at` counts from the middle of the face."""
    x, y = at
    skin, lips = colours

    def blob(left: float, down: float, wide: float, high: float) -> Floats:
        return np.clip(4 - 4 * (((x - left) / wide)**2 + ((y - down) / high)**2), 0, 1)[..., None]

    picture = wall + blob(0, 4, 15, 20) * (skin - wall)
    for side in (-6, 6):
        picture = picture + blob(side, -4, 3, 2) * (0.15 - picture)
        picture = picture + blob(side, -8, 4, 1.2) * (0.25 - picture)
    picture = picture + blob(0, 9, 6, 2 + 3 * opened) * (lips - picture)
    return picture + blob(0, 9, 4.5, 0.3 + 3 * opened) * (0.05 - picture)


# -- faults -----------------------------------------------------------------------------------------------------------


def late(clip: Drawn, frames: int = 4) -> Drawn:
    """The picture `frames` late."""
    shown = np.concatenate([np.repeat(clip.frames[:1], frames, 0), clip.frames[:-frames]])
    boxes = np.concatenate([np.repeat(clip.boxes[:1], frames, 0), clip.boxes[:-frames]])
    return replace(clip, frames=shown, boxes=boxes)


def foreign(clip: Drawn, other: Drawn) -> Drawn:
    """Somebody else's sound."""
    return replace(clip, track=other.track)


def drifting(clip: Drawn, much: float = 0.03) -> Drawn:
    """Red gets brighter and blue darker, `much` of the whole range in 100 frames each."""
    ramp = much * 255 * np.arange(len(clip.frames))[:, None, None, None] / 100 * np.array([1.0, 0, -1])
    return replace(clip, frames=np.clip(clip.frames + ramp, 0, 255).round().astype(np.uint8))


def spliced(clip: Drawn, start: int = 81, end: int = 153, by: int = 40) -> Drawn:
    """A chunk taken from elsewhere, with its own sound."""
    frames, track, boxes = clip.frames.copy(), clip.track.copy(), clip.boxes.copy()
    for whole, part in ((frames, clip.frames), (track, clip.track), (boxes, clip.boxes)):
        whole[start:end] = part[start + by:end + by]
    return replace(clip, frames=frames, track=track, boxes=boxes)


def pasted(clip: Drawn, at: int = 130) -> Drawn:
    """One frame is the reference."""
    frames = clip.frames.copy()
    frames[at] = clip.other
    return replace(clip, frames=frames)


def panned(clip: Drawn, by: int = 3) -> Drawn:
    """The camera looks elsewhere, so that everything lies `by` pixels further to the right."""
    frames = np.concatenate([np.repeat(clip.frames[:, :, :1], by, 2), clip.frames[:, :, :-by]], 2)
    return replace(clip, frames=frames, boxes=clip.boxes + np.array([by, 0, by, 0], np.float32))
