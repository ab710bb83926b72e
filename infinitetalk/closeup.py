"""A square that follows a face: what small networks learn from, and where they make lips anew.

In 64 pixels a face has too few to be filmed with what is around it, and a network that must first find the mouth has
little left for what it says. So each frame is seen through a square that goes with the face, in which eyes, nose and
mouth have their places (as Wav2Lip, arXiv 2008.10010, and LatentSync, arXiv 2412.09262, align theirs); what is made
there is laid back where it was.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]
SIDE = 1.2
"""Sides of the square against the side of the face's box, which goes from brows to chin."""
DOWN = 0.1
"""The square's middle lies below the box's by this share of its side, so that an open jaw is inside."""
LOWER_FACE = (0.25, 0.5, 0.75, 1.0)
"""Left, top, right, bottom of what speech moves, in sides of the square: from below the nose to below the chin. These
are whole tokens of the transformer."""
MOUTH = (0.32, 0.54, 0.68, 0.80)
"""The same of the mouth, about."""
LAID = (0.25, 0.5, 0.75, 0.9)
"""The same of what is laid upon the source: not the neck, which speech hardly moves."""
SMOOTH = 5
"""Looks over whose sizes the median is taken: detectors know sizes by steps of a fifth."""


def follow(
    at: ArrayLike,  # (n,) frames at which the face was looked for, rising
    boxes: ArrayLike,  # (n, 4) left, top, right, bottom of the face there, in pixels
    frames: ArrayLike,  # (F,)
) -> Floats:  # (F, 4) left, top, right, bottom
    """The squares at some frames, in pixels of the source: between looks they move evenly, before the first and after
    the last they stand."""
    at, boxes, frames = (np.asarray(one, np.float64) for one in (at, boxes, frames))
    sizes = (boxes[:, 2:] - boxes[:, :2]).max(1)  # (n,)
    reach = SMOOTH // 2
    sizes = np.array([np.median(sizes[max(0, look - reach):look + reach + 1]) for look in range(len(sizes))])
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2 + [0, 1] * (DOWN * sizes)[:, None]  # (n, 2)
    x, y, side = (np.interp(frames, at, one) for one in (*middles.T, SIDE * sizes))
    left, top, side = (one.astype(np.float32) for one in (x - side / 2, y - side / 2, side))
    return np.stack((left, top, left + side, top + side), 1)


def within(
    boxes: Floats,  # (F, 4)
    squares: Floats,  # (F, 4), or (1, 4)
    side: int,
) -> Floats:  # (F, 4)
    """Boxes in a picture as they lie in what is seen of it through squares, in pixels of that, and no further."""
    seen = (boxes - squares[:, [0, 1, 0, 1]]) * side / (squares[:, 2:3] - squares[:, :1])
    return np.asarray(seen.clip(0, side), np.float32)


def cut(
    frame: NDArray[np.uint8],  # (H, W, 3)
    box: ArrayLike,  # (4,) left, top, right, bottom; fractions of pixels, and places beyond the frame, are allowed
    side: int,
) -> NDArray[np.uint8]:  # (S, S, 3)
    """What is seen through a square; beyond the frame its border goes on."""
    from PIL import Image

    left, top, right, bottom = (float(edge) for edge in np.asarray(box))
    height, width = frame.shape[:2]
    beyond = max(0.0, -left, -top, right - width, bottom - height)
    if beyond:
        wide = int(np.ceil(beyond))
        frame = np.pad(frame, ((wide, wide), (wide, wide), (0, 0)), mode="edge")
        left, top, right, bottom = left + wide, top + wide, right + wide, bottom + wide
    return np.asarray(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC,
                                                    box=(left, top, right, bottom)))


def lay(
    made: NDArray[np.uint8] | Floats,  # (S, S, 3) bytes, or (S, S) float32
    box: ArrayLike,  # (4,) as of `cut`, in pixels of the picture
    size: tuple[int, int],
) -> NDArray[np.uint8] | Floats:  # (H, W, 3) or (H, W)
    """What was made in a square, in its place in a picture of (H, W); black, or 0, elsewhere."""
    from PIL import Image

    left, top, right, bottom = (float(edge) for edge in np.asarray(box))
    picture, side = Image.fromarray(made), int(np.ceil(max(right - left, bottom - top)))
    if side < made.shape[0]:  # where it becomes smaller, pixels are averaged, not picked
        picture = picture.resize((side, side), Image.Resampling.BICUBIC)
    across, down = picture.width / (right - left), picture.height / (bottom - top)
    return np.asarray(picture.transform(
        (size[1], size[0]), Image.Transform.AFFINE, (across, 0, -left * across, 0, down, -top * down),
        Image.Resampling.BICUBIC))


def lower_face(side: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what is made anew, in pixels of a square of so many."""
    left, top, right, bottom = (edge * side for edge in LOWER_FACE)
    return left, top, right, bottom


def share(side: int) -> Floats:
    """How much of what is made covers what was filmed, 0 to 1: all of the mouth, and less and less from there to the
    edges of `LAID`: (S, S)."""
    at = (np.arange(side) + 0.5) / side
    away = [np.maximum((inner - at) / (inner - outer), (at - inner_end) / (outer_end - inner_end)).clip(0)
            for inner, outer, inner_end, outer_end in zip(MOUTH[:2], LAID[:2], MOUTH[2:], LAID[2:], strict=True)]
    near = 1 - np.hypot(away[0][None], away[1][:, None]).clip(0, 1)  # (S, S)
    smooth: Floats = (near * near * (3 - 2 * near)).astype(np.float32)  # at both ends: no line is seen
    return smooth
