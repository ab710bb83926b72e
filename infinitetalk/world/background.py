"""What stands behind people, drawn from a seed: rooms, shelves, windows, gradients, out of focus, and their light."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from infinitetalk.world.scene import Backdrop, Light

ROWS, COLUMNS = 320, 404
ZOOM = 1.75
"""How much wider the picture is than what a painter calls 0 … 1; between them lies what a camera mostly sees."""
"""Of a backdrop's picture."""
Floats = NDArray[Any]
Paint = Callable[[np.random.Generator, Floats, Floats], Floats]


def _colour(r: np.random.Generator, low: float = 0.15, high: float = 0.8, grey: float = 0.6) -> Floats:
    """A muted colour (3,), as shown."""
    raw = r.uniform(low, high, 3)
    return np.asarray(raw.mean() * grey + raw * (1 - grey), np.float32)


def _ramp(r: np.random.Generator, x: Floats, y: Floats, low: float = 0.2, high: float = 0.75) -> Floats:
    """Two colours that run into each other (h, w, 3)."""
    first, second = _colour(r, low, high), _colour(r, low, high)
    second = 0.55 * first + 0.45 * second
    share = np.clip(y * r.uniform(0.4, 1) + (x - 0.6) * r.uniform(-0.5, 0.5), 0, 1)[..., None]
    return np.asarray(first * (1 - share) + second * share)


def _box(im: Floats, x: Floats, y: Floats, edges: tuple[float, float, float, float], colour: Floats) -> None:
    """Fills a rectangle: left, top, right, bottom; shaded from its top to its bottom."""
    left, top, right, bottom = edges
    mask = (x >= left) & (x < right) & (y >= top) & (y < bottom)
    im[mask] = colour * (1.06 - 0.16 * ((y[mask] - top) / max(bottom - top, 1e-6)))[:, None]


def _glow(im: Floats, x: Floats, y: Floats, at: tuple[float, float], size: float, colour: Floats) -> None:
    """Adds light that falls off."""
    im += np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / size ** 2)[..., None] * colour


def gradient(r: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """A photographer's paper wall, lit from behind."""
    im = _ramp(r, x, y)
    _glow(im, x, y, (r.uniform(0.3, 0.95), r.uniform(0.2, 0.6)), r.uniform(0.3, 0.6), _colour(r, 0.05, 0.3))
    return np.asarray(im)


def shelves(r: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Books and boxes on boards."""
    im = _ramp(r, x, y, 0.2, 0.5)
    wood, step = _colour(r, 0.12, 0.45, 0.3) * np.array([1.15, 1, 0.8]), r.uniform(0.15, 0.24)
    for board in np.arange(r.uniform(-0.5, -0.4), 1.5, step):
        at = -0.5
        while at < 1.8:
            wide, high = r.uniform(0.012, 0.05), r.uniform(0.45, 0.9) * step
            if r.random() < 0.78:
                _box(im, x, y, (at, board + step - high, at + wide, board + step), _colour(r, 0.08, 0.85, 0.35))
            at += wide + r.choice([0.003, 0.003, 0.003, 0.04])
        _box(im, x, y, (-1, board + step - 0.005, 3, board + step + 0.016), wood)
    return np.asarray(im)


def window(r: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """A wall with a window onto sky and hills, and curtains."""
    im = _ramp(r, x, y, 0.3, 0.75)
    middle, half = r.choice([r.uniform(0.15, 0.45), r.uniform(0.8, 1.1)]), r.uniform(0.17, 0.28)
    top, bottom = 0.08, r.uniform(0.5, 0.68)
    inside = (np.abs(x - middle) < half) & (y > top) & (y < bottom)
    y_ = np.clip(y, 0, 1)
    sky = np.array([0.60, 0.74, 0.90]) * (1 - y_[..., None]) + np.array([0.97, 0.92, 0.84]) * y_[..., None]
    hill = 0.42 + 0.05 * np.sin(x * r.uniform(4, 9) + r.uniform(0, 6)) + 0.02 * np.sin(x * 23 + r.uniform(0, 6))
    sky[y > hill] = _colour(r, 0.3, 0.6, 0.4) * np.array([0.85, 1.05, 0.8])
    frame = _colour(r, 0.6, 0.95, 0.85)
    _box(im, x, y, (middle - half - 0.02, top - 0.02, middle + half + 0.02, bottom + 0.03), frame)
    im[inside] = sky[inside]
    for bar in (np.abs(x - middle) < 0.006, np.abs(y - (top + bottom) / 2) < 0.006):
        im[bar & inside] = frame
    cloth = _colour(r, 0.25, 0.8, 0.4)
    for side in (-1, 1):
        folds = cloth * (0.85 + 0.15 * np.sin((x - middle) * 190))[..., None]
        hanging = (np.abs(x - middle - side * (half + 0.04)) < 0.055) & (y < bottom + 0.12)
        im[hanging] = folds[hanging]
    _glow(im, x, y, (middle, 0.35), 0.5, np.array([0.10, 0.10, 0.09]))
    return np.asarray(im)


def room(r: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """A living room: pictures, a lamp, a plant, a sofa."""
    im = _ramp(r, x, y, 0.35, 0.8)
    for _ in range(int(r.integers(3, 8))):
        left, top, wide, high = r.uniform(-0.4, 1.5), r.uniform(-0.05, 0.4), r.uniform(0.08, 0.2), r.uniform(0.08, 0.22)
        _box(im, x, y, (left, top, left + wide, top + high), _colour(r, 0.05, 0.4))
        _box(im, x, y, (left + 0.012, top + 0.012, left + wide - 0.012, top + high - 0.012), _colour(r, 0.3, 0.95, 0.3))
    _box(im, x, y, (-1, r.uniform(0.72, 0.8), 3, 2), _colour(r, 0.12, 0.5))
    left = r.uniform(-0.1, 0.9)
    _box(im, x, y, (left, r.uniform(0.6, 0.68), left + r.uniform(0.4, 0.7), 0.9), _colour(r, 0.15, 0.7, 0.4))
    at = r.uniform(0.05, 1.2)
    _box(im, x, y, (at - 0.006, 0.45, at + 0.006, 0.8), _colour(r, 0.1, 0.3))
    _box(im, x, y, (at - 0.05, 0.34, at + 0.05, 0.45), np.array([0.98, 0.88, 0.66]))
    _glow(im, x, y, (at, 0.40), 0.20, np.array([0.30, 0.24, 0.12]))
    stem, leaf = r.uniform(0.05, 1.2), np.array([0.16, 0.34, 0.15]) * r.uniform(0.8, 1.3)
    for _ in range(14):
        dx, dy = r.normal(0, 0.045), r.uniform(0.42, 0.66)
        im[((x - stem - dx) / 0.028) ** 2 + ((y - dy) / 0.05) ** 2 < 1] = leaf * r.uniform(0.6, 1.3)
    return np.asarray(im)


def lights(r: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """A street in the evening, its lamps as discs."""
    im = _ramp(r, x, y, 0.05, 0.32)
    for _ in range(int(r.integers(40, 90))):
        at, size = (r.uniform(-0.4, 1.7), r.uniform(-0.3, 1.0)), r.uniform(0.014, 0.042)
        disc = (x - at[0]) ** 2 + (y - at[1]) ** 2 < size ** 2
        glare = _colour(r, 0.2, 1.0, 0.25) * np.array([1.1, 0.95, 0.75])
        im[disc] = im[disc] * 0.45 + glare * r.uniform(0.3, 0.7)
    return np.asarray(im)


def garden(r: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Leaves and sky."""
    im = np.array([0.70, 0.82, 0.93]) * (1 - 0.3 * np.clip(y[..., None], 0, 1)) + np.zeros((*x.shape, 3))
    tone = r.uniform(0.7, 1.2)
    for size in (0.10, 0.06, 0.03):
        grown = gaussian_filter(r.normal(0, 1, x.shape), size * ROWS * 0.5)
        leaves = grown / grown.std() + (y - r.uniform(0.2, 0.5)) * 4 > 0
        im[leaves] = (np.array([0.27, 0.35, 0.20]) * tone * r.uniform(0.6, 1.5))
    _box(im, x, y, (-1, r.uniform(0.8, 0.9), 3, 2), np.array([0.42, 0.47, 0.26]) * tone)
    return np.asarray(im)


KINDS: dict[str, Paint] = {"gradient": gradient, "shelves": shelves, "window": window, "room": room, "lights": lights,
                          "garden": garden}


def light(r: np.random.Generator) -> Light:
    """A lamp from above, in front, from either side; warm or cool."""
    side = float(r.uniform(-1.1, 1.1))
    strength, warm = float(r.uniform(0.80, 1.15)), float(r.uniform(0, 1))
    room_ = float(r.uniform(0.26, 0.42))
    return Light((float(np.sin(side)), float(r.uniform(0.35, 0.8)), 0.9),
                 (strength, strength * (1 - 0.07 * warm), strength * (1 - 0.18 * warm)),
                 (room_ * 0.96, room_, room_ * 1.07))


def backdrop(seed: int, kind: str | None = None) -> Backdrop:
    """A backdrop; the same seed gives the same one.

    Args:
        seed: Any number from 0.
        kind: One of `KINDS`; drawn from the seed if not given.
    """
    r = np.random.default_rng([seed, 0xBAC0])
    drawn = str(r.choice(list(KINDS)))
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS]
    x = (columns.astype(np.float32) / ROWS - 0.63) * ZOOM + 0.63
    y = (rows.astype(np.float32) / ROWS - 0.59) * ZOOM + 0.5
    found = np.asarray(KINDS[kind or drawn](r, x, y), np.float32)
    blur = float(r.uniform(0.9, 2.3))
    soft = np.stack([gaussian_filter(found[..., c], blur, mode="nearest") for c in range(3)], -1)
    soft += gaussian_filter(r.normal(0, 1, x.shape), 0.7)[..., None] * 0.010
    return Backdrop((np.clip(soft, 0.02, 1) * 255).round().astype(np.uint8), light(r), kind or drawn)
