"""Sizes of the transformer; the defaults are those of the public 14B weights (Wan2.1-I2V-14B with InfiniteTalk)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TransformerConfig:
    """Everything that decides names and shapes of the transformer's tensors."""

    dim: int = 5120
    """D."""
    ffn_dim: int = 13824
    freq_dim: int = 256
    """Width of the sinusoidal timestep embedding."""
    num_heads: int = 40
    num_layers: int = 40
    in_dim: int = 36
    """Channels in: noisy latent 16, mask 4, reference latent 16."""
    out_dim: int = 16
    text_len: int = 512
    text_dim: int = 4096
    clip_tokens: int = 257
    clip_dim: int = 1280
    audio_window: int = 5
    """Audio frames around each pixel frame."""
    audio_layers: int = 12
    """L: states of the audio encoder that are used."""
    audio_channels: int = 768
    audio_hidden: int = 512
    audio_dim: int = 768
    """Width of an audio token."""
    audio_tokens: int = 32
    """R."""
    eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        """d."""
        return self.dim // self.num_heads
