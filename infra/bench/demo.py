"""What the demo measured, against the truth of the examples: `python infra/bench/demo.py [OUT [DATABASE]]`."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from models import tables as t
from models.timebase import CLOCK
from models.wording import word_error_rate
from tasks.ledger import Ledger

EXAMPLES = Path(__file__).parents[2] / "examples/harbor-lights"
COLUMNS = {"frames": ("frames", ""), "rate": ("fps", ""), "audio_length_ms": ("audio length ms", "± 1 frame"),
           "av_start_ms": ("A/V start ms", "± 1"), "onset_within_120ms": ("onsets", "≥ 0.99"),
           "overlaps": ("overlaps", "0"), "loudness_lufs": ("LUFS", "-23 ± 0.2"), "true_peak_dbtp": ("dBTP", "≤ -1"),
           "back_wer": ("back-WER", "≤ 0.12")}
"""Check of report.json → its name here, and the bar."""


def source_figures(ledger: Ledger, episode: str, truth: dict[str, Any]) -> tuple[str, str, str]:
    """Transcript WER, shots and speakers of an episode, beside the truth."""
    with ledger.session() as session:
        lines = session.scalars(sa.select(t.LineRow).where(t.LineRow.episode == episode, t.LineRow.language == "")
                                .order_by(t.LineRow.start)).all()
        shots = session.scalars(sa.select(t.ShotRow).where(t.ShotRow.episode == episode)).all()
    said = " ".join(u["text"] for u in truth["utterances"])
    wer = word_error_rate(said, " ".join(line.text for line in lines), "en")
    found = {(shot.start, shot.end) for shot in shots}
    true = {(shot["start_frame"], shot["end_frame"]) for shot in truth["shots"]}
    exact = f"all {len(true)}" if found == true else f"{len(found & true)} of {len(true)}, {len(found)} found"
    return f"{wer:.1%}", exact, f"{_speakers(lines, truth):.1%}"


def _speakers(lines: Any, truth: dict[str, Any]) -> float:
    """Share of true speech time whose found speaker is the true one, under the best matching of names."""
    names, labels = sorted({u["speaker"] for u in truth["utterances"]}), sorted({line.speaker for line in lines})
    shared = {(name, label): 0.0 for name in names for label in labels}
    for said, line in itertools.product(truth["utterances"], lines):
        overlap = min(said["end_s"], line.end / CLOCK) - max(said["start_s"], line.start / CLOCK)
        shared[said["speaker"], line.speaker] += max(0.0, overlap)
    matchings = itertools.permutations([*labels, *[""] * max(0, len(names) - len(labels))], len(names))
    best = max(sum(shared.get(pair, 0.0) for pair in zip(names, labels, strict=True)) for labels in matchings)
    return best / sum(u["end_s"] - u["start_s"] for u in truth["utterances"])


def main() -> None:
    """Print two tables: what all languages share, and each delivered file."""
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "dubbed").resolve()
    ledger = Ledger(sys.argv[2] if len(sys.argv) > 2 else f"sqlite:///{out}/.infinidub/infinidub.db")
    shared = Table("episode", "transcript WER ≤ 8 %", "shots as in the truth", "right speaker ≥ 90 % of time", box=None)
    files = Table("episode", "lang", *(f"{name} {bar}".strip() for name, bar in COLUMNS.values()), box=None)
    for truth_file in sorted(EXAMPLES.glob("*.truth.json")):
        episode = "harbor-lights/" + truth_file.name.partition(".")[0].rpartition("-")[2]
        shared.add_row(episode, *source_figures(ledger, episode, json.loads(truth_file.read_text())))
        for report in sorted((out / episode).glob("*/report.json")):
            checks = {c["name"]: c["value"] for c in json.loads(report.read_text())["inspection"]["checks"]}
            files.add_row(episode, report.parent.name, *("–" if checks.get(name) is None else f"{checks[name]:.4g}"
                                                         for name in COLUMNS))
    Console(width=160).print("\n[bold]Measured[/]", shared, "", files, sep="\n")


if __name__ == "__main__":
    main()
