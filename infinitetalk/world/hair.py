"""Hair: a hull around the scalp, grown downwards from the crown, cut along a line that each style draws."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from infinitetalk.world.body import EARS, INSIDE, SKIN, Body
from infinitetalk.world.mesh import Surface, strip
from infinitetalk.world.scene import Floats, Person

HAIR = 6
ROUND, DOWN = 80, 36
"""Vertices of the hull around the head and from the crown down."""
CENTRE = np.array([0.0, -0.048, 0.862], np.float32)
"""Of the average head."""
DROP = 0.00175
"""Metres that a degree below the equator hangs down."""
ANGLES = (0, 25, 45, 60, 75, 95, 125, 180)
"""Degrees from the face's middle, where lines are given."""
HAIRLINE = (55, 56, 58, 66, 101, 83, 112, 128)
"""Degrees from the crown where hair stops growing, at `ANGLES`."""


@dataclass(frozen=True)
class Style:
    """How hair is cut. Lengths are degrees from the crown, at `ANGLES`; below the equator (90) hair hangs freely."""

    ends: tuple[float, ...]
    top: float
    """Metres it stands off the scalp at the crown."""
    side: float
    """The same at the equator."""
    curl: float = 0.0
    """Strength of curls, 0 … 1."""
    quiff: float = 0.0
    """Metres more above the forehead."""
    bun: bool = False
    over_ears: bool = False


STYLES: dict[str, Style] = {
    "bald": Style(HAIRLINE, 0, 0),
    "shaved": Style(HAIRLINE, 0.0025, 0.002),
    "short": Style(HAIRLINE, 0.018, 0.005, quiff=0.004),
    "quiff": Style(HAIRLINE, 0.020, 0.004, quiff=0.018),
    "fringe": Style((76, 77, 80, 88, 106, 86, 116, 132), 0.015, 0.012),
    "curls": Style((60, 61, 65, 78, 104, 92, 122, 138), 0.034, 0.028, curl=1.0),
    "bun": Style(HAIRLINE, 0.008, 0.006, bun=True),
    "bob": Style((55, 56, 60, 128, 150, 154, 158, 160), 0.016, 0.014, over_ears=True),
    "pageboy": Style((78, 78, 81, 130, 146, 150, 152, 154), 0.017, 0.016, over_ears=True),
    "long": Style((55, 56, 60, 150, 178, 190, 215, 235), 0.015, 0.013, over_ears=True),
}


@dataclass(frozen=True)
class Scalp:
    """What the hull is built around, on the average body."""

    radius: Floats
    """Of the head without and with ears, in every direction of the grid, (2, ROUND, DOWN)."""
    bare: NDArray[np.int64]
    """Vertices of the head that hair follows."""


def directions(azimuth: Floats, polar: Floats) -> Floats:
    """Unit vectors (…, 3) at degrees from the face's middle and from the crown."""
    a, p = np.radians(azimuth), np.radians(polar)
    return np.stack([np.sin(a) * np.sin(p), -np.cos(a) * np.sin(p), np.cos(p)], -1).astype(np.float32)


def angles(points: Floats) -> tuple[Floats, Floats]:
    """Degrees from the face's middle (signed) and from the crown, of points (n, 3)."""
    x, y, z = (points - CENTRE).T
    azimuth, polar = np.degrees(np.arctan2(x, -y)), np.degrees(np.arctan2(np.hypot(x, y), z))
    return azimuth.astype(np.float32), polar.astype(np.float32)


def line(values: tuple[float, ...], azimuth: Floats) -> Floats:
    """A line round the head, smoothly through its values at `ANGLES`."""
    from scipy.interpolate import PchipInterpolator

    return np.asarray(PchipInterpolator(ANGLES, values)(np.abs(azimuth)), np.float32)


def growth(person: Person, azimuth: Floats) -> Floats:
    """How a person's own hairline differs in front, in degrees: higher or lower, a peak, corners that recede."""
    r = np.random.default_rng([person.seed, 0x6A2E])
    high, peak, corner = r.normal(0, 1.6), r.normal(0.5, 1.8), -abs(r.normal(0, 3.0 if person.feminine < 0.5 else 1.0))
    front = np.clip((75 - np.abs(azimuth)) / 20, 0, 1)
    middle, corners = np.exp(-((azimuth / 12) ** 2)), np.exp(-(((np.abs(azimuth) - 38) / 12) ** 2))
    return np.asarray(front * (high + peak * middle + corner * corners), np.float32)


def scalp_margin(body: Body, person: Person) -> Floats:
    """Degrees inside the hairline, over 0 where hair grows, (V,)."""
    if person.hair_style == "bald":
        return np.full(len(body.mean), -90, np.float32)
    azimuth, polar = angles(body.mean)
    found = line(HAIRLINE, azimuth) + growth(person, azimuth) - polar
    found[(body.marks[:, EARS] > 0.4) | (body.mean[:, 2] < CENTRE[2] - 0.13)] = -90
    return found


@lru_cache(1)
def scalp(body: Body) -> Scalp:
    """Radii of the average head on the hull's grid."""
    azimuth, polar = _grid()
    wanted = directions(azimuth, polar).reshape(-1, 3)
    skin = body.of_part(SKIN)
    skin = skin[(body.mean[skin, 2] > CENTRE[2] - 0.12) & (body.marks[skin, INSIDE] < 0.5)]
    bare = skin[body.marks[skin, EARS] < 0.2]
    radii = []
    for chosen, outermost in ((bare, False), (skin, True)):
        rays = body.mean[chosen] - CENTRE
        far = np.linalg.norm(rays, axis=1)
        distance, near = cKDTree(rays / far[:, None]).query(wanted, 10 if outermost else 5)
        weight = 1 / (distance + 0.01) ** 2
        mean = (far[near] * weight).sum(1) / weight.sum(1)
        radii.append(np.maximum(mean, far[near].max(1)) if outermost else mean)
    return Scalp(np.stack(radii).reshape(2, ROUND, DOWN).astype(np.float32), bare)


def _grid() -> tuple[Floats, Floats]:
    """Azimuth and polar angle of the hull's vertices on the sphere, in degrees, (ROUND, DOWN)."""
    azimuth = np.arange(ROUND, dtype=np.float32) / ROUND * 360 - 180
    polar = np.linspace(0.5, 140, DOWN, dtype=np.float32)
    return np.broadcast_to(azimuth[:, None], (ROUND, DOWN)), np.broadcast_to(polar[None], (ROUND, DOWN))


def grow(body: Body, rest: Floats, person: Person, r: np.random.Generator) -> list[Surface]:
    """The hair of a person.

    Args:
        body: The body.
        rest: The person's vertices at rest, (V, 3).
        person: Whose hair.
        r: Chance of locks and lengths.
    """
    style = STYLES[person.hair_style]
    if style.top <= 0:
        return []
    around = scalp(body)
    azimuth, _ = _grid()
    ends_of = line(style.ends, azimuth[:, 0])
    ends = ends_of + growth(person, azimuth[:, 0]) * (ends_of < 100)
    ends = ends + _locks(azimuth[:, 0], r) * np.where(ends_of > 100, 4, 1.2)
    share = np.linspace(0, 1, DOWN, dtype=np.float32)[None]
    reach = 0.5 + (ends[:, None] + 3) * share                                         # (ROUND, DOWN) degrees
    canonical, root = _placed(around, style, azimuth, reach, ends, r)
    follow = _follow(body, around, root)
    flat = canonical.reshape(-1, 3)
    points = flat + follow @ (rest - body.mean)
    hang = np.clip((CENTRE[2] - 0.02 - flat[:, 2]) / 0.25, 0, 1)
    paint = np.stack([np.repeat(azimuth[:, 0], DOWN), reach.ravel(), (ends[:, None] - reach).ravel(),
                      np.full(flat.shape[0], style.curl)], 1).astype(np.float32)
    hull = Surface(points.astype(np.float32), flat, _skin(body, hang), strip(ROUND, DOWN, closed=True), HAIR, paint,
                   _shade(flat, hang))
    return [hull, _bun(body, rest, around)] if style.bun else [hull]


def _locks(azimuth: Floats, r: np.random.Generator) -> Floats:
    """A periodic unevenness round the head, about −1 … 1."""
    a = np.radians(azimuth)
    return np.asarray(sum(r.normal() * np.cos(k * a + r.uniform(0, 6.3)) / 2.5 for k in (3, 5, 8, 13, 21)), np.float32)


def _placed(around: Scalp, style: Style, azimuth: Floats, reach: Floats, ends: Floats,
            r: np.random.Generator) -> tuple[Floats, Floats]:
    """Vertices of the hull on the average head, and the points of the scalp they follow, (ROUND, DOWN, 3) both."""
    free = np.clip(reach - 90, 0, None) if style.over_ears else np.zeros_like(reach)
    polar = reach - free
    columns = np.clip((polar - 0.5) / 139.5 * (DOWN - 1), 0, DOWN - 1.001)
    left = columns.astype(int)
    rows, part = np.arange(ROUND)[:, None], columns - columns.astype(int)
    radii = around.radius[1 if style.over_ears else 0]
    radius = radii[rows, left] * (1 - part) + radii[rows, left + 1] * part
    if style.over_ears:
        share = np.clip((polar - 45) / 45, 0, 1)
        widest = radii[:, (np.linspace(0.5, 140, DOWN) > 72) & (np.linspace(0.5, 140, DOWN) < 108)].max(1)
        radius = radius + (_round(widest)[:, None] - radius) * share * share * (3 - 2 * share)
    level = np.clip(polar / 90, 0, 1)
    thick = style.top + (style.side - style.top) * level ** 2
    front = np.exp(-(((polar - 48) / 16) ** 2)) * np.exp(-((azimuth / 38) ** 2))
    thick = thick + style.quiff * front
    thick = thick * (1 + (0.07 + 0.10 * style.curl) * _bumps(azimuth, polar, r))
    edge = np.clip((ends[:, None] - reach) / (9 if style.over_ears else 24), 0, 1)
    root = CENTRE + directions(azimuth, polar) * radius[..., None]
    grip = np.where(free > 0, 1, edge ** 0.6) if style.over_ears else edge ** 0.6
    keep = 0.45 if style.over_ears else 0.0
    off = thick * np.maximum(grip, keep) - 0.0015 * (grip < 0.3)
    out = CENTRE + directions(azimuth, polar) * (radius + off)[..., None]
    wave = 1 - np.clip(free / 60, 0, 1) * (0.14 if max(style.ends) < 200 else 0.10)
    middle = np.array([0, CENTRE[1]], np.float32)
    out[..., :2] = middle + (out[..., :2] - middle) * wave[..., None]
    out[..., 2] -= free * DROP
    behind = np.clip((out[..., 1] - 0.0) / 0.05, 0, 1) * np.clip((0.76 - out[..., 2]) / 0.08, 0, 1)
    out[..., 1] += behind * 0.012
    return out.astype(np.float32), root.astype(np.float32)


def _round(values: Floats) -> Floats:
    """Values round the head (ROUND,), evened out."""
    for _ in range(6):
        values = np.asarray((values + np.roll(values, 1) + np.roll(values, -1)) / 3, np.float32)
    return values


def _bumps(azimuth: Floats, polar: Floats, r: np.random.Generator) -> Floats:
    """Unevenness over the head, about −1 … 1."""
    way = directions(azimuth, polar)
    total = np.zeros(azimuth.shape, np.float32)
    for _ in range(10):
        total += np.sin(way @ r.normal(0, 14, 3).astype(np.float32) + r.uniform(0, 6.3)) / 3
    return total


def _follow(body: Body, around: Scalp, root: Floats) -> sparse.csr_matrix:
    """Rows that average what the scalp near each vertex does, sparse (n, V)."""
    distance, near = cKDTree(body.mean[around.bare]).query(root.reshape(-1, 3), 8)
    weight = 1 / (distance + 0.008)
    weight /= weight.sum(1, keepdims=True)
    rows = np.repeat(np.arange(len(near)), 8)
    where = (rows, around.bare[near].ravel())
    return sparse.csr_matrix((weight.ravel().astype(np.float32), where), (len(near), len(body.mean)))


def _skin(body: Body, hang: Floats) -> sparse.csr_matrix:
    """Hair goes with the head; what hangs low partly with the chest, sparse (n, J)."""
    columns = np.tile([body.bone("head"), body.bone("spine01")], len(hang))
    low = 0.8 * hang
    where = (np.repeat(np.arange(len(hang)), 2), columns)
    shares = np.stack([1 - low, low], 1).ravel().astype(np.float32)
    return sparse.csr_matrix((shares, where), (len(hang), len(body.names)))


def _shade(points: Floats, hang: Floats) -> Floats:
    """Darker near the neck."""
    return np.asarray(1 - 0.35 * np.clip(hang * 2, 0, 1) * np.clip((points[:, 1] + 0.1) / 0.1, 0, 1), np.float32)


def _bun(body: Body, rest: Floats, around: Scalp) -> Surface:
    """A knot at the back of the head."""
    rows, columns = 28, 14
    a = np.arange(rows, dtype=np.float32)[:, None] / rows * 2 * np.pi + np.zeros((1, columns), np.float32)
    p = np.linspace(0.02, np.pi - 0.02, columns, dtype=np.float32)[None] + np.zeros((rows, 1), np.float32)
    way = np.stack([np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)], -1)
    middle = CENTRE + directions(np.array(180, np.float32), np.array(30, np.float32)) * 0.125
    wound = 1 + 0.05 * np.sin(6 * p + 2 * a)
    canonical = (middle + way * np.array([0.040, 0.036, 0.036]) * wound[..., None]).reshape(-1, 3).astype(np.float32)
    follow = _follow(body, around, np.broadcast_to(middle, (len(canonical), 3)))
    points = canonical + follow @ (rest - body.mean)
    paint = np.stack([np.degrees(a).ravel() * 0.3, np.degrees(p).ravel(), np.full(a.size, 60.0), np.zeros(a.size)], 1)
    return Surface(points.astype(np.float32), canonical, _skin(body, np.zeros(len(points), np.float32)),
                   strip(rows, columns, closed=True), HAIR, paint.astype(np.float32),
                   np.full(len(points), 0.95, np.float32))
