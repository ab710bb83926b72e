"""GPU seconds beforehand: by the engine's own operations, bent by what past runs took; and room on the GPU."""

from __future__ import annotations

from typing import Any

import pytest

from models.engines.infinitetalk import InfiniteTalk
from models.errors import CapacityError, InputError, SetupError
from models.pool import History
from models.ports import EngineHome
from models.records import Artifact, EngineRef, FaceTrack, ShotRequest, SpeakerTrack
from tasks.estimate import Estimator, Estimators
from tasks.pack import pack

FACES = tuple(FaceTrack(id=i, boxes=((0, 100 + 300 * i, 100, 100, 100),)) for i in range(2))
PEAK = 989.5e12
"""Dense BF16 operations a second of an H100 or H200."""


def shot(frames: int = 81 + 29 * 72, engine: str = "infinitetalk", speakers: int = 1, width: int = 832,
         height: int = 480, options: dict[str, Any] | None = None, **changes: Any) -> ShotRequest:
    """A shot of whole chunks, so that no short last one shows in the figure."""
    return ShotRequest(**{
        "shot": "S0001", "source": Artifact(sha256="0" * 64, size=1, media_type="video/mp4"), "start": 0,
        "end": frames, "width": width, "height": height, "rate": "25", "faces": FACES,
        "tracks": tuple(SpeakerTrack(speaker=str(i), lines=()) for i in range(speakers)), "profile": "fast-4",
        "generator": EngineRef(name=engine, options=options or {})} | changes)


def test_the_fast_mode_takes_what_its_operations_take() -> None:
    """Four forwards a chunk at full peak are 2.6 s a second of picture; 60 % of it is reached, 18 % in the VAE."""
    request = shot(options={"area": 480 * 832})
    chunk = 4 * 1.825e15 / PEAK
    assert chunk / (72 / 25) == pytest.approx(2.6, rel=0.03)
    codec = (275e12 + 164e12 + 20e12) / (0.18 * PEAK)  # decode, a reference, nine frames of context
    per_second = InfiniteTalk.gpu_seconds(request) / (request.end / 25)
    assert per_second == pytest.approx((chunk / 0.6 + codec) / (72 / 25), rel=0.03)


def test_the_estimate_knows_what_makes_a_shot_dear() -> None:
    def seconds(**changes: Any) -> float:
        return InfiniteTalk.gpu_seconds(shot(**changes))

    base = seconds()
    assert seconds(profile="default") / base > 15  # 40 steps of 3 forwards against 4 of 1
    assert seconds(options={"weights": "infinitetalk-720p"}) > 3 * base
    assert seconds(options={"steps": 8}) > 1.6 * base
    assert seconds(frames=81) < base / 25
    assert seconds(speakers=2) == base
    assert seconds(speakers=2, options={"weights": "infinitetalk-480p-multi"}) > base
    assert seconds(reference="image") < base
    with pytest.raises(InputError, match="no-such"):
        seconds(profile="no-such")


def test_without_past_runs_the_engines_model_counts_or_a_guess() -> None:
    fresh = Estimator(History())
    assert fresh.basis(shot()) == "model"
    assert fresh.seconds(shot()) == InfiniteTalk.gpu_seconds(shot())
    assert fresh.basis(shot(engine="nano")) == "guess"
    assert fresh.seconds(shot(50, engine="nano")) == 50.0
    assert fresh.startup_s == 90.0


@pytest.mark.parametrize("engine", ["infinitetalk", "nano"])
def test_past_runs_bend_the_estimate_and_it_stays_bent(engine: str) -> None:
    """A second round learns from shards that were packed by the first one's lesson, and must not unlearn it."""
    request, truth = shot(engine=engine), 1.7 * Estimator(History()).seconds(shot(engine=engine))
    known = Estimator(History())
    for _ in range(3):
        (packed,) = pack([request], [known.seconds(request)], ["r"], episode="s/e", language="es",
                         correction=known.correction)
        known = Estimator(History(frames=request.end, seconds=truth, estimated=packed.estimate_s,
                                  startups=(40.0, 60.0, 200.0)))
        assert known.seconds(request) == pytest.approx(truth)
        assert known.basis(request) == "measured"
        assert known.startup_s == 60.0


def test_each_engine_is_asked_for_its_past_once() -> None:
    asked: list[str] = []
    known = Estimators(lambda engine: asked.append(engine) or History())  # type: ignore[func-returns-value]
    assert known.of("nano") is known.of("nano")
    known.of("infinitetalk")
    assert asked == ["nano", "infinitetalk"]


# -- room on the GPU --------------------------------------------------------------------------------------------------


def on_a_gpu(monkeypatch: pytest.MonkeyPatch, total: float, free: float, **options: Any) -> InfiniteTalk:
    """The generator on a GPU of so many GB."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties",
                        lambda _device: type("Card", (), {"total_memory": int(total * 1e9)}))
    monkeypatch.setattr("infinitetalk.memory.free_memory", lambda _device: int(free * 1e9))
    return InfiniteTalk(EngineRef(name="infinitetalk", options=options),
                        EngineHome(weights=lambda _name: pytest.fail("weights were looked at"), device="cuda"))


def test_a_gpu_with_room_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_gpu(monkeypatch, total=85, free=80).check_memory()
    on_a_gpu(monkeypatch, total=25, free=24).check_memory()  # block by block


def test_a_gpu_that_something_else_fills_is_left_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CapacityError, match=r"need .* GB .* 3\.0 GB are free"):
        on_a_gpu(monkeypatch, total=85, free=3).check_memory()


def test_a_gpu_that_is_too_small_is_never_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SetupError, match=r"4\.0 GB are free"):
        on_a_gpu(monkeypatch, total=4, free=4).check_memory()


def test_a_cpu_has_no_memory_to_check() -> None:
    InfiniteTalk(EngineRef(name="infinitetalk"), EngineHome(weights=lambda _name: pytest.fail("looked"))).check_memory()
