"""A person put together: body, hair and clothes as one mesh, and that mesh moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from infinitetalk.world.body import (
    INSIDE,
    LEFT_EYE,
    LIDS,
    LIPS,
    LOWER_LASHES,
    LOWER_TEETH,
    RIGHT_EYE,
    SKIN,
    TONGUE,
    UPPER_LASHES,
    UPPER_TEETH,
    Body,
    body,
    bone_moves,
    turn,
)
from infinitetalk.world.clothes import covered, dress
from infinitetalk.world.hair import grow, scalp_margin
from infinitetalk.world.mesh import Triangles, gatherer, neighbours, normals, smoothed, still_normals
from infinitetalk.world.scene import FACE_UNITS, Floats, Motion, Person

X, Y, Z = np.eye(3, dtype=np.float32)
HANG = 0.64
"""Radians from the arms of the body at rest to arms that hang."""
TEETH = 0.0045
"""Metres that the upper teeth are lowered, so that speech shows them."""
KIND_OF_PART = {SKIN: 0, LEFT_EYE: 1, RIGHT_EYE: 1, UPPER_TEETH: 2, LOWER_TEETH: 2, TONGUE: 3, LOWER_LASHES: 7,
                UPPER_LASHES: 7}


@dataclass(frozen=True, eq=False)
class Figure:
    """One person's mesh at rest. The body's own V vertices come first."""

    rest: Floats
    """(N, 3)."""
    heads: Floats
    """Of the bones, (J, 3)."""
    skin: Any
    """Weights of the bones, sparse (N, J)."""
    drawn: dict[str, Triangles]
    """What is seen, by the program of `shaders.FRAGMENTS` that paints it, (…, 3)."""
    facets: Triangles
    """Triangles that normals come from, hidden ones included."""
    gather: Any
    """See `mesh.gatherer`."""
    still: Floats
    """What does not move: canonical place, paint, kind and shade, (N, 9)."""
    lips: NDArray[np.int64]
    """Vertices of the lips."""
    eyeballs: NDArray[np.int64]
    """Vertices of both eyes."""
    eyes: float
    """Height of the eyes, in metres."""


def assemble(person: Person) -> Figure:
    """The mesh of a person; the same person gives the same mesh."""
    found = body()
    r = np.random.default_rng([person.seed, 0x4A1B])
    rest, heads = found.rest(person.identity)
    rest[found.of_part(UPPER_TEETH), 2] -= TEETH
    hair, clothes = grow(found, rest, person, r), dress(found, rest, person)
    pieces, start = [], len(rest)
    moved: list[Triangles] = []
    for piece in clothes + hair:
        moved.append(piece.triangles + start)
        kind = np.full((len(piece.rest), 1), piece.kind)
        pieces.append(np.concatenate([piece.canonical, piece.paint, kind, piece.shade[:, None]], 1))
        start += len(piece.rest)
    hidden = (found.parts == SKIN) & covered(found, person)[found.triangles].all(1)
    facets = np.concatenate([found.triangles, *moved])
    still = np.concatenate([_painted(found, person), *pieces]).astype(np.float32)
    return Figure(
        rest=np.concatenate([rest, *(p.rest for p in clothes + hair)]), heads=heads,
        skin=sparse.vstack([found.skin, *(p.skin for p in clothes + hair)]).tocsr().astype(np.float32),
        drawn={"skin": found.triangles[(found.parts == SKIN) & ~hidden], "small": found.triangles[found.parts != SKIN],
               "cloth": np.concatenate(moved[:len(clothes)]),
               "hair": np.concatenate([np.zeros((0, 3), np.int64), *moved[len(clothes):]])}, facets=facets,
        gather=gatherer(facets, start), still=still, lips=np.flatnonzero(found.marks[:, LIPS] > 0.4),
        eyeballs=found.of_part(LEFT_EYE, RIGHT_EYE),
        eyes=float(rest[found.of_part(LEFT_EYE, RIGHT_EYE), 2].mean()))


def _painted(found: Body, person: Person) -> Floats:
    """Canonical place, paint, kind and shade of the body's own vertices, (V, 9)."""
    paint = np.zeros((len(found.mean), 4), np.float32)
    paint[:, :3] = found.marks[:, [LIPS, INSIDE, LIDS]]
    paint[:, 3] = scalp_margin(found, person)
    kind = np.zeros(len(found.mean), np.float32)
    for part, value in KIND_OF_PART.items():
        kind[found.of_part(part)] = value
    for part in (LEFT_EYE, RIGHT_EYE):
        mine = found.of_part(part)
        paint[mine, :3] = found.mean[mine] - found.mean[mine].mean(0)
    for part, length in ((LOWER_LASHES, 0.12), (UPPER_LASHES, 0.40)):
        mine = found.of_part(part)
        off = np.abs(found.mean[mine, 1] - found.mean[mine, 1].max())
        paint[mine, 0], paint[mine, 1] = off / off.max(), length
    return np.concatenate([found.mean, paint, kind[:, None], _hollows(found)[:, None]], 1)


@lru_cache(1)
def _hollows(found: Body) -> Floats:
    """How much light of the room reaches the skin: less in folds, under the chin and in the mouth, (V,)."""
    near = neighbours(found.triangles, len(found.mean))
    out = still_normals(found.mean, found.triangles)
    light = np.ones(len(found.mean), np.float32)
    for rounds, scale in ((4, 0.0016), (16, 0.004), (48, 0.009)):
        depth = ((smoothed(found.mean, near, rounds) - found.mean) * out).sum(1)
        light *= 1 - 0.45 * np.clip(depth / scale, 0, 1)
    below = np.clip((0.775 - found.mean[:, 2]) / 0.03, 0, 1) * np.clip((found.mean[:, 2] - 0.66) / 0.06, 0, 1)
    light *= 1 - 0.35 * below * np.clip(0.35 - out[:, 2] * 0.8, 0, 1)
    return np.asarray(smoothed(light[:, None], near, 2)[:, 0], np.float32)


def pose(figure: Figure, motion: Motion, frames: range) -> tuple[Floats, Floats]:
    """Vertices and normals (F, N, 3) of some frames of a motion."""
    found = body()
    picked = np.array(frames)
    units = motion.units[picked].astype(np.float32).copy()
    lowered = 0.45 * np.clip(motion.gaze[picked, 1], 0, 0.6)
    for side in ("Left", "Right"):
        column = FACE_UNITS.index(f"eyeBlink{side}")
        units[:, column] = np.clip(np.maximum(units[:, column], units[:, column] * (1 - lowered) + lowered), 0, 1)
    own = len(found.mean)
    moved = (found.units @ units.T).reshape(own, 3, len(picked)).transpose(0, 2, 1)             # (V, F, 3)
    bones = bone_moves(found, figure.heads, _turns(found, figure.heads, motion, picked), len(picked))
    rest = np.repeat(figure.rest[:, None], len(picked), 1)
    rest[:own] += moved
    points = np.ascontiguousarray(_skinned(figure.skin, bones, rest).transpose(1, 0, 2), np.float32)
    return points, normals(points, figure.facets, figure.gather)


def landmarks(figure: Figure, motion: Motion, frames: range) -> Floats:
    """Middle of the eyes, and of the lips as if they were at rest, (F, 2, 3): where the head has taken the face."""
    picked = np.array(frames)
    bones = bone_moves(body(), figure.heads, _turns(body(), figure.heads, motion, picked), len(picked))
    middles = [_skinned(figure.skin[some], bones, np.repeat(figure.rest[some][:, None], len(picked), 1)).mean(0)
               for some in (figure.eyeballs, figure.lips)]
    return np.asarray(np.stack(middles, 1), np.float32)


def _skinned(
    weights: Any,  # sparse (n, J)
    bones: Floats,  # (J, F, 3, 4)
    rest: Floats,  # (n, F, 3)
) -> Floats:
    """Where the bones take vertices: (n, F, 3)."""
    blended = (weights @ bones.reshape(len(bones), -1)).reshape(*rest.shape[:2], 3, 4)
    return np.asarray(np.einsum("nfij,nfj->nfi", blended[..., :3], rest) + blended[..., 3], np.float32)


def _turns(found: Body, heads: Floats, motion: Motion, picked: NDArray[np.int64]) -> Mapping[str, Floats]:
    """Rotations of the bones at some frames, (F, 3, 3) each."""
    made: dict[str, Floats] = {}
    for angles, bones in ((motion.head[picked], ("neck01", "neck02", "neck03", "head")),
                          (motion.torso[picked], ("spine04", "spine03", "spine02", "spine01"))):
        share = np.asarray(angles / len(bones), np.float32)
        step = turn(Z, share[:, 1]) @ turn(X, share[:, 0]) @ turn(Y, share[:, 2])
        made |= dict.fromkeys(bones, np.asarray(step, np.float32))
    gaze = motion.gaze[picked].astype(np.float32)
    made |= dict.fromkeys(("eye.L", "eye.R"), turn(Z, gaze[:, 0]) @ turn(X, gaze[:, 1]))
    for side, sign in (("L", 1.0), ("R", -1.0)):
        angles = motion.arms[picked, :4] if side == "L" else motion.arms[picked, 4:]
        made |= _arm(found, heads, angles.astype(np.float32), side, sign)
    return made


def _arm(found: Body, heads: Floats, angles: Floats, side: str, sign: float) -> dict[str, Floats]:
    """Rotations of one arm (F, 4) and its half-closed hand."""
    shoulder, elbow, wrist = (heads[found.bone(f"{b}.{side}")] for b in ("upperarm01", "lowerarm01", "wrist"))
    upper = np.asarray((elbow - shoulder) / np.linalg.norm(elbow - shoulder), np.float32)
    hinge = np.cross(upper, wrist - elbow)
    hinge = np.asarray(hinge / np.linalg.norm(hinge), np.float32)
    out, swing, bend, inwards = angles.T
    hang = turn(Y, sign * (HANG - out))
    made: dict[str, Floats] = {
        f"upperarm01.{side}": np.asarray(turn(X, -swing) @ hang @ turn(upper, sign * inwards), np.float32),
        f"lowerarm01.{side}": turn(hinge, bend - 0.25)}
    still = np.ones(len(angles), np.float32)
    knuckles = heads[found.bone(f"finger2-1.{side}")] - heads[found.bone(f"finger5-1.{side}")]
    curl = np.asarray(sign * knuckles / np.linalg.norm(knuckles), np.float32)
    for finger in range(2, 6):
        for joint, much in ((1, 0.22), (2, 0.35), (3, 0.25)):
            made[f"finger{finger}-{joint}.{side}"] = turn(curl, still * much * (0.8 + 0.1 * finger))
    return made
