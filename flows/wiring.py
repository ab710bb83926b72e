"""Settings → store, ledger and engines: the one place that puts concrete things behind the ports."""

from __future__ import annotations

import os
import platform
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from flows.choice import choose
from flows.settings import Settings
from models.engines import ENGINES, EngineCache, adapter, describe
from models.engines.c2pa_identity import CHAIN, KEY, make_development_identity, read_identity
from models.engines.c2pa_signer import CERTIFICATE
from models.engines.clip_files import clip_weights
from models.errors import InputError
from models.lockfile import LOCK
from models.ports import EngineHome, Watermarker
from models.records import Artifact, EngineRef, Scalar
from models.weights import WeightStore
from tasks.ledger import Ledger
from tasks.step import Work
from tasks.store import Store, disk_error, enter, hash_file, open_store

CREDENTIALS = "credentials"
"""Folder of the state folder with the development certificate."""
RENDERED, READER = ("nano", "lite"), "lip-reader"
"""Generators that know rendered people alone, and who reads their lips."""
VERSIONED = ("infinidub", "prefect", "torch", "faster-whisper", "onnxruntime", "av", "sqlalchemy", "numpy")


@dataclass
class Workspace:
    """Everything that outlives one step: opened once a process."""

    settings: Settings
    store: Store
    ledger: Ledger
    weights: WeightStore
    engines: EngineCache

    def work(self, run_id: str, *, episode: str = "", language: str = "",
             progress: Callable[[str, float], None] | None = None, counts: Counter[str] | None = None) -> Work:
        """The context in which steps of one episode and language run."""
        work = Work(store=self.store, ledger=self.ledger, engines=self.engines, scratch=self.settings.state / "scratch",
                    run_id=run_id, episode=episode, language=language)
        work.progress = progress or work.progress
        work.counts = counts if counts is not None else work.counts
        return work

    def engine(self, port: str, name: str | None = None, **extra: Scalar) -> EngineRef:
        """The engine that is chosen for `port` (or `name`), as it enters recipes."""
        name = name or self.settings.engine(port)
        return describe(port, name, {**self.settings.options.get(name, {}), **extra}, self.weights.hashes)

    def generator(self, named: str | None, picture_s: float, episode: str, language: str) -> EngineRef:
        """The generator of one episode and language; finished clips (`files`) are named by content, one by one."""
        name = choose(self.settings, named, picture_s).name
        folder = self.settings.options.get(name, {}).get("folder")
        if name != "files" or not folder:
            return self.engine("generator", name)
        clips = f"{episode}/{language}"
        return self.engine("generator", name, clips=clips).model_copy(
            update={"weights": clip_weights(Path(str(folder)), clips)})

    def lip_scorer(self, generator: str = "") -> EngineRef | None:
        """What judges lips: what is chosen; else the program's own reader, where its own weights made the people.

        What is installed here does not matter: a pool's machine has to find under the same recipe what this one asks.

        Args:
            generator: Name of what made the picture; '': it is not known.
        """
        if "lip-scorer" in self.settings.engines:
            return self.engine("lip-scorer")
        rendered = generator in RENDERED and not self.settings.options.get(generator, {}).get("path")
        return self.engine("lip-scorer", READER) if rendered else None

    def watermarker(self) -> EngineRef | None:
        """What marks the dubbed sound; None for nothing."""
        name = self.settings.watermark
        return None if name == "off" else self.engine("watermarker", name)

    def signer(self, *, make: bool) -> EngineRef:
        """What signs, with the fingerprint of the certificate that is set; else of a development certificate.

        Args:
            make: Make that one where there is none yet; else nothing is touched, and the fingerprint may be absent
                (in production it always is then: what such a certificate signed is not done).

        Raises:
            InputError: The certificate cannot be used; or none is set, which production asks for.
        """
        ref, given = self.engine("signer"), self.settings.options.get("c2pa", {}).get("certificates")
        path = Path(str(given)) if given else self.settings.state / CREDENTIALS / CHAIN
        if self.settings.production and not given:
            if make:
                raise InputError("production needs a certificate of yours to sign with", where="options.c2pa",
                                 hint="Set options.c2pa.certificates and options.c2pa.key to PEM files")
            return ref
        if make and not given:
            make_development_identity(path.parent)
        try:
            return ref.model_copy(update={"weights": {CERTIFICATE: read_identity(path).fingerprint}})
        except InputError:
            if make:
                raise
            return ref

    def import_file(self, path: Path, *, keep: bool = True) -> Artifact:
        """A file of the user as an artifact.

        Args:
            path: The file; its hash is remembered while size, change time and inode stay.
            keep: Copy it into the store unless it is there already.

        Raises:
            InputError: It is missing or cannot be read.
        """
        try:
            size = path.stat().st_size
        except OSError as error:
            raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error
        digest = self.ledger.known_hash(path)
        if digest is None:
            digest = hash_file(path)
            self.ledger.remember_hash(path, digest)
        artifact = Artifact(sha256=digest, size=size, media_type="application/octet-stream")
        if keep and not self.store.has(artifact):
            artifact = self.store.put_file(path, artifact.media_type)
            self.ledger.remember_hash(path, artifact.sha256)
        return artifact


def open_workspace(settings: Settings, *, existing: bool = False) -> Workspace:
    """Open store and database (bringing its tables up to date).

    Args:
        settings: As loaded.
        existing: For verbs that look back: where nothing was dubbed yet, nothing is made either. Where a database is
            named, it knows what was dubbed, whatever lies on this machine.

    Raises:
        InputError: The state folder cannot be written to, or there is none and `existing` was asked for.
        InfrastructureError: The database cannot be reached.
    """
    if existing and "database" not in settings.model_fields_set and not settings.state.is_dir():
        raise InputError("nothing was dubbed here", where=str(settings.state),
                         hint="Name the folder of the deliverables with --out, or that of the state with --state")
    try:
        (settings.state / "scratch").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, settings.state) from error
    enter(settings.state)
    weights = WeightStore(settings.weights, mirror=settings.weights_mirror, stamps=settings.stamps)

    def home(port: str, name: str) -> EngineHome:
        options = settings.options.get(name, {})
        if name == "c2pa" and not options.get("certificates"):
            own = settings.state / CREDENTIALS
            options = {**options, "certificates": str(own / CHAIN), "key": str(own / KEY)}
        connection = {k: v for k, v in options.items() if k in adapter(port, name).CONNECTION}
        return EngineHome(weights=weights.folder, threads=settings.threads, device=settings.device,
                          connection=connection, secret=settings.secret)

    ledger = Ledger(settings.database.get_secret_value())
    store = open_store(settings.store, settings.state, endpoint=settings.store_endpoint, cache_gb=settings.cache_gb)
    return Workspace(settings=settings, store=store, ledger=ledger, weights=weights,
                     engines=EngineCache(home, weights.hashes))


def watermarkers() -> dict[str, Watermarker]:
    """Every engine here that may have marked a sound, by name; what finds a mark depends on no option."""
    home = EngineHome(weights=WeightStore(LOCK.parent).folder)
    found: dict[str, Watermarker] = {}
    for name in ENGINES["watermarker"]:
        kind: Any = adapter("watermarker", name)
        found[name] = kind(EngineRef(name=name), home)
    return found


def environment() -> dict[str, Any]:
    """Facts about this machine for provenance; none of them enters a recipe."""
    versions = {}
    for name in VERSIONED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"host": platform.node(), "python": platform.python_version(), "system": platform.platform(),
            "cpus": os.cpu_count(), "versions": versions, "revision": _revision()}


def _revision() -> str:
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    done = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True,  # noqa: S607
                          timeout=10, check=False)
    return done.stdout.strip()
