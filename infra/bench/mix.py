"""Every mix of a finished run once more, by each preset, given and ducked: `python infra/bench/mix.py [OUT]`.

Loudness is measured by ffmpeg (which the mix goes by) and by pyloudnorm.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pyloudnorm
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from models import tables as t
from models.engines import EngineCache
from models.loudness import PRESETS
from models.ports import EngineHome
from models.records import Mix
from tasks.ledger import Ledger
from tasks.media import read_audio
from tasks.mix import MixRequest, mix
from tasks.step import Work
from tasks.store import FileStore

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
    Console(width=160).print(table)


def _figures(work: Work, made: Mix) -> tuple[str, ...]:
    sound, found = read_audio(work.store.path(made.mix), channels=None), made.loudness
    other = pyloudnorm.Meter(48_000).integrated_loudness(sound.astype("float64"))
    return (f"{found.integrated_lufs:.1f}", f"{other:.2f}", f"{found.dialogue_lufs or 0:.2f}",
            f"{found.dialogue_share or 0:.0%}", f"{found.true_peak_dbtp:.1f}", f"{found.range_lu:.1f}",
            f"{made.leak.db:.0f} dB in {made.leak.line}" if made.leak else "–")


if __name__ == "__main__":
    main()
