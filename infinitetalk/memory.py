"""What a job needs of a device's memory, by formula, and which profile fits; asked before anything is allocated.

    resident   all blocks on the device in the network's own type
    fp8        all blocks on the device, their matrices in fp8
    offload    blocks in host memory, as many on the device as fit; two places for those that visit

Nothing here was fitted to a card: weights are counted, and the largest moment of a forward and of the autoencoder is
that of a walk through their operations at full size with live tensors counted. `RESERVE` is for what libraries take.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from infinitetalk.config import TransformerConfig
from infinitetalk.errors import BadInputError, TooLargeError
from infinitetalk.shapes import PixelShape

PROFILES = ("resident", "fp8", "offload")
DECODE = 19_600
"""Bytes per pixel while the published autoencoder decodes a latent frame, in float32; encoding takes less."""
RESERVE = 2 * 1024**3
"""Bytes for the context, the workspaces of cuBLAS and cuDNN, and gaps between allocations."""
SCALE = 4
"""Bytes of an output channel's scale in fp8."""
SLOTS = 2
"""Blocks that visit the device at once."""
ROLES = 3
"""Passes of a step whose residual TeaCache may keep."""
STANDARD = PixelShape(81, 480, 832)
GB = 1e9


@dataclass(frozen=True)
class Companions:
    """Bytes of the other networks; those of the published ones in the types that they run in."""

    text: int = 2 * 5_680_910_336
    vision: int = 2 * 611_088_640
    """Without its last layer and projection, which are not used."""
    codec: int = 4 * 126_892_531
    audio: int = 4 * 94_371_712


PUBLISHED = Companions()


@dataclass(frozen=True)
class Residence:
    """Where the networks are to lie."""

    profile: str
    """One of `PROFILES`."""
    blocks_resident: int
    """Blocks that stay on the device; the others visit it."""
    text_resident: bool
    """Whether the text encoder lies on the device, or computes where host memory is."""
    needed_bytes: int
    """At the largest moment."""


@dataclass(frozen=True)
class Needs:
    """Bytes on the device at the largest moment of a job, by what they are for."""

    blocks: int
    rest: int
    """The transformer without its blocks."""
    companions: int
    """Image, audio and video encoders, and the text encoder if it is on the device."""
    keys_values: int
    """Of text, image and audio tokens, kept from step to step."""
    work: int
    """The largest of a forward, an encoding and a decoding."""
    reserve: int = RESERVE

    @property
    def total(self) -> int:
        """All of it."""
        return self.blocks + self.rest + self.companions + self.keys_values + self.work + self.reserve


def block_bytes(config: TransformerConfig, dtype: torch.dtype = torch.bfloat16, *, fp8: bool = False) -> int:
    """Weights of one block."""
    dim, ffn = config.dim, config.ffn_dim
    matrices = 12 * dim**2 + 2 * dim * ffn + 2 * dim * config.audio_dim
    outputs = 15 * dim + ffn  # 12 square layers, those of the feed-forward, keys and values of audio
    vectors = outputs + 6 * dim + 4 * dim + 5 * dim  # biases, modulation, two affine norms, five norms of heads
    size: int = dtype.itemsize
    return matrices + SCALE * outputs + size * vectors if fp8 else size * (matrices + vectors)


def rest_bytes(config: TransformerConfig, dtype: torch.dtype = torch.bfloat16) -> int:
    """Weights of the transformer that are in no block."""
    c, dim, hidden, clip = config, config.dim, config.audio_hidden, config.clip_dim
    frame = c.audio_layers * c.audio_channels
    into_out = [(4 * c.in_dim, dim), (c.text_dim, dim), (dim, dim), (c.freq_dim, dim), (dim, dim), (dim, 6 * dim),
                (clip, clip), (clip, dim), (dim, 4 * c.out_dim),
                (c.audio_window * frame, hidden), ((c.audio_window + 3) * frame, hidden), (hidden, hidden),
                (hidden, c.audio_tokens * c.audio_dim)]
    norms = 2 * clip + 2 * dim + 2 * c.audio_dim
    total: int = dtype.itemsize * (sum(into * out + out for into, out in into_out) + norms + 2 * dim)
    return total


def keys_values_bytes(config: TransformerConfig, size: PixelShape, persons: int = 2,
                      dtype: torch.dtype = torch.bfloat16) -> int:
    """Keys and values that all passes of a step keep: two prompts, one image, the speakers' audio and nobody's."""
    audio = size.latent.frames * config.audio_tokens * (persons + 1)
    tokens = 2 * config.text_len + config.clip_tokens + audio
    total: int = config.num_layers * tokens * 2 * config.dim * dtype.itemsize
    return total


def forward_bytes(config: TransformerConfig, size: PixelShape, dtype: torch.dtype = torch.bfloat16) -> int:
    """Activations at the largest moment of one forward."""
    narrow: int = dtype.itemsize
    tokens, dim = size.latent.tokens, config.dim
    turning = 6 * narrow + 3 * 4  # queries and keys are turned in float32
    feeding = 5 * narrow + 2 * narrow * config.ffn_dim / dim
    latents, angles = 16 * (config.in_dim + 4), 4 * config.head_dim
    timestep = 24 * dim**2 * (narrow < 4) + 4 * tokens * dim  # its projection computes in float32
    return max(tokens * (int(dim * max(turning, feeding)) + latents + angles), timestep) + 100 * dim


def coding_bytes(size: PixelShape, companions: Companions = PUBLISHED) -> int:
    """Activations at the largest moment of the autoencoder; they go by its width, its weights by the square of that."""
    per_pixel = DECODE * math.sqrt(companions.codec / PUBLISHED.codec) + 100  # pixels and latents have no width
    return int(per_pixel * size.height * size.width)


def work_bytes(config: TransformerConfig, size: PixelShape, dtype: torch.dtype = torch.bfloat16,
               companions: Companions = PUBLISHED) -> int:
    """The largest moment of a chunk, weights and kept keys and values apart."""
    pixels = size.height * size.width
    clip, latent = 4 * 3 * size.frames * pixels, 4 * 64 * size.latent.tokens
    residuals: int = ROLES * size.latent.tokens * config.dim * dtype.itemsize
    coding = coding_bytes(size, companions)
    return max(forward_bytes(config, size, dtype) + residuals, coding) + clip + 8 * latent


def needs(profile: str, size: PixelShape, config: TransformerConfig, *, blocks_resident: int | None = None,
          text_resident: bool = True, persons: int = 2, companions: Companions = PUBLISHED,
          dtype: torch.dtype = torch.bfloat16) -> Needs:
    """Device memory of a profile.

    Args:
        profile: One of `PROFILES`.
        size: A chunk.
        config: Sizes of the transformer.
        blocks_resident: With "offload", the blocks that stay; elsewhere all do.
        text_resident: Whether the text encoder is on the device.
        persons: Speakers at once.
        companions: Bytes of the other networks.
        dtype: Of the transformer.
    """
    here = config.num_layers
    if profile == "offload":
        stay = blocks_resident or 0
        here = stay + min(SLOTS, config.num_layers - stay)
    other = companions.vision + companions.codec + companions.audio + (companions.text if text_resident else 0)
    return Needs(blocks=here * block_bytes(config, dtype, fp8=profile == "fp8"), rest=rest_bytes(config, dtype),
                 companions=other, keys_values=keys_values_bytes(config, size, persons, dtype),
                 work=work_bytes(config, size, dtype, companions))


def choose(free_bytes: int, size: PixelShape = STANDARD, config: TransformerConfig | None = None,
           wanted: str = "auto", *, persons: int = 2, companions: Companions = PUBLISHED,
           dtype: torch.dtype = torch.bfloat16) -> Residence:
    """Where the networks are to lie so that chunks of a size fit.

    Args:
        free_bytes: What is free on the device before anything is loaded (`free_memory`).
        size: The largest chunk to be dubbed.
        config: Sizes of the transformer; None: the published ones.
        wanted: One of `PROFILES`, or "auto": resident, else offload; fp8 rounds, so that it is used only if asked for.
        persons: Speakers at once.
        companions: Bytes of the other networks.
        dtype: Of the transformer.

    Raises:
        BadInputError: There is no such profile.
        TooLargeError: It does not fit; what would is said.
    """
    if wanted not in (*PROFILES, "auto"):
        raise BadInputError(f"there is no profile {wanted!r}", where="memory", hint=f"Use auto, {', '.join(PROFILES)}")
    ask = _Ask(config or TransformerConfig(), persons, companions, dtype)
    profiles = ("resident", "offload") if wanted == "auto" else (wanted,)
    candidates = [candidate for profile in profiles for candidate in ask.candidates(profile, size)]
    found = next((one for one in candidates if one.needed_bytes <= free_bytes), None)
    if found is None:
        least = min(candidates, key=lambda one: one.needed_bytes)
        raise TooLargeError(
            f"chunks of {size.frames} frames at {size.width}×{size.height} need {least.needed_bytes / GB:.1f} GB "
            f"({least.profile}), and {free_bytes / GB:.1f} GB are free", where="memory",
            hint=ask.advice(free_bytes, size, profiles))
    return found


@dataclass(frozen=True)
class _Ask:
    """What does not change between candidates."""

    config: TransformerConfig
    persons: int
    companions: Companions
    dtype: torch.dtype

    def candidates(self, profile: str, size: PixelShape) -> list[Residence]:
        """Ways to live by a profile, best first."""
        layers = self.config.num_layers
        if profile == "offload":
            # one block fewer than all never helps: the two places for visitors would take more than it gives
            counts = range(max(0, layers - SLOTS - 1), -1, -1)
            return [self._residence(profile, size, count, text_resident=False) for count in counts]
        return [self._residence(profile, size, layers, text_resident=text) for text in (True, False)]

    def _residence(self, profile: str, size: PixelShape, blocks: int, *, text_resident: bool) -> Residence:
        total = needs(profile, size, self.config, blocks_resident=blocks, text_resident=text_resident,
                      persons=self.persons, companions=self.companions, dtype=self.dtype).total
        return Residence(profile, blocks, text_resident, total)

    def advice(self, free_bytes: int, size: PixelShape, tried: tuple[str, ...]) -> str:
        """What would fit."""
        def fits(profile: str, at: PixelShape) -> bool:
            return any(one.needed_bytes <= free_bytes for one in self.candidates(profile, at))

        ways = [f"memory profile {profile}" for profile in PROFILES if profile not in tried and fits(profile, size)]
        smaller = size
        while smaller.height * smaller.width > 4096 and not any(fits(profile, smaller) for profile in PROFILES):
            smaller = PixelShape(size.frames, *(max(16, side * 3 // 4 // 16 * 16) for side in smaller[1:]))
        if smaller != size and any(fits(profile, smaller) for profile in PROFILES):
            ways.append(f"a size up to about {smaller.width}×{smaller.height}")
        return f"Use {' or '.join(ways)}" if ways else "Free memory on the device, or use a larger one"


def must_fit(free_bytes: int, size: PixelShape, config: TransformerConfig, persons: int = 2,
             dtype: torch.dtype = torch.bfloat16) -> None:
    """Refuse a take that a loaded engine cannot make.

    Args:
        free_bytes: What is free with the networks in place.
        size: A chunk of the take.
        config: Sizes of the transformer.
        persons: Speakers at once.
        dtype: Of the transformer.

    Raises:
        TooLargeError: It needs more.
    """
    needed = work_bytes(config, size, dtype) + keys_values_bytes(config, size, persons, dtype)
    if needed > free_bytes:
        raise TooLargeError(f"chunks of {size.frames} frames at {size.width}×{size.height} need {needed / GB:.1f} GB "
                            f"besides the networks, and {free_bytes / GB:.1f} GB are free", where="memory",
                            hint="Dub at a smaller size, or load the engine with memory profile offload")


def host_bytes(residence: Residence, config: TransformerConfig, companions: Companions = PUBLISHED,
               dtype: torch.dtype = torch.bfloat16) -> int:
    """Host memory beside a GPU: a transformer that is not loaded straight to the device lies there whole at first."""
    block = block_bytes(config, dtype)
    whole = rest_bytes(config, dtype) + (config.num_layers + 1) * block  # a block that becomes a visitor is there twice
    return (0 if residence.profile == "resident" else whole) + (0 if residence.text_resident else companions.text)


def host_must_hold(free_bytes: int, residence: Residence, config: TransformerConfig,
                   companions: Companions = PUBLISHED, dtype: torch.dtype = torch.bfloat16) -> None:
    """Refuse what does not fit into host memory.

    Args:
        free_bytes: What is free there before anything is loaded.
        residence: What was chosen by the device's memory.
        config: Sizes of the transformer.
        companions: Bytes of the other networks.
        dtype: Of the transformer.

    Raises:
        TooLargeError: It needs more.
    """
    needed = host_bytes(residence, config, companions, dtype)
    if needed > free_bytes:
        raise TooLargeError(f"memory profile {residence.profile} needs {needed / GB:.1f} GB of host memory, and "
                            f"{free_bytes / GB:.1f} GB are free", where="memory",
                            hint="Free host memory, or use a machine with more of it, or a larger GPU")


def free_memory(device: torch.device | str) -> int:
    """Bytes that can be allocated on a device now; on the CPU, host memory."""
    device = torch.device(device)
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        kept: int = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    return _host_memory(Path("/proc/meminfo"), Path("/sys/fs/cgroup"))


def _host_memory(meminfo: Path, group: Path) -> int:
    """What is available, within the limit of the container."""
    try:
        fields = dict(line.split(":", 1) for line in meminfo.read_text(encoding="ascii").splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # no Linux
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        return free if limit == "max" else max(0, min(free, int(limit) - int(used)))
    except (OSError, ValueError):  # no container, or one of another kind
        return free
