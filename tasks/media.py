"""Media files: probed, heard, measured. The only module that runs the ffmpeg program.

What steps need of pictures (`tasks.video`, `tasks.encode`) and sound (`tasks.sound`) is offered here too. Playlists
and the network are shut out of everything that is opened.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

import av
import ffmpeg
import numpy as np

from models.errors import MediaError, SetupError, StorageFullError
from models.pictures import STANDARD_RATES, picture_rate, picture_stream, place
from models.ports import Samples
from models.records import Chapter, ColorTags, Loudness
from models.timebase import ticks
from tasks.encode import FrameWriter, PictureWriter, concat_ffv1, copy_pictures, segmentable, to_yuv
from tasks.sound import FlacWriter, audio_blocks, read_audio, write_flac
from tasks.video import (
    CONTAINERS,
    EXACT,
    THREADS,
    Filters,
    FrameReader,
    Timing,
    color_tags,
    decoded,
    frame_count,
    reading,
    timing,
)

__all__ = ["CONTAINERS", "EXACT", "STANDARD_RATES", "THREADS", "AudioStream", "Filters", "FlacWriter", "FrameReader",
           "FrameWriter", "PictureWriter", "Probe", "Timing", "VideoStream", "aac", "audio_blocks", "concat_ffv1",
           "copy_pictures", "decoded", "frame_count", "has_rubberband", "loudness", "place", "probe", "read_audio",
           "reading", "run_ffmpeg", "segmentable", "source_input", "stretch", "timing", "to_yuv", "write_flac"]

FFMPEG_TIMEOUT = 6 * 3600
"""Seconds after which a call of ffmpeg is taken for hung: an episode of three hours encodes at half speed."""
BITRATE = 192_000
"""Bits per second of a mono or stereo track …"""
CHANNEL_BITRATE = 64_000
"""… and of each channel where there are more."""


# -- the ffmpeg program -----------------------------------------------------------------------------------------------


def source_input(path: Path, **options: Any) -> Any:
    """ffmpeg-python's input for an untrusted file."""
    return ffmpeg.input(f"file:{path}", protocol_whitelist="file,pipe", format_whitelist=CONTAINERS, **options)


def run_ffmpeg(output: Any, *, where: str, data: bytes | None = None, level: str = "error",
               folder: Path | None = None) -> tuple[bytes, str]:
    """Run ffmpeg.

    Args:
        output: What ffmpeg-python built, outputs included.
        where: The file it is about, for errors.
        data: What it reads from its standard input, if it does.
        level: Its log level.
        folder: Where it runs: relative names of files count from there.

    Returns:
        Its standard output and what it logged.

    Raises:
        SetupError: ffmpeg is not installed.
        MediaError: It failed, with the last line it logged.
        StorageFullError: The disk is full.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise SetupError("the program ffmpeg is missing", hint="Install it: apt-get install ffmpeg")
    settings = ["-v", level, "-y", *([] if data is not None else ["-nostdin"])]
    command = [program, "-hide_banner", *settings, *output.get_args()]
    try:
        done = subprocess.run(command, input=data, stdin=subprocess.DEVNULL if data is None else None,
                              cwd=folder, capture_output=True, timeout=FFMPEG_TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise MediaError(f"ffmpeg did not finish within {FFMPEG_TIMEOUT} s", where=where) from error
    log = done.stderr.decode(errors="replace")
    if "No space left on device" in log:
        raise StorageFullError("no space left on the disk", where=where,
                               hint="Free some space and run the same command again")
    if done.returncode:
        last = (log.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise MediaError(f"ffmpeg failed: {re.sub('(file:)?/[^ ]*: ', '', last)}", where=where,
                         hint="Check that the file is complete and plays")
    return done.stdout, log


# -- probing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class VideoStream:
    """The picture of a file, as its headers and its first frame describe it."""

    index: int
    codec: str
    width: int
    height: int
    pix_fmt: str
    bits: int
    """Per component."""
    alpha: bool
    pixel_aspect: Fraction
    """Width to height of a pixel; 1 when the file says nothing."""
    rate: Fraction
    """Frames per second; 0 when unknown."""
    start: Fraction
    """Time stamp of the first frame, in seconds."""
    frames: int
    """As the header says; 0 when it does not."""
    upright: tuple[str, ...]
    """ffmpeg filters by which players turn the picture; empty when it is upright."""
    interlaced: bool
    color: ColorTags


@dataclass(frozen=True)
class AudioStream:
    """One sound track of a file."""

    index: int
    codec: str
    channels: int
    rate: int
    language: str
    default: bool


@dataclass(frozen=True)
class Probe:
    """What a media file holds."""

    format: str
    duration: Fraction | None
    """Seconds, None when the file does not say."""
    video: VideoStream | None
    """None when there is no moving picture (cover images do not count)."""
    videos: int
    audio: tuple[AudioStream, ...]
    chapters: tuple[Chapter, ...]
    title: str
    encrypted: bool


def probe(path: Path) -> Probe:
    """Look into a media file: its headers, and its first picture.

    Raises:
        MediaError: It cannot be read, or its first picture cannot be decoded.
    """
    with reading(path) as container:
        covers = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
        videos = sum(1 for s in container.streams.video if not s.disposition & covers)
        audio = tuple(_audio_stream(s) for s in container.streams.audio)
        encrypted = _encrypted(container)
        video = _video_stream(container, picture_stream(container, path), path) if videos and not encrypted else None
        return Probe(container.format.name, Fraction(container.duration, av.time_base) if container.duration else None,
                     video, videos, audio, tuple(_chapters(container)), container.metadata.get("title", ""), encrypted)


def _encrypted(container: Any) -> bool:
    streams = [s for s in container.streams if s.type in {"video", "audio"}]
    if any(s.codec_context and (s.codec_context.codec_tag or "").lower().startswith("enc") for s in streams):
        return True
    packet = next((p for p in container.demux(streams) if p.size), None) if streams else None
    return packet is not None and bool(packet.has_sidedata("encryption_info"))


def _audio_stream(stream: Any) -> AudioStream:
    context = stream.codec_context
    return AudioStream(stream.index, context.name if context else "unknown", context.channels if context else 0,
                       context.sample_rate if context else 0, stream.language or "",
                       bool(stream.disposition & av.stream.Disposition.default))


def _chapters(container: Any) -> Iterator[Chapter]:
    for chapter in container.chapters():
        start, end = (max(0, ticks(chapter[edge] * chapter["time_base"])) for edge in ("start", "end"))
        yield Chapter(start=start, end=max(start, end), title=chapter["metadata"].get("title", ""))


def _video_stream(container: Any, stream: Any, path: Path) -> VideoStream:
    container.seek(0)
    pictures = list(islice((f for f in container.decode(stream) if f.pts is not None), 8))
    if not pictures:
        raise MediaError("has a video stream without pictures", where=place(path), hint="Check that the file plays")
    first, parts = pictures[0], pictures[0].format.components
    return VideoStream(
        index=stream.index, codec=stream.codec_context.name, width=first.width, height=first.height,
        pix_fmt=first.format.name, bits=max(c.bits for c in parts), alpha=any(c.is_alpha for c in parts),
        pixel_aspect=Fraction(stream.sample_aspect_ratio or 1), rate=picture_rate(stream),
        start=first.pts * stream.time_base, frames=stream.frames, upright=_upright(first, path),
        interlaced=any(f.interlaced_frame for f in pictures), color=color_tags(first))


def _upright(picture: Any, path: Path) -> tuple[str, ...]:
    """What a display matrix asks for, as a transposition and flips.

    Raises:
        MediaError: It asks for an angle that is no quarter turn.
    """
    data = picture.side_data.get("DISPLAYMATRIX")
    if data is None:
        return ()
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    turned = abs(b) > abs(a)
    if min(abs(a), abs(b)) * 50 > max(abs(a), abs(b)):
        raise MediaError("is turned by an odd angle", where=place(path), hint="Turn it upright and export it again")
    across, down = (c, b) if turned else (a, d)
    wanted = {"transpose=dir=0": turned, "hflip": across < 0, "vflip": down < 0}
    return tuple(name for name, needed in wanted.items() if needed)


# -- sound ------------------------------------------------------------------------------------------------------------


def stretch(samples: Samples, rate: int, factor: float) -> Samples:
    """Change the tempo of speech, keeping its pitch.

    Args:
        samples: (N,) float32.
        rate: Samples per second.
        factor: 1.1 makes it a tenth faster.

    Returns:
        (round(N / factor),) float32.

    Raises:
        ValueError: A factor outside 0.5 to 2.
        SetupError: ffmpeg or its rubberband is missing: another stretcher would be another sound.
    """
    if not 0.5 <= factor <= 2:
        raise ValueError(f"tempo factor {factor} is not within 0.5 to 2")
    wanted = round(len(samples) / factor)
    if factor == 1 or not len(samples):
        return samples
    if not has_rubberband():
        raise SetupError("ffmpeg has no rubberband, which changes the tempo of speech", where="ffmpeg",
                         hint="Install a build with librubberband: apt-get install ffmpeg")
    raw = {"format": "f32le", "ar": rate, "ac": 1}
    output = ffmpeg.input("pipe:", **raw).filter(
        "rubberband", tempo=factor, pitchq="quality", window="short", transients="smooth").output("pipe:", **raw)
    data, _ = run_ffmpeg(output, where="speech", data=np.ascontiguousarray(samples, np.float32).tobytes())
    stretched = np.frombuffer(data, np.float32)[:wanted]
    return np.concatenate([stretched, np.zeros(wanted - len(stretched), np.float32)])


def aac(channels: int, track: str = "a") -> dict[str, str]:
    """Options with which ffmpeg encodes so many channels as the AAC of an output's track (`a:1`), in its own layout.

    5.1 comes out of FLAC with its surrounds at the sides. AAC has a number for the layout with them at the back alone
    (ISO/IEC 14496-3, table 1.19); the other one is described in the stream, where few players look for it, and
    ffmpeg 5.1 cannot measure what it wrote itself.
    """
    how = {f"c:{track}": "aac", f"b:{track}": str(max(BITRATE, CHANNEL_BITRATE * channels))}
    return how | ({f"channel_layout:{track}": "5.1"} if channels == 6 else {})


@cache
def has_rubberband() -> bool:
    """Whether ffmpeg has librubberband: Debian's and the usual static builds do, a slim one may not."""
    tone = ffmpeg.input("anullsrc", format="lavfi", t=0.1).filter("rubberband", tempo=1.0)
    try:
        run_ffmpeg(tone.output("-", format="null"), where="rubberband")
    except MediaError:
        return False
    return True


def loudness(path: Path) -> Loudness:
    """Measure a file by EBU R 128: integrated loudness, loudness range and true peak of its default sound track.

    Digital silence is -70 LUFS with a peak of -120 dBTP.

    Raises:
        MediaError: No sound track, or it cannot be decoded.
    """
    heard = source_input(path).audio.filter("ebur128", peak="true", framelog="verbose")
    _, log = run_ffmpeg(heard.output("-", format="null"), where=place(path), level="info")
    summary = log[log.rindex("Summary:"):]
    figures = {name: re.search(rf"\b{name}:\s+(\S+) ", summary) for name in ("I", "LRA", "Peak")}
    if not all(figures.values()):
        raise MediaError("its loudness cannot be measured", where=place(path))
    integrated, spread, peak = (max(-120.0, float(found[1])) for found in figures.values() if found)
    return Loudness(integrated_lufs=integrated, true_peak_dbtp=peak, range_lu=spread)
