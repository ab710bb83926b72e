"""The nouns of the synthetic world. No arithmetic, no randomness: who makes each thing is named in its docstring.

Axes of the world, in metres: x to the picture's right, y away from the camera, z up. Angles in radians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Pixels = NDArray[np.uint8]
Framing = Literal["face", "head", "bust", "half"]

CHANNELS = ("jawOpen", "mouthClose", "mouthFunnel", "mouthPucker", "mouthStretch", "mouthLowerDown", "mouthUpperUp",
            "mouthRollLower", "mouthPress", "mouthSmile", "tongueOut")
"""The viseme channels: ARKit mouth units, those that have a left and a right side named once for both."""

FACE_UNITS = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight",
    "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel",
    "mouthLeft", "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker",
    "mouthRight", "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper",
    "mouthSmileLeft", "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthUpperUpLeft", "mouthUpperUpRight", "noseSneerLeft", "noseSneerRight", "tongueOut")
"""The 52 ARKit face units, in the order of `Motion.units`. Gaze turns the eyeballs: leave the eyeLook units at 0."""

ARMS = ("outLeft", "swingLeft", "bendLeft", "inLeft", "outRight", "swingRight", "bendRight", "inRight")
"""Angles of the arms, all 0 with both hanging at the sides: upper arm sideways, upper arm forwards, elbow bent
(fore-arm up and forwards, 0 … 2), fore-arm turned towards the other hand (0 … 1.2). Left is the person's own left."""

FIELD_OF_VIEW = 0.42
"""Vertical angle of the camera, in radians."""
SPACING = 0.52
"""Metres between two people side by side; the first stands on the picture's left, both around x = 0."""
FRAMINGS: dict[Framing, tuple[float, float]] = {"face": (0.94, -0.018), "head": (0.94, 0.005), "bust": (1.36, -0.085),
                                                "half": (1.95, -0.22)}
"""A camera's usual distance and height of target for one person; two in a square frame need
2.2 m for their heads and shoulders, 2.9 m for their arms too."""
LENS: dict[Framing, float] = {"face": 1.75}
"""How many times longer than usual the lens is: brows to chin, as dubbing cuts a face out of a larger picture."""


@dataclass(frozen=True)
class Person:
    """How somebody looks; made by `person.person(seed)`. Colours are linear RGB in 0 … 1."""

    seed: int
    identity: Floats
    """Weights of the body's identity components, (K,)."""
    feminine: float
    """0 … 1, what the weights were drawn around."""
    skin: tuple[float, float, float]
    lips: tuple[float, float, float]
    iris: tuple[float, float, float]
    hair: tuple[float, float, float]
    hair_style: str
    """One of `person.HAIR_STYLES`."""
    brows: float
    """Thickness of the brows; 1 is common."""
    stubble: float
    """Shadow of a beard, 0 … 1."""
    clothes: str
    """One of `person.CLOTHES`."""
    collar: str
    """One of `person.COLLARS`."""
    sleeve: float
    """How far down the arm cloth reaches: 0 the shoulder, 1 the wrist."""
    pattern: str
    """One of `person.PATTERNS`."""
    colours: tuple[tuple[float, float, float], tuple[float, float, float]]
    """Of the cloth and of its pattern."""


@dataclass(frozen=True)
class Motion:
    """What somebody does, F frames of it; made from speech."""

    units: Floats
    """Weights of `FACE_UNITS`, mostly 0 … 1, (F, 52)."""
    head: Floats
    """Pitch (positive: nods down), yaw (positive: to the picture's right), roll (F, 3)."""
    torso: Floats
    """As `head`, (F, 3)."""
    arms: Floats
    """Angles of `ARMS`, (F, 8)."""
    gaze: Floats
    """Yaw and pitch of both eyes against the head, as `head`'s, (F, 2)."""
    rate: float
    """Frames per second."""


@dataclass(frozen=True)
class Camera:
    """Where the picture is taken from, F frames."""

    path: Floats
    """Azimuth, elevation, distance, and the target's x and z against the point 3 cm below the (mean) eyes, (F, 5)."""
    kind: str
    framing: Framing


@dataclass(frozen=True)
class Light:
    """One lamp from afar and the light of the room, linear RGB."""

    direction: tuple[float, float, float]
    """Towards the lamp, as the camera sees it: right, up, towards the camera."""
    lamp: tuple[float, float, float]
    room: tuple[float, float, float]


@dataclass(frozen=True)
class Backdrop:
    """What stands behind people; made by `background.backdrop(seed)`."""

    picture: Pixels
    """(h, w, 3), wider than the frame, so that the camera may turn."""
    light: Light
    kind: str


class Rendered(NamedTuple):
    """What a renderer returns for F frames and P people."""

    frames: Pixels
    """(F, H, W, 3)."""
    mouths: Floats
    """Left, top, right, bottom of every mouth in pixels, inside the frame, right and bottom exclusive, (P, F, 4)."""
    faces: Floats
    """The same of every face, which speech does not move (`view.face_box`), (P, F, 4)."""


class Phoneme(NamedTuple):
    """A sound of speech, in IPA, and when it is heard, in seconds."""

    sound: str
    start: float
    end: float


@dataclass(frozen=True)
class Truth:
    """What is known of one person in a clip."""

    visemes: Floats
    """Weights of `CHANNELS`, (F, 11)."""
    motion: Motion
    beats: Floats
    """Strength of the gesture that stresses a word, (F,)."""
    mouth: Floats
    """Left, top, right, bottom in pixels, (F, 4)."""
    face: Floats
    """The same of the face (`view.face_box`), (F, 4)."""
    person: Person
    phonemes: tuple[Phoneme, ...]
    stresses: tuple[float, ...]
    """Times of stressed vowels, in seconds."""


@dataclass(frozen=True)
class Clip:
    """A video with everything known of it; made by `clip.make_clip(seed, …)`."""

    seed: int
    rate: float
    frames: Pixels
    """(F, H, W, 3)."""
    speech: Floats
    """One track a person, mono, 16 kHz, (P, M)."""
    camera: Camera
    truth: tuple[Truth, ...]
    """One a person."""
