"""Which pictures a chunk is conditioned on, always from its own shot.

Streams (`Source`, `Both`, `Image`) carry the last frames of one chunk into the next as clean latents and take one or
two references beside them. `I2V` and `FL2V` are what InfiniteTalk (arXiv 2508.14033, section 3.2) compares them with:
chunks that share one picture and no motion. `M0` to `M3` are that paper's ways of drawing the reference in training.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from torch import Tensor

from infinitetalk.errors import BadInputError
from infinitetalk.plan import ChunkSize, ChunkSpan

Picture = Callable[[int], Tensor]
"""Index in the shot, clamped to it → (3, H, W) in [-1, 1]."""
FRAME_RATE = 25
"""Frames per second that the distances of M2 and M3 are counted at."""


class Reference(Protocol):
    """A way of choosing the pictures that a chunk sees."""

    @property
    def carries(self) -> bool:
        """Whether a chunk begins with the latents of the last frames before it."""
        ...

    @property
    def follows(self) -> bool:
        """Whether a chunk's reference is the last frame made before it."""
        ...

    @property
    def constant(self) -> bool:
        """Whether every chunk has the same reference."""
        ...

    @property
    def soft(self) -> bool:
        """Whether pictures after the first are shown to the network without being marked as frames of the chunk."""
        ...

    def size(self, size: ChunkSize) -> ChunkSize:
        """The length of chunks and of what they share."""
        ...

    def keyframes(self, span: ChunkSpan, picture: Picture, last: Tensor | None) -> Mapping[int, Tensor]:
        """Position in the chunk → picture (3, H, W) that stands there; position 0 is always given."""
        ...


class _Streamed:
    """Later chunks begin with latents of the last frames made."""

    carries, follows, constant, soft = True, False, False, False

    def size(self, size: ChunkSize) -> ChunkSize:
        """As asked."""
        return size


class _Chained:
    """Chunks share one picture: the last of one is the first of the next."""

    carries, follows, constant, soft = False, False, False, False

    def size(self, size: ChunkSize) -> ChunkSize:
        """One frame of overlap."""
        return replace(size, context=1)


@dataclass(frozen=True)
class Source(_Streamed):
    """The source picture at the chunk's start: the camera of the source is followed. For video (the paper's V2V)."""

    def keyframes(self, span: ChunkSpan, picture: Picture, last: Tensor | None) -> Mapping[int, Tensor]:
        """The picture at the first frame, context included."""
        return {0: picture(span.start)}


@dataclass(frozen=True)
class Both(_Streamed):
    """The source pictures at the chunk's start and at its end, the second one shown and not marked: it is not to be
    reached, only to tell where the camera goes (the paper's eq. 5). For weights that were trained so."""

    soft = True

    def keyframes(self, span: ChunkSpan, picture: Picture, last: Tensor | None) -> Mapping[int, Tensor]:
        """The pictures at both ends, context included."""
        return {0: picture(span.start), span.frames - 1: picture(span.start + span.frames - 1)}


@dataclass(frozen=True)
class Image(_Streamed):
    """The same picture for every chunk."""

    index: int = 0
    """Which of the shot's."""
    constant = True

    def keyframes(self, span: ChunkSpan, picture: Picture, last: Tensor | None) -> Mapping[int, Tensor]:
        """That picture."""
        return {0: picture(self.index)}


@dataclass(frozen=True)
class I2V(_Chained):
    """The last frame made begins the next chunk. Errors pile up: for comparison."""

    follows = True

    def keyframes(self, span: ChunkSpan, picture: Picture, last: Tensor | None) -> Mapping[int, Tensor]:
        """The shot's first picture, then the last one made.

        Raises:
            BadInputError: A later chunk is not told what was made before it.
        """
        if span.index == 0:
            return {0: picture(0)}
        if last is None:
            raise BadInputError("the last frame made is missing", where=f"chunk {span.index}",
                                hint="Go on from the state that the chunk before it gave")
        return {0: last}


@dataclass(frozen=True)
class FL2V(_Chained):
    """First and last picture of each chunk are the source's. It copies the source's poses: for comparison."""

    def keyframes(self, span: ChunkSpan, picture: Picture, last: Tensor | None) -> Mapping[int, Tensor]:
        """The pictures at both ends; one of them where the chunk is one frame long."""
        return {0: picture(span.start), span.frames - 1: picture(span.start + span.frames - 1)}


@dataclass(frozen=True)
class M0:
    """Anywhere in the chunk: the network learns to copy the reference's pose."""

    def draw(self, rng: random.Random, start: int, frames: int, total: int) -> int:
        """Index of a reference for the chunk [start, start + frames) of a video of `total` frames."""
        return rng.choice(_inside(start, frames, total))


@dataclass(frozen=True)
class M1:
    """First or last frame of the chunk."""

    def draw(self, rng: random.Random, start: int, frames: int, total: int) -> int:
        """Index of a reference for the chunk [start, start + frames) of a video of `total` frames."""
        inside = _inside(start, frames, total)
        return rng.choice((inside[0], inside[-1]))


@dataclass(frozen=True)
class M2:
    """Far from the chunk: the reference gives the looks, and no pose."""

    least: int = 2 * FRAME_RATE
    """Frames between it and the chunk."""

    def draw(self, rng: random.Random, start: int, frames: int, total: int) -> int:
        """As `M0.draw`; in a video too short for that, the frame that is farthest away."""
        away = _distances(start, frames, total)
        far = [index for index, distance in enumerate(away) if distance >= self.least]
        return rng.choice(far or [away.index(max(away))])


@dataclass(frozen=True)
class M3:
    """Near the chunk and not in it: pose and looks of the moment, not to be copied. The released weights' way."""

    most: int = FRAME_RATE
    """Frames between it and the chunk."""

    def draw(self, rng: random.Random, start: int, frames: int, total: int) -> int:
        """As `M0.draw`; in a video that is all chunk, one of its ends."""
        away = _distances(start, frames, total)
        near = [index for index, distance in enumerate(away) if 0 < distance <= self.most]
        return rng.choice(near) if near else M1().draw(rng, start, frames, total)


def _inside(start: int, frames: int, total: int) -> range:
    """The chunk's indices.

    Raises:
        BadInputError: It does not lie in the video.
    """
    if frames < 1 or start < 0 or start + frames > total:
        raise BadInputError(f"frames {start} to {start + frames - 1} of a video of {total}", where="chunk",
                            hint="Draw chunks inside the video")
    return range(start, start + frames)


def _distances(start: int, frames: int, total: int) -> list[int]:
    """Frames between each frame of the video and the chunk; 0 inside."""
    inside = _inside(start, frames, total)
    return [max(inside[0] - index, index - inside[-1], 0) for index in range(total)]
