"""Wall time under Prefect against the same steps called plainly: `python infra/bench/prefect_overhead.py [ROUNDS]`.

Both dub the second example episode from nothing, in turns on one machine, each time into an empty folder. The Prefect
server is started beforehand and stays up: its start-up is not part of the figure.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CATALOG = Path(__file__).parents[2] / "examples/harbor-lights/catalog.yaml"
BIN = Path(sys.executable).parent


@contextmanager
def server(folder: Path) -> Iterator[str]:
    """A Prefect server on loopback; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    env = os.environ | {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    process = subprocess.Popen([BIN / "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
                               env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1)  # noqa: S310
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def dub(prefect: bool, url: str) -> float:
    """Seconds that one run took by its own account."""
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run(
            [BIN / "infinidub", "run", CATALOG, "--episode", "s01e02", "--lang", "es", "--out", out,
             "--set", f"prefect={str(prefect).lower()}", "--json"],
            capture_output=True, text=True, check=False, env=os.environ | {"PREFECT_API_URL": url})
    summary = json.loads(done.stdout.splitlines()[-1])
    if summary["failed"]:
        sys.exit(f"a run failed: {summary['failed']}")
    return float(summary["seconds"])


def main() -> None:
    """Print a Markdown table and the ratio of the medians."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    plain, prefect = [], []
    with tempfile.TemporaryDirectory() as folder, server(Path(folder)) as url:
        print("| round | plainly | under Prefect |\n|---|---|---|", flush=True)
        for number in range(rounds):
            plain.append(dub(False, url))
            prefect.append(dub(True, url))
            print(f"| {number + 1} | {plain[-1]:.1f} s | {prefect[-1]:.1f} s |", flush=True)
    print(f"\nratio of the medians: {statistics.median(prefect) / statistics.median(plain):.3f}")


if __name__ == "__main__":
    main()
