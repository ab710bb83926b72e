"""Contact sheets while a transformer is trained: what was filmed above what it makes of the same sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from infinitetalk.guidance import Guidance, Pass
from infinitetalk.networks import Codec
from infinitetalk.pictures import to_uint8
from infinitetalk.region import Kept
from infinitetalk.sampling import Sampling, denoise
from infinitetalk.train.flow import Samples, told
from infinitetalk.transformer import Transformer

EVERY = 4
"""Frames between two that are shown."""


def sampled(network: Transformer, samples: Samples, noise: Tensor, steps: int = 8, shift: float = 3.0) -> Tensor:
    """Chunks made by the engine's sampler, from what is known of them → (B, C, T, h, w).

    Args:
        network: In the mode to be judged.
        samples: What is known, and how long.
        noise: (B, C, T, h, w).
        steps: Of the sampler.
        shift: Of its schedule.
    """
    sampling = Sampling(steps=steps, shift=shift, guidance=Guidance(text=1.0, audio=1.0))
    return torch.stack([_one(network, samples.at(index), noise[index], sampling) for index in range(len(noise))])


def _one(network: Transformer, sample: Samples, noise: Tensor, sampling: Sampling) -> Tensor:
    sample = sample.to(network.device)
    with torch.no_grad():
        condition = told(network, sample)
    y = sample.y()  # (1, 4+C, T, h, w)

    def velocity(x: Tensor, t: Tensor, _which: Pass) -> Tensor:
        v: Tensor = network(x[None], y, t[None], condition)
        return v[0]

    made = denoise(velocity, noise.to(y), sample.latent[0, :, :int(sample.known[0])], sampling,
                   kept=Kept(sample.kept[0], sample.free[0]))
    return made.where(sample.free[0], sample.latent[0])


def save_sheet(file: Path, codec: Codec, truth: Tensor, made: Tensor) -> None:
    """Write a sheet.

    Args:
        file: PNG.
        codec: Makes pixels.
        truth: (B, C, T, h, w).
        made: The same.
    """
    from PIL import Image

    rows = []
    for one in (latent for pair in zip(truth, made, strict=True) for latent in pair):
        frames = np.concatenate([to_uint8(piece.cpu()) for piece in codec.decode(one)])[::EVERY]  # (n, H, W, 3)
        rows.append(np.concatenate(list(frames), axis=1))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(file)
