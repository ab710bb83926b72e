"""The store's folder: what killed processes leave in it, and what living ones must keep."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LEAVE = """
import pathlib, secrets, sys, tempfile, tasks.store
state = pathlib.Path(sys.argv[1])
tasks.store.enter(state)
(state / "scratch").mkdir()
folder = pathlib.Path(tempfile.mkdtemp(dir=state / "scratch"))
(folder / "clip.mkv").write_bytes(b"x")
incoming = state / "artifacts" / "incoming"
incoming.mkdir(parents=True)
tempfile.mkstemp(prefix=".partial-", dir=incoming)
(incoming / secrets.token_hex(8)).write_bytes(b"x")
print("there", flush=True)
sys.stdin.read()
"""
ENTER = "import sys, pathlib, tasks.store; tasks.store.enter(pathlib.Path(sys.argv[1]))"


def test_what_a_killed_process_left_goes_and_what_a_living_one_uses_stays(tmp_path: Path) -> None:
    worker = subprocess.Popen([sys.executable, "-c", LEAVE, str(tmp_path)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)
    assert worker.stdout
    assert worker.stdout.readline() == b"there\n"
    (tmp_path / "scratch" / "notes.txt").write_text("of somebody else")
    used = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert len(used) == 5
    subprocess.run([sys.executable, "-c", ENTER, str(tmp_path)], check=True, timeout=60)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == used
    worker.kill()
    worker.communicate(timeout=60)
    subprocess.run([sys.executable, "-c", ENTER, str(tmp_path)], check=True, timeout=60)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == ["in-use.lock", "notes.txt"]
