"""Checks of generated faces: are they the person of the source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.ports import FaceEmbedder, Image
from models.records import Check, EngineRef, FaceTrack, Source
from models.timebase import frame_to_ticks, timecode
from tasks.checks import at_most, not_made
from tasks.checks_picture import Made
from tasks.media import FrameReader, frame_count
from tasks.step import Work

LOOKS = 3
"""Frames of a shot that are compared."""
MOST_SHOTS = 40
AROUND = 0.5
"""Of a face's box, around it."""
STRANGER = 1.0
"""The distance of a face that is nobody's: it is found in the source, and not in the dub."""


def check_identity(work: Work, path: Path, source: Source, made: Sequence[Made], embedder: EngineRef | None) -> Check:
    """The generated shot whose largest face is least that of the source, by the median of some looks.

    Args:
        work: For the engine, the source's file and progress.
        path: The delivered file.
        source: What it was made of.
        made: Shots that were generated.
        embedder: Who tells faces apart; None: nobody.
    """
    shown = [one for one in made if any(face.boxes for face in one.shot.faces)]
    if embedder is None or not shown:
        return not_made("identity", "no shot with a face was generated" if not shown else
                        "nobody here tells faces apart: engines.face-embedder = dlib-resnet")
    engine: FaceEmbedder = work.engines.get("face-embedder", embedder)
    chosen = [shown[i] for i in _spread(len(shown), MOST_SHOTS)]
    frames, found = frame_count(path), list[tuple[float, int, str]]()
    with FrameReader(work.store.path(source.video)) as known, FrameReader(path) as dub:
        for number, one in enumerate(chosen):
            work.progress(f"inspect: faces of {one.shot.id}", number / len(chosen))
            face = max(one.shot.faces, key=_size)
            looks = [box for box in _looks(face) if box[0] < frames]
            apart = [(distance, box[0]) for box in looks
                     if (distance := _distance(engine, _around(known.frame(box[0]), box),
                                               _around(dub.frame(box[0]), box))) is not None]
            if apart:
                middle = sorted(apart)[len(apart) // 2]
                found.append((*middle, one.shot.id))
    if not found:
        return not_made("identity", "no face of the source is large or frontal enough to be told from others")
    far, frame, shot = max(found)
    at = frame_to_ticks(frame, source.rate)
    return at_most("identity", far, engine.SAME_PERSON, f"{shot}, {timecode(at)}", at)


def _size(face: FaceTrack) -> int:
    return max((box[3] * box[4] for box in face.boxes), default=0)


def _looks(face: FaceTrack) -> list[tuple[int, int, int, int, int]]:
    """Some of a face's boxes, evenly spread."""
    return [face.boxes[i] for i in _spread(len(face.boxes), LOOKS)]


def _spread(count: int, most: int) -> list[int]:
    """At most so many of `count` places, evenly spread."""
    return sorted({(2 * i + 1) * count // (2 * min(count, most)) for i in range(min(count, most))})


def _around(picture: Image, box: tuple[int, int, int, int, int]) -> Image:
    """A face with what is around it, (h, w, 3)."""
    _, x, y, wide, high = box
    dx, dy = round(AROUND * wide), round(AROUND * high)
    return picture[max(0, y - dy):y + high + dy, max(0, x - dx):x + wide + dx]


def _distance(engine: FaceEmbedder, known: Image, dub: Image) -> float | None:
    """Between the faces of two pictures of one size; None where the source shows none that can be told."""
    if known.shape != dub.shape:
        return None
    source, made = engine.embed(np.stack([known, dub]))
    return None if not _there(source) else STRANGER if not _there(made) else float(np.linalg.norm(source - made))


def _there(embedding: NDArray[np.float32]) -> bool:
    return bool(np.isfinite(embedding).all())
