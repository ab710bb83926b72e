"""A folder of small weights (`config.json`, codec, speech encoder, transformer) → the engine."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from infinitetalk.attention import choose
from infinitetalk.audio import AudioEncoder
from infinitetalk.engine import Engine
from infinitetalk.errors import BadWeightsError
from infinitetalk.guidance import Guidance
from infinitetalk.networks import Networks
from infinitetalk.sampling import Sampling
from infinitetalk.small import codec, speech
from infinitetalk.small.config import SmallConfig
from infinitetalk.small.transformer import SmallTransformer
from infinitetalk.small.vision import LatentVision, NoText
from infinitetalk.stream import StreamSettings
from infinitetalk.text import TextEncoder
from infinitetalk.weights import assemble, open_tensors

DIT = "dit.safetensors"
SHIPPED = Path(__file__).parent.parent / "weights"
"""Weights that come with the package, a folder a size."""
SHIFT = 3.0
"""Of the schedule: that of training."""
TEMPERATURE = 0.5
"""So light a network takes some of the noise for picture: with less of it there are fewer blotches (docs/small.md)."""


def load(folder: Path, device: torch.device | str = "cpu") -> Engine:
    """Load the engine with small networks, in float32; for one speaker, without prompts.

    Args:
        folder: Holds the four files; nothing else in it is read.
        device: Where to compute.

    Raises:
        BadWeightsError: A file is absent, damaged, or of another configuration.
    """
    config = SmallConfig.read(folder)
    transformer = load_transformer(folder / DIT, config, device)
    small = codec.SmallCodec.read(folder / codec.WEIGHTS, config.codec, device=device)
    heard = speech.SpeechFeatures.read(folder / speech.WEIGHTS, config.speech, device=device)
    # stand-ins: the engine asks no more of them than that they can be called so
    return Engine(Networks(transformer, small, LatentVision(small), "pictures"),
                  cast(TextEncoder, NoText(config.transformer.text_dim)), cast(AudioEncoder, heard), persons=1)


def load_transformer(file: Path, config: SmallConfig, device: torch.device | str = "cpu") -> SmallTransformer:
    """The transformer of a file of weights, frozen.

    Raises:
        BadWeightsError: It is absent, damaged, or was trained with another configuration.
    """
    stored = open_tensors([file])
    trained = _trained_with(file)
    if trained != config.digest():
        raise BadWeightsError(f"was trained with configuration {trained or 'unknown'}, not {config.digest()}",
                              where=str(file), hint="Keep the config.json that was written beside it")
    with torch.device("meta"):
        transformer = SmallTransformer(config.transformer, choose("auto", device))
    network: SmallTransformer = assemble(transformer, stored, torch.float32, device)
    network.eval().requires_grad_(requires_grad=False)
    return network


def settings(config: SmallConfig, steps: int = 8, audio: float = 1.0, color: float = 1.0) -> StreamSettings:
    """How small networks are streamed: in the chunks that they were trained on, never guided by text.

    Args:
        config: Of the weights.
        steps: Of the sampler.
        audio: Scale of guidance by audio; 1: none, and half the work.
        color: Strength of the colour correction.

    Raises:
        BadInputError: No stream can be so.
    """
    return StreamSettings(size=config.chunk, color=color,
                          sampling=Sampling(steps=steps, shift=SHIFT, guidance=Guidance(text=1.0, audio=audio),
                                            temperature=TEMPERATURE))


def _trained_with(file: Path) -> str:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as opened:
        return str((opened.metadata() or {}).get("config", ""))
