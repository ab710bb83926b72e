"""Engines by port and name. One adapter a pretrained model or program; heavy libraries are imported inside functions.

To add an engine: one module here with a class that fulfils a port of `models/ports.py`, and one line in `ENGINES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from models.errors import InputError, SetupError
from models.ports import Engine, EngineHome
from models.records import EngineRef, Scalar

ENGINES: dict[str, dict[str, str]] = {
    "recognizer": {
        "faster-whisper": "models.engines.faster_whisper:FasterWhisper",
        "whisperx": "models.engines.whisperx:WhisperX",
    },
    "diarizer": {
        "ge2e": "models.engines.ge2e:Ge2e",
        "pyannote": "models.engines.pyannote:Pyannote",
    },
    "translator": {
        "apertium": "models.engines.apertium:Apertium",
        "ctranslate2": "models.engines.ctranslate2:CTranslate2",
        "openai": "models.engines.openai:OpenAICompatible",
    },
    "synthesizer": {
        "kokoro": "models.engines.kokoro:Kokoro",
        "espeak": "models.engines.espeak:Espeak",
        "coqui": "models.engines.coqui:Coqui",
    },
    "shot-detector": {"scenedetect": "models.engines.scenedetect:ContentCuts"},
    "face-detector": {"dlib": "models.engines.dlib_faces:DlibFaces"},
    "generator": {
        "passthrough": "models.engines.passthrough:Passthrough",
        "files": "models.engines.clip_files:ClipFiles",
    },
}
"""Port → engine name → 'module:Class'."""


def adapter(port: str, name: str) -> type[Engine]:
    """The adapter class of an engine; importing it loads no model.

    Raises:
        InputError: No such engine; the message lists those there are.
    """
    try:
        module, _, attribute = ENGINES[port][name].partition(":")
    except KeyError:
        known = ", ".join(ENGINES.get(port, {}))
        raise InputError(f"no {port} is called {name!r}", hint=f"There are: {known}") from None
    kind: type[Engine] = getattr(import_module(module), attribute)
    return kind


def describe(port: str, name: str, options: Mapping[str, Scalar],
             hashes: Callable[[str], Mapping[str, str]]) -> EngineRef:
    """The engine as it enters recipes.

    Args:
        port: Key of `ENGINES`.
        name: Engine name.
        options: Its settings; those that only say where to reach it are left out of the record.
        hashes: Name in models.lock → file → SHA-256 (read from the lock, no file is touched).
    """
    kind = adapter(port, name)
    weights = {f"{weight}/{file}": digest for weight in kind.required_weights(options)
               for file, digest in hashes(weight).items()}
    return EngineRef(name=name, options={k: v for k, v in sorted(options.items()) if k not in kind.CONNECTION},
                     weights=weights)


def missing(port: str, name: str, options: Mapping[str, Scalar]) -> str:
    """What keeps an engine from working here, besides weights; '' when nothing does."""
    return adapter(port, name).missing(options)


class EngineCache:
    """Engines of this process, each loaded once."""

    def __init__(self, home: Callable[[str, str], EngineHome]) -> None:
        """`home(port, name)` says where an engine runs."""
        self._home = home
        self._loaded: dict[str, Engine] = {}

    def get(self, port: str, ref: EngineRef) -> Engine:
        """The engine of `port` that `ref` names.

        Raises:
            SetupError: A library, program or weight is missing; the message says how to get it.
        """
        key = f"{port}:{ref.model_dump_json()}"
        if key not in self._loaded:
            kind, home = adapter(port, ref.name), self._home(port, ref.name)
            lack = kind.missing({**ref.options, **home.connection})
            if lack:
                raise SetupError(lack, where=f"{port} {ref.name}")
            self._loaded[key] = kind(ref, home)
        return self._loaded[key]
