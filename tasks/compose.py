"""Source pictures and generated clips → the localized picture, frame by frame.

Passthrough frames go through untouched, in the source's own pixels. A clip is scaled to its placement and pasted; where
an edge of it does not lie on the edge of the frame, it is feathered. Pixels outside the placement stay untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, pairwise, repeat
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from models.errors import EngineError
from models.ports import Image
from models.records import Artifact, Clip, Clips, ColorTags, Placement, Plan, PlannedShot
from models.timebase import generation_divisor
from tasks.media import EXACT, FrameReader, to_yuv

FEATHER = 16
"""The feathered edge is this part of the placement's shorter side …"""
WIDEST_FEATHER = 32
"""… and at most so many pixels."""
MUCH = 2.0
"""From so many times on, a clip is much enlarged: it is blurred, and a narrow edge would show as a frame around it."""
MUCH_FEATHER = (8, 6)
"""Then the edge is at least so many of the clip's own pixels, and at most this part of the placement's shorter side."""

Mask = NDArray[np.float32]  # (H, W), 0 … 1


def localized_pictures(reader: FrameReader, plan: Plan, clips: Clips, color: ColorTags,
                       path: Callable[[Artifact], Path]) -> Iterator[Any]:
    """Every frame of the episode, in order, as `av.VideoFrame`; memory does not grow with the length.

    Args:
        reader: The source.
        plan: Which shots are generated.
        clips: Their clips.
        color: Matrix and range of the source.
        path: Finds the file of a clip.

    Raises:
        EngineError: A clip is missing, has not the frames its shot needs, or leaves the frame.
    """
    made = {clip.shot: clip for clip in clips.clips}
    for shot in plan.shots:
        if shot.kind == "passthrough":
            yield from reader.pictures(shot.start, shot.end)
            continue
        if shot.shot not in made:
            raise EngineError("its clip is missing", where=f"shot {shot.shot}", hint="Generate it: run again")
        yield from _pasted(reader, shot, made[shot.shot], color, path(made[shot.shot].video))


def _pasted(reader: FrameReader, shot: PlannedShot, clip: Clip, color: ColorTags, file: Path) -> Iterator[Any]:
    frames, place = shot.end - shot.start, clip.placement
    divisor = _divisor(clip, frames, reader)
    if place.x + place.width > reader.width or place.y + place.height > reader.height:
        raise EngineError(f"its clip leaves the frame of {reader.width}x{reader.height}", where=f"shot {shot.shot}",
                          hint="Generate it anew for this source")
    whole = (place.width, place.height) == (reader.width, reader.height)
    paste = None if whole else Paste(place, reader.width, reader.height, color, place.width / clip.width)
    with FrameReader(file) as generated:
        images = in_between(generated.frames(0, clip.frames), divisor)
        for index, image in zip(range(shot.start, shot.end), images, strict=False):
            picture = av.VideoFrame.from_ndarray(image, format="rgb24")
            yield paste(reader.picture(index), picture) if paste else to_yuv(picture, color, place.width, place.height)


def _divisor(clip: Clip, frames: int, reader: FrameReader) -> int:
    """How many source frames a clip's frame stands for."""
    for divisor in (generation_divisor(reader.rate), 1):
        if clip.frames == -(-frames // divisor):
            return divisor
    raise EngineError(f"its clip has {clip.frames} frames, {frames} are needed", where=f"shot {clip.shot}",
                      hint="Generate it anew")


def in_between(images: Iterator[Image], divisor: int) -> Iterator[Image]:
    """Frames at `divisor` times the rate: those between two given ones are their weighted means; the last one stays.

    A linear blend smears what moves fast, but it neither tears nor invents, and a frame lasts 1/50 s or less.
    """
    if divisor == 1:
        yield from images
        return
    first = next(images)
    last = first
    for image, following in pairwise(chain([first], images, repeat(None))):
        if image is None:
            return
        last = image if following is None else following
        for step in range(divisor):
            mean = image.astype(np.uint16) * (divisor - step) + last.astype(np.uint16) * step
            yield ((mean + divisor // 2) // divisor).astype(np.uint8)


class Paste:
    """Puts pictures into a rectangle of other pictures."""

    def __init__(self, place: Placement, width: int, height: int, color: ColorTags, enlarged: float = 1) -> None:
        """`width` and `height` are those of the frame; `color` its matrix and range; `enlarged`: times, of the clip."""
        self.place, self.color = place, color
        self.size = (height, width)
        # Chroma is shared by two by two pixels: the box begins and ends between them.
        self.box = (place.y - place.y % 2, place.y + place.height + (place.y + place.height) % 2,
                    place.x - place.x % 2, place.x + place.width + (place.x + place.width) % 2)
        self.mask = feather(place, width, height, enlarged)[self.box[0]:self.box[1], self.box[2]:self.box[3]]

    def __call__(self, frame: Any, clip: Any) -> Any:
        """`frame` (`av.VideoFrame`) with `clip` (`av.VideoFrame`, RGB, any size) in the rectangle, as 4:2:0."""
        place, (top, bottom, left, right) = self.place, self.box
        scaled = clip.reformat(width=place.width, height=place.height, interpolation=EXACT).to_ndarray()
        around = ((place.y - top, bottom - place.y - place.height), (place.x - left, right - place.x - place.width))
        patch = av.VideoFrame.from_ndarray(np.pad(scaled, (*around, (0, 0)), mode="edge"), format="rgb24")
        under, over = _planes(to_yuv(frame, self.color)), _planes(to_yuv(patch, self.color))
        for number, (below, above) in enumerate(zip(under, over, strict=True)):
            half = 1 if number == 0 else 2
            mask = self.mask if half == 1 else self.mask.reshape(len(self.mask) // 2, 2, -1, 2).mean((1, 3))
            part = below[top // half:bottom // half, left // half:right // half]
            part[:] = np.rint(part + (above.astype(np.float32) - part) * mask)
        flat = np.concatenate([plane.reshape(-1) for plane in under])
        return av.VideoFrame.from_ndarray(flat.reshape(self.size[0] * 3 // 2, self.size[1]), format="yuv420p")


def _planes(picture: Any) -> list[NDArray[np.uint8]]:
    """Y (H, W), U and V (H/2, W/2) of a 4:2:0 picture."""
    height, width = picture.height, picture.width
    flat = picture.to_ndarray().reshape(-1)
    luma, chroma = height * width, height * width // 4
    return [flat[:luma].reshape(height, width).copy(), flat[luma:luma + chroma].reshape(height // 2, width // 2).copy(),
            flat[luma + chroma:].reshape(height // 2, width // 2).copy()]


def feather(place: Placement, width: int, height: int, enlarged: float = 1) -> Mask:
    """How much of the clip is seen at each pixel of the frame, (height, width): 0 outside, 1 inside, ramps between."""
    short = min(place.width, place.height)
    reach = max(1, min(WIDEST_FEATHER, short // FEATHER))
    if enlarged >= MUCH:
        reach = max(reach, min(round(MUCH_FEATHER[0] * enlarged), short // MUCH_FEATHER[1]))

    def ramp(start: int, length: int, size: int) -> Mask:
        at = np.arange(size, dtype=np.float32) + 0.5
        into = (at - start) / reach if start > 0 else np.full(size, 1, np.float32)
        out = (start + length - at) / reach if start + length < size else np.full(size, 1, np.float32)
        return np.clip(np.minimum(into, out), 0, 1).astype(np.float32)

    return ramp(place.y, place.height, height)[:, None] * ramp(place.x, place.width, width)[None, :]
