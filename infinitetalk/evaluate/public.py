"""Networks that papers measure with: which are there, and how they are plugged in. Nothing is fetched.

A folder of weights (`--networks DIR`) holds any of these files; each is opened as safetensors or with torch's
`weights_only`, so that no file can run code. What is absent is named, and the project's own extractor stands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from infinitetalk.errors import BadWeightsError
from infinitetalk.evaluate.faces import LANDMARKS, NETWORK, DlibFace, HogFaces
from infinitetalk.evaluate.measure import Floats, Pixels
from infinitetalk.evaluate.mouth import MouthReader
from infinitetalk.evaluate.sets import Instruments

SYNCNET, INCEPTION, KINETICS = "syncnet_v2.model", "pt_inception-2015-12-05-6726825d.pth", "i3d_pretrained_400.pt"
FACES, ARCFACE = "sfd_face.pth", "backbone.pth"
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
        BadWeightsError: What is there cannot be loaded.
    """
    if folder and not folder.is_dir():
        raise BadWeightsError("is no folder", where=str(folder), hint="Name one with public networks, or none")
    chosen, absent = Instruments(finder=HogFaces() if HogFaces.there() else None), {}
    trained = TrainedMouth(reader) if reader else shipped_reader()
    if trained:
        chosen = replace(chosen, reader=trained)
    else:
        absent["lip reader"] = "no trained reader is shipped; a simple one reads pixels"
    for network, (files, load) in NETWORKS.items():
        missing = [file for file in files if not folder or not (folder / file).is_file()]
        if folder and not missing:
            chosen = replace(chosen, **load(folder))
        else:
            absent[network] = f"{', '.join(missing)} not there"
    return chosen, absent


def _syncnet(folder: Path) -> dict[str, Any]:
    from infinitetalk.evaluate.syncnet_network import SyncNetV2

    return {"sync": SyncNetV2.read(folder / SYNCNET)}


def _inception(folder: Path) -> dict[str, Any]:
    from infinitetalk.evaluate.inception import Inception

    return {"images": Inception.read(folder / INCEPTION)}


def _i3d(folder: Path) -> dict[str, Any]:
    from infinitetalk.evaluate.i3d import I3D

    return {"clips": I3D.read(folder / KINETICS)}


def _s3fd(folder: Path) -> dict[str, Any]:
    from infinitetalk.evaluate.s3fd import S3FD

    return {"finder": S3FD.read(folder / FACES)}


def _arcface(folder: Path) -> dict[str, Any]:
    from infinitetalk.evaluate.arcface import ArcFace

    return {"faces": ArcFace.read(folder / ARCFACE)}


NETWORKS: Mapping[str, tuple[tuple[str, ...], Callable[[Path], dict[str, Any]]]] = MappingProxyType({
    "SyncNet v2": ((SYNCNET,), _syncnet), "Inception (FID)": ((INCEPTION,), _inception), "I3D": ((KINETICS,), _i3d),
    "dlib-128": ((LANDMARKS, NETWORK), lambda folder: {"faces": DlibFace(folder)}),
    "S3FD": ((FACES,), _s3fd), "ArcFace": ((ARCFACE, LANDMARKS), _arcface)})
"""Files of each network, and what it becomes; where two do the same, the later one is taken."""
