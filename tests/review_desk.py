"""An episode under review, as a run would have left it: for tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path

import numpy as np

from flows.settings import load_settings
from flows.wiring import Workspace, open_workspace
from models import tables as t
from models.records import (
    Artifact,
    Candidate,
    Line,
    Source,
    SpokenLine,
    Transcript,
    TranslatedLine,
    Translation,
)
from models.timebase import CLOCK
from tasks import review
from tasks.sound import write_flac
from tests.fakes import tone

KEY = ("pier/e1", "es")
SAID = (("Good morning.", "Buenos días."), ("The lamp is old.", "La lámpara del faro es vieja."),
        ("<img src=x onerror=alert(1)>", "<b>No</b> & sí"), ("We go now.", "שלום, עולם"))


def workspace(folder: Path, lines: int = 250) -> Workspace:
    """Spanish waits for its review; its first line was voiced once."""
    space = open_workspace(load_settings(flags={"out": str(folder / "out")}))
    told = [SAID[number % len(SAID)] for number in range(lines)]
    transcript = Transcript(language="en", lines=tuple(
        Line(id=f"L{number:04d}", start=2 * CLOCK * number, end=2 * CLOCK * number + CLOCK, text=source,
             speaker="Ana" if number % 3 else "Ben") for number, (source, _) in enumerate(told, 1)))
    translation = Translation(language="es", lines=tuple(
        TranslatedLine(id=f"L{number:04d}", text=text, flags=("glossary: lamp → farol is missing",) * (number == 2),
                       candidates=(Candidate(text=text, score=1.0), Candidate(text="El farol es viejo.", score=0.9),
                                   Candidate(text="Es vieja.", score=0.5)) if number == 2 else ())
        for number, (_, text) in enumerate(told, 1)))
    review.note_translation(space.ledger, KEY[0], transcript, translation)
    review.ask(space.ledger, *KEY, timeout_h=72, on_timeout="approve")
    space.ledger.end_run(space.ledger.begin_run("run", {
        "catalog": "", "jobs": {}, "episodes": [KEY[0]], "languages": ["es"], "settings": {}}, {}), "done")
    sound = _flac(space, folder, tone(12.0, 120.0, CLOCK))
    source = Source(video=sound, original=sound.sha256, width=64, height=64, rate=Fraction(25), frames=200, audio=sound,
                    channels=1)
    voice = SpokenLine(id="L0001", speaker="Ana", voice="ef_dora", text="Buenos días.", start=2 * CLOCK + 2400,
                       length=60_000, audio=_flac(space, folder, tone(1.25, 300.0, CLOCK)),
                       slot=(2 * CLOCK, 3 * CLOCK), planned=(2 * CLOCK, 3 * CLOCK), natural=75_000, stretch=1.25,
                       overflow=12_000)
    space.ledger.save([t.Episode(id=KEY[0], title="", source_path="", source_sha256=sound.sha256,
                                 source=source.model_dump(mode="json"), updated=datetime.now(UTC))])
    space.ledger.replace_lines(*KEY, [t.LineRow(
        episode=KEY[0], language="es", line="L0001", speaker="Ana", text=voice.text, start=voice.start,
        end=voice.start + voice.length, report=voice.model_dump(mode="json"))])
    return space


def _flac(space: Workspace, folder: Path, samples: np.ndarray) -> Artifact:
    path = folder / "sound.flac"
    write_flac(path, samples, CLOCK)
    return space.store.put_file(path, "audio/flac")


@contextmanager
def served(out: Path) -> Iterator[str]:
    """The page's address, while its process runs."""
    import json
    import subprocess
    import sys

    command = [sys.executable, "-m", "flows.cli", "review", "serve", "--out", str(out), "--by", "ana", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield json.loads(server.stdout.readline())["url"]
        finally:
            server.terminate()
