"""Which frames each chunk makes, and which audio frames it hears: arithmetic on integers, no tensors of pixels.

A shot is made in chunks of 4k+1 frames (the causal VAE's grid). The first has no context; every later one begins with
the last frames of the one before it. InfiniteTalk (arXiv 2508.14033) uses 81 frames, 9 of them context: 72 new ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from infinitetalk.errors import BadInputError
from infinitetalk.shapes import TEMPORAL, covering_frames, latent_frames

Tail = Literal["short", "full"]
REACH = 2
"""Audio frames that are heard on each side of a video frame."""
SPARE = 3
"""Audio frames that the published tail has past the end of its chunk."""


@dataclass(frozen=True)
class ChunkSize:
    """How long chunks are, and how many frames two neighbours share."""

    frames: int = 81
    """Frames of a chunk, context included: 4k+1."""
    context: int = 9
    """Frames taken over from the chunk before: 4k+1, fewer than `frames`."""

    def __post_init__(self) -> None:
        """Both lie on the VAE's grid.

        Raises:
            BadInputError: They do not, or a chunk would add nothing.
        """
        for name, value in (("frames", self.frames), ("context", self.context)):
            if value < 1 or (value - 1) % TEMPORAL:
                raise BadInputError(f"{value} is not 4k+1", where=f"chunk size, {name}", hint="Take 5, 9, 13 …")
        if self.context >= self.frames:
            raise BadInputError(f"{self.context} frames of context leave nothing new in {self.frames}",
                                where="chunk size", hint="Take fewer frames of context")


@dataclass(frozen=True)
class ChunkSpan:
    """One chunk of a shot."""

    index: int
    start: int
    """The shot's frame that the chunk begins with, context included."""
    frames: int
    """Frames, context included; 4k+1."""
    context: int
    """Frames taken over from the chunk before; 0 in the first."""

    @property
    def new(self) -> int:
        """Frames that it adds; the last ones of the last chunk may lie past the end of the shot."""
        return self.frames - self.context

    @property
    def first_new(self) -> int:
        """The shot's frame that is its first new one."""
        return self.start + self.context

    @property
    def latents(self) -> int:
        """T."""
        return latent_frames(self.frames)


def plan(total: int, size: ChunkSize, tail: Tail = "short") -> list[ChunkSpan]:
    """The chunks of a shot of `total` frames.

    Args:
        total: Frames wanted, at least 1.
        size: Length of chunks and context.
        tail: "short": the last chunk is the smallest 4k+1 that covers the rest; "full": as long as the others.

    Raises:
        BadInputError: `total` is below 1.
    """
    if total < 1:
        raise BadInputError(f"a shot of {total} frames", where="plan", hint="Give at least one frame")
    spans: list[ChunkSpan] = []
    done = 0
    while done < total:
        context = size.context if spans else 0
        needed = covering_frames(context + total - done)
        frames = min(size.frames, needed) if tail == "short" else size.frames
        spans.append(ChunkSpan(len(spans), done - context, frames, context))
        done += frames - context
    return spans


def held_windows(start: int, frames: int, heard: int) -> Tensor:
    """Audio frames around each of a chunk's frames, the first and last of the track held → (F, 5).

    Args:
        start: First frame of the chunk.
        frames: F.
        heard: Length of the track, in frames.
    """
    centres = torch.arange(start, start + frames)[:, None]                       # (F, 1)
    return (centres + torch.arange(-REACH, REACH + 1)).clamp(0, heard - 1)       # (F, 5)


def published_windows(start: int, frames: int, heard: int) -> Tensor:
    """As `held_windows`, but a chunk that reaches the track's end hears it played backwards from there → (F, 5).

    That is the published implementation's way (MeiGen-AI/InfiniteTalk at 0107cd96). Mouths then speak on for as long
    as the chunk lasts: for parity, not for dubbing.
    """
    miss = max(0, start + frames - heard + SPARE) if start + frames >= heard else 0
    padded = held_windows(start, frames, heard + min(miss, heard))               # (F, 5)
    return torch.where(padded < heard, padded, 2 * heard - 1 - padded)           # (F, 5)
