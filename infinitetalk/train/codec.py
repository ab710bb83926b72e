"""Training of the autoencoder: pixels and their gradients are to be near, the mouth's three times as much.

Latents are noised by a little of their spread while it trains and drawn towards 0, so that neighbouring latents mean
similar pictures and those that a transformer makes, never quite right, are decoded without harm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import pixel_unshuffle

from infinitetalk.errors import BadInputError
from infinitetalk.pictures import from_uint8
from infinitetalk.shapes import SPATIAL, TEMPORAL, latent_frames
from infinitetalk.small.codec import BLOCK, WEIGHTS, Autoencoder, SmallCodec
from infinitetalk.small.config import SmallConfig
from infinitetalk.train.latents import TalkingClip, coverage
from infinitetalk.train.loop import LONGEST, Piece, Recipe, Run, Told, write_half

RECIPE = Recipe(steps=2500, rate=1e-3, batch=6, decay=0.0, ema=0.995)
SOFT = 0.2
"""Error below which its square counts."""
MEASURED = 64
"""Clips by which latents are normalised, and begin."""


@dataclass(frozen=True)
class CodecLoss:
    """How pictures are compared."""

    frames: int = 9
    """Of an example: 4k+1."""
    mouth: float = 3.0
    """Weight of the mouth's box against the rest."""
    gradient: float = 0.5
    """Weight of differences between neighbouring pixels, along both sides and in time, against the pixels'."""
    noise: float = 0.05
    """Standard deviation of the noise on latents, over theirs."""
    pull: float = 1e-4
    """Weight of their squares."""


class Fidelity(NamedTuple):
    """How well held-out clips come back, in decibels (PSNR over pixels in 0 … 255, the peak being 255)."""

    whole: float
    mouth: float
    """Inside the mouth's box alone."""
    worst: float
    """Of the worst clip."""


def train_codec(config: SmallConfig, clips: Sequence[TalkingClip], out: Path, minutes: float = LONGEST, *,
                recipe: Recipe = RECIPE, weighing: CodecLoss | None = None, begin: Path | None = None,
                device: torch.device | str = "cpu", told: Told = lambda step, loss: None) -> Piece:
    """Train the autoencoder, or go on with it; its average is written as `codec.safetensors` at the end of each piece.

    Args:
        config: Sizes.
        clips: What to learn from; read where they lie, so that they need not fit into memory.
        out: Where states and weights are written.
        minutes: Wall clock of this piece.
        recipe: How weights are found.
        weighing: How pictures are compared.
        begin: Weights to begin with, of an earlier run; a run that stands somewhere already goes on from there.
        device: Where to compute.
        told: Step and loss, after each.

    Raises:
        BadWeightsError: `begin` is not of this configuration.
        BadInputError: No clip is long enough, or the folder holds another run.
        DivergedError: The loss is no number; the last good state is kept.
    """
    weighing = weighing or CodecLoss()
    long = [clip for clip in clips if len(clip.frames) >= weighing.frames]
    if not long:
        raise BadInputError(f"no clip has {weighing.frames} frames", where="training", hint="Give longer clips")
    torch.manual_seed(recipe.seed)
    network = SmallCodec.read(begin, config.codec).network.train() if begin else Autoencoder(config.codec)
    network = network.to(device, memory_format=torch.channels_last)

    def first() -> None:
        if begin is None:
            network.begin(_cubes(long, weighing.mouth).to(device))

    run = Run(network, recipe, out / "codec", f"codec {config.codec} {weighing}", begin=first)
    piece = run.fit(_loss(network, long, recipe.batch, weighing), minutes, told)
    average = cast(Autoencoder, run.averaged())
    normalise(average, long, weighing.frames)
    write_codec(average, out)
    return piece


def write_codec(network: Autoencoder, out: Path) -> None:
    """Write `codec.safetensors` in half precision; statistics stay in float32."""
    write_half(network, out / WEIGHTS, exact=("mean", "std"))


def normalise(network: Autoencoder, clips: Sequence[TalkingClip], frames: int) -> None:
    """Measure mean and standard deviation of each latent channel over some of the clips, evenly chosen.

    Once normalised, channels do not deviate equally but by the root of how far they move pixels, 1 in the mean square:
    were they equal, the finest detail, which nobody can foretell, would weigh as much as light and dark, and a
    transformer would spend its time on it.
    """
    chosen = clips[:: max(1, len(clips) // MEASURED)]
    device = network.mean.device
    with torch.no_grad():
        latents = torch.cat([network.encode(_pixels(clip.frames[:frames]).to(device)[None])[0] for clip in chosen])
        values = latents.transpose(0, 1).flatten(1).float()  # (C, T·h·w)
        network.mean.copy_(values.mean(1))
        spread = values.std(1).clamp(min=1e-3)
        moved = (network.decoder.straight.weight.flatten(1).float().norm(dim=0) * spread).sqrt()  # (C,)
        network.std.copy_(spread / moved * moved.square().mean().sqrt())


def fidelity(codec: SmallCodec, clips: Sequence[TalkingClip]) -> Fidelity:
    """Encode and decode clips as the engine does, and compare the bytes that are seen."""
    whole, mouths = [], []
    for clip in clips:
        used = 1 + 4 * (latent_frames(len(clip.frames)) - 1)
        pixels = _pixels(clip.frames[:used]).transpose(0, 1)  # (3, F, H, W)
        back = torch.cat(list(codec.decode(codec.encode(pixels))), 1).cpu()  # (3, F, H, W)
        error = ((back - pixels) * 127.5).square()  # (3, F, H, W)
        whole.append(float(error.mean()))
        inside = mouth_pixels(clip.mouth[:used], error.shape[2], error.shape[3])[None]  # (1, F, H, W)
        if inside.any():
            mouths.append(float((error * inside).sum() / inside.sum() / 3))
    return Fidelity(_decibels(np.mean(whole)), _decibels(np.mean(mouths)) if mouths else float("nan"),
                    _decibels(max(whole)))


def mouth_pixels(
    boxes: np.ndarray[tuple[int, ...], np.dtype[np.float32]],  # (F, 4) left, top, right, bottom
    height: int,
    width: int,
) -> Tensor:  # (F, H, W) float32
    """1 where a pixel's middle lies in the box of its frame, else 0."""
    box = torch.from_numpy(np.array(boxes, np.float32))  # (F, 4)
    x, y = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    across = (x >= box[:, :1]) & (x < box[:, 2:3])  # (F, W)
    down = (y >= box[:, 1:2]) & (y < box[:, 3:])  # (F, H)
    return (down[:, :, None] & across[:, None]).float()


def _cubes(clips: Sequence[TalkingClip], mouth: float) -> Tensor:
    """Cubes of pixels of some of the clips, those of mouths as many times as they weigh → (n, 768)."""
    found = []
    for clip in clips[:: max(1, len(clips) // MEASURED)]:
        used = len(clip.frames) // TEMPORAL * TEMPORAL
        pixels = _pixels(clip.frames[:used])  # (F, 3, H, W)
        cubes = pixel_unshuffle(pixels, SPATIAL)  # (F, 192, h, w)
        cubes = cubes.reshape(-1, BLOCK, *cubes.shape[2:])  # (T, 768, h, w)
        inside = coverage(clip.mouth[:used], cubes.shape[2]).unflatten(0, (-1, TEMPORAL)).amax(1)  # (T, h, w)
        cubes, weights = cubes.permute(0, 2, 3, 1)[::2].flatten(0, 2), inside[::2].flatten()  # (n, 768), (n,)
        found += [cubes, *[cubes[weights > 0.2]] * (round(mouth) - 1)]
    return torch.cat(found)


def _loss(network: Autoencoder, clips: Sequence[TalkingClip], batch: int, weighing: CodecLoss,
          ) -> Callable[[Generator], Tensor]:
    device = network.mean.device

    def loss(rng: Generator) -> Tensor:
        drawn = [_example(rng, clips, weighing.frames) for _ in range(batch)]
        pixels = torch.stack([one[0] for one in drawn]).to(device)  # (B, F, 3, H, W)
        inside = torch.stack([one[1] for one in drawn]).to(device)[:, :, None]  # (B, F, 1, H, W)
        latent = network.encode(pixels)  # (B, T, C, h, w)
        noise = torch.from_numpy(rng.standard_normal(latent.shape, np.float32)).to(device)
        spread = latent.detach().std((0, 1, 3, 4), keepdim=True)  # (1, 1, 16, 1, 1)
        back = network.decode(latent + weighing.noise * spread * noise)  # (B, F, 3, H, W)
        weight = 1 + (weighing.mouth - 1) * inside
        return compared(back, pixels, weight, weighing.gradient) + weighing.pull * latent.square().mean()

    return loss


def compared(back: Tensor, pixels: Tensor, weight: Tensor, gradient: float) -> Tensor:
    """Weighted mean of errors of pixels, and of differences between neighbours (B, F, 3, H, W).

    Small errors are squared, large ones taken as they are: of absolute errors alone, flat areas are learnt and little
    else.
    """
    error = back - pixels
    total = _softened(error, weight)
    for axis in (1, 3, 4):
        if error.shape[axis] > 1:
            total = total + gradient * _softened(error.diff(dim=axis), weight.narrow(axis, 1, weight.shape[axis] - 1))
    return total


def _softened(error: Tensor, weight: Tensor) -> Tensor:
    sizes = functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none", beta=SOFT)
    return (sizes * weight).mean()


def _example(rng: Generator, clips: Sequence[TalkingClip], frames: int) -> tuple[Tensor, Tensor]:
    """Frames (F, 3, H, W), every second time mirrored, and their mouths (F, H, W)."""
    clip = clips[int(rng.integers(len(clips)))]
    start = int(rng.integers(len(clip.frames) - frames + 1))
    pixels = _pixels(clip.frames[start:start + frames])
    inside = mouth_pixels(clip.mouth[start:start + frames], *pixels.shape[2:])
    return (pixels.flip(3), inside.flip(2)) if rng.random() < 0.5 else (pixels, inside)


def _pixels(frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """(F, H, W, 3) bytes → (F, 3, H, W) in [-1, 1]."""
    return from_uint8(torch.from_numpy(np.array(frames)).permute(0, 3, 1, 2))


def _decibels(error: float | np.floating) -> float:
    return float(10 * np.log10(255**2 / max(float(error), 1e-9)))
