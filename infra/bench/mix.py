"""Mixes and leaks measured: `python infra/bench/mix.py [OUT]` after a run into OUT.

Every mix of the run is made once more, by each preset, given and ducked; its loudness is measured by ffmpeg (which the
mix goes by) and by pyloudnorm. And the dialogue of the examples is let into their music and effects by known amounts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyloudnorm
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from models import tables as t
from models.engines import EngineCache
from models.loudness import PRESETS
from models.ports import EngineHome
from models.records import Mix
from models.timebase import CLOCK
from tasks.leak import find_leak
from tasks.ledger import Ledger
from tasks.media import read_audio, write_flac
from tasks.mix import MixRequest, mix
from tasks.step import Work
from tasks.store import FileStore

EXAMPLES = Path(__file__).parents[2] / "examples/harbor-lights"
LEAKS = (-10, -20, -30, -40, -200)
COLUMNS = ("episode", "bed", "preset", "LUFS by ffmpeg", "by pyloudnorm", "dialogue LKFS", "dialogue in", "dBTP",
           "loudness range", "leak")


def main() -> None:
    """Print one row a mix."""
    state = Path(sys.argv[1] if len(sys.argv) > 1 else "dubbed").resolve() / ".infinidub"
    ledger, table = Ledger(f"sqlite:///{state}/infinidub.db"), Table(*COLUMNS, box=None)
    with ledger.session() as session:
        query = sa.select(t.Result.request, t.Execution.episode, t.Execution.language).join(
            t.Execution, t.Execution.recipe == t.Result.recipe).where(t.Result.step == "mix").order_by(t.Result.created)
        asked = {f"{row.episode} {row.language}": MixRequest.model_validate(row.request)
                 for row in session.execute(query)}
    with tempfile.TemporaryDirectory() as folder:
        work = Work(store=FileStore(state), ledger=ledger, scratch=Path(folder), run_id="",
                    engines=EngineCache(lambda _port, _name: EngineHome(weights=Path)))
        for episode, request in sorted(asked.items()):
            for bed in dict.fromkeys((request.bed, None)):
                for name, preset in PRESETS.items():
                    made = mix.function(work, request.model_copy(update={"bed": bed, "loudness": preset}))
                    table.add_row(episode, made.bed_kind, name, *_figures(work, made))
    leaks = Table("episode", *(f"{db} dB" if db > -100 else "none" for db in LEAKS), "all of it", box=None)
    for truth in sorted(EXAMPLES.glob("*.truth.json")):
        leaks.add_row(truth.name.partition(".")[0], *_leaks(truth))
    Console(width=160).print(table, "", leaks, sep="\n")


def _leaks(truth: Path) -> Iterator[str]:
    """What is found of leaks of LEAKS, and where the source itself is given for its bed."""
    stem = str(truth).removesuffix(".truth.json")
    source, voices, bed = (read_audio(Path(stem + end), channels=2)
                           for end in (".mp4", ".dialogue.flac", ".music_effects.flac"))
    said = {f"L{number:04d}": (round(one["start_s"] * CLOCK), round(one["end_s"] * CLOCK))
            for number, one in enumerate(json.loads(truth.read_text())["utterances"], 1)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_flac(folder / "source.flac", source)
        for given in (*(bed + voices * np.float32(10 ** (db / 20)) for db in LEAKS), source):
            write_flac(folder / "bed.flac", given)
            leak = find_leak(folder / "source.flac", folder / "bed.flac", 0.0, said, said.values(), len(source))
            yield f"{leak.db:.1f}" if leak else "–"


def _figures(work: Work, made: Mix) -> tuple[str, ...]:
    sound, found = read_audio(work.store.path(made.mix), channels=None), made.loudness
    other = pyloudnorm.Meter(48_000).integrated_loudness(sound.astype("float64"))
    return (f"{found.integrated_lufs:.1f}", f"{other:.2f}", f"{found.dialogue_lufs or 0:.2f}",
            f"{found.dialogue_share or 0:.0%}", f"{found.true_peak_dbtp:.1f}", f"{found.range_lu:.1f}",
            f"{made.leak.db:.0f} dB in {made.leak.line}" if made.leak else "–")


if __name__ == "__main__":
    main()
