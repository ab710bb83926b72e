"""What a job needs of memory, foreseen, and transformers that do not fit the device."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from infinitetalk import blocks
from infinitetalk.conditions import Condition, Tokens
from infinitetalk.config import TransformerConfig
from infinitetalk.errors import BadInputError, TooLargeError
from infinitetalk.memory import (
    PUBLISHED,
    STANDARD,
    Companions,
    _host_memory,
    block_bytes,
    choose,
    coding_bytes,
    forward_bytes,
    free_memory,
    host_bytes,
    host_must_hold,
    keys_values_bytes,
    must_fit,
    needs,
    rest_bytes,
)
from infinitetalk.offload import BlockOffload, visitors
from infinitetalk.quant import quantise
from infinitetalk.shapes import PixelShape
from infinitetalk.transformer import Transformer
from tests import tiny_infinitetalk as tiny

PUBLIC = TransformerConfig()
SMALL = PixelShape(9, 32, 48)
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA"))]


def test_the_published_weights_are_counted_exactly() -> None:
    assert 40 * block_bytes(PUBLIC) + rest_bytes(PUBLIC) == 2 * 18_882_046_784


@pytest.mark.parametrize("config", [dataclasses.replace(PUBLIC, num_layers=1), tiny.TINY])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_weights_of_any_type_are_counted_exactly(config, dtype) -> None:
    with torch.device("meta"):
        network = Transformer(config).to(dtype)
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


def network_bytes(network: nn.Module) -> int:
    """Bytes of a network's parameters and buffers."""
    return sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))


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
def test_the_largest_moment_of_a_forward_is_foreseen(size, persons, dtype, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "CACHED", size.latent.tokens)  # all tokens at once, as on a GPU
    config = dataclasses.replace(PUBLIC, num_layers=2)  # more layers need no more
    with FakeTensorMode():
        network = built(lambda: Transformer(config), dtype)
        condition = told(network, size, persons)
        forward(network, size, condition)
        with Peak([*network.state_dict().values(), *kept(condition)]) as moment:
            forward(network, size, condition)
    foreseen = forward_bytes(config, size, dtype)
    assert moment.peak <= foreseen <= 1.15 * moment.peak


@pytest.mark.parametrize(("width", "slack"), [(96, 1.01), (8, 1.1)])
@torch.no_grad()
def test_the_largest_moment_of_the_codec_is_foreseen(width, slack) -> None:
    from diffusers import AutoencoderKLWan

    from infinitetalk.vae import WanCodec

    size = PixelShape(13, 128, 128)
    with FakeTensorMode():
        codec = WanCodec(AutoencoderKLWan(base_dim=width))
        weights = list(codec.network.state_dict().values())
        pixels = torch.zeros(3, *size)
        with Peak(weights) as encoding:
            latent = codec.encode(pixels)
        with Peak(weights) as decoding:
            for piece in codec.decode(latent):
                del piece
    foreseen = coding_bytes(size, Companions(codec=network_bytes(codec.network)))
    assert encoding.peak <= decoding.peak <= foreseen <= slack * decoding.peak


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
    large, small, wide = choose(80 * 10**9), choose(24 * 10**9), PixelShape(81, 720, 1280)
    assert (large.profile, large.blocks_resident, large.text_resident) == ("resident", 40, True)
    assert large.needed_bytes < 66e9
    assert (small.profile, small.blocks_resident) == ("offload", 6)
    assert not choose(60 * 10**9).text_resident
    assert (choose(80 * 10**9, wide).profile, choose(32 * 10**9, wide).profile) == ("resident", "offload")


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
    assert best == (37 if wanted == "offload" else 41)


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


def test_what_visits_the_device_must_fit_into_host_memory() -> None:
    resident, visiting, rounded = choose(80 * 10**9), choose(24 * 10**9), choose(60 * 10**9, wanted="fp8")
    host_must_hold(0, resident, PUBLIC)
    host_must_hold(52 * 10**9, visiting, PUBLIC)
    assert host_bytes(choose(60 * 10**9), PUBLIC) == PUBLISHED.text
    for residence in (visiting, rounded):
        assert host_bytes(residence, PUBLIC) > 2 * 18_882_046_784
        with pytest.raises(TooLargeError, match=r"of host memory, and 32\.0 GB are free"):
            host_must_hold(32 * 10**9, residence, PUBLIC)


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
    assert all(map(torch.equal, parted.cpu().state_dict().values(), whole.cpu().state_dict().values()))


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
