"""Colour correction: every generated frame gets the shot's own mean and spread in CIE Lab.

Without it a long stream drifts: each chunk takes over the tint of the one before it and adds its own. Lab as in
scikit-image (sRGB, D65, 2° observer); the transfer as in the published implementation (MeiGen-AI/InfiniteTalk at
0107cd96), after Reinhard et al., "Color Transfer between Images", 2001.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
WHITE = (0.95047, 1.0, 1.08883)


@dataclass(frozen=True, eq=False)
class ColorStats:
    """Mean and population standard deviation of L, a and b over a frame."""

    mean: Tensor  # (3,)
    std: Tensor  # (3,)


def statistics(
    frame: Tensor,  # (3, H, W) in [-1, 1]
) -> ColorStats:
    """What `transfer` aims at."""
    mean, std = _moments(_to_lab(frame[:, None]))                                # (3, 1, 1, 1) twice
    return ColorStats(mean.flatten(), std.flatten())


def transfer(
    frames: Tensor,  # (3, F, H, W) in [-1, 1]
    stats: ColorStats,
    strength: float = 1.0,
) -> Tensor:
    """Frames with the colours of `stats`, each by itself → (3, F, H, W) in [-1, 1].

    Args:
        frames: Generated frames.
        stats: Of the reference.
        strength: 0 leaves them as they are, 1 corrects wholly.
    """
    if strength == 0:
        return frames
    lab = _to_lab(frames)                                                        # (3, F, H, W)
    mean, std = _moments(lab)                                                    # (3, F, 1, 1) twice
    goal, spread = (value.to(lab).view(3, 1, 1, 1) for value in (stats.mean, stats.std))
    scaled = (lab - mean) * torch.where(std > 0, spread / std, 0.0) + goal       # (3, F, H, W)
    return torch.lerp(frames.float(), _from_lab(scaled) * 2 - 1, strength)


def _moments(
    lab: Tensor,  # (3, F, H, W)
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel and frame → (3, F, 1, 1) twice.

    By Welford's running mean (torch's `std_mean`), which a flat picture leaves without any spread: the rounding of a
    plain sum would give it one, and `transfer` would blow that up.
    """
    std, mean = torch.std_mean(lab, dim=(2, 3), correction=0, keepdim=True)      # (3, F, 1, 1) twice
    return mean, std


def _mix(
    matrix: Tensor,  # (3, 3)
    pixels: Tensor,  # (3, F, H, W)
) -> Tensor:
    return (matrix @ pixels.flatten(1)).view_as(pixels)                          # (3, F, H, W)


def _matrix(pixels: Tensor) -> Tensor:
    """Linear sRGB → XYZ relative to white, on the pixels' device → (3, 3) float64."""
    white = torch.tensor(WHITE, dtype=torch.float64)[:, None]
    return (torch.tensor(TO_XYZ, dtype=torch.float64) / white).to(pixels.device)


def _to_lab(
    frames: Tensor,  # (3, F, H, W) in [-1, 1]
) -> Tensor:
    """Lab → (3, F, H, W) float32."""
    rgb = frames.float().add(1).div(2).clamp(0, 1)                               # (3, F, H, W)
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = _mix(_matrix(rgb).float(), linear)                                     # (3, F, H, W)
    x, y, z = torch.where(xyz > 0.008856, xyz.clamp_min(0) ** (1 / 3), 7.787 * xyz + 16 / 116)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)))


def _from_lab(
    lab: Tensor,  # (3, F, H, W)
) -> Tensor:
    """RGB in [0, 1] → (3, F, H, W) float32."""
    y = (lab[0] + 16) / 116                                                      # (F, H, W)
    root = torch.stack((y + lab[1] / 500, y, (y - lab[2] / 200).clamp_min(0)))   # (3, F, H, W)
    xyz = torch.where(root > 0.2068966, root ** 3, (root - 16 / 116) / 7.787)    # (3, F, H, W)
    linear = _mix(torch.linalg.inv(_matrix(lab)).float(), xyz)                   # (3, F, H, W)
    bright = 1.055 * linear.clamp_min(0) ** (1 / 2.4) - 0.055                    # (3, F, H, W)
    return torch.where(linear > 0.0031308, bright, linear * 12.92).clamp(0, 1)
