"""Where a picture is made anew, cell by cell of its latent; in all other cells the source stays.

While a chunk is denoised, the cells that stay follow the source at each step's noise (blended diffusion, Avrahami et
al., arXiv 2206.02779), and the transformer is told them as given, as it is told a reference. What lies in the cells
that are made anew is hidden beforehand, since latents tell of their neighbours: lips would follow those of the source.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, pad

from infinitetalk.shapes import SPATIAL, TEMPORAL

FEATHER = 3
"""Half of the pixels over which what is made passes into what stays."""


class Kept(NamedTuple):
    """What stays of the source in a chunk."""

    latent: Tensor  # (C, T, h, w)
    """Of the source, with what is made anew hidden."""
    free: Tensor  # (1, T, h, w) bool
    """Cells that are made anew."""

    def within(self, x: Tensor, noise: Tensor, share: float | Tensor) -> Tensor:
        """x (C, T, h, w) with the cells that stay at a share of noise: 0 is the source, 1 the noise (C, T, h, w)."""
        return torch.where(self.free, x, (1 - share) * self.latent + share * noise)


def cells(
    boxes: Tensor,  # (F, 4) left, top, right, bottom in pixels
    size: tuple[int, int],
) -> Tensor:
    """Cells whose middle lies in the box of one of their frames: (T, h, w) bool, for F = 4T - 3 frames of (H, W)."""
    def along(low: Tensor, high: Tensor, length: int) -> Tensor:  # (F,), (F,) → (F, cells)
        middles = (torch.arange(length // SPATIAL) + 0.5) * SPATIAL
        return (low[:, None] <= middles) & (middles < high[:, None])

    inside = along(boxes[:, 1], boxes[:, 3], size[0])[:, :, None] & along(boxes[:, 0], boxes[:, 2], size[1])[:, None]
    folded = torch.cat((inside[:1].expand(TEMPORAL - 1, -1, -1), inside)).unflatten(0, (-1, TEMPORAL))
    return folded.any(1)


def of_frames(
    free: Tensor,  # (T, h, w) bool
) -> Tensor:
    """The same pixel by pixel: (F, H, W) bool, F = 4T - 3."""
    large = interpolate(free[None].float(), scale_factor=SPATIAL)[0].bool()  # (T, H, W)
    return large.repeat_interleave(TEMPORAL, 0)[TEMPORAL - 1:]


def hide(
    pixels: Tensor,  # (3, F, H, W) in [-1, 1]
    free: Tensor,  # (T, h, w) bool
) -> Tensor:
    """Pixels that are grey in the cells that are made anew: (3, F, H, W)."""
    return pixels.masked_fill(of_frames(free).to(pixels.device), 0)


def visible(
    free: Tensor,  # (T, h, w) bool
) -> Tensor:
    """How much of what is made is seen at each pixel: (F, H, W), 0 to 1, F = 4T - 3.

    All in the cells that are made anew, since at their edges, too, the source would tell what was said; it fades out
    over the pixels around them.
    """
    wide = 2 * FEATHER + 1
    grown = max_pool2d(of_frames(free).float()[None], wide, stride=1, padding=FEATHER)  # (1, F, H, W)
    return avg_pool2d(pad(grown, (FEATHER,) * 4, mode="replicate"), wide, stride=1)[0]
