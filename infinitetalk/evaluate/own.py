"""Extractors of the project's own, which need no weights: for regressions and ablations, not beside other papers.

`Layout` describes a picture by the colours and edges in a grid of 4×4 cells: 4×4×(3 + 4) = 112 numbers. A clip is
described by its mean picture and by where it changes: 112 + 16 numbers.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.measure import Floats, Pixels, Reals

CELLS = 4
DIRECTIONS = 4
EDGES = 10.0
"""Edges count ten times, so that they weigh about as much as colours."""


class Layout:
    """Colours and edges by place."""

    name = "layout-112 (the project's own)"

    def of_images(self, frames: Pixels) -> Floats:
        """(F, H, W, 3) → (F, 112)."""
        return np.stack([self._of(frame) for frame in frames])

    def of_clips(self, clips: Pixels) -> Floats:
        """(n, F, H, W, 3) → (n, 128)."""
        rows = []
        for clip in clips:
            change = np.mean([np.abs(after.astype(np.float32) - before).mean(-1)
                              for before, after in pairwise(clip)], 0) / 255
            moved = _cells(np.asarray(change, np.float32)[..., None])
            rows.append(np.concatenate([self.of_images(clip).mean(0), EDGES * moved.ravel()]))
        return np.array(rows, np.float32)

    @staticmethod
    def _of(frame: Pixels) -> Floats:
        if min(frame.shape[:2]) < 2 * CELLS:
            raise BadInputError(f"a picture of {frame.shape[1]}×{frame.shape[0]} pixels", where="layout-112",
                                hint=f"Give at least {2 * CELLS} pixels a side")
        colours = frame.astype(np.float32) / 255
        light: Reals = colours @ np.array([0.299, 0.587, 0.114])
        down, right = (np.asarray(side, np.float64)[..., None] for side in np.gradient(light))
        angles = np.arange(DIRECTIONS) * np.pi / DIRECTIONS
        edges: Reals = np.abs(right * np.cos(angles) + down * np.sin(angles))
        return np.concatenate([_cells(colours).ravel(), EDGES * _cells(edges).ravel()]).astype(np.float32)


def _cells(values: Floats | Reals) -> Floats:
    """Means over a grid of cells: (H, W, C) → (4, 4, C)."""
    rows, columns = (np.linspace(0, length, CELLS + 1).round().astype(int)[:-1] for length in values.shape[:2])
    sums = np.add.reduceat(np.add.reduceat(values, rows, 0), columns, 1)
    high, wide = (np.diff(np.append(edges, length)) for edges, length in
                  ((rows, values.shape[0]), (columns, values.shape[1])))
    return np.asarray(sums / (high[:, None] * wide)[..., None], np.float32)
