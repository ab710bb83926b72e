"""Video of any length, chunk by chunk: `ChunkState` in → frames out, `ChunkState` out.

The first chunk begins with the reference, every later one with the last frames of the one before it, decoded,
colour-corrected and encoded again (InfiniteTalk, arXiv 2508.14033, section 3.3). A chunk depends on the shot, the
settings and the state alone, so a stream that was cut off goes on bit for bit. Memory does not grow with length:
frames leave as bytes while they are decoded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infinitetalk.color import ColorStats, statistics, transfer
from infinitetalk.conditioning import Conditioner, Latest
from infinitetalk.errors import BadInputError, BadResultError
from infinitetalk.guidance import Pass
from infinitetalk.networks import Networks
from infinitetalk.pictures import from_uint8, to_uint8
from infinitetalk.plan import ChunkSize, ChunkSpan, Tail, plan
from infinitetalk.reference import Reference, Source
from infinitetalk.region import Kept, cells, hide, visible
from infinitetalk.sampling import Progress, Sampling, denoise, unwatched
from infinitetalk.shapes import SPATIAL, latent_frames
from infinitetalk.shot import Audio, Embeddings, Shot, check_shot
from infinitetalk.state import ChunkState

__all__ = ["Audio", "Chunks", "Embeddings", "GeneratedChunk", "Noise", "Progress", "Shot", "StreamSettings",
           "fingerprint", "seeded_noise", "stream", "unwatched"]

Noise = Callable[[int, int, Sequence[int]], Tensor]
"""(seed of the shot, index of the chunk, shape) → float32 from a normal distribution."""


@dataclass(frozen=True)
class StreamSettings:
    """How a shot is streamed."""

    size: ChunkSize = field(default_factory=ChunkSize)
    sampling: Sampling = field(default_factory=Sampling)
    reference: Reference = field(default_factory=Source)
    color: float = 1.0
    """Strength of the colour correction towards the shot's own first picture, 0 to 1."""
    tail: Tail = "short"
    """Whether the last chunk is no longer than needed, or as long as the others."""

    def __post_init__(self) -> None:
        """Refuse what cannot be streamed."""
        if not 0 <= self.color <= 1:
            raise BadInputError(f"{self.color} is no strength", where="color", hint="Give 0 to 1")
        if self.tail not in ("short", "full"):
            raise BadInputError(f"{self.tail!r} is no tail", where="tail", hint="Give 'short' or 'full'")


@dataclass(frozen=True, eq=False)
class GeneratedChunk:
    """What one chunk adds to the shot."""

    index: int
    frames: NDArray[np.uint8]  # (F, H, W, 3)
    """New frames only; those of the last chunk end with the shot."""
    state: ChunkState
    """To go on from."""
    made: NDArray[np.float32] | None = None  # (F, H, W)
    """How much of each pixel was made anew, 0 to 1; None: all of the whole frame."""


def seeded_noise(seed: int, chunk: int, shape: Sequence[int]) -> Tensor:
    """Noise that is the same on every machine: drawn on the CPU in float64 (float32 takes other paths by processor).

    Args:
        seed: Of the shot.
        chunk: Its index.
        shape: Wanted.
    """
    mixed = int.from_bytes(hashlib.sha256(f"{seed} {chunk}".encode()).digest()[:4], "big")
    generator = torch.Generator().manual_seed(mixed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).float()


def stream(
    networks: Networks, shot: Shot, settings: StreamSettings, state: ChunkState | None = None,
    noise: Noise = seeded_noise, *, progress: Progress = unwatched,
) -> Iterator[GeneratedChunk]:
    """Generate a shot, chunk by chunk.

    Args:
        networks: Transformer, codec and vision.
        shot: What to generate.
        settings: How.
        state: Where to go on; None: at the beginning.
        noise: Where chunks begin.
        progress: Told after each step of a chunk how many are done, and how many the chunk has.

    Returns:
        The chunks that are left, each made when it is asked for.

    Raises:
        BadInputError: The shot cannot be generated so, or the state is not its own; nothing was computed.
        BadResultError: While a chunk is made: a network gave numbers that are not finite.
    """
    chunks = Chunks(networks, shot, settings, noise)
    if state is not None:
        chunks.check(state)
    return _generate(chunks, state, progress)


def _generate(chunks: Chunks, state: ChunkState | None, progress: Progress) -> Iterator[GeneratedChunk]:
    for span in chunks.spans[state.index if state else 0:]:
        color = state.color if state else chunks.color()
        seen, last = chunks.collect(span, chunks.pixels(span, chunks.latent(span, state, progress), color))
        state = chunks.follow(span, last, color)
        yield GeneratedChunk(span.index, seen, state, chunks.made(span))


class Chunks:
    """The parts of a stream, one call a part."""

    def __init__(self, networks: Networks, shot: Shot, settings: StreamSettings, noise: Noise = seeded_noise) -> None:
        """Check everything that can be checked before anything is computed.

        Raises:
            BadInputError: The shot cannot be generated so.
        """
        check_shot(shot, settings.sampling.guidance.passes)
        self._networks, self._shot, self._settings, self._noise = networks, shot, settings, noise
        size = settings.reference.size(settings.size)
        self.spans, self.shared = plan(shot.frames, size, settings.tail), size.context
        self.fingerprint = fingerprint(shot, settings)
        self._conditioner = Conditioner(networks, shot.text, shot.negative)
        self._channels = networks.transformer.config.out_dim
        self._filmed: Latest[Tensor] = Latest()
        self._cells: Latest[Tensor] = Latest()
        self._clamped = lru_cache(maxsize=1)(shot.frame)

    def check(self, state: ChunkState) -> None:
        """Check that a state is of this shot.

        Raises:
            BadInputError: It is not, or it lacks what the next chunk needs.
        """
        state.belongs(self.fingerprint, len(self.spans))
        (height, width), reference = self._shot.size, self._settings.reference
        context = (self._channels, latent_frames(self.shared), height // SPATIAL, width // SPATIAL)
        going_on = state.index < len(self.spans)
        for name, needed, shape in (("context", reference.carries, context),
                                    ("last_frame", reference.follows, (3, height, width))):
            tensor = getattr(state, name)
            if going_on and needed and (tensor is None or tuple(tensor.shape) != shape):
                raise BadInputError(f"{name} is not of shape {shape}", where="chunk state",
                                    hint="Delete it: the shot then begins anew")

    def color(self) -> ColorStats:
        """Colours of the shot's own first picture."""
        return statistics(self._picture(0))

    def latent(self, span: ChunkSpan, state: ChunkState | None, progress: Progress = unwatched) -> Tensor:
        """Denoise a chunk → (C, T, h, w) float32.

        Raises:
            BadResultError: It is not finite.
        """
        settings, shot, transformer = self._settings, self._shot, self._networks.transformer
        last = None if state is None or state.last_frame is None else from_uint8(state.last_frame)
        keyframes = settings.reference.keyframes(span, self._picture, last)
        # A picture for all chunks is encoded at the longest, once; the codec is causal, so shorter ones begin alike.
        encoded = self.spans[0].frames if settings.reference.constant else span.frames
        y = self._conditioner.known(keyframes, encoded, soft=settings.reference.soft)        # (4+C, T, h, w)
        y = y[:, :span.latents]
        carried = state.context if state and settings.reference.carries else None
        fixed = y[-self._channels:, :1] if carried is None else carried.to(y)   # (C, Tc, h, w)
        if fixed.shape[1] == span.latents:
            return finite(fixed, span)  # nothing is left to denoise: a shot of one frame is its reference
        kept = self._kept(span)
        if kept is not None:
            given = torch.cat((torch.ones_like(y[:-self._channels]), kept.latent))          # (4+C, T, h, w)
            y = y.where(kept.free, given)
        conditions = self._conditioner.conditions(
            settings.sampling.guidance.passes, keyframes[0], shot.audio.windows(span.start, span.frames))
        noise = self._noise(shot.seed, span.index, (self._channels, *y.shape[1:])).to(y)    # (C, T, h, w)
        noise = noise * settings.sampling.temperature
        cache = settings.sampling.start_cache()

        def velocity(x: Tensor, t: Tensor, which: Pass) -> Tensor:
            condition = conditions[which]
            masks = shot.masks if condition.persons > 1 else None                # (3, h, w)
            v: Tensor = transformer(x[None], y[None], t[None], condition, masks, cache.of(which) if cache else None)
            return v[0]                                                          # (C, T, h, w)

        source = self._source(span) if settings.sampling.begin < 1 else None     # (C, T, h, w)
        return finite(denoise(velocity, noise, fixed, settings.sampling, progress, source, kept), span)

    def pixels(
        self,
        span: ChunkSpan,
        latent: Tensor,  # (C, T, h, w)
        color: ColorStats,
    ) -> Iterator[Tensor]:
        """Decode, and correct colours → (3, f, H, W) in [-1, 1] each, context frames included."""
        free, done = self._free(span), 0
        made = None if free is None else visible(free).to(latent.device)         # (F, H, W)
        for piece in self._networks.codec.decode(latent):                        # (3, f, H, W)
            frames = transfer(piece, color, self._settings.color)
            if made is not None:
                filmed = self._pixels(span)[:, done:done + piece.shape[1]].to(frames)
                frames = filmed + (frames - filmed) * made[done:done + piece.shape[1]]
            done += piece.shape[1]
            yield frames

    def collect(
        self,
        span: ChunkSpan,
        pieces: Iterable[Tensor],  # of (3, f, H, W)
    ) -> tuple[NDArray[np.uint8], Tensor]:
        """What leaves and what stays: new frames of the shot (F, H, W, 3), and the last ones made (3, ·, H, W).

        Raises:
            BadResultError: The last ones are not finite.
        """
        wanted, done = min(span.frames, self._shot.frames - span.start), 0
        seen = np.empty((wanted, *self._shot.size, 3), np.uint8)
        last: Tensor | None = None
        for piece in pieces:                                                     # (3, f, H, W)
            end = min(done + piece.shape[1], wanted)
            seen[done:end] = to_uint8(piece[:, :end - done])
            last = (piece if last is None else torch.cat((last, piece), 1))[:, -self.shared:]    # (3, ≤ shared, H, W)
            done += piece.shape[1]
            if done >= wanted:
                break  # the shot ends here: what follows would be thrown away
        if last is None:
            raise BadInputError("nothing came out of the codec", where=f"chunk {span.index}")
        return seen[span.context:], finite(last, span)

    def made(self, span: ChunkSpan) -> NDArray[np.float32] | None:
        """How much of the new frames' pixels is made anew, (F, H, W); None: all."""
        free, end = self._free(span), self._shot.frames - span.start
        return None if free is None else visible(free)[span.context:end].numpy()

    def follow(
        self,
        span: ChunkSpan,
        last: Tensor,  # (3, shared, H, W) in [-1, 1]
        color: ColorStats,
    ) -> ChunkState:
        """The state after a chunk that ended with the frames `last`."""
        reference, context, frame = self._settings.reference, None, None
        if span.index + 1 < len(self.spans):
            if reference.carries:
                context = self._networks.codec.encode(last).float().cpu()        # (C, Tc, h, w)
            if reference.follows:
                frame = torch.from_numpy(to_uint8(last[:, -1:])[0]).permute(2, 0, 1).contiguous()  # (3, H, W)
        return ChunkState(span.index + 1, self.fingerprint, color, context, frame)

    def _source(self, span: ChunkSpan) -> Tensor:
        """The source in a chunk's place → (C, T, h, w)."""
        return self._networks.codec.encode(self._pixels(span))

    def _pixels(self, span: ChunkSpan) -> Tensor:
        """Source pictures of a chunk → (3, F, H, W); past the shot's end its last picture stands still."""
        return self._filmed.get(span, lambda: torch.stack(
            [self._picture(span.start + at) for at in range(span.frames)], 1))

    def _free(self, span: ChunkSpan) -> Tensor | None:
        """Cells of a chunk that are made anew, (T, h, w) bool; None: all."""
        region, last = self._shot.region, self._shot.frames - 1
        if region is None:
            return None
        return self._cells.get(span, lambda: cells(torch.tensor(
            [region(min(span.start + at, last)) for at in range(span.frames)]), self._shot.size))

    def _kept(self, span: ChunkSpan) -> Kept | None:
        """What of the source stays in a chunk."""
        free = self._free(span)
        if free is None:
            return None
        latent = self._networks.codec.encode(hide(self._pixels(span), free))     # (C, T, h, w)
        free = torch.cat((torch.ones_like(free[:1]), free[1:]))  # in the first one the reference lies
        return Kept(latent.to(self._networks.device), free[None].to(self._networks.device))

    def _picture(self, index: int) -> Tensor:
        picture: Tensor = self._clamped(min(max(index, 0), self._shot.frames - 1))
        if tuple(picture.shape) != (3, *self._shot.size):
            raise BadInputError(f"picture {index} has shape {tuple(picture.shape)}", where="shot",
                                hint=f"Give (3, {self._shot.size[0]}, {self._shot.size[1]})")
        return picture


def finite(
    made: Tensor,  # of any shape
    span: ChunkSpan,
) -> Tensor:
    """What was made of a chunk, once it is certain that it is numbers: as bytes, all else would be black.

    Raises:
        BadResultError: It is not.
    """
    if not torch.isfinite(made).all():
        raise BadResultError("the network gave numbers that are not finite", where=f"chunk {span.index}",
                             hint="Verify the weights with `infinidub models verify`; with fp8, use bf16 instead")
    return made


def fingerprint(shot: Shot, settings: StreamSettings) -> bytes:
    """SHA-256 of what a state belongs to: settings, length, size, seed and number of persons."""
    boxes = shot.region and [shot.region(index) for index in range(shot.frames)]
    told = (settings, shot.frames, tuple(shot.size), shot.seed, shot.audio.persons, *([boxes] if boxes else []))
    return hashlib.sha256(repr(told).encode()).digest()
