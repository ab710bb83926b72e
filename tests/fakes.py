"""Engines that cost nothing, for tests of what is around them; and a small episode that they understand.

`python -m tests.fakes VERB …` is `infinidub` with these engines, for tests that need a process of their own.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import ConfigDict

from models.engines import ENGINES
from models.engines.options import Adapter
from models.errors import EngineError, InputError
from models.languages import Guess
from models.ports import Around, EngineHome, HeardSegment, HeardWord, Image, Recognition, Samples, Turn, Voice
from models.records import Candidate, EngineRef, Record

if TYPE_CHECKING:
    import pytest

RATE = 48_000
SECONDS = 4
SPOKEN = {"Good morning.": (0.3, 1.0), "The lamp is old.": (1.8, 2.4), "We go now.": (3.1, 3.7)}
"""What is said in the episode, and when."""
DUBBED = {"es": ("Buenos días.", "La luz es vieja.", "Nos vamos."), "gl": ("word salad of sorts",) * 3,
          "fr": ("Bonjour tous.", "La lampe va mal.", "On y va là")}
"""The same in other languages, as the fake translator says it; what the fake recognizer hears, but in Galician."""
NAMES = {"recognizer": "faster-whisper", "diarizer": "ge2e", "language-identifier": "py3langid",
         "translator": "apertium", "synthesizer": "kokoro", "shot-detector": "scenedetect", "face-detector": "dlib"}
"""The fakes go by the names of the default engines."""


class AnyOptions(Record):
    """A fake takes the options of the engine that it stands for, whatever they are."""

    model_config = ConfigDict(extra="allow")


class Fake(Adapter):
    """An engine that needs nothing."""

    OPTIONS: ClassVar[type[Record]] = AnyOptions

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        self.ref = ref


class Recognizer(Fake):
    interrupted = False
    """Ctrl-C in the middle of a step."""

    def recognize(self, samples: Samples, language: str | None) -> Recognition:
        if self.interrupted:
            raise KeyboardInterrupt
        heard = language if language in DUBBED and language != "gl" else "en"
        texts = DUBBED.get(heard, tuple(SPOKEN))
        return Recognition(heard, 1.0, tuple(map(self._segment, texts, SPOKEN.values())))

    @staticmethod
    def _segment(text: str, span: tuple[float, float]) -> HeardSegment:
        (start, end), words = span, text.split()
        edges = np.linspace(start, end, len(words) + 1)
        heard = tuple(HeardWord(word, float(a), float(b), 0.99)
                      for word, a, b in zip(words, edges, edges[1:], strict=False))
        return HeardSegment(text, start, end, heard)


class Diarizer(Fake):
    SAME_VOICE = 0.8

    def diarize(self, samples: Samples, speech: Sequence[tuple[float, float]]) -> tuple[Turn, ...]:
        return tuple(Turn(start, end, "A") for start, end in speech)

    def embed(self, stretches: Sequence[Samples]) -> NDArray[np.float32]:
        return np.tile(np.array([1, 0], np.float32), (len(stretches), 1))


class LanguageIdentifier(Fake):
    def identify(self, text: str) -> Guess:
        return Guess("en", 0.0)


class Translator(Fake):
    REVISES = False

    def pairs(self) -> frozenset[tuple[str, str]]:
        return frozenset({("en", "es"), ("en", "fr"), ("en", "it"), ("en", "gl"), ("en", "de")})

    def translate(self, lines: Mapping[str, str], source: str, target: str, glossary: Mapping[str, str],
                  around: Mapping[str, Around]) -> dict[str, tuple[Candidate, ...]]:
        if target == "it":
            raise EngineError("the fake translator has no Italian today", hint="Try another")
        known = dict(zip(SPOKEN, DUBBED.get(target, SPOKEN), strict=True))
        return {key: (Candidate(text=known.get(text, f"{text} ({target})"), score=0.0),) for key, text in lines.items()}


class Synthesizer(Fake):
    sample_rate = 24_000

    def voices(self, language: str) -> tuple[Voice, ...]:
        return (Voice("ana", language, "female"), Voice("bob", language, "male")) if language != "de" else ()

    def weights_of(self, voice: str) -> frozenset[str]:
        return frozenset(self.ref.weights)

    def check_voice(self, voice: str, language: str) -> None:
        if voice not in {"ana", "bob"}:
            raise InputError(f"the fake has no voice {voice!r}", hint="There are: ana, bob")

    def speak(self, text: str, voice: str, language: str, speed: float = 1.0) -> Samples:
        return tone(0.06 * len(text) / speed, 300.0 if voice == "ana" else 150.0, self.sample_rate)


class Cuts(Fake):
    def cuts(self, video: Path) -> list[int]:
        return [40]


class Faces(Fake):
    def detect(self, image: Image) -> list[tuple[int, int, int, int]]:
        return [(60, 30, 60, 60)]


def tone(seconds: float, pitch: float, rate: int) -> Samples:
    """A voice of sorts: a buzz with soft edges."""
    time = np.arange(round(seconds * rate)) / rate
    edge = np.clip(np.minimum(time, seconds - time) / 0.01, 0, 1)
    return np.asarray(0.3 * edge * np.sign(np.sin(2 * np.pi * pitch * time)) * np.cos(40 * time) ** 2, np.float32)


def install() -> None:
    """Put the fakes in the place of the default engines of this process."""
    kinds = {"recognizer": "Recognizer", "diarizer": "Diarizer", "language-identifier": "LanguageIdentifier",
             "translator": "Translator", "synthesizer": "Synthesizer", "shot-detector": "Cuts",
             "face-detector": "Faces"}
    for port, kind in kinds.items():
        ENGINES[port] = {**ENGINES[port], NAMES[port]: f"tests.fakes:{kind}"}
    ENGINES["generator"] = {**ENGINES["generator"], "pulse": "tests.pulse:Pulse"}


def install_while(patch: pytest.MonkeyPatch) -> None:
    """The same, until `patch` is undone."""
    for port, names in list(ENGINES.items()):
        patch.setitem(ENGINES, port, names)
    install()


@functools.cache
def episode_video() -> Path:
    """Four seconds of numbered frames, and the three lines as buzzes."""
    import ffmpeg

    from tasks.media import run_ffmpeg, write_flac
    from tests import clips

    folder = Path(tempfile.mkdtemp(prefix="infinidub-fakes-"))
    sound = np.zeros(SECONDS * RATE, np.float32)
    for text, (start, end) in SPOKEN.items():
        voice = tone(end - start, 120.0 + len(text), RATE)
        sound[round(start * RATE):round(start * RATE) + len(voice)] = voice
    write_flac(folder / "sound.flac", sound, RATE)
    pictures = clips.pictures(Fraction(25), 25 * SECONDS)
    run_ffmpeg(ffmpeg.output(ffmpeg.input(str(pictures)).video, ffmpeg.input(str(folder / "sound.flac")).audio,
                             str(folder / "episode.mp4"), vcodec="libx264", acodec="aac", pix_fmt="yuv420p", qp=18),
               where="episode.mp4")
    return folder / "episode.mp4"


def series(folder: Path, episodes: int | list[dict[str, Any]] = 1, **fields: Any) -> Path:
    """A catalog `fake` with so many copies of that video (or these episodes), in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    listed = [{"id": f"e{n}", "video": f"e{n}.mp4"} for n in range(1, episodes + 1)] \
        if isinstance(episodes, int) else episodes
    for number, episode in enumerate(listed):
        free = b"\0\0\0\x09free" + bytes([number])  # an empty box: other bytes, the same film
        (folder / episode["video"]).write_bytes(episode_video().read_bytes() + free)
    catalog = {"series": "fake", "source_language": "en", "languages": ["es", "fr"], "episodes": listed}
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog | fields))
    return folder / "catalog.yaml"


if __name__ == "__main__":
    install()
    from flows.cli import main

    main()
