"""The audio gap: whether the transformer listens, told from its loss alone, from the first step on.

On held-out chunks the loss in the mouth's box is taken with the true audio, with that of another moment of the same
clip, and with that of another clip; same noise, same times. While the gap is near zero, lips move by chance.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from infinitetalk.train.draw import Chunks, Place
from infinitetalk.train.flow import Drawn, FlowSettings, Samples, flow_loss, predict
from infinitetalk.transformer import Transformer

TIMES = (0.95, 0.8, 0.6)
"""Where on the way to noise it is asked: near the noise, where the mouth's shape is decided."""
MOST = 0.5
"""Where so many chunks make the lower face alone anew, all that are held out do."""
LATER = 37
"""Frames by which shifted audio is late, about a second and a half."""


@dataclass(frozen=True, eq=False)
class Probe:
    """Held-out chunks with three sounds each."""

    samples: Samples
    sounds: Mapping[str, Tensor]
    """'true', 'shifted', 'foreign' → windows (B, 1, F, 5, L, C)."""
    noise: Tensor

    @classmethod
    def of(cls, chunks: Chunks, count: int, seed: int = 0) -> Probe:
        """Chunks of as many clips as there are, always the same for the same clips.

        Args:
            chunks: Of held-out clips.
            count: B.
            seed: Of the choice.
        """
        rng, lips = random.Random(seed), chunks.settings.lips >= MOST  # noqa: S311
        places: list[Place] = []
        while len(places) < count:
            place = chunks.place(rng, len(places) % len(chunks.clips))
            kind: Literal["context", "pair"] = "pair" if place.kind == "pair" else "context"
            places.append(replace(place, kind=kind, lips=lips and kind == "context"))
        samples = chunks.samples(places)
        generator = torch.Generator().manual_seed(seed)
        return cls(samples, {"true": samples.windows, "shifted": chunks.samples(places, LATER).windows,
                             "foreign": samples.windows.roll(1, 0)},
                   torch.randn(samples.latent.shape, generator=generator))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def measure(self, network: Transformer) -> dict[str, float]:
        """Mouth losses by sound, and both gaps: how much more there is with the wrong sound, as a share."""
        found = [self._at(network, t) for t in TIMES]  # of (weighted loss of all, mouth losses by sound)
        losses = {name: sum(mouths[name] for _, mouths in found) / len(TIMES) for name in self.sounds}
        return {"flow": sum(flow for flow, _ in found) / len(TIMES), "mouth": losses["true"],
                "gap_shifted": _gap(losses, "shifted"), "gap_foreign": _gap(losses, "foreign"),
                **{f"gap_foreign_{t:g}": _gap(mouths, "foreign") for t, (_, mouths) in zip(TIMES, found, strict=True)}}

    def _at(self, network: Transformer, t: float) -> tuple[float, dict[str, float]]:
        """At one time: the weighted loss with the true sound, and the mouth's with each."""
        no = torch.zeros(len(self.noise), dtype=torch.bool)
        drawn = Drawn(torch.full((len(no),), t), self.noise, torch.zeros_like(self.noise), no, no).to(network.device)
        flow, mouths = 0.0, dict.fromkeys(self.sounds, 0.0)
        for name, sound in self.sounds.items():
            samples = replace(self.samples, windows=sound).to(network.device)
            whole, mouth = flow_loss(predict(network, samples, drawn).float(), samples, drawn, FlowSettings.mouth)
            mouths[name] = float(mouth)
            flow = float(whole) if name == "true" else flow
        return flow, mouths


def _gap(losses: Mapping[str, float], sound: str) -> float:
    """How much more is lost with a sound than with the true one, as a share."""
    return losses[sound] / max(losses["true"], 1e-9) - 1
