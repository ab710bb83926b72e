"""Who is where in the picture, and whose voice drives whom.

The network tells two persons apart by masks (person 1, person 2, background) and label positions (L-RoPE, MultiTalk,
arXiv 2505.22647, section 3.3). Background lies at the same distance from both persons' labels, so it attends to both
voices alike; a person's own region sits at the label of his own voice.

That decides what to do where one is heard and others are only seen. With one voice there are no labels: every mouth
follows it. So the bystanders together become person 2, with digital silence for a voice: their region sits at the
label of silence, and their mouths stay shut. More than two visible persons need nothing else: those who are heard (two
at most) are driven, and all others are bystanders or, beside two who are heard, background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infinitetalk.errors import BadInputError
from infinitetalk.pictures import GRID, fit_mask
from infinitetalk.shapes import PATCH, SPATIAL

Box = tuple[int, int, int, int]
"""(x, y, width, height) in source pixels."""
Region = Box | NDArray[np.bool_]
"""Where somebody is: a box, or a mask (H, W) of the source picture."""
MARGIN = 0.05
"""Share of the height, and of half the width, that the default halves leave free at each end."""


@dataclass(frozen=True, eq=False)
class Cast:
    """How a shot's persons are driven."""

    voices: tuple[int | None, ...]
    """For each person of the network, which of those who are heard it is; None: digital silence."""
    masks: Tensor | None  # (3, h, w) float32, 0 or 1: person 1, person 2, background
    """None where there is but one person."""


def assign(
    heard: Sequence[Region | None], seen: Sequence[Region], source: tuple[int, int], size: tuple[int, int],
) -> Cast:
    """Decide who is driven by what.

    Args:
        heard: Where each of those is who speak, None if unknown. Two without regions are taken as left and right.
        seen: Where those are who are seen and not heard; what is cut off when the picture is fitted does not count.
        source: (H, W) of the source picture.
        size: (H, W) that is generated.

    Raises:
        BadInputError: More than two are heard, or a region is needed and missing, empty or outside of the picture.
    """
    places = list(halves(*source)) if len(heard) == 2 and all(one is None for one in heard) else list(heard)
    if len(places) > 2:
        raise BadInputError(f"{len(places)} are heard in one shot", where="speakers",
                            hint="At most two can be driven: cut the shot, or mix the others out")
    if len(places) < 2 and not seen:
        return Cast(tuple(range(len(places))) or (None,), None)
    if not places:
        return Cast((None,), None)
    known = [one for one in places if one is not None]
    if len(known) < len(places):
        raise BadInputError("it is not known where a speaker is", where="speakers", hint="Give everybody's region")
    masks = [region_mask(one, source) for one in known]                          # (H, W) each
    if len(known) == 2:
        return Cast((0, 1), person_masks(masks[0], masks[1], size))
    others = torch.stack([region_mask(one, source) for one in seen]).any(0) & ~masks[0]      # (H, W)
    if not fit_mask(others[None], size).any():
        return Cast((0,), None)
    return Cast((0, None), person_masks(masks[0], others, size))


def person_masks(
    first: Tensor,  # (H, W) bool, source pixels
    second: Tensor,  # (H, W) bool, source pixels
    size: tuple[int, int],
) -> Tensor:
    """Masks of two persons and of the rest, on the latent's grid → (3, h, w) float32.

    Args:
        first: Where person 1 is.
        second: Where person 2 is.
        size: (H, W) that is generated; the source is scaled and cut to it as its pictures are.

    Raises:
        BadInputError: Nothing of a person is left.
    """
    masks = torch.stack((first, second, ~(first | second)))                      # (3, H, W)
    return to_latent(fit_mask(masks, size))


def to_latent(
    masks: Tensor,  # (3, H, W) float32
) -> Tensor:
    """Masks of generated pixels on the latent's grid → (3, h, w) float32, 0 or 1.

    By the nearest pixel, as published. A person whom the grid of tokens misses so keeps the token of his centre.

    Raises:
        BadInputError: A person's mask is empty.
    """
    sides = (masks.shape[1] // SPATIAL, masks.shape[2] // SPATIAL)
    latent = torch.nn.functional.interpolate(masks[None].float(), size=sides, mode="nearest")[0]
    latent = (latent > 0).float()                                                # (3, h, w)
    for person in range(2):
        if latent[person, ::PATCH, ::PATCH].any():
            continue
        where = masks[person].nonzero()                                          # (pixels, 2)
        if not len(where):
            raise BadInputError("nothing of this person is in the generated picture", where=f"person {person + 1}",
                                hint="Give a region inside the picture that does not lie in another's")
        row, column = (where.float().mean(0) // GRID).long().mul(PATCH).tolist()
        latent[:, row, column] = 0
        latent[person, row, column] = 1
    return latent


def region_mask(region: Region, source: tuple[int, int]) -> Tensor:
    """A box or mask as a mask of the source picture → (H, W) bool.

    Raises:
        BadInputError: It is empty, or not inside a picture of that size.
    """
    if isinstance(region, np.ndarray):
        if region.shape != source or region.dtype != np.bool_ or not region.any():
            raise BadInputError(f"{region.dtype} of shape {region.shape} is no mask of this picture", where="region",
                                hint=f"Give bool of shape {source}, true somewhere")
        return torch.from_numpy(np.ascontiguousarray(region))
    x, y, width, height = region
    if min(x, y) < 0 or min(width, height) < 1 or x + width > source[1] or y + height > source[0]:
        raise BadInputError(f"box {region} is not inside a picture of {source[1]}×{source[0]} pixels", where="region",
                            hint="Give (x, y, width, height) in source pixels")
    mask = torch.zeros(source, dtype=torch.bool)                                 # (H, W)
    mask[y:y + height, x:x + width] = True
    return mask


def halves(height: int, width: int) -> tuple[Box, Box]:
    """Where two persons are if nobody says: left and right half, a margin free."""
    half = width // 2
    top, bottom = int(height * MARGIN), int(height * (1 - MARGIN))
    left, right = int(half * MARGIN), int(half * (1 - MARGIN))
    return (left, top, right - left, bottom - top), (half + left, top, right - left, bottom - top)
