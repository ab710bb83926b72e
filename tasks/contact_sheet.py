"""Contact sheet: source and dubbed picture → one image, a row a shot, to see at a glance what was done to each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.errors import InfinidubError
from models.ports import Image
from models.records import Artifact, Assembled, Frame, Plan, PlannedShot, Record, Request, Source
from models.timebase import frame_to_ticks, timecode
from tasks.media import FrameReader
from tasks.step import Work, find, perform, step

WIDTH = 240
"""Of each picture, in pixels."""
CAPTION, GAP = 20, 4
MOST_ROWS = 60
BACKGROUND, INK = 24, (220, 220, 220)


class SheetRow(Record):
    """A shot as the sheet shows it."""

    frame: Frame
    caption: str


class SheetRequest(Request):
    """What is shown."""

    source: Artifact
    dubbed: Artifact
    rows: tuple[SheetRow, ...]


class ContactSheet(Record):
    """The finished image."""

    image: Artifact


def contact_sheet(work: Work, source: Source, plan: Plan, assembled: Assembled) -> Artifact:
    """The sheet of a finished language, as PNG; made once."""
    rows = tuple(SheetRow(frame=(shot.start + shot.end) // 2, caption=_caption(shot, plan))
                 for shot in _chosen(plan.shots))
    request = SheetRequest(source=source.video, dubbed=assembled.video, rows=rows)
    return (find(work, draw_sheet, request) or perform(work, draw_sheet, request)).image


def _chosen(shots: Sequence[PlannedShot]) -> list[PlannedShot]:
    """All shots; of very many, some evenly spread."""
    if len(shots) <= MOST_ROWS:
        return list(shots)
    return [shots[i] for i in np.linspace(0, len(shots) - 1, MOST_ROWS).round().astype(int)]


def _caption(shot: PlannedShot, plan: Plan) -> str:
    return f"{shot.shot}  {timecode(frame_to_ticks(shot.start, plan.rate))}  {shot.kind}: {shot.reason}"


@step("publish.sheet", version=1, result=ContactSheet)
def draw_sheet(work: Work, request: SheetRequest) -> ContactSheet:
    """Draw the sheet: per row the source on the left, the dub on the right."""
    import cv2

    strips = []
    with (FrameReader(work.store.path(request.source)) as source,
          FrameReader(work.store.path(request.dubbed)) as dubbed):
        for number, row in enumerate(request.rows):
            work.progress("publish: contact sheet", number / len(request.rows))
            strips.append(_strip(source.frame(row.frame), dubbed.frame(row.frame), row.caption))
    sheet = np.concatenate(strips) if strips else np.full((CAPTION, WIDTH, 3), BACKGROUND, np.uint8)
    written, png = cv2.imencode(".png", sheet[:, :, ::-1])
    if not written:
        raise InfinidubError("the contact sheet cannot be encoded as PNG")
    return ContactSheet(image=work.store.put_bytes(png.tobytes(), "image/png"))


def _strip(left: Image, right: Image, caption: str) -> Image:
    """Two pictures side by side under their caption: (height, 2 * WIDTH + 3 * GAP, 3)."""
    import cv2

    height = max(2, round(WIDTH * left.shape[0] / left.shape[1]))
    strip = np.full((CAPTION + height + GAP, 2 * WIDTH + 3 * GAP, 3), BACKGROUND, np.uint8)
    for place, picture in enumerate((left, right)):
        x = GAP + place * (WIDTH + GAP)
        strip[CAPTION:CAPTION + height, x:x + WIDTH] = cv2.resize(picture, (WIDTH, height),
                                                                  interpolation=cv2.INTER_AREA)
    plain = caption.encode("ascii", "replace").decode()  # cv2's letters are ASCII
    cv2.putText(strip, plain, (GAP, CAPTION - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.38, INK, 1, cv2.LINE_AA)
    return strip
