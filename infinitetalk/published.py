"""Published tensors → a network of a library: renamed, checked by name and shape, and laid in."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from infinitetalk.errors import BadWeightsError
from infinitetalk.weights import listed

NOTHING = r"(?!)"
"""Pattern that no name fits."""
HINT = "Fetch the file again, or name the file that belongs to this network."


@dataclass(frozen=True)
class Source:
    """Where a network's tensor is found in a published file."""

    name: str
    part: int = 0
    """Which of the `parts` equal pieces of the first axis."""
    parts: int = 1


def on_meta(kind: Callable[..., Any], *args: Any, **sizes: Any) -> Any:
    """A network without memory of its own: `fill` gives it the published tensors."""
    with torch.device("meta"):
        return kind(*args, **sizes)


def fill(
    network: Any,
    state: Mapping[str, Tensor],
    source: Callable[[str], Source],
    *,
    where: str,
    ignored: str = NOTHING,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> None:
    """Lay copies of published tensors into a network, and freeze it.

    Args:
        network: A `torch.nn.Module`; what its parameters held is dropped.
        state: Published tensors by their published names; leading axes of one are immaterial.
        source: Name of a network's tensor → where it is published.
        where: What errors call the file.
        ignored: Regular expression of published names that are known and of no use here.
        device: Where the tensors are to lie.
        dtype: What they are to be; as they are published if None.

    Raises:
        BadWeightsError: A tensor is missing, left over or of another shape; all of them are named as published.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    sources = {name: source(name) for name in shapes}
    wanted = {each.name for each in sources.values()}
    faults = listed(missing=sorted(wanted - set(state)),
                    unknown=sorted(name for name in set(state) - wanted if not re.fullmatch(ignored, name)),
                    misshapen=_misshapen(shapes, sources, state))
    if faults:
        raise BadWeightsError(faults, where=where, hint=HINT)
    # Copied, since what is mapped from a file would follow the file; once each, since some are used twice.
    moved = {name: state[name].to(device=device, dtype=dtype, copy=True) for name in wanted}
    network.load_state_dict({name: _piece(moved[each.name], each).reshape(shapes[name])
                             for name, each in sources.items()}, assign=True)
    network.eval().requires_grad_(False)


def _piece(tensor: Tensor, source: Source) -> Tensor:
    return tensor if source.parts == 1 else tensor.chunk(source.parts)[source.part]


def _misshapen(shapes: Mapping[str, tuple[int, ...]], sources: Mapping[str, Source],
               state: Mapping[str, Tensor]) -> list[str]:
    faults = set()
    for name, each in sources.items():
        want = shapes[name] if each.parts == 1 else (shapes[name][0] * each.parts, *shapes[name][1:])
        have = tuple(state[each.name].shape) if each.name in state else want
        if _without_ones(have) != _without_ones(want):
            faults.add(f"{each.name} {list(have)} for {list(want)}")
    return sorted(faults)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without its leading axes of one."""
    first = next((axis for axis, size in enumerate(shape) if size != 1), len(shape))
    return shape[first:]


def size(state: Mapping[str, Tensor], name: str, axis: int, where: str) -> int:
    """Length of an axis of a published tensor, from which a network's width follows."""
    if name not in state:
        raise BadWeightsError(listed(missing=[name]), where=where, hint=HINT)
    shape = list(state[name].shape)
    if len(shape) <= axis or not shape[axis]:
        raise BadWeightsError(listed(misshapen=[f"{name} {shape}"]), where=where, hint=HINT)
    return int(shape[axis])


def count(state: Mapping[str, Tensor], prefix: str, where: str) -> int:
    """How many numbered layers there are: one more than the highest number behind `prefix`."""
    numbers = [int(found[1]) for name in state if (found := re.match(re.escape(prefix) + r"\.(\d+)\.", name))]
    if not numbers:
        raise BadWeightsError(listed(missing=[f"{prefix}.0"]), where=where, hint=HINT)
    return 1 + max(numbers)
