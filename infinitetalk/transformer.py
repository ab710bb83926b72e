"""The denoiser: noisy latent, timestep and condition → velocity (InfiniteTalk, arXiv 2508.14033).

Wan 2.1's image-to-video transformer (arXiv 2503.20314) with a cross-attention to audio in every block. Parameters have
the names of the published files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad

from infinitetalk.audio_tokens import AudioProjection
from infinitetalk.blocks import Block, Linear32, modulate
from infinitetalk.conditions import Condition, StepCache, Tokens
from infinitetalk.config import TransformerConfig
from infinitetalk.errors import BadInputError
from infinitetalk.rope import Rope3d
from infinitetalk.shapes import PATCH, LatentShape


class PatchEmbedding(nn.Conv3d):  # type: ignore[misc]
    """Each 2×2 patch of a latent frame becomes a token.

    Stored as the convolution that it is, computed as a matrix product: patches do not overlap, and bfloat16 3-D
    convolutions are slow in several versions of cuDNN.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__(channels, dim, kernel_size=(1, PATCH, PATCH), stride=(1, PATCH, PATCH))

    def forward(
        self,
        x: Tensor,  # (B, C, T, h, w)
    ) -> Tensor:  # (B, N, D)
        """Embed."""
        x = x.unflatten(4, (-1, PATCH)).unflatten(3, (-1, PATCH))  # (B, C, T, h/2, 2, w/2, 2)
        x = x.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)  # (B, N, C·4)
        return linear(x, self.weight.flatten(1), self.bias)


class ImageEmbedding(nn.Module):  # type: ignore[misc]
    """CLIP's tokens of the reference image, brought to the transformer's width."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        clip, dim = config.clip_dim, config.dim
        self.proj = nn.Sequential(nn.LayerNorm(clip), nn.Linear(clip, clip), nn.GELU(), nn.Linear(clip, dim),
                                  nn.LayerNorm(dim))

    def forward(
        self,
        states: Tensor,  # (B, 257, clip_dim)
    ) -> Tensor:  # (B, 257, D)
        """Embed."""
        return self.proj(states)


class Head(nn.Module):  # type: ignore[misc]
    """Tokens → patches of velocity, in float32."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.eps = config.eps
        self.modulation = nn.Parameter(torch.randn(1, 2, config.dim) / config.dim**0.5)
        self.head = Linear32(config.dim, config.out_dim * PATCH * PATCH)

    def forward(
        self,
        x: Tensor,  # (B, N, D)
        time: Tensor,  # (B, D) float32
    ) -> Tensor:  # (B, N, 4·C) float32, channels fastest
        """Project."""
        shift, scale = (self.modulation.float() + time[:, None]).chunk(2, dim=1)  # (B, 1, D)
        return self.head(modulate(x.float(), shift, scale, self.eps))


class Transformer(nn.Module):  # type: ignore[misc]
    """Predicts the velocity, noise minus data, of a chunk's latent.

    Args:
        config: Sizes.
        attention: Back end of `attention.attend`.

    Raises:
        BadInputError: The heads do not divide the width, or a head has an odd number of channels.
    """

    def __init__(self, config: TransformerConfig, attention: str = "sdpa") -> None:
        super().__init__()
        if config.dim % config.num_heads or config.head_dim % 2:
            raise BadInputError(f"{config.num_heads} heads do not divide {config.dim} channels into pairs",
                                where="transformer configuration")
        dim = config.dim
        self.config = config
        self.rope = Rope3d(config.head_dim)
        self.patch_embedding = PatchEmbedding(config.in_dim, dim)
        self.text_embedding = nn.Sequential(nn.Linear(config.text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(Linear32(config.freq_dim, dim), nn.SiLU(), Linear32(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), Linear32(dim, 6 * dim))
        self.img_emb = ImageEmbedding(config)
        self.audio_proj = AudioProjection(config)
        self.blocks = nn.ModuleList(Block(config, attention) for _ in range(config.num_layers))
        self.head = Head(config)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parameters, and of what flows between the blocks."""
        return self.patch_embedding.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.patch_embedding.weight.device

    def compile_blocks(self, **options: Any) -> None:
        """Compile what the blocks compute, once for all of them as they are equal; options are `torch.compile`'s."""
        for block in self.blocks:
            block.step = torch.compile(block.step, **options)

    def embed_text(
        self,
        prompts: Sequence[Tensor],  # B of (k, text_dim)
    ) -> Tokens:  # (B, text_len, D)
        """Text tokens; shorter prompts are filled up with zeros before the embedding, and those rows are attended to.

        Raises:
            BadInputError: A prompt has more tokens than the network was trained with.
        """
        longest = self.config.text_len
        if any(len(one) > longest for one in prompts):
            raise BadInputError(f"it has more than {longest} tokens", where="prompt", hint="Say it in fewer words")
        rows = torch.stack([pad(one.to(self.device, self.dtype), (0, 0, 0, longest - len(one))) for one in prompts])
        return Tokens(self.text_embedding(rows))

    def embed_image(
        self,
        states: Tensor,  # (B, 257, clip_dim)
    ) -> Tokens:  # (B, 257, D)
        """Tokens of the reference image, from CLIP's states."""
        return Tokens(self.img_emb(states.to(self.device, self.dtype)))

    def embed_audio(
        self,
        windows: Tensor,  # (B, P, F, 5, L, C)
    ) -> Tokens:  # (B, T, P·R, audio_dim)
        """Audio tokens of all persons; zeros are the audio of nobody (unconditional passes).

        Raises:
            BadInputError: The windows are of another size.
        """
        return Tokens(self.audio_proj(windows.to(self.device, self.dtype)))

    def embed_time(
        self,
        t: Tensor,  # (B,)
    ) -> tuple[Tensor, Tensor]:  # (B, D), (B, 6, D) float32
        """What the head and what the blocks are told of the timestep."""
        time = self.time_embedding(sinusoid(t.to(self.device), self.config.freq_dim))  # (B, D)
        return time, self.time_projection(time).unflatten(1, (6, -1))

    def forward(
        self,
        x: Tensor,  # (B, 16, T, h, w)
        y: Tensor,  # (B, 20, T, h, w)
        t: Tensor,  # (B,)
        condition: Condition,
        masks: Tensor | None = None,  # (3, h, w)
        cache: StepCache | None = None,
    ) -> Tensor:  # (B, 16, T, h, w) float32
        """Velocity at a timestep.

        Args:
            x: Noisy latent.
            y: Mask of known frames (4 channels) and reference latent (16).
            t: Timesteps, 0 (data) to 1000 (noise).
            condition: What is told; of the same batch.
            masks: Where person 1, person 2 and the background are, for two persons: above 0 is inside.
            cache: Decides whether the blocks run.

        Raises:
            BadInputError: Shapes that do not belong together, or two persons without masks.
        """
        self._check(x, y, condition, masks)
        shape = LatentShape(*x.shape[2:])
        x = torch.cat([part.to(self.device, self.dtype) for part in (x, y)], dim=1)  # (B, 36, T, h, w)
        x = self.patch_embedding(x)  # (B, N, D)
        time, modulation = self.embed_time(t)  # (B, D), (B, 6, D)
        residual = cache.reuse(modulation) if cache else None  # (B, N, D)
        if residual is None:
            before, x = x, self._run(x, modulation, shape, condition, masks)  # (B, N, D)
            if cache:
                cache.keep(x - before)
        else:
            x = x + residual  # (B, N, D)
        return unpatch(self.head(x, time), shape)

    def _run(
        self,
        x: Tensor,  # (B, N, D)
        time: Tensor,  # (B, 6, D)
        shape: LatentShape,
        condition: Condition,
        masks: Tensor | None,  # (3, h, w)
    ) -> Tensor:  # (B, N, D)
        inside = None
        if condition.persons > 1 and masks is not None:
            inside = (masks[:, ::PATCH, ::PATCH] > 0).flatten(1).to(x.device)  # (3, S)
        tables = self.rope.tables((shape.frames, shape.height // PATCH, shape.width // PATCH), x.device)
        for layer, block in enumerate(self.blocks):
            x = block(x, time, tables, layer, condition, inside)  # (B, N, D)
        return x

    def _check(self, x: Tensor, y: Tensor, condition: Condition, masks: Tensor | None) -> None:
        if x.shape[0] != y.shape[0] or x.shape[2:] != y.shape[2:] or x.shape[1] + y.shape[1] != self.config.in_dim:
            raise BadInputError(f"{tuple(x.shape)} and {tuple(y.shape)} do not join to {self.config.in_dim} channels",
                                where="latents")
        if x.shape[3] % PATCH or x.shape[4] % PATCH:
            raise BadInputError(f"{x.shape[3]}×{x.shape[4]} is not even", where="latents",
                                hint="Pixels must be multiples of 16")
        videos = {len(one.states) for one in (condition.text, condition.image, condition.audio)}
        if videos != {len(x)}:
            raise BadInputError(f"it is of {sorted(videos)} videos, the latent of {len(x)}", where="condition")
        audio = tuple(condition.audio.states.shape[:3])
        heard = (x.shape[0], x.shape[2], condition.persons * self.config.audio_tokens)
        if audio != heard:
            raise BadInputError(f"there are {audio} tokens (videos, latent frames, tokens), not {heard}", where="audio")
        if condition.persons not in (1, 2) or (condition.persons == 2 and masks is None):
            raise BadInputError(f"{condition.persons} persons cannot be told apart", where="speakers",
                                hint="One person, or two with their masks")
        if masks is not None and tuple(masks.shape) != (3, *x.shape[3:]):
            raise BadInputError(f"their shape is {tuple(masks.shape)}, not {(3, *x.shape[3:])}", where="masks")


def sinusoid(
    t: Tensor,  # (B,)
    size: int,
) -> Tensor:  # (B, size) float32
    """Cosines, then sines, of t at frequencies from 1 down to 1/10000."""
    half = size // 2
    exponents = torch.arange(half, dtype=torch.float64, device=t.device) / half  # (half,)
    angles = t.double()[:, None] * 10_000.0**-exponents  # (B, half)
    return torch.cat([angles.cos(), angles.sin()], dim=1).float()


def unpatch(
    x: Tensor,  # (B, N, 4·C)
    shape: LatentShape,
) -> Tensor:  # (B, C, T, h, w)
    """Tokens back to their places."""
    rows, columns = shape.height // PATCH, shape.width // PATCH
    x = x.view(x.shape[0], shape.frames, rows, columns, PATCH, PATCH, -1)  # (B, T, h/2, w/2, 2, 2, C)
    return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(x.shape[0], -1, *shape)
