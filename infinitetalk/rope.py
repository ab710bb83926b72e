"""Rotary positions: of video tokens on three axes (Wan 2.1, arXiv 2503.20314), and along a line for speaker labels.

Consecutive channels (2i, 2i+1) are one complex number, which is turned by the angle position · THETA^(-2i/size).
"""

from __future__ import annotations

import torch
from torch import Tensor

THETA = 10_000.0

Tables = tuple[Tensor, Tensor]
"""Cosine and sine of the angle of every token and pair of channels, each (N, 1, d/2) float32."""


class Rope3d:
    """Rotary positions (latent frame, row, column); each axis has its own share of a head's channels.

    Args:
        head_dim: d; width and height get d // 6 pairs each, time the rest.
    """

    def __init__(self, head_dim: int) -> None:
        side = 2 * (head_dim // 6)
        self.sizes = (head_dim - 2 * side, side, side)
        """Channels for time, height, width."""
        self._kept: dict[tuple[tuple[int, int, int], torch.device], Tables] = {}

    def tables(self, grid: tuple[int, int, int], device: torch.device | str) -> Tables:
        """Tables of a latent grid (T, h/2, w/2), tokens in row-major order; the last grid's are kept."""
        key = (grid, torch.device(device))
        if key not in self._kept:
            self._kept = {key: self._tables(grid, key[1])}
        return self._kept[key]

    def _tables(self, grid: tuple[int, int, int], device: torch.device) -> Tables:
        axes = [_angles(torch.arange(length, dtype=torch.float64), size)
                for length, size in zip(grid, self.sizes, strict=True)]
        views = [(-1, 1, 1), (1, -1, 1), (1, 1, -1)]
        angles = torch.cat([axis.view(*view, axis.shape[-1]).expand(*grid, -1)
                            for axis, view in zip(axes, views, strict=True)], dim=-1)  # (T, h/2, w/2, d/2)
        angles = angles.flatten(0, 2)[:, None]  # (N, 1, d/2)
        return angles.cos().float().to(device), angles.sin().float().to(device)

    def apply(
        self,
        x: Tensor,  # (B, N, A, d)
        tables: Tables,
    ) -> Tensor:  # (B, N, A, d)
        """Turn queries or keys; computed in float32, returned in their own type."""
        return _rotate(x, *tables)


def rotate_1d(
    x: Tensor,  # (..., K, d)
    positions: Tensor,  # (..., K)
) -> Tensor:  # (..., K, d)
    """Turn each vector by its position on a line, whole or fractional; leading axes broadcast (float32 inside)."""
    angles = _angles(positions.float(), x.shape[-1])  # (..., K, d/2)
    return _rotate(x, angles.cos(), angles.sin())


def _angles(positions: Tensor, size: int) -> Tensor:
    """Positions (...) → angles (..., size/2), in the type of the positions."""
    exponents = torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size
    return positions[..., None] * (THETA**-exponents).to(positions.dtype)


def _rotate(
    x: Tensor,  # (..., d)
    cos: Tensor,  # (..., d/2)
    sin: Tensor,  # (..., d/2)
) -> Tensor:  # (..., d)
    real, imaginary = x.float().unflatten(-1, (-1, 2)).unbind(-1)  # (..., d/2)
    turned = torch.stack((real * cos - imaginary * sin, real * sin + imaginary * cos), dim=-1)  # (..., d/2, 2)
    return turned.flatten(-2).to(x.dtype)
