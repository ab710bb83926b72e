"""A generator for tests: small, deterministic, and with a memory, so that a wrong resume shows in its pictures.

Each picture is the source's, tinted by what is heard at its instant, under noise that depends on the seed and on every
picture made before it in the shot. It stands in for a real generator wherever only its manners matter.

Processes of their own are told by their environment what to do: PULSE_WAITS_AT=N blocks before chunk N is handed over,
PULSE_FAILS=SHOT makes nonsense of a shot with every seed, PULSE_FULL=1 finds no memory.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator

import cv2
import numpy as np

from models.engines.options import Adapter
from models.errors import CapacityError, EngineError
from models.ports import Chunk, ChunkGeometry, EngineHome, Image, ShotInput
from models.records import EngineRef, Placement, ShotRequest
from models.timebase import generation_divisor

REF = EngineRef(name="pulse")


class Pulse(Adapter):
    """Chunks of 9 frames of which 1 repeats; half the source's size; the whole frame, or the first face with margin."""

    geometry = ChunkGeometry(frames=9, context=1)

    def __init__(self, ref: EngineRef = REF, home: EngineHome | None = None) -> None:
        self.chunks_made = 0

    def check_memory(self) -> None:
        if os.environ.get("PULSE_FULL"):
            raise CapacityError("something else runs on this GPU")

    def placement(self, request: ShotRequest) -> tuple[int, int, Placement]:
        left, top, right, bottom = 0, 0, request.width, request.height
        if request.region == "person" and request.faces:
            _, x, y, width, height = request.faces[0].boxes[0]
            left, top = max(0, x - width // 2), max(0, y - height // 2)
            right, bottom = min(right, x + width + width // 2), min(bottom, y + height + height // 2)
        place = Placement(x=left, y=top, width=right - left, height=bottom - top)
        return max(2, place.width // 2), max(2, place.height // 2), place

    def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
        memory = state or hashlib.sha256(str(shot.request.seed).encode()).digest()
        step = self.geometry.frames - self.geometry.context
        for index in range(start_chunk, self.geometry.chunks(shot.request.generated_frames)):
            first = 0 if index == 0 else self.geometry.frames + (index - 1) * step
            frames = []
            for i in range(first, first + (self.geometry.frames if index == 0 else step)):
                frames.append(self._picture(shot, i, memory))
                memory = hashlib.sha256(memory + frames[-1].tobytes()).digest()
            if os.environ.get("PULSE_WAITS_AT") == str(index):
                time.sleep(600)
            if os.environ.get("PULSE_FAILS") == shot.request.shot:
                raise EngineError("the weights hold NaN")
            self.chunks_made += 1
            yield Chunk(index=index, frames=np.stack(frames), state=memory)

    def _picture(self, shot: ShotInput, i: int, memory: bytes) -> Image:
        width, height, place = self.placement(shot.request)
        source = shot.frame(i)[place.y:place.y + place.height, place.x:place.x + place.width]
        picture = cv2.resize(source, (width, height), interpolation=cv2.INTER_AREA).astype(np.int16)
        picture[..., 0] += round(400 * loudness(shot, i))
        noise = np.random.default_rng(int.from_bytes(memory[:8], "big")).integers(-6, 7, picture.shape, np.int16)
        return np.clip(picture + noise, 0, 255).astype(np.uint8)


def loudness(shot: ShotInput, i: int) -> float:
    """RMS of all that is heard during generated frame `i`."""
    rate = shot.request.rate / generation_divisor(shot.request.rate)
    start, end = round(i / rate * 16_000), round((i + 1) / rate * 16_000)
    heard = [track[start:end] for track in shot.tracks.values() if len(track[start:end])]
    return float(np.sqrt(np.mean(np.square(np.sum(heard, axis=0))))) if heard else 0.0
