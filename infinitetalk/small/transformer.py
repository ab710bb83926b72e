"""The engine's transformer, which is asked for pictures where the engine asks for velocities.

Noise has no structure: a token of 128 noisy numbers does not pass 160 channels whole, and what is lost of it stays in
the picture as grain. A picture passes, and is known in part: by how much it resembles its reference is measured, and
only the rest is asked for. That networks of few channels should tell the picture is found in Li and He, "Back to
Basics: Let Denoising Generative Models Denoise" (arXiv 2511.13720).
"""

from __future__ import annotations

import torch
from torch import Tensor

from infinitetalk.conditions import Condition, StepCache
from infinitetalk.config import TransformerConfig
from infinitetalk.schedule import NOISE
from infinitetalk.transformer import Transformer

LEAST = 0.05
"""Smallest deviation of a channel from its reference that is reckoned with."""
SOONEST = 0.05
"""Time, of 1, that a velocity is reckoned with at least: towards 0 any error of the picture would be an endless one."""


class SmallTransformer(Transformer):
    """Velocities (B, C, T, h, w), as the engine's transformer gives them."""

    kept: Tensor
    """Share of each channel's reference that is expected of a picture, (C, 1, 1, 1)."""
    moved: Tensor
    """Standard deviation of each channel from that, (C, 1, 1, 1)."""

    def __init__(self, config: TransformerConfig, attention: str = "sdpa") -> None:
        super().__init__(config, attention)
        self.register_buffer("kept", torch.zeros(config.out_dim, 1, 1, 1))
        self.register_buffer("moved", torch.ones(config.out_dim, 1, 1, 1))

    def measure(
        self,
        latent: Tensor,  # (B, C, T, h, w)
        reference: Tensor,  # (B, C, T, h, w)
    ) -> None:
        """Learn from examples how far latents go with their references."""
        over = (0, 2, 3, 4)
        kept = (latent * reference).sum(over) / reference.square().sum(over).clamp_min(LEAST)  # (C,)
        self.kept.copy_(kept[:, None, None, None])
        moved = (latent - self.kept * reference).square().mean(over).sqrt().clamp_min(LEAST)  # (C,)
        self.moved.copy_(moved[:, None, None, None])

    def forward(
        self,
        x: Tensor,  # (B, C, T, h, w)
        y: Tensor,  # (B, 4+C, T, h, w)
        t: Tensor,  # (B,) 1000: noise, 0: picture
        condition: Condition,
        masks: Tensor | None = None,  # (3, h, w)
        cache: StepCache | None = None,
    ) -> Tensor:  # (B, C, T, h, w) float32
        """x = (1 - t)·picture + t·noise; y ends with the reference; asked for is noise - picture = (x - picture) / t.

        The network says by how many deviations the picture is off what is expected of it by its reference.
        """
        told = super().forward(x, y, t, condition, masks, cache)  # (B, C, T, h, w)
        picture = self.kept * y[:, -x.shape[1]:].to(told) + self.moved * told  # (B, C, T, h, w)
        velocity: Tensor = (x.to(told) - picture) / (t.to(told) / NOISE).clamp_min(SOONEST)[:, None, None, None, None]
        return velocity
