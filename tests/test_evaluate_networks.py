"""Published networks: their shapes and names without their weights, and what is done around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.evaluate.arcface import IResNet, aligned
from infinitetalk.evaluate.i3d import I3DNetwork, same
from infinitetalk.evaluate.inception import InceptionV3
from infinitetalk.evaluate.loading import COUNTER, load
from infinitetalk.evaluate.public import SYNCNET, TrainedMouth, instruments
from infinitetalk.evaluate.s3fd import S3FD, S3FDNetwork, suppressed
from infinitetalk.evaluate.syncnet_network import SyncNet, SyncNetV2
from infinitetalk.evaluate.tracks import follow, lone, overlap, score_video


@pytest.mark.parametrize(("build", "parameters", "entries", "names"), [
    (SyncNet, 13_631_616, 102, ("netcnnaud.0.weight", "netfcaud.3.bias", "netcnnlip.19.running_var")),
    (InceptionV3, 23_850_960, 566, ("Conv2d_1a_3x3.bn.weight", "Mixed_6e.branch7x7dbl_5.conv.weight",
                                    "Mixed_7c.branch3x3dbl_3b.bn.running_mean", "fc.weight")),
    (S3FDNetwork, 22_459_110, 65, ("vgg.33.weight", "L2Norm5_3.weight", "extras.3.bias", "conf.0.bias")),
    (IResNet, 65_156_160, 925, ("layer3.29.prelu.weight", "layer4.0.downsample.1.weight", "fc.weight")),
    (I3DNetwork, 12_697_264, 344, ("Conv3d_1a_7x7.conv3d.weight", "Mixed_4f.b2b.bn.bias", "logits.conv3d.bias"))])
def test_networks_have_the_published_sizes(build: Any, parameters: int, entries: int, names: tuple[str, ...]) -> None:
    with torch.device("meta"):
        network = build()
    state = network.state_dict()
    assert sum(one.numel() for one in network.parameters()) == parameters
    assert len(state) == entries
    assert set(names) <= set(state)


def test_windows_are_padded_as_tensorflow_does() -> None:
    x = torch.ones(1, 1, 16, 224, 223)
    assert same(x, (7, 7, 7), (2, 2, 2)).shape[2:] == (21, 229, 229)
    assert float(same(x, (2, 2, 2), (2, 2, 2))[..., -1].sum()) == 0, "the odd one is behind"


def test_syncnet_loads_and_sees_in_the_published_order(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SyncNet().eval()
    state = {name: value for name, value in network.state_dict().items() if not name.endswith(COUNTER)}
    torch.save(state, tmp_path / SYNCNET)
    chosen, absent = instruments(tmp_path)
    assert isinstance(chosen.sync, SyncNetV2)
    assert "SyncNet v2" not in absent
    assert {"I3D", "Inception (FID)", "dlib-128"} <= set(absent)
    crops = np.random.default_rng(0).integers(0, 255, (6, 224, 224, 3), np.uint8)
    mfcc = np.random.default_rng(1).normal(size=(13, 30)).astype(np.float32)
    with torch.no_grad():
        second = network.pictures(torch.from_numpy(crops[1:6, ..., ::-1].copy()).permute(3, 0, 1, 2)[None].float())
        third = network.sounds(torch.from_numpy(mfcc[None, None, :, 8:28]))
    assert chosen.sync.pictures(crops)[1] == pytest.approx(second[0].numpy(), abs=1e-5)
    heard = chosen.sync.sounds(mfcc)
    assert heard.shape == (3, 1024)
    assert heard[2] == pytest.approx(third[0].numpy(), abs=1e-5)


def test_files_that_are_no_such_network_are_refused(tmp_path: Path) -> None:
    save_file({"netcnnaud.0.weight": torch.zeros(64, 1, 3, 3)}, tmp_path / "part.safetensors")
    (tmp_path / SYNCNET).write_bytes(b"no weights")
    with pytest.raises(BadWeightsError, match="missing"):
        load(SyncNet, tmp_path / "part.safetensors")
    with pytest.raises(BadWeightsError):
        instruments(tmp_path)
    with pytest.raises(BadWeightsError, match="no folder"):
        instruments(tmp_path / "nowhere")


def test_a_trained_reader_reads_visemes_where_boxes_are(tmp_path: Path) -> None:
    from infinitetalk.train.reader import Reader

    torch.manual_seed(1)
    save_file(Reader().state_dict(), tmp_path / "reader.safetensors")
    reader = TrainedMouth(tmp_path / "reader.safetensors")
    frames = np.random.default_rng(2).integers(0, 255, (6, 48, 48, 3), np.uint8)
    boxes = np.repeat(np.array([[10, 10, 30, 25]], np.float32), 6, 0)
    whole = reader.read(frames, boxes)
    assert whole.shape == (6, 11)
    assert "project's own" in reader.name
    boxes[2] = np.nan
    assert np.isfinite(reader.read(frames, boxes)).all()
    assert (reader.read(frames, np.full_like(boxes, np.nan)) == 0).all()


def test_s3fd_puts_boxes_where_it_is_sure() -> None:
    """With heads that always say "a face, right here", one box a place is left, of that layer's size."""
    torch.manual_seed(2)
    network = S3FDNetwork().eval()
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.startswith(("loc", "conf", "L2Norm")):
                value.zero_()
        network.conf[3].bias.copy_(torch.tensor([0.0, 9.0]))
    found = S3FD(network).all_in(np.zeros((128, 128, 3), np.uint8))
    sides = found[:, 2:] - found[:, :2]
    assert len(found)
    assert sides == pytest.approx(128)
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [30, 30, 40, 40]])
    assert suppressed(boxes, torch.tensor([0.5, 0.9, 0.7])).tolist() == [1, 2]


def test_faces_are_laid_out_by_their_eyes() -> None:
    y, x = np.mgrid[0:120, 0:160]
    frame = np.zeros((120, 160, 3), np.uint8)
    eyes = np.array([[60.0, 50], [90, 60]])
    for left, top in eyes:
        frame[(x - left) ** 2 + (y - top) ** 2 < 9] = 255
    bright = aligned(frame, eyes)[..., 0] > 128
    rows, columns = np.nonzero(bright)
    assert rows.mean() == pytest.approx(51.6, abs=1)
    assert columns[columns < 56].mean() == pytest.approx(38.3, abs=1)
    assert columns[columns > 56].mean() == pytest.approx(73.5, abs=1)


# -- tracks -----------------------------------------------------------------------------------------------------------


BOX = np.array([40, 30, 160, 150], np.float32)


def test_boxes_become_tracks_and_what_is_dropped_is_counted() -> None:
    faces = [BOX[None] + at / 10 for at in range(60)] + [np.zeros((0, 4))] * 40 + [BOX[None] / 3] * 60 + [BOX[None]] * 9
    tracks, dropped = follow(faces)
    assert [(one.start, one.end) for one in tracks] == [(0, 60)]
    assert dropped == {"too short": 1, "too small": 1}


def test_gaps_are_bridged() -> None:
    boxes = np.stack([BOX + at for at in range(80)])
    boxes[20:30] = np.nan
    tracks, _ = follow(lone(boxes))
    assert len(tracks) == 1
    assert tracks[0].boxes[25] == pytest.approx(BOX + 25)
    assert overlap(BOX, BOX) == 1
    assert overlap(BOX, BOX + 200) == 0


class Brightness:
    """Towers that tell how bright a crop is, and how loud sound is."""

    name = "brightness"

    def pictures(self, frames: Any) -> Any:
        light = frames.mean((1, 2, 3)) / 50
        return np.stack([np.convolve(light, np.ones(5) / 5, "valid")] * 2, 1).astype(np.float32)

    def sounds(self, mfcc: Any) -> Any:
        energy = mfcc[0]
        windows = np.lib.stride_tricks.sliding_window_view(energy, 20)[::4].mean(1)
        return np.stack([windows] * 2, 1).astype(np.float32)


class Fixed:
    name = "fixed"

    def __init__(self, box: Any) -> None:
        self.box = box

    def find(self, frames: Any) -> Any:
        return np.repeat(self.box[None], len(frames), 0)


def test_a_video_is_scored_on_its_tracks_at_25_frames_a_second() -> None:
    rng = np.random.default_rng(3)
    level = np.repeat(rng.uniform(0.02, 0.5, 30), 5)                                        # 3 s at 50 frames a second
    frames = (np.ones((150, 200, 200, 3)) * (50 * np.log(level * 400))[:, None, None, None] / 2).astype(np.uint8)
    speech = (rng.normal(size=48_000) * np.repeat(level, 320)).astype(np.float32)
    tracks, covered = score_video(Brightness(), Fixed(BOX), frames, 50, speech)
    assert covered == 75
    assert len(tracks) == 1
    assert tracks[0].frames == 70
    with pytest.raises(BadInputError, match="1 too small"):
        score_video(Brightness(), Fixed(BOX / 3), frames, 50, speech)
    with pytest.raises(BadInputError, match="no face"):
        score_video(Brightness(), Fixed(np.full(4, np.nan)), frames, 50, speech)
