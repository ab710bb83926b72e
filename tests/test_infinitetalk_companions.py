"""The engine's borrowed networks: pixels ↔ latents, pictures, prompts and speech, as published and streamed."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyloudnorm
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from infinitetalk.audio import SAMPLE_RATE, AudioEncoder, AudioFeatures, normalise_loudness, windows
from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.text import NEGATIVE_PROMPT, TextEncoder, clean
from infinitetalk.vae import WanCodec
from infinitetalk.vision import ClipVision
from tests.golden import Golden, distance, golden, read
from tests.tiny_infinitetalk import (
    CLIP_HEADS,
    WAV2VEC,
    Tiny,
    audio_shapes,
    codec_shapes,
    text_shapes,
    tiny_networks,
    vision_shapes,
    weights,
    write_audio,
    write_tokenizer,
)

CLOSE = 1e-5
"""Relative distance that float32 leaves between two ways of one computation."""


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return tiny_networks()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def clip(frames: int, height: int = 16, width: int = 24) -> Tensor:
    return noise(3, frames, height, width).tanh()


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise that swells and fades, with silences."""
    time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    loud = np.clip(np.sin(2 * time) + np.sin(0.3 * time), 0, None)
    return (0.1 * loud * np.random.default_rng(seed).standard_normal(len(time))).astype(np.float32)


# -- pixels and latents -----------------------------------------------------------------------------------------------


@golden
def test_codec_gives_the_published_latents_and_frames() -> None:
    vae = read("vae")
    codec = WanCodec.published(vae.weights())
    for case in vae.about["cases"]:
        video = vae[f"in.video.{case}"]
        assert distance(codec.encode(video), vae[f"out.latent.{case}"]) <= CLOSE
        assert distance(torch.cat([*codec.decode(vae[f"in.latent.{case}"])], 1), vae[f"out.video.{case}"]) <= CLOSE
        if f"out.latent_refpad.{case}" in vae.tensors:
            grey = torch.zeros_like(video[:, 1:])
            padded = codec.encode(torch.cat([video[:, :1], grey], 1))
            assert distance(padded, vae[f"out.latent_refpad.{case}"]) <= CLOSE


@torch.no_grad()
def whole_encode(vae: Any, x: Tensor) -> Tensor:
    """The encoder as one formula over the whole clip: no cache, but for the rules of the temporal downsampler."""
    side = vae.encoder
    x = side.conv_in(x)
    for layer in side.down_blocks:
        x = layer(x)
        if hasattr(layer, "time_conv"):  # the first frame stays as it is; the k-th is made of 2k-2, 2k-1, 2k
            x = torch.cat([x[:, :, :1], layer.time_conv(x)], 2)
    return vae.quant_conv(side.conv_out(functional.silu(side.norm_out(side.mid_block(x)))))[0]


@torch.no_grad()
def whole_decode(vae: Any, z: Tensor) -> Tensor:
    """The decoder likewise: the temporal upsampler lets the first frame through once, and never shows it to others."""
    side = vae.decoder
    x = side.mid_block(side.conv_in(vae.post_quant_conv(z)))
    for block in side.up_blocks:
        for layer in [*block.resnets, *(block.upsamplers or [])]:
            if hasattr(layer, "time_conv"):
                pairs = layer.time_conv(x[:, :, 1:]).unflatten(1, (2, -1))  # (1, 2, C, t, h, w)
                x = torch.cat([x[:, :, :1], pairs.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)], 2)
            x = layer(x)
    return side.conv_out(functional.silu(side.norm_out(x)))[0].clamp(-1, 1)


def test_streamed_coding_equals_the_formula_over_the_whole_clip(tiny: Tiny) -> None:
    vae, pixels, latent = tiny.codec.network, clip(13), noise(16, 4, 2, 3)
    mean, std = (torch.tensor(values).view(16, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std))
    assert distance(tiny.codec.encode(pixels), (whole_encode(vae, pixels[None])[:16] - mean) / std) <= CLOSE
    assert distance(torch.cat([*tiny.codec.decode(latent)], 1), whole_decode(vae, (latent * std + mean)[None])) <= CLOSE


def test_streamed_coding_equals_the_librarys_own_bit_for_bit(tiny: Tiny) -> None:
    vae, pixels, latent = tiny.codec.network, clip(9), noise(16, 3, 2, 3)
    mean, std = (torch.tensor(values).view(16, 1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std))
    with torch.no_grad():
        encoded = (vae.encode(pixels[None]).latent_dist.mode()[0] - mean) / std
        decoded = vae.decode((latent * std + mean)[None]).sample[0]
    assert torch.equal(tiny.codec.encode(pixels), encoded)
    assert torch.equal(torch.cat([*tiny.codec.decode(latent)], 1), decoded)


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_trailing_frames_are_dropped_and_earlier_latents_do_not_see_later_frames(
        tiny: Tiny, frames: int, latents: int) -> None:
    pixels = clip(9)
    encoded = tiny.codec.encode(pixels[:, :frames])
    assert encoded.shape == (16, latents, 2, 3)
    assert torch.equal(encoded, tiny.codec.encode(pixels)[:, :latents])


def test_frames_leave_the_decoder_as_they_are_made_and_none_is_kept(tiny: Tiny) -> None:
    sizes, made = [], []
    for frames in tiny.codec.decode(noise(16, 4, 2, 3)):
        assert not any(earlier() is not None for earlier in made[:-1])
        sizes.append(tuple(frames.shape))
        made.append(weakref.ref(frames))
    assert sizes == [(3, 1, 16, 24)] + 3 * [(3, 4, 16, 24)]


def test_passes_may_be_interleaved_and_abandoned(tiny: Tiny) -> None:
    codec, first, second = tiny.codec, noise(16, 4, 2, 3, seed=1), noise(16, 3, 2, 3, seed=2)
    alone = [torch.cat([*codec.decode(latent)], 1) for latent in (first, second)]
    next(codec.decode(first))
    together: tuple[list[Tensor], list[Tensor]] = ([], [])
    for pair in zip_longest(codec.decode(first), codec.decode(second)):
        codec.encode(clip(5))
        for frames, made in zip(pair, together, strict=True):
            made.extend([] if frames is None else [frames])
    assert all(torch.equal(torch.cat(frames, 1), whole) for frames, whole in zip(together, alone, strict=True))


def test_decoding_leaves_gradients_of_the_caller_alone(tiny: Tiny) -> None:
    for _ in tiny.codec.decode(noise(16, 2, 2, 3)):
        assert torch.is_grad_enabled()


def test_coding_in_bfloat16_is_near_and_still_gives_float32() -> None:
    state, latent, pixels = weights(codec_shapes(), 0), noise(16, 2, 2, 3), clip(5)
    exact, coarse = WanCodec.published(state), WanCodec.published(state, dtype=torch.bfloat16)
    assert coarse.encode(pixels).dtype == torch.float32
    assert distance(coarse.encode(pixels), exact.encode(pixels)) < 0.05
    decoded = torch.cat([*coarse.decode(latent)], 1)
    assert decoded.dtype == torch.float32
    assert distance(decoded, torch.cat([*exact.decode(latent)], 1)) < 0.05


@pytest.mark.parametrize("shape", [(3, 0, 16, 16), (3, 5, 16, 20), (4, 5, 16, 16), (5, 16, 16)])
def test_clips_that_cannot_be_coded_are_refused(tiny: Tiny, shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInputError, match="multiple of 8"):
        tiny.codec.encode(torch.zeros(shape))
    with pytest.raises(BadInputError, match="latent"):
        tiny.codec.decode(torch.zeros(shape))


# -- pictures ---------------------------------------------------------------------------------------------------------


@golden
def test_vision_gives_the_published_tokens() -> None:
    recorded = read("clip_visual")
    vision = ClipVision.from_published(recorded.weights(), heads=recorded.about["config"]["heads"])
    for picture, tokens in zip(recorded["in.image"][:, :, 0], recorded["out.features"], strict=True):
        assert distance(vision(picture)[0], tokens) <= CLOSE


def test_the_states_of_the_last_layer_but_one_are_what_is_seen(tiny: Tiny) -> None:
    state, picture = weights(vision_shapes(), 0), noise(3, 40, 56).tanh()
    layers = 1 + max(int(name.split(".")[2]) for name in state if name.startswith("visual.transformer."))

    def seen_with(layer: int) -> Tensor:
        doubled = {name: 2 * value if f"transformer.{layer}." in name else value for name, value in state.items()}
        return ClipVision.from_published(doubled, heads=CLIP_HEADS)(picture)

    seen = tiny.vision(picture)
    assert seen.shape == (1, 257, state["visual.pre_norm.weight"].numel())
    assert torch.equal(seen_with(layers - 1), seen)
    assert distance(seen_with(layers - 2), seen) > 0.01


def test_vision_in_bfloat16_is_near(tiny: Tiny) -> None:
    picture = noise(3, 40, 56).tanh()
    coarse = ClipVision.from_published(weights(vision_shapes(), 0), heads=CLIP_HEADS, dtype=torch.bfloat16)(picture)
    assert coarse.dtype == torch.bfloat16
    assert distance(coarse, tiny.vision(picture)) < 0.05


def test_what_is_no_picture_is_refused(tiny: Tiny) -> None:
    with pytest.raises(BadInputError, match="picture"):
        tiny.vision(torch.zeros(4, 16, 16))


# -- prompts ----------------------------------------------------------------------------------------------------------


@golden
def test_text_gives_the_published_states_without_padding(tokenizer: Path) -> None:
    recorded = read("t5_encoder")
    text = TextEncoder.from_published(recorded.weights(), tokenizer)
    for index, (ids, mask) in enumerate(zip(recorded["in.ids"], recorded["in.mask"], strict=True)):
        assert distance(text.encode(ids[mask.bool()]), recorded[f"out.trim.{index}"]) <= CLOSE


@pytest.mark.parametrize(("raw", "cleaned"), [
    ("  a   man\n\ttalks ", "a man talks"), ("Tom &amp;amp; Anna", "Tom & Anna"), ("&lt;b&gt;", "<b>"),
    ("caf\u00c3\u00a9", "café"), ("", "")])
def test_prompts_are_cleaned_before_they_are_read(tiny: Tiny, raw: str, cleaned: str) -> None:
    assert clean(raw) == cleaned
    assert torch.equal(tiny.text(raw), tiny.text(cleaned))


def test_a_prompt_has_the_states_of_its_own_tokens_and_the_closing_one(tiny: Tiny) -> None:
    assert [len(tiny.text(prompt)) for prompt in ("", "ab", "ab cd")] == [1, 2, 3]
    assert len(tiny.text(NEGATIVE_PROMPT)) > 1
    assert len(clean(NEGATIVE_PROMPT).split()) < 100, "the real tokenizer must find room for it"


def test_a_prompt_of_512_tokens_is_read_and_a_longer_one_refused_with_its_count(tiny: Tiny) -> None:
    assert len(tiny.text("ab " * 511)) == 512
    with pytest.raises(BadInputError, match="513 tokens"):
        tiny.text("ab " * 512)


def test_a_tokenizer_that_pads_or_cuts_is_not_let(tokenizer: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    cutting = Tokenizer.from_file(str(tokenizer))
    cutting.enable_truncation(4)
    cutting.enable_padding(length=4)
    cutting.save(str(tmp_path / "tokenizer.json"))
    text = TextEncoder.from_published(weights(text_shapes(), 0), tmp_path / "tokenizer.json")
    assert [len(text(prompt)) for prompt in ("ab", "ab cd ef gh ij")] == [2, 6]


@pytest.mark.parametrize(("content", "reason"), [(None, "missing"), ("{", "cannot be read"), ("open", "</s>")])
def test_a_wrong_tokenizer_is_named(tokenizer: Path, tmp_path: Path, content: str | None, reason: str) -> None:
    told = json.loads(tokenizer.read_text(encoding="utf-8")) | {"post_processor": None}
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(json.dumps(told) if content == "open" else content, encoding="utf-8")
    with pytest.raises(BadWeightsError, match=reason) as caught:
        TextEncoder.from_published(weights(text_shapes(), 0), file)
    assert caught.value.where == str(file)


# -- speech -----------------------------------------------------------------------------------------------------------


def recorded_speech() -> tuple[Golden, AudioEncoder]:
    recorded = read("wav2vec")
    return recorded, AudioEncoder.from_published(recorded.weights(), recorded.about["config"])


@golden
def test_speech_gives_the_published_states() -> None:
    recorded, encoder = recorded_speech()
    loud = normalise_loudness(recorded["in.wave"].numpy())
    assert distance(torch.from_numpy(loud), recorded["mid.loudnorm_wave"]) <= CLOSE
    assert distance(encoder(recorded["mid.input_values"].numpy()), recorded["out.embedding"]) <= CLOSE
    if "alt.embedding_do_normalize" in recorded.tensors:
        other = AudioEncoder.from_published(recorded.weights(), recorded.about["config"], normalise=True)
        assert distance(other(loud), recorded["alt.embedding_do_normalize"]) <= CLOSE


@golden
def test_windows_are_the_published_ones() -> None:
    recorded, encoder = recorded_speech()
    frames = recorded.about["video_length"]
    features = AudioFeatures(encoder, recorded["mid.loudnorm_wave"].numpy(), Fraction(25), frames)
    first = recorded["out.windows_start0_13"]
    assert distance(windows(features.at, 0, len(first), frames - 1), first) <= CLOSE
    assert distance(features.at(torch.arange(frames)), recorded["out.embedding"]) <= CLOSE
    start, end = recorded.about["tail_window_centres"]
    tail = windows(features.at, start, end - start, frames - 1)
    assert distance(tail, recorded["out.windows_tail"]) <= CLOSE


@pytest.mark.parametrize("gain", [0.05, 1.0, 5.0])
def test_speech_is_brought_to_one_loudness(gain: float) -> None:
    loud = normalise_loudness(gain * speech(5))
    assert pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(loud) == pytest.approx(-23, abs=0.01)
    assert loud.dtype == np.float32


@pytest.mark.parametrize("samples", [np.zeros(SAMPLE_RATE, np.float32), speech(0.3), np.zeros(0, np.float32)])
def test_what_has_no_loudness_stays_as_it_is(samples: np.ndarray) -> None:
    assert np.array_equal(normalise_loudness(samples), samples)


@pytest.mark.parametrize("samples", [640, 641, 1279, 29 * 640, 32777])
def test_there_are_as_many_states_as_the_published_formula_says(tiny: Tiny, samples: int) -> None:
    assert tiny.audio(speech(3)[:samples]).shape == (int(samples / 16000 * 25), WAV2VEC["num_hidden_layers"],
                                                     WAV2VEC["hidden_size"])


@pytest.mark.parametrize("samples", [0, 639])
def test_audio_too_short_for_a_state_is_refused_but_a_video_hears_silence_after_it(tiny: Tiny, samples: int) -> None:
    with pytest.raises(BadInputError, match="too short"):
        tiny.audio(np.zeros(samples, np.float32))
    features = AudioFeatures(tiny.audio, np.zeros(samples, np.float32), Fraction(25), 1)
    assert features.at(torch.tensor([0])).isfinite().all()


@pytest.mark.parametrize("seconds", [1, 90])
def test_digital_silence_has_finite_states(tiny: Tiny, seconds: int) -> None:
    silence = AudioFeatures(tiny.audio, np.zeros(seconds * SAMPLE_RATE, np.float32), Fraction(25), seconds * 25)
    assert silence.at(torch.arange(seconds * 25)).isfinite().all()


@pytest.mark.parametrize("frames", [1, 29, 57, 1500])
def test_up_to_a_minute_at_25_frames_is_one_published_pass(tiny: Tiny, frames: int) -> None:
    samples = speech(frames / 25)
    heard = AudioFeatures(tiny.audio, samples, Fraction(25), frames).at(torch.arange(frames))
    # one sample of silence makes up for the state that the published formula loses to rounding (29 · 640 samples)
    whole = tiny.audio(samples if int(len(samples) / 16000 * 25) == frames else np.append(samples, np.float32(0)))
    assert torch.equal(heard, whole)


@pytest.mark.parametrize("rate", list(map(Fraction, ("24", "24000/1001", "30000/1001", "30", "50"))))
def test_other_rates_hear_the_states_at_the_times_of_their_frames(tiny: Tiny, rate: Fraction) -> None:
    frames, samples = 60, speech(4)
    states = tiny.audio(samples)  # at 0, 1/25, 2/25 … seconds
    heard = AudioFeatures(tiny.audio, samples, rate, frames).at(torch.arange(frames))
    for index in range(frames):
        place = index / rate * 25
        before, share = int(place), float(place % 1)
        assert distance(heard[index], states[before] * (1 - share) + states[before + 1] * share) <= CLOSE


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(25), Fraction(30)])
def test_every_frame_is_heard_even_where_the_audio_ends_early(tiny: Tiny, rate: Fraction) -> None:
    early = AudioFeatures(tiny.audio, speech(1), rate, 100)
    silent = AudioFeatures(tiny.audio, np.append(speech(1), np.zeros(10 * SAMPLE_RATE, np.float32))[:early_end(rate)],
                           rate, 100)
    assert torch.equal(early.at(torch.arange(100)), silent.at(torch.arange(100)))


def early_end(rate: Fraction) -> int:
    """Samples up to the state that the last of 100 frames needs."""
    return 640 * (-int(-(99 * 25 / rate) // 1) + 1)


LONG = 160
"""Seconds: three windows, two seams."""


class Watched:
    """An encoder that remembers how much it was given at once, and which of its results are still alive."""

    def __init__(self, encoder: AudioEncoder) -> None:
        self.encoder, self.lengths = encoder, list[int]()
        self.results: list[weakref.ref[Tensor]] = []
        self.most_alive = 0

    def __call__(self, samples: np.ndarray) -> Tensor:
        states = self.encoder(samples)
        self.lengths.append(len(samples))
        self.results.append(weakref.ref(states))
        self.most_alive = max(self.most_alive, sum(result() is not None for result in self.results))
        return states


@pytest.fixture(scope="module")
def long_speech(tiny: Tiny) -> tuple[np.ndarray, Tensor]:
    """Speech, and its states asked for in order at once."""
    samples = speech(LONG)
    return samples, AudioFeatures(tiny.audio, samples, Fraction(24), 24 * LONG).at(torch.arange(24 * LONG))


@given(st.lists(st.tuples(st.integers(0, 24 * LONG - 1), st.integers(1, 300)), min_size=1, max_size=6))
@settings(max_examples=8, deadline=None)
def test_a_frame_is_heard_the_same_whatever_was_asked_before(
        tiny: Tiny, long_speech: tuple[np.ndarray, Tensor], asked: list[tuple[int, int]]) -> None:
    samples, expected = long_speech
    features = AudioFeatures(tiny.audio, samples, Fraction(24), 24 * LONG)
    for start, count in asked:
        indices = torch.arange(start, min(start + count, 24 * LONG)).flip(0)
        assert torch.equal(features.at(indices), expected[indices])


def test_long_audio_is_heard_once_in_windows_of_a_minute_with_two_in_memory(tiny: Tiny) -> None:
    watched = Watched(tiny.audio)
    features = AudioFeatures(watched, speech(200), Fraction(25), 5000)  # type: ignore[arg-type]
    assert not watched.lengths, "nothing is heard before it is asked for"
    for start in range(0, 5000 - 81, 72):
        features.at(torch.arange(start, start + 81))
    assert len(watched.lengths) == 4
    assert max(watched.lengths) <= 60 * SAMPLE_RATE + 1
    assert watched.most_alive <= 3, "two kept, and one being made"


def test_away_from_its_ends_a_window_is_heard_alone_and_between_two_the_later_fades_in(tiny: Tiny) -> None:
    samples = speech(110)
    heard = AudioFeatures(tiny.audio, samples, Fraction(25), 2750).at(torch.arange(2750))
    first, second = tiny.audio(samples[:60 * SAMPLE_RATE]), tiny.audio(samples[50 * SAMPLE_RATE:])  # share 1250..1500
    assert torch.equal(heard[:1350], first[:1350])
    assert torch.equal(heard[1400:], second[150:])
    share = (torch.arange(1350, 1400) - 1349)[:, None, None] / 51
    assert distance(heard[1350:1400], second[100:150] * share + first[1350:1400] * (1 - share)) <= CLOSE


@pytest.mark.parametrize("indices", [[-1], [10], [3, 11]])
def test_frames_that_there_are_not_are_an_error(tiny: Tiny, indices: list[int]) -> None:
    with pytest.raises(IndexError, match="of 10"):
        AudioFeatures(tiny.audio, speech(1), Fraction(25), 10).at(torch.tensor(indices))


@pytest.mark.parametrize(("rate", "frames"), [(Fraction(25), 0), (Fraction(0), 5)])
def test_a_video_without_frames_or_rate_is_refused(tiny: Tiny, rate: Fraction, frames: int) -> None:
    with pytest.raises(BadInputError, match="frames at"):
        AudioFeatures(tiny.audio, speech(1), rate, frames)


def test_windows_repeat_the_first_and_last_frame_at_the_ends() -> None:
    values = torch.arange(6.0)[:, None, None]  # state i is i
    heard = windows(values.__getitem__, 0, 6, 5)[:, :, 0, 0]
    assert heard.tolist() == [[0, 0, 0, 1, 2], [0, 0, 1, 2, 3], [0, 1, 2, 3, 4],
                              [1, 2, 3, 4, 5], [2, 3, 4, 5, 5], [3, 4, 5, 5, 5]]
    assert windows(values.__getitem__, 8, 2, 5)[:, :, 0, 0].tolist() == [[5] * 5] * 2


# -- weights ----------------------------------------------------------------------------------------------------------


def test_speech_loads_from_a_folder_in_each_published_naming(tiny: Tiny, tmp_path: Path) -> None:
    samples = speech(1)
    for index, change in enumerate([str, lambda name: name.removeprefix("wav2vec2."), as_parametrization]):
        folder = tmp_path / str(index)
        write_audio(folder)
        state = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save({change(name): value for name, value in state.items()}, folder / "pytorch_model.bin")
        assert torch.equal(AudioEncoder.from_folder(folder)(samples), tiny.audio(samples))


def as_parametrization(name: str) -> str:
    return name.replace("weight_g", "parametrizations.weight.original0").replace(
        "weight_v", "parametrizations.weight.original1")


def test_whether_samples_are_normalised_is_read_from_the_folder(tiny: Tiny, tmp_path: Path) -> None:
    write_audio(tmp_path)
    told = json.loads((tmp_path / "preprocessor_config.json").read_text(encoding="utf-8"))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(told | {"do_normalize": True}), encoding="utf-8")
    samples = 3 * speech(1) + np.float32(0.5)
    unit = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    assert distance(AudioEncoder.from_folder(tmp_path)(samples), tiny.audio(unit)) <= CLOSE


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"[", b"[]"])
def test_a_missing_or_damaged_file_of_the_speech_encoder_is_named(
        tmp_path: Path, file: str, content: bytes | None) -> None:
    write_audio(tmp_path)
    (tmp_path / file).unlink()
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(BadWeightsError) as caught:
        AudioEncoder.from_folder(tmp_path)
    assert str(tmp_path / file) in str(caught.value)


Load = Callable[[dict[str, Tensor], Path], object]
LOADS: dict[str, tuple[dict[str, tuple[int, ...]], Load]] = {
    "vae": (codec_shapes(), lambda state, _: WanCodec.published(state, where="FILE")),
    "vision": (vision_shapes(), lambda state, _: ClipVision.from_published(state, heads=CLIP_HEADS, where="FILE")),
    "text": (text_shapes(), lambda state, words: TextEncoder.from_published(state, words, where="FILE")),
    "audio": ({f"wav2vec2.{name}": shape for name, shape in audio_shapes().items() if name != "masked_spec_embed"},
              lambda state, _: AudioEncoder.from_published(state, WAV2VEC, where="FILE")),
}


LOADS_ON_META: dict[str, Load] = {
    "vae": lambda state, _: WanCodec.published(state, device="meta"),
    "vision": lambda state, _: ClipVision.from_published(state, device="meta"),
    "text": lambda state, words: TextEncoder.from_published(state, words, device="meta"),
}


def needed(kind: str) -> Iterator[str]:
    """Names that are needed: of CLIP's last layer and head nothing is."""
    names = LOADS[kind][0]
    last = max((name.split(".")[2] for name in names if "visual.transformer" in name), default="none")
    return (name for name in names if not name.startswith((f"visual.transformer.{last}.", "visual.head")))


@pytest.mark.parametrize("kind", LOADS)
def test_every_missing_or_misshapen_tensor_is_named(kind: str, tokenizer: Path) -> None:
    shapes, load = LOADS[kind]
    state = weights(shapes, 0)
    for name in [*needed(kind)][::9]:
        with pytest.raises(BadWeightsError, match="missing") as caught:
            load({other: value for other, value in state.items() if other != name}, tokenizer)
        assert caught.value.where == "FILE"
        assert name in str(caught.value)
    name = [*needed(kind)][-1]
    with pytest.raises(BadWeightsError, match="of another shape") as caught:
        load(state | {name: torch.zeros(7, 7)}, tokenizer)
    assert f"{name} [7, 7]" in str(caught.value)


def test_the_public_networks_have_as_many_parameters_as_their_files(tokenizer: Path) -> None:
    published = {  # the text encoder's 11.36 GB hold bfloat16, the autoencoder's 0.51 GB float32
        "vae": (codec_shapes(96), 126_892_531),
        "vision": (vision_shapes(1280, 32), 31 * 19_677_440 + 1_088_000),  # without its last layer
        "text": (text_shapes(4096, 64, 10240, 24) | {"token_embedding.weight": (256_384, 4096)}, 5_680_910_336)}
    for kind, (shapes, parameters) in published.items():
        state = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        network = LOADS_ON_META[kind](state, tokenizer).network  # type: ignore[attr-defined]
        assert sum(value.numel() for value in network.parameters()) == parameters


@pytest.mark.parametrize("kind", LOADS)
def test_an_unknown_tensor_is_named(kind: str, tokenizer: Path) -> None:
    shapes, load = LOADS[kind]
    with pytest.raises(BadWeightsError, match=r"1 tensor is unknown: encoder\.lora_up\.weight"):
        load(weights(shapes, 0) | {"encoder.lora_up.weight": torch.zeros(1)}, tokenizer)


@pytest.mark.parametrize("kind", LOADS)
def test_a_network_does_not_follow_the_tensors_it_was_loaded_from(kind: str, tokenizer: Path) -> None:
    shapes, load = LOADS[kind]
    state = weights(shapes, 0)
    network = load(state, tokenizer).network  # type: ignore[attr-defined]
    before = [value.clone() for value in network.state_dict().values()]
    for value in state.values():
        value.zero_()
    assert all(torch.equal(a, b) for a, b in zip(before, network.state_dict().values(), strict=True))
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in network.parameters())


def test_known_extras_of_published_files_are_let_be(tokenizer: Path) -> None:
    extras = {"vision": ("textual.token_embedding.weight", "log_scale", "visual.head"),
              "audio": ("quantizer.codevectors", "project_q.weight", "project_hid.bias", "wav2vec2.masked_spec_embed")}
    for kind, names in extras.items():
        shapes, load = LOADS[kind]
        load(weights(shapes, 0) | {name: torch.zeros(2) for name in names}, tokenizer)
