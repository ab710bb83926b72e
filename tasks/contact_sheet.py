"""Contact sheet: source and dubbed picture → one image, to see at a glance what was done to each shot.

A strip a shot, source above dub, with timecodes. What was generated is shown at several moments of speech and close up,
so that lips can be compared; what was passed on, once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.errors import InfinidubError
from models.ports import Image
from models.records import (
    Artifact,
    Assembled,
    FaceTrack,
    Frame,
    Placement,
    Plan,
    PlannedShot,
    Record,
    Request,
    Source,
    Speech,
)
from models.timebase import Rate, frame_to_ticks, ticks_to_frame, timecode
from tasks.media import FrameReader
from tasks.step import Work, find, perform, step

WIDTH = 240
"""Of each picture, in pixels."""
MOMENTS = 4
"""Of a generated shot."""
CLOSE = 2.1
"""Sides of a close-up against what the face covers during the shot: what is generated, and a little around it."""
CAPTION, GAP = 20, 4
MOST_ROWS = 40
BACKGROUND, INK = 24, (220, 220, 220)


class SheetRow(Record):
    """A shot as the sheet shows it."""

    frames: tuple[Frame, ...]
    caption: str
    close: Placement | None = None
    """The part of the frame that is shown; None: all of it."""


class SheetRequest(Request):
    """What is shown."""

    source: Artifact
    dubbed: Artifact
    rate: Rate
    rows: tuple[SheetRow, ...]


class ContactSheet(Record):
    """The finished image."""

    image: Artifact


def contact_sheet(work: Work, source: Source, plan: Plan, speech: Speech, assembled: Assembled) -> Artifact:
    """The sheet of a finished language, as PNG; made once."""
    rows = tuple(_row(shot, plan, speech) for shot in _chosen(plan.shots))
    request = SheetRequest(source=source.video, dubbed=assembled.video, rate=plan.rate, rows=rows)
    return (find(work, draw_sheet, request) or perform(work, draw_sheet, request)).image


def _chosen(shots: Sequence[PlannedShot]) -> list[PlannedShot]:
    """All shots; of very many, some evenly spread."""
    if len(shots) <= MOST_ROWS:
        return list(shots)
    return [shots[i] for i in np.linspace(0, len(shots) - 1, MOST_ROWS).round().astype(int)]


def _row(shot: PlannedShot, plan: Plan, speech: Speech) -> SheetRow:
    close = _close_up(shot.request.faces, shot.request.width, shot.request.height) if shot.request else None
    caption = f"{shot.shot}  {shot.kind}: {shot.reason}"
    return SheetRow(frames=_moments(shot, plan, speech), caption=caption, close=close)


def _moments(shot: PlannedShot, plan: Plan, speech: Speech) -> tuple[int, ...]:
    """Frames of a shot, evenly spaced over the time in which somebody speaks; its middle where nobody does."""
    start, end = frame_to_ticks(shot.start, plan.rate), frame_to_ticks(shot.end, plan.rate)
    spans = [(max(start, line.start), min(end, line.start + line.length)) for line in speech.lines]
    spans = sorted(span for span in spans if span[1] > span[0]) or [(start, end)]
    edges = np.cumsum([0, *(high - low for low, high in spans)])
    found, most = [], MOMENTS if shot.kind == "generate" else 1
    for number in range(most):
        at = edges[-1] * (2 * number + 1) // (2 * most)
        span = int(np.searchsorted(edges, at, side="right")) - 1
        found.append(min(ticks_to_frame(int(spans[span][0] + at - edges[span]), plan.rate), shot.end - 1))
    return tuple(dict.fromkeys(found))


def _close_up(faces: Sequence[FaceTrack], width: int, height: int) -> Placement | None:
    """Around the largest face, wherever it moves; None where there is none."""
    boxes = max((face.boxes for face in faces), key=lambda boxes: max((box[3] for box in boxes), default=0), default=())
    if not boxes:
        return None
    left, top = min(box[1] for box in boxes), min(box[2] for box in boxes)
    right, bottom = max(box[1] + box[3] for box in boxes), max(box[2] + box[4] for box in boxes)
    side = min(round(max(right - left, bottom - top) * CLOSE), width, height)
    x, y = (min(max((low + high - side) // 2, 0), size - side)
            for low, high, size in ((left, right, width), (top, bottom, height)))
    return Placement(x=x, y=y, width=side, height=side)


@step("publish.sheet", version=2, result=ContactSheet)
def draw_sheet(work: Work, request: SheetRequest) -> ContactSheet:
    """Draw the sheet: per shot, moments from left to right, the source above the dub."""
    import cv2

    strips = []
    with (FrameReader(work.store.path(request.source)) as source,
          FrameReader(work.store.path(request.dubbed)) as dubbed):
        for number, row in enumerate(request.rows):
            work.progress("publish: contact sheet", number / len(request.rows))
            moments = [(timecode(frame_to_ticks(frame, request.rate)), _cut(source.frame(frame), row.close),
                        _cut(dubbed.frame(frame), row.close)) for frame in row.frames]
            strips.append(_strip(moments, row.caption))
    sheet = np.concatenate(strips) if strips else np.full((CAPTION, WIDTH, 3), BACKGROUND, np.uint8)
    written, png = cv2.imencode(".png", sheet[:, :, ::-1])
    if not written:
        raise InfinidubError("the contact sheet cannot be encoded as PNG")
    return ContactSheet(image=work.store.put_bytes(png.tobytes(), "image/png"))


def _cut(picture: Image, close: Placement | None) -> Image:
    """The part that is shown, WIDTH pixels wide."""
    import cv2

    part = picture if close is None else picture[close.y:close.y + close.height, close.x:close.x + close.width]
    height = max(2, round(WIDTH * part.shape[0] / part.shape[1]))
    return np.asarray(cv2.resize(part, (WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)


def _strip(moments: Sequence[tuple[str, Image, Image]], caption: str) -> Image:
    """(timecode, source, dub) of a shot under its caption: (2 CAPTION + 2 height + 2 GAP, MOMENTS columns, 3)."""
    height = len(moments[0][1])
    strip = np.full((2 * CAPTION + 2 * (height + GAP), MOMENTS * (WIDTH + GAP) + GAP, 3), BACKGROUND, np.uint8)
    _write(strip, caption, GAP, CAPTION - 6)
    for number, (at, source, dub) in enumerate(moments):
        x = GAP + number * (WIDTH + GAP)
        _write(strip, at, x, 2 * CAPTION - 6)
        for place, picture in enumerate((source, dub)):
            y = 2 * CAPTION + place * (height + GAP)
            strip[y:y + height, x:x + WIDTH] = picture
    return strip


def _write(strip: Image, text: str, x: int, y: int) -> None:
    import cv2

    plain = text.encode("ascii", "replace").decode()  # cv2's letters are ASCII
    cv2.putText(strip, plain, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.38, INK, 1, cv2.LINE_AA)
