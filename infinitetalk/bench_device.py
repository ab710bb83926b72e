"""Time, memory and name of a device; on a CPU only the time is told."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch

PEAKS: Mapping[str, float] = {"H200": 989.5e12, "H100 PCIe": 756e12, "H100": 989.5e12, "A100": 312e12, "L40S": 362e12}
"""Part of a card's name → dense BF16 operations per second, by its data sheet."""


def card(device: torch.device) -> dict[str, Any]:
    """Name and peak of the device."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    return {"device": name, "peak_flops": next((peak for part, peak in PEAKS.items() if part in name), None)}


def clock(device: torch.device) -> int | None:
    """The clock of its processors in MHz, if it tells."""
    with contextlib.suppress(RuntimeError, ImportError, AttributeError):
        return int(torch.cuda.clock_rate(device)) if device.type == "cuda" else None
    return None


def wait(device: torch.device) -> None:
    """Until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fresh_peak(device: torch.device) -> None:
    """Forget the most memory that was used."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak(device: torch.device) -> int | None:
    """The most memory that was used, in bytes."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Time of one call on the device."""
    if device.type != "cuda":
        start = time.perf_counter()
        run()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    run()
    end.record()
    torch.cuda.synchronize(device)
    return float(begin.elapsed_time(end)) / 1000
