"""A network with seeded random weights, made where it runs, and what it is fed: measuring needs no files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from infinitetalk.conditions import Condition
from infinitetalk.config import TransformerConfig
from infinitetalk.shapes import TEMPORAL, LatentShape
from infinitetalk.transformer import Transformer


def random_network(config: TransformerConfig, device: torch.device, dtype: torch.dtype, attention: str = "sdpa",
                   ) -> Transformer:
    """A transformer whose activations stay in range through any number of blocks."""
    with torch.device("meta"):
        network = Transformer(config, attention)
    network.to(dtype).to_empty(device=device).eval().requires_grad_(requires_grad=False)
    fill(network)
    return network


def fill(network: nn.Module, seed: int = 0) -> None:
    """Draw every parameter of a network; equal on every machine with the same kind of device."""
    for parameter in network.parameters():
        draw = torch.Generator(parameter.device).manual_seed(seed)
        if parameter.ndim > 1:
            parameter.data.normal_(0.0, parameter[0].numel() ** -0.5, generator=draw)
        else:
            parameter.data.normal_(1.0, 0.1, generator=draw)
        seed += 1


def inputs(network: Transformer, config: TransformerConfig, latent: LatentShape, device: torch.device,
           dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Condition]:
    """What one forward takes, seeded, with one speaker.

    Returns:
        x (1, 16, T, h, w), y (1, 20, T, h, w), t (1,) and the condition.
    """
    draw = None if device.type == "meta" else torch.Generator(device).manual_seed(1)

    def noise(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=draw, device=device, dtype=kind)

    frames = 1 + TEMPORAL * (latent.frames - 1)
    windows = noise(1, 1, frames, config.audio_window, config.audio_layers, config.audio_channels)  # (B, P, F, 5, L, C)
    text = network.embed_text([noise(config.text_len, config.text_dim)])
    image = network.embed_image(noise(1, config.clip_tokens, config.clip_dim))
    condition = Condition(text=text, image=image, audio=network.embed_audio(windows), persons=1)
    x = noise(1, config.out_dim, *latent, kind=torch.float32)
    y = noise(1, config.in_dim - config.out_dim, *latent)
    return x, y, torch.full((1,), 700.0, device=device), condition
