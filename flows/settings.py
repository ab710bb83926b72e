"""Settings: infinidub.toml, then the environment (`INFINIDUB_…`), then flags, each over the one before.

The one place that reads the environment. Unknown names are errors, and secrets come from the environment alone:
`INFINIDUB_SECRETS__OPENAI_API_KEY`, say.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from flows.choice import WORDS, choose
from models.downloads import mirror
from models.engines import ENGINES
from models.engines.options import PATHS
from models.errors import InputError, nearest
from models.loudness import PresetName
from models.records import Scalar
from tasks.store import S3_ADDRESS

CONFIG_FILE = "infinidub.toml"
PREFIX = "INFINIDUB_"
PREFECT_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the user interface has them all
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "UVICORN_LOOP": "flows.ephemeral:loop",  # such a server ends with its run
}
"""How Prefect behaves under `infinidub` unless the user's own environment says otherwise."""

DEFAULT_ENGINES = {
    "recognizer": "faster-whisper", "diarizer": "ge2e", "language-identifier": "py3langid", "translator": "apertium",
    "synthesizer": "kokoro", "shot-detector": "scenedetect", "face-detector": "dlib", "signer": "c2pa",
    "generator": "auto",
}

UNCHOSEN = ("separator", "face-embedder", "lip-scorer")
"""Ports without an engine unless one is chosen: what they would do is then not done (see `Workspace.lip_scorer`)."""


def _engines(chosen: dict[str, str]) -> dict[str, str]:
    for port, name in chosen.items():
        if port not in (known := [*DEFAULT_ENGINES, *UNCHOSEN]):
            raise ValueError(f"@{port}@there is no such port. {nearest(port, known)}There are: {', '.join(known)}")
        if name not in ENGINES[port] and not (port == "generator" and name in WORDS):
            raise ValueError(f"@{port}@no {port} is called {name!r}. {nearest(name, ENGINES[port])}There are: "
                             f"{', '.join(ENGINES[port])}")
    return DEFAULT_ENGINES | chosen


def _options(options: dict[str, dict[str, Scalar]]) -> dict[str, dict[str, Scalar]]:
    known = [name for names in ENGINES.values() for name in names]
    for engine in options:
        if engine not in known:
            raise ValueError(f"@{engine}@there is no such engine. There are: {', '.join(known)}")
    return options


def _listed(value: object) -> object:
    """A flag's `mp4,hls` as the list that a file would hold."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _formats(formats: tuple[str, ...]) -> tuple[str, ...]:
    if "mp4" not in formats:
        raise ValueError("mp4 is always among them: it is what is checked and signed")
    return formats


def _device(name: str) -> str:
    if not re.fullmatch(r"cpu|cuda(:[0-9]+)?", name):
        raise ValueError(f"{name[:40]!r} is no device. There are: cpu, cuda, cuda:N")
    return name


def _store(address: str) -> str:
    if address and not S3_ADDRESS.fullmatch(address):
        raise ValueError("is no address of a store. Write s3://BUCKET/PREFIX, or nothing for the state folder")
    return address


def _endpoint(address: str) -> str:
    try:
        parts = urlsplit(address)
        whole = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        whole = False
    if address and not (whole and "@" not in parts.netloc and parts.path in {"", "/"}
                        and not parts.query and not parts.fragment):
        raise ValueError("is no address of a server. Write http(s)://HOST:PORT; credentials come from the environment")
    return address


PoolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Price = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Folder = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]


class Settings(BaseSettings):
    """Everything that can be set; `infinidub config` shows what holds."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True,
                                      env_prefix=PREFIX, env_nested_delimiter="__")

    out: Folder = Path("dubbed")
    """Deliverables go to OUT/EPISODE/LANG/."""
    state: Folder = Field(default_factory=lambda given: given["out"] / ".infinidub")
    """Database, artifacts, checkpoints."""
    database: SecretStr = Field(default_factory=lambda given: SecretStr(f"sqlite:///{given['state'] / 'infinidub.db'}"))
    """SQLAlchemy URL; may hold a password."""
    store: Annotated[str, AfterValidator(_store)] = ""
    """`s3://BUCKET/PREFIX` for artifacts and checkpoints; '' keeps them in the state folder."""
    store_endpoint: Annotated[str, AfterValidator(_endpoint)] = ""
    """Address of an S3 server that is not AWS; credentials come by boto3's own chain, never from here."""
    cache_gb: float = Field(50, gt=0, le=1e6)
    """What the local cache of an S3 store may grow to, in 10⁹ bytes."""
    weights: Folder = Path("~/.cache/infinidub/weights")
    """Model weights, one folder a name of models.lock."""
    weights_mirror: Annotated[str, AfterValidator(mirror)] = ""
    """`file:…/` or `s3:…/` under which weights lie ready made: pulled from there, not from where the lock says."""
    weights_read_only: bool = False
    """The weights lie on a volume that cannot be written to: what was verified is remembered in the state folder."""
    engines: Annotated[dict[str, str], AfterValidator(_engines)] = Field({})
    """Port → engine name; a generator may be 'auto' or 'small' (see `flows.choice`); without separator, ducking."""
    options: Annotated[dict[str, dict[str, Scalar]], AfterValidator(_options)] = Field({})
    """Engine name → its own options."""
    loudness: PresetName = "r128"
    """How loud the sound is delivered: EBU R 128, as Netflix asks for, or for the web (see `models.loudness`)."""
    crf: int = Field(16, ge=0, le=51)
    """Quality of re-encoded pictures (x264; lower is better)."""
    threads: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)
    device: Annotated[str, AfterValidator(_device)] = "cpu"
    """Where engines compute: `cpu`, `cuda` or `cuda:N`."""
    region: Literal["frame", "person"] = "frame"
    """What of the picture a generated shot replaces."""
    profile: str = "default"
    """The generator's quality profile."""
    prompt: str = ""
    seed: int = Field(0, ge=0)
    check_speech: bool = True
    """Transcribe the dubbed speech back and report its word error rate."""
    stems: bool = True
    """Also deliver dialogue (DX), music and effects (ME) and the whole mix as FLAC, 48 kHz and 24 bits."""
    multi: bool = True
    """Also make the original picture with every dub as an alternate sound track."""
    formats: Annotated[tuple[Literal["mp4", "mkv", "hls"], ...], BeforeValidator(_listed), AfterValidator(_formats)
                       ] = ("mp4",)
    """What an episode is delivered as; MP4 always. `--set formats=mp4,mkv,hls`."""
    subtitles: Annotated[tuple[Literal["srt", "vtt", "ttml"], ...], BeforeValidator(_listed)] = ("srt", "vtt", "ttml")
    """What its subtitles are delivered as, beside the tracks inside."""
    foreign: Literal["keep", "dub"] = "keep"
    """Dialogue in another language than the episode's: leave it in the source's own voice, or dub it as well."""
    review: bool = False
    """Each language waits after its translation until its texts are approved; a catalog may say otherwise."""
    review_timeout_h: float = Field(72, gt=0, le=8760)
    """Hours that it waits."""
    review_on_timeout: Literal["approve", "wait"] = "approve"
    """What then happens: lines without flags count as approved, or somebody is told and all of it waits on."""
    watermark: Literal["off", "spread-spectrum"] = "off"
    """What hides a number in the dubbed sound, by which a copy is traced."""
    production: bool = False
    """Refuse what is otherwise only flagged: speakers without a voice of their own, pictures without consent,
    a development certificate."""
    prefect: bool = True
    """Run under Prefect; without it the same steps are called plainly."""
    dispatch: Literal["here", "prefect", "job"] = "here"
    """Who generates missing shots: this process, flow runs on the GPU pool, or an Indexed Job on Kubernetes."""
    cpu_pool: PoolName = "local"
    """Prefect work pool of all flows but shards."""
    gpu_pool: PoolName = "local"
    """Prefect work pool of shards."""
    lease_s: float = Field(60, ge=1, le=3600)
    """A shard or run that was not heard of for so long is taken for dead; heartbeats come six times as often."""
    start_patience_s: float = Field(3600, ge=1, le=604800)
    """How long a dispatched shard may wait for a machine before it is dispatched again."""
    shard_deadline_s: float = Field(86400, ge=1, le=2592000)
    """A shard that is not finished so long after it was queued has failed, however often it was tried."""
    in_flight: int = Field(50, ge=1, le=100_000)
    """Shards of one catalog that may be dispatched or running at once."""
    pool_slots: int = Field(500, ge=1, le=100_000)
    """The same of all catalogs together."""
    prices: dict[str, Price] = Field({})
    """Work pool → dollars for an hour of one of its GPUs; `here` is this machine's."""
    price_cpu: Price = 0.0
    """Dollars for an hour of one CPU."""
    secrets: dict[str, SecretStr] = Field({})

    def engine(self, port: str) -> str:
        """The name of the engine to use for a port; of the generator, where no job names one."""
        return choose(self).name if port == "generator" else self.engines[port]

    @property
    def stamps(self) -> Path | None:
        """Where to note which weights were verified; None: beside them."""
        return self.state / "verified" if self.weights_read_only else None

    def secret(self, name: str) -> str:
        """A secret's value, '' if it was not given; names are lower case."""
        value = self.secrets.get(name.lower())
        return value.get_secret_value() if value else ""

    def shown(self) -> dict[str, Any]:
        """All values as plain JSON; of secrets, only that they are there."""
        from tasks.ledger import shown_address  # pulls in the database library

        return self.model_dump(mode="json") | {"database": shown_address(self.database.get_secret_value())}


def load_settings(config: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Put the settings together.

    Args:
        config: The settings file; without it `infinidub.toml` in the working folder, if there is one.
        flags: Dotted name → value, e.g. {'engines.synthesizer': 'espeak'}; None values are left out.

    Raises:
        InputError: An unknown name or a bad value; the message says in which file, variable or flag.
    """
    if config is None and PREFIX + "CONFIG" in os.environ:
        config = Path(os.environ[PREFIX + "CONFIG"])
    file = config or Path(CONFIG_FILE)
    sources = {str(file): _from_file(file, must_exist=config is not None), "environment": _from_environment(),
               "flags": _from_flags(flags or {})}
    merged: dict[str, Any] = {}
    for values in sources.values():
        merged = _over(merged, values)
    try:
        return _Merged.model_validate(merged)
    except ValidationError as error:
        raise _readable(error.errors()[0], sources) from None


def prefect_server() -> str:
    """API address of the Prefect server that the user's environment names, '' for none."""
    return os.environ.get("PREFECT_API_URL", "")


def prefect_environment(settings: Settings) -> dict[str, str]:
    """The user's environment, with Prefect made quiet and its database put into the state folder where it is silent."""
    database = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{settings.state / 'prefect.db'}"}
    return {**PREFECT_DEFAULTS, **database, **os.environ}


def use_prefect_quietly(settings: Settings, server: str = "") -> None:
    """Set that environment for this process; must come before Prefect is imported.

    Args:
        settings: For the state folder.
        server: API address of a server to use where the user names none.
    """
    settings.state.mkdir(parents=True, exist_ok=True)
    os.environ.update(prefect_environment(settings))
    if server:
        os.environ.setdefault("PREFECT_API_URL", server)


# -- sources ----------------------------------------------------------------------------------------------------------


class _Merged(Settings):
    """Settings from one merged dictionary, the environment already in it."""

    @classmethod
    def settings_customise_sources(cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource,
                                   *_args: object, **_others: object) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def _from_file(path: Path, *, must_exist: bool) -> dict[str, Any]:
    if not must_exist and not path.exists():
        return {}
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"is no TOML: {error}", where=str(path)) from None
    if "secrets" in values:
        raise InputError("secrets do not belong into a file", where=f"{path}: secrets",
                         hint=f"Set {PREFIX}SECRETS__NAME in the environment")
    for name in ("out", "state", "weights"):
        if isinstance(values.get(name), str):
            values[name] = path.parent / Path(values[name]).expanduser()
    for options in _tables(values.get("options")):
        for name in PATHS & options.keys():
            if isinstance(options[name], str) and options[name]:  # '' is nothing, and not the folder
                options[name] = str((path.parent / Path(options[name]).expanduser()).absolute())
    return values


def _tables(value: Any) -> list[dict[str, Any]]:
    return [one for one in value.values() if isinstance(one, dict)] if isinstance(value, dict) else []


def _from_environment() -> dict[str, Any]:
    known = {*Settings.model_fields, "config"}
    for variable in sorted(os.environ):
        name = variable.removeprefix(PREFIX).partition("__")[0].lower()
        if variable.startswith(PREFIX) and name not in known:
            raise InputError("unknown setting", where=variable,
                             hint=f"{nearest(name, known)}Known: {', '.join(sorted(known))}")
    try:
        values: dict[str, Any] = EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise InputError(str(error), where="environment", hint="Tables are written as JSON") from None
    if isinstance(values.get("engines"), dict):
        values["engines"] = {port.replace("_", "-"): name for port, name in values["engines"].items()}
    return values


def _from_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for dotted, value in flags.items():
        for part in reversed(dotted.split(".")):
            value = {part: value}  # noqa: PLW2901 - wrapped from the inside out
        values = _over(values, value if flags[dotted] is not None else {})
    return values


def _over(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` laid over `base`, tables merged."""
    merged = dict(base)
    for name, value in values.items():
        below = merged.get(name)
        merged[name] = _over(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def _readable(error: ErrorDetails, sources: Mapping[str, Mapping[str, Any]]) -> InputError:
    what = "unknown setting" if error["type"] == "extra_forbidden" else error["msg"].removeprefix("Value error, ")
    path = [str(part) for part in error["loc"] if part != "[key]"]
    if what.startswith("@"):  # a check of a table names the key that is wrong
        _, key, what = what.split("@", 2)
        path.append(key)
    place = next((name for name, values in reversed(list(sources.items())) if _holds(values, path)), "")
    field = f"{PREFIX}{'__'.join(path).upper()}" if place == "environment" else ".".join(path)
    known = Settings.model_fields
    hint = f"{nearest(path[-1], known)}Known: {', '.join(known)}" if error["type"] == "extra_forbidden" else ""
    return InputError(what, where=f"{place}: {field}" if place.endswith(".toml") else field, hint=hint)


def _holds(values: Any, path: list[str]) -> bool:
    return not path or isinstance(values, list) or (
        isinstance(values, Mapping) and path[0] in values and _holds(values[path[0]], path[1:]))
