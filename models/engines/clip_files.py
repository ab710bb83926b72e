"""A generator that takes finished clips from a folder: made by hand, by another system, or by an earlier version.

A clip of a shot is `FOLDER/EPISODE/LANG/SHOT.mkv` (`.mp4`, `.mov` …), full frame, of any size, with as many frames as
the shot has. The folder is where the clips are reached and enters no recipe; what they are does: each clip is a weight
`shots/SHOT`, and a shot's request names its own, so that a changed clip is taken anew, and no other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np

from models.engines.decode import pictures, video
from models.engines.local_weights import file_hash
from models.engines.options import Adapter, read_options
from models.errors import InputError
from models.ports import Chunk, ChunkGeometry, EngineHome, ShotInput
from models.records import EngineRef, Placement, Record, ShotRequest
from models.timebase import generation_divisor

SUFFIXES = (".mkv", ".mp4", ".mov", ".webm", ".avi", ".mxf")


OWN = "shots/"


def clip_weights(folder: Path, clips: str) -> dict[str, str]:
    """'shots/SHOT' → SHA-256 of the clip of a shot, for all that lie in the subfolder `clips` of `folder`.

    Raises:
        InputError: There are none, or one cannot be read.
    """
    return {OWN + clip.stem: _hash(clip) for clip in _clips(_below(folder, clips))}


def _hash(clip: Path) -> str:
    try:
        return file_hash(clip)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(clip)) from error


def _below(folder: Path, clips: str) -> Path:
    parts = PurePosixPath(clips).parts
    if not parts or clips.startswith("/") or ".." in parts or not (folder / clips).resolve().is_relative_to(
            folder.resolve()):
        raise InputError(f"clips {clips!r} leave the folder of clips", where=str(folder))
    return folder / clips


def _clips(folder: Path) -> list[Path]:
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(folder),
                         hint=f"Put the finished clips there, as {folder}/SHOT.mkv") from error
    if not found:
        raise InputError("holds no clips", where=str(folder), hint=f"Put them there as {folder}/SHOT.mkv")
    return found


class ClipFilesOptions(Record):
    """What may be set."""

    folder: str = ""
    """Where the clips are."""
    clips: str = ""
    """Subfolder of this episode and language."""


class ClipFiles(Adapter):
    """Finished clips as a generator."""

    OPTIONS: ClassVar[type[Record]] = ClipFilesOptions
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"folder"})
    OWN_FILES: ClassVar[str] = OWN
    geometry = ChunkGeometry(frames=16, context=0)

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        # The folder is taken from this machine's settings alone: a request from elsewhere must not choose it.
        options = read_options(ClipFilesOptions, ref.name, ref.options, home.connection)
        self.folder = _below(Path(options.folder), options.clips)

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """The folder, where none is set or it is not there."""
        folder = str(options.get("folder") or "")
        if not folder:
            return "no folder of finished clips is set. Set the option `folder` of the generator `files`"
        return "" if Path(folder).is_dir() else f"the folder of finished clips {folder} is not there. Make it"

    @classmethod
    def gpu_seconds(cls, request: ShotRequest) -> float:
        """None: clips are only copied."""
        return 0.0

    def _clip(self, request: ShotRequest) -> Path:
        clip = {clip.stem: clip for clip in _clips(self.folder)}.get(request.shot)
        if clip is None:
            raise InputError(f"there is no clip for shot {request.shot}", where=str(self.folder),
                             hint=f"Expected {self.folder / request.shot}{'|'.join(SUFFIXES)}")
        if _hash(clip) != request.generator.weights.get(OWN + request.shot):
            raise InputError("the clip is not the one that was planned with", where=str(clip),
                             hint="Run the same command again: what changed is taken anew")
        return clip

    def placement(self, request: ShotRequest) -> tuple[int, int, Placement]:
        """The clip's own size, laid over the whole source frame.

        Raises:
            InputError: There is no clip for the shot, or it changed since it was planned with.
        """
        with video(self._clip(request)) as (_container, stream):
            width, height = stream.width, stream.height
        return width, height, Placement(x=0, y=0, width=request.width, height=request.height)

    def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
        """The clip's frames, in chunks.

        Raises:
            InputError: The clip has neither the shot's number of frames nor that of its generation rate.
        """
        size, clip, needed = self.geometry.frames, self._clip(shot.request), shot.request.generated_frames
        divisor = self._divisor(clip, shot.request)
        kept = (picture for number, (_, picture) in enumerate(pictures(clip)) if number % divisor == 0)
        for _ in range(start_chunk * size):
            next(kept)
        for index in range(start_chunk, self.geometry.chunks(needed)):
            frames = [next(kept) for _ in range(min(size, needed - index * size))]
            yield Chunk(index=index, frames=np.stack(frames), state=b"")

    @staticmethod
    def _divisor(clip: Path, request: ShotRequest) -> int:
        """1 for a clip at the generation rate, else how many of its frames make one generated frame."""
        frames, whole = sum(1 for _ in pictures(clip, longest=16)), request.end - request.start
        if frames not in (request.generated_frames, whole):
            raise InputError(f"has {frames} frames, shot {request.shot} has {whole}", where=str(clip),
                             hint="Make the clip as long as the shot")
        return 1 if frames == request.generated_frames else generation_divisor(request.rate)
