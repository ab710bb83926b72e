"""The transformer's block: self-attention, text and image, audio, feed-forward (Wan 2.1 with InfiniteTalk's audio).

Parameters may be bfloat16; normalisation, modulation and gated additions compute in float32 wherever they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, linear

from infinitetalk.attention import attend
from infinitetalk.conditions import Condition, KeysValues
from infinitetalk.config import TransformerConfig
from infinitetalk.rope import Rope3d, rotate_1d
from infinitetalk.speakers import key_positions, label_positions, reference_map

CACHED = 512
"""Tokens that the feed-forward takes at a time on a CPU: 256 to 1024 were equally fast, all at once 3 % slower."""


class Linear32(nn.Linear):  # type: ignore[misc]
    """A linear layer that computes in float32 whatever its parameters' type."""

    def forward(
        self,
        x: Tensor,  # (..., in)
    ) -> Tensor:  # (..., out) float32
        """Apply."""
        return linear(x.float(), self.weight.float(), self.bias.float())


def modulate(
    x: Tensor,  # (B, N, D)
    shift: Tensor,  # (B, 1, D) float32
    scale: Tensor,  # (B, 1, D) float32
    eps: float,
) -> Tensor:  # (B, N, D) float32
    """Normalise, scale and shift."""
    return torch.addcmul(shift, layer_norm(x, x.shape[-1:], eps=eps), 1 + scale)


class SelfAttention(nn.Module):  # type: ignore[misc]
    """Attention among all video tokens of the chunk."""

    def __init__(self, config: TransformerConfig, attention: str) -> None:
        super().__init__()
        dim = config.dim
        self.heads, self.attention = config.num_heads, attention
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = (nn.RMSNorm(dim, eps=config.eps) for _ in range(2))
        self.rope = Rope3d(config.head_dim)

    def queries_keys(
        self,
        x: Tensor,  # (B, N, D)
        tables: Tensor,  # (N, 1, d/2, 2)
    ) -> tuple[Tensor, Tensor]:  # (B, N, A, d) twice
        """Queries and keys with their positions."""
        q, k = self.norm_q(self.q(x)), self.norm_k(self.k(x))  # (B, N, D)
        return (self.rope.apply(q.unflatten(-1, (self.heads, -1)), tables),
                self.rope.apply(k.unflatten(-1, (self.heads, -1)), tables))

    def forward(
        self,
        x: Tensor,  # (B, N, D)
        tables: Tensor,  # (N, 1, d/2, 2)
        masks: Tensor | None,  # (3, S) bool
    ) -> tuple[Tensor, Tensor | None]:  # (B, N, D), (B, 3, N) float32
        """Attend, and with masks tell also how each token attends to the persons."""
        q, k = self.queries_keys(x, tables)  # (B, N, A, d)
        v = self.v(x).unflatten(-1, (self.heads, -1))  # (B, N, A, d)
        x = self.o(attend(q, k, v, self.attention).flatten(2))  # (B, N, D)
        if masks is None:
            return x, None
        return x, torch.stack([reference_map(*one, masks) for one in zip(q, k, strict=True)])


class CrossAttention(nn.Module):  # type: ignore[misc]
    """Attention to text and to the reference image: one query, two softmaxes, their sum."""

    def __init__(self, config: TransformerConfig, attention: str) -> None:
        super().__init__()
        dim = config.dim
        self.heads, self.attention = config.num_heads, attention
        self.q, self.k, self.v, self.o, self.k_img, self.v_img = (nn.Linear(dim, dim) for _ in range(6))
        self.norm_q, self.norm_k, self.norm_k_img = (nn.RMSNorm(dim, eps=config.eps) for _ in range(3))

    def text(
        self,
        states: Tensor,  # (B, K, D)
    ) -> KeysValues:
        """Keys and values of text tokens."""
        k, v = self.norm_k(self.k(states)), self.v(states)  # (B, K, D)
        return k.unflatten(-1, (self.heads, -1)), v.unflatten(-1, (self.heads, -1))

    def image(
        self,
        states: Tensor,  # (B, K, D)
    ) -> KeysValues:
        """Keys and values of image tokens."""
        k, v = self.norm_k_img(self.k_img(states)), self.v_img(states)  # (B, K, D)
        return k.unflatten(-1, (self.heads, -1)), v.unflatten(-1, (self.heads, -1))

    def forward(
        self,
        x: Tensor,  # (B, N, D)
        text: KeysValues,
        image: KeysValues,
    ) -> Tensor:  # (B, N, D)
        """Attend."""
        q = self.norm_q(self.q(x)).unflatten(-1, (self.heads, -1))  # (B, N, A, d)
        return self.o((attend(q, *text, self.attention) + attend(q, *image, self.attention)).flatten(2))


class AudioCrossAttention(nn.Module):  # type: ignore[misc]
    """Attention of each latent frame's tokens to the audio beside that latent frame."""

    def __init__(self, config: TransformerConfig, attention: str) -> None:
        super().__init__()
        self.heads, self.attention = config.num_heads, attention
        self.q_linear = nn.Linear(config.dim, config.dim)
        self.kv_linear = nn.Linear(config.audio_dim, 2 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)

    def audio(
        self,
        states: Tensor,  # (B, T, K, audio_dim)
    ) -> KeysValues:
        """Keys and values (B·T, K, A, d) of one person's audio tokens."""
        k, v = self.kv_linear(states).flatten(0, 1).unflatten(-1, (2, self.heads, -1)).unbind(2)  # (B·T, K, A, d)
        return k, v

    def labelled_audio(
        self,
        states: Tensor,  # (B, T, K, audio_dim)
    ) -> KeysValues:
        """Keys and values (B·T, K, A, d) of two persons' audio tokens; the keys are turned to their labels."""
        k, v = self.audio(states)  # (B·T, K, A, d)
        k = rotate_1d(k.transpose(1, 2), key_positions(k.shape[1], k.device)).transpose(1, 2)  # (B·T, K, A, d)
        return k, v

    def forward(
        self,
        x: Tensor,  # (B, N, D)
        audio: KeysValues,
        positions: Tensor | None,  # (B, N)
    ) -> Tensor:  # (B, N, D)
        """Attend; `positions` are those of the tokens on the line of labels, None for one person."""
        frames = len(audio[0])  # B·T
        q = self.q_linear(x).view(frames, -1, self.heads, x.shape[-1] // self.heads)  # (B·T, S, A, d)
        if positions is not None:
            q = rotate_1d(q.transpose(1, 2), positions.view(frames, 1, -1)).transpose(1, 2)  # (B·T, S, A, d)
        return self.proj(attend(q, *audio, self.attention).reshape(x.shape))


class FeedForward(nn.Sequential):  # type: ignore[misc]
    """Two layers with a GELU between; on a CPU a few tokens at a time, so that what lies between stays in its cache."""

    def __init__(self, config: TransformerConfig) -> None:
        dim, hidden = config.dim, config.ffn_dim
        super().__init__(nn.Linear(dim, hidden), nn.GELU("tanh"), nn.Linear(hidden, dim))

    def forward(
        self,
        x: Tensor,  # (B, N, D)
    ) -> Tensor:  # (B, N, D)
        """Apply."""
        if x.device.type != "cpu":
            return self._apply_to(x)
        return torch.cat([self._apply_to(part) for part in x.split(CACHED, dim=1)], dim=1)

    def _apply_to(
        self,
        x: Tensor,  # (B, n, D)
    ) -> Tensor:  # (B, n, D)
        for layer in self:
            x = layer(x)
        return x


class Block(nn.Module):  # type: ignore[misc]
    """One of the equal layers."""

    def __init__(self, config: TransformerConfig, attention: str) -> None:
        super().__init__()
        dim, self.eps = config.dim, config.eps
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)
        self.self_attn = SelfAttention(config, attention)
        self.norm3 = nn.LayerNorm(dim, eps=config.eps)
        self.cross_attn = CrossAttention(config, attention)
        self.norm_x = nn.LayerNorm(dim, eps=config.eps)
        self.audio_cross_attn = AudioCrossAttention(config, attention)
        self.ffn = FeedForward(config)

    def forward(
        self,
        x: Tensor,  # (B, N, D)
        time: Tensor,  # (B, 6, D) float32
        tables: Tensor,  # (N, 1, d/2, 2)
        layer: int,
        condition: Condition,
        masks: Tensor | None,  # (3, S) bool
    ) -> Tensor:  # (B, N, D)
        """One layer; what it needs of the condition is looked up here, the rest is `step`."""
        project = self.audio_cross_attn.audio if masks is None else self.audio_cross_attn.labelled_audio
        text = condition.text.keys_values(layer, self.cross_attn.text)
        image = condition.image.keys_values(layer, self.cross_attn.image)
        audio = condition.audio.keys_values(layer, project)
        return self.step(x, time, tables, text, image, audio, masks)

    def step(
        self,
        x: Tensor,  # (B, N, D)
        time: Tensor,  # (B, 6, D) float32
        tables: Tensor,  # (N, 1, d/2, 2)
        text: KeysValues,
        image: KeysValues,
        audio: KeysValues,
        masks: Tensor | None,  # (3, S) bool
    ) -> Tensor:  # (B, N, D)
        """Tensors in, tensor out: what can be compiled."""
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (self.modulation.float() + time).chunk(6, dim=1)  # (B,1,D)
        y, persons = self.self_attn(modulate(x, shift, scale, self.eps).to(x.dtype), tables, masks)  # (B, N, D)
        x = torch.addcmul(x, y, gate).to(x.dtype)  # (B, N, D)
        x = x + self.cross_attn(self.norm3(x), text, image)  # (B, N, D)
        positions = None if persons is None else torch.stack([label_positions(one) for one in persons])  # (B, N)
        x = x + self.audio_cross_attn(self.norm_x(x), audio, positions)  # (B, N, D)
        y = self.ffn(modulate(x, ffn_shift, ffn_scale, self.eps).to(x.dtype))  # (B, N, D)
        return torch.addcmul(x, y, ffn_gate).to(x.dtype)
