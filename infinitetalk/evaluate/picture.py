"""What happens to a picture over time: colours that drift, chunks that do not join, references that show through.

Colours count from 0 to 1. The faults were injected into clean renders: each moves its own figure and not the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.measure import Pixels, Reals, check_frames, same_shape

LEAST_COPY = 1e-3
"""Distance to the reference, below which a frame counts as the reference itself."""
OUTLIERS = 0.02
"""Share of frames elsewhere that may jump (a cut, a frame that is pasted) without hiding seams."""
STILLEST = 1e-4
"""Frame difference that counts as no motion."""


def mean_colours(frames: Pixels) -> Reals:
    """Mean colour of each frame, (F, 3)."""
    check_frames(frames, "video")
    return np.stack([frame.mean((0, 1), dtype=np.float64) for frame in frames]) / 255


def drift(frames: Pixels, source: Pixels | None = None) -> float:
    """How far the mean colour goes in 100 frames by its least-squares slope; against the source where there is one.

    Raises:
        BadInputError: Fewer than 10 frames, or a source of other shape.
    """
    check_frames(frames, "drift", 10)
    colours = mean_colours(frames)
    if source is not None:
        same_shape(frames, source, "drift")
        colours -= mean_colours(source)
    return slope(colours)


def slope(colours: Reals) -> float:
    """How far colours (F, 3), one a frame, go in 100 frames by their least-squares slope; in their own unit."""
    time = np.arange(len(colours)) / 100
    return float(np.linalg.norm(np.polyfit(time, colours, 1)[0]))


def differences(frames: Pixels) -> Reals:
    """Mean difference of each frame from the one before, (F-1,)."""
    return np.array([_distance(frame, before) for frame, before in zip(frames[1:], frames[:-1], strict=True)])


def joins(frames: int, chunk: int = 81, context: int = 9) -> list[int]:
    """First frames of every chunk but the first: 81, 153, 225 …

    Raises:
        BadInputError: Such chunks add nothing.
    """
    if chunk < 1 or not 0 <= context < chunk:
        raise BadInputError(f"{context} frames of context in chunks of {chunk}", where="chunks",
                            hint="A chunk must be longer than its context")
    return list(range(chunk, frames, chunk - context))


class Seam(NamedTuple):
    """How chunks join."""

    ratio: float
    """Mean difference at the joins over that elsewhere, without its largest 2 %; 1 is no seam."""
    worst: float
    """The same of the worst join."""
    frame: int
    """The first frame after that."""
    joins: int


def seam(frames: Pixels, at: Sequence[int]) -> Seam:
    """How much more the picture changes where chunks join (at frames `at`) than elsewhere.

    Raises:
        BadInputError: No join, or nothing beside them.
    """
    return jumps(differences(check_frames(frames, "seam", 3)), at)


def jumps(change: Reals, at: Sequence[int]) -> Seam:
    """The same of differences (F-1,) of frames that were taken before, in any unit above `STILLEST`.

    Raises:
        BadInputError: No join, or nothing beside them.
    """
    edges = np.array(sorted({one for one in at if 0 < one <= len(change)}), int)
    inside = np.delete(change, edges - 1)
    if not len(edges) or not len(inside):
        raise BadInputError(f"no two chunks join in {len(change) + 1} frames", where="seam",
                            hint="Give a longer video, or the size of its chunks")
    usual = max(float(np.sort(inside)[:max(1, round(len(inside) * (1 - OUTLIERS)))].mean()), STILLEST)
    jumps = change[edges - 1] / usual
    return Seam(float(jumps.mean()), float(jumps.max()), int(edges[jumps.argmax()]), len(edges))


class Copy(NamedTuple):
    """How much one frame is the reference."""

    ratio: float
    """Median over least distance to the reference; about 1 … 3 where nothing is copied."""
    frame: int
    """The frame that is nearest to it."""
    distance: float
    """Of that frame."""
    reference: int
    """Which of the references."""


def copy(frames: Pixels, references: Pixels) -> Copy:
    """The frame that is most a copy of a reference.

    Args:
        frames: (F, H, W, 3).
        references: (R, H, W, 3).

    Raises:
        BadInputError: Shapes that cannot be compared, or no reference.
    """
    check_frames(frames, "copy")
    check_frames(references, "reference")
    same_shape(frames[0], references[0], "reference")
    found = []
    for number, reference in enumerate(references):
        far = np.array([_distance(frame, reference) for frame in frames])
        at = int(far.argmin())
        found.append(Copy(float(np.median(far)) / max(float(far[at]), LEAST_COPY), at, float(far[at]), number))
    return max(found)


def _distance(one: Pixels, other: Pixels) -> float:
    """Mean absolute difference of two frames, 0 … 1."""
    return float(np.abs(one.astype(np.int16) - other).mean()) / 255


def lab(frames: Pixels) -> Reals:
    """Mean and standard deviation of CIE L*, a*, b* (D65) of each frame, (F, 6)."""
    table = np.arange(256) / 255
    linear = np.where(table <= 0.04045, table / 12.92, ((table + 0.055) / 1.055) ** 2.4).astype(np.float32)
    to_xyz = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
                       [0.0193339, 0.1191920, 0.9503041]], np.float32)
    to_xyz /= np.array([[0.95047], [1.0], [1.08883]], np.float32)
    rows = []
    for frame in check_frames(frames, "video"):
        xyz = linear[frame] @ to_xyz.T
        f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
        axes = np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)
        rows.append(np.concatenate([axes.mean((0, 1)), axes.std((0, 1))]))
    return np.array(rows, np.float64)


def lab_distance(frames: Pixels, reference: Pixels) -> float:
    """How far the mean colours and contrasts of frames lie from the reference's (H, W, 3), in CIE Lab units."""
    return float(np.linalg.norm(lab(frames).mean(0) - lab(reference[None])[0]))
