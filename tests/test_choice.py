"""Which generator is taken: what is named, the best that can run here, or none; said in one line, never replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flows.choice import choose
from flows.doctor import examine
from flows.jobs import Selected, catalog_jobs, select
from flows.preflight import choices, lacking
from flows.settings import Settings, load_settings
from flows.wiring import open_workspace
from models.catalog import load_catalog
from models.lockfile import read_lock
from tests import fakes
from tests.tiny_small import TINY, write_folder


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.choice.GPU_FILES", tmp_path / "none")


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, devices: Path, *names: str) -> None:
    devices.mkdir()
    for name in names:
        (devices / name).touch()
    monkeypatch.setattr("flows.choice.GPU_FILES", devices)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def pretend_weights(folder: Path, *names: str) -> None:
    """Sparse files of the right sizes: 'auto' looks at no more."""
    for name in names:
        entry = read_lock().entries[name]
        facts = [f'["{file}"]\norigin = "{"/".join(entry.place(file))}"\nsize = 3\nsha256 = "{"0" * 64}"\n'
                 for file in entry.unlocked]
        for file, locked in entry.files.items():
            path = folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as out:
                out.truncate(3 if file in entry.unlocked else locked.size)
        (folder / f"{name}.lock.toml").write_text("\n".join(facts))


NEEDED = ("wan-i2v-480p", "wan-companions", "infinitetalk-single", "chinese-wav2vec2-base")


def test_auto_generates_where_gpu_libraries_and_weights_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    pretend_gpu(monkeypatch, tmp_path / "dev", "nvidia0", "nvidiactl")
    settings = load_settings(flags={"weights": tmp_path / "weights"})
    assert choose(settings).name == "passthrough"
    assert choose(settings).lack.endswith("Get them with: infinidub models pull infinitetalk-480p")
    pretend_weights(tmp_path / "weights", *NEEDED)
    assert choose(settings).lack == ""
    assert choose(settings).name == choose(settings, "auto").name == settings.engine("generator") == "infinitetalk"
    assert choose(settings, "passthrough").name == "passthrough"
    assert {choose(settings, small).name for small in ("nano", "lite", "small")} == {"infinitetalk"}
    two = load_settings(flags={"weights": tmp_path / "weights",
                               "options.infinitetalk.weights": "infinitetalk-480p-multi"})
    assert "infinitetalk-multi" in choose(two).lack
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert choose(settings).name == "passthrough"


def test_on_a_pool_auto_does_not_look_at_the_gpu_of_this_machine(tmp_path: Path) -> None:
    settings = load_settings(flags={"weights": tmp_path, "dispatch": "prefect", "gpu_pool": "h100"})
    assert choose(settings).line == ("generator passthrough, so pictures stay as they are (infinitetalk: the weights "
                                     "infinitetalk-single are not known here)")
    pretend_weights(tmp_path, "infinitetalk-single")
    for named in (None, "small"):
        assert choose(settings, named).line.startswith(
            "generator infinitetalk, since shards go to the pool h100, and its weights are known here")
    assert "no CUDA GPU" not in {check.name.strip() for check in examine(settings)}


def test_auto_needs_a_device_that_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, tmp_path / "dev", "nvidiactl", "nvidia-uvm")
    assert choose(load_settings()).lack.startswith("there is no CUDA GPU here")


def test_doctor_says_why_pictures_stay_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("diffusers")
    pretend_gpu(monkeypatch, tmp_path / "dev", "nvidia0")
    checks = {check.name.strip(): check for check in examine(load_settings(flags={"weights": tmp_path}))}
    assert not checks["no generated pictures"].needed
    assert checks["no generated pictures"].mend.endswith("infinidub models pull infinitetalk-480p")
    asked = examine(load_settings(flags={"weights": tmp_path, "engines.generator": "infinitetalk"}))
    checks = {check.name.strip(): check for check in asked}
    assert "no generated pictures" not in checks
    assert {(checks[f"weights {name}"].ok, checks[f"weights {name}"].mend) for name in NEEDED} == {
        (False, "infinidub models pull infinitetalk-480p")}


def test_doctor_says_what_the_large_generator_means_without_a_gpu(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, tmp_path / "dev")
    asked = load_settings(flags={"weights": tmp_path, "engines.generator": "infinitetalk"})
    checks = {check.name.strip(): check for check in examine(asked)}
    assert not checks["no CUDA GPU"].ok
    assert not checks["no CUDA GPU"].needed
    assert "hours on a CPU" in checks["no CUDA GPU"].found
    assert "no CUDA GPU" not in {check.name.strip() for check in examine(load_settings())}
    (tmp_path / "dev" / "nvidia0").touch()
    assert "no CUDA GPU" not in {check.name.strip() for check in examine(asked)}


# -- what is named ----------------------------------------------------------------------------------------------------


def pretend_small(tmp_path: Path, *sizes: str) -> Settings:
    """Settings under which weights of these sizes are here, and no others."""
    for size in sizes:
        write_folder(tmp_path / size, TINY)
    return load_settings(flags={f"options.{size}.path": str(tmp_path / size) for size in ("nano", "lite")})


def test_what_the_settings_name_is_taken_here_or_not(tmp_path: Path) -> None:
    paths = {f"options.{size}.path": str(tmp_path) for size in ("nano", "lite")}
    for name in ("lite", "small"):
        settings = load_settings(flags={"engines.generator": name, **paths})
        assert choose(settings, "passthrough").name == "lite"
        assert any("generator lite: there are no whole weights" in lack
                   for lack in lacking(open_workspace(settings), selected(settings, tmp_path)))


def selected(settings: Settings, folder: Path, **fields: Any) -> list[Selected]:
    return select(catalog_jobs(load_catalog(fakes.series(folder / "series", **fields)), settings.out))


def test_what_a_catalog_names_is_never_replaced_by_less(tmp_path: Path) -> None:
    settings = pretend_small(tmp_path)
    assert choose(settings, "lite").name == "lite"
    assert choose(settings, "files").name == "files"
    assert choose(settings, "infinitetalk").name == "infinitetalk"


def test_small_is_nano_while_that_is_quick_else_lite_else_nothing(tmp_path: Path) -> None:
    none = pretend_small(tmp_path)
    assert choose(none, "small", 60).name == "passthrough"
    assert "nano and lite: their weights are not here" in choose(none, "small").line
    lite = pretend_small(tmp_path, "lite")
    assert choose(lite, "small", 60).name == "lite"
    both = pretend_small(tmp_path, "nano", "lite")
    assert choose(both, "small", 60).name == "nano"
    long = choose(both, "small", 600)
    assert long.name == "lite"
    assert "nano would take 20 minutes" in long.line


def test_an_episode_names_its_own_generator_over_the_catalogs(tmp_path: Path) -> None:
    catalog = fakes.series(tmp_path / "series", [{"id": "a", "video": "a.mp4"},
                                                 {"id": "b", "video": "b.mp4", "generator": "passthrough"}],
                           generator="small", languages=["es", "fr"])
    settings = pretend_small(tmp_path, "lite")
    jobs = {job.id: job for job in catalog_jobs(load_catalog(catalog), settings.out)}
    assert [jobs["fake/a"].generator, jobs["fake/b"].generator] == ["small", "passthrough"]
    assert jobs["fake/a"].picture_s == pytest.approx(2 * fakes.SECONDS, abs=0.2)  # of a, in two languages


def test_one_line_says_what_is_taken_and_what_it_knows(tmp_path: Path) -> None:
    settings = pretend_small(tmp_path, "lite")
    [line] = choices(settings, selected(settings, tmp_path, episodes=2, generator="small"))
    assert line.startswith("generator lite, as the catalog says (infinitetalk: there is no CUDA GPU here)")
    assert line.endswith("real faces will not be kept")
    [line] = choices(settings, selected(settings, tmp_path))
    assert line == "generator passthrough, so pictures stay as they are (infinitetalk: there is no CUDA GPU here)"


def test_doctor_says_whether_small_weights_are_here(tmp_path: Path) -> None:
    def small(settings: Settings) -> Any:
        return next(check for check in examine(settings) if check.name.strip() == "small weights")

    absent, here = small(pretend_small(tmp_path)), small(pretend_small(tmp_path, "lite"))
    assert (absent.ok, absent.needed, here.ok, here.found) == (False, False, True, "lite")
