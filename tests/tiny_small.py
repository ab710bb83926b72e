"""The small generator, smaller still: random weights of its configuration, and clips to learn from."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch

from infinitetalk.closeup import lower_face
from infinitetalk.config import TransformerConfig
from infinitetalk.small.codec import Autoencoder, SmallCodec
from infinitetalk.small.config import CodecConfig, SmallConfig, SpeechConfig
from infinitetalk.small.speech import SpeechFeatures, SpeechNetwork
from infinitetalk.small.transformer import SmallTransformer
from infinitetalk.train.dit import Lessons, initialise, write
from infinitetalk.train.latents import ClipEncoder, EncodedClip, TalkingClip
from infinitetalk.transformer import Transformer

SPEECH = SpeechConfig(mels=8, hidden=8, channels=12)
TINY = SmallConfig(
    "lite", 64, 33, 9, CodecConfig(channels=16, fine=4, middle=4, coarse=8, blocks=2), SPEECH,
    TransformerConfig(dim=16, ffn_dim=32, freq_dim=16, num_heads=1, num_layers=2, text_len=1, text_dim=4,
                      clip_tokens=16, clip_dim=64, audio_layers=1, audio_channels=SPEECH.channels, audio_hidden=16,
                      audio_dim=16, audio_tokens=2))
"""With the pixels and chunks of lite."""
MINI = replace(TINY, side=16, frames=13, context=5, transformer=replace(TINY.transformer, clip_tokens=1))
"""To be trained in a test."""


def codec(config: SmallConfig = TINY, seed: int = 0) -> SmallCodec:
    """Random, with latents of about unit size."""
    torch.manual_seed(seed)
    network = Autoencoder(config.codec)
    network.std.fill_(0.3)
    return SmallCodec(network)


def speech(config: SmallConfig = TINY, seed: int = 0) -> SpeechFeatures:
    """Random."""
    torch.manual_seed(seed)
    return SpeechFeatures(SpeechNetwork(config.speech))


def transformer(config: SmallConfig = TINY, seed: int = 0, *, dull: bool = False) -> Transformer:
    """Random; `dull` as training begins, else with a head that says something."""
    network = initialise(SmallTransformer(config.transformer), seed)
    if not dull:
        torch.nn.init.normal_(network.head.head.weight, std=0.1)
    return network


def write_folder(folder: Path, config: SmallConfig = TINY, seed: int = 0) -> Path:
    """All files of a size."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    write(transformer(config, seed), config, folder)
    for name, network in (("codec", codec(config, seed).network), ("speech", speech(config, seed).network)):
        save_file({key: value.contiguous() for key, value in network.state_dict().items()},
                  folder / f"{name}.safetensors")
    return folder


def clip(seed: int, frames: int = 40, side: int = MINI.side) -> TalkingClip:
    """Noise with a mouth that opens with the voice."""
    rng = np.random.default_rng(seed)
    swing = np.abs(np.sin(np.arange(frames) * 0.5 + seed)).astype(np.float32)
    pictures = np.repeat(rng.integers(0, 255, (1, side, side, 3)), frames, 0)
    low, high = side // 2, side // 2 + side // 4
    pictures[:, low:high, low:high] = (255 * swing).astype(int)[:, None, None, None]
    voice = np.repeat(swing, 640) * rng.normal(0, 0.3, frames * 640)
    return TalkingClip(pictures.astype(np.uint8), voice.astype(np.float32), np.repeat(swing[:, None], 11, 1),
                       np.tile(np.array([low, low, high, high], np.float32), (frames, 1)),
                       np.array(lower_face(side), np.float32))


@cache
def lessons() -> Lessons:
    """Clips to learn from, and others."""
    encode = ClipEncoder(codec(MINI), speech(MINI), MINI.frames, MINI.side)
    clips: list[EncodedClip] = [encode(clip(seed)) for seed in range(4)]
    return Lessons(clips[:2], clips[2:])
