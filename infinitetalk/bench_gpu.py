"""What the engine reaches on a GPU: one run of at most ten minutes with random weights at full size, without files.

Figures are saved after each section, so that a run which is cut off leaves what it has. Without CUDA the same sections
run on the CPU at any size; only their times mean nothing then.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from infinitetalk.attention import available
from infinitetalk.bench_device import card, clock, fresh_peak, peak, seconds_of, wait
from infinitetalk.bench_network import fill, inputs, random_network
from infinitetalk.config import TransformerConfig
from infinitetalk.errors import InfiniteTalkError
from infinitetalk.flops import forward_flops
from infinitetalk.quant import quantise
from infinitetalk.sampling import PRESETS, denoise
from infinitetalk.shapes import PixelShape
from infinitetalk.transformer import Transformer
from infinitetalk.vae import WanCodec

MODES: Mapping[str, tuple[int, int]] = {"40×3": (40, 3), "8×2": (8, 2), "4×1": (4, 1)}
"""Steps × forwards per step."""
CONTEXT, RATE = 9, 25
FEWEST = 3
FAULTS = (RuntimeError, ImportError, AttributeError, OSError, InfiniteTalkError)
"""What a card, a driver, a compiler or an older library refuses with: noted, and the next section goes on."""


@dataclass(frozen=True)
class GpuPlan:
    """What is measured."""

    device: torch.device
    config: TransformerConfig = TransformerConfig()  # noqa: RUF009 (it is frozen)
    pixels: PixelShape = PixelShape(81, 480, 832)  # noqa: RUF009
    dtype: torch.dtype = torch.bfloat16
    codec_width: int = 96
    """Channels of the VAE's first level."""
    warm_ups: int = 3
    repeats: int = 10
    seconds: float = 450.0
    """No section begins after this, and series that outlast it end with their third repeat: ten minutes in all."""
    slice_blocks: int = 2
    """Blocks that are measured instead where all do not fit."""
    compiler: str = "inductor"


def measure_gpu(plan: GpuPlan, say: Callable[[str], object] = str,
                save: Callable[[dict[str, Any]], object] = id) -> dict[str, Any]:
    """Run every section that can run here.

    Args:
        plan: What is measured.
        say: Is told which section begins.
        save: Is given the figures after each section.

    Returns:
        Plain JSON; `skipped` says what is missing, and why.
    """
    run = Run(plan)
    for name, section in run.sections().items():
        if time.monotonic() > run.deadline:
            run.figures["skipped"][name] = "no time was left"
            continue
        say(f"{name} …")
        try:
            section()
        except FAULTS as fault:
            run.figures["skipped"][name] = f"{type(fault).__name__}: {' '.join(str(fault).split())[:300]}"
        run.conclude()
        save(run.figures)
    return run.figures


class Run:
    """One measurement: the network, and the figures so far."""

    def __init__(self, plan: GpuPlan) -> None:
        self.plan = plan
        self.deadline = time.monotonic() + plan.seconds
        self.work = forward_flops(plan.config, plan.pixels.latent).steady
        self.figures: dict[str, Any] = {
            **card(plan.device), "torch": torch.__version__, "config": asdict(plan.config),
            "pixels": list(plan.pixels), "forward_flops": self.work, "forwards": {}, "codec": {}, "skipped": {}}
        self.network: Transformer | None = None

    def sections(self) -> dict[str, Callable[[], None]]:
        """Name → what runs, the most wanted first; the last one spoils the network for the others."""
        kinds = {f"attention {name}": (lambda name=name: self.eager(name)) for name in backends(self.plan.device)}
        return {"network": self.build, **kinds, "codec": self.codec, "compiled": self.compiled, "chunk": self.chunk,
                "fp8": self.fp8}

    def build(self) -> None:
        """The transformer with random weights, or a slice of it where it does not fit."""
        config, device = self.plan.config, self.plan.device
        if not fits(self.plan):
            config = replace(config, num_layers=min(self.plan.slice_blocks, config.num_layers))
        start = time.perf_counter()
        self.network = random_network(config, device, self.plan.dtype)
        self.feed(self.network)
        wait(device)
        self.figures |= {"blocks_measured": config.num_layers, "blocks": self.plan.config.num_layers,
                         "build_s": time.perf_counter() - start}

    def feed(self, network: Transformer) -> None:
        """What forwards take; the keys and values in it are made of the network's weights as they are."""
        self.given = inputs(network, network.config, self.plan.pixels.latent, self.plan.device, self.plan.dtype)

    def eager(self, name: str) -> None:
        """A forward with one kind of attention."""
        with attending(self._network(), name):
            self._forward(name)

    def compiled(self) -> None:
        """A forward with compiled blocks and the attention that was fastest without."""
        network, name = self._network(), self._best()
        with attending(network, name), compiling(network, self.plan.compiler):
            start = time.perf_counter()
            network(*self.given)
            wait(self.plan.device)
            self.figures["compile_s"] = time.perf_counter() - start
            self._forward(f"{name}, compiled")

    def fp8(self) -> None:
        """A forward with fp8 weights in the blocks, and how far its output is from the one before."""
        network, best = self._network(), self._best()
        name, _, compiled = best.partition(", ")
        with attending(network, name):
            before = network(*self.given)
            quantise(network)
            self.feed(network)
            ours = compiling(network, self.plan.compiler) if compiled else contextlib.nullcontext()
            with ours:
                after = network(*self.given)
                self._forward(f"{best}, fp8")
        noise = (after - before).norm() / before.norm()
        self.figures["fp8_snr_db"] = round(float(-20 * noise.log10()), 1)

    def codec(self) -> None:
        """The VAE both ways, in the network's type and, as the engine has it, in float32."""
        from diffusers import AutoencoderKLWan

        pixels = torch.rand(3, *self.plan.pixels, device=self.plan.device) * 2 - 1  # (3, F, H, W)
        latent = torch.randn(16, *self.plan.pixels.latent, device=self.plan.device)  # (16, T, h, w)
        for dtype in dict.fromkeys((self.plan.dtype, torch.float32)):
            with torch.device("meta"):
                vae = cast(Any, AutoencoderKLWan)(base_dim=self.plan.codec_width)
            nn.Module.to(vae, dtype).to_empty(device=self.plan.device)  # diffusers' own `to` warns of what is not there
            fill(vae)
            self._codec = WanCodec(vae)
            self.figures["codec"][str(dtype).removeprefix("torch.")] = self._coding(self._codec, pixels, latent)

    def _coding(
        self,
        codec: WanCodec,
        pixels: Tensor,  # (3, F, H, W)
        latent: Tensor,  # (16, T, h, w)
    ) -> dict[str, Any]:
        fresh_peak(self.plan.device)
        return {"encode_s": self._few(lambda: codec.encode(pixels)),
                "encode_context_s": self._few(lambda: codec.encode(pixels[:, :CONTEXT])),
                "decode_s": self._few(lambda: list(map(len, codec.decode(latent)))),
                "peak_bytes": peak(self.plan.device)}

    def chunk(self) -> None:
        """A whole chunk in four steps of one forward, as in streaming: reference, context, steps, frames."""
        network, sampling = self._network(), PRESETS["fast-4"]
        if self.figures["blocks_measured"] < self.plan.config.num_layers:
            raise InfiniteTalkError("not all blocks fit")
        if not self.figures["codec"]:
            raise InfiniteTalkError("there is no codec")
        x, _y, _t, condition = self.given  # (1, 16, T, h, w)
        pixels = torch.rand(3, *self.plan.pixels, device=self.plan.device) * 2 - 1  # (3, F, H, W)
        mask = torch.zeros(4, *self.plan.pixels.latent, device=self.plan.device)  # (4, T, h, w)
        fresh_peak(self.plan.device)
        wait(self.plan.device)
        start = time.perf_counter()
        y = torch.cat([mask, self._codec.encode(pixels)])[None].to(self.plan.dtype)  # (1, 20, T, h, w)
        context = self._codec.encode(pixels[:, :CONTEXT])  # (16, Tc, h, w)
        with attending(network, self._best().partition(", ")[0]):
            made = denoise(lambda x, t, _pass: network(x[None], y, t[None], condition)[0], x[0], context, sampling)
        frames = sum(len(part[0]) for part in self._codec.decode(made))
        wait(self.plan.device)
        self.figures["chunk"] = {"mode": "4×1, not compiled", "frames": frames, "seconds": time.perf_counter() - start,
                                 "peak_bytes": peak(self.plan.device)}

    def conclude(self) -> None:
        """What follows from the figures so far: MFU, and seconds per second of video."""
        forwards = self.figures["forwards"]
        exact = [name for name in forwards if not any(rough in name for rough in ("fp8", "sage"))]
        if not exact:
            return
        best = min(exact, key=lambda name: forwards[name]["seconds"])
        self.figures |= {"best": best, "seconds_per_forward": forwards[best]["seconds"], "mfu": forwards[best]["mfu"]}
        codec = self.figures["codec"].get("float32")
        if codec is None:
            return
        around = codec["encode_s"] + codec["encode_context_s"] + codec["decode_s"]
        length = max(1, self.plan.pixels.frames - CONTEXT) / RATE
        for one in forwards.values():
            chunks = {mode: steps * passes * one["seconds"] + around for mode, (steps, passes) in MODES.items()}
            one["seconds_per_second"] = {mode: chunk / length for mode, chunk in chunks.items()}
            one["codec_share"] = {mode: around / chunk for mode, chunk in chunks.items()}

    def _network(self) -> Transformer:
        if self.network is None:
            raise InfiniteTalkError("there is no network")
        return self.network

    def _best(self) -> str:
        if "best" not in self.figures:
            raise InfiniteTalkError("no forward could be measured")
        return str(self.figures["best"])

    def _forward(self, name: str) -> None:
        fresh_peak(self.plan.device)
        network = self._network()
        seconds, repeats = self._median(lambda: network(*self.given), self.plan.warm_ups, self.plan.repeats)
        seconds *= self.figures["blocks"] / self.figures["blocks_measured"]
        top = self.figures["peak_flops"]
        self.figures["forwards"][name] = {
            "seconds": seconds, "repeats": repeats, "peak_bytes": peak(self.plan.device),
            "mfu": self.work / seconds / top if top else None, "clock_mhz": clock(self.plan.device)}

    def _few(self, run: Callable[[], object]) -> float:
        return self._median(run, warm_ups=1, repeats=FEWEST)[0]

    def _median(self, run: Callable[[], object], warm_ups: int, repeats: int) -> tuple[float, int]:
        times: list[float] = []
        with torch.inference_mode():
            for _ in range(warm_ups):
                run()
            while len(times) < repeats and (len(times) < FEWEST or time.monotonic() < self.deadline):
                times.append(seconds_of(run, self.plan.device))
        return statistics.median(times), len(times)


def backends(device: torch.device) -> list[str]:
    """Kinds of attention to measure: the engine's, and PyTorch's flash kernel in place of whatever PyTorch chooses."""
    return [*(name for name in available() if name != "sdpa"), "flash"] if device.type == "cuda" else ["sdpa"]


@contextlib.contextmanager
def attending(network: nn.Module, name: str) -> Iterator[None]:
    """Let a network attend with one back end."""
    alone = sdpa_kernel(SDPBackend.FLASH_ATTENTION) if name == "flash" else contextlib.nullcontext()
    with alone, torch.inference_mode():
        for module in network.modules():
            if isinstance(getattr(module, "attention", None), str):
                module.attention = "sdpa" if name == "flash" else name
        yield


@contextlib.contextmanager
def compiling(network: Transformer, compiler: str) -> Iterator[None]:
    """Compile what the blocks do with tensors; undone afterwards."""
    network.compile_blocks(backend=compiler)
    try:
        yield
    finally:
        for block in network.blocks:
            del block.step


def fits(plan: GpuPlan) -> bool:
    """Whether all blocks and what flows between them have room, the VAE beside them."""
    if plan.device.type != "cuda":
        return True
    with torch.device("meta"):
        parameters = sum(one.numel() for one in Transformer(plan.config).parameters())
    between = plan.pixels.latent.tokens * (plan.config.ffn_dim + 12 * plan.config.dim) * 4
    free: int = torch.cuda.mem_get_info(plan.device)[0]
    needed: int = parameters * plan.dtype.itemsize + between + 10 * 2**30
    return needed < free
