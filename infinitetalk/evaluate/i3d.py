"""I3D (Carreira and Zisserman 2017) on Kinetics-400 as FVD uses it: 400 logits, under the names of its PyTorch port.

Frames are scaled to a short side of 224, cut to their middle, and lie in [-1, 1] (StyleGAN-V's protocol).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from infinitetalk.evaluate.loading import load
from infinitetalk.evaluate.measure import Floats, Pixels

SIDE, CLASSES = 224, 400
WIDTHS = {"3b": (192, 64, 96, 128, 16, 32, 32), "3c": (256, 128, 128, 192, 32, 96, 64),
          "4b": (480, 192, 96, 208, 16, 48, 64), "4c": (512, 160, 112, 224, 24, 64, 64),
          "4d": (512, 128, 128, 256, 24, 64, 64), "4e": (512, 112, 144, 288, 32, 64, 64),
          "4f": (528, 256, 160, 320, 32, 128, 128), "5b": (832, 256, 160, 320, 32, 128, 128),
          "5c": (832, 384, 192, 384, 48, 128, 128)}
"""Channels into each block, and out of its branches' layers."""


class Unit(nn.Module):  # type: ignore[misc]
    """Convolution padded as TensorFlow does, norm, rectifier."""

    def __init__(self, into: int, out: int, kernel: int, stride: int = 1, *, last: bool = False) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(into, out, kernel, stride=stride, bias=last)
        self.bn = None if last else nn.BatchNorm3d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W)."""
        y = self.conv3d(same(x, self.conv3d.kernel_size, self.conv3d.stride))
        return y if self.bn is None else functional.relu(self.bn(y))


def same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """Zeros around (B, C, F, H, W), so that a window's steps cover it: the odd one behind."""
    pads: list[int] = []
    for length, size, step in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        total = max(size - (step if length % step == 0 else length % step), 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


def pooled(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """Maxima over windows, padded as `same`; what comes in is never below 0."""
    return functional.max_pool3d(same(x, kernel, stride), kernel, stride)


class Inception(nn.Module):  # type: ignore[misc]
    """Four branches side by side."""

    def __init__(self, into: int, *out: int) -> None:
        super().__init__()
        self.b0 = Unit(into, out[0], 1)
        self.b1a, self.b1b = Unit(into, out[1], 1), Unit(out[1], out[2], 3)
        self.b2a, self.b2b = Unit(into, out[3], 1), Unit(out[3], out[4], 3)
        self.b3b = Unit(into, out[5], 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, F, H, W)."""
        around = pooled(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(around)], 1)


class I3DNetwork(nn.Module):  # type: ignore[misc]
    """Frames → logits."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = Unit(3, 64, 7, 2)
        self.Conv3d_2b_1x1 = Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = Unit(64, 192, 3)
        for name, widths in WIDTHS.items():
            self.add_module(f"Mixed_{name}", Inception(*widths))
        self.logits = Unit(1024, CLASSES, 1, last=True)

    def forward(
        self,
        x: Tensor,  # (B, 3, F, 224, 224) in [-1, 1]
    ) -> Tensor:  # (B, 400)
        """Means over time."""
        x = pooled(self.Conv3d_1a_7x7(x), (1, 3, 3), (1, 2, 2))
        x = pooled(self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(x)), (1, 3, 3), (1, 2, 2))
        for name in WIDTHS:
            if name == "4b":
                x = pooled(x, (3, 3, 3), (2, 2, 2))
            elif name == "5b":
                x = pooled(x, (2, 2, 2), (2, 2, 2))
            x = getattr(self, f"Mixed_{name}")(x)
        return self.logits(functional.avg_pool3d(x, (2, 7, 7), 1)).mean((2, 3, 4))


class I3D:
    """The published network behind `frechet.ClipFeatures`."""

    name = "I3D Kinetics-400"

    def __init__(self, network: I3DNetwork) -> None:
        self._network = network.eval()

    @classmethod
    def read(cls, file: Path) -> I3D:
        """From the PyTorch port's file, or the same tensors as safetensors.

        Raises:
            BadWeightsError: The file is absent, damaged, or another network's.
        """
        return cls(load(I3DNetwork, file))

    def of_clips(self, clips: Pixels) -> Floats:
        """See `ClipFeatures`: (n, F, H, W, 3) → (n, 400)."""
        return np.concatenate([self._of(clip) for clip in clips])

    def _of(self, clip: Pixels) -> Floats:
        frames = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float() / 255  # (F, 3, H, W)
        height, width = frames.shape[2:]
        scale = SIDE / min(height, width)
        size = max(SIDE, round(height * scale)), max(SIDE, round(width * scale))
        scaled = functional.interpolate(frames, size, mode="bilinear", align_corners=False)
        top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
        middle = scaled[:, :, top:top + SIDE, left:left + SIDE]
        with torch.no_grad():
            return np.asarray(self._network((2 * middle - 1).transpose(0, 1)[None]).numpy(), np.float32)
