"""The unfinished work of one shot: its finished chunks, the state to go on from, and a manifest that says what counts.

    chunk-0000.mkv …     one FFV1 file a chunk
    state-0002.bin       the newest chunk's state, and the one before it
    manifest.json        SHA-256 of both for every chunk; written last, so that it never names what is not there

Whatever does not match the manifest is made anew: a damaged newest chunk from the state before it, anything older from
the beginning of the shot.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from models.errors import InputError
from models.ports import Image
from models.recipe import canonical, sha256
from models.records import Record, Sha256
from tasks.media import FrameWriter, concat_ffv1
from tasks.store import MANIFEST, Store, hash_file, writing

KEPT_STATES = 2


class SavedChunk(Record):
    """A finished chunk."""

    frames: int = Field(gt=0)
    video: Sha256
    state: Sha256


class Manifest(Record):
    """The finished chunks of a shot, in order."""

    schema_version: Literal[1] = 1
    chunks: tuple[SavedChunk, ...] = ()


class Checkpoint:
    """A folder of finished chunks."""

    def __init__(self, store: Store, recipe: str, width: int, height: int, rate: Fraction) -> None:
        """Open what the store keeps of a shot and drop from it whatever is damaged.

        Args:
            store: Makes it durable, chunk by chunk.
            recipe: Of the shot.
            width: Of the generated frames.
            height: Of the generated frames.
            rate: Generated frames per second.
        """
        self.store, self.recipe, self.folder = store, recipe, store.checkpoint(recipe)
        self.width, self.height, self.rate = width, height, rate
        self.chunks = list(self._whole())

    @property
    def frames(self) -> int:
        """Frames that are finished."""
        return sum(chunk.frames for chunk in self.chunks)

    @property
    def state(self) -> bytes | None:
        """The state to go on from; None at the beginning."""
        return self._state(len(self.chunks) - 1).read_bytes() if self.chunks else None

    def add(self, images: Iterable[Image], state: bytes) -> None:
        """Keep one more chunk; it counts from the moment that the manifest is written.

        Raises:
            StorageFullError: No space is left.
            LostCheckpointError: Another process has gone on with this shot.
        """
        index, frames = len(self.chunks), 0
        with (writing(self._video(index)) as partial,
              FrameWriter(partial, self.width, self.height, self.rate) as writer):
            for image in images:
                writer.write(image)
                frames += 1
        with writing(self._state(index)) as partial:
            partial.write_bytes(state)
        self.chunks.append(SavedChunk(frames=frames, video=hash_file(self._video(index)), state=sha256(state)))
        with writing(self.folder / MANIFEST) as partial:
            partial.write_bytes(canonical(Manifest(chunks=tuple(self.chunks))))
        self._state(index - KEPT_STATES).unlink(missing_ok=True)
        self.store.keep(self.recipe, [self._video(index).name, self._state(index).name])

    def join(self, out: Path) -> None:
        """Join all chunks to one clip."""
        concat_ffv1([self._video(index) for index in range(len(self.chunks))], out)

    def _video(self, index: int) -> Path:
        return self.folder / f"chunk-{index:04d}.mkv"

    def _state(self, index: int) -> Path:
        return self.folder / f"state-{index:04d}.bin"

    def _whole(self) -> Iterator[SavedChunk]:
        try:
            chunks = Manifest.model_validate_json((self.folder / MANIFEST).read_bytes()).chunks
        except (OSError, ValidationError):
            return
        whole = next((i for i, chunk in enumerate(chunks) if not _is(self._video(i), chunk.video)), len(chunks))
        while whole and not _is(self._state(whole - 1), chunks[whole - 1].state):
            whole -= 1
        yield from chunks[:whole]


def _is(path: Path, digest: str) -> bool:
    try:
        return hash_file(path) == digest
    except InputError:
        return False
