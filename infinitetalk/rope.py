"""Rotary positions: of video tokens on three axes (Wan 2.1, arXiv 2503.20314), and along a line for speaker labels.

Consecutive channels (2i, 2i+1) are one complex number, which is turned by the angle position · THETA^(-2i/size).
"""

from __future__ import annotations

import torch
from torch import Tensor

THETA = 10_000.0


class Rope3d:
    """Rotary positions (latent frame, row, column); each axis has its own share of a head's channels.

    Args:
        head_dim: d; width and height get d // 6 pairs each, time the rest.
    """

    def __init__(self, head_dim: int) -> None:
        side = 2 * (head_dim // 6)
        self.sizes = (head_dim - 2 * side, side, side)
        """Channels for time, height, width."""
        self._kept: dict[tuple[tuple[int, int, int], torch.device], Tensor] = {}

    def tables(self, grid: tuple[int, int, int], device: torch.device | str) -> Tensor:  # (N, 1, d/2, 2) float32
        """Cosine and sine for a latent grid (T, h/2, w/2), tokens in row-major order; the last grid's are kept."""
        key = (grid, torch.device(device))
        if key not in self._kept:
            self._kept = {key: self._tables(grid, key[1])}
        return self._kept[key]

    def _tables(self, grid: tuple[int, int, int], device: torch.device) -> Tensor:
        axes = [_angles(torch.arange(length, dtype=torch.float64), size)
                for length, size in zip(grid, self.sizes, strict=True)]
        views = [(-1, 1, 1), (1, -1, 1), (1, 1, -1)]
        angles = torch.cat([axis.view(*view, axis.shape[-1]).expand(*grid, -1)
                            for axis, view in zip(axes, views, strict=True)], dim=-1)  # (T, h/2, w/2, d/2)
        return _turns(angles.flatten(0, 2)[:, None]).float().to(device)

    def apply(
        self,
        x: Tensor,  # (B, N, A, d)
        tables: Tensor,  # (N, 1, d/2, 2)
    ) -> Tensor:  # (B, N, A, d)
        """Turn queries or keys; computed in float32, returned in their own type."""
        return _rotate(x, tables)


def rotate_1d(
    x: Tensor,  # (..., K, d)
    positions: Tensor,  # (..., K)
) -> Tensor:  # (..., K, d)
    """Turn each vector by its position on a line, whole or fractional; leading axes broadcast (float32 inside)."""
    return _rotate(x, _turns(_angles(positions.float(), x.shape[-1])))


def _angles(positions: Tensor, size: int) -> Tensor:
    """Positions (...) → angles (..., size/2), in the type of the positions."""
    exponents = torch.arange(0, size, 2, dtype=torch.float64, device=positions.device) / size
    return positions[..., None] * (THETA**-exponents).to(positions.dtype)


def _turns(
    angles: Tensor,  # (...)
) -> Tensor:  # (..., 2)
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def _rotate(
    x: Tensor,  # (..., d)
    turns: Tensor,  # (..., d/2, 2) float32
) -> Tensor:  # (..., d)
    pairs = x.float().unflatten(-1, (-1, 2))  # (..., d/2, 2)
    if torch.compiler.is_compiling():  # it fuses real numbers only; without a compiler complex ones are much faster
        (real, imaginary), (cos, sin) = pairs.unbind(-1), turns.unbind(-1)  # (..., d/2)
        pairs = torch.stack((real * cos - imaginary * sin, real * sin + imaginary * cos), dim=-1)  # (..., d/2, 2)
    else:
        pairs = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turns))  # (..., d/2, 2)
    return pairs.flatten(-2).to(x.dtype)
