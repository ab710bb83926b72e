"""Separate: a source without its music-and-effects stem → that stem, by a separator: all of the sound but its voices.

It is the same for all languages, and kept as an item of its own. What the separator takes for voices is subtracted at
the source's own rate: where nobody speaks the bed is the source, sample for sample.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from math import gcd
from pathlib import Path

import numpy as np
import soundfile

from models.errors import EngineError
from models.ports import Separator
from models.records import Artifact, EngineRef, Record, Request
from models.timebase import CLOCK
from tasks.levels import Sound, layout_of, regular, to_layout, windows
from tasks.media import FlacWriter
from tasks.step import Work, step

PIECE = 60 * CLOCK
"""Samples that a separator gets at once; memory does not grow with the length."""
AROUND = CLOCK
"""What it sees before and after them; over the first of it two pieces are cross-faded."""
PAIRS = {2: ((0, 1),), 6: ((0, 1), (2, 2), (4, 5)), 8: ((0, 1), (2, 2), (4, 5), (6, 7))}
"""Channels that a separator, which knows stereo alone, hears together; the effects channel has no voices."""


class SeparateRequest(Request):
    """The sound of a source."""

    audio: Artifact
    separator: EngineRef


class Separated(Record):
    """What is left of it without voices."""

    bed: Artifact
    """48 kHz FLAC in the layout of the dubbed sound, as long as the source."""


@step("mix.separate", version=1, result=Separated, unit="stem")
def separate(work: Work, request: SeparateRequest) -> Separated:
    """Take the voices out of a source.

    Raises:
        EngineError: The separator answers with something else than such a sound.
    """
    engine: Separator = work.engines.get("separator", request.separator)
    path = work.store.path(request.audio)
    with soundfile.SoundFile(path) as file:
        channels, length = layout_of(file.channels), len(file)
    pieces = max(1, -(-length // PIECE))
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        with FlacWriter(Path(folder) / "bed.flac", channels) as writer:
            for number, bed in enumerate(_bed(engine, path, channels, length)):
                writer.write(bed)
                work.progress(f"separate: {number + 1} of {pieces} min", (number + 1) / pieces)
        return Separated(bed=work.store.put_file(writer.path, "audio/flac"))


def _bed(engine: Separator, path: Path, channels: int, length: int) -> Iterator[Sound]:
    blocks = (to_layout(b, channels) for b in soundfile.blocks(path, CLOCK, dtype="float32", always_2d=True))
    before: Sound | None = None
    for window in windows(regular(blocks, PIECE, length), AROUND):
        voices = _voices(engine, window)
        here = voices[AROUND:-AROUND]
        if before is not None:
            share = np.linspace(0, 1, AROUND, dtype=np.float32)[:len(here), None]
            here[:AROUND] = before[:len(here)] * (1 - share) + here[:AROUND] * share
        before = voices[-AROUND:].copy()
        yield window[AROUND:-AROUND] - here


def _voices(engine: Separator, sound: Sound) -> Sound:
    """Of a sound (n, 2 | 6 | 8) → the same shape."""
    from scipy.signal import resample_poly

    voices = np.zeros_like(sound)
    common = gcd(engine.sample_rate, CLOCK)
    up, down = engine.sample_rate // common, CLOCK // common
    for pair in PAIRS[sound.shape[1]]:
        given = np.asarray(resample_poly(sound[:, pair], up, down, axis=0), np.float32)
        found = engine.voices(given)
        if found.shape != given.shape or not np.isfinite(found).all():
            raise EngineError(f"answered {found.shape} for {given.shape}, or no sound", where="separator")
        back = np.asarray(resample_poly(found, down, up, axis=0), np.float32)[:len(sound)]
        for side in {*pair}:
            voices[:len(back), side] = back[:, [i for i, one in enumerate(pair) if one == side]].mean(axis=1)
    return voices
