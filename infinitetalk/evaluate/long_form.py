"""Long videos in windows of ten seconds: each by itself, and everything up to it.

As the InfinityHuman paper does, the figure at 10·k seconds is that of the first k windows of every video that is long
enough. Pooling hides what goes wrong late, so each window's own figure and the slope per minute stand beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from infinitetalk.errors import BadInputError
from infinitetalk.evaluate.bootstrap import Interval, interval

SECONDS = 10


class Span(NamedTuple):
    """Some frames of a video."""

    video: int
    start: int
    end: int
    """Exclusive."""


class Window(NamedTuple):
    """Figures at one length."""

    seconds: float
    """Where the window ends."""
    cumulative: float
    """Of everything up to there; NaN where it cannot be measured."""
    own: float
    """Of the window alone."""
    videos: int
    """That are long enough."""


Figure = Callable[[Sequence[Span]], float]
"""A figure of the frames in these spans; raises BadInputError where it cannot be measured."""


def windows(lengths: Sequence[int], rate: float, seconds: float = SECONDS) -> list[list[Span]]:
    """Whole windows: for each k, the k-th window of every video that reaches its end.

    Args:
        lengths: Frames of each video.
        rate: Frames per second.
        seconds: Of a window.

    Raises:
        BadInputError: A window would hold no frame.
    """
    step = round(rate * seconds)
    if step < 1:
        raise BadInputError(f"a window of {seconds} s at {rate} frames a second", where="windows")
    count = max(lengths, default=0) // step
    return [[Span(video, k * step, (k + 1) * step) for video, length in enumerate(lengths) if length >= (k + 1) * step]
            for k in range(count)]


def long_form(figure: Figure, lengths: Sequence[int], rate: float, seconds: float = SECONDS) -> list[Window]:
    """A figure at every length; see `windows`.

    The cumulative figure at k windows takes, of every video that long, all frames up to there as one span, so that
    what is defined on the order of frames sees no border that is not there.
    """
    rows = []
    for k, spans in enumerate(windows(lengths, rate, seconds), 1):
        so_far = [Span(span.video, 0, span.end) for span in spans]
        rows.append(Window(k * seconds, _of(figure, so_far), _of(figure, spans), len(spans)))
    return rows


def _of(figure: Figure, spans: Sequence[Span]) -> float:
    try:
        return figure(spans)
    except BadInputError:
        return float("nan")


def slope(figure: Figure, lengths: Sequence[int], rate: float, seconds: float = SECONDS, seed: int = 0) -> Interval:
    """How the windows' own figures change per minute, least squares in each video, with an interval over videos.

    Raises:
        BadInputError: No video has two windows that can be measured.
    """
    rows = windows(lengths, rate, seconds)
    own = [[_of(figure, [span]) for spans in rows for span in spans if span.video == video]
           for video in range(len(lengths))]
    return interval(np.array([per_minute(one, seconds) for one in own]), seed)


def per_minute(own: Sequence[float], seconds: float = SECONDS) -> float:
    """Least-squares slope of consecutive windows' figures; NaN with fewer than two that are known."""
    values = np.asarray(own, np.float64)
    at, known = (np.arange(len(values)) + 0.5) * seconds / 60, np.isfinite(values)
    return float(np.polyfit(at[known], values[known], 1)[0]) if known.sum() > 1 else float("nan")
