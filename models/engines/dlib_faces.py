"""Faces by dlib's HOG detector: frontal, no weights to fetch, about a tenth of a second a picture."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

from pydantic import Field

from models.engines.options import Adapter, read_options
from models.ports import EngineHome, Image
from models.records import EngineRef, Record


class DlibOptions(Record):
    """What may be set."""

    size: int = Field(default=1280, ge=80, le=8192)
    """Longer side, in pixels, of the picture that is searched. The detector's smallest face has 80 pixels, so a larger
    size finds smaller faces, in time that grows with its square."""
    confidence: float = 0.0
    """Least score of a face."""


class DlibFaces(Adapter):
    """Finds frontal and half-turned faces from about 6 % of the picture's longer side."""

    OPTIONS: ClassVar[type[Record]] = DlibOptions

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        options = read_options(DlibOptions, ref.name, ref.options)
        import dlib

        self.size, self.confidence = options.size, options.confidence
        self._detector = dlib.get_frontal_face_detector()

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """dlib, where it is not installed."""
        return "" if find_spec("dlib") else "dlib is not installed. Run: pip install 'infinidub[embedded]'"

    def detect(self, image: Image) -> list[tuple[int, int, int, int]]:
        """Face boxes (x, y, width, height) in pixels of `image` (H, W, 3), inside it, largest first."""
        import cv2

        height, width = image.shape[:2]
        scale = self.size / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        searched = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
        found, _scores, _poses = self._detector.run(searched, 0, self.confidence)
        boxes = []
        for face in found:
            left, top = max(0, round(face.left() / scale)), max(0, round(face.top() / scale))
            right, bottom = min(width, round(face.right() / scale)), min(height, round(face.bottom() / scale))
            if right > left and bottom > top:
                boxes.append((left, top, right - left, bottom - top))
        return sorted(boxes, key=lambda box: (-box[2] * box[3], box))
