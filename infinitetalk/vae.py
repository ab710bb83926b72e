"""Pixels ↔ latents: the causal video autoencoder of Wan 2.1, streamed (arXiv 2503.20314, section 4.1).

The first pixel frame makes the first latent frame, every four more the next. Each causal convolution keeps its last
two frames; here that memory is a list which belongs to one pass, so that passes may be interleaved, and only the pixels
of one latent frame are alive at a time. The network is diffusers' `AutoencoderKLWan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from infinitetalk.errors import BadInputError
from infinitetalk.published import Source, fill, on_meta, size
from infinitetalk.shapes import LATENT_CHANNELS, PIXEL_CHANNELS, SPATIAL, TEMPORAL

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan

LEVELS = 4
"""Resolutions of the network: two residual blocks and a downsampler each, but for the last; three and an upsampler."""
FILE = "Wan2.1_VAE.pth"


class WanCodec:
    """Encodes and decodes clips; works in the dtype and on the device of its network, gives float32."""

    def __init__(self, vae: AutoencoderKLWan) -> None:
        self.network = cast(Any, vae)
        self._mean = torch.tensor(self.network.config.latents_mean).view(-1, 1, 1, 1)  # (16, 1, 1, 1)
        self._std = torch.tensor(self.network.config.latents_std).view(-1, 1, 1, 1)  # (16, 1, 1, 1)

    @classmethod
    def published(cls, state: Mapping[str, Tensor], *, device: torch.device | str = "cpu",
                  dtype: torch.dtype | None = None, where: str = FILE) -> WanCodec:
        """The network of published tensors under their original names; widths follow from their shapes.

        Raises:
            BadWeightsError: A tensor is missing, unknown or of another shape.
        """
        from diffusers import AutoencoderKLWan

        base = size(state, "encoder.conv1.weight", 0, where)
        firsts = [f"encoder.downsamples.{3 * level}.residual.2.weight" for level in range(LEVELS)]
        multiples = [size(state, first, 0, where) // base for first in firsts]
        vae = on_meta(AutoencoderKLWan, base_dim=base, dim_mult=multiples)
        names = _original_names()
        fill(vae, state, lambda name: Source(names.get(name, name)), where=where, device=device, dtype=dtype)
        return cls(vae)

    def encode(
        self,
        pixels: Tensor,  # (3, F, H, W) in [-1, 1]
    ) -> Tensor:
        """Mean latent of a clip, normalised per channel → (16, T, h, w), float32.

        Pixel frames after the last 4k+1 are dropped. H and W are multiples of 8.
        """
        check_clip("pixels", pixels, PIXEL_CHANNELS, SPATIAL, "WanCodec")
        cache = _memory(self.network.encoder)
        spans = [(max(0, end - TEMPORAL), end) for end in range(1, pixels.shape[1] + 1, TEMPORAL)]
        with torch.no_grad():
            moments = torch.cat([self._encode_span(pixels[:, start:end], cache) for start, end in spans], 2)
            moments = self.network.quant_conv(moments)[0].float()  # (32, T, h, w)
        mean, std = self._mean.to(moments.device), self._std.to(moments.device)
        return (moments[:LATENT_CHANNELS] - mean) / std

    def decode(
        self,
        latent: Tensor,  # (16, T, h, w)
    ) -> Iterator[Tensor]:
        """Frames of a latent as they are decoded: (3, 1, H, W), then (3, 4, H, W) each, float32 in [-1, 1]."""
        check_clip("latent", latent, LATENT_CHANNELS, 1, "WanCodec")
        mean, std = self._mean.to(latent.device), self._std.to(latent.device)
        with torch.no_grad():
            x = self._moved(latent.float() * std + mean)  # (1, 16, T, h, w)
            x = self.network.post_quant_conv(x)  # (1, 16, T, h, w)
        return self._decoded(x)

    def _decoded(self, x: Tensor) -> Iterator[Tensor]:
        cache = _memory(self.network.decoder)
        for frame in x.split(1, dim=2):  # (1, 16, 1, h, w)
            with torch.no_grad():  # entered anew for each: a generator must not leave its caller without gradients
                pixels = self.network.decoder(frame, feat_cache=cache, feat_idx=[0])[0]  # (3, f, H, W)
            yield pixels.float().clamp(-1, 1)

    def _encode_span(self, pixels: Tensor, cache: list[Any]) -> Tensor:
        return self.network.encoder(self._moved(pixels), feat_cache=cache, feat_idx=[0])  # (1, 32, 1, h, w)

    def _moved(self, x: Tensor) -> Tensor:
        weight = self.network.post_quant_conv.weight
        return x[None].to(weight.device, weight.dtype)


def _memory(side: nn.Module) -> list[Any]:
    """The frames that the causal convolutions of a side keep: none yet."""
    return [None] * sum(isinstance(module, nn.Conv3d) for module in side.modules())


def check_clip(what: str, x: Tensor, channels: int, multiple: int, where: str) -> None:
    """Refuse what is no clip (C, frames, height, width) of whole latents with a BadInputError; `where` is the codec."""
    if x.ndim != 4 or x.shape[0] != channels or not x.numel() or x.shape[2] % multiple or x.shape[3] % multiple:
        raise BadInputError(f"{what} of shape {tuple(x.shape)} cannot be coded", where=where,
                            hint=f"Give ({channels}, frames, height, width), sides a multiple of {multiple}.")


def _original_names() -> dict[str, str]:
    """Name in diffusers → name in the published file, by running diffusers' converter over names alone."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    affine = ("weight", "bias")
    residual = ["residual.0.gamma", "residual.3.gamma", *(f"residual.{i}.{end}" for i in (2, 6) for end in affine)]
    level = [*residual, *(f"{part}.{end}" for part in ("shortcut", "resample.1", "time_conv") for end in affine)]
    side = [f"{part}.{end}" for part in ("conv1", "head.2", "middle.1.to_qkv", "middle.1.proj") for end in affine]
    side += ["head.0.gamma", "middle.1.norm.gamma", *(f"middle.{i}.{part}" for i in (0, 2) for part in residual)]
    names = [f"{part}.{end}" for part in ("conv1", "conv2") for end in affine]
    names += [f"{half}.{part}" for half in ("encoder", "decoder") for part in side]
    names += [f"{blocks}.{i}.{part}" for blocks in ("encoder.downsamples", "decoder.upsamples")
              for i in range(4 * LEVELS - 1) for part in level]
    convert: Callable[[dict[str, str]], dict[str, str]] = convert_wan_vae_to_diffusers
    return convert({name: name for name in names})
