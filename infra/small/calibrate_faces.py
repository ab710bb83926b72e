"""How far apart faces of rendered people are, by dlib's network: the bar of "the same person", and the centre of CSIM*.

    infinidub world render --out train --clips 120 --size 128 --seconds 0.4 --framing face
    infinidub world render --out test --clips 40 --size 128 --seconds 2 --framing face --split test
    python infra/small/calibrate_faces.py NETWORKS train test    # NETWORKS holds dlib's two files

The mean face of `train` is written beside `infinitetalk/evaluate/faces.py`; all that is printed is of `test`, whose
people are others: each one's frames against his own first frame, and against the first frames of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from infinitetalk.evaluate import faces
from infinitetalk.evaluate.identity import SAME_PERSON
from infinitetalk.evaluate.measure import Floats, Reals
from infinitetalk.world.dataset import Recordings

EVERY = 5
"""Frames between two that are looked at."""


def main(networks: Path, train: Path, test: Path) -> None:
    """Write the centre, print distances and cosines."""
    network = faces.DlibFace(networks)
    known = np.stack([seen[0] for seen in _faces(network, train)])
    centre = known.mean(0)
    save_file({"centre": centre.astype(np.float32)}, Path(faces.__file__).with_name(faces.CENTRE))
    people = list(_faces(network, test))
    print(f"mean face of {len(known)} people; {len(people)} others, {sum(map(len, people))} frames with a face")
    for name, apart in (("distance", lambda a, b: np.linalg.norm(a - b, axis=1)),
                        ("CSIM*", lambda a, b: _cosine(a - centre, b - centre)), ("CSIM", _cosine)):
        same = np.concatenate([apart(seen[1:], seen[:1]) for seen in people])
        other = np.concatenate([apart(seen[1:], him[:1]) for seen in people for him in people if him is not seen])
        print(f"{name}: same {_spread(same)}, different {_spread(other)}")
        if name == "distance":
            for bar in (0.3, SAME_PERSON, 0.4, 0.45, 0.6):
                print(f"  up to {bar}: {np.mean(same <= bar):.1%} of the same, {np.mean(other <= bar):.1%} of others")


def _faces(network: faces.DlibFace, folder: Path) -> Iterator[Floats]:
    """Of each clip's person, (n, 128)."""
    for one in Recordings(folder):
        seen = network.embed(one.frames[::EVERY])
        found = seen[np.isfinite(seen).all(1)]
        if len(found):
            yield found


def _cosine(a: Floats, b: Floats) -> Reals:
    return np.asarray((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))


def _spread(values: Reals) -> str:
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
