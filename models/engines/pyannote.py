"""Diarizer: a pyannote.audio pipeline, such as speaker-diarization-community-1, from a folder.

Its weights are given out under conditions that everybody accepts for himself, so models.lock does not hold them:
download the pipeline once, and give its folder as `path`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from models.engines.ge2e import speaker_name
from models.engines.local_weights import checked_path
from models.engines.options import Adapter, read_options
from models.errors import EngineError, SetupError
from models.ports import EngineHome, Samples, Turn
from models.records import EngineRef, Record

RATE = 16_000


class PyannoteOptions(Record):
    """What may be set."""

    path: str = ""
    """Folder of the pipeline, with its config.yaml."""
    sha256: str = ""
    """Of the files in `path` (see `local_weights.weights_hash`)."""
    min_speakers: int = Field(default=0, ge=0)
    max_speakers: int = Field(default=0, ge=0)
    """0: as many as there seem to be."""


class Pyannote(Adapter):
    """Labels speech by voice, one voice at a time."""

    OPTIONS: ClassVar[type[Record]] = PyannoteOptions
    SAME_VOICE: ClassVar[float] = 0.5
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"path"})

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        """Load the pipeline.

        Raises:
            SetupError: The folder holds none.
        """
        from pyannote.audio import Pipeline
        from pyannote.audio.telemetry import set_telemetry_metrics

        set_telemetry_metrics(False)
        self._options = read_options(PyannoteOptions, ref.name, ref.options, home.connection)
        path = checked_path(ref, home, "embedding/pytorch_model.bin")
        try:
            self._pipeline = Pipeline.from_pretrained(path)
        except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
            raise SetupError(f"the pipeline cannot be loaded: {error}", where=str(path),
                             hint="It must be the folder of a pyannote.audio pipeline, with its config.yaml") from error
        if home.device != "cpu":
            import torch

            self._pipeline.to(torch.device(home.device))

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """What is not installed or not given."""
        if not find_spec("pyannote"):
            return "pyannote.audio is missing; pip install 'infinidub[diarization]'"
        path = read_options(PyannoteOptions, "pyannote", options).path
        if not (Path(path) / "config.yaml").is_file():
            return f"there is no pyannote pipeline in {path!r}; download one and give its folder as path"
        return ""

    def diarize(self, samples: Samples, speech: Sequence[tuple[float, float]]) -> tuple[Turn, ...]:
        """Label 16 kHz samples; pyannote finds speech by itself, and what lies outside `speech` is left out.

        Raises:
            EngineError: The pipeline failed on this sound.
        """
        import torch

        if not speech or not len(samples):
            return ()
        limits = {"min_speakers": self._options.min_speakers, "max_speakers": self._options.max_speakers}
        try:
            found = self._pipeline({"waveform": torch.from_numpy(samples)[None], "sample_rate": RATE},
                                   **{key: value for key, value in limits.items() if value})
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"the pipeline failed: {error}", where="pyannote") from error
        tracks = found.exclusive_speaker_diarization.itertracks(yield_label=True)
        return _within([(segment.start, segment.end, label) for segment, _, label in tracks], speech)

    def embed(self, stretches: Sequence[Samples]) -> NDArray[np.float32]:
        """The voices in K stretches by the pipeline's own encoder (K, D).

        Raises:
            EngineError: A stretch is too short for it, or it failed.
        """
        import torch

        try:
            found = [self._pipeline._embedding(torch.from_numpy(np.array(samples))[None, None])[0]
                     for samples in stretches]
        except (RuntimeError, ValueError) as error:
            raise EngineError(f"the speaker encoder failed: {error}", where="pyannote") from error
        vectors: NDArray[np.float32] = np.array(found, np.float32)
        if not np.isfinite(vectors).all():
            raise EngineError("the speaker encoder found no voice in a stretch", where="pyannote")
        unit: NDArray[np.float32] = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
        return unit


def _within(tracks: Sequence[tuple[float, float, str]], speech: Sequence[tuple[float, float]]) -> tuple[Turn, ...]:
    """Tracks cut to the spans of speech, named in order of appearance."""
    parts = sorted((max(start, a), min(end, b), label) for start, end, label in tracks for a, b in speech
                   if min(end, b) > max(start, a))
    names: dict[str, str] = {}
    return tuple(Turn(start, end, names.setdefault(label, speaker_name(len(names)))) for start, end, label in parts)
