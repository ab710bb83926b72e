"""S3FD (Zhang et al. 2017), the face detector of SyncNet's pipeline, under the names of its published weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from infinitetalk.evaluate.loading import load
from infinitetalk.evaluate.measure import Floats, Pixels

MEANS = (104.0, 117.0, 123.0)
"""Taken from BGR in 0 … 255."""
STRIDES = (4, 8, 16, 32, 64, 128)
"""Of the six layers that look for faces of 4 times as many pixels."""
CONFIDENCE, OVERLAP = 0.9, 0.1
SCALE = 0.25
"""Of pictures whose shorter side is above `LEAST_SIDE` afterwards; SyncNet's pipeline takes it always."""
LEAST_SIDE = 180


class Scaled(nn.Module):  # type: ignore[misc]
    """Unit length over channels, times a weight each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w)."""
        return self.weight[:, None, None] * x / (x.pow(2).sum(1, keepdim=True).sqrt() + 1e-10)


class S3FDNetwork(nn.Module):  # type: ignore[misc]
    """VGG with six heads."""

    def __init__(self) -> None:
        super().__init__()
        self.vgg = nn.ModuleList(_vgg())
        self.L2Norm3_3, self.L2Norm4_3, self.L2Norm5_3 = Scaled(256), Scaled(512), Scaled(512)
        self.extras = nn.ModuleList([nn.Conv2d(1024, 256, 1), nn.Conv2d(256, 512, 3, stride=2, padding=1),
                                     nn.Conv2d(512, 128, 1), nn.Conv2d(128, 256, 3, stride=2, padding=1)])
        widths = (256, 512, 512, 1024, 512, 256)
        self.loc = nn.ModuleList(nn.Conv2d(width, 4, 3, padding=1) for width in widths)
        self.conf = nn.ModuleList(nn.Conv2d(width, 4 if at == 0 else 2, 3, padding=1)
                                  for at, width in enumerate(widths))

    def forward(
        self,
        x: Tensor,  # (1, 3, H, W), BGR less its means
    ) -> tuple[Tensor, Tensor]:  # (n, 4) in pixels, (n,)
        """Boxes and how sure they are faces."""
        boxes, sure = [], []
        for layer, seen in enumerate(self._seen(x)):
            told = self.conf[layer](seen)[0]                                         # (2 or 4, h, w)
            if layer == 0:  # three backgrounds: the strongest counts
                told = torch.stack([told[:3].amax(0), told[3]])
            sure.append(told.softmax(0)[1].flatten())
            boxes.append(_decoded(self.loc[layer](seen)[0], STRIDES[layer]))
        return torch.cat(boxes), torch.cat(sure)

    def _seen(self, x: Tensor) -> list[Tensor]:
        found, norms = [], {16: self.L2Norm3_3, 23: self.L2Norm4_3, 30: self.L2Norm5_3}
        for at, layer in enumerate(self.vgg):
            if at in norms:
                found.append(norms[at](x))
            x = layer(x)
        found.append(x)
        for at, layer in enumerate(self.extras):
            x = functional.relu(layer(x))
            if at % 2:
                found.append(x)
        return found


def _vgg() -> list[nn.Module]:
    layers: list[nn.Module] = []
    into = 3
    for block, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
        for _ in range(count):
            layers += [nn.Conv2d(into, width, 3, padding=1), nn.ReLU()]
            into = width
        layers.append(nn.MaxPool2d(2, 2, ceil_mode=block == 2))
    return [*layers, nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(), nn.Conv2d(1024, 1024, 1), nn.ReLU()]


def _decoded(told: Tensor, stride: int) -> Tensor:
    """Offsets (4, h, w) from squares of 4 strides around each place → boxes (h·w, 4)."""
    y, x = torch.meshgrid(*((torch.arange(length) + 0.5) * stride for length in told.shape[1:]), indexing="ij")
    side = 4 * stride
    middle = torch.stack([x, y]) + told[:2] * 0.1 * side
    half = side * torch.exp(told[2:] * 0.2) / 2
    return torch.cat([middle - half, middle + half]).flatten(1).T


def suppressed(boxes: Tensor, sure: Tensor, most: float = OVERLAP) -> Tensor:
    """Indices of boxes (n, 4) that no surer one overlaps by more than `most`, the surest first."""
    order, kept = sure.argsort(descending=True), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        size = (torch.minimum(boxes[best, 2:], boxes[order, 2:])
                - torch.maximum(boxes[best, :2], boxes[order, :2])).clamp(min=0)
        shared, areas = size.prod(1), (boxes[:, 2:] - boxes[:, :2]).prod(1)
        order = order[shared / (areas[best] + areas[order] - shared).clamp(min=1e-9) <= most]
    return torch.stack(kept) if kept else torch.zeros(0, dtype=torch.long)


class S3FD:
    """The published detector behind `faces.FaceFinder`; every frame is searched."""

    name = "S3FD"

    def __init__(self, network: S3FDNetwork) -> None:
        self._network = network.eval()

    @classmethod
    def read(cls, file: Path) -> S3FD:
        """From `sfd_face.pth`, or the same tensors as safetensors.

        Raises:
            BadWeightsError: The file is absent, damaged, or another network's.
        """
        return cls(load(S3FDNetwork, file))

    def find(self, frames: Pixels) -> Floats:
        """See `FaceFinder`."""
        return np.stack([self._largest(frame) for frame in frames])

    def all_in(self, frame: Pixels) -> Floats:
        """Boxes of all faces of (H, W, 3), in pixels: (n, 4)."""
        picture = torch.from_numpy(frame[..., ::-1].copy()).permute(2, 0, 1)[None].float()
        scale = SCALE if min(frame.shape[:2]) * SCALE >= LEAST_SIDE else 1.0
        if scale != 1:
            picture = functional.interpolate(picture, scale_factor=scale, mode="bilinear", align_corners=False)
        with torch.no_grad():
            boxes, sure = self._network(picture - torch.tensor(MEANS)[:, None, None])
        good = sure > CONFIDENCE
        boxes, sure = boxes[good], sure[good]
        return np.asarray((boxes[suppressed(boxes, sure)] / scale).numpy(), np.float32).reshape(-1, 4)

    def _largest(self, frame: Pixels) -> Floats:
        boxes = self.all_in(frame)
        if not len(boxes):
            return np.full(4, np.nan, np.float32)
        return np.asarray(boxes[int(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).argmax())], np.float32)
