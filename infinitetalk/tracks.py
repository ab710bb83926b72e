"""What is heard: one track a speaker, read and checked, and laid out in time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from infinitetalk.audio import SAMPLE_RATE, normalise_loudness
from infinitetalk.errors import BadInputError
from infinitetalk.inputs import SILENT, SoundCheck, cut_off
from infinitetalk.io import sound, sound_length

MOST_SECONDS = 4 * 3600
LEAD = Fraction(1, 10)
"""Seconds by which sound may end after its header says so: the rest of its last packet."""
Order = Literal["para", "add"]
"""Two speakers: at once, or the first and then the second."""


@dataclass(frozen=True)
class Track:
    """A speaker's sound in its place."""

    path: Path | None
    samples: NDArray[np.float32]  # (M,) at 16 kHz
    """As loud as the network is used to: for its ears alone."""
    lead: Fraction
    """Seconds of silence before it."""
    seconds: Fraction
    warnings: tuple[str, ...] = ()
    """What is odd about it, and no reason to refuse it."""

    @property
    def end(self) -> Fraction:
        """Seconds until it is over, the silence before it included."""
        return self.lead + self.seconds


def read_tracks(paths: Sequence[Path | None], order: Order, most: Fraction | None) -> tuple[Track, ...]:
    """Read and check one track a speaker, and lay them out in time.

    Args:
        paths: None is silence as long as the other's.
        order: How two are laid out.
        most: Seconds that are wanted of each at most; None: all, if it is no more than `MOST_SECONDS`.

    Raises:
        BadInputError: A track cannot be used.
    """
    heard = [_hear(path, most) if path else None for path in paths]
    silence = next(one.seconds for one in heard if one)
    tracks, lead = [], Fraction(0)
    for one in heard:
        track = one or Track(None, np.zeros(0, np.float32), lead, silence)
        tracks.append(replace(track, lead=lead))
        lead += track.seconds if order == "add" else 0
    return tuple(tracks)


def _hear(path: Path, most: Fraction | None) -> Track:
    """A file's sound as the network hears it: 16 kHz, one channel; not much more of it than `most` seconds."""
    enough = MOST_SECONDS if most is None else most
    check = SoundCheck(str(path))
    blocks: list[NDArray[np.float32]] = []
    with closing(sound(path, SAMPLE_RATE, "mono", check.look)) as heard:
        for block in heard:
            blocks.append(block[0])
            if check.seconds > enough:
                break
    check.verdict()
    if most is None and check.seconds > enough:
        raise BadInputError(f"lasts more than {MOST_SECONDS // 3600} hours", where=str(path),
                            hint="Dub it in parts, or bound the frames")
    told = sound_length(path)
    seconds = told if told and 0 < check.seconds - told < LEAD else check.seconds
    return Track(path, normalise_loudness(np.concatenate(blocks)), Fraction(0), seconds, tuple(_odd(path, check.peak)))


def _odd(path: Path, peak: float) -> Iterator[str]:
    """What is odd about a track whose loudest sample is `peak`."""
    if peak < SILENT:
        yield f"{path}: is silent throughout: the mouth stays shut"
    lost = cut_off(path)
    if lost:
        yield f"{path}: ends too early: {lost:.0%} of the sound that its header promises is not in the file"


def fitted(track: Track, length: int) -> NDArray[np.float32]:
    """A track's samples in a take of `length` samples, silence around them: (M,)."""
    samples = np.zeros(length, np.float32)
    start = min(round(track.lead * SAMPLE_RATE), length)
    own = track.samples[:min(round(track.seconds * SAMPLE_RATE), length - start)]
    samples[start:start + len(own)] = own
    return samples
