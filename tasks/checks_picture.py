"""Checks of the picture: one pass over the delivered file and its source side by side, small, frame by frame.

Where the delivered picture is the source's own stream, packet by packet, nothing is decoded at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from models.errors import MediaError
from models.pictures import picture_stream
from models.records import Check, Clip, FaceTrack, Placement, Shot, ShotRequest, Source
from models.timebase import frame_to_ticks, ticks_to_frame, timecode
from tasks.checks import at_most, check, not_made
from tasks.checks_sound import runs
from tasks.media import FrameReader, frame_count, probe
from tasks.step import Work
from tasks.video import reading

SIDE = 160
"""Longer side in pixels that frames are compared at: means over what a pixel covers, which codecs do not change."""
MEANS = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)
BLACK_LEVEL, BLACK_SHARE = 26, 0.98
"""A frame is black where so much of it is no lighter (ffmpeg's blackdetect: 0.1 of full scale, 0.98 of the pixels)."""
STILL, MOVES = 6, 12
"""Largest change of any small pixel, in levels, of a picture that stands still, and of one that moves: what an encoder
still mends of a frame that it repeats is less than the one, the least motion of a mouth more than the other."""
SHORTEST_FREEZE = Fraction(2, 5)
"""Seconds; an encoder repeats single frames of slow pictures."""
ALIKE = 3.0
"""Mean difference in levels of luma up to which a frame counts as the source's."""
PROMINENT, AROUND = 3.0, 3
"""A cut changes the picture so many times more than each of so many frames to its either side."""
SEAM = 4.0
"""Of frames of speech, one in two hundred changes a face 3.4 times more than usual (measured on the examples)."""
QUIET = 0.5
"""Levels below which all change is alike."""
DRIFT = 4.0
"""Levels in 100 frames: what a viewer sees when he goes back."""
LEAST_FRAMES = 25
"""Of a generated shot whose drift and seams are measured."""
HEAD, BODY = 1.0, 1.5
"""A speaker's region: his face's box wider by this part of its width to either side, taller above by half of it; and
below it down to the frame's edge, so many widths to either side."""
MARGIN = 2
"""Small pixels around a region: what is feathered, and what the codec smears."""

Small = NDArray[np.int16]  # (h, w, 3)
Mask = NDArray[np.bool_]  # (h, w)


@dataclass(frozen=True)
class Made:
    """A shot whose picture was generated, or may have been."""

    shot: Shot
    clip: Clip | None = None
    """None: it is not known what was put where."""
    joins: tuple[int, ...] | None = None
    """Frames of the episode at which its chunks join; None: not known."""
    whole: bool = False
    """All of the frame was generated."""
    request: ShotRequest | None = None
    """What it was generated from; None: not known."""


@dataclass
class Notes:
    """What the pass notes of every frame."""

    black: list[bool] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)
    """Largest change of any pixel since the frame before; of the first: 255."""
    moved_outside: list[float] = field(default_factory=list)
    """The same without the speakers' region."""
    change: list[float] = field(default_factory=list)
    """Mean change since the frame before, over all pixels."""
    change_inside: list[float] = field(default_factory=list)
    """The same over the speakers' region; all pixels where there is none."""
    colour: list[NDArray[np.float64]] = field(default_factory=list)
    """Mean colour of that region."""
    _before: Small | None = None

    def add(self, frame: Small, region: Mask) -> None:
        """Look at the next frame."""
        inside = region if region.any() else None
        self.black.append(bool((frame @ LUMA <= BLACK_LEVEL).mean() >= BLACK_SHARE))
        change = np.full(frame.shape, 255, np.int16) if self._before is None else np.abs(frame - self._before)
        self.moved.append(float(change.max()))
        self.moved_outside.append(float(change[~region].max(initial=0)))
        self.change.append(float(change.mean()))
        self.change_inside.append(float(change[inside].mean()) if inside is not None else self.change[-1])
        self.colour.append(frame[inside].mean(0) if inside is not None else frame.mean((0, 1)))
        self._before = frame


@dataclass(frozen=True)
class Seen:
    """Both pictures after the pass."""

    rate: Fraction
    dub: Notes
    source: Notes
    apart: NDArray[np.float64]
    """Mean difference of luma of each frame, over what is not a speaker's region; NaN where that is nothing."""

    def tick(self, frame: int) -> int:
        """When a frame is shown."""
        return frame_to_ticks(frame, self.rate)


def check_file(path: Path, source: Source) -> Iterator[Check]:
    """Frames, rate and duration of the delivered file."""
    found, frames = probe(path), frame_count(path)
    rate = found.video.rate if found.video else Fraction(0)
    wanted, duration = float(source.frames / source.rate), float(found.duration or 0)
    yield check("frames", frames, f"= {source.frames}", frames == source.frames)
    yield check("rate", float(rate), f"= {source.rate}", rate == source.rate)
    yield check("duration_s", duration, f"{wanted:.3f} ± 1 frame", abs(duration - wanted) <= 1 / source.rate)


PICTURE = ("black_s", "frozen_s", "passthrough", "shot_edges", "seam", "colour_drift", "outside")


def check_picture(work: Work, path: Path, source: Source, shots: Sequence[Shot], made: Sequence[Made],
                  spoken: Sequence[tuple[int, int]] | None = None) -> list[Check]:
    """Everything that is seen by looking at both pictures once.

    Args:
        work: For the source's file, and for progress.
        path: The delivered file.
        source: What it was made of.
        shots: All shots of the source.
        made: Those of them that were generated.
        spoken: When somebody speaks in the dub, in ticks: then generated faces must move; None: it is not known.
    """
    given = work.store.path(source.video)
    if same_packets(path, given):
        same = "no shot was generated: the picture is the source's own stream"
        return [not_made(name, same) if name in {"seam", "colour_drift", "outside"} else at_most(name, 0, 0)
                for name in PICTURE]
    try:
        seen = _look(work, path, given, source, made)
    except MediaError as error:
        return [not_made(name, f"the picture cannot be decoded to its end: {error.what}") for name in PICTURE]
    return [_black(seen), _frozen(seen, _moving(seen, made, spoken)), _passed_on(seen, shots, made),
            _edges(seen, shots), *_generated(seen, made)]


def same_packets(one: Path, other: Path) -> bool:
    """Whether two files hold the same encoded picture, bit for bit and in the same order."""
    return _packets(one) == _packets(other)


def _packets(path: Path) -> tuple[bytes, bytes]:
    digest = hashlib.sha256()
    with reading(path) as container:
        stream = picture_stream(container, path)
        extra = bytes(stream.codec_context.extradata or b"")
        for packet in container.demux(stream):
            if packet.size:
                digest.update(hashlib.sha256(bytes(packet)).digest())
    return digest.digest(), extra


# -- the pass ---------------------------------------------------------------------------------------------------------


def _look(work: Work, path: Path, given: Path, source: Source, made: Sequence[Made]) -> Seen:
    scale = min(1.0, SIDE / max(source.width, source.height))
    size = max(1, round(source.height * scale)), max(1, round(source.width * scale))
    masks = {one.shot.id: region(one, source, size) for one in made}
    shown = {frame: one.shot.id for one in made for frame in range(one.shot.start, one.shot.end)}
    dub, known, apart, nowhere = Notes(), Notes(), list[float](), np.zeros(size, bool)
    with ExitStack() as stack:
        ours, theirs = (stack.enter_context(FrameReader(file)) for file in (path, given))
        small = [VideoReformatter(), VideoReformatter()]
        for frame in range(min(frame_count(path), source.frames)):
            mask = masks.get(shown.get(frame, ""), nowhere)
            a, b = (_small(how, reader.picture(frame), size)
                    for how, reader in zip(small, (ours, theirs), strict=True))
            dub.add(a, mask)
            known.add(b, mask)
            far = np.abs((a - b) @ LUMA)
            outside = far[~mask]
            apart.append(float(outside.mean()) if outside.size else np.nan)
            if frame % 100 == 0:
                work.progress("inspect: picture", 0.5 * frame / source.frames)
    return Seen(source.rate, dub, known, np.array(apart))


def _small(how: Any, picture: Any, size: tuple[int, int]) -> Small:
    shown = how.reformat(picture, width=size[1], height=size[0], format="rgb24", interpolation=MEANS)
    return np.asarray(shown.to_ndarray(), np.int16)


def region(made: Made, source: Source, size: tuple[int, int]) -> Mask:
    """The pixels of a small frame (h, w) that the speakers of a shot take.

    Where a part of the frame was replaced it is that part; where all of it was, heads and bodies, and without a face
    that was seen all of it. Where it is not known what was replaced, heads and bodies, and without a face nothing.
    """
    clip, faces = made.clip, made.shot.faces
    scale = size[0] / source.height, size[1] / source.width
    mask = np.full(size, made.whole and not faces)
    if clip is not None and not made.whole:
        _fill(mask, _sides(clip.placement), scale)
        return mask
    for face in faces:
        for box in _reach(face):
            _fill(mask, box, scale)
    return mask


def _sides(place: Placement) -> tuple[float, float, float, float]:
    return place.x, place.y, place.x + place.width, place.y + place.height


def _reach(face: FaceTrack) -> Iterator[tuple[float, float, float, float]]:
    """Left, top, right and bottom of a head, and of the body below it, wherever they were seen."""
    for _, x, y, wide, high in face.boxes:
        yield x - HEAD * wide, y - high / 2, x + wide + HEAD * wide, y + high
        yield x - BODY * wide, y + high, x + wide + BODY * wide, np.inf


def _fill(mask: Mask, sides: tuple[float, float, float, float], scale: tuple[float, float]) -> None:
    left, top, right, bottom = sides
    rows = (max(0, int(top * scale[0]) - MARGIN), int(min(len(mask), bottom * scale[0] + MARGIN + 1)))
    columns = (max(0, int(left * scale[1]) - MARGIN), int(min(mask.shape[1], right * scale[1] + MARGIN + 1)))
    mask[rows[0]:rows[1], columns[0]:columns[1]] = True


# -- all of the picture -----------------------------------------------------------------------------------------------


def _black(seen: Seen) -> Check:
    """Frames that are black and, in the source, neither they nor their neighbours are."""
    known = np.array(seen.source.black)
    near = known | np.append(known[1:], False) | np.append(False, known[:-1])
    found = runs(np.array(seen.dub.black) & ~near)
    longest = max(found, default=None, key=lambda span: span[1] - span[0])
    total = sum(end - start for start, end in found)
    return at_most("black_s", total / float(seen.rate), 0, _span(seen, longest), longest and seen.tick(longest[0]))


def _span(seen: Seen, span: tuple[int, int] | None) -> str:
    return f"{timecode(seen.tick(span[0]))}, {span[1] - span[0]} frames" if span else ""


def _moving(seen: Seen, made: Sequence[Made], spoken: Sequence[tuple[int, int]] | None) -> NDArray[np.bool_]:
    """Frames in which the dub should move: where the source does; a generated face only while it speaks."""
    moves = np.array(seen.source.moved) > MOVES
    if spoken is None:
        return moves
    speaking = np.zeros(len(moves), bool)
    for start, end in spoken:
        speaking[ticks_to_frame(start, seen.rate):ticks_to_frame(end, seen.rate)] = True
    for one in made:
        shot = slice(one.shot.start, one.shot.end)
        moves[shot] &= speaking[shot] | (np.array(seen.source.moved_outside[shot]) > MOVES)
    return moves


def _frozen(seen: Seen, moves: NDArray[np.bool_]) -> Check:
    """The longest stretch that repeats a frame while the source goes on."""
    still = np.array(seen.dub.moved) <= STILL
    least = float(SHORTEST_FREEZE * seen.rate)
    lost = [(int(moves[start:end].sum()), (start, end)) for start, end in runs(still)]
    frames, span = max(lost, default=(0, None), key=lambda one: one[0])
    frozen = span is not None and frames >= least
    return at_most("frozen_s", frames / float(seen.rate) if frozen else 0, 0, _span(seen, span if frozen else None),
                   seen.tick(span[0]) if frozen and span else None)


def _passed_on(seen: Seen, shots: Sequence[Shot], made: Sequence[Made]) -> Check:
    """How far frames that were not generated are from the source's."""
    generated = {one.shot.id for one in made}
    frames = [frame for shot in shots if shot.id not in generated
              for frame in range(shot.start, min(shot.end, len(seen.apart)))]
    if not frames:
        return not_made("passthrough", "all shots were generated, or may have been")
    worst = max(frames, key=lambda frame: seen.apart[frame])
    return at_most("passthrough", float(seen.apart[worst]), ALIKE, timecode(seen.tick(worst)), seen.tick(worst))


def _edges(seen: Seen, shots: Sequence[Shot]) -> Check:
    """Cuts of the source that come sooner or later in the dub; slow changes of shot are left out."""
    here, there = np.array(seen.dub.change), np.array(seen.source.change)
    edges = [shot.start for shot in shots if AROUND < shot.start < len(here) - AROUND]
    moved = []
    for edge in edges:
        near = slice(edge - AROUND, edge + AROUND + 1)
        others = np.delete(there[near], AROUND)
        if there[edge] < PROMINENT * max(float(others.max()), 0.1):
            continue
        if int(here[near].argmax()) != AROUND:
            moved.append(edge)
    where = f"{timecode(seen.tick(moved[0]))}" if moved else ""
    return at_most("shot_edges", len(moved), 0, where, seen.tick(moved[0]) if moved else None)


# -- what was generated -----------------------------------------------------------------------------------------------


def _generated(seen: Seen, made: Sequence[Made]) -> list[Check]:
    if not made:
        return [not_made(name, "no shot was generated") for name in ("seam", "colour_drift", "outside")]
    return [_seam(seen, made), _drift(seen, made), _outside(seen, made)]


def _seam(seen: Seen, made: Sequence[Made]) -> Check:
    """The join at which a speaker's region jumps most, against how much it changes elsewhere in its shot."""
    from infinitetalk.errors import BadInputError
    from infinitetalk.evaluate.picture import jumps

    found: list[tuple[float, int]] = []
    for one in made:
        start, end = one.shot.start, min(one.shot.end, len(seen.dub.change))
        joins = [join - start for join in one.joins or () if start < join < end]
        if end - start < LEAST_FRAMES or not joins:
            continue
        try:
            seam = jumps(np.maximum(seen.dub.change_inside[start + 1:end], QUIET), joins)
        except BadInputError:
            continue
        found.append((seam.worst, start + seam.frame))
    if not found:
        known = any(one.joins is not None for one in made)
        return not_made("seam", "no shot is made of more than one chunk" if known else
                        "it is not known where chunks join")
    ratio, frame = max(found)
    return at_most("seam", ratio, SEAM, timecode(seen.tick(frame)), seen.tick(frame))


def _drift(seen: Seen, made: Sequence[Made]) -> Check:
    """The shot whose colours go furthest away from the source's: by the slope of their difference, less what they
    vary around it, for light that comes and goes is no drift."""
    from infinitetalk.evaluate.picture import slope

    found = []
    for one in made:
        start, end = one.shot.start, min(one.shot.end, len(seen.dub.colour))
        if end - start < LEAST_FRAMES:
            continue
        apart = np.array(seen.dub.colour[start:end]) - np.array(seen.source.colour[start:end])
        way = slope(apart) * (end - start) / 100
        around = float(np.sqrt(max(0.0, apart.var(0).sum() - way**2 / 12)))  # of a straight way, a twelfth is its own
        found.append((max(0.0, way - 2 * around) * min(1, 100 / (end - start)), one.shot.id, end - 1))
    if not found:
        return not_made("colour_drift", f"no generated shot has {LEAST_FRAMES} frames")
    far, shot, frame = max(found)
    return at_most("colour_drift", far, DRIFT, f"end of {shot}, {timecode(seen.tick(frame))}", seen.tick(frame))


def _outside(seen: Seen, made: Sequence[Made]) -> Check:
    """The frame of a generated shot that differs most where nobody speaks."""
    frames = [frame for one in made for frame in range(one.shot.start, min(one.shot.end, len(seen.apart)))
              if np.isfinite(seen.apart[frame])]
    if not frames:
        return not_made("outside", "all of the picture may be the speaker")
    worst = max(frames, key=lambda frame: seen.apart[frame])
    found = at_most("outside", float(seen.apart[worst]), ALIKE, timecode(seen.tick(worst)), seen.tick(worst))
    # Where whole frames were generated, where a body ends is a guess: that informs only.
    return found.model_copy(update={"gate": not any(one.whole for one in made)})
