"""The audio gap: whether the transformer listens, told from its loss alone, from the first step on.

On held-out chunks the loss in the mouth's box is taken with the true audio, with that of another moment of the same
clip, and with that of another clip; same noise, same times. While the gap is near zero, lips move by chance.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from infinitetalk.train.draw import Chunks, Place
from infinitetalk.train.flow import Drawn, FlowSettings, Samples, flow_loss, predict
from infinitetalk.transformer import Transformer

TIMES = (0.95, 0.8, 0.6)
"""Where on the way to noise it is asked: near the noise, where the mouth's shape is decided."""
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
        rng = random.Random(seed)  # noqa: S311
        places: list[Place] = []
        while len(places) < count:
            place = chunks.place(rng, len(places) % len(chunks.clips))
            places.append(replace(place, kind="context") if place.kind == "first" else place)
        samples = chunks.samples(places)
        generator = torch.Generator().manual_seed(seed)
        return cls(samples, {"true": samples.windows, "shifted": chunks.samples(places, LATER).windows,
                             "foreign": samples.windows.roll(1, 0)},
                   torch.randn(samples.latent.shape, generator=generator))

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def measure(self, network: Transformer) -> dict[str, float]:
        """Mouth losses by sound, and both gaps: how much more there is with the wrong sound, as a share."""
        device = network.device
        losses = dict.fromkeys(self.sounds, 0.0)
        flow = 0.0
        for t in TIMES:
            count = len(self.noise)
            no = torch.zeros(count, dtype=torch.bool)
            drawn = Drawn(torch.full((count,), t), self.noise, torch.zeros_like(self.noise), no, no).to(device)
            for name, sound in self.sounds.items():
                samples = replace(self.samples, windows=sound).to(device)
                whole, mouth = flow_loss(predict(network, samples, drawn).float(), samples, drawn,
                                         FlowSettings.mouth)
                losses[name] += float(mouth) / len(TIMES)
                flow += float(whole) / len(TIMES) if name == "true" else 0.0
        true = max(losses["true"], 1e-9)
        return {"flow": flow, "mouth": losses["true"], "gap_shifted": losses["shifted"] / true - 1,
                "gap_foreign": losses["foreign"] / true - 1}
