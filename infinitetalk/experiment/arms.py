"""What is compared: weights forked from one base, each trained for its own conditioning, and the ways to run them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from infinitetalk.plan import ChunkSize
from infinitetalk.reference import FL2V, I2V, Both, Reference, Source
from infinitetalk.shapes import TEMPORAL
from infinitetalk.small.config import SmallConfig
from infinitetalk.small.load import settings as usual
from infinitetalk.stream import StreamSettings
from infinitetalk.train.draw import DrawSettings

BEST = "M3"
"""What the others are compared with: the paper's choice."""
TWO = "M3, two references"
FORKS: Mapping[str, DrawSettings] = MappingProxyType({
    "I2V": DrawSettings(first=1.0), "FL2V": DrawSettings(first=0.0, pairs=1.0), "M0": DrawSettings("M0"),
    "M1": DrawSettings("M1"), "M2": DrawSettings("M2"), "M3": DrawSettings("M3"),
    TWO: DrawSettings("M3", both=True)})
"""Weights by name, and how their chunks are drawn in training."""


@dataclass(frozen=True)
class Arm:
    """One row of the tables."""

    name: str
    told: str
    """What it is, in a clause."""
    weights: str = ""
    """Of `FORKS`; empty: nothing is generated, the source itself is measured."""
    reference: Reference = field(default_factory=Source)
    context: int | None = None
    """Frames taken over from the chunk before; None: as in training."""
    begin: float = 1.0
    """`Sampling.begin`."""
    own_voice: bool = False
    """Whether the source's own voice is taken for the driving one."""
    ablation: bool = False
    """Whether it is M3 with one thing changed."""

    @property
    def folder(self) -> str:
        """Its name as a folder's."""
        return "".join(one if one.isalnum() else "-" for one in self.name.lower())

    def size(self, config: SmallConfig) -> ChunkSize:
        """Chunks as they are streamed."""
        context = config.context if self.context is None else self.context
        return self.reference.size(ChunkSize(config.frames, context))

    def stream(self, config: SmallConfig, steps: int, audio: float, color: float) -> StreamSettings:
        """How it is streamed; see `small.load.settings`. The noise is that of training, as the paper's is."""
        how = usual(config, steps, audio, color)
        return replace(how, size=self.size(config), reference=self.reference,
                       sampling=replace(how.sampling, begin=self.begin, temperature=1.0))


def arms(config: SmallConfig, sdedit: float) -> tuple[Arm, ...]:
    """All rows: controls, the six of the paper, and M3 with one thing changed.

    Args:
        config: Of the weights.
        sdedit: Share of noise that chunks begin with where they begin with the source.
    """
    paper = (Arm("I2V", "no context; the last frame made begins the next chunk", "I2V", I2V()),
             Arm("FL2V", "no context; first and last frame of each chunk are the source's", "FL2V", FL2V()),
             *(Arm(name, f"context; references in training: {where}", name) for name, where in (
                 ("M0", "from inside the chunk"), ("M1", "its first or last frame"),
                 ("M2", "50 frames away or more"), ("M3", "up to 25 frames outside of it"))))
    lengths = [one for one in (config.context - TEMPORAL, config.context + TEMPORAL) if 1 <= one < config.frames]
    changed = (Arm(TWO, "a second picture of the source is shown at the chunk's end and not marked; all its weights "
                        "are trained, where the paper trains those that listen", TWO, Both()),
               *(Arm(f"M3, context {one}", f"{one} frames of context instead of {config.context}, not trained anew",
                     BEST, context=one) for one in lengths),
               Arm(f"M3, SDEdit {sdedit:g}", f"chunks begin with {sdedit:.0%} noise and the source for the rest", BEST,
                   begin=sdedit))
    controls = (Arm("source, its own voice", "what a reader of lips can tell at best", own_voice=True),
                Arm("source, other voice", "nothing is dubbed: what sync is by chance"))
    return *controls, *paper, *(replace(one, ablation=True) for one in changed)
