"""The networks that a stream runs, by what it needs of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from infinitetalk.transformer import Transformer


class Codec(Protocol):
    """Pixels ↔ latents, causal in time: the latent of a clip's first frames does not depend on those after."""

    def encode(
        self,
        pixels: Tensor,  # (3, F, H, W) in [-1, 1]
    ) -> Tensor:
        """F frames → (C, T, h, w) float32."""
        ...

    def decode(
        self,
        latent: Tensor,  # (C, T, h, w)
    ) -> Iterator[Tensor]:
        """Frames in [-1, 1] as they are made: (3, 1, H, W), then (3, 4, H, W) again and again."""
        ...


class Vision(Protocol):
    """What is in a picture."""

    def __call__(
        self,
        image: Tensor,  # (3, H, W) in [-1, 1]
    ) -> Tensor:
        """A picture → (1, K, clip_dim)."""
        ...


@dataclass(frozen=True, eq=False)
class Networks:
    """Everything that makes pixels."""

    transformer: Transformer
    codec: Codec
    vision: Vision
    between: Literal["grey", "pictures"] = "grey"
    """What the transformer is told of a chunk's frames that no picture is given for: grey after each picture, as
    published, all encoded as one clip; or the picture before them, each encoded by itself and its latent repeated,
    so that every cell sees its own place of the reference, which a small network has no time to learn to look up."""

    @property
    def device(self) -> torch.device:
        """Where latents are denoised; blocks may lie elsewhere between their turns."""
        device: torch.device = self.transformer.device
        return device
