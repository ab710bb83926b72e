"""Generator: InfiniteTalk on Wan2.1-I2V-14B, whose parts live in the package `infinitetalk`.

*Who is driven.* Of those who are heard and whose face is seen (`infinitetalk_cast` says how they are matched), weights
for two speakers (`…-multi`) drive the two loudest, and keep the mouths of all others shut. Weights for one drive the
loudest, and cannot tell mouths apart: region `person` keeps bystanders as they are. So no shot fails for its cast;
whoever else is heard speaks as if off-screen.

*Where.* The generator works at the number of pixels that it was trained at, for small sources too: it knows no other,
and assemble scales what comes out. Source pictures are scaled to the generated size in both directions, so that every
pixel falls back on its own place. Region `person` is a rectangle around the heads of those who speak, the same for the
whole shot.

*What enters recipes.* fp8 does, since it makes other pictures (`precision`); where the weights lie and which exact
kernels compute it do not (`memory`, `attention`, `compiled`, `device`): these differ in rounding alone, as two GPUs do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from models.engines.infinitetalk_cast import Box, around, cast, cut_out, loudest, region_of
from models.engines.options import Adapter, read_options
from models.errors import CapacityError, EngineError, InfrastructureError, InputError, SetupError
from models.ports import Chunk, ChunkGeometry, EngineHome, ShotInput
from models.records import EngineRef, Placement, Record, Scalar, ShotRequest
from models.timebase import generation_divisor

if TYPE_CHECKING:
    from infinitetalk.engine import Engine, Take
    from infinitetalk.sampling import Sampling
    from infinitetalk.stream import StreamSettings

LIBRARIES = ("torch", "diffusers", "transformers", "safetensors", "PIL", "ftfy")
CONTEXT = 9
"""Frames that a chunk repeats of the one before."""
PROFILES = {"default": "best"}
"""Our name → the engine's, where they differ."""
DISTILLED = ("fast-8", "fast-4")
"""Profiles that stand on a LoRA."""


class InfiniteTalkOptions(Record):
    """What may be set."""

    weights: Literal["infinitetalk-480p", "infinitetalk-480p-multi", "infinitetalk-720p", "infinitetalk-720p-multi"] = \
        "infinitetalk-480p"
    """Names in models.lock; those with `-multi` tell two speakers apart, and take a second download."""
    precision: Literal["bf16", "fp8"] = "bf16"
    """fp8: half the memory, other pictures."""
    lora: str = ""
    """Name in models.lock of the LoRA that the fast profiles stand on, e.g. lightx2v-i2v-480p."""
    area: int = Field(0, ge=0)
    """Pixels of a generated frame; 0: what the weights were trained at."""
    chunk: int = Field(81, ge=CONTEXT + 4)
    """Frames of a chunk, 4k + 1. Fewer need less memory, and are not what it was trained on."""
    steps: int = Field(0, ge=0)
    """Over the profile's; 0: as it says."""
    color: float = Field(1.0, ge=0, le=1)
    """How much colours are held to those of the shot's first picture."""
    memory: Literal["auto", "resident", "offload"] = "auto"
    """Whether all weights lie on the GPU, or visit it block by block."""
    attention: Literal["auto", "sdpa", "cudnn", "flash2", "flash3"] = "auto"
    """The exact kernel that computes attention; those that round to 8 bits are not offered."""
    compiled: bool = False
    """Compile the network for this GPU: a minute or two at the first shot, faster from then on."""
    device: str = "auto"
    """'auto': the machine's `device`, where that is a GPU, else a GPU if there is one."""

    @model_validator(mode="after")
    def _whole(self) -> InfiniteTalkOptions:
        if self.chunk % 4 != 1:
            raise ValueError(f"chunk is {self.chunk}, and must be 4k + 1: 81, 49 …")
        if self.precision == "fp8" and self.memory == "offload":
            raise ValueError("memory is offload and precision is fp8: weights in fp8 lie on the GPU. Set one of them")
        return self

    @property
    def size(self) -> Literal["480", "720"]:
        """Size class of the weights."""
        return "720" if "-720p" in self.weights else "480"


class InfiniteTalk(Adapter):
    """Sparse-frame video dubbing (arXiv 2508.14033)."""

    OPTIONS: ClassVar[type[Record]] = InfiniteTalkOptions
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"memory", "attention", "compiled", "device"})

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        self._options = read_options(InfiniteTalkOptions, ref.name, ref.options, home.connection)
        self._home = home
        self._loaded: tuple[bool, Engine] | None = None
        self.geometry = ChunkGeometry(self._options.chunk, CONTEXT)

    @classmethod
    def required_weights(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Base, overlay, companions, speech encoder; and the LoRA where one is set.

        Setting `lora` changes every recipe of this generator, those of profiles that run without it too.
        """
        read = read_options(InfiniteTalkOptions, "infinitetalk", options)
        base, overlay = f"wan-i2v-{read.size}p", "multi" if read.weights.endswith("-multi") else "single"
        return (base, "wan-companions", f"infinitetalk-{overlay}", "chinese-wav2vec2-base",
                *filter(None, [read.lora]))

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """Libraries, or the GPU that is asked for."""
        absent = [name for name in LIBRARIES if find_spec(name) is None]
        if absent:
            return f"the libraries {', '.join(absent)} are missing. Install them: pip install 'infinidub[infinitetalk]'"
        if str(options.get("device", "")).startswith("cuda") and not any(Path("/dev").glob("nvidia[0-9]*")):
            return "there is no CUDA GPU here. Take it out of the settings: options.infinitetalk.device"
        return ""

    # -- where --------------------------------------------------------------------------------------------------------

    def placement(self, request: ShotRequest) -> tuple[int, int, Placement]:
        """Size of the generated frames, and the part of the source that they stand for.

        Raises:
            InputError: The request's profile or reference is not one that shots are dubbed with.
            SetupError: The profile stands on a LoRA, and none is set.
        """
        self._check(request)
        return _placed(self._options, request)

    def _check(self, request: ShotRequest) -> None:
        where = f"generator {request.generator.name}"
        if request.reference not in {"source", "image"}:
            raise InputError(f"the reference {request.reference!r} is for comparison, not for dubbing", where=where,
                             hint="Take 'source' or 'image'; `infinidub generate` knows all of them")
        if request.profile in DISTILLED and not self._options.lora:
            raise SetupError(f"the profile {request.profile} stands on a distilled LoRA, and none is set", where=where,
                             hint="Set options.infinitetalk.lora = \"lightx2v-i2v-480p\" in infinidub.toml, and get it"
                                  " with: infinidub models pull lightx2v-i2v-480p")
        with told():  # a profile that there is not
            self._settings(request)

    # -- making it ----------------------------------------------------------------------------------------------------

    def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
        """Dub the shot (see `models.ports.Generator`).

        Raises:
            InputError: The state belongs to another shot, or something of the request cannot be used.
            SetupError: The weights are damaged, or need more memory than there is.
            EngineError: The network gave numbers that are not finite.
            InfrastructureError: The GPU's memory was full.
        """
        from infinitetalk.state import ChunkState

        self._check(shot.request)
        with told():
            before = None if state is None else ChunkState.load(state)
            engine = self._engine(distilled=shot.request.profile in DISTILLED)
            for chunk in engine.dub(self._take(shot), self._settings(shot.request), before):
                yield Chunk(index=chunk.index, frames=chunk.frames, state=chunk.state.save())

    def _settings(self, request: ShotRequest) -> StreamSettings:
        from infinitetalk.plan import ChunkSize
        from infinitetalk.reference import Image as StillReference
        from infinitetalk.reference import Source
        from infinitetalk.stream import StreamSettings

        return StreamSettings(
            size=ChunkSize(self._options.chunk, CONTEXT), color=self._options.color,
            sampling=_sampling(self._options.size, request.profile, self._options.steps),
            reference=Source() if request.reference == "source" else StillReference())

    def _take(self, shot: ShotInput) -> Take:
        from infinitetalk.engine import Speaker, Take

        request = shot.request
        width, height, place = self.placement(request)
        driven, bystanders = self._persons(shot, place, (width, height))
        speakers = tuple(Speaker(shot.tracks[name], region) for name, region in driven.items())
        return Take(frame=lambda index: cut_out(shot.frame(index), place, (width, height)),
                    frames=request.generated_frames, rate=request.rate / generation_divisor(request.rate),
                    size=(height, width), speakers=speakers, bystanders=bystanders, prompt=request.prompt,
                    seed=request.seed)

    def _persons(self, shot: ShotInput, place: Placement, size: tuple[int, int]) -> tuple[dict[str, Box | None],
                                                                                          tuple[Box, ...]]:
        """Those who are driven with their regions, and the regions of those who are only seen."""
        faces, regions = cast(shot.request), [region_of(face, place, size) for face in shot.faces]
        seen = {name: region for name, face in faces.items() if face is not None and (region := regions[face])}
        visible = {name: samples for name, samples in shot.tracks.items() if name in seen} or shot.tracks
        if not seen or not self._options.weights.endswith("-multi"):
            return dict.fromkeys(loudest(visible, 1)), ()
        driven = loudest(visible, 2)
        own = {faces[name] for name in driven}
        return ({name: seen[name] for name in driven},
                tuple(region for face, region in enumerate(regions) if region and face not in own))

    def load(self, request: ShotRequest) -> None:
        """Load the networks."""
        with told():
            self._engine(distilled=request.profile in DISTILLED)

    def _engine(self, *, distilled: bool) -> Engine:
        """The loaded engine; one at a time, since it fills a GPU."""
        if self._loaded is None or self._loaded[0] != distilled:
            self._loaded = None
            self._loaded = distilled, self._load(distilled=distilled)
        return self._loaded[1]

    def _device(self) -> str:
        import torch

        device = self._options.device if self._options.device != "auto" else self._home.device
        return "cuda" if device == "cpu" and self._options.device == "auto" and torch.cuda.is_available() else device

    def _load(self, *, distilled: bool) -> Engine:
        import torch

        from infinitetalk.engine import load
        from models.engines.infinitetalk_files import stored_files

        device = self._device()
        if device.startswith("cuda") and not torch.cuda.is_available():
            raise SetupError(f"the device is {device}, and torch finds no CUDA GPU", where="generator infinitetalk",
                             hint="Install the driver, or a torch that is built for it")
        if device == "cpu":
            torch.set_num_threads(self._home.threads)
        lora = [(self._home.weights(self._options.lora) / "lora.safetensors", 1.0)] if distilled else []
        files = stored_files(self._options.weights, self._home.weights)
        return load(files, device=device, memory=self._memory, size=_size(self._options, 16, 9)[::-1],
                    frames=self._options.chunk, attention=self._options.attention, compiled=self._options.compiled,
                    loras=lora)

    @property
    def _memory(self) -> str:
        """The engine's profile of memory."""
        return "fp8" if self._options.precision == "fp8" else self._options.memory

    # -- beforehand ---------------------------------------------------------------------------------------------------

    @classmethod
    def gpu_seconds(cls, request: ShotRequest) -> float:
        """By its operations, at the speed that the best published implementations reach on one H100 or H200.

        What TeaCache and fp8 save, and what another card takes, is left to what past runs teach.

        Raises:
            InputError: There is no such profile.
        """
        options = _read(request.generator.name, tuple(request.generator.options.items()))
        multi = options.weights.endswith("-multi")
        persons = 2 if multi and sum(face is not None for face in cast(request).values()) > 1 else 1
        width, height, _ = _placed(options, request)
        with told():
            return _seconds(request.generated_frames, (height, width), options.chunk, options.size, request.profile,
                            options.steps, persons, request.reference == "source")

    def check_memory(self) -> None:
        """See that the published networks and a chunk fit into what is free on the GPU; on a CPU, nothing.

        Raises:
            CapacityError: They would, were nothing else there.
            SetupError: They never will.
        """
        import torch

        from infinitetalk.errors import TooLargeError
        from infinitetalk.memory import choose, free_memory
        from infinitetalk.shapes import PixelShape

        device = self._device()
        if not device.startswith("cuda") or not torch.cuda.is_available():
            return  # a GPU that is not there is told where the engine is loaded
        chunk = PixelShape(self._options.chunk, *_size(self._options, 16, 9)[::-1])
        persons = 2 if self._options.weights.endswith("-multi") else 1
        whole = torch.cuda.get_device_properties(device).total_memory
        with told():
            choose(whole, chunk, wanted=self._memory, persons=persons)
        try:
            choose(free_memory(device), chunk, wanted=self._memory, persons=persons)
        except TooLargeError as error:
            raise CapacityError(error.what, where="generator infinitetalk",
                                hint="Something else runs on this GPU: end it, or wait for it") from error


@lru_cache(maxsize=64)
def _read(name: str, options: tuple[tuple[str, Scalar], ...]) -> InfiniteTalkOptions:
    """Options, read once for the many shots that name the same."""
    return read_options(InfiniteTalkOptions, name, dict(options))


def _size(options: InfiniteTalkOptions, width: int, height: int) -> tuple[int, int]:
    """(width, height) that a part of the source is generated at."""
    from infinitetalk.pictures import AREAS, dubbing_size

    return dubbing_size(width, height, options.area or AREAS[options.size])


def _placed(options: InfiniteTalkOptions, request: ShotRequest) -> tuple[int, int, Placement]:
    place = Placement(x=0, y=0, width=request.width, height=request.height)
    if request.region == "person":
        speaking = [request.faces[face] for face in cast(request).values() if face is not None]
        place = around(speaking, request.width, request.height)  # the whole frame, where nobody is seen
    return *_size(options, place.width, place.height), place


def _sampling(size: str, profile: str, steps: int) -> Sampling:
    from infinitetalk.sampling import preset

    sampling = preset(PROFILES.get(profile, profile), size)
    return replace(sampling, steps=steps or sampling.steps)


@lru_cache(maxsize=4096)
def _seconds(frames: int, size: tuple[int, int], chunk: int, size_class: str, profile: str, steps: int, persons: int,
             new_references: bool) -> float:
    """GPU seconds of a shot of `frames` at (H, W)."""
    from infinitetalk.config import TransformerConfig
    from infinitetalk.flops import shot_work
    from infinitetalk.plan import ChunkSize, plan

    sampling = _sampling(size_class, profile, steps)
    return shot_work(TransformerConfig(), plan(frames, ChunkSize(chunk, CONTEXT)), size, steps=sampling.steps,
                     passes=len(sampling.guidance.passes), persons=persons, new_references=new_references).seconds()


@contextmanager
def told() -> Iterator[None]:
    """Errors of the engine as those of the house."""
    from infinitetalk.errors import BadInputError, BadResultError, InfiniteTalkError

    try:
        yield
    except BadInputError as error:
        raise InputError(error.what, where=error.where, hint=error.hint) from error
    except BadResultError as error:
        raise EngineError(error.what, where=error.where, hint=error.hint) from error
    except InfiniteTalkError as error:
        raise SetupError(error.what, where=error.where, hint=error.hint) from error
    except RuntimeError as error:
        import torch

        if not isinstance(error, torch.OutOfMemoryError):
            raise
        torch.cuda.empty_cache()
        # No CapacityError: that there was room had been looked at, so that waiting alone may never help.
        raise InfrastructureError("the GPU's memory is full", where="generator infinitetalk",
                                  hint="Set options.infinitetalk.memory = \"offload\", or end what else runs there",
                                  ) from error
