"""The small autoencoder: causal, streamed as it is whole, trained in pieces that do not tell where they were cut."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.small.codec import WEIGHTS, Autoencoder, SmallCodec
from infinitetalk.small.config import LITE, NANO, PRESETS, CodecConfig, SmallConfig
from infinitetalk.small.vision import LatentVision, NoText, patches
from infinitetalk.train.checkpoint import DivergedError
from infinitetalk.train.codec import CodecLoss, fidelity, mouth_pixels, train_codec, write_codec
from infinitetalk.train.data import Clips, _clip, prepare
from infinitetalk.train.latents import TalkingClip
from infinitetalk.train.loop import Recipe, Run
from infinitetalk.train.reader import Reader, calm, lip_correlations, read_lips, train_reader
from infinitetalk.world.clip_file import Recording, load_video

TINY = replace(LITE, name="tiny", side=16, codec=CodecConfig(channels=16, fine=4, middle=8, coarse=8, blocks=2))


@pytest.fixture
def codec() -> SmallCodec:
    torch.manual_seed(0)
    network = Autoencoder(TINY.codec)
    network.mean += torch.randn(16)
    network.std += torch.rand(16)
    return SmallCodec(network)


def pixels(frames: int, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, frames, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def clip(seed: int = 0, frames: int = 13, side: int = 16) -> TalkingClip:
    rng = np.random.default_rng(seed)
    visemes = rng.random((frames, 11)).astype(np.float32)
    return TalkingClip(rng.integers(0, 256, (frames, side, side, 3), np.uint8), np.zeros(frames * 640, np.float32),
                       visemes, np.tile(np.array([4, 8, 12, 14], np.float32), (frames, 1)), np.zeros(4, np.float32))


def decoded(codec: SmallCodec, latent: torch.Tensor) -> torch.Tensor:
    return torch.cat(list(codec.decode(latent)), 1)


@pytest.mark.parametrize("frames", [1, 5, 33])
def test_shapes(codec: SmallCodec, frames: int) -> None:
    latent = codec.encode(pixels(frames))
    assert latent.shape == (16, 1 + (frames - 1) // 4, 2, 2)
    assert latent.dtype == torch.float32
    back = list(codec.decode(latent))
    assert [part.shape for part in back] == [(3, 1, 16, 16)] + [(3, 4, 16, 16)] * (latent.shape[1] - 1)
    assert all(part.abs().max() <= 1 for part in back)


def test_one_that_has_begun_already_gives_pictures_back(codec: SmallCodec) -> None:
    slopes = torch.linspace(-0.8, 0.8, 32) * torch.rand(20, 3, 5, 1, 1) + 0.4 * torch.rand(20, 3, 5, 1, 1) - 0.2
    slopes = slopes[:, :, :1].expand(-1, -1, 5, 32, -1)  # (n, 3, F, H, W)
    before = (decoded(codec, codec.encode(slopes[0])) - slopes[0]).abs().mean()
    still = slopes[:, :, :4].transpose(1, 2).flatten(0, 1)  # (4n, 3, H, W)
    cubes = torch.nn.functional.pixel_unshuffle(still, 8).reshape(-1, 768, 4, 4).permute(0, 2, 3, 1).flatten(0, 2)
    codec.network.begin(cubes)
    after = (decoded(codec, codec.encode(slopes[0])) - slopes[0]).abs().mean()
    assert after < before / 4


def test_frames_past_the_grid_are_dropped(codec: SmallCodec) -> None:
    assert torch.equal(codec.encode(pixels(8)), codec.encode(pixels(8)[:, :5]))


def test_no_frame_changes_an_earlier_latent(codec: SmallCodec) -> None:
    clip = pixels(33)
    later = clip.clone()
    later[:, 17:] = 0
    before, after = codec.encode(clip), codec.encode(later)
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5], after[:, 5])
    torch.testing.assert_close(codec.encode(clip[:, :17]), before[:, :5])


def test_no_latent_changes_an_earlier_frame(codec: SmallCodec) -> None:
    latent = torch.randn(16, 5, 2, 2)
    later = latent.clone()
    later[:, 3:] = 0
    before, after = decoded(codec, latent), decoded(codec, later)
    torch.testing.assert_close(before[:, :9], after[:, :9])
    assert not torch.allclose(before[:, 9:13], after[:, 9:13])


def test_streamed_and_whole_are_the_same(codec: SmallCodec) -> None:
    clip, network = pixels(41), codec.network
    with torch.no_grad():
        raw = network.encode(clip.transpose(0, 1)[None])[0]
        whole = network.decode(raw[None])[0].clamp(-1, 1).transpose(0, 1)
    latent = codec.encode(clip)
    column = (16, 1, 1, 1)
    torch.testing.assert_close(latent * network.std.view(column) + network.mean.view(column), raw.transpose(0, 1),
                               rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(decoded(codec, latent), whole, rtol=1e-4, atol=1e-5)


def test_interleaved_decodes_do_not_mix(codec: SmallCodec) -> None:
    one, two = torch.randn(16, 4, 2, 2), torch.randn(16, 4, 2, 2)
    pairs = list(zip_longest(codec.decode(one), codec.decode(two)))
    assert torch.equal(torch.cat([pair[0] for pair in pairs], 1), decoded(codec, one))
    assert torch.equal(torch.cat([pair[1] for pair in pairs], 1), decoded(codec, two))


def test_a_decode_leaves_gradients_on(codec: SmallCodec) -> None:
    next(codec.decode(torch.randn(16, 2, 2, 2)))
    assert torch.is_grad_enabled()


def test_what_is_no_clip_is_refused(codec: SmallCodec) -> None:
    for bad in (torch.zeros(3, 5, 12, 16), torch.zeros(4, 5, 16, 16), torch.zeros(3, 0, 16, 16)):
        with pytest.raises(BadInputError):
            codec.encode(bad)
    with pytest.raises(BadInputError):
        codec.decode(torch.zeros(15, 2, 2, 2))


def test_a_picture_as_tokens_is_cut_as_the_transformer_cuts(codec: SmallCodec) -> None:
    tokens = LatentVision(codec)(pixels(1, 32)[:, 0])
    assert tokens.shape == (1, 4, 64)
    latent = torch.arange(16.0 * 16).view(1, 16, 4, 4)
    assert patches(latent)[0, 1].view(16, 4)[0].tolist() == [2, 3, 6, 7]
    assert NoText(16)("whatever").shape == (0, 16)


def test_configurations_survive_files_and_refuse_others(tmp_path) -> None:
    for preset in PRESETS.values():
        preset.save(tmp_path)
        assert SmallConfig.read(tmp_path) == preset
        assert preset.transformer.clip_tokens == preset.latent.frame_tokens
    assert LITE.digest() != NANO.digest()
    (tmp_path / "config.json").write_text('{"name": "lite"}')
    with pytest.raises(BadWeightsError, match="is no"):
        SmallConfig.read(tmp_path)
    with pytest.raises(BadWeightsError):
        SmallConfig.read(tmp_path / "nowhere")


def test_weights_of_another_configuration_are_refused(tmp_path, codec: SmallCodec) -> None:
    write_codec(codec.network, tmp_path)
    same = SmallCodec.read(tmp_path / WEIGHTS, TINY.codec)
    again = SmallCodec.read(tmp_path / WEIGHTS, TINY.codec)
    assert same.digest() == again.digest() != codec.digest()  # half precision
    torch.testing.assert_close(same.encode(pixels(5)), codec.encode(pixels(5)), rtol=0.01, atol=0.01)
    with pytest.raises(BadWeightsError):
        SmallCodec.read(tmp_path / WEIGHTS, replace(TINY.codec, coarse=16))


# -- training ---------------------------------------------------------------------------------------------------------

class CutError(Exception):
    pass


RECIPE = Recipe(steps=6, warmup=2, batch=2, save_every=2)


def run(folder, clips, steps=None, recipe=RECIPE, **options):
    """Losses of a run, or of its beginning: it is cut off after so many steps, as a machine is switched off."""
    losses: list[float] = []

    def told(step: int, loss: float) -> None:
        losses.append(loss)
        if step == steps:
            raise CutError

    with suppress(CutError):
        train_codec(TINY, clips, folder, 5, recipe=recipe, told=told, **options)
    return losses


def test_a_run_that_was_cut_goes_on_as_if_it_had_not_been(tmp_path) -> None:
    clips = [clip(0), clip(1)]
    whole = run(tmp_path / "whole", clips)
    first = run(tmp_path / "cut", clips, steps=4)
    rest = run(tmp_path / "cut", clips)
    assert first + rest == whole
    assert len(whole) == 6
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("whole", "cut"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_can_begin_with_the_weights_of_another(tmp_path) -> None:
    run(tmp_path / "one", [clip()])
    losses = run(tmp_path / "two", [clip()], recipe=replace(RECIPE, rate=0.0), begin=tmp_path / "one" / WEIGHTS)
    one, two = (load_file(tmp_path / name / WEIGHTS) for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one if name not in {"mean", "std"})
    assert len(losses) == RECIPE.steps


def test_it_learns_and_its_latents_are_normalised(tmp_path) -> None:
    flat = [replace(clip(seed), frames=np.full((13, 16, 16, 3), 40 * seed, np.uint8)) for seed in range(6)]
    losses = run(tmp_path, flat, recipe=Recipe(steps=30, rate=2e-3, warmup=5, batch=4, ema=0.9))
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    trained = SmallCodec.read(tmp_path / WEIGHTS, TINY.codec)
    latents = torch.cat([trained.encode(torch.from_numpy(one.frames[:9]).permute(3, 0, 1, 2) / 127.5 - 1).flatten(1)
                         for one in flat], 1)
    assert latents.mean(1).abs().max() < 0.1
    assert float(latents.var(1).mean()) == pytest.approx(1, abs=0.2)
    assert int(latents.std(1).argmax()) == 0  # what moves pixels most counts most: components come in their order
    assert fidelity(trained, flat).whole > 10


def test_a_loss_that_is_no_number_stops_with_the_last_good_state(tmp_path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Linear(2, 1)
    run = Run(network, replace(RECIPE, save_every=1), tmp_path, "linear")

    def loss(rng: np.random.Generator) -> torch.Tensor:
        return network(torch.ones(2)).sum() * (float("nan") if run.step == 3 else 1.0)

    with pytest.raises(DivergedError, match="step 3"):
        run.fit(loss, 1)
    kept = Run(torch.nn.Linear(2, 1), replace(RECIPE, save_every=1), tmp_path, "linear")
    assert kept.step == 3
    assert all(torch.isfinite(value).all() for value in kept.network.parameters())


def test_a_run_of_another_configuration_or_recipe_is_refused(tmp_path) -> None:
    run(tmp_path, [clip()], steps=2)
    with pytest.raises(BadInputError, match="another"):
        train_codec(replace(TINY, codec=replace(TINY.codec, fine=8)), [clip()], tmp_path, 1, recipe=RECIPE)
    with pytest.raises(BadInputError, match="another"):
        train_codec(TINY, [clip()], tmp_path, 1, recipe=RECIPE, weighing=CodecLoss(mouth=1))


def test_pieces_are_short_and_clips_are_long(tmp_path) -> None:
    with pytest.raises(BadInputError, match="11 minutes"):
        train_codec(TINY, [clip()], tmp_path, 11, recipe=RECIPE)
    with pytest.raises(BadInputError, match="9 frames"):
        train_codec(TINY, [clip(frames=5)], tmp_path, 1, recipe=RECIPE)


def test_the_mouths_pixels_are_those_whose_middles_lie_in_its_box() -> None:
    inside = mouth_pixels(np.array([[1.0, 2.0, 3.0, 5.0], [0, 0, 0, 0]], np.float32), 8, 8)
    assert inside[0].sum() == 6
    assert inside[0, 2:5, 1:3].all()
    assert not inside[1].any()


def test_lips_are_read_by_place_and_not_by_the_size_of_boxes(tmp_path) -> None:
    clips = [clip(seed, side=32) for seed in range(2)]
    train_reader(clips, tmp_path, 1, recipe=RECIPE)
    reader = Reader.read(tmp_path / "reader.safetensors")
    boxes = np.array(clips[0].mouth)
    opened = boxes.copy()
    opened[::3, 1] -= 1
    opened[::3, 3] += 1
    assert np.array_equal(calm(boxes), calm(opened))
    found = read_lips(reader, clips[0].frames, boxes)
    assert found.shape == (13, 11)
    assert np.array_equal(found, read_lips(reader, clips[0].frames, opened))
    assert set(lip_correlations(reader, clips)) <= {*lip_correlations(reader, clips)}


# -- data -------------------------------------------------------------------------------------------------------------


def video(path, frames: int = 13, rate: int = 25, size=(48, 32)) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        for index in range(frames):
            picture = np.full((size[1], size[0], 3), 10 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
        block = av.AudioFrame.from_ndarray(np.full((1, 640 * frames), 0.1, np.float32), "fltp", "mono")
        block.sample_rate, block.pts = 16_000, 0
        container.mux(sound.encode(block))
        container.mux(sound.encode())


def test_videos_are_made_square_and_damaged_ones_are_counted(tmp_path) -> None:
    source = tmp_path / "videos"
    source.mkdir()
    video(source / "good.mp4")
    video(source / "double.mp4", frames=26, rate=50)
    video(source / "short.mp4", frames=3)
    (source / "broken.mp4").write_bytes(b"not a video")
    done = prepare(source, tmp_path / "out", 16)
    assert done.clips == 2
    assert set(done.skipped) == {"broken.mp4", "short.mp4"}
    clips = Clips(tmp_path / "out")
    assert len(clips) == 2
    for one in clips:
        assert one.frames.shape == (13, 16, 16, 3)
        assert one.speech.shape == (13 * 640,)
        assert not one.mouth.any()
        assert not one.anew.any()
    with pytest.raises(BadInputError):
        Clips(tmp_path / "out", "test")
    with pytest.raises(BadInputError, match="16 pixels"):
        prepare(source, tmp_path / "out", 32)
    with pytest.raises(BadInputError, match="close-ups"):
        prepare(source, tmp_path / "out", 16, close=False)


def test_a_close_up_follows_the_face_that_is_found(tmp_path, monkeypatch) -> None:
    looked = []

    class Faces:
        @staticmethod
        def there() -> bool:
            return True

        def find(self, frames):
            at = np.argwhere(frames[0, :, :, 0] > 128)
            looked.append(len(frames))
            return np.array([[*at.min(0)[::-1], *at.max(0)[::-1] + 1]], np.float32)

    monkeypatch.setattr("infinitetalk.train.data.HogFaces", Faces)
    pictures = np.zeros((50, 96, 96, 3), np.uint8)
    for index, picture in enumerate(pictures):
        picture[30:50, 20 + index:40 + index] = 255
    recording = Recording("found", 25, pictures, np.zeros((1, 32_000), np.float32))
    found = _clip(recording, 32, close=True)
    assert looked == [1] * 6  # 2.5 a second, as dubbing looks
    share = found.frames[:, :, :, 0].mean((1, 2)) / 255
    assert np.allclose(share, 1 / 1.2**2, atol=0.03)
    assert np.ptp(found.frames.astype(int), axis=0).max() < 90  # it stands still, but for fractions of pixels
    assert found.anew.any()
    assert found.mouth.any()


def test_a_video_is_held_upright_and_not_where_it_is_too_long(tmp_path, monkeypatch) -> None:
    video(tmp_path / "lying.mp4")
    turned = np.array([0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30], np.int32)
    file = tmp_path / "lying.mp4"
    whole = file.read_bytes()
    at = whole.index(b"tkhd") + 4 + 40
    file.write_bytes(whole[:at] + turned.astype(">i4").tobytes() + whole[at + 36:])
    assert load_video(file).frames.shape == (13, 48, 32, 3)
    monkeypatch.setattr("infinitetalk.world.clip_file.LARGEST", 12 * 48 * 32 * 3)
    with pytest.raises(BadInputError, match="too long"):
        load_video(file)


def test_a_folder_without_a_usable_clip_is_refused(tmp_path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"")
    with pytest.raises(BadInputError, match="none of 1"):
        prepare(tmp_path, tmp_path / "out", 16)
    with pytest.raises(BadInputError):
        Clips(tmp_path / "nowhere")
