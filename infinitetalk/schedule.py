"""Timesteps of flow matching: 1000 is noise, 0 is data, and the network tells the velocity from data to noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from infinitetalk.errors import BadInputError

NOISE = 1000.0
"""The timestep of pure noise."""
LAST = 1.0
"""The timestep of the last step, before the shift."""


def timesteps(steps: int, shift: float, begin: float = 1.0) -> Tensor:
    """Where each Euler step begins, and 0, where the last one ends: (steps + 1,) float32, falling.

    A shift s above 1 spends more steps near the noise: u becomes s·u / (1 + (s - 1)·u), u = t / 1000
    (Wan 2.1 report, arXiv 2503.20314).

    Args:
        steps: Euler steps, at least 1.
        shift: s, above 0; 1 leaves the steps even.
        begin: Share of noise that the first step begins with, after the shift, above 0; 1: noise alone.

    Raises:
        BadInputError: There is no such schedule.
    """
    check_schedule(steps, shift, begin)
    first = NOISE * begin / (shift - (shift - 1) * begin)  # before the shift
    even = torch.linspace(first, min(LAST, first), steps, dtype=torch.float64).float()  # (steps,), everywhere the same
    u = torch.cat([even, torch.zeros(1)]) / NOISE  # (steps+1,)
    return shift * u / (1 + (shift - 1) * u) * NOISE  # (steps+1,)


def check_schedule(steps: int, shift: float, begin: float = 1.0) -> None:
    """Refuse steps, shifts and beginnings that have no schedule with a BadInputError."""
    if steps < 1:
        raise BadInputError(f"{steps} steps cannot denoise", where="steps", hint="Give 1 or more; usual: 4, 8, 40")
    if not (math.isfinite(shift) and shift > 0):
        raise BadInputError(f"{shift} is no shift", where="shift", hint="Give a number above 0; usual: 2, 7, 11")
    if not 0 < begin <= 1:
        raise BadInputError(f"{begin} is no share of noise", where="begin", hint="Give 1, or above 0")


def add_noise(
    clean: Tensor,  # (16, T, h, w)
    noise: Tensor,  # (16, T, h, w)
    t: Tensor,  # () or (1,)
) -> Tensor:
    """The latent at timestep t on the straight way from `clean` to `noise`: (16, T, h, w)."""
    return (1 - t / NOISE) * clean + t / NOISE * noise
