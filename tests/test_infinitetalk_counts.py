"""What a job costs, counted: operations against the formula, forwards and encodings against what is needed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from infinitetalk import bench as bench_module
from infinitetalk import bench_gpu
from infinitetalk.bench import bench, gpu_table
from infinitetalk.bench_cpu import SMALL, Comparison, bare_products, compare, measure_cpu
from infinitetalk.bench_gpu import GpuPlan, measure_gpu
from infinitetalk.bench_network import inputs, random_network
from infinitetalk.config import TransformerConfig
from infinitetalk.errors import BadInputError
from infinitetalk.flops import Speed, chunk_work, decode_flops, encode_flops, forward_flops, shot_work
from infinitetalk.guidance import Apg, Guidance
from infinitetalk.networks import Networks
from infinitetalk.plan import ChunkSize, plan
from infinitetalk.reference import Image, Reference, Source
from infinitetalk.sampling import Sampling
from infinitetalk.shapes import PixelShape
from infinitetalk.shot import Embeddings, Shot
from infinitetalk.stream import StreamSettings, stream
from infinitetalk.transformer import Transformer
from infinitetalk.vae import WanCodec
from tests.tiny_infinitetalk import TINY, tiny_transformer

FULL = TransformerConfig()
CHUNK = PixelShape(81, 480, 832)
META = torch.device("meta")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny products wait longer for a second thread than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def counted(run):
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


# -- the formula ------------------------------------------------------------------------------------------------------


def test_a_forward_of_the_public_network_is_1_825_petaflops() -> None:
    with META:
        network = Transformer(FULL)
    given = inputs(network, FULL, CHUNK.latent, META, torch.bfloat16)
    first = counted(lambda: network(*given))
    assert first == pytest.approx(1.825e15, rel=0.005)
    assert forward_flops(FULL, CHUNK.latent).total == first


def test_from_the_second_forward_on_no_keys_and_values_of_conditions_are_made() -> None:
    network, latent = tiny_transformer(), PixelShape(9, 48, 32).latent
    given = inputs(network, TINY, latent, torch.device("cpu"), torch.float32)
    work = forward_flops(TINY, latent)
    assert counted(lambda: network(*given)) == work.total
    assert counted(lambda: network(*given)) == counted(lambda: network(*given)) == work.steady
    assert work.total - work.steady == work.keys_values > 0


def test_two_speakers_cost_their_labels_and_a_second_voice() -> None:
    network, latent = tiny_transformer(), PixelShape(9, 48, 32).latent
    x, y, t, condition = inputs(network, TINY, latent, torch.device("cpu"), torch.float32)
    windows = torch.zeros(1, 2, 9, TINY.audio_window, TINY.audio_layers, TINY.audio_channels)
    two = replace(condition, audio=network.embed_audio(windows), persons=2)
    masks = torch.ones(3, latent.height, latent.width)
    assert counted(lambda: network(x, y, t, two, masks)) == forward_flops(TINY, latent, persons=2).total


@pytest.mark.parametrize("pixels", [PixelShape(1, 64, 96), PixelShape(9, 480, 832)])
def test_the_formula_counts_what_the_codec_runs(pixels: PixelShape) -> None:
    from diffusers import AutoencoderKLWan

    with META:
        codec = WanCodec(AutoencoderKLWan())
        clip, latent = torch.empty(3, *pixels), torch.empty(16, *pixels.latent)
    assert counted(lambda: codec.encode(clip)) == encode_flops(pixels)
    assert counted(lambda: list(codec.decode(latent))) == decode_flops(pixels)


def test_a_chunk_of_the_codec_is_164_teraflops_in_and_275_out() -> None:
    assert encode_flops(CHUNK) == pytest.approx(164e12, rel=0.005)
    assert decode_flops(CHUNK) == pytest.approx(275e12, rel=0.005)


@pytest.mark.parametrize(("seconds", "saved"), [(3, 0.07), (5, 0.22), (10, 0.16), (15, 0.14), (20, 0.03), (60, 0.02)])
def test_a_last_chunk_no_longer_than_needed_saves_work(seconds: int, saved: float) -> None:
    short, full = (shot_work(FULL, plan(25 * seconds, ChunkSize(), tail), (480, 832), steps=40, passes=3)
                   for tail in ("short", "full"))
    assert 1 - short.transformer / full.transformer == pytest.approx(saved, abs=0.01)


def test_work_of_a_shot_is_that_of_its_chunks() -> None:
    one = {"steps": 8, "passes": 2}
    first = chunk_work(FULL, CHUNK, context=0, **one)
    later = chunk_work(FULL, CHUNK, context=9, new_reference=False, **one)
    image = shot_work(FULL, plan(81 + 72, ChunkSize(), "full"), (480, 832), new_references=False, **one)
    assert image == first + later
    assert first.transformer == pytest.approx(16 * 1.8214e15, rel=0.001)
    assert (first + later).seconds(Speed(transformer=1e15, codec=1e14)) == pytest.approx(
        image.transformer / 1e15 + image.codec / 1e14)


# -- the stream -------------------------------------------------------------------------------------------------------


class Counted:
    """A tiny transformer, a codec and a look that only fold time and space, and what ran how often."""

    def __init__(self) -> None:
        self.ran: Counter[str] = Counter()
        self.encoded: list[int] = []
        transformer = tiny_transformer()
        self.networks = Networks(transformer, self, self.look)
        block = transformer.blocks[-1]
        modules = {"forward": transformer, "text keys": block.cross_attn.k, "image keys": block.cross_attn.k_img,
                   "audio keys": block.audio_cross_attn.kv_linear}
        for name, module in modules.items():
            module.register_forward_pre_hook(lambda *_, name=name: self.ran.update([name]))

    def encode(self, pixels: Tensor) -> Tensor:
        self.encoded.append(pixels.shape[1])
        shape = PixelShape(*pixels.shape[1:]).latent
        return functional.interpolate(pixels.mean(0)[None, None], size=tuple(shape))[0].expand(16, *shape)

    def decode(self, latent: Tensor) -> Iterator[Tensor]:
        for index, frame in enumerate(latent.mean(0).clamp(-1, 1)):
            yield functional.interpolate(frame[None, None], scale_factor=8.0).expand(3, 4 if index else 1, -1, -1)

    @staticmethod
    def look(image: Tensor) -> Tensor:
        return image.mean().expand(1, TINY.clip_tokens, TINY.clip_dim)


@pytest.fixture
def counts() -> Counted:
    return Counted()


def shot(frames: int, size: tuple[int, int] = (16, 16)) -> Shot:
    draw = torch.Generator().manual_seed(3)
    states = torch.randn(1, frames, TINY.audio_layers, TINY.audio_channels, generator=draw)
    text, negative = torch.randn(2, 5, TINY.text_dim, generator=draw)
    return Shot(frame=lambda index: torch.full((3, *size), index / frames), frames=frames, size=size,
                audio=Embeddings(states), text=text, negative=negative)


SHORT = ChunkSize(9, 5)


def settings(reference: Reference, guidance: Guidance, steps: int = 1, size: ChunkSize = SHORT) -> StreamSettings:
    return StreamSettings(size=size, reference=reference, sampling=Sampling(steps=steps, guidance=guidance))


@pytest.mark.parametrize("apg", [None, Apg()], ids=["plain", "apg"])
@pytest.mark.parametrize(("text", "audio", "needed"), [(5, 4, 3), (5, 1, 2), (1, 2, 2), (1, 1, 1)])
def test_no_forward_runs_that_the_scales_do_not_need(counts: Counted, text: float, audio: float, needed: int,
                                                     apg: Apg | None) -> None:
    chunks = list(stream(counts.networks, shot(17), settings(Source(), Guidance(text, audio, apg), steps=2)))
    assert len(chunks) == 3
    assert counts.ran["forward"] == 3 * 2 * needed


def test_keys_and_values_are_made_once_for_each_distinct_text_picture_and_sound(counts: Counted) -> None:
    for reference, pictures in ((Image(0), 1), (Source(), 4)):
        counts.ran.clear()
        chunks = list(stream(counts.networks, shot(21), settings(reference, Guidance(), steps=2)))
        assert len(chunks) == 4
        assert counts.ran["forward"] == 4 * 2 * 3
        assert counts.ran["text keys"] == 2  # prompt and negative prompt
        assert counts.ran["image keys"] == pictures
        assert counts.ran["audio keys"] == 4 + 1  # of each chunk, and nobody's


@pytest.mark.parametrize(("reference", "most"), [(Image(0), 0.11), (Source(), 1.0)],
                         ids=["same reference", "new references"])
def test_a_chunk_encodes_no_more_than_it_must(counts: Counted, reference: Reference, most: float) -> None:
    published = encode_flops(CHUNK) + encode_flops(CHUNK._replace(frames=9))
    chunks = stream(counts.networks, shot(81 + 72 + 72), settings(reference, Guidance(1, 1), size=ChunkSize()))
    shares = []
    for _chunk in chunks:
        shares.append(sum(encode_flops(CHUNK._replace(frames=frames)) for frames in counts.encoded) / published)
        counts.encoded.clear()
    assert len(shares) == 3
    assert shares[0] <= 1  # the first one's reference is new, and what the second one needs is encoded here
    assert all(share <= most for share in shares[1:]), shares
    if most == 1:
        assert shares[1] == 1  # nothing is left out either: the reference did change


# -- the measures -----------------------------------------------------------------------------------------------------


def plan_of(config: TransformerConfig = TINY, **changes) -> GpuPlan:
    given = {"device": torch.device("cpu"), "config": config, "pixels": PixelShape(13, 32, 32),
             "dtype": torch.float32, "codec_width": 4, "warm_ups": 1, "repeats": 2, "compiler": "eager"}
    return GpuPlan(**given | changes)


def test_every_section_of_the_gpu_s_measure_runs() -> None:
    said, saved = [], []
    figures = measure_gpu(plan_of(), said.append, lambda so_far: saved.append(json.dumps(so_far)))
    assert figures["skipped"] == {}
    assert set(figures["forwards"]) == {"sdpa", "sdpa, compiled", f"{figures['best']}, fp8"}
    assert figures["chunk"]["frames"] == 13
    assert figures["fp8_snr_db"] > 20
    for one in figures["forwards"].values():
        around = [one["seconds_per_second"][mode] * one["codec_share"][mode] for mode in ("40×3", "8×2", "4×1")]
        assert around == pytest.approx(around[:1] * 3)  # the VAE costs the same whatever the steps
        assert one["seconds_per_second"]["40×3"] > one["seconds_per_second"]["4×1"]
    assert json.loads(saved[-1]) == figures
    assert len(saved) == len(said) == 6
    text = gpu_table(figures)
    for name in (*figures["forwards"], "40×3", "13 frames"):
        assert name in text


def test_where_not_all_blocks_fit_a_slice_is_measured_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_gpu, "fits", lambda plan: False)
    figures = measure_gpu(plan_of(replace(TINY, num_layers=4)))
    assert (figures["blocks_measured"], figures["blocks"]) == (2, 4)
    assert figures["skipped"] == {"chunk": "InfiniteTalkError: not all blocks fit"}
    assert "All 4 blocks do not fit: seconds are those of 2, multiplied." in gpu_table(figures)


def test_what_a_machine_lacks_is_skipped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    figures = measure_gpu(plan_of(compiler="no such compiler"))
    assert set(figures["skipped"]) == {"codec", "compiled", "chunk"}
    assert "sdpa" in figures["forwards"]
    assert "Skipped: codec (ModuleNotFoundError" in gpu_table(figures)


def test_no_section_begins_when_the_time_is_over() -> None:
    figures = measure_gpu(plan_of(seconds=-1))
    assert figures["forwards"] == {}
    assert set(figures["skipped"].values()) == {"no time was left"}
    gpu_table(figures)


def test_the_bare_products_are_those_of_a_forward() -> None:
    latent = PixelShape(5, 64, 64).latent
    work = forward_flops(SMALL, latent)
    timestep = 2 * SMALL.dim * (SMALL.freq_dim + 7 * SMALL.dim)
    assert counted(bare_products(SMALL, latent, torch.float32)) == work.steady - timestep


def test_random_networks_are_the_same_and_stay_in_range() -> None:
    config = replace(TINY, num_layers=12)
    one, other = (random_network(config, torch.device("cpu"), torch.float32) for _ in range(2))
    given = inputs(one, config, PixelShape(5, 32, 32).latent, torch.device("cpu"), torch.float32)
    assert torch.equal(one(*given), other(*given))
    assert 0.01 < one(*given).std() < 100


def test_pairs_are_timed_in_turns_and_each_is_first_as_often() -> None:
    order: list[str] = []
    found = compare("a ÷ b", lambda: order.append("a"), lambda: order.append("b"), pairs=4, threads=1)
    assert "".join(order) == "ab" + "ab" "ba" "ab" "ba"
    assert found.pairs == 4


def test_a_restless_machine_is_not_judged() -> None:
    quiet = Comparison("forward", 1.2, 1.15, 1.25, 15, 1.0, 0.8, 1.0, 2)
    assert quiet.verdict.startswith("within")
    assert replace(quiet, median=1.4, high=1.45, low=1.35).verdict.startswith("above")
    assert replace(quiet, high=1.45).verdict.startswith("not judged")


@pytest.mark.parametrize(("device", "pairs"), [("tpu", 9), ("cuda:x", 9), ("cuda:99", 9), ("cpu", 1)])
def test_what_cannot_be_measured_is_refused(device: str, pairs: int) -> None:
    with pytest.raises(BadInputError):
        bench(device, pairs=pairs)


def test_the_verb_writes_its_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.cli import run_command

    monkeypatch.setattr(bench_module, "measure_cpu", partial(measure_cpu, pixels=PixelShape(5, 64, 64)))
    assert run_command(["bench", "engine", "--device", "cpu", "--pairs", "2", "--out", str(tmp_path), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert json.loads((tmp_path / "engine-cpu.json").read_text()) == figures
    assert figures["comparisons"][0]["what"] in (tmp_path / "engine-cpu.md").read_text()


def test_measuring_needs_torch_alone_and_planning_not_even_that() -> None:
    program = ("import sys; "
               "sys.modules.update(dict.fromkeys(['diffusers', 'transformers', 'av', 'PIL', 'scipy', 'typer'])); "
               "import infinitetalk.flops as f; print('torch' in sys.modules); import infinitetalk.bench")
    done = subprocess.run([sys.executable, "-c", program], text=True,
                          capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
