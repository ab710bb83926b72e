"""The body: an average of many people, components in which they differ, face units, and a skeleton (see BODY.md).

A body at rest stands with its hip at the origin and looks along −y. Bones turn about the axes of the world at rest,
each around its own head, children with their parents; vertices follow up to four bones (linear blend skinning).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from infinitetalk.errors import BadWeightsError
from infinitetalk.world.scene import FACE_UNITS, Floats

ASSET = Path(__file__).with_name("body.safetensors")
SHA256 = "3f52ac8de7d8d6013962cf024fb5674568d53576267abaacecdb33599b11b4d9"
"""Of the asset; `infra/world/bake.py` prints it."""
SKIN, LEFT_EYE, RIGHT_EYE, UPPER_TEETH, LOWER_TEETH, TONGUE, LOWER_LASHES, UPPER_LASHES = range(8)
LIPS, INSIDE, LIDS, EARS, NAILS = range(5)


@dataclass(frozen=True, eq=False)
class Body:
    """The asset, unpacked. V vertices, J bones, K components, T triangles."""

    mean: Floats
    """(V, 3)."""
    shapes: Floats
    """(K, V, 3): one standard deviation each."""
    bones: Floats
    """Heads of the bones, (J, 3)."""
    bone_shapes: Floats
    """(K, J, 3)."""
    names: tuple[str, ...]
    """Of the bones."""
    parents: tuple[int, ...]
    triangles: NDArray[np.int64]
    """(T, 3)."""
    parts: NDArray[np.uint8]
    """What each triangle is: SKIN, LEFT_EYE …, (T,)."""
    marks: Floats
    """Lips, inside of the mouth, lids, ears, nails: 0 … 1, (V, 5)."""
    skin: Any
    """Weight of each bone on each vertex, sparse (V, J)."""
    units: Any
    """Moves of the face units, sparse (3V, 52)."""
    traits: tuple[str, ...]
    trait_mean: Floats
    trait_fit: Floats
    """Components from traits, (traits + 1, K)."""
    trait_rest: Floats
    """Lower triangle: how components vary among people of the same traits, (K, K)."""

    def identity(self, traits: Mapping[str, float], noise: Floats) -> Floats:
        """Component weights of somebody with these traits; `noise` (K,) makes them themselves → (K,)."""
        given = np.array([traits[name] for name in self.traits], np.float32) - self.trait_mean
        return np.asarray(np.append(given, 1) @ self.trait_fit + self.trait_rest @ noise, np.float32)

    def rest(self, identity: Floats) -> tuple[Floats, Floats]:
        """Vertices (V, 3) and heads of the bones (J, 3) of one person, in metres."""
        return (self.mean + np.tensordot(identity, self.shapes, 1).astype(np.float32),
                self.bones + np.tensordot(identity, self.bone_shapes, 1).astype(np.float32))

    def bone(self, name: str) -> int:
        """Its index."""
        return self.names.index(name)

    def of_part(self, *parts: int) -> NDArray[np.int64]:
        """Vertices of these parts."""
        return np.unique(self.triangles[np.isin(self.parts, parts)])


def load(path: Path = ASSET, sha256: str = SHA256) -> Body:
    """The asset, checked.

    Raises:
        BadWeightsError: It is absent, or not the file it should be.
    """
    from safetensors.numpy import load as unpack

    hint = "Restore it with git, or bake it again: infinitetalk/world/BODY.md"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadWeightsError("the body of the synthetic world cannot be read", where=str(path), hint=hint) from error
    found = hashlib.sha256(raw).hexdigest()
    if found != sha256:
        raise BadWeightsError(f"the body of the synthetic world was altered: sha256 {found[:12]}…, not {sha256[:12]}…",
                              where=str(path), hint=hint)
    notes = _notes(raw)
    return _unpacked(unpack(raw), notes)


@lru_cache(1)
def body() -> Body:
    """The shipped body, read once."""
    return load()


def _notes(raw: bytes) -> dict[str, str]:
    """Metadata of a safetensors file."""
    import json

    length = int.from_bytes(raw[:8], "little")
    found = json.loads(raw[8:8 + length])["__metadata__"]
    return {str(k): str(v) for k, v in found.items()}


def _unpacked(tensors: dict[str, NDArray[Any]], notes: dict[str, str]) -> Body:
    """Floats as float32, sparse things as matrices."""
    count = len(tensors["mean"])
    weights = tensors["weights"].astype(np.float32)
    weights /= weights.sum(1, keepdims=True)
    rows = np.repeat(np.arange(count), 4)
    skin = sparse.csr_matrix((weights.ravel(), (rows, tensors["joints"].ravel())), (count, len(tensors["bones"])))
    at = tensors["unit_vertex"].astype(np.int64)[:, None] * 3 + np.arange(3)
    order = np.array([FACE_UNITS.index(u) for u in notes["units"].split()])
    columns = np.repeat(order[tensors["unit"]], 3)
    units = sparse.csr_matrix((tensors["unit_move"].astype(np.float32).ravel(), (at.ravel(), columns)), (3 * count, 52))
    return Body(
        mean=tensors["mean"], shapes=tensors["shapes"].astype(np.float32), bones=tensors["bones"],
        bone_shapes=tensors["bone_shapes"].astype(np.float32), names=tuple(notes["bones"].split()),
        parents=tuple(int(p) for p in tensors["parents"]), triangles=tensors["triangles"].astype(np.int64),
        parts=tensors["parts"], marks=np.asarray(tensors["marks"] / 255, np.float32), skin=skin, units=units,
        traits=tuple(notes["traits"].split()), trait_mean=tensors["trait_mean"],
        trait_fit=tensors["trait_fit"].astype(np.float32), trait_rest=tensors["trait_rest"].astype(np.float32))


def turn(axis: Floats, angle: Floats) -> Floats:
    """Rotation matrices about one unit axis (3,) by angles (F,) → (F, 3, 3)."""
    x, y, z = (float(v) for v in axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]], np.float32)
    s, c = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.asarray(np.eye(3, dtype=np.float32) + s * cross + (1 - c) * (cross @ cross), np.float32)


def bone_moves(body: Body, heads: Floats, turns: Mapping[str, Floats], frames: int) -> Floats:
    """What each bone does to what hangs on it.

    Args:
        body: Names and parents of the bones.
        heads: The person's heads of bones at rest, (J, 3).
        turns: Rotations by bone, (F, 3, 3) each; the others keep still.
        frames: F.

    Returns:
        (J, F, 3, 4): rotation and shift.
    """
    found = np.zeros((len(heads), frames, 3, 4), np.float32)
    still = np.broadcast_to(np.eye(3, dtype=np.float32), (frames, 3, 3))
    for j, (name, parent) in enumerate(zip(body.names, body.parents, strict=True)):
        rotation = turns.get(name, still)
        if parent < 0:
            whole, place = rotation, np.broadcast_to(heads[j], (frames, 3))
        else:
            above = found[parent]
            whole = above[..., :3] @ rotation if name in turns else above[..., :3]
            place = above[..., :3] @ heads[j] + above[..., 3]
        found[j, ..., :3] = whole
        found[j, ..., 3] = place - whole @ heads[j]
    return found
