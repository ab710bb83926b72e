"""Small real clips, made on the spot: every frame carries its number, every second of sound begins with a click.

The number is drawn as black and white squares that survive lossy encoding; `number_in` reads it back. A click is one
loud sample among silence, so that its place can be found to the sample.
"""

from __future__ import annotations

import functools
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
import soundfile

from models.ports import Image, Samples
from tasks.media import FrameReader, FrameWriter, read_audio, run_ffmpeg, write_flac

RATES = tuple(map(Fraction, ("24000/1001", "24", "25", "30000/1001", "30", "50", "60")))
BITS = 12
FOLDER = Path(tempfile.mkdtemp(prefix="infinidub-clips-"))


def numbered(number: int, width: int = 192, height: int = 128) -> Image:
    """A frame with its number in twelve squares of 16 pixels along its upper edge, over a moving pattern."""
    y, x = np.mgrid[0:height, 0:width]
    wave = 128 + 60 * np.sin((x + 3 * number) / 17) * np.cos(y / 13)
    image = np.stack([wave, 255 - wave, 90 + y * 64 / height], -1).astype(np.uint8)
    for bit in range(BITS):
        image[0:16, bit * 16:bit * 16 + 16] = 235 if number >> bit & 1 else 20
    return image


def number_in(image: Image) -> int:
    """The number that `numbered` drew."""
    return sum((int(image[4:12, bit * 16 + 4:bit * 16 + 12].mean()) > 128) << bit for bit in range(BITS))


def numbers_in(path: Path, start: int, end: int) -> list[int]:
    """The numbers of the frames [start, end) of a file."""
    with FrameReader(path) as reader:
        return [number_in(image) for image in reader.frames(start, end)]


def clicks(seconds: float, channels: int = 2, rate: int = 48_000) -> Samples:
    """A click at every full second: (N, C)."""
    samples = np.zeros((round(seconds * rate), channels), np.float32)
    samples[::rate] = 0.9
    return samples


def click_times(samples: Samples, rate: int = 48_000) -> list[float]:
    """Seconds at which clicks are heard in one channel."""
    loud = np.flatnonzero(np.abs(samples) > 0.25 * np.abs(samples).max())
    first = loud[np.diff(loud, prepend=-rate) > rate // 10]
    peaks = [at + int(np.abs(samples[at:at + 200]).argmax()) for at in first]
    return [peak / rate for peak in peaks]


@functools.cache
def pictures(rate: Fraction = Fraction(25), frames: int = 60, width: int = 192, height: int = 128) -> Path:
    """Numbered frames without loss."""
    path = FOLDER / f"pictures-{rate.numerator}-{rate.denominator}-{frames}-{width}x{height}"
    with FrameWriter(path, width, height, rate) as writer:
        for number in range(frames):
            writer.write(numbered(number, width, height))
    return path


@functools.cache
def sound(seconds: float, channels: int = 2, rate: int = 48_000) -> Path:
    """Clicks as FLAC."""
    path = FOLDER / f"sound-{seconds}-{channels}-{rate}.flac"
    write_flac(path, clicks(seconds, channels, rate), rate)
    return path


_made: dict[str, Path] = {}


def clip(name: str, *, rate: Fraction = Fraction(25), frames: int = 60, size: tuple[int, int] = (192, 128),
         channels: int = 2, audio_rate: int = 48_000, audio_offset: float = 0, seconds: float | None = None,
         filters: tuple[tuple[str, dict[str, Any]], ...] = (), picture: bool = True, **options: Any) -> Path:
    """Encode a clip once a session; its name tells the container (`a.mp4`, `b.mkv`) and is its key.

    Args:
        name: File name.
        rate: Frames per second.
        frames: How many.
        size: Width and height.
        channels: Of the sound; 0 for none.
        audio_rate: Samples per second.
        audio_offset: Seconds by which the sound starts late.
        seconds: Length of the sound; None for that of the picture.
        filters: ffmpeg filters on the picture.
        picture: False leaves the picture out.
        options: Output options of ffmpeg, `vcodec` and so on.
    """
    if name not in _made:
        streams = []
        if picture:
            video = ffmpeg.input(str(pictures(rate, frames, *size))).video
            for filter_name, settings in filters:
                video = video.filter(filter_name, **settings)
            streams.append(video)
        if channels:
            given = sound(seconds or float(frames / rate), channels, audio_rate)
            streams.append(ffmpeg.input(str(given), itsoffset=audio_offset).audio)
        defaults = {"vcodec": "libx264", "pix_fmt": "yuv420p", "qp": 18} if picture else {}
        _made[name] = FOLDER / name
        run_ffmpeg(ffmpeg.output(*streams, str(_made[name]), **{**defaults, **options}), where=name)
    return _made[name]


def remade(name: str, source: Path, *, before: dict[str, Any] | None = None, **options: Any) -> Path:
    """Another file made of `source` by ffmpeg, once a session; without other options its streams are copied."""
    if name not in _made:
        _made[name] = FOLDER / name
        run_ffmpeg(ffmpeg.input(str(source), **(before or {})).output(str(_made[name]), **{"c": "copy", **options}),
                   where=name)
    return _made[name]


def many_channels(name: str, channels: int) -> Path:
    """A clip whose sound has more channels than FLAC holds."""
    if name not in _made:
        wave = FOLDER / f"{name}.wav"
        soundfile.write(wave, clicks(2, channels), 48_000)
        both = [ffmpeg.input(str(pictures())).video, ffmpeg.input(str(wave)).audio]
        _made[name] = FOLDER / name
        run_ffmpeg(ffmpeg.output(*both, str(_made[name]), vcodec="libx264", acodec="copy", pix_fmt="yuv420p"),
                   where=name)
    return _made[name]


def sound_of(path: Path, **options: Any) -> Samples:
    """The first channel of a file's sound at 48 kHz."""
    samples = read_audio(path, channels=None, **options)
    return np.ascontiguousarray(samples[:, 0])
