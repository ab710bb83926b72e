"""Audio states around the pixel frames → audio tokens beside the latent frames (MultiTalk, arXiv 2505.22647)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from infinitetalk.config import TransformerConfig
from infinitetalk.errors import BadInputError
from infinitetalk.shapes import TEMPORAL


class AudioProjection(nn.Module):  # type: ignore[misc]
    """The first latent frame hears one window, each later one the eight states around its four pixel frames."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        state, window, hidden = config.audio_layers * config.audio_channels, config.audio_window, config.audio_hidden
        self.config = config
        self.proj1 = nn.Linear(window * state, hidden)
        self.proj1_vf = nn.Linear((window + TEMPORAL - 1) * state, hidden)
        self.proj2 = nn.Linear(hidden, hidden)
        self.proj3 = nn.Linear(hidden, config.audio_tokens * config.audio_dim)
        self.norm = nn.LayerNorm(config.audio_dim)

    def forward(
        self,
        windows: Tensor,  # (B, P, F, 5, L, C)
    ) -> Tensor:  # (B, T, P·R, audio_dim)
        """Tokens of all persons beside each latent frame, person by person.

        Args:
            windows: Audio states at the frames -2..2 around each pixel frame, F = 4(T-1)+1.

        Raises:
            BadInputError: The windows are of another size.
        """
        self._check(windows)
        first, later = regroup(windows)
        hidden = torch.cat([self.proj1(first).relu(), self.proj1_vf(later).relu()], dim=2)  # (B, P, T, hidden)
        tokens = self.proj3(self.proj2(hidden).relu())  # (B, P, T, R·audio_dim)
        tokens = self.norm(tokens.unflatten(-1, (self.config.audio_tokens, -1)))  # (B, P, T, R, audio_dim)
        return tokens.transpose(1, 2).flatten(2, 3)

    def _check(self, windows: Tensor) -> None:
        size = (self.config.audio_window, self.config.audio_layers, self.config.audio_channels)
        if windows.dim() != 6 or tuple(windows.shape[3:]) != size or (windows.shape[2] - 1) % TEMPORAL:
            hint = f"It must be (videos, persons, 4k+1 frames, {', '.join(map(str, size))})"
            raise BadInputError(f"its shape is {tuple(windows.shape)}", where="audio windows", hint=hint)


def regroup(
    windows: Tensor,  # (B, P, F, 5, L, C)
) -> tuple[Tensor, Tensor]:  # (B, P, 1, 5·L·C), (B, P, T-1, 8·L·C)
    """The first frame's window, and of each four later frames the states that are not heard twice."""
    middle = windows.shape[3] // 2
    groups = windows[:, :, 1:].unflatten(2, (-1, TEMPORAL))  # (B, P, T-1, 4, 5, L, C)
    parts = [groups[:, :, :, 0, : middle + 1], groups[:, :, :, 1:-1, middle], groups[:, :, :, -1, middle:]]
    return windows[:, :, :1].flatten(3), torch.cat(parts, dim=3).flatten(3)
