"""Training in pieces: a run is cut off at any step and goes on as if it had not been.

On a CPU several processes of one thread each learn faster than one of several threads: `Team` is how they stay alike.

Everything random about a step comes from the recipe's seed and the step's number, so that losses do not depend on how
a run was cut. A loss that is no number stops it, and the last good state stays.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor, nn

from infinitetalk.errors import BadInputError
from infinitetalk.train.checkpoint import (
    DivergedError,
    Standing,
    optimiser_tensors,
    read_state,
    resting,
    restore_optimiser,
    save_state,
)
from infinitetalk.train.ema import Ema

LONGEST = 10.0
"""Minutes that a piece may take: machines are lent for so long."""


@dataclass(frozen=True)
class Recipe:
    """How weights are found, whatever they are for."""

    steps: int
    """Of the whole run; the learning rate falls to nothing over them."""
    rate: float = 1e-3
    """Learning rate at its highest."""
    warmup: int = 100
    batch: int = 16
    decay: float = 0.01
    """Weight decay."""
    clip: float = 1.0
    """Most length of the gradient."""
    ema: float = 0.995
    save_every: int = 250
    """Steps between states on disk."""
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, counted from 0: a ramp, then half a cosine."""
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * min(1.0, (step + 1) / max(1, self.warmup)) * 0.5 * (1 + math.cos(math.pi * max(0.0, done)))


@dataclass(frozen=True)
class Piece:
    """What one call of `fit` did."""

    step: int
    """Steps done since the run began."""
    finished: bool
    losses: tuple[float, ...]
    """Of this piece's steps."""


Told = Callable[[int, float], None]


def identity(*parts: object) -> str:
    """Tells runs apart by what they are of: configurations and recipes."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


class Team:
    """Processes that train one network: each draws its own part of a batch, and gradients are averaged.

    Args:
        rank: Of this process; the first one keeps the time, the log and the states.
        count: Of processes.
        meeting: File by which they find each other, absent before.
    """

    def __init__(self, rank: int, count: int, meeting: Path) -> None:
        from torch import distributed

        self.rank, self.count = rank, count
        self._distributed = distributed
        distributed.init_process_group("gloo", init_method=meeting.resolve().as_uri(), rank=rank, world_size=count)

    def average(self, network: nn.Module) -> None:
        """Replace gradients by their mean over the processes."""
        gradients = [one.grad for one in network.parameters() if one.grad is not None]
        flat = torch.cat([one.flatten() for one in gradients])
        self._distributed.all_reduce(flat)
        for one, mean in zip(gradients, (flat / self.count).split([one.numel() for one in gradients]), strict=True):
            one.copy_(mean.view_as(one))

    def agree(self, yes: bool) -> bool:
        """What the first process says."""
        flag = torch.tensor([float(yes)])
        self._distributed.broadcast(flag, 0)
        return bool(flag.item())

    def leave(self) -> None:
        """End it."""
        self._distributed.destroy_process_group()


class Run:
    """A network on its way, with its average and its optimiser.

    Args:
        network: As it begins; its weights are those of the newest state of the folder, if there is one.
        recipe: How.
        folder: Where states lie.
        of: What the run is of, besides the recipe: a folder's states are taken up by the same run only.
        team: The processes that train it; none: this one alone.
        begin: Gives the network its first weights; called where no state stands in for them.

    Raises:
        BadInputError: The folder's states are of another run.
        BadWeightsError: They are damaged.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, folder: Path, of: str, team: Team | None = None,
                 begin: Callable[[], object] = lambda: None) -> None:
        self.team = team
        self.network, self.recipe, self.folder = network, recipe, folder
        self._of = identity(of, asdict(recipe))
        self._names = [name for name, _ in network.named_parameters()]
        self._optimiser = torch.optim.AdamW(network.parameters(), lr=recipe.rate, betas=(0.9, 0.98),
                                            weight_decay=recipe.decay)
        standing = read_state(folder, self._of)
        if standing is None:
            begin()
        self.average = Ema(network, recipe.ema)
        self.step = self._resumed(standing) if standing else 0

    def fit(self, loss: Callable[[Generator], Tensor], minutes: float = LONGEST,
            told: Told = lambda step, loss: None) -> Piece:
        """Train until the recipe's steps are done or the time is up; the state is on disk then.

        Args:
            loss: Of one batch, which it draws by the generator that it is given.
            minutes: Wall clock of this piece.
            told: Step and loss, after each.

        Raises:
            BadInputError: A piece of no time, or a longer one than machines are lent for.
            DivergedError: The loss is no number; the last good state is on disk.
        """
        if not 0 < minutes <= LONGEST:
            raise BadInputError(f"a piece of {minutes:g} minutes", where="training",
                                hint=f"Take at most {LONGEST:g}, and run it again to go on")
        end, losses = time.monotonic() + 60 * minutes, []
        while self.step < self.recipe.steps and self._agreed(time.monotonic() < end):
            losses.append(self._stepped(loss))
            if self.step % self.recipe.save_every == 0:
                self.save()
            told(self.step, losses[-1])
        self.save()
        return Piece(self.step, self.step >= self.recipe.steps, tuple(losses))

    def averaged(self) -> nn.Module:
        """The network with the average of its weights: the run ends here."""
        self.average.put(self.network)
        return self.network

    @property
    def first(self) -> bool:
        """Whether this process keeps states and log."""
        return self.team is None or self.team.rank == 0

    def _agreed(self, yes: bool) -> bool:
        return yes if self.team is None else self.team.agree(yes)

    def save(self) -> None:
        """Write the state."""
        if not self.first:
            return
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.values.items()}
        memory = optimiser_tensors(self._optimiser, self._names)
        save_state(self.folder, self.step, self._of, tensors | {f"memory.{name}": one for name, one in memory.items()})

    def _stepped(self, loss: Callable[[Generator], Tensor]) -> float:
        for group in self._optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(self.step)
        rank = (self.team.rank,) if self.team else ()
        found = loss(np.random.default_rng((self.recipe.seed, self.step, *rank)))
        value = float(found.detach())
        if not math.isfinite(value):
            raise DivergedError(f"the loss is {value} at step {self.step}", where=str(self.folder),
                                hint=resting(self.folder))
        self._optimiser.zero_grad(set_to_none=True)
        found.backward()  # type: ignore[no-untyped-call]
        if self.team:
            self.team.average(self.network)
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self._optimiser.step()
        self.step += 1
        self.average.update(self.network, self.step)
        return value

    def _resumed(self, standing: Standing) -> int:
        self.network.load_state_dict(standing.part("network"))
        with torch.no_grad():
            for name in self._names:
                self.average.values[name].copy_(standing.part("average")[name])
        if standing.step:
            restore_optimiser(self._optimiser, self._names, standing.part("memory"))
        return standing.step


def write_half(network: nn.Module, file: Path, exact: Collection[str] = ()) -> None:
    """Write a network's tensors in half precision, but for those named `exact`, as safetensors."""
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: (value if name in exact else value.half()).cpu().contiguous()
               for name, value in network.state_dict().items()}, file)
