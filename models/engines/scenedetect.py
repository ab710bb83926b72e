"""Cuts by PySceneDetect's content score, judged against the motion around each frame."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.engines.decode import pictures
from models.engines.options import Adapter, read_options
from models.ports import EngineHome
from models.records import EngineRef, Record

SCORED_SIZE = 256
"""Longer side of the pictures that are scored: enough for cuts, and small enough to hide noise."""
THUMB = (16, 9)
NEIGHBOURS = 5
"""Scores on each side that tell how much the picture moves anyway; odd, so that two near cuts leave the median be."""
FLASH_FRAMES = 3
Thumbs = dict[int, NDArray[np.uint8]]
"""Grey thumbnails (h, w) of the frames before, at and after those that may be cuts."""


class ContentCutsOptions(Record):
    """What may be set."""

    ratio: float = Field(default=3.0, gt=0)
    """How many times the motion around it a cut must score."""
    content: float = Field(default=12.0, gt=0, le=255)
    """Least score of a cut, on PySceneDetect's scale of 0 to 255."""


class ContentCuts(Adapter):
    """A cut is a frame whose content score stands out from its neighbours'; pans, zooms and noise do not.

    There is no shortest shot. Only a flash is no shot: up to three frames that are blank, or the same picture in
    another light, after which the picture goes on as before.
    """

    OPTIONS: ClassVar[type[Record]] = ContentCutsOptions

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        options = read_options(ContentCutsOptions, ref.name, ref.options)
        self.ratio, self.content = options.ratio, options.content

    def cuts(self, video: Path) -> list[int]:
        """Frame indices at which a new shot begins, without 0, ascending.

        Raises:
            MediaError: The file cannot be decoded.
        """
        indices, scores, thumbs = _scores(video, self.content)
        found = [i for i in range(1, len(scores)) if self._stands_out(scores, i)]
        return [indices[i] for i in _without_flashes(found, thumbs, self.content)]

    def _stands_out(self, scores: NDArray[np.float64], i: int) -> bool:
        sides = [scores[max(1, i - NEIGHBOURS):i], scores[i + 1:i + 1 + NEIGHBOURS]]
        motion = [float(np.median(side)) for side in sides if len(side)]
        return bool(scores[i] >= max(self.content, self.ratio * (sum(motion) / len(motion) if motion else 0.0)))


def _scores(video: Path, content: float) -> tuple[Sequence[int], NDArray[np.float64], Thumbs]:
    """Frame indices and content scores (N,) of all frames; thumbnails beside scores of `content` and more."""
    import cv2
    from scenedetect import FrameTimecode, StatsManager
    from scenedetect.detectors import ContentDetector

    detector, indices, scores = ContentDetector(min_scene_len=0), array("q"), array("d")
    thumbs: Thumbs = {}
    before: NDArray[np.uint8] | None = None
    for number, (index, picture) in enumerate(pictures(video, "bgr24", SCORED_SIZE)):
        # Statistics are the library's public way to its scores; a fresh one a frame keeps memory flat.
        detector.stats_manager = StatsManager()
        now = FrameTimecode(number, Fraction(25))
        detector.process_frame(now, picture)
        indices.append(index)
        scores.append(detector.stats_manager.get_metrics(now, [ContentDetector.FRAME_SCORE_KEY])[0] or 0.0)
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        thumb = cv2.resize(grey, THUMB, interpolation=cv2.INTER_AREA)
        if before is not None and scores[-1] >= content:
            thumbs[number - 1] = before
        if max(scores[-2:]) >= content:
            thumbs[number] = thumb
        before = thumb
    return indices, np.array(scores), thumbs


def _without_flashes(cuts: list[int], thumbs: Thumbs, content: float) -> list[int]:
    kept: list[int] = []
    for cut in cuts:
        if kept and cut - kept[-1] <= FLASH_FRAMES and _is_flash(thumbs, kept[-1], cut, content):
            kept.pop()
        else:
            kept.append(cut)
    return kept


def _is_flash(thumbs: Thumbs, start: int, end: int, content: float) -> bool:
    before, lit, after = (thumbs[i].astype(np.float64).ravel() for i in (start - 1, (start + end) // 2, end))
    if np.abs(before - after).mean() >= content:
        return False
    blank = lit.std() < 8
    return bool(blank or (before.std() > 0 and np.corrcoef(before, lit)[0, 1] > 0.6))
