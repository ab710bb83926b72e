"""What the small transformer is told besides sound: the reference picture's latent as tokens, and no text."""

from __future__ import annotations

import torch
from torch import Tensor

from infinitetalk.networks import Codec
from infinitetalk.shapes import PATCH


class LatentVision:
    """Looks at a picture through the codec: its latent, cut as the transformer cuts. A `networks.Vision`."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def __call__(
        self,
        image: Tensor,  # (3, H, W) in [-1, 1]
    ) -> Tensor:
        """A picture → (1, (h/2)(w/2), 64)."""
        return patches(self._codec.encode(image[:, None])[None, :, 0])


def patches(
    latent: Tensor,  # (B, C, h, w)
) -> Tensor:  # (B, (h/2)(w/2), 64)
    """One latent frame as tokens, row by row."""
    x = latent.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))  # (B, C, h/2, 2, w/2, 2)
    return x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


class NoText:
    """Reads no prompt: the small transformer was trained without any. Stands where `text.TextEncoder` does."""

    def __init__(self, text_dim: int) -> None:
        self._text_dim = text_dim

    def __call__(self, prompt: str) -> Tensor:
        """Any prompt → (0, text_dim)."""
        return torch.zeros(0, self._text_dim)
