"""The transformer: the published numbers, what it computes once, and what must not depend on what."""

from collections import Counter

import pytest
import torch

import infinitetalk.attention
from infinitetalk.attention import MODULES, attend, available, choose
from infinitetalk.audio_tokens import AudioProjection, regroup
from infinitetalk.blocks import AudioCrossAttention, modulate
from infinitetalk.conditions import Condition
from infinitetalk.config import TransformerConfig
from infinitetalk.errors import BadInputError
from infinitetalk.rope import Rope3d, rotate_1d
from infinitetalk.speakers import key_positions, label_positions, reference_map
from infinitetalk.transformer import Transformer, sinusoid
from tests.golden import distance, golden, read

TINY = TransformerConfig(dim=48, ffn_dim=96, freq_dim=16, num_heads=2, num_layers=2, text_len=8, text_dim=12,
                         clip_tokens=5, clip_dim=10, audio_layers=2, audio_channels=4, audio_hidden=16, audio_dim=12,
                         audio_tokens=3)
FRAMES, ROWS, COLUMNS = 3, 4, 6
"""Of the latent."""


def network(config=TINY, seed=0, **options):
    """Random weights, biases and norms too, so that none of them is 0 or 1."""
    torch.manual_seed(seed)
    made = Transformer(config, **options).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sound(persons=1, seed=0, config=TINY, frames=4 * FRAMES - 3):
    return drawn(1, persons, frames, config.audio_window, config.audio_layers, config.audio_channels, seed=seed)


def told(net, audio, seed=0, words=5):
    """A condition with that audio."""
    config = net.config
    return Condition(net.embed_text([drawn(words, config.text_dim, seed=seed)]),
                     net.embed_image(drawn(1, config.clip_tokens, config.clip_dim, seed=seed)),
                     net.embed_audio(audio), persons=audio.shape[1])


def latents(seed=0, batch=1):
    return drawn(batch, 16, FRAMES, ROWS, COLUMNS, seed=seed), drawn(batch, 20, FRAMES, ROWS, COLUMNS, seed=seed + 1)


def halves():
    """Person 1 left, person 2 right, background between: (3, h, w)."""
    masks = torch.zeros(3, ROWS, COLUMNS)
    masks[0, :, :2], masks[1, :, 4:], masks[2, :, 2:4] = 1, 1, 1
    return masks


T = torch.tensor([625.0])


# --- the published numbers


def recorded(name, dtype=torch.float32):
    """A recorded transformer and its condition."""
    vectors = read(name)
    net = Transformer(vectors.transformer).to(dtype)
    net.load_state_dict(vectors.weights())
    audio = vectors["in.audio"][None]
    condition = Condition(net.embed_text([vectors["in.context"]]), net.embed_image(vectors["in.clip_fea"]),
                          net.embed_audio(audio), persons=audio.shape[1])
    return vectors, net, condition


def run(vectors, net, condition):
    return net(vectors["in.x"][None], vectors["in.y"], vectors["in.t"], condition, vectors["in.ref_target_masks"])


@golden
@pytest.mark.parametrize("name", ["dit_single", "dit_two_person"])
@torch.no_grad()
def test_forward_and_every_intermediate_are_the_published_ones(name):
    vectors, net, _ = recorded(name)
    seen, persons = {}, vectors.about["humans"]
    for path, module in net.named_modules():
        module.register_forward_hook(lambda _, inputs, out, path=path: seen.update({path: (inputs, out)}))
    condition = Condition(net.embed_text([vectors["in.context"]]), net.embed_image(vectors["in.clip_fea"]),
                          net.embed_audio(vectors["in.audio"][None]), persons=persons)
    out = run(vectors, net, condition)
    masks = (vectors["in.ref_target_masks"][:, ::2, ::2] > 0).flatten(1)
    ours = {path: out for path, (_, out) in seen.items()}
    ours["patch_embedding"] = ours["patch_embedding"].mT.reshape(vectors["mid.patch_embedding"].shape)
    ours["audio_proj"] = ours["audio_proj"][0].unflatten(1, (persons, -1)).transpose(0, 1)
    for layer in range(vectors.transformer.num_layers):
        path = f"blocks.{layer}.self_attn"
        ours[path + ".0"], attention = ours[path]
        q, k = net.get_submodule(path).queries_keys(*seen[path][0][:2])
        ours[path + ".1"] = reference_map(q[0], k[0], masks)
        assert attention is None if persons == 1 else torch.equal(attention[0], ours[path + ".1"])
    assert distance(out, vectors["out"]) <= 1e-5
    assert {path: distance(ours[path], theirs) for path, theirs in vectors.under("mid.").items()
            if distance(ours[path], theirs) > 1e-5} == {}


@golden
@pytest.mark.parametrize("name", ["dit_single", "dit_two_person", "dit_bf16"])
def test_names_and_shapes_are_the_published_ones(name):
    vectors = read(name)
    ours = {name: list(value.shape) for name, value in Transformer(vectors.transformer).state_dict().items()}
    assert ours == vectors.about["weights"]


@golden
@torch.no_grad()
def test_half_precision_stays_within_its_recorded_bound():
    vectors, net, condition = recorded("dit_bf16")
    bound = vectors.about["rel_err_bf16_vs_fp32"]
    assert distance(run(vectors, net, condition), vectors["out.fp32"]) <= 1e-5
    _, net, condition = recorded("dit_bf16", torch.bfloat16)
    ours = run(vectors, net, condition)
    assert 1e-4 < distance(ours, vectors["out.fp32"]) <= bound
    # In the recording rounding gave one token, which resembles two classes alike, to the other person: its patches are
    # apart, so the middle of all places is compared.
    theirs = vectors["out.bf16"]
    apart = (ours - theirs).norm(dim=1).flatten().median() / theirs.norm(dim=1).flatten().median()
    assert apart <= bound


@golden
def test_rotary_positions_are_the_published_ones():
    vectors = read("rope")
    for name, case in vectors.about["cases"].items():
        x = vectors[f"in.x.{name}"]
        rope = Rope3d(x.shape[-1])
        assert [size // 2 for size in rope.sizes] == case["pairs_per_axis"]
        assert distance(rope.apply(x, rope.tables(tuple(case["grid"]), "cpu")), vectors[f"out.x.{name}"]) <= 1e-5
        line = rotate_1d(vectors[f"in.rope1d.x.{name}"], vectors[f"in.rope1d.pos.{name}"])
        assert distance(line, vectors[f"out.rope1d.{name}"]) <= 1e-5
        length, first = len(vectors[f"freqs_cos.{name}"]), 0
        for axis, pairs in enumerate(case["pairs_per_axis"]):
            grid = tuple(length if axis == other else 1 for other in range(3))
            tables, share = rope.tables(grid, "cpu")[:, 0], slice(first, first + pairs)
            assert distance(tables[:, share, 0], vectors[f"freqs_cos.{name}"][:, share]) <= 1e-5
            assert distance(tables[:, share, 1], vectors[f"freqs_sin.{name}"][:, share]) <= 1e-5
            first += pairs


@golden
def test_audio_tokens_are_the_published_ones():
    vectors = read("audio_proj")
    sizes = vectors.about["config"]
    config = TransformerConfig(audio_window=sizes["window"], audio_layers=sizes["blocks"],
                               audio_channels=sizes["channels"], audio_hidden=sizes["intermediate"],
                               audio_dim=sizes["out"], audio_tokens=sizes["tokens"])
    projection = AudioProjection(config)
    projection.load_state_dict(vectors.weights())
    windows = vectors["in.audio"][:, None]
    first, later = regroup(windows)
    assert torch.equal(first, vectors["mid.first"].flatten(2)[:, None])
    assert torch.equal(later, vectors["mid.latter"].flatten(2)[:, None])
    assert distance(projection(windows), vectors["out"]) <= 1e-5


def test_audio_is_heard_frame_by_frame_and_person_by_person():
    windows = torch.arange(9)[:, None] * 10 + torch.arange(5)  # frame and slot: (F, 5)
    first, later = regroup(windows[None, None, :, :, None, None])
    assert first.flatten().tolist() == [0, 1, 2, 3, 4]
    assert later[0, 0].tolist() == [[10, 11, 12, 22, 32, 42, 43, 44], [50, 51, 52, 62, 72, 82, 83, 84]]
    net, two = network(), sound(persons=2)
    alone = [net.embed_audio(two[:, person : person + 1]).states for person in range(2)]
    assert alone[0].shape == (1, FRAMES, TINY.audio_tokens, TINY.audio_dim)
    assert torch.allclose(net.embed_audio(two).states, torch.cat(alone, dim=2), atol=1e-6)


# --- against the library that has the base network, and the size of the public one


def library_name(name):
    """Our name of a tensor of the base network → diffusers' name."""
    tables = [("time_embedding.", "condition_embedder.time_embedder.", {"0": "linear_1", "2": "linear_2"}),
              ("time_projection.1", "condition_embedder.time_proj", {}),
              ("text_embedding.", "condition_embedder.text_embedder.", {"0": "linear_1", "2": "linear_2"}),
              ("img_emb.proj.", "condition_embedder.image_embedder.",
               {"0": "norm1", "1": "ff.net.0.proj", "3": "ff.net.2", "4": "norm2"}),
              ("head.head", "proj_out", {}), ("head.modulation", "scale_shift_table", {})]
    for ours, theirs, parts in tables:
        if name.startswith(ours):
            rest = name.removeprefix(ours)
            part = rest.partition(".")[0]
            return theirs + (parts[part] + rest.removeprefix(part) if part in parts else rest)
    for ours, theirs in {"self_attn": "attn1", "cross_attn": "attn2", "norm3": "norm2", ".k_img": ".add_k_proj",
                         ".v_img": ".add_v_proj", "norm_k_img": "norm_added_k", ".q.": ".to_q.", ".k.": ".to_k.",
                         ".v.": ".to_v.", ".o.": ".to_out.0.", "modulation": "scale_shift_table",
                         "ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2"}.items():
        name = name.replace(ours, theirs)
    return name


@torch.no_grad()
def test_without_what_audio_adds_it_is_the_library_s_image_to_video_transformer():
    from diffusers import WanTransformer3DModel

    config = TransformerConfig(dim=48, ffn_dim=64, freq_dim=32, num_heads=2, num_layers=2, text_dim=12, clip_dim=10,
                               audio_layers=2, audio_channels=4, audio_hidden=16, audio_dim=12, audio_tokens=3)
    ours = network(config)
    theirs = WanTransformer3DModel(
        num_attention_heads=config.num_heads, attention_head_dim=config.head_dim, in_channels=config.in_dim,
        out_channels=config.out_dim, text_dim=config.text_dim, freq_dim=config.freq_dim, ffn_dim=config.ffn_dim,
        num_layers=config.num_layers, image_dim=config.clip_dim, added_kv_proj_dim=config.dim).eval()
    for block in ours.blocks:
        block.audio_cross_attn.proj.weight.zero_()
        block.audio_cross_attn.proj.bias.zero_()
    base = {library_name(name): value for name, value in ours.state_dict().items() if "audio" not in name
            and "norm_x" not in name}
    theirs.load_state_dict(base)
    (x, y), text = latents(), drawn(7, config.text_dim)
    image = drawn(1, config.clip_tokens, config.clip_dim)
    condition = Condition(ours.embed_text([text]), ours.embed_image(image), ours.embed_audio(sound(config=config)))
    rows = torch.nn.functional.pad(text, (0, 0, 0, config.text_len - len(text)))[None]
    expected = theirs(torch.cat([x, y], 1), T, rows, image, return_dict=False)[0]
    assert distance(ours(x, y, T, condition), expected) <= 1e-5


def test_the_public_weights_have_18_882_046_784_parameters_in_1633_tensors():
    with torch.device("meta"):
        tensors = Transformer(TransformerConfig()).state_dict()
    audio = [value.numel() for name, value in tensors.items() if "audio" in name or "norm_x" in name]
    assert (len(tensors), sum(value.numel() for value in tensors.values())) == (1633, 18_882_046_784)
    assert (len(audio), sum(audio)) == (330, 2_487_168_000)


# --- what is computed once


@torch.no_grad()
def test_keys_and_values_of_what_is_told_are_computed_once():
    net = network()
    heard, unheard = told(net, sound()), told(net, torch.zeros_like(sound()), seed=1)
    silent = Condition(heard.text, heard.image, unheard.audio)
    calls = Counter()
    for block in net.blocks:
        for name in ("cross_attn.k", "cross_attn.v", "cross_attn.k_img", "cross_attn.v_img",
                     "audio_cross_attn.kv_linear"):
            block.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.update([name]))
    first = [net(*latents(), T, condition) for condition in (heard, silent, unheard)]
    again = [net(*latents(), T, condition) for condition in (heard, silent, unheard)]
    assert set(calls.values()) == {2 * TINY.num_layers}  # two texts, two images, two sounds in six forwards
    assert all(map(torch.equal, first, again))
    assert distance(first[0], first[1]) > 1e-3


def test_while_gradients_flow_keys_and_values_are_not_kept():
    net = network()
    with torch.no_grad():
        condition = told(net, sound())
    before = net(*latents(), T, condition)
    before.mean().backward()
    with torch.no_grad():
        net.blocks[0].audio_cross_attn.kv_linear.weight.mul_(3)
    after = net(*latents(), T, condition)
    after.mean().backward()  # a kept graph would have been walked back already
    assert distance(after, before.detach()) > 1e-4


@torch.no_grad()
def test_who_is_where_is_asked_for_two_persons_alone():
    net, maps = network(), []
    for block in net.blocks:
        block.self_attn.register_forward_hook(lambda _, __, out: maps.append(out[1]))
    net(*latents(), T, told(net, sound()), halves())
    net(*latents(), T, told(net, sound(persons=2)), halves())
    tokens = FRAMES * ROWS * COLUMNS // 4
    assert [None if one is None else tuple(one.shape) for one in maps] == [None, None, (1, 3, tokens), (1, 3, tokens)]


@torch.no_grad()
def test_a_cache_replaces_the_blocks_by_what_they_added():
    class Keeps:
        signals, residual = [], None

        def reuse(self, signal):
            self.signals.append(signal)
            return self.residual

        def keep(self, residual):
            self.residual = residual

    net, cache, ran = network(), Keeps(), []
    net.blocks[0].register_forward_hook(lambda *_: ran.append(1))
    condition = told(net, sound())
    full = net(*latents(), T, condition, cache=cache)
    assert torch.allclose(net(*latents(), T, condition, cache=cache), full, atol=1e-5)
    assert len(ran) == 1
    assert cache.signals[0].shape == (1, 6, TINY.dim)
    assert torch.equal(cache.signals[0], net.embed_time(T)[1])


# --- what must not depend on what


@pytest.mark.parametrize("persons", [1, 2])
@torch.no_grad()
def test_a_batch_is_each_of_its_videos_alone(persons):
    net, masks = network(), halves()
    text, image = [drawn(n, TINY.text_dim, seed=n) for n in (3, 8)], drawn(2, TINY.clip_tokens, TINY.clip_dim)
    audio = torch.cat([sound(persons, seed) for seed in (1, 2)])
    (x, y), t = latents(batch=2), torch.tensor([900.0, 30.0])
    both = net(x, y, t, Condition(net.embed_text(text), net.embed_image(image), net.embed_audio(audio), persons), masks)
    for i in range(2):
        one = slice(i, i + 1)
        alone = Condition(net.embed_text(text[one]), net.embed_image(image[one]), net.embed_audio(audio[one]), persons)
        assert distance(both[one], net(x[one], y[one], t[one], alone, masks)) <= 1e-6


@pytest.mark.parametrize("persons", [1, 2])
@torch.no_grad()
def test_audio_reaches_only_the_latent_frame_beside_it_until_frames_attend_to_each_other(persons):
    net = network(TransformerConfig(**{**vars(TINY), "num_layers": 1}))
    audio = sound(persons)
    other = audio.clone()
    other[:, -1, 5:9] += 1  # pixel frames of latent frame 2
    ours, changed = (net(*latents(), T, told(net, one), halves()) for one in (audio, other))
    moved = (ours - changed).abs().amax(dim=(0, 1, 3, 4))
    assert moved[2] > 1e-3
    assert torch.equal(moved[:2], torch.zeros(2))


def bound_to_labels(gain):
    """An audio attention that hears nothing but labels: keys and queries are all ones, values are +1 and -1."""
    config = TransformerConfig(dim=128, num_heads=1, audio_dim=1)
    attention = AudioCrossAttention(config, "sdpa")
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.zero_()
        attention.q_linear.bias[0::2] = gain
        attention.kv_linear.bias[0:128:2] = 1
        attention.kv_linear.weight[128:] = 1
        attention.proj.weight.copy_(torch.eye(128))
    return attention


@torch.no_grad()
def test_a_token_hears_the_person_it_is_labelled_with():
    attention = bound_to_labels(gain=4.0)
    audio = attention.labelled_audio(torch.tensor([1.0] * 4 + [-1.0] * 4).view(1, 1, 8, 1))  # person 1, person 2
    positions = torch.arange(0, 24.5, 0.5)[None]
    heard = attention(torch.zeros(1, positions.shape[1], 128), audio, positions)[0, :, 0]
    assert heard[:9].min() > 0.9  # 0..4: person 1's range
    assert heard[40:].max() < -0.9  # 20..24: person 2's range
    assert heard[24].abs() < 1e-5  # 12: the background hears both alike
    assert torch.allclose(heard, -heard.flip(0), atol=1e-5)  # neither person is favoured


@torch.no_grad()
def test_a_person_hears_the_other_less_than_himself():
    attention = bound_to_labels(gain=4.0)
    calm = torch.zeros(1, 1, 8, 1)

    def answer(person, position):
        states = calm.clone()
        states[:, :, 4 * person : 4 * person + 4] = 1
        return attention(torch.zeros(1, 1, 128), attention.labelled_audio(states), torch.tensor([[position]]))[0, 0, 0]

    for position in (0.0, 2.0, 4.0):
        assert answer(1, position) < 0.05 < 0.95 < answer(0, position)
        assert answer(0, position + 20) < 0.05 < 0.95 < answer(1, position + 20)


def test_swapping_the_masks_swaps_the_labels():
    torch.manual_seed(0)
    q, k = torch.randn(60, 2, 24), torch.randn(60, 2, 24)
    masks = torch.zeros(3, 20, dtype=torch.bool)
    masks[0, :7], masks[1, 7:12], masks[2, 12:] = True, True, True
    ours, swapped = reference_map(q, k, masks), reference_map(q, k, masks[[1, 0, 2]])
    assert torch.allclose(swapped, ours[[1, 0, 2]], atol=1e-7)
    labels, other, who = label_positions(ours), label_positions(swapped), ours.argmax(0)
    assert set(who.tolist()) == {0, 1, 2}
    assert torch.allclose(other, labels + torch.tensor([20.0, -20.0, 0.0])[who], atol=1e-4)
    assert labels[who == 2].unique().tolist() == [12]
    for person, start in enumerate((0, 20)):
        span = labels[who == person] - start
        assert 0 <= span.min() < 3 < span.max() <= 4 + 1e-6  # the most attending token is at the end of its range
    assert key_positions(6, torch.device("cpu")).tolist() == [2, 2, 2, 22, 22, 22]


def test_the_map_is_the_mean_attention_to_each_class_in_the_first_frame():
    torch.manual_seed(0)
    q, k = torch.randn(60, 2, 24, dtype=torch.float64), torch.randn(60, 2, 24, dtype=torch.float64)
    masks = torch.zeros(3, 20, dtype=torch.bool)
    masks[0, :7], masks[2, 7:] = True, True
    shares = torch.einsum("nad,sad->ans", q, k[:20]).div(24**0.5).softmax(-1)
    expected = torch.stack([shares[..., :7].mean(-1).mean(0), torch.zeros(60), shares[..., 7:].mean(-1).mean(0)])
    assert distance(reference_map(q, k, masks), expected) <= 1e-6  # and a person nobody sees is nobody's


@torch.no_grad()
def test_scores_depend_on_how_far_apart_tokens_are_alone():
    rope, grid = Rope3d(32), (3, 4, 5)
    q, k = drawn(2, 1, 1, 1, 32).unbind(0)
    everywhere = (1, 60, 1, 32)
    tables = rope.tables(grid, "cpu")
    scores = torch.einsum("bnad,bmad->nm", rope.apply(q.expand(everywhere), tables),
                          rope.apply(k.expand(everywhere), tables)).view(*grid, *grid)
    for axis in range(3):
        moved = scores.movedim((axis, axis + 3), (0, 1))
        assert torch.allclose(moved[1:, 1:], moved[:-1, :-1], atol=1e-5)
    assert scores[0, 0, 0].flatten().unique().numel() == 60  # every place is told from every other


def test_tables_of_a_grid_are_computed_once():
    rope = Rope3d(24)
    assert rope.tables((2, 2, 3), "cpu") is rope.tables((2, 2, 3), "cpu")
    assert len(rope.tables((1, 2, 3), "cpu")) == 6


# --- number types, gradients, compilers


@torch.no_grad()
def test_time_modulation_and_head_compute_in_float32_from_bfloat16_parameters():
    half = network().to(torch.bfloat16)
    full = Transformer(TINY)
    full.load_state_dict(half.state_dict())  # the same values in float32
    assert all(map(torch.equal, half.embed_time(T), full.embed_time(T)))
    assert torch.equal(sinusoid(T, 16), sinusoid(T.double(), 16))
    kinds = {}
    for path, module in half.named_modules():
        module.register_forward_hook(lambda _, inputs, out, path=path: kinds.update({path: out}))
    out = half(*latents(), T, told(half, sound()))
    assert {kinds["time_projection"].dtype, kinds["head"].dtype, out.dtype} == {torch.float32}
    assert {kinds["blocks.0"].dtype, kinds["blocks.1.ffn"].dtype, kinds["text_embedding"].dtype} == {torch.bfloat16}
    time, x = half.embed_time(T)[0], kinds["blocks.1"]
    assert torch.equal(half.head(x, time), full.head(x.float(), time))
    assert modulate(x, time[:, None], time[:, None], 1e-6).dtype == torch.float32


@torch.no_grad()
def test_modulation_is_added_in_float32():
    half, seen = network().to(torch.bfloat16), []
    block = half.blocks[0]
    block.modulation.fill_(1)
    block.self_attn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    shift, scale = -0.999, -2.0  # 1 + shift would vanish in bfloat16; 1 + (1 + scale) is 0
    time = torch.tensor([shift, scale, 0, 0, 0, 0]).view(1, 6, 1).expand(1, 6, TINY.dim)
    tables = half.rope.tables((FRAMES, ROWS // 2, COLUMNS // 2), "cpu")
    block(drawn(1, len(tables), TINY.dim).bfloat16(), time, tables, 0, told(half, sound()), None)
    assert torch.allclose(seen[0].float(), torch.tensor(0.001), rtol=1e-2)


def test_gradients_reach_every_parameter():
    net = network()
    net(*latents(), T, told(net, sound(persons=2)), halves()).square().mean().backward()
    assert [name for name, one in net.named_parameters()
            if one.grad is None or not one.grad.any() or not one.grad.isfinite().all()] == []


@pytest.mark.parametrize("persons", [1, 2])
@torch.no_grad()
def test_blocks_compile_whole_and_once(persons):
    graphs = []
    net = network()
    condition, masks = told(net, sound(persons)), halves()
    expected = net(*latents(), T, condition, masks)
    torch.compiler.reset()
    net.compile_blocks(fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    assert distance(net(*latents(), T, condition, masks), expected) <= 1e-6
    assert len(graphs) == 1
    made = [node.meta.get("example_value") for node in graphs[0].graph.nodes]
    assert not [one for one in made if torch.is_tensor(one) and one.is_complex()]  # compilers fuse real numbers only


# --- attention, and input that does not fit


def test_attention_is_softmax_over_all_keys():
    q, k, v = drawn(2, 5, 3, 8), drawn(2, 7, 3, 8, seed=1), drawn(2, 7, 3, 8, seed=2)
    weights = torch.einsum("bnad,bkad->bank", q, k).div(8**0.5).softmax(-1)
    assert available()[0] == "sdpa"
    for backend in ("sdpa", "cudnn"):  # cuDNN is a preference: without it the next kernel computes the same
        assert distance(attend(q, k, v, backend), torch.einsum("bank,bkad->bnad", weights, v)) <= 1e-6


def test_attention_that_cannot_run_is_named_before_anything_runs():
    assert choose("auto", "cpu") == choose("sdpa", "cpu") == "sdpa"
    with pytest.raises(BadInputError, match="no attention 'flash3' on cpu"):
        choose("flash3", "cpu")


@pytest.mark.parametrize(("capability", "best"), [
    ((7, 5), "sdpa"), ((8, 6), "flash2"), ((9, 0), "flash3"), ((10, 0), "cudnn"), ((12, 0), "cudnn")])
def test_the_fastest_attention_is_one_that_the_card_can_run(monkeypatch, capability, best):
    monkeypatch.setattr(infinitetalk.attention, "available", lambda: ("sdpa", "cudnn", *MODULES))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose("auto", "cuda") == best
    assert choose("sage", "cuda") == "sage"


@pytest.mark.parametrize(("change", "words"), [
    ({"x": drawn(1, 16, FRAMES, ROWS, COLUMNS + 2)}, "do not join to 36 channels"),
    ({"x": drawn(1, 16, FRAMES, 3, COLUMNS), "y": drawn(1, 20, FRAMES, 3, COLUMNS)}, "multiples of 16"),
    ({"x": drawn(2, 16, FRAMES, ROWS, COLUMNS), "y": drawn(2, 20, FRAMES, ROWS, COLUMNS)}, "the latent of 2"),
    ({"frames": 5}, r"\(1, 2, 3\) tokens .* not \(1, 3, 3\)"),
    ({"persons": 2, "masks": None}, "two with their masks"),
    ({"persons": 2, "masks": torch.ones(2, ROWS, COLUMNS)}, r"masks: their shape is \(2, 4, 6\)"),
])
@torch.no_grad()
def test_what_does_not_fit_together_is_refused(change, words):
    net, (x, y) = network(), latents()
    condition = told(net, sound(change.get("persons", 1), frames=change.get("frames", 4 * FRAMES - 3)))
    with pytest.raises(BadInputError, match=words):
        net(change.get("x", x), change.get("y", y), T, condition, change.get("masks", halves()))


def test_prompts_and_sounds_of_another_size_are_refused():
    net = network()
    with pytest.raises(BadInputError, match="more than 8 tokens"):
        net.embed_text([drawn(9, TINY.text_dim)])
    with pytest.raises(BadInputError, match="4k\\+1 frames"):
        net.embed_audio(sound(frames=8))
    with pytest.raises(BadInputError, match="5 heads do not divide 48"):
        Transformer(TransformerConfig(dim=48, num_heads=5))
