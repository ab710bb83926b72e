"""Which stream of a file is its picture, and how fast it runs: one answer for everything that reads pictures (PyAV)."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

from models.errors import MediaError

STANDARD_RATES = tuple(map(Fraction, ("24000/1001", "24", "25", "30000/1001", "30", "48", "50", "60000/1001", "60")))


def place(path: Path) -> str:
    """A file's name for people; a stored artifact is named by the first digits of its hash."""
    return f"{path.name[:12]}…" if re.fullmatch("[0-9a-f]{64}", path.name) else path.name


def picture_stream(container: Any, path: Path) -> Any:
    """The stream that is the picture: the default one, never a cover image.

    Raises:
        MediaError: There is none.
    """
    import av

    covers = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & covers]
    if not streams:
        raise MediaError("has no video stream", where=place(path), hint="Give a file with a moving picture")
    streams = [s for s in streams if s.codec_context]
    if not streams:
        raise MediaError("has a picture of an unknown codec", where=place(path), hint="Convert it to H.264")
    return next((s for s in streams if s.disposition & av.stream.Disposition.default), streams[0])


def picture_rate(stream: Any) -> Fraction:
    """Frames per second of a constant-rate stream; 0 when unknown.

    A last frame that is shown longer bends the average of a file; the base rate does not mind, but is no rate at all
    (a multiple, the clock) where time stamps are irregular. Containers that round times bend both a little.
    """
    average, base = Fraction(stream.average_rate or 0), Fraction(stream.base_rate or 0)
    rate = base if abs(base - average) * 20 < average else average
    nearest = min(STANDARD_RATES, key=lambda standard: abs(standard - rate))
    return nearest if abs(nearest - rate) * 5000 < rate else rate
