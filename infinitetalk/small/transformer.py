"""The engine's transformer, which tells of a picture only what its reference and the noisy latent do not tell already.

A small network that is asked for velocities spends itself on handing noise and faces through. So it is asked for
little, as Karras et al. precondition diffusion (arXiv 2206.00364, section 5): if latents and those of their references
were normal, the best guess would be known in closed form. That is what counts, and the network adds to it.
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
        """x = (1 - t)·picture + t·noise, y ends with the reference, and noise - picture is asked for.

        With r = kept · reference, m = moved and z = x - (1 - t)·r, the best guess of the picture is r + (1 - t)·m²/v·z,
        where v = (1 - t)²·m² + t², and it is off by t·m/√v: by so much of what the network says.
        """
        unknown = super().forward(x, y, t, condition, masks, cache)  # (B, C, T, h, w)
        t = (t.to(unknown) / NOISE)[:, None, None, None, None]
        expected = self.kept * y[:, -x.shape[1]:].to(unknown)  # (B, C, T, h, w)
        variance = ((1 - t) * self.moved).square() + t.square()  # (B, C, 1, 1, 1)
        guess = (t - (1 - t) * self.moved.square()) / variance * (x.to(unknown) - (1 - t) * expected) - expected
        return guess - self.moved * variance.rsqrt() * unknown
