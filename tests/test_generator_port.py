"""What every generator must do; a new one is added to `GENERATORS`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.engines import EngineCache, describe
from models.engines.clip_files import ClipFiles, clip_weights
from models.engines.passthrough import Passthrough
from models.errors import InputError, MediaError
from models.ports import Chunk, EngineHome, Generator, ShotInput
from models.records import Artifact, EngineRef, FaceTrack, Placement, ShotRequest, SpeakerTrack
from tasks.media import FrameWriter
from tests.pulse import Pulse

WIDTH, HEIGHT = 48, 32
SOURCE = Artifact(sha256="0" * 64, size=1, media_type="video/mp4")


def home(**connection: str) -> EngineHome:
    return EngineHome(weights=Path, connection=connection)


def shot_of(frames: int, *, rate: str = "25", region: str = "frame", ref: EngineRef | None = None) -> ShotInput:
    """A moving picture with one face and a voice that swells."""
    request = ShotRequest(shot="S0001", source=SOURCE, start=10, end=10 + frames, width=WIDTH, height=HEIGHT, rate=rate,
                          tracks=(SpeakerTrack(speaker="A", lines=()),), seed=7, region=region,
                          faces=(FaceTrack(id=0, boxes=((10, 16, 8, 12, 12),)),), generator=ref or EngineRef(name="x"))
    y, x = np.mgrid[:HEIGHT, :WIDTH]

    def frame(i: int) -> np.ndarray:
        i = min(max(i, 0), request.generated_frames - 1)
        return np.stack([(x * 3 + i * 5) % 256, (y * 5 + i) % 256, (x + y + 2 * i) % 256], -1).astype(np.uint8)

    time = np.arange(round(frames / Fraction(rate) * 16_000)) / 16_000
    voice = (0.3 * np.sin(880 * np.pi * time) * np.abs(np.sin(6 * time))).astype(np.float32)
    return ShotInput(request=request, frame=frame, tracks={"A": voice}, faces=request.faces)


def passthrough(shot: ShotInput, folder: Path) -> Generator:
    return Passthrough(shot.request.generator, home())


def pulse(shot: ShotInput, folder: Path) -> Generator:
    return Pulse()


def files(shot: ShotInput, folder: Path) -> Generator:
    clips = folder / "s" / "e" / "es"
    clips.mkdir(parents=True, exist_ok=True)
    with FrameWriter(clips / "S0001.mkv", 24, 16, Fraction(25)) as writer:
        for i in range(shot.request.generated_frames):
            writer.write(shot.frame(i)[::2, ::2])
    return PlannedClips(folder)


class PlannedClips(ClipFiles):
    """Requests say which clip they were planned with: here, that which lay there when this was made."""

    def __init__(self, folder: Path) -> None:
        self.ref = files_ref(folder)
        super().__init__(self.ref, home(folder=str(folder)))

    def placement(self, request: ShotRequest) -> tuple[int, int, Placement]:
        return super().placement(request.model_copy(update={"generator": self.ref}))

    def generate(self, shot: ShotInput, state: bytes | None, start_chunk: int) -> Iterator[Chunk]:
        request = shot.request.model_copy(update={"generator": self.ref})
        return super().generate(replace(shot, request=request), state, start_chunk)


def files_ref(folder: Path) -> EngineRef:
    return EngineRef(name="files", options={"clips": "s/e/es"}, weights=clip_weights(folder, "s/e/es"))


GENERATORS: dict[str, Callable[[ShotInput, Path], Generator]] = {
    "passthrough": passthrough, "files": files, "pulse": pulse}


Make = Callable[[ShotInput], Generator]


@pytest.fixture(params=GENERATORS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    return lambda shot: GENERATORS[request.param](shot, tmp_path)


def all_chunks(generator: Generator, shot: ShotInput) -> list[Chunk]:
    return list(generator.generate(shot, None, 0))


def pictures(chunks: list[Chunk]) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in chunks])


@pytest.fixture
def long(make: Make) -> int:
    """Frames that take four chunks."""
    geometry = make(shot_of(1)).geometry
    return geometry.frames + 2 * (geometry.frames - geometry.context) + 2


LENGTHS: dict[str, Callable[[int, int], int]] = {
    "1": lambda chunk, step: 1, "2": lambda chunk, step: 2, "chunk - 1": lambda chunk, step: chunk - 1,
    "chunk": lambda chunk, step: chunk, "chunk + 1": lambda chunk, step: chunk + 1,
    "several chunks": lambda chunk, step: chunk + 2 * step + 2}


@pytest.mark.parametrize("length", LENGTHS)
def test_a_shot_of_any_length_gets_enough_frames(make: Make, length: str) -> None:
    geometry = make(shot_of(1)).geometry
    frames = LENGTHS[length](geometry.frames, geometry.frames - geometry.context)
    shot = shot_of(frames)
    chunks = all_chunks(make(shot), shot)
    assert [chunk.index for chunk in chunks] == list(range(geometry.chunks(frames)))
    assert len(pictures(chunks)) >= frames


def test_frames_have_the_promised_size_and_type(make: Make, long: int) -> None:
    shot = shot_of(long)
    generator = make(shot)
    width, height, _ = generator.placement(shot.request)
    for chunk in all_chunks(generator, shot):
        assert chunk.frames.dtype == np.uint8
        assert chunk.frames.shape[1:] == (height, width, 3)


@pytest.mark.parametrize("region", ["frame", "person"])
def test_the_placement_lies_inside_the_source_frame(make: Make, region: str) -> None:
    shot = shot_of(3, region=region)
    width, height, place = make(shot).placement(shot.request)
    assert width > 0
    assert height > 0
    assert place.x + place.width <= WIDTH
    assert place.y + place.height <= HEIGHT


def test_resuming_at_any_chunk_gives_the_same_frames_and_states_bit_for_bit(make: Make, long: int) -> None:
    shot = shot_of(long)
    whole = all_chunks(make(shot), shot)
    assert len(whole) == 4
    for start in range(1, len(whole)):
        rest = list(make(shot).generate(shot, whole[start - 1].state, start))
        assert [(c.index, c.state) for c in rest] == [(c.index, c.state) for c in whole[start:]]
        assert np.array_equal(pictures(rest), pictures(whole[start:]))


def test_one_generator_serves_shot_after_shot_without_a_trace_of_the_one_before(make: Make, long: int) -> None:
    shot = shot_of(long)
    generator = make(shot)
    first = pictures(all_chunks(generator, shot))
    assert np.array_equal(pictures(all_chunks(generator, shot)), first)


def test_a_fast_source_is_generated_at_the_divided_rate(make: Make) -> None:
    shot = shot_of(41, rate="60000/1001")
    chunks = all_chunks(make(shot), shot)
    assert len(pictures(chunks)) >= 21
    assert len(chunks) == make(shot).geometry.chunks(21)


def test_source_frames_are_left_as_they_are(make: Make) -> None:
    shot = shot_of(5)

    def read_only(i: int) -> np.ndarray:
        picture = shot.frame(i)
        picture.flags.writeable = False
        return picture

    guarded = ShotInput(shot.request, read_only, shot.tracks, shot.faces)
    assert len(all_chunks(make(shot), guarded)) >= 1


def test_what_is_missing_is_said_without_starting_anything(make: Make) -> None:
    kind = type(make(shot_of(1)))
    assert isinstance(kind.CONNECTION, frozenset)
    assert isinstance(kind.missing({}), str)
    assert isinstance(kind.required_weights({}), tuple)


# -- one by one -------------------------------------------------------------------------------------------------------


def test_passthrough_hands_back_the_source() -> None:
    shot = shot_of(20)
    made = pictures(all_chunks(Passthrough(shot.request.generator, home()), shot))
    assert np.array_equal(made, np.stack([shot.frame(i) for i in range(20)]))


def test_the_test_generator_listens_and_obeys_its_seed() -> None:
    shot = shot_of(12)
    silent = ShotInput(shot.request, shot.frame, {"A": np.zeros_like(shot.tracks["A"])}, shot.faces)
    other = ShotInput(shot.request.model_copy(update={"seed": 8}), shot.frame, shot.tracks, shot.faces)
    made = pictures(all_chunks(Pulse(), shot))
    assert not np.array_equal(made, pictures(all_chunks(Pulse(), silent)))
    assert not np.array_equal(made, pictures(all_chunks(Pulse(), other)))


class TestClipFiles:
    def test_gives_the_clips_pictures(self, tmp_path: Path) -> None:
        shot = shot_of(20)
        made = pictures(all_chunks(files(shot, tmp_path), shot))
        assert np.array_equal(made, np.stack([shot.frame(i)[::2, ::2] for i in range(20)]))

    def test_takes_every_second_frame_of_a_clip_at_the_sources_own_fast_rate(self, tmp_path: Path) -> None:
        given, shot = shot_of(41), shot_of(41, rate="50")
        made = pictures(all_chunks(files(given, tmp_path), shot))
        assert np.array_equal(made, np.stack([given.frame(i)[::2, ::2] for i in range(0, 41, 2)]))

    def test_names_the_clip_that_is_missing(self, tmp_path: Path) -> None:
        shot = shot_of(5)
        generator = files(shot, tmp_path)
        with pytest.raises(InputError, match=r"s/e/es/S0002\.mkv"):
            generator.placement(shot.request.model_copy(update={"shot": "S0002"}))

    def test_refuses_a_clip_of_another_length(self, tmp_path: Path) -> None:
        generator = files(shot_of(5), tmp_path)
        with pytest.raises(InputError, match="has 5 frames, shot S0001 has 6"):
            all_chunks(generator, shot_of(6))

    def test_a_clip_that_changed_since_it_was_planned_with_is_refused(self, tmp_path: Path) -> None:
        shot = shot_of(5)
        generator = files(shot, tmp_path)
        (tmp_path / "s" / "e" / "es" / "S0001.mkv").write_bytes(b"something else")
        with pytest.raises(InputError, match="not the one that was planned with"):
            generator.placement(shot.request)

    def test_each_clip_is_known_by_its_own_hash(self, tmp_path: Path) -> None:
        files(shot_of(5), tmp_path)
        one, before = tmp_path / "s" / "e" / "es" / "S0001.mkv", files_ref(tmp_path).weights
        (one.parent / "S0002.MP4").write_bytes(b"another")
        assert files_ref(tmp_path).weights == before | {"shots/S0002": hashlib.sha256(b"another").hexdigest()}
        assert before == {"shots/S0001": hashlib.sha256(one.read_bytes()).hexdigest()}

    def test_a_request_for_a_clip_reaches_its_folder_through_the_machines_settings(self, tmp_path: Path) -> None:
        files(shot_of(5), tmp_path)
        engines = EngineCache(lambda port, name: home(folder=str(tmp_path)))
        request = shot_of(5, ref=files_ref(tmp_path)).request
        assert engines.get("generator", request.generator).placement(request)[:2] == (24, 16)  # type: ignore[attr-defined]

    def test_a_broken_clip_is_named(self, tmp_path: Path) -> None:
        shot = shot_of(5)
        files(shot, tmp_path)
        (tmp_path / "s" / "e" / "es" / "S0001.mkv").write_bytes(b"no video at all")
        with pytest.raises(MediaError, match=r"S0001\.mkv: cannot be decoded"):
            PlannedClips(tmp_path).placement(shot.request)

    @pytest.mark.parametrize("clips", ["../other", "/etc", "a/../../b", ""])
    def test_a_request_cannot_leave_the_folder(self, tmp_path: Path, clips: str) -> None:
        with pytest.raises(InputError, match="leave the folder"):
            ClipFiles(EngineRef(name="files", options={"clips": clips, "folder": "/"}), home(folder=str(tmp_path)))

    def test_the_folder_enters_no_recipe(self, tmp_path: Path) -> None:
        ref = describe("generator", "files", {"folder": str(tmp_path), "clips": "s/e/es"}, lambda _: {})
        assert ref.options == {"clips": "s/e/es"}

    def test_a_folder_that_is_not_set_or_not_there_is_said(self, tmp_path: Path) -> None:
        assert "Set the option `folder`" in ClipFiles.missing({})
        assert "is not there" in ClipFiles.missing({"folder": str(tmp_path / "none")})
        assert not ClipFiles.missing({"folder": str(tmp_path)})

    def test_an_empty_folder_says_what_belongs_there(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"SHOT\.mkv"):
            clip_weights(tmp_path, "s/e/es")
