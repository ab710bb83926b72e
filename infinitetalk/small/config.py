"""Everything that decides the small networks' shapes, in one file beside their weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from infinitetalk.config import TransformerConfig
from infinitetalk.errors import BadWeightsError
from infinitetalk.plan import ChunkSize
from infinitetalk.shapes import LatentShape, PixelShape

FILE = "config.json"
Part = TypeVar("Part")


@dataclass(frozen=True)
class CodecConfig:
    """Widths of the autoencoder."""

    channels: int = 32
    """Of a latent. 16, as of Wan 2.1's, were too few for so light a network: the principal components of head-sized
    clips give held-out people back at 27.8 dB by 16 numbers a cell, and at 30.3 dB by 32."""
    fine: int = 24
    """Channels at half the pixels along each side."""
    middle: int = 48
    """At a quarter."""
    coarse: int = 96
    """At an eighth, where time is mixed."""
    blocks: int = 2
    """Residual blocks of the decoder at the two coarser scales; the encoder has half as many."""


@dataclass(frozen=True)
class SpeechConfig:
    """Widths of the speech encoder."""

    mels: int = 40
    hidden: int = 96
    channels: int = 32
    """C; the encoder gives one layer of them (L = 1)."""


@dataclass(frozen=True)
class SmallConfig:
    """One size of the small generator."""

    name: str
    side: int
    """Pixels along each side of a frame."""
    frames: int
    """Of a chunk, context included."""
    context: int
    codec: CodecConfig
    speech: SpeechConfig
    transformer: TransformerConfig

    @property
    def chunk(self) -> ChunkSize:
        """How the stream cuts a shot."""
        return ChunkSize(self.frames, self.context)

    @property
    def latent(self) -> LatentShape:
        """A chunk as the transformer sees it."""
        return PixelShape(self.frames, self.side, self.side).latent

    def digest(self) -> str:
        """Tells configurations apart."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    def save(self, folder: Path) -> None:
        """Write `config.json` into the folder."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> SmallConfig:
        """The configuration beside the weights of a folder.

        Raises:
            BadWeightsError: It is absent, damaged, or has other fields.
        """
        file = folder / FILE
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise BadWeightsError(f"cannot be read ({error})", where=str(file),
                                  hint="Name a folder of small weights") from error
        parts = {"codec": CodecConfig, "speech": SpeechConfig, "transformer": TransformerConfig}
        if isinstance(told, dict):
            told = told | {name: _built(kind, told.get(name), file) for name, kind in parts.items()}
        return _built(cls, told, file)


def _built(kind: type[Part], told: object, file: Path) -> Part:
    """A dataclass from what a file tells of it; its fields must be these."""
    wanted = {field.name for field in fields(cast(Any, kind))}
    if not isinstance(told, Mapping) or set(told) != wanted:
        raise BadWeightsError(f"is no {kind.__name__}: it needs {', '.join(sorted(wanted))}", where=str(file),
                              hint="Take the file that was written beside the weights")
    return kind(**told)


def _transformer(side: int, dim: int, ffn_dim: int, layers: int, latent: int,
                 speech: SpeechConfig) -> TransformerConfig:
    """The engine's transformer: heads of 32, no text, the reference's latent patches as its picture tokens."""
    tokens = PixelShape(1, side, side).latent.frame_tokens
    return TransformerConfig(
        dim=dim, ffn_dim=ffn_dim, freq_dim=128, in_dim=2 * latent + 4, num_heads=dim // 32, num_layers=layers,
        out_dim=latent, text_len=1, text_dim=16, clip_tokens=tokens, clip_dim=4 * latent, audio_layers=1,
        audio_channels=speech.channels, audio_hidden=192, audio_dim=96, audio_tokens=8)


LITE = SmallConfig("lite", 64, 33, 9, CodecConfig(), SpeechConfig(),
                   _transformer(64, 160, 640, 6, CodecConfig.channels, SpeechConfig()))
NANO = SmallConfig("nano", 128, 81, 9, CodecConfig(fine=24, middle=64, coarse=128), SpeechConfig(),
                   _transformer(128, 256, 768, 10, CodecConfig.channels, SpeechConfig()))
PRESETS: Mapping[str, SmallConfig] = {one.name: one for one in (LITE, NANO)}
"""The sizes that are shipped."""
