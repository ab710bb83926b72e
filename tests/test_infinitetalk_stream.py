"""Streaming: chunks, what is carried between them, what is computed how often, and how much is alive at a time."""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any
from weakref import ref

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from infinitetalk.color import ColorStats, statistics
from infinitetalk.conditioning import keyframe_mask
from infinitetalk.errors import BadInputError, BadResultError
from infinitetalk.guidance import Apg, Guidance
from infinitetalk.inputs import published_box
from infinitetalk.networks import Networks
from infinitetalk.persons import assign
from infinitetalk.pictures import fit, from_uint8, to_uint8
from infinitetalk.plan import ChunkSize, ChunkSpan, held_windows, plan, published_windows
from infinitetalk.reference import FL2V, I2V, M0, M1, M2, M3, Both, Image, Source
from infinitetalk.sampling import Sampling
from infinitetalk.state import ChunkState
from infinitetalk.stream import Chunks, Embeddings, GeneratedChunk, Shot, StreamSettings, seeded_noise, stream
from infinitetalk.transformer import Transformer
from infinitetalk.vae import WanCodec
from infinitetalk.vision import ClipVision
from tests.golden import Golden, distance, golden, names, read
from tests.tiny_infinitetalk import CLIP_HEADS, TINY, codec_shapes, tiny_transformer, vision_shapes, weights

SIZE = (32, 48)
ONCE = Sampling(steps=1, guidance=Guidance(text=1.0, audio=1.0))
GUIDED = Sampling(steps=2, shift=3.0)
NOISE = [0.4049808084964752, 0.8548473715782166, 0.1762818694114685, -1.1079604625701904]
REFERENCES = [Source(), Both(), Image(), Image(index=3), I2V(), FL2V()]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small wait for threads longer than they compute."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class LinearCodec:
    """A small causal codec: fixed random maps between blocks of pixels and latents. It counts what it encodes."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._first, self._later = (torch.randn(16, 192 * frames, generator=generator) / 14 for frames in (1, 4))
        self.encoded: list[int] = []

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Frames in groups of 1, 4, 4 …, each by itself."""
        self.encoded.append(pixels.shape[1])
        blocks = torch.nn.functional.pixel_unshuffle(pixels.transpose(0, 1), 8)  # (F, 192, h, w)
        later = [torch.einsum("zc,chw->zhw", self._later, group.flatten(0, 1)) for group in blocks[1:].split(4)
                 if len(group)]
        return torch.stack([torch.einsum("zc,chw->zhw", self._first, blocks[0]), *later], 1)

    def decode(self, latent: torch.Tensor) -> Iterator[torch.Tensor]:
        """One frame, then four at a time."""
        for index, frame in enumerate(latent.unbind(1)):  # (16, h, w)
            maps = self._later if index else self._first
            blocks = torch.einsum("zc,zhw->chw", maps, frame).unflatten(0, (-1, 192))
            yield torch.nn.functional.pixel_shuffle(blocks, 8).transpose(0, 1).tanh()


class Colours:
    """A small vision: mean colours of 257 strips of the picture, put through a fixed random map."""

    def __init__(self) -> None:
        self._map = torch.randn(3, TINY.clip_dim, generator=torch.Generator().manual_seed(1))
        self.seen = 0

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """(1, 257, clip_dim)."""
        self.seen += 1
        return (torch.nn.functional.adaptive_avg_pool1d(image.flatten(1), 257).T @ self._map)[None]


def networks() -> Networks:
    return Networks(transformer(), LinearCodec(), Colours())


@cache
def transformer() -> Transformer:
    return tiny_transformer()


@cache
def real_networks() -> Networks:
    codec = WanCodec.published(weights(codec_shapes(), 0))
    return Networks(transformer(), codec, ClipVision.from_published(weights(vision_shapes(), 0), heads=CLIP_HEADS))


@cache
def picture(index: int, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.rand(3, *size, generator=torch.Generator().manual_seed(index)) * 1.8 - 0.9


def make_shot(frames: int, persons: int = 1, **changes: Any) -> Shot:
    generator = torch.Generator().manual_seed(5)
    heard = torch.randn(persons, frames, TINY.audio_layers, TINY.audio_channels, generator=generator)
    text, negative = torch.randn(2, 4, TINY.text_dim, generator=generator)
    masks = assign((None, None), (), SIZE, SIZE).masks if persons == 2 else None

    def frame(index: int) -> torch.Tensor:
        if not 0 <= index < frames:
            raise IndexError(f"{index} of {frames}: another shot's picture")
        return picture(index)

    return replace(Shot(frame, frames, SIZE, Embeddings(heard), text, negative, masks, seed=3), **changes)


def make_settings(**changes: Any) -> StreamSettings:
    return replace(StreamSettings(ChunkSize(9, 5), ONCE), **changes)


def same(one: GeneratedChunk, other: GeneratedChunk) -> bool:
    return (one.index == other.index and one.frames.tobytes() == other.frames.tobytes()
            and one.frames.shape == other.frames.shape and one.state.save() == other.state.save())


# --- Against the published implementation ------------------------------------------------------------------------


@golden
def test_every_recorded_loop_is_planned_exactly():
    cases = read("loop_plan").about["cases"]
    assert cases
    for case in cases:
        heard, total = case["audio_frames"], min(case["audio_frames"], case["max_frames_num"])
        spans = plan(total, ChunkSize(case["frame_num"], case["motion_frame"]), "full")
        windows = [published_windows(span.start, span.frames, heard) for span in spans]
        assert len(spans) == case["chunks"]
        assert [span.start for span in spans] == case["source_frame_ids_used"]
        assert [window[0].tolist() for window in windows] == case["chunk_first_window"]
        assert [window[-1].tolist() for window in windows] == case["chunk_last_window"]
        assert windows[-1][:, 2].tolist() == case["last_chunk_centre_values"]
        assert total == case["output_frames"]


class Recorded:
    """One recorded stream, and ours with the same networks, inputs and noise."""

    def __init__(self, name: str) -> None:
        self.file: Golden = read(name)
        about, file = self.file.about, self.file
        network = Transformer(file.transformer)
        network.load_state_dict(file.weights("dit."))
        vision = {f"visual.{key}": value for key, value in file.weights("clip.visual.").items()}
        self.networks = Networks(network.eval(), WanCodec.published(file.weights("vae.")),
                                 ClipVision.from_published(vision, heads=about["clip"]["heads"]))
        guidance = Guidance(about["text_guide"], about["audio_guide"], Apg(**about["apg"]) if about["apg"] else None)
        self.settings = StreamSettings(
            ChunkSize(about["frame_num"], about["motion_frame"]), Sampling(about["steps"], about["shift"], guidance),
            Image() if about["is_image"] else Source(), about["color_correction"], "full")
        target = tuple(about["target"])
        pictures = [fit(frame.numpy(), target) for frame in file["in.source_frames"]]
        heard = torch.stack([file[f"in.audio_emb.{person}"] for person in range(about["humans"])])
        self.shot = Shot(
            lambda index: pictures[min(index, len(pictures) - 1)], min(about["max_frames_num"], about["audio_len"]),
            target, Embeddings(heard, "published"), file["in.context"], file["in.context_null"], self.masks())

    def masks(self) -> torch.Tensor | None:
        about = self.file.about
        if about["humans"] == 1:
            return None
        source, target = tuple(about["source_hw"]), tuple(about["target"])
        boxes = [published_box(box, "bbox") for box in about["bbox"].values()] if about["bbox"] else (None, None)
        return assign(boxes, (), source, target).masks

    def noise(self, seed: int, chunk: int, shape: Any) -> torch.Tensor:
        return self.file[f"in.noise.{chunk}"]


@golden
@pytest.mark.parametrize("name", names("stream_"))
def test_a_recorded_stream_is_repeated(name):
    recorded = Recorded(name)
    file, chunks = recorded.file, Chunks(recorded.networks, recorded.shot, recorded.settings, recorded.noise)
    calls: list[tuple[Any, ...]] = []
    recorded.networks.transformer.register_forward_hook(lambda _, given, made: calls.append((*given, made)))
    assert [span.start for span in chunks.spans] == file.about["frame_ids_requested"][:file.about["chunks"]]
    state, video = None, []
    for span in chunks.spans:
        calls.clear()
        color = state.color if state else chunks.color()
        latent = chunks.latent(span, state)
        check_chunk(recorded, span, calls, latent)
        pixels = torch.cat(list(chunks.pixels(span, latent, color)), 1)
        video.append(pixels[:, span.context:])
        state = chunks.follow(span, pixels[:, -chunks.shared:], color)
    whole = torch.cat(video, 1)[:, :recorded.shot.frames]
    assert distance(whole, file["out.video"]) < 1e-4


def check_chunk(recorded: Recorded, span: ChunkSpan, calls: list[tuple[Any, ...]], latent: torch.Tensor) -> None:
    file, k = recorded.file, span.index
    assert len(calls) == file.about["passes_per_chunk"]
    heard = recorded.shot.audio.windows(span.start, span.frames)
    assert torch.equal(heard, file[f"mid.audio_window.{k}"])
    x, y, _, _, masks, _, made = calls[0]
    assert distance(y, file[f"mid.y.{k}"]) < 1e-5
    assert distance(x[0], file[f"mid.first_model_in.{k}"]) < 1e-4
    assert distance(made, file[f"mid.first_model_out.{k}"]) < 1e-4
    assert distance(latent, file[f"out.latent.{k}"]) < 1e-4
    assert distance(torch.cat(list(recorded.networks.codec.decode(latent)), 1), file[f"out.decoded.{k}"]) < 1e-4
    if file.about["humans"] == 2:
        assert torch.equal(masks, file["mid.ref_target_masks"])
    if f"mid.clip.{k}" in file.tensors:
        seen = recorded.networks.vision(recorded.shot.frame(span.start))
        assert distance(seen, file[f"mid.clip.{k}"]) < 1e-5
    if k == 0:
        for (_, _, t, condition, *_), expected in zip(calls, file.about["calls_first_chunk"], strict=True):
            assert float(t) == pytest.approx(expected["t"])
            assert condition.persons == expected["humans"]


@golden
@pytest.mark.parametrize("name", names("stream_")[:1])
def test_frames_leave_as_the_recorded_ones_are_written(name):
    recorded = Recorded(name)
    made = list(stream(recorded.networks, recorded.shot, recorded.settings, noise=recorded.noise))
    frames = np.concatenate([chunk.frames for chunk in made]).astype(int)
    assert np.abs(frames - to_uint8(recorded.file["out.video"])).max() <= 1


# --- Chunks ------------------------------------------------------------------------------------------------------


@given(st.integers(1, 400), st.sampled_from([(81, 9), (33, 9), (9, 5), (5, 1)]), st.sampled_from(["short", "full"]))
def test_a_plan_covers_every_length_once(total, sizes, tail):
    size = ChunkSize(*sizes)
    spans = plan(total, size, tail)
    covered = [frame for span in spans for frame in range(span.first_new, span.first_new + span.new)]
    assert covered[:total] == list(range(total))
    assert covered == list(range(len(covered)))
    assert all((span.frames - 1) % 4 == 0 and span.frames == 4 * (span.latents - 1) + 1 for span in spans)
    assert [span.context for span in spans] == [0] + [size.context] * (len(spans) - 1)
    assert {span.frames for span in spans[:-1]} <= {size.frames}
    spare = len(covered) - total
    assert spare < 4 if tail == "short" else spans[-1].frames == size.frames
    assert spare < spans[-1].new


@pytest.mark.parametrize("sizes", [(80, 9), (81, 8), (81, 81), (9, 13), (81, 0), (-3, -7)])
def test_chunks_off_the_grid_are_refused(sizes):
    with pytest.raises(BadInputError):
        ChunkSize(*sizes)


def test_audio_is_held_at_both_ends():
    assert held_windows(0, 5, 4).tolist() == [[0, 0, 0, 1, 2], [0, 0, 1, 2, 3], [0, 1, 2, 3, 3], [1, 2, 3, 3, 3],
                                              [2, 3, 3, 3, 3]]


@given(st.integers(1, 60), st.integers(0, 60), st.integers(1, 60))
def test_the_published_tail_never_reads_past_the_track(heard, start, frames):
    windows = published_windows(start, frames, heard)
    assert 0 <= int(windows.min()) <= int(windows.max()) < heard


# --- Length and resume -------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@example(1, 1, Source(), "short", 1.0)
@example(2, 2, Image(), "full", 0.5)
@example(5, 1, I2V(), "short", 1.0)
@given(st.integers(1, 24), st.integers(1, 2), st.sampled_from(REFERENCES), st.sampled_from(["short", "full"]),
       st.sampled_from([0.0, 0.5, 1.0]))
def test_any_length_is_met_and_goes_on_from_every_chunk_bit_for_bit(frames, persons, reference, tail, color):
    shot, how = make_shot(frames, persons), make_settings(reference=reference, tail=tail, color=color)
    whole = list(stream(networks(), shot, how))
    assert sum(len(chunk.frames) for chunk in whole) == frames
    assert all(chunk.frames.shape[1:] == (*SIZE, 3) and len(chunk.frames) for chunk in whole)
    for before, after in zip(whole, [*whole[1:], None], strict=True):
        rest = stream(networks(), shot, how, ChunkState.load(before.state.save()))
        again = next(rest, None)
        assert again is after or (again is not None and after is not None and same(again, after))


@pytest.mark.parametrize(("persons", "reference"), [(1, Source()), (2, Image())])
def test_the_published_networks_go_on_bit_for_bit(persons, reference):
    shot = make_shot(15, persons)
    how = make_settings(reference=reference, sampling=replace(GUIDED, teacache=0.2, guidance=Guidance(apg=Apg())))
    whole = list(stream(real_networks(), shot, how))
    assert [len(chunk.frames) for chunk in whole] == [9, 4, 2]
    for before, after in pairwise(whole):
        assert same(next(stream(real_networks(), shot, how, ChunkState.load(before.state.save()))), after)


def test_a_shot_of_one_frame_is_its_reference_and_runs_nothing():
    runs = []
    handle = transformer().register_forward_hook(lambda *_: runs.append(1))
    only, = stream(real_networks(), make_shot(1), make_settings(color=0.0))
    handle.remove()
    codec = real_networks().codec
    expected = to_uint8(next(iter(codec.decode(codec.encode(picture(0)[:, None])))))
    assert not runs
    assert np.array_equal(only.frames, expected)


def test_the_first_chunk_begins_with_the_reference_and_later_ones_with_what_was_made():
    shot, how, nets = make_shot(13), make_settings(), networks()
    chunks = Chunks(nets, shot, how)
    first, second = chunks.spans
    latent = chunks.latent(first, None)
    assert torch.equal(latent[:, :1], nets.codec.encode(picture(0)[:, None]))
    pixels = torch.cat(list(chunks.pixels(first, latent, chunks.color())), 1)
    state = chunks.follow(first, pixels[:, -5:], chunks.color())
    assert torch.equal(chunks.latent(second, state)[:, :2], nets.codec.encode(pixels[:, -5:]))


@pytest.mark.parametrize("frames", [7, 9, 10, 20])
def test_new_frames_leave_and_context_frames_do_not_leave_twice(frames):
    shot, how, nets = make_shot(frames), make_settings(), networks()
    chunks, state, expected = Chunks(nets, shot, how), None, []
    for span in chunks.spans:
        pixels = torch.cat(list(chunks.pixels(span, chunks.latent(span, state), chunks.color())), 1)
        expected.append(to_uint8(pixels[:, span.context:]))
        state = chunks.follow(span, pixels[:, -5:], chunks.color())
    made = np.concatenate([chunk.frames for chunk in stream(nets, shot, how)])
    assert np.array_equal(made, np.concatenate(expected)[:frames])


def test_context_is_corrected_before_it_is_carried():
    plain, corrected = (next(iter(stream(networks(), make_shot(13), make_settings(color=color)))) for color in (0, 1))
    assert plain.state.context is not None
    assert corrected.state.context is not None
    assert not torch.equal(plain.state.context, corrected.state.context)


def test_the_last_chunk_is_no_longer_than_needed_unless_asked_for():
    lengths = {tail: [span.frames for span in Chunks(networks(), make_shot(20), make_settings(
        size=ChunkSize(17, 5), tail=tail)).spans] for tail in ("short", "full")}
    assert lengths == {"short": [17, 9], "full": [17, 17]}
    assert [span.frames for span in Chunks(networks(), make_shot(3), make_settings()).spans] == [5]


def test_seeds_and_chunks_have_their_own_noise_that_is_the_same_everywhere():
    noise = seeded_noise(7, 3, (16, 2, 4, 4))
    assert noise.dtype == torch.float32
    assert torch.equal(noise, seeded_noise(7, 3, (16, 2, 4, 4)))
    assert noise.flatten()[:4].tolist() == NOISE
    others = [seeded_noise(7, 4, (16, 2, 4, 4)), seeded_noise(8, 3, (16, 2, 4, 4)), seeded_noise(73, 0, (16, 2, 4, 4))]
    assert all(not torch.equal(noise, other) for other in others)
    assert abs(float(noise.mean())) < 0.2
    assert abs(float(noise.std()) - 1) < 0.2


# --- References --------------------------------------------------------------------------------------------------


def test_references_come_from_the_shot_alone():
    """`make_shot` refuses indices that are another shot's."""
    asked: list[int] = []
    for reference in (*REFERENCES, Image(index=99)):
        shot = make_shot(12)
        watched = replace(shot, frame=lambda index, shot=shot: asked.append(index) or shot.frame(index))
        list(stream(networks(), watched, make_settings(reference=reference, tail="full")))
    assert set(asked) <= set(range(12))


def test_each_strategy_gives_its_pictures():
    later, last = ChunkSpan(2, 16, 9, 1), torch.zeros(3, 2, 2)
    assert list(Source().keyframes(later, int, None).items()) == [(0, 16)]
    assert list(Image().keyframes(later, int, None).items()) == [(0, 0)]
    assert I2V().keyframes(later, int, last)[0] is last
    assert list(I2V().keyframes(ChunkSpan(0, 0, 9, 0), int, None).items()) == [(0, 0)]
    assert list(FL2V().keyframes(later, int, None).items()) == [(0, 16), (8, 24)]
    with pytest.raises(BadInputError, match="chunk 2"):
        I2V().keyframes(later, int, None)


def test_both_ends_of_a_chunk_are_marked_as_known():
    assert keyframe_mask({0}, 9).tolist() == [[1, 0, 0]] * 4
    assert keyframe_mask({0, 8}, 9).tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [1, 0, 1]]
    assert keyframe_mask({0, 5}, 9).tolist() == [[1, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0]]
    assert keyframe_mask({0}, 1).tolist() == [[1]] * 4


def test_a_second_reference_is_shown_and_not_marked():
    shot, how = make_shot(20), make_settings(reference=Both())
    asked: list[torch.Tensor] = []
    watched = networks()
    run = watched.transformer.forward

    def forward(x, y, *told):
        asked.append(y)
        return run(x, y, *told)

    watched.transformer.forward = forward
    try:
        list(stream(watched, shot, how))
    finally:
        del watched.transformer.forward
    ends = LinearCodec().encode(torch.stack([torch.zeros(3, *SIZE)] * 8 + [shot.frame(8)], 1))
    mask, latent = asked[0][0].split((4, 16))
    assert mask[:, 0].all()
    assert not mask[:, 1:].any()
    assert torch.equal(latent[:, -1], ends[:, -1])


def test_a_shot_that_begins_with_its_source_is_nearer_to_it_the_less_noise_there_is():
    source = np.concatenate([to_uint8(make_shot(17).frame(index)[:, None]) for index in range(17)])
    far, known = [], make_shot(17)
    for begin in (0.05, 0.5, 1.0):
        how = make_settings(sampling=replace(GUIDED, begin=begin), color=0.0)
        made = np.concatenate([chunk.frames for chunk in stream(networks(), known, how)])
        latents = [LinearCodec().encode(from_uint8(torch.from_numpy(one).movedim(3, 0))) for one in (made, source)]
        far.append(distance(*latents))
    assert far == sorted(far)


def test_chained_chunks_share_one_picture_and_no_motion():
    shot, how = make_shot(20), make_settings(reference=I2V())
    first, second, *_ = stream(networks(), shot, how)
    assert len(first.frames) == 9
    assert len(second.frames) == 8
    assert first.state.context is None
    assert first.state.last_frame is not None
    assert np.array_equal(first.state.last_frame.permute(1, 2, 0).numpy(), first.frames[-1])
    chunks = Chunks(networks(), shot, how)
    expected = LinearCodec().encode(from_uint8(first.state.last_frame)[:, None])
    assert torch.equal(chunks.latent(chunks.spans[1], first.state)[:, :1], expected)


@given(st.randoms(use_true_random=False), st.integers(0, 120), st.integers(1, 81), st.integers(0, 120))
def test_training_references_lie_where_the_strategy_says(rng, start, frames, after):
    total, last = start + frames + after, start + frames - 1
    assert start <= M0().draw(rng, start, frames, total) <= last
    assert M1().draw(rng, start, frames, total) in (start, last)
    away = {type(how): max(start - index, index - last, 0) for how in (M2(), M3())
            for index in [how.draw(rng, start, frames, total)]}
    assert away[M2] >= min(50, max(start, after))
    assert 0 < away[M3] <= 25 or (start == after == 0 and away[M3] == 0)


def test_training_references_reach_all_frames_of_their_range():
    rng = random.Random(0)
    drawn = {type(how): {how.draw(rng, 60, 9, 160) for _ in range(2000)} for how in (M0(), M1(), M2(), M3())}
    assert drawn[M0] == set(range(60, 69))
    assert drawn[M1] == {60, 68}
    assert drawn[M2] == {*range(11), *range(118, 160)}
    assert drawn[M3] == {*range(35, 60), *range(69, 94)}
    with pytest.raises(BadInputError):
        M0().draw(rng, 5, 9, 13)


# --- What is computed how often ----------------------------------------------------------------------------------


def counted(shot: Shot, how: StreamSettings) -> tuple[Counter[str], Networks, int]:
    """Runs of parts of the transformer over a whole shot."""
    nets, runs = networks(), Counter[str]()
    parts = {"text": transformer().text_embedding, "image": transformer().img_emb, "audio": transformer().audio_proj,
             "forward": transformer(), "text keys": transformer().blocks[0].cross_attn.k}
    handles = [part.register_forward_hook(lambda *_, name=name: runs.update([name])) for name, part in parts.items()]
    chunks = len(list(stream(nets, shot, how)))
    for handle in handles:
        handle.remove()
    return runs, nets, chunks


def test_conditions_are_computed_once_for_each_distinct_input():
    runs, nets, chunks = counted(make_shot(20), make_settings(sampling=GUIDED, reference=Image(), tail="full"))
    assert chunks == 4
    assert runs == {"text": 2, "image": 1, "audio": chunks + 1, "forward": chunks * 2 * 3, "text keys": 2}
    assert nets.vision.seen == 1
    runs, nets, chunks = counted(make_shot(20), make_settings(sampling=GUIDED))
    assert runs["image"] == nets.vision.seen == chunks == 4
    assert runs["text"] == 2


def test_only_needed_passes_run_and_unneeded_prompts_are_not_asked_for():
    runs, _, chunks = counted(make_shot(20, negative=None), make_settings())
    assert runs == {"text": 1, "image": chunks, "audio": chunks, "forward": chunks, "text keys": 1}


def test_an_unchanged_reference_costs_the_context_alone():
    shot = make_shot(81 + 2 * 72 + 30)
    how = make_settings(size=ChunkSize(), reference=Image())
    nets = networks()
    assert len(list(stream(nets, shot, how))) == 4
    assert nets.codec.encoded == [81, 9, 9, 9]
    published = 81 + 9  # a chunk's reference clip and its context
    assert all(frames / published <= 0.11 for frames in nets.codec.encoded[1:])


def test_a_still_source_counts_as_unchanged_and_a_moving_one_does_not():
    still = make_shot(21, frame=lambda index: picture(0))
    for shot, expected in ((still, [9, 5, 5, 5]), (make_shot(21), [9, 5, 9, 5, 9, 5, 9])):
        nets = networks()
        list(stream(nets, shot, make_settings()))
        assert nets.codec.encoded == expected


class LiveFrames(TorchDispatchMode):
    """How many float frames of the picture's size are alive at once, at most."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self._size, self._made, self.most = size, dict[int, ref[torch.Tensor]](), 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        frames = [one for one in tree_leaves(made) if isinstance(one, torch.Tensor) and one.shape[-2:] == self._size
                  and len(one) == 3]
        if frames:
            self._made |= {id(tensor): ref(tensor) for tensor in frames}
            alive = {key: tensor for key, one in self._made.items() if (tensor := one()) is not None}
            self._made = {key: self._made[key] for key in alive}
            storages = [tensor.untyped_storage() for tensor in alive.values()]
            owned = {storage.data_ptr(): storage.nbytes() for storage in storages}
            self.most = max(self.most, sum(owned.values()) // (3 * self._size[0] * self._size[1] * 4))
        return made


def test_live_frames_are_few_and_do_not_grow_with_length():
    size, peaks, pictures = ChunkSize(49, 9), {}, [picture(index) for index in range(7)]
    for chunks in (3, 30):
        frames = 49 + 40 * (chunks - 1)
        shot = make_shot(frames, frame=lambda index: pictures[index % 7])
        with LiveFrames(SIZE) as live:
            assert sum(1 for _ in stream(networks(), shot, make_settings(size=size))) == chunks
        peaks[chunks] = live.most
    assert size.frames <= peaks[30] == peaks[3] <= 2 * size.frames


# --- State -------------------------------------------------------------------------------------------------------


@cache
def some_state() -> ChunkState:
    return next(iter(stream(networks(), make_shot(20), make_settings()))).state


def test_a_state_is_about_a_megabyte_at_480p():
    context = torch.zeros(16, 3, 464 // 8, 832 // 8)
    state = replace(some_state(), context=context)
    assert 1.0e6 < len(state.save()) < 1.3e6


@pytest.mark.parametrize("change", [{"seed": 4}, {"frames": 21}, {"size": (32, 32)}])
def test_the_state_of_another_shot_is_refused(change):
    with pytest.raises(BadInputError, match="another shot"):
        stream(networks(), replace(make_shot(20), **change), make_settings(), some_state())


@pytest.mark.parametrize("change", [{"color": 0.5}, {"tail": "full"}, {"reference": Image()}, {"sampling": GUIDED},
                                    {"size": ChunkSize(13, 5)}])
def test_the_state_of_other_settings_is_refused(change):
    with pytest.raises(BadInputError, match="another shot"):
        stream(networks(), make_shot(20), make_settings(**change), some_state())


def test_a_state_after_the_last_chunk_has_nothing_to_go_on_with():
    *_, last = stream(networks(), make_shot(20), make_settings())
    assert last.state.context is None
    assert not list(stream(networks(), make_shot(20), make_settings(), last.state))


@pytest.mark.parametrize(("name", "value"), [
    ("index", torch.tensor(0)), ("index", torch.tensor(-1)), ("index", torch.tensor(5)), ("index", torch.tensor(1.0)),
    ("index", torch.tensor([1])), ("fingerprint", torch.zeros(31, dtype=torch.uint8)), ("fingerprint", torch.zeros(32)),
    ("color_mean", torch.tensor([1.0, float("nan"), 0])), ("color_std", torch.tensor([1.0, -1, 0])),
    ("color_std", torch.ones(4)), ("context", torch.full((16, 2, 4, 6), float("inf"))),
    ("context", torch.zeros(16, 2, 4, 6, dtype=torch.float64)), ("context", torch.zeros(16, 3, 4, 6)),
    ("context", torch.zeros(16, 2, 6)), ("context", None), ("color_mean", None), ("index", None),
    ("last_frame", torch.zeros(3, 2, 2)), ("more", torch.zeros(1)),
])
def test_an_altered_state_is_refused(name, value):
    tensors = load(some_state().save())
    tensors |= {name: value} if value is not None else {}
    altered = save({key: tensor for key, tensor in tensors.items() if key != name or value is not None})
    with pytest.raises(BadInputError, match="chunk state"):
        stream(networks(), make_shot(20), make_settings(), ChunkState.load(altered))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes_are_refused_or_read_whole(data):
    good = some_state().save()
    cut = data.draw(st.integers(0, len(good) - 1))
    with pytest.raises(BadInputError, match="chunk state"):
        ChunkState.load(good[:cut])
    at, bit = data.draw(st.integers(0, 700)), data.draw(st.integers(0, 7))
    flipped = bytearray(good)
    flipped[at] ^= 1 << bit
    try:
        state = ChunkState.load(bytes(flipped))
    except BadInputError:
        return
    assert state.context is None or state.context.isfinite().all()


def test_a_saved_state_comes_back_as_it_was():
    state = ChunkState(4, bytes(range(32)), ColorStats(torch.randn(3), torch.rand(3)), torch.randn(16, 2, 4, 6),
                       torch.randint(0, 255, (3, 8, 8), dtype=torch.uint8))
    again = ChunkState.load(state.save())
    assert (again.index, again.fingerprint, again.save()) == (4, bytes(range(32)), state.save())


def test_the_state_carries_the_colours_of_the_shots_first_picture():
    expected = statistics(picture(0))
    *_, state = (chunk.state for chunk in stream(networks(), make_shot(20), make_settings(reference=Image(7))))
    assert torch.equal(state.color.mean, expected.mean)
    assert torch.equal(state.color.std, expected.std)


# --- Bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shot", "how"), [
    (make_shot(5, size=(30, 48)), make_settings()), (make_shot(5, size=(0, 0)), make_settings()),
    (replace(make_shot(5), frames=0), make_settings()),
    (make_shot(5, audio=Embeddings(torch.zeros(3, 5, 3, 16))), make_settings()),
    (make_shot(5, persons=2, masks=None), make_settings()),
    (make_shot(5, persons=2, masks=torch.ones(3, 2, 3)), make_settings()),
    (make_shot(5, negative=None), make_settings(sampling=GUIDED)),
])
def test_what_cannot_be_streamed_is_refused_at_once(shot, how):
    with pytest.raises(BadInputError):
        stream(networks(), shot, how)


@pytest.mark.parametrize("change", [{"color": 1.5}, {"color": float("nan")}, {"tail": "long"}])
def test_settings_without_sense_are_refused(change):
    with pytest.raises(BadInputError):
        make_settings(**change)


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(BadInputError, match="picture 0"):
        list(stream(networks(), make_shot(5, frame=lambda index: torch.zeros(3, 16, 16)), make_settings()))


# --- While it runs -----------------------------------------------------------------------------------------------


def test_every_step_of_every_chunk_is_told():
    told: list[tuple[int, int]] = []
    chunks = stream(networks(), make_shot(12), make_settings(sampling=GUIDED),
                    progress=lambda done, of: told.append((done, of)))
    for made, _ in enumerate(chunks, 1):
        assert told == [(1, 2), (2, 2)] * made
    assert made == 2


class BrokenCodec(LinearCodec):
    """Loses its numbers at one end, as a codec does whose weights are damaged."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self._end = end

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return super().encode(pixels) * (torch.nan if self._end == "encoder" else 1)

    def decode(self, latent: torch.Tensor) -> Iterator[torch.Tensor]:
        return (piece * (torch.nan if self._end == "decoder" else 1) for piece in super().decode(latent))


@pytest.mark.parametrize(("broken", "frames"), [
    ("transformer", 12), ("encoder", 1), ("encoder", 12), ("decoder", 1), ("decoder", 12)])
def test_a_network_that_gives_no_numbers_makes_no_black_film(broken, frames):
    nets = replace(networks(), codec=BrokenCodec(broken))
    if broken == "transformer":
        nets = replace(nets, transformer=copy.deepcopy(nets.transformer))
        nets.transformer.head.head.bias.data[3] = torch.inf
    with pytest.raises(BadResultError, match=r"chunk 0: .* not finite.*models verify.*bf16"):
        next(stream(nets, make_shot(frames), make_settings()))
