"""SyncNet v2 (Chung and Zisserman 2016), as its published weights are named: 13,631,616 parameters in two towers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from infinitetalk.evaluate.loading import load
from infinitetalk.evaluate.measure import Floats, Pixels
from infinitetalk.evaluate.syncnet import COLUMNS, PICTURES

BATCH = 32


class SyncNet(nn.Module):  # type: ignore[misc]
    """Both towers; each gives 1024 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_layer(1, 64, 3, pad=1), nn.MaxPool2d(1, 1), *_layer(64, 192, 3, pad=1), nn.MaxPool2d(3, (1, 2)),
            *_layer(192, 384, 3, pad=1), *_layer(384, 256, 3, pad=1), *_layer(256, 256, 3, pad=1), nn.MaxPool2d(3, 2),
            *_layer(256, 512, (5, 4)))
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = nn.Sequential(
            *_layer(3, 96, (5, 7, 7), (1, 2, 2)), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_layer(96, 256, (1, 5, 5), (1, 2, 2), (0, 1, 1)), nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),
            *_layer(256, 256, (1, 3, 3), pad=(0, 1, 1)), *_layer(256, 256, (1, 3, 3), pad=(0, 1, 1)),
            *_layer(256, 256, (1, 3, 3), pad=(0, 1, 1)), nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
            *_layer(256, 512, (1, 6, 6)))

    def sounds(
        self,
        mfcc: Tensor,  # (B, 1, 13, 20)
    ) -> Tensor:  # (B, 1024)
        """What is heard in 0.2 s."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def pictures(
        self,
        crops: Tensor,  # (B, 3, 5, 224, 224), BGR in 0 … 255
    ) -> Tensor:  # (B, 1024)
        """What is seen in five frames."""
        return self.netfclip(self.netcnnlip(crops).flatten(1))


def _layer(into: int, out: int, kernel: int | tuple[int, ...], stride: int | tuple[int, ...] = 1,
           pad: int | tuple[int, ...] = 0) -> list[nn.Module]:
    deep = isinstance(kernel, tuple) and len(kernel) == 3
    convolution, norm = (nn.Conv3d, nn.BatchNorm3d) if deep else (nn.Conv2d, nn.BatchNorm2d)
    return [convolution(into, out, kernel, stride=stride, padding=pad), norm(out), nn.ReLU(inplace=True)]


def _head() -> nn.Sequential:
    return nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, 1024))


class SyncNetV2:
    """The published network behind `syncnet.SyncNetwork`."""

    name = "SyncNet v2"

    def __init__(self, network: SyncNet) -> None:
        self._network = network.eval()

    @classmethod
    def read(cls, file: Path) -> SyncNetV2:
        """From `syncnet_v2.model`, or the same tensors as safetensors.

        Raises:
            BadWeightsError: The file is absent, damaged, or another network's.
        """
        return cls(load(SyncNet, file))

    def pictures(self, frames: Pixels) -> Floats:
        """See `SyncNetwork`."""
        found = []
        for start in range(0, len(frames) - PICTURES + 1, BATCH):
            part = torch.from_numpy(frames[start:start + BATCH + PICTURES - 1][..., ::-1].copy())  # (b+4, 224, 224, 3)
            windows = part.float().unfold(0, PICTURES, 1)                                     # (b, 224, 224, 3, 5)
            with torch.no_grad():
                found.append(self._network.pictures(windows.permute(0, 3, 4, 1, 2).contiguous()))
        return np.asarray(torch.cat(found).numpy(), np.float32) if found else np.zeros((0, 1024), np.float32)

    def sounds(self, mfcc: Floats) -> Floats:
        """See `SyncNetwork`."""
        if mfcc.shape[1] < COLUMNS:
            return np.zeros((0, 1024), np.float32)
        windows = torch.from_numpy(np.ascontiguousarray(mfcc, np.float32)).unfold(1, COLUMNS, 4)  # (13, n, 20)
        parts = windows.permute(1, 0, 2)[:, None].split(256)
        with torch.no_grad():
            return np.asarray(torch.cat([self._network.sounds(part) for part in parts]).numpy(), np.float32)
