"""Clothes: the body's own skin, evened out and pushed off, cut along smooth lines, collars and hems along these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from infinitetalk.world.body import SKIN, Body
from infinitetalk.world.mesh import (
    Surface,
    even,
    level_lines,
    neighbours,
    ring_smoothed,
    still_normals,
    strip,
    used,
)
from infinitetalk.world.scene import Floats, Person

CLOTH, TRIM = 4, 5
REACH = 0.022
"""Metres over which cloth evens out the body."""
POINTS = 80
"""Around a neckline or hem."""


@dataclass(frozen=True)
class Cut:
    """One layer of cloth. Heights in metres against the average body."""

    front: float
    """Height of the neckline in front."""
    back: float
    vee: float
    """How far a V goes down from there."""
    width: float
    """Half its width, at the top."""
    thick: float
    """How far it stands off the skin."""
    trim: str
    """Key of `TRIMS`."""
    colour: int
    """Which of the person's colours: 0 cloth, 1 pattern's, 2 white."""


LAYERS: dict[str, tuple[Cut, ...]] = {
    "crew": (Cut(0.662, 0.716, 0, 0.1, 0.006, "rib", 0),),
    "scoop": (Cut(0.655, 0.705, 0.055, 0.13, 0.005, "edge", 0),),
    "vee": (Cut(0.668, 0.716, 0.085, 0.085, 0.006, "rib", 0),),
    "roll": (Cut(0.700, 0.738, 0, 0.1, 0.007, "roll", 0),),
    "folded": (Cut(0.664, 0.714, 0.035, 0.045, 0.006, "folded", 0),),
    "hood": (Cut(0.660, 0.712, 0, 0.1, 0.012, "hood", 0),),
    "lapel": (Cut(0.668, 0.718, 0.030, 0.045, 0.005, "folded", 2),
              Cut(0.672, 0.705, 0.30, 0.105, 0.014, "lapel", 0)),
    "open": (Cut(0.658, 0.712, 0, 0.1, 0.005, "rib", 1), Cut(0.676, 0.712, 0.50, 0.120, 0.012, "band", 0)),
}
"""Layers by the collar of a person, from the skin outwards."""

Profile = Callable[[Floats], Floats]
"""Of how far round a ring points are from the middle of the chest (m,), 0 … 1, makes (m, q, 2): up the skin, off it."""


def _band(points: list[tuple[float, float]]) -> Profile:
    """The same profile all round, in millimetres."""
    return lambda round_: np.broadcast_to(np.array(points, np.float32) / 1000, (len(round_), len(points), 2))


def _folded(round_: Floats) -> Floats:
    """A shirt's collar: a stand, and a leaf over it that grows into points in front."""
    points = np.clip(1 - round_ / 0.20, 0, 1)[:, None] ** 1.3
    up = np.array([-3, 8, 19, 22.5, 21.5, 14, 3, -7, -8], np.float32) * (1 - 0.30 * points)
    up[:, -4:] -= points * np.array([4, 9, 15, 15], np.float32)
    off = np.array([0, 2, 4, 6, 8.5, 10, 11, 11, 8], np.float32) - 2 * points * np.linspace(0, 1, 9, dtype=np.float32)
    return np.asarray(np.stack([up, off], -1) / 1000, np.float32)


def _hood(round_: Floats) -> Floats:
    """A hood that lies on the back: a roll, thick behind and thin in front."""
    turn = np.linspace(-1.2, 4.2, 11, dtype=np.float32)
    size = (6 + 17 * np.clip((round_ - 0.10) / 0.6, 0, 1) ** 1.3)[:, None]
    up, off = np.sin(turn) * size * 0.8 - size * 0.35, np.cos(turn) * size * 0.8 + size * 0.55
    return np.asarray(np.stack([up, off], -1) / 1000, np.float32)


def _lapel(round_: Floats) -> Floats:
    """A jacket's lapel: flat, widest at the chest, with a notch below the collar."""
    notch = np.exp(-(((round_ - 0.47) / 0.018) ** 2))
    wide = np.interp(round_, [0, 0.12, 0.42, 0.5, 0.62, 1], [6, 30, 52, 44, 36, 34]) * (1 - 0.45 * notch)
    share = np.linspace(0, 1, 5, dtype=np.float32)
    up = 3 - share * wide[:, None].astype(np.float32)
    off = np.broadcast_to(np.array([0, 6, 6, 5, 2]), up.shape)
    return np.asarray(np.stack([up, off], -1) / 1000, np.float32)


TRIMS: dict[str, Profile] = {
    "edge": _band([(-5, 0), (-4, 2.5), (0, 3), (2, 1), (2, -3)]),
    "rib": _band([(-15, 0), (-14, 3), (-8, 4.5), (-1, 4.5), (3, 2.5), (3, -4)]),
    "roll": _band([(-34, 3), (-33, 8), (-24, 10), (-8, 10), (2, 9), (6, 5), (5, 0), (-4, -2)]),
    "folded": _folded,
    "hood": _hood,
    "lapel": _lapel,
    "band": _band([(-22, 0), (-21, 4), (-12, 5), (-2, 5), (3, 3), (3, -3)]),
    "hem": _band([(-9, 0), (-8, 2.5), (-1, 3), (2, 1), (2, -3)]),
}


@lru_cache(1)
def _torso(body: Body) -> tuple[NDArray[np.int64], NDArray[np.int64], Any, Floats]:
    """What cloth can cover: vertices (n,), triangles among them, rows that smooth it, metres along the arm (n,)."""
    skin = body.triangles[body.parts == SKIN]
    height = body.mean[:, 2]
    head = np.asarray(body.skin[:, body.bone("head")].todense()).ravel()
    kept, triangles = used(skin[(height[skin].max(1) < 0.80) & (head[skin].max(1) < 0.5)])
    return kept, triangles, _smoother(body.mean[kept], triangles), along_arm(body)[kept]


def along_arm(body: Body) -> Floats:
    """Metres down the arm from the shoulder's joint, below 0 on the rest of the body, (V,)."""
    found = np.full(len(body.mean), -0.1, np.float32)
    for side in "LR":
        shoulder, elbow, wrist = (body.bones[body.bone(f"{b}.{side}")] for b in ("upperarm01", "lowerarm01", "wrist"))
        upper, lower = elbow - shoulder, wrist - elbow
        length = float(np.linalg.norm(upper))
        on_upper = (body.mean - shoulder) @ (upper / length)
        on_lower = (body.mean - elbow) @ (lower / np.linalg.norm(lower))
        bones = [j for j, n in enumerate(body.names)
                 if n.endswith(side) and not n.startswith(("clavicle", "shoulder", "eye"))]
        mine = np.asarray(body.skin[:, bones].sum(1)).ravel() > 0.3
        bent = 1 / (1 + np.exp(-np.clip((on_lower + on_upper - length) / 0.02, -30, 30)))
        along = on_upper * (1 - bent) + (length + on_lower) * bent
        found[mine] = along[mine]
    return found


def neck_field(points: Floats, cut: Cut) -> Floats:
    """Metres below the neckline, (n,)."""
    x, y, z = points.T
    share = np.clip((y + 0.085) / 0.125, 0, 1)
    line = cut.front + (cut.back - cut.front) * share * share * (3 - 2 * share)
    line = line + 4.0 * np.clip(np.abs(x) - 0.085, 0, 0.2) ** 2
    if cut.vee:
        open_ = np.clip(1 - (np.sqrt(x * x + 0.005 ** 2) - 0.005) / cut.width, 0, 1)
        open_ = open_ if cut.trim != "edge" else open_ * (2 - open_)
        line = line - cut.vee * open_ * np.clip((-y - 0.01) / 0.05, 0, 1)
    return np.asarray(line - z, np.float32)


def sleeve_end(person: Person) -> float:
    """Metres down the arm where its cloth ends."""
    return 0.15 + 0.35 * person.sleeve


def covered(body: Body, person: Person) -> NDArray[np.bool_]:
    """Vertices of the skin that lie well under cloth and need not be drawn, (V,)."""
    cut = LAYERS[person.collar][0]
    under = np.minimum(neck_field(body.mean, cut), sleeve_end(person) - along_arm(body))
    return np.asarray(under > 0.03)


def dress(body: Body, rest: Floats, person: Person) -> list[Surface]:
    """The clothes of a person.

    Args:
        body: The body.
        rest: The person's vertices at rest, (V, 3).
        person: Who wears what.
    """
    kept, triangles, near, arm = _torso(body)
    canonical = body.mean[kept]
    hem = sleeve_end(person) - arm
    made = []
    for cut in LAYERS[person.collar]:
        neck = neck_field(canonical, cut)
        inside = np.minimum(neck, hem)
        points = _draped(rest[kept], triangles, near, inside)
        out = still_normals(points, triangles)
        points = points + out * (cut.thick * np.clip(0.35 + inside / 0.012, 0, 1))[:, None]
        shown = triangles[inside[triangles].max(1) > -0.012]
        paint = np.stack([neck, hem, np.full(len(kept), cut.colour), np.zeros(len(kept))], 1).astype(np.float32)
        layer = Surface(points.astype(np.float32), canonical, body.skin[kept], shown, CLOTH, paint,
                        np.ones(len(kept), np.float32))
        made.append(layer)
        made += [_trim(layer, line, triangles, cut) for line in _longest(neck, triangles, 1)]
        made += [_trim(layer, line, triangles, cut, "hem") for line in _longest(hem, triangles, 2)]
    return made


def _smoother(points: Floats, triangles: NDArray[np.int64]) -> Any:
    """Rows that average over a few centimetres of the same side of the body, by area, sparse (n, n)."""
    out, near = still_normals(points, triangles), neighbours(triangles, len(points))
    pairs = cKDTree(points).query_pairs(2.2 * REACH, output_type="ndarray")
    pairs = np.concatenate([pairs, pairs[:, ::-1], np.repeat(np.arange(len(points)), 2).reshape(-1, 2)])
    apart = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    same = np.clip((out[pairs[:, 0]] * out[pairs[:, 1]]).sum(1), 0, 1)
    area = np.linalg.norm(points - near @ points, axis=1) + 0.004
    weight = np.exp(-((apart / REACH) ** 2)) * same * area[pairs[:, 1]] ** 2
    rows = sparse.csr_matrix((weight.astype(np.float32), (pairs[:, 0], pairs[:, 1])), (len(points), len(points)))
    return sparse.csr_matrix(sparse.diags(1 / np.asarray(rows.sum(1)).ravel()) @ rows, dtype=np.float32)


def _draped(rest: Floats, triangles: NDArray[np.int64], smoother: Any, inside: Floats) -> Floats:
    """Cloth on skin (n, 3): smooth where it covers the skin wholly, nowhere below it near its edges."""
    smooth = rest
    for _ in range(3):
        smooth = smoother @ smooth
    out = still_normals(rest, triangles)
    above = rest + out * np.clip(((smooth - rest) * out).sum(1), 0, None)[:, None]
    free = np.clip((inside - 0.035) / 0.03, 0, 1)[:, None]
    return np.asarray(smooth * free + above * (1 - free), np.float32)


def _longest(field: Floats, triangles: NDArray[np.int64], count: int) -> list[Any]:
    """The `count` longest level lines."""
    return sorted(level_lines(field, triangles), key=lambda line: -int(line.shape[0]))[:count]


def _trim(layer: Surface, line: Any, triangles: NDArray[np.int64], cut: Cut, name: str = "") -> Surface:
    """A band swept along a line on a layer."""
    rows = even(line, layer.canonical, POINTS)
    centre = ring_smoothed(rows @ layer.rest, 8)
    off = ring_smoothed(rows @ still_normals(layer.rest, triangles), 10)
    off /= np.linalg.norm(off, axis=1, keepdims=True)
    ahead = np.roll(centre, -1, 0) - np.roll(centre, 1, 0)
    up = np.cross(off, ahead)
    up /= np.linalg.norm(up, axis=1, keepdims=True)
    probe = rows @ layer.canonical
    up *= _towards_open(layer, probe, up, bool(name))
    chest = np.argmin(probe[:, 1] + 2 * np.abs(probe[:, 0])) if not name else 0
    apart = np.abs((np.arange(POINTS) - chest + POINTS // 2) % POINTS - POINTS // 2) / (POINTS / 2)
    profile = TRIMS[name or cut.trim](apart.astype(np.float32))                       # (m, q, 2)
    points = centre[:, None] + profile[..., :1] * up[:, None] + profile[..., 1:] * off[:, None]
    q = points.shape[1]
    paint = np.stack([np.repeat(apart, q), np.tile(np.linspace(0, 1, q), POINTS), np.full(POINTS * q, cut.colour),
                      np.repeat(np.arange(POINTS), q)], 1).astype(np.float32)
    canonical = (probe[:, None] + points - centre[:, None]).reshape(-1, 3).astype(np.float32)
    shade = np.where(profile[..., 1] < 0, 0.5, 1.0).astype(np.float32).ravel()
    return Surface(points.reshape(-1, 3).astype(np.float32), canonical, _repeat(rows @ layer.skin, q),
                   strip(POINTS, q, closed=True), TRIM, paint, shade)


def _towards_open(layer: Surface, at: Floats, up: Floats, arm: bool) -> float:
    """+1 if `up` leads out of the cloth, −1 if into it."""
    field = layer.paint[:, 1 if arm else 0]
    near = np.linalg.norm(layer.canonical[None] - (at + up * 0.02)[::16, None], axis=-1).argmin(1)
    far = np.linalg.norm(layer.canonical[None] - (at - up * 0.02)[::16, None], axis=-1).argmin(1)
    return 1.0 if field[near].mean() < field[far].mean() else -1.0


def _repeat(matrix: Any, times: int) -> Any:
    """Each row of a sparse matrix several times."""
    return matrix.tocsr()[np.repeat(np.arange(matrix.shape[0]), times)]
