"""ArcFace's IResNet under the names of InsightFace's weights (`backbone.pth`), and faces laid out as it was trained on.

InsightFace aligns by five points of its own detector. Here the eyes alone decide (dlib's points, where they are there),
so that figures compare within this project and not to a hundredth with others.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from infinitetalk.errors import BadWeightsError
from infinitetalk.evaluate.faces import LANDMARKS, HogFaces, largest
from infinitetalk.evaluate.identity import ARCFACE_POINTS, similarity
from infinitetalk.evaluate.loading import load
from infinitetalk.evaluate.measure import Floats, Pixels, Reals
from infinitetalk.weights import open_tensors

SIDE = 112
WIDTHS = (64, 128, 256, 512)
R50, R100 = (3, 4, 14, 3), (3, 13, 30, 3)


class Block(nn.Module):  # type: ignore[misc]
    """Two convolutions beside a way around them."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(into), nn.Conv2d(into, out, 3, padding=1, bias=False)
        self.bn2, self.prelu = nn.BatchNorm2d(out), nn.PReLU(out)
        self.conv2, self.bn3 = nn.Conv2d(out, out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(out)
        self.downsample = nn.Sequential(nn.Conv2d(into, out, 1, stride=stride, bias=False),
                                        nn.BatchNorm2d(out)) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w)."""
        y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
        return y + (x if self.downsample is None else self.downsample(x))


class IResNet(nn.Module):  # type: ignore[misc]
    """Faces → 512 numbers."""

    def __init__(self, depths: tuple[int, ...] = R100) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1, self.prelu = nn.BatchNorm2d(64), nn.PReLU(64)
        for at, (into, out, depth) in enumerate(zip((64, *WIDTHS), WIDTHS, depths, strict=False), 1):
            self.add_module(f"layer{at}", nn.Sequential(Block(into, out, 2), *(Block(out, out, 1)
                                                                               for _ in range(depth - 1))))
        self.bn2, self.fc, self.features = nn.BatchNorm2d(512), nn.Linear(512 * 49, 512), nn.BatchNorm1d(512)

    def forward(
        self,
        x: Tensor,  # (B, 3, 112, 112), RGB in [-1, 1]
    ) -> Tensor:  # (B, 512)
        """Not of unit length."""
        x = self.prelu(self.bn1(self.conv1(x)))
        for at in range(1, len(WIDTHS) + 1):
            x = getattr(self, f"layer{at}")(x)
        return self.features(self.fc(self.bn2(x).flatten(1)))


class ArcFace:
    """The published network behind `identity.FaceEmbedder`."""

    name = "ArcFace (eyes aligned)"
    centre = None

    def __init__(self, network: IResNet, landmarks: Path) -> None:
        """`landmarks`: dlib's predictor of five points.

        Raises:
            BadWeightsError: dlib or its points are absent or damaged.
        """
        if not HogFaces.there():
            raise BadWeightsError("dlib is not installed", where=self.name, hint="pip install 'infinidub[embedded]'")
        import dlib

        try:
            self._points = dlib.shape_predictor(str(landmarks))
        except RuntimeError as error:
            raise BadWeightsError("is absent or damaged", where=str(landmarks), hint="Fetch it again") from error
        self._network, self._detector = network.eval(), dlib.get_frontal_face_detector()

    @classmethod
    def read(cls, file: Path) -> ArcFace:
        """From `backbone.pth`, of 50 or 100 layers, with dlib's points beside it.

        Raises:
            BadWeightsError: A file is absent, damaged, or another network's.
        """
        deep = any(name.startswith("layer3.29.") for name in open_tensors([file]))
        return cls(load(partial(IResNet, R100 if deep else R50), file), file.parent / LANDMARKS)

    def embed(self, frames: Pixels) -> Floats:
        """See `FaceEmbedder`."""
        return np.stack([self._of(frame) for frame in frames])

    def _of(self, frame: Pixels) -> Floats:
        large, best = largest(self._detector, frame)
        if best is None:
            return np.full(512, np.nan, np.float32)
        points = np.array([(point.x, point.y) for point in self._points(large, best).parts()], np.float64)
        eyes = np.stack([points[:2].mean(0), points[2:4].mean(0)])
        picture = aligned(large, eyes[np.argsort(eyes[:, 0])])
        with torch.no_grad():
            told = self._network(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1)
        return np.asarray(told[0].numpy(), np.float32)


def aligned(frame: Pixels, eyes: Reals) -> Pixels:
    """The face with its eyes (x, y), left and right in the picture (2, 2), where ArcFace has them: (112, 112, 3)."""
    from PIL import Image

    back = similarity(np.array(ARCFACE_POINTS[:2]), eyes)
    how = Image.Transform.AFFINE, tuple(back.ravel().tolist()), Image.Resampling.BILINEAR
    return np.array(Image.fromarray(frame).transform((SIDE, SIDE), how[0], how[1], resample=how[2]))
