"""Where a film's chunks are until it is complete: in a folder that outlasts a killed run, or one that does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from infinitetalk.errors import BadInputError
from infinitetalk.state import ChunkState
from infinitetalk.writing import check_writable

CHUNK = "{:05d}.mp4"
STATE, IDENTITY = "state.safetensors", "job.sha256"


@dataclass(frozen=True)
class Kept:
    """Chunks that were made, and where to go on."""

    folder: Path
    identity: str
    """Of the film that they are of."""
    state: ChunkState | None
    """After the last of them; None: there are none."""

    def chunk(self, index: int) -> Path:
        """The file of a chunk."""
        return self.folder / CHUNK.format(index)

    def note(self) -> None:
        """Write down whose the folder is."""
        _replace(self.folder / IDENTITY, self.identity.encode())

    def save(self, state: ChunkState) -> None:
        """Write down where to go on."""
        _replace(self.folder / STATE, state.save())

    def clear(self, chunks: int) -> None:
        """Remove all that was kept."""
        files = (*map(self.chunk, range(chunks)), self.folder / STATE, self.folder / IDENTITY)
        for path in (*files, *self.folder.glob("*.partial")):
            path.unlink(missing_ok=True)


@contextmanager
def keeping(folder: Path | None, identity: str) -> Iterator[Kept]:
    """Open the folder of a film; it is gone afterwards if nothing is in it.

    Args:
        folder: None: a new one, gone afterwards in any case.
        identity: `job.Ready.identity` of the film.

    Raises:
        BadInputError: It cannot be written, or holds something else, or not all that it should.
    """
    if folder is None:
        with TemporaryDirectory(prefix="infinitetalk-") as name:
            yield Kept(Path(name), identity, None)
        return
    try:
        check_writable(folder / IDENTITY)
        try:
            full = any(path.suffix != ".partial" for path in folder.iterdir())
            noted = (folder / IDENTITY).read_bytes() if (folder / IDENTITY).is_file() else b""
        except OSError as error:
            raise BadInputError(f"cannot be used ({error.strerror})", where=str(folder),
                                hint="Name another folder") from error
        if full and noted != identity.encode():
            raise BadInputError("holds something else, or the same job with other settings or weights",
                                where=str(folder), hint="Name another folder, or remove it to begin anew")
        yield Kept(folder, identity, _read_state(folder))
    finally:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _read_state(folder: Path) -> ChunkState | None:
    """The newest state, if all chunks before it are there."""
    if not (folder / STATE).is_file():
        return None
    state = ChunkState.load((folder / STATE).read_bytes())
    missing = [index for index in range(state.index) if not (folder / CHUNK.format(index)).is_file()]
    if missing:
        raise BadInputError(f"chunk {missing[0]} is gone", where=str(folder), hint="Remove the folder to begin anew")
    return state


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_bytes(data)
    partial.replace(path)
