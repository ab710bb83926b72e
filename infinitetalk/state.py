"""What one chunk hands to the next: enough to go on in another process, on another day, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from infinitetalk.color import ColorStats
from infinitetalk.errors import BadInputError

DIGEST: Final = 32
"""Bytes of a fingerprint (SHA-256)."""
AXES: Final = {"index": (torch.int64, 0), "fingerprint": (torch.uint8, 1), "color_mean": (torch.float32, 1),
               "color_std": (torch.float32, 1), "context": (torch.float32, 4), "last_frame": (torch.uint8, 3)}
"""Tensors of a saved state: type, number of axes. The last two may be absent."""
OPTIONAL: Final = {"context", "last_frame"}
HINT: Final = "Delete it: the shot then begins anew"


@dataclass(frozen=True, eq=False)
class ChunkState:
    """The state between two chunks, on the CPU; about a megabyte at 480p."""

    index: int
    """The chunk that comes next."""
    fingerprint: bytes
    """SHA-256 of what it belongs to: settings, length, size and seed of the shot."""
    color: ColorStats
    """Of the shot's own first picture."""
    context: Tensor | None = None  # (C, Tc, h, w) float32
    """Latents that the next chunk begins with; None after the last chunk, and where chunks share a picture only."""
    last_frame: Tensor | None = None  # (3, H, W) uint8
    """The last frame made, where the next chunk takes it for its reference."""

    def save(self) -> bytes:
        """As a file in the safetensors format."""
        from safetensors.torch import save

        fingerprint = torch.frombuffer(bytearray(self.fingerprint), dtype=torch.uint8)       # (32,)
        tensors = {"index": torch.tensor(self.index), "fingerprint": fingerprint, "color_mean": self.color.mean,
                   "color_std": self.color.std, "context": self.context, "last_frame": self.last_frame}
        saved: bytes = save({name: value.cpu().contiguous() for name, value in tensors.items() if value is not None})
        return saved

    @classmethod
    def load(cls, data: bytes) -> ChunkState:
        """Read what `save` wrote; the bytes need not be trusted.

        Raises:
            BadInputError: They are damaged or no state. Whether it fits the shot is for `belongs` to say.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors: dict[str, Tensor] = load(data)
        except (SafetensorError, KeyError, ValueError) as error:
            raise BadInputError("the bytes are not a saved state", where="chunk state", hint=HINT) from error
        for name, (dtype, axes) in AXES.items():
            if name in tensors or name not in OPTIONAL:
                _check(name, tensors.get(name), dtype, axes)
        if tensors.keys() - AXES.keys():
            raise _damaged(f"unknown tensors {sorted(tensors.keys() - AXES.keys())}")
        if len(tensors["fingerprint"]) != DIGEST or int(tensors["index"]) < 1:
            raise _damaged("impossible fingerprint or index")
        if not len(tensors["color_mean"]) == len(tensors["color_std"]) == 3 or bool((tensors["color_std"] < 0).any()):
            raise _damaged("impossible colour statistics")
        return cls(int(tensors["index"]), bytes(tensors["fingerprint"].tolist()),
                   ColorStats(tensors["color_mean"], tensors["color_std"]),
                   tensors.get("context"), tensors.get("last_frame"))

    def belongs(self, fingerprint: bytes, chunks: int) -> None:
        """Check that it was made by the same shot with the same settings.

        Args:
            fingerprint: Of the shot and settings at hand.
            chunks: Of the shot.

        Raises:
            BadInputError: It was not.
        """
        if self.fingerprint != fingerprint:
            raise BadInputError("it belongs to another shot or other settings", where="chunk state",
                                hint="Give the shot, size, seed and settings that it was made with, or start anew")
        if not 1 <= self.index <= chunks:
            raise _damaged(f"chunk {self.index} of {chunks}")


def _check(name: str, tensor: Tensor | None, dtype: torch.dtype, axes: int) -> None:
    if tensor is None or tensor.dtype != dtype or tensor.ndim != axes:
        found = "absent" if tensor is None else f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        raise _damaged(f"{name} is {found}")
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise _damaged(f"{name} holds numbers that are not finite")


def _damaged(what: str) -> BadInputError:
    return BadInputError(what, where="chunk state", hint=HINT)
