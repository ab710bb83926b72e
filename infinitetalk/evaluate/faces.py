"""Where faces and mouths are in a video of which nothing is known, and who it is, by dlib where it is installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from infinitetalk.errors import BadWeightsError
from infinitetalk.evaluate.measure import Floats, Pixels

EVERY = 5
"""Frames between two searches; boxes between are interpolated."""
FAR = 15
"""Frames between two finds, above which nobody is thought to be there in between."""
LEAST_SIDE = 320
"""Pixels that the shorter side is scaled up to for the search: the detector's smallest face has 80."""
MOUTH = (0.27, 0.66, 0.73, 0.96)
"""Left, top, right, bottom of a mouth in the detector's box."""
CENTRE = "dlib_centre.safetensors"
"""Mean of what the network says of rendered people, (128,): `infra/small/calibrate_faces.py`."""
LANDMARKS, NETWORK = "shape_predictor_5_face_landmarks.dat", "dlib_face_recognition_resnet_model_v1.dat"


class FaceFinder(Protocol):
    """Finds faces."""

    name: str

    def find(self, frames: Pixels) -> Floats:
        """Box of the largest face of each frame (F, H, W, 3), in pixels: (F, 4); NaN where there is none."""
        ...


def mouths(faces: Floats) -> Floats:
    """About where mouths are in frontal face boxes (F, 4): (F, 4)."""
    corner, size = faces[:, :2], faces[:, 2:] - faces[:, :2]
    return np.concatenate([corner + size * MOUTH[:2], corner + size * MOUTH[2:]], 1).astype(np.float32)


class HogFaces:
    """dlib's frontal detector, which needs no weights; every fifth frame is searched."""

    name = "dlib HOG"

    def __init__(self) -> None:
        import dlib

        self._detector = dlib.get_frontal_face_detector()

    @staticmethod
    def there() -> bool:
        """Whether dlib is installed."""
        return find_spec("dlib") is not None

    def find(self, frames: Pixels) -> Floats:
        """See `FaceFinder`."""
        at = np.unique(np.append(np.arange(0, len(frames), EVERY), len(frames) - 1))
        return interpolated(at, np.stack([self._largest(frames[one]) for one in at]), len(frames))

    def _largest(self, frame: Pixels) -> Floats:
        large, scale = enlarged(frame)
        found = [(face.left(), face.top(), face.right(), face.bottom()) for face in self._detector(large, 0)]
        if not found:
            return np.full(4, np.nan, np.float32)
        best = max(found, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]))
        return np.asarray(np.array(best) / scale, np.float32)


def interpolated(at: Any, boxes: Floats, frames: int) -> Floats:
    """Boxes (n, 4) at some frames → at all of them (F, 4); NaN where neighbours lack one, or are far apart."""
    whole = np.full((frames, 4), np.nan, np.float32)
    for left, right, a, b in zip(at[:-1], at[1:], boxes[:-1], boxes[1:], strict=True):
        if right - left <= FAR and np.isfinite(a).all() and np.isfinite(b).all():
            share = np.linspace(0, 1, right - left + 1)[:, None]
            whole[left:right + 1] = a * (1 - share) + b * share
    known = np.isfinite(boxes).all(1)
    whole[at[known]] = boxes[known]
    return whole


def largest(detector: Any, frame: Pixels) -> tuple[Pixels, Any]:
    """A frame, `enlarged`, and the largest face that dlib's detector finds in it; None if there is none."""
    large, _ = enlarged(frame)
    return large, max(detector(large, 0), key=lambda face: face.area(), default=None)


def enlarged(frame: Pixels) -> tuple[Pixels, float]:
    """A frame scaled up until small faces can be found, and by how much."""
    from PIL import Image

    scale = max(1.0, LEAST_SIDE / min(frame.shape[:2]))
    if scale == 1:
        return np.ascontiguousarray(frame), scale
    size = round(frame.shape[1] * scale), round(frame.shape[0] * scale)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC), np.uint8), scale


class DlibFace:
    """dlib's face recognition: 128 numbers, of which distances up to 0.6 are the same real person."""

    name = "dlib-128"

    def __init__(self, folder: Path) -> None:
        """Load the two published files.

        Raises:
            BadWeightsError: One is absent or damaged, or dlib is.
        """
        if not HogFaces.there():
            raise BadWeightsError("dlib is not installed", where="dlib-128", hint="pip install 'infinidub[embedded]'")
        import dlib
        from safetensors.numpy import load_file

        for name in (LANDMARKS, NETWORK):
            if not (folder / name).is_file():
                raise BadWeightsError(f"{name} is not there", where=str(folder),
                                      hint="Both files are published at dlib.net/files")
        try:
            self._points = dlib.shape_predictor(str(folder / LANDMARKS))
            self._network = dlib.face_recognition_model_v1(str(folder / NETWORK))
        except RuntimeError as error:
            raise BadWeightsError("is damaged", where=str(folder), hint="Fetch both files again") from error
        self._detector = dlib.get_frontal_face_detector()
        self.centre: Floats = load_file(Path(__file__).with_name(CENTRE))["centre"]

    def embed(self, frames: Pixels) -> Floats:
        """See `identity.FaceEmbedder`; every frame is searched."""
        return np.stack([self._of(frame) for frame in frames])

    def _of(self, frame: Pixels) -> Floats:
        large, best = largest(self._detector, frame)
        if best is None:
            return np.full(128, np.nan, np.float32)
        return np.asarray(self._network.compute_face_descriptor(large, self._points(large, best)), np.float32)
