"""Settings: three sources in rising order, errors that name the place, secrets that stay secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.doctor import examine
from flows.settings import Settings, load_settings, prefect_environment
from models.engines import ENGINES, adapter
from models.engines.options import PATHS
from models.errors import InputError


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


def test_lists_may_be_flags(empty_folder: Path) -> None:
    settings = load_settings(flags={"formats": "mp4, hls", "subtitles": ""})
    assert (settings.formats, settings.subtitles) == (("mp4", "hls"), ())
    assert load_settings(flags={"formats": ["mp4", "mkv"]}).formats == ("mp4", "mkv")


def test_paths_in_a_file_are_relative_to_it(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INFINIDUB_WEIGHTS", raising=False)
    other = empty_folder / "conf"
    other.mkdir()
    (other / "night.toml").write_text('out = "nightly"\nweights = "/srv/weights"\n[options.c2pa]\ntrust = ""\n'
                                      'certificates = "own/chain.pem"\nkey = "~/key.pem"\n'
                                      '[options.dlib-resnet]\npath = "/srv/faces"\nsha256 = "path"\n')
    settings = load_settings(other / "night.toml")
    assert settings.out == other / "nightly"
    assert settings.state == other / "nightly" / ".infinidub"
    assert settings.weights == Path("/srv/weights")
    assert settings.options == {
        "c2pa": {"trust": "", "certificates": f"{other}/own/chain.pem", "key": str(Path.home() / "key.pem")},
        "dlib-resnet": {"path": "/srv/faces", "sha256": "path"}}
    flags = load_settings(other / "night.toml", {"options.c2pa.key": "key.pem"}).options["c2pa"]
    assert flags["key"] == "key.pem", "what is typed counts from where it is typed"


def test_of_every_way_to_an_engine_it_is_known_whether_it_is_a_path() -> None:
    ways = {way for port, names in ENGINES.items() for name in names for way in adapter(port, name).CONNECTION}
    assert ways - PATHS == {"device", "memory", "attention", "compiled", "base_url", "timeout", "api_key"}
    assert ways > PATHS


def test_the_environment_names_the_file(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (empty_folder / "a.toml").write_text("crf = 30\n")
    monkeypatch.setenv("INFINIDUB_CONFIG", "a.toml")
    assert load_settings().crf == 30


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().crf = 3  # type: ignore[misc]


@pytest.mark.parametrize(("text", "where", "words"), [
    ("crff = 2\n", "infinidub.toml: crff", "unknown setting. Did you mean crf? Known: out"),
    ("crf = 99\n", "infinidub.toml: crf", "less than or equal to 51"),
    ('[engines]\nsynthesiser = "kokoro"\n', "infinidub.toml: engines.synthesiser", "no such port"),
    ('[engines]\nsynthesizer = "kokorro"\n', "infinidub.toml: engines.synthesizer", "Did you mean kokoro? There are:"),
    ("[options.kokorro]\nspeed = 1\n", "infinidub.toml: options.kokorro", "no such engine"),
    ("[options]\nkokoro = 1\n", "infinidub.toml: options.kokoro", "dictionary"),
    ('[secrets]\nkey = "x"\n', "infinidub.toml: secrets", "INFINIDUB_SECRETS__NAME"),
    ("out = 3\n", "infinidub.toml: out", "path"),
    ('device = "potato"\n', "infinidub.toml: device", "There are: cpu, cuda, cuda:N"),
    ('device = "cuda:x"\n', "infinidub.toml: device", "There are: cpu, cuda, cuda:N"),
    ('weights_mirror = "garbage"\n', "infinidub.toml: weights_mirror", "file:/FOLDER/ or s3:BUCKET/PREFIX/"),
    ('weights_mirror = "file:here"\n', "infinidub.toml: weights_mirror", "file:/FOLDER/ or s3:BUCKET/PREFIX/"),
    ('weights_mirror = "hf:a/b"\n', "infinidub.toml: weights_mirror", "file:/FOLDER/ or s3:BUCKET/PREFIX/"),
    ('store = "s3://bucket/../other"\n', "infinidub.toml: store", "s3://BUCKET/PREFIX"),
    ('store = "/srv/store"\n', "infinidub.toml: store", "s3://BUCKET/PREFIX"),
    ('store_endpoint = "http://me:secret@host"\n', "infinidub.toml: store_endpoint", "come from the environment"),
    ('store_endpoint = "file:///etc"\n', "infinidub.toml: store_endpoint", "HOST:PORT"),
    ('dispatch = "somewhere"\n', "infinidub.toml: dispatch", "'here', 'prefect' or 'job'"),
    ('gpu_pool = "a/b"\n', "infinidub.toml: gpu_pool", "pattern"),
    ("[prices]\ngpu = -1\n", "infinidub.toml: prices.gpu", "greater than or equal to 0"),
    ('formats = ["mkv"]\n', "infinidub.toml: formats", "mp4 is always among them"),
    ('formats = ["mp4", "avi"]\n', "infinidub.toml: formats.1", "'mp4', 'mkv' or 'hls'"),
    ("lease_s = 0\n", "infinidub.toml: lease_s", "greater than or equal to 1"),
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
    ("weights_mirror", "s3:bucket/prefix/"), ("weights_mirror", "s3://bucket"), ("weights_mirror", "file:/folder"),
    ("store", "s3://bucket"), ("store", "s3://bucket/some/prefix"), ("store_endpoint", "http://127.0.0.1:9000"),
    ("store_endpoint", "https://s3.example.org/"), ("gpu_pool", "gpu-pool_1")])
def test_devices_and_addresses_that_there_are(name: str, value: str) -> None:
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


def test_doctor_says_what_a_pool_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    flags = {"out": str(tmp_path), "weights": str(tmp_path / "weights"), "engines.generator": "infinitetalk"}
    alone = {check.name.strip(): check for check in examine(load_settings(flags=flags))}
    assert alone["weights wan-i2v-480p"].needed
    assert "shared by the pool" not in alone
    monkeypatch.setenv("INFINIDUB_SECRETS__WEBHOOK", "file:///s3cret")
    pooled = {check.name.strip(): check for check in examine(load_settings(flags={**flags, "dispatch": "prefect"}))}
    assert not pooled["weights wan-i2v-480p"].needed
    assert (pooled["prefect"].ok, pooled["prefect"].mend) == (False, "Set PREFECT_API_URL")
    assert "database and store" in pooled["shared by the pool"].found
    assert (pooled["webhook"].ok, "s3cret" in pooled["webhook"].found) == (False, False)
