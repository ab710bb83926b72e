"""Clips → a contact sheet: one row a clip, some of its frames, on request with the boxes of the mouths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from infinitetalk.world.clip_file import Recording
from infinitetalk.world.scene import Pixels

COLUMNS = 8
BOX = (0, 255, 0)


def contact_sheet(clips: Sequence[Recording], path: Path, columns: int = COLUMNS, boxes: bool = False) -> None:
    """Write a PNG.

    Raises:
        OSError: It cannot be written.
    """
    rows = []
    for clip in clips:
        picked = np.linspace(0, len(clip.frames) - 1, columns).round().astype(int)
        rows.append(np.concatenate([_frame(clip, int(index), boxes) for index in picked], axis=1))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    Image.fromarray(np.concatenate(padded, axis=0)).save(path)


def _frame(clip: Recording, index: int, boxes: bool) -> Pixels:
    image = Image.fromarray(clip.frames[index])
    if boxes:
        pen = ImageDraw.Draw(image)
        for truth in clip.truth:
            left, top, right, bottom = (float(value) for value in truth.mouth[index])
            pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=BOX)
    return np.asarray(image)
