"""Pictures written: without loss for clips (FFV1), with x264 for what people watch, or copied as they are (PyAV)."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np

from models.errors import MediaError
from models.pictures import picture_rate, picture_stream, place
from models.ports import Image
from models.records import ColorTags
from tasks.video import (
    EXACT,
    MATRICES,
    PRIMARIES,
    RANGES,
    THREADS,
    TRANSFERS,
    FrameReader,
    media_error,
    reading,
)

MP4_CODECS = frozenset({"h264", "hevc", "av1", "vp9", "mpeg4"})
"""Pictures that go into an MP4 as they are."""
LONGEST_GOP = 10
"""Seconds from key frame to key frame, where a file is cut at them."""


class _Writer:
    """One video stream in one file: what both encoders share."""

    container_format = ""

    def __init__(self, path: Path, width: int, height: int, rate: Fraction) -> None:
        self.path, self.width, self.height, self.rate = path, width, height, rate
        self.written = 0

    def _add_stream(self, container: Any) -> Any:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._container = _create(self.path, self.container_format)
        self._stream = self._add_stream(self._container)
        self._stream.width, self._stream.height = self.width, self.height
        self._stream.codec_context.time_base = 1 / self.rate
        self._stream.codec_context.thread_count = THREADS
        return self

    def _encode(self, frame: Any) -> None:
        """Append one frame; None ends the stream."""
        if frame is not None:
            frame.pts, frame.time_base = self.written, 1 / self.rate
            self.written += 1
        try:
            self._container.mux(self._stream.encode(frame))
        except av.error.FFmpegError as error:
            raise media_error(error, self.path, "written") from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None,
                 ) -> None:
        try:
            if error is None:
                self._encode(None)
        finally:
            _close(self._container, self.path)


class FrameWriter(_Writer):
    """Writes RGB frames without loss: FFV1 in Matroska, every frame a key frame, the same bytes for the same frames."""

    container_format = "matroska"

    def _add_stream(self, container: Any) -> Any:
        stream = container.add_stream("ffv1", rate=self.rate, options={
            "level": "3", "g": "1", "slices": "4", "slicecrc": "1", "flags": "+bitexact"})
        stream.pix_fmt = "bgr0"
        return stream

    def write(self, image: Image) -> None:
        """Append a frame, (H, W, 3) uint8 RGB.

        Raises:
            ValueError: Another shape or type than promised.
            InfrastructureError: The file cannot be written.
        """
        if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
            raise ValueError(f"a frame is {image.shape} {image.dtype}, not ({self.height}, {self.width}, 3) uint8")
        self._encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24").reformat(format="bgr0"))

    def append(self, packet: Any, extradata: bytes) -> None:
        """Append a frame that another `FrameWriter` encoded; `extradata` is its codec's.

        Raises:
            MediaError: It was encoded in another way.
        """
        context = self._stream.codec_context
        if not context.is_open:
            context.open()
        if bytes(context.extradata) != extradata:
            raise MediaError("is not encoded like the clips of this version", where=place(self.path),
                             hint="Generate its shot anew")
        packet.stream, packet.time_base = self._stream, 1 / self.rate
        packet.pts = packet.dts = self.written
        packet.duration = 1
        self.written += 1
        self._container.mux(packet)


class PictureWriter(_Writer):
    """Encodes decoded frames with x264 into an MP4 that holds nothing else: 4:2:0, key frames every two seconds."""

    container_format = "mp4"

    def __init__(self, path: Path, width: int, height: int, rate: Fraction, *, color: ColorTags, crf: int) -> None:
        """`crf` is x264's rate factor: 12 is hard to tell from the original, 16 good, 23 small."""
        super().__init__(path, width, height, rate)
        self.color, self.crf = color, crf

    def _add_stream(self, container: Any) -> Any:
        # On processors with AVX-512, x264's macroblock tree reads memory that nobody wrote: other bytes every time.
        stream = container.add_stream("libx264", rate=self.rate, options={
            "crf": str(self.crf), "preset": "medium", "g": str(round(self.rate * 2)), "x264-params": "mbtree=0",
            "flags": "+bitexact"})
        stream.pix_fmt = "yuv420p"
        context, tags = stream.codec_context, color_codes(self.color)
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = tags
        return stream

    def write(self, picture: Any) -> None:
        """Append an `av.VideoFrame` of the right size.

        Raises:
            InfrastructureError: The file cannot be written.
        """
        frame = to_yuv(picture, self.color)
        # The reader still needs the time stamp of its own frame.
        self._encode(av.VideoFrame.from_ndarray(frame.to_ndarray(), format="yuv420p") if frame is picture else frame)


def color_codes(tags: ColorTags) -> tuple[int, int, int, int]:
    """Code points of primaries, transfer, matrix and range; those for 'unspecified' where nothing is said."""
    tables = ((PRIMARIES, tags.primaries, 2), (TRANSFERS, tags.transfer, 2), (MATRICES, tags.matrix, 2),
              (RANGES, tags.range, 0))
    primaries, transfer, matrix, span = (next((code for code, name in table.items() if name == tag), unknown)
                                         for table, tag, unknown in tables)
    return primaries, transfer, matrix, span


def to_yuv(picture: Any, color: ColorTags, width: int | None = None, height: int | None = None) -> Any:
    """An `av.VideoFrame` as 4:2:0, scaled where a size is given; RGB gets the matrix and range of `color`."""
    matrix, span = (None, None)
    if picture.format.is_rgb:
        # swscale knows SMPTE 170M by the number of BT.601, and takes BT.601 where nothing is said.
        _, _, code, span = color_codes(color)
        matrix = {2: None, 6: 5}.get(code, code)
    return picture.reformat(width=width, height=height, format="yuv420p", interpolation=EXACT,
                            dst_colorspace=matrix, dst_color_range=span, threads=THREADS)


def _create(path: Path, container_format: str) -> Any:
    try:
        return av.open(f"file:{path}", "w", format=container_format, options={"fflags": "+bitexact"})
    except av.error.FFmpegError as error:
        raise media_error(error, path, "written") from error


def _close(container: Any, path: Path) -> None:
    try:
        container.close()
    except av.error.FFmpegError as error:
        raise media_error(error, path, "written") from error


def concat_ffv1(paths: Sequence[Path], out: Path) -> None:
    """Join files of `FrameWriter` without encoding anything anew.

    Args:
        paths: In order; all of one size and rate.
        out: The file to write.

    Raises:
        MediaError: A file cannot be read, or differs in size or rate from the first.
    """
    with FrameReader(paths[0]) as first:
        size, rate = (first.width, first.height), first.rate
    with FrameWriter(out, *size, rate) as joined:
        for path in paths:
            with reading(path) as container:
                stream = picture_stream(container, path)
                mine = (stream.codec_context.width, stream.codec_context.height), picture_rate(stream)
                if mine != (size, rate):
                    raise MediaError(f"is {mine[0]} at {mine[1]}, not {size} at {rate} like the clips before it",
                                     where=place(path))
                for packet in container.demux(stream):
                    if packet.size:
                        joined.append(packet, bytes(stream.codec_context.extradata))


def copy_pictures(path: Path, out: Path) -> bool:
    """Copy the picture of a constant-rate file into an MP4 of its own, each frame at exactly `index / rate`.

    Returns:
        False, and nothing is written, when the picture cannot be copied exactly: its codec does not fit, or an edit
        list cuts into it.
    """
    with reading(path) as container:
        stream = picture_stream(container, path)
        packets = [(p.pts, p.is_discard) for p in container.demux(stream) if p.size]
        rate, unit = picture_rate(stream), stream.time_base
        if stream.codec_context.name not in MP4_CODECS or any(pts is None or cut for pts, cut in packets):
            return False
        first = min(pts for pts, _ in packets)
        order = [round((pts - first) * unit * rate) for pts, _ in packets]
    if sorted(order) != list(range(len(order))):
        return False
    delay = max(number - index for number, index in enumerate(order))
    with reading(path) as container:
        stream, target = picture_stream(container, path), _create(out, "mp4")
        try:
            copied = target.add_stream_from_template(stream)
            copied.time_base = 1 / rate
            for number, packet in enumerate(p for p in container.demux(stream) if p.size):
                packet.stream, packet.time_base = copied, 1 / rate
                packet.pts, packet.dts, packet.duration = order[number], number - delay, 1
                target.mux(packet)
        finally:
            _close(target, out)
    return True


def segmentable(path: Path) -> bool:
    """Whether a picture can be cut at its key frames into segments that HLS players take, each of which stands alone.

    Its codec must be one they know, key frames may be ten seconds apart at most, and no picture may be shown before the
    key frame that it follows.
    """
    with reading(path) as container:
        stream = picture_stream(container, path)
        if stream.codec_context.name not in {"h264", "hevc"}:
            return False
        unit, keys, last = stream.time_base, list[int](), 0
        for packet in container.demux(stream):
            if packet.size:
                if packet.is_keyframe:
                    keys.append(packet.pts)
                elif not keys or packet.pts < keys[-1]:
                    return False
                last = max(last, packet.pts + (packet.duration or 0))
        return all((after - before) * unit <= LONGEST_GOP for before, after in pairwise([*keys, last]))
