"""One chunk from noise to latent: Euler steps along the guided velocity, with the context held fixed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import Tensor

from infinitetalk.errors import BadInputError
from infinitetalk.guidance import Guidance, Pass
from infinitetalk.region import Kept
from infinitetalk.schedule import NOISE, add_noise, check_schedule, timesteps
from infinitetalk.teacache import POLYNOMIALS, TeaCache, check_threshold

SHIFTS: Mapping[str, float] = {"480": 7.0, "720": 11.0}
"""Size class → shift of the schedule without a step-distilled LoRA."""
Velocity = Callable[[Tensor, Tensor, Pass], Tensor]
"""(x (16, T, h, w), t () in 0..1000, which conditions) → noise - data (16, T, h, w): one run of the network."""
Progress = Callable[[int, int], None]
"""(steps done, steps of the chunk), told after each step."""


@dataclass(frozen=True)
class Sampling:
    """How a chunk is denoised."""

    steps: int = 40
    shift: float = SHIFTS["480"]
    guidance: Guidance = field(default_factory=Guidance)
    teacache: float | None = None
    """Threshold of TeaCache (usual is 0.2); None: every pass runs in full."""
    size: str = "480"
    """Size class of the weights, whose polynomial TeaCache takes."""
    begin: float = 1.0
    """Share of noise that a chunk begins with; below 1, the rest is the source (SDEdit, arXiv 2108.01073): its camera
    is followed more closely, for more of its colours and lips."""
    temperature: float = 1.0
    """Standard deviation of the noise that a chunk begins with; below 1, what is made is nearer to the likeliest."""

    def __post_init__(self) -> None:
        """Refuse what cannot be sampled."""
        check_schedule(self.steps, self.shift, self.begin)
        if self.teacache is not None:
            check_threshold(self.teacache)
        if not 0 < self.temperature <= 1:
            raise BadInputError(f"{self.temperature:g}", where="temperature", hint="Give 1, or above 0")
        if self.size not in SHIFTS:
            raise BadInputError(f"{self.size!r} is no size class", where="size", hint=f"There are: {', '.join(SHIFTS)}")

    @property
    def forwards(self) -> int:
        """Runs of the network for one chunk, TeaCache's shortened ones included."""
        return self.steps * len(self.guidance.passes)

    def start_cache(self) -> TeaCache | None:
        """A cache for one chunk, if there is to be one."""
        return None if self.teacache is None else TeaCache(self.teacache, POLYNOMIALS[self.size])


PRESETS: Mapping[str, Sampling] = {
    "best": Sampling(),
    "cached": Sampling(teacache=0.2),
    "fast-8": Sampling(steps=8, shift=2.0, guidance=Guidance(text=1.0, audio=2.0)),
    "fast-4": Sampling(steps=4, shift=2.0, guidance=Guidance(text=1.0, audio=1.0)),
}
"""Ways to sample at size class 480. The fast ones need a LoRA that was distilled for their number of steps."""


def preset(name: str, size: str = "480") -> Sampling:
    """A way to sample by its name, at a size class.

    Args:
        name: Key of `PRESETS`.
        size: Key of `SHIFTS`; the presets of 40 steps take its shift.

    Raises:
        BadInputError: There is no such preset or size class.
    """
    if name not in PRESETS:
        raise BadInputError(f"there is no preset {name!r}", where="sampling", hint=f"There are: {', '.join(PRESETS)}")
    sized = replace(PRESETS[name], size=size)
    return replace(sized, shift=SHIFTS[size]) if sized.shift == SHIFTS["480"] else sized


def unwatched(_done: int, _of: int) -> None:
    """Progress that nobody looks at."""


def denoise(
    velocity: Velocity,
    noise: Tensor,  # (16, T, h, w)
    fixed: Tensor,  # (16, Tc, h, w)
    sampling: Sampling,
    progress: Progress = unwatched,
    source: Tensor | None = None,  # (16, T, h, w)
    kept: Kept | None = None,
) -> Tensor:
    """Turn noise into a latent whose first Tc frames are `fixed`: (16, T, h, w), in the precision of `noise`.

    The fixed frames are clean before and after every step, so that the network sees them as they are and never as
    noise (InfiniteTalk, arXiv 2508.14033, section 3.3). No gradients are recorded.

    Args:
        velocity: One run of the network; it is called once per step for each of `sampling.guidance.passes`.
        noise: Float32 from a normal distribution.
        fixed: Context latents, or a latent of no frames.
        sampling: Steps, shift and guidance.
        progress: Told how many steps are done and how many there are, after each.
        source: What the noise is mixed with where `sampling.begin` is below 1.
        kept: What stays of the source; None: everything is made anew.

    Raises:
        BadInputError: `fixed` does not fit into `noise`, or there is no source to begin with.
    """
    check_fixed(noise, fixed)
    times = timesteps(sampling.steps, sampling.shift, sampling.begin).to(noise.device)  # (steps+1,)
    if sampling.begin < 1:
        if source is None or source.shape != noise.shape:
            raise BadInputError("there is no source to begin with", where="begin", hint="Give its latent")
        start = add_noise(source.to(noise), noise, times[0])  # (16, T, h, w)
    else:
        start = noise
    mix = sampling.guidance.start()

    def held(x: Tensor, t: Tensor) -> Tensor:  # (16, T, h, w), () → (16, T, h, w)
        return hold(x if kept is None else kept.within(x, noise, t / NOISE), fixed)

    with torch.no_grad():
        x = held(start, times[0])  # (16, T, h, w)
        for step, (t, after) in enumerate(pairwise(times), 1):
            v = mix({which: velocity(x, t, which) for which in sampling.guidance.passes})  # (16, T, h, w)
            x = held(x - v * ((t - after) / NOISE), after)  # (16, T, h, w)
            progress(step, sampling.steps)
    return x


def hold(
    x: Tensor,  # (16, T, h, w)
    fixed: Tensor,  # (16, Tc, h, w)
) -> Tensor:
    """x with its first frames replaced by the fixed ones: (16, T, h, w)."""
    return torch.cat([fixed.to(x), x[:, fixed.shape[1]:]], dim=1)


def check_fixed(
    noise: Tensor,  # (16, T, h, w)
    fixed: Tensor,  # (16, Tc, h, w)
) -> None:
    """Refuse context that is no beginning of the latent with a BadInputError."""
    same = noise.shape[:1] + noise.shape[2:] == fixed.shape[:1] + fixed.shape[2:]
    if not same or noise.ndim != 4 or fixed.shape[1] > noise.shape[1]:
        raise BadInputError(f"latents {tuple(fixed.shape)} are no beginning of {tuple(noise.shape)}", where="context",
                            hint="Give (16, Tc, h, w) with Tc of at most T")
