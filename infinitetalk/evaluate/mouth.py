"""Sync-C*: whether the mouth that is seen moves with the track that drove it, at which lag, and how closely.

A reader turns pixels into mouth shapes, and those are correlated with the driving track at every lag of ±10 frames.
Sync-C* is the best correlation less the median one, so that two series which only share a slow trend score nothing.
The lag is negative where the picture is late.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from scipy.ndimage import gaussian_filter1d, map_coordinates

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.measure import Flags, Floats, Pixels, Reals, check_frames, finite, known_rows
from infinitetalk.world.scene import CHANNELS

LAGS = 10
LEAST = 30
"""Frames with a mouth that are compared at every lag, at least."""
OPENING = {"jawOpen": 1.0, "mouthLowerDown": 0.5, "mouthUpperUp": 0.3, "mouthClose": -1.0, "mouthRollLower": -0.2,
           "mouthPress": -0.3}
"""How far each channel parts the lips."""
STILL = 1e-6
"""Standard deviation below which a series says nothing."""
SPEECH_RATE = 16_000


class MouthReader(Protocol):
    """Reads mouths from pixels."""

    name: str

    def read(self, frames: Pixels, boxes: Floats) -> Floats:
        """Mouth shapes of F frames with the mouth in `boxes` (F, 4): (F, 11) as CHANNELS, or (F, 1) how open."""
        ...


class Sync(NamedTuple):
    """How picture and track go together."""

    confidence: float
    """Sync-C*: best − median correlation; at most 2, commonly 0 … 1."""
    lag: int
    """Frames; negative: the picture is late."""
    best: float
    """Correlation at that lag."""
    at_zero: float
    """Correlation as they are."""
    distance: float
    """Between the standardised series at the best lag, root mean square; 0 is the same series, 1.41 unrelated."""
    covered: int
    """Frames with a mouth."""


def sync(seen: Floats, track: Floats, mouth: Flags | None = None, lags: int = LAGS) -> Sync:
    """Compare what is seen with what drove it.

    Args:
        seen: (F, C) of a `MouthReader`.
        track: (F, C), or (F, 11) beside one channel of opening; both are cut to the shorter.
        mouth: Frames with a mouth, (F,); all unless given.
        lags: Frames to either side.

    Raises:
        BadInputError: Too few frames, other channels, or a track or mouth that never moves.
    """
    lips, drive = _matched(finite(seen, "mouth seen"), finite(track, "driving track"))
    good = np.ones(len(lips), bool) if mouth is None else np.asarray(mouth, bool)[:len(lips)]
    good = np.pad(good, (0, len(lips) - len(good)))
    if good.sum() < LEAST + lags:
        raise BadInputError(f"{int(good.sum())} frames with a mouth are too few", where="Sync-C*",
                            hint=f"Give at least {LEAST + lags}")
    weights = np.where(lips[good].std(0) > STILL, drive[good].std(0), 0)
    if weights.max() < STILL:
        raise BadInputError("the mouth or the track never moves", where="Sync-C*", hint="Give a passage with speech")
    curve = np.array([_correlation(lips, drive, good, lag, weights / weights.sum()) for lag in range(-lags, lags + 1)])
    at = int(curve.argmax())
    return Sync(float(curve[at] - np.median(curve)), at - lags, float(curve[at]), float(curve[lags]),
                float(np.sqrt(max(0.0, 2 - 2 * curve[at]))), int(good.sum()))


def _matched(seen: Reals, track: Reals) -> tuple[Reals, Reals]:
    """Both with the same frames and channels."""
    if seen.ndim != 2 or track.ndim != 2:
        raise BadInputError(f"shapes {seen.shape} and {track.shape} are no series", where="Sync-C*",
                            hint="Give (frames, channels)")
    if seen.shape[1] == 1 and track.shape[1] == len(CHANNELS):
        track = finite(opening(track), "driving track")
    if track.shape[1] == 1 and seen.shape[1] == len(CHANNELS):
        seen = finite(opening(seen), "mouth seen")
    if seen.shape[1] != track.shape[1]:
        raise BadInputError(f"{seen.shape[1]} and {track.shape[1]} channels cannot be compared", where="Sync-C*")
    frames = min(len(seen), len(track))
    return seen[:frames], track[:frames]


def _correlation(seen: Reals, track: Reals, good: Flags, lag: int, weights: Reals) -> float:
    """At one lag, the mean over channels; `lag` < 0 compares later pictures with the earlier track."""
    late, early, frames = max(0, -lag), max(0, lag), len(seen)
    there = good[late:frames - early]
    a, b = seen[late:frames - early][there], track[early:frames - late][there]
    a, b = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt((a * a).sum(0) * (b * b).sum(0))
    return float(np.where(scale > 0, (a * b).sum(0) / np.maximum(scale, 1e-30), 0) @ weights)


def opening(visemes: Floats | Reals) -> Floats:
    """How far lips are parted by weights of CHANNELS: (F, 11) → (F, 1)."""
    weights = np.array([OPENING.get(name, 0.0) for name in CHANNELS])
    parted: Reals = np.maximum(np.asarray(visemes, np.float64) @ weights, 0)
    return parted[:, None].astype(np.float32)


def loudness(samples: Floats, frames: int, rate: float) -> Floats:
    """How loud speech is at every frame, for want of anything that knows sounds: (M,) at 16 kHz → (F, 1).

    Level in dB over a frame, 40 dB below the loudest counted as silence, blended over a frame and a half.
    """
    edges = np.minimum(np.round(np.arange(frames + 1) * SPEECH_RATE / rate).astype(np.int64), len(samples))
    total = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    power = (total[edges[1:]] - total[edges[:-1]]) / np.maximum(np.diff(edges), 1)
    level = 10 * np.log10(np.maximum(power, 1e-12))
    parted = np.clip((level - level.max(initial=-120.0) + 40) / 40, 0, 1)
    return np.asarray(gaussian_filter1d(parted, 1.5)[:, None], np.float32)


def steady(boxes: Floats, rate: float = 25) -> Floats:
    """Boxes of one size that follow the head, not the lips: (F, 4) → (F, 4); frames without a box stay NaN.

    A box around lips tells by its height how open they are, which a reader must see in the pixels: so the box hangs
    from the upper lip, has the median size, and its path is blended over about an eighth of a second.
    """
    boxes = np.asarray(boxes, np.float64)
    known = known_rows(boxes)
    if not known.any():
        return np.full(boxes.shape, np.nan, np.float32)
    at = np.arange(len(boxes))
    whole = np.stack([np.interp(at, at[known], edge[known]) for edge in boxes.T], 1)
    wide, high = np.median(boxes[known, 2:] - boxes[known, :2], axis=0)
    path = np.stack([(whole[:, 0] + whole[:, 2]) / 2, whole[:, 1]], 1)
    x, top = gaussian_filter1d(path, 0.05 * rate, axis=0, mode="nearest").T
    calm = np.stack([x - wide / 2, top, x + wide / 2, top + high], 1)
    calm[~known] = np.nan
    return calm.astype(np.float32)


class DarkMouth:
    """The project's own reader, for want of a trained one: how much darker than skin the middle of a mouth is.

    On 8 clean renders of 64 and 96 pixels, of held-out people, its r with the true opening is 0.63 … 0.94, mean 0.83.
    """

    name = "dark-mouth (the project's own)"
    GRID = 16
    WIDTH, TOP, BOTTOM = 0.35, 0.15, 0.85
    """The part of a box that is looked at, in shares of its sides: boxes have a margin."""

    def read(self, frames: Pixels, boxes: Floats) -> Floats:
        """How open (F, 1): the mean shade below skin; 0 without a box."""
        check_frames(frames, "video")
        shade = [self._open(frame, box) if np.isfinite(box).all() else 0.0
                 for frame, box in zip(frames, steady(boxes), strict=True)]
        return np.array(shade, np.float32)[:, None]

    def _open(self, frame: Pixels, box: Floats) -> float:
        x, top, high = (box[0] + box[2]) / 2, box[1], box[3] - box[1]
        half = self.WIDTH * (box[2] - box[0]) / 2
        rows = np.linspace(top + self.TOP * high, top + self.BOTTOM * high, self.GRID) - 0.5
        columns = np.linspace(x - half, x + half, self.GRID) - 0.5
        at = np.meshgrid(rows, columns, indexing="ij")
        light = sum(share * map_coordinates(frame[..., channel].astype(np.float32), at, order=1, mode="nearest")
                    for channel, share in enumerate((0.299, 0.587, 0.114)))
        skin = max(float(np.quantile(light, 0.7)), 1.0)
        return float(np.clip(1 - light / skin, 0, 1).mean())
