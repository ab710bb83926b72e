"""Synthesizer: a coqui model (XTTS-v2, VITS …) in a local folder, through the `TTS` library of the `speech` extra.

XTTS-v2's weights have a licence of their own (CPML, not for commerce), which only a user can accept. It can imitate a
person from a sample of some seconds: the voice `clone:Jane Doe` is that of `Jane Doe.wav` in the folder `samples`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from models.engines.local_weights import checked_path, weights_hash
from models.engines.options import Adapter, read_options
from models.errors import EngineError, InputError
from models.ports import EngineHome, Samples, Voice
from models.records import EngineRef, Record

XTTS_LANGUAGES = ("ar", "cs", "de", "en", "es", "fr", "hi", "hu", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "zh")
ONLY_VOICE = "default"
"""The voice of a model that has one."""
CLONE = "clone:"
"""Before the name of a person whose voice is imitated."""


class CoquiOptions(Record):
    """What may be set."""

    path: str = ""
    """A checkpoint with its config.json beside it; or XTTS's folder."""
    sha256: str = ""
    """Of the checkpoint with its config.json, or of XTTS's folder (see `local_weights.weights_hash`)."""
    language: str = ""
    """BCP-47 of a model that speaks one language and does not say which."""
    seed: int = 0
    """These models draw their melody by lot: another seed, another reading."""
    samples: str = ""
    """A folder with a recording of each person who is imitated: `NAME.wav`."""
    samples_sha256: str = ""
    """Of that folder (see `local_weights.weights_hash`)."""


class Coqui(Adapter):
    """Any model of the library, by its path."""

    OPTIONS: ClassVar[type[Record]] = CoquiOptions
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"path", "samples"})

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        self._options = read_options(CoquiOptions, ref.name, ref.options, home.connection)
        self._path = checked_path(ref, home, "model.pth", "config.json")
        self._device = home.device

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """Whether the library is there."""
        return "" if find_spec("TTS") else ("the library TTS is missing. Install it: pip install 'infinidub[speech]' "
                                            "(`make test-extras` shows how on a machine without GPU)")

    @classmethod
    def speaks(cls, language: str) -> bool:
        """Whether XTTS-v2 has the language; other models may."""
        return _primary(language) in XTTS_LANGUAGES

    @property
    def sample_rate(self) -> int:
        """Samples per second, the model's own."""
        return int(self._model.synthesizer.output_sample_rate)

    def voices(self, language: str) -> tuple[Voice, ...]:
        """The model's speakers, if it speaks the language; which of them are men it does not say."""
        if not self._language(language):
            return ()
        return tuple(Voice(name, language) for name in self._model.speakers or [ONLY_VOICE])

    def weights_of(self, voice: str) -> frozenset[str]:
        """None: there are none of the lock."""
        return frozenset()

    @classmethod
    def clones(cls, voice: str) -> str:
        """Whom `clone:NAME` imitates."""
        return voice.removeprefix(CLONE) if voice.startswith(CLONE) else ""

    @cached_property
    def _samples(self) -> dict[str, Path]:
        """Voice → sample, once the folder is what it is said to be."""
        folder, where = Path(self._options.samples).expanduser(), "options.coqui.samples"
        if not self._options.samples:
            return {}
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}", where=where)
        digest = weights_hash(folder)
        if self._options.samples_sha256 != digest:
            raise InputError(f"{folder.name} is not what it is said to be", where=where,
                             hint=f'Where its recordings are right: samples_sha256 = "{digest}"')
        return {f"{CLONE}{file.stem}": file for file in sorted(folder.glob("*.wav"))}

    def check_voice(self, voice: str, language: str) -> None:
        """One of the model's speakers, or of the samples (see `models.ports.Synthesizer`)."""
        voices = [known.id for known in self.voices(language)]
        if voices and self._xtts:
            voices += self._samples
        if voice not in voices:
            known = f"There are: {', '.join(voices)}" if voices else "It does not speak this language"
            raise InputError(f"coqui has no voice {voice!r} for {language}", hint=known)

    def speak(self, text: str, voice: str, language: str, speed: float = 1.0) -> Samples:
        """Voice `text` → (N,) (see `models.ports.Synthesizer`); only XTTS heeds `speed`."""
        import torch

        self.check_voice(voice, language)
        name = self._language(language)
        if not any(map(str.isalnum, text)):
            raise EngineError("there is nothing to say", where=text[:40])
        asked: dict[str, Any] = {"speaker": voice} if self._model.speakers else {}
        if voice in self._samples:
            asked = {"speaker_wav": str(self._samples[voice])}
        if self._model.is_multi_lingual:
            asked["language"] = name
        if self._xtts:
            asked["speed"] = speed
        torch.manual_seed(self._options.seed)
        samples = np.asarray(self._model.tts(text=text, **asked), np.float32).ravel()
        if not samples.size or not np.isfinite(samples).all() or float(np.abs(samples).max()) < 1e-4:
            raise EngineError("coqui said nothing", where=text[:40])
        return np.clip(samples, -1, 1)

    def _language(self, language: str) -> str:
        """The model's own name of a BCP-47 language; '' when it does not speak it."""
        own = self._model.languages if self._model.is_multi_lingual else [self._options.language or self._only]
        return next((name for name in own or [] if name and _primary(name) == _primary(language)), "")

    @cached_property
    def _only(self) -> str:
        """What the configuration of a model with one language says about it."""
        config = self._model.synthesizer.tts_config
        said = getattr(config, "phoneme_language", None) or getattr(config, "language", None) or ""
        if not said:
            raise InputError("the model does not say which language it speaks", where="options.coqui.language",
                             hint='Write it down, e.g. language = "es"')
        return str(said)

    @cached_property
    def _xtts(self) -> bool:
        return "xtts" in str(getattr(self._model.synthesizer.tts_config, "model", "")).lower()

    @cached_property
    def _model(self) -> Any:
        from TTS.api import TTS

        folder = self._path if self._path.is_dir() else self._path.parent
        try:
            return TTS(model_path=str(self._path), config_path=str(folder / "config.json"),
                       progress_bar=False).to(self._device)
        except (OSError, KeyError, ValueError, RuntimeError) as error:
            raise InputError(f"is no coqui model ({error})", where=str(self._path)) from error


def _primary(language: str) -> str:
    return language.replace("_", "-").partition("-")[0].lower()
