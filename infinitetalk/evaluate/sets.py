"""The instruments that look at pictures, and figures over sets of frames and clips, gathered video by video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.clips import Case
from infinitetalk.evaluate.faces import FaceFinder
from infinitetalk.evaluate.frechet import CLIP, ClipFeatures, Gaussian, ImageFeatures, clip_statistics, distance
from infinitetalk.evaluate.frechet import image_statistics as images_of
from infinitetalk.evaluate.identity import FaceEmbedder
from infinitetalk.evaluate.measure import Details, Measure, taken
from infinitetalk.evaluate.mouth import DarkMouth, MouthReader
from infinitetalk.evaluate.own import Layout
from infinitetalk.evaluate.syncnet import SyncNetwork


@dataclass(frozen=True)
class Instruments:
    """What looks at pictures; each can be exchanged."""

    reader: MouthReader = field(default_factory=DarkMouth)
    faces: FaceEmbedder | None = None
    images: ImageFeatures = field(default_factory=Layout)
    clips: ClipFeatures = field(default_factory=Layout)
    sync: SyncNetwork | None = None
    finder: FaceFinder | None = None
    """Of faces, where no truth says where they are, and for Sync-C."""


Both = tuple[Gaussian, Gaussian]
"""Of what was made, and of the sources."""


@dataclass(frozen=True)
class Pool:
    """Statistics of videos that have a source; those without are counted."""

    instruments: Instruments
    frames: int
    """Of all videos."""
    images: Both | None = None
    clips: Both | None = None

    @classmethod
    def over(cls, case: Case, instruments: Instruments) -> Self:
        """Of one video."""
        if case.source is None:
            return cls(instruments, len(case.frames))
        both = case.frames, case.source
        made, known = (images_of(instruments.images, [video]) for video in both)
        if len(case.frames) < CLIP:
            return cls(instruments, len(case.frames), (made, known))
        moving, still = (clip_statistics(instruments.clips, [video]) for video in both)
        return cls(instruments, len(case.frames), (made, known), (moving, still))

    def joined(self, other: Self) -> Self:
        """Of both together."""
        return type(self)(self.instruments, self.frames + other.frames, _joined(self.images, other.images),
                          _joined(self.clips, other.clips))

    def rows(self) -> Sequence[Measure]:
        """FID and FVD."""
        images, clips = self.instruments.images, self.instruments.clips
        return (taken("FID", "Fréchet distance of frames to the source's; lower is better", self.frames,
                      lambda: _distance(self.images), images.name),
                taken("FVD", f"the same of clips of {CLIP} frames", self.frames // CLIP,
                      lambda: _distance(self.clips), clips.name))


def _joined(one: Both | None, other: Both | None) -> Both | None:
    if one is None or other is None:
        return one or other
    return one[0].joined(other[0]), one[1].joined(other[1])


def _distance(both: Both | None) -> tuple[float, int, Details]:
    if both is None:
        raise BadInputError("no source is given, or it is too short", where="Fréchet distance")
    return distance(*both), both[0].count, {"full rank": int(both[0].full_rank and both[1].full_rank)}
