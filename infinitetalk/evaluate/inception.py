"""InceptionV3 as FID uses it: pool3 of the network of 2015-12-05, under the names of its PyTorch port."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from infinitetalk.evaluate.loading import load
from infinitetalk.evaluate.measure import Floats, Pixels

SIDE, BATCH, CLASSES = 299, 16, 1008
Kernel = int | tuple[int, int]


class Convolution(nn.Module):  # type: ignore[misc]
    """Convolution, norm, rectifier."""

    def __init__(self, into: int, out: int, kernel: Kernel, stride: int = 1, pad: Kernel = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(into, out, kernel, stride=stride, padding=pad, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W)."""
        return functional.relu(self.bn(self.conv(x)))


Branch = Sequence[tuple[str, int, Kernel, int, Kernel]]
"""Layers in a row: name, channels, kernel, stride, padding."""


class Mixed(nn.Module):  # type: ignore[misc]
    """Branches side by side; a branch's last layers may fork."""

    def __init__(self, into: int, branches: Sequence[Branch], pool: str, forks: Sequence[tuple[str, ...]] = ()) -> None:
        super().__init__()
        self.ways = [[name for name, *_ in branch] for branch in branches]
        self.pool, self.forks = pool, {name for fork in forks for name in fork}
        for branch in branches:
            width = into
            for name, out, kernel, stride, pad in branch:
                self.add_module(name, Convolution(width, out, kernel, stride, pad))
                width = width if name in self.forks else out

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W)."""
        found = []
        for way in self.ways:
            y, ends = self._pooled(x) if way[0] == "branch_pool" else x, []
            for name in way:
                if name in self.forks:
                    ends.append(getattr(self, name)(y))
                else:
                    y = getattr(self, name)(y)
            found += ends or [y]
        return torch.cat([*found, functional.max_pool2d(x, 3, 2)] if self.pool == "reduce" else found, 1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "max":
            return functional.max_pool2d(x, 3, 1, 1)
        return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def _a(into: int, pool: int) -> Mixed:
    return Mixed(into, [[("branch1x1", 64, 1, 1, 0)], [("branch5x5_1", 48, 1, 1, 0), ("branch5x5_2", 64, 5, 1, 2)],
                        [("branch3x3dbl_1", 64, 1, 1, 0), ("branch3x3dbl_2", 96, 3, 1, 1),
                         ("branch3x3dbl_3", 96, 3, 1, 1)], [("branch_pool", pool, 1, 1, 0)]], "mean")


def _b(into: int) -> Mixed:
    return Mixed(into, [[("branch3x3", 384, 3, 2, 0)],
                        [("branch3x3dbl_1", 64, 1, 1, 0), ("branch3x3dbl_2", 96, 3, 1, 1),
                         ("branch3x3dbl_3", 96, 3, 2, 0)]], "reduce")


def _c(width: int) -> Mixed:
    flat: tuple[Kernel, Kernel] = ((1, 7), (0, 3))
    high: tuple[Kernel, Kernel] = ((7, 1), (3, 0))
    steps = [(width, flat), (192, high)], [(width, high), (width, flat), (width, high), (192, flat)]
    rows: list[Branch] = [[(f"{name}_1", width, 1, 1, 0), *((f"{name}_{at}", out, kernel, 1, pad)
                                              for at, (out, (kernel, pad)) in enumerate(row, 2))]
            for name, row in zip(("branch7x7", "branch7x7dbl"), steps, strict=True)]
    return Mixed(768, [[("branch1x1", 192, 1, 1, 0)], *rows, [("branch_pool", 192, 1, 1, 0)]], "mean")


def _d() -> Mixed:
    return Mixed(768, [[("branch3x3_1", 192, 1, 1, 0), ("branch3x3_2", 320, 3, 2, 0)],
                       [("branch7x7x3_1", 192, 1, 1, 0), ("branch7x7x3_2", 192, (1, 7), 1, (0, 3)),
                        ("branch7x7x3_3", 192, (7, 1), 1, (3, 0)), ("branch7x7x3_4", 192, 3, 2, 0)]], "reduce")


def _e(into: int, pool: str) -> Mixed:
    def fork(name: str) -> Branch:
        return (f"{name}a", 384, (1, 3), 1, (0, 1)), (f"{name}b", 384, (3, 1), 1, (1, 0))

    short, long = fork("branch3x3_2"), fork("branch3x3dbl_3")
    return Mixed(into, [[("branch1x1", 320, 1, 1, 0)], [("branch3x3_1", 384, 1, 1, 0), *short],
                        [("branch3x3dbl_1", 448, 1, 1, 0), ("branch3x3dbl_2", 384, 3, 1, 1), *long],
                        [("branch_pool", 192, 1, 1, 0)]], pool,
                 [tuple(name for name, *_ in (*short, *long))])


class InceptionV3(nn.Module):  # type: ignore[misc]
    """The whole network; `fc` is there for its weights' sake."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, pad=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _a(192, 32), _a(256, 64), _a(288, 64)
        self.Mixed_6a = _b(288)
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _c(128), _c(160), _c(160), _c(192)
        self.Mixed_7a, self.Mixed_7b, self.Mixed_7c = _d(), _e(1280, "mean"), _e(2048, "max")
        self.fc = nn.Linear(2048, CLASSES)

    def forward(
        self,
        x: Tensor,  # (B, 3, 299, 299) in [-1, 1]
    ) -> Tensor:  # (B, 2048)
        """Means over the last layer's places."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(functional.max_pool2d(x, 3, 2)))
        x = functional.max_pool2d(x, 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = getattr(self, f"Mixed_{name}")(x)
        return x.mean((2, 3))


class Inception:
    """The published network behind `frechet.ImageFeatures`."""

    name = "Inception 2015-12-05"

    def __init__(self, network: InceptionV3) -> None:
        self._network = network.eval()

    @classmethod
    def read(cls, file: Path) -> Inception:
        """From the PyTorch port's file, or the same tensors as safetensors.

        Raises:
            BadWeightsError: The file is absent, damaged, or another network's.
        """
        return cls(load(InceptionV3, file))

    def of_images(self, frames: Pixels) -> Floats:
        """See `ImageFeatures`: (F, H, W, 3) → (F, 2048)."""
        found = []
        for part in torch.from_numpy(np.ascontiguousarray(frames)).split(BATCH):
            scaled = functional.interpolate(part.permute(0, 3, 1, 2).float() / 255, (SIDE, SIDE), mode="bilinear",
                                            align_corners=False)
            with torch.no_grad():
                found.append(self._network(2 * scaled - 1))
        return np.asarray(torch.cat(found).numpy(), np.float32)
