"""The pictures of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infinitetalk.experiment.arms import Arm
from infinitetalk.experiment.bench import CURVE_EVERY
from infinitetalk.experiment.claims import Table
from infinitetalk.train.latents import RATE

SHOWN = ("r at lag 0", "Sync-C*", "drift from source", "colour error", "seam", "motion copy", "copy", "camera error")
COLUMNS = 4
DOTS = 110
"""Per inch."""


def save_figures(file: Path, table: Table, arms: Sequence[Arm]) -> None:
    """Mean and interval of each figure, a panel each, a line an arm.

    Args:
        file: PNG.
        table: Figures.
        arms: Rows, from the top.
    """
    rows = -(-len(SHOWN) // COLUMNS)
    whole = _figure(3.1 * COLUMNS + 1.6, (0.24 * len(arms) + 0.9) * rows)
    panels = whole.subplots(rows, COLUMNS, sharey=True, squeeze=False)
    for figure, panel in zip(SHOWN, panels.flat, strict=True):
        for at, arm in enumerate(arms):
            mean = table.mean(arm.name, figure)
            if mean is not None:
                colour = "tab:gray" if not arm.weights else "tab:orange" if arm.ablation else "tab:blue"
                panel.plot((mean.low, mean.high), (at, at), color=colour)
                panel.plot(mean.mean, at, "o", color=colour, markersize=4)
        panel.set_title(figure, fontsize=10)
        panel.grid(axis="x", alpha=0.3)
    panels[0, 0].set_yticks(range(len(arms)), [arm.name for arm in arms])
    panels[0, 0].set_ylim(len(arms) - 0.5, -0.5)
    whole.savefig(file, dpi=DOTS)


def save_curves(file: Path, table: Table, arms: Sequence[Arm]) -> None:
    """How far colours are from the source's, over time, a line an arm."""
    whole = _figure(7.5, 4.0)
    panel = whole.subplots()
    for arm in arms:
        apart = table.curve(arm.name)
        if apart is not None:
            seconds = [at * CURVE_EVERY / RATE for at in range(len(apart))]
            panel.plot(seconds, apart, "--" if arm.ablation else "-", label=arm.name, linewidth=1.3)
    panel.set_xlabel("seconds")
    panel.set_ylabel("distance of mean colours from the source's (0 … 1)")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8, ncols=2)
    whole.savefig(file, dpi=DOTS)


def save_strips(file: Path, strips: Sequence[tuple[Arm, Path]]) -> None:
    """Frames of the first pair, a row an arm, in the order given."""
    import numpy as np
    from PIL import Image

    rows = []
    for _, strip in strips:
        with Image.open(strip, formats=("PNG",)) as picture:
            rows.append(np.asarray(picture.convert("RGB")))
    Image.fromarray(np.concatenate(rows)).save(file)


def _figure(width: float, height: float) -> Any:
    """A figure of inches; no display is asked for."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
