"""What a stream is given: pictures, sound and words of one shot, that is of consecutive frames without a cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from infinitetalk.errors import BadInputError
from infinitetalk.guidance import Pass
from infinitetalk.pictures import GRID
from infinitetalk.plan import held_windows, published_windows
from infinitetalk.shapes import SPATIAL

Box = tuple[float, float, float, float]


class Audio(Protocol):
    """What is heard in a shot, on the video's frame clock."""

    @property
    def persons(self) -> int:
        """P, 1 or 2."""
        ...

    def windows(self, start: int, frames: int) -> Tensor:
        """The audio around frames [start, start + frames): (P, F, 5, L, C)."""
        ...


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Audio whose states are known beforehand."""

    states: Tensor  # (P, n, L, C)
    tail: Literal["held", "published"] = "held"
    """Past the end: the last state, or (for parity) the track played backwards."""

    @property
    def persons(self) -> int:
        """P."""
        return len(self.states)

    def windows(self, start: int, frames: int) -> Tensor:
        """The audio around frames [start, start + frames): (P, F, 5, L, C)."""
        indices = held_windows if self.tail == "held" else published_windows
        return self.states[:, indices(start, frames, self.states.shape[1])]


@dataclass(frozen=True, eq=False)
class Shot:
    """What is to be generated: consecutive frames without a cut."""

    frame: Callable[[int], Tensor]
    """Source picture (3, H, W) in [-1, 1] by its index in the shot, 0 to frames - 1."""
    frames: int
    size: tuple[int, int]
    """(H, W), multiples of 16."""
    audio: Audio
    text: Tensor  # (k, text_dim)
    negative: Tensor | None = None  # (k, text_dim)
    """Needed where guidance by text is not 1."""
    masks: Tensor | None = None  # (3, h, w)
    """Person 1, person 2 and background, where two are heard."""
    seed: int = 0
    region: Callable[[int], Box] | None = None
    """Left, top, right, bottom, in pixels of the generated picture, of what is made anew of a frame, by its index in
    the shot; all else stays as it was filmed (`infinitetalk.region`). None: the whole frame is made anew."""


def check_grid(size: tuple[int, int]) -> None:
    """Refuse an (H, W) that is not on the grid of tokens with a BadInputError."""
    height, width = size
    if min(height, width) < GRID or height % GRID or width % GRID:
        raise BadInputError(f"{width}×{height} pixels", where="size", hint=f"Give multiples of {GRID}")


def check_shot(shot: Shot, passes: Sequence[Pass]) -> None:
    """Check a shot before anything is computed.

    Raises:
        BadInputError: Its size is not on the grid of tokens, or what it needs for its persons or passes is missing.
    """
    check_grid(shot.size)
    height, width = shot.size
    if shot.audio.persons not in (1, 2):
        raise BadInputError(f"{shot.audio.persons} voices", where="audio", hint="Give one or two")
    if shot.audio.persons == 2 and (shot.masks is None
                                    or tuple(shot.masks.shape) != (3, height // SPATIAL, width // SPATIAL)):
        raise BadInputError("two voices without masks of the latent's size", where="masks",
                            hint="Make them with persons.assign")
    if shot.negative is None and not all(which.text for which in passes):
        raise BadInputError("guidance by text needs a negative prompt", where="negative",
                            hint="Give one, or guide with a text scale of 1")
