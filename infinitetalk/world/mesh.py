"""Small tools for meshes: neighbours, smoothing, normals, level lines and bands along them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from infinitetalk.world.scene import Floats

Triangles = NDArray[np.int64]


@dataclass(frozen=True)
class Surface:
    """A piece of a figure: something that is drawn in one way."""

    rest: Floats
    """Vertices at rest, (n, 3)."""
    canonical: Floats
    """Where they are on the average body, (n, 3): paint is placed there."""
    skin: Any
    """Weights of the bones, sparse (n, J)."""
    triangles: Triangles
    """(t, 3)."""
    kind: int
    """What the shader paints: CLOTH, TRIM or HAIR; the body has kinds of its own."""
    paint: Floats
    """Four numbers a vertex, their meaning the kind's, (n, 4)."""
    shade: Floats
    """How much light of the room arrives, 0 … 1, (n,)."""


def neighbours(triangles: Triangles, count: int) -> Any:
    """Rows that average a vertex' neighbours, sparse (n, n); lonely vertices keep themselves."""
    a, b, c = triangles.T
    rows = np.concatenate([a, b, b, c, c, a])
    columns = np.concatenate([b, a, c, b, a, c])
    near = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (count, count))
    near.data[:] = 1
    total = np.asarray(near.sum(1)).ravel()
    lonely = sparse.diags((total == 0).astype(np.float32))
    return sparse.csr_matrix(sparse.diags(1 / np.maximum(total, 1)) @ near + lonely, dtype=np.float32)


def smoothed(points: Floats, near: Any, rounds: int, much: Floats | None = None) -> Floats:
    """Points pulled `rounds` times towards their neighbours' mean, each as `much` as it says (n,)."""
    share = 0.6 if much is None else 0.6 * much[:, None]
    for _ in range(rounds):
        points = points + share * (near @ points - points)
    return np.asarray(points, np.float32)


def gatherer(triangles: Triangles, count: int) -> Any:
    """Sums the triangles' normals at their vertices, sparse (n, t)."""
    columns = np.repeat(np.arange(len(triangles)), 3)
    return sparse.csr_matrix((np.ones(len(columns), np.float32), (triangles.ravel(), columns)), (count, len(triangles)))


def normals(points: Floats, triangles: Triangles, gather: Any) -> Floats:
    """Unit normals at the vertices (F, n, 3) of F poses (F, n, 3)."""
    a, b, c = (points[:, triangles[:, k]] for k in range(3))
    u, v = b - a, c - a
    flat = np.empty_like(u)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        flat[..., i] = u[..., j] * v[..., k] - u[..., k] * v[..., j]
    frames, count = points.shape[:2]
    total = gather @ flat.transpose(1, 0, 2).reshape(len(triangles), -1)
    total = total.reshape(count, frames, 3)
    total /= np.sqrt(np.einsum("nfi,nfi->nf", total, total) + 1e-20)[..., None]
    return np.ascontiguousarray(total.transpose(1, 0, 2), np.float32)


def still_normals(points: Floats, triangles: Triangles) -> Floats:
    """Unit normals of one pose (n, 3)."""
    return np.asarray(normals(points[None], triangles, gatherer(triangles, len(points)))[0])


def used(triangles: Triangles) -> tuple[NDArray[np.int64], Triangles]:
    """The vertices that triangles use, and the triangles among these alone."""
    kept, flat = np.unique(triangles, return_inverse=True)
    return kept, np.asarray(flat.reshape(-1, 3), np.int64)


def level_lines(field: Floats, triangles: Triangles) -> list[Any]:
    """Closed lines along which a field on the vertices is 0.

    Args:
        field: One number a vertex, (n,).
        triangles: (t, 3).

    Returns:
        For each line a sparse (m, n): the rows mix the two ends of the edges that it crosses, in order.
    """
    above = field > 0
    edges: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for t in triangles[(above[triangles].sum(1) % 3) > 0]:
        crossed = [(int(min(p, q)), int(max(p, q))) for p, q in ((t[0], t[1]), (t[1], t[2]), (t[2], t[0]))
                   if above[p] != above[q]]
        edges.setdefault(crossed[0], []).append(crossed[1])
        edges.setdefault(crossed[1], []).append(crossed[0])
    lines = []
    while edges:
        at = next(iter(edges))
        line = [at]
        while True:
            onward = [e for e in edges.pop(at) if e in edges]
            if not onward:
                break
            at = onward[0]
            line.append(at)
        if len(line) > 8:
            lines.append(_crossings(line, field))
    return lines


def _crossings(line: list[tuple[int, int]], field: Floats) -> Any:
    """Rows that mix the ends of edges where the field is 0, sparse (m, n)."""
    pairs = np.array(line)
    low, high = field[pairs[:, 0]], field[pairs[:, 1]]
    share = (low / (low - high)).astype(np.float32)
    rows = np.repeat(np.arange(len(line)), 2)
    return sparse.csr_matrix((np.stack([1 - share, share], 1).ravel(), (rows, pairs.ravel())), (len(line), len(field)))


def even(line: Any, points: Floats, count: int) -> Any:
    """A closed line's rows (m, n) resampled to `count` rows, evenly along `points` (n, 3)."""
    at = line @ points
    steps = np.linalg.norm(np.roll(at, -1, 0) - at, axis=1)
    along = np.concatenate([[0], np.cumsum(steps)])
    wanted = np.arange(count) / count * along[-1]
    left = np.clip(np.searchsorted(along, wanted, "right") - 1, 0, len(at) - 1)
    share = ((wanted - along[left]) / np.maximum(steps[left], 1e-9)).astype(np.float32)
    rows = np.repeat(np.arange(count), 2)
    columns = np.stack([left, (left + 1) % len(at)], 1).ravel()
    return sparse.csr_matrix((np.stack([1 - share, share], 1).ravel(), (rows, columns)), (count, len(at))) @ line


def ring_smoothed(points: Floats, rounds: int) -> Floats:
    """Points of a closed line pulled towards their neighbours, (m, 3)."""
    for _ in range(rounds):
        points = points * 0.5 + (np.roll(points, 1, 0) + np.roll(points, -1, 0)) * 0.25
    return points


def strip(rows: int, columns: int, closed: bool) -> Triangles:
    """Triangles of a grid (rows, columns), rows joined end to end if closed."""
    i, j = np.meshgrid(np.arange(rows if closed else rows - 1), np.arange(columns - 1), indexing="ij")
    a, b = i * columns + j, (i + 1) % rows * columns + j
    return np.stack([np.stack([a, b, b + 1], -1), np.stack([a, b + 1, a + 1], -1)], 2).reshape(-1, 3).astype(np.int64)
