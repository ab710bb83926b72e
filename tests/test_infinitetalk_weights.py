"""Files of weights → networks, what they need of memory, and networks that do not fit the device."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pickle
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from infinitetalk.conditions import Condition, Tokens
from infinitetalk.config import TransformerConfig
from infinitetalk.errors import BadInputError, BadWeightsError, TooLargeError
from infinitetalk.files import (
    BASES,
    Files,
    load_audio,
    load_codec,
    load_text,
    load_transformer,
    load_vision,
    transformer_config,
)
from infinitetalk.memory import (
    DECODE,
    ENCODE,
    PUBLISHED,
    STANDARD,
    _host_memory,
    block_bytes,
    choose,
    forward_bytes,
    free_memory,
    keys_values_bytes,
    must_fit,
    needs,
    network_bytes,
    rest_bytes,
)
from infinitetalk.offload import BlockOffload, visitors
from infinitetalk.quant import quantise
from infinitetalk.shapes import PixelShape
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
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


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
    state = load_file(file)
    state = {name: value.clone() for name, value in state.items()}
    change(state)
    save_file(state, file)


# Assembly

@pytest.fixture(scope="module")
def published() -> Transformer:
    return on_meta(PUBLIC)


def test_the_published_files_are_the_14b_network(published) -> None:
    base, overlay = tiny.base_shapes(PUBLIC), tiny.overlay_shapes(PUBLIC)
    state = {name: tuple(value.shape) for name, value in published.state_dict().items()}
    assert base | overlay == state
    assert (len(base), len(overlay), len(state)) == (1303, 330, 1633)
    assert sum(map(math.prod, state.values())) == 18_882_046_784


@pytest.mark.parametrize(("layout", "shard_count"), [("original", 3), ("original", 1), ("diffusers", 3)])
def test_base_and_overlay_load_in_either_layout(tmp_path, layout, shard_count) -> None:
    files = Files.under(tiny.write_public_layout(tmp_path, layout=layout, shards=shard_count))
    assert files.missing() == ()
    assert transformer_config(files) == tiny.TINY
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
    with pytest.raises(BadWeightsError, match=name):
        open_tensors([file])


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


def test_companions_load_from_the_folder_as_they_are_made_in_memory(folder) -> None:
    files, made = Files.under(folder), tiny.tiny_networks()
    picture, samples = torch.rand(3, 32, 48) * 2 - 1, torch.randn(8000) * 0.1
    assert torch.equal(load_codec(files).encode(picture[:, None]), made.codec.encode(picture[:, None]))
    assert torch.equal(load_vision(files, torch.float32)(picture), made.vision(picture))
    assert torch.equal(load_text(files, torch.float32)("A man speaks."), made.text("A man speaks."))
    assert torch.equal(load_audio(files)(samples), made.audio(samples))


# Memory

def test_the_published_weights_are_counted_exactly(published) -> None:
    float32 = torch.float32
    assert network_bytes(published.blocks[7]) == block_bytes(PUBLIC, float32)
    assert network_bytes(published) == 40 * block_bytes(PUBLIC, float32) + rest_bytes(PUBLIC, float32)
    assert 40 * block_bytes(PUBLIC) + rest_bytes(PUBLIC) == 2 * 18_882_046_784


@pytest.mark.parametrize("config", [dataclasses.replace(PUBLIC, num_layers=1), tiny.TINY])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_of_any_type_are_counted_exactly(config, dtype) -> None:
    network = on_meta(config).to(dtype)
    assert network_bytes(network) == config.num_layers * block_bytes(config, dtype) + rest_bytes(config, dtype)
    quantise(network)
    assert network_bytes(network.blocks[0]) == block_bytes(config, dtype, fp8=True)


def test_companions_are_counted_exactly(monkeypatch) -> None:
    def parameters(shapes: tiny.Shapes) -> int:
        return sum(map(math.prod, shapes.values()))

    monkeypatch.setattr(tiny, "VOCABULARY", range(256_384))
    monkeypatch.setattr(tiny, "WAV2VEC", tiny.WAV2VEC | {
        "hidden_size": 768, "intermediate_size": 3072, "conv_dim": [512] * 7, "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16, "num_hidden_layers": 12})
    used = {name: shape for name, shape in tiny.vision_shapes(1280, 32).items()
            if "visual.head" not in name and "transformer.31." not in name}
    assert PUBLISHED.text == 2 * parameters(tiny.text_shapes(4096, 64, 10240, 24))
    assert PUBLISHED.vision == 2 * parameters(used)
    assert PUBLISHED.codec == 4 * parameters(tiny.codec_shapes(96))
    assert PUBLISHED.audio == 4 * parameters(tiny.audio_shapes())


class Peak(TorchDispatchMode):
    """Counts the bytes of live tensors, but for known ones; with fake tensors at any size, for nothing."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.known, self.live, self.peak = WeakIdKeyDictionary(), WeakIdKeyDictionary(), 0
        for tensor in known:
            self.known[tensor.untyped_storage()] = True

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor) and leaf.untyped_storage() not in self.known:
                self.live[leaf.untyped_storage()] = leaf.untyped_storage().nbytes()
        self.peak = max(self.peak, sum(self.live.values()))
        return out


def built(make: Callable[[], nn.Module], dtype: torch.dtype) -> nn.Module:
    """A network of a type from the start: fake tensors cannot be converted in place."""
    torch.set_default_dtype(dtype)
    try:
        return make()
    finally:
        torch.set_default_dtype(torch.float32)


def told(network: Transformer, size: PixelShape, persons: int = 1) -> Condition:
    c = network.config
    return Condition(
        network.embed_text([torch.randn(9, c.text_dim)]),
        network.embed_image(torch.randn(1, c.clip_tokens, c.clip_dim)),
        network.embed_audio(torch.randn(1, persons, size.frames, c.audio_window, c.audio_layers, c.audio_channels)),
        persons)


def forward(network: Transformer, size: PixelShape, condition: Condition, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(1, channels, *size.latent, generator=generator) for channels in (16, 20))
    columns = torch.arange(size.latent.width) * 3 // size.latent.width
    masks = (torch.arange(3)[:, None, None] == columns).expand(3, *size.latent[1:])
    return network(x, y, torch.tensor([500.0]), condition, masks if condition.persons > 1 else None)


def kept(condition: Condition) -> list[Tensor]:
    return [tensor for tokens in (condition.text, condition.image, condition.audio)
            for pair in tokens._kept.values() for tensor in pair]


@pytest.mark.parametrize(("size", "persons"), [
    (STANDARD, 1), (STANDARD, 2), (PixelShape(81, 720, 1280), 1), (PixelShape(17, 480, 832), 1),
    (PixelShape(1, 480, 832), 1)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@torch.no_grad()
def test_the_largest_moment_of_a_forward_is_foreseen(size, persons, dtype) -> None:
    config = dataclasses.replace(PUBLIC, num_layers=2)  # more layers need no more
    with FakeTensorMode():
        network = built(lambda: Transformer(config), dtype)
        condition = told(network, size, persons)
        forward(network, size, condition)
        with Peak([*network.state_dict().values(), *kept(condition)]) as moment:
            forward(network, size, condition)
    foreseen = forward_bytes(config, size, dtype)
    assert moment.peak <= foreseen <= 1.15 * moment.peak


@torch.no_grad()
def test_the_largest_moment_of_the_codec_is_foreseen() -> None:
    from diffusers import AutoencoderKLWan

    from infinitetalk.vae import WanCodec

    height, width = 128, 128
    with FakeTensorMode():
        codec = WanCodec(AutoencoderKLWan())
        weights = list(codec.network.state_dict().values())
        pixels = torch.zeros(3, 13, height, width)
        with Peak(weights) as encoding:
            latent = codec.encode(pixels)
        with Peak(weights) as decoding:
            for piece in codec.decode(latent):
                del piece
    for moment, foreseen in ((encoding, ENCODE), (decoding, DECODE)):
        assert 0.95 * foreseen <= moment.peak / (height * width) <= foreseen


@torch.no_grad()
def test_kept_keys_and_values_are_counted_exactly() -> None:
    network, size = tiny.tiny_transformer(), PixelShape(9, 32, 48)
    c = network.config
    prompts = [network.embed_text([torch.randn(count, c.text_dim)]) for count in (5, 7)]
    heard, nobody = told(network, size, 2), told(network, size, 1)
    passes = [heard, dataclasses.replace(heard, text=prompts[0]),
              dataclasses.replace(nobody, text=prompts[0], image=heard.image)]
    for one in passes:
        forward(network, size, one)
    distinct = {id(tensor): tensor.nbytes for one in passes for tensor in kept(one)}
    assert sum(distinct.values()) == keys_values_bytes(c, size, 2, torch.float32)


def test_the_published_sizes_fit_the_cards_they_should() -> None:
    large = choose(80 * 10**9)
    assert (large.profile, large.blocks_resident, large.text_resident) == ("resident", 40, True)
    assert large.needed_bytes < 66e9
    assert choose(80 * 10**9, PixelShape(81, 720, 1280)).profile == "resident"
    assert not choose(60 * 10**9).text_resident
    small = choose(24 * 10**9)
    assert (small.profile, small.blocks_resident) == ("offload", 6)
    assert choose(32 * 10**9, PixelShape(81, 720, 1280)).profile == "offload"


@pytest.mark.parametrize("wanted", ["auto", "resident", "fp8", "offload"])
@pytest.mark.parametrize("size", [PixelShape(81, 256, 448), STANDARD, PixelShape(33, 960, 960)])
def test_what_is_chosen_fits_and_more_memory_is_never_worse(wanted, size) -> None:
    best = -1
    for free in range(4 * 10**9, 100 * 10**9, 10**9):
        try:
            chosen = choose(free, size, wanted=wanted)
        except TooLargeError:
            assert best == -1
            continue
        again = needs(chosen.profile, size, PUBLIC, blocks_resident=chosen.blocks_resident,
                      text_resident=chosen.text_resident)
        assert chosen.needed_bytes == again.total <= free
        assert wanted in ("auto", chosen.profile)
        rank = chosen.blocks_resident + chosen.text_resident
        assert rank >= best
        best = rank
    assert best == (38 if wanted == "offload" else 41) - 1 * (wanted == "offload")


def test_too_large_says_what_is_needed_what_is_there_and_what_would_fit() -> None:
    with pytest.raises(TooLargeError, match=r"1280×720 need 28\.\d GB \(offload\), and 24\.0 GB are free") as caught:
        choose(24 * 10**9, PixelShape(81, 720, 1280))
    width, height = map(int, caught.value.hint.split()[-1].split("×"))
    assert choose(24 * 10**9, PixelShape(81, height, width)).profile == "offload"
    with pytest.raises(TooLargeError, match=r"Use memory profile offload$"):
        choose(24 * 10**9, wanted="resident")
    with pytest.raises(TooLargeError, match="memory profile fp8 or memory profile offload"):
        choose(40 * 10**9, wanted="resident")
    with pytest.raises(TooLargeError, match="use a larger one"):
        choose(10**9)
    with pytest.raises(BadInputError, match="huge"):
        choose(10**12, wanted="huge")


def test_a_take_that_a_loaded_engine_cannot_make_is_refused() -> None:
    must_fit(12 * 10**9, STANDARD, PUBLIC)
    with pytest.raises(TooLargeError, match=r"besides the networks, and 12\.0 GB are free"):
        must_fit(12 * 10**9, PixelShape(81, 720, 1280), PUBLIC)


def test_host_memory_is_what_is_available_within_the_container(tmp_path) -> None:
    assert 0 < free_memory("cpu") < 2**50
    meminfo, group = tmp_path / "meminfo", tmp_path / "group"
    meminfo.write_text("MemTotal:  64 kB\nMemAvailable:   48 kB\n")
    assert _host_memory(meminfo, group) == 48 * 1024
    group.mkdir()
    (group / "memory.current").write_text("4096\n")
    for limit, free in (("max", 48 * 1024), ("20480", 16384), ("1", 0)):
        (group / "memory.max").write_text(limit + "\n")
        assert _host_memory(meminfo, group) == free
    assert _host_memory(tmp_path / "none", tmp_path / "none") > 0


# Offload

SMALL = PixelShape(9, 32, 48)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("resident", "persons"), [(0, 1), (0, 2), (2, 2), (3, 1), (4, 1), (5, 1), (9, 1)])
def test_offloaded_blocks_compute_bit_for_bit_what_resident_ones_do(device, resident, persons) -> None:
    config = dataclasses.replace(tiny.TINY, num_layers=5)
    whole, parted = (tiny.tiny_transformer(config=config) for _ in range(2))
    whole.to(device)
    offload = BlockOffload(parted, device, resident)
    with torch.inference_mode():
        condition = told(whole, SMALL, persons)
        again = Condition(*(Tokens(tokens.states) for tokens in (condition.text, condition.image, condition.audio)),
                          persons)
        for seed in range(3):  # the later ones with kept keys and values
            assert torch.equal(forward(parted, SMALL, again, seed), forward(whole, SMALL, condition, seed))
    offload.remove()
    assert same(parted.cpu(), whole.cpu())


@pytest.mark.parametrize("resident", range(6))
@torch.no_grad()
def test_no_more_than_two_blocks_visit_at_once(resident) -> None:
    network = tiny.tiny_transformer(config=dataclasses.replace(tiny.TINY, num_layers=5))
    condition = told(network, SMALL)
    BlockOffload(network, "cpu", resident)
    moving = visitors(5, resident)
    home = {index: network.blocks[index].modulation.data_ptr() for index in moving}
    away, places = [], set()

    def look(block: nn.Module, given: object) -> None:
        away.append([index for index in moving if network.blocks[index].modulation.data_ptr() != home[index]])
        places.update(network.blocks[index].modulation.data_ptr() for index in away[-1])

    for block in network.blocks:
        block.register_forward_pre_hook(look)
    for seed in range(2):
        forward(network, SMALL, condition, seed)
    assert all(index in away[index] for index in moving)
    assert max(map(len, away)) <= 2
    assert len(places) == min(2, len(moving))


@torch.no_grad()
def test_an_interrupted_forward_leaves_nothing_wrong() -> None:
    whole, parted = tiny.tiny_transformer(), tiny.tiny_transformer()
    condition = told(whole, SMALL)
    BlockOffload(parted, "cpu")
    failing = parted.blocks[1].register_forward_pre_hook(lambda block, given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        forward(parted, SMALL, condition)
    failing.remove()
    assert torch.equal(forward(parted, SMALL, condition), forward(whole, SMALL, condition))


@torch.no_grad()
def test_fp8_blocks_can_visit() -> None:
    whole, parted = tiny.tiny_transformer(), tiny.tiny_transformer()
    condition = told(whole, SMALL)
    for network in (whole, parted):
        quantise(network)
    BlockOffload(parted, "cpu", 1)
    assert torch.equal(forward(parted, SMALL, condition), forward(whole, SMALL, condition))


def test_visitors_are_spread_evenly() -> None:
    assert visitors(40, 20) == list(range(0, 40, 2))
    assert visitors(40, 40) == visitors(2, 7) == []
    assert visitors(3, 0) == [0, 1, 2]
