"""Who is driven in a shot, and where: faces and voices of a request → speakers, regions, and the part of the frame.

A track whose face is known keeps it. The others get what faces are left: one track the largest, several the largest
ones from left to right, in the order of the request. That is a guess, and the best there is without a voice's face.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.ports import Image, Samples
from models.records import FaceTrack, Placement, ShotRequest

Box = tuple[int, int, int, int]
"""(x, y, width, height)."""
MARGIN = (1.0, 0.8, 1.6)
"""Around a face, in parts of it: to each side, above, below. A head with its shoulders."""


def cast(request: ShotRequest) -> dict[str, int | None]:
    """Speaker → index of his face in the request; None for those who have none."""
    found: dict[str, int | None] = {}
    for track in request.tracks:
        known = track.face is not None and track.face < len(request.faces)
        found[track.speaker] = track.face if known else found.get(track.speaker)
    unknown = [speaker for speaker, face in found.items() if face is None]
    free = [face for face in range(len(request.faces)) if face not in found.values()]
    free.sort(key=lambda face: -area(request.faces[face]))
    left_to_right = sorted(free[:len(unknown)], key=lambda face: _centre(request.faces[face]))
    return found | dict(zip(unknown, left_to_right, strict=False))


def loudest(tracks: Mapping[str, Samples], most: int) -> list[str]:
    """At most `most` of those who are heard, in the order of the tracks; where nobody is, the first, who keeps silent.

    Args:
        tracks: Speaker → audio.
        most: At least 1.
    """
    energy = {name: float(np.square(samples, dtype=np.float64).sum()) for name, samples in tracks.items()}
    heard = sorted((name for name in energy if energy[name] > 0), key=lambda name: -energy[name])[:most]
    return [name for name in tracks if name in heard] or list(tracks)[:1]


def face_box(face: FaceTrack) -> Box:
    """What a face covers during the shot, in source pixels; (0, 0, 0, 0) where it was never seen."""
    if not face.boxes:
        return 0, 0, 0, 0
    left, top = min(box[1] for box in face.boxes), min(box[2] for box in face.boxes)
    right, bottom = max(box[1] + box[3] for box in face.boxes), max(box[2] + box[4] for box in face.boxes)
    return left, top, right - left, bottom - top


def area(face: FaceTrack) -> float:
    """Pixels of a face, as it is seen most of the time."""
    return float(np.median([width * height for *_, width, height in face.boxes])) if face.boxes else 0.0


def _centre(face: FaceTrack) -> float:
    return float(np.median([x + width / 2 for _, x, _, width, _ in face.boxes])) if face.boxes else 0.0


def around(faces: Sequence[FaceTrack], width: int, height: int) -> Placement:
    """A rectangle around heads and shoulders, inside a frame of `width` × `height`; even sides where the frame's are.

    Args:
        faces: Those that belong in it, each with all places where it was seen: it holds for the whole shot.
        width: Of the source frame.
        height: Of the source frame.
    """
    boxes = [_widened(face) for face in faces if face.boxes]
    if not boxes:
        return Placement(x=0, y=0, width=width, height=height)
    left, top = (min(box[axis] for box in boxes) for axis in (0, 1))
    right, bottom = (max(box[axis] + box[axis + 2] for box in boxes) for axis in (0, 1))
    return covering((left, top, right - left, bottom - top), width, height)


def covering(box: Box, width: int, height: int) -> Placement:
    """What holds a box (x, y, width, height), as far as it lies in a frame; even sides where the frame's are."""
    left, right = _even(box[0], box[0] + box[2], width)
    top, bottom = _even(box[1], box[1] + box[3], height)
    return Placement(x=left, y=top, width=right - left, height=bottom - top)


def _widened(face: FaceTrack) -> Box:
    """The face with its margin, which is of one face's size, however far that moves."""
    x, y, width, height = face_box(face)
    wide, high = (max(box[axis] for box in face.boxes) for axis in (3, 4))
    side, above, below = round(MARGIN[0] * wide), round(MARGIN[1] * high), round(MARGIN[2] * high)
    return x - side, y - above, width + 2 * side, height + above + below


def _even(start: int, end: int, size: int) -> tuple[int, int]:
    """Cut to [0, size), begun and ended at even pixels (or at the frame's edge): chroma is shared by two."""
    start, end = max(0, start), min(size, end)
    return min(start - start % 2, max(0, size - 2)), min(size, max(end + end % 2, start - start % 2 + 2))


def region_of(face: FaceTrack, place: Placement, size: tuple[int, int]) -> Box | None:
    """Where a person is in the generated picture: head and shoulders, cut to it; None outside of it.

    Args:
        face: His.
        place: The part of the source that is generated.
        size: (width, height) that is generated.
    """
    if not face.boxes:
        return None
    x, y, width, height = _widened(face)
    across, down = size[0] / place.width, size[1] / place.height
    left, right = (min(max(round((edge - place.x) * across), 0), size[0]) for edge in (x, x + width))
    top, bottom = (min(max(round((edge - place.y) * down), 0), size[1]) for edge in (y, y + height))
    return (left, top, right - left, bottom - top) if right > left and bottom > top else None


def cut_out(picture: Image, place: Placement, size: tuple[int, int]) -> Image:
    """The part of a source picture that is generated, at the generated (width, height).

    Pillow's bilinear filter, as the engine's own: pixels of the source are averaged, not picked.
    """
    from PIL import Image as Pictures

    part = picture[place.y:place.y + place.height, place.x:place.x + place.width]
    return np.asarray(Pictures.fromarray(part).resize(size, Pictures.Resampling.BILINEAR))
