"""Attention: one function, and the kernels that can compute it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from infinitetalk.errors import BadInputError

MODULES = {"flash3": "flash_attn_interface", "flash2": "flash_attn", "sage": "sageattention"}
"""Back end → the library that it needs; all of these run on CUDA alone."""


def attend(
    q: Tensor,  # (B, N, A, d)
    k: Tensor,  # (B, K, A, d)
    v: Tensor,  # (B, K, A, d)
    backend: str = "sdpa",
) -> Tensor:  # (B, N, A, d)
    """Softmax attention of every query to all keys, scaled by 1/√d, without a mask.

    Args:
        q: Queries.
        k: Keys.
        v: Values, of the queries' type.
        backend: One of `available()`.
    """
    return _BACKENDS[backend](q, k, v)


def available() -> tuple[str, ...]:
    """Back ends that this machine can run, "sdpa" first."""
    if not torch.cuda.is_available():
        return ("sdpa",)
    return ("sdpa", "cudnn", *(name for name, module in MODULES.items() if find_spec(module)))


def choose(name: str, device: torch.device | str) -> str:
    """The back end by that name, or for "auto" the fastest exact one for the device.

    Sage rounds queries and keys to 8 bits, so that it is used only where it is asked for.

    Raises:
        BadInputError: The back end is unknown, or cannot run here.
    """
    here = available() if torch.device(device).type == "cuda" else ("sdpa",)
    if name == "auto":
        generation = torch.cuda.get_device_capability(device)[0] if here != ("sdpa",) else 0
        return next((one for one in _FASTEST.get(generation, ()) if one in here), "sdpa")
    if name not in here:
        hint = f"Here can run: auto, {', '.join(here)}"
        raise BadInputError(f"there is no attention {name!r} on {device}", where="attention", hint=hint)
    return name


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2)


def _cudnn(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(order, set_priority=True):
        return _sdpa(q, k, v)


def _flash3(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from flash_attn_interface import flash_attn_func  # type: ignore[import-not-found]

    out = flash_attn_func(q, k, v)
    return out[0] if isinstance(out, tuple) else out  # its first versions return the log-sum-exp too


def _flash2(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from flash_attn import flash_attn_func  # type: ignore[import-not-found]

    return flash_attn_func(q, k, v)


def _sage(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    from sageattention import sageattn  # type: ignore[import-not-found]

    return sageattn(q, k, v, tensor_layout="NHD", is_causal=False)


_FASTEST = {8: ("flash2",), 9: ("flash3", "cudnn", "flash2"), 10: ("cudnn", "flash2"), 12: ("cudnn", "flash2")}
"""First number of a card's capability (8: Ampere, Ada; 9: Hopper; 10, 12: Blackwell) → exact back ends that run there,
fastest first."""
_BACKENDS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "sdpa": _sdpa, "cudnn": _cudnn, "flash3": _flash3, "flash2": _flash2, "sage": _sage}
