"""The verb `evaluate`, on drawn videos and on renders: files in, figures with their coverage out."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile

from flows.cli import run_command
from infinitetalk.errors import BadInputError, BadWeightsError, InfiniteTalkError, TooLargeError
from infinitetalk.evaluate import clips, mouth, picture
from infinitetalk.evaluate.faces import HogFaces, interpolated, mouths
from infinitetalk.evaluate.public import TrainedMouth, instruments
from tests import moving_mouths as faults
from tests.moving_mouths import Drawn

Call = Callable[..., tuple[int, dict[str, Any]]]


def write(path: Path, frames: Any, rate: int = 25) -> Path:
    """Pictures without loss."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=rate, options={"qp": "0", "preset": "ultrafast"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs the verb with --json; stdout must hold one JSON object and nothing else."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        code = run_command(["evaluate", *map(str, arguments), "--json"])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1, lines
        return code, json.loads(lines[0])

    return run


def rows(video: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in video["measures"]}


# -- drawn videos -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source, what was made of it (with colours that drift), its sound, and a picture that was pasted."""
    from PIL import Image

    folder, clip = tmp_path_factory.mktemp("drawn"), faults.draw(5)
    write(folder / "source.mkv", clip.frames)
    write(folder / "made.mkv", faults.pasted(faults.drifting(clip), 60).frames)
    Image.fromarray(clip.other).save(folder / "other.png")
    noise = np.random.default_rng(0).normal(0, 0.1, 8 * 16_000) * np.repeat(clip.track[:, 0], 640)
    soundfile.write(folder / "said.wav", noise, 16_000)
    return folder


def test_figures_come_with_coverage_and_reasons(drawn: Path, call: Call, tmp_path: Path) -> None:
    report = tmp_path / "deep" / "report.md"
    code, told = call(drawn / "made.mkv", "--source", drawn / "source.mkv", "--audio", drawn / "said.wav",
                      "--reference", drawn / "other.png", "--report", report)
    found = rows(told["videos"][0])
    assert code == 0
    assert found["drift from source"]["value"] == pytest.approx(0.03 * np.sqrt(2), rel=0.15)
    assert found["copy"]["value"] > 20
    assert found["copy"]["details"]["frame"] == 60
    assert (found["seam"]["covered"], found["seam"]["of"]) == (2, 2)
    assert found["FID"]["covered"] == 200
    assert found["FVD"]["covered"] == 12
    assert "project's own" in found["FID"]["instrument"]
    assert found["CSIM"]["value"] is None
    assert "no face network" in found["CSIM"]["why"]
    assert found["Sync-C*"]["of"] == 200
    assert "no score on HDTF" in told["note"]
    text = report.read_text()
    assert "| copy |" in text
    assert f"{told['videos'][0]['with_mouth']} with a mouth" in text


def test_what_was_not_given_is_said(drawn: Path, call: Call) -> None:
    code, told = call(drawn / "made.mkv", "--chunk", 33, "--frames", 100, "--side", 48)
    found = rows(told["videos"][0])
    assert code == 0
    assert told["videos"][0]["frames"] == 100
    assert found["seam"]["covered"] == 3
    assert {name for name in ("copy", "camera error", "FID", "motion copy") if found[name]["value"] is None} == {
        "copy", "camera error", "FID", "motion copy"}
    assert found["Sync-C*"]["value"] is None
    assert any("no driving track" in note for note in told["videos"][0]["notes"])


def test_long_videos_are_told_in_windows(tmp_path: Path, call: Call) -> None:
    clip = faults.draw(8, frames=150)
    write(tmp_path / "source.mkv", clip.frames, 5)
    write(tmp_path / "made.mkv", faults.drifting(clip, 0.1).frames, 5)
    code, told = call(tmp_path / "made.mkv", "--source", tmp_path / "source.mkv")
    windows = told["videos"][0]["windows"]
    assert code == 0
    assert [row["seconds"] for row in windows] == [10, 20, 30]
    for name in ("Lab distance", "FID"):
        own = [row[name] for row in windows]
        assert own == sorted(own)
        assert own[2] > windows[2][f"{name}, up to here"] > own[0]
        assert told["per_minute"][name]["mean"] > 0


def test_a_folder_counts_what_it_leaves_out(drawn: Path, call: Call, tmp_path: Path) -> None:
    made, sources = tmp_path / "made", tmp_path / "sources"
    for folder, name in ((made, "made.mkv"), (sources, "source.mkv")):
        folder.mkdir()
        for copy in ("a", "b", "c"):
            (folder / f"{copy}.mkv").write_bytes((drawn / name).read_bytes())
    (made / "broken.mp4").write_bytes(b"\0" * 999)
    (sources / "c.mkv").unlink()
    code, told = call(made, "--source", sources, "--side", 32, "--frames", 60)
    assert code == 0
    assert [video["name"] for video in told["videos"]] == ["a", "b"]
    assert set(told["skipped"]) == {"broken.mp4", "c.mkv"}
    assert told["means"]["drift"]["clips"] == 2
    assert told["pooled"][0]["covered"] == 120


@pytest.mark.parametrize(("arguments", "why"), [
    (("nothing.mkv",), "cannot be read"), (("made.mkv", "--source", "other.png"), "frames a second|cannot|has no"),
    (("made.mkv", "--reference", "nothing.png"), "cannot be read"), (("made.mkv", "--reference", "7"), "frame 7"),
    (("made.mkv", "--truth", "source.mkv"), "truth is missing"), (("made.mkv", "--chunk", "9"), "context"),
    (("made.mkv", "--audio", "source.mkv"), "sound"), (("made.mkv", "--report", "here.txt"), "report"),
    (("made.mkv", "--reader", "said.wav"), "said.wav"), (("made.mkv", "--networks", "nowhere"), "nowhere"),
    (("made.mkv", "--source", "fast.mkv"), "50 frames a second")])
def test_what_cannot_be_used_is_one_line(drawn: Path, call: Call, monkeypatch: pytest.MonkeyPatch,
                                         arguments: tuple[str, ...], why: str) -> None:
    monkeypatch.chdir(drawn)
    if not (drawn / "fast.mkv").exists():
        write(drawn / "fast.mkv", faults.draw(6, frames=20).frames, 50)
    code, told = call(*arguments, "--frames", 30)
    assert code == 2
    assert told["error"]["exit_code"] == 2
    assert re.search(why, told["error"]["message"]), told


def test_pictures_that_would_fill_the_memory_are_refused(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clips, "MOST_BYTES", 10**6)
    with pytest.raises(TooLargeError, match="200 frames"):
        clips.read_video(drawn / "made.mkv")
    assert len(clips.read_video(drawn / "made.mkv", most=50).frames) == 50


def test_boxes_move_with_their_pictures() -> None:
    frame = np.zeros((60, 100, 3), np.uint8)
    frame[20:40, 40:60] = 255
    small = clips.scaled(frame, (30, 30))
    box = clips.moved(np.array([[40, 20, 60, 40]]), (60, 100), (30, 30))[0]
    assert box == pytest.approx([10, 10, 20, 20])
    assert small[10:20, 10:20].min() == 255
    assert small.sum() == 255 * 300


def test_boxes_are_not_invented_where_nobody_is() -> None:
    face, none = np.array([0, 0, 10, 10], np.float32), np.full(4, np.nan, np.float32)
    found = interpolated(np.array([0, 5, 10, 40]), np.stack([face, face + 10, none, face]), 41)
    assert found[3] == pytest.approx(face + 6)
    assert np.isnan(found[6:40]).all()
    assert np.isfinite(mouths(found)[[0, 5, 40]]).all()


def test_instruments_that_are_absent_are_named(tmp_path: Path) -> None:
    chosen, absent = instruments()
    assert chosen.faces is None
    assert "dlib-128" in absent
    with pytest.raises(BadWeightsError):
        TrainedMouth(tmp_path / "reader.safetensors")


# -- renders ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def render() -> Any:
    """Five seconds of somebody held out, small and coarse."""
    pytest.importorskip("moderngl")
    from infinitetalk.world.clip import HELD_OUT, make_clip
    from infinitetalk.world.renderer import Renderer

    try:
        with Renderer((48, 48), 1) as renderer:
            return make_clip(HELD_OUT + 1, 5, 48, framing="head", renderer=renderer)
    except InfiniteTalkError as error:
        pytest.skip(f"nothing can be rendered here: {error}")


def as_drawn(render: Any) -> Drawn:
    truth = render.truth[0]
    return Drawn(render.frames, truth.visemes, truth.mouth, np.full_like(render.frames[0], 90))


def test_faults_show_on_renders(render: Any) -> None:
    clip, reader = as_drawn(render), mouth.DarkMouth()
    joins = picture.joins(125, 33)

    def sync(one: Drawn) -> mouth.Sync:
        return mouth.sync(reader.read(one.frames, one.boxes), one.track)

    before, after = sync(clip), sync(faults.late(clip))
    assert before.lag == 0
    assert before.at_zero > 0.5
    assert after.lag == -4
    assert after.at_zero < 0.5 * before.at_zero
    backwards = mouth.sync(reader.read(clip.frames, clip.boxes), clip.track[::-1])
    assert backwards.confidence < before.confidence - 0.2
    assert picture.drift(faults.drifting(clip).frames, clip.frames) > 0.02
    spliced = faults.spliced(clip, 33, 57, 40)
    assert picture.seam(spliced.frames, joins).ratio > 1.8 * picture.seam(clip.frames, joins).ratio
    assert picture.copy(faults.pasted(clip, 77).frames, clip.other[None]).frame == 77
    for fault in (faults.drifting(clip), faults.pasted(clip, 77), spliced):
        assert abs(sync(fault).confidence - before.confidence) < 0.2


def test_a_clip_of_the_world_is_judged_with_its_truth(render: Any, call: Call, tmp_path: Path) -> None:
    from infinitetalk.world.clip_file import save_clip

    save_clip(render, tmp_path, "clip")
    path = tmp_path / "clip.mkv"
    code, told = call(path, "--source", path, "--truth", path, "--reference", 30, "--chunk", 33)
    found = rows(told["videos"][0])
    assert code == 0
    assert told["videos"][0]["with_mouth"] == 125
    assert found["lag*"]["value"] == 0
    assert "truth" in found["Sync-C*"]["instrument"]
    assert found["motion copy"]["value"] == pytest.approx(1)
    assert found["FID"]["value"] < 1e-5
    assert call(path, "--truth", path, "--person", 1)[0] == 2
    with pytest.raises(BadInputError, match="truth"):
        clips.read_truth(tmp_path / "other.mkv")


@pytest.mark.skipif(not HogFaces.there(), reason="dlib is not installed")
def test_faces_are_found_where_no_truth_is(render: Any) -> None:
    boxes = mouths(HogFaces().find(render.frames[:11]))
    assert np.isfinite(boxes).all(1).mean() > 0.5
    middles = [(one[:, :2] + one[:, 2:]) / 2 for one in (boxes, render.truth[0].mouth[:11])]
    assert np.nanmax(np.abs(middles[0] - middles[1])) < 8
