"""Schedules, guidance, caching, LoRA and fp8 of the engine: what the papers say, and the recorded vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from infinitetalk.conditions import Condition
from infinitetalk.config import TransformerConfig
from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.guidance import BARE, FULL, SILENT, TEXTLESS, Apg, Guidance, Pass, Projection
from infinitetalk.lora import merge_lora
from infinitetalk.quant import FP8, LARGEST, Fp8Linear, quantise, to_fp8
from infinitetalk.sampling import PRESETS, SHIFTS, Sampling, Velocity, denoise, preset
from infinitetalk.schedule import add_noise, timesteps
from infinitetalk.teacache import POLYNOMIALS, TeaCache, polynomial_at
from infinitetalk.transformer import Transformer, sinusoid
from infinitetalk.weights import original_to_diffusers
from tests.golden import Golden, distance, golden, read
from tests.tiny_infinitetalk import TINY, tiny_transformer

TOLERANCE = 1e-5
STREAM_TOLERANCE = 1e-4
SCALES = (0.0, 1.0, 2.0, 5.0)
NO_CONTEXT = torch.zeros(16, 0, 4, 4)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Schedule


@golden
def test_schedules_are_the_published_ones() -> None:
    recorded = read("scheduler")
    for name, times in recorded.about["timesteps"].items():
        steps, shift = name.split("_")
        ours = timesteps(int(steps), float(shift))
        assert torch.equal(ours, torch.tensor(times))
        assert distance((ours[:-1] - ours[1:]) / 1000, recorded[f"dt.{name}"]) < TOLERANCE


@golden
def test_timesteps_and_noise_enter_as_published() -> None:
    recorded = read("scheduler")
    width = recorded["out.sinusoid256"].shape[1]
    assert distance(sinusoid(recorded["in.time"], width), recorded["out.sinusoid256"]) < TOLERANCE
    clean, noise, t = (recorded[f"in.addnoise.{name}"] for name in ("x0", "noise", "t"))
    assert distance(add_noise(clean, noise, t), recorded["out.addnoise"]) < TOLERANCE


def test_a_schedule_falls_from_noise_to_data_and_a_shift_stays_longer_near_noise() -> None:
    even, shifted = timesteps(8, 1.0), timesteps(8, 7.0)
    for times in (even, shifted):
        assert (times[0], times[-1], len(times)) == (1000, 0, 9)
        assert (times[1:] < times[:-1]).all()
    assert torch.allclose(even[:-1].diff(), torch.tensor(-999 / 7), atol=1e-3)
    assert (shifted[1:-1] > even[1:-1]).all()


def test_noise_takes_the_straight_way() -> None:
    clean, noise = random(16, 2, 4, 4), random(16, 2, 4, 4, seed=1)
    assert torch.equal(add_noise(clean, noise, torch.tensor(0.0)), clean)
    assert torch.equal(add_noise(clean, noise, torch.tensor(1000.0)), noise)
    assert distance(add_noise(clean, noise, torch.tensor(250.0)), 0.75 * clean + 0.25 * noise) < TOLERANCE


# Guidance


@golden
def test_apg_remembers_as_published() -> None:
    recorded = read("scheduler")
    project = Projection(Apg())
    for call in range(len(recorded.under("out.apg."))):
        ours = project(recorded[f"in.apg.diff.{call}"], recorded[f"in.apg.cond.{call}"])
        assert distance(ours, recorded[f"out.apg.{call}"]) < TOLERANCE


def velocities(seed: int, *, additive: bool = False) -> dict[Pass, Tensor]:
    """What a network might say; additive: text and audio change it each by itself."""
    u, text, audio, both = (random(16, 2, 4, 4, seed=4 * seed + part) for part in range(4))
    both = 0 * both if additive else both
    return {BARE: u, TEXTLESS: u + audio, SILENT: u + text, FULL: u + audio + text + both}


def three_pass(v: Mapping[Pass, Tensor], guidance: Guidance, project: tuple[Projection, Projection]) -> Tensor:
    """Guidance as published, with all three passes whatever the scales."""
    c, d, u = v[FULL], v[TEXTLESS], v[BARE]
    if guidance.apg is None:
        return u + guidance.text * (c - d) + guidance.audio * (d - u)
    return c + (guidance.text - 1) * project[0](c - d, c) + (guidance.audio - 1) * project[1](d - u, c)


@pytest.mark.parametrize("apg", [None, Apg(norm_threshold=9.0)], ids=["plain", "apg"])
@pytest.mark.parametrize(("text", "audio"), list(product(SCALES, SCALES)))
def test_dropped_passes_change_nothing(text: float, audio: float, apg: Apg | None) -> None:
    guidance = Guidance(text, audio, apg)
    mix, project = guidance.start(), (Projection(apg or Apg()), Projection(apg or Apg()))
    for step in range(3):
        # with the prompt always there, audio's difference is taken beside it: the same where the two just add up
        v = velocities(step, additive=text == 1 and audio != 1)
        needed = {which: v[which] for which in guidance.passes}
        assert distance(mix(needed), three_pass(v, guidance, project)) < TOLERANCE


@pytest.mark.parametrize("apg", [None, Apg()], ids=["plain", "apg"])
@pytest.mark.parametrize(("text", "audio"), list(product(SCALES, SCALES)))
def test_a_step_runs_the_passes_its_scales_need_and_no_more(text: float, audio: float, apg: Apg | None) -> None:
    sampling = Sampling(steps=3, guidance=Guidance(text, audio, apg))
    ran: list[Pass] = []

    def velocity(x: Tensor, t: Tensor, which: Pass) -> Tensor:
        ran.append(which)
        return 0.1 * x

    denoise(velocity, random(16, 2, 4, 4), NO_CONTEXT, sampling)
    needed = 1 + (text != 1) + (audio != 1)
    assert len(ran) == sampling.forwards == 3 * needed
    assert len(set(ran[:needed])) == needed
    assert ran == 3 * ran[:needed]


def test_with_the_prompt_always_there_audio_is_guided_beside_it() -> None:
    v = velocities(0)
    ours = Guidance(text=1.0, audio=3.0).start()({which: v[which] for which in (FULL, SILENT)})
    assert distance(ours, v[SILENT] + 3 * (v[FULL] - v[SILENT])) < TOLERANCE


def test_apg_pushes_across_the_velocity_and_not_too_far() -> None:
    v, apg = velocities(1), Apg(norm_threshold=2.0)
    push = Guidance(text=6.0, audio=1.0, apg=apg).start()(v) - v[FULL]
    assert abs(float((push * v[FULL]).sum())) < 1e-3
    assert float(push.norm()) <= 5 * apg.norm_threshold * (1 + TOLERANCE)


def test_apg_projects_in_float64() -> None:
    along = random(16, 21, 30, 30) + 1000
    difference = along + random(16, 21, 30, 30, seed=1) * 1e-3
    exact, unit = difference.double(), along.double() / along.double().norm()
    rest = exact - (exact * unit).sum() * unit
    assert distance(Projection(Apg(norm_threshold=0))(difference, along), rest) < TOLERANCE


def test_apg_forgets_between_chunks() -> None:
    guidance = Guidance(apg=Apg())
    mix = guidance.start()
    first, second = mix(velocities(0)), mix(velocities(0))
    assert distance(second, first) > 0.01
    assert torch.equal(guidance.start()(velocities(0)), first)


# A chunk


def test_a_straight_flow_ends_at_the_data() -> None:
    noise, data = random(16, 3, 4, 4), random(16, 3, 4, 4, seed=1)
    for name in PRESETS:
        assert distance(denoise(lambda x, t, which: noise - data, noise, NO_CONTEXT, preset(name)), data) < TOLERANCE


def test_the_network_sees_the_context_clean_at_every_step() -> None:
    context, seen, done = random(16, 2, 4, 4, seed=1), [], []

    def velocity(x: Tensor, t: Tensor, which: Pass) -> Tensor:
        seen.append((float(t), x))
        return torch.ones_like(x)

    out = denoise(velocity, random(16, 5, 4, 4), context, preset("fast-4"), lambda *told: done.append(told))
    assert [t for t, _ in seen] == timesteps(4, 2.0)[:-1].tolist()
    assert all(torch.equal(x[:, :2], context) for x in [*(x for _, x in seen), out])
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize("shift", [1.0, 3.0, 11.0])
def test_a_beginning_with_the_source_begins_exactly_there_and_ends_nearer_to_it_the_less_noise_there_is(
        shift: float) -> None:
    noise, source, data = (random(16, 3, 4, 4, seed=seed) for seed in range(3))
    begins = (0.2, 0.6, 1.0)
    assert [float(timesteps(5, shift, begin)[0]) / 1000 for begin in begins] == pytest.approx(list(begins), abs=1e-6)
    far = []
    for begin in begins:
        seen: list[Tensor] = []

        def velocity(x: Tensor, t: Tensor, which: Pass, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x)
            return (x - 0.5 * (data + source)) / 2

        out = denoise(velocity, noise, NO_CONTEXT, Sampling(5, shift, begin=begin), source=source)
        assert distance(seen[0], begin * noise + (1 - begin) * source) < TOLERANCE
        far.append(distance(out, source))
    assert far == sorted(far)
    assert torch.equal(seen[0], noise)


def test_a_beginning_needs_its_source() -> None:
    with pytest.raises(BadInputError, match="no source"):
        denoise(lambda x, t, which: x, random(16, 3, 4, 4), NO_CONTEXT, Sampling(begin=0.5))
    for begin in (0.0, -1.0, 1.5, math.nan):
        with pytest.raises(BadInputError, match="share of noise"):
            Sampling(begin=begin)


def test_sampling_keeps_no_gradients() -> None:
    weight = torch.ones((), requires_grad=True)
    assert not denoise(lambda x, t, which: weight * x, random(16, 2, 4, 4), NO_CONTEXT, PRESETS["fast-4"]).requires_grad


def test_presets_take_the_shift_of_their_size_unless_distilled() -> None:
    assert {size: preset("best", size).shift for size in SHIFTS} == {"480": 7.0, "720": 11.0}
    assert {preset("fast-8", size).shift for size in SHIFTS} == {2.0}
    assert {name: sampling.forwards for name, sampling in PRESETS.items()} == {
        "best": 40 * 3, "cached": 40 * 3, "fast-8": 8 * 2, "fast-4": 4 * 1}


@pytest.mark.parametrize("wrong", [
    lambda: Sampling(temperature=0.0), lambda: Sampling(temperature=1.1),
    lambda: Sampling(steps=0), lambda: Sampling(steps=-4), lambda: Sampling(shift=0.0), lambda: Sampling(shift=-7.0),
    lambda: Sampling(shift=math.nan), lambda: Sampling(shift=math.inf), lambda: Sampling(size="1080"),
    lambda: Sampling(teacache=-0.1), lambda: Sampling(teacache=math.nan), lambda: Guidance(text=-1.0),
    lambda: Guidance(audio=math.nan), lambda: Guidance(audio=math.inf), lambda: Apg(norm_threshold=-1.0),
    lambda: Apg(momentum=math.nan), lambda: preset("fastest"), lambda: preset("best", "481"),
    lambda: TeaCache(0.2, POLYNOMIALS["480"], warm_up=-1), lambda: timesteps(0, 7.0)])
def test_values_that_cannot_be_sampled_are_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(BadInputError):
        wrong()


@pytest.mark.parametrize("shape", [(16, 4, 4, 4), (16, 1, 4, 2), (8, 1, 4, 4), (16, 4, 4)])
def test_context_that_does_not_fit_is_refused_before_the_network_runs(shape: tuple[int, ...]) -> None:
    def never(x: Tensor, t: Tensor, which: Pass) -> Tensor:
        raise AssertionError("the network ran")

    with pytest.raises(BadInputError, match="context"):
        denoise(never, random(16, 3, 4, 4), torch.zeros(shape), Sampling())


# TeaCache


class Listening:
    """A step cache that notes whether the blocks ran."""

    def __init__(self, caches: TeaCache) -> None:
        self.caches, self.computed = caches, []

    def of(self, which: Pass) -> Listening:
        self.which = which
        return self

    def reuse(self, signal: Tensor) -> Tensor | None:
        residual = self.caches.of(self.which).reuse(signal)
        self.computed.append((self.which, residual is None))
        return residual

    def keep(self, residual: Tensor) -> None:
        self.caches.of(self.which).keep(residual)


def recorded_velocity(recorded: Golden, cache: Listening) -> Velocity:
    transformer = Transformer(recorded.transformer)
    transformer.load_state_dict(recorded.weights())
    audio = recorded["in.audio"][None]  # (1, P, F, 5, L, C)
    text = {True: transformer.embed_text([recorded["in.context"]]),
            False: transformer.embed_text([recorded["in.context_null"]])}
    sound = {True: transformer.embed_audio(audio), False: transformer.embed_audio(torch.zeros_like(audio))}
    image = transformer.embed_image(recorded["in.clip_fea"])

    def velocity(x: Tensor, t: Tensor, which: Pass) -> Tensor:
        condition = Condition(text[which.text], image, sound[which.audio])
        return transformer(x[None], recorded["in.y"], t[None], condition, cache=cache.of(which))[0]

    return velocity


@golden
@torch.no_grad()
def test_cached_sampling_decides_and_ends_as_published() -> None:
    recorded = read("teacache")
    about = recorded.about
    size = about["model_scale"].rpartition("-")[2]
    sampling = Sampling(about["steps"], about["shift"], Guidance(5.0, 4.0), teacache=about["threshold"], size=size)
    cache = Listening(sampling.start_cache())
    x = recorded["in.x"]
    ours = denoise(recorded_velocity(recorded, cache), x, x[:, :0], sampling)
    assert [int(computed) for _, computed in cache.computed] == recorded["out.computed"].tolist() == about["computed"]
    assert distance(ours, recorded["out.latent_final"]) < STREAM_TOLERANCE


@golden
@torch.no_grad()
def test_each_role_decides_as_with_three_passes_when_there_are_fewer() -> None:
    recorded = read("teacache")
    published = [bool(computed) for computed in recorded.about["computed"][::3]]
    x = recorded["in.x"]
    for guidance in (Guidance(1.0, 4.0), Guidance(5.0, 1.0), Guidance(1.0, 1.0)):
        sampling = Sampling(recorded.about["steps"], recorded.about["shift"], guidance, recorded.about["threshold"])
        for _ in range(2):  # chunks
            cache = Listening(sampling.start_cache())
            denoise(recorded_velocity(recorded, cache), x, x[:, :0], sampling)
            for role in guidance.passes:
                assert [computed for which, computed in cache.computed if which == role] == published


def cached_steps(roles: tuple[Pass, ...], steps: int = 30, threshold: float = 0.3) -> Iterator[dict[Pass, int]]:
    """Per step: which step's residual each role adds. The signal moves ever faster."""
    cache = TeaCache(threshold, (1.0, 0.0), warm_up=4)
    for step in range(steps):
        signal = torch.full((1, 6, 8), 1.02 ** (step * step / 8))
        used = {}
        for role in roles:
            residual = cache.of(role).reuse(signal)
            if residual is None:
                cache.of(role).keep(residual := torch.tensor([step * 10.0 + roles.index(role)]))
            used[role] = int(residual)
        yield used


def test_a_role_reuses_its_own_residual_whatever_the_others_do() -> None:
    three, two = list(cached_steps((FULL, TEXTLESS, BARE))), list(cached_steps((FULL, SILENT)))
    made = [used[FULL] // 10 for used in three]
    assert made == [used[FULL] // 10 for used in two] == [used[SILENT] // 10 for used in two]
    assert made[:4] == [0, 1, 2, 3]
    assert 4 < len(set(made)) < 30
    assert all(used[role] % 10 == place for used in three for place, role in enumerate((FULL, TEXTLESS, BARE)))


def test_relative_changes_add_up_until_the_threshold() -> None:
    cache = TeaCache(0.25, (1.0, 0.0), warm_up=1).of(FULL)
    computed = []
    for step in range(10):  # each signal is 1.1 times the one before it
        computed.append(cache.reuse(torch.tensor([1.1**step, -(1.1**step)])) is None)
        cache.keep(torch.tensor(step))
    assert computed == [True, False, False, True, False, False, True, False, False, True]


def test_a_polynomial_begins_with_its_highest_degree() -> None:
    assert polynomial_at((1.0, 2.0, 3.0), 2.0) == 11
    assert all(len(coefficients) == 5 for coefficients in POLYNOMIALS.values())
    assert POLYNOMIALS.keys() == SHIFTS.keys()


def test_the_faster_the_signal_moves_the_more_is_computed() -> None:
    computed = [used[FULL] // 10 == step for step, used in enumerate(cached_steps((FULL,)))]
    assert sum(computed[4:17]) < sum(computed[17:])
    assert [used[FULL] // 10 for used in cached_steps((FULL,), threshold=0.0)] == list(range(30))


# LoRA


def tensors_of(recorded: Golden) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in recorded.under("in.base.").items()}


@golden
def test_a_lora_merges_as_published() -> None:
    recorded = read("lora_merge")
    state = tensors_of(recorded)
    changed = merge_lora(state, recorded.under("in.lora."), recorded.about["scale"], use_alpha=False)
    assert sorted(changed) == sorted(recorded.about["changed"])
    for name in changed:
        assert distance(state[name], recorded[f"out.{name}"]) < TOLERANCE
        assert distance(state[name], recorded[f"in.base.{name}"]) > TOLERANCE


@golden
def test_a_lora_follows_its_own_alpha() -> None:
    recorded = read("lora_merge")
    lora, scale, state = recorded.under("in.lora."), recorded.about["scale"], tensors_of(recorded)
    merge_lora(state, lora, scale)
    modules = [name.removesuffix(".alpha") for name in lora if name.endswith(".alpha")]
    assert modules
    for module in modules:
        target = module.removeprefix("diffusion_model.") + ".weight"
        up, down = lora[f"{module}.lora_up.weight"], lora[f"{module}.lora_down.weight"]
        rate = float(lora[f"{module}.alpha"]) / len(down)
        assert distance(state[target], recorded[f"in.base.{target}"] + scale * rate * up @ down) < TOLERANCE


TARGETS = ("blocks.0.self_attn.q", "blocks.1.cross_attn.k_img", "blocks.2.ffn.2", "time_projection.1", "head.head",
           "patch_embedding")


@cache
def pristine() -> dict[str, Tensor]:
    """The tiny transformer's tensors."""
    return tiny_transformer().state_dict()


def factors(module: str, rank: int = 4) -> tuple[Tensor, Tensor]:
    """Up (out, rank) and down (rank, in) for a module of the tiny transformer."""
    weight, seed = pristine()[f"{module}.weight"], 2 * TARGETS.index(module)
    return random(len(weight), rank, seed=seed) / 10, random(rank, weight[0].numel(), seed=seed + 1) / 10


@pytest.mark.parametrize("prefix", ["", "diffusion_model.", "transformer.", "base_model.model.transformer."])
@pytest.mark.parametrize("ends", [("lora_up", "lora_down"), ("lora_B", "lora_A"), ("lora_B.default", "lora_A.default")])
@pytest.mark.parametrize("names", ["original", "diffusers"])
def test_every_naming_is_the_same_lora(prefix: str, ends: tuple[str, str], names: str) -> None:
    lora, expected = {}, dict(pristine())
    for module in TARGETS:
        up, down = factors(module)
        named = original_to_diffusers(f"{module}.weight").removesuffix(".weight") if names == "diffusers" else module
        lora |= {f"{prefix}{named}.{ends[0]}.weight": up, f"{prefix}{named}.{ends[1]}.weight": down}
        lora[f"{prefix}{named}.alpha"] = torch.tensor(2.0)
        weight = expected[f"{module}.weight"]
        expected[f"{module}.weight"] = weight + (0.7 * 2 / 4 * up @ down).reshape(weight.shape)
    state = {name: value.clone() for name, value in pristine().items()}
    assert merge_lora(state, lora, 0.7) == tuple(sorted(f"{module}.weight" for module in TARGETS))
    assert max(distance(state[name], expected[name]) for name in expected) < TOLERANCE


def test_factors_of_a_convolution_may_be_convolutions_too() -> None:
    flat, shaped = tiny_transformer(), tiny_transformer()
    up, down = factors("patch_embedding")
    kernel = flat.state_dict()["patch_embedding.weight"].shape[1:]
    merge_lora(flat, {"patch_embedding.lora_up.weight": up, "patch_embedding.lora_down.weight": down}, 1.0)
    merge_lora(shaped, {"patch_embedding.lora_up.weight": up[..., None, None, None],
                        "patch_embedding.lora_down.weight": down.reshape(-1, *kernel)}, 1.0)
    assert torch.equal(flat.patch_embedding.weight, shaped.patch_embedding.weight)
    assert distance(flat.patch_embedding.weight, pristine()["patch_embedding.weight"]) > 0.01


@pytest.mark.parametrize(("alpha", "use_alpha", "rate"), [(8.0, True, 2.0), (8.0, False, 1.0), (None, True, 1.0)])
def test_alpha_counts_unless_it_is_left_out(alpha: float | None, use_alpha: bool, rate: float) -> None:
    up, down = random(8, 4), random(4, 8, seed=1)
    lora, state = {"a.lora_B.weight": up, "a.lora_A.weight": down}, {"a.weight": torch.zeros(8, 8)}
    merge_lora(state, lora if alpha is None else lora | {"a.alpha": torch.tensor(alpha)}, 0.5, use_alpha)
    assert distance(state["a.weight"], 0.5 * rate * up @ down) < TOLERANCE


def test_bf16_weights_are_rounded_once() -> None:
    exact = random(32, 32)
    up, down = random(32, 4, seed=1) / 9, random(4, 32, seed=2) / 9
    state = {"a.weight": exact.bfloat16()}
    merge_lora(state, {"a.lora_up.weight": up, "a.lora_down.weight": down, "a.diff": random(32, 32, seed=3)}, 0.0)
    assert torch.equal(state["a.weight"], exact.bfloat16())
    merge_lora(state, {"a.lora_up.weight": up.bfloat16(), "a.lora_down.weight": down.bfloat16()}, 0.3)
    whole = exact.bfloat16().float() + 0.3 * (up.bfloat16().float() @ down.bfloat16().float())
    assert torch.equal(state["a.weight"], whole.bfloat16())


def test_differences_reach_weight_bias_and_modulation() -> None:
    network, before = tiny_transformer(), pristine()
    names = {"blocks.0.norm3.diff": "blocks.0.norm3.weight", "blocks.0.norm3.diff_b": "blocks.0.norm3.bias",
             "blocks.1.diff_m": "blocks.1.modulation"}
    lora = {f"diffusion_model.{name}": torch.ones_like(before[target]) for name, target in names.items()}
    assert merge_lora(network, lora, 0.5) == tuple(sorted(names.values()))
    for target in names.values():
        assert torch.allclose(network.state_dict()[target], before[target] + 0.5)


UP, DOWN = torch.ones(32, 4), torch.ones(4, 32)
GOOD = {"blocks.0.self_attn.q.lora_up.weight": UP, "blocks.0.self_attn.q.lora_down.weight": DOWN}


@pytest.mark.parametrize(("lora", "named"), [
    ({}, "nothing"),
    ({"blocks.7.ffn.0.lora_up.weight": UP, "blocks.7.ffn.0.lora_down.weight": DOWN}, "blocks.7.ffn.0"),
    ({"blocks.0.self_attn.k.lora_up.weight": UP, "blocks.0.self_attn.k.lora_down.weight": DOWN[:, :9]}, "self_attn.k"),
    ({"blocks.0.self_attn.k.lora_up.weight": UP, "blocks.0.self_attn.k.lora_down.weight": DOWN[:3]}, "self_attn.k"),
    ({"blocks.0.self_attn.k.lora_up.weight": UP}, "self_attn.k"),
    ({"blocks.0.self_attn.k.lora_down.weight": DOWN}, "self_attn.k"),
    ({"blocks.0.self_attn.k.diff_b": torch.ones(31)}, "self_attn.k.bias"),
    ({"blocks.0.self_attn.k.diff_b": torch.full((32,), math.nan)}, "not finite"),
    ({"blocks.0.self_attn.k.dora_scale": torch.ones(32)}, "dora_scale"),
    ({"lora_te_text_model.weight": torch.ones(3)}, "lora_te_text_model"),
])
def test_a_lora_for_another_network_is_refused_whole(lora: dict[str, Tensor], named: str) -> None:
    network = tiny_transformer()
    with pytest.raises(BadWeightsError, match=named):
        merge_lora(network, (GOOD if lora else {}) | lora, 1.0)
    assert all(torch.equal(value, pristine()[name]) for name, value in network.state_dict().items())


def test_a_lora_is_not_merged_into_rounded_or_absent_weights() -> None:
    quantised = tiny_transformer()
    quantise(quantised)
    for network in (quantised, tiny_transformer().to("meta")):
        with pytest.raises(BadWeightsError, match="before quantising"):
            merge_lora(network, GOOD, 1.0)
    with pytest.raises(BadInputError, match="strength"):
        merge_lora(tiny_transformer(), GOOD, math.nan)


# fp8


def decibels(ours: Tensor, exact: Tensor) -> float:
    """Signal-to-noise ratio."""
    return -20 * math.log10(distance(ours.float(), exact))


@torch.no_grad()
def test_an_fp8_layer_is_near_the_exact_one() -> None:
    exact, gain = nn.Linear(256, 384), torch.logspace(-4, 2, 384)
    exact.weight.copy_(random(384, 256) * gain[:, None])
    exact.bias.zero_()
    layer, x = Fp8Linear.of(exact), random(2, 50, 256, seed=2)
    for ours in (layer(x), layer(x.bfloat16())):
        assert decibels(ours / gain, exact(x) / gain) > 30  # every channel counts, the weak ones as well
    exact.bias.copy_(random(384, seed=1))
    assert torch.equal(layer(torch.zeros(3, 256)), exact.bias.expand(3, 384))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_largest_of_a_row_fills_the_range_and_does_not_leave_it(dtype: torch.dtype) -> None:
    matrix = torch.diag(torch.linspace(0.5, 2, 2048)).to(dtype)
    rows, scale = to_fp8(matrix)
    assert (rows.float().amax(dim=1) == LARGEST).all()
    assert distance(rows.float() * scale, matrix) < 2**-7


@torch.no_grad()
def test_fp8_products_are_near_the_exact_ones() -> None:
    exact, rows = nn.Linear(256, 384), torch.logspace(-3, 3, 50)[:, None]
    exact.bias.zero_()
    layer, x = Fp8Linear.of(exact), random(2, 50, 256, seed=2) * rows
    ours = layer._multiply_fp8(x.bfloat16())  # what CUDA runs from capability 8.9
    assert ours.shape == (2, 50, 384)
    assert decibels(ours / rows, exact(x) / rows) > 27
    assert torch.isfinite(layer._multiply_fp8(torch.zeros(3, 256, dtype=torch.bfloat16))).all()


WIDE = TransformerConfig(dim=128, ffn_dim=256, freq_dim=32, num_heads=2, num_layers=2, text_dim=16, clip_dim=16,
                         audio_layers=3, audio_channels=16, audio_hidden=16, audio_dim=16, audio_tokens=4)


@torch.no_grad()
def run(network: Transformer, config: TransformerConfig) -> Tensor:
    """One forward of seeded input."""
    windows = random(1, 1, 5, config.audio_window, config.audio_layers, config.audio_channels, seed=3)
    condition = Condition(network.embed_text([random(7, config.text_dim)]),
                          network.embed_image(random(1, 257, config.clip_dim, seed=1)), network.embed_audio(windows))
    return network(random(1, 16, 2, 4, 4, seed=4), random(1, 20, 2, 4, 4, seed=5), torch.tensor([700.0]), condition)


def test_only_the_linear_layers_of_the_blocks_are_rounded() -> None:
    network, before = tiny_transformer(config=WIDE), tiny_transformer(config=WIDE).state_dict()
    quantise(network)
    after = network.state_dict()
    rounded = {name for name, value in after.items() if value.dtype == FP8}
    assert rounded == {name for name, value in before.items() if name.startswith("blocks.") and value.ndim == 2}
    assert all(torch.equal(after[name], before[name]) for name in before.keys() - rounded)


def test_fp8_blocks_take_half_the_memory_of_bf16() -> None:
    network = tiny_transformer(config=WIDE).bfloat16()
    sizes = []
    for change in (lambda network: None, quantise):
        change(network)
        sizes.append(sum(value.nbytes for value in network.blocks.state_dict().values()))
    assert 0.5 < sizes[1] / sizes[0] < 0.56


def test_a_transformer_of_fp8_blocks_says_nearly_the_same() -> None:
    network = tiny_transformer(config=WIDE)
    exact = run(network, WIDE)
    quantise(network)
    assert 25 < decibels(run(network, WIDE), exact) < 60


def test_fp8_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    saved, loaded = tiny_transformer(1), tiny_transformer(2)
    quantise(saved)
    quantise(loaded)
    save_file(saved.state_dict(), tmp_path / "fp8.safetensors")
    loaded.load_state_dict(load_file(tmp_path / "fp8.safetensors"), strict=True)
    assert torch.equal(run(loaded, TINY), run(saved, TINY))
    empty = Fp8Linear(32, 32, dtype=torch.float32)
    empty.load_state_dict(saved.blocks[0].self_attn.q.state_dict())
    assert torch.equal(empty(UP.T), saved.blocks[0].self_attn.q(UP.T))
