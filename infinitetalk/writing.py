"""The finished file: chunks of pictures as they are made, then one MP4 of them with sound (PyAV), with flat memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

from infinitetalk.errors import BadInputError
from infinitetalk.io import EXACT, THREADS, reading, sound, sound_track

SOUND_RATE = 48_000
"""Samples per second of the finished file."""
CONTAINER = {"fflags": "+bitexact", "movflags": "+faststart", "movie_timescale": str(SOUND_RATE)}
"""Edit lists count in the movie's time scale: at the usual 1000 sound would end up to a millisecond early."""


class Tap:
    """A file's sound in stereo, taken in pieces of any length: silence before its place and after its end."""

    def __init__(self, path: Path | None, lead: int = 0, length: int | None = None) -> None:
        """`path`: None is silence. `lead`, `length`: samples at `SOUND_RATE` before it begins, and that it may last."""
        self._blocks = sound(path, SOUND_RATE, _layout(path)) if path else iter(())
        self._left, self._lead = length, lead
        self._rest = np.zeros((2, 0), np.float32)

    def take(self, count: int) -> NDArray[np.float32]:
        """The next `count` samples: (2, count)."""
        taken = np.zeros((2, count), np.float32)
        at = min(self._lead, count)
        self._lead -= at
        while at < count and (self._rest.shape[1] or self._fill()):
            piece = self._rest[:, :count - at]
            taken[:, at:at + piece.shape[1]] = piece
            self._rest = self._rest[:, piece.shape[1]:]
            at += piece.shape[1]
        return taken

    def _fill(self) -> bool:
        """Decode the next block; whether there is one."""
        block = next(self._blocks, None) if self._left != 0 else None
        if block is None:
            return False
        self._rest = np.broadcast_to(block, (2, block.shape[1]))[:, :self._left]
        self._left = None if self._left is None else self._left - self._rest.shape[1]
        return True


def _layout(path: Path) -> str:
    """One channel stays as loud on both sides; more than two are mixed down."""
    with reading(path) as container:
        return "mono" if sound_track(container, path).codec_context.channels == 1 else "stereo"


@contextmanager
def _writing(path: Path) -> Iterator[Any]:
    """An MP4 that appears whole, under its name, or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with av.open(f"file:{partial}", "w", format="mp4", options=CONTAINER) as container:
            yield container
        partial.replace(path)
    except av.error.FFmpegError as error:
        raise BadInputError(f"cannot be written ({(error.strerror or 'no reason given').lower()})", where=str(path),
                            hint="See that its folder is there and the disk has space") from error
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """See that a file of this name can be written, by writing one beside it that is gone at once.

    Raises:
        BadInputError: It cannot.
    """
    hint = "Name a file in a folder that you may write to"
    if path.is_dir():
        raise BadInputError("is a folder", where=str(path), hint=hint)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(prefix=f".{path.name}.", dir=path.parent):
            pass
    except OSError as error:
        raise BadInputError(f"cannot be written ({(error.strerror or str(error)).lower()})", where=str(path),
                            hint=hint) from error


def write_chunk(path: Path, frames: NDArray[np.uint8], rate: Fraction, crf: int = 16) -> None:
    """Encode pictures into an MP4 of their own: H.264, 4:2:0, BT.709; the same bytes for the same pictures.

    Args:
        path: The file.
        frames: (F, H, W, 3), RGB, even sides.
        rate: Frames per second.
        crf: x264's rate factor; lower is better.
    """
    with _writing(path) as container:
        # x264's macroblock tree differs from run to run on AVX-512; without B-frames chunks join without a seam.
        stream = container.add_stream("libx264", rate=rate, options={
            "crf": str(crf), "preset": "medium", "bf": "0", "g": str(round(rate * 2)), "x264-params": "mbtree=0",
            "flags": "+bitexact"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base, context.thread_count = 1 / rate, THREADS
        context.color_primaries = context.color_trc = context.colorspace = 1
        context.color_range = 1
        for index, image in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(
                format="yuv420p", interpolation=EXACT, dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG, threads=THREADS)
            picture.pts, picture.time_base = index, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def join(chunks: Sequence[Path], taps: Sequence[Tap], out: Path, rate: Fraction) -> int:
    """Make one MP4 of encoded chunks, as they are, and the sum of `taps` as AAC, as long as the picture to the sample.

    Returns:
        Frames written.
    """
    with _writing(out) as target:
        with reading(chunks[0]) as first:
            picture = target.add_stream_from_template(first.streams.video[0])
            headers = bytes(first.streams.video[0].codec_context.extradata)
        picture.time_base = 1 / rate
        voice = target.add_stream("aac", rate=SOUND_RATE, layout="stereo", options={"b": "192k", "flags": "+bitexact"})
        number = heard = 0
        for packet in _packets(chunks, headers):
            packet.stream, packet.time_base = picture, 1 / rate
            packet.pts, packet.dts, packet.duration = number, number, 1
            target.mux(packet)
            number += 1
            until = round(number * SOUND_RATE / rate)
            target.mux(voice.encode(_sound_frame(_mixed(taps, until - heard), heard)))
            heard = until
        target.mux(voice.encode(None))
    return number


def _packets(chunks: Sequence[Path], headers: bytes) -> Iterator[Any]:
    for chunk in chunks:
        with reading(chunk) as container:
            stream = container.streams.video[0]
            if bytes(stream.codec_context.extradata) != headers:
                raise BadInputError("was encoded in another way than the chunks before it", where=str(chunk),
                                    hint="Begin anew: remove the folder of the state")
            yield from (packet for packet in container.demux(stream) if packet.size)


def _mixed(taps: Sequence[Tap], count: int) -> NDArray[np.float32]:
    """The sum of the taps' next samples, (2, count)."""
    mixed = np.zeros((2, count), np.float32)
    for tap in taps:
        mixed += tap.take(count)
    return np.clip(mixed, -1, 1)


def _sound_frame(samples: NDArray[np.float32], start: int) -> Any:
    """(2, n) as a frame that begins at sample `start`."""
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, start, Fraction(1, SOUND_RATE)
    return frame
