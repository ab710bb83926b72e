"""Engines by port and name. One adapter a pretrained model or program; heavy libraries are imported inside functions.

To add an engine: one module here with a class that fulfils a port of `models/ports.py`, and one line in `ENGINES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module

from models.engines.options import read_options
from models.errors import InputError, SetupError
from models.lockfile import LOCK
from models.ports import Engine, EngineHome
from models.records import EngineRef, Scalar
from models.weights import WeightStore

ENGINES: dict[str, dict[str, str]] = {
    "recognizer": {
        "faster-whisper": "models.engines.faster_whisper:FasterWhisper",
        "whisperx": "models.engines.whisperx:WhisperX",
    },
    "diarizer": {
        "ge2e": "models.engines.ge2e:Ge2e",
        "pyannote": "models.engines.pyannote:Pyannote",
    },
    "language-identifier": {"py3langid": "models.engines.py3langid:Py3Langid"},
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
    "separator": {"demucs": "models.engines.demucs:Demucs"},
    "shot-detector": {"scenedetect": "models.engines.scenedetect:ContentCuts"},
    "face-detector": {"dlib": "models.engines.dlib_faces:DlibFaces"},
    "face-embedder": {"dlib-resnet": "models.engines.dlib_identity:DlibIdentity"},
    "lip-scorer": {
        "lip-reader": "models.engines.lip_reader:LipReader",
        "syncnet": "models.engines.syncnet:SyncNet",
    },
    "watermarker": {"spread-spectrum": "models.engines.spread_spectrum:SpreadSpectrum"},
    "signer": {"c2pa": "models.engines.c2pa_signer:C2paSigner"},
    "generator": {
        "passthrough": "models.engines.passthrough:Passthrough",
        "files": "models.engines.clip_files:ClipFiles",
        "infinitetalk": "models.engines.infinitetalk:InfiniteTalk",
        "nano": "models.engines.small:Nano",
        "lite": "models.engines.small:Lite",
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
        options: Its settings. Defaults are filled in, so that a changed default is another engine; those that only say
            where to reach it are left out.
        hashes: Name in models.lock → file → SHA-256 (read from the lock, no file is touched).

    Raises:
        InputError: No such engine, or an option is unknown or wrong.
    """
    kind = adapter(port, name)
    read = read_options(kind.OPTIONS, name, options)
    weights = {f"{weight}/{file}": digest for weight in kind.required_weights(options)
               for file, digest in hashes(weight).items()}
    return EngineRef(name=name, version=kind.VERSION, weights=weights,
                     options=dict(sorted(read.model_dump(mode="json", exclude=set(kind.CONNECTION)).items())))


def missing(port: str, name: str, options: Mapping[str, Scalar]) -> str:
    """What keeps an engine from working here, besides weights; '' when nothing does.

    Raises:
        InputError: No such engine, or an option is unknown or wrong.
    """
    kind = adapter(port, name)
    read_options(kind.OPTIONS, name, options)
    return kind.missing(options)


def checked(port: str, ref: EngineRef, home: EngineHome, hashes: Callable[[str], Mapping[str, str]]) -> EngineRef:
    """The whole engine that a request asks for, perhaps one from elsewhere, once it is certain that it will answer.

    A request may name fewer weights than the engine has: those it depends on.

    Raises:
        InputError: Other options, weights or another version; its results would stand under a wrong recipe. Or an
            option that says where to reach the engine, which this machine's settings alone decide.
    """
    kind, where = adapter(port, ref.name), f"{port} {ref.name}"
    reached = sorted(ref.options.keys() & kind.CONNECTION)
    if reached:
        raise InputError(f"a request must not say {', '.join(reached)}", where=where,
                         hint="Only the settings of the machine that runs it do")
    ours = describe(port, ref.name, {**ref.options, **home.connection}, hashes)
    asked = {file: digest for file, digest in ref.weights.items()
             if not (kind.OWN_FILES and file.startswith(kind.OWN_FILES))}
    if (ref.version, ref.options) != (ours.version, ours.options) or not asked.items() <= ours.weights.items():
        other = [file for file, digest in asked.items() if ours.weights.get(file) != digest]
        raise InputError("is not the engine that was asked for: " + (f"{other[0]} is another file" if other else
                         "it has another version or other options"), where=where,
                         hint="Plan with the same version of infinidub as this one")
    return ours


@cache
def _locked() -> WeightStore:
    return WeightStore(LOCK.parent)


class EngineCache:
    """Engines of this process, each loaded once."""

    def __init__(self, home: Callable[[str, str], EngineHome],
                 hashes: Callable[[str], Mapping[str, str]] = lambda name: _locked().hashes(name)) -> None:
        """`home(port, name)` says where an engine runs; `hashes` are those of the weights (see `describe`)."""
        self._home, self._hashes = home, hashes
        self._loaded: dict[str, Engine] = {}

    def get(self, port: str, ref: EngineRef) -> Engine:
        """The engine of `port` that `ref` names.

        Raises:
            SetupError: A library, program or weight is missing; the message says how to get it.
            InputError: `ref` is not the engine that is here (see `checked`).
        """
        kind, home = adapter(port, ref.name), self._home(port, ref.name)
        whole = checked(port, ref, home, self._hashes)
        key = f"{port}:{whole.model_dump_json()}"
        if key not in self._loaded:
            lack = missing(port, ref.name, {**ref.options, **home.connection})
            if lack:
                raise SetupError(lack, where=f"{port} {ref.name}")
            self._loaded[key] = kind(whole, home)
        return self._loaded[key]
