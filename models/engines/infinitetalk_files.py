"""The engine's files as the weight store keeps them: what both Wan bases share lies in a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infinitetalk.files import Files

COMPANIONS, WAV2VEC = "wan-companions", "chinese-wav2vec2-base"
ENTRIES: Mapping[str, tuple[str, str]] = {
    f"infinitetalk-{size}p{suffix}": (f"wan-i2v-{size}p", f"infinitetalk-{variant}")
    for size in ("480", "720") for suffix, variant in (("", "single"), ("-multi", "multi"))}
"""Name of weights (a group of models.lock) → its base, and what is laid over it."""


@dataclass(frozen=True)
class StoredFiles(Files):
    """Files of which autoencoder, text and image encoder lie apart from the base."""

    companions: Path = Path()

    @property
    def codec(self) -> Path:
        """The video autoencoder."""
        return self.companions / super().codec.name

    @property
    def vision(self) -> Path:
        """CLIP."""
        return self.companions / super().vision.name

    @property
    def text(self) -> Path:
        """The umT5 encoder."""
        return self.companions / super().text.name

    @property
    def tokenizer(self) -> Path:
        """Its tokenizer."""
        return self.companions / super().tokenizer.relative_to(self.wan)


def stored_files(name: str, folder: Callable[[str], Path]) -> StoredFiles:
    """The files of weights by name.

    Args:
        name: Key of `ENTRIES`.
        folder: Entry of models.lock → its verified folder (`WeightStore.folder`).

    Raises:
        SetupError: They are not on this machine; the message says how to get them.
    """
    base, overlay = ENTRIES[name]
    return StoredFiles(wan=folder(base), overlay=folder(overlay) / "infinitetalk.safetensors", wav2vec=folder(WAV2VEC),
                       variant=overlay.removeprefix("infinitetalk-"), companions=folder(COMPANIONS))
