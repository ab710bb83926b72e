"""Training of the small transformer: what it is shown, what it is judged by, and that a run can be cut anywhere."""

from __future__ import annotations

import json
import multiprocessing
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import pytest
import torch

from flows import cli_train
from infinitetalk.conditioning import Conditioner
from infinitetalk.errors import BadInputError, BadWeightsError
from infinitetalk.networks import Networks
from infinitetalk.pictures import from_uint8
from infinitetalk.small.config import SmallConfig
from infinitetalk.small.load import load_transformer
from infinitetalk.small.vision import LatentVision
from infinitetalk.train.checkpoint import BEFORE, NEWEST, TENSORS, DivergedError, read_state, save_state
from infinitetalk.train.data import Prepared
from infinitetalk.train.dit import DitRecipe, Lesson, train_transformer, write
from infinitetalk.train.draw import TRUTH, Chunks, DrawSettings, Place
from infinitetalk.train.ema import Ema
from infinitetalk.train.flow import (
    FlowSettings,
    Samples,
    VisemeHead,
    draw,
    draw_times,
    flow_loss,
    judge,
    noised,
    withhold,
)
from infinitetalk.train.latents import ClipEncoder, EncodedClip, coverage
from infinitetalk.train.lessons import lessons as find_lessons
from infinitetalk.train.lessons import mirrored
from infinitetalk.train.loop import Recipe, Team
from infinitetalk.train.probe import Probe
from models.errors import InputError
from tests.tiny_small import MINI, clip, codec, lessons, speech, transformer, write_folder

FLOW = FlowSettings()
RECIPE = DitRecipe(run=Recipe(steps=6, rate=3e-3, warmup=2, batch=2, save_every=3), flow=replace(FLOW, visemes=0.1),
                   watched=2, shown=4, probes=2)


def chunks(**settings: object) -> Chunks:
    return Chunks(lessons().train, MINI.frames, MINI.context, DrawSettings(**settings))  # type: ignore[arg-type]


def batch(count: int = 4, seed: int = 0, **settings: object) -> Samples:
    return chunks(**settings).batch(random.Random(seed), count)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def frames_of(number: int, start: int) -> torch.Tensor:
    return from_uint8(torch.from_numpy(clip(number).frames[start:start + MINI.frames]).movedim(3, 0))


# -- what it is shown -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["context", "first", "pair"])
def test_chunks_put_together_are_what_the_engines_conditioning_gets_from_the_codec(kind: str) -> None:
    start, reference = 3, 3 if kind != "context" else 8
    sample = chunks().samples([Place(1, start, reference, kind)])  # type: ignore[arg-type]
    small = codec(MINI)
    pixels = frames_of(1, 4 * start)
    assert torch.allclose(sample.latent[0], small.encode(pixels), atol=2e-3)
    keyframes = {0: from_uint8(torch.from_numpy(clip(1).frames[4 * reference]).movedim(2, 0))}
    if kind == "pair":
        keyframes[MINI.frames - 1] = pixels[:, -1]
    network = transformer(MINI)
    conditioner = Conditioner(Networks(network, small, LatentVision(small), "pictures"), torch.zeros(0, 4), None)
    assert torch.allclose(sample.y()[0], conditioner.known(keyframes, MINI.frames), atol=2e-3)
    assert torch.allclose(sample.image, LatentVision(small)(keyframes[0]), atol=2e-3)
    assert int(sample.known) == (2 if kind == "context" else 1)
    if kind != "context":  # the stream begins a shot with the reference's own latent
        assert torch.allclose(sample.latent[:, :, 0], sample.reference[:, :, 0], atol=2e-3)


def test_a_codec_that_forgets_nothing_is_taken_as_it_is() -> None:
    class Whole:
        def encode(self, pixels: torch.Tensor) -> torch.Tensor:
            return codec(MINI).encode(pixels) + pixels[:, 0].mean()

    encode = ClipEncoder(Whole(), speech(MINI), MINI.frames, MINI.side)  # type: ignore[arg-type]
    assert encode.reach == 3
    clips = [encode(clip(0))]
    sample = Chunks(clips, MINI.frames, MINI.context, DrawSettings()).samples([Place(0, 2, 5, "context")])
    assert torch.allclose(sample.latent[0], Whole().encode(frames_of(0, 8)), atol=2e-3)


def test_the_audio_is_that_of_the_chunks_frames() -> None:
    sample = chunks(audio="truth").samples([Place(0, 3, 3, "first")])
    truth = torch.from_numpy(clip(0).visemes[12:12 + MINI.frames, 0])
    assert torch.allclose(sample.windows[0, 0, :, 2, 0, 0] / TRUTH, truth, atol=1e-2)
    assert torch.allclose(sample.windows[0, 0, 1:, 1, 0, 0] / TRUTH, truth[:-1], atol=1e-2)
    later = chunks(audio="truth").samples([Place(0, 3, 3, "first")], later=7)
    assert torch.allclose(later.windows[0, 0, 0, 2, 0, 0] / TRUTH, torch.tensor(clip(0).visemes[19, 0]), atol=1e-2)


@pytest.mark.parametrize(("sampler", "least", "most"), [("M0", 0, 0), ("M1", 0, 0), ("M2", 43, 119), ("M3", 1, 25)])
def test_references_are_drawn_where_their_sampler_says(sampler: str, least: int, most: int) -> None:
    encode = ClipEncoder(codec(MINI), speech(MINI), MINI.frames, MINI.side)
    drawn = Chunks([encode(clip(0, 120))], MINI.frames, MINI.context,
                   DrawSettings(reference=sampler, first=0))  # type: ignore[arg-type]
    rng = random.Random(0)
    places = [drawn.place(rng) for _ in range(120)]
    for place in places:
        start, at = 4 * place.start, 4 * place.reference
        away = max(start - at, at - start - MINI.frames + 1, 0)
        assert least <= away <= most
        if sampler == "M1":
            assert at in (start, start + MINI.frames - 1)
        if sampler == "M2":
            assert away >= 50 or at in (0, 116)
    assert len({place.reference for place in places}) > 5


def test_a_second_reference_lies_later_and_is_shown_at_the_end_as_the_engine_shows_it() -> None:
    drawn = chunks(both=True, first=0.0)
    rng = random.Random(0)
    places = [drawn.place(rng) for _ in range(50)]
    assert all(place.second is not None and place.second >= place.reference for place in places)
    sample = drawn.samples([Place(1, 3, 2, "context", 8)])
    small = codec(MINI)
    keyframes = {at: from_uint8(torch.from_numpy(clip(1).frames[frame]).movedim(2, 0))
                 for at, frame in ((0, 8), (MINI.frames - 1, 32))}
    networks = Networks(transformer(MINI), small, LatentVision(small), "pictures")
    conditioner = Conditioner(networks, torch.zeros(0, 4), None)
    assert torch.allclose(sample.y()[0], conditioner.known(keyframes, MINI.frames, soft=True), atol=2e-3)
    assert not torch.equal(sample.y()[0, :4], conditioner.known(keyframes, MINI.frames)[:4])


def test_what_is_remembered_of_losses_holds_no_graph() -> None:
    lesson = Lesson(transformer(MINI), None, chunks(), RECIPE)
    lesson(np.random.default_rng(0))
    assert {type(value) for one in lesson.seen for value in one.values()} == {float}


def met(rank: int, meeting: Path, told: Queue[tuple[int, list[float], bool]]) -> None:
    team = Team(rank, 2, meeting)
    network = torch.nn.Linear(2, 1)
    for one in network.parameters():
        one.grad = torch.full_like(one, float(rank))
    team.average(network)
    told.put((rank, network.weight.grad.flatten().tolist(), team.agree(rank == 0)))
    team.leave()


def test_processes_of_a_team_go_on_with_the_mean_of_their_gradients_until_the_first_says_stop(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    told: Queue[tuple[int, list[float], bool]] = context.Queue()
    both = [context.Process(target=met, args=(rank, tmp_path / "meeting", told), daemon=True) for rank in range(2)]
    for one in both:
        one.start()
    assert sorted(told.get(timeout=120) for _ in both) == [(0, [0.5, 0.5], True), (1, [0.5, 0.5], True)]
    for one in both:
        one.join(60)


def test_shares_are_as_asked() -> None:
    drawn = chunks(first=0.3, pairs=0.2)
    rng = random.Random(1)
    kinds = [drawn.place(rng).kind for _ in range(2000)]
    assert kinds.count("first") / 2000 == pytest.approx(0.3, abs=0.03)
    assert kinds.count("pair") / 2000 == pytest.approx(0.2, abs=0.03)


def test_mouths_are_where_their_boxes_are() -> None:
    cells = coverage(np.array([[8, 0, 20, 8]], np.float32), 4)[0]
    assert cells.tolist() == [[0, 1, 0.5, 0], [0] * 4, [0] * 4, [0] * 4]


def test_times_lie_near_the_noise() -> None:
    times = draw_times(4000, 3.0, generator())
    assert 0 < float(times.min()) < float(times.max()) < 1
    assert float(times.median()) == pytest.approx(0.75, abs=0.02)


def test_dropout_is_as_asked() -> None:
    many = batch(2)
    many = Samples(**{name: value[:1].expand(2000, *value.shape[1:]) for name, value in vars(many).items()})
    drawn = draw(many, replace(FLOW, audio_drop=0.1, reference_drop=0.05), generator())
    assert float(drawn.silent.float().mean()) == pytest.approx(0.1, abs=0.02)
    assert float(drawn.blind.float().mean()) == pytest.approx(0.05, abs=0.015)
    told = withhold(many, drawn)
    quiet = told.windows.flatten(1).abs().amax(1) == 0
    assert torch.equal(quiet, drawn.silent)
    assert torch.equal(told.mask.flatten(1).amax(1) == 0, drawn.blind)
    assert not told.reference[drawn.blind].any()
    assert not told.image[drawn.blind].any()


def test_context_is_clean_but_for_a_little_noise() -> None:
    samples = batch(64)
    x = noised(samples, draw(samples, FLOW, generator()))
    for one, truth, known in zip(x, samples.latent, samples.known.tolist(), strict=True):
        assert float((one - truth)[:, :known].std()) < 0.12
        assert float((one - truth)[:, known:].std()) > 0.05
    clean = draw(samples, replace(FLOW, context_noise=0), generator())
    assert torch.equal(noised(samples, clean)[:, :, 0], samples.latent[:, :, 0])


# -- what it is judged by ---------------------------------------------------------------------------------------------


def test_context_never_enters_the_loss() -> None:
    samples = batch(6, first=0.5)
    drawn = draw(samples, FLOW, generator())
    velocity = torch.zeros_like(samples.latent, requires_grad=True)
    sum(flow_loss(velocity, samples, drawn, 4.0)).backward()  # type: ignore[union-attr]
    assert velocity.grad is not None
    for slopes, known in zip(velocity.grad, samples.known.tolist(), strict=True):
        assert not slopes[:, :known].any()
        assert slopes[:, known:].abs().amax((0, 2, 3)).min() > 0


def test_the_target_is_noise_minus_data_and_mouths_weigh_more() -> None:
    samples = batch(3)
    drawn = draw(samples, FLOW, generator())
    right = drawn.noise - samples.latent
    assert [float(loss) for loss in flow_loss(right, samples, drawn, 4.0)] == [0, 0]
    in_mouth = right + (samples.mouth > 0)[:, None]
    loss, mouth = flow_loss(in_mouth, samples, drawn, 4.0)
    assert float(mouth) == pytest.approx(1)
    assert float(loss) > float(flow_loss(in_mouth, samples, drawn, 1.0)[0])


def test_the_viseme_head_leads_back_to_the_blocks_below_it() -> None:
    network = transformer(MINI, dull=True)
    head = VisemeHead(network, torch.rand(50, 11), 0)
    samples = batch(2)
    loss = judge(network, samples, draw(samples, FLOW, generator()), replace(FLOW, visemes=1.0), head)
    (loss.total - loss.flow).backward()
    assert network.blocks[0].audio_cross_attn.proj.weight.grad.abs().max() > 0
    assert network.blocks[1].ffn[0].weight.grad is None or not network.blocks[1].ffn[0].weight.grad.any()


def test_a_network_learns_what_it_is_shown_again_and_again() -> None:
    network = transformer(MINI, dull=True)
    samples = batch(2)
    drawn = draw(samples, FLOW, generator())
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        loss = judge(network, samples, drawn, FLOW).total
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_the_gap_is_zero_for_those_who_do_not_listen_and_opens_for_those_who_do() -> None:
    probe = Probe.of(chunks(), 2)
    deaf = transformer(MINI)
    for block in deaf.blocks:
        torch.nn.init.zeros_(block.audio_cross_attn.proj.weight)
    told = probe.measure(deaf)
    assert told["gap_shifted"] == told["gap_foreign"] == 0
    assert told["mouth"] > 0
    torch.nn.init.normal_(deaf.blocks[0].audio_cross_attn.proj.weight, std=1.0)
    assert probe.measure(deaf)["gap_foreign"] != 0
    assert not torch.equal(probe.sounds["true"], probe.sounds["shifted"])


# -- the run ----------------------------------------------------------------------------------------------------------


def run(out: Path, minutes: float = 1, **changes: object) -> list[dict[str, float]]:
    told: list[dict[str, float]] = []
    out.mkdir(exist_ok=True)
    train_transformer(lessons(), out, MINI, minutes, recipe=replace(RECIPE, **changes), told=told.append,  # type: ignore[arg-type]
                      codec=codec(MINI))
    return told


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "run" / NEWEST / TENSORS))


@contextmanager
def stopped(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever run is begun within is stopped after the state of its third step."""
    step, steps = Lesson.__call__, 0

    def pulled(self: Lesson, rng: np.random.Generator) -> torch.Tensor:
        nonlocal steps
        steps += 1
        if steps == 5:
            raise KeyboardInterrupt
        return step(self, rng)

    with monkeypatch.context() as patched:
        patched.setattr(Lesson, "__call__", pulled)
        with pytest.raises(KeyboardInterrupt):
            yield


def test_a_run_that_was_cut_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run(tmp_path / "whole")
    assert [line["step"] for line in lines] == [0, 2, 4, 6]
    assert {"mouth", "gap_shifted", "gap_foreign"} <= set(lines[0])
    written = (tmp_path / "whole" / "run" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in written] == [0, 2, 4, 6]
    assert (tmp_path / "whole" / "run" / "sheets" / "0000004.png").stat().st_size > 0
    with stopped(monkeypatch):
        run(tmp_path / "cut")
    run(tmp_path / "cut")
    whole, cut = tensors(tmp_path / "whole"), tensors(tmp_path / "cut")
    assert whole.keys() == cut.keys()
    assert all(torch.equal(value, cut[name]) for name, value in whole.items())
    files = [(tmp_path / name / "dit.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_a_run_of_another_recipe_or_configuration_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(BadInputError, match="another"):
        run(tmp_path, watched=3)
    with pytest.raises(BadInputError, match="another"):
        train_transformer(lessons(), tmp_path, replace(MINI, context=9), 1, recipe=RECIPE)


def test_a_loss_that_is_no_number_stops_with_the_last_good_state(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    step, steps = Lesson.__call__, 0

    def bad(self: Lesson, rng: np.random.Generator) -> torch.Tensor:
        nonlocal steps
        steps += 1
        return step(self, rng) * (float("nan") if steps == 5 else 1)

    monkeypatch.setattr(Lesson, "__call__", bad)
    with pytest.raises(DivergedError, match="nan at step 4"):
        run(tmp_path)
    state = tensors(tmp_path)
    assert all(bool(value.isfinite().all()) for value in state.values())
    monkeypatch.undo()
    assert [line["step"] for line in run(tmp_path)] == [4, 6]


def test_a_run_begins_with_given_weights(tmp_path: Path) -> None:
    run(tmp_path / "first")
    told: list[dict[str, float]] = []
    train_transformer(lessons(), tmp_path / "second", MINI, 1, recipe=RECIPE, told=told.append,
                      start=tmp_path / "first" / "dit.safetensors")
    assert told[0]["flow"] != 0
    with pytest.raises(BadWeightsError, match="configuration"):
        train_transformer(lessons(), tmp_path / "third", replace(MINI, context=9), 1, recipe=RECIPE,
                          start=tmp_path / "first" / "dit.safetensors")


def test_given_weights_are_told_at_the_beginning_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
    given = load_transformer(tmp_path / "dit.safetensors", MINI)
    given.kept.add_(0.25)  # as if measured on other people
    write(given, MINI, tmp_path)
    train_transformer(lessons(), tmp_path / "whole", MINI, 1, recipe=RECIPE, start=tmp_path / "dit.safetensors")
    with stopped(monkeypatch):
        train_transformer(lessons(), tmp_path / "cut", MINI, 1, recipe=RECIPE, start=tmp_path / "dit.safetensors")
    train_transformer(lessons(), tmp_path / "cut", MINI, 1, recipe=RECIPE)
    files = [(tmp_path / name / "dit.safetensors").read_bytes() for name in ("whole", "cut")]
    assert files[0] == files[1]


def test_states_are_whole_or_the_one_before(tmp_path: Path) -> None:
    for step in (1, 2):
        save_state(tmp_path, step, "x", {"a": torch.tensor([float(step)])})
    found = read_state(tmp_path, "x")
    assert found is not None
    assert found.step == 2
    (tmp_path / NEWEST / TENSORS).write_bytes(b"torn")
    older = read_state(tmp_path, "x")
    assert older is not None
    assert older.step == 1
    with pytest.raises(DivergedError):
        save_state(tmp_path, 3, "x", {"a": torch.tensor([float("nan")])})
    (tmp_path / BEFORE / TENSORS).write_bytes(b"torn")
    with pytest.raises(BadWeightsError, match="damaged"):
        read_state(tmp_path, "x")
    assert read_state(tmp_path / "none", "x") is None


def test_the_average_follows_its_formula() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    network.weight.data.fill_(1.0)
    average = Ema(network, 0.999)
    network.weight.data.fill_(0.0)
    average.update(network, 1)
    assert float(average.values["weight"]) == pytest.approx(2 / 11)
    average.values["weight"].fill_(1.0)
    average.update(network, 1_000_000)
    assert float(average.values["weight"]) == pytest.approx(0.999)


def test_an_encoded_clip_comes_back_from_its_file(tmp_path: Path) -> None:
    one = lessons().train[0]
    one.save(tmp_path / "clip.safetensors")
    back = EncodedClip.load(tmp_path / "clip.safetensors")
    assert back.frames == one.frames
    assert torch.allclose(back.whole.float(), one.whole.float(), rtol=2e-3, atol=1e-2)
    (tmp_path / "clip.safetensors").write_bytes(b"torn")
    with pytest.raises(BadWeightsError, match="no encoded clip"):
        EncodedClip.load(tmp_path / "clip.safetensors")


# -- from a folder ----------------------------------------------------------------------------------------------------


def prepared(out: Path, *held_out: bool, frames: int = 40) -> Path:
    """What `data.prepare` leaves."""
    entries = []
    for index, held in enumerate(held_out):
        entries.append({"name": f"clip{index}", "frames": frames, "held_out": held})
        (out / "clips" / f"clip{index}").mkdir(parents=True)
        for part, value in vars(clip(index, frames if index else 9)).items():
            np.save(out / "clips" / f"clip{index}" / f"{part}.npy", value)
    (out / "clips" / "index.json").write_text(json.dumps({"side": MINI.side, "close": True, "clips": entries}))
    return write_folder(out, MINI)


@pytest.fixture
def no_preparing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infinitetalk.train.lessons.prepare", lambda *args, **how: Prepared(
        0, {"torn": "cannot be read"}))


@pytest.mark.usefixtures("no_preparing")
def test_clips_are_encoded_once_and_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    prepared(tmp_path, False, False, False, True)
    told: list[str] = []
    taught = find_lessons(tmp_path, tmp_path, MINI, told.append)
    assert (len(taught.lessons.train), len(taught.lessons.held), len(told)) == (4, 1, 6)  # mirrored, too
    assert len(taught.skipped) == 2  # the torn one, and one that is shorter than a chunk
    again = find_lessons(tmp_path, tmp_path, MINI, told.append)
    assert len(told) == 7  # the short one is looked at again
    assert torch.equal(again.lessons.train[0].whole, taught.lessons.train[0].whole)
    write_folder(tmp_path, MINI, seed=1)
    other = find_lessons(tmp_path, tmp_path, MINI)
    assert not torch.equal(other.lessons.train[0].whole, taught.lessons.train[0].whole)


@pytest.mark.usefixtures("no_preparing")
def test_of_clips_without_a_split_one_in_ten_is_held_out(tmp_path: Path) -> None:
    prepared(tmp_path, *[False] * 4)
    taught = find_lessons(tmp_path, tmp_path, MINI)
    assert (len(taught.lessons.train), len(taught.lessons.held)) == (4, 1)


def test_a_mirrored_clip_says_the_same_with_its_mouth_on_the_other_side() -> None:
    filmed = clip(0)
    filmed.mouth[3] = 0
    other = mirrored(filmed, np.random.default_rng(0))
    left, top, right, bottom = filmed.mouth[0].astype(int)
    inside = other.mouth[0].astype(int)
    there, here = other.frames[5][inside[1]:inside[3], inside[0]:inside[2]][:, ::-1], filmed.frames[5][top:bottom,
                                                                                                      left:right]
    for color in range(3):  # in other light, what was brighter stays brighter
        before, after = (np.concatenate([one[..., color].ravel(), whole[5, ::8, ::8, color].ravel()]).astype(int)
                         for one, whole in ((here, filmed.frames), (there, other.frames[:, :, ::-1])))
        assert (np.diff(after[np.argsort(before, kind="stable")]) >= 0).all()
    assert not np.array_equal(other.frames, filmed.frames[:, :, ::-1])
    assert not other.mouth[3].any()
    assert np.array_equal(mirrored(other, np.random.default_rng(0)).mouth, filmed.mouth)
    assert np.array_equal(other.visemes, filmed.visemes)


def test_stages_have_their_order(tmp_path: Path) -> None:
    prepared(tmp_path, False, False)
    (tmp_path / "speech.safetensors").unlink()
    with pytest.raises(BadWeightsError, match="train speech"):
        find_lessons(tmp_path, tmp_path, MINI)


@pytest.mark.usefixtures("no_preparing")
def test_too_few_clips_are_said(tmp_path: Path) -> None:
    prepared(tmp_path, False, False)
    with pytest.raises(BadInputError, match="0 clips to learn from and 1 to hold out, 2 skipped"):
        find_lessons(tmp_path, tmp_path, MINI)


@pytest.mark.usefixtures("no_preparing")
def test_the_verb_begins_goes_on_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    prepared(tmp_path, False, False, False, True)
    monkeypatch.setattr("infinitetalk.small.config.PRESETS", {"lite": MINI})
    recipe = replace(RECIPE, watched=50, shown=50)
    monkeypatch.setattr("infinitetalk.train.dit.DitRecipe", lambda: recipe)

    def verb(**options: object) -> int:
        return cli_train.train_dit(tmp_path, tmp_path, steps=6, **options)  # type: ignore[arg-type]

    with pytest.raises(InputError, match="no run to go on with"):
        verb(resume=True)
    assert verb(as_json=True, visemes=0.0) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["step"], told["finished"], told["skipped"]) == (6, True, 2)
    with pytest.raises(InputError, match="holds a run already"):
        verb()
    assert verb(resume=True, visemes=0.0) == 0
    with pytest.raises(InputError, match="another"):
        verb(resume=True, visemes=0.2)
    with pytest.raises(InputError, match="M0, M1, M2, M3"):
        verb(resume=True, sampler="M7")
    with pytest.raises(InputError, match="speech or truth"):
        verb(resume=True, heard="music")
    with pytest.raises(InputError, match="lite"):
        verb(size="huge")
    assert verb(resume=True, visemes=0.0) == 0
    assert "2 clips skipped" in capsys.readouterr().out
    monkeypatch.setattr("infinitetalk.small.config.PRESETS", {"lite": replace(MINI, context=9)})
    with pytest.raises(InputError, match="another configuration"):
        verb(resume=True, visemes=0.0)
    assert SmallConfig.read(tmp_path).digest() == MINI.digest()
