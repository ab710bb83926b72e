"""One job from files to a file: a picture or video, one track a speaker → an MP4 in which they say it.

`opened` looks at everything that was given, before any network is loaded; `run` makes the film chunk by chunk. Killed
and called again with the same folder, it goes on after the last chunk. (`job_file` reads the published input format.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from infinitetalk.audio import SAMPLE_RATE
from infinitetalk.engine import Engine, Speaker, Take
from infinitetalk.errors import BadInputError
from infinitetalk.inputs import (
    check_box,
    check_prompt,
    check_size,
    check_speakers,
    frames_in,
    read_image,
)
from infinitetalk.io import PictureReader
from infinitetalk.persons import Box
from infinitetalk.pictures import AREAS, GRID, Which, bucket, dubbing_size
from infinitetalk.plan import plan
from infinitetalk.state import ChunkState
from infinitetalk.stream import StreamSettings
from infinitetalk.tracks import MOST_SECONDS, Order, Track, fitted, read_tracks
from infinitetalk.writing import SOUND_RATE, Tap, join, write_chunk

STILL_RATE = Fraction(25)
"""Frames per second made of a still picture: what the network was trained at."""
MOST_RATE = 30
"""Frames per second that are generated at most; a faster video is divided by a whole number."""
CHUNK = "{:05d}.mp4"
STATE, IDENTITY = "state.safetensors", "job.sha256"

Frame = Callable[[int], NDArray[np.uint8]]


@dataclass(frozen=True)
class Job:
    """What is to be made."""

    picture: Path
    audio: tuple[Path | None, ...]
    """A track a speaker; None is silence as long as the other's."""
    moving: bool = False
    """Whether `picture` is a video."""
    order: Order = "para"
    boxes: tuple[Box, ...] = ()
    """Where each speaker is, in pixels of the upright source; none: the first left, the second right."""
    bystanders: tuple[Box, ...] = ()
    """Where those are who are seen and not heard."""
    prompt: str = ""
    negative: str = ""
    size: Which | tuple[int, int] = "480"
    """Size class, or (H, W)."""
    bucket: bool = False
    """Whether a size class means its published buckets, rather than the source's own aspect."""
    frames: int | None = None
    """At most."""
    seed: int = 0

    def __post_init__(self) -> None:
        """See what needs no file.

        Raises:
            BadInputError: Something contradicts itself.
        """
        check_speakers(len(self.audio))
        if not any(self.audio):
            raise BadInputError("nobody is heard", where="audio", hint="Give at least one track")
        if self.boxes and len(self.boxes) != len(self.audio):
            raise BadInputError(f"{len(self.boxes)} boxes for {len(self.audio)} speakers", where="box",
                                hint="Give one box a track, in the same order, or none")
        if self.bystanders and not self.boxes:
            raise BadInputError("where the speaker is must be known beside bystanders", where="box",
                                hint="Give a box for each track")
        if self.frames is not None and self.frames < 1:
            raise BadInputError(f"{self.frames} frames", where="frames", hint="Ask for at least one")
        if not isinstance(self.size, str) and any(side < GRID or side % GRID for side in self.size):
            raise BadInputError(f"{self.size[1]}×{self.size[0]} is no size", where="size",
                                hint=f"Sides are multiples of {GRID}")
        for name in ("prompt", "negative"):
            check_prompt(getattr(self, name), name)

    @property
    def needs_two(self) -> bool:
        """Whether it takes weights that tell two persons apart."""
        return len(self.audio) == 2 or bool(self.bystanders)


@dataclass(frozen=True)
class Ready:
    """A job whose files were looked at and are open."""

    job: Job
    take: Take
    tracks: tuple[Track, ...]

    def identity(self, settings: StreamSettings, weights: str) -> str:
        """SHA-256 of all that decides on the result."""
        heard = [_sha256(one) if one else "silence" for one in self.job.audio]
        told = [weights, repr(settings), repr(astuple(self.job)[2:]), _sha256(self.job.picture), *heard]
        return hashlib.sha256("\n".join(told).encode()).hexdigest()

    def taps(self) -> list[Tap]:
        """The sound of the finished file, from its beginning."""
        return [Tap(one.path, round(one.lead * SOUND_RATE), round(one.seconds * SOUND_RATE)) for one in self.tracks]


@contextmanager
def opened(job: Job) -> Iterator[Ready]:
    """Open a job's files and check them; costs no more than decoding the sound.

    Raises:
        BadInputError: Something cannot be used.
    """
    with ExitStack() as stack:
        rate, frame = _picture(job, stack)
        height, width = frame(0).shape[:2]
        check_size(width, height, str(job.picture))
        for box in (*job.boxes, *job.bystanders):
            check_box(box, width, height, "box")
        tracks = read_tracks(job.audio, job.order, job.frames / rate if job.frames else None)
        seconds = max(one.lead + one.seconds for one in tracks)
        frames = min(frames_in(seconds, rate, "audio"), job.frames or MOST_SECONDS * MOST_RATE)
        samples = round(frames * SAMPLE_RATE / rate)
        speakers = tuple(Speaker(fitted(track, samples), box)
                         for track, box in zip(tracks, job.boxes or (None,) * len(tracks), strict=True))
        yield Ready(job, Take(
            frame=lambda index: frame(min(max(index, 0), frames - 1)), frames=frames, rate=rate,
            size=_size(job, height, width), speakers=speakers, bystanders=job.bystanders, prompt=job.prompt,
            negative=job.negative, seed=job.seed), tracks)


def divisor(rate: Fraction) -> int:
    """The smallest whole number by which `rate` must be divided to be at most `MOST_RATE`."""
    return -(-rate.numerator // (rate.denominator * MOST_RATE))


def _picture(job: Job, stack: ExitStack) -> tuple[Fraction, Frame]:
    """Frames per second to generate, and the source's pictures at that rate."""
    if not job.moving:
        image = read_image(job.picture)
        return STILL_RATE, lambda _index: image
    reader = stack.enter_context(PictureReader(job.picture))
    every = divisor(reader.rate)
    return reader.rate / every, lambda index: reader.frame(index * every)


def _size(job: Job, height: int, width: int) -> tuple[int, int]:
    """(H, W) to generate."""
    if not isinstance(job.size, str):
        return job.size
    return bucket(height, width, job.size) if job.bucket else dubbing_size(width, height, AREAS[job.size])[::-1]


# -- making it --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Progress:
    """How far it is."""

    chunks: int
    """Done, those of an earlier call included."""
    of: int
    reused: int
    """Chunks that an earlier call made."""


def run(ready: Ready, engine: Engine, settings: StreamSettings, out: Path, *, kept: Path | None = None,
        weights: str = "") -> Iterator[Progress]:
    """Make the film; told once before the first chunk, and after each.

    Args:
        ready: What `opened` gave, still open.
        engine: The networks.
        settings: How they are run.
        out: The MP4; it appears when it is complete.
        kept: Folder where chunks and state are kept until then, so that a killed run goes on; removed at the end.
        weights: Name of the weights: a folder that was begun with others is refused.

    Raises:
        BadInputError: `kept` belongs to another job, or something cannot be read or written.
    """
    size = settings.reference.size(settings.size)
    of = len(plan(ready.take.frames, size, settings.tail))
    identity = ready.identity(settings, weights) if kept else ""
    with _folder(kept, identity) as folder:
        state = _read_state(folder)
        reused = done = state.index if state else 0
        yield Progress(done, of, reused)
        for chunk in engine.dub(ready.take, settings, state):
            _replace(folder / IDENTITY, identity.encode())
            write_chunk(folder / CHUNK.format(chunk.index), chunk.frames, ready.take.rate)
            _replace(folder / STATE, chunk.state.save())
            done = chunk.state.index
            yield Progress(done, of, reused)
        chunks = [folder / CHUNK.format(index) for index in range(of)]
        frames = join(chunks, ready.taps(), out, ready.take.rate)
        if frames != ready.take.frames:
            raise BadInputError(f"{frames} frames are kept instead of {ready.take.frames}", where=str(folder),
                                hint="Remove the folder and begin anew")
        for path in (*chunks, folder / STATE, folder / IDENTITY, *folder.glob("*.partial")):
            path.unlink(missing_ok=True)


@contextmanager
def _folder(kept: Path | None, identity: str) -> Iterator[Path]:
    """Where chunks are kept: a folder that is this job's own, or one that is gone afterwards."""
    if kept is None:
        with TemporaryDirectory(prefix="infinitetalk-") as name:
            yield Path(name)
        return
    try:
        kept.mkdir(parents=True, exist_ok=True)
        full = any(path.suffix != ".partial" for path in kept.iterdir())
        noted = (kept / IDENTITY).read_bytes() if (kept / IDENTITY).is_file() else b""
    except OSError as error:
        raise BadInputError(f"cannot be used ({error.strerror})", where=str(kept),
                            hint="Name another folder") from error
    if full and noted != identity.encode():
        raise BadInputError("holds something else, or the same job with other settings", where=str(kept),
                            hint="Name another folder, or remove it to begin anew")
    try:
        yield kept
    finally:
        if not any(kept.iterdir()):
            kept.rmdir()


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
