"""Separator: Hybrid Transformer Demucs (Rouard, Massa, Défossez 2022), trained on music, used for what is spoken.

Weights by the author's own safetensors; the library is `demucs-infer`, which is demucs without what it needs for
training and for MP3 (torchaudio, and LAME under the LGPL).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from models.engines.options import Adapter, read_options
from models.errors import EngineError, SetupError
from models.ports import EngineHome, Stereo
from models.records import EngineRef, Record

WEIGHTS, FILE = "htdemucs", "955717e8.safetensors"
VOICES = "vocals"


class DemucsOptions(Record):
    """What may be set."""

    overlap: float = Field(default=0.25, ge=0, le=0.5)
    """Share of a segment (7.8 s) that is computed twice and cross-faded."""


class Demucs(Adapter):
    """Takes voices out of stereo sound."""

    OPTIONS: ClassVar[type[Record]] = DemucsOptions
    sample_rate = 44_100

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        """Load the network.

        Raises:
            SetupError: The weights are absent or another model's.
        """
        from demucs_infer.safetensors import load_safetensors_model
        from safetensors import SafetensorError

        self._options, self._home = read_options(DemucsOptions, ref.name, ref.options), home
        path = home.weights(WEIGHTS) / FILE
        try:
            self._model = load_safetensors_model(path).eval()
            self._index = self._model.sources.index(VOICES)
        except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
            raise SetupError(f"not the weights of a demucs that knows {VOICES}: {str(error)[:200]}",
                             where=str(path)) from error
        if (self._model.samplerate, self._model.audio_channels) != (self.sample_rate, 2):
            raise SetupError("is not a demucs for stereo at 44.1 kHz", where=str(path))

    @classmethod
    def required_weights(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The network."""
        return (WEIGHTS,)

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """What is not installed."""
        lacks = [name for name in ("demucs_infer", "safetensors", "torch") if not find_spec(name)]
        return f"{', '.join(lacks)} missing; pip install 'infinidub[separation]'" if lacks else ""

    def voices(self, sound: Stereo) -> Stereo:
        """The voices in 44.1 kHz sound (N, 2) → (N, 2); the same for the same sound.

        Raises:
            EngineError: The network failed on this sound.
        """
        import torch
        from demucs_infer.apply import apply_model

        if not sound.any():
            return np.zeros_like(sound)
        middle = sound.mean(axis=1)
        level = max(float(middle.std()), float(sound.std()) / 10) + 1e-8  # as it was trained: around 0, as loud as 1
        if self._home.device == "cpu":
            torch.set_num_threads(self._home.threads)
        given = torch.from_numpy(np.ascontiguousarray((sound - middle.mean()) / level, np.float32).T)[None]
        try:
            with torch.inference_mode():  # no random shifts: the recipe would not say which
                found = apply_model(self._model, given, shifts=0, overlap=self._options.overlap,
                                    device=self._home.device)
        except RuntimeError as error:
            raise EngineError(f"the network failed: {str(error)[:200]}", where="demucs") from error
        return np.asarray(found[0, self._index].T.cpu().numpy() * level, np.float32)
