"""The arithmetic of a forward, a chunk and a shot, by formula: what a job costs, and what speed is measured against.

A multiply-add counts as two operations; norms, rotations and the sampler's own arithmetic (under 0.1 %) are left out.
The encoders of text, pictures and audio run once per prompt, reference or second of speech, and are left out, too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from infinitetalk.config import TransformerConfig
from infinitetalk.shapes import PATCH, LatentShape, PixelShape


class Convolutions(NamedTuple):
    """Operations of the VAE's convolutions per latent pixel; counted on the published network, exact for any size."""

    first: int
    """In the first latent frame, which holds one pixel frame."""
    later: int
    """In every later latent frame, which holds four."""


ENCODER = Convolutions(first=426_039_296, later=1_280_731_136)
DECODER = Convolutions(first=687_882_752, later=2_161_889_792)
CODEC_ATTENTION = 4 * 384
"""Operations per pair of latent pixels in the one attention of encoder or decoder, 384 wide, frame by frame."""


@dataclass(frozen=True)
class ForwardFlops:
    """One forward of the transformer, one video."""

    linear: int
    """Projections of the video's tokens, and the feed-forward."""
    self_attention: int
    cross_attention: int
    """Video tokens against text, image and audio tokens."""
    speakers: int
    """Who is where: the reference attention map that two speakers need."""
    ends: int
    """Patch embedding, timestep embedding, head."""
    keys_values: int
    """Keys and values of text, image and audio tokens: once per distinct input, not once per forward."""

    @property
    def steady(self) -> int:
        """A forward whose conditions were seen before."""
        return self.linear + self.self_attention + self.cross_attention + self.speakers + self.ends

    @property
    def total(self) -> int:
        """A forward with conditions that are new."""
        return self.steady + self.keys_values


def forward_flops(config: TransformerConfig, latent: LatentShape, persons: int = 1) -> ForwardFlops:
    """Operations of one forward (Wan 2.1 report, arXiv 2503.20314; audio layers of MultiTalk, arXiv 2505.22647).

    Args:
        config: Sizes of the network.
        latent: The chunk it denoises.
        persons: Speakers who are heard, 1 or 2.
    """
    width, tokens, layers = config.dim, latent.tokens, config.num_layers
    audio = config.audio_tokens * persons
    pictures = config.text_len + config.clip_tokens
    return ForwardFlops(
        linear=2 * tokens * layers * (4 * width**2 + 2 * width**2 + 2 * width**2 + 2 * width * config.ffn_dim),
        self_attention=4 * tokens**2 * width * layers,
        cross_attention=4 * tokens * (pictures + audio) * width * layers,
        speakers=4 * tokens * latent.frame_tokens * width * layers if persons > 1 else 0,
        ends=_ends(config, tokens),
        keys_values=4 * layers * width * (pictures * width + latent.frames * audio * config.audio_dim))


def _ends(config: TransformerConfig, tokens: int) -> int:
    channels = (config.in_dim + config.out_dim) * PATCH**2
    timestep = config.dim * (config.freq_dim + config.dim + 6 * config.dim)
    return 2 * (tokens * channels * config.dim + timestep)


def encode_flops(pixels: PixelShape) -> int:
    """Operations of the VAE's encoder."""
    return _codec(ENCODER, pixels.latent)


def decode_flops(pixels: PixelShape) -> int:
    """Operations of the VAE's decoder."""
    return _codec(DECODER, pixels.latent)


def _codec(convolutions: Convolutions, latent: LatentShape) -> int:
    area = latent.height * latent.width
    frames = convolutions.first + (latent.frames - 1) * convolutions.later
    return area * (frames + latent.frames * CODEC_ATTENTION * area)


class Speed(NamedTuple):
    """Operations per second that a card reaches."""

    transformer: float
    codec: float


PUBLISHED_SPEED = Speed(transformer=0.6 * 989.5e12, codec=0.18 * 989.5e12)
"""What the best published implementations reach on one H100 or H200: 60 % of its dense BF16 peak, 18 % in the VAE."""


@dataclass(frozen=True)
class Work:
    """Operations of a chunk or a shot; sums with `+`."""

    transformer: int = 0
    codec: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(self.transformer + other.transformer, self.codec + other.codec)

    def seconds(self, speed: Speed = PUBLISHED_SPEED) -> float:
        """Seconds of one card."""
        return self.transformer / speed.transformer + self.codec / speed.codec


class Span(Protocol):
    """A chunk of a plan (`plan.ChunkSpan`)."""

    @property
    def frames(self) -> int:
        """F, context included."""

    @property
    def context(self) -> int:
        """Frames known before."""


def chunk_work(config: TransformerConfig, pixels: PixelShape, *, steps: int, passes: int, context: int = 9,
               persons: int = 1, new_reference: bool = True) -> Work:
    """Work of one chunk, TeaCache aside.

    Args:
        config: Sizes of the network.
        pixels: The chunk, context included.
        steps: Denoising steps.
        passes: Forwards per step that guidance needs: `len(guidance.passes)`.
        context: Pixel frames that are encoded as the chunk's beginning.
        persons: Speakers who are heard in it.
        new_reference: Whether the picture it looks at is another than the last chunk's, and must be encoded.
    """
    forward = forward_flops(config, pixels.latent, persons)
    encoded = encode_flops(pixels._replace(frames=context)) if context else 0
    reference = encode_flops(pixels) if new_reference else 0
    return Work(transformer=steps * passes * forward.steady + forward.keys_values,
                codec=encoded + reference + decode_flops(pixels))


def shot_work(config: TransformerConfig, spans: Iterable[Span], size: tuple[int, int], *, steps: int, passes: int,
              persons: int = 1, new_references: bool = True) -> Work:
    """Work of a planned shot (`plan.plan`), TeaCache aside.

    Args:
        config: Sizes of the network.
        spans: Its chunks.
        size: (H, W) that is generated.
        steps: Denoising steps.
        passes: Forwards per step.
        persons: Speakers who are heard in it.
        new_references: Whether every chunk has its own reference, as in dubbing; else the first one's serves all.
    """
    height, width = size
    return sum((chunk_work(config, PixelShape(span.frames, height, width), steps=steps, passes=passes,
                           context=span.context, persons=persons, new_reference=new_references or index == 0)
                for index, span in enumerate(spans)), Work())
