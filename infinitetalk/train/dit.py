"""Training of a small generator's transformer: encoded clips → `dit.safetensors`, in pieces, the audio gap watched."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from infinitetalk.networks import Codec
from infinitetalk.small.config import SmallConfig
from infinitetalk.small.load import DIT, load_transformer
from infinitetalk.small.transformer import SmallTransformer
from infinitetalk.train.draw import Chunks, DrawSettings
from infinitetalk.train.flow import FlowSettings, VisemeHead, draw, judge, withhold
from infinitetalk.train.latents import EncodedClip
from infinitetalk.train.loop import Piece, Recipe, Run, Team
from infinitetalk.train.probe import Probe
from infinitetalk.train.sheet import sampled, save_sheet
from infinitetalk.transformer import Transformer

LOG = "log.jsonl"
SHOWN = 4
"""Chunks on a sheet."""
MEASURED = 256
"""Chunks by which it is measured how far pictures go with their references."""
Told = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class DitRecipe:
    """How a transformer is trained."""

    run: Recipe = field(default_factory=lambda: Recipe(steps=20_000, rate=1e-3, warmup=200, batch=24, decay=0.02,
                                                       ema=0.999))
    flow: FlowSettings = field(default_factory=FlowSettings)
    draw: DrawSettings = field(default_factory=DrawSettings)
    watched: int = 100
    """Steps between looks at the audio gap."""
    shown: int = 500
    """Steps between sheets."""
    probes: int = 24
    """Held-out chunks that the gap is taken on."""
    half: bool = False
    """Whether products are taken in bfloat16; faster on a GPU, and on large networks only."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """What there is to learn from."""

    train: Sequence[EncodedClip]
    held: Sequence[EncodedClip]
    """Of other people and voices."""

    def chunks(self, config: SmallConfig, settings: DrawSettings) -> tuple[Chunks, Chunks]:
        """Both, to draw from; those held out always hear and see as the others do."""
        train, held = (Chunks(clips, config.frames, config.context, settings)
                       for clips in (self.train, self.held))
        return train, held


def initialise(network: SmallTransformer, seed: int = 0) -> SmallTransformer:
    """First weights: every block open from the start, and nothing added to what the reference tells.

    Residual branches are scaled down by their number instead of being gated away: small networks have no time to open
    gates. What hears keeps torch's first weights, whose biases let loudness through the norm behind it.
    """
    generator = torch.Generator().manual_seed(seed)
    branches = 3 * len(network.blocks)
    with torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear | nn.Conv3d) and not name.startswith("audio_proj"):
                matrix = module.weight.flatten(1)
                scale = matrix.shape[1] ** -0.5
                if name.endswith((".o", ".proj", "ffn.2")):
                    scale *= branches ** -0.5
                module.weight.copy_((torch.randn(matrix.shape, generator=generator) * scale).view_as(module.weight))
                if module.bias is not None:
                    module.bias.zero_()
        for block in network.blocks:
            block.modulation.zero_()[:, 2::3] = 1
        network.time_projection[1].weight.mul_(0.1)
        network.head.modulation.zero_()
        network.head.head.weight.zero_()
    return network


class Lesson:
    """The loss of one step, for `loop.Run`."""

    def __init__(self, transformer: SmallTransformer, head: VisemeHead | None, chunks: Chunks, recipe: DitRecipe,
                 processes: int = 1) -> None:
        self._count = -(-recipe.run.batch // processes)
        self.transformer, self._head, self._chunks, self._recipe = transformer, head, chunks, recipe
        self.seen: list[dict[str, float]] = []
        """Figures since they were last taken."""

    def __call__(self, rng: Generator) -> Tensor:
        """Draw a batch and judge the network by it."""
        first, second = (int(seed) for seed in rng.integers(2**31, size=2))
        recipe, device = self._recipe, self.transformer.device
        samples = self._chunks.batch(random.Random(first), self._count)  # noqa: S311
        drawn = draw(samples, recipe.flow, torch.Generator().manual_seed(second)).to(device)
        samples = withhold(samples.to(device), drawn)
        with torch.autocast(device.type, torch.bfloat16) if recipe.half else nullcontext():
            loss = judge(self.transformer, samples, drawn, recipe.flow, self._head)
        self.seen.append({name: float(value.detach()) for name, value in vars(loss).items()})
        return loss.total

    def taken(self) -> dict[str, float]:
        """Means of the losses since the last call."""
        losses, self.seen = self.seen, []
        return {name: float(np.mean([one[name] for one in losses])) for name in losses[0]} if losses else {}


class Watch:
    """Looks at the average of the weights while they are trained: gap, log, sheets."""

    def __init__(self, run: Run, lesson: Lesson, held: Chunks, codec: Codec | None, recipe: DitRecipe,
                 config: SmallConfig, told: Told) -> None:
        self._run, self._lesson, self._codec, self._recipe, self._told = run, lesson, codec, recipe, told
        self._probe = Probe.of(held, recipe.probes)
        transformer = SmallTransformer(config.transformer).to(lesson.transformer.device)
        transformer.load_state_dict(lesson.transformer.state_dict())
        self.shown = nn.ModuleDict({"transformer": transformer})
        self._begun = time.monotonic()
        if run.step == 0:
            self.look()

    def __call__(self, step: int, _loss: float) -> None:
        """After each step."""
        if step % self._recipe.watched == 0:
            self.look()
        if step % self._recipe.shown == 0 and self._codec is not None:
            self.sheet(self._codec)

    def look(self) -> dict[str, float]:
        """Measure, and write it down."""
        self._run.average.put(self.shown)
        told = {"step": self._run.step, "seconds": round(time.monotonic() - self._begun, 1),
                **{f"train_{name}": value for name, value in self._lesson.taken().items()},
                **self._probe.measure(self.shown["transformer"])}
        told = {name: round(value, 5) for name, value in told.items()}
        self._run.folder.mkdir(parents=True, exist_ok=True)
        with (self._run.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps(told) + "\n")
        self._told(told)
        return told

    def sheet(self, codec: Codec) -> None:
        """Write a sheet of held-out chunks."""
        self._run.average.put(self.shown)
        samples = self._probe.samples
        few = type(samples)(**{name: value[:SHOWN] for name, value in vars(samples).items()})
        made = sampled(self.shown["transformer"], few, self._probe.noise[:SHOWN])
        save_sheet(self._run.folder / "sheets" / f"{self._run.step:07d}.png", codec, few.latent, made)


def train_transformer(lessons: Lessons, out: Path, config: SmallConfig, minutes: float, *,
                      recipe: DitRecipe | None = None, codec: Codec | None = None,
                      device: torch.device | str = "cpu", start: Path | None = None, team: Team | None = None,
                      told: Told = lambda told: None) -> Piece:
    """Train for a piece of time; the run goes on where the folder's newest state is.

    Args:
        lessons: Encoded clips.
        out: Gets `run/` (states, log, sheets), and `dit.safetensors`, the averaged weights.
        config: Sizes.
        minutes: Of this piece.
        recipe: How; a run is taken up with its own recipe only.
        codec: For sheets; none without.
        device: Where to compute.
        start: Weights to begin with, where the run has no state yet.
        team: The processes that train it together; the batch is divided among them.
        told: Called with each line of the log.

    Raises:
        BadInputError: The folder's run is of another configuration or recipe.
        DivergedError: The loss is no number; the last good state is on disk.
    """
    recipe = recipe or DitRecipe()
    torch.manual_seed(recipe.run.seed)
    transformer = initialise(SmallTransformer(config.transformer), recipe.run.seed)
    train, held = lessons.chunks(config, recipe.draw)
    parts: dict[str, nn.Module] = {"transformer": transformer.to(device)}
    if recipe.flow.visemes:
        visemes = torch.cat([clip.visemes for clip in lessons.train])
        parts["head"] = VisemeHead(transformer, visemes, config.transformer.num_layers // 2)
    network = nn.ModuleDict(parts).to(device)
    told_of = json.dumps({"config": asdict(config), "recipe": asdict(recipe)}, sort_keys=True)

    def begin() -> None:
        if start is None:
            examples = train.batch(random.Random(recipe.run.seed), MEASURED).to(transformer.device)  # noqa: S311
            transformer.measure(examples.latent, examples.reference)
        else:
            transformer.load_state_dict(load_transformer(start, config).state_dict())

    run = Run(network, recipe.run, out / "run", told_of, team, begin)
    lesson = Lesson(transformer, parts.get("head"), train, recipe, team.count if team else 1)
    if not run.first:
        return run.fit(lesson, minutes)
    watch = Watch(run, lesson, held, codec, recipe, config, told)
    piece = run.fit(lesson, minutes, watch)
    run.average.put(watch.shown)
    write(watch.shown["transformer"], config, out)
    return piece


def write(transformer: Transformer, config: SmallConfig, out: Path) -> None:
    """`dit.safetensors` in half precision, and `config.json`."""
    from safetensors.torch import save_file

    weights: dict[str, Any] = {name: value.detach().cpu().half().contiguous()
                               for name, value in transformer.state_dict().items()}
    save_file(weights, out / DIT, metadata={"config": config.digest()})
    config.save(out)
