"""Checks of generated faces: are they the person of the source, and do their lips follow the voice."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.engines.infinitetalk_cast import area, cast
from models.errors import EngineError
from models.ports import FaceEmbedder, Frames, Image, LipScorer, LipSync, Samples
from models.records import Check, EngineRef, FaceTrack, Source, SpokenLine
from models.timebase import CLOCK, frame_to_ticks, timecode
from tasks.checks import at_most, check, not_made
from tasks.checks_picture import Made
from tasks.media import FrameReader, frame_count, read_audio
from tasks.step import Work

LOOKS = 3
"""Frames of a shot that are compared."""
MOST_SHOTS = 40
AROUND = 0.5
"""Of a face's box, around it."""
STRANGER = 1.0
"""The distance of a face that is nobody's: it is found in the source, and not in the dub."""
LIPS_RATE, VOICE_RATE = 25, 16_000
"""Pictures and samples a second that lips are scored at."""
LONGEST_S = 12
"""Of a shot, from where speech begins in it."""
BESIDE_S = 0.2
"""Around a line: lips begin before the voice."""
OFF_S = 0.08
"""By which lips may be late or early, as scorers tell it in whole frames: viewers accept sound that is 90 ms early or
185 ms late (ITU-R BT.1359)."""
FACE_SIDE = 160
"""Pixels of a face that is scored, at most."""


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
                        'nobody here tells faces apart: set engines.face-embedder = "dlib-resnet", and name dlib\'s two'
                        " files by options.dlib-resnet.path")
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


def check_sync(work: Work, path: Path, source: Source, made: Sequence[Made], stem: Path | None,
               lines: Sequence[SpokenLine], scorer: EngineRef | None) -> Check:
    """The generated shot whose lips follow the voice least; those that follow another moment of it come first.

    Args:
        work: For the engine and progress.
        path: The delivered file.
        source: What it was made of.
        made: Shots that were generated.
        stem: The dub's voices alone; None: the sound of the delivered file is all that is known.
        lines: What is said in the stem.
        scorer: Who judges lips; None: nobody.
    """
    spoken = [(one, face, said) for one in made for face, said in [_speaking(one, lines, source.rate)]
              if face and (said or not stem)]
    if scorer is None or not spoken:
        return not_made("sync", "nobody speaks in a shot that was generated" if not spoken else
                        'nobody here reads lips: of real people set engines.lip-scorer = "syncnet", and name SyncNet\'s'
                        ' weights by options.syncnet.path; of rendered ones, engines.lip-scorer = "lip-reader"')
    engine: LipScorer = work.engines.get("lip-scorer", scorer)
    chosen = [spoken[i] for i in _spread(len(spoken), MOST_SHOTS)]
    found, why = list[tuple[bool, LipSync, int, str]](), ""
    with FrameReader(path) as dub:
        for number, (one, face, said) in enumerate(chosen):
            work.progress(f"inspect: lips of {one.shot.id}", number / len(chosen))
            start, end = _looked_at(one, said, source.rate, frame_count(path))
            try:
                shown, boxes = _close(dub, face, start, end)
                heard, when = _voice(stem or path, said if stem else None, lines, source.rate, start, len(shown))
                lips = engine.score(shown, boxes, heard, when)
            except EngineError as error:
                why = error.what
                continue
            right = lips.score >= engine.LEAST and abs(lips.late) <= OFF_S
            found.append((right, lips, start, one.shot.id))
    if not found:
        return not_made("sync", f"no shot can be scored: {why}")
    right, lips, start, shot = min(found, key=lambda one: (one[0], one[1].score))
    at = frame_to_ticks(start, source.rate)
    there = f"best {abs(lips.late) * 1000:.0f} ms {'late' if lips.late > 0 else 'early'}" if lips.late else "best as is"
    return check("sync", lips.score, f"≥ {engine.LEAST:g} ({engine.MEASURE}), best within ± {OFF_S * 1000:g} ms", right,
                 f"{shot}, {timecode(at)}, lips {there}{f', {lips.words}' if lips.words else ''}", at)


def _speaking(one: Made, lines: Sequence[SpokenLine], rate: Fraction) -> tuple[FaceTrack | None, list[SpokenLine]]:
    """The largest face of a shot that is known to speak, and its lines; where nothing is known, the largest."""
    faces = [face for face in one.shot.faces if face.boxes]
    if one.request is None:
        return max(faces, key=area, default=None), []
    whose = [(speaker, one.request.faces[face]) for speaker, face in cast(one.request).items() if face is not None]
    speaker, seen = max(whose, key=lambda known: area(known[1]), default=("", None))
    start, end = (frame_to_ticks(edge, rate) for edge in (one.shot.start, one.shot.end))
    return seen, [line for line in lines if line.speaker == speaker
                  and line.start < end and line.start + line.length > start]


def _looked_at(one: Made, said: Sequence[SpokenLine], rate: Fraction, frames: int) -> tuple[int, int]:
    """First and last frame of a shot that are scored: from a little before the first line on."""
    first = min((line.start for line in said), default=0) / CLOCK - BESIDE_S
    start = max(one.shot.start, int(first * rate))
    return start, min(one.shot.end, frames, start + int(LONGEST_S * rate))


def _close(dub: FrameReader, face: FaceTrack, start: int, end: int) -> tuple[Frames, NDArray[np.float32]]:
    """A face and what is around it at 25 pictures a second, (F, h, w, 3), and its box in each, (F, 4)."""
    import cv2

    step = dub.rate / LIPS_RATE
    at = [start + int((i + Fraction(1, 2)) * step) for i in range(int((end - start) / step))]
    known = [box[0] for box in face.boxes]
    x, y, wide, high = (np.interp(at, known, [box[axis] for box in face.boxes]) for axis in (1, 2, 3, 4))
    boxes = np.stack([x, y, x + wide, y + high], 1)
    if not at:
        raise EngineError("the shot is too short")
    reach = float(max(wide.max(), high.max()))
    left, top = (max(0, int(boxes[:, edge].min() - reach)) for edge in (0, 1))
    right, bottom = (int(boxes[:, edge].max() + reach) for edge in (2, 3))
    scale = min(1.0, FACE_SIDE / reach)
    shown = []
    for frame in at:
        part = dub.frame(frame)[top:bottom, left:right]
        size = max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale))
        shown.append(cv2.resize(part, size, interpolation=cv2.INTER_AREA))
    return np.stack(shown), ((boxes - (left, top, left, top)) * scale).astype(np.float32)


def _voice(sound: Path, said: Sequence[SpokenLine] | None, lines: Sequence[SpokenLine], rate: Fraction, start: int,
           count: int) -> tuple[Samples, NDArray[np.bool_]]:
    """What is heard from a frame on for `count` pictures, other people's lines left out, and when there is speech."""
    first = frame_to_ticks(start, rate)
    voice = read_audio(sound, rate=VOICE_RATE, start=first, length=count * CLOCK // LIPS_RATE)
    voice = np.pad(voice, (0, max(0, count * VOICE_RATE // LIPS_RATE - len(voice))))
    if said is None:
        return voice, np.ones(count, np.bool_)
    own, others = np.zeros(len(voice), np.bool_), np.zeros(len(voice), np.bool_)
    for line in lines:
        begin, end = ((tick - first) * VOICE_RATE // CLOCK for tick in (line.start, line.start + line.length))
        beside = round(BESIDE_S * VOICE_RATE) if line in said else 0
        (own if line in said else others)[max(0, begin - beside):max(0, end + beside)] = True
    voice[others & ~own] = 0
    return voice, own[VOICE_RATE // LIPS_RATE // 2::VOICE_RATE // LIPS_RATE][:count]


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
