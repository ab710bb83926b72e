"""Seed → a clip of talking people, with everything that is known of it.

A clip's seed says whether it is for training or held out: its people and their voices come from the one pool or the
other, and the two have nobody in common.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from infinitetalk.errors import BadInputError
from infinitetalk.world.background import backdrop
from infinitetalk.world.camera import draw_camera, draw_framing
from infinitetalk.world.motion import Act, act
from infinitetalk.world.person import person
from infinitetalk.world.renderer import Renderer
from infinitetalk.world.scene import Camera, Clip, Framing, Person, Rendered, Truth
from infinitetalk.world.speech import Speech, Split, converse, draw_voice

HELD_OUT = 1_000_000
"""Clips, people and backdrops of this seed and above are held out from training."""
POOL: dict[Split, range] = {"train": range(4096), "test": range(HELD_OUT, HELD_OUT + 256)}
"""Seeds of the people of each split; so the same person is seen in several clips."""
MOST_PEOPLE = 2
SUPERSAMPLE = 2
"""Samples per pixel along each side."""


class Scene(NamedTuple):
    """A clip before it is drawn."""

    people: list[Person]
    speech: list[Speech]
    acts: list[Act]
    camera: Camera
    backdrop: int
    """The backdrop's seed."""


def split_of(seed: int) -> Split:
    """The split that a clip of this seed belongs to."""
    return "test" if seed >= HELD_OUT else "train"


def clip_seed(split: Split, index: int) -> int:
    """The seed of the split's clip `index`."""
    return index + (HELD_OUT if split == "test" else 0)


def draw_scene(seed: int, frames: int, rate: float, people: int = 1, framing: Framing | None = None,
               aspect: float = 1.0) -> Scene:
    """Who is there, what they say and do, and how they are filmed; every part by a generator of its own.

    Raises:
        BadInputError: No clip can be so, or the speech library is missing.
    """
    if seed < 0 or frames < 1 or not 1 <= rate <= 240 or not 1 <= people <= MOST_PEOPLE:
        raise BadInputError(f"{frames} frames at {rate:g} a second with {people} people, by seed {seed}", where="clip",
                            hint=f"Take a seed of 0 or more, 1 … 240 frames a second, and 1 … {MOST_PEOPLE} people")
    of_people, of_speech, of_camera, *of_acts = np.random.default_rng(seed).spawn(3 + people)
    framing = framing or ("half" if people > 1 else draw_framing(of_camera))
    cast = _cast(of_people, split_of(seed), people)
    voices = [draw_voice(of_speech, split_of(seed), one.feminine) for one in cast]
    speech = converse(of_speech, voices, frames / rate)
    acts = [act(rng, words, frames, rate, framing) for rng, words in zip(of_acts, speech, strict=True)]
    camera = draw_camera(of_camera, frames, rate, framing, people, aspect)
    return Scene(cast, speech, acts, camera, seed)


def _cast(rng: Generator, split: Split, people: int) -> list[Person]:
    pool = POOL[split]
    return [person(pool[int(index)]) for index in rng.choice(len(pool), people, replace=False)]


def make_clip(seed: int, seconds: float, size: int | tuple[int, int], rate: float = 25, people: int = 1,
              framing: Framing | None = None, renderer: Renderer | None = None) -> Clip:
    """Draw a scene and render it.

    Args:
        seed: 0 … for training; `HELD_OUT` … for tests.
        seconds: Length.
        size: Pixels: the side of a square, or (H, W).
        rate: Frames per second.
        people: 1 or 2; two take turns in speaking.
        framing: How much is seen; drawn where none is given.
        renderer: One of this size, to be used again and again; opening one takes long.

    Raises:
        BadInputError: No clip can be so, or a library is missing.
    """
    height, width = (size, size) if isinstance(size, int) else size
    frames = round(seconds * rate)
    scene = draw_scene(seed, frames, rate, people, framing, width / height)
    renderer = renderer or Renderer((height, width), SUPERSAMPLE)
    drawn = renderer.render([(one, its.motion) for one, its in zip(scene.people, scene.acts, strict=True)],
                            scene.camera, backdrop(scene.backdrop))
    return Clip(seed=seed, rate=rate, frames=drawn.frames, speech=np.stack([one.audio for one in scene.speech]),
                camera=scene.camera, truth=_truth(scene, drawn))


def _truth(scene: Scene, drawn: Rendered) -> tuple[Truth, ...]:
    return tuple(Truth(visemes=its.visemes, motion=its.motion, beats=its.beats, mouth=mouth, face=face,
                       person=one, phonemes=words.phonemes, stresses=words.stresses)
                 for one, words, its, mouth, face in zip(scene.people, scene.speech, scene.acts, drawn.mouths,
                                                         drawn.faces, strict=True))
