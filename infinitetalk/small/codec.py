"""Pixels ↔ latents, small enough for a CPU: a causal autoencoder, 4×8×8.

Pixels pass 2-D convolutions alone; time is mixed where a latent is, each latent frame seeing itself and the one before
it (causal as in Wan 2.1, arXiv 2503.20314, section 4.1). The first pixel frame stands for four equal ones, so that one
picture makes one latent frame; of the four that its latent gives back, the last is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from infinitetalk.shapes import PIXEL_CHANNELS, SPATIAL, TEMPORAL
from infinitetalk.small.config import CodecConfig
from infinitetalk.vae import check_clip
from infinitetalk.weights import assemble, open_tensors

WEIGHTS = "codec.safetensors"
BLOCK = TEMPORAL * PIXEL_CHANNELS * SPATIAL**2
"""Pixel values that a latent stands for."""
NEAR_ZERO = 0.1
"""How much of their first strength the last convolutions of both halves begin with."""
LEAST_SPREAD = 0.01
"""Of a component, over the largest: weaker ones would need weights that half precision cannot hold."""
GROUPS = 4
"""Of channels, which are normalised together, each frame by itself."""
NEAR_IDENTITY = 0.2
"""By how much a residual block's last weights begin smaller."""
SPAN = 8
"""Latent frames that are encoded at once: memory does not grow with a clip's length."""


class Residual(nn.Module):  # type: ignore[misc]
    """Two convolutions beside the identity, each after a normalisation: without it, they hardly learn."""

    def __init__(self, channels: int, seen: int | None = None) -> None:
        super().__init__()
        seen = seen or channels  # what the first convolution sees: those that come in, if nothing else is said
        self.before = nn.GroupNorm(GROUPS, seen)
        self.first = nn.Conv2d(seen, channels, 3, padding=1)
        self.between = nn.GroupNorm(GROUPS, channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # (B, C, H, W)
        """Add what the convolutions find."""
        return x + self.found(x)

    def found(self, x: Tensor) -> Tensor:  # (B, seen, H, W) → (B, C, H, W)
        """What the convolutions find."""
        return self.second(functional.silu(self.between(self.first(functional.silu(self.before(x))))))


class Mix(Residual):
    """A residual block over a latent frame and the one before it."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, 2 * channels)

    def forward(  # type: ignore[override]
        self,
        x: Tensor,  # (B, T, C, h, w)
        before: Tensor | None,  # (B, C, h, w)
    ) -> tuple[Tensor, Tensor]:
        """Mix → the same shape, and the memory for what comes next; no memory is the beginning of a clip."""
        start = torch.zeros_like(x[:, :1]) if before is None else before[:, None]  # (B, 1, C, h, w)
        pairs = torch.cat((torch.cat((start, x[:, :-1]), 1), x), 2)  # (B, T, 2C, h, w)
        return x + self.found(_folded(pairs)).unflatten(0, x.shape[:2]), x[:, -1]


class Encoder(nn.Module):  # type: ignore[misc]
    """Pixels of whole latent frames → latents."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        half = max(1, config.blocks // 2)
        self.pixels = nn.Conv2d(4 * PIXEL_CHANNELS, config.fine, 3, padding=1)
        self.middle = nn.Conv2d(config.fine, config.middle, 3, stride=2, padding=1)
        self.middle_blocks = nn.Sequential(*(Residual(config.middle) for _ in range(half)))
        self.coarse = nn.Conv2d(config.middle, config.middle, 3, stride=2, padding=1)
        self.join = nn.Conv2d(TEMPORAL * config.middle, config.coarse, 1)
        self.mixes = nn.ModuleList(Mix(config.coarse) for _ in range(half))
        self.out = nn.Conv2d(config.coarse, config.channels, 1)
        self.straight = nn.Conv2d(BLOCK, config.channels, 1)

    def forward(
        self,
        pixels: Tensor,  # (B, 4·T, 3, H, W)
        memory: list[Tensor | None],
    ) -> Tensor:  # (B, T, C, h, w)
        """Encode; the memory is brought forward."""
        batch = len(pixels)
        cubes = pixel_unshuffle(_folded(pixels), SPATIAL)  # (B·4T, 192, h, w)
        straight = self.straight(cubes.reshape(-1, BLOCK, *cubes.shape[2:]))  # (B·T, C, h, w)
        x = functional.relu(self.pixels(pixel_unshuffle(_folded(pixels), 2)))
        x = self.middle_blocks(functional.relu(self.middle(x)))
        x = functional.relu(self.coarse(x))  # (B·4T, C, h, w)
        x = x.reshape(-1, TEMPORAL * x.shape[1], *x.shape[2:])  # (B·T, 4C, h, w)
        x = _mixed(functional.relu(self.join(x)).unflatten(0, (batch, -1)), self.mixes, memory)
        return (straight + self.out(_folded(x))).unflatten(0, (batch, -1))


class Decoder(nn.Module):  # type: ignore[misc]
    """Latents → pixels of whole latent frames."""

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.into = nn.Conv2d(config.channels, config.coarse, 3, padding=1)
        self.mixes = nn.ModuleList(Mix(config.coarse) for _ in range(config.blocks))
        self.part = nn.Conv2d(config.coarse, TEMPORAL * 4 * config.middle, 1)
        self.middle_blocks = nn.Sequential(*(Residual(config.middle) for _ in range(config.blocks)))
        self.fine = nn.Conv2d(config.middle, 4 * config.fine, 3, padding=1)
        self.fine_block = Residual(config.fine)
        self.out = nn.Conv2d(config.fine, 4 * PIXEL_CHANNELS, 3, padding=1)
        self.straight = nn.Conv2d(config.channels, BLOCK, 1)

    def forward(
        self,
        latent: Tensor,  # (B, T, C, h, w)
        memory: list[Tensor | None],
    ) -> Tensor:  # (B, 4·T, 3, H, W)
        """Decode; the memory is brought forward."""
        batch = len(latent)
        cubes = self.straight(_folded(latent))  # (B·T, 768, h, w)
        straight = pixel_shuffle(cubes.reshape(len(cubes) * TEMPORAL, -1, *cubes.shape[2:]), SPATIAL)
        x = functional.relu(self.into(_folded(latent))).unflatten(0, (batch, -1))
        x = self.part(_folded(_mixed(x, self.mixes, memory)))  # (B·T, 16C, h, w)
        x = functional.relu(pixel_shuffle(x.reshape(len(x) * TEMPORAL, -1, *x.shape[2:]), 2))
        x = functional.relu(pixel_shuffle(self.fine(self.middle_blocks(x)), 2))
        return (straight + pixel_shuffle(self.out(self.fine_block(x)), 2)).unflatten(0, (batch, -1))


class Autoencoder(nn.Module):  # type: ignore[misc]
    """Both halves, and the mean and standard deviation of each latent channel over the training clips."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(config), Decoder(config)
        self.apply(_begun)
        with torch.no_grad():  # what the convolutions add begins near 0 beside the straight ways
            self.encoder.out.weight.mul_(NEAR_ZERO)
            self.decoder.out.weight.mul_(NEAR_ZERO)
        self.register_buffer("mean", torch.zeros(config.channels))
        self.register_buffer("std", torch.ones(config.channels))

    def begin(
        self,
        cubes: Tensor,  # (n, 768) columns: frame, colour, row, column
    ) -> None:
        """Let the straight ways begin as the principal components of such cubes of pixels: pictures come back from the
        first step on, and the convolutions learn what is lost. From chance, training stays at grey ones for long.
        """
        mean = cubes.mean(0)  # (768,)
        values, vectors = torch.linalg.eigh((cubes - mean).T.cov())
        channels = len(self.mean)
        basis, spread = vectors.flip(1)[:, :channels].T, values.flip(0)[:channels].clamp(min=0).sqrt()[:, None]
        spread = spread.clamp(min=max(1e-3, LEAST_SPREAD * float(spread[0])))
        into, out = self.encoder.straight, self.decoder.straight
        with torch.no_grad():
            into.weight.copy_((basis / spread)[..., None, None])  # (C, 768, 1, 1)
            into.bias.copy_(-(basis / spread) @ mean)
            out.weight.copy_((basis * spread).T[..., None, None])  # (768, C, 1, 1)
            out.bias.copy_(mean)

    def encode(
        self,
        pixels: Tensor,  # (B, F, 3, H, W), F = 4(T-1)+1
        memory: list[Tensor | None] | None = None,
    ) -> Tensor:  # (B, T, C, h, w)
        """Latents as the network makes them, not normalised; without a memory, of a clip from its beginning."""
        if memory is None:
            memory = _memory(self.encoder)
            pixels = torch.cat((pixels[:, :1].expand(-1, TEMPORAL - 1, -1, -1, -1), pixels), 1)
        return self.encoder(pixels, memory)

    def decode(
        self,
        latent: Tensor,  # (B, T, C, h, w)
    ) -> Tensor:  # (B, F, 3, H, W)
        """Frames of latents that are not normalised, from a clip's beginning; not clamped."""
        return self.decoder(latent, _memory(self.decoder))[:, TEMPORAL - 1:]


class SmallCodec:
    """Encodes and decodes clips by an `Autoencoder`; gives float32. A `networks.Codec`."""

    def __init__(self, network: Autoencoder) -> None:
        self.network = network.eval().to(memory_format=torch.channels_last)

    @classmethod
    def read(cls, file: Path, config: CodecConfig, *, device: torch.device | str = "cpu") -> SmallCodec:
        """The codec of a file of weights.

        Raises:
            BadWeightsError: The file is absent, damaged, or of another configuration.
        """
        with torch.device("meta"):
            network = Autoencoder(config)
        return cls(assemble(network, open_tensors([file]), torch.float32, device))

    def digest(self) -> str:
        """Tells codecs apart by their weights: latents of one mean nothing to another."""
        told = hashlib.sha256()
        for name, value in sorted(self.network.state_dict().items()):
            told.update(name.encode() + value.detach().float().cpu().contiguous().numpy().tobytes())
        return told.hexdigest()[:16]

    def encode(
        self,
        pixels: Tensor,  # (3, F, H, W) in [-1, 1]
    ) -> Tensor:
        """Latent of a clip, normalised per channel → (C, T, h, w), float32.

        Pixel frames after the last 4k+1 are dropped. H and W are multiples of 8.
        """
        check_clip("pixels", pixels, PIXEL_CHANNELS, SPATIAL, "SmallCodec")
        frames = pixels.transpose(0, 1)[None]  # (1, F, 3, H, W)
        memory = _memory(self.network.encoder)
        spans = [torch.cat((frames[:, :1],) * TEMPORAL, 1)]
        usable = 1 + (frames.shape[1] - 1) // TEMPORAL * TEMPORAL
        spans += frames[:, 1:usable].split(SPAN * TEMPORAL, dim=1) if usable > 1 else []
        with torch.no_grad():
            latent = torch.cat([self.network.encode(self._moved(span), memory) for span in spans], 1)[0]
        latent = (latent.float() - self._column(self.network.mean)) / self._column(self.network.std)
        return latent.transpose(0, 1).contiguous()

    def decode(
        self,
        latent: Tensor,  # (C, T, h, w)
    ) -> Iterator[Tensor]:
        """Frames of a latent as they are decoded: (3, 1, H, W), then (3, 4, H, W) each, float32 in [-1, 1]."""
        check_clip("latent", latent, len(self.network.mean), 1, "SmallCodec")
        frames = self._moved(latent.transpose(0, 1)).float()  # (T, C, h, w)
        return self._decoded(frames * self._column(self.network.std) + self._column(self.network.mean))

    def _decoded(self, latent: Tensor) -> Iterator[Tensor]:
        memory = _memory(self.network.decoder)
        for index, frame in enumerate(latent.split(1)):  # (1, C, h, w)
            with torch.no_grad():  # entered anew for each: a generator must not leave its caller without gradients
                pixels = self.network.decoder(self._moved(frame[None]), memory)[0]  # (4, 3, H, W)
            kept = pixels if index else pixels[-1:]
            yield kept.float().clamp(-1, 1).transpose(0, 1)

    def _column(self, statistic: Tensor) -> Tensor:
        return statistic.float().view(-1, 1, 1)

    def _moved(self, x: Tensor) -> Tensor:
        weight = self.network.decoder.out.weight
        return x.to(weight.device, weight.dtype)


def _begun(module: nn.Module) -> None:
    """Weights by which signals keep their strength through rectified convolutions (He et al., arXiv 1502.01852), and
    which leave residual blocks near the identity."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(module.bias)
    elif isinstance(module, Residual):
        with torch.no_grad():
            module.second.weight.mul_(NEAR_IDENTITY)


def _mixed(x: Tensor, mixes: nn.ModuleList, memory: list[Tensor | None]) -> Tensor:
    """x (B, T, C, h, w) after all mixes, each with its own place in the memory."""
    for index, mix in enumerate(mixes):
        x, memory[index] = mix(x, memory[index])
    return x


def _memory(side: Encoder | Decoder) -> list[Tensor | None]:
    """What the mixes of a half remember: nothing yet."""
    return [None] * len(side.mixes)


def _folded(x: Tensor) -> Tensor:
    """(B, T, C, H, W) → (B·T, C, H, W), channels last in memory: convolutions on a CPU are faster so."""
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
