"""Training of the speech encoder: log-mel spectra → visemes, by the five states that the transformer hears.

A transformer that is given spectra ignores them for a long time; one that is given these states does not have to find
out what a mouth does. No picture is needed: speech of the synthetic world is made hundreds of times faster than it is
heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from infinitetalk.audio import STATE_RATE, STEP
from infinitetalk.errors import BadInputError
from infinitetalk.small.config import SmallConfig
from infinitetalk.small.speech import WEIGHTS, SpeechFeatures, SpeechNetwork
from infinitetalk.train.loop import LONGEST, Piece, Recipe, Run, Told, write_half
from infinitetalk.world.clip import clip_seed, draw_scene
from infinitetalk.world.scene import CHANNELS, Floats
from infinitetalk.world.speech import Split

RECIPE = Recipe(steps=4000, rate=2e-3, batch=24, decay=0.05)
SPAN = 64
"""Frames of one example, 2.6 s."""
GAIN, NOISE = 8.0, (-80.0, -45.0)
"""Decibels by which speech is made louder or softer, at most; of the noise that is mixed with half of it."""
LEAST = 0.02
"""Deviation below which a channel is not weighed up any further: mouthClose is never used."""


@dataclass(frozen=True, eq=False)
class Utterance:
    """Speech, and what the mouth does."""

    samples: NDArray[np.float32]  # (M,) at 16 kHz
    visemes: NDArray[np.float32]  # (F, 11), 25 per second


def spoken(split: Split, count: int, seconds: float = 8.0) -> Iterator[Utterance]:
    """Speech of the synthetic world, by the same seeds as its clips."""
    frames = round(seconds * STATE_RATE)
    for index in range(count):
        scene = draw_scene(clip_seed(split, index), frames, STATE_RATE)
        yield Utterance(scene.speech[0].audio, scene.acts[0].visemes)


def train_speech(config: SmallConfig, said: Sequence[Utterance], out: Path, minutes: float = LONGEST, *,
                 recipe: Recipe = RECIPE, device: torch.device | str = "cpu",
                 told: Told = lambda step, loss: None) -> Piece:
    """Train the encoder, or go on with it; its average is written as `speech.safetensors` at the end of each piece.

    Args:
        config: Sizes.
        said: What to learn from.
        out: Where states and weights are written.
        minutes: Wall clock of this piece.
        recipe: How.
        device: Where to compute.
        told: Step and loss, after each.

    Raises:
        BadInputError: Nothing is long enough, or the folder holds another run.
        DivergedError: The loss is no number; the last good state is kept.
    """
    long = [one for one in said if len(one.visemes) >= SPAN]
    if not long:
        raise BadInputError(f"nothing said lasts {SPAN} frames", where="training", hint="Give longer clips")
    torch.manual_seed(recipe.seed)
    network = SpeechNetwork(config.speech).to(device)
    run = Run(network, recipe, out / "speech", f"speech {config.speech}")
    piece = run.fit(_loss(network, long, recipe.batch), minutes, told)
    write_half(run.averaged(), out / WEIGHTS)
    return piece


def correlations(heard: SpeechFeatures, said: Sequence[Utterance]) -> dict[str, float]:
    """How well visemes are told from speech: Pearson's r per channel, those that never move left out."""
    told, true = [], []
    for one in said:
        with torch.no_grad():
            states = heard(one.samples)[None, :, 0]  # (1, n, C)
            told.append(heard.network.mouth(states)[0].cpu().numpy()[:len(one.visemes)])
        true.append(one.visemes[:len(told[-1])])
    return correlated(np.concatenate(told), np.concatenate(true))


def correlated(told: Floats, true: Floats) -> dict[str, float]:
    """Pearson's r of two tracks (F, 11) by channel; channels that never move are left out."""
    moving = [index for index in range(true.shape[1]) if true[:, index].std() > 1e-4]
    return {CHANNELS[index]: float(np.corrcoef(told[:, index], true[:, index])[0, 1])
            if told[:, index].std() > 1e-8 else 0.0 for index in moving}


def _loss(network: SpeechNetwork, said: Sequence[Utterance], batch: int) -> Callable[[Generator], Tensor]:
    device = network.out.weight.device
    spread = torch.from_numpy(np.concatenate([one.visemes for one in said]).std(0)).clamp(min=LEAST).to(device)  # (11,)

    def loss(rng: Generator) -> Tensor:
        drawn = [_example(rng, said) for _ in range(batch)]
        samples = torch.from_numpy(np.stack([one.samples for one in drawn])).to(device)  # (B, M)
        wanted = torch.from_numpy(np.stack([one.visemes for one in drawn])).to(device)  # (B, SPAN, 11)
        found = network.mouth(network(samples, SPAN))
        inner = slice(3, -3)  # what is heard beyond the ends is unknown
        return ((found - wanted)[:, inner] / spread).square().mean()

    return loss


def _example(rng: Generator, said: Sequence[Utterance]) -> Utterance:
    one = said[int(rng.integers(len(said)))]
    start = int(rng.integers(len(one.visemes) - SPAN + 1))
    samples = one.samples[start * STEP:(start + SPAN) * STEP]
    louder, noise = 10 ** (rng.uniform(-GAIN, GAIN) / 20), 0.0
    if rng.random() < 0.5:
        noise = 10 ** (rng.uniform(*NOISE) / 20)
    heard = np.pad(samples, (0, SPAN * STEP - len(samples))) * louder + rng.normal(0, 1, SPAN * STEP) * noise
    return Utterance(heard.astype(np.float32), one.visemes[start:start + SPAN])
