"""A forward beside its own bare matrix products, on the CPU.

Times drift more between runs than what is to be seen, so the two are measured in turns in one process, and only the
ratio of neighbours counts.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from infinitetalk.bench_network import inputs, random_network
from infinitetalk.config import TransformerConfig
from infinitetalk.shapes import PATCH, LatentShape, PixelShape

SMALL = TransformerConfig(dim=512, ffn_dim=2048, num_heads=8, num_layers=4, text_dim=512, clip_dim=256,
                          audio_layers=2, audio_channels=64, audio_hidden=64)
"""Heads as wide as a CPU likes them; a network that one core runs in about a second."""

SMALL_PIXELS = PixelShape(frames=29, height=256, width=256)
"""2048 tokens."""

GOAL = 1.25
"""A forward may take this much longer than its matrix products and attention alone."""

MOST_SPREAD = 0.2
"""Interquartile range ÷ median above which a series says nothing."""


@dataclass(frozen=True)
class Comparison:
    """A series of paired times."""

    what: str
    median: float
    """Of the ratios of neighbours, ours ÷ bare."""
    low: float
    high: float
    """Quartiles of the ratios."""
    pairs: int
    ours_s: float
    bare_s: float
    load: float
    """Processes that wanted a core meanwhile (mean over a minute)."""
    threads: int

    @property
    def steady(self) -> bool:
        """Whether the machine was quiet enough to judge."""
        return (self.high - self.low) / self.median <= MOST_SPREAD

    @property
    def verdict(self) -> str:
        """One line."""
        if not self.steady:
            return f"not judged: the machine was too busy (spread {(self.high - self.low) / self.median:.2f})"
        return f"{'within' if self.median <= GOAL else 'above'} the goal of {GOAL}"


def compare(what: str, ours: Callable[[], object], bare: Callable[[], object], pairs: int, threads: int) -> Comparison:
    """Time two functions in turns, each first in every other pair, after one warm-up of each."""
    times: list[tuple[float, float]] = []
    with _threads(threads):
        _seconds(ours), _seconds(bare)
        for pair in range(pairs):
            if pair % 2:
                second, first = _seconds(bare), _seconds(ours)
            else:
                first, second = _seconds(ours), _seconds(bare)
            times.append((first, second))
    low, median, high = statistics.quantiles([one / other for one, other in times], n=4, method="inclusive")
    mine, others = zip(*times, strict=True)
    return Comparison(what, median, low, high, pairs, statistics.median(mine), statistics.median(others),
                      os.getloadavg()[0], threads)


def compare_forward(dtype: torch.dtype = torch.float32, *, config: TransformerConfig = SMALL,
                    pixels: PixelShape = SMALL_PIXELS, pairs: int = 15, threads: int = 2) -> Comparison:
    """A forward of the transformer, its conditions seen before, against `bare_products`.

    Args:
        dtype: Type of the weights.
        config: Sizes of the network.
        pixels: What it denoises.
        pairs: Length of the series, at least 2.
        threads: Cores used by both.
    """
    latent = pixels.latent
    with torch.inference_mode():
        ours, bare = forward_of(config, latent, dtype), bare_products(config, latent, dtype)
        name = str(dtype).removeprefix("torch.")
        return compare(f"forward ÷ bare products, {name}, {latent.tokens} tokens", ours, bare, pairs, threads)


def forward_of(config: TransformerConfig, latent: LatentShape, dtype: torch.dtype) -> Callable[[], Tensor]:
    """A forward of a network with seeded random weights on the CPU."""
    device = torch.device("cpu")
    network = random_network(config, device, dtype)
    x, y, t, condition = inputs(network, config, latent, device, dtype)
    return lambda: network(x, y, t, condition)


def bare_products(config: TransformerConfig, latent: LatentShape, dtype: torch.dtype) -> Callable[[], None]:
    """The calls of matrix product and attention that a forward makes, on the same shapes, and nothing between them.

    Products add their bias, and attention takes heads as a product leaves them, interleaved: it is what lies between
    these calls that is measured.
    """
    width, tokens, frames, patch = config.dim, latent.tokens, latent.frames, PATCH**2 * config.in_dim
    states = {size: torch.randn(1, tokens, size, dtype=dtype) for size in (patch, width, config.ffn_dim)}

    def product(size: int, out: int) -> tuple[Tensor, Tensor, Tensor]:
        return states[size], torch.randn(out, size, dtype=dtype) / math.sqrt(size), torch.randn(out, dtype=dtype)

    def attention(batch: int, queries: int, keys: int) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (torch.randn(batch, length, config.num_heads, config.head_dim, dtype=dtype).transpose(1, 2)
                   for length in (queries, keys, keys))
        return q, k, v

    ends = product(patch, width), product(width, PATCH**2 * config.out_dim)
    shapes = [*[(width, width)] * 8, (width, config.ffn_dim), (config.ffn_dim, width)]
    products = [product(*shape) for _ in range(config.num_layers) for shape in shapes]
    attentions = [attention(1, tokens, tokens), attention(1, tokens, config.text_len),
                  attention(1, tokens, config.clip_tokens),
                  attention(frames, latent.frame_tokens, config.audio_tokens)] * config.num_layers

    def run() -> None:
        for given in (*ends, *products):
            functional.linear(*given)
        for heads in attentions:
            functional.scaled_dot_product_attention(*heads)

    return run


def measure_cpu(pairs: int, threads: int = 2, pixels: PixelShape = SMALL_PIXELS) -> dict[str, Any]:
    """Every comparison this CPU can make, as plain JSON."""
    kinds = [torch.float32, *([torch.bfloat16] if has_bfloat16() else [])]
    found = [compare_forward(kind, pixels=pixels, pairs=pairs, threads=threads) for kind in kinds]
    skipped = {} if has_bfloat16() else {"bfloat16": "this CPU has no instructions for it"}
    return {"device": "cpu", "machine": f"{platform.machine()}, {os.cpu_count()} cores", "torch": torch.__version__,
            "comparisons": [{**asdict(one), "steady": one.steady, "verdict": one.verdict} for one in found],
            "skipped": skipped}


def has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 itself."""
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe() for probe in probes if probe is not None)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
