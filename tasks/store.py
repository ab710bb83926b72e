"""Artifacts by content: put a file, get it back by its hash. The port, and files; `tasks.s3` is the same in a bucket.

Layout under the store's root: `artifacts/ab/abcdef…`, and `checkpoints/RECIPE/…` for shots that are being generated.
A file appears under its name only when it is whole (written beside, synced, renamed), and is never changed afterwards;
each process hashes what it reads once, so that altered bytes go no further.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, TypeVar

from pydantic import ValidationError

from models.errors import InfinidubError, InfrastructureError, InputError, StorageFullError
from models.recipe import canonical, sha256
from models.records import Artifact, Record

R = TypeVar("R", bound=Record)
RECORD_TYPE = "application/json"
S3_ADDRESS = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])"
                        r"(/(?P<prefix>[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*))?/?")
"""`s3://BUCKET/PREFIX`; no part of the prefix begins with a dot, since it also names folders."""


ARTIFACT_KEY = re.compile(r"artifacts/([0-9a-f]{2})/(?P<sha256>\1[0-9a-f]{62})")
CHECKPOINT_KEY = re.compile(r"checkpoints/(?P<recipe>[0-9a-f]{64})/[^/?]+")
MANIFEST = "manifest.json"
"""The file of a checkpoint that says what counts: it is written last."""


@dataclass(frozen=True)
class StoredObject:
    """Something that lies in a store."""

    key: str
    """Its place under the store's root: an `ARTIFACT_KEY`, a `CHECKPOINT_KEY`, or something else: what a writer that
    was killed, or is still at it, has not finished."""
    size: int
    age_s: float
    """Since it was last changed, by the store's clock."""


class Store(Protocol):
    """Where artifacts live."""

    def put_file(self, path: Path, media_type: str) -> Artifact:
        """Store a copy of `path`."""
        ...

    def put_bytes(self, data: bytes, media_type: str) -> Artifact:
        """Store `data`."""
        ...

    def path(self, artifact: Artifact) -> Path:
        """A local, read-only file with the artifact's content.

        Raises:
            InfrastructureError: It is gone, or its bytes are not those that were stored.
        """
        ...

    def has(self, artifact: Artifact) -> bool:
        """Whether the artifact is there with its size.

        Raises:
            InfrastructureError: That cannot be told: the store itself cannot be read.
        """
        ...

    def checkpoint(self, recipe: str) -> Path:
        """Local working folder for the unfinished work of one recipe: what was kept is in it, and nothing else.

        At most one process of a machine may work in it at a time.
        """
        ...

    def keep(self, recipe: str, files: Sequence[str]) -> None:
        """Make the folder's state durable: new files, then the manifest over the one that was seen, and no other.

        What is gone from the folder goes from the store, too, once the manifest is there.

        Args:
            recipe: Of the unfinished work.
            files: Names of the new ones, besides `MANIFEST`.

        Raises:
            LostCheckpointError: Another process has written the manifest meanwhile.
        """
        ...

    def drop(self, recipe: str) -> None:
        """Remove the unfinished work of a recipe, wherever it is kept."""
        ...

    def objects(self) -> Iterator[StoredObject]:
        """Everything that lies in the store, in no order."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects by their keys, as `objects` gives them; one that is gone already is no error."""
        ...


def hash_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces.

    Raises:
        InputError: It cannot be read.
    """
    try:
        return _digest(path)
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Checked:
    """Remembers which files this process has hashed: one that did not change since is not hashed again."""

    def __init__(self) -> None:
        self._seen: set[tuple[str, int, int, int]] = set()

    def holds(self, path: Path, digest: str) -> bool:
        """Whether the file's content has this SHA-256.

        Raises:
            OSError: It cannot be read.
        """
        stat = path.stat()
        mark = (digest, stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if mark not in self._seen:
            if _digest(path) != digest:
                return False
            self._seen.add(mark)
        return True


@contextmanager
def writing(target: Path) -> Iterator[Path]:
    """A path beside `target` to write to; it becomes `target` when the block ends well, else it is removed.

    Raises:
        StorageFullError: No space is left.
        InputError: The folder cannot be written to.
    """
    partial = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".partial-", suffix=target.suffix, dir=target.parent)
        os.close(handle)
        partial = Path(name)
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.chmod(0o644)
        partial.replace(target)
    except OSError as error:
        raise disk_error(error, target) from error
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold the lock file `path`: of several processes (or threads) that want it, one at a time goes on.

    Raises:
        InputError: The folder cannot be written to.
    """
    try:
        file = _locked(path)
    except OSError as error:
        raise disk_error(error, path) from error
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[bytes]:
    while True:
        file = path.open("wb")
        fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()  # who held it before has removed it: the lock is another file by now


OURS = re.compile(r"tmp[a-z0-9_]{8}|\.partial-[a-z0-9_]{8}|[0-9a-f]{16}")
"""Names that `tempfile`, `writing` and `put_file` give; a folder that somebody else has filled is left alone."""
_in_use: dict[Path, IO[bytes]] = {}
"""Lock files that say, as long as this process lives, that it works in a state folder."""


def enter(state: Path) -> None:
    """Work in a state folder until this process ends; who is alone in it removes what killed processes left.

    Args:
        state: Folder that holds `scratch`, and `artifacts` or the `cache` of a bucket.

    Raises:
        InputError: It cannot be written to.
    """
    if state in _in_use:
        return
    try:
        file = _in_use[state] = (state / "in-use.lock").open("wb")
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for folder in (state / "scratch", state / "artifacts" / "incoming", state / "cache" / "incoming"):
                for left in filter(lambda path: OURS.fullmatch(path.name), folder.glob("*")):
                    shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)
        fcntl.flock(file, fcntl.LOCK_SH)
    except OSError as error:
        raise disk_error(error, state) from error


def disk_error(error: OSError, path: Path) -> InfinidubError:
    """The project's error for a failed write under `path`."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageFullError("no space left on the disk", where=str(path),
                                hint="Free some space and run the same command again: it goes on where it stopped")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}:
        return InputError(f"cannot be written ({error.strerror})", where=str(path),
                          hint="Choose a folder that you may write to with --out or --state")
    return InfrastructureError(f"cannot be written ({error.strerror})", where=str(path))


class FileStore:
    """A store in a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._checked = Checked()

    def _place(self, digest: str) -> Path:
        return self.root / "artifacts" / digest[:2] / digest

    def put_file(self, path: Path, media_type: str) -> Artifact:
        """Store a copy of `path`; the copy is hashed, so that a file which changes meanwhile cannot slip in."""
        incoming = self.root / "artifacts" / "incoming" / secrets.token_hex(8)
        with writing(incoming) as partial:
            shutil.copyfile(path, partial)
            digest, size = hash_file(partial), partial.stat().st_size
        try:
            self._place(digest).parent.mkdir(parents=True, exist_ok=True)
            incoming.replace(self._place(digest))
        except OSError as error:
            raise disk_error(error, self.root) from error
        return Artifact(sha256=digest, size=size, media_type=media_type)

    def put_bytes(self, data: bytes, media_type: str) -> Artifact:
        """Store `data`."""
        artifact = Artifact(sha256=sha256(data), size=len(data), media_type=media_type)
        if not self.has(artifact):
            with writing(self._place(artifact.sha256)) as partial:
                partial.write_bytes(data)
        return artifact

    def path(self, artifact: Artifact) -> Path:
        """The file itself."""
        if not self.has(artifact):
            raise missing(artifact, str(self.root))
        place = self._place(artifact.sha256)
        try:
            whole = self._checked.holds(place, artifact.sha256)
        except OSError as error:
            raise InfrastructureError(f"cannot be read ({error.strerror})", where=str(place)) from error
        if not whole:
            raise altered(str(place))
        return place

    def has(self, artifact: Artifact) -> bool:
        """Whether it is there with its size; a store that cannot be read is an error, and not an empty one."""
        place = self._place(artifact.sha256)
        try:
            return place.stat().st_size == artifact.size
        except FileNotFoundError:
            return False
        except OSError as error:
            raise InfrastructureError(f"cannot be read ({error.strerror})", where=str(place)) from error

    def checkpoint(self, recipe: str) -> Path:
        """Folder for unfinished work."""
        folder = self.root / "checkpoints" / recipe
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, folder) from error
        return folder

    def keep(self, recipe: str, files: Sequence[str]) -> None:
        """Nothing to do: the working folder is the store's own, and its files were synced when they were written."""

    def drop(self, recipe: str) -> None:
        """Remove the folder."""
        shutil.rmtree(self.root / "checkpoints" / recipe, ignore_errors=True)

    def objects(self) -> Iterator[StoredObject]:
        """Every file under `artifacts` and `checkpoints`."""
        now = time.time()
        for top in ("artifacts", "checkpoints"):
            for folder, _, names in os.walk(self.root / top):
                for path in (Path(folder, name) for name in names):
                    with suppress(FileNotFoundError):  # gone meanwhile
                        stat = path.lstat()
                        yield StoredObject(path.relative_to(self.root).as_posix(), stat.st_size,
                                           max(now - stat.st_mtime, 0.0))

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, and the folder of a checkpoint with its last one."""
        for key in keys:
            path = self.root / key
            if path.parts[:len(self.root.parts)] != self.root.parts or ".." in Path(key).parts:
                raise InputError("is no key of this store", where=key)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise disk_error(error, path) from error
            if CHECKPOINT_KEY.fullmatch(key):
                with suppress(OSError):  # it holds more
                    path.parent.rmdir()


def missing(artifact: Artifact, where: str) -> InfrastructureError:
    """The error for an artifact that is not in the store."""
    return InfrastructureError(f"artifact {artifact.sha256[:12]}… is missing or cut short", where=where,
                               hint="Run the command again: what is missing is made anew")


def altered(where: str) -> InfrastructureError:
    """The error for an artifact whose bytes are others than its name says; it stays, for whoever wants to know why."""
    return InfrastructureError("was altered: its content is not what it is named by", where=where,
                               hint="Remove it and run the command again: it is made anew")


def open_store(address: str, state: Path, *, endpoint: str = "", cache_gb: float = 50) -> Store:
    """The store that the settings name.

    Args:
        address: '' for files in the state folder, or `s3://BUCKET/PREFIX`.
        state: The state folder; with S3, for cache and unfinished work.
        endpoint: Address of an S3 server; '' for AWS.
        cache_gb: What the cache may grow to, in 10⁹ bytes.

    Raises:
        InputError: It is no such address.
    """
    if not address:
        return FileStore(state)
    found = S3_ADDRESS.fullmatch(address)
    if found is None:
        raise InputError("is no address of a store", where="store", hint="Write s3://BUCKET/PREFIX, or nothing")
    from tasks.s3 import S3Store  # boto3 is slow to import

    return S3Store(found["bucket"], found["prefix"] or "", state, endpoint=endpoint, cache_gb=cache_gb)


def put_record(store: Store, record: Record) -> Artifact:
    """Store a record as canonical JSON."""
    return store.put_bytes(canonical(record), RECORD_TYPE)


def get_record(store: Store, artifact: Artifact, kind: type[R]) -> R:
    """Read a record back, its hash checked.

    Raises:
        InfrastructureError: The bytes are not those that were stored.
    """
    data = store.path(artifact).read_bytes()
    if sha256(data) != artifact.sha256:
        raise InfrastructureError(f"artifact {artifact.sha256[:12]}… was altered", where="store")
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        raise InfrastructureError(f"artifact {artifact.sha256[:12]}… is no {kind.__name__}", where="store",
                                  hint="Another version wrote it; raise the step's version") from error
