"""The experiment, in pieces: forks of one base are trained, pairs dubbed and measured, until a piece's time is up.

    work/experiment.json    what the experiment is of; the folder is taken up by the same only
    work/base/              copies of the base's files; clips and latents to learn from
    work/forks/NAME/        states, log, `dit.safetensors`, and `done.json` when it has all its steps
    work/held/              held-out clips
    work/dubs/ARM/          figures, a file an item
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.evaluate.public import READER
from infinitetalk.experiment.arms import FORKS, Arm, arms
from infinitetalk.experiment.bench import BASE, FORKED, HELD, Bench, How, Item, items
from infinitetalk.experiment.claims import Table
from infinitetalk.small import codec, speech
from infinitetalk.small.config import FILE, SmallConfig
from infinitetalk.small.load import DIT
from infinitetalk.train.data import INDEX, prepare
from infinitetalk.train.dit import DitRecipe, train_transformer
from infinitetalk.train.flow import FlowSettings
from infinitetalk.train.lessons import Taught, lessons
from infinitetalk.train.loop import LONGEST, Recipe
from infinitetalk.world.clip_file import sha256

ABOUT, DONE = "experiment.json", "done.json"
NEEDED = (FILE, DIT, codec.WEIGHTS, speech.WEIGHTS)
PROBES = 12
"""Held-out chunks by which it is told whether a fork listens, at its beginning and end: a look takes long."""
LEAST_LEFT = 1.0
"""Seconds for which nothing new is begun."""
Told = Callable[[str], None]
Job = TypeVar("Job")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Training:
    """How forks are trained onwards: all alike, but for their references."""

    steps: int = 500
    rate: float = 2e-4
    batch: int = 16
    seed: int = 0
    visemes: float = 0.5

    def recipe(self, fork: str) -> DitRecipe:
        """Of one fork."""
        run = Recipe(steps=self.steps, rate=self.rate, warmup=min(100, 1 + self.steps // 10), batch=self.batch,
                     decay=0.02, ema=0.995, seed=self.seed)
        return DitRecipe(run=run, flow=FlowSettings(visemes=self.visemes), draw=FORKS[fork],
                         watched=self.steps, probes=PROBES)


@dataclass(frozen=True)
class Standing:
    """How far an experiment is."""

    trained: int
    forks: int
    dubbed: int
    dubs: int

    @property
    def finished(self) -> bool:
        """Whether all is done."""
        return (self.trained, self.dubbed) == (self.forks, self.dubs)


class Experiment:
    """One folder's experiment.

    Args:
        work: Its folder.
        base: Folder of the weights that are forked: `config.json`, transformer, codec, speech encoder, and the reader
            of lips where it has one.
        data: Clips to learn from.
        test: Clips of other people, to dub; those held out in `data` unless given.
        training: How forks are trained.
        how: How they are dubbed.
        networks: Folder of published networks, for faces.

    Raises:
        BadInputError: The folder holds another experiment, or there are no clips.
        BadWeightsError: The base is not whole.
    """

    def __init__(self, work: Path, base: Path, data: Path, test: Path | None, training: Training, how: How,
                 networks: Path | None = None) -> None:
        self._work, self._data, self._test, self._training, self._how = work, data, test, training, how
        self._networks = networks
        self.config = SmallConfig.read(base)
        absent = next((name for name in NEEDED if not (base / name).is_file()), None)
        if absent:
            raise BadWeightsError(f"{absent} is not there", where=str(base), hint="Train it: infinidub train")
        self.arms = arms(self.config, how.sdedit)
        about = {"training": asdict(training), "how": asdict(how),
                 "arms": [repr(replace(arm, told="")) for arm in self.arms],
                 "base": {name: sha256(base / name) for name in (*NEEDED, READER) if (base / name).is_file()},
                 "data": _listing(data), "test": _listing(test or data), "networks": networks is not None}
        self._enter(about, base)
        self.bench = Bench(work, how, networks)

    def _enter(self, about: Mapping[str, Any], base: Path) -> None:
        file = self._work / ABOUT
        if begun(self._work):
            kept = _read(file)
            other = sorted(name for name in about if (kept or {}).get(name) != about[name])
            if other:
                raise BadInputError(f"was begun with other settings ({', '.join(other)})", where=str(self._work),
                                    hint="Give the same again, or another folder")
            return
        (self._work / BASE).mkdir(parents=True, exist_ok=True)
        for name in about["base"]:
            shutil.copyfile(base / name, self._work / BASE / name)
        _write(file, about)

    # -- where it is --------------------------------------------------------------------------------------------------

    @property
    def items(self) -> list[Item]:
        """All that is dubbed and measured."""
        return items(self.arms, self._how)

    def standing(self) -> Standing:
        """How far it is."""
        every = self.items
        return Standing(sum(map(self._trained, FORKS)), len(FORKS), len(every) - len(self._missing()), len(every))

    def _missing(self) -> list[Item]:
        return [item for item in self.items if _read(item.file(self._work)) is None]

    def _trained(self, fork: str) -> bool:
        return (self._work / FORKED / fork / DONE).exists()

    def table(self) -> Table:
        """Figures of those items that all arms have that are to have them: arms stay even."""
        rows: dict[str, dict[tuple[int, int], Any]] = {arm.name: {} for arm in self.arms}
        every = self.items
        kept = {item: told for item in every if (told := _read(item.file(self._work))) is not None}
        uneven = {(item.pair, item.seed) for item in every if item not in kept}
        for item, told in kept.items():
            if (item.pair, item.seed) not in uneven:
                rows[item.arm.name][item.pair, item.seed] = told
        return Table(rows)

    def strips(self) -> list[tuple[Arm, Path]]:
        """Pictures of the first pair, by arm."""
        found = [(arm, Item(arm, 0, 0).file(self._work).with_suffix(".png")) for arm in self.arms]
        return [(arm, file) for arm, file in found if file.is_file()]

    # -- a piece ------------------------------------------------------------------------------------------------------

    def go_on(self, minutes: float, workers: int = 1, told: Told = lambda line: None) -> Standing:
        """Train, dub and measure until the time is up; whatever is begun is brought to its end, or to a state.

        Args:
            minutes: Wall clock of this piece.
            workers: Processes that train forks and dub, a thread each.
            told: Is told a line now and then.

        Raises:
            BadInputError: A piece of no time or a longer one than machines are lent for, or clips that cannot be used.
            DivergedError: A fork's loss is no number; the last good state is kept.
        """
        if not 0 < minutes <= LONGEST:
            raise BadInputError(f"a piece of {minutes:g} minutes", where="experiment",
                                hint=f"Take at most {LONGEST:g}, and run it again to go on")
        end = time.monotonic() + 60 * minutes
        if not (self._work / HELD / INDEX).exists():
            prepare(self._test or self._data, self._work / HELD, self.config.side, close=False)
        _ = self.bench.pairs  # what is wrong with clips is said before hours of training
        self._train([fork for fork in FORKS if not self._trained(fork)], end, workers, told)
        if all(map(self._trained, FORKS)):
            self._dub(self._missing(), end, workers, told)
        return self.standing()

    def _train(self, forks: Sequence[str], end: float, workers: int, told: Told) -> None:
        if not forks:
            return
        # all is encoded here, before several processes look for it
        for name, why in _taught(self._data, self._work / BASE, self.config).skipped.items():
            told(f"{name} skipped: {why}")
        train = partial(_train_fork, self._work, self._data, self.config, self._training, end)
        for fork, step in _each(train, forks, end, workers, _alone):
            told(f"{fork}: step {step} of {self._training.steps}")

    def _dub(self, missing: Sequence[Item], end: float, workers: int, told: Told) -> None:
        make, begin = (self.bench.make, _alone) if workers < 2 else (
            _make, partial(_begin, self._work, self._how, self._networks))
        for done, _ in enumerate(_each(make, missing, end, workers, begin), start=1):
            if done % 20 == 0 or done == len(missing):
                told(f"{done} of {len(missing)} dubs")


def _each(work: Callable[[Job], Done], jobs: Sequence[Job], end: float, workers: int,
          begin: Callable[[], None]) -> Iterator[Done]:
    """Do jobs, by several processes where there are to be; none is begun once the time is up."""
    if workers < 2:
        for job in jobs:
            if end - time.monotonic() < LEAST_LEFT:
                return
            yield work(job)
        return
    spawn = multiprocessing.get_context("spawn")  # a forked process would inherit torch's threads, which do not live
    with ProcessPoolExecutor(workers, mp_context=spawn, initializer=begin) as pool:
        left, running = list(reversed(jobs)), set[Future[Done]]()
        while left or running:
            while left and len(running) < workers and end - time.monotonic() >= LEAST_LEFT:
                running.add(pool.submit(work, left.pop()))
            if not running:
                return
            ready, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (one.result() for one in ready)


def _alone() -> None:
    """One thread a process: on a CPU that is fastest, see `train.team`."""
    torch.set_num_threads(1)


@lru_cache(1)
def _taught(data: Path, base: Path, config: SmallConfig) -> Taught:
    """What forks learn from, read once a process."""
    return lessons(data, base, config, close=False)


def _train_fork(work: Path, data: Path, config: SmallConfig, training: Training, end: float,
                fork: str) -> tuple[str, int]:
    out = work / FORKED / fork
    out.mkdir(parents=True, exist_ok=True)
    taught = _taught(data, work / BASE, config).lessons
    piece = train_transformer(taught, out, config, max(end - time.monotonic(), LEAST_LEFT) / 60,
                              recipe=training.recipe(fork), start=work / BASE / DIT)
    if piece.finished:
        _write(out / DONE, {"step": piece.step})
    return fork, piece.step


_bench: list[Bench] = []
"""Of a process that dubs."""


def _begin(work: Path, how: How, networks: Path | None) -> None:
    _alone()
    _bench[:] = [Bench(work, how, networks)]


def _make(item: Item) -> None:
    _bench[0].make(item)


def begun(work: Path) -> bool:
    """Whether a folder holds an experiment."""
    return (work / ABOUT).is_file()


def _listing(folder: Path) -> str:
    """Tells folders apart by the names and sizes of their files."""
    files = sorted((str(path.relative_to(folder)), path.stat().st_size) for path in folder.rglob("*")
                   if path.is_file())
    if not files:
        raise BadInputError("holds no clips", where=str(folder), hint="Render some: infinidub world render --out …")
    return hashlib.sha256(json.dumps(files).encode()).hexdigest()[:16]


def _write(file: Path, told: Mapping[str, Any]) -> None:
    writing = file.with_name(f".{file.name}")
    writing.write_text(json.dumps(told, indent=1), encoding="utf-8")
    writing.replace(file)


def _read(file: Path) -> dict[str, Any] | None:
    """What a file tells; None where it is absent or damaged: then it is made again."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None
