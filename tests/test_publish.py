"""Delivered files: whole, where they belong, restored when lost, left alone when right."""

from __future__ import annotations

import errno
import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import sqlalchemy as sa

from models import tables as t
from models.errors import InputError, StorageFullError
from models.records import (
    Artifact,
    Assembled,
    CastVoice,
    Check,
    Deliverable,
    EngineRef,
    FaceTrack,
    Inspection,
    Loudness,
    Mix,
    Package,
    Plan,
    PlannedShot,
    ShotRequest,
    Source,
    Speech,
    SpokenLine,
)
from tasks import publish as module
from tasks.contact_sheet import BACKGROUND, CAPTION, GAP, MOMENTS, MOST_ROWS, WIDTH
from tasks.media import FrameWriter
from tasks.publish import publish, publish_multi
from tasks.step import Work
from tasks.store import hash_file

RATE = Fraction(25)
EPISODE = "harbor-lights/s01e01"
STEMS = {f"s01e01.es.{name}.flac" for name in ("dialogue", "me", "mix")}
NAMES = {"s01e01.es.mp4", "s01e01.es.srt", "s01e01.es.vtt", *STEMS, "contact-sheet.png", "qc.html", "report.json"}


def pictures(work: Work, color: int, frames: int) -> Artifact:
    path = work.scratch / "pictures.mkv"
    with FrameWriter(path, 64, 48, RATE) as file:
        for number in range(frames):
            file.write(np.full((48, 64, 3), color + number, np.uint8))
    return work.store.put_file(path, "video/x-matroska")


@pytest.fixture
def given(work: Work, tmp_path: Path) -> dict[str, Any]:
    """A finished language: two shots of ten frames, the second one generated."""
    source, dubbed = pictures(work, 60, 20), pictures(work, 160, 20)
    sound = work.store.put_bytes(b"fLaC sound", "audio/flac")
    line = SpokenLine(id="L0001", speaker="A", voice="v", text="Está lejos.", audio=sound, start=4800, length=9600,
                      slot=(4800, 14_400), planned=(4800, 14_000), natural=11_000, stretch=1.1458, overflow=480,
                      flags=("too long",))
    loud = Loudness(integrated_lufs=-23.1, true_peak_dbtp=-8.5)
    shots = (PlannedShot(shot="S0001", start=0, end=10, kind="passthrough", reason="nobody speaks"),
             PlannedShot(shot="S0002", start=10, end=20, kind="generate", reason="A is seen – speaking"))
    return {
        "out": tmp_path / "dubbed", "episode": EPISODE, "language": "es",
        "assembled": Assembled(language="es", video=dubbed, frames=20, rate=RATE, generated_frames=10,
                               video_copied=False, subtitles={"srt": work.store.put_bytes(b"1\n", "text/srt"),
                                                              "vtt": work.store.put_bytes(b"WEBVTT", "text/vtt")}),
        "mix": Mix(language="es", mix=sound, dialogue=sound, bed=sound, bed_kind="ducked", loudness=loud, gain_db=-3),
        "speech": Speech(language="es", lines=(line,)),
        "plan": Plan(language="es", frames=20, rate=RATE, shots=shots),
        "inspection": Inspection(language="es", loudness=loud, back_wer=0.05, onset_within_120ms=1.0,
                                 checks=(Check(name="frames", value=20, bar="= 20", passed=True),),
                                 stretched_over_1_15=0, overflow_lines=1),
        "source": Source(video=source, original="a" * 64, width=64, height=48, rate=RATE, frames=20, audio=sound,
                         channels=2, conformed=("rotation",)),
    }


@pytest.fixture
def said(work: Work) -> list[str]:
    texts: list[str] = []
    work.progress = lambda text, _done: texts.append(text)
    return texts


def folder_of(given: dict[str, Any]) -> Path:
    return Path(given["out"]) / EPISODE / "es"


def stats(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.iterdir()}


def deliveries(work: Work) -> dict[str, t.Delivery]:
    with work.ledger.session() as session:
        return {Path(row.path).name: row for row in session.scalars(sa.select(t.Delivery))}


def test_the_report_flags_each_voice_that_nobody_chose_once(work: Work, given: dict[str, Any]) -> None:
    chosen = (CastVoice(speaker="A", member="M1", name="Anna", voice="v", chosen="default"),
              CastVoice(speaker="B", member="M2", name="", voice="w", chosen="person"))
    report = json.loads(Path(publish(work, **given, cast=chosen).report).read_text())
    assert [(one["speaker"], one["name"], one["voice"], one["flags"]) for one in report["cast"]] == [
        ("A", "Anna", "v", ["voice by default: nobody chose it"]), ("B", "", "w", [])]


def test_stems_are_delivered_unless_nobody_wants_them(work: Work, given: dict[str, Any]) -> None:
    publish(work, **given, stems=False)
    assert {path.name for path in folder_of(given).iterdir()} == NAMES - STEMS
    report = json.loads((folder_of(given) / "report.json").read_text())
    assert report["mix"]["leak"] is None
    assert not STEMS & set(report["files"])


def test_everything_is_delivered_whole(work: Work, given: dict[str, Any]) -> None:
    found: Deliverable = publish(work, **given)
    folder = folder_of(given)
    assert {path.name for path in folder.iterdir()} == NAMES
    assert (found.video, found.report) == (str(folder / "s01e01.es.mp4"), str(folder / "report.json"))
    assert found.subtitles == (str(folder / "s01e01.es.srt"), str(folder / "s01e01.es.vtt"))
    assert hash_file(Path(found.video)) == given["assembled"].video.sha256
    assert (found.duration_s, found.generated_s, found.passthrough_s, found.fps) == (0.8, 0.4, 0.4, 25.0)
    assert (found.max_stretch, found.passed, found.back_wer) == (1.1458, True, 0.05)
    rows = deliveries(work)
    assert {name: row.sha256 for name, row in rows.items()} == {p.name: hash_file(p) for p in folder.iterdir()}
    assert Deliverable.model_validate(rows["report.json"].record) == found


def test_report_tells_lines_shots_and_checks(work: Work, given: dict[str, Any]) -> None:
    report = json.loads(Path(publish(work, **given).report).read_text())
    assert report["lines"][0] == {
        "id": "L0001", "speaker": "A", "voice": "v", "text": "Está lejos.", "planned": [0.1, 0.292], "slot": [0.1, 0.3],
        "spoken": [0.1, 0.3], "natural": 0.229, "stretch": 1.1458, "overflow": 0.01, "coverage": 1.0,
        "flags": ["too long"]}
    assert [shot["kind"] for shot in report["shots"]] == ["passthrough", "generate"]
    assert report["shots"][1]["at"] == "00:00:00.400"
    assert report["inspection"]["passed"] is True
    assert (report["mix"]["bed"], report["source"]["conformed"]) == ("ducked", ["rotation"])
    assert set(report["files"]) == NAMES - {"report.json"}


def pair(sheet: Any, top: int, column: int) -> tuple[int, int]:
    """Values of source and dub in a column of a strip that begins at `top`, of pictures of 4:3."""
    height, x = WIDTH * 3 // 4, GAP + column * (WIDTH + GAP) + WIDTH // 2
    y = top + 2 * CAPTION + height // 2
    return int(sheet[y, x, 0]), int(sheet[y + height + GAP, x, 0])


def test_contact_sheet_shows_the_source_above_the_dub_where_somebody_speaks(work: Work, given: dict[str, Any]) -> None:
    line = given["speech"].lines[0]
    given["speech"] = Speech(language="es", lines=(line.model_copy(update={"start": 12 * 1920, "length": 8 * 1920}),))
    publish(work, **given)
    sheet = cv2.imread(str(folder_of(given) / "contact-sheet.png"))
    second = sheet.shape[0] // 2
    assert pair(sheet, 0, 0) == pytest.approx((60 + 5, 160 + 5), abs=3)  # nobody speaks: the middle, once
    assert pair(sheet, 0, 1) == (BACKGROUND, BACKGROUND)
    frames = [13, 15, 17, 19]
    assert [pair(sheet, second, column) for column in range(MOMENTS)] == [
        pytest.approx((60 + frame, 160 + frame), abs=3) for frame in frames]


def test_contact_sheet_shows_the_face_of_a_generated_shot_close_up(work: Work, given: dict[str, Any]) -> None:
    first, second = given["plan"].shots
    request = ShotRequest(shot="S0002", source=given["source"].video, start=10, end=20, width=64, height=48, rate=RATE,
                          tracks=(), faces=(FaceTrack(id=0, boxes=((10, 0, 0, 10, 10), (15, 10, 0, 10, 10))),),
                          generator=EngineRef(name="lite"))
    given["plan"] = Plan(language="es", frames=20, rate=RATE,
                         shots=(first, second.model_copy(update={"request": request})))
    publish(work, **given)
    sheet = cv2.imread(str(folder_of(given) / "contact-sheet.png"))
    strips = [2 * CAPTION + 2 * (height + GAP) for height in (WIDTH * 3 // 4, WIDTH)]  # a face's is square
    assert sheet.shape[:2] == (sum(strips), MOMENTS * (WIDTH + GAP) + GAP)


def test_contact_sheet_of_very_many_shots_stays_small(work: Work, given: dict[str, Any]) -> None:
    shots = tuple(PlannedShot(shot=f"S{i:04d}", start=i, end=i + 1, kind="passthrough", reason="") for i in range(20))
    given["plan"] = Plan(language="es", frames=20, rate=RATE, shots=shots * 10)
    publish(work, **given)
    assert cv2.imread(str(folder_of(given) / "contact-sheet.png")).shape[0] < 420 * MOST_ROWS


def test_what_is_right_is_not_touched_nor_read_again(work: Work, given: dict[str, Any], said: list[str],
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    first = publish(work, **given)
    before, executions = stats(folder_of(given)), dict(work.counts)
    monkeypatch.setattr(module, "hash_file", lambda path: pytest.fail(f"{path} was read"))
    said.clear()
    assert publish(work, **given) == first
    assert stats(folder_of(given)) == before
    assert dict(work.counts) == executions
    assert not said


def test_deleted_files_are_restored(work: Work, given: dict[str, Any], said: list[str]) -> None:
    publish(work, **given)
    for path in sorted(folder_of(given).iterdir()):
        digest = hash_file(path)
        path.unlink()
        before = stats(folder_of(given))
        publish(work, **given)
        assert hash_file(path) == digest
        assert path.name in said[-1]
        assert "was deleted" in said[-1]
        assert {n: s for n, s in stats(folder_of(given)).items() if n != path.name} == before


def test_a_changed_file_is_restored_and_told(work: Work, given: dict[str, Any], said: list[str]) -> None:
    path = Path(publish(work, **given).video)
    digest = hash_file(path)
    path.write_bytes(b"cut short")
    publish(work, **given)
    assert hash_file(path) == digest
    assert any(path.name in text and "was changed" in text for text in said)


def test_a_new_version_replaces_the_old_one_silently(work: Work, given: dict[str, Any], said: list[str]) -> None:
    publish(work, **given)
    subtitles = {**given["assembled"].subtitles, "srt": work.store.put_bytes(b"2\n", "text/srt")}
    given["assembled"] = given["assembled"].model_copy(update={"subtitles": subtitles})
    found = publish(work, **given)
    assert Path(found.subtitles[0]).read_bytes() == b"2\n"
    assert not any("restored" in text for text in said)
    assert deliveries(work)["s01e01.es.srt"].sha256 == subtitles["srt"].sha256


def test_a_file_touched_but_not_changed_stays(work: Work, given: dict[str, Any], said: list[str]) -> None:
    path = Path(publish(work, **given).video)
    os.utime(path, (1, 1))
    publish(work, **given)
    assert path.stat().st_mtime == 1
    assert not any("restored" in text for text in said)


def test_ids_that_leave_the_folder_are_refused(work: Work, given: dict[str, Any]) -> None:
    for episode in ("../x", "a/../../x", "/etc/x", "a//b", "", ".infinidub/x", "a\\b", "a\0b", "a/.."):
        with pytest.raises(InputError, match="leads out of the output folder"):
            publish(work, **{**given, "episode": episode})
    with pytest.raises(InputError, match="leads out of the output folder"):
        publish(work, **{**given, "language": "../../x"})
    assert not given["out"].exists()


def test_a_link_out_of_the_folder_is_refused(work: Work, given: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    given["out"].mkdir()
    (given["out"] / "harbor-lights").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="leads out of the output folder"):
        publish(work, **given)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_an_output_folder_that_cannot_be_made(work: Work, given: dict[str, Any]) -> None:
    given["out"].write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        publish(work, **given)


def test_a_folder_in_the_way(work: Work, given: dict[str, Any]) -> None:
    (folder_of(given) / "s01e01.es.mp4").mkdir(parents=True)
    with pytest.raises(InputError, match="in the way"):
        publish(work, **given)


def test_a_full_disk_leaves_nothing_half_written(work: Work, given: dict[str, Any],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(module.shutil, "copyfile", full)
        with pytest.raises(StorageFullError):
            publish(work, **given)
    assert not list(folder_of(given).iterdir())
    assert not deliveries(work)
    publish(work, **given)
    assert {path.name for path in folder_of(given).iterdir()} == NAMES


def test_multi_lies_beside_the_languages(work: Work, given: dict[str, Any]) -> None:
    publish(work, **given)
    assembled = given["assembled"].model_copy(update={"language": "mul", "subtitles": {}})
    path = publish_multi(work, out=given["out"], episode=EPISODE, assembled=assembled)
    assert path == given["out"] / EPISODE / "multi" / "s01e01.multi.mp4"
    assert hash_file(path) == assembled.video.sha256
    before = stats(path.parent)
    assert publish_multi(work, out=given["out"], episode=EPISODE, assembled=assembled) == path
    assert stats(path.parent) == before
    assert deliveries(work)[path.name].language == "mul"


# -- packages ---------------------------------------------------------------------------------------------------------


def package_of(work: Work, **files: bytes) -> Package:
    """Segments and playlists, by name with `/` as `__`."""
    stored = {name.replace("__", "/") + (".m4s" if name[-1].isdigit() else ".m3u8"): work.store.put_bytes(data, "x/y")
              for name, data in files.items()}
    return Package(files=stored, main="main.m3u8")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_package_is_delivered_playlists_last(work: Work, given: dict[str, Any],
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    write = module._write
    monkeypatch.setattr(module, "_write", lambda work, item: (order.append(item.path.name), write(work, item)))
    package = package_of(work, main=b"a main", picture__index=b"an index", picture__1=b"one", picture__2=b"two")
    mkv = work.store.put_bytes(b"mkv", "video/x-matroska")
    found = publish(work, **given, matroska=mkv, package=package)
    folder = folder_of(given)
    assert found.others == (str(folder / "s01e01.es.mkv"), str(folder / "hls" / "main.m3u8"))
    assert tree(folder / "hls") == {"main.m3u8": b"a main", "picture/index.m3u8": b"an index",
                                    "picture/1.m4s": b"one", "picture/2.m4s": b"two"}
    assert [name for name in order if name[0] in "12im"] == ["1.m4s", "2.m4s", "index.m3u8", "main.m3u8"]
    assert {"1.m4s", "index.m3u8", "main.m3u8", "s01e01.es.mkv"} < deliveries(work).keys()
    assert "hls/main.m3u8" in json.loads(Path(found.report).read_text())["files"]
    order.clear()
    publish(work, **given, matroska=mkv, package=package)
    assert order == []


def test_what_a_package_no_longer_names_goes_unless_somebody_changed_it(work: Work, given: dict[str, Any]) -> None:
    old = package_of(work, main=b"old", text__1=b"1", text__2=b"2", text__3=b"3", text__index=b"old list")
    publish(work, **given, package=old)
    folder = folder_of(given) / "hls"
    (folder / "text" / "2.m4s").write_bytes(b"mine")
    (folder / "text" / "notes.txt").write_bytes(b"mine")
    publish(work, **given, package=package_of(work, main=b"new", text__3=b"3", text__4=b"4", text__index=b"list"))
    assert tree(folder) == {"main.m3u8": b"new", "text/index.m3u8": b"list", "text/2.m4s": b"mine",
                            "text/3.m4s": b"3", "text/4.m4s": b"4", "text/notes.txt": b"mine"}
    assert not {"1.m4s", "2.m4s"} & deliveries(work).keys()


def test_what_is_no_longer_delivered_goes_and_nothing_else(work: Work, given: dict[str, Any], said: list[str]) -> None:
    mkv = work.store.put_bytes(b"mkv", "video/x-matroska")
    publish(work, **given, matroska=mkv, package=package_of(work, main=b"main", text__1=b"1"))
    folder = folder_of(given)
    (folder / "s01e01.es.me.flac").write_bytes(b"mixed by hand")
    (folder / "notes.txt").write_bytes(b"mine")
    beside = publish(work, **{**given, "episode": f"{EPISODE}/es", "language": "fr"})
    publish(work, **given, stems=False)
    here = {path.name for path in folder.iterdir()}
    assert here == (NAMES - STEMS) | {"s01e01.es.me.flac", "notes.txt", "fr"}
    assert Path(beside.video).exists(), "it is another episode's"
    assert any("s01e01.es.mkv is no longer delivered" in text for text in said)
    publish(work, **given, matroska=mkv)
    assert (folder / "s01e01.es.mkv").read_bytes() == b"mkv"


def test_a_full_disk_leaves_the_old_package_whole(work: Work, given: dict[str, Any],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    old = package_of(work, main=b"old", text__1=b"1", text__index=b"old list")
    publish(work, **given, package=old)
    copy = module.shutil.copyfile

    def full(source: Path, target: Path) -> None:
        if target.suffix == ".m3u8":
            raise OSError(errno.ENOSPC, "No space left on device")
        copy(source, target)

    new = package_of(work, main=b"new", text__2=b"2", text__index=b"new list")
    with monkeypatch.context() as broken:
        broken.setattr(module.shutil, "copyfile", full)
        with pytest.raises(StorageFullError):
            publish(work, **given, package=new)
    before = {"main.m3u8": b"old", "text/index.m3u8": b"old list", "text/1.m4s": b"1"}
    assert tree(folder_of(given) / "hls").items() >= before.items()
    publish(work, **given, package=new)
    assert tree(folder_of(given) / "hls") == {"main.m3u8": b"new", "text/index.m3u8": b"new list", "text/2.m4s": b"2"}


def test_a_package_cannot_leave_its_folder(work: Work, given: dict[str, Any]) -> None:
    bad = Package(files={"../../../x.m4s": work.store.put_bytes(b"x", "x/y"),
                         "main.m3u8": work.store.put_bytes(b"m", "x/y")}, main="main.m3u8")
    with pytest.raises(InputError, match="leads out of its folder"):
        publish(work, **given, package=bad)


def test_subtitles_are_delivered_as_asked(work: Work, given: dict[str, Any]) -> None:
    found = publish(work, **given, subtitles=("vtt",))
    assert found.subtitles == (str(folder_of(given) / "s01e01.es.vtt"),)
    assert not (folder_of(given) / "s01e01.es.srt").exists()
