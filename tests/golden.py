"""Recorded vectors: configuration and tensor names come from the JSON beside each file.

Those of the published implementation lie in the folder named by INFINITETALK_GOLDEN, which is no part of the project.
Without it the project's own (`record_vectors`) are read; tests that ask for others skip.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from infinitetalk.config import TransformerConfig

OWN = Path(__file__).with_name("vectors")
FOLDER = Path(os.environ.get("INFINITETALK_GOLDEN", "") or OWN)
golden = pytest.mark.golden

FIELDS = {"blocks": "audio_layers", "channels": "audio_channels", "intermediate_dim": "audio_hidden",
          "output_dim": "audio_dim", "context_tokens": "audio_tokens"}
"""Names of the JSON's configuration → ours, where they differ."""


@dataclass(frozen=True)
class Golden:
    """One file of vectors."""

    about: dict[str, Any]
    tensors: dict[str, torch.Tensor]

    def __getitem__(self, name: str) -> torch.Tensor:
        return self.tensors[name]

    def under(self, prefix: str) -> dict[str, torch.Tensor]:
        """Tensors whose names begin with `prefix`, without it."""
        return {name.removeprefix(prefix): value for name, value in self.tensors.items() if name.startswith(prefix)}

    def weights(self, part: str = "") -> dict[str, torch.Tensor]:
        """The recorded weights, under their original names."""
        return self.under(self.about["weights_prefix"] + part)

    @property
    def transformer(self) -> TransformerConfig:
        """Configuration of the recorded transformer."""
        config = {FIELDS.get(name, name): value for name, value in self.about["config"].items() if name != "vae_scale"}
        return TransformerConfig(**config)


def read(name: str) -> Golden:
    """One recorded file by its stem; the test that asks for it skips where it is absent."""
    about = FOLDER / f"{name}.json"
    if not about.is_file():
        pytest.skip(f"{name}.json is not recorded here: set INFINITETALK_GOLDEN to a folder that has it")
    told = json.loads(about.read_text(encoding="utf-8"))
    tensors = load_file(about.with_name(told["file"])) if "file" in told else {}
    return Golden(about=told, tensors=tensors)


def names(prefix: str = "") -> list[str]:
    """Stems of the recorded files, for parametrisation."""
    return sorted(path.stem for path in FOLDER.glob(f"{prefix}*.json"))


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative L2 distance."""
    a, b = ours.detach().double().flatten(), theirs.double().flatten()
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    return float((a - b).norm() / b.norm().clamp_min(1e-30))
