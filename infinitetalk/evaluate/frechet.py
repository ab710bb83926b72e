"""FID and FVD: the Fréchet distance of two sets of features, each taken for a Gaussian.

    |μ₁ - μ₂|² + tr(S₁ + S₂ - 2 (S₁S₂)^½),   S unbiased.

The trace of the root comes from the eigenvalues of S₁^½ S₂ S₁^½, which is symmetric: no imaginary parts to drop, and
sets smaller than the features are wide (rank-deficient S) need no offset on the diagonal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.measure import Floats, Pixels, Reals, check_frames, finite

CLIP = 16
"""Frames of an FVD clip; clips do not overlap."""
LEAST_CLIP = 10
"""Below, I3D's steps in time leave nothing."""


class ImageFeatures(Protocol):
    """Sees pictures."""

    name: str

    def of_images(self, frames: Pixels) -> Floats:
        """(F, H, W, 3) → (F, D)."""
        ...


class ClipFeatures(Protocol):
    """Sees short clips."""

    name: str

    def of_clips(self, clips: Pixels) -> Floats:
        """(n, 16, H, W, 3) → (n, D)."""
        ...


@dataclass
class Gaussian:
    """Count, mean and scatter of features, gathered block by block (Chan's update): as one pass over all."""

    count: int
    mean: Reals
    """(D,)."""
    scatter: Reals
    """Sum of outer products around the mean, (D, D)."""

    @classmethod
    def over(cls, blocks: Iterable[Floats | Reals]) -> Self:
        """Of features (n, D), in blocks.

        Raises:
            BadInputError: Nothing, blocks of other widths, or values that are no numbers.
        """
        whole: Self | None = None
        for block in blocks:
            rows = finite(block, "features")
            if rows.ndim != 2 or (whole and rows.shape[1] != len(whole.mean)):
                raise BadInputError(f"features of shape {rows.shape}", where="Fréchet distance",
                                    hint="Give (n, D), of one D")
            if len(rows):
                centred = rows - rows.mean(0)
                one = cls(len(rows), rows.mean(0), centred.T @ centred)
                whole = one if whole is None else whole.joined(one)
        if whole is None:
            raise BadInputError("no features", where="Fréchet distance", hint="Give at least two pictures")
        return whole

    def joined(self, other: Self) -> Self:
        """Of both together."""
        count, step = self.count + other.count, other.mean - self.mean
        return type(self)(count, self.mean + step * (other.count / count), self.scatter + other.scatter
                          + np.outer(step, step) * (self.count * other.count / count))

    @property
    def covariance(self) -> Reals:
        """Unbiased, (D, D).

        Raises:
            BadInputError: Of a single sample there is none.
        """
        if self.count < 2:
            raise BadInputError("one sample has no covariance", where="Fréchet distance",
                                hint="Give at least two pictures or clips a set")
        return self.scatter / (self.count - 1)

    @property
    def full_rank(self) -> bool:
        """Whether there are more samples than features; below, figures compare only at equal counts."""
        return self.count > len(self.mean)


def distance(one: Gaussian, other: Gaussian) -> float:
    """Fréchet distance; never below 0.

    Raises:
        BadInputError: Features of other widths, or a single sample.
    """
    if one.mean.shape != other.mean.shape:
        raise BadInputError(f"{len(one.mean)} and {len(other.mean)} features", where="Fréchet distance",
                            hint="Take one extractor for both sets")
    a, b = one.covariance, other.covariance
    root = _root(a)
    values = np.linalg.eigvalsh(_symmetric(root @ b @ root))
    step = one.mean - other.mean
    cross = float(np.sqrt(np.maximum(values, 0)).sum())
    return max(0.0, float(step @ step + np.trace(a) + np.trace(b) - 2 * cross))


def _root(matrix: Reals) -> Reals:
    """Square root of a symmetric matrix without negative eigenvalues."""
    values, vectors = np.linalg.eigh(_symmetric(matrix))
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T, np.float64)


def _symmetric(matrix: Reals) -> Reals:
    return (matrix + matrix.T) / 2


def image_statistics(extractor: ImageFeatures, videos: Iterable[Pixels], stride: int = 1, block: int = 64) -> Gaussian:
    """Of all frames of all videos, or of every `stride`-th."""
    return Gaussian.over(extractor.of_images(part[at:at + block]) for video in videos
                         for part in (check_frames(video, "FID")[::stride],) for at in range(0, len(part), block))


def clip_statistics(extractor: ClipFeatures, videos: Iterable[Pixels], length: int = CLIP) -> Gaussian:
    """Of all videos cut into consecutive clips of `length` frames; what remains of a video is left out.

    Raises:
        BadInputError: `length` is below 10, or no video is that long.
    """
    if length < LEAST_CLIP:
        raise BadInputError(f"clips of {length} frames", where="FVD", hint=f"Take at least {LEAST_CLIP}")
    return Gaussian.over(extractor.of_clips(clip[None]) for video in videos for clip in cut(video, length))


def cut(video: Pixels, length: int = CLIP) -> Iterator[Pixels]:
    """Consecutive clips (length, H, W, 3) of a video."""
    check_frames(video, "FVD")
    return (video[at:at + length] for at in range(0, len(video) - length + 1, length))
