"""What listening can be worth to the small transformer: how far mouths move latents.

Clips are rendered twice and seen as close-ups: as they are, and with the mouth held at its mean; everything else is the
same. The mean square of the difference between both latents, in the mouth's cells, is what a network that hears nothing
must lose near the noise even if it knew all else. An audio gap is to be read against it.

    python infra/small/worth.py DIR     # DIR holds config.json and codec.safetensors
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from infinitetalk import closeup
from infinitetalk.pictures import from_uint8
from infinitetalk.small.codec import WEIGHTS, SmallCodec
from infinitetalk.small.config import SmallConfig
from infinitetalk.train.draw import by_latent
from infinitetalk.train.latents import coverage
from infinitetalk.world.background import backdrop
from infinitetalk.world.clip import SUPERSAMPLE, clip_seed, draw_scene
from infinitetalk.world.renderer import Renderer
from infinitetalk.world.scene import FACE_UNITS

CLIPS, FRAMES, RATE, SIZE = 6, 49, 25, 112
LOOKS = np.arange(0, FRAMES, 10)
MOUTH = [index for index, name in enumerate(FACE_UNITS) if name.startswith(("jaw", "mouth", "tongue"))]


def main(folder: Path) -> None:
    """Print a line for each clip, and the mean."""
    config = SmallConfig.read(folder)
    codec = SmallCodec.read(folder / WEIGHTS, config.codec)
    renderer = Renderer((SIZE, SIZE), SUPERSAMPLE)

    def latents(frames: NDArray[np.uint8], boxes: NDArray[np.float32]) -> Tensor:
        seen = np.stack([closeup.cut(frame, box, config.side) for frame, box in zip(frames, boxes, strict=True)])
        return codec.encode(from_uint8(torch.from_numpy(seen).movedim(3, 0)))  # (C, T, h, w)

    worths = []
    for index in range(CLIPS):
        scene = draw_scene(clip_seed("test", index), FRAMES, RATE, framing="face")
        motion = scene.acts[0].motion
        still = np.array(motion.units)
        still[:, MOUTH] = still[:, MOUTH].mean(0)
        talking, silent = (renderer.render([(scene.people[0], one)], scene.camera, backdrop(scene.backdrop))
                           for one in (motion, replace(motion, units=still)))
        boxes = closeup.follow(LOOKS, talking.faces[0, LOOKS], np.arange(FRAMES))  # (F, 4)
        mouths = closeup.within(talking.mouths[0], boxes, config.side)
        inside = by_latent(coverage(mouths, config.latent.height)).amax(1)  # (T, h, w)
        true = latents(talking.frames, boxes)
        lost = (true - latents(silent.frames, boxes)).square().mean(0)  # (T, h, w)
        moved = (true - true.mean(1, keepdim=True)).square().mean(0)
        share = inside / inside.sum()
        worths.append(float((lost * share).sum()))
        print(f"clip {index}: the mouth's movement {worths[-1]:.4f} of {float((moved * share).sum()):.4f} that moves "
              f"in its cells; elsewhere {float(lost[inside == 0].mean()):.5f}")
    print(f"mean {np.mean(worths):.4f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
