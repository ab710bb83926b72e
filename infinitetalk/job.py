"""One job from files to a file: a picture or video, one track a speaker → an MP4 in which they say it.

`opened` looks at everything that was given, before any network is loaded; `run` makes the film chunk by chunk. Killed
and called again with the same folder, it goes on after the last chunk. (`job_file` reads the published input format.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from infinitetalk.audio import SAMPLE_RATE
from infinitetalk.engine import Engine, Speaker, Take
from infinitetalk.errors import BadInputError
from infinitetalk.inputs import (
    check_apart,
    check_box,
    check_prompt,
    check_size,
    check_speakers,
    frames_in,
    read_image,
)
from infinitetalk.io import PictureReader
from infinitetalk.kept import Kept
from infinitetalk.persons import Box, assign
from infinitetalk.pictures import AREAS, GRID, Which, bucket, dubbing_size
from infinitetalk.plan import plan
from infinitetalk.sampling import Progress as Steps
from infinitetalk.sampling import unwatched
from infinitetalk.stream import StreamSettings
from infinitetalk.tracks import MOST_SECONDS, Order, Track, fitted, read_tracks
from infinitetalk.writing import SOUND_RATE, Tap, join, write_chunk

STILL_RATE = Fraction(25)
"""Frames per second made of a still picture: what the network was trained at."""
MOST_RATE = 30
"""Frames per second that are generated at most; a faster video is divided by a whole number."""
MOST_SIDE = 4096
"""Pixels of what is generated: far above what the networks were trained at."""
PADDING = Fraction(1, 10)
"""Seconds by which sound may outlast its video: encoders fill up their last packet."""
SHORTER = 1
"""Seconds by which sound may end before its video without a word."""

Frame = Callable[[int], NDArray[np.uint8]]


@dataclass(frozen=True)
class Job:
    """What is to be made."""

    picture: Path
    audio: tuple[Path | None, ...]
    """A track a speaker; None is silence as long as the other's."""
    moving: bool = False
    """Whether `picture` is a video."""
    lasts: Literal["sound", "picture"] = "sound"
    """What decides on the length. "picture": of a video; it is silent after its sound, which may not be longer."""
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
        if not isinstance(self.size, str) and any(
                not GRID <= side <= MOST_SIDE or side % GRID for side in self.size):
            raise BadInputError(f"{self.size[1]}×{self.size[0]} is no size", where="size",
                                hint=f"Sides are multiples of {GRID}, from {GRID} to {MOST_SIDE}, e.g. 832x464")
        check_apart((*self.boxes, *self.bystanders), "box")
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
    source_rate: Fraction | None
    """Frames per second of the source; None: a still picture."""
    warnings: tuple[str, ...]
    """What may not be meant so."""

    def chunks(self, settings: StreamSettings) -> int:
        """How many chunks the film has."""
        return len(plan(self.take.frames, settings.reference.size(settings.size), settings.tail))

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
        source = _source(job, stack)
        height, width = source.frame(0).shape[:2]
        check_size(width, height, str(job.picture))
        for box in (*job.boxes, *job.bystanders):
            check_box(box, width, height, "box")
        size, rate = _size(job, height, width), source.rate
        assign(job.boxes or (None,) * len(job.audio), job.bystanders, (height, width), size)
        tracks = read_tracks(job.audio, job.order, job.frames / rate if job.frames else None)
        frames = _frames(job, source, max(one.end for one in tracks))
        samples = round(frames * SAMPLE_RATE / rate)
        speakers = tuple(Speaker(fitted(track, samples), box)
                         for track, box in zip(tracks, job.boxes or (None,) * len(tracks), strict=True))
        take = Take(
            frame=lambda index: source.frame(min(max(index, 0), frames - 1)), frames=frames, rate=rate, size=size,
            speakers=speakers, bystanders=job.bystanders, prompt=job.prompt, negative=job.negative, seed=job.seed)
        yield Ready(job, take, tracks, source.rate * source.every if job.moving else None,
                    _warnings(job, tracks, frames / rate))


@dataclass(frozen=True)
class _Source:
    """The source's pictures, at the rate that is generated."""

    frame: Frame
    rate: Fraction
    every: int = 1
    """Which of the source's pictures are taken: one of so many."""
    frames: int = 0
    """Of a video whose length is asked for."""


def _source(job: Job, stack: ExitStack) -> _Source:
    if not job.moving:
        image = read_image(job.picture)
        return _Source(lambda _index: image, STILL_RATE)
    reader = stack.enter_context(PictureReader(job.picture))
    every = divisor(reader.rate)
    frames = -(-reader.count() // every) if job.lasts == "picture" else 0
    return _Source(lambda index: reader.frame(index * every), reader.rate / every, every, frames)


def _frames(job: Job, source: _Source, heard: Fraction) -> int:
    """How many frames are made, for sound of `heard` seconds.

    Raises:
        BadInputError: The sound is shorter than a frame; or longer than the video, and nobody said where to cut it.
    """
    most = job.frames or MOST_SECONDS * MOST_RATE
    wanted = frames_in(heard, source.rate, "audio")
    if not source.frames:
        return min(wanted, most)
    if most > source.frames and heard > source.frames / source.rate + PADDING:
        raise BadInputError(f"the sound is longer than the video of {float(source.frames / source.rate):.2f} s",
                            where=str(job.picture),
                            hint=f"Shorten it, or have it cut where the video ends: --frames {source.frames}")
    return min(source.frames, most)


def _warnings(job: Job, tracks: Sequence[Track], seconds: Fraction) -> tuple[str, ...]:
    """What may not be meant so, in a film of `seconds`."""
    told = [warning for track in tracks for warning in track.warnings]
    heard = max(one.end for one in tracks)
    if heard + SHORTER < seconds:
        told.append(f"the sound ends after {float(heard):.2f} s, the video after {float(seconds):.2f} s: in between the"
                    " mouth is shut")
    if len(job.audio) == 1 and job.order == "add":
        told.append("there is one track: nobody else's turn comes after it")
    if len(job.audio) == 1 and job.boxes and not job.bystanders:
        told.append("the box changes nothing: one track without bystanders moves every mouth in the picture")
    return tuple(told)


def divisor(rate: Fraction) -> int:
    """The smallest whole number by which `rate` must be divided to be at most `MOST_RATE`."""
    return -(-rate.numerator // (rate.denominator * MOST_RATE))


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


def run(ready: Ready, engine: Engine, settings: StreamSettings, out: Path, kept: Kept,
        steps: Steps = unwatched) -> Iterator[Progress]:
    """Make the film; told once before the first chunk, and after each.

    Args:
        ready: What `opened` gave, still open.
        engine: The networks.
        settings: How they are run.
        out: The MP4; it appears when it is complete.
        kept: Where chunks are kept until then, so that a killed run goes on; emptied at the end.
        steps: Is told of the steps within a chunk.

    Raises:
        BadInputError: Something cannot be read or written.
    """
    of = ready.chunks(settings)
    reused = kept.state.index if kept.state else 0
    yield Progress(reused, of, reused)
    for chunk in engine.dub(ready.take, settings, kept.state, progress=steps):
        kept.note()
        write_chunk(kept.chunk(chunk.index), chunk.frames, ready.take.rate)
        kept.save(chunk.state)
        yield Progress(chunk.state.index, of, reused)
    frames = join([kept.chunk(index) for index in range(of)], ready.taps(), out, ready.take.rate)
    if frames != ready.take.frames:
        raise BadInputError(f"{frames} frames are kept instead of {ready.take.frames}", where=str(kept.folder),
                            hint="Remove the folder and begin anew")
    kept.clear(of)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
