"""Conditional flow matching: what the transformer is shown of a chunk, what it is asked for, and what it is told.

On the straight way from data to noise, x_t = (1 - t)·data + t·noise, it is asked for noise - data. The chunk's first
latents are known (context, or the reference in a shot's first chunk): they stay clean and out of the loss, as
`sampling.denoise` holds them. Everything else is told as `conditioning.Conditioner` tells it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from infinitetalk.conditions import Condition
from infinitetalk.schedule import NOISE
from infinitetalk.shapes import PATCH
from infinitetalk.transformer import Transformer

LEAST = 0.05
"""Smallest standard deviation of a viseme that is reckoned with: one that never moves must not count."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Chunks to learn from."""

    latent: Tensor  # (B, C, T, h, w)
    reference: Tensor  # (B, C, T, h, w)
    """The latents of the given pictures, each from its place on."""
    mask: Tensor  # (B, 4, T)
    """Which pixel frames `reference` gives (`conditioning.keyframe_mask`)."""
    image: Tensor  # (B, K, clip_dim)
    """What vision says of the first given picture."""
    windows: Tensor  # (B, 1, F, 5, L, C)
    mouth: Tensor  # (B, T, h, w)
    """How much of each cell the mouth's box covers, 0 to 1."""
    visemes: Tensor  # (B, T, V)
    known: Tensor  # (B,) int64
    """Latent frames that are not to be generated."""
    free: Tensor  # (B, 1, T, h, w) bool
    """Cells that are made anew; in the others the source stays (see `infinitetalk.region`)."""
    kept: Tensor  # (B, C, T, h, w)
    """What stays there: latents of the source with what is made anew hidden."""

    def to(self, device: torch.device) -> Samples:
        """The same elsewhere."""
        return Samples(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})

    def at(self, index: int) -> Samples:
        """One of them, as a batch of one."""
        return Samples(**{name: value[index:index + 1] for name, value in vars(self).items()})

    def y(self) -> Tensor:
        """Mask and reference latent, as `Conditioner.known` joins them → (B, 4+C, T, h, w)."""
        mask = self.mask[..., None, None].to(self.reference).where(self.free, 1)  # (B, 4, T, h, w)
        return torch.cat((mask, self.reference.where(self.free, self.kept)), dim=1)


@dataclass(frozen=True)
class FlowSettings:
    """How chunks are noised and weighed."""

    shift: float = 3.0
    """Of the timesteps, towards noise: t = s·u / (1 + (s - 1)·u)."""
    audio_drop: float = 0.1
    """Share of chunks that hear nobody, so that audio can be guided by."""
    reference_drop: float = 0.05
    """Share of chunks without reference."""
    context_noise: float = 0.1
    """Most noise on context, drawn evenly from 0: what is generated is never quite clean."""
    mouth: float = 6.0
    """Weight of the mouth's box against the rest; it covers one cell in ten of a face."""
    visemes: float = 0.0
    """Weight of the auxiliary loss on visemes; 0: none."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """All that is random about one step."""

    t: Tensor  # (B,) 0 to 1
    noise: Tensor  # (B, C, T, h, w)
    context: Tensor  # (B, C, T, h, w) noise on context, in its strength
    silent: Tensor  # (B,) bool
    blind: Tensor  # (B,) bool

    def to(self, device: torch.device) -> Drawn:
        """The same elsewhere."""
        return Drawn(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


@dataclass(frozen=True, eq=False)
class Loss:
    """What a step is judged by."""

    total: Tensor
    """What is minimised."""
    flow: Tensor
    """Weighted mean square of the error in velocity, known frames left out."""
    mouth: Tensor
    """The same in the mouth's box alone, unweighted."""
    visemes: Tensor
    """Mean square of the error in visemes; 0 without the auxiliary head."""


def draw_times(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """Times from a logit-normal distribution, shifted towards noise → (count,) in (0, 1)."""
    u = torch.sigmoid(torch.randn(count, generator=generator))
    return shift * u / (1 + (shift - 1) * u)


def draw(samples: Samples, settings: FlowSettings, generator: torch.Generator) -> Drawn:
    """Draw on the CPU, so that a step is the same on every device."""
    shape, count = samples.latent.shape, len(samples.latent)
    t = draw_times(count, settings.shift, generator)
    noise, context = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    strength = torch.rand(count, generator=generator) * settings.context_noise
    silent = torch.rand(count, generator=generator) < settings.audio_drop
    blind = torch.rand(count, generator=generator) < settings.reference_drop
    return Drawn(t, noise, context * strength[:, None, None, None, None], silent, blind)


def withhold(samples: Samples, drawn: Drawn) -> Samples:
    """Samples without the audio and references that are dropped.

    Args:
        samples: Whole.
        drawn: Says which.
    """
    heard = (~drawn.silent).to(samples.windows)[:, None, None, None, None, None]
    seen = ~drawn.blind[:, None, None]
    return replace(samples, windows=samples.windows * heard, mask=samples.mask * seen, image=samples.image * seen,
                   reference=samples.reference * seen[..., None, None])


def known_frames(
    known: Tensor,  # (B,)
    frames: int,
) -> Tensor:
    """Which latent frames are not to be generated → (B, 1, T, 1, 1) bool."""
    return (torch.arange(frames, device=known.device)[None] < known[:, None])[:, None, :, None, None]


def noised(samples: Samples, drawn: Drawn) -> Tensor:
    """x_t: known frames clean but for their own little noise, the others on their way → (B, C, T, h, w)."""
    t = drawn.t[:, None, None, None, None]
    fixed = known_frames(samples.known, samples.latent.shape[2])
    towards = samples.latent.where(samples.free, samples.kept)
    return torch.where(fixed, samples.latent + drawn.context, (1 - t) * towards + t * drawn.noise)


def told(network: Transformer, samples: Samples) -> Condition:
    """What the transformer is told besides latents."""
    nothing = [samples.image.new_zeros(0, network.config.text_dim)] * len(samples.latent)
    return Condition(network.embed_text(nothing), network.embed_image(samples.image),
                     network.embed_audio(samples.windows))


def predict(network: Transformer, samples: Samples, drawn: Drawn) -> Tensor:
    """Velocities → (B, C, T, h, w)."""
    velocity: Tensor = network(noised(samples, drawn), samples.y(), drawn.t * NOISE, told(network, samples))
    return velocity


def flow_loss(
    velocity: Tensor,  # (B, C, T, h, w)
    samples: Samples,
    drawn: Drawn,
    weight: float,
) -> tuple[Tensor, Tensor]:
    """Weighted loss over all that is to be generated, and the plain one over its mouths.

    Args:
        velocity: Predicted.
        samples: Truth.
        drawn: Noise.
        weight: Of the mouth against the rest.
    """
    error = (velocity - (drawn.noise - samples.latent)).square().mean(1)  # (B, T, h, w)
    free = (samples.free & ~known_frames(samples.known, velocity.shape[2]))[:, 0].to(error)  # (B, T, h, w)
    weights = (1 + (weight - 1) * samples.mouth) * free  # (B, T, h, w)
    mouths = samples.mouth * free  # (B, T, h, w)
    return ((error * weights).sum() / weights.sum().clamp_min(1e-6),
            (error * mouths).sum() / mouths.sum().clamp_min(1e-6))


class VisemeHead(nn.Module):  # type: ignore[misc]
    """Reads visemes off the mouth's tokens behind one of the blocks; training alone has it.

    It listens by a hook, so that the transformer need not know. Long before pictures get better by it, it tells the
    blocks below that audio belongs to mouths.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, network: Transformer, visemes: Tensor, layer: int) -> None:
        """Begin to listen.

        Args:
            network: Which is trained.
            visemes: (·, V), many of them: errors are reckoned in their standard deviations.
            layer: Block to listen behind.
        """
        super().__init__()
        self.read = nn.Sequential(nn.LayerNorm(network.config.dim), nn.Linear(network.config.dim, visemes.shape[1]))
        self.register_buffer("mean", visemes.float().mean(0), persistent=False)
        self.register_buffer("spread", visemes.float().std(0).clamp_min(LEAST), persistent=False)
        self._seen: Tensor | None = None
        network.blocks[layer].register_forward_hook(self._listen)

    def _listen(self, _block: object, _given: object, x: Tensor) -> None:
        self._seen = x

    def forward(self, samples: Samples) -> Tensor:
        """Mean square error of visemes over the frames to be generated where a mouth is seen; 1: nothing is known."""
        if self._seen is None:
            raise RuntimeError("the transformer has not run yet")
        at = nn.functional.avg_pool2d(samples.mouth, PATCH).flatten(2)  # (B, T, S)
        x = self._seen.float().unflatten(1, (at.shape[1], -1))  # (B, T, S, D)
        self._seen = None
        x = (x * at[..., None]).sum(2) / at.sum(2, keepdim=True).clamp_min(1e-6)  # (B, T, D)
        free = (~known_frames(samples.known, at.shape[1]))[:, 0, :, 0, 0] & (at.sum(2) > 0)  # (B, T)
        error = (self.read(x) - (samples.visemes - self.mean) / self.spread).square().mean(2)  # (B, T)
        loss: Tensor = (error * free).sum() / free.sum().clamp_min(1)
        return loss


def judge(network: Transformer, samples: Samples, drawn: Drawn, settings: FlowSettings,
          head: VisemeHead | None = None) -> Loss:
    """Run the network once and weigh what it says."""
    velocity = predict(network, samples, drawn)  # (B, C, T, h, w)
    flow, mouth = flow_loss(velocity.float(), samples, drawn, settings.mouth)
    visemes = head(samples) if head is not None else flow.new_zeros(())
    return Loss(flow + settings.visemes * visemes, flow, mouth.detach(), visemes.detach())
