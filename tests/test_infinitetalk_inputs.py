"""What is given to the engine: good files come through as they are, all others are refused before anything is run."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import zlib
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from infinitetalk.engine import Engine, Speaker, Take
from infinitetalk.errors import BadInputError
from infinitetalk.inputs import (
    check_box,
    check_prompt,
    check_speakers,
    frames_in,
    parse_box,
    published_box,
    read_image,
)
from infinitetalk.io import PictureReader, sound
from infinitetalk.job import Job, divisor, opened
from infinitetalk.job_file import FIELDS, read_job
from infinitetalk.stream import StreamSettings
from infinitetalk.tracks import read_tracks
from infinitetalk.writing import Tap, join, write_chunk

QUICK = settings(max_examples=60, deadline=None)
TONE = 0.5 * np.sin(2 * np.pi * 220 * np.arange(24_000) / 48_000).astype(np.float32)
PICTURE = np.stack(np.broadcast_arrays(*np.ogrid[0:48, 0:64], 90), -1).astype(np.uint8)


def wav(path: Path, samples: Any, rate: int = 48_000, subtype: str = "FLOAT") -> Path:
    soundfile.write(path, samples, rate, subtype)
    return path


def png(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    (image or Image.fromarray(PICTURE)).save(path, **options)
    return path


def refused(call: Any, *words: str) -> None:
    """The call is refused; the message has these words, and says what to do."""
    with pytest.raises(BadInputError) as caught:
        call()
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.hint


# -- sound ------------------------------------------------------------------------------------------------------------


def test_sound_is_heard_at_16_khz_in_one_channel(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", np.stack([TONE, -0.5 * TONE], -1), subtype="PCM_16")
    [track] = read_tracks([path], "para", None)
    assert track.seconds == Fraction(1, 2)
    wave = np.sin(2 * np.pi * 220 * np.arange(8_000) / 16_000)
    loud = np.abs(track.samples).max()
    assert np.abs(track.samples / loud - wave)[100:7_900].max() < 2e-3
    assert loud == pytest.approx(10 ** (-19.3 / 20), rel=0.1)  # -23 LUFS; a sine of 0 LUFS peaks at 3.7 dB


def test_silence_is_no_fault(tmp_path: Path) -> None:
    [track] = read_tracks([wav(tmp_path / "a.wav", 0 * TONE)], "para", None)
    assert not track.samples.any()
    assert "silent throughout" in track.warnings[0]
    [track] = read_tracks([wav(tmp_path / "a.wav", TONE)], "para", None)
    assert not track.warnings


def test_a_recording_that_is_cut_off_is_told(tmp_path: Path) -> None:
    path = wav(tmp_path / "a.wav", TONE, subtype="PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[:44 + (len(data) - 44) // 4])
    [track] = read_tracks([path], "para", None)
    assert "75%" in track.warnings[0]
    at = data.index(b"data") + 4
    for size in (0, 2**32 - 1):  # of a recorder that never came to tell
        path.write_bytes(data[:at] + struct.pack("<I", size) + data[at + 4:])
        assert not read_tracks([path], "para", None)[0].warnings


@pytest.mark.parametrize(("samples", "rate", "words"), [
    (TONE[:0], 48_000, "no sound"),
    (np.where(np.arange(24_000) == 9_000, np.nan, TONE), 48_000, "no numbers"),
    (np.where(np.arange(24_000) == 9_000, np.inf, TONE), 48_000, "no numbers"),
    (np.clip(40 * TONE, -1, 1), 48_000, "clipped"),
    (TONE, 4_000, "4000 samples a second"),
    (TONE, 500_000, "500000 samples a second"),
])
def test_sound_that_is_of_no_use_is_refused(tmp_path: Path, samples: Any, rate: int, words: str) -> None:
    path = wav(tmp_path / "a.wav", samples.astype(np.float32), rate)
    refused(lambda: read_tracks([path], "para", None), words, "a.wav")


def test_what_is_no_sound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF nothing")
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    chunk = tmp_path / "mute.mp4"
    write_chunk(chunk, np.zeros((3, 32, 32, 3), np.uint8), Fraction(25))
    for name, words in (("a.wav", "cannot be read"), ("gone.wav", "cannot be read"), ("list.m3u8", "cannot be read"),
                        ("mute.mp4", "no sound"), (".", "cannot be read")):
        refused(lambda name=name: read_tracks([tmp_path / name], "para", None), words)


@pytest.mark.parametrize(("gain_db", "usable"), [(0, True), (6, True), (40, False)])
def test_only_sound_that_is_clipped_beyond_use_is_refused(tmp_path: Path, gain_db: int, usable: bool) -> None:
    rng = np.random.default_rng(0)
    speech = rng.laplace(size=48_000) * (np.sin(np.arange(48_000) / 4_000) > 0)  # peaks and pauses as speech has
    loud = np.clip(speech / np.abs(speech).max() * 10 ** (gain_db / 20), -1, 1)
    path = wav(tmp_path / "a.wav", np.repeat(loud, 4), subtype="PCM_16")
    if usable:
        assert read_tracks([path], "para", None)
    else:
        refused(lambda: read_tracks([path], "para", None), "clipped")


def test_sound_shorter_than_a_frame_is_refused() -> None:
    assert frames_in(Fraction(1, 25), Fraction(25), "audio") == 1
    refused(lambda: frames_in(Fraction(1, 26), Fraction(25), "audio"), "38 ms")


def test_sound_that_is_too_long_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infinitetalk.tracks.MOST_SECONDS", 0.3)
    path = wav(tmp_path / "a.wav", TONE)
    refused(lambda: read_tracks([path], "para", None), "lasts more")
    [track] = read_tracks([path], "para", Fraction(2, 10))
    assert 3_200 <= len(track.samples) < 8_000


def test_sound_ends_where_its_file_says_and_not_with_its_last_packet(tmp_path: Path) -> None:
    write_chunk(tmp_path / "mute.mp4", np.zeros((11, 32, 32, 3), np.uint8), Fraction(25))
    join([tmp_path / "mute.mp4"], [Tap(wav(tmp_path / "a.wav", TONE))], tmp_path / "a.mp4", Fraction(25))
    [track] = read_tracks([tmp_path / "a.mp4"], "para", None)
    assert track.seconds == Fraction(11, 25)


def test_two_speak_at_once_or_in_turns(tmp_path: Path) -> None:
    paths = [wav(tmp_path / "a.wav", TONE), wav(tmp_path / "b.wav", TONE[:12_000])]
    at_once, in_turns = read_tracks(paths, "para", None), read_tracks(paths, "add", None)
    assert [(one.lead, one.seconds) for one in at_once] == [(0, Fraction(1, 2)), (0, Fraction(1, 4))]
    assert [(one.lead, one.seconds) for one in in_turns] == [(0, Fraction(1, 2)), (Fraction(1, 2), Fraction(1, 4))]
    silent = read_tracks([None, paths[1]], "add", None)
    assert [(one.lead, one.seconds) for one in silent] == [(0, Fraction(1, 4)), (Fraction(1, 4), Fraction(1, 4))]


# -- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "1", "P", "YCbCr"])
def test_pictures_of_every_usual_kind_are_read(tmp_path: Path, mode: str) -> None:
    kept = png(tmp_path / ("a.jpg" if mode == "YCbCr" else "a.png"), Image.fromarray(PICTURE).convert(mode))
    image = read_image(kept)
    assert (image.shape, image.dtype) == ((48, 64, 3), np.uint8)
    wanted = np.asarray(Image.fromarray(PICTURE).convert(mode).convert("RGB"), int)
    assert np.abs(image - wanted).mean() < 3


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    path = png(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(path), np.rot90(PICTURE, -1))


def bad_pictures(folder: Path) -> dict[str, tuple[bytes, str]]:
    def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    plain = Image.fromarray(PICTURE)
    seen_through = plain.convert("RGBA")
    seen_through.putpixel((3, 3), (0, 0, 0, 128))
    palette = plain.convert("P")
    bomb = bytearray(saved(plain))
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)  # its header says 3.6 gigapixels
    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    return {
        "alpha.png": (saved(seen_through), "transparent"),
        "palette.png": (saved(palette, transparency=int(np.asarray(palette)[0, 0])), "transparent"),
        "print.jpg": (saved(plain.convert("CMYK"), "JPEG"), "CMYK"),
        "lab.tif": (saved(ImageCms.profileToProfile(plain, ImageCms.createProfile("sRGB"),
                                                    ImageCms.createProfile("LAB"), outputMode="LAB"), "TIFF"), "LAB"),
        "deep.png": (saved(Image.fromarray(np.ones((48, 64), np.uint16))), "unusual"),
        "line.png": (saved(plain.resize((64, 1))), "64×1"),
        "strip.png": (saved(plain.resize((400, 20))), "strip"),
        "moving.webp": (saved(plain, "WEBP", save_all=True, append_images=[plain.rotate(90)]), "2 pictures"),
        "moving.gif": (saved(plain, "GIF", save_all=True, append_images=[plain.rotate(90)]), "no such picture"),
        "half.png": (saved(plain)[:100], "cut off"),
        "half.jpg": (saved(plain, "JPEG")[:400], "cut off"),
        "large.bmp": (saved(Image.new("1", (9_000, 8_000)), "BMP"), "67 million pixels"),
        "bomb.png": (bytes(bomb), "million pixels"),
        "empty.png": (b"", "no such picture"),
        "text.png": (b"<svg/>", "no such picture"),
    }


@pytest.mark.parametrize("name", list(bad_pictures(Path())))
def test_a_picture_that_cannot_be_used_is_refused(tmp_path: Path, name: str) -> None:
    data, words = bad_pictures(tmp_path)[name]
    (tmp_path / name).write_bytes(data)
    refused(lambda: read_image(tmp_path / name), words, name)


def test_a_picture_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused(lambda: read_image(tmp_path / "gone.png"), "no such file")
    refused(lambda: read_image(tmp_path), "directory")


@QUICK
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "TIFF"]), st.integers(0, 10**6), st.binary(max_size=8))
def test_a_tampered_picture_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, kind: str, at: int,
                                               data: bytes) -> None:
    file = io.BytesIO()
    Image.fromarray(PICTURE).save(file, kind)
    whole = bytearray(file.getvalue())
    at %= len(whole)
    whole[at:at + len(data)] = data
    path = tmp_path_factory.mktemp("tampered") / "a"
    path.write_bytes(bytes(whole[:-3]) if at % 3 else bytes(whole))
    with suppress(BadInputError):
        assert read_image(path).shape[2] == 3


# -- video ------------------------------------------------------------------------------------------------------------


def video(path: Path, frames: int = 70, rate: Fraction = Fraction(25), codec: str = "libx264") -> Path:
    """Every picture is as grey as its number."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(frames):
            image = np.full((64, 96, 3), 3 * number, np.uint8)
            image[:8] = 255 - image[:8]  # the upper edge is told from the lower
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def greys(reader: PictureReader, indices: Any) -> list[int]:
    return [round(float(reader.frame(index)[20:].mean()) / 3) for index in indices]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_pictures_are_read_by_index_in_any_order(tmp_path: Path, name: str) -> None:
    with PictureReader(video(tmp_path / name, rate=Fraction(30000, 1001))) as reader:
        assert reader.rate == Fraction(30000, 1001)
        order = [0, 1, 2, 40, 41, 69, 3, 3, 68, 0, 12]
        assert greys(reader, order) == order
        assert greys(reader, [70, 5_000, -1, 10]) == [69, 69, 0, 10]


def test_a_video_that_changes_its_size_is_refused_there(tmp_path: Path) -> None:
    source = video(tmp_path / "a.mp4")
    for name, size, start in (("a.ts", "96:64", "0"), ("b.ts", "48:32", "2.8")):
        subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-vf", f"scale={size}", "-c:v", "mpeg2video",
                        "-output_ts_offset", start, tmp_path / name], check=True)
    (tmp_path / "both.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with PictureReader(tmp_path / "both.ts") as reader:
        reader.frame(10)
        refused(lambda: [reader.frame(index) for index in range(140)], "changes its size")


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0), (-1, 0, 0, 1), (0, 1, 1, 0)])
def test_a_video_is_turned_and_flipped_as_players_do(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    path = tmp_path / "a.mp4"
    write_chunk(path, PICTURE[None], Fraction(25))
    a, b, c, d = (one << 16 for one in matrix)
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    data = path.read_bytes()
    at = data.index(upright, data.index(b"tkhd"))
    path.write_bytes(data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36:])
    shown = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"],
                           check=True, capture_output=True).stdout
    with PictureReader(path) as reader:
        image = reader.frame(0)
    assert image.shape == ((64, 48, 3) if a == 0 else (48, 64, 3))
    assert np.abs(image.astype(int).ravel() - np.frombuffer(shown, np.uint8)).max() < 8


def test_pixels_become_square(tmp_path: Path) -> None:
    plain, path = tmp_path / "a.mp4", tmp_path / "b.mp4"
    write_chunk(plain, PICTURE[None], Fraction(25))
    subprocess.run(["ffmpeg", "-v", "error", "-i", plain, "-c", "copy", "-bsf:v",
                    "h264_metadata=sample_aspect_ratio=3/2", path], check=True)
    with PictureReader(path) as reader:
        assert reader.frame(0).shape == (48, 96, 3)


def test_a_video_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    whole = video(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "half.mp4").write_bytes(whole[:len(whole) // 2])
    wav(tmp_path / "sound.wav", TONE)
    png(tmp_path / "still.png")
    for name, words in (("half.mp4", "cannot be read"), ("sound.wav", "moving picture"),
                        ("still.png", "cannot be read"), ("gone.mp4", "cannot be read")):
        refused(lambda name=name: PictureReader(tmp_path / name).__enter__(), words, name)


@pytest.mark.parametrize(("rate", "every"), [("24000/1001", 1), ("25", 1), ("30", 1), ("50", 2), ("60000/1001", 2),
                                             ("120", 4)])
def test_fast_video_is_generated_at_a_whole_fraction_of_its_rate(rate: str, every: int) -> None:
    assert divisor(Fraction(rate)) == every


def test_a_fast_video_is_looked_at_every_other_picture(tmp_path: Path) -> None:
    job = Job(video(tmp_path / "a.mp4", rate=Fraction(50)), (wav(tmp_path / "a.wav", TONE),), moving=True)
    with opened(job) as ready:
        assert (ready.take.rate, ready.take.frames) == (25, 12)
        assert [round(float(ready.take.frame(index)[20:].mean()) / 3) for index in (0, 1, 7, 11, 99)] == \
            [0, 2, 14, 22, 22]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
def test_pictures_are_counted_without_decoding_them(tmp_path: Path, name: str) -> None:
    for frames, rate in ((12, Fraction(25)), (70, Fraction(30000, 1001))):
        with PictureReader(video(tmp_path / name, frames, rate)) as reader:
            assert reader.count() == frames


def test_a_film_of_a_video_lasts_as_long_as_its_picture_or_its_sound(tmp_path: Path) -> None:
    picture, sound = video(tmp_path / "a.mp4"), wav(tmp_path / "a.wav", TONE)  # 2.8 s, 0.5 s
    job = Job(picture, (sound,), moving=True)
    with opened(job) as ready:
        assert (ready.take.frames, ready.warnings, ready.source_rate) == (12, (), 25)
    with opened(replace(job, lasts="picture")) as ready:
        assert ready.take.frames == 70
        assert "0.50 s" in ready.warnings[0]
        assert np.abs(ready.take.speakers[0].samples[8_000:]).max() == 0
    with opened(replace(job, lasts="picture", frames=15)) as ready:
        assert ready.take.frames == 15
    longer = replace(job, lasts="picture", audio=(wav(tmp_path / "b.wav", np.tile(TONE, 6)),))
    for frames in (None, 71):
        refused(lambda frames=frames: opened(replace(longer, frames=frames)).__enter__(), "longer", "--frames 70")
    padded = replace(longer, audio=(wav(tmp_path / "c.wav", np.tile(TONE, 6)[:48_000 * 289 // 100]),))
    for one in (replace(longer, frames=70), padded):
        with opened(one) as ready:
            assert ready.take.frames == 70


def test_options_without_effect_are_told(tmp_path: Path) -> None:
    job = Job(png(tmp_path / "a.png"), (wav(tmp_path / "a.wav", TONE),), order="add", boxes=((0, 0, 20, 20),))
    with opened(job) as ready:
        assert [any(word in one for one in ready.warnings) for word in ("turn", "box")] == [True, True]
    with opened(replace(job, order="para", bystanders=((30, 0, 20, 20),))) as ready:
        assert not ready.warnings


# -- boxes, masks, words ----------------------------------------------------------------------------------------------


@QUICK
@given(st.tuples(*[st.integers(0, 9_999)] * 2, *[st.integers(1, 9_999)] * 2))
def test_a_box_is_read_as_it_is_written(box: tuple[int, int, int, int]) -> None:
    assert parse_box(",".join(map(str, box))) == box == parse_box(" , ".join(map(str, box)))
    x, y, width, height = box
    assert published_box([y, x, y + height, x + width], "bbox") == box  # rows first, then columns


@QUICK
@given(st.text(max_size=30))
def test_any_other_text_is_no_box(text: str) -> None:
    with suppress(BadInputError):
        assert min(parse_box(text)) >= 0
        assert text.count(",") == 3


@QUICK
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
                    lambda one: st.lists(one, max_size=4), max_leaves=6))
def test_any_other_value_is_no_box(value: object) -> None:
    with suppress(BadInputError):
        box = published_box(value, "bbox")
        assert min(box[:2]) >= 0
        assert min(box[2:]) >= 1
        assert not any(isinstance(edge, bool) for edge in value)  # type: ignore[attr-defined]


@QUICK
@given(st.tuples(*[st.integers(0, 20)] * 2, *[st.integers(1, 20)] * 2))
def test_a_box_lies_in_the_picture_or_is_refused(box: tuple[int, int, int, int]) -> None:
    x, y, width, height = box
    inside = np.zeros((12, 16), bool)
    inside[y:y + height, x:x + width] = True
    if inside.sum() == width * height:
        check_box(box, 16, 12, "box")
    else:
        refused(lambda: check_box(box, 16, 12, "box"), "leaves the picture")


def test_prompts_and_numbers_of_speakers_have_bounds() -> None:
    check_prompt("a" * 8_000, "prompt")
    refused(lambda: check_prompt("a" * 9_000, "prompt"), "9000")
    check_speakers(2)
    refused(lambda: check_speakers(3), "3 tracks")


@pytest.mark.parametrize(("changes", "words"), [
    ({"audio": ()}, "0 tracks"), ({"audio": (Path("a"),) * 3}, "3 tracks"), ({"audio": (None, None)}, "nobody"),
    ({"boxes": ((0, 0, 4, 4),) * 2}, "2 boxes for 1"), ({"bystanders": ((0, 0, 4, 4),)}, "bystanders"),
    ({"frames": 0}, "0 frames"), ({"size": (40, 40)}, "40×40"), ({"size": (0, 16)}, "16×0"),
    ({"size": (16, 4112)}, "4096"), ({"audio": (Path("a"),) * 2, "boxes": ((0, 0, 4, 4),) * 2}, "given twice"),
    ({"prompt": "a" * 9_000}, "9000"), ({"negative": "a" * 9_000}, "9000"),
])
def test_a_job_that_contradicts_itself_is_refused(changes: dict[str, Any], words: str) -> None:
    refused(lambda: Job(**{"picture": Path("a.png"), "audio": (Path("a.wav"),), **changes}), words)


@pytest.mark.parametrize(("samples", "words"), [
    (np.full(640, np.nan, np.float32), "no numbers"), (np.zeros((2, 640), np.float32), "mono"),
    (np.full(640, 20_000, np.int16), "float32"), (np.zeros(0, np.float32), "Give 1280 samples")])
def test_samples_that_are_no_speech_are_refused_before_anything_is_heard(samples: Any, words: str) -> None:
    with pytest.raises(BadInputError, match=words) as caught:
        silent_engine().shot(replace(TAKE, speakers=(Speaker(samples),)), StreamSettings())
    assert caught.value.where == "speaker 1"


def test_a_size_off_the_grid_is_refused_before_the_prompt_is_read() -> None:
    with pytest.raises(BadInputError, match="multiples of 16"):
        silent_engine().shot(replace(TAKE, size=(33, 48)), StreamSettings())


def silent_engine() -> Engine:
    """Without networks: whatever asks for one fails."""
    missing: Any = None
    return Engine(missing, missing, missing)


TAKE = Take(frame=lambda index: PICTURE, frames=2, rate=Fraction(25), size=(32, 48), speakers=())


# -- the published input ----------------------------------------------------------------------------------------------


ONE = {"prompt": "A woman speaks", "cond_video": "her.mp4", "cond_audio": {"person1": "a.wav"}}
TWO = {"prompt": "", "cond_video": "them.png", "cond_audio": {"person1": "a.wav", "person2": "None"},
       "audio_type": "add", "bbox": {"person2": [0, 30, 40, 60], "person1": [5, 0, 45, 30]}}


def written(folder: Path, value: object) -> Path:
    for name in ("her.mp4", "a.wav", "them.png"):
        (folder / name).touch()
    path = folder / "job.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_the_same_voice_in_another_mouth_is_another_job(tmp_path: Path) -> None:
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    track = wav(tmp_path / "a.wav", TONE)

    def identity(*audio: Path | None) -> str:
        with opened(Job(tmp_path / "a.png", audio)) as ready:
            return ready.identity(StreamSettings(), "weights")

    assert len({identity(track), identity(track, None), identity(None, track), identity(track, track)}) == 4


def test_the_published_input_is_read(tmp_path: Path) -> None:
    one, two = read_job(written(tmp_path, ONE)), read_job(written(tmp_path, TWO))
    assert one == Job(tmp_path / "her.mp4", (tmp_path / "a.wav",), moving=True, prompt="A woman speaks")
    assert two == Job(tmp_path / "them.png", (tmp_path / "a.wav", None), order="add",
                      boxes=((0, 5, 30, 40), (30, 0, 30, 40)))


def test_paths_stay_in_their_folder_unless_another_is_named(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link").symlink_to("/etc")
    for path in ("../a.wav", str(tmp_path / "a.wav"), "/etc/passwd", "link/passwd", "a\0b", ""):
        refused(lambda path=path: read_job(written(inner, ONE | {"cond_audio": {"person1": path}})), "person1")
    (tmp_path / "b.mp4").touch()
    absolute = ONE | {"cond_audio": {"person1": str(inner / "a.wav")}}
    job = read_job(written(inner, absolute | {"cond_video": str(tmp_path / "b.mp4")}), root=Path("/"))
    assert job.picture == tmp_path / "b.mp4"
    (tmp_path / "her.mp4").touch()
    (tmp_path / "a.wav").touch()
    assert read_job(written(inner, ONE), root=tmp_path).picture == tmp_path / "her.mp4"


def test_a_path_that_leads_nowhere_names_the_option_that_mends_it(tmp_path: Path) -> None:
    for path in ("../a.wav", "gone.wav"):
        refused(lambda path=path: read_job(written(tmp_path, ONE | {"cond_audio": {"person1": path}})), "--input-root")
    refused(lambda: read_job(written(tmp_path, ONE), root=tmp_path / "gone"), "--input-root", "is no folder")


@pytest.mark.parametrize(("value", "words"), [
    ("{", "no JSON"), ("[]", "no JSON object"), ("[" * 100_000, "no JSON"), (ONE | {"seed": 1}, "'seed'"),
    (ONE | {"tts_audio": {}}, "speech first"), (ONE | {"cond_audio": {}}, "cond_audio"),
    (ONE | {"cond_audio": {"person2": "a.wav"}}, "person1"), (ONE | {"cond_audio": {"person1": 3}}, "person1"),
    (ONE | {"cond_audio": {"person1": "None"}}, "nobody"), (ONE | {"prompt": 5}, "prompt"),
    (ONE | {"cond_audio": {"person1": "a", "person2": "b", "person3": "c"}}, "3 tracks"),
    (ONE | {"bbox": [1, 2, 3, 4]}, "bbox"), (ONE | {"bbox": {"person1": [0, 0, 5]}}, "person1"),
    (TWO | {"audio_type": "mix"}, "audio_type"), (TWO | {"bbox": {"person1": [0, 0, 4, 4]}}, "bbox"),
    ({name: value for name, value in TWO.items() if name != "audio_type"}, "audio_type"),
    ({name: value for name, value in ONE.items() if name != "cond_video"}, "cond_video: is missing"),
    ({name: value for name, value in ONE.items() if name != "cond_audio"}, "cond_audio: is missing"),
    ('{"prompt": "' + "a" * (1 << 20) + '"}', "sensible size"),
])
def test_what_is_no_published_input_is_refused(tmp_path: Path, value: object, words: str) -> None:
    path = written(tmp_path, value)
    with pytest.raises(BadInputError, match=words):
        read_job(path)


@QUICK
@given(st.dictionaries(st.sampled_from(FIELDS), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12) |
    st.sampled_from(["None", "add", "para", "a.wav", "../a.wav"]),
    lambda one: st.lists(one, max_size=4) | st.dictionaries(st.sampled_from(["person1", "person2", "x"]), one),
    max_leaves=8)))
def test_any_json_is_a_job_inside_its_folder_or_refused(tmp_path_factory: pytest.TempPathFactory,
                                                        told: dict[str, Any]) -> None:
    folder = tmp_path_factory.mktemp("json")
    try:
        job = read_job(written(folder, ONE | told))
    except BadInputError:
        return
    assert all(path.is_relative_to(folder) for path in (job.picture, *job.audio) if path)


# -- the finished file ------------------------------------------------------------------------------------------------


def test_chunks_are_joined_without_a_seam_and_with_sound_in_its_place(tmp_path: Path) -> None:
    rate = Fraction(30000, 1001)
    images = [np.full((count, 32, 48, 3), 0, np.uint8) + 10 * np.arange(start, start + count, dtype=np.uint8)[
        :, None, None, None] for start, count in ((0, 9), (9, 8), (17, 1))]
    chunks = [tmp_path / f"{index}.mp4" for index in range(3)]
    for path, frames in zip(chunks, images, strict=True):
        write_chunk(path, frames, rate)
    first, second = wav(tmp_path / "a.wav", TONE[:9_600]), wav(tmp_path / "b.wav", np.stack([TONE, 0 * TONE], -1))
    taps = [Tap(first), Tap(second, lead=14_400, length=4_800)]
    assert join(chunks, taps, tmp_path / "o.mp4", rate) == 18
    with av.open(str(tmp_path / "o.mp4")) as container:
        picture, voice = container.streams.video[0], container.streams.audio[0]
        assert (picture.frames, picture.average_rate) == (18, rate)
        assert voice.duration * voice.time_base == Fraction(round(18 * 48_000 / rate), 48_000)
        pictures = [frame.to_ndarray(format="rgb24").mean() for frame in container.decode(video=0)]
    assert np.abs(np.array(pictures) - 10 * np.arange(18)).max() < 2
    heard = np.concatenate(list(sound(tmp_path / "o.mp4", 48_000, "stereo")), 1)
    loud = np.abs(heard).reshape(2, -1, 2_048 // 2)[:, :28].max(-1)  # per 21 ms
    assert loud[:, 1:8].min() > 0.4  # one channel is heard on both sides
    assert loud[:, 11:13].max() < 0.02
    assert loud[0, 15:18].min() > 0.4
    assert loud[1, 15:18].max() < 0.02  # two channels stay two
    assert loud[:, 20:27].max() < 0.02


def test_the_same_pictures_give_the_same_bytes(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), np.uint8)
    for name in ("a.mp4", "b.mp4"):
        write_chunk(tmp_path / name, frames, Fraction(25))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_a_file_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    refused(lambda: write_chunk(tmp_path / "gone" / "a.mp4", np.zeros((1, 32, 32, 3), np.uint8), Fraction(25)),
            "cannot be written")
    write_chunk(tmp_path / "a.mp4", np.zeros((1, 32, 32, 3), np.uint8), Fraction(25))
    with pytest.raises(BadInputError):
        join([tmp_path / "a.mp4", tmp_path / "gone.mp4"], [], tmp_path / "o.mp4", Fraction(25))
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]
