"""Pictures of a media file: opened safely and read by exact frame index (PyAV). Writing them is in `tasks.encode`.

Frame `i` of a constant-rate file is the picture whose time stamp is nearest to `first + i / rate`: exact through
B-frames, open GOPs, edit lists and containers that round their time stamps.
"""

from __future__ import annotations

import errno
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from models.errors import InfinidubError, MediaError, StorageFullError
from models.pictures import picture_rate, picture_stream, place
from models.ports import Image
from models.records import ColorTags
from tasks.store import disk_error

CONTAINERS = ("mov,mp4,matroska,webm,avi,mpegts,mpeg,flv,asf,mxf,nut,ogg,wav,w64,aiff,flac,mp3,aac,ac3,eac3,"
              "h264,hevc,mpegvideo,ivf,yuv4mpegpipe")
"""Demuxers that may be used: real containers only, so that no playlist can name other files or hosts."""
THREADS = 2
"""Of every decoder and encoder, whatever the machine: the same input then gives the same bytes."""
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.BITEXACT
"""How pixels are converted: swscale's fast paths darken by up to two levels and differ between processors."""


PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
             11: "smpte431", 12: "smpte432"}
TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 13: "iec61966-2-1",
             14: "bt2020-10", 15: "bt2020-12", 16: "smpte2084", 18: "arib-std-b67"}
MATRICES = {0: "gbr", 1: "bt709", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 9: "bt2020nc", 10: "bt2020c"}
RANGES = {1: "tv", 2: "pc"}
"""Code points of ISO/IEC 23091-2 and the names that ffmpeg gives them."""


def color_tags(picture: Any) -> ColorTags:
    """The colour description that a decoded frame carries."""
    return ColorTags(primaries=PRIMARIES.get(int(picture.color_primaries)),
                     transfer=TRANSFERS.get(int(picture.color_trc)), matrix=MATRICES.get(int(picture.colorspace)),
                     range=RANGES.get(int(picture.color_range)))


def media_error(error: av.error.FFmpegError, path: Path, doing: str) -> InfinidubError:
    """The project's error for one of PyAV's, raised while `path` was being `doing` ('read', 'decoded', 'written')."""
    if isinstance(error, OSError) and doing == "written":
        return disk_error(error, path)
    if "No space left" in str(error):
        return StorageFullError("no space left on the disk", where=place(path))
    reason = (error.strerror or type(error).__name__).lower()
    if error.errno == errno.EINVAL and doing == "read":
        reason = "its format is not one of those allowed"
    return MediaError(f"cannot be {doing} ({reason})", where=place(path),
                      hint="Check that the file is complete and plays" if doing != "written" else "")


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Open a media file for reading, with playlists and the network shut out.

    Raises:
        MediaError: It cannot be opened, or what is read inside the block is broken.
    """
    try:
        with av.open(f"file:{path}", metadata_errors="replace",
                     options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS}) as container:
            yield container
    except av.error.FFmpegError as error:
        raise media_error(error, path, "read") from error


def frame_count(path: Path) -> int:
    """How many frames a player shows: packets of the picture, without those that an edit list cuts away.

    Raises:
        MediaError: The file cannot be read.
    """
    with reading(path) as container:
        stream = picture_stream(container, path)
        return sum(1 for packet in container.demux(stream) if packet.size and not packet.is_discard)


@dataclass(frozen=True)
class Timing:
    """When the pictures of a file are shown, as its packets say."""

    times: NDArray[np.int64]
    """(N,) time stamps in order of display, in `unit`s, without what an edit list cuts away."""
    unit: Fraction
    """Seconds."""
    end: Fraction
    """Seconds at which the last picture ends."""
    stopped: Fraction
    """Seconds at which the last packet of any stream ends."""
    cut: int
    """Pictures that an edit list cuts away, though others may be predicted from them."""

    def miss(self, rate: Fraction) -> float:
        """By how many frames the time stamps miss a constant rate, at worst."""
        at = (self.times - self.times[0]) * float(self.unit * rate)
        return float(np.abs(at - np.arange(len(at))).max())


def timing(path: Path) -> Timing:
    """Read the time stamps of all pictures; nothing is decoded.

    Raises:
        MediaError: The file cannot be read, or shows no picture.
    """
    times, cut, end, stopped = array("q"), 0, Fraction(0), Fraction(0)
    with reading(path) as container:
        stream = picture_stream(container, path)
        for packet in container.demux():
            if not packet.size or (packet.pts is None and packet.dts is None):
                continue
            at = packet.dts if packet.pts is None else packet.pts
            over = (at + (packet.duration or 0)) * packet.time_base
            stopped = max(stopped, over)
            if packet.stream_index == stream.index:
                cut += packet.is_discard
                if not packet.is_discard:
                    times.append(at)
                    end = max(end, over)
        unit = Fraction(stream.time_base)
    if not times:
        raise MediaError("shows no picture", where=place(path), hint="Check that the file is complete and plays")
    return Timing(np.sort(np.frombuffer(times, np.int64)), unit, end, stopped, cut)


def decoded(path: Path, filters: Sequence[str] = ()) -> Iterator[tuple[Fraction, Any]]:
    """All pictures of a file in order, each with its time stamp in seconds, one at a time.

    Args:
        path: The file.
        filters: What each picture goes through: ffmpeg's filters that keep the number of pictures ('hflip').

    Raises:
        MediaError: The file cannot be read, or changes its size or pixel format in the middle.
    """
    with reading(path) as container:
        stream = picture_stream(container, path)
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = THREADS
        through = Filters(filters, path)
        for picture in container.decode(stream):
            if picture.pts is not None:
                yield picture.pts * stream.time_base, through(picture)


class Filters:
    """Sends pictures, one in, one out, through ffmpeg's filters."""

    def __init__(self, filters: Sequence[str], path: Path) -> None:
        """`filters` are of the form 'hflip' or 'crop=w=64:h=64'; `path` is named in errors."""
        self.filters, self.path = filters, path
        self._graph: Any = None
        self._shape: tuple[int, int, str] | None = None

    def __call__(self, picture: Any) -> Any:
        """The filtered picture.

        Raises:
            MediaError: It differs in size or pixel format from the one before.
        """
        shape = (picture.width, picture.height, picture.format.name)
        if self._shape not in {None, shape}:
            raise MediaError(f"changes its picture from {self._shape} to {shape} in the middle",
                             where=place(self.path), hint="Export it again with one size throughout")
        self._shape = shape
        if not self.filters:
            return picture
        if self._graph is None:
            self._graph = graph = av.filter.Graph()
            steps = [graph.add_buffer(width=shape[0], height=shape[1], format=picture.format,
                                      time_base=picture.time_base)]
            steps += [graph.add(*text.split("=", 1)) for text in self.filters]
            graph.link_nodes(*steps, graph.add("buffersink")).configure()
        self._graph.push(picture)
        return self._graph.pull()


class FrameReader:
    """Reads the frames of a constant-rate file by index.

    Frames asked for in order are decoded once; a jump seeks to the key frame before it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.width = self.height = 0
        self.rate = Fraction(0)
        self._convert = VideoReformatter()

    def __enter__(self) -> Self:
        self._opened = reading(self.path)
        self._container = self._opened.__enter__()
        try:
            self._stream = picture_stream(self._container, self.path)
            self._stream.thread_type = "AUTO"
            self._stream.codec_context.thread_count = THREADS
            self.width, self.height = self._stream.codec_context.width, self._stream.codec_context.height
            self.rate = picture_rate(self._stream)
            self._source: Iterator[Any] = self._container.decode(self._stream)
            self._last, self._first = (None, 0)
            first = next(self._source, None)
            if first is None or not self.rate:
                raise MediaError("has no pictures", where=place(self.path), hint="Check that the file plays")
            self._first, self._last = first.pts, (0, first)
        except BaseException as error:
            self._close(error)
            raise
        return self

    def _close(self, error: BaseException | None) -> None:
        self._opened.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
                 ) -> None:
        self._source = iter(())
        self._close(error)

    def _index(self, picture: Any) -> int:
        time: Fraction = (picture.pts - self._first) * self._stream.time_base
        return round(time * self.rate)

    def _next(self) -> tuple[int, Any] | None:
        for picture in self._source:
            if picture.pts is not None:
                return self._index(picture), picture
        return None

    def _seek(self, index: int) -> None:
        """Make the next decoded frame one at or before `index`."""
        back = Fraction(0)
        while True:
            target = self._first + int((index / self.rate - back) / self._stream.time_base)
            start = back * self.rate >= index
            self._container.seek(min(target, self._first) if start else target, stream=self._stream, backward=True)
            self._source = self._container.decode(self._stream)
            self._last = self._next()
            if start or (self._last and self._last[0] <= index):
                return
            back = back * 2 or Fraction(1)

    def picture(self, index: int) -> Any:
        """Frame `index` as the decoder gave it (`av.VideoFrame`, the source's own pixel format).

        Raises:
            MediaError: There is no such frame, or it cannot be decoded.
        """
        try:
            if index < 0 or self._last is None or not self._last[0] <= index <= self._last[0] + 2 * self.rate:
                self._seek(max(index, 0))
            while self._last and self._last[0] < index:
                self._last = self._next()
        except av.error.FFmpegError as error:
            raise media_error(error, self.path, "decoded") from error
        if self._last is None or self._last[0] != index:
            raise MediaError(f"frame {index} is missing", where=place(self.path),
                             hint="Check that the file is complete and plays")
        return self._last[1]

    def pictures(self, start: int, end: int) -> Iterator[Any]:
        """Frames [start, end) in order, one at a time, as the decoder gave them."""
        return (self.picture(index) for index in range(start, end))

    def frame(self, index: int) -> Image:
        """Frame `index` as RGB: (H, W, 3) uint8.

        Raises:
            MediaError: There is no such frame, or it cannot be decoded.
        """
        picture = self._convert.reformat(self.picture(index), format="rgb24", interpolation=EXACT, threads=THREADS)
        return np.ascontiguousarray(picture.to_ndarray())

    def frames(self, start: int, end: int) -> Iterator[Image]:
        """Frames [start, end) in order, one at a time, as RGB: (H, W, 3) uint8 each."""
        return (self.frame(index) for index in range(start, end))
