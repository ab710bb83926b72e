"""Which chunk is learnt from next, what is known of it, and which picture is its reference."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from infinitetalk.audio import windows
from infinitetalk.conditioning import keyframe_mask
from infinitetalk.errors import BadInputError
from infinitetalk.reference import M0, M1, M2, M3
from infinitetalk.shapes import TEMPORAL, latent_frames
from infinitetalk.small.vision import patches
from infinitetalk.train.flow import Samples
from infinitetalk.train.latents import EncodedClip

TRIES = 64
"""Draws before the nearest frame that is kept is taken instead: one frame in four is."""

TRUTH = 5.0
"""Scale of true visemes where they are heard: about unit size, as the speech encoder's states."""


class Sampler(Protocol):
    """A way of drawing references (`infinitetalk.reference`)."""

    def draw(self, rng: random.Random, start: int, frames: int, total: int) -> int:
        """Index of the reference."""
        ...


SAMPLERS: Mapping[str, Sampler] = {"M0": M0(), "M1": M1(), "M2": M2(), "M3": M3()}


@dataclass(frozen=True)
class DrawSettings:
    """How chunks are drawn."""

    reference: Literal["M0", "M1", "M2", "M3"] = "M3"
    """How the reference is (`infinitetalk.reference`)."""
    first: float = 0.12
    """Share of chunks that begin a shot: no context, the first frame is the reference."""
    pairs: float = 0.0
    """Share of chunks between two references, their first and their last frame, without context."""
    lips: float = 0.0
    """Share of chunks in which the lower face alone is made anew, and all else stays (`infinitetalk.region`)."""
    both: bool = False
    """Whether a second reference, drawn as the first, is shown at the chunk's end, not marked (the paper's eq. 5)."""
    audio: Literal["speech", "truth"] = "speech"
    """What is heard: the speech encoder, or the true visemes, to prove everything behind it."""


@dataclass(frozen=True)
class Place:
    """A chunk, by numbers."""

    clip: int
    start: int
    """Quarter of its first frame."""
    reference: int
    """Quarter of the reference's frame."""
    kind: Literal["context", "first", "pair"]
    second: int | None = None
    """Quarter of a second reference's frame, which is shown at the chunk's end and not marked."""
    lips: bool = False
    """Whether the lower face alone is made anew."""


class Chunks:
    """Draws chunks from encoded clips."""

    def __init__(self, clips: Sequence[EncodedClip], frames: int, context: int, settings: DrawSettings) -> None:
        """Take clips.

        Args:
            clips: At least one.
            frames: Of a chunk.
            context: Of them known in later chunks.
            settings: How to draw.

        Raises:
            BadInputError: There are no clips.
        """
        if not clips:
            raise BadInputError("there are no clips to learn from", where="data",
                                hint="Render some: infinidub world render")
        self.clips, self.settings = clips, settings
        self._frames, self._context = frames, latent_frames(context)

    def place(self, rng: random.Random, clip: int | None = None) -> Place:
        """Where the next chunk is."""
        clip = rng.randrange(len(self.clips)) if clip is None else clip
        quarters = len(self.clips[clip].whole)
        start = rng.randrange(quarters - latent_frames(self._frames) + 1)
        kind, lips = rng.random(), rng.random() < self.settings.lips and bool(self.clips[clip].free.any())
        if kind < self.settings.first:
            return Place(clip, start, start, "first", lips=lips)
        if kind < self.settings.first + self.settings.pairs:
            return Place(clip, start, start, "pair")
        drawn = sorted(self._reference(rng, start, self.clips[clip].frames, quarters)
                       for _ in range(1 + self.settings.both))
        return Place(clip, start, drawn[0], "context", drawn[1] if self.settings.both else None, lips)

    def _reference(self, rng: random.Random, start: int, total: int, quarters: int) -> int:
        sampler = SAMPLERS[self.settings.reference]
        for _ in range(TRIES):
            frame = sampler.draw(rng, start * TEMPORAL, self._frames, total)
            if frame % TEMPORAL == 0 and frame // TEMPORAL < quarters:
                return frame // TEMPORAL
        return min(round(frame / TEMPORAL), quarters - 1)

    def batch(self, rng: random.Random, count: int) -> Samples:
        """So many chunks."""
        return self.samples([self.place(rng) for _ in range(count)])

    def samples(self, places: Sequence[Place], later: int = 0) -> Samples:
        """Chunks by their places.

        Args:
            places: Of a batch.
            later: Frames by which what is heard is shifted within its clip, around its end.
        """
        parts = [self._sample(place, later) for place in places]
        return Samples(**{name: torch.stack([part[name] for part in parts]) for name in parts[0]})

    def _sample(self, place: Place, later: int) -> dict[str, Tensor]:
        clip, latents = self.clips[place.clip], latent_frames(self._frames)
        head = clip.starts.shape[1]
        latent = torch.cat((clip.starts[place.start][:latents],
                            clip.whole[place.start + head:place.start + latents])).float()  # (T, C, h, w)
        keyframes = [0, self._frames - 1] if place.kind == "pair" else [0]
        at = slice(place.start * TEMPORAL, place.start * TEMPORAL + self._frames)
        quarters = slice(place.start, place.start + latents)
        free = clip.free[quarters].bool() if place.lips else torch.ones_like(clip.free[quarters], dtype=torch.bool)
        free[0] = True  # there the reference lies
        return {"free": free[None], "kept": clip.kept[quarters].float().transpose(0, 1),
                "latent": latent.transpose(0, 1), "reference": self._known(clip, place),
                "mask": keyframe_mask(keyframes, self._frames),
                "image": patches(clip.starts[place.reference, :1].float())[0],
                "windows": self.heard(place, later), "mouth": by_latent(clip.mouth[at].float()).amax(1),
                "visemes": by_latent(clip.visemes[at].float()).mean(1),
                "known": torch.tensor(self._context if place.kind == "context" else 1)}

    def _known(self, clip: EncodedClip, place: Place) -> Tensor:
        """The reference, again and again; of two, the second in the last place → (C, T, h, w)."""
        latents = latent_frames(self._frames)
        last = place.start + latents - 1 if place.kind == "pair" else place.second
        at = [place.reference] * (latents - 1) + [place.reference if last is None else last]
        return clip.starts[at, 0].float().transpose(0, 1)

    def heard(self, place: Place, later: int = 0) -> Tensor:
        """What is heard around each frame of a chunk → (1, F, 5, L, C)."""
        clip = self.clips[place.clip]
        states = clip.states.float()  # (F, L, C)
        if self.settings.audio == "truth":
            silent = torch.zeros_like(states)
            silent[:, 0, :clip.visemes.shape[1]] = TRUTH * clip.visemes.float()
            states = silent
        states = states.roll(-later, 0)
        return windows(states.__getitem__, place.start * TEMPORAL, self._frames, clip.frames - 1)[None]


def by_latent(values: Tensor) -> Tensor:
    """(F, …) → (T, 4, …): the first frame stands for four."""
    return torch.cat((values[:1].expand(TEMPORAL - 1, *values.shape[1:]), values)).unflatten(0, (-1, TEMPORAL))
