"""Watermark: the dubbed sound → the same with a number hidden in it, by which a copy without credentials is traced.

The number is the beginning of this step's own recipe: `infinidub trace` finds the result, and with it everything behind
the copy. The stems stay as they are.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import soundfile

from models.ports import Watermarker
from models.records import EngineRef, Mix, Request
from tasks.media import FlacWriter, loudness
from tasks.step import Work, step

BLOCK = 1 << 18
"""Samples at once: 5.5 s."""
DIGITS = 8
"""Hexadecimal digits of a recipe in a mark: 32 bits."""


class WatermarkRequest(Request):
    """A dubbed sound, and who marks it."""

    mix: Mix
    watermarker: EngineRef


@step("watermark", version=1, result=Mix)
def watermark(work: Work, request: WatermarkRequest) -> Mix:
    """Hide the number and measure the loudness anew."""
    engine: Watermarker = work.engines.get("watermarker", request.watermarker)
    given, payload = work.store.path(request.mix.mix), int(watermark.recipe(request)[:DIGITS], 16)
    work.progress("watermark", 0.0)
    with tempfile.TemporaryDirectory(dir=work.scratch) as folder:
        path = Path(folder) / "mix.flac"
        blocks = soundfile.blocks(given, BLOCK, dtype="float32", always_2d=True)
        with FlacWriter(path, soundfile.info(given).channels) as file:
            for block in engine.embed(blocks, payload):
                file.write(block)
        measured = loudness(path)
        changed = {"integrated_lufs": measured.integrated_lufs, "true_peak_dbtp": measured.true_peak_dbtp}
        return request.mix.model_copy(update={"mix": work.store.put_file(path, request.mix.mix.media_type),
                                              "loudness": request.mix.loudness.model_copy(update=changed)})
