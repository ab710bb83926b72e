"""Clips as the transformer learns from them, encoded once.

A causal codec forgets: from some latent on, those of a chunk are those of the whole clip. So a clip is kept as its own
latents, and beside them, for every fourth frame, only the few that come first where a chunk begins there; the first of
these is also that of the frame alone, as it is a reference. Chunks and references put together of these are what the
engine's conditioning gets from the codec.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infinitetalk.audio import AudioEncoder, AudioFeatures
from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.networks import Codec
from infinitetalk.pictures import from_uint8
from infinitetalk.region import cells, hide
from infinitetalk.shapes import SPATIAL, TEMPORAL

SAME = 1e-3
"""Latents that differ by less are the same."""
RATE = 25
"""Frames per second to learn from."""
Speech = Callable[[NDArray[np.float32]], Tensor]
"""Samples (M,) at 16 kHz → states (n, L, C), 25 per second."""


@dataclass(frozen=True, eq=False)
class TalkingClip:
    """What is learnt from: one person who talks."""

    frames: NDArray[np.uint8]  # (F, H, W, 3), 25 per second
    speech: NDArray[np.float32]  # (M,) at 16 kHz
    visemes: NDArray[np.float32]  # (F, V)
    mouth: NDArray[np.float32]  # (F, 4)
    """Left, top, right, bottom in pixels."""
    anew: NDArray[np.float32]  # (4,)
    """The same of the lower face, which is made anew for other words; empty where it is not known to stay in place."""


@dataclass(frozen=True, eq=False)
class EncodedClip:
    """One clip; J is a quarter of its frames."""

    whole: Tensor  # (J, C, h, w)
    starts: Tensor  # (J, r + 1, C, h, w)
    """The first latents of what begins at frame 4j."""
    states: Tensor  # (F, L, C)
    visemes: Tensor  # (F, V)
    mouth: Tensor  # (F, h, w)
    """How much of each latent's cell the mouth's box covers."""
    free: Tensor  # (J, h, w)
    """1 in the cells of the lower face, 0 elsewhere; nowhere 1 where no mouth is known."""
    kept: Tensor  # (J, C, h, w)
    """Latents of the clip with its lower face hidden."""

    @property
    def frames(self) -> int:
        """F."""
        return len(self.mouth)

    def save(self, file: Path) -> None:
        """Write it, in half precision."""
        from safetensors.torch import save_file

        save_file({name: value.half().contiguous() for name, value in vars(self).items()}, file)

    @classmethod
    def load(cls, file: Path) -> EncodedClip:
        """Read what `save` wrote.

        Raises:
            BadWeightsError: It is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return cls(**load_file(file))
        except (OSError, SafetensorError, TypeError) as error:
            raise BadWeightsError(f"is no encoded clip ({error})", where=str(file),
                                  hint="Delete it: it is made again") from error


class ClipEncoder:
    """Encodes clips for chunks of one length."""

    def __init__(self, codec: Codec, speech: Speech, frames: int, side: int) -> None:
        """Take the trained companions.

        Args:
            codec: Makes latents.
            speech: Hears.
            frames: Of a chunk.
            side: Pixels of a frame.
        """
        self._codec, self._speech, self._frames, self._side = codec, speech, frames, side

    @cached_property
    def reach(self) -> int:
        """r: how many latents after a clip's first still tell what that was."""
        ends = []
        for level in (-1.0, 1.0):
            clip = torch.zeros(3, self._frames, self._side, self._side)
            clip[:, 0] = level
            ends.append(self._codec.encode(clip).cpu())
        differs = (ends[0] - ends[1]).abs().amax((0, 2, 3)) > SAME  # (T,)
        return int(differs.nonzero().max()) if differs.any() else 0

    def __call__(self, clip: TalkingClip) -> EncodedClip:
        """Encode a clip.

        Raises:
            BadInputError: It is too short for a chunk, or of another size.
        """
        if len(clip.frames) < self._frames or clip.frames.shape[1:] != (self._side, self._side, 3):
            raise BadInputError(f"frames {clip.frames.shape}", where="clip",
                                hint=f"Give {self._frames} or more of {self._side}×{self._side}")
        frames = torch.from_numpy(np.array(clip.frames)).movedim(3, 0)  # (3, F, H, W)
        count = 1 + (frames.shape[1] - 1) // TEMPORAL
        used = from_uint8(frames[:, :1 + (count - 1) * TEMPORAL])  # (3, F, H, W)
        span = 1 + TEMPORAL * self.reach
        starts = [self._held(used[:, at:at + span], span) for at in range(0, used.shape[1], TEMPORAL)]
        features = AudioFeatures(cast(AudioEncoder, self._speech), clip.speech, Fraction(RATE), frames.shape[1])
        visemes = torch.from_numpy(np.array(clip.visemes, np.float32))
        anew = torch.from_numpy(np.array(clip.anew)).expand(used.shape[1], 4)
        free = cells(anew, (self._side, self._side))  # (J, h, w)
        return EncodedClip(self._encode(used), torch.stack(starts),
                           features.at(torch.arange(frames.shape[1])).cpu(), visemes,
                           coverage(clip.mouth, self._side // SPATIAL), free.float(), self._encode(hide(used, free)))

    def _encode(self, pixels: Tensor) -> Tensor:
        """(3, F, H, W) → (T, C, h, w)."""
        return self._codec.encode(pixels).cpu().transpose(0, 1)

    def _held(self, pixels: Tensor, span: int) -> Tensor:
        """Latents of a beginning; near the clip's end, where no chunk begins, the last frame stands still."""
        missing = span - pixels.shape[1]
        return self._encode(torch.cat((pixels, pixels[:, -1:].expand(-1, missing, -1, -1)), 1) if missing else pixels)


def coverage(
    boxes: NDArray[np.float32],  # (F, 4) left, top, right, bottom in pixels
    cells: int,
) -> Tensor:
    """Share of each latent's cell that a box covers → (F, cells, cells)."""
    box = torch.from_numpy(np.array(boxes, np.float32)) / SPATIAL  # (F, 4)
    edges = torch.arange(cells, dtype=torch.float32)  # (cells,)

    def along(low: Tensor, high: Tensor) -> Tensor:  # (F,), (F,) → (F, cells)
        return (torch.minimum(high[:, None], edges + 1) - torch.maximum(low[:, None], edges)).clamp(0, 1)

    return along(box[:, 1], box[:, 3])[:, :, None] * along(box[:, 0], box[:, 2])[:, None]
