"""Cuts and faces: on the examples, on made-up pictures that tempt a detector, and the following of faces."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import cv2
import ffmpeg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.engines import scenedetect
from models.engines.dlib_faces import DlibFaces
from models.engines.scenedetect import ContentCuts
from models.errors import MediaError
from models.ports import EngineHome, Image
from models.records import EngineRef
from tasks.media import FrameWriter, run_ffmpeg
from tasks.shots import ShotsRequest, find_shots, follow, look_at
from tasks.step import Work, perform

EXAMPLES = Path(__file__).parent.parent / "examples" / "harbor-lights"
HOME = EngineHome(weights=Path)
DETECTOR, FACES = EngineRef(name="scenedetect"), EngineRef(name="dlib")


def truth(episode: str) -> dict[str, Any]:
    return json.loads((EXAMPLES / f"harbor-lights-{episode}.truth.json").read_text())


# -- the examples -----------------------------------------------------------------------------------------------------


def test_the_cuts_of_the_first_example_are_those_of_its_truth() -> None:
    known = truth("s01e01")
    assert ContentCuts(DETECTOR, HOME).cuts(EXAMPLES / known["file"]) == [
        s["start_frame"] for s in known["shots"][1:]] == [200, 300, 525]


def test_shots_and_faces_of_the_second_example_are_those_of_its_truth(work: Work) -> None:
    pytest.importorskip("dlib")
    known = truth("s01e02")
    work.engines.by_port = {"shot-detector": ContentCuts(DETECTOR, HOME), "face-detector": DlibFaces(FACES, HOME)}
    video = work.store.put_file(EXAMPLES / known["file"], "video/mp4")
    found = perform(work, find_shots, ShotsRequest(
        video=video, frames=known["frame_count"], rate=str(known["fps"]), width=known["width"],
        height=known["height"], detector=DETECTOR, faces=FACES))
    assert [(s.id, s.start, s.end) for s in found.shots] == [
        (f"S{i:04d}", s["start_frame"], s["end_frame"]) for i, s in enumerate(known["shots"], 1)]
    for shot, real in zip(found.shots, known["shots"], strict=True):
        assert len(shot.faces) == len(real["on_screen"])
        for face in shot.faces:
            assert all(shot.start <= frame < shot.end for frame, *_ in face.boxes)


# -- made-up pictures -------------------------------------------------------------------------------------------------

WIDTH, HEIGHT = 160, 120


def texture(seed: int) -> Image:
    """A large picture with structure at several sizes."""
    random = np.random.default_rng(seed)
    coarse = [size * random.random((300 // size + 1, 800 // size + 1, 3)) for size in (8, 24, 80)]
    layers = [cv2.resize(layer, (800, 300), interpolation=cv2.INTER_CUBIC) for layer in coarse]
    total = np.sum(layers, axis=0)
    return (255 * (total - total.min()) / np.ptp(total)).astype(np.uint8)


A, B, C = texture(1), texture(2), texture(3)


def pan(picture: Image, frames: int, speed: float = 1.0, start: int = 0) -> list[Image]:
    return [picture[90:90 + HEIGHT, int(start + speed * i):int(start + speed * i) + WIDTH] for i in range(frames)]


def zoom(picture: Image, frames: int) -> list[Image]:
    return [cv2.resize(picture[150 - h // 2:150 + h // 2, 400 - h * 2 // 3:400 + h * 2 // 3], (WIDTH, HEIGHT))
            for h in (240 - 3 * i for i in range(frames))]


def noisy(frames: list[Image]) -> list[Image]:
    random = np.random.default_rng(0)
    return [np.clip(f + random.normal(0, 25, f.shape), 0, 255).astype(np.uint8) for f in frames]


def lit(frames: list[Image]) -> list[Image]:
    return [np.clip(f.astype(np.int16) + 110, 0, 255).astype(np.uint8) for f in frames]


def blank(value: int, frames: int) -> list[Image]:
    return [np.full((HEIGHT, WIDTH, 3), value, np.uint8)] * frames


CASES: dict[str, tuple[Callable[[], list[Image]], list[int]]] = {
    "slow pan": (lambda: pan(A, 40), []),
    "fast pan": (lambda: pan(A, 40, 8), []),
    "pan that starts and stops": (lambda: pan(A, 15, 0) + pan(A, 20, 15) + pan(A, 15, 0, 285), []),
    "zoom": (lambda: zoom(A, 40), []),
    "noise": (lambda: noisy(pan(A, 40)), []),
    "strobe": (lambda: [f if i % 2 else f // 3 for i, f in enumerate(pan(A, 40))], []),
    "flash of three frames": (lambda: pan(A, 20) + lit(pan(A, 3, 1, 20)) + pan(A, 20, 1, 23), []),
    "one white frame": (lambda: pan(A, 20) + blank(255, 1) + pan(A, 20, 1, 21), []),
    "two black frames": (lambda: pan(A, 20) + blank(0, 2) + pan(A, 20, 1, 22), []),
    "short shots": (lambda: pan(A, 20) + pan(B, 12) + pan(A, 20) + pan(C, 5) + pan(B, 4) + pan(C, 20),
                    [20, 32, 52, 57, 61]),
    "insert of three frames": (lambda: pan(A, 20) + pan(B, 3) + pan(A, 20, 1, 3), [20, 23]),
    "shot of two frames": (lambda: pan(A, 20) + pan(B, 2) + pan(C, 20), [20, 22]),
    "dark shots": (lambda: [f // 6 for f in pan(A, 20) + pan(B, 20)], [20]),
    "cut from still to fast": (lambda: pan(A, 20, 0) + pan(B, 20, 5), [20]),
    "cut after the first frame": (lambda: pan(A, 1) + pan(B, 20), [1]),
    "cut before the last frame": (lambda: pan(A, 20) + pan(B, 1), [20]),
    "one frame": (lambda: pan(A, 1), []),
}


def written(path: Path, frames: list[Image]) -> Path:
    with FrameWriter(path, WIDTH, HEIGHT, Fraction(25)) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.mark.parametrize("name", CASES)
def test_cuts_are_told_from_motion_noise_and_light(name: str, tmp_path: Path) -> None:
    frames, cuts = CASES[name]
    assert ContentCuts(DETECTOR, HOME).cuts(written(tmp_path / "clip.mkv", frames())) == cuts


def test_a_last_frame_that_is_shown_longer_moves_no_cut(tmp_path: Path) -> None:
    source, path = tmp_path / "clip.mp4", tmp_path / "long.mp4"
    run_ffmpeg(ffmpeg.output(ffmpeg.input(str(written(tmp_path / "clip.mkv", pan(A, 30) + pan(B, 30)))), str(source),
                             vcodec="libx264", bf=0), where="clip.mp4")
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0])
        packets = [packet for packet in given.demux(video=0) if packet.size]
        packets[-1].duration *= 3
        for packet in packets:
            packet.stream = stream
            out.mux(packet)
    assert ContentCuts(DETECTOR, HOME).cuts(path) == [30]


def test_the_cuts_are_those_of_the_picture_that_is_shown(tmp_path: Path) -> None:
    other, shown = (written(tmp_path / name, frames) for name, frames in (
        ("other.mkv", pan(A, 10) + pan(B, 30)), ("shown.mkv", pan(A, 30) + pan(C, 10))))
    path = tmp_path / "both.mkv"
    run_ffmpeg(ffmpeg.output(ffmpeg.input(str(other)).video, ffmpeg.input(str(shown)).video, str(path), c="copy",
                             **{"disposition:v:0": "0", "disposition:v:1": "default"}), where="both.mkv")
    assert ContentCuts(DETECTOR, HOME).cuts(path) == [30]


def test_thumbnails_are_kept_beside_cuts_only(tmp_path: Path) -> None:
    path = written(tmp_path / "clip.mkv", pan(A, 40) + pan(B, 40))
    assert sorted(scenedetect._scores(path, 12.0)[2]) == [39, 40, 41]


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"#EXTM3U\nfile:///etc/passwd\n")
    with pytest.raises(MediaError, match=r"clip\.mp4: cannot be decoded"):
        ContentCuts(DETECTOR, HOME).cuts(tmp_path / "clip.mp4")


class Given:
    """Cuts and faces as told: for what the step makes of them."""

    def __init__(self, cuts: list[int], faces: list[tuple[int, int, int, int]]) -> None:
        self.given, self.faces = cuts, faces

    def cuts(self, video: Path) -> list[int]:
        return self.given

    def detect(self, image: Image) -> list[tuple[int, int, int, int]]:
        return self.faces


def test_cuts_outside_the_episode_are_dropped_and_shots_tile_it(work: Work, tmp_path: Path) -> None:
    engine = Given([-3, 0, 7, 7, 12, 20, 99], [(5, 5, 20, 20)])
    work.engines.by_port = {"shot-detector": engine, "face-detector": engine}
    video = work.store.put_file(written(tmp_path / "clip.mkv", pan(A, 20)), "video/x-matroska")
    found = find_shots.function(work, ShotsRequest(video=video, frames=20, rate="25", width=WIDTH, height=HEIGHT,
                                                   detector=DETECTOR, faces=FACES))
    assert [(s.id, s.start, s.end) for s in found.shots] == [("S0001", 0, 7), ("S0002", 7, 12), ("S0003", 12, 20)]
    assert [[box[0] for box in s.faces[0].boxes] for s in found.shots] == [
        [0, 2, 3, 4, 6], [7, 8, 9, 10, 11], [12, 14, 16, 17, 19]]


# -- looking and following --------------------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.integers(1, 5_000), st.floats(1, 120))
def test_the_first_and_the_last_frame_and_enough_between_are_looked_at(start: int, length: int, rate: float) -> None:
    looks = look_at(start, start + length, rate)
    assert looks[0] == start
    assert looks[-1] == start + length - 1
    assert len(looks) >= min(length, 5)
    gaps = [b - a for a, b in pairwise(looks)]
    assert all(0 < gap <= max(rate / 2, length / 4, 1) + 1 for gap in gaps)


def moving(start: int, speed: int, size: int = 40) -> Iterator[tuple[int, int, int, int]]:
    x = start
    while True:
        yield (x, 50, size, size)
        x += speed


def test_two_faces_that_move_keep_their_tracks() -> None:
    left, right = moving(20, 8), moving(400, -8)
    tracks = follow([(10 * i, [next(right), next(left)] if i % 2 else [next(left), next(right)]) for i in range(10)])
    assert [track.id for track in tracks] == [0, 1]
    assert [box[:2] for box in tracks[0].boxes] == [(10 * i, 20 + 8 * i) for i in range(10)]
    assert [box[:2] for box in tracks[1].boxes] == [(10 * i, 400 - 8 * i) for i in range(10)]


def test_a_face_that_turns_away_for_a_while_is_still_the_same() -> None:
    box = (100, 100, 50, 50)
    (track,) = follow([(i, [box] if i < 3 or i > 8 else []) for i in range(12)])
    assert len(track.boxes) == 6


def test_a_face_seen_once_is_a_mistake_unless_there_were_but_two_looks() -> None:
    box = (100, 100, 50, 50)
    assert follow([(0, []), (1, [box]), (2, [])]) == ()
    assert len(follow([(0, []), (1, [box])])) == 1


def test_a_face_of_quite_another_size_or_place_is_somebody_else() -> None:
    near, far, large = (100, 100, 40, 40), (300, 100, 40, 40), (60, 60, 160, 160)
    assert len(follow([(0, [near]), (1, [near]), (2, [far]), (3, [far])])) == 2
    assert len(follow([(0, [near]), (1, [near]), (2, [large]), (3, [large])])) == 2


BOXES = st.tuples(st.integers(0, 600), st.integers(0, 400), st.integers(1, 200), st.integers(1, 200))


@given(st.lists(st.lists(BOXES, max_size=4), max_size=8))
def test_every_box_is_in_at_most_one_track_and_no_track_is_twice_in_a_frame(frames: list[list[Any]]) -> None:
    tracks = follow(list(enumerate(frames)))
    seen = [box for track in tracks for box in track.boxes]
    given_boxes = [(i, *box) for i, boxes in enumerate(frames) for box in boxes]
    assert all(seen.count(box) <= given_boxes.count(box) for box in seen)
    for track in tracks:
        at = [box[0] for box in track.boxes]
        assert at == sorted(set(at))


def test_a_face_box_lies_inside_the_picture() -> None:
    pytest.importorskip("dlib")
    assert DlibFaces(FACES, HOME).detect(np.zeros((90, 1200, 3), np.uint8)) == []
    assert DlibFaces(FACES, HOME).detect(np.zeros((1, 1, 3), np.uint8)) == []
