"""A generator that hands back the source's own pictures: the null back end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from models.engines.options import Adapter
from models.ports import Chunk, ChunkGeometry, ShotInput
from models.records import Placement, ShotRequest


class Passthrough(Adapter):
    """The source's pictures, full frame. A plan for it generates nothing; it is run where a generator must be."""

    geometry = ChunkGeometry(frames=16, context=0)

    def placement(self, request: ShotRequest) -> tuple[int, int, Placement]:
        """The whole source frame at its own size."""
        return request.width, request.height, Placement(x=0, y=0, width=request.width, height=request.height)

    def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
        """The source frames, in chunks; there is no state to carry."""
        size, frames = self.geometry.frames, shot.request.generated_frames
        for index in range(start_chunk, self.geometry.chunks(frames)):
            pictures = [shot.frame(i) for i in range(index * size, min((index + 1) * size, frames))]
            yield Chunk(index=index, frames=np.stack(pictures), state=b"")
