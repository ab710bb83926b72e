"""The running average of a network's weights: what is judged, sampled from and shipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

DECAY = 0.999


class Ema:
    """Average of weights over the latest steps, in float32: a ← d·a + (1 - d)·w after each.

    d is `decay`, and smaller at the beginning, (1 + step) / (10 + step), so that a young average does not remember
    weights from before the training.
    """

    def __init__(self, network: nn.Module, decay: float = DECAY) -> None:
        """Begin with the weights as they are.

        Args:
            network: Whose weights; only those that are trained.
            decay: Towards which d rises.
        """
        self.decay = decay
        self.values: dict[str, Tensor] = {name: value.detach().float().clone()
                                          for name, value in network.named_parameters()}

    def rate(self, step: int) -> float:
        """d after step `step`, counted from 1."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        share = 1 - self.rate(step)
        for name, value in network.named_parameters():
            self.values[name].lerp_(value.float(), share)

    def put(self, network: nn.Module) -> None:
        """Lay the average into a network of the same shapes."""
        with torch.no_grad():
            for name, value in network.named_parameters():
                value.copy_(self.values[name])
