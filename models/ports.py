"""Ports: what the steps need of the world. One adapter each under `engines/`, found by name, proven by one suite.

Audio is float32 in [-1, 1], mono, shape (N,); pictures are uint8 RGB, shape (H, W, 3). Engines speak seconds; the
steps turn them into ticks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from models.languages import Guess
from models.records import Candidate, EngineRef, FaceTrack, Placement, Record, ShotRequest

Samples = NDArray[np.float32]  # (N,)
Stereo = NDArray[np.float32]  # (N, 2)
Image = NDArray[np.uint8]  # (H, W, 3)
Frames = NDArray[np.uint8]  # (F, H, W, 3)


@dataclass(frozen=True)
class EngineHome:
    """Where an engine runs: everything it needs that must not enter a recipe."""

    weights: Callable[[str], Path]
    """Name in models.lock → verified folder. Raises `SetupError` naming the `models pull` that mends it."""
    threads: int = 2
    device: str = "cpu"
    connection: Mapping[str, Any] = field(default_factory=dict)
    """Settings named in the adapter's CONNECTION: endpoint addresses and the like."""
    secret: Callable[[str], str] = lambda name: ""
    """Name of a secret → its value; values never enter records, logs or errors."""


class Engine(Protocol):
    """What every adapter has, whatever its port."""

    VERSION: ClassVar[int]
    """Raised by hand whenever the adapter's code gives other answers to the same question."""
    OPTIONS: ClassVar[type[Record]]
    """What may be set, with its defaults."""
    CONNECTION: ClassVar[frozenset[str]]
    """Option names that say where to reach the engine, not what it answers: kept out of recipes."""
    OWN_FILES: ClassVar[str]
    """How the names of those weights begin that are a user's files, not the lock's, and that it checks itself; ''."""
    CAUTION: ClassVar[str]
    """What a user must know before he takes it, as one clause; '' where nothing."""

    def __init__(self, ref: EngineRef, home: EngineHome) -> None: ...

    @classmethod
    def required_weights(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Names in models.lock of the weights it runs on with these options."""
        ...

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """What is missing on this machine besides weights, and the command that mends it; '' when nothing is."""
        ...


# -- recognizer -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeardWord:
    """A recognised word; times in seconds."""

    text: str
    start: float
    end: float
    probability: float


@dataclass(frozen=True)
class HeardSegment:
    """What a recognizer takes for one utterance, with the figures that its guards need."""

    text: str
    start: float
    end: float
    words: tuple[HeardWord, ...]
    no_speech: float = 0.0
    log_probability: float = 0.0
    compression_ratio: float = 1.0


@dataclass(frozen=True)
class Recognition:
    """A recognizer's answer."""

    language: str
    language_probability: float
    segments: tuple[HeardSegment, ...]


class Recognizer(Engine, Protocol):
    """Speech to text with word times."""

    def recognize(self, samples: Samples, language: str | None) -> Recognition:
        """Transcribe 16 kHz `samples`; `language` (BCP-47) None means: find out."""
        ...


# -- diarizer ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """A stretch of speech by one voice; seconds; speakers named 'A', 'B' … in order of appearance."""

    start: float
    end: float
    speaker: str


class Diarizer(Engine, Protocol):
    """Who speaks when, and what he sounds like."""

    SAME_VOICE: ClassVar[float]
    """Cosine of two embeddings, each of many seconds, from which they are taken for one voice."""

    def diarize(self, samples: Samples, speech: Sequence[tuple[float, float]]) -> tuple[Turn, ...]:
        """Label 16 kHz `samples`; `speech` are the spans (seconds) in which words were recognised."""
        ...

    def embed(self, stretches: Sequence[Samples]) -> NDArray[np.float32]:
        """The voices in K stretches of 16 kHz sound, of half a second or more each, as vectors of length 1 (K, D)."""
        ...


# -- translator -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Around:
    """What is said around a line, in the source language; a line of somebody else begins with '– '."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A translation that is to be made once more."""

    text: str
    """The source line."""
    said: str
    """What it was translated into; '' where there was no usable answer."""
    wrong: tuple[str, ...] = ()
    """What is wrong with it."""
    longest: int | None = None
    """Characters that there is time for; None: it need not be shorter."""


class Translator(Engine, Protocol):
    """Text to text, keyed by line id."""

    REVISES: ClassVar[bool]
    """Whether it can be told what was wrong with an answer."""

    def pairs(self) -> frozenset[tuple[str, str]] | None:
        """Primary-language pairs it can do; None: it cannot tell beforehand."""
        ...

    def translate(self, lines: Mapping[str, str], source: str, target: str, glossary: Mapping[str, str],
                  around: Mapping[str, Around]) -> dict[str, tuple[Candidate, ...]]:
        """Translate each line.

        Args:
            lines: Line id → source text, in the order of the episode.
            source: BCP-47 of the source.
            target: BCP-47 of the target.
            glossary: Source term → required target term (the same term: do not translate).
            around: Line id → what is said around it; for engines whose option `context` asks for it.

        Returns:
            Line id → candidates, best first, none of them empty. An id that has none is left out, and no other is
            there: a line is never given what may belong to another.
        """
        ...

    def revise(self, drafts: Mapping[str, Draft], source: str, target: str,
               glossary: Mapping[str, str]) -> dict[str, tuple[Candidate, ...]]:
        """Translate lines once more, knowing what was wrong; {} where `REVISES` is False. Else like `translate`."""
        ...


# -- language identifier ----------------------------------------------------------------------------------------------


class LanguageIdentifier(Engine, Protocol):
    """Which language a text is in."""

    def identify(self, text: str) -> Guess:
        """The most probable language of a text and its probability; `models.languages.sure` says what it is worth."""
        ...


# -- synthesizer ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Voice:
    """A voice that a synthesizer offers."""

    id: str
    language: str
    """BCP-47."""
    gender: str = ""
    """'female', 'male' or ''."""


class Synthesizer(Engine, Protocol):
    """Text to speech."""

    sample_rate: int

    def voices(self, language: str) -> tuple[Voice, ...]:
        """The engine's own voices for a BCP-47 tag, best first; empty when the language is not spoken.

        Voices that imitate a person are not among them: nobody gets one by default.
        """
        ...

    def weights_of(self, voice: str) -> frozenset[str]:
        """Names of those weights of its `EngineRef` that what `voice` says depends on."""
        ...

    @classmethod
    def clones(cls, voice: str) -> str:
        """Name of the person whose voice `voice` imitates from a sample; '' for a voice of the engine's own."""
        ...

    def check_voice(self, voice: str, language: str) -> None:
        """Raise `InputError` where `voice` is not known, or not for the language; the message lists those that are."""
        ...

    def speak(self, text: str, voice: str, language: str, speed: float = 1.0) -> Samples:
        """Voice `text` at `sample_rate`; `speed` 1.1 asks for a tempo a tenth faster where the engine can.

        Raises:
            InputError: The voice is not known; the message lists those that are.
            EngineError: Nothing audible came out.
        """
        ...


# -- separator --------------------------------------------------------------------------------------------------------


class Separator(Engine, Protocol):
    """Finds what is spoken (or sung) in a mix."""

    sample_rate: int

    def voices(self, sound: Stereo) -> Stereo:
        """The voices alone, of sound at `sample_rate`, as long as it: the rest is what is left when they are taken off.

        Raises:
            EngineError: It failed on this sound.
        """
        ...


# -- shots and faces --------------------------------------------------------------------------------------------------


class ShotDetector(Engine, Protocol):
    """Finds cuts."""

    def cuts(self, video: Path) -> list[int]:
        """Frame indices at which a new shot begins, without 0, ascending."""
        ...


class FaceDetector(Engine, Protocol):
    """Finds faces."""

    def detect(self, image: Image) -> list[tuple[int, int, int, int]]:
        """Face boxes (x, y, width, height) in pixels of `image` (H, W, 3)."""
        ...


# -- watermarker ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mark:
    """A watermark that was found."""

    payload: int
    """What was embedded: 32 bits."""
    false_alarm: float
    """Bound of the probability that sound without a mark gives so clear an answer."""


class Watermarker(Engine, Protocol):
    """Hides a short number in sound, and finds it in copies. 48 kHz; memory does not grow with the length."""

    def embed(self, blocks: Iterable[Samples], payload: int) -> Iterator[Samples]:
        """The sound with the mark.

        Args:
            blocks: The sound in pieces of any length, (n, C).
            payload: 32 bits.

        Yields:
            (n, C); as many samples in all as were given, each at its place.
        """
        ...

    def detect(self, blocks: Iterable[Samples]) -> Mark | None:
        """Look for a mark in mono sound that may have been cut, scaled, re-encoded: pieces (n,) of any length."""
        ...


# -- signer -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SignedIngredient:
    """Something that went into a file, as its content credentials name it."""

    path: Path
    title: str
    relationship: Literal["parentOf", "componentOf"]
    label: str
    """Name by which actions of the manifest refer to it."""
    id: str
    """`sha256:…`."""
    media_type: str = "application/octet-stream"


class Signer(Engine, Protocol):
    """Puts content credentials into files."""

    def sign(self, source: Path, target: Path, manifest: Mapping[str, Any], ingredients: Sequence[SignedIngredient],
             certificate: str) -> None:
        """Write a copy of the MP4 `source` with a signed manifest.

        Args:
            source: What is signed.
            target: Where the copy goes; it is read back and verified.
            manifest: Definition in the JSON form of the C2PA library.
            ingredients: What the manifest's actions refer to; credentials they bring are kept.
            certificate: SHA-256 of the certificate that must sign.

        Raises:
            InputError: The certificate is another one, expired, or does not fit its key.
            InfrastructureError: The time stamp authority does not answer.
            EngineError: It was not signed, or does not verify.
        """
        ...

    def check(self) -> None:
        """See that it can sign, before anything is made that is to be signed.

        Raises:
            InputError: The certificate or its key cannot be used.
            InfrastructureError: The time stamp authority does not answer.
        """
        ...


class FaceEmbedder(Engine, Protocol):
    """Tells faces apart."""

    SAME_PERSON: ClassVar[float]
    """Euclidean distance of two embeddings up to which they are the same person's."""

    def embed(self, frames: Frames) -> NDArray[np.float32]:
        """Of the largest face of each picture (F, H, W, 3): (F, D); NaN where there is none."""
        ...


@dataclass(frozen=True)
class LipSync:
    """How lips that are seen go with a voice that is heard."""

    score: float
    """How well, by the scorer's own measure; higher is better."""
    late: float
    """Seconds by which the lips come after the voice that they fit best; negative: before it."""
    words: str = ""
    """Further figures, for people."""


class LipScorer(Engine, Protocol):
    """Judges whether lips follow a voice."""

    MEASURE: ClassVar[str]
    """What its score is called."""
    LEAST: ClassVar[float]
    """Of the score of lips that follow the voice."""

    def score(self, frames: Frames, faces: NDArray[np.float32], voice: Samples, spoken: NDArray[np.bool_]) -> LipSync:
        """Look at one face.

        Args:
            frames: 25 a second, (F, H, W, 3).
            faces: Its box in each, left, top, right, bottom in pixels: (F, 4).
            voice: What it should say, 16 kHz, from the first frame on.
            spoken: Frames in which it speaks, or nearly, (F,).

        Raises:
            EngineError: That is too little to tell.
        """
        ...


# -- generator --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkGeometry:
    """A generator's own step: `frames` a chunk, of which the first `context` repeat the chunk before."""

    frames: int
    context: int

    def chunks(self, shot_frames: int) -> int:
        """Chunks that a shot of `shot_frames` takes (the first chunk's frames are all new)."""
        step = self.frames - self.context
        return 1 + max(0, -(-(shot_frames - self.frames) // step))


@dataclass(frozen=True)
class ShotInput:
    """A shot as a generator sees it."""

    request: ShotRequest
    frame: Callable[[int], Image]
    """Source frame by its index *within the shot* at the generation rate, clamped to the shot: (H, W, 3), read-only."""
    tracks: Mapping[str, Samples]
    """Speaker → 16 kHz audio of exactly the shot's length, digital silence where he is silent."""
    faces: tuple[FaceTrack, ...] = ()


@dataclass(frozen=True)
class Chunk:
    """New frames, and the state from which the next chunk goes on."""

    index: int
    frames: Frames  # (F, H, W, 3) uint8, context frames not repeated
    state: bytes
    """Serialised ChunkState (safetensors): resuming from it gives bit-identical frames."""


class Generator(Engine, Protocol):
    """Re-generates a shot's picture, chunk by chunk."""

    geometry: ChunkGeometry

    @classmethod
    def gpu_seconds(cls, request: ShotRequest) -> float | None:
        """What a shot should take on the GPU by the engine's own model, start-up not counted; None: it has none."""
        ...

    def check_memory(self) -> None:
        """See that the GPU has room for the engine before anything is loaded.

        Raises:
            CapacityError: It has not, now.
        """
        ...

    def load(self, request: ShotRequest) -> None:
        """Load what a shot needs, which its first chunk would otherwise do: so that start-up is told from work."""
        ...

    def placement(self, request: ShotRequest) -> tuple[int, int, Placement]:
        """(width, height) of the frames it makes, and where they belong in the source frame."""
        ...

    def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
        """Yield chunks `start_chunk` … last; `state` is that of chunk `start_chunk - 1`, None at the beginning.

        The chunks' new frames, put together, are at least the shot's length; the caller trims the padding.
        """
        ...
