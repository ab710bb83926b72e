"""Motion between pictures: a head that moves as the source's did, and a background that is not where the source's is.

Both rest on one registration: shift and zoom of a part of the picture, first by phase correlation, then refined by
least squares on brightness (Lucas and Kanade). It ignores gain and offset, so that colours that drift move nothing.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.measure import Floats, Pixels, Reals, check_frames, known_rows, same_shape

SIDE = 96
"""Longer side at which pictures are registered: enough for a twentieth of a pixel, and cheap."""
ROUNDS = 12
AGREEING = 0.7
"""Correlation of what was registered, above which its shift is believed."""
SURE = 0.97
"""Agreement with which nothing further is searched."""
LEAST_PIXELS = 40
LEAST_TEXTURE = 0.004
"""Contrast of details (0 … 1), below which a wall is too plain to see it move."""
MOST_LOST = 0.6
"""Share of the weights that must stay inside the picture."""
MOST_SAMPLES = 60
"""Frames that the camera is looked at in."""
LEAST_MOTION = 0.02
"""Pixels (of `SIDE`) per frame: less is a head that keeps still."""


class Shift(NamedTuple):
    """Where a picture lies against another."""

    x: float
    """Pixels to the right."""
    y: float
    """Pixels downwards."""
    zoom: float
    """Natural logarithm of its scale."""
    agreement: float
    """Correlation of both after the shift; a low one is not to be believed."""


def register(moved: Floats, still: Floats, weights: Floats, *, coarse: bool = True) -> Shift:
    """How `moved` is shifted and zoomed (around the picture's middle) against `still`.

    Args:
        moved: Brightness (H, W).
        still: As `moved`.
        weights: Which parts of `still` count, 0 … 1, (H, W).
        coarse: Search shifts of more than about 2 pixels, too.
    """
    soft, goal = _details(moved), _details(still)
    texture = float(np.sqrt((goal**2 * weights).sum() / max(float(weights.sum()), 1e-9)))
    if weights.sum() < LEAST_PIXELS or texture < LEAST_TEXTURE:
        return Shift(0, 0, 0, 0)
    goal = _even(goal, weights)
    near = _refined(soft, goal, weights, (0.0, 0.0))
    if not coarse or near.agreement > SURE:
        return near
    return max(near, _refined(soft, goal, weights, _coarse(soft, goal, weights)), key=lambda shift: shift.agreement)


def _details(picture: Floats) -> Reals:
    """Without noise and without slow ramps, along which a shift cannot be told."""
    return np.asarray(gaussian_filter(picture, 0.7) - gaussian_filter(picture, 4.0), np.float64)


def _refined(soft: Reals, goal: Reals, weights: Floats, start: tuple[float, float]) -> Shift:
    """The best shift that least squares find from `start` (x, y)."""
    y, x = np.mgrid[0:goal.shape[0], 0:goal.shape[1]].astype(np.float64)
    across, down = x - x.mean(), y - y.mean()
    up, right = np.gradient(goal)
    sides = np.stack([right, up, right * across + up * down], -1)                       # (H, W, 3)
    found, best = np.array([*start, 0.0]), Shift(0, 0, 0, 0)
    for _ in range(ROUNDS):
        scale = np.exp(found[2])
        at = (y.mean() + down * scale + found[1], x.mean() + across * scale + found[0])
        inside = weights * ((at[0] >= 0) & (at[0] <= y.max()) & (at[1] >= 0) & (at[1] <= x.max()))
        if inside.sum() < MOST_LOST * weights.sum():
            break
        seen = _even(map_coordinates(soft, at, order=1, mode="nearest"), inside)
        power = float((seen**2 * inside).sum() * (goal**2 * inside).sum())
        agreement = float((seen * goal * inside).sum() / np.sqrt(max(power, 1e-12)))
        if agreement > best.agreement:
            best = Shift(float(found[0]), float(found[1]), float(found[2]), agreement)
        left = (inside[..., None] * sides).reshape(-1, 3)
        step = np.linalg.solve(left.T @ sides.reshape(-1, 3) + 1e-6 * np.eye(3), left.T @ (goal - seen).ravel())
        found = found + np.clip(step, (-2, -2, -0.05), (2, 2, 0.05))
        if np.abs(step[:2]).max() < 0.005 and abs(step[2]) < 1e-4:
            break
    return best


def _even(picture: Floats | Reals, weights: Floats | Reals) -> Reals:
    """Mean 0 and deviation 1 where `weights` count."""
    total = max(float(weights.sum()), 1e-9)
    centred = picture - (picture * weights).sum() / total
    return np.asarray(centred / max(np.sqrt((centred**2 * weights).sum() / total), 1e-6), np.float64)


def _coarse(soft: Reals, goal: Reals, weights: Floats) -> tuple[float, float]:
    """Whole pixels (x, y) at which the phases of both agree best, up to a quarter of the picture."""
    height, width = goal.shape
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    one, other = (np.fft.rfft2(picture * window) for picture in (soft * weights, goal * weights))
    cross = one * other.conj()
    peaks = np.fft.irfft2(cross / np.maximum(np.abs(cross), 1e-9), (height, width))
    y, x = (np.fft.fftfreq(length, 1 / length) for length in (height, width))
    far = np.maximum.outer(np.abs(y) / height, np.abs(x) / width)
    row, column = divmod(int(np.argmax(peaks - 2 * (far > 0.25))), width)
    return float(x[column]), float(y[row])


# -- the head ---------------------------------------------------------------------------------------------------------


def head_motion(frames: Pixels, boxes: Floats) -> Reals:
    """How the upper face moves from frame to frame, in pixels of `SIDE`: x, y (F-1, 2); NaN where it cannot be told.

    The mouth is left out: what it says is no motion of the head.

    Args:
        frames: (F, H, W, 3).
        boxes: Of the mouth, in pixels, (F, 4); NaN where there is none.

    Raises:
        BadInputError: Frames and boxes do not belong together.
    """
    check_frames(frames, "head motion", 2)
    if np.shape(boxes) != (len(frames), 4):
        raise BadInputError(f"boxes of shape {np.shape(boxes)} for {len(frames)} frames", where="head motion")
    light = [brightness(frame) for frame in frames]
    scale = light[0].shape[1] / frames.shape[2]
    steps = np.full((len(frames) - 1, 2), np.nan)
    for at, (before, after) in enumerate(pairwise(light)):
        if not np.isfinite(boxes[at]).all():
            continue
        shift = register(after, before, upper_face(before.shape, boxes[at] * scale), coarse=False)
        if shift.agreement > AGREEING:
            steps[at] = shift.x, shift.y
    return steps


def motion_copy(made: Reals, source: Reals) -> tuple[float, int]:
    """Correlation of two heads' motion per frame, (n, k) each, over all axes; and the frames that both are known in.

    1 is the source's motion taken over; about 0 a motion of its own.

    Raises:
        BadInputError: Fewer than 20 frames, or a head that keeps still.
    """
    frames = min(len(made), len(source))
    made, source = np.asarray(made, np.float64)[:frames], np.asarray(source, np.float64)[:frames]
    known = known_rows(made + source)
    if known.sum() < 20:
        raise BadInputError(f"a head is followed in {int(known.sum())} frames only", where="motion copy",
                            hint="Give at least 20 frames with a face in both")
    a, b = (gaussian_filter1d(np.where(known[:, None], track, 0), 1, axis=0)[known] for track in (made, source))
    a, b = a - a.mean(0), b - b.mean(0)
    power = float(np.sqrt((a * a).sum() * (b * b).sum()))
    if min(a.std(), b.std()) < LEAST_MOTION / 10 or not power:
        raise BadInputError("a head keeps still", where="motion copy", hint="Give a source that moves")
    return float((a * b).sum() / power), int(known.sum())


# -- the camera -------------------------------------------------------------------------------------------------------


class CameraError(NamedTuple):
    """How far the background is from where the source's is."""

    percent: float
    """Of the picture's width, median over frames (root mean square over the background)."""
    worst: float
    frame: int
    """Where it is worst."""
    covered: int
    """Frames in which it could be told …"""
    of: int
    """… of so many looked at."""


def camera_error(frames: Pixels, source: Pixels, boxes: Floats | None = None) -> CameraError:
    """Register the background of each frame with the source's at the same time.

    Args:
        frames: (F, H, W, 3).
        source: As `frames`.
        boxes: Of the mouth, to tell people from background, (F, 4) in pixels; without, the picture's upper half but
            its middle counts.

    Raises:
        BadInputError: Shapes that differ, or a background that cannot be registered anywhere.
    """
    check_frames(frames, "camera")
    same_shape(frames, source, "camera")
    looked = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MOST_SAMPLES)).round().astype(int))
    errors: dict[int, float] = {}
    for at in looked:
        still, moved = brightness(source[at]), brightness(frames[at])
        box = np.full(4, np.nan) if boxes is None else boxes[at] * (still.shape[1] / frames.shape[2])
        weights = background(still.shape, box)
        shift = register(moved, still, weights)
        if shift.agreement > AGREEING:
            height, width = still.shape
            spread = (height**2 + width**2) / 12 * np.expm1(shift.zoom)**2
            errors[int(at)] = 100 * float(np.sqrt(shift.x**2 + shift.y**2 + spread)) / width
    if not errors:
        raise BadInputError("the background cannot be recognised in any frame", where="camera error",
                            hint="Give the source it was made from")
    worst = max(errors, key=errors.__getitem__)
    return CameraError(float(np.median(list(errors.values()))), errors[worst], worst, len(errors), len(looked))


def brightness(frame: Pixels) -> Floats:
    """(H, W) in 0 … 1, its longer side at most `SIDE` pixels, by whole-area means."""
    light: Reals = (frame @ np.array([0.299, 0.587, 0.114])) / 255
    every = max(1, -(-max(light.shape) // SIDE))
    height, width = (length // every * every for length in light.shape)
    if every > 1 and min(height, width):
        light = light[:height, :width].reshape(height // every, every, width // every, every).mean((1, 3))
    return np.asarray(light, np.float32)


def upper_face(shape: tuple[int, ...], box: Floats) -> Floats:
    """Weights (H, W) of the face above a mouth's box."""
    width, x = float(box[2] - box[0]), float(box[0] + box[2]) / 2
    return _rectangle(shape, x - 1.4 * width, box[1] - 2.4 * width, x + 1.4 * width, box[1] - 0.2 * width)


def background(shape: tuple[int, ...], box: Floats) -> Floats:
    """Weights (H, W) of what is beside and above a head with its mouth in `box`; NaN: a head in the middle."""
    height, width = shape
    if not np.isfinite(box).all():
        return 1 - _rectangle(shape, width * 0.25, height * 0.1, width * 0.75, height) - _rectangle(
            shape, 0, height * 0.6, width * 0.25, height) - _rectangle(shape, width * 0.75, height * 0.6, width, height)
    mouth, x = float(box[2] - box[0]), float(box[0] + box[2]) / 2
    weights = np.ones(shape, np.float32)
    weights *= 1 - _rectangle(shape, x - 1.6 * mouth, box[1] - 3.2 * mouth, x + 1.6 * mouth, height)
    return np.asarray(weights * (1 - _rectangle(shape, 0, float(box[3]) + 0.2 * mouth, width, height)), np.float32)


def _rectangle(shape: tuple[int, ...], left: float, top: float, right: float, bottom: float) -> Floats:
    y, x = np.ogrid[0:shape[0], 0:shape[1]]
    return np.asarray((x >= left) & (x < right) & (y >= top) & (y < bottom), np.float32)
