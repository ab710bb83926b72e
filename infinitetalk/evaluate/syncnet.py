"""Sync-C and Sync-D (LSE-C, LSE-D) from embeddings, and what goes into SyncNet: arithmetic without weights.

As syncnet_python does: every frame's 5-picture window against the sound 15 steps to either side; the distances are
averaged over frames, Sync-D is their least, Sync-C their median less the least. The sound is padded with zeros there,
and that alone gives constant sound a confidence above 0; `inner` leaves out the frames that the padding reaches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from scipy.fft import dct
from scipy.signal import medfilt

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.measure import Floats, Pixels, Reals, finite

REACH = 15
PICTURES = 5
"""Of a window."""
COLUMNS = 20
"""MFCC steps (100 a second) of a window."""
RATE = 16_000
EPSILON = 1e-6
"""torch's pairwise_distance adds it to every difference."""
MARGIN, SIDE, GREY = 0.4, 224, 110


class SyncScores(NamedTuple):
    """What SyncNet says of one face track."""

    confidence: float
    """Sync-C."""
    distance: float
    """Sync-D."""
    offset: int
    """Frames; positive: the sound leads (the picture is late)."""
    inner: float
    """Sync-C of the frames that no padding reaches; NaN where there are none."""
    frames: int


class SyncNetwork(Protocol):
    """The two towers."""

    name: str

    def pictures(self, frames: Pixels) -> Floats:
        """224×224 face crops (F, 224, 224, 3), RGB → one embedding per window of 5: (F-4, D)."""
        ...

    def sounds(self, mfcc: Floats) -> Floats:
        """MFCCs (13, n) → one embedding per window of 20, every 4: (⌊(n-20)/4⌋ + 1, D)."""
        ...


def scores(seen: Floats, heard: Floats, reach: int = REACH) -> SyncScores:
    """Search the offset at which pictures (n, D) and sounds (n, D) are nearest.

    Raises:
        BadInputError: Other shapes, no frame, or values that are no numbers.
    """
    if seen.ndim != 2 or seen.shape != heard.shape or not len(seen):
        raise BadInputError(f"embeddings of shapes {seen.shape} and {heard.shape}", where="Sync-C",
                            hint="Give as many sounds as pictures, at least one")
    far = distances(finite(seen, "pictures"), finite(heard, "sounds"), reach)
    mean = far.mean(0)
    at = int(mean.argmin())
    inner = far[reach:len(far) - reach].mean(0) if len(far) > 2 * reach else np.full(2 * reach + 1, np.nan)
    return SyncScores(float(np.median(mean) - mean[at]), float(mean[at]), reach - at,
                      float(np.median(inner) - inner.min()), len(seen))


def distances(seen: Reals, heard: Reals, reach: int = REACH) -> Reals:
    """Of picture i and the sounds i-reach … i+reach: (n, 2·reach + 1)."""
    padded = np.pad(heard, ((reach, reach), (0, 0)))
    return np.stack([np.linalg.norm(seen - padded[lag:lag + len(seen)] + EPSILON, axis=1)
                     for lag in range(2 * reach + 1)], 1)


def frame_confidence(far: Reals) -> Reals:
    """Per frame at the offset that is best overall, median-filtered over 9 frames: (n, 31) → (n,)."""
    at = int(far.mean(0).argmin())
    return np.asarray(medfilt(np.median(far, axis=1) - far[:, at], 9), np.float64)


def mean_of_tracks(videos: Sequence[Sequence[SyncScores]]) -> tuple[float, float, int]:
    """Sync-C, Sync-D over videos: the mean over tracks of each, then over videos; and the videos that have a track.

    Raises:
        BadInputError: None has.
    """
    means = [np.mean([(one.confidence, one.distance) for one in tracks], 0) for tracks in videos if tracks]
    if not means:
        raise BadInputError("no video has a face track", where="Sync-C", hint="Give larger faces")
    confidence, distance = np.mean(means, 0)
    return float(confidence), float(distance), len(means)


def windows(frames: int, samples: int) -> int:
    """How many windows a track of `frames` at 25 a second and `samples` at 16 kHz has."""
    return max(0, min(frames, samples // (RATE // 25)) - PICTURES)


def score_crops(network: SyncNetwork, crops: Pixels, samples: Floats) -> SyncScores:
    """Score one track: crops at 25 frames a second (F, 224, 224, 3) with their sound (M,) at 16 kHz in [-1, 1].

    Raises:
        BadInputError: It is too short.
    """
    count = windows(len(crops), len(samples))
    if count < 1:
        raise BadInputError(f"{len(crops)} frames are too few", where="Sync-C", hint=f"Give more than {PICTURES}")
    heard = network.sounds(mfcc(samples))
    seen = network.pictures(crops)
    count = min(count, len(seen), len(heard))
    return scores(seen[:count], heard[:count])


# -- what the network is shown ----------------------------------------------------------------------------------------


def mfcc(samples: Floats) -> Floats:
    """python_speech_features' defaults on 16-bit samples: 25 ms windows every 10 ms, 13 coefficients, the first the
    logarithm of the energy: (M,) in [-1, 1] → (13, n).

    Raises:
        BadInputError: No samples.
    """
    if samples.ndim != 1 or not len(samples):
        raise BadInputError("no sound", where="MFCC")
    levels = np.clip(np.round(finite(samples, "sound") * 32768), -32768, 32767)
    signal = np.append(levels[0], levels[1:] - 0.97 * levels[:-1])
    length, step, size = 400, 160, 512
    count = 1 + max(0, -(-(len(signal) - length) // step))
    padded = np.pad(signal, (0, max(0, (count - 1) * step + length - len(signal))))
    frames = padded[np.arange(count)[:, None] * step + np.arange(length)]               # (n, 400)
    power = np.abs(np.fft.rfft(frames, size))**2 / size                                 # (n, 257)
    energy, bands = power.sum(1), power @ _filters(size).T                              # (n,), (n, 26)
    tiny = np.finfo(np.float64).eps
    rows = dct(np.log(np.where(bands == 0, tiny, bands)), type=2, axis=1, norm="ortho")[:, :13]
    rows *= 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    rows[:, 0] = np.log(np.where(energy == 0, tiny, energy))
    return np.asarray(rows.T, np.float32)


def _filters(size: int, count: int = 26) -> Reals:
    """Triangles on the mel scale from 0 to 8 kHz, (26, size/2 + 1)."""
    mels = np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), count + 2)
    edges = np.floor((size + 1) * 700 * (10**(mels / 2595) - 1) / RATE)
    bins = np.arange(size // 2 + 1)
    table = np.zeros((count, len(bins)))
    for row, (low, middle, high) in enumerate(zip(edges[:-2], edges[1:-1], edges[2:], strict=True)):
        up, down = (bins >= low) & (bins < middle), (bins >= middle) & (bins < high)
        table[row, up] = ((bins - low) / max(middle - low, 1))[up]
        table[row, down] = ((high - bins) / max(high - middle, 1))[down]
    return table


def crop_boxes(faces: Floats | Reals) -> Reals:
    """Squares around a track of face boxes (F, 4), in pixels and partly outside the picture: (F, 4).

    Half of the larger side and the centre are median-filtered over 13 frames. Above the centre lies 1 half side, below
    1.8, left and right 1.4: the face is in the upper part, with room under the chin.
    """
    faces = np.asarray(faces, np.float64)
    half = np.maximum(faces[:, 2] - faces[:, 0], faces[:, 3] - faces[:, 1]) / 2
    x, y = (faces[:, 0] + faces[:, 2]) / 2, (faces[:, 1] + faces[:, 3]) / 2
    half, x, y = (medfilt(track, 13) for track in (half, x, y))
    wide = half * (1 + MARGIN)
    return np.stack([x - wide, y - half, x + wide, y + half * (1 + 2 * MARGIN)], 1)


def crop(frame: Pixels, box: Reals) -> Pixels:
    """Cut a square out of a frame, grey (110) beyond its edges, and scale it: (224, 224, 3)."""
    from PIL import Image

    left, top, right, bottom = (round(float(edge)) for edge in box)
    if right <= left or bottom <= top or max(right - left, bottom - top) > 4 * max(frame.shape):
        raise BadInputError(f"a crop of {right - left}×{bottom - top} pixels", where="Sync-C")
    canvas = np.full((bottom - top, right - left, 3), GREY, np.uint8)
    height, width = frame.shape[:2]
    x0, x1, y0, y1 = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
    if x1 > x0 and y1 > y0:
        canvas[y0 - top:y1 - top, x0 - left:x1 - left] = frame[y0:y1, x0:x1]
    return np.asarray(Image.fromarray(canvas).resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.uint8)
