"""Which generator makes the pictures: the one rule, for every verb.

1. What the settings name (a flag, the environment, infinidub.toml) is taken, here or not: what was asked for by name is
   never replaced by something lesser; where it cannot run, that is an error that says what mends it.
2. Else, what the catalog names (an episode's own before the catalog's) is taken in the same way, with one exception:
   `nano`, `lite` and `small` give way to `infinitetalk` where that can run, a CUDA GPU and its weights being here.
3. Where nothing is named: `infinitetalk` where it can run, else `passthrough`.

Where shards are dispatched to a pool, that it can run is taken for granted as soon as the hashes of its weights are
known here, which every request names: this machine's own GPU does not matter, and a pool's machines look before they
take a shard.

`small` is no generator but stands for the weights that come with the program: `nano` where it is estimated to make all
of a catalog within `PATIENCE_S`, else `lite`. Where neither is here, a catalog's `small` means `passthrough`: who
writes `small` asks for whatever there is, who writes `lite` for lite. What is taken is said in one line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.engines import ENGINES, adapter, missing
from models.errors import SetupError
from models.weights import WeightStore

if TYPE_CHECKING:
    from flows.settings import Settings

BEST = "infinitetalk"
UNTOUCHED = "passthrough"
AUTO, SMALL = "auto", "small"
WORDS = (AUTO, SMALL)
"""What may stand in the place of a generator's name."""
STAND_INS = ("nano", "lite", SMALL)
"""Give way to the best, where a catalog names them."""
PATIENCE_S = 180
NANO_SPEED = 0.5
"""Seconds of picture that nano makes in a second, at 25 frames/s on two cores. A constant and not a measurement, so
that every machine chooses alike and a catalog's results are reused."""
GPU_FILES = Path("/dev")
"""Where CUDA devices show as `nvidia0`, `nvidia1` …, in containers too."""


@dataclass(frozen=True)
class Choice:
    """The generator that is taken, and why."""

    name: str
    why: str
    lack: str = ""
    """What keeps better pictures from being made, and what mends it; '' where nothing does, or none were asked for."""

    @property
    def line(self) -> str:
        """In one line, with what must be known of it."""
        knows = adapter("generator", self.name).CAUTION if self.name in ENGINES["generator"] else ""
        return ". ".join(filter(None, [f"generator {self.name}, {self.why}", knows]))


def choose(settings: Settings, named: str | None = None, picture_s: float = 0.0) -> Choice:
    """The generator of an episode. Looks at files alone: it is asked often, and by verbs that are to answer at once.

    Args:
        settings: Come first.
        named: What the catalog names, or a job.
        picture_s: Seconds of picture to be made at most, in all episodes and languages of the catalog.
    """
    ours = settings.engines["generator"]
    if ours == SMALL:
        size, why = _sized(settings, picture_s)
        return Choice(size or "lite", f"as set{why}")  # absent, it is an error where it is needed
    if ours != AUTO:
        return Choice(ours, "as set")
    if named and named not in (AUTO, *STAND_INS):
        return Choice(named, "as the catalog says")
    lack = best_lack(settings)
    if not lack and settings.dispatch != "here":
        return Choice(BEST, f"since shards go to the pool {settings.gpu_pool}, and its weights are known here")
    if not lack:
        return Choice(BEST, "since a GPU and its weights are here")
    return _stand_in(settings, named, picture_s, lack)


def _stand_in(settings: Settings, named: str | None, picture_s: float, lack: str) -> Choice:
    """What is taken where the best cannot run, for want of `lack`."""
    size, why = _sized(settings, picture_s) if named == SMALL else (named if named in STAND_INS else "", "")
    reason = f"{BEST}: {lack.partition('. ')[0]}"
    if size:
        return Choice(size, f"as the catalog says{why} ({reason})")
    none = "; nano and lite: their weights are not here" if named == SMALL else ""
    return Choice(UNTOUCHED, f"so pictures stay as they are ({reason}{none})", lack)


def best_lack(settings: Settings) -> str:
    """Why the best generator cannot run where shots are made, and what mends it; '' where it can."""
    options, weights = settings.options.get(BEST, {}), WeightStore(settings.weights)
    if settings.dispatch != "here":
        try:
            for name in adapter("generator", BEST).required_weights(options):
                weights.hashes(name)
        except SetupError as error:
            return f"the weights {error.where} are not known here. {error.hint}"
        return ""
    if not cuda_gpu():
        return "there is no CUDA GPU here. Use a machine with one, or leave it so"
    lack = missing("generator", BEST, options)
    if lack:
        return lack
    try:
        weights.need(adapter("generator", BEST).required_weights(options), hashed=False)
    except SetupError as error:
        return f"the weights {error.where} are not here. {error.hint}"
    return ""


def cuda_gpu() -> str:
    """The file of this machine's first CUDA GPU, '' where there is none or the environment hides it."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    return "" if hidden else next(map(str, sorted(GPU_FILES.glob("nvidia[0-9]*"))), "")


def _sized(settings: Settings, picture_s: float) -> tuple[str, str]:
    """The size of the small weights that is taken, '' where none are here; and why, where the better one is not."""
    here = [size for size in ("nano", "lite") if not missing("generator", size, settings.options.get(size, {}))]
    estimate = 0.0 if settings.device != "cpu" else picture_s / NANO_SPEED
    if here == ["nano", "lite"] and estimate > PATIENCE_S:
        return "lite", f", since nano would take {estimate / 60:.0f} minutes"
    return (here[0] if here else ""), ""
