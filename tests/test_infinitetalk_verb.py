"""The verb `generate` with tiny networks in the public layout: files in, a film out, and going on after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import infinitetalk.job
from flows.cli import run_command
from flows.generate_setup import Weights, files_under
from infinitetalk.files import BASES
from infinitetalk.io import sound
from infinitetalk.writing import write_chunk
from tests.test_infinitetalk_inputs import PICTURE, TONE, video, wav
from tests.tiny_infinitetalk import write_public_layout

Call = Callable[..., tuple[int, dict[str, Any]]]
FAST = "--preset fast-4 without a LoRA that was distilled for it blurs: add --lora lightx2v-i2v-480p"
SMALL = ("--size", "48x32", "--preset", "fast-4", "--steps", 1, "--chunk", 13)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, a picture, a video of 50 frames per second, and speech of 0.5 s and 0.24 s."""
    folder = tmp_path_factory.mktemp("given")
    write_public_layout(folder / "weights")
    Image.fromarray(PICTURE).save(folder / "her.png")
    video(folder / "her.mp4", frames=40, rate=Fraction(50))
    wav(folder / "a.wav", TONE, subtype="PCM_16")
    wav(folder / "b.wav", np.stack([0.1 * TONE, 0.5 * TONE], -1)[:11_520], subtype="PCM_16")
    return folder


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], given: Path, tmp_path: Path) -> Call:
    """Runs the verb to `o.mp4` with --json; stdout must hold one JSON object and nothing else."""

    def run(*arguments: object) -> tuple[int, dict[str, Any]]:
        options = ("--weights", given / "weights", "--out", tmp_path / "o.mp4", "--json")
        code = run_command([*map(str, ("generate", *arguments, *SMALL, *options))])
        lines = capsys.readouterr().out.splitlines()
        assert len(lines) == 1, lines
        return code, json.loads(lines[0])

    return run


def pictures(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def check(path: Path, frames: int, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """The film has so many frames at that rate, and sound exactly as long; its pictures and its sound."""
    with av.open(str(path)) as container:
        picture, voice = container.streams.video[0], container.streams.audio[0]
        assert (picture.codec_context.name, voice.codec_context.name) == ("h264", "aac")
        assert (picture.frames, picture.average_rate) == (frames, rate)
        assert voice.duration * voice.time_base == Fraction(frames, rate)
    seen, heard = pictures(path), np.concatenate(list(sound(path, 48_000, "stereo")), 1)
    assert seen.shape == (frames, 32, 48, 3)
    return seen, heard[:, :frames * 48_000 // rate]


def test_a_picture_speaks(call: Call, given: Path, tmp_path: Path) -> None:
    code, told = call("--image", given / "her.png", "--audio", given / "a.wav")
    assert code == 0
    assert told.pop("seconds") > 0
    assert told == {"video": str(tmp_path / "o.mp4"), "frames": 12, "fps": 25.0, "width": 48, "height": 32,
                    "duration_s": 0.48, "speakers": 1, "chunks": 1, "chunks_reused": 0, "seed": 0, "source_fps": None,
                    "consents": [], "warnings": [FAST]}
    _, heard = check(tmp_path / "o.mp4", 12, 25)
    assert np.abs(heard[:, 2_000:20_000] - TONE[2_000:20_000]).max() < 0.05  # the given sound, not the network's


def test_a_video_speaks_at_half_its_rate(call: Call, given: Path, tmp_path: Path) -> None:
    code, told = call("--video", given / "her.mp4", "--audio", given / "a.wav", "--frames", 5, "--tail", "full")
    assert (code, told["frames"], told["fps"], told["source_fps"]) == (0, 5, 25.0, 50.0)
    check(tmp_path / "o.mp4", 5, 25)


def test_two_speak_in_turns_from_the_published_input(call: Call, given: Path, tmp_path: Path) -> None:
    job = given / "job.json"
    job.write_text(json.dumps({
        "prompt": "two people", "cond_video": "her.png", "cond_audio": {"person1": "b.wav", "person2": "b.wav"},
        "audio_type": "add", "bbox": {"person1": [0, 0, 48, 30], "person2": [0, 34, 48, 64]}}))
    code, told = call("--input", job, "--seed", 7)
    assert (code, told["frames"], told["speakers"], told["seed"]) == (0, 12, 2, 7)
    _, heard = check(tmp_path / "o.mp4", 12, 25)
    left, right = np.abs(heard).reshape(2, -1, 480).max(-1)
    assert left[3:45].max() < 0.1 < 0.2 < right[3:45].min()  # two channels, each of both halves


def test_a_killed_run_goes_on_and_gives_the_same_film(call: Call, given: Path, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    speech = wav(tmp_path / "long.wav", np.tile(TONE, 2)[:33_000])
    arguments = ("--image", given / "her.png", "--audio", speech, "--steps", 2, "--text-scale", 2)
    assert call(*arguments)[1]["chunks"] == 2
    whole = pictures(tmp_path / "o.mp4")
    (tmp_path / "o.mp4").unlink()

    def killed(path: Path, *rest: Any) -> None:
        if path.name == "00001.mp4":
            path.with_name(f".{path.name}.partial").touch()
            raise KeyboardInterrupt
        write_chunk(path, *rest)

    kept = ("--state", tmp_path / "kept")
    with monkeypatch.context() as patch:
        patch.setattr(infinitetalk.job, "write_chunk", killed)
        assert call(*arguments, *kept)[0] == 130
    assert not (tmp_path / "o.mp4").exists()
    code, told = call(*arguments, *kept, "--seed", 1)
    assert (code, told["error"]["class"]) == (2, "InputError")
    assert "holds something else" in told["error"]["message"]
    code, told = call(*arguments, *kept)
    assert (code, told["chunks"], told["chunks_reused"]) == (0, 2, 1)
    assert len(whole) == 17
    assert np.array_equal(pictures(tmp_path / "o.mp4"), whole)
    assert not (tmp_path / "kept").exists()


def test_a_film_that_only_lacks_its_sound_is_not_made_anew(call: Call, given: Path, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    arguments = ("--image", given / "her.png", "--audio", given / "b.wav", "--state", tmp_path / "kept")
    with monkeypatch.context() as patch:
        patch.setattr(infinitetalk.job, "join", killed)
        code, told = call(*arguments)
        assert (code, told["error"]["retryable"]) == (5, True)
    chunk = tmp_path / "kept" / "00000.mp4"
    chunk.rename(tmp_path / "aside.mp4")
    code, told = call(*arguments)
    assert (code, told["error"]["what"]) == (2, "chunk 0 is gone")
    (tmp_path / "aside.mp4").rename(chunk)
    code, told = call(*arguments)
    assert (code, told["chunks"], told["chunks_reused"], told["frames"]) == (0, 1, 1, 6)


@pytest.mark.parametrize(("arguments", "words"), [
    ((), "--image and --video"),
    (("--image", "her.png"), "--audio"),
    (("--image", "her.png", "--video", "her.mp4", "--audio", "a.wav"), "one of"),
    (("--image", "her.png", "--audio", "gone.wav"), "gone.wav"),
    (("--image", "a.wav", "--audio", "a.wav"), "a.wav"),
    (("--image", "her.png", "--audio", "a.wav", "--box", "1,2,3"), "no box"),
    (("--image", "her.png", "--audio", "a.wav", "--box", "1,2,300,400"), "leaves the picture"),
    (("--image", "her.png", "--audio", "a.wav", "--audio", "a.wav", "--audio", "a.wav"), "3 tracks"),
    (("--image", "her.png", "--audio", "a.wav", "--size", "40x40"), "40×40"),
    (("--image", "her.png", "--audio", "a.wav", "--size", "big"), "--size"),
    (("--image", "her.png", "--audio", "a.wav", "--reference", "both"), "--reference"),
    (("--image", "her.png", "--audio", "a.wav", "--preset", "slow"), "slow"),
    (("--image", "her.png", "--audio", "a.wav", "--tail", "none"), "none"),
    (("--image", "her.png", "--audio", "a.wav", "--chunk", "80"), "80"),
    (("--image", "her.png", "--audio", "a.wav", "--prompt", "a" * 9_000), "9000"),
    (("--image", "her.png", "--audio", "a.wav", "--prompt", "word " * 600), "tokens"),
    (("--image", "her.png", "--audio", "a.wav", "--lora", "gone.safetensors:0.5"), "gone.safetensors"),
    (("--image", "her.png", "--audio", "a.wav", "--device", "cuda:9"), "cuda:9"),
    (("--image", "her.png", "--audio", "a.wav", "--weights", "gone"), "infinitetalk-480p"),
    (("--image", "her.png", "--audio", "a.wav", "--out", "film.mkv"), "film.mkv"),
    (("--image", "her.png", "--audio", "a.wav", "--audio", "a.wav", "--weights", "infinitetalk-480p"), "-multi"),
])
def test_what_cannot_be_made_is_refused_with_what_to_do(given: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...],
                                                        words: str) -> None:
    monkeypatch.chdir(given)
    options = {"--weights": "weights", "--out": str(tmp_path / "o.mp4"), "--size": "48x32"}
    rest = [text for name, value in options.items() if name not in arguments for text in (name, value)]
    assert run_command(["generate", *arguments, *rest, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert words in error["message"]
    assert error["hint"] or "--lora" in error["where"]
    assert not (tmp_path / "o.mp4").exists()


def test_of_two_bases_the_one_of_the_size_is_taken(given: Path, tmp_path: Path) -> None:
    for base in BASES:
        (tmp_path / base).symlink_to(given / "weights" / BASES[0])
    for name in ("InfiniteTalk", "chinese-wav2vec2-base"):
        (tmp_path / name).symlink_to(given / "weights" / name)
    for size, base in zip(("480", "720"), BASES, strict=True):
        assert files_under(tmp_path, size, two=False).wan.name == base


def test_weights_that_are_absent_are_named_with_the_command_that_gets_them(
        given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINIDUB_WEIGHTS", str(tmp_path))
    shutil.copytree(given / "weights" / "InfiniteTalk", tmp_path / "part" / "InfiniteTalk")
    arguments = ["generate", "--image", str(given / "her.png"), "--audio", str(given / "a.wav"), "--out",
                 str(tmp_path / "o.mp4"), "--json"]
    for weights, words in (
            ([], ("wan-i2v-480p", "wan-companions", "infinitetalk-single", "chinese-wav2vec2-base")),
            (["--weights", str(tmp_path / "part")], ("Wan2.1_VAE.pth", "tokenizer.json", "base/config.json"))):
        assert run_command([*arguments, *weights]) == 2
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["class"] == "SetupError"
        assert "infinidub models pull infinitetalk-480p" in error["hint"]
        assert all(word in error["message"] for word in words), error["message"]
        assert "single/infinitetalk.safetensors" not in error["message"]


# -- what is looked at before the networks are loaded -----------------------------------------------------------------


@pytest.fixture
def unloaded(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
             monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs the verb in the folder of `given` up to where networks would be loaded; the message of the refusal."""

    def loading(*_: Any, **__: Any) -> None:
        raise AssertionError

    def run(*arguments: object) -> str:
        options = {"--out": tmp_path / "o.mp4", "--weights": "weights", "--size": "48x32"}
        rest = [one for name, value in options.items() if name not in arguments for one in (name, value)]
        assert run_command([*map(str, ("generate", *arguments, *rest)), "--json"]) == 2
        error = json.loads(capsys.readouterr().out)["error"]
        assert error["hint"]
        return str(error["message"])

    monkeypatch.chdir(given)
    monkeypatch.setattr("infinitetalk.engine.load", loading)
    return run


HER = ("--image", "her.png", "--audio", "a.wav")


def test_what_it_is_made_of_is_never_replaced(unloaded: Callable[..., str], given: Path, tmp_path: Path) -> None:
    source, sound, lora = tmp_path / "her.mp4", tmp_path / "b.mp4", tmp_path / "lora.mp4"
    shutil.copy(given / "her.mp4", source)
    shutil.copy(given / "a.wav", sound)
    lora.write_bytes(b"lora")
    job = tmp_path / "job.mp4"
    job.write_text(json.dumps({"cond_video": "her.mp4", "cond_audio": {"person1": "b.mp4"}}))
    (tmp_path / "soft.mp4").symlink_to(source)
    (tmp_path / "hard.mp4").hardlink_to(source)
    for name in ("her.mp4", "soft.mp4", "hard.mp4", "b.mp4", "lora.mp4"):
        assert "would replace it" in unloaded("--video", source, "--audio", sound, "--lora", lora, "--out",
                                              tmp_path / name)
    for out in (job, source, sound):
        assert "would replace it" in unloaded("--input", job, "--out", out)
    assert "--state" in unloaded(*HER, "--out", tmp_path / "kept" / "00000.mp4", "--state", tmp_path / "kept")


def test_an_output_that_cannot_be_written_is_told_at_once(unloaded: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (Path("/proc"), Path("/proc/none"), tmp_path / "file", tmp_path / "file" / "inner"):
        assert "cannot be written" in unloaded(*HER, "--out", folder / "o.mp4")
        assert "cannot be written" in unloaded(*HER, "--state", folder)


@pytest.mark.parametrize(("arguments", "words"), [
    (("--memory", "lots"), "auto, resident, fp8, offload"),
    (("--attention", "none"), "sdpa"),
    (("--device", "gpu"), "cuda:1"),
    (("--chunk", "80"), "13 or more, 4k+1"),
    (("--chunk", "5"), "13 or more, 4k+1"),
    (("--size", "99999x99999"), "multiples of 16, from 16 to 4096"),
    (("--box", "0,0,8,8", "--bystander", "0,0,8,8"), "given twice"),
    (("--box", "0,0,1,1", "--audio", "b.wav", "--box", "60,0,1,1"), "nothing of this person"),
])
def test_names_and_regions_are_checked_before_anything_is_loaded(unloaded: Callable[..., str],
                                                                 arguments: tuple[str, ...], words: str) -> None:
    assert words in unloaded(*HER, *arguments)


@pytest.mark.parametrize(("tensors", "words"), [
    ({"blocks.0.ffn.0.lora_down.weight": (2, 7), "blocks.0.ffn.0.lora_up.weight": (3, 2)}, "another shape"),
    ({"text_model.lora_down.weight": (2, 7), "text_model.lora_up.weight": (3, 2)}, "not in the network"),
    ({"blocks.0.ffn.0.weight": (2, 7)}, "no part of a LoRA"),
    ({}, "nothing in it"),
    (None, "damaged"),
])
def test_a_lora_of_another_network_is_told_by_its_header(unloaded: Callable[..., str], tmp_path: Path,
                                                         tensors: dict[str, tuple[int, ...]] | None,
                                                         words: str) -> None:
    lora = tmp_path / "lora.safetensors"
    save_file({name: torch.zeros(shape) for name, shape in (tensors or {}).items()}, lora)
    if tensors is None:
        lora.write_bytes(b"lora")
    message = unloaded(*HER, "--lora", lora)
    assert words in message
    assert "lora.safetensors" in message


def test_a_folder_of_other_things_is_told_before_anything_is_loaded(unloaded: Callable[..., str],
                                                                    tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "letter.txt").write_text("mine")
    assert "holds something else" in unloaded(*HER, "--state", kept)
    assert (kept / "letter.txt").read_text() == "mine"


def test_weights_and_loras_are_told_apart_by_size_and_time(given: Path, tmp_path: Path) -> None:
    lora = tmp_path / "lora.safetensors"
    lora.write_bytes(b"lora")

    def identity() -> str:
        return Weights(files_under(given / "weights", "480", two=False), ((lora, 1.0),)).identity()

    first = identity()
    assert identity() == first
    lora.write_bytes(b"another")
    assert identity() != first


def test_sound_that_is_longer_than_a_video_is_refused_with_where_it_can_be_cut(unloaded: Callable[..., str],
                                                                              tmp_path: Path) -> None:
    long = wav(tmp_path / "long.wav", np.tile(TONE, 2), subtype="PCM_16")
    assert "--frames 20" in unloaded("--video", "her.mp4", "--audio", long)


def test_a_stop_says_what_is_kept(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("infinitetalk.engine.load", stopped)
    arguments = ["generate", "--image", given / "her.png", "--audio", given / "a.wav", "--out", tmp_path / "o.mp4",
                 "--weights", given / "weights", "--json"]
    for more, words in (([], "nothing was kept; --state DIR keeps"), (["--state", tmp_path / "kept"], "to go on")):
        assert run_command([*map(str, (*arguments, *more))]) == 130
        told = capsys.readouterr()
        assert words in told.err.splitlines()[-1]
        error = json.loads(told.out)["error"]
        assert error["message"] == "stopped"
        assert words in error["hint"]
    assert not (tmp_path / "kept").exists()


def test_every_step_is_told_and_what_is_left_once_a_chunk_was_made(given: Path, tmp_path: Path,
                                                                   capsys: pytest.CaptureFixture[str],
                                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.generate_progress.QUIET_S", 0)
    speech = wav(tmp_path / "long.wav", np.tile(TONE, 2)[:33_000])
    assert run_command([*map(str, ("generate", "--image", given / "her.png", "--audio", speech, "--out",
                                   tmp_path / "o.mp4", "--weights", given / "weights", *SMALL, "--steps", 2))]) == 0
    said = capsys.readouterr().err.splitlines()
    told = [line.strip() for line in said if line.startswith("  chunk")]
    assert [line.partition(", about")[0] for line in told] == [
        "chunk 1 of 2, step 1 of 2", "chunk 1 of 2, step 2 of 2", "chunk 1 of 2", "chunk 2 of 2, step 1 of 2",
        "chunk 2 of 2, step 2 of 2", "chunk 2 of 2"]
    assert ["left" in line for line in told] == [False, False, True, True, False, False]
    assert f"warning: {FAST}" in said
