"""Settings: three sources in rising order, errors that name the place, secrets that stay secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.doctor import examine
from flows.settings import Settings, load_settings, prefect_environment
from models.errors import InputError
from models.lockfile import read_lock


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_need_no_file(empty_folder: Path) -> None:
    settings = load_settings()
    assert settings.out == empty_folder / "dubbed"
    assert settings.state == empty_folder / "dubbed" / ".infinidub"
    assert settings.database.get_secret_value() == f"sqlite:///{settings.state}/infinidub.db"
    assert settings.engine("recognizer") == "faster-whisper"
    assert settings.engine("generator") == "passthrough"


def pretend_gpu(monkeypatch: pytest.MonkeyPatch, devices: Path, *names: str) -> None:
    devices.mkdir()
    for name in names:
        (devices / name).touch()
    monkeypatch.setattr("flows.settings.GPU_FILES", devices)
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
    assert settings.engine("generator") == "passthrough"
    assert settings.auto_lack().endswith("Get them with: infinidub models pull infinitetalk-480p")
    pretend_weights(tmp_path / "weights", *NEEDED)
    assert settings.auto_lack() == ""
    assert settings.engine("generator") == settings.engine("generator", "auto") == "infinitetalk"
    assert settings.engine("generator", "passthrough") == "passthrough"
    two = load_settings(flags={"weights": tmp_path / "weights",
                               "options.infinitetalk.weights": "infinitetalk-480p-multi"})
    assert "infinitetalk-multi" in two.auto_lack()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert settings.engine("generator") == "passthrough"


def test_auto_needs_a_device_that_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpu(monkeypatch, tmp_path / "dev", "nvidiactl", "nvidia-uvm")
    assert load_settings().auto_lack().startswith("there is no CUDA GPU here")


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


def test_flags_win_over_environment_over_file(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("infinidub.toml").write_text(
        'crf = 20\nthreads = 3\nregion = "person"\n[engines]\nsynthesizer = "espeak"\n[options.espeak]\npitch = 40\n')
    monkeypatch.setenv("INFINIDUB_THREADS", "4")
    monkeypatch.setenv("INFINIDUB_REGION", "frame")
    monkeypatch.setenv("INFINIDUB_ENGINES__SHOT_DETECTOR", "scenedetect")
    settings = load_settings(flags={"region": "person", "options.espeak.voice": "f2", "out": None})
    assert (settings.crf, settings.threads, settings.region) == (20, 4, "person")
    assert settings.engine("synthesizer") == "espeak"
    assert settings.options == {"espeak": {"pitch": 40, "voice": "f2"}}


def test_paths_in_a_file_are_relative_to_it(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFINIDUB_WEIGHTS", raising=False)
    other = empty_folder / "conf"
    other.mkdir()
    (other / "night.toml").write_text('out = "nightly"\nweights = "/srv/weights"\n')
    settings = load_settings(other / "night.toml")
    assert settings.out == other / "nightly"
    assert settings.state == other / "nightly" / ".infinidub"
    assert settings.weights == Path("/srv/weights")


def test_the_environment_names_the_file(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / "a.toml").write_text("crf = 30\n")
    monkeypatch.setenv("INFINIDUB_CONFIG", "a.toml")
    assert load_settings().crf == 30


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().crf = 3  # type: ignore[misc]


@pytest.mark.parametrize(("text", "where", "words"), [
    ("crff = 2\n", "infinidub.toml: crff", "unknown setting"),
    ("crf = 99\n", "infinidub.toml: crf", "less than or equal to 51"),
    ('[engines]\nsynthesiser = "kokoro"\n', "infinidub.toml: engines.synthesiser", "no such port"),
    ('[engines]\nsynthesizer = "kokorro"\n', "infinidub.toml: engines.synthesizer", "There are: kokoro"),
    ("[options.kokorro]\nspeed = 1\n", "infinidub.toml: options.kokorro", "no such engine"),
    ("[options]\nkokoro = 1\n", "infinidub.toml: options.kokoro", "dictionary"),
    ('[secrets]\nkey = "x"\n', "infinidub.toml: secrets", "INFINIDUB_SECRETS__NAME"),
    ("out = 3\n", "infinidub.toml: out", "path"),
    ('device = "potato"\n', "infinidub.toml: device", "There are: cpu, cuda, cuda:N"),
    ('device = "cuda:x"\n', "infinidub.toml: device", "There are: cpu, cuda, cuda:N"),
    ('weights_mirror = "garbage"\n', "infinidub.toml: weights_mirror", "file:/FOLDER/ or s3:BUCKET/PREFIX/"),
    ('weights_mirror = "file:here"\n', "infinidub.toml: weights_mirror", "file:/FOLDER/ or s3:BUCKET/PREFIX/"),
    ('weights_mirror = "hf:a/b"\n', "infinidub.toml: weights_mirror", "file:/FOLDER/ or s3:BUCKET/PREFIX/"),
    ("crf = \n", "infinidub.toml", "no TOML"),
])
def test_mistakes_in_the_file(text: str, where: str, words: str) -> None:
    Path("infinidub.toml").write_text(text)
    with pytest.raises(InputError) as caught:
        load_settings()
    assert caught.value.where == where
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("variable", "value", "where", "words"), [
    ("INFINIDUB_TREADS", "2", "INFINIDUB_TREADS", "unknown setting"),
    ("INFINIDUB_THREADS", "many", "INFINIDUB_THREADS", "integer"),
    ("INFINIDUB_ENGINES__RECOGNIZER", "whispr", "INFINIDUB_ENGINES__RECOGNIZER", "faster-whisper"),
    ("INFINIDUB_OPTIONS", "{broken", "environment", "JSON"),
])
def test_mistakes_in_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, where: str,
                                     words: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError) as caught:
        load_settings()
    assert caught.value.where == where
    assert words in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [
    ("device", "cpu"), ("device", "cuda"), ("device", "cuda:11"), ("weights_mirror", ""),
    ("weights_mirror", "s3:bucket/prefix/"), ("weights_mirror", "s3://bucket"), ("weights_mirror", "file:/folder")])
def test_devices_and_mirrors_that_there_are(name: str, value: str) -> None:
    assert getattr(load_settings(flags={name: value}), name) == value


def test_a_named_file_must_be_there() -> None:
    with pytest.raises(InputError, match=r"none\.toml.*cannot be read"):
        load_settings(Path("none.toml"))


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINIDUB_SECRETS__OPENAI_API_KEY", "sk-verysecret")
    monkeypatch.setenv("INFINIDUB_DATABASE", "postgresql+psycopg://dub:pa55word@db/dub")
    settings = load_settings()
    assert settings.secret("openai_api_key") == settings.secret("OPENAI_API_KEY") == "sk-verysecret"
    assert settings.secret("other") == ""
    shown = json.dumps(settings.shown()) + repr(settings)
    assert "verysecret" not in shown
    assert "pa55word" not in shown
    assert "postgresql+psycopg://dub:***@db/dub" in shown


def test_bad_values_are_not_echoed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFINIDUB_SECRETS", '"sk-verysecret"')
    with pytest.raises(InputError) as caught:
        load_settings()
    assert "verysecret" not in str(caught.value)


def test_prefect_is_quiet_but_the_user_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "DEBUG")
    variables = prefect_environment(Settings())
    assert variables["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] == "DEBUG"
    assert variables["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert variables["PREFECT_SERVER_DATABASE_CONNECTION_URL"].endswith("dubbed/.infinidub/prefect.db")


@pytest.mark.parametrize("address", ["postgresql+psycopg://u:se/cret@host/db", "postgresql+psycopg://u:secret@host/db",
                                     "postgresql+psycopg://host/db?password=secret", "nonsense with secret"])
def test_no_password_is_shown(address: str) -> None:
    assert "cret" not in str(load_settings(None, {"database": address}).shown()["database"])
