"""Recognizer: WhisperX. Batched Whisper over the speech that its bundled pyannote detector finds.

Word times come from a wav2vec 2.0 aligner where one is given (`aligner`, a name for recipes, with `aligner_path` and
`nltk_path`), else from Whisper's own attention. Nothing is downloaded: every model is a folder or in the package.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from models.engines.faster_whisper import HEARD_CODES, whisper_language
from models.engines.local_weights import checked_path
from models.engines.options import Adapter, read_options
from models.errors import EngineError, SetupError
from models.ports import EngineHome, HeardSegment, HeardWord, Recognition, Samples
from models.records import EngineRef, Record

RATE = 16_000
SHORTEST = 0.1
"""Seconds of sound below which there is no word in it."""
LEADING, TRAILING = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"
"""Punctuation that belongs to the word after it, and to the word before it."""


class WhisperXOptions(Record):
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
    batch_size: int = Field(default=4, ge=1)
    vad_onset: float = Field(default=0.5, gt=0, lt=1)
    vad_offset: float = Field(default=0.363, gt=0, lt=1)
    aligner: str = ""
    """A name for recipes of the aligner in `aligner_path`; '': Whisper's own word times."""
    aligner_path: str = ""
    """Folder of a transformers Wav2Vec2ForCTC with its processor, for the source language."""
    nltk_path: str = ""
    """Folder of NLTK data with `tokenizers/punkt_tab`, which WhisperX wants for aligning."""


class WhisperX(Adapter):
    """WhisperX on local models."""

    OPTIONS: ClassVar[type[Record]] = WhisperXOptions
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"path", "aligner_path", "nltk_path"})

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        """Load the model.

        Raises:
            SetupError: Weights are absent or unusable.
        """
        silence()
        import whisperx

        self._options = options = read_options(WhisperXOptions, ref.name, ref.options, home.connection)
        self._device = home.device
        folder = checked_path(ref, home, "model.bin") if options.path else home.weights(options.model)
        compute = options.compute_type or ("int8" if home.device == "cpu" else "float16")
        try:
            self._pipeline = whisperx.load_model(
                str(folder), home.device, compute_type=compute, threads=home.threads, local_files_only=True,
                vad_method="pyannote", asr_options={"beam_size": options.beam_size},
                vad_options={"vad_onset": options.vad_onset, "vad_offset": options.vad_offset})
        except (RuntimeError, ValueError, OSError) as error:
            raise SetupError(f"the model cannot be loaded: {error}", where=str(folder),
                             hint="It must be the folder of a CTranslate2 Whisper model") from error
        if options.aligner:
            self._check_aligner()

    @classmethod
    def required_weights(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The model's name in the lock; nothing when a folder is given."""
        read = read_options(WhisperXOptions, "whisperx", options)
        return () if read.path else (read.model,)

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """What is not installed."""
        return "" if find_spec("whisperx") else "whisperx is missing; see infra/extras/test.sh for how it installs"

    def recognize(self, samples: Samples, language: str | None) -> Recognition:
        """Transcribe 16 kHz mono samples; the language is the one that was heard, also when another was given.

        Raises:
            InputError: Whisper does not know the language.
            EngineError: The model failed on this sound.
        """
        model = self._pipeline.model
        code = whisper_language(language, model.supported_languages)
        if len(samples) < SHORTEST * RATE:
            return Recognition(language or "", 0.0, ())
        try:
            heard, probability, _ = model.detect_language(samples, vad_filter=True, language_detection_segments=4)
            spoken = self._pipeline.transcribe(samples, batch_size=self._options.batch_size, language=code or heard)
            segments = [segment for segment in spoken["segments"] if segment["text"].strip()]
            if not segments:
                return Recognition(language or "", 0.0, ())
            words = (self._aligned if self._options.aligner else self._attended)(segments, samples, code or heard)
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"the model failed: {error}", where="whisperx") from error
        return Recognition(HEARD_CODES.get(heard, heard), float(probability), tuple(
            HeardSegment(segment["text"].strip(), segment["start"], segment["end"], tuple(own),
                         log_probability=float(segment.get("avg_logprob", 0.0)))
            for segment, own in zip(segments, words, strict=True)))

    def _attended(self, segments: Sequence[dict[str, Any]], samples: Samples, code: str) -> list[list[HeardWord]]:
        """Words of each segment with the times at which Whisper attended to them."""
        from faster_whisper.audio import pad_or_trim
        from faster_whisper.tokenizer import Tokenizer
        from faster_whisper.transcribe import merge_punctuations

        model = self._pipeline.model
        tokenizer = Tokenizer(model.hf_tokenizer, model.model.is_multilingual, task="transcribe", language=code)
        result = []
        for segment in segments:
            part = samples[int(segment["start"] * RATE):int(segment["end"] * RATE)]
            features = model.feature_extractor(part)
            words = model.find_alignment(tokenizer, [tokenizer.encode(segment["text"])],
                                         model.encode(pad_or_trim(features)), features.shape[-1])[0]
            merge_punctuations(words, LEADING, TRAILING)
            result.append([HeardWord(word["word"].strip(), segment["start"] + float(word["start"]),
                                     min(segment["start"] + float(word["end"]), len(samples) / RATE),
                                     min(1.0, float(word["probability"])))
                           for word in words if word["word"].strip()])
        return result

    def _aligned(self, segments: Sequence[dict[str, Any]], samples: Samples, code: str) -> list[list[HeardWord]]:
        """Words of each segment with the aligner's times; a word it could not place begins where the last one ended."""
        import whisperx

        model, metadata = whisperx.load_align_model(code, self._device, model_name=self._options.aligner_path,
                                                    model_cache_only=True)
        result = []
        for segment in segments:
            aligned = whisperx.align([segment], model, metadata, samples, self._device)
            reached, words = segment["start"], []
            for word in (word for piece in aligned["segments"] for word in piece["words"]):
                start = max(reached, float(word.get("start", reached)))
                reached = max(start, float(word.get("end", start)))
                words.append(HeardWord(word["word"].strip(), start, reached, float(word.get("score", 0.5))))
            result.append(words)
        return result

    def _check_aligner(self) -> None:
        import nltk  # type: ignore[import-not-found]

        folder = Path(self._options.aligner_path)
        if not (folder / "config.json").is_file():
            raise SetupError("there is no aligner here", where=str(folder) or "aligner_path",
                             hint="Give the folder of a transformers Wav2Vec2ForCTC as aligner_path")
        if self._options.nltk_path and self._options.nltk_path not in nltk.data.path:
            nltk.data.path.insert(0, self._options.nltk_path)
        try:
            nltk.data.find("tokenizers/punkt_tab")
        except LookupError as error:
            raise SetupError("NLTK's punkt_tab is missing, which WhisperX needs for aligning",
                             hint="Unpack it to NLTK_PATH/tokenizers/punkt_tab and give nltk_path") from error


def silence() -> None:
    """No telemetry, and no progress on standard error, from WhisperX and pyannote."""
    from pyannote.audio.telemetry import set_telemetry_metrics

    set_telemetry_metrics(False)
    for name in ("whisperx", "lightning.pytorch", "pytorch_lightning", "pyannote"):
        logging.getLogger(name).setLevel(logging.ERROR)
