"""Several processes that train one transformer, each a part of every batch: on a CPU, one thread each is fastest."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from infinitetalk.small.config import SmallConfig
from infinitetalk.train.dit import DitRecipe, train_transformer
from infinitetalk.train.lessons import lessons
from infinitetalk.train.loop import Team

PATIENCE = 60.0
"""Seconds that the others are waited for once the first has ended."""


@contextmanager
def team(processes: int, data: Path, out: Path, config: SmallConfig, minutes: float, recipe: DitRecipe,
         start: Path | None = None, close: bool = True) -> Iterator[Team | None]:
    """Start the other processes; within this, the first is to train by `train_transformer` with the same as they.

    Args:
        processes: Of one thread each, this one included; 1: no others, and as many threads as before.
        data: See `lessons`; everything is encoded already.
        out: As for the first, as all that follows.
        config: Sizes.
        minutes: Of this piece.
        recipe: How.
        start: Weights to begin with.
        close: See `lessons`.
    """
    if processes < 2:
        yield None
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    context = multiprocessing.get_context("spawn")  # a forked process would inherit torch's threads, which do not live
    with TemporaryDirectory() as folder:
        meeting = Path(folder, "meeting")
        same = (processes, meeting, data, out, config, minutes, recipe, start, close)
        others = [context.Process(target=_train, args=(rank, *same), daemon=True) for rank in range(1, processes)]
        for one in others:
            one.start()
        try:
            first = Team(0, processes, meeting)
            yield first
            first.leave()
            for one in others:
                one.join(PATIENCE)
        finally:
            torch.set_num_threads(threads)
            for one in others:
                one.kill()


def _train(rank: int, processes: int, meeting: Path, data: Path, out: Path, config: SmallConfig, minutes: float,
           recipe: DitRecipe, start: Path | None, close: bool) -> None:
    """One of the others."""
    torch.set_num_threads(1)
    member = Team(rank, processes, meeting)
    taught = lessons(data, out, config, close=close)
    train_transformer(taught.lessons, out, config, minutes, recipe=recipe, start=start, team=member)
    member.leave()
