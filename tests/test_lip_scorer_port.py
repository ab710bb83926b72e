"""Lip scorers: lips that follow the voice pass; with the voice moved by 0.4 s, or with somebody else's, they fail."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from flows.settings import load_settings
from flows.wiring import Workspace
from models.engines import adapter, describe, missing
from models.errors import EngineError, InputError, SetupError
from models.ports import EngineHome
from models.records import (
    Artifact,
    Check,
    EngineRef,
    FaceTrack,
    HeardLine,
    Shot,
    ShotRequest,
    Source,
    SpeakerTrack,
    SpokenLine,
)
from models.weights import WeightStore
from tasks.checks_face import check_sync
from tasks.checks_picture import Made
from tasks.media import read_audio, write_flac
from tasks.step import Work
from tests.conftest import GivenEngines

EXAMPLES = Path(__file__).parent.parent / "examples" / "harbor-lights"
FILMED = EXAMPLES / "harbor-lights-s01e02.mp4"
"""George, rendered, says a sentence from 0.5 to 5.6 s."""
FACE = FaceTrack(id=0, boxes=((0, 254, 82, 155, 155), (80, 254, 82, 155, 155)))
SHOT = Shot(id="S0001", start=0, end=100, faces=(FACE,))
HOME = EngineHome(weights=Path)
REF = describe("lip-scorer", "lip-reader", {}, lambda name: {})


@pytest.fixture(scope="module")
def reader() -> Any:
    if missing("lip-scorer", "lip-reader", {}):
        pytest.skip("needs the extra infinitetalk")
    return adapter("lip-scorer", "lip-reader")(REF, HOME)


def said(work: Work, scorer: Any, voice: NDArray[np.float32], shot: Shot = SHOT) -> Check:
    """What is said of the filmed lips beside a voice at 48 kHz."""
    work.engines = GivenEngines()
    work.engines.by_port["lip-scorer"] = scorer
    write_flac(work.scratch / "stem.flac", voice)
    film = Artifact(sha256="0" * 64, size=1, media_type="video/mp4")
    source = Source(video=film, original="0" * 64, width=640, height=480, rate=Fraction(25), frames=350, audio=film,
                    channels=2)
    line = SpokenLine(id="L0001", speaker="A", voice="", text="", audio=film, start=24_000, length=242_000,
                      slot=(0, 1), planned=(0, 1), natural=1, stretch=1)
    request = ShotRequest(shot=shot.id, source=film, start=shot.start, end=shot.end, width=640, height=480,
                          rate=source.rate, faces=shot.faces, generator=EngineRef(name="lite"),
                          tracks=(SpeakerTrack(speaker="A", lines=(HeardLine(audio=film, at=0),)),))
    return check_sync(work, FILMED, source, [Made(shot, request=request)], work.scratch / "stem.flac", [line], REF)


def test_the_voice_of_a_rendered_person_moved_or_exchanged(work: Work, reader: Any) -> None:
    voice = read_audio(EXAMPLES / "harbor-lights-s01e02.dialogue.flac")
    right = said(work, reader, voice)
    assert right.state == "passed"
    assert (right.value or 0) > 0.2
    late = said(work, reader, np.roll(voice, round(0.4 * 48_000)))
    assert (late.failed, late.at) == (True, right.at)
    assert "S0001, 00:00:00" in late.worst
    assert "400 ms early" in late.worst or "360 ms early" in late.worst
    assert said(work, reader, read_audio(EXAMPLES / "harbor-lights-s01e01.dialogue.flac")).failed


def test_too_little_speech_is_said_to_be_too_little(work: Work, reader: Any) -> None:
    short = SHOT.model_copy(update={"end": 40})
    found = said(work, reader, read_audio(EXAMPLES / "harbor-lights-s01e02.dialogue.flac"), short)
    assert found.state == "not measured"
    assert "too few" in found.why


def test_a_mouth_that_stands_still_does_not_follow(reader: Any) -> None:
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 256, (1, 96, 96, 3)).astype(np.uint8), 60, 0)
    faces, spoken = np.tile(np.array([24, 24, 72, 72], np.float32), (60, 1)), np.ones(60, np.bool_)
    voice = read_audio(EXAMPLES / "harbor-lights-s01e02.dialogue.flac", rate=16_000)[16_000:16_000 + 60 * 640]
    assert reader.score(still, faces, voice, spoken).score < reader.LEAST
    with pytest.raises(EngineError, match="never moves"):
        reader.score(still, faces, np.zeros_like(voice), spoken)


def test_other_weights_are_refused() -> None:
    with pytest.raises(InputError, match="not those"):
        adapter("lip-scorer", "lip-reader")(REF.model_copy(update={"options": {"sha256": "1" * 64}}), HOME)


class Eyes:
    """In the place of SyncNet's towers: what is seen is how light it is, what is heard how loud."""

    def pictures(self, frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        light = frames[:, 80:140, 80:140].mean((1, 2, 3)) / 255
        return np.stack([light[i:len(light) - 4 + i] for i in range(5)], 1).astype(np.float32)

    def sounds(self, mfcc: NDArray[np.float32]) -> NDArray[np.float32]:
        loud = (mfcc[0] > -10).astype(np.float32)
        places = range(0, len(loud) - 19, 4)
        return np.stack([loud[at:at + 20].reshape(5, 4).mean(1) for at in places]).astype(np.float32)


@pytest.mark.parametrize("frames", [0, 5, -5])
def test_syncnet_says_how_late_lips_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    from infinitetalk.evaluate.syncnet_network import SyncNetV2

    monkeypatch.setattr(SyncNetV2, "read", lambda file: Eyes())
    (tmp_path / "syncnet_v2.model").write_bytes(b"weights")
    home = EngineHome(weights=Path, connection={"path": str(tmp_path)})
    with pytest.raises(SetupError, match="sha256 = ") as refused:
        adapter("lip-scorer", "syncnet")(EngineRef(name="syncnet"), home)
    digest = refused.value.hint.split('"')[1]
    scorer: Any = adapter("lip-scorer", "syncnet")(EngineRef(name="syncnet", options={"sha256": digest}), home)
    rng = np.random.default_rng(0)
    open_ = np.repeat(rng.random(30) > 0.5, 3)
    voice = (np.repeat(open_, 640) * rng.normal(0, 0.2, 90 * 640)).astype(np.float32)
    shown = np.broadcast_to(np.where(np.roll(open_, frames), 230, 20)[:, None, None, None], (90, 120, 120, 3))
    faces = np.tile(np.array([40, 30, 80, 70], np.float32), (90, 1))
    found = scorer.score(shown.astype(np.uint8), faces, voice, np.ones(90, np.bool_))
    assert found.late == pytest.approx(frames / 25)
    assert "Sync-D" in found.words
    with pytest.raises(EngineError, match="too few"):
        scorer.score(shown[:50].astype(np.uint8), faces[:50], voice, np.ones(50, np.bool_))


def test_who_reads_lips_follows_from_who_made_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(generator: str, **flags: Any) -> str:
        settings = load_settings(None, {"state": str(tmp_path), **flags})
        space = Workspace(settings=settings, store=None, ledger=None,  # type: ignore[arg-type]
                          weights=WeightStore(tmp_path), engines=None)  # type: ignore[arg-type]
        found = space.lip_scorer(generator)
        return found.name if found else ""

    monkeypatch.setattr("models.engines.lip_reader.find_spec", lambda _name: None)
    assert (chosen("lite"), chosen("nano")) == ("lip-reader", "lip-reader"), "whatever is installed here"
    assert (chosen("infinitetalk"), chosen("files")) == ("", ""), "people may be real"
    assert chosen("lite", **{"options.lite.path": str(tmp_path)}) == "", "weights that learnt from nobody knows whom"
    assert chosen("lite", **{"engines.lip-scorer": "syncnet"}) == "syncnet"
