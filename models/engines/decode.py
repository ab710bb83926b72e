"""Pictures for adapters that read a video file themselves: opened safely, decoded once, in order."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.errors import MediaError
from models.pictures import picture_rate, picture_stream, place

CONTAINERS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,mxf,nut,ivf"
"""Demuxers that may be used: real containers only, so that no playlist can name other files or hosts."""


@contextmanager
def video(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file and its picture stream (PyAV container and stream).

    Raises:
        MediaError: It cannot be opened, has no picture, or is broken where the block reads it.
    """
    import av

    try:
        with av.open(f"file:{path}", metadata_errors="replace",
                     options={"protocol_whitelist": "file", "format_whitelist": CONTAINERS}) as container:
            stream = picture_stream(container, path)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = 2
            yield container, stream
    except av.error.FFmpegError as error:
        raise MediaError(f"cannot be decoded ({error.strerror})", where=place(path),
                         hint="Check that the file is complete and plays") from error


def pictures(path: Path, pixels: str = "rgb24", longest: int | None = None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Frame index and (H, W, 3) picture, in order.

    Args:
        path: A constant-rate file; a picture's index is told by its time stamp.
        pixels: 'rgb24' or 'bgr24'.
        longest: Shrink pictures whose longer side exceeds this many pixels.

    Raises:
        MediaError: The file cannot be read to its end.
    """
    with video(path) as (container, stream):
        rate, first = picture_rate(stream), None
        scale = min(1.0, (longest or 1 << 16) / max(stream.width, stream.height))
        width, height = max(1, round(stream.width * scale)), max(1, round(stream.height * scale))
        for frame in (frame for frame in container.decode(stream) if frame.pts is not None):
            first = frame.pts if first is None else first
            index = round((frame.pts - first) * stream.time_base * rate)
            yield index, frame.to_ndarray(format=pixels, width=width, height=height, interpolation="AREA")
