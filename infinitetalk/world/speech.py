"""Seed → speech with the times of its phonemes, by libespeak-ng (through ctypes), in many voices and languages.

The library keeps its state, noise included, from one call to the next, and that state changes even how long phonemes
last. So every sentence comes from a library opened anew (0.3 ms) under one lock: the same words in the same voice are
then the same samples, whatever was said before, in any process.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.random import Generator
from scipy.signal import resample_poly

from infinitetalk.errors import BadInputError
from infinitetalk.world.scene import Floats, Phoneme
from infinitetalk.world.sentences import LANGUAGES, sentence

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
    {"train": tuple("m1 m2 m3 m5 m6 m8 klatt2 klatt4 Lee Andy Storm quincy rob paul michel miguel antonio max".split()),
     "test": tuple("m4 m7 Denis victor travis".split())})
"""espeak's variants, which are the timbres of a voice; nobody of the one list is heard in the other."""
FEMALE: MappingProxyType[Split, tuple[str, ...]] = MappingProxyType(
    {"train": tuple("f1 f2 f4 Alicia Andrea anika belinda linda steph".split()),
     "test": tuple("f3 f5 Annie aunty".split())})

_LOCK = threading.Lock()
_AUDIO_RETRIEVAL, _PHONEME_EVENTS, _IPA = 2, 1, 2
_UTF8, _POSITION_CHARACTER, _PHONEME, _LAST = 1, 1, 7, 0
_SPEED, _PITCH, _PITCH_RANGE = 1, 3, 4


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
        said = say(sentence(rng, voices[turn].language), voices[turn])
        tracks[turn].append((time, said))
        time += len(said.audio) / RATE + float(rng.choice([rng.uniform(0.08, 0.5), rng.uniform(0.5, 1.2)], p=[0.8, 0.2]))
        turn = (turn + int(rng.random() < 0.6)) % len(voices)
    return [_joined(track, seconds, float(gain)) for track, gain in zip(tracks, gains, strict=True)]


def say(text: str, voice: Voice) -> Speech:
    """One sentence, at `LOUDNESS`, without silence after it.

    Raises:
        BadInputError: libespeak-ng or the voice is missing, or there is nothing to say.
    """
    with _LOCK, _library() as library:
        said = _spoken(library, text, voice)
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


# -- the library ------------------------------------------------------------------------------------------------------


class _Id(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (("type", ctypes.c_int), ("unique", ctypes.c_uint), ("text_position", ctypes.c_int),
                ("length", ctypes.c_int), ("audio_position", ctypes.c_int), ("sample", ctypes.c_int),
                ("user", ctypes.c_void_p), ("id", _Id))


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Library(NamedTuple):
    call: Any
    rate: int


@contextmanager
def _library() -> Iterator[_Library]:
    """libespeak-ng as it is before its first call; the lock is held by the caller."""
    import _ctypes  # noqa: PLC2701 ctypes opens libraries, and has no other way to close them

    try:
        call = ctypes.CDLL(LIBRARY)
    except OSError as error:
        raise BadInputError("is missing", where=LIBRARY, hint=INSTALL) from error
    try:
        ctypes.CDLL(None).srand(1)  # up to 1.51 its noise is the C library's
        rate = call.espeak_Initialize(_AUDIO_RETRIEVAL, 0, None, _PHONEME_EVENTS | _IPA)
        if rate <= 0:
            raise BadInputError("does not find its voices", where=LIBRARY, hint=INSTALL)
        yield _Library(call, rate)
        call.espeak_Terminate()
    finally:
        _ctypes.dlclose(call._handle)


def _spoken(library: _Library, text: str, voice: Voice) -> _Said:
    blocks: list[Floats] = []
    events: list[tuple[float, str]] = []
    heard = _listener(blocks, events, library.rate)
    library.call.espeak_SetSynthCallback(heard)
    _choose(library.call, voice)
    data = text.encode()
    library.call.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, _POSITION_CHARACTER, 0, _UTF8, None, None)
    audio = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return _Said(audio, library.rate, events, _spelt(library.call, data))


def _listener(blocks: list[Floats], events: list[tuple[float, str]], rate: int) -> Any:
    """A callback that collects sound and phonemes; the caller keeps it alive."""

    def heard(samples: Any, count: int, event: Any) -> int:
        if samples and count > 0:
            blocks.append((np.ctypeslib.as_array(samples, (count,)) / 32768).astype(np.float32))
        i = 0
        while event[i].type != _LAST:
            if event[i].type == _PHONEME:
                sound = event[i].id.string.decode("utf-8", "ignore").lstrip(STRESS + LESSER_STRESS)
                events.append((event[i].sample / rate, sound))
            i += 1
        return 0

    callback: Callable[..., int] = _CALLBACK(heard)
    return callback


def _choose(call: Any, voice: Voice) -> None:
    """Set the voice; a variant that is missing would silently be the accent's usual voice.

    Raises:
        BadInputError: There is no such accent or variant.
    """
    call.espeak_Info.restype = ctypes.c_char_p
    folder = ctypes.c_char_p()
    call.espeak_Info(ctypes.byref(folder))
    found = (Path((folder.value or b"").decode()) / "voices" / "!v" / voice.variant).is_file()
    if not found or call.espeak_SetVoiceByName(f"{voice.accent}+{voice.variant}".encode()):
        raise BadInputError(f"has no voice {voice.accent}+{voice.variant}", where=LIBRARY,
                            hint="Install espeak-ng 1.51 or later, with all its voices")
    for parameter, value in ((_SPEED, voice.speed), (_PITCH, voice.pitch), (_PITCH_RANGE, voice.melody)):
        call.espeak_SetParameter(parameter, value, 0)


def _spelt(call: Any, data: bytes) -> list[str]:
    """The phonemes of a text with marks of stress, clause after clause."""
    call.espeak_TextToPhonemes.restype = ctypes.c_char_p
    buffer = ctypes.create_string_buffer(data)
    rest = ctypes.c_void_p(ctypes.addressof(buffer))
    sounds: list[str] = []
    while rest.value:
        clause = call.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, _IPA | ord("_") << 8)
        sounds += (clause or b"").decode().replace(" ", "_").split("_")
    return [sound for sound in sounds if sound]


def languages() -> tuple[str, ...]:
    """What can be spoken here."""
    return tuple(name for name in ACCENTS if name in LANGUAGES)
