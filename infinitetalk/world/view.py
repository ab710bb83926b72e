"""Where people stand, and how camera and lamp see them: matrices (4, 4) that act on columns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infinitetalk.world.body import turn
from infinitetalk.world.figure import Z
from infinitetalk.world.scene import FIELD_OF_VIEW, SPACING, Floats, Light

FACING = 0.10
"""Radians that two people are turned to each other."""
MARGIN = 0.30
"""Of a mouth box, as a share of its larger side, on each side."""
FACE_MIDDLE = 0.58
"""Of the way from the lips to the eyes lies the middle of a face's box."""
FACE_SIDE = 2.0
"""Sides of it against that way."""


def stand(points: Floats, out: Floats, index: int, count: int) -> tuple[Floats, Floats]:
    """Moves one of several people to their place, turned a little to the middle."""
    if count == 1:
        return points, out
    side = index - (count - 1) / 2
    facing = turn(Z, np.array([-FACING * np.sign(side)], np.float32))[0]
    shift = np.array([side * SPACING, 0, 0], np.float32)
    return points @ facing.T + shift, out @ facing.T


def mouth_box(lips: Floats, matrix: Floats, size: tuple[int, int]) -> Floats:
    """Left, top, right, bottom in pixels around the lips (n, 3), with a margin, cut to the frame."""
    x, y, _ = _seen(lips, matrix, size)
    margin = MARGIN * max(np.ptp(x), np.ptp(y))
    box = np.array([x.min() - margin, y.min() - margin, x.max() + margin, y.max() + margin], np.float32)
    return np.clip(box, 0, [size[1], size[0]] * 2).astype(np.float32)


def face_box(
    marks: Floats,  # (2, 3)
    matrix: Floats,  # (4, 4)
    lens: Floats,  # (4, 4)
    size: tuple[int, int],
) -> Floats:
    """Square around a face, left, top, right, bottom in pixels, about as detectors box one: brows to chin.

    Speech does not move it: it is told by the middles of eyes and resting lips (`figure.landmarks`), by how far they
    are apart in space and from the camera. It may reach out of the frame.

    Args:
        marks: Eyes and lips.
        matrix: View and projection.
        lens: The projection alone.
        size: Of the frame, (H, W).
    """
    x, y, depth = _seen(marks, matrix, size)
    eyes, lips = np.stack([x, y], 1)
    apart = float(np.linalg.norm(marks[0] - marks[1])) * lens[1, 1] * size[0] / 2 / depth.mean()
    middle, half = lips + FACE_MIDDLE * (eyes - lips), FACE_SIDE * apart / 2
    return np.concatenate([middle - half, middle + half]).astype(np.float32)


def _seen(points: Floats, matrix: Floats, size: tuple[int, int]) -> tuple[Floats, Floats, Floats]:
    """Where points (n, 3) are seen, x and y in pixels, and how far they are from the camera: (n,) each."""
    across, down, _, depth = (np.concatenate([points, np.ones((len(points), 1), np.float32)], 1) @ matrix.T).T
    return (across / depth + 1) / 2 * size[1], (1 - down / depth) / 2 * size[0], depth


def look(eye: NDArray[Any], target: NDArray[Any]) -> Floats:
    """View matrix (4, 4) of somebody at `eye` who looks at `target`, z up."""
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(ahead, Z)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(right, ahead), -ahead])
    view = np.eye(4)
    view[:3, :3], view[:3, 3] = axes, -axes @ eye
    return view.astype(np.float32)


def projection(size: tuple[int, int], lens: float = 1.0, near: float = 0.1, far: float = 20.0) -> Floats:
    """Perspective of the camera with a lens so many times longer than usual, (4, 4)."""
    t = lens / np.tan(FIELD_OF_VIEW / 2)
    return np.array([[t * size[0] / size[1], 0, 0, 0], [0, t, 0, 0],
                     [0, 0, (far + near) / (near - far), 2 * far * near / (near - far)], [0, 0, -1, 0]], np.float32)


def lamp_view(light: Light, view: Floats, eyes: float, people: int) -> Floats:
    """What the lamp sees, without perspective, (4, 4): heads and chests."""
    way = view[:3, :3].T @ np.array(light.direction, np.float32)
    middle = np.array([0, -0.03, eyes - 0.22])
    matrix = look(middle + 2 * way / np.linalg.norm(way), middle)
    half = 0.40 + SPACING / 2 * (people - 1)
    scale = np.diag([1 / half, 1 / 0.52, -1 / 1.4, 1]).astype(np.float32)
    scale[2, 3] = -2 / 1.4
    return scale @ matrix
