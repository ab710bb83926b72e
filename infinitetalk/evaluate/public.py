"""Networks that papers measure with: which are there, and how they are plugged in. Nothing is fetched.

A folder of weights (`--networks DIR`) holds any of these files; each is opened as safetensors or with torch's
`weights_only`, so that no file can run code. What is absent is named, and the project's own extractor stands in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from infinitetalk.errors import BadWeightsError
from infinitetalk.evaluate.faces import LANDMARKS, NETWORK, DlibFace
from infinitetalk.evaluate.measure import Floats, Pixels
from infinitetalk.evaluate.mouth import MouthReader
from infinitetalk.evaluate.sets import Instruments

FILES: Mapping[str, str] = MappingProxyType({"dlib-128": NETWORK, "SyncNet v2": "syncnet_v2.model"})
READER = "reader.safetensors"


class TrainedMouth:
    """The lip reader that is trained on the synthetic world."""

    def __init__(self, file: Path) -> None:
        """Load it.

        Raises:
            BadWeightsError: The file is absent, damaged, or another network's.
        """
        from infinitetalk.train.reader import Reader
        from infinitetalk.world.clip_file import sha256

        self._network = Reader.read(file)
        self.name = f"reader CNN {sha256(file)[:8]} (the project's own)"

    def read(self, frames: Pixels, boxes: Floats) -> Floats:
        """Visemes (F, 11); see `MouthReader`. Frames without a box read as the box before."""
        import numpy as np

        from infinitetalk.evaluate.measure import known_rows
        from infinitetalk.train.reader import read_lips

        known = known_rows(boxes)
        if not known.any():
            return np.zeros((len(frames), 11), np.float32)
        at = np.maximum.accumulate(np.where(known, np.arange(len(boxes)), int(known.argmax())))
        return read_lips(self._network, frames, boxes[at])


def shipped_reader() -> MouthReader | None:
    """The trained reader, if this installation has one."""
    import infinitetalk

    weights = Path(next(iter(infinitetalk.__path__))) / "weights"
    found = sorted(weights.glob(READER)) + sorted(weights.glob(f"*/{READER}"))
    return TrainedMouth(found[0]) if found else None


def instruments(folder: Path | None = None, reader: Path | None = None) -> tuple[Instruments, dict[str, str]]:
    """The best instruments that are there, and why others are not used, by name.

    Args:
        folder: Of public networks.
        reader: Weights of a lip reader; the shipped one unless given.

    Raises:
        BadWeightsError: What is named explicitly cannot be loaded.
    """
    chosen, absent = Instruments(), {}
    trained = TrainedMouth(reader) if reader else shipped_reader()
    if trained:
        chosen = replace(chosen, reader=trained)
    else:
        absent["lip reader"] = "no trained reader is shipped; a simple one reads pixels"
    if folder and not folder.is_dir():
        raise BadWeightsError("is no folder", where=str(folder), hint="Name one with public networks, or none")
    if folder and (folder / NETWORK).is_file() and (folder / LANDMARKS).is_file():
        chosen = replace(chosen, faces=DlibFace(folder))
    else:
        absent["dlib-128"] = f"{NETWORK} and {LANDMARKS} are not there"
    return chosen, absent
