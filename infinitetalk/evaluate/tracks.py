"""Faces followed through a shot, as SyncNet's pipeline does: boxes that overlap from frame to frame are one track."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.faces import FaceFinder
from infinitetalk.evaluate.measure import Floats, Pixels, Reals, known_rows
from infinitetalk.evaluate.syncnet import RATE, SyncNetwork, SyncScores, crop, crop_boxes, score_crops

OVERLAP = 0.5
"""Intersection over union of the same face in two frames, at least."""
GAP = 25
"""Frames without a box inside a track, at most."""
LEAST_FRAMES = 50
"""As LatentSync has it; syncnet_python has 100."""
FRAME_RATE = 25
"""That SyncNet sees."""
LEAST_SIDE = 100
"""Pixels; mean of the larger side."""


class Track(NamedTuple):
    """One face in frames [start, end)."""

    start: int
    end: int
    boxes: Reals
    """(end - start, 4)."""


def follow(faces: Sequence[Floats], least: int = LEAST_FRAMES, side: float = LEAST_SIDE,
           ) -> tuple[list[Track], dict[str, int]]:
    """Tracks of a shot's faces, and how many were dropped, by reason.

    Args:
        faces: Boxes (n, 4) of each frame; none is (0, 4).
        least: Frames of a track, more than.
        side: Pixels of a face, more than.
    """
    left = [[box for box in np.asarray(frame, np.float64).reshape(-1, 4) if np.isfinite(box).all()] for frame in faces]
    tracks: list[Track] = []
    dropped = {"too short": 0, "too small": 0}
    while any(left):
        track = _track(left)
        if track.end - track.start <= least:
            dropped["too short"] += 1
        elif np.maximum(*(track.boxes[:, 2:] - track.boxes[:, :2]).T).mean() <= side:
            dropped["too small"] += 1
        else:
            tracks.append(track)
    return tracks, dropped


def _track(left: list[list[Reals]]) -> Track:
    """Take the first box that is left, and those that follow it, out of `left`."""
    first = next(at for at, boxes in enumerate(left) if boxes)
    found = {first: left[first].pop(0)}
    last = first
    for at in range(first + 1, len(left)):
        if at - last > GAP:
            break
        match = next((index for index, box in enumerate(left[at]) if overlap(found[last], box) > OVERLAP), None)
        if match is not None:
            found[at], last = left[at].pop(match), at
    known = np.array(sorted(found))
    frames = np.arange(first, last + 1)
    boxes = np.stack([np.interp(frames, known, [found[int(one)][edge] for one in known]) for edge in range(4)], 1)
    return Track(first, last + 1, boxes)


def overlap(one: Reals, other: Reals) -> float:
    """Intersection over union of two boxes."""
    size = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(size, 0)))
    whole = float(np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2])) - shared
    return shared / whole if whole > 0 else 0.0


def lone(boxes: Floats) -> list[Floats]:
    """One box a frame (F, 4), NaN where there is none → as `follow` takes them."""
    return [box[None][known_rows(box[None])] for box in boxes]


def score_video(network: SyncNetwork, finder: FaceFinder, frames: Pixels, rate: float, speech: Floats,
                ) -> tuple[list[SyncScores], int]:
    """SyncNet's word on every face track of a shot, and the frames (at 25 a second) that tracks hold.

    Args:
        network: SyncNet.
        finder: Of the largest face.
        frames: (F, H, W, 3).
        rate: Frames per second; shown at 25, each frame the one on screen then.
        speech: (M,) at 16 kHz.

    Raises:
        BadInputError: No face is large and long enough.
    """
    count = max(1, round(len(frames) * FRAME_RATE / rate))
    shown = frames[np.minimum(((np.arange(count) + 0.5) * rate / FRAME_RATE).astype(int), len(frames) - 1)]
    tracks, dropped = follow(lone(finder.find(shown)))
    if not tracks:
        why = ", ".join(f"{number} {reason}" for reason, number in dropped.items() if number) or "no face"
        raise BadInputError(f"no face track of more than {LEAST_FRAMES} frames and {LEAST_SIDE} pixels ({why})",
                            where="Sync-C", hint="Measure at a larger --side")
    step, scored = RATE // FRAME_RATE, []
    for start, end, boxes in tracks:
        squares = crop_boxes(boxes)
        crops = np.stack([crop(frame, box) for frame, box in zip(shown[start:end], squares, strict=True)])
        scored.append(score_crops(network, crops, speech[start * step:end * step]))
    return scored, sum(track.end - track.start for track in tracks)
