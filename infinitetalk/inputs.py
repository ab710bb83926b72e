"""What a user gives is looked at here, before anything is computed: sound, pictures, boxes, prompts.

Whatever cannot be dubbed is refused with a `BadInputError` that says what to do. Silence is no fault: a closed mouth.
"""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infinitetalk.errors import BadInputError
from infinitetalk.io import MOST_PIXELS
from infinitetalk.persons import Box

RATES = range(8_000, 384_001)
"""Samples per second that sound may be recorded at: of the telephone, to that of the finest interfaces."""
FULL_SCALE = 0.99
"""Eight bits end there."""
FLAT = 3
"""Samples in a row at full scale that are no peak any more, but a cut-off one."""
SILENT = 1e-4
"""Loudest sample (of 1) below which nobody is heard: three steps of 16 bits, which is no more than dither."""
MOST_CLIPPED = 0.05
"""Share of samples that may be cut off. Speech reaches it when it is recorded 11 to 16 dB too loud (pauses included,
peaks 18 to 23 dB above the mean); loud modern music lies below a tenth of it."""

IMAGES = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
LEAST_SIDE = 16
"""Pixels; one token of the transformer."""
LONGEST = 8
"""Times that a picture may be as long as it is wide, or the other way."""
BROKEN = (OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError,
          NotImplementedError, struct.error, zlib.error)
"""What Pillow raises over files that are cut off or tampered with."""

MOST_CHARACTERS = 8_192
"""Of a prompt: more cannot fit into 512 tokens, of which none is longer than 16 characters."""
MOST_DIGITS = 7
MOST_SPEAKERS = 2
"""Label positions of L-RoPE tell two people apart (MultiTalk, arXiv 2505.22647, section 3.3)."""


# -- sound ------------------------------------------------------------------------------------------------------------


class SoundCheck:
    """Looks at a sound track block by block, as it was recorded; `verdict` at its end says whether it can be used."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.seconds = Fraction(0)
        """Seen so far."""
        self.peak = 0.0
        """The loudest sample so far."""
        self._samples = self._clipped = 0

    def look(self, block: NDArray[np.float32], rate: int) -> None:
        """See one block, (C, n).

        Raises:
            BadInputError: Its rate is absurd, or a value is no number.
        """
        if rate not in RATES:
            raise BadInputError(f"has {rate} samples a second", where=self.where,
                                hint=f"Convert it to a rate between {RATES[0]} and {RATES[-1]}, e.g. 48000")
        if not np.isfinite(block).all():
            raise BadInputError("holds values that are no numbers (NaN or infinite)", where=self.where,
                                hint="Export it again, e.g. as 16-bit WAV")
        self.seconds += Fraction(block.shape[1], rate)
        self.peak = max(self.peak, float(np.abs(block).max(initial=0)))
        self._samples += block.size
        self._clipped += sum(_runs_cut_off(channel) for channel in block)

    def verdict(self) -> None:
        """Refuse what has no samples, or too many that are cut off.

        Raises:
            BadInputError: So it is.
        """
        if not self._samples:
            raise BadInputError("holds no sound", where=self.where, hint="Give at least one frame's length of it")
        share = self._clipped / self._samples
        if share > MOST_CLIPPED:
            raise BadInputError(f"is clipped: {share:.0%} of its samples are cut off at full scale", where=self.where,
                                hint="Record or export it at a lower level")


def _runs_cut_off(channel: NDArray[np.float32]) -> int:
    """Samples of (n,) that lie in runs of at least `FLAT` at full scale."""
    loud = np.concatenate(([False], np.abs(channel) >= FULL_SCALE, [False]))
    begins, ends = np.flatnonzero(loud[1:] & ~loud[:-1]), np.flatnonzero(loud[:-1] & ~loud[1:])
    runs = ends - begins
    return int(runs[runs >= FLAT].sum())


def cut_off(path: Path) -> float:
    """Share of a WAV's sound that its header promises and the file lacks; 0 for all other files.

    FFmpeg reads such a file to where it ends, without a word. Sizes of 0 and 2³²-1 are of recorders that never came to
    tell.
    """
    with path.open("rb") as file:
        kind, _, form = file.read(4), file.read(4), file.read(4)
        if (kind, form) != (b"RIFF", b"WAVE"):
            return 0.0
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                there = path.stat().st_size - file.tell()
                return max(0.0, 1 - there / size) if 0 < size < 2**32 - 1 else 0.0
            file.seek(size + size % 2, 1)
    return 0.0


def frames_in(seconds: Fraction, rate: Fraction, where: str) -> int:
    """Whole frames that sound of `seconds` lasts.

    Raises:
        BadInputError: It is shorter than one.
    """
    frames = int(seconds * rate)
    if frames < 1:
        raise BadInputError(f"lasts {float(seconds) * 1000:.0f} ms, less than one frame", where=where,
                            hint=f"Give at least {float(1000 / rate):.0f} ms, or pad it with silence")
    return frames


def check_speakers(count: int) -> None:
    """Refuse more tracks than the network tells apart, and none.

    Raises:
        BadInputError: So it is.
    """
    if not 1 <= count <= MOST_SPEAKERS:
        hint = ("Mix the tracks of those who never speak at once into one, or dub the video in parts with at most two "
                "speakers each") if count else "Give one track a speaker"
        raise BadInputError(f"{count} tracks for at most {MOST_SPEAKERS} speakers", where="audio", hint=hint)


# -- pictures ---------------------------------------------------------------------------------------------------------


def read_image(path: Path) -> NDArray[np.uint8]:
    """A still picture as RGB, upright: (H, W, 3).

    An orientation noted in EXIF is applied. Alpha is dropped where it is opaque everywhere, and refused where it is
    not: what lies behind is not ours to choose. CMYK is refused, since its colours depend on a profile of print.

    Raises:
        BadInputError: It is no such picture, is cut off, animated, too small, too large, or too narrow.
    """
    from PIL import Image, ImageOps

    where = str(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about sizes that are checked here
        try:
            with Image.open(path, formats=IMAGES) as image:
                check_size(*image.size, where)
                _check_kind(image, where)
                upright = ImageOps.exif_transpose(image)
                return np.array(_opaque(upright, where).convert("RGB"))
        except Image.DecompressionBombError:
            raise _too_large(where) from None
        except BROKEN as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "cut off, or no such picture"
            raise BadInputError(f"cannot be read ({reason.lower()})", where=where,
                                hint="Give a PNG, JPEG, WebP, BMP or TIFF that opens elsewhere") from error


def check_size(width: int, height: int, where: str) -> None:
    """Refuse a picture in which nothing can be seen, or that would fill the memory.

    Raises:
        BadInputError: So it is.
    """
    if min(width, height) < LEAST_SIDE:
        raise BadInputError(f"is {width}×{height} pixels large", where=where,
                            hint=f"Give a picture of at least {LEAST_SIDE} pixels each way; 480 are good")
    if width * height > MOST_PIXELS:
        raise _too_large(where)
    if max(width, height) > LONGEST * min(width, height):
        raise BadInputError(f"is {width}×{height} pixels large: a strip", where=where,
                            hint=f"Cut it to at most {LONGEST} times as long as wide")


def _too_large(where: str) -> BadInputError:
    return BadInputError(f"has more than {MOST_PIXELS // 10**6} million pixels", where=where,
                         hint="Scale it down to 4K at most")


def _check_kind(image: Any, where: str) -> None:
    """Refuse what is no single RGB or grey picture; the second picture of a phone's MPO is but a preview."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise BadInputError(f"holds {image.n_frames} pictures", where=where,
                            hint="Save the one you mean as PNG, or make a video of them")
    if image.mode == "CMYK":
        raise BadInputError("is CMYK, made for print", where=where, hint="Export it as RGB (sRGB)")
    if image.mode not in {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr"}:
        raise BadInputError(f"has pixels of an unusual kind ({image.mode})", where=where,
                            hint="Export it as RGB with 8 bits a channel")


def _opaque(image: Any, where: str) -> Any:
    """The picture, if it has no pixel that is seen through."""
    if not image.has_transparency_data:
        return image
    rgba = image.convert("RGBA")
    if rgba.getchannel("A").getextrema()[0] < 255:
        raise BadInputError("is transparent in places", where=where, hint="Lay it over a background and save it as RGB")
    return rgba


# -- boxes and masks --------------------------------------------------------------------------------------------------


def parse_box(text: str) -> Box:
    """'x,y,width,height' in pixels of the source picture.

    Raises:
        BadInputError: It is not four whole numbers, or is empty.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 4 or not all(re.fullmatch(f"[0-9]{{1,{MOST_DIGITS}}}", part, re.ASCII) for part in parts):
        raise BadInputError(f"{text[:60]!r} is no box", where="box",
                            hint="Write x,y,width,height in pixels of the source, e.g. 40,60,320,400")
    x, y, width, height = map(int, parts)
    return _not_empty((x, y, width, height), "box")


def published_box(value: object, where: str) -> Box:
    """A box as the published input has it, [row_min, col_min, row_max, col_max].

    Raises:
        BadInputError: It is not four whole numbers, or is empty.
    """
    edges = value if isinstance(value, list) else []
    whole = all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 10**MOST_DIGITS for one in edges)
    if len(edges) != 4 or not whole:
        raise BadInputError(f"{str(value)[:60]} is no box", where=where,
                            hint="Write [row_min, col_min, row_max, col_max] in whole pixels of the source")
    top, left, bottom, right = edges
    return _not_empty((left, top, right - left, bottom - top), where)


def _not_empty(box: Box, where: str) -> Box:
    if box[2] < 1 or box[3] < 1:
        raise BadInputError(f"a box of {box[2]}×{box[3]} pixels", where=where, hint="Give it at least one pixel")
    return box


def check_apart(boxes: Sequence[Box], where: str) -> None:
    """Refuse a box that is given twice: nobody could be told from the other.

    Raises:
        BadInputError: So it is.
    """
    twice = next((box for index, box in enumerate(boxes) if box in boxes[:index]), None)
    if twice:
        raise BadInputError(f"the box {','.join(map(str, twice))} is given twice", where=where,
                            hint="Give each person a box of their own")


def check_box(box: Box, width: int, height: int, where: str) -> None:
    """Refuse a box that is not wholly in the picture.

    Raises:
        BadInputError: So it is.
    """
    x, y, wide, high = box
    if x < 0 or y < 0 or x + wide > width or y + high > height:
        raise BadInputError(f"the box {x},{y},{wide},{high} leaves the picture of {width}×{height} pixels", where=where,
                            hint="Boxes count in pixels of the upright source picture")


# -- words ------------------------------------------------------------------------------------------------------------


def check_prompt(text: str, where: str) -> None:
    """Refuse a prompt that is certainly longer than the text encoder reads, without loading it.

    Raises:
        BadInputError: It is.
    """
    if len(text) > MOST_CHARACTERS:
        raise BadInputError(f"has {len(text)} characters", where=where,
                            hint=f"At most 512 tokens are read, never more than {MOST_CHARACTERS} characters")
