"""Lip scorer: SyncNet v2 (Chung and Zisserman, 2016), by which papers measure: Sync-C and Sync-D.

Its weights, `syncnet_v2.model`, are its authors' and come with nothing: they are a user's own, named by
`options.syncnet.path` and `sha256`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.engines.local_weights import checked_path
from models.engines.options import Adapter, read_options
from models.errors import EngineError, SetupError
from models.ports import EngineHome, Frames, LipSync, Samples
from models.records import EngineRef, Record

RATE = 25


class SyncNetOptions(Record):
    """What may be set."""

    path: str = ""
    """The file, or its folder."""
    sha256: str = ""
    """Of the file."""


class SyncNet(Adapter):
    """Distance of what is seen to what is heard, over offsets of 15 frames to either side."""

    OPTIONS: ClassVar[type[Record]] = SyncNetOptions
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"path"})
    MEASURE: ClassVar[str] = "Sync-C"
    LEAST: ClassVar[float] = 3.0
    """From which its authors take a face for the speaker's, and LatentSync takes clips to learn from; not measured
    here."""

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        from infinitetalk.errors import BadWeightsError
        from infinitetalk.evaluate.public import SYNCNET
        from infinitetalk.evaluate.syncnet_network import SyncNetV2

        read_options(SyncNetOptions, ref.name, ref.options, home.connection)
        path = checked_path(ref, home, SYNCNET)
        try:
            self._network = SyncNetV2.read(path / SYNCNET if path.is_dir() else path)
        except BadWeightsError as error:
            raise SetupError(error.what, where=error.where, hint=error.hint) from error

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """torch, where it is not installed."""
        return "" if find_spec("torch") else \
            "the library torch is missing. Install it: pip install 'infinidub[infinitetalk]'"

    def score(self, frames: Frames, faces: NDArray[np.float32], voice: Samples, spoken: NDArray[np.bool_]) -> LipSync:
        """See `models.ports.LipScorer`; silence counts as well, as in papers."""
        from infinitetalk.errors import BadInputError
        from infinitetalk.evaluate.syncnet import crop, crop_boxes, score_crops
        from infinitetalk.evaluate.tracks import LEAST_FRAMES

        if len(frames) <= LEAST_FRAMES:
            raise EngineError(f"{len(frames)} frames are too few", where="lip-scorer syncnet")
        try:
            crops = np.stack([crop(frame, box) for frame, box in zip(frames, crop_boxes(faces), strict=True)])
            found = score_crops(self._network, crops, voice)
        except BadInputError as error:
            raise EngineError(error.what, where="lip-scorer syncnet") from error
        return LipSync(score=found.confidence, late=found.offset / RATE, words=f"Sync-D {found.distance:.1f}")
