"""The tests' generator with a rest after each chunk, so that there is time to disturb it; its pictures are the same.

Each chunk that it makes is a line in the file that TEST_JOURNAL names, whatever becomes of the chunk: `SHOT INDEX PID`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from models.ports import Chunk, ShotInput
from tests.pulse import Pulse


class SlowPulse(Pulse):
    def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
        for chunk in super().generate(shot, state, start_chunk):
            if journal := os.environ.get("TEST_JOURNAL"):
                with open(journal, "a") as file:
                    file.write(f"{shot.request.shot} {chunk.index} {os.getpid()}\n")
            yield chunk
            time.sleep(float(os.environ.get("TEST_CHUNK_S", "0")))
