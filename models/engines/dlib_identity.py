"""Face embedder: dlib's face recognition network (King, 2017; 99.4 % on LFW), about a third of a second a face.

Its two files are published at dlib.net/files, and in the package `face_recognition_models` (CC0), which is no wheel:
they are a user's own weights, named by `options.dlib-resnet.path` and `sha256`.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models.engines.local_weights import checked_path
from models.engines.options import Adapter, read_options
from models.errors import SetupError
from models.ports import EngineHome, Frames
from models.records import EngineRef, Record


class DlibIdentityOptions(Record):
    """What may be set."""

    path: str = ""
    """Folder with both files."""
    sha256: str = ""
    """Of the network."""


class DlibIdentity(Adapter):
    """128 numbers of a frontal face."""

    OPTIONS: ClassVar[type[Record]] = DlibIdentityOptions
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"path"})
    SAME_PERSON: ClassVar[float] = 0.6
    """The distance that its author gives."""

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        from infinitetalk.errors import BadWeightsError
        from infinitetalk.evaluate.faces import LANDMARKS, NETWORK, DlibFace

        read_options(DlibIdentityOptions, ref.name, ref.options, home.connection)
        folder = checked_path(ref, home, NETWORK, LANDMARKS)
        try:
            self._network = DlibFace(folder if folder.is_dir() else folder.parent)
        except BadWeightsError as error:
            raise SetupError(error.what, where=error.where, hint=error.hint) from error

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """dlib, where it is not installed."""
        return "" if find_spec("dlib") else "dlib is not installed. Run: pip install 'infinidub[embedded]'"

    def embed(self, frames: Frames) -> NDArray[np.float32]:
        """Of the largest face of each picture (F, H, W, 3): (F, 128); NaN where there is none."""
        return np.asarray(self._network.embed(frames), np.float32)
