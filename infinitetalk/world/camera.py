"""Where the picture is taken from: still, panning, zooming, orbiting or shaking, from close to half a body."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from infinitetalk.world.motion import Times, wander
from infinitetalk.world.scene import FRAMINGS, LENS, Camera, Framing
from infinitetalk.world.visemes import frame_times

KINDS = ("static", "pan", "zoom", "orbit", "shake")
SHARES = (0.30, 0.20, 0.20, 0.20, 0.10)
"""How often each of `KINDS` is drawn."""
CALM_SHARES = (0.60, 0.10, 0.10, 0.10, 0.10)
"""The same for a face: what is cut out around one moves less."""
OFF = 0.012
"""Metres that a face is beside the middle of the picture, at most; and it is filmed from nearer or farther."""
NEAREST, FARTHEST = 0.92, 1.25
FRAMING_SHARES: dict[Framing, float] = {"head": 0.45, "bust": 0.35, "half": 0.20}
TWO_PEOPLE = 2.9
"""Metres from which two people fit a square picture."""
TWO_HEIGHT = -0.11
"""Metres of the target above their eyes' mean height: any lower, and a tall one's legs are seen to end."""
SLOWEST = 4.0
"""Seconds; moves take at least as long as this, so that short clips are not hurried."""


def draw_framing(rng: Generator) -> Framing:
    """How much of a person is seen."""
    names = tuple(FRAMING_SHARES)
    return names[int(rng.choice(len(names), p=list(FRAMING_SHARES.values())))]


def draw_camera(rng: Generator, frames: int, rate: float, framing: Framing, people: int = 1, aspect: float = 1.0,
                kind: str | None = None) -> Camera:
    """A camera for F frames; it moves about the middle of its path, so that nobody leaves the picture.

    Args:
        rng: Source of place, kind and speed.
        frames: F.
        rate: Frames per second.
        framing: How much of a person is seen; two people are always seen from `TWO_PEOPLE` metres or more.
        people: How many stand before it.
        aspect: Width of the picture over its height.
        kind: One of `KINDS`; any, where none is given.
    """
    kind = kind or KINDS[int(rng.choice(len(KINDS), p=CALM_SHARES if framing == "face" else SHARES))]
    times = frame_times(frames, rate)
    distance, height = FRAMINGS[framing]
    if people > 1:
        distance = max(distance, TWO_PEOPLE / min(max(aspect, 1.0), 1.6))
        height = TWO_HEIGHT
    path = np.tile([rng.uniform(-0.35, 0.35) / people, rng.uniform(-0.05, 0.12),
                    distance * rng.uniform(0.97, 1.10), 0.0, height], (frames, 1))           # (F, 5)
    path += _moves(rng, kind, times, path[:, 2], people) / ([1, 1, 1] + [LENS.get(framing, 1.0)] * 2)
    if framing == "face":
        path[:, 2] *= rng.uniform(NEAREST, FARTHEST)
        path[:, 3:] += rng.uniform(-OFF, OFF, 2)
    return Camera(path.astype(np.float32), kind, framing)


def _moves(rng: Generator, kind: str, times: Times, distance: Times, people: int) -> Times:
    """What is added to the path (F, 5)."""
    span = max(len(times) * (float(times[0]) * 2 if len(times) else 0.0), SLOWEST)
    way = float(rng.choice([-1, 1])) * (times / span - (times.mean() / span if len(times) else 0.0))
    out = np.zeros((len(times), 5))
    if kind == "pan":
        out[:, 3] = 0.13 * distance * way / people
    if kind == "zoom":
        out[:, 2] = distance * np.expm1(0.40 * way / people)
    if kind == "orbit":
        out[:, 0] = 0.50 * way / people
    if kind == "shake":
        out[:, 3:] = wander(rng, times, 0.25, 0.010, 2) * distance[:, None]
    return out
