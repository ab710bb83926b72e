"""Published weights → a network, without running what a file may hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from infinitetalk.weights import assemble, open_tensors

Network = TypeVar("Network", bound=nn.Module)
COUNTER = "num_batches_tracked"
"""Of norms; only training reads it, and old files lack it."""


def load(build: Callable[[], Network], file: Path) -> Network:
    """A network with the tensors of a file, on the CPU, for inference.

    Args:
        build: Makes it; called on the meta device.
        file: safetensors, or a torch file that holds tensors only.

    Raises:
        BadWeightsError: The file is absent, damaged, or another network's.
    """
    with torch.device("meta"):
        network = build()
    for module in network.modules():
        if COUNTER in module._buffers:
            module.num_batches_tracked = None
    stored = {name: tensor for name, tensor in open_tensors([file]).items() if not name.endswith(COUNTER)}
    filled: Network = assemble(network, stored, torch.float32, "cpu").eval()
    return filled
