"""The engine: loads the networks, and dubs takes of any length.

One second of speech: `Engine.dub` (here) → `audio.AudioFeatures` → `stream.stream` → `conditioning.Conditioner` →
`sampling.denoise` → `transformer.Transformer` → `vae.WanCodec` → frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infinitetalk.attention import choose as choose_attention
from infinitetalk.audio import SAMPLE_RATE, AudioEncoder, AudioFeatures, windows
from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.files import (
    Files,
    load_audio,
    load_codec,
    load_text,
    load_transformer,
    load_vision,
    transformer_config,
)
from infinitetalk.lora import merge_lora
from infinitetalk.memory import PUBLISHED, Companions, choose, free_memory, host_must_hold, must_fit
from infinitetalk.networks import Networks
from infinitetalk.offload import BlockOffload
from infinitetalk.persons import Region, assign
from infinitetalk.pictures import AREAS, dubbing_size, fit
from infinitetalk.plan import ChunkSize
from infinitetalk.quant import quantise
from infinitetalk.sampling import Progress, unwatched
from infinitetalk.shapes import PixelShape
from infinitetalk.shot import Box, check_grid
from infinitetalk.state import ChunkState
from infinitetalk.stream import GeneratedChunk, Shot, StreamSettings, stream
from infinitetalk.text import NEGATIVE_PROMPT, TextEncoder
from infinitetalk.weights import PULL, open_tensors

PROMPTS_KEPT = 8
"""States of the latest prompts: a series has few, and the text encoder is large."""


@dataclass(frozen=True, eq=False)
class Speaker:
    """One who is heard."""

    samples: NDArray[np.float32]  # (M,) at 16 kHz, as long as the take
    """Speech about as loud as −23 LUFS; digital silence where he is silent."""
    region: Region | None = None
    """Where he is in the source picture: a box (x, y, width, height) in pixels, or a mask (H, W)."""


@dataclass(frozen=True, eq=False)
class Take:
    """What is to be dubbed: consecutive pictures without a cut, and what is said in them."""

    frame: Callable[[int], NDArray[np.uint8]]
    """Source picture (H, W, 3), RGB, by its index in the take, 0 to frames - 1."""
    frames: int
    rate: Fraction
    """Frames per second."""
    size: tuple[int, int]
    """(H, W) to generate, multiples of 16."""
    speakers: tuple[Speaker, ...]
    bystanders: tuple[Region, ...] = ()
    """Where those are who are seen and not heard."""
    prompt: str = ""
    negative: str = ""
    """What the picture must not be; empty: `text.NEGATIVE_PROMPT`."""
    seed: int = 0
    region: Callable[[int], Box] | None = None
    """See `Shot.region`. For networks that were trained so."""


class SpeakerAudio:
    """What the transformer hears of each person of a take."""

    def __init__(self, persons: Sequence[AudioFeatures], frames: int) -> None:
        self._persons, self._last = persons, frames - 1

    @property
    def persons(self) -> int:
        """P."""
        return len(self._persons)

    def windows(self, start: int, frames: int) -> Tensor:
        """The audio around frames [start, start + frames): (P, F, 5, L, C)."""
        return torch.stack([windows(one.at, start, frames, self._last) for one in self._persons])


class Engine:
    """All networks of one set of weights, on one device."""

    def __init__(self, networks: Networks, text: TextEncoder, audio: AudioEncoder, *, persons: int = 2) -> None:
        """Take networks that are loaded; `load` loads them from files.

        Args:
            networks: What makes pixels.
            text: Reads prompts, on whatever device it lies: each is read once.
            audio: Hears speech.
            persons: How many the weights can tell apart: 2 for the variant `multi`, else 1.
        """
        self.networks, self.text, self.audio, self.persons = networks, text, audio, persons
        self._prompts: dict[str, Tensor] = {}

    def dub(self, take: Take, settings: StreamSettings, state: ChunkState | None = None, *,
            progress: Progress = unwatched) -> Iterator[GeneratedChunk]:
        """Generate a take, chunk by chunk.

        Args:
            take: What is to be dubbed.
            settings: How.
            state: Of the last chunk that an earlier, cut-off call gave; None: from the beginning.
            progress: Told after each step of a chunk how many are done, and how many the chunk has.

        Returns:
            The chunks that are left, each made when it is asked for; their frames together are the take's, exactly.

        Raises:
            BadInputError: The take, or the state, cannot be used; nothing was generated.
            TooLargeError: Its chunks do not fit into the device's memory.
            BadResultError: While a chunk is made: a network gave numbers that are not finite.
        """
        transformer, device = self.networks.transformer, self.networks.device
        shot = self.shot(take, settings)
        must_fit(free_memory(device), PixelShape(settings.size.frames, *take.size), transformer.config,
                 shot.audio.persons, transformer.dtype)
        return stream(self.networks, shot, settings, state, progress=progress)

    def shot(self, take: Take, settings: StreamSettings) -> Shot:
        """The take as the networks see and hear it."""
        check_grid(take.size)
        source = take.frame(0).shape
        regions = [one.region for one in take.speakers]
        cast = assign(regions, take.bystanders, (source[0], source[1]), take.size)
        if len(cast.voices) > self.persons:
            raise BadInputError("these weights cannot tell two persons apart", where="speakers",
                                hint="Load the variant 'multi', or give one speaker and no bystanders")
        heard = [self._heard(take, voice) for voice in cast.voices]
        told = not all(which.text for which in settings.sampling.guidance.passes)
        return Shot(frame=lambda index: fit(take.frame(index), take.size), frames=take.frames, size=take.size,
                    audio=SpeakerAudio(heard, take.frames), text=self._states(take.prompt), masks=cast.masks,
                    negative=self._states(take.negative or NEGATIVE_PROMPT) if told else None, seed=take.seed,
                    region=take.region)

    def _heard(self, take: Take, voice: int | None) -> AudioFeatures:
        silence = np.zeros(0, np.float32)
        samples = silence if voice is None else take.speakers[voice].samples
        wanted = round(take.frames / take.rate * SAMPLE_RATE)
        if voice is not None:
            _check_samples(samples, f"speaker {voice + 1}")
        if voice is not None and abs(len(samples) - wanted) * take.rate > SAMPLE_RATE:
            raise BadInputError(f"{len(samples)} samples for {take.frames} frames at {take.rate} per second",
                                where=f"speaker {voice + 1}", hint=f"Give {wanted} samples, at {SAMPLE_RATE} Hz")
        return AudioFeatures(self.audio, samples, Fraction(take.rate), take.frames)

    def _states(self, prompt: str) -> Tensor:
        """States of a prompt, (k, text_dim); those of the latest are kept."""
        if prompt not in self._prompts:
            states = self.text(prompt)  # (k, text_dim)
            while len(self._prompts) >= PROMPTS_KEPT:
                self._prompts.pop(next(iter(self._prompts)))
            self._prompts[prompt] = states
        return self._prompts[prompt]


def _check_samples(samples: NDArray[np.float32], where: str) -> None:
    if samples.ndim != 1 or samples.dtype != np.float32:
        raise BadInputError(f"samples of shape {samples.shape}, {samples.dtype}", where=where,
                            hint="Give (M,) float32 in [-1, 1], mono")
    if not np.isfinite(samples).all():
        raise BadInputError("samples that are no numbers (NaN or infinite)", where=where, hint="Export the sound again")


def load(files: Files, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.bfloat16,
         memory: str = "auto", size: tuple[int, int] | None = None, frames: int = ChunkSize.frames,
         attention: str = "auto", compiled: bool = False, loras: Sequence[tuple[Path, float]] = ()) -> Engine:
    """Load the engine.

    Args:
        files: Where the weights lie.
        device: Where to compute.
        dtype: Of the transformer and umT5; CLIP runs in float16 beside bfloat16, as published, and the autoencoder and
            the speech encoder stay in float32.
        memory: How the transformer is kept: a profile of `memory`, or "auto", which looks at the device.
        size: The largest (H, W) that will be generated; None: 16:9 at the area of the base.
        frames: Of a chunk; fewer need less memory.
        attention: Back end of `attention.attend`; "auto": the fastest exact one.
        compiled: Whether the blocks are compiled at their first use: a minute or two, for faster chunks after it.
        loras: Files and strengths, merged in order.

    Raises:
        BadWeightsError: A file is absent, damaged, or of another network.
        TooLargeError: It would not fit; said before anything is loaded.
        BadInputError: An unknown device, profile or back end.
    """
    _check_device(device)
    for absent in files.missing()[:1]:
        raise BadWeightsError(f"the {absent.what} is not there", where=str(absent.place), hint=PULL)
    backend = choose_attention(attention, device)
    width, height = dubbing_size(16, 9, AREAS[files.size_class])
    chunk = PixelShape(frames, *(size or (height, width)))
    config, companions = transformer_config(files), _companions(files)
    residence = choose(free_memory(device), chunk, config, memory, persons=files.persons, companions=companions,
                       dtype=dtype)
    taken = residence.needed_bytes if torch.device(device).type == "cpu" else 0
    host_must_hold(free_memory("cpu") - taken, residence, config, companions, dtype)
    transformer = load_transformer(files, dtype, device if residence.profile == "resident" else "cpu", backend)
    for path, strength in loras:
        merge_lora(transformer, {name: stored.read() for name, stored in open_tensors([path]).items()}, strength)
    if residence.profile == "fp8":
        quantise(transformer)
        transformer.to(device)
    if residence.profile == "offload":
        BlockOffload(transformer, device, residence.blocks_resident)
    if compiled:
        transformer.compile_blocks()
    half = torch.float16 if dtype == torch.bfloat16 else dtype
    networks = Networks(transformer, load_codec(files, device=device), load_vision(files, half, device))
    text = load_text(files, dtype, device if residence.text_resident else "cpu")
    return Engine(networks, text, load_audio(files), persons=files.persons)


def _check_device(device: torch.device | str) -> None:
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise BadInputError(f"{str(device)[:40]!r} is no device", where="device",
                            hint="Give cpu, cuda or cuda:N") from error
    if chosen.type == "cuda" and (chosen.index or 0) >= (count := torch.cuda.device_count()):
        raise BadInputError(f"there is no {chosen}: torch finds {count} CUDA GPUs", where="device",
                            hint="Give another, or install the driver, or a torch that is built for it")


def _companions(files: Files) -> Companions:
    """Bytes of the other networks; files may be larger, by their type or by parts that are not used."""
    return Companions(*(min(path.stat().st_size, most) for path, most in zip(
        (files.text, files.vision, files.codec, files.audio), astuple(PUBLISHED), strict=True)))
