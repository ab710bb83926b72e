"""What every generator must do; a new one is added to `GENERATORS`."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from models.engines import EngineCache, describe
from models.engines.clip_files import ClipFiles, clip_weights
from models.engines.infinitetalk import InfiniteTalk
from models.engines.infinitetalk_cast import around, cast, cut_out, loudest, region_of
from models.engines.passthrough import Passthrough
from models.engines.small import Lite
from models.errors import EngineError, InfrastructureError, InputError, MediaError, SetupError
from models.ports import Chunk, EngineHome, Generator, ShotInput
from models.records import Artifact, EngineRef, FaceTrack, Placement, Scalar, ShotRequest, SpeakerTrack
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


@cache
def tiny_weights() -> Path:
    """All networks of the engine infinitetalk, tiny and random, laid out as they are published."""
    pytest.importorskip("diffusers")
    from tests.tiny_infinitetalk import write_public_layout

    folder = Path(tempfile.mkdtemp(prefix="infinitetalk-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_public_layout(folder)


def tiny_folder(name: str) -> Path:
    """Entry of models.lock → tiny weights in its place."""
    if name.startswith("wan-"):
        return tiny_weights() / "Wan2.1-I2V-14B-480P"
    if name.startswith("infinitetalk-"):
        return tiny_weights() / "InfiniteTalk" / name.removeprefix("infinitetalk-")
    return tiny_weights() / name


def tiny_infinitetalk(**options: Scalar) -> InfiniteTalk:
    """The 14B generator's adapter on tiny weights: chunks of 13 frames, of which 9 repeat, at 48×32 in two steps."""
    ref = EngineRef(name="infinitetalk", options={"area": WIDTH * HEIGHT, "chunk": 13, "steps": 2} | options)
    return InfiniteTalk(ref, EngineHome(weights=tiny_folder, threads=1))


def infinitetalk(shot: ShotInput, folder: Path) -> Generator:
    return tiny_infinitetalk()


def small(shot: ShotInput, folder: Path) -> Generator:
    return tiny_lite()


@cache
def small_weights() -> Path:
    """Networks of the engine lite, tiny and random."""
    pytest.importorskip("torch")
    from tests.tiny_small import write_folder

    folder = Path(tempfile.mkdtemp(prefix="lite-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return write_folder(folder)


def tiny_lite(**options: Scalar) -> Lite:
    """The small generator's adapter on tiny weights: 64 pixels, chunks of 33 frames, of which 9 repeat, in one step."""
    return Lite(EngineRef(name="lite", options={"steps": 1} | options),
                EngineHome(weights=Path, threads=1, connection={"path": str(small_weights())}))


GENERATORS: dict[str, Callable[[ShotInput, Path], Generator]] = {
    "passthrough": passthrough, "files": files, "pulse": pulse, "infinitetalk": infinitetalk,
    "lite": small}


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


def face(number: int, x: int, y: int, size: int) -> FaceTrack:
    return FaceTrack(id=number, boxes=((0, x, y, size, size), (8, x + 2, y, size, size)))


def request_of(speakers: str, *faces: FaceTrack, region: str = "frame", known: int | None = None, **fields: object,
               ) -> ShotRequest:
    """A request of a wide picture in which each letter of `speakers` is heard; `known` is the face of the last."""
    tracks = tuple(SpeakerTrack(speaker=name, lines=(), face=known if name == speakers[-1] else None)
                   for name in speakers)
    return shot_of(9, region=region).request.model_copy(
        update={"width": 1920, "height": 1080, "tracks": tracks, "faces": faces} | fields)


class TestInfiniteTalk:
    def test_the_mouth_listens_and_the_seed_counts(self) -> None:
        shot = shot_of(9)
        generator = tiny_infinitetalk()
        silent = ShotInput(shot.request, shot.frame, {"A": np.zeros_like(shot.tracks["A"])}, shot.faces)
        other = ShotInput(shot.request.model_copy(update={"seed": 8}), shot.frame, shot.tracks, shot.faces)
        made = pictures(all_chunks(generator, shot))
        assert not np.array_equal(made, pictures(all_chunks(generator, silent)))
        assert not np.array_equal(made, pictures(all_chunks(generator, other)))

    def test_the_frame_keeps_its_aspect_at_the_area_that_the_weights_were_trained_at(self) -> None:
        whole = Placement(x=0, y=0, width=1920, height=1080)
        for weights, size in (("infinitetalk-480p", (832, 464)), ("infinitetalk-720p-multi", (1280, 720))):
            generator = InfiniteTalk(EngineRef(name="infinitetalk", options={"weights": weights}),
                                     EngineHome(weights=tiny_folder))
            assert generator.placement(request_of("A")) == (*size, whole)

    def test_only_those_who_speak_are_in_the_region_person(self) -> None:
        left, right = face(0, 300, 200, 100), face(1, 1500, 200, 80)
        _, _, place = tiny_infinitetalk().placement(request_of("A", left, right, region="person"))
        assert (place.x, place.y, place.width, place.height) == (200, 120, 302, 340)
        _, _, both = tiny_infinitetalk().placement(request_of("AB", left, right, region="person"))
        assert (both.x, both.x + both.width) == (200, 1662)
        _, _, faceless = tiny_infinitetalk().placement(request_of("A", region="person"))
        assert (faceless.width, faceless.height) == (1920, 1080)

    @pytest.mark.parametrize(("profile", "kind", "words"), [
        ("fast-4", SetupError, "infinidub models pull lightx2v-i2v-480p"), ("splendid", InputError, "There are: best")])
    def test_profiles_that_cannot_be_had_are_refused_before_loading(self, profile: str, kind: type[Exception],
                                                                    words: str) -> None:
        with pytest.raises(kind, match=words):
            InfiniteTalk(EngineRef(name="infinitetalk"), home()).placement(request_of("A", profile=profile))

    @pytest.mark.parametrize("reference", ["i2v", "fl2v"])
    def test_references_for_comparison_are_refused(self, reference: str) -> None:
        with pytest.raises(InputError, match="for comparison"):
            tiny_infinitetalk().placement(request_of("A", reference=reference))

    def test_two_speakers_follow_their_own_voices_with_weights_for_two(self) -> None:
        shot = shot_of(13)
        faces = (face(0, 4, 8, 8), face(1, 34, 8, 8))
        request = shot.request.model_copy(update={"tracks": request_of("AB").tracks, "faces": faces})
        voice, silence = shot.tracks["A"], np.zeros_like(shot.tracks["A"])
        generator = tiny_infinitetalk(weights="infinitetalk-480p-multi")

        def made(first: np.ndarray, second: np.ndarray) -> np.ndarray:
            return pictures(all_chunks(generator, ShotInput(request, shot.frame, {"A": first, "B": second}, faces)))

        assert not np.array_equal(made(voice, silence), made(silence, voice))
        assert not np.array_equal(made(voice, silence), made(voice, voice[::-1].copy()))

    @pytest.mark.parametrize("weights", ["infinitetalk-480p", "infinitetalk-480p-multi"])
    def test_whoever_is_heard_and_not_seen_moves_no_mouth(self, weights: str) -> None:
        shot, seen = shot_of(9), (face(0, 4, 8, 8),)
        request = shot.request.model_copy(update={"tracks": request_of("BA", known=0).tracks, "faces": seen})
        generator = tiny_infinitetalk(weights=weights)

        def made(narrator: np.ndarray) -> np.ndarray:
            tracks = {"B": narrator, "A": 0.1 * shot.tracks["A"]}
            return pictures(all_chunks(generator, ShotInput(request, shot.frame, tracks, seen)))

        assert np.array_equal(made(shot.tracks["A"]), made(shot.tracks["A"][::-1].copy()))

    @pytest.mark.parametrize("weights", ["infinitetalk-480p", "infinitetalk-480p-multi"])
    @pytest.mark.parametrize("faces", [0, 1, 3])
    def test_no_cast_stops_a_shot(self, weights: str, faces: int) -> None:
        shot = shot_of(5)
        seen = tuple(face(i, 2 + 14 * i, 8, 6) for i in range(faces))
        request = shot.request.model_copy(update={"tracks": request_of("ABC").tracks, "faces": seen})
        tracks = {name: shot.tracks["A"] * gain for name, gain in zip("ABC", (0.2, 1, 0.5), strict=True)}
        generator = tiny_infinitetalk(weights=weights)
        assert len(pictures(all_chunks(generator, ShotInput(request, shot.frame, tracks, seen)))) == 5
        mute = {name: np.zeros_like(samples) for name, samples in tracks.items()}
        assert len(pictures(all_chunks(generator, ShotInput(request, shot.frame, mute, seen)))) == 5

    def test_a_state_of_another_shot_is_refused(self) -> None:
        generator, shot = tiny_infinitetalk(), shot_of(30)
        state = next(generator.generate(shot, None, 0)).state
        other = ShotInput(shot.request.model_copy(update={"seed": 9}), shot.frame, shot.tracks, shot.faces)
        with pytest.raises(InputError, match="another shot"):
            next(generator.generate(other, state, 1))
        with pytest.raises(InputError, match="not a saved state"):
            next(generator.generate(shot, b"nonsense", 1))

    def test_weights_that_are_damaged_are_a_matter_of_set_up(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(SetupError):
            list(InfiniteTalk(EngineRef(name="infinitetalk"), EngineHome(weights=lambda name: tmp_path)).generate(
                shot_of(5), None, 0))

    def test_a_full_gpu_is_no_fault_of_the_shot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch

        def full(*args: object, **options: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr("infinitetalk.engine.load", full)
        with pytest.raises(InfrastructureError, match="offload") as failed:
            list(tiny_infinitetalk().generate(shot_of(5), None, 0))
        assert failed.type is InfrastructureError, "that costs a shard a try: waiting alone may not help"

    def test_a_network_that_gives_no_numbers_fails_its_shot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        generator = tiny_infinitetalk()
        transformer = generator._engine(distilled=False).networks.transformer
        transformer.head.head.bias.data.fill_(float("nan"))
        with pytest.raises(EngineError, match=r"chunk 0.*not finite.*models verify"):
            list(generator.generate(shot_of(5), None, 0))

    @pytest.mark.parametrize("device", ["potato", "cuda:99"])
    def test_a_device_that_there_is_not_is_named(self, device: str) -> None:
        home = EngineHome(weights=tiny_folder, threads=1, device=device)
        with pytest.raises((InputError, SetupError), match=device):
            list(InfiniteTalk(EngineRef(name="infinitetalk"), home).generate(shot_of(5), None, 0))

    def test_what_makes_other_pictures_enters_the_recipe_and_nothing_else_does(self) -> None:
        def ref(**options: Scalar) -> EngineRef:
            return describe("generator", "infinitetalk", options, lambda name: {"file": "0" * 64})

        assert ref() == ref(memory="offload", attention="sdpa", device="cuda:1")
        assert ref(precision="fp8") != ref() != ref(chunk=49)
        assert set(ref().weights) == {"wan-i2v-480p/file", "wan-companions/file", "infinitetalk-single/file",
                                      "chinese-wav2vec2-base/file"}
        assert "infinitetalk-multi/file" in ref(weights="infinitetalk-720p-multi").weights
        assert "lightx2v-i2v-480p/file" in ref(lora="lightx2v-i2v-480p").weights
        with pytest.raises(InputError, match="4k \\+ 1"):
            ref(chunk=80)
        with pytest.raises(InputError, match="Set one of them"):
            ref(precision="fp8", memory="offload")

    def test_a_gpu_that_is_asked_for_and_not_there_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pathlib.Path.glob", lambda self, pattern: iter(()))
        assert "no CUDA GPU" in InfiniteTalk.missing({"device": "cuda"})


class TestCast:
    LEFT, MIDDLE, RIGHT = face(0, 1200, 300, 90), face(1, 600, 300, 200), face(2, 100, 300, 100)

    def test_one_who_speaks_has_the_largest_face(self) -> None:
        assert cast(request_of("A", self.LEFT, self.MIDDLE, self.RIGHT)) == {"A": 1}

    def test_several_have_the_largest_faces_from_left_to_right(self) -> None:
        assert cast(request_of("BA", self.LEFT, self.MIDDLE, self.RIGHT)) == {"B": 2, "A": 1}
        assert cast(request_of("AB", self.MIDDLE)) == {"A": 0, "B": None}

    def test_a_known_face_is_no_guess(self) -> None:
        assert cast(request_of("AB", self.LEFT, self.MIDDLE, self.RIGHT, known=1)) == {"A": 2, "B": 1}
        assert cast(request_of("A", self.LEFT, known=7)) == {"A": 0}

    def test_the_loudest_are_taken_in_their_order(self) -> None:
        tracks = {name: np.full(10, level, np.float32) for name, level in zip("ABC", (0.1, 0.3, 0.2), strict=True)}
        assert loudest(tracks, 2) == ["B", "C"]
        assert loudest({"A": np.zeros(3, np.float32), "B": np.zeros(3, np.float32)}, 2) == ["A"]

    @pytest.mark.parametrize(("x", "y", "size"), [(0, 0, 5), (1910, 1070, 9), (0, 0, 1079), (957, 541, 1)])
    def test_a_rectangle_around_people_is_even_and_inside(self, x: int, y: int, size: int) -> None:
        place = around([face(0, x, y, size)], 1920, 1080)
        assert not any(side % 2 for side in (place.x, place.y, place.width, place.height))
        assert place.x <= x < place.x + place.width <= 1920
        assert place.y <= y < place.y + place.height <= 1080
        assert around([face(0, 1, 1, 3)], 5, 3) == Placement(x=0, y=0, width=5, height=3)

    def test_regions_are_those_of_the_generated_picture(self) -> None:
        place = Placement(x=200, y=100, width=800, height=400)
        assert region_of(FaceTrack(id=0, boxes=((0, 600, 200, 100, 100),)), place, (400, 200)) == (150, 10, 150, 170)
        assert region_of(FaceTrack(id=0, boxes=((0, 1500, 200, 100, 100),)), place, (400, 200)) is None
        assert region_of(FaceTrack(id=0, boxes=()), place, (400, 200)) is None

    def test_every_pixel_of_the_source_falls_back_on_its_place(self) -> None:
        pytest.importorskip("PIL")
        picture = np.zeros((108, 192, 3), np.uint8)
        picture[54:, 96:] = 255
        part = cut_out(picture, Placement(x=0, y=0, width=192, height=108), (96, 64))
        assert part.shape == (64, 96, 3)
        assert part[:31, :47].max() == 0
        assert part[33:, 49:].min() == 255
