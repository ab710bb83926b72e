"""Lip scorer: the project's own reader of rendered lips, against the mouth that the small speech encoder hears.

**It knows nothing but the synthetic world**: of real people it says nothing. Both networks come with the program.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from models.engines.local_weights import weights_hash
from models.engines.options import Adapter, read_options
from models.errors import EngineError, InputError
from models.ports import EngineHome, Frames, LipSync, Samples
from models.records import EngineRef, Record

FILES = ("reader.safetensors", "speech.safetensors", "config.json")
RATE = 25
NEAR = 2
"""Frames beside which a fit counts as one in place."""
LAGS = 12
"""Frames to either side in which the best fit is looked for: a syllable or two."""
SILENCE = 1e-3
"""Of full scale: where no sample is louder, nobody speaks."""


def _folder() -> Path:
    import infinitetalk

    return Path(infinitetalk.__path__[0]) / "weights" / "lite"


def _hash() -> str:
    folder = _folder()
    return weights_hash(folder / FILES[0], *FILES[1:]) if all((folder / name).is_file() for name in FILES) else ""


class LipReaderOptions(Record):
    """Nothing may be set."""

    sha256: str = ""
    """Of the weights; filled in."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, told: Mapping[str, Any]) -> Mapping[str, Any]:
        """With the hash of the weights, where it is not given."""
        return told if told.get("sha256") else {**told, "sha256": _hash()}


class LipReader(Adapter):
    """Correlation of visemes seen with visemes heard (see `infinitetalk.evaluate.mouth`)."""

    VERSION = 3
    OPTIONS: ClassVar[type[Record]] = LipReaderOptions
    MEASURE: ClassVar[str] = "r"
    LEAST: ClassVar[float] = 0.2
    """docs/qc.md says what it was chosen by."""

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        from infinitetalk.evaluate.public import TrainedMouth
        from infinitetalk.small.config import SmallConfig
        from infinitetalk.small.speech import SpeechFeatures

        if read_options(LipReaderOptions, ref.name, ref.options).sha256 != _hash():
            raise InputError("the weights are not those that were asked for", where="lip-scorer lip-reader",
                             hint="Run the same version of infinidub")
        folder = _folder()
        self._reader = TrainedMouth(folder / FILES[0])
        self._speech = SpeechFeatures.read(folder / FILES[1], SmallConfig.read(folder).speech)

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """Libraries, or the weights."""
        absent = [name for name in ("torch", "safetensors") if find_spec(name) is None]
        if absent:
            return f"the libraries {', '.join(absent)} are missing. Install them: pip install 'infinidub[embedded]'"
        return "" if _hash() else f"there are no whole weights in {_folder()}"

    def score(self, frames: Frames, faces: NDArray[np.float32], voice: Samples, spoken: NDArray[np.bool_]) -> LipSync:
        """See `models.ports.LipScorer`."""
        from infinitetalk.errors import BadInputError
        from infinitetalk.evaluate.faces import mouths
        from infinitetalk.evaluate.mouth import LEAST, STILL, sync

        try:
            lips, heard = self._reader.read(frames, mouths(faces)), self._speech.visemes(voice)
            if spoken.sum() >= LEAST + LAGS and lips[spoken].std(0).max() <= STILL and np.abs(voice).max() > SILENCE:
                return LipSync(score=0.0, late=0.0, words="which do not move")  # that is no want of speech to tell by
            found = sync(lips, heard, spoken, LAGS)
        except BadInputError as error:
            raise EngineError(error.what, where="lip-scorer lip-reader") from error
        near = abs(found.lag) <= NEAR
        return LipSync(score=found.best if near else found.at_zero, late=-found.lag / RATE,
                       words="" if near else f"r {found.best:.2f} there")
