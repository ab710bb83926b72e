"""A shard whose process is killed outright goes on at its next chunk, and gives the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.records import Shard, ShotRequest
from tasks.media import FrameWriter
from tasks.store import FileStore
from tests.pulse import REF

ROOT = Path(__file__).parents[1]
WORKER = """
import os, signal, sys
from pathlib import Path
from models.records import Shard
from tasks.generate import run_shard
from tasks.ledger import Ledger
from tasks.step import Work
from tasks.store import FileStore
from tests.pulse import Pulse

root, shard, deadly = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

class Mortal(Pulse):
    def generate(self, shot, state, start_chunk):
        for chunk in super().generate(shot, state, start_chunk):
            if chunk.index == deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            yield chunk

class Engines:
    generator = Mortal()
    def get(self, port, ref):
        return self.generator

ledger = Ledger(f"sqlite:///{root}/infinidub.db")
work = Work(store=FileStore(root), ledger=ledger, engines=Engines(), scratch=root, run_id=ledger.begin_run("t", {}, {}))
print(run_shard(work, Shard.model_validate_json(shard.read_bytes())).model_dump_json())
"""


def make_shard(root: Path) -> Path:
    film = root / "film.mkv"
    with FrameWriter(film, 64, 48, Fraction(25)) as writer:
        for i in range(45):
            writer.write(np.full((48, 64, 3), 3 * i, np.uint8))
    source = FileStore(root).put_file(film, "video/x-matroska")
    request = ShotRequest(shot="S0001", source=source, start=0, end=45, width=64, height=48, rate="25", tracks=(),
                          generator=REF)
    path = root / "SHARD.json"
    path.write_text(Shard(id="shard-1", episode="s/e", language="es", requests=(request,)).model_dump_json())
    return path


def work(root: Path, shard: Path, deadly: int = -1) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WORKER, str(root), str(shard), str(deadly)], cwd=ROOT, timeout=120,
                          capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False)


@pytest.mark.parametrize("deadly", [1, 4])
def test_a_killed_shard_goes_on_where_it_stopped(tmp_path, deadly):
    answers = []
    for name in ("killed", "undisturbed"):
        root = tmp_path / name
        root.mkdir()
        shard = make_shard(root)
        if name == "killed":
            assert work(root, shard, deadly).returncode == -signal.SIGKILL
        answers.append(json.loads(work(root, shard).stdout))
    killed, undisturbed = answers
    assert killed["clips"] == undisturbed["clips"]
    assert undisturbed["chunks_run"] - killed["chunks_run"] == deadly  # nothing that was finished is made again
