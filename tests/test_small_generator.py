"""The back ends `lite` and `nano`, and the loading of small weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.engines import describe, missing
from models.engines.small import Lite, Nano, area_of, foremost, middle
from models.errors import InputError, SetupError
from models.ports import EngineHome, ShotInput
from models.records import Artifact, EngineRef, FaceTrack, Placement, Scalar, ShotRequest, SpeakerTrack

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tests.tiny_small import TINY, write_folder

WIDTH, HEIGHT = 320, 180


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("lite"))


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """Weights that may be spoiled."""
    return Path(shutil.copytree(folder, tmp_path / "own"))


def lite(folder: Path, **options: Scalar) -> Lite:
    return Lite(EngineRef(name="lite", options={"steps": 1} | options),
                EngineHome(weights=Path, threads=1, connection={"path": str(folder)}))


def face(number: int, x: int, y: int, size: int) -> FaceTrack:
    return FaceTrack(id=number, boxes=((0, x, y, size, size), (8, x + 4, y, size, size)))


def request(speakers: str = "A", *faces: FaceTrack, **fields: object) -> ShotRequest:
    tracks = tuple(SpeakerTrack(speaker=name, lines=(), face=index if index < len(faces) else None)
                   for index, name in enumerate(speakers))
    told = ShotRequest(shot="S0001", source=Artifact(sha256="0" * 64, size=1, media_type="video/mp4"), start=0, end=40,
                       width=WIDTH, height=HEIGHT, rate="25", tracks=tracks, faces=faces,
                       generator=EngineRef(name="lite"))
    return told.model_copy(update=fields)


def shot(told: ShotRequest, **louder: float) -> ShotInput:
    picture = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    voice = (0.3 * np.sin(np.arange(40 * 640) / 9)).astype(np.float32)
    tracks = {track.speaker: voice * np.float32(louder.get(track.speaker, 1)) for track in told.tracks}
    return ShotInput(told, lambda index: np.roll(picture, index, 1), tracks, told.faces)


def made(generator: Lite, what: ShotInput) -> np.ndarray:
    return np.concatenate([chunk.frames for chunk in generator.generate(what, None, 0)])


# -- where and who ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", ["frame", "person"])
def test_what_is_handed_on_holds_the_close_up_wherever_it_moves_whatever_the_region(folder: Path, region: str) -> None:
    told = request("A", face(0, 100, 60, 40), region=region)  # it moves by 4 pixels; the close-up is 48 wide
    assert lite(folder).placement(told) == (52, 48, Placement(x=96, y=60, width=52, height=48))


@pytest.mark.parametrize("box", [(-9.5, -3, 30, 20), (290, 150, 333, 190), (-5, -5, 400, 400), (99.5, 20.1, 100, 20.2),
                                 (-40, -40, -20, -20), (330, 190, 340, 200)])
@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (WIDTH + 1, HEIGHT + 1)])
def test_the_area_is_even_holds_what_is_seen_and_lies_in_the_frame(box: tuple[float, ...],
                                                                   size: tuple[int, int]) -> None:
    place = area_of(np.array([box], np.float32), *size)
    for low, length, at, end, most in ((place.x, place.width, box[0], box[2], size[0]),
                                       (place.y, place.height, box[1], box[3], size[1])):
        assert low % 2 == length % 2 == 0
        assert 0 <= low < low + length <= most
        assert length >= 2
        assert low <= max(at, 0) or at > most - 2
        assert low + length >= min(end, most - most % 2)


def test_without_a_face_it_is_the_middle() -> None:
    assert middle(WIDTH, HEIGHT) == Placement(x=70, y=0, width=180, height=180)
    assert middle(5, 3) == Placement(x=0, y=0, width=2, height=2)


def test_the_largest_face_of_those_heard_is_driven_by_its_own_voice(folder: Path) -> None:
    small, large = face(0, 20, 20, 20), face(1, 200, 40, 60)
    told = request("AB", small, large)
    found = foremost(told)
    assert found is not None
    assert found[0] == "B"
    generator = lite(folder)
    both = made(generator, shot(told))
    assert np.array_equal(both, made(generator, shot(told, A=0.0)))
    assert not np.array_equal(both, made(generator, shot(told, B=0.0)))


def test_where_no_speaker_is_seen_the_loudest_drives(folder: Path) -> None:
    told = request("AB")
    assert foremost(told) is None
    generator = lite(folder)
    loud = made(generator, shot(told, A=0.1))
    assert np.array_equal(loud, made(generator, shot(told, A=0.0)))


def test_faces_that_were_never_seen_count_for_nothing() -> None:
    assert foremost(request("A", FaceTrack(id=0, boxes=()))) is None


@pytest.mark.parametrize(("rate", "divisor"), [("25", 1), ("50", 2), ("60", 2), ("60000/1001", 2), ("24000/1001", 1)])
def test_each_frame_is_seen_through_the_square_of_its_own_moment(folder: Path, rate: str, divisor: int) -> None:
    seen = FaceTrack(id=0, boxes=((100, 40, 60, 40, 40), (139, 118, 60, 40, 40)))  # by 2 pixels a frame
    told = request("A", seen, start=100, end=140, rate=Fraction(rate))

    def frame(index: int) -> np.ndarray:
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        picture[:, 60 + 2 * divisor * index:] = 255  # the face's middle is an edge
        return picture

    generator = lite(folder)
    take = generator._take(ShotInput(told, frame, {"A": np.zeros(640, np.float32)}), generator._squares(told))
    assert take.frames == -(-40 // divisor)
    for index in (0, 1, 7, take.frames - 1):
        assert abs(int(np.argmax(take.frame(index)[32, :, 0] > 127)) - 32) <= 1


@pytest.mark.parametrize("box", [(10**9, -10**9, 2 * 10**9, 50), (100, 60, 0, 0)])
def test_boxes_from_elsewhere_do_no_harm(folder: Path, box: tuple[int, int, int, int]) -> None:
    told = request("A", FaceTrack(id=0, boxes=((0, *box), (8, *box))))
    place = lite(folder).placement(told)[2]
    assert place.x + place.width <= WIDTH
    assert made(lite(folder), shot(told)).shape == (40, place.height, place.width, 3)


# -- making it --------------------------------------------------------------------------------------------------------


def test_a_still_reference_and_guidance_make_other_pictures(folder: Path) -> None:
    told = request("A", face(0, 100, 60, 40))
    plain = made(lite(folder), shot(told))
    assert plain.shape == (40, 48, 52, 3)
    assert not np.array_equal(plain, made(lite(folder), shot(told.model_copy(update={"reference": "image"}))))
    assert not np.array_equal(plain, made(lite(folder, guidance=1.0), shot(told)))
    assert not np.array_equal(plain, made(lite(folder, steps=2), shot(told)))


def test_the_lower_face_alone_is_made_anew_and_follows_the_face(folder: Path) -> None:
    seen = FaceTrack(id=0, boxes=((0, 60, 50, 80, 80), (39, 180, 50, 80, 80)))
    told = request("A", seen)
    what, generator = shot(told), lite(folder)
    place = generator.placement(told)[2]
    changed = []
    for index, frame in enumerate(made(generator, what)):
        filmed = what.frame(index)[place.y:place.y + place.height, place.x:place.x + place.width]
        changed.append(np.argwhere((frame != filmed).any(2)))
    for first, x in ((changed[0], 60), (changed[-1], 180)):
        (top, left), (bottom, right) = (edge + np.array((place.y, place.x)) for edge in (first.min(0), first.max(0)))
        assert abs((left + right) / 2 - (x + 0.5 * 80)) < 24  # to a cell and a half of the small picture
        assert top > 50 + 0.25 * 80
        assert bottom > 50 + 0.9 * 80
    assert all(len(one) < 0.35 * place.width * place.height for one in changed)


@pytest.mark.parametrize(("change", "words"), [
    ({"reference": "i2v"}, "for comparison"), ({"profile": "splendid"}, "There are: default")])
def test_what_it_cannot_do_is_refused_before_loading(change: dict[str, str], words: str, tmp_path: Path) -> None:
    told = request("A", **change)
    with pytest.raises(InputError, match=words):
        lite(tmp_path).placement(told)
    with pytest.raises(InputError, match=words):
        next(iter(lite(tmp_path).generate(shot(told), None, 0)))


def test_a_state_of_another_shot_is_refused(folder: Path) -> None:
    generator, told = lite(folder), request("A")
    state = next(iter(generator.generate(shot(told), None, 0))).state
    with pytest.raises(InputError, match="another shot"):
        next(iter(generator.generate(shot(told.model_copy(update={"seed": 9})), state, 1)))


# -- weights ----------------------------------------------------------------------------------------------------------


def first(generator: Lite) -> Iterator[object]:
    return iter([next(iter(generator.generate(shot(request("A")), None, 0)))])


def test_recipes_hold_the_hash_of_the_weights_and_not_their_place(folder: Path, own: Path) -> None:
    def ref(**options: Scalar) -> EngineRef:
        return describe("generator", "lite", options, lambda name: {})

    here, there = ref(path=str(folder)), ref(path=str(own), device="cuda")
    assert here == there
    assert len(str(here.options["sha256"])) == 64
    assert "path" not in here.options
    (own / "config.json").write_text((own / "config.json").read_text() + " ")
    assert ref(path=str(own)) != here
    (own / "MODEL_CARD.md").write_text("words change nothing")
    assert ref(path=str(folder)) == here


def test_weights_that_changed_since_planning_are_refused(folder: Path, own: Path) -> None:
    planned = describe("generator", "lite", {"path": str(own)}, lambda name: {})
    (own / "config.json").write_text((own / "config.json").read_text() + " ")
    generator = Lite(planned, EngineHome(weights=Path, connection={"path": str(own)}))
    with pytest.raises(InputError, match="not those that were planned with"):
        first(generator)


def test_weights_that_are_absent_are_said_beforehand(tmp_path: Path, folder: Path) -> None:
    assert "no whole weights" in missing("generator", "lite", {"path": str(tmp_path)})
    assert missing("generator", "lite", {"path": str(folder)}) == ""
    with pytest.raises(SetupError):
        first(lite(tmp_path))


@pytest.mark.parametrize("name", ["dit.safetensors", "codec.safetensors", "speech.safetensors", "config.json"])
def test_a_damaged_file_is_named(own: Path, name: str) -> None:
    (own / name).write_bytes((own / name).read_bytes()[:50])
    with pytest.raises(SetupError, match=name):
        first(lite(own))


def test_weights_of_another_configuration_are_refused(own: Path) -> None:
    told = json.loads((own / "config.json").read_text())
    told["transformer"]["num_heads"] = 2  # the same tensors, another network
    (own / "config.json").write_text(json.dumps(told))
    with pytest.raises(SetupError, match="was trained with configuration"):
        first(lite(own))


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    other = Nano(EngineRef(name="nano"), EngineHome(weights=Path, connection={"path": str(folder)}))
    with pytest.raises(SetupError, match="another size, lite"):
        next(iter(other.generate(shot(request("A")), None, 0)))


def test_the_loaded_engine_is_for_one_speaker_and_takes_any_prompt(folder: Path) -> None:
    from infinitetalk.small.load import load

    engine = load(folder)
    assert engine.persons == 1
    assert engine.text("anything at all").shape == (0, TINY.transformer.text_dim)
    assert engine.networks.transformer.config == TINY.transformer
