"""Peak memory against the length of the video: `python infra/bench/memory.py [MINUTES …]`.

The example is looped to each length and dubbed in a process of its own; the figure is the largest resident size of that
process or of any program it ran.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPISODE = Path(__file__).parents[2] / "examples/harbor-lights/harbor-lights-s01e01.mp4"


def looped(minutes: float, folder: Path) -> Path:
    """The example episode, repeated until it lasts `minutes`; encoded anew, since joined copies drift at the seams."""
    target = folder / f"looped-{minutes:g}.mp4"
    subprocess.run(["ffmpeg", "-v", "error", "-stream_loop", "-1", "-i", EPISODE, "-t", str(minutes * 60),
                    "-preset", "ultrafast", "-crf", "18", "-r", "25", "-y", target], check=True)
    return target


def measure(minutes: float) -> None:
    """Dub a loop in a child process and print its peak."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        video = looped(minutes, folder)
        command = [Path(sys.executable).parent / "infinidub", "dub", video, "--to", "es", "--from", "en",
                   "--out", folder / "out", "--json"]
        started = time.monotonic()
        done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                              env=os.environ | {"INFINIDUB_ENGINES__SYNTHESIZER": "espeak"})
        if done.returncode not in {0, 3}:  # 3: the robotic voice is not always understood, which is not the point here
            sys.exit(done.stderr)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"| {minutes:g} min | {peak:.0f} MB | {time.monotonic() - started:.0f} s |", flush=True)


def main() -> None:
    """Print a Markdown table; each length in a fresh process, so that peaks do not mix."""
    lengths = [float(argument) for argument in sys.argv[1:]] or [1.0, 10.0]
    if len(lengths) == 1:
        measure(lengths[0])
        return
    print("| length | peak resident memory | wall time |\n|---|---|---|", flush=True)
    for length in lengths:
        subprocess.run([sys.executable, __file__, str(length)], check=True)


if __name__ == "__main__":
    main()
