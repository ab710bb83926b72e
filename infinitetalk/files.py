"""Where each network's weights lie, in a folder laid out as they are published, and how they become networks.

    FOLDER/Wan2.1-I2V-14B-480P/   (or -720P) the base, its autoencoder, text and image encoders, the tokenizer
    FOLDER/InfiniteTalk/single/   (or multi) infinitetalk.safetensors, laid over the base
    FOLDER/chinese-wav2vec2-base/ the speech encoder

Sizes come from the configurations beside the weights and from the shapes of the tensors, so that a folder of small
networks loads by the same way. A small network's config.json may add `clip_heads`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from infinitetalk.config import TransformerConfig
from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.pictures import Which
from infinitetalk.weights import AGAIN, StoredTensor, assemble, load_torch, open_tensors, shards

if TYPE_CHECKING:
    from infinitetalk.audio import AudioEncoder
    from infinitetalk.text import TextEncoder
    from infinitetalk.transformer import Transformer
    from infinitetalk.vae import WanCodec
    from infinitetalk.vision import ClipVision

BASES = ("Wan2.1-I2V-14B-480P", "Wan2.1-I2V-14B-720P")
VARIANTS = ("single", "multi")
"""One speaker, or two told apart; `multi` dubs one speaker too."""


class Absent(NamedTuple):
    """Something that is not there."""

    what: str
    place: Path
    """Where it is expected."""


@dataclass(frozen=True)
class Files:
    """All files of the engine."""

    wan: Path
    """Folder of the base."""
    overlay: Path
    """InfiniteTalk's own tensors."""
    wav2vec: Path
    """Folder of the speech encoder."""
    variant: str = "single"
    """What `overlay` is: one of `VARIANTS`."""
    whole: Path | None = None
    """A file with all of the transformer's tensors, in place of shards and overlay."""

    @classmethod
    def under(cls, folder: Path, variant: str = "single", base: str = "") -> Files:
        """The files in a folder in the public layout; that they are there is not checked (`missing` tells).

        Args:
            folder: Holds the folders above.
            variant: One of `VARIANTS`.
            base: Name of the base's folder; empty: the one of `BASES` that is there, the first if both are.

        Raises:
            BadInputError: There is no such variant.
        """
        if variant not in VARIANTS:
            raise BadInputError(f"there is no variant {variant!r}", where="weights",
                                hint=f"Use {' or '.join(VARIANTS)}")
        found = base or next((name for name in BASES if (folder / name).is_dir()), BASES[0])
        return cls(wan=folder / found, overlay=folder / "InfiniteTalk" / variant / "infinitetalk.safetensors",
                   wav2vec=folder / "chinese-wav2vec2-base", variant=variant)

    @property
    def size_class(self) -> Which:
        """What size the base was trained at, by the name of its folder."""
        return "720" if "720" in self.wan.name else "480"

    @property
    def persons(self) -> int:
        """How many the weights can tell apart."""
        return 2 if self.variant == "multi" else 1

    @property
    def base(self) -> Path:
        """Folder of the base transformer; diffusers keeps it one level down."""
        return self.wan if (self.wan / "config.json").is_file() else _first(self.wan / "transformer", self.wan)

    @property
    def transformer(self) -> tuple[Path, ...]:
        """Files of the transformer, later ones laid over earlier ones."""
        return (self.whole,) if self.whole else (*shards(self.base), self.overlay)

    @property
    def codec(self) -> Path:
        """The video autoencoder."""
        return self.wan / "Wan2.1_VAE.pth"

    @property
    def vision(self) -> Path:
        """CLIP."""
        return self.wan / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"

    @property
    def text(self) -> Path:
        """The umT5 encoder."""
        return self.wan / "models_t5_umt5-xxl-enc-bf16.pth"

    @property
    def tokenizer(self) -> Path:
        """Its tokenizer."""
        return self.wan / "google" / "umt5-xxl" / "tokenizer.json"

    @property
    def audio(self) -> Path:
        """The speech encoder's tensors."""
        return _first(self.wav2vec / "model.safetensors", self.wav2vec / "pytorch_model.bin")

    def missing(self) -> tuple[Absent, ...]:
        """What is not there; empty when the engine can be loaded."""
        wanted = [("configuration of the base", self.base / "config.json"),
                  *(("transformer", file) for file in self.transformer),
                  ("video autoencoder", self.codec), ("image encoder", self.vision), ("text encoder", self.text),
                  ("tokenizer", self.tokenizer), ("speech encoder", self.audio),
                  ("configuration of the speech encoder", self.wav2vec / "config.json"),
                  ("preprocessor of the speech encoder", self.wav2vec / "preprocessor_config.json")]
        if not self.whole and len(self.transformer) == 1:
            wanted.insert(1, ("base of the transformer", self.base / "diffusion_pytorch_model*.safetensors"))
        return tuple(Absent(what, place) for what, place in wanted if not place.is_file())


def _first(place: Path, otherwise: Path) -> Path:
    return place if place.exists() else otherwise


def load_transformer(files: Files, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu",
                     attention: str = "sdpa") -> Transformer:
    """The transformer, for inference.

    Memory stays at its own size and one tensor more, whatever the type in the files.

    Raises:
        BadWeightsError: A file is absent or damaged, or tensors are missing, extra or misshapen.
    """
    from infinitetalk.transformer import Transformer

    stored = open_tensors(files.transformer)
    config = transformer_config(files, stored)
    with torch.device("meta"):
        network = Transformer(config, attention=attention)
    assemble(network, stored, dtype, device).eval().requires_grad_(requires_grad=False)
    return network


def load_codec(files: Files, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> WanCodec:
    """The video autoencoder; published and meant to run in float32."""
    from infinitetalk.vae import WanCodec

    return WanCodec.published(load_torch(files.codec), device=device, dtype=dtype, where=str(files.codec))


def load_vision(files: Files, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu") -> ClipVision:
    """The image encoder."""
    from infinitetalk.vision import ClipVision

    heads = _Config.read(files.base / "config.json").size("clip_heads")
    return ClipVision.from_published(load_torch(files.vision), heads, device=device, dtype=dtype,
                                     where=str(files.vision))


def load_text(files: Files, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu") -> TextEncoder:
    """The text encoder with its tokenizer."""
    from infinitetalk.text import TextEncoder

    return TextEncoder.from_published(load_torch(files.text), files.tokenizer, device=device, dtype=dtype,
                                      where=str(files.text))


def load_audio(files: Files, device: torch.device | str = "cpu") -> AudioEncoder:
    """The speech encoder; it runs in float32."""
    from infinitetalk.audio import AudioEncoder

    return AudioEncoder.from_folder(files.wav2vec, device=device)


def transformer_config(files: Files, stored: Mapping[str, StoredTensor] | None = None) -> TransformerConfig:
    """Sizes of the transformer: heads, layers and token counts as told, widths as stored.

    Args:
        files: Its config.json may be the original's or diffusers'.
        stored: The transformer's tensors, if they are open already.

    Raises:
        BadWeightsError: A configuration or a tensor that sizes follow from is absent or damaged, or they contradict.
    """
    stored = open_tensors(files.transformer) if stored is None else stored
    told, heard = _Config.read(files.base / "config.json"), _Config.read(files.wav2vec / "config.json")
    default = TransformerConfig()
    audio_dim, layers, channels = (_size(stored, "audio_proj.norm.weight", 0), heard.size("num_hidden_layers"),
                                   heard.size("hidden_size"))
    window, over = divmod(_size(stored, "audio_proj.proj1.weight", 1), layers * channels)
    if over or not window:
        raise BadWeightsError(f"{layers} layers of {channels} are not what the transformer hears",
                              where=str(files.wav2vec), hint="Take the speech encoder that it was trained with")
    return TransformerConfig(
        dim=_size(stored, "patch_embedding.weight", 0), ffn_dim=_size(stored, "blocks.0.ffn.0.weight", 0),
        freq_dim=_size(stored, "time_embedding.0.weight", 1), num_heads=told.size("num_heads", "num_attention_heads"),
        num_layers=told.size("num_layers"), in_dim=told.size("in_dim", "in_channels"),
        out_dim=told.size("out_dim", "out_channels"), text_len=told.size("text_len"),
        text_dim=_size(stored, "text_embedding.0.weight", 1), clip_tokens=default.clip_tokens,
        clip_dim=_size(stored, "img_emb.proj.0.weight", 0), audio_window=window, audio_layers=layers,
        audio_channels=channels, audio_hidden=_size(stored, "audio_proj.proj2.weight", 0), audio_dim=audio_dim,
        audio_tokens=_size(stored, "audio_proj.proj3.weight", 0) // audio_dim, eps=told.eps)


def _size(stored: Mapping[str, StoredTensor], name: str, axis: int) -> int:
    """Length of an axis of a tensor."""
    if name not in stored:
        raise BadWeightsError(f"1 tensor is missing: {name}", where="transformer",
                              hint="The base (Wan2.1-I2V-14B) and infinitetalk.safetensors are needed, of one size")
    shape = stored[name].shape
    if len(shape) <= axis or not shape[axis]:
        raise BadWeightsError(f"{name} has the shape {shape}", where=str(stored[name].file), hint=AGAIN)
    return shape[axis]


PUBLISHED = {"num_heads": 40, "num_layers": 40, "in_dim": 36, "out_dim": 16, "text_len": 512, "clip_heads": 16,
             "num_hidden_layers": 12, "hidden_size": 768}
"""Sizes of the public networks, for what a configuration does not tell."""


@dataclass(frozen=True)
class _Config:
    """What a config.json tells."""

    file: Path
    told: dict[str, Any]

    @classmethod
    def read(cls, file: Path) -> _Config:
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise BadWeightsError("is not there", where=str(file), hint="It comes with the weights") from error
        except (OSError, ValueError) as error:
            raise BadWeightsError(f"is no JSON ({error})", where=str(file), hint=AGAIN) from error
        if not isinstance(told, dict):
            raise BadWeightsError("is no JSON object", where=str(file), hint=AGAIN)
        return cls(file, told)

    def size(self, *names: str) -> int:
        """A size by the first of its names that is told; else the published one."""
        value = next((self.told[name] for name in names if name in self.told), PUBLISHED[names[0]])
        if not isinstance(value, int) or value < 1:
            raise BadWeightsError(f"{names[0]} is {value!r}", where=str(self.file),
                                  hint="It must be a whole number above 0")
        return value

    @property
    def eps(self) -> float:
        """Of the norms."""
        value = self.told.get("eps", TransformerConfig.eps)
        if not isinstance(value, float) or not 0 < value < 1:
            raise BadWeightsError(f"eps is {value!r}", where=str(self.file), hint="The published one is 1e-6")
        return value
