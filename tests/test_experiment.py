"""The experiment on conditioning: forks, pairs, figures, claims; nothing is done twice, and what its report says."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flows import cli_experiment
from infinitetalk.errors import BadInputError, BadResultError
from infinitetalk.evaluate.motion import Shift
from infinitetalk.experiment import conditioning
from infinitetalk.experiment.arms import FORKS, Arm, arms
from infinitetalk.experiment.bench import Bench, How, Item, Pair, Sparse, _copies, items, pairs
from infinitetalk.experiment.claims import Claim, Table, claims, judge
from infinitetalk.experiment.conditioning import Experiment, Training
from infinitetalk.plan import ChunkSize, plan
from infinitetalk.reference import I2V, Source
from infinitetalk.train.data import Prepared
from models.errors import InputError, SetupError
from tests.tiny_small import MINI, clip, write_folder

SMALL = replace(MINI, frames=21)
QUICK = {"steps": 1, "batch": 2, "pairs": 2, "seeds": 1, "chunks": 2, "sampler": 1}
ARMS = arms(SMALL, 0.8)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def written(_source: Path, out: Path, _side: int, *_: object, **_how: object) -> Prepared:
    """What `data.prepare` leaves: two clips to learn from, three of other people."""
    names = []
    for number in range(5):
        names.append({"name": f"clip{number}", "frames": 60, "held_out": number > 1})
        (out / f"clip{number}").mkdir(parents=True, exist_ok=True)
        for part, value in vars(clip(number, 60)).items():
            np.save(out / f"clip{number}" / f"{part}.npy", value)
    (out / "index.json").write_text(json.dumps({"side": MINI.side, "close": False, "clips": names}))
    return Prepared(5, {})


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    monkeypatch.setattr("infinitetalk.train.lessons.prepare", written)
    monkeypatch.setattr("infinitetalk.experiment.conditioning.prepare", written)
    write_folder(tmp_path / "base", SMALL)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "manifest.jsonl").write_text("{}")

    def run(**options: Any) -> int:
        return cli_experiment.conditioning(tmp_path / "base", tmp_path / "data", work=tmp_path / "work",
                                           out=tmp_path / "report", as_json=True, **{**QUICK, **options})

    return run


# -- in pieces --------------------------------------------------------------------------------------------------------


def test_it_goes_on_where_it_was_cut_and_does_nothing_twice(verb: Callable[..., int], tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch,
                                                            capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="no experiment to go on with"):
        verb(resume=True)
    monkeypatch.setattr("infinitetalk.evaluate.motion.register", lambda *args, **how: Shift(0, 0, 0, 0))  # slow
    make, made = Bench.make, []

    def pulled(self: Bench, item: Item) -> None:
        if len(made) == 5:
            raise KeyboardInterrupt
        made.append((item.arm.name, item.pair))
        make(self, item)

    monkeypatch.setattr(Bench, "make", pulled)
    with pytest.raises(KeyboardInterrupt):
        verb()
    train, trained = conditioning.train_transformer, []
    monkeypatch.setattr(conditioning, "train_transformer",
                        lambda *args, **options: trained.append(args[1].name) or train(*args, **options))
    monkeypatch.setattr(Bench, "make", lambda self, item: made.append((item.arm.name, item.pair)) or make(self, item))
    with pytest.raises(InputError, match="holds an experiment already"):
        verb()
    with pytest.raises(InputError, match="other settings \\(how\\)"):
        verb(resume=True, sampler=2)
    with pytest.raises(InputError, match="other settings \\(training\\)"):
        verb(resume=True, steps=2)
    (tmp_path / "data" / "another").write_text("clip")
    with pytest.raises(InputError, match="other settings \\(data, test\\)"):
        verb(resume=True)
    (tmp_path / "data" / "another").unlink()
    torn = Item(ARMS[3], 0, 0).file(tmp_path / "work")
    whole = torn.read_text()
    torn.write_text(whole[:40])
    (tmp_path / "work" / "forks" / "M2" / "done.json").unlink()
    assert verb(resume=True) == 0
    assert trained == ["M2"]
    assert torn.read_text() == whole  # the same seed is the same dub
    told = json.loads(capsys.readouterr().out)
    assert (told["finished"], told["forks"], told["dubbed"]) == (True, 7, 2 * len(ARMS))
    assert sorted(made) == sorted([(ARMS[3].name, 0), *((arm.name, pair) for arm in ARMS for pair in range(2))])

    report = (tmp_path / "report" / "conditioning.md").read_text()
    ours, paper = report.index("## Figures"), report.index("## What the paper prints")
    assert "42.17" not in report[:paper]
    assert all(f"| {name} |" in report[paper:] for name in ("M0", "M1", "M2", "M3"))
    assert "is no score on HDTF" in report[:ours]
    assert "sources are too few" in report
    assert "Not finished" not in report
    assert "camera error is missing: the background cannot be recognised" in report
    assert "- copy is missing: no reference is told beside the chunks" in report
    assert f"| camera error |{' 0 of 2 |' * len(ARMS)}" in report
    kept = json.loads((tmp_path / "report" / "conditioning.json").read_text())
    assert {one["verdict"] for one in kept["claims"]} == {"not tested"}  # two sources, and random weights
    assert kept["means"]["M3"]["seam"]["clips"] == 2
    assert kept["means"]["source, other voice"]["colour error"]["mean"] == 0
    for name in ("figures", "colours", "pictures"):
        assert (tmp_path / "report" / f"conditioning-{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert f"(conditioning-{name}.png)" in report


def test_what_cannot_be_done_is_said_before_anything_is_trained(verb: Callable[..., int], tmp_path: Path,
                                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditioning, "train_transformer", lambda *args, **options: pytest.fail("trained"))
    with pytest.raises(InputError, match=r"world render --split test --size 16 --seconds 11"):
        verb(chunks=12)
    with pytest.raises(InputError, match="3 clips make 6 pairs, not 60"):
        cli_experiment.conditioning(tmp_path / "base", tmp_path / "data", work=tmp_path / "other", chunks=2)
    with pytest.raises(InputError, match="at most 10"):
        cli_experiment.conditioning(tmp_path / "base", tmp_path / "data", work=tmp_path / "third", minutes=11)
    (tmp_path / "base" / "dit.safetensors").unlink()
    with pytest.raises(SetupError, match=r"dit\.safetensors is not there"):
        cli_experiment.conditioning(tmp_path / "base", tmp_path / "data", work=tmp_path / "fourth")
    assert not (tmp_path / "fourth").exists()


# -- what is compared -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clips", "count"), [(3, 6), (4, 7), (60, 60), (9, 60)])
def test_pairs_never_give_anybody_his_own_voice_and_use_all_alike(clips: int, count: int) -> None:
    found = pairs(clips, count)
    assert len(set(found)) == count
    assert all(source != voice for source, voice in found)
    for which in zip(*found, strict=True):
        often = np.bincount(which, minlength=clips)
        assert np.ptp(often[often > 0]) <= 1


def test_more_pairs_than_there_are_are_refused() -> None:
    with pytest.raises(BadInputError, match="2 pairs, not 3"):
        pairs(2, 3)


def test_every_arm_has_the_chunks_asked_for_and_forks_differ_in_their_references_alone() -> None:
    how = How(chunks=8)
    assert min(len(plan(how.frames(SMALL), arm.size(SMALL))) for arm in ARMS) == 8
    recipes = {name: Training().recipe(name) for name in FORKS}
    assert len({repr(replace(one, draw=recipes["M3"].draw)) for one in recipes.values()}) == 1
    assert len({repr(one.draw) for one in recipes.values()}) == len(FORKS)
    streams = [arm.stream(SMALL, 1, 1.0, 0.0) for arm in ARMS if arm.weights]
    assert len({(arm.weights, repr(one)) for arm, one in zip((a for a in ARMS if a.weights), streams,
                                                             strict=True)}) == len(streams)
    assert {one.color for one in streams} == {0.0}
    assert {one.sampling.temperature for one in streams} == {1.0}  # that of training


def test_controls_are_measured_once_and_arms_stay_even_wherever_it_is_cut() -> None:
    every = items(ARMS, How(pairs=2, seeds=3, ablation_seeds=2))
    often = {arm.name: sum(item.arm is arm for item in every) for arm in ARMS}
    assert {often[arm.name] for arm in ARMS if not arm.weights} == {2}
    assert {often[arm.name] for arm in ARMS if arm.ablation} == {4}
    assert {often[arm.name] for arm in ARMS if arm.weights and not arm.ablation} == {6}
    halfway = [item.arm.name for item in every[:len(ARMS) + 3]]
    assert len(set(halfway)) == len(ARMS)


# -- figures ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("at", "ends"), [(None, None), (33, 0.0), (39, 1.0), (26, 1.0)])
def test_a_pasted_reference_is_found_with_its_place(at: int | None, ends: float | None) -> None:
    rng = np.random.default_rng(0)
    source, frames = (rng.integers(0, 255, (40, 16, 16, 3)).astype(np.uint8) for _ in range(2))
    if at is not None:
        frames[at] = source[16]  # what the second chunk is told
    found = _copies(Arm("x", "", "M0", Source()), frames, source, ChunkSize(25, 9))
    assert (found["copy"] > 100) == (at is not None)
    assert ends is None or found["copy at ends"] == ends
    assert _copies(Arm("x", "", "I2V", I2V()), frames, source, ChunkSize(25, 1)) == {}


def test_faces_are_looked_at_now_and_then() -> None:
    class Faces:
        name, centre = "faces", None

        def embed(self, frames: np.ndarray) -> np.ndarray:
            return frames.reshape(len(frames), -1)[:, :2].astype(np.float32)

    frames = np.arange(40)[:, None, None, None] * np.ones((1, 2, 2, 3))
    seen = Sparse(Faces()).embed(frames.astype(np.uint8))
    assert np.flatnonzero(np.isfinite(seen[:, 0])).tolist() == [0, 16, 32]
    assert seen[32].tolist() == [32, 32]


def table(**arms_: Callable[[int], float | None]) -> Table:
    """Drift by arm and source, two dubs a source; lips of M3 follow."""
    r, covered = arms_.get("r", lambda pair: 0.4), arms_.get("covered", lambda pair: 10)

    def figure(value: float | None, pair: int) -> dict[str, object]:
        return {"value": value, "covered": covered(pair), "of": 10, "why": "" if value else "too dark", "by": ""}

    return Table({name: {(pair, 0): {"source": pair % 10, "apart": [0.0], "figures": {
        "drift": figure(value(pair), pair), "Sync-C*": figure(value(pair), pair), "r at lag 0": figure(r(pair), pair)}}
        for pair in range(20)} for name, value in arms_.items()})


def noisy(mean: float, seed: int = 0) -> Callable[[int], float]:
    drawn = np.random.default_rng(seed).normal(mean, 0.1, 20)
    return lambda pair: float(drawn[pair])


@pytest.mark.parametrize(("worse", "verdict", "why"), [
    (1.0, "repeated", "drift of I2V − M3: \\+1"), (0.0, "not repeated", "crosses 0"),
    (-1.0, "not repeated", "the other way round")])
def test_a_claim_is_judged_by_the_interval_of_its_difference(worse: float, verdict: str, why: str) -> None:
    found = judge(Claim("It drifts", "drift", "I2V"), table(I2V=noisy(0.5 + worse, 1), M3=noisy(0.5)))
    assert found.verdict == verdict
    assert found.difference is not None
    assert found.difference.clips == 10
    assert re.search(why, found.why)
    assert found.sentence.startswith(f"It drifts: **{verdict}**")


def test_what_cannot_be_told_is_no_verdict() -> None:
    sync = Claim("Lips", "Sync-C*", "M0", more=False)
    follow, deaf = table(M0=noisy(0.1, 1), M3=noisy(0.5)), table(M0=noisy(0.1, 1), M3=noisy(0.5), r=noisy(0.0, 2))
    assert judge(sync, follow).verdict == "repeated"
    assert "do not follow the voice" in judge(sync, deaf).why
    assert judge(Claim("", "seam", "M0"), follow).verdict == "not tested"
    assert judge(Claim("", "drift", "M1"), follow).verdict == "not tested"
    thin = table(M0=noisy(0.1), M3=noisy(0.5), covered=lambda pair: 4)  # of 10
    assert judge(Claim("", "drift", "M0"), thin).verdict == "not tested"
    assert thin.reasons()["drift"] == "told in 4 of 10 frames only"
    dark = table(M0=lambda pair: None, M3=noisy(0.5))
    assert judge(Claim("", "drift", "M0"), dark).verdict == "not tested"
    assert dark.covered("M0", "drift") == (0, 20)
    assert dark.reasons()["drift"] == "too dark"


def test_dubs_of_one_source_are_one_witness() -> None:
    one = table(M3=lambda pair: float(pair % 10)).mean("M3", "drift")
    assert one is not None
    assert (one.clips, one.mean) == (10, 4.5)


def test_claims_are_of_arms_and_figures_that_there_are(verb: Callable[..., int], tmp_path: Path) -> None:
    names = {arm.name for arm in ARMS}
    told = claims("M3, SDEdit 0.8")
    assert {one.arm for one in told} | {one.than for one in told} <= names
    experiment = Experiment(tmp_path / "work", tmp_path / "base", tmp_path / "data", None, Training(1, batch=1),
                            How(2, 1, 1, 2, 1))
    written(tmp_path, tmp_path / "work" / "held", 0)
    item = Item(ARMS[1], 0, 0)
    experiment.bench.make(item)
    assert experiment.bench.pairs[0] == Pair(0, 1)
    figures = json.loads(item.file(tmp_path / "work").read_text())["figures"]
    assert {one.figure for one in told} <= set(figures)


def test_errors_come_back_whole_from_other_processes() -> None:
    for error in (BadInputError("is dark", where="clip", hint="Light it"), BadResultError("no numbers")):
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back)) == (type(error), str(error))
