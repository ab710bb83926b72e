"""Prefect's server of one run does not outlive that run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from flows.settings import load_settings, prefect_environment

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    print("up", flush=True)
    for name in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{name}.complete"})
    print("down", flush=True)
"""
RUN = """
import subprocess, sys
subprocess.run([sys.executable, "-m", "uvicorn", "--app-dir", sys.argv[1], "app:app", "--port=0", "--lifespan=on"])
"""


def test_a_server_whose_run_was_killed_ends_by_itself(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    environment = prefect_environment(load_settings(flags={"out": str(tmp_path)}))  # what Prefect hands to its server
    run = subprocess.Popen([sys.executable, "-c", RUN, str(tmp_path)], env=environment, cwd=Path(__file__).parents[1],
                           text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert run.stdout
        assert run.stdout.readline() == "up\n"
    finally:
        run.kill()
    said, _ = run.communicate(timeout=60)  # until nobody holds the pipe any more
    assert said == "down\n"
