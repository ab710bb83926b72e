"""ShotsRequest → Shots: the cuts of an episode, and the faces seen between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from math import hypot, log2

from pydantic import Field

from models.ports import FaceDetector, ShotDetector
from models.records import Artifact, EngineRef, FaceTrack, Request, Shot, Shots
from models.timebase import Rate
from tasks.media import FrameReader
from tasks.step import Work, step

Box = tuple[int, int, int, int]
"""x, y, width, height."""

LOOKS_A_SECOND = 2.5
FEWEST_LOOKS = 5


class ShotsRequest(Request):
    """A source's picture, and the engines that look at it."""

    video: Artifact
    frames: int = Field(gt=0)
    rate: Rate
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    detector: EngineRef
    faces: EngineRef


@step("shots", version=1, result=Shots)
def find_shots(work: Work, request: ShotsRequest) -> Shots:
    """Find the shots of a source and follow the faces in each.

    Raises:
        MediaError: The picture cannot be decoded.
    """
    detector: ShotDetector = work.engines.get("shot-detector", request.detector)
    faces: FaceDetector = work.engines.get("face-detector", request.faces)
    video = work.store.path(request.video)
    work.progress("looking for cuts", 0.0)
    cuts = sorted({c for c in detector.cuts(video) if 0 < c < request.frames})
    edges = [0, *cuts, request.frames]
    shots = []
    with FrameReader(video) as reader:
        for number, (start, end) in enumerate(pairwise(edges), 1):
            work.progress(f"looking for faces, shot {number} of {len(cuts) + 1}", start / request.frames)
            looks = look_at(start, end, float(request.rate))
            seen = [(frame, faces.detect(reader.frame(frame))) for frame in looks]
            shots.append(Shot(id=f"S{number:04d}", start=start, end=end, faces=follow(seen)))
    return Shots(frames=request.frames, shots=tuple(shots))


def look_at(start: int, end: int, rate: float) -> tuple[int, ...]:
    """Frames of [start, end) to look for faces in: the first, the last, and evenly between."""
    last = end - 1 - start
    steps = max(FEWEST_LOOKS - 1, round(last / rate * LOOKS_A_SECOND))
    return tuple(sorted({start + round(last * i / steps) for i in range(steps + 1)}))


def follow(looks: Sequence[tuple[int, Iterable[Box]]]) -> tuple[FaceTrack, ...]:
    """Join faces found in single frames to tracks, each face to the track it lies nearest to.

    Args:
        looks: (frame, boxes found in it), in order, all of one shot.

    Returns:
        Tracks numbered from 0 in the order in which they begin. A face seen only once is taken for a mistake of the
        detector, unless the shot was looked at no more than twice.
    """
    tracks: list[list[tuple[int, Box]]] = []
    for frame, boxes in looks:
        unmatched, taken = list(boxes), set[int]()
        pairs = sorted(((_likeness(track[-1][1], box), i, box) for i, track in enumerate(tracks) for box in unmatched),
                       key=lambda pair: (-pair[0], pair[1:]))
        for likeness, i, box in pairs:
            if likeness > 0 and i not in taken and box in unmatched:
                tracks[i].append((frame, box))
                taken.add(i)
                unmatched.remove(box)
        tracks += [[(frame, box)] for box in unmatched]
    kept = [track for track in tracks if len(track) > 1 or len(looks) <= 2]
    return tuple(FaceTrack(id=i, boxes=tuple((frame, *box) for frame, box in track)) for i, track in enumerate(kept))


def _likeness(one: Box, other: Box) -> float:
    """1 for the same box, falling with distance and difference of size; ≤ 0 when it cannot be the same face."""
    size, other_size = (one[2] + one[3]) / 2, (other[2] + other[3]) / 2
    apart = hypot(one[0] + one[2] / 2 - other[0] - other[2] / 2, one[1] + one[3] / 2 - other[1] - other[3] / 2)
    return 1 - apart / max(size, other_size) - abs(log2(size / other_size))
