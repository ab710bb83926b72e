"""Is everything here that the chosen settings need? Each lack comes with the command that mends it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from flows.choice import BEST, choose, cuda_gpu
from flows.notify import SECRET, check_address
from flows.settings import Settings, prefect_server
from models.engines import adapter, missing
from models.engines.c2pa_identity import read_identity
from models.errors import InfinidubError
from models.records import Artifact
from models.weights import WeightStore

LITTLE_SPACE_GB = 5
PROGRAMS = {"ffmpeg": "apt-get install ffmpeg", "ffprobe": "apt-get install ffmpeg"}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    mend: str = ""
    needed: bool = True
    """False: it works without, only slower or smaller."""


def examine(settings: Settings) -> list[Check]:
    """Look at programs, engines, weights, database, disk, Prefect and GPU."""
    pairs = [_apertium_pairs()] if settings.engine("translator") == "apertium" and shutil.which("apertium") else []
    database = _outcome("database", lambda: _database(settings))
    return [*_programs(), *_engines(settings), *pairs, database, *_shared(settings), _disk(settings),
            _prefect(settings), _gpu()]


def _programs() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", (3, 11) <= sys.version_info < (3, 13), version, "Install Python 3.11 or 3.12")
    for program, mend in PROGRAMS.items():
        path = shutil.which(program)
        yield Check(program, path is not None, path or "not found", mend)


def _engines(settings: Settings) -> Iterator[Check]:
    weights = WeightStore(settings.weights)
    for port in settings.engines:
        name = settings.engine(port)
        options = settings.options.get(name, {})
        lack = missing(port, name, options)
        what, _, mend = lack.partition(". ")
        here = port != "generator" or settings.dispatch == "here"  # a pool's machines have their own
        yield Check(f"{port} {name}", not lack, what or "ready", mend, needed=here)
        wanted = () if lack else adapter(port, name).required_weights(options)
        for entry in wanted:
            found = weights.present(entry)
            yield Check(f"  weights {entry}", found, str(settings.weights / entry) if found else "not on this machine",
                        weights.command(wanted), needed=here)
    yield _certificate(settings)
    yield from _auto(settings)
    if settings.dispatch == "here" and settings.engine("generator") == BEST and not cuda_gpu():
        yield Check("  no CUDA GPU", ok=False, found="its network of 14 billion parameters takes hours on a CPU for a"
                    " second of video", mend="Use a machine with a CUDA GPU, or keep pictures as they are:"
                    " --set engines.generator=passthrough", needed=False)


def _certificate(settings: Settings) -> Check:
    """Who signs the deliverables."""
    given = settings.options.get("c2pa", {}).get("certificates")
    own = "Set options.c2pa.certificates and options.c2pa.key to PEM files of your own"
    if not given:
        return Check("  certificate", False, "a development certificate, which nobody trusts: made on first use", own,
                     needed=settings.production)
    try:
        found = read_identity(Path(str(given)))
    except InfinidubError as error:
        return Check("  certificate", False, f"{error.where}: {error.what}", error.hint)
    until = f"{found.leaf.not_valid_after_utc:%Y-%m-%d}"
    return Check("  certificate", True, f"{found.name}, {found.algorithm}, until {until}")


def _auto(settings: Settings) -> Iterator[Check]:
    """Why pictures stay as they are, where 'auto' decided so: nothing that is needed, but good to know."""
    chosen = choose(settings)
    if chosen.lack:
        what, _, mend = chosen.lack.partition(". ")
        yield Check("  no generated pictures", ok=False, found=what, mend=mend, needed=False)
    lacks = {size: missing("generator", size, settings.options.get(size, {})) for size in ("nano", "lite")}
    here = [size for size, lack in lacks.items() if not lack]
    what, _, mend = lacks["lite"].partition(". ")
    yield Check("  small weights", bool(here), ", ".join(here) or what, mend, needed=False)


def _apertium_pairs() -> Check:
    from models.engines.apertium import PACKAGES

    listed = subprocess.run(["apertium", "-l"], capture_output=True, text=True, timeout=60, check=False)  # noqa: S607
    lacking = sorted({package for mode, package in PACKAGES.items() if mode not in listed.stdout.split()})
    return Check("  language pairs", not lacking, f"{len(lacking)} are missing" if lacking else "all",
                 f"apt-get install {' '.join(lacking)}", needed=False)


def _outcome(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except InfinidubError as error:
        return Check(name, False, f"{error.where}: {error.what}".strip(": "), error.hint)


def _database(settings: Settings) -> str:
    from flows.wiring import open_workspace

    address = settings.database.get_secret_value()
    if address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///")).exists():
        return "is made with the first run"
    return open_workspace(settings).ledger.engine.url.render_as_string(hide_password=True)


def _shared(settings: Settings) -> Iterator[Check]:
    """What a pool's machines share with this one, and who is told of failures."""
    if settings.store:
        yield _outcome("store", lambda: _store(settings))
    local = [name for name, is_local in (
        ("database", settings.database.get_secret_value().startswith("sqlite")), ("store", not settings.store))
        if is_local]
    if settings.dispatch != "here" and local:
        yield Check("  shared by the pool", False, f"{' and '.join(local)}: files, which workers on this machine alone"
                    " can use", "Set database to a PostgreSQL and store to s3://BUCKET/PREFIX", needed=False)
    if address := settings.secret(SECRET):
        yield _outcome("webhook", lambda: _webhook(address))


def _webhook(address: str) -> str:
    check_address(address)
    return "is told of failures"


def _store(settings: Settings) -> str:
    from flows.wiring import open_workspace

    # asking for a file that nobody has shows that the bucket is there and may be read
    open_workspace(settings).store.has(Artifact(sha256="0" * 64, size=0, media_type="application/octet-stream"))
    return settings.store


def _disk(settings: Settings) -> Check:
    folder = next(path for path in (settings.state, *settings.state.parents) if path.exists())
    free = shutil.disk_usage(folder).free / 1e9
    writable = os.access(folder, os.W_OK)
    return Check("disk", writable and free > LITTLE_SPACE_GB, f"{free:.0f} GB free at {folder}" if writable
                 else f"{folder} cannot be written to", "Choose another folder with --out or --state")


def _prefect(settings: Settings) -> Check:
    try:
        version = metadata.version("prefect")
    except metadata.PackageNotFoundError:
        return Check("prefect", False, "not installed", "pip install infinidub")
    server = prefect_server()
    if settings.dispatch == "prefect" and not server:
        return Check("prefect", False, f"{version}, and dispatch is prefect, but no server is set",
                     "Set PREFECT_API_URL")
    where = f"server at {server}" if server else "no server is set: one is started for each run"
    return Check("prefect", True, f"{version}, {where}")


def _gpu() -> Check:
    found = cuda_gpu()
    return Check("GPU", bool(found), found or "none: everything runs on the CPU, smaller", needed=False)
