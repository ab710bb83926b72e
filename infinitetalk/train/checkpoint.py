"""Where a training run stands, on disk: tensors as safetensors, the rest as JSON, nothing that could run code.

A run's folder holds two states, the newest and the one before it; each is written beside them and put in place whole,
so that a machine that stops at any moment leaves one that can be read.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from infinitetalk.errors import BadInputError, BadWeightsError, InfiniteTalkError

TENSORS, TOLD = "state.safetensors", "state.json"
NEWEST, BEFORE, WRITING = "state", "state.before", "state.writing"
HINT = "Name another folder, or delete its states to begin anew"


class DivergedError(InfiniteTalkError):
    """The loss, or a weight, is no number any more; the last good state lies in the run's folder."""


@dataclass(frozen=True)
class Standing:
    """A state that was read."""

    step: int
    tensors: Mapping[str, Tensor]
    told: Mapping[str, Any]
    """Whatever else was saved with it."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors `prefix.…` by the rest of their names."""
        return {name.removeprefix(f"{prefix}."): value for name, value in self.tensors.items()
                if name.startswith(f"{prefix}.")}


def save_state(folder: Path, step: int, identity: str, tensors: Mapping[str, Tensor], **told: Any) -> None:
    """Write a state.

    Args:
        folder: Of the run.
        step: Steps done.
        identity: What the run is of: a state is taken up by the same only.
        tensors: By name; all must be numbers.
        told: Anything that JSON can hold.

    Raises:
        DivergedError: A tensor holds NaN or infinity; nothing was written.
    """
    from safetensors.torch import save_file

    bad = next((name for name, value in tensors.items() if not bool(torch.isfinite(value).all())), None)
    if bad is not None:
        raise DivergedError(f"{bad} is no number any more after step {step}", where=str(folder), hint=resting(folder))
    writing = folder / WRITING
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, writing / TENSORS)
    (writing / TOLD).write_text(json.dumps({"step": step, "identity": identity, **told}, indent=1), encoding="utf-8")
    shutil.rmtree(folder / BEFORE, ignore_errors=True)
    if (folder / NEWEST).exists():
        (folder / NEWEST).rename(folder / BEFORE)
    os.replace(writing, folder / NEWEST)


def read_state(folder: Path, identity: str) -> Standing | None:
    """The newest state of a run that can be read; None where there is none.

    Raises:
        BadInputError: It is of another configuration.
        BadWeightsError: There are states, and all are damaged.
    """
    found = [folder / name for name in (NEWEST, BEFORE) if (folder / name).is_dir()]
    for place in found:
        standing = _read(place)
        if standing is None:
            continue
        if standing.told.get("identity") != identity:
            raise BadInputError("it was begun with another configuration or another recipe", where=str(place),
                                hint=HINT)
        return standing
    if found:
        raise BadWeightsError("the states are damaged", where=str(folder), hint=HINT)
    return None


def resting(folder: Path) -> str:
    """Where the last good state lies, in words."""
    return f"The last good state is kept in {folder}; lower the learning rate, or look at the data" \
        if (folder / NEWEST).is_dir() else "There is no good state: lower the learning rate, or look at the data"


def _read(place: Path) -> Standing | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        told = json.loads((place / TOLD).read_text(encoding="utf-8"))
        return Standing(int(told["step"]), load_file(place / TENSORS), told)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError):
        return None


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """An AdamW's memory, by the names of its parameters in its order."""
    kept = optimiser.state_dict()["state"]
    return {f"{key}.{names[index]}": value if isinstance(value, Tensor) else torch.tensor(value)
            for index, memory in kept.items() for key, value in memory.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, names: list[str], kept: Mapping[str, Tensor]) -> None:
    """Lay a memory of `optimiser_tensors` back.

    Raises:
        BadWeightsError: A parameter's memory is missing.
    """
    told = optimiser.state_dict()
    keys = sorted({name.partition(".")[0] for name in kept})
    try:
        told["state"] = {index: {key: kept[f"{key}.{name}"] for key in keys} for index, name in enumerate(names)}
    except KeyError as error:
        raise BadWeightsError(f"1 tensor is missing: {error.args[0]}", where="training state", hint=HINT) from error
    optimiser.load_state_dict(told)
