"""Recognizer: Whisper through faster-whisper (CTranslate2). Runs on weights of the lock or a folder of one's own.

To use a larger model, give its folder as `path` and the SHA-256 of its files as `sha256`: the hash enters recipes,
the path does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

import langcodes
from langcodes.tag_parser import LanguageTagError
from pydantic import Field

from models.engines.local_weights import checked_path
from models.engines.options import Adapter, read_options
from models.errors import EngineError, InputError, SetupError
from models.ports import EngineHome, HeardSegment, HeardWord, Recognition, Samples
from models.records import EngineRef, Record

WHISPER_CODES = {"nb": "no", "iw": "he", "jv": "jw", "fil": "tl", "cmn": "zh", "mo": "ro", "in": "id"}
"""Language subtags that Whisper knows under another name."""

HEARD_CODES = {"jw": "jv"}
"""Whisper's own names that BCP-47 does not have."""


class FasterWhisperOptions(Record):
    """What may be set."""

    model: str = "whisper-base"
    """Name in models.lock."""
    path: str = ""
    """Folder of a CTranslate2 Whisper model, instead of the lock's."""
    sha256: str = ""
    """Of the files in `path` (see `local_weights.weights_hash`)."""
    compute_type: str = ""
    """CTranslate2's arithmetic; '' means int8 on a CPU, float16 on a GPU."""
    beam_size: int = Field(default=5, ge=1, le=20)
    vad_threshold: float = Field(default=0.5, gt=0, lt=1)
    """Probability above which the voice activity detector takes 32 ms for speech."""
    initial_prompt: str = ""
    """Names and words to expect."""


def whisper_language(language: str | None, known: Iterable[str]) -> str | None:
    """Whisper's code for a BCP-47 tag; None stays None.

    Raises:
        InputError: The tag is malformed, or Whisper does not know the language.
    """
    if language is None:
        return None
    try:
        primary = langcodes.get(language).language or language
    except LanguageTagError as error:
        raise InputError(f"{language!r} is not a BCP-47 tag", hint="Write for example en, es or pt-BR") from error
    code = WHISPER_CODES.get(primary, primary)
    if code not in set(known):
        raise InputError(f"the recognizer does not know the language {language!r}",
                         hint=f"It knows: {', '.join(sorted(known))}")
    return code


class FasterWhisper(Adapter):
    """Whisper with word times; speech is found first with the silero detector that faster-whisper contains."""

    OPTIONS: ClassVar[type[Record]] = FasterWhisperOptions
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"path"})

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        """Load the model.

        Raises:
            SetupError: Its weights are absent or unusable.
        """
        from faster_whisper import WhisperModel

        self._options = read_options(FasterWhisperOptions, ref.name, ref.options, home.connection)
        folder = checked_path(ref, home, "model.bin") if self._options.path else home.weights(self._options.model)
        compute = self._options.compute_type or ("int8" if home.device == "cpu" else "float16")
        try:
            self._model = WhisperModel(str(folder), device=home.device, compute_type=compute,
                                       cpu_threads=home.threads, local_files_only=True)
        except (RuntimeError, ValueError, OSError) as error:
            raise SetupError(f"the model cannot be loaded: {error}", where=str(folder),
                             hint="It must be the folder of a CTranslate2 Whisper model") from error

    @classmethod
    def required_weights(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The model's name in the lock; nothing when a folder is given."""
        read = read_options(FasterWhisperOptions, "faster-whisper", options)
        return () if read.path else (read.model,)

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """What is not installed."""
        return "" if find_spec("faster_whisper") else "faster-whisper is missing; pip install faster-whisper"

    def recognize(self, samples: Samples, language: str | None) -> Recognition:
        """Transcribe 16 kHz mono samples.

        Returns:
            Segments with word times in seconds. The language is what was heard, with its probability, also when one
            was given. No speech: no segments, probability 0.

        Raises:
            InputError: Whisper does not know the language.
            EngineError: The model failed on this sound.
        """
        import ctranslate2

        code = whisper_language(language, self._model.supported_languages)
        ctranslate2.set_random_seed(0)  # decoding falls back to sampling where it is unsure
        try:
            if not self._speech(samples):
                return Recognition(language or "", 0.0, ())
            heard = self._language(samples)
            segments, _ = self._model.transcribe(
                samples, language=code or heard[0], beam_size=self._options.beam_size, word_timestamps=True,
                condition_on_previous_text=False, vad_filter=True, vad_parameters=self._vad(),
                hallucination_silence_threshold=2.0, initial_prompt=self._options.initial_prompt or None)
            return Recognition(HEARD_CODES.get(heard[0], heard[0]), heard[1], tuple(_segment(s) for s in segments))
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"the model failed: {error}", where="faster-whisper") from error

    def _vad(self) -> Any:
        from faster_whisper.vad import VadOptions

        return VadOptions(threshold=self._options.vad_threshold, min_silence_duration_ms=500, speech_pad_ms=200)

    def _speech(self, samples: Samples) -> bool:
        from faster_whisper.vad import get_speech_timestamps

        return bool(get_speech_timestamps(samples, self._vad()))

    def _language(self, samples: Samples) -> tuple[str, float]:
        language, probability, _ = self._model.detect_language(
            samples, vad_filter=True, vad_parameters=self._vad(), language_detection_segments=4)
        return str(language), float(probability)


def _segment(segment: Any) -> HeardSegment:
    """faster-whisper's segment as the port has it."""
    words = tuple(HeardWord(w.word.strip(), float(w.start), float(w.end), float(w.probability))
                  for w in segment.words or () if w.word.strip())
    return HeardSegment(segment.text.strip(), float(segment.start), float(segment.end), words,
                        no_speech=float(segment.no_speech_prob), log_probability=float(segment.avg_logprob),
                        compression_ratio=float(segment.compression_ratio))
