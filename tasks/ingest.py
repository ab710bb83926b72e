"""Ingest: a given file → `Source`, the episode as everything after it sees it.

What cannot be dubbed is refused by name. A picture that runs at a constant rate, upright, in square 8-bit pixels and
even dimensions stays byte for byte; any other is mended once, and the mended file is the source from then on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import InputError, MediaError
from models.records import Artifact, Chapter, ColorTags, Request, Source, Tick
from models.timebase import CLOCK, frame_to_ticks, ticks, ticks_to_frame, timecode
from tasks.media import (
    STANDARD_RATES,
    Filters,
    FlacWriter,
    FrameReader,
    PictureWriter,
    Probe,
    Timing,
    VideoStream,
    audio_blocks,
    decoded,
    place,
    probe,
    timing,
)
from tasks.step import Work, step

CRF = 12
"""Of mended pictures: hard to tell from the original."""
KEPT_CONTAINERS = frozenset({"mov", "matroska"})
"""Containers in which every frame is found again by its index; pictures in others are put into an MP4."""
MAX_CHANNELS = 8
"""What FLAC holds."""
MAX_SIDE = 8192
MAX_SECONDS = 24 * 3600
LONGEST_PAUSE = 10
"""Seconds a picture may stand, on average."""
LATE = 0.2
"""Frame durations by which a time stamp may miss a constant rate."""
HDR = frozenset({"smpte2084", "arib-std-b67"})


class IngestRequest(Request):
    """What to ingest."""

    original: Artifact
    range: tuple[Tick, Tick] | None = None
    """Start and end of an excerpt, counted from the first frame; None takes everything."""


@dataclass(frozen=True)
class _Cut:
    """Which frames are taken, at which rate, and what has to be mended for it."""

    start: int
    end: int
    rate: Fraction
    steady: bool
    """Frames can be read by their index; else they are laid on a grid of `rate` by their time stamps."""
    filters: tuple[str, ...]
    mended: tuple[str, ...]


@step("ingest", version=1, result=Source)
def ingest(work: Work, request: IngestRequest) -> Source:
    """Check a file, mend its picture if need be, and take its sound out.

    Raises:
        MediaError: The file cannot be dubbed; the message says why and what to do.
        InputError: The range lies outside the episode.
    """
    path = work.store.path(request.original)
    info = probe(path)
    video = _check(info, path)
    clock = timing(path)
    _check_length(info, clock, path)
    cut = _cut(info, video, clock, request.range, path)
    if len(info.audio) > 1:
        work.progress(f"{len(info.audio)} sound tracks: takes the default one", 0)
    first, length = Fraction(int(clock.times[0])) * clock.unit, frame_to_ticks(cut.end - cut.start, cut.rate)
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        kept, width, height = request.original, video.width, video.height
        if cut.mended:
            mended = Path(folder) / "video.mp4"
            width, height = _mend(work, path, mended, cut, first, _playable(video.color))
            kept = work.store.put_file(mended, "video/mp4")
        else:
            with FrameReader(path) as reader:
                reader.picture(cut.end - 1)
        flac = Path(folder) / "audio.flac"
        channels = _take_sound(path, flac, first, frame_to_ticks(cut.start, cut.rate), length)
        audio = work.store.put_file(flac, "audio/flac")
    return Source(video=kept, original=request.original.sha256, conformed=cut.mended, width=width, height=height,
                  rate=cut.rate, frames=cut.end - cut.start, audio=audio, channels=channels,
                  color=_playable(video.color),
                  chapters=_chapters(info.chapters, ticks(first) + frame_to_ticks(cut.start, cut.rate), length))


# -- what is refused --------------------------------------------------------------------------------------------------


def _check(info: Probe, path: Path) -> VideoStream:
    """The picture, if it and the sound can be dubbed."""
    video = info.video
    if info.encrypted:
        raise MediaError("is encrypted", where=place(path), hint="Give a file without copy protection")
    if video is None:
        raise MediaError("has no video stream", where=place(path), hint="Give a file with a moving picture")
    if not info.audio:
        raise MediaError("has no sound track", where=place(path), hint="There is nothing to dub")
    for reason, hint in _faults(video):
        raise MediaError(reason, where=place(path), hint=hint)
    channels = next((a for a in info.audio if a.default), info.audio[0]).channels
    if channels > MAX_CHANNELS:
        raise MediaError(f"has a sound track of {channels} channels; {MAX_CHANNELS} are handled", where=place(path),
                         hint="Mix it down: ffmpeg -i IN -c:v copy -ac 2 OUT")
    return video


def _faults(video: VideoStream) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to do) for everything about a picture that is not handled."""
    color = video.color
    if color.transfer in HDR or (color.primaries == "bt2020" and video.bits > 8):
        yield "is HDR, which is not handled", "Give its SDR version (tone-mapped to BT.709, 8 bits)"
    if video.bits > 8:
        yield f"has {video.bits} bits per component; 8 are handled", "Convert it: ffmpeg -i IN -pix_fmt yuv420p OUT"
    if video.interlaced:
        yield "is interlaced, which is not handled", "Deinterlace it: ffmpeg -i IN -vf bwdif -c:a copy OUT"
    if abs(video.pixel_aspect - 1) > Fraction(1, 100):
        yield (f"is anamorphic (pixels {video.pixel_aspect.numerator}:{video.pixel_aspect.denominator}), which is not "
               "handled", "Make its pixels square: ffmpeg -i IN -vf 'scale=trunc(iw*sar/2)*2:ih,setsar=1' OUT")
    if video.alpha:
        yield "has an alpha channel, which is not handled", "Give it an opaque background"
    if not 16 <= min(video.width, video.height) <= max(video.width, video.height) <= MAX_SIDE:
        yield f"is {video.width}x{video.height} pixels; 16 to {MAX_SIDE} are handled", "Scale it"


def _check_length(info: Probe, clock: Timing, path: Path) -> None:
    if info.duration and _kept_container(info) and info.duration > clock.stopped * Fraction(101, 100) + Fraction(1, 4):
        raise MediaError(f"is cut short: it promises {float(info.duration):.1f} s and ends after "
                         f"{float(clock.stopped):.1f} s", where=place(path), hint="Copy or download it again")
    if len(clock.times) < 2:
        raise MediaError("shows a single picture", where=place(path), hint="Give a file with a moving picture")
    length = clock.end - int(clock.times[0]) * clock.unit
    if length > min(MAX_SECONDS, LONGEST_PAUSE * len(clock.times)):
        raise MediaError(f"claims to show {len(clock.times)} pictures for {float(length):.0f} s", where=place(path),
                         hint="Check its time stamps; what is longer than a day must be split")


def _kept_container(info: Probe) -> bool:
    return info.format.split(",")[0] in KEPT_CONTAINERS


# -- what is mended ---------------------------------------------------------------------------------------------------


def _cut(info: Probe, video: VideoStream, clock: Timing, asked: tuple[int, int] | None, path: Path) -> _Cut:
    """Decide which frames to take, and what to mend."""
    indexed = _kept_container(info)
    constant = bool(video.rate) and clock.miss(video.rate) <= LATE
    rate = video.rate if constant else _usual_rate(clock)
    frames = len(clock.times) if constant else max(1, round((clock.end - int(clock.times[0]) * clock.unit) * rate))
    width, height = (video.height, video.width) if "transpose=dir=0" in video.upright else (video.width, video.height)
    odd = (f"crop=w={width - width % 2}:h={height - height % 2}:x=0:y=0:exact=1",) * bool(width % 2 or height % 2)
    reasons = {
        "container": not indexed,
        "variable frame rate": not constant,
        "edit list": indexed and (clock.cut > 0 or video.start != int(clock.times[0]) * clock.unit),
        "pixel format": not video.pix_fmt.startswith("yuv"),
        "rotation": bool(video.upright),
        "odd dimensions": bool(odd),
        "range": asked is not None,
    }
    start, end = _span(asked, rate, frames, path)
    return _Cut(start, end, rate, indexed and constant, video.upright + odd,
                tuple(reason for reason, applies in reasons.items() if applies))


def _usual_rate(clock: Timing) -> Fraction:
    """The standard rate of which the picture keeps to a whole fraction; pauses and dropped frames do not count."""
    steps = np.diff(clock.times)
    usual = np.quantile(steps, 0.25)
    typical = float(steps[np.abs(steps - usual) <= usual / 5].mean() * clock.unit)
    return min(STANDARD_RATES, key=lambda rate: abs(float(rate) * typical - max(1, round(float(rate) * typical))))


def _span(asked: tuple[int, int] | None, rate: Fraction, frames: int, path: Path) -> tuple[int, int]:
    """Frames [start, end) of a range: from the one on screen at its start to the one on screen just before its end."""
    length = frame_to_ticks(frames, rate)
    start, end = asked or (0, length)
    if not start < min(end, length):
        raise InputError(f"the range {timecode(start)} to {timecode(end)} holds no frame of {timecode(length)}",
                         where=place(path), hint="Give --range START-END within the episode")
    return ticks_to_frame(start, rate), min(frames, ticks_to_frame(end - 1, rate) + 1)


def _playable(color: ColorTags) -> ColorTags:
    """RGB has no matrix that a 4:2:0 picture could carry; BT.709 is what players then expect."""
    return color.model_copy(update={"matrix": "bt709", "range": "tv"}) if color.matrix == "gbr" else color


def _mend(work: Work, path: Path, out: Path, cut: _Cut, first: Fraction, color: ColorTags) -> tuple[int, int]:
    """Encode the frames of `cut` anew; returns their size."""
    pictures = _by_index(path, cut) if cut.steady else _by_time(path, cut, first)
    picture = next(pictures)
    total = cut.end - cut.start
    with PictureWriter(out, picture.width, picture.height, cut.rate, color=color, crf=CRF) as writer:
        while picture is not None:
            writer.write(picture)
            if writer.written % 100 == 0:
                work.progress(f"mends the picture ({', '.join(cut.mended)})", writer.written / total)
            picture = next(pictures, None)
    if writer.written != total:
        raise MediaError(f"ends after {writer.written} of {total} frames", where=place(path),
                         hint="Check that the file is complete and plays")
    return writer.width, writer.height


def _by_index(path: Path, cut: _Cut) -> Iterator[Any]:
    through = Filters(cut.filters, path)
    with FrameReader(path) as reader:
        yield from map(through, reader.pictures(cut.start, cut.end))


def _by_time(path: Path, cut: _Cut, first: Fraction) -> Iterator[Any]:
    """For each frame of the grid the last picture that is shown before its middle; the last one stands to the end."""
    shown, index = None, 0
    for at, picture in decoded(path, cut.filters):
        while shown is not None and index < cut.end and (at - first) * cut.rate > index + Fraction(1, 2):
            if index >= cut.start:
                yield shown
            index += 1
        if index >= cut.end:
            return
        shown = picture
    for late in range(index, cut.end if shown is not None else index):
        if late >= cut.start:
            yield shown


# -- sound and chapters -----------------------------------------------------------------------------------------------


def _take_sound(path: Path, out: Path, first: Fraction, start: int, length: int) -> int:
    """Write exactly `length` samples of all channels, beginning `start` ticks after frame 0; returns the channels."""
    blocks = audio_blocks(path, start=start, length=length, origin=first)
    block = next(blocks, None)
    if block is None:
        raise MediaError("has a sound track in which nothing is heard during the picture", where=place(path),
                         hint="There is nothing to dub")
    with FlacWriter(out, block.shape[1]) as writer:
        written = 0
        while block is not None:
            writer.write(block)
            written += len(block)
            block = next(blocks, None)
        for at in range(written, length, CLOCK):
            writer.write(np.zeros((min(CLOCK, length - at), writer.channels), np.float32))
    return writer.channels


def _chapters(chapters: tuple[Chapter, ...], shift: int, length: int) -> tuple[Chapter, ...]:
    """Chapters on the clock of the source, without those that lie outside it."""
    moved = (Chapter(start=min(length, max(0, c.start - shift)), end=min(length, max(0, c.end - shift)), title=c.title)
             for c in chapters)
    return tuple(c for c in moved if c.end > c.start)
