"""Files of pictures and sound are read (PyAV): pictures by index, sound in blocks, with flat memory."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from infinitetalk.errors import BadInputError

CONTAINERS = ("mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,mxf,nut,ogg,wav,w64,aiff,flac,mp3,aac,ac3,eac3,"
              "h264,hevc,ivf")
"""Demuxers that may be used: no playlist can name other files or hosts."""
THREADS = 2
"""Of every decoder and encoder, whatever the machine: the same input then gives the same bytes."""
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
"""swscale's fast paths darken by up to two levels and differ between processors."""
MOST_PIXELS = 8192 * 8192
"""Of one picture: what is larger is no picture of people, but fills the memory."""
RATES = tuple(map(Fraction, ("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60")))
HIGH_DYNAMIC_RANGE = {16: "PQ", 18: "HLG"}
"""Transfer characteristics of ISO/IEC 23091-2 whose values are no sRGB."""
FAR_SECONDS = 2
"""Pictures ahead by more than this are sought, not decoded up to."""

Look = Callable[[NDArray[np.float32], int], None]
"""Is shown every block as it was recorded, (C, n) float32, and its rate."""


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Open a media file, with playlists and the network shut out.

    Raises:
        BadInputError: It cannot be opened, or what is read inside the block is broken.
    """
    try:
        with av.open(f"file:{path}", metadata_errors="replace",
                     options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS}) as container:
            yield container
    except av.error.FFmpegError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise BadInputError(f"cannot be read ({reason})", where=str(path),
                            hint="Check that the file is there, is complete, and plays") from error


# -- pictures ---------------------------------------------------------------------------------------------------------


class PictureReader:
    """Pictures of a video by index: upright, with square pixels, clamped to the video's last.

    Picture `i` is the one on screen at `(i + 1/2) / rate` seconds after the first: exact where the rate is constant
    (through B-frames and containers that round their time stamps), and right where it is not. One picture is held.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rate = Fraction(0)
        """Frames per second."""
        self._convert = VideoReformatter()
        self._source: Iterator[Any] = iter(())
        self._first = 0
        self._size = (0, 0)
        self._shown: Any = None
        self._ahead: Any = None

    def __enter__(self) -> Self:
        self._opened = reading(self.path)
        self._container = self._opened.__enter__()
        try:
            self._open()
        except BaseException as error:
            self._opened.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
                 ) -> None:
        self._source = iter(())
        self._opened.__exit__(None, None, None)

    def _open(self) -> None:
        self._stream = _picture_stream(self._container, self.path)
        self._stream.thread_type = "AUTO"
        self._stream.codec_context.thread_count = THREADS
        self.rate = _rate(self._stream, self.path)
        self._source = self._decoded()
        first = next(self._source, None)
        if first is None:
            raise BadInputError("has no pictures", where=str(self.path), hint="Check that the file plays")
        _check_picture(first, self.path)
        self._first = first.pts
        self._shown, self._ahead = first, next(self._source, None)
        self._size = first.width, first.height

    def _decoded(self) -> Iterator[Any]:
        return (picture for picture in self._container.decode(self._stream) if picture.pts is not None)

    def _seconds(self, picture: Any) -> Fraction:
        return Fraction((picture.pts - self._first) * self._stream.time_base)

    def frame(self, index: int) -> NDArray[np.uint8]:
        """Picture `index`, RGB: (H, W, 3).

        Raises:
            BadInputError: The file is broken there, or changes its size in the middle.
        """
        time = (max(index, 0) + Fraction(1, 2)) / self.rate
        try:
            self._go(time)
        except av.error.FFmpegError as error:
            raise BadInputError(f"cannot be decoded at {float(time):.2f} s", where=str(self.path),
                                hint="Check that the file is complete and plays") from error
        if (self._shown.width, self._shown.height) != self._size:
            raise BadInputError(f"changes its size at {float(time):.2f} s", where=str(self.path),
                                hint="Export it again with one size throughout")
        return self._upright(self._shown)

    def count(self) -> int:
        """How many pictures there are, by the time stamps: up to the last one's, and none is decoded."""
        last = None
        with suppress(BadInputError):  # a container without index
            last = self._last(near_end=True)
        last = self._last(near_end=False) if last is None else last
        seconds = (max(last or 0, self._first) - self._first) * Fraction(self._stream.time_base)
        return int(seconds * self.rate + Fraction(1, 2)) + 1

    def _last(self, *, near_end: bool) -> int | None:
        """The last time stamp, in the stream's units; `near_end`: None where no index leads there."""
        with reading(self.path) as container:
            stream = _picture_stream(container, self.path)
            if near_end:
                container.seek((container.start_time or 0) + (container.duration or 0), backward=True)
            return max((packet.pts for packet in container.demux(stream)
                        if packet.pts is not None and not packet.is_discard), default=None)

    def _go(self, time: Fraction) -> None:
        """Decode until the picture on screen at `time` is shown."""
        if not self._seconds(self._shown) <= time <= self._seconds(self._shown) + FAR_SECONDS:
            self._seek(time)
        while self._ahead is not None and self._seconds(self._ahead) <= time:
            self._shown, self._ahead = self._ahead, next(self._source, None)

    def _seek(self, time: Fraction) -> None:
        """Show a picture at or before `time`: the key frame's; where none is found, begin anew."""
        shown = None
        with suppress(av.error.FFmpegError):  # a container without index
            self._container.seek(self._first + int(time / self._stream.time_base), stream=self._stream, backward=True)
            self._source = self._decoded()
            shown = next(self._source, None)
        if shown is not None and self._seconds(shown) <= time:
            self._shown, self._ahead = shown, next(self._source, None)
        else:
            self.__exit__(None, None, None)
            self.__enter__()

    def _upright(self, picture: Any) -> NDArray[np.uint8]:
        width = round(picture.width * Fraction(self._stream.sample_aspect_ratio or 1))
        rgb = self._convert.reformat(picture, width=max(width, 1), height=picture.height, format="rgb24",
                                     interpolation=EXACT, threads=THREADS)
        pixels = np.asarray(rgb.to_ndarray(), np.uint8)
        return np.ascontiguousarray(turned(pixels, picture.side_data.get("DISPLAYMATRIX")))


def _picture_stream(container: Any, path: Path) -> Any:
    """The stream that is the picture: the default one, never a cover."""
    covers = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & covers and s.codec_context]
    if not streams:
        raise BadInputError("has no moving picture that can be decoded", where=str(path),
                            hint="Give a video; a still picture is given as an image")
    return next((s for s in streams if s.disposition & av.stream.Disposition.default), streams[0])


def _rate(stream: Any, path: Path) -> Fraction:
    """Frames per second; containers that round time stamps, and a long last frame, bend the average a little."""
    average, base = Fraction(stream.average_rate or 0), Fraction(stream.base_rate or 0)
    rate = base if abs(base - average) * 20 < average else average
    if not 1 <= rate <= 1000:
        raise BadInputError(f"says that it has {float(rate):g} frames a second", where=str(path),
                            hint="Convert it to a constant rate, e.g. of 25")
    nearest = min(RATES, key=lambda standard: abs(standard - rate))
    return nearest if abs(nearest - rate) * 5000 < rate else rate


def _check_picture(picture: Any, path: Path) -> None:
    if not 0 < picture.width * picture.height <= MOST_PIXELS:
        raise BadInputError(f"is {picture.width}×{picture.height} pixels large", where=str(path),
                            hint="Scale it down to 4K at most")
    kind = HIGH_DYNAMIC_RANGE.get(int(picture.color_trc))
    if kind:
        raise BadInputError(f"is of high dynamic range ({kind})", where=str(path),
                            hint="Convert it to SDR (BT.709) first")


def turned(image: NDArray[np.uint8], matrix: Any) -> NDArray[np.uint8]:
    """(H, W, 3) turned and flipped to the nearest quarter turn, as players do by a display matrix."""
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    turned = abs(b) > abs(a)
    across, down = (c, b) if turned else (a, d)
    image = image.swapaxes(0, 1) if turned else image
    return image[::-1 if down < 0 else 1, ::-1 if across < 0 else 1]


# -- sound ------------------------------------------------------------------------------------------------------------


def sound(path: Path, rate: int, layout: str, look: Look | None = None) -> Generator[NDArray[np.float32]]:
    """A file's first (or default) sound track from its first sample on, in blocks of (C, n) in [-1, 1].

    Raises:
        BadInputError: No sound, or it cannot be decoded.
    """
    with reading(path) as container:
        track = sound_track(container, path)
        plain = av.AudioResampler(format="fltp")
        wanted = av.AudioResampler(format="fltp", layout=layout, rate=rate)
        try:
            for frame in container.decode(track):
                for recorded in plain.resample(frame):
                    if look:
                        look(recorded.to_ndarray(), recorded.sample_rate)
                    yield from (one.to_ndarray() for one in wanted.resample(recorded))
            yield from (one.to_ndarray() for one in wanted.resample(None))
        except ValueError as error:  # FFmpeg's own errors are told by `reading`
            if isinstance(error, av.error.FFmpegError):
                raise
            raise BadInputError("changes its rate or its channels in the middle", where=str(path),
                                hint="Convert it to WAV") from error


def sound_length(path: Path) -> Fraction | None:
    """Seconds of sound by the header of an MP4: the track ends inside its last packet, which the decoder cannot know.

    None for files that have no such header.

    Raises:
        BadInputError: No sound, or none that can be decoded.
    """
    with reading(path) as container:
        track = sound_track(container, path)
        return track.duration * Fraction(track.time_base) if "mp4" in container.format.name and track.duration else None


def sound_track(container: Any, path: Path) -> Any:
    """The stream that is the sound: the default one.

    Raises:
        BadInputError: None can be decoded.
    """
    tracks = [s for s in container.streams.audio if s.codec_context and s.codec_context.channels]
    if not tracks:
        raise BadInputError("has no sound that can be decoded", where=str(path), hint="Give a file with a sound track")
    return next((s for s in tracks if s.disposition & av.stream.Disposition.default), tracks[0])
