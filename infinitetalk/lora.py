"""LoRA: low-rank changes that are added to a network's weights, once, in place.

    X.lora_down.weight, X.lora_up.weight     X.weight += scale · alpha/rank · up @ down     (or lora_A, lora_B)
    X.diff, X.diff_b, X.diff_m               X.weight, X.bias, X.modulation += scale · difference

Without X.alpha the factor alpha/rank is 1. The published implementation leaves alpha out always: `use_alpha=False`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.weights import StoredTensor, diffusers_to_original

PREFIXES = ("base_model.model.", "diffusion_model.", "transformer.")
"""What trainers write before the names of modules."""
KINDS: Mapping[str, str] = {
    "lora_down.weight": "down", "lora_A.weight": "down", "lora_A.default.weight": "down",
    "lora_up.weight": "up", "lora_B.weight": "up", "lora_B.default.weight": "up",
    "alpha": "alpha", "diff": "weight", "diff_b": "bias", "diff_m": "modulation",
}
"""How the names end → which part that is; a difference is called after the tensor it changes."""


@dataclass(frozen=True, eq=False)
class Change:
    """What is added to one tensor."""

    target: str
    factors: tuple[Tensor, ...]
    """The difference itself, or up (out, rank) and down (rank, in)."""
    rate: float = 1.0
    """alpha / rank."""

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a tensor of this shape can be changed so; of convolutions all axes but the first count as one."""
        if len(self.factors) == 1:
            return tuple(self.factors[0].shape) == tuple(shape)
        up, down = self.factors
        return up.shape[1] == down.shape[0] and (up.shape[0], down.shape[1]) == (shape[0], math.prod(shape[1:]))

    def add_to(
        self,
        tensor: Tensor,  # (out, …)
        scale: float,
    ) -> None:
        """Change `tensor` in place; computed in float32, so that bf16 rounds once and not at every step."""
        exact = torch.promote_types(tensor.dtype, torch.float32)
        moved = [factor.to(tensor.device, exact) for factor in self.factors]
        difference = moved[0] if len(moved) == 1 else moved[0] @ moved[1]  # (out, …) or (out, in)
        tensor.copy_(tensor.to(exact) + scale * self.rate * difference.reshape(tensor.shape))


def merge_lora(
    state: Mapping[str, Tensor] | nn.Module, lora: Mapping[str, Tensor], scale: float, use_alpha: bool = True
) -> tuple[str, ...]:
    """Add a LoRA to weights in place, one tensor at a time, after all of it has been checked.

    Args:
        state: The network, or its tensors under their original names; not quantised yet.
        lora: Tensors of the LoRA. Names of modules are the original or diffusers' ones, with or without a prefix.
        scale: Strength; 1 is as trained, 0 nothing.
        use_alpha: Follow the LoRA's own alpha/rank.

    Returns:
        Names of the tensors that were changed.

    Raises:
        BadInputError: `scale` is not finite.
        BadWeightsError: The LoRA is empty, damaged, or for another network; nothing was changed.
    """
    if not math.isfinite(scale):
        raise BadInputError(f"{scale} is no strength of a LoRA", where="lora", hint="Give a finite number; usual is 1")
    tensors = state.state_dict() if isinstance(state, nn.Module) else state
    changes = [change for module, parts in _modules(lora).items() for change in _changes(module, parts, use_alpha)]
    found = [(change, tensors.get(original_name(change.target, tensors))) for change in changes]
    _check(found)
    with torch.no_grad():
        for change, tensor in found:
            change.add_to(tensor, scale)
    return tuple(sorted({original_name(change.target, tensors) for change in changes}))


def check_header(lora: Mapping[str, StoredTensor], network: Mapping[str, StoredTensor], where: str) -> None:
    """Check by names and shapes alone, before anything is loaded, that a LoRA is one of this network.

    Raises:
        BadWeightsError: It is not.
    """
    if not lora:
        raise BadWeightsError("there is nothing in it", where=where, hint="Give another file")
    wrong: dict[str, list[str]] = {}
    for name, tensor in lora.items():
        ending = next((ending for ending in KINDS if name.endswith(f".{ending}")), "")
        what = _fault(name.removesuffix(f".{ending}"), KINDS.get(ending, ""), tensor.shape, network)
        if what:
            wrong.setdefault(what, []).append(name)
    for what, names in wrong.items():
        raise _bad(names, what, lora=where)


def _fault(module: str, kind: str, shape: Sequence[int], network: Mapping[str, StoredTensor]) -> str:
    """What is wrong with a part of a LoRA; empty: nothing."""
    if not kind:
        return "is no part of a LoRA that can be merged"
    if kind == "alpha":
        return ""
    target = original_name(f"{module}.{'weight' if kind in ('up', 'down') else kind}", network)
    if target not in network:
        return "is not in the network"
    there = network[target].shape
    fits = {"up": shape[:1] == there[:1], "down": math.prod(shape[1:]) == math.prod(there[1:])}
    return "" if fits.get(kind, tuple(shape) == tuple(there)) else "has another shape in the network"


def original_name(name: str, tensors: Collection[str]) -> str:
    """A tensor's name without prefix, and translated from diffusers' where the network does not know it as it is."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name if name in tensors else diffusers_to_original(name)


def _modules(lora: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Module → its parts."""
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in lora.items():
        ending = next((ending for ending in KINDS if name.endswith(f".{ending}")), None)
        if ending is None:
            raise _bad([name], "is no part of a LoRA that can be merged")
        if not torch.isfinite(tensor).all():
            raise _bad([name], "is damaged: it has values that are not finite")
        modules.setdefault(name.removesuffix(f".{ending}"), {})[KINDS[ending]] = tensor
    if not modules:
        raise BadWeightsError("there is nothing in it", where="lora", hint="Give another file")
    return modules


def _changes(module: str, parts: Mapping[str, Tensor], use_alpha: bool) -> Iterator[Change]:
    if ("up" in parts) != ("down" in parts):
        raise _bad([module], "has one factor without the other")
    if "up" in parts:
        up, down = parts["up"].flatten(1), parts["down"].flatten(1)  # (out, rank), (rank, in)
        rate = float(parts["alpha"]) / down.shape[0] if use_alpha and "alpha" in parts else 1.0
        yield Change(f"{module}.weight", (up, down), rate)
    for kind in ("weight", "bias", "modulation"):
        if kind in parts:
            yield Change(f"{module}.{kind}", (parts[kind],))


def _check(found: Sequence[tuple[Change, Tensor | None]]) -> None:
    """Refuse the LoRA if any target is absent, quantised or of another shape."""
    absent = [change.target for change, tensor in found if tensor is None]
    if absent:
        raise _bad(absent, "is not in the network")
    there = [(change, tensor) for change, tensor in found if tensor is not None]
    packed = [change.target for change, tensor in there if tensor.itemsize < 2 or tensor.is_meta]
    if packed:
        raise _bad(packed, "is quantised or not loaded", "Merge after loading and before quantising")
    misshapen = [change.target for change, tensor in there if not change.fits(tensor.shape)]
    if misshapen:
        raise _bad(misshapen, "has another shape in the network")


def _bad(names: Sequence[str], what: str, hint: str = "Give a LoRA of Wan 2.1 image-to-video 14B",
         lora: str = "lora") -> BadWeightsError:
    more = f" (and {len(names) - 5} more)" if len(names) > 5 else ""
    return BadWeightsError(what + more, where=f"{lora}: {', '.join(names[:5])}", hint=hint)
