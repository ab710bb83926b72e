"""From a source picture (uint8 RGB) to pixels of the engine (float32 in [-1, 1], channel first), and back.

Sizes come either from the published tables of aspect ratios, or, for dubbing, from the source's own aspect.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infinitetalk.errors import BadInputError
from infinitetalk.shapes import PATCH, SPATIAL

Which = Literal["480", "720"]
GRID = SPATIAL * PATCH
"""Pixels per token along each side."""
AREAS: Mapping[Which, int] = {"480": 627 * 627, "720": 960 * 960}
"""Pixels of a frame, about, per size of the weights."""
BUCKETS: Mapping[Which, Mapping[float, tuple[int, int]]] = {
    "480": {0.26: (320, 1216), 0.38: (384, 1024), 0.50: (448, 896), 0.67: (512, 768), 0.82: (576, 704),
            1.00: (640, 640), 1.22: (704, 576), 1.50: (768, 512), 1.86: (832, 448), 2.00: (896, 448),
            2.50: (960, 384), 2.83: (1088, 384), 3.60: (1152, 320), 3.80: (1216, 320), 4.00: (1280, 320)},
    "720": {0.22: (448, 2048), 0.29: (512, 1792), 0.36: (576, 1600), 0.45: (640, 1408), 0.55: (704, 1280),
            0.63: (768, 1216), 0.76: (832, 1088), 0.88: (896, 1024), 1.00: (960, 960), 1.14: (1024, 896),
            1.31: (1088, 832), 1.50: (1152, 768), 1.58: (1216, 768), 1.82: (1280, 704), 1.91: (1344, 704),
            2.20: (1408, 640), 2.30: (1472, 640), 2.67: (1536, 576), 2.89: (1664, 576), 3.62: (1856, 512),
            3.75: (1920, 512)}}
"""Published tables: height / width → (H, W)."""


def bucket(height: int, width: int, which: Which) -> tuple[int, int]:
    """The published size (H, W) for a source of height × width pixels: nearest aspect, the first of equals."""
    _check(height, width)
    table = BUCKETS[which]
    return table[min(table, key=lambda aspect: abs(aspect - height / width))]


def dubbing_size(width: int, height: int, area: int = AREAS["480"]) -> tuple[int, int]:
    """The size (W, H) to dub a source at: its own aspect, sides multiples of 16, about `area` pixels.

    16:9 gives 832×464 at 480p and 1280×720 at 720p.

    Args:
        width: Of the source, pixels.
        height: Of the source, pixels.
        area: Pixels of a generated frame; see `AREAS`.

    Raises:
        BadInputError: A side is below 1.
    """
    _check(height, width)
    wide = max(1, round(math.sqrt(area * width / height) / GRID))
    high = max(1, round(math.sqrt(area * height / width) / GRID))
    return wide * GRID, high * GRID


def fit(image: NDArray[np.uint8], size: tuple[int, int]) -> Tensor:
    """Scale a picture to cover `size`, cut its centre → (3, H, W) float32 in [-1, 1].

    Pillow's bilinear filter, as published: torch's differs by one level.

    Args:
        image: (H, W, 3) RGB.
        size: (H, W) wanted.

    Raises:
        BadInputError: It is not a picture of uint8 RGB.
    """
    from PIL import Image

    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise BadInputError(f"{image.dtype} of shape {image.shape} is not a picture", where="fit",
                            hint="Give uint8 RGB of shape (H, W, 3)")
    _check(*image.shape[:2])
    scaled = _cover(image.shape[:2], size)
    resized = np.asarray(Image.fromarray(image).resize(scaled[::-1], Image.Resampling.BILINEAR))
    pixels = torch.from_numpy(resized[_centre(scaled, size)].copy()).permute(2, 0, 1)    # (3, H, W)
    return pixels.float().div(255).mul(2).sub(1)


def fit_mask(
    mask: Tensor,  # (C, H, W)
    size: tuple[int, int],
) -> Tensor:
    """As `fit`, for masks in source pixels: nearest pixel instead of a filter → (C, H, W) float32."""
    _check(*mask.shape[1:])
    scaled = _cover((mask.shape[1], mask.shape[2]), size)
    resized = torch.nn.functional.interpolate(mask.float()[None], size=scaled, mode="nearest")[0]
    return resized[(slice(None), *_centre(scaled, size))]


def to_uint8(
    frames: Tensor,  # (3, F, H, W) in [-1, 1]
) -> NDArray[np.uint8]:
    """Frames as they are seen → (F, H, W, 3); truncated, as published."""
    levels = frames.float().add(1).div(2).mul(255).clamp(0, 255).to(torch.uint8)  # (3, F, H, W)
    seen: NDArray[np.uint8] = levels.permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return seen


def from_uint8(
    picture: Tensor,  # (3, H, W) uint8
) -> Tensor:
    """A seen picture as pixels of the engine → (3, H, W) float32 in [-1, 1]."""
    return picture.float().div(255).mul(2).sub(1)


def _check(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise BadInputError(f"a picture of {width}×{height} pixels", where="picture", hint="Give one with pixels")


def _cover(source: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The (H, W) to scale to, so that `size` is covered."""
    scale = max(size[0] / source[0], size[1] / source[1])
    return math.ceil(scale * source[0]), math.ceil(scale * source[1])


def _centre(scaled: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """The middle `size` of `scaled`; torchvision's rounding of a half pixel (to even)."""
    top, left = (round((has - wants) / 2) for has, wants in zip(scaled, size, strict=True))
    return slice(top, top + size[0]), slice(left, left + size[1])
