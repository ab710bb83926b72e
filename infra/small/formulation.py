"""A way of training tried on a transformer of a tenth of lite's size, for some minutes: does the audio gap open?

    python infra/small/formulation.py --data CLIPS --companions DIR --out NEW [--audio truth] [--mouth 8]
        [--visemes 0.5] [--minutes 9] [--threads 2]

DIR holds codec.safetensors and speech.safetensors; lines of the log are printed as they come. Change one thing at a
time, and give a formulation up whose gap stays under 2 % after five minutes of a machine of one's own.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from infinitetalk.small.config import LITE
from infinitetalk.train.dit import DitRecipe, train_transformer
from infinitetalk.train.draw import DrawSettings
from infinitetalk.train.flow import FlowSettings
from infinitetalk.train.lessons import lessons
from infinitetalk.train.loop import Recipe

PROXY = replace(LITE, transformer=replace(LITE.transformer, dim=96, ffn_dim=384, num_heads=3, num_layers=4))


def main() -> None:
    """Try it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "companions", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--audio", default="truth", choices=("truth", "speech"))
    for name, default in (("mouth", 8.0), ("visemes", 0.5), ("minutes", 9.0), ("rate", 2e-3)):
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in ("codec.safetensors", "speech.safetensors"):
        shutil.copy(asked.companions / name, asked.out / name)
    recipe = DitRecipe(run=Recipe(steps=20_000, rate=asked.rate, warmup=50, batch=16, decay=0.02, ema=0.99),
                       flow=FlowSettings(mouth=asked.mouth, visemes=asked.visemes),
                       draw=DrawSettings(audio=asked.audio), watched=50)
    taught = lessons(asked.data, asked.out, PROXY)
    print(f"{len(taught.lessons.train)} clips to learn from, {len(taught.lessons.held)} held out")
    train_transformer(taught.lessons, asked.out, PROXY, asked.minutes, recipe=recipe,
                      told=lambda line: print(json.dumps(line), flush=True))


if __name__ == "__main__":
    main()
