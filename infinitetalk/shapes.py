"""Shapes of pixels and latents, and the letters that name axes in every module of this package.

    B  videos in a batch            P  persons (speakers)           C  channels
    F  pixel frames                 H, W  pixel rows, columns
    T  latent frames, F = 4(T-1)+1  h, w  latent rows, columns (H/8, W/8)
    S  tokens of a latent frame = (h/2)(w/2)          N  tokens of a chunk = T·S
    D  width of the transformer     A  attention heads      d  D/A
    K  condition tokens (text, image or audio)        L  layers of the audio encoder
    n  audio frames on the video's frame clock        R  tokens of one person's audio per latent frame
"""

from __future__ import annotations

from typing import NamedTuple

LATENT_CHANNELS, PIXEL_CHANNELS = 16, 3
"""C of latents, and of pixels (RGB)."""
TEMPORAL, SPATIAL, PATCH = 4, 8, 2
"""Pixel frames per latent frame after the first; pixels per latent; latents per token, along each side."""


def latent_frames(frames: int) -> int:
    """T for F pixel frames; those past the last 4k+1 are not counted."""
    return 1 + (frames - 1) // TEMPORAL


def covering_frames(frames: int) -> int:
    """The smallest 4k+1 that is at least `frames`."""
    return 1 + -(-(frames - 1) // TEMPORAL) * TEMPORAL


class LatentShape(NamedTuple):
    """A chunk as the transformer sees it."""

    frames: int
    height: int
    width: int

    @property
    def frame_tokens(self) -> int:
        """S."""
        return (self.height // PATCH) * (self.width // PATCH)

    @property
    def tokens(self) -> int:
        """N."""
        return self.frames * self.frame_tokens


class PixelShape(NamedTuple):
    """A chunk as it is seen."""

    frames: int
    height: int
    width: int

    @property
    def latent(self) -> LatentShape:
        """The shape of its latent."""
        return LatentShape(latent_frames(self.frames), self.height // SPATIAL, self.width // SPATIAL)
