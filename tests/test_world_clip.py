import json
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.numpy import load_file, save_file

from flows.cli import run_command
from infinitetalk.errors import BadInputError, InfiniteTalkError
from infinitetalk.world.camera import draw_camera
from infinitetalk.world.clip import HELD_OUT, POOL, clip_seed, draw_scene, make_clip, split_of
from infinitetalk.world.clip_file import load_clip, save_clip
from infinitetalk.world.dataset import MANIFEST, Recordings, Settings, clip_name, write
from infinitetalk.world.motion import act
from infinitetalk.world.person import person
from infinitetalk.world.renderer import Renderer
from infinitetalk.world.scene import CHANNELS, Clip, Phoneme, Truth
from infinitetalk.world.speech import RATE, Speech

SIZE = 32
SETTINGS = Settings(0.2, SIZE, SIZE)


def _missing() -> str:
    from infinitetalk.world.speech import Voice, say

    try:
        say([("oh", Voice("en-us", "m1"))])
        Renderer((16, 16), 1).close()
    except InfiniteTalkError as error:
        return str(error)
    return ""


WHY = _missing()
renders = pytest.mark.skipif(bool(WHY), reason=WHY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three clips, written once; a test that spoils them copies them."""
    path = tmp_path_factory.mktemp("world")
    write(path, [0, 1, 2], SETTINGS)
    return path


@pytest.fixture
def spoilt(folder, tmp_path):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def drawn(seed=5, frames=9, rate=25.0, people=1):
    """A clip without renderer or speech library: noise for pixels, one syllable for speech."""
    rng = np.random.default_rng(seed)
    said = Speech((rng.integers(-9999, 9999, round(frames / rate * RATE)) / 32768).astype(np.float32),
                  (Phoneme("m", 0.05, 0.1), Phoneme("aː", 0.1, 0.3)), (0.2,))
    acts = [act(one, said, frames, rate, "bust") for one in rng.spawn(people)]
    truth = tuple(Truth(its.visemes, its.motion, its.beats, *rng.uniform(0, 9, (2, frames, 4)).astype(np.float32),
                        person(index), said.phonemes, said.stresses) for index, its in enumerate(acts))
    return Clip(seed, rate, rng.integers(0, 255, (frames, 20, 24, 3), np.uint8), np.stack([said.audio] * people),
                draw_camera(rng, frames, rate, "bust"), truth)


def same(left, right):
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right)
    if hasattr(left, "__dataclass_fields__"):
        return all(same(getattr(left, field.name), getattr(right, field.name)) for field in fields(left))
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right


# -- splits -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, HELD_OUT - 1), st.integers(0, HELD_OUT - 1))
@settings(max_examples=60, deadline=None)
def test_no_clip_is_in_both_splits(one, other):
    assert split_of(clip_seed("train", one)) == "train"
    assert split_of(clip_seed("test", other)) == "test"
    assert not set(POOL["train"]) & set(POOL["test"])
    assert max(POOL["train"]) < HELD_OUT <= min(POOL["test"])


@renders
@pytest.mark.parametrize("split", ["train", "test"])
def test_people_of_a_clip_are_of_its_split_and_two_are_different(split):
    for index in range(4):
        people = draw_scene(clip_seed(split, index), 10, 25, people=2).people
        assert {one.seed in POOL[split] for one in people} == {True}
        assert people[0].seed != people[1].seed


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("people", [1, 2])
@pytest.mark.parametrize("rate", [24.0, 25.0, 30.0, 23.976])
def test_a_clip_is_read_back_as_it_was(tmp_path, rate, people):
    clip = drawn(rate=rate, people=people)
    hashes = save_clip(clip, tmp_path, "one")
    found = load_clip(tmp_path, "one")
    assert found.rate == rate
    for name in ("seed", "frames", "speech", "camera", "truth"):
        assert same(getattr(found, name), getattr(clip, name)), name
    assert save_clip(clip, tmp_path, "two").popitem()[1] == hashes.popitem()[1]


def test_two_files_that_do_not_belong_together_are_refused(tmp_path):
    for name, seed in (("one", 1), ("two", 2)):
        save_clip(drawn(seed), tmp_path, name)
    (tmp_path / "two.safetensors").replace(tmp_path / "one.safetensors")
    with pytest.raises(BadInputError, match="not the file that its truth was written for"):
        load_clip(tmp_path, "one")


@pytest.mark.parametrize("cut", ["0.visemes", "camera", "0.units"])
def test_truth_of_another_length_is_refused(tmp_path, cut):
    clip = drawn()
    truth = clip.truth[0]
    shorter = {"0.visemes": lambda: replace(clip, truth=(replace(truth, visemes=truth.visemes[:-1]),)),
               "camera": lambda: replace(clip, camera=replace(clip.camera, path=clip.camera.path[:-2])),
               "0.units": lambda: replace(clip, truth=(replace(truth, motion=replace(
                   truth.motion, units=truth.motion.units[:-1])),))}[cut]()
    save_clip(shorter, tmp_path, "one")
    with pytest.raises(BadInputError, match="rows for 9 frames"):
        load_clip(tmp_path, "one")


def test_sound_shorter_than_the_picture_is_refused(tmp_path):
    clip = drawn()
    save_clip(replace(clip, speech=clip.speech[:, :2000]), tmp_path, "one")
    with pytest.raises(BadInputError, match="sound is not as long"):
        load_clip(tmp_path, "one")


def test_a_truth_that_lacks_a_part_is_refused(tmp_path):
    save_clip(drawn(), tmp_path, "one")
    arrays = load_file(tmp_path / "one.safetensors")
    del arrays["0.head"]
    from infinitetalk.world.clip_file import _unpacked
    notes, _ = _unpacked(tmp_path / "one.safetensors")
    save_file(arrays, tmp_path / "one.safetensors", {"truth": json.dumps(notes)})
    with pytest.raises(BadInputError, match=r"lacks a part of the truth \('0.head'\)"):
        load_clip(tmp_path, "one")


# -- whole clips ------------------------------------------------------------------------------------------------------


@renders
@pytest.mark.parametrize(("rate", "people"), [(24, 1), (25, 2), (30, 1)])
def test_truth_is_as_long_as_the_picture_and_the_sound(rate, people):
    clip = make_clip(3, 0.2, (24, 40), rate=rate, people=people)
    count = round(rate * 0.2)
    assert clip.frames.shape == (count, 24, 40, 3)
    assert clip.speech.shape == (people, round(count / rate * RATE))
    assert len(clip.truth) == people
    assert len(clip.camera.path) == count
    for truth in clip.truth:
        assert {len(truth.visemes), len(truth.beats), len(truth.mouth), len(truth.motion.units)} == {count}
        assert truth.visemes.shape[1] == len(CHANNELS)


@renders
def test_a_seed_is_a_clip():
    with Renderer((SIZE, SIZE), 2) as renderer:
        one, again, other = (make_clip(seed, 0.2, SIZE, renderer=renderer) for seed in (7, 7, 8))
    assert same(one, again)
    assert not np.array_equal(one.frames, other.frames)
    assert not np.array_equal(one.speech, other.speech)


@renders
def test_the_mouth_that_is_seen_opens_as_the_truth_says():
    darker, taller = [], []
    with Renderer((64, 64), 1) as renderer:
        for seed in range(3):
            clip = make_clip(seed, 1.4, 64, framing="head", renderer=renderer)
            mouth, jaw = clip.truth[0].mouth, clip.truth[0].visemes[:, CHANNELS.index("jawOpen")]
            dark = [_darkness(frame, box) for frame, box in zip(clip.frames, mouth, strict=True)]
            darker.append(np.corrcoef(dark, jaw)[0, 1])
            taller.append(np.corrcoef((mouth[:, 3] - mouth[:, 1]) / (mouth[:, 2] - mouth[:, 0]), jaw)[0, 1])
    assert np.mean(darker) > 0.4
    assert np.mean(taller) > 0.5


def _darkness(frame, box):
    """Share of the mouth's box that is darker than its median."""
    left, top, right, bottom = (round(float(value)) for value in box)
    grey = frame[top:bottom, left:right].mean(axis=2)
    return (grey < 0.7 * np.median(grey)).mean()


@pytest.mark.parametrize("wrong", [{"frames": 0}, {"rate": 0.5}, {"people": 3}, {"seed": -1}])
def test_clips_that_cannot_be_are_refused(wrong):
    with pytest.raises(BadInputError, match="Take a seed of 0 or more"):
        draw_scene(**{"seed": 1, "frames": 10, "rate": 25, **wrong})


# -- folders ----------------------------------------------------------------------------------------------------------


@renders
def test_a_folder_is_resumed_and_only_what_is_damaged_is_made_again(spoilt):
    assert write(spoilt, [0, 1, 2], SETTINGS).made == 0
    before = (spoilt / "00000001.mkv").read_bytes()
    (spoilt / "00000001.mkv").write_bytes(before[:-30])
    (spoilt / "00000002.safetensors").unlink()
    manifest = spoilt / MANIFEST
    manifest.write_text(manifest.read_text() + '{"name": "000')
    written = write(spoilt, [0, 1, 2], SETTINGS)
    assert (written.made, written.kept) == (2, 1)
    assert (spoilt / "00000001.mkv").read_bytes() == before
    assert len(list(Recordings(spoilt))) == 3


@renders
def test_several_processes_make_the_same_clips(folder, tmp_path):
    written = write(tmp_path, [0, 4], SETTINGS, workers=2)
    assert written.made == 2
    assert written.frames == 2 * 5
    for suffix in (".mkv", ".safetensors"):
        assert (tmp_path / f"{clip_name(0)}{suffix}").read_bytes() == (folder / f"{clip_name(0)}{suffix}").read_bytes()


@renders
def test_a_folder_of_other_settings_is_refused(spoilt):
    with pytest.raises(BadInputError, match="other settings"):
        write(spoilt, [0], Settings(0.2, 64, 64))


@renders
def test_bad_clips_are_named_skipped_and_counted(spoilt):
    video = spoilt / "00000000.mkv"
    data = bytearray(video.read_bytes())
    data[len(data) // 2] ^= 255
    video.write_bytes(data)
    (spoilt / "00000001.safetensors").unlink()
    found = Recordings(spoilt)
    assert [one.name for one in found] == ["00000002"]
    assert len(found) == 3
    assert len(found.skipped) == 2
    assert "was damaged" in found.skipped["00000000"]
    assert "its truth is missing" in found.skipped["00000001"]


@renders
def test_clips_of_another_rate_are_skipped(folder):
    found = Recordings(folder, rate=30)
    assert not list(found)
    assert all("has 25 frames a second, not 30" in why for why in found.skipped.values())


def test_real_video_is_read_without_truth_where_none_is_needed(tmp_path):
    clip = drawn(people=2)
    save_clip(clip, tmp_path, "talk")
    (tmp_path / "talk.safetensors").unlink()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    found = Recordings(tmp_path, need_truth=False)
    (one,) = found
    assert np.array_equal(one.frames, clip.frames)
    assert one.speech.shape == (1, clip.speech.shape[1])
    assert one.truth == ()
    assert "cannot be read" in found.skipped["broken.mp4"]
    needing = Recordings(tmp_path)
    assert not list(needing)
    assert "has no truth" in needing.skipped["talk.mkv"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="holds no clips"):
        Recordings(tmp_path)


# -- the verb ---------------------------------------------------------------------------------------------------------


@renders
def test_the_verb_writes_clips_and_a_sheet(tmp_path, capsys):
    command = ["world", "render", "--out", str(tmp_path / "clips"), "--clips", "2", "--size", "32", "--seconds", "0.2",
               "--people", "2", "--split", "test", "--seed", "5", "--workers", "1", "--sheet", str(tmp_path / "s.png")]
    assert run_command([*command, "--boxes", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["made"], told["kept"], told["frames"]) == (2, 0, 10)
    assert Image.open(tmp_path / "s.png").size == (8 * 32, 2 * 32)
    found = list(Recordings(tmp_path / "clips"))
    assert [one.seed for one in found] == [HELD_OUT + 5, HELD_OUT + 6]
    assert run_command([*command, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == 2


@pytest.mark.parametrize("wrong", [["--split", "both"], ["--framing", "feet"], ["--people", "3"], ["--seed", "999999"]])
def test_the_verb_refuses_what_cannot_be(tmp_path, wrong, capsys):
    assert run_command(["world", "render", "--out", str(tmp_path), *wrong]) == 2
    assert "error:" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_nothing_is_pickled():
    for name in ("clip_file", "dataset"):
        assert "pickle" not in vars(sys.modules[f"infinitetalk.world.{name}"])
