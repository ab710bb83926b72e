"""What the transformer is told besides the picture: text, reference image and audio, as tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

KeysValues = tuple[Tensor, Tensor]
"""Keys and values, each (B, K, A, d)."""


@dataclass(eq=False)
class Tokens:
    """Embedded tokens with the keys and values that each block made of them.

    These do not change from step to step, so they are computed once. The tokens belong to one transformer with one set
    of weights: other weights need new tokens.
    """

    states: Tensor
    """(B, K, ·) for text and image; (B, T, K, ·) for audio, K tokens beside each latent frame."""
    _kept: dict[int, KeysValues] = field(default_factory=dict, repr=False)

    def keys_values(self, layer: int, project: Callable[[Tensor], KeysValues]) -> KeysValues:
        """What `project` makes of the states for a layer, computed once.

        Args:
            layer: Index of the block.
            project: States → keys and values.
        """
        if layer in self._kept:
            return self._kept[layer]
        made = project(self.states)
        if not made[0].requires_grad:  # a graph can be walked back only once
            self._kept[layer] = made
        return made


@dataclass(frozen=True, eq=False)
class Condition:
    """One combination of what is told; the same `Tokens` may stand in several."""

    text: Tokens
    image: Tokens
    audio: Tokens
    persons: int = 1
    """How many are heard: 1, or 2 told apart by their labels."""


class StepCache(Protocol):
    """Lets a denoising step reuse what the blocks added in an earlier one (TeaCache, arXiv 2411.19108)."""

    def reuse(
        self,
        signal: Tensor,  # (B, 6, D) float32, the timestep's modulation
    ) -> Tensor | None:  # (B, N, D)
        """What to add instead of running the blocks; None: they must run."""

    def keep(
        self,
        residual: Tensor,  # (B, N, D)
    ) -> None:
        """Take what the blocks added."""
