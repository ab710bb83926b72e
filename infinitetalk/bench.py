"""How fast the engine is, against what bounds it; `bench_cpu` and `bench_gpu` measure.

Where only the engine's own libraries are installed: `python -m infinitetalk.bench --device cuda --out docs`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from infinitetalk.bench_cpu import measure_cpu
from infinitetalk.bench_gpu import MODES, GpuPlan, measure_gpu
from infinitetalk.errors import BadInputError

PAIRS, FEWEST = 21, 2


def bench(device: str = "auto", out: Path | None = None, say: Callable[[str], object] = str, *, pairs: int = PAIRS,
          ) -> tuple[dict[str, Any], str]:
    """Measure the engine on a device.

    Args:
        device: cpu, cuda, cuda:N, or auto: a GPU if there is one.
        out: Folder for engine-cpu.json and .md, or engine-gpu.json and .md; None: nothing is written.
        say: Is told what is measured now.
        pairs: Length of a series on the CPU.

    Returns:
        The figures as plain JSON, and as a Markdown table.

    Raises:
        BadInputError: There is no such device, or the series would be too short to say anything.
    """
    where = _device(device)
    if pairs < FEWEST:
        raise BadInputError(f"{pairs} pairs say nothing", where="--pairs", hint=f"Take {PAIRS}, or {FEWEST} at least")
    stem = None if out is None else out / f"engine-{'gpu' if where.type == 'cuda' else 'cpu'}"
    if where.type != "cuda":
        figures = measure_cpu(pairs)
        _write(stem, figures, cpu_table(figures))
        return figures, cpu_table(figures)
    figures = measure_gpu(GpuPlan(device=where), say, lambda so_far: _write(stem, so_far, gpu_table(so_far)))
    return figures, gpu_table(figures)


def cpu_table(figures: dict[str, Any]) -> str:
    """The CPU's figures as Markdown."""
    lines = ["| what | median | quartiles | pairs | forward | bare | threads, load | verdict |",
             "|---|---|---|---|---|---|---|---|"]
    lines += [f"| {one['what']} | {one['median']:.2f} | {one['low']:.2f} – {one['high']:.2f} | {one['pairs']} "
              f"| {one['ours_s']:.3f} s | {one['bare_s']:.3f} s | {one['threads']}, {one['load']:.1f} "
              f"| {one['verdict']} |" for one in figures["comparisons"]]
    return "\n".join([*lines, *_skipped(figures)]) + "\n"


def gpu_table(figures: dict[str, Any]) -> str:
    """A GPU's figures as Markdown."""
    frames, height, width = figures["pixels"]
    lines = [f"{figures['device']}, torch {figures['torch']}; {frames} frames of {width}×{height}, "
             f"{figures['forward_flops'] / 1e15:.3f} PF per forward; seeded random weights.", ""]
    if figures.get("blocks_measured", figures.get("blocks")) != figures.get("blocks"):
        lines += [f"All {figures['blocks']} blocks do not fit: seconds are those of {figures['blocks_measured']}, "
                  "multiplied.", ""]
    lines += ["| forward | seconds | MFU | peak memory | repeats | clock |", "|---|---|---|---|---|---|"]
    lines += [f"| {name} | {one['seconds']:.3f} | {_percent(one['mfu'])} | {_gigabytes(one['peak_bytes'])} "
              f"| {one['repeats']} | {one['clock_mhz'] or '–'} |" for name, one in figures["forwards"].items()]
    if figures["codec"]:
        lines += ["", "| VAE | encode | encode context | decode | peak memory |", "|---|---|---|---|---|"]
        lines += [f"| {name} | {one['encode_s']:.2f} s | {one['encode_context_s']:.2f} s | {one['decode_s']:.2f} s "
                  f"| {_gigabytes(one['peak_bytes'])} |" for name, one in figures["codec"].items()]
    timed = {name: one for name, one in figures["forwards"].items() if "codec_share" in one}
    if timed:
        lines += ["", "Seconds per second of video, and the share of the VAE in it, by steps × forwards per step; "
                      "every chunk has its own reference:", "", f"| forward | {' | '.join(MODES)} |",
                  "|---" * (1 + len(MODES)) + "|"]
        lines += [f"| {name} | " + " | ".join(f"{one['seconds_per_second'][mode]:.1f}, {_percent(share)}"
                                              for mode, share in one["codec_share"].items()) + " |"
                  for name, one in timed.items()]
    if "chunk" in figures:
        chunk = figures["chunk"]
        lines += ["", f"A whole chunk ({chunk['mode']}): {chunk['frames']} frames in {chunk['seconds']:.1f} s, peak "
                      f"{_gigabytes(chunk['peak_bytes'])}."]
    if "fp8_snr_db" in figures:
        lines += ["", f"fp8 against the same network without: {figures['fp8_snr_db']} dB."]
    return "\n".join([*lines, *_skipped(figures)]) + "\n"


def _skipped(figures: dict[str, Any]) -> list[str]:
    return [f"\nSkipped: {what} ({why})." for what, why in figures["skipped"].items()]


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.0%}"


def _gigabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1e9:.1f} GB"


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    if kind not in {"cpu", "cuda"} or not (number or "0").isdigit():
        raise BadInputError(f"{name!r} is no device", where="--device", hint="Name cpu, cuda, cuda:N or auto")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise BadInputError(f"there is no {name} here", where="--device", hint="Leave it out to measure what there is")
    return torch.device(name)


def _write(stem: Path | None, figures: dict[str, Any], text: str) -> None:
    if stem is None:
        return
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stem.with_suffix(".md").write_text(text, encoding="utf-8")


def main() -> None:
    """`python -m infinitetalk.bench`: the same as `infinidub bench engine`, where only the engine is installed."""
    parser = argparse.ArgumentParser(prog="infinitetalk.bench", description="Measure how fast the engine is.")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N; a GPU if there is one unless set")
    parser.add_argument("--out", type=Path, help="folder for the figures as JSON and Markdown")
    given = parser.parse_args()
    _figures, text = bench(given.device, given.out, lambda line: sys.stderr.write(f"{line}\n"))
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
