"""Seed → speech with the times of its phonemes, by libespeak-ng (see `espeak`), in many voices and languages.

The same words in the same voice are the same samples, whatever was said before, in any process and thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from scipy.signal import resample_poly

from infinitetalk.errors import BadInputError
from infinitetalk.world.scene import Floats, Phoneme
from infinitetalk.world.sentences import sentence

RATE = 16_000
"""Samples per second of what is returned."""
LOUDNESS = 0.08
"""Root mean square of a sentence, full scale being 1, before a speaker's own gain."""
LIBRARY = "libespeak-ng.so.1"
INSTALL = "Install it: sudo apt-get install espeak-ng"
STRESS, LESSER_STRESS = "ˈ", "ˌ"
VOWELS = frozenset("iɪɨyʏeɛæaɑɒʌɐɔouʊʉəɜɚøœɯɤᵻᵊ")
SHORT_BLANK = 0.06
"""Seconds; a nameless event that is shorter is no pause, and the sound before it lasts on."""
TAIL = 0.05
"""Seconds that are kept after the last sound of a sentence."""

Split = Literal["train", "test"]
ACCENTS = MappingProxyType({"en": ("en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland"), "es": ("es", "es-419"),
                            "fr": ("fr", "fr-be", "fr-ch"), "de": ("de",), "it": ("it",)})
"""espeak's names of what people speak in each language."""
MALE: MappingProxyType[Split, tuple[str, ...]] = MappingProxyType(
    {"train": ("m1", "m2", "m3", "m5", "m6", "m8", "klatt2", "klatt4", "Lee", "Andy", "Storm", "quincy", "rob", "paul",
               "michel", "miguel", "antonio", "max"),
     "test": ("m4", "m7", "Denis", "victor", "travis")})
"""espeak's variants, which are the timbres of a voice; nobody of the one list is heard in the other."""
FEMALE: MappingProxyType[Split, tuple[str, ...]] = MappingProxyType(
    {"train": ("f1", "f2", "f4", "Alicia", "Andrea", "anika", "belinda", "linda", "steph"),
     "test": ("f3", "f5", "Annie", "aunty")})

PROGRAM = Path(__file__).with_name("espeak.py")
PATIENCE, TRIES = 60, 3
"""Seconds for a call of the program, and how often it is called: opening the library, too, may wait for ever."""
SPEED, PITCH, PITCH_RANGE = "1", "3", "4"
"""espeak's numbers of these parameters."""


@dataclass(frozen=True)
class Voice:
    """Who speaks."""

    accent: str
    """One of `ACCENTS`, which names the language."""
    variant: str
    """One of `MALE` or `FEMALE`."""
    speed: int = 165
    """Words per minute."""
    pitch: int = 50
    """0 … 99, within the variant's own range."""
    melody: int = 50
    """How much the pitch moves, 0 … 99."""

    @property
    def language(self) -> str:
        """The key into `sentences.LANGUAGES`."""
        return self.accent.partition("-")[0]


@dataclass(frozen=True)
class Speech:
    """What one person says, and when."""

    audio: Floats
    """Mono, 16 kHz, (M,); exactly 0 where nobody speaks, and of 16 bits, so that files keep it whole."""
    phonemes: tuple[Phoneme, ...]
    """In order; between them, where one ends before the next begins, is silence."""
    stresses: tuple[float, ...]
    """Middles of stressed vowels, in seconds."""


class _Said(NamedTuple):
    audio: Floats
    """(M,) at the library's own rate."""
    rate: int
    events: list[tuple[float, str]]
    """Time in seconds and IPA; "" is a pause."""
    spelt: list[str]
    """The phonemes again, with marks of stress."""


def draw_voice(rng: Generator, split: Split, feminine: float, language: str | None = None) -> Voice:
    """A voice of the split's timbres, a woman's where `feminine` > 0.5, in any language where none is named."""
    languages = tuple(ACCENTS) if language is None else (language,)
    weights = np.array([2.0 if name in {"en", "es", "fr"} else 1.0 for name in languages])
    accents = ACCENTS[languages[int(rng.choice(len(languages), p=weights / weights.sum()))]]
    variants = (FEMALE if feminine > 0.5 else MALE)[split]
    return Voice(accents[int(rng.integers(len(accents)))], variants[int(rng.integers(len(variants)))],
                 int(rng.integers(135, 186)), int(rng.integers(32, 66)), int(rng.integers(35, 70)))


def converse(rng: Generator, voices: Sequence[Voice], seconds: float) -> list[Speech]:
    """Sentences with pauses; several people take turns, and one is silent while another speaks.

    Args:
        rng: Source of words and pauses.
        voices: One a person.
        seconds: Length of every track; the last sentence is cut off there.

    Raises:
        BadInputError: libespeak-ng or one of its voices is missing.
    """
    tracks: list[list[tuple[float, Speech]]] = [[] for _ in voices]
    gains = rng.uniform(0.6, 1.4, len(voices))
    turn, time = int(rng.integers(len(voices))), float(rng.uniform(0.0, 0.35))
    while time < seconds:
        turns = [turn := (turn + int(rng.random() < 0.6)) % len(voices) for _ in range(1 + round((seconds - time) / 2))]
        said = say([(sentence(rng, voices[one].language), voices[one]) for one in turns])
        for speaker, words in zip(turns, said, strict=True):
            if time < seconds:
                tracks[speaker].append((time, words))
            pause = rng.uniform(0.08, 0.5) if rng.random() < 0.8 else rng.uniform(0.5, 1.2)
            time += len(words.audio) / RATE + float(pause)
    return [_joined(track, seconds, float(gain)) for track, gain in zip(tracks, gains, strict=True)]


def say(sentences: Sequence[tuple[str, Voice]]) -> list[Speech]:
    """Sentences, each at `LOUDNESS`, without silence after it.

    Raises:
        BadInputError: libespeak-ng or a voice is missing, or there is nothing to say.
    """
    return [_speech(said, text, voice) for said, (text, voice) in zip(_spoken(sentences), sentences, strict=True)]


def _speech(said: _Said, text: str, voice: Voice) -> Speech:
    phonemes, end = _timed(said.events, len(said.audio) / said.rate)
    if not phonemes:
        raise BadInputError(f"nothing can be spoken in {text!r}", where=voice.accent, hint="Give words of its language")
    audio = resample_poly(said.audio[: round((end + TAIL) * said.rate)], RATE, said.rate).astype(np.float32)
    audio *= LOUDNESS / max(float(np.sqrt(np.mean(audio**2))), 1e-6)
    return Speech(_sixteen_bits(audio), tuple(phonemes), _stresses(phonemes, said.spelt))


def _sixteen_bits(audio: Floats) -> Floats:
    return (np.clip(np.round(audio * 32768), -32768, 32767) / 32768).astype(np.float32)


def _joined(track: list[tuple[float, Speech]], seconds: float, gain: float) -> Speech:
    audio = np.zeros(round(seconds * RATE), np.float32)
    phonemes: list[Phoneme] = []
    stresses: list[float] = []
    for time, said in track:
        first = round(time * RATE)
        shift = first / RATE
        part = said.audio[: len(audio) - first]
        audio[first: first + len(part)] = part * gain
        phonemes += [Phoneme(sound, start + shift, min(end + shift, seconds))
                     for sound, start, end in said.phonemes if start + shift < seconds]
        stresses += [stress + shift for stress in said.stresses if stress + shift < seconds]
    return Speech(_sixteen_bits(audio), tuple(phonemes), tuple(stresses))


# -- times and stress -------------------------------------------------------------------------------------------------


def _timed(events: Sequence[tuple[float, str]], length: float) -> tuple[list[Phoneme], float]:
    """Phonemes with their ends, and where the last one ends; short nameless events belong to the sound before."""
    ends = [*(time for time, _ in events[1:]), length]
    phonemes: list[Phoneme] = []
    for (start, sound), end in zip(events, ends, strict=True):
        if sound and end > start:
            phonemes.append(Phoneme(sound, start, end))
        elif not sound and phonemes and end - start < SHORT_BLANK and phonemes[-1].end == start:
            phonemes[-1] = phonemes[-1]._replace(end=end)
    return phonemes, phonemes[-1].end if phonemes else 0.0


def _stresses(phonemes: Sequence[Phoneme], spelt: Sequence[str]) -> tuple[float, ...]:
    """Middles of the vowels that `spelt`, the same sounds with marks, has as stressed."""
    plain = [sound.lstrip(STRESS + LESSER_STRESS) for sound in spelt]
    matcher = SequenceMatcher(None, [p.sound for p in phonemes], plain, autojunk=False)
    return tuple((phonemes[block.a + i].start + phonemes[block.a + i].end) / 2
                 for block in matcher.get_matching_blocks() for i in range(block.size)
                 if spelt[block.b + i].startswith(STRESS) and VOWELS & set(plain[block.b + i]))


# -- the program ------------------------------------------------------------------------------------------------------


def _spoken(sentences: Sequence[tuple[str, Voice]]) -> list[_Said]:
    """What the program answers.

    Raises:
        BadInputError: libespeak-ng or a voice is missing, or it crashes.
    """
    asked = [{"text": text, "voice": voice.accent, "variant": voice.variant,
              "parameters": {SPEED: voice.speed, PITCH: voice.pitch, PITCH_RANGE: voice.melody}}
             for text, voice in sentences]
    rest = _answers("".join(json.dumps(one) + "\n" for one in asked).encode())
    said = []
    for _, voice in sentences:
        line, _, rest = rest.partition(b"\n")
        head = json.loads(line or b'{"error": "crash"}')
        if "error" in head:
            raise _refused(head["error"], voice)
        samples, rest = rest[: 2 * head["samples"]], rest[2 * head["samples"]:]
        events = [(sample / head["rate"], sound.lstrip(STRESS + LESSER_STRESS)) for sample, sound in head["events"]]
        said.append(_Said((np.frombuffer(samples, np.int16) / 32768).astype(np.float32), head["rate"], events,
                          head["spelt"]))
    return said


def _answers(asked: bytes) -> bytes:
    for _ in range(TRIES):
        try:
            return subprocess.run([sys.executable, "-I", "-S", str(PROGRAM), LIBRARY], input=asked, check=False,
                                  stdout=subprocess.PIPE, timeout=PATIENCE).stdout
        except subprocess.TimeoutExpired:
            continue
    raise BadInputError(f"did not answer in {TRIES * PATIENCE} seconds", where=LIBRARY, hint="Try again")


def _refused(reason: str, voice: Voice) -> BadInputError:
    if reason == "missing":
        return BadInputError("is missing, or does not find its voices", where=LIBRARY, hint=INSTALL)
    if reason == "voice":
        return BadInputError(f"has no voice {voice.accent}+{voice.variant}", where=LIBRARY,
                             hint="Install espeak-ng 1.51 or later, with all its voices")
    return BadInputError(f"crashed as {voice.accent}+{voice.variant}", where=LIBRARY, hint="Give another voice")
