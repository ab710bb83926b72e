"""The example catalog with its own engines on a pool of real processes: `make pool-demo`, or in the repository's root

    python -m infra.bench.pool [OUT]
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from models import tables as t
from tests.pool import check
from tests.pool.stack import ROOT, Place, Stack, pool_stack

CATALOG = ROOT / "examples" / "harbor-lights" / "catalog.yaml"
AGAIN = {"catalog": str(CATALOG), "episode": "harbor-lights/s01e02", "language": "fr", "from_step": "mix"}
PATIENCE_S = 7200
"""Of the whole catalog, without a GPU."""


def main(out: Path) -> None:
    """Dub the catalog as the nightly deployment does, then one language of it as an event asks, and print both."""
    with pool_stack(fakes=False) as stack:
        stack.patience_s = PATIENCE_S
        place = stack.place("demo")
        place.write_config("auto", out=str(out), lease_s=30, multi=True, check_speech=True)
        began = time.monotonic()
        show(stack, place, out, stack.flow_run("localize-catalog/nightly", catalog=str(CATALOG),
                                               config=str(place.config)))
        print(f"The night took {time.monotonic() - began:.0f} s.\n")
        before = steps(place)
        show(stack, place, out, stack.asked_by_event(**AGAIN, config=str(place.config)))
        print("Once more:", *(step for step, count in steps(place).items() if count > before.get(step, 0)))
        check.assert_at_rest(stack, place)
        subprocess.run([sys.executable, "infra/bench/demo.py", out, place.database], cwd=ROOT, check=True)


def show(stack: Stack, place: Place, out: Path, run: dict[str, Any]) -> None:
    """A flow run's verdict, the catalog's summary, the shards, what was delivered and what is kept."""
    print(run["name"], run["state"]["type"], run["state"]["message"], run["parameters"])
    if run["state"]["type"] != "COMPLETED":
        raise SystemExit(1)
    for artifact in stack.prefect("artifacts/latest/filter", artifacts={"flow_run_id": {"any_": [run["id"]]},
                                                                        "type": {"any_": ["markdown"]}}):
        print(f"\n{artifact['data']}")
    for one in place.attempts():
        print(f"{one.shard} {one.attempt} {one.state} on {one.pool}: {one.chunks} chunks, {one.gpu_seconds:.1f} s, "
              f"start-up {one.startup_seconds:.1f} s")
    print(f"{len(check.files(out))} files delivered; {len(stack.keys(place.name))} objects in the store; steps "
          f"computed: {steps(place)}")


def steps(place: Place) -> dict[str, int]:
    """How often each step was computed."""
    query = sa.select(t.Execution.step, sa.func.count()).where(t.Execution.outcome == "computed")
    with place.ledger.session() as session:
        return dict(row._tuple() for row in session.execute(query.group_by(t.Execution.step)))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "dubbed").resolve())
