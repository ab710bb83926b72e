"""Speech → what face, head, body and arms do: nods, raised brows and beats of the arms on stressed vowels, and idling.

Every function takes moments in seconds, never frames: one seed moves in the same way at 24, 25 and 30 frames a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from infinitetalk.world.scene import ARMS, CHANNELS, FACE_UNITS, Floats, Framing, Motion
from infinitetalk.world.speech import Speech
from infinitetalk.world.visemes import frame_times, visemes

Times = NDArray[np.float64]

NOD, BEAT, BLINK = 0.09, 0.16, 0.055
"""Seconds; standard deviations of a nod, a beat of the arms and a blink."""
BEAT_SHARE = 0.4
"""Of stressed vowels, how many the arms beat to."""
REST = {"mouthPressLeft": 0.20, "mouthPressRight": 0.20, "mouthRollLower": 0.08}
"""What holds the lips together when nobody speaks."""
HUSH = 0.12
"""Seconds; how soon the lips come to rest after speech."""
BOTH_SIDES = tuple(name for name in CHANNELS if name not in FACE_UNITS)
"""Channels whose weight goes to a left and a right unit."""


class Act(NamedTuple):
    """One person's part in a clip of F frames."""

    motion: Motion
    visemes: Floats
    """Weights of `CHANNELS`, (F, 11)."""
    beats: Floats
    """How far the arms are in a beat, 0 … 1.3, (F,)."""


def act(rng: Generator, speech: Speech, frames: int, rate: float, framing: Framing) -> Act:
    """Move as somebody who says this.

    Args:
        rng: Source of everything that speech does not fix.
        speech: What is said.
        frames: F.
        rate: Frames per second.
        framing: Hands are held up where the picture shows them.
    """
    times = frame_times(frames, rate)
    of_mouth, of_face, of_head, of_arms, of_eyes = rng.spawn(5)
    mouth = visemes(speech.phonemes, speech.stresses, times, strength=of_mouth.uniform(0.9, 1.2))
    pulse = np.minimum(_bumps(times, speech.stresses, NOD), 1.5)
    beaten = [stress for stress in speech.stresses if of_arms.random() < BEAT_SHARE]
    beats = np.minimum(_bumps(times, beaten, BEAT), 1.3)
    head = wander(of_head, times, 1.1, 0.10, 3) + wander(of_head, times, 0.35, 0.018, 3)     # (F, 3)
    head[:, 2] *= 0.6
    head[:, 0] += 0.06 * pulse
    torso = wander(of_head, times, 1.8, 0.04, 3)
    torso[:, 0] += 0.025 * beats
    motion = Motion(units=_face(of_face, times, mouth, pulse, _silence(speech, times)), head=_f32(head),
                    torso=_f32(torso), arms=_arms(of_arms, times, beats, framing), gaze=_gaze(of_eyes, times, head),
                    rate=rate)
    return Act(motion, mouth, _f32(beats))


def wander(rng: Generator, times: Times, period: float, amount: float, channels: int) -> Times:
    """Smooth noise: random values every `period` seconds, eased between (F, channels)."""
    span = float(times[-1]) if len(times) else 0.0
    values = rng.normal(0, amount, (int(span / period) + 2, channels))
    index, part = np.divmod(times / period, 1.0)
    ease = (part * part * (3 - 2 * part))[:, None]
    first = index.astype(int)
    return np.asarray(values[first] * (1 - ease) + values[first + 1] * ease)


def _f32(values: Times) -> Floats:
    return values.astype(np.float32)


def _bumps(times: Times, centres: Sequence[float], width: float) -> Times:
    """A sum of bells of height 1, (F,)."""
    away = times[:, None] - np.asarray(centres, np.float64)[None]
    return np.asarray(np.exp(-0.5 * (away / width) ** 2).sum(axis=1))


def _silence(speech: Speech, times: Times) -> Times:
    """0 while sounds are made, 1 long before and after them (F,)."""
    if not speech.phonemes:
        return np.ones(len(times))
    starts, ends = (np.array([phoneme[i] for phoneme in speech.phonemes]) for i in (1, 2))
    gap = np.maximum(starts[None] - times[:, None], times[:, None] - ends[None]).min(axis=1)
    return np.asarray(np.clip(gap / HUSH, 0, 1))


def _face(rng: Generator, times: Times, mouth: Floats, pulse: Times, silence: Times) -> Floats:
    """Units of the face (F, 52)."""
    units = dict.fromkeys(FACE_UNITS, np.zeros(len(times)))
    for name, weight in zip(CHANNELS, mouth.T, strict=True):
        for unit in (f"{name}Left", f"{name}Right") if name in BOTH_SIDES else (name,):
            units[unit] = weight.astype(np.float64)
    for unit, weight in REST.items():
        units[unit] = units[unit] + weight * silence
    smile, lean = rng.uniform(0.0, 0.14), rng.uniform(-0.03, 0.03)
    for unit, side in (("mouthSmileLeft", 1), ("mouthSmileRight", -1)):
        units[unit] = units[unit] + smile * (0.6 + 0.4 * silence) + side * lean
    units["eyeBlinkLeft"] = units["eyeBlinkRight"] = _blinks(rng, times)
    brows = 0.15 * pulse + wander(rng, times, 0.9, 0.13, 1)[:, 0]
    units["browInnerUp"] = brows
    units["browOuterUpLeft"] = units["browOuterUpRight"] = 0.8 * brows
    units["browDownLeft"] = units["browDownRight"] = -0.6 * brows
    return _f32(np.clip(np.stack([units[name] for name in FACE_UNITS], axis=1), 0, 1))


def _blinks(rng: Generator, times: Times) -> Times:
    span = float(times[-1]) if len(times) else 0.0
    gaps = 0.5 + rng.exponential(2.6, int(span / 0.5) + 2)
    moments = np.cumsum(gaps) - gaps[0] + rng.uniform(0.3, 2.5)
    return np.minimum(1.1 * _bumps(times, moments[moments < span + 0.5].tolist(), BLINK), 1.0)


def _arms(rng: Generator, times: Times, beats: Times, framing: Framing) -> Floats:
    """Angles of `ARMS` (F, 8): hanging, or hands held up where they are seen; both beat, one more than the other."""
    idle = wander(rng, times, 1.5, 0.05, len(ARMS))
    raised = rng.uniform(0.45, 0.85, 2) if framing == "half" else rng.uniform(0.0, 0.25, 2)
    zeal = rng.uniform(0.4, 1.1, 2) * (rng.random(2) < 0.75)
    angles = np.zeros((len(times), len(ARMS)))
    for side in range(2):
        base = 4 * side
        up = beats * zeal[side]
        angles[:, base] = 0.10 + 0.06 * raised[side] + 0.12 * up                             # out
        angles[:, base + 1] = 0.12 * raised[side] + 0.22 * up                                # swing
        angles[:, base + 2] = 0.15 + 1.35 * raised[side] + 0.40 * up                         # bend
        angles[:, base + 3] = 0.95 * raised[side] - 0.25 * up * raised[side]                 # in
    return _f32(np.maximum(angles + idle, 0.0))


def _gaze(rng: Generator, times: Times, head: Times) -> Floats:
    """Yaw and pitch of the eyes against the head (F, 2): they jump now and then, and stay on what they look at."""
    span = float(times[-1]) if len(times) else 0.0
    count = int(span / 0.4) + 2
    jumps = np.cumsum(rng.uniform(0.4, 1.6, count))
    targets = rng.normal(0, (0.10, 0.05), (count + 1, 2))
    looked = targets[np.searchsorted(jumps, times)]
    return _f32(looked - np.stack([0.5 * head[:, 1], 0.4 * head[:, 0]], axis=1))
