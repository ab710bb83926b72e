"""Is it the same face: cosines of what a face network says, and which frames it could look at.

CSIM is the cosine with the source's frame of the same time (a video was dubbed) or with the reference picture. CSIM*
takes the mean face away first: embeddings that are not centred, as dlib's, all point one way, and strangers score 0.9.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.measure import Floats, Pixels, Reals

SAME_PERSON = 0.36
"""dlib-128 distance up to which rendered people are the same one: same 0.21, different 0.51 on renders."""
FACESIM_FRAMES = 16
ARCFACE_POINTS = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
"""Eyes, nose and corners of the mouth (x, y) in ArcFace's picture of 112×112."""


class FaceEmbedder(Protocol):
    """Turns pictures of people into vectors."""

    name: str
    centre: Floats | None
    """Mean embedding over many people, (D,); with it, CSIM is centred, and is called CSIM*."""

    def embed(self, frames: Pixels) -> Floats:
        """Of the largest face of each frame (F, H, W, 3): (F, D); NaN where there is none."""
        ...


class Likeness(NamedTuple):
    """How alike faces are."""

    cosine: float
    """Mean over frames with a face."""
    distance: float
    """Mean Euclidean distance."""
    near: float
    """Share of frames within the distance that counts as the same person."""
    covered: int
    """Frames with a face in both …"""
    of: int
    """… of so many."""


def likeness(faces: Floats, reference: Floats, centre: Floats | None = None, near: float = SAME_PERSON) -> Likeness:
    """CSIM of embeddings, or CSIM* with the embeddings' `centre`.

    Args:
        faces: (F, D); NaN where there is no face.
        reference: One for all, (D,), or one a frame, (F, D).
        centre: Mean over many people, (D,).
        near: Distance of the same person.

    Raises:
        BadInputError: Other shapes, or no frame with a face.
    """
    faces, reference = np.asarray(faces, np.float64), np.asarray(reference, np.float64)
    if faces.ndim != 2 or reference.shape not in {faces.shape, faces.shape[1:]}:
        raise BadInputError(f"embeddings of shapes {faces.shape} and {reference.shape} cannot be compared",
                            where="CSIM", hint="Give one reference, or one a frame")
    other = np.broadcast_to(reference, faces.shape)
    seen = np.isfinite(faces).all(1) & np.isfinite(other).all(1)
    if not seen.any():
        raise BadInputError(f"no face is found in {len(faces)} frames", where="CSIM",
                            hint="Give a larger picture of the face")
    a, b = faces[seen], other[seen]
    apart = np.linalg.norm(a - b, axis=1)
    shift = np.zeros(faces.shape[1]) if centre is None else np.asarray(centre, np.float64)
    return Likeness(float(_cosine(a - shift, b - shift).mean()), float(apart.mean()), float((apart <= near).mean()),
                    int(seen.sum()), len(faces))


def facesim(faces: Floats, reference: Floats) -> float:
    """FaceSIM ("FSIM") as ConsisID's evaluation: cosines below 0 count as 0, frames without a face not at all.

    Args:
        faces: (16, D), of frames at `uniform` places; NaN where there is no face.
        reference: (D,).

    Returns:
        The mean; 0 where no frame has a face.
    """
    seen = np.isfinite(faces).all(1)
    if not seen.any() or not np.isfinite(reference).all():
        return 0.0
    known = np.asarray(faces[seen], np.float64)
    return float(np.maximum(_cosine(known, np.broadcast_to(reference, known.shape)), 0).mean())


def uniform(frames: int, count: int = FACESIM_FRAMES) -> list[int]:
    """Places of `count` frames spread evenly over `frames`, ends included."""
    return [int(at) for at in np.linspace(0, max(frames - 1, 0), count)]


def _cosine(a: Reals, b: Reals) -> Reals:
    """Row by row, (n,)."""
    scale = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(1) / np.maximum(scale, 1e-12), np.float64)


def similarity(points: Reals, onto: Reals) -> Reals:
    """The turn, scale and shift that best lays points (n, 2) onto others (Umeyama): a matrix (2, 3).

    Raises:
        BadInputError: Fewer than two points, or all in one place.
    """
    points, onto = np.asarray(points, np.float64), np.asarray(onto, np.float64)
    if points.shape != onto.shape or points.ndim != 2 or points.shape[1] != 2 or len(points) < 2:
        raise BadInputError(f"points of shapes {points.shape} and {onto.shape}", where="alignment")
    here, there = points.mean(0), onto.mean(0)
    a, b = points - here, onto - there
    power = float((a * a).sum())
    if power < 1e-12:
        raise BadInputError("all points are in one place", where="alignment")
    u, s, v = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0 if np.linalg.det(u @ v) > 0 else -1.0])
    turn = (u * sign) @ v
    scale = float((s * sign).sum()) / power
    return np.concatenate([scale * turn, (there - scale * turn @ here)[:, None]], 1)
