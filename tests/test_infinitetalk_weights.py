"""Files of weights → networks, and what is said where they are absent, damaged or of another network."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from infinitetalk.config import TransformerConfig
from infinitetalk.engine import load
from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.files import BASES, Files, load_audio, load_codec, load_text, load_transformer, load_vision
from infinitetalk.files import transformer_config as config_of
from infinitetalk.transformer import Transformer
from infinitetalk.weights import (
    StoredTensor,
    assemble,
    diffusers_to_original,
    load_torch,
    open_tensors,
    original_to_diffusers,
    shards,
)
from tests import tiny_infinitetalk as tiny

PUBLIC = TransformerConfig()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The public layout; to be read only."""
    return tiny.write_public_layout(tmp_path_factory.mktemp("public"))


@pytest.fixture
def own(tmp_path) -> Path:
    """The public layout; to be damaged."""
    return tiny.write_public_layout(tmp_path / "own")


def on_meta(config: TransformerConfig = tiny.TINY) -> Transformer:
    with torch.device("meta"):
        return Transformer(config)


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def rewrite(file: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    state = {name: value.clone() for name, value in load_file(file).items()}
    change(state)
    save_file(state, file)


# Assembly

def test_the_published_files_are_the_14b_network() -> None:
    base, overlay = tiny.base_shapes(PUBLIC), tiny.overlay_shapes(PUBLIC)
    state = {name: tuple(value.shape) for name, value in on_meta(PUBLIC).state_dict().items()}
    assert base | overlay == state
    assert (len(base), len(overlay), len(state)) == (1303, 330, 1633)
    assert sum(map(math.prod, state.values())) == 18_882_046_784


@pytest.mark.parametrize(("layout", "shard_count"), [("original", 3), ("original", 1), ("diffusers", 3)])
def test_base_and_overlay_load_in_either_layout(tmp_path, layout, shard_count) -> None:
    files = Files.under(tiny.write_public_layout(tmp_path, layout=layout, shards=shard_count))
    assert files.missing() == ()
    assert config_of(files) == tiny.TINY
    network = load_transformer(files, torch.float32)
    assert same(network, tiny.tiny_transformer())
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_names_of_diffusers_are_those_of_its_real_network() -> None:
    from diffusers import WanTransformer3DModel

    c = tiny.TINY
    with torch.device("meta"):
        theirs = WanTransformer3DModel(
            num_attention_heads=c.num_heads, attention_head_dim=c.head_dim, in_channels=c.in_dim, ffn_dim=c.ffn_dim,
            out_channels=c.out_dim, text_dim=c.text_dim, freq_dim=c.freq_dim, num_layers=c.num_layers,
            image_dim=c.clip_dim, added_kv_proj_dim=c.dim, cross_attn_norm=True).state_dict()
    ours = tiny.base_shapes(c)
    assert {original_to_diffusers(name): shape for name, shape in ours.items()} == {
        name: tuple(value.shape) for name, value in theirs.items()}
    assert {diffusers_to_original(name) for name in theirs} == set(ours)
    assert all(diffusers_to_original(name) == name for name in ours | tiny.overlay_shapes(c))


def test_a_later_file_wins_whatever_its_type(own) -> None:
    files = Files.under(own)
    rewrite(files.overlay, lambda state: state.update({"head.head.bias": torch.full((64,), 7.0, dtype=torch.bfloat16)}))
    network = load_transformer(files, torch.float32)
    assert network.head.head.bias.eq(7).all()
    assert network.head.head.bias.dtype == torch.float32


def test_every_tensor_takes_the_type_that_is_asked_for(folder) -> None:
    network = load_transformer(Files.under(folder), torch.bfloat16)
    assert {value.dtype for value in network.state_dict().values()} == {torch.bfloat16}


def test_missing_unknown_and_misshapen_tensors_are_named(own) -> None:
    files = Files.under(own)

    def damage(state: dict[str, Tensor]) -> None:
        del state["blocks.1.norm_x.bias"]
        state["blocks.9.norm_x.bias"] = torch.zeros(32)
        state["audio_proj.proj2.bias"] = torch.zeros(15)

    rewrite(files.overlay, damage)
    with pytest.raises(BadWeightsError) as caught:
        load_transformer(files)
    told = str(caught.value)
    assert "1 tensor is missing: blocks.1.norm_x.bias" in told
    assert "1 tensor is unknown: blocks.9.norm_x.bias" in told
    assert "audio_proj.proj2.bias (15,) should be (16,)" in told
    assert str(files.overlay) in told
    assert files.base.name not in caught.value.where


@pytest.mark.parametrize("name", ["blocks", "blocks.", "blocks.weight", "blocks..weight", "", "weight"])
def test_a_name_that_no_network_has_is_unknown(own, name) -> None:
    assert diffusers_to_original(name) == original_to_diffusers(name) == name
    files = Files.under(own)
    rewrite(files.overlay, lambda state: state.update({name: torch.zeros(1)}))
    with pytest.raises(BadWeightsError, match=f"1 tensor is unknown: {name}"):
        load_transformer(files)


def test_many_missing_tensors_are_counted(folder) -> None:
    files = Files.under(folder)
    with pytest.raises(BadWeightsError, match=r"34 tensors are missing: .* and 30 more"):
        assemble(on_meta(), open_tensors(shards(files.base)), torch.float32, "cpu")


def test_one_tensor_is_read_at_a_time(folder) -> None:
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def watched(tensor: StoredTensor) -> StoredTensor:
        def read() -> Tensor:
            nonlocal most
            value = tensor.read().clone()
            alive.append(weakref.ref(value))
            most = max(most, sum(one() is not None for one in alive))
            return value
        return dataclasses.replace(tensor, read=read)

    stored = {name: watched(tensor) for name, tensor in open_tensors(Files.under(folder).transformer).items()}
    assert alive == []
    network = assemble(on_meta(), stored, torch.bfloat16, "cpu")
    assert (most, len(alive)) == (1, len(network.state_dict()))


def test_the_network_does_not_hang_on_its_files(own) -> None:
    files = Files.under(own)
    network = load_transformer(files, torch.float32)
    for file in files.transformer:
        with file.open("r+b") as stream:
            stream.write(bytes(file.stat().st_size))
    assert same(network, tiny.tiny_transformer())


def test_one_torch_file_may_hold_everything(folder, tmp_path) -> None:
    whole = tmp_path / "whole.pt"
    state = tiny.tiny_transformer().state_dict()
    torch.save({"state_dict": state, "step": 3}, whole)
    files = dataclasses.replace(Files.under(folder), overlay=tmp_path / "none", whole=whole)
    assert files.missing() == ()
    assert same(load_transformer(files, torch.float32), tiny.tiny_transformer())


def test_torch_files_of_the_old_format_are_read(tmp_path) -> None:
    file = tmp_path / "old.bin"
    torch.save({"a": torch.arange(3)}, file, _use_new_zipfile_serialization=False)
    assert load_torch(file)["a"].tolist() == [0, 1, 2]


class Intruder:
    def __init__(self, place: Path) -> None:
        self.place = str(place)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.place,)


@pytest.mark.parametrize("save", [torch.save, lambda what, file: file.write_bytes(pickle.dumps(what, protocol=2))])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, save) -> None:
    file, place = tmp_path / "evil.pth", tmp_path / "taken"
    save({"weight": Intruder(place)}, file)
    with pytest.raises(BadWeightsError, match=r"evil\.pth.*not run"):
        load_torch(file)
    assert not place.exists()
    pickle.loads(pickle.dumps(Intruder(place)))
    assert place.exists()  # it would have done it


@pytest.mark.parametrize("name", ["Wan2.1_VAE.pth", "infinitetalk.safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_file_is_named(own, name, share) -> None:
    file = next(own.rglob(name))
    data = file.read_bytes()
    file.write_bytes(data[:int(len(data) * share)])
    with pytest.raises(BadWeightsError, match=name) as caught:
        open_tensors([file])
    assert len(caught.value.what) < 120  # one clause, without what torch says of its inside


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, b"not weights at all", b"PK\x03\x04 torn", b"{}"])
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_what_is_no_file_of_weights_is_named(tmp_path, content, suffix) -> None:
    file = tmp_path / f"x.{suffix}"
    file.write_bytes(content)
    with pytest.raises(BadWeightsError, match=f"x.{suffix}"):
        open_tensors([file])


@pytest.mark.parametrize("what", [[torch.zeros(1)], {}, {"a": 1}, {"state_dict": [1]}])
def test_a_torch_file_without_named_tensors_is_refused(tmp_path, what) -> None:
    torch.save(what, tmp_path / "x.pth")
    with pytest.raises(BadWeightsError, match="no named tensors"):
        load_torch(tmp_path / "x.pth")


@pytest.mark.parametrize(("index", "said"), [
    ("{", "no index"), ("[]", "no index"), ('{"weight_map": {}}', "no files"),
    ('{"weight_map": {"a": 3}}', "no index"), ('{"weight_map": {"a": "../../etc/x.safetensors"}}', "outside")])
def test_a_damaged_index_is_named(own, index, said) -> None:
    base = Files.under(own).base
    (base / "diffusion_pytorch_model.safetensors.index.json").write_text(index, encoding="utf-8")
    with pytest.raises(BadWeightsError, match=said):
        shards(base)


# Files

def test_what_is_missing_is_told_with_its_place(own) -> None:
    for file in sorted(path for path in own.rglob("*") if path.is_file() and "multi" not in path.parts):
        aside = file.rename(own / "aside")
        absent = [one.place for one in Files.under(own).missing()]
        aside.rename(file)
        if file.suffixes[-2:] == [".index", ".json"]:  # without it, all shards in the folder are taken
            assert absent == []
        elif file.name == "model.safetensors":
            assert absent == [file.with_name("pytorch_model.bin")]  # either will do
        else:
            assert absent == [file]


def test_an_empty_folder_lacks_everything(tmp_path) -> None:
    absent = Files.under(tmp_path).missing()
    assert [one.what for one in absent][:3] == ["configuration of the base", "base of the transformer", "transformer"]
    assert len(absent) == 10
    with pytest.raises(BadWeightsError, match="is not there"):
        load_transformer(Files.under(tmp_path))


def test_variants_are_other_networks_and_unknown_ones_are_refused(folder) -> None:
    single, multi = (load_transformer(Files.under(folder, variant), torch.float32) for variant in ("single", "multi"))
    assert torch.equal(single.head.head.weight, multi.head.head.weight)
    assert not torch.equal(single.audio_proj.proj1.weight, multi.audio_proj.proj1.weight)
    with pytest.raises(BadInputError, match="triple"):
        Files.under(folder, "triple")


def test_the_720p_base_is_found(tmp_path) -> None:
    (tmp_path / BASES[1]).mkdir()
    assert Files.under(tmp_path).wan == tmp_path / BASES[1]
    (tmp_path / BASES[0]).mkdir()
    assert Files.under(tmp_path).wan == tmp_path / BASES[0]
    assert Files.under(tmp_path, base=BASES[1]).wan == tmp_path / BASES[1]


@pytest.mark.parametrize(("told", "said"), [
    ({"num_layers": "many"}, "num_layers"), ({"num_heads": 0}, "num_heads"), ({"eps": "small"}, "eps"),
    ({"num_layers": 4}, "missing"), ({"num_layers": 2}, "unknown"), ({"in_dim": 16}, "another shape")])
def test_a_configuration_that_is_not_the_weights_is_refused(own, told, said) -> None:
    file = Files.under(own).base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | told), encoding="utf-8")
    with pytest.raises(BadWeightsError, match=said):
        load_transformer(Files.under(own))


def test_another_speech_encoder_is_refused(own) -> None:
    file = Files.under(own).wav2vec / "config.json"
    file.write_text(json.dumps(tiny.WAV2VEC | {"hidden_size": 77}), encoding="utf-8")
    with pytest.raises(BadWeightsError, match="what the transformer hears"):
        load_transformer(Files.under(own))


def test_the_engine_names_a_file_that_is_absent_before_it_loads_one(own) -> None:
    files = Files.under(own)
    files.codec.unlink()
    with pytest.raises(BadWeightsError, match=r"Wan2\.1_VAE\.pth: the video autoencoder is not there"):
        load(files)


def test_companions_load_from_the_folder_as_they_are_made_in_memory(folder) -> None:
    files, made = Files.under(folder), tiny.tiny_networks()
    picture, samples = torch.rand(3, 32, 48) * 2 - 1, torch.randn(8000) * 0.1
    assert torch.equal(load_codec(files).encode(picture[:, None]), made.codec.encode(picture[:, None]))
    assert torch.equal(load_vision(files, torch.float32)(picture), made.vision(picture))
    assert torch.equal(load_text(files, torch.float32)("A man speaks."), made.text("A man speaks."))
    assert torch.equal(load_audio(files)(samples), made.audio(samples))
