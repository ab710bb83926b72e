"""Files → what is measured: pictures at a bounded size, the source beside them, where mouths are, and what was said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from infinitetalk.errors import BadInputError, TooLargeError
from infinitetalk.evaluate.faces import FaceFinder, mouths
from infinitetalk.evaluate.measure import Floats, Pixels
from infinitetalk.evaluate.mouth import SPEECH_RATE, loudness
from infinitetalk.inputs import read_image
from infinitetalk.io import PictureReader, reading, sound
from infinitetalk.world.clip_file import TRUTH, load_clip
from infinitetalk.world.scene import Truth

SIDE = 256
"""Longer side that pictures are measured at."""
MOST_BYTES = 2**30
"""Of one video's pictures in memory."""
MOST_SECONDS = 4 * 3600
SAME_RATE = 1e-3
VIDEOS = frozenset({".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v"})
BY_TRUTH, BY_LOUDNESS = "its phonemes (truth)", "loudness of the sound (the project's own)"


@dataclass(frozen=True)
class Video:
    """Pictures in memory."""

    path: Path
    rate: Fraction
    frames: Pixels
    """(F, H, W, 3)."""
    size: tuple[int, int]
    """(H, W) as it is stored."""


@dataclass(frozen=True)
class Case:
    """One generated video, and all that is known around it."""

    name: str
    rate: float
    frames: Pixels
    """(F, H, W, 3)."""
    mouths: Floats | None = None
    """Boxes (F, 4) in pixels; NaN in frames without a face."""
    found_by: str = ""
    """How the boxes were found."""
    track: Floats | None = None
    """What drove it: visemes (F, 11), or (F, 1) how open a mouth should be."""
    heard_by: str = ""
    """Where the track comes from."""
    speech: Floats | None = None
    """What it says, mono, 16 kHz, (M,)."""
    source: Pixels | None = None
    """The video it was made of, as `frames`."""
    references: Pixels | None = None
    """(R, H, W, 3)."""
    notes: tuple[str, ...] = ()
    """What was cut or could not be read."""


def read_video(path: Path, side: int = SIDE, most: int | None = None) -> Video:
    """A whole video, its longer side scaled down to `side`, at most `most` frames of it.

    Raises:
        BadInputError: It cannot be read.
        TooLargeError: Its pictures would not fit.
    """
    with PictureReader(path) as reader:
        first = reader.frame(0)
        count = min(_frames(path, reader.rate), most or 2**62)
        height, width = first.shape[:2]
        scale = min(1.0, side / max(height, width))
        size = max(1, round(height * scale)), max(1, round(width * scale))
        if count * size[0] * size[1] * 3 > MOST_BYTES:
            raise TooLargeError(f"{count} frames of {size[1]}×{size[0]} do not fit into memory", where=str(path),
                                hint="Bound them with --frames, or --side")
        frames = np.empty((count, *size, 3), np.uint8)
        for at in range(count):
            frames[at] = scaled(reader.frame(at), size)
        return Video(path, reader.rate, frames, (height, width))


def _frames(path: Path, rate: Fraction) -> int:
    """How many a video has, by its packets: nothing is decoded."""
    with reading(path) as container:
        stream = container.streams.video[0]
        times = [(packet.pts, packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
        if not times:
            raise BadInputError("has no pictures", where=str(path), hint="Check that the file plays")
        start, last = min(times)[0], max(times)
        seconds = Fraction((last[0] + last[1] - start) * stream.time_base)
    count = max(round(seconds * rate), 1)
    if count > MOST_SECONDS * rate:
        raise BadInputError(f"lasts {float(seconds):.0f} s by its time stamps", where=str(path),
                            hint="Cut it, or convert it to a constant rate")
    return count


def scaled(frame: Pixels, size: tuple[int, int]) -> Pixels:
    """A picture that covers `size` (H, W), its middle: by means over what a pixel covers where it gets smaller."""
    from PIL import Image

    height, width = frame.shape[:2]
    if (height, width) == size:
        return frame
    scale = max(size[0] / height, size[1] / width)
    wide, high = size[1] / scale, size[0] / scale
    left, top = (width - wide) / 2, (height - high) / 2
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), how, box=(left, top, left + wide, top + high)))


def moved(boxes: Floats, size: tuple[int, int], onto: tuple[int, int]) -> Floats:
    """Boxes (F, 4) of a picture of `size` (H, W) where `scaled` brings them."""
    scale = max(onto[0] / size[0], onto[1] / size[1])
    shift = np.array([(size[1] * scale - onto[1]) / 2, (size[0] * scale - onto[0]) / 2] * 2)
    return np.asarray(np.asarray(boxes, np.float64) * scale - shift, np.float32)


def read_sound(path: Path, seconds: float) -> Floats:
    """About so many seconds of a file's sound, mono, 16 kHz: (M,)."""
    blocks, wanted, got = [], round(seconds * SPEECH_RATE), 0
    for block in sound(path, SPEECH_RATE, "mono"):
        blocks.append(block[0])
        got += block.shape[1]
        if got >= wanted:
            break
    return np.asarray(np.concatenate(blocks or [np.zeros(0, np.float32)])[:wanted], np.float32)


def read_truth(clip: Path, person: int = 0) -> Truth:
    """What is known of a person in a clip of the synthetic world, named by one of its two files.

    Raises:
        BadInputError: Files are absent or damaged, or it shows fewer people.
    """
    people = load_clip(clip.parent, clip.stem).truth
    if not 0 <= person < len(people):
        raise BadInputError(f"shows {len(people)} people", where=str(clip), hint="Say another --person")
    return people[person]


def read_case(generated: Path, source: Path | None = None, audio: Path | None = None, truth: Path | None = None,
              reference: str | None = None, *, finder: FaceFinder | None = None, person: int = 0, side: int = SIDE,
              most: int | None = None) -> Case:
    """Read everything of one video.

    Args:
        generated: The video to be judged.
        source: The video it was made of; where its truth lies beside it, mouths are known from there.
        audio: What it should say; its own sound unless given.
        truth: A clip of the synthetic world whose speech drove it.
        reference: A picture's file, or the number of a frame of the source.
        finder: Finds faces where no truth says where they are.
        person: Which of the people in a clip with truth.
        side: See `read_video`.
        most: Frames at most.

    Raises:
        BadInputError: A file cannot be used, or they do not belong together.
        TooLargeError: One would not fit into memory.
    """
    made = read_video(generated, side, most)
    case = Case(generated.stem, float(made.rate), made.frames)
    if source:
        case = _with_source(case, read_video(source, side, len(made.frames)))
    case = _with_mouths(case, made, source, truth, finder, person)
    case = _with_track(case, generated, audio, truth, person)
    return replace(case, references=_references(case, reference)) if reference is not None else case


def _with_source(case: Case, source: Video) -> Case:
    _same_rate(case.rate, float(source.rate), source.path)
    frames = min(len(case.frames), len(source.frames))
    size = case.frames.shape[1:3]
    notes = () if frames == len(case.frames) else (f"cut to the source's {frames} of {len(case.frames)} frames",)
    fitted = np.stack([scaled(frame, size) for frame in source.frames[:frames]])
    return replace(case, frames=case.frames[:frames], source=fitted, notes=case.notes + notes)


def _with_mouths(case: Case, made: Video, source: Path | None, truth: Path | None, finder: FaceFinder | None,
                 person: int) -> Case:
    """Boxes by the source's truth, by the driving clip's where there is no source, else by a finder."""
    known = next((path for path in (source, truth if source is None else None)
                  if path and path.with_suffix(TRUTH).is_file()), None)
    frames = len(case.frames)
    if known:
        boxes = read_truth(known, person).mouth[:frames]
        stored = made.size if source is None else read_video(known, 16384, 1).size
        boxes = np.pad(moved(boxes, stored, case.frames.shape[1:3]), ((0, frames - len(boxes)), (0, 0)),
                       constant_values=np.nan)
        return replace(case, mouths=boxes, found_by="truth")
    if finder:
        return replace(case, mouths=mouths(finder.find(case.frames)), found_by=finder.name)
    return replace(case, notes=(*case.notes, "mouths are unknown: no truth lies beside it, and no face finder is"
                                             " installed"))


def _with_track(case: Case, generated: Path, audio: Path | None, truth: Path | None, person: int) -> Case:
    if truth:
        told = read_truth(truth, person)
        _same_rate(case.rate, told.motion.rate, truth)
        case = replace(case, track=told.visemes[:len(case.frames)], heard_by=BY_TRUTH)
    try:
        samples = read_sound(audio or generated, len(case.frames) / case.rate)
    except BadInputError as error:
        if audio:
            raise
        return case if truth else replace(case, notes=(*case.notes, f"no driving track: {error.what}"))
    case = replace(case, speech=samples)
    return case if truth else replace(case, track=loudness(samples, len(case.frames), case.rate), heard_by=BY_LOUDNESS)


def _same_rate(rate: float, other: float, where: Path) -> None:
    if abs(rate - other) > SAME_RATE * rate:
        raise BadInputError(f"has {other:g} frames a second, the generated video {rate:g}", where=str(where),
                            hint="Convert one of them")


def _references(case: Case, reference: str) -> Pixels:
    if reference.isascii() and reference.isdigit():
        if case.source is None or int(reference) >= len(case.source):
            raise BadInputError(f"there is no frame {reference[:20]} of the source", where="--reference",
                                hint="Give --source, and a frame that it has; or a picture")
        return case.source[int(reference):][:1]
    return scaled(read_image(Path(reference)), case.frames.shape[1:3])[None]


def pairs(generated: Path, others: Sequence[Path | None]) -> list[tuple[Path, tuple[Path | None, ...]]]:
    """One file with its companions, or a folder's videos with the files of the same name in the companions' folders.

    A companion that is a file, beside a folder of videos, goes with each of them; one that is absent is None.

    Raises:
        BadInputError: There is nothing at all.
    """
    if not generated.is_dir():
        return [(generated, tuple(others))]
    found = sorted(path for path in generated.iterdir() if path.suffix.lower() in VIDEOS)
    if not found:
        raise BadInputError("holds no videos", where=str(generated), hint=f"There must be some of {sorted(VIDEOS)}")
    return [(path, tuple(_companion(path, other) for other in others)) for path in found]


def _companion(path: Path, other: Path | None) -> Path | None:
    if other is None or not other.is_dir():
        return other
    found = sorted(one for one in other.iterdir() if one.stem == path.stem and one.suffix != TRUTH)
    return found[0] if found else other / path.name
