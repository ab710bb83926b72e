"""A store in a bucket: S3 and what speaks like it. With `models.downloads`, the only module that knows boto3.

Keys under the prefix: `artifacts/ab/abcdef…`, `checkpoints/RECIPE/{chunk-0000.mkv, state-0000.bin, manifest.json}`.
Locally, under the state folder: `cache/ab/abcdef…`, and `checkpoints/RECIPE/…` to work in.

Every object appears whole or not at all, an artifact only where there is none yet, and all that is read is hashed.
Calls that fail for a reason that passes are repeated here, and only here: botocore's own repetitions are off.
Credentials come by boto3's own chain, and enter no message, as no address or header does.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import boto3
import urllib3.exceptions
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own
    HTTPClientError,
    IncompleteReadError,
)

from models.errors import InfrastructureError, LostCheckpointError, SetupError, StorageFullError
from models.records import Artifact
from tasks.store import MANIFEST, Checked, StoredObject, alone, altered, disk_error, hash_file, missing, writing

T = TypeVar("T")
MIB = 1 << 20
LARGE = 64 * MIB
"""What is larger travels in parts."""
PART = 16 * MIB
MOST_PARTS = 10_000
BLOCK = MIB
CONNECT_S, READ_S = 5, 30
"""How long a server may be silent."""
TRIES = 6
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 20.0
YOUNG_S = 3600.0
"""What was used so lately stays in the cache: somebody may be about to open it."""
FULL_AT_ONCE = 1000
"""Keys in one request to delete."""
PASSING = (ConnectionError, HTTPClientError, IncompleteReadError, urllib3.exceptions.HTTPError)
SPOILT = frozenset({"BadDigest", "IncompleteBody", "RequestTimeout", "XAmzContentChecksumMismatch",
                    "XAmzContentSHA256Mismatch"})
"""What a server says of a body that did not arrive as it was sent."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""Of a file in a checkpoint."""
UPLOAD = "?uploadId="
"""Between key and id of an upload in parts that has not ended."""
HINTS = {
    "NoSuchBucket": "Make the bucket, or correct the setting `store`",
    "InvalidAccessKeyId": "Correct the credentials in the environment",
    "SignatureDoesNotMatch": "Correct the credentials in the environment",
    "ExpiredToken": "Renew the credentials in the environment",
    "RequestTimeTooSkewed": "Set this machine's clock",
}


class _AnsweredError(Exception):
    """The server refused for a reason that the caller may have reckoned with."""

    def __init__(self, status: int, error: InfrastructureError) -> None:
        super().__init__(status)
        self.status, self.error = status, error


@dataclass
class _Kept:
    """What the bucket holds of a checkpoint, as this process saw it last."""

    etag: str | None = None
    """Of the manifest; None: there is none."""
    manifest: str = ""
    """SHA-256 of its content."""
    names: set[str] = field(default_factory=set)
    """Of the other files."""


class S3Store:
    """A store in a bucket, with a cache beside it (see `tasks.store.Store` for the methods)."""

    def __init__(self, bucket: str, prefix: str, local: Path, *, endpoint: str = "", cache_gb: float = 50) -> None:
        """Nothing is asked of the bucket yet.

        Args:
            bucket: Its name.
            prefix: Before all keys, without slashes at its ends; may be ''.
            local: Folder for cache and unfinished work.
            endpoint: Address of the server; '' for AWS.
            cache_gb: What the cache may grow to, in 10⁹ bytes.
        """
        self.bucket, self.local, self.endpoint = bucket, local, endpoint
        self.prefix = f"{prefix}/" if prefix else ""
        self.cache, self.cache_bytes = local / "cache", cache_gb * 1e9
        self._checked = Checked()
        self._kept: dict[str, _Kept] = {}
        self._writer = secrets.token_hex(8)
        self._grown: float | None = None
        """Bytes that came to the cache since it was last looked through; None: it was not yet."""
        self._lock = threading.Lock()

    # -- artifacts ----------------------------------------------------------------------------------------------------

    def put_file(self, path: Path, media_type: str) -> Artifact:
        """Upload `path` unless it is there; a copy is hashed and sent, so that a file which changes cannot slip in."""
        incoming = self._incoming()
        with writing(incoming) as partial:
            shutil.copyfile(path, partial)
        return self._put(incoming, media_type)

    def put_bytes(self, data: bytes, media_type: str) -> Artifact:
        """Upload `data` unless it is there."""
        incoming = self._incoming()
        with writing(incoming) as partial:
            partial.write_bytes(data)
        return self._put(incoming, media_type)

    def _put(self, incoming: Path, media_type: str) -> Artifact:
        try:
            artifact = Artifact(sha256=hash_file(incoming), size=incoming.stat().st_size, media_type=media_type)
            if not self.has(artifact):
                self._upload_once(incoming, artifact)
            self._into_cache(incoming, artifact)
        finally:
            incoming.unlink(missing_ok=True)
        self._make_room(artifact.size)
        return artifact

    def _upload_once(self, path: Path, artifact: Artifact) -> None:
        try:
            self._upload(_key(artifact), path, artifact.sha256, {"IfNoneMatch": "*"})
        except _AnsweredError as answer:
            if answer.status not in {404, 412}:
                raise answer.error from None
            if not self.has(artifact):  # else another was first; or this process was, and did not hear of it
                raise (altered(self._shown(_key(artifact))) if answer.status == 412 else answer.error) from None

    def path(self, artifact: Artifact) -> Path:
        """The file in the cache, fetched and checked."""
        place = self._place(artifact)
        if self._is_cached(place, artifact):
            return place
        with alone(place.with_name(f"{place.name}.lock")):
            if not self._is_cached(place, artifact):
                self._fetch(artifact)
        self._make_room(artifact.size)
        return place

    def has(self, artifact: Artifact) -> bool:
        """Whether the bucket holds it with its size."""
        try:
            return int(self._ask("head_object", _key(artifact))["ContentLength"]) == artifact.size
        except _AnsweredError as answer:
            if answer.status != 404:
                raise answer.error from None
            return False

    def _fetch(self, artifact: Artifact) -> None:
        key, incoming = _key(artifact), self._incoming()
        for _ in range(2):  # what was spoilt on the way is right the second time
            try:
                with writing(incoming) as partial:
                    whole = self._download(key, partial, artifact.size)[0] == artifact.sha256
            except _AnsweredError as answer:
                raise (missing(artifact, self._shown(key)) if answer.status == 404 else answer.error) from None
            if whole:
                self._into_cache(incoming, artifact)
                return
            size = incoming.stat().st_size
            incoming.unlink()
            if size != artifact.size:
                raise missing(artifact, self._shown(key))
        raise altered(self._shown(key))

    # -- cache --------------------------------------------------------------------------------------------------------

    def _place(self, artifact: Artifact) -> Path:
        place = self.cache / artifact.sha256[:2] / artifact.sha256
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, place) from error
        return place

    def _incoming(self) -> Path:
        return self.cache / "incoming" / secrets.token_hex(8)

    def _into_cache(self, incoming: Path, artifact: Artifact) -> None:
        try:
            incoming.replace(self._place(artifact))
        except OSError as error:
            raise disk_error(error, self.cache) from error

    def _is_cached(self, place: Path, artifact: Artifact) -> bool:
        try:
            if self._checked.holds(place, artifact.sha256):
                # By hand: file systems are mounted so that reading leaves no trace.
                os.utime(place, ns=(time.time_ns(), place.stat().st_mtime_ns))
                return True
            place.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise disk_error(error, place) from error
        return False

    def _make_room(self, came: int) -> None:
        """Remove what was not used for longest, once the cache has grown by a part of what it may hold."""
        with self._lock:
            grown = None if self._grown is None else self._grown + came
            if grown is not None and grown < self.cache_bytes / 20:
                self._grown = grown
                return
            self._grown = 0.0
        files = []
        for path in self.cache.glob("[0-9a-f][0-9a-f]/*"):
            with suppress(FileNotFoundError):
                if len(path.name) == 64:  # no lock
                    stat = path.stat()
                    files.append((max(stat.st_atime, stat.st_mtime), stat.st_size, path))
        total = sum(size for _, size, _ in files)
        for used, size, path in sorted(files):
            if total <= self.cache_bytes or time.time() - used < YOUNG_S:
                return
            with suppress(OSError):
                path.unlink()
                total -= size

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def checkpoint(self, recipe: str) -> Path:
        """Local folder, made what the bucket holds: the manifest first, so that all it names is there."""
        folder = self.local / "checkpoints" / recipe
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, folder) from error
        kept = self._kept.get(recipe, _Kept())
        if kept.etag and _is(folder / MANIFEST, kept.manifest) and self._has_etag(recipe, kept.etag):
            return folder
        self._kept[recipe] = kept = self._pull_manifest(recipe, folder)
        if kept.etag:
            kept.names = {name for name in self._names(recipe) if name != MANIFEST}
            for name in sorted(kept.names):
                self._pull(recipe, name, folder / name)
        for path in folder.iterdir():
            if path.name not in {*kept.names, *([MANIFEST] if kept.etag else [])}:
                path.unlink(missing_ok=True)
        return folder

    def keep(self, recipe: str, files: Sequence[str]) -> None:
        """Upload `files`, then the manifest over the one that was seen; remove what is gone from the folder."""
        folder, kept = self.local / "checkpoints" / recipe, self._kept.setdefault(recipe, _Kept())
        for name in files:
            try:
                self._upload(_kept_key(recipe, name), folder / name, hash_file(folder / name), {})
            except _AnsweredError as answer:
                raise answer.error from None
        digest = hash_file(folder / MANIFEST)
        condition = {"IfMatch": kept.etag} if kept.etag else {"IfNoneMatch": "*"}
        try:
            kept.etag = self._upload(_kept_key(recipe, MANIFEST), folder / MANIFEST, digest, condition)
        except _AnsweredError as answer:
            if answer.status not in {404, 412}:
                raise answer.error from None
            kept.etag = self._own_manifest(recipe, digest)
        kept.manifest = digest
        kept.names |= set(files)
        gone = {name for name in kept.names if not (folder / name).exists()}
        self.delete(_kept_key(recipe, name) for name in sorted(gone))
        kept.names -= gone

    def drop(self, recipe: str) -> None:
        """Remove a checkpoint, here and in the bucket; there the manifest first, so that the rest counts no more."""
        self._kept.pop(recipe, None)
        shutil.rmtree(self.local / "checkpoints" / recipe, ignore_errors=True)
        names = self._names(recipe)
        if MANIFEST in names:
            self.delete([_kept_key(recipe, MANIFEST)])
        self.delete(_kept_key(recipe, name) for name in names if name != MANIFEST)

    def _pull_manifest(self, recipe: str, folder: Path) -> _Kept:
        answer = self._pull(recipe, MANIFEST, folder / MANIFEST)
        if answer is None:
            return _Kept()
        return _Kept(etag=str(answer["ETag"]), manifest=str(answer["Metadata"].get("sha256", "")))

    def _pull(self, recipe: str, name: str, target: Path) -> Mapping[str, Any] | None:
        """Fetch one file of a checkpoint unless it is here. None: it is gone meanwhile.

        One that was spoilt is left to `tasks.checkpoint`, which hashes all.
        """
        key = _kept_key(recipe, name)
        try:
            head: Mapping[str, Any] = self._ask("head_object", key)
            for _ in range(2):
                if _is(target, head["Metadata"].get("sha256", "")):
                    break
                with writing(target) as partial:
                    _, head = self._download(key, partial, None)
        except _AnsweredError as answer:
            if answer.status != 404:
                raise answer.error from None
            return None
        return head

    def _has_etag(self, recipe: str, etag: str) -> bool:
        try:
            return bool(self._ask("head_object", _kept_key(recipe, MANIFEST))["ETag"] == etag)
        except _AnsweredError as answer:
            if answer.status != 404:
                raise answer.error from None
            return False

    def _own_manifest(self, recipe: str, digest: str) -> str:
        """The manifest's ETag, if this very process wrote it, and did not hear of it.

        Raises:
            LostCheckpointError: It did not.
        """
        with suppress(_AnsweredError):
            head = self._ask("head_object", _kept_key(recipe, MANIFEST))
            if head["Metadata"].get("writer") == self._writer and head["Metadata"].get("sha256") == digest:
                return str(head["ETag"])
        raise LostCheckpointError("another process has gone on with this shot", where=f"checkpoint {recipe[:12]}…")

    def _names(self, recipe: str) -> list[str]:
        folder = f"checkpoints/{recipe}/"
        names = (one.key.removeprefix(folder) for one in self._listed(folder))
        return [name for name in names if NAME.fullmatch(name)]

    # -- everything ---------------------------------------------------------------------------------------------------

    def objects(self) -> Iterator[StoredObject]:
        """Everything under the prefix, with the uploads that have not ended."""
        for top in ("artifacts/", "checkpoints/"):
            yield from self._listed(top)
            yield from self._uploads(top)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, and end uploads."""
        whole = []
        for key in keys:
            if UPLOAD in key:
                name, _, upload = key.partition(UPLOAD)
                self._abort(name, upload)
            else:
                whole.append(key)
        for start in range(0, len(whole), FULL_AT_ONCE):
            batch = whole[start:start + FULL_AT_ONCE]
            names = {"Objects": [{"Key": self.prefix + key} for key in batch], "Quiet": True}
            answer = self._settled("delete_objects", Delete=names)
            for error in answer.get("Errors", ()):
                raise self._error("delete_objects", str(error["Key"]).removeprefix(self.prefix),
                                  str(error.get("Code", "")))

    def _listed(self, folder: str) -> Iterator[StoredObject]:
        more: dict[str, str] = {}
        while True:
            page = self._settled("list_objects_v2", Prefix=self.prefix + folder, **more)
            now = _now(page)
            for one in page.get("Contents", ()):
                yield StoredObject(one["Key"].removeprefix(self.prefix), one["Size"],
                                   max(now - one["LastModified"].timestamp(), 0.0))
            if not page.get("IsTruncated"):
                return
            more = {"ContinuationToken": page["NextContinuationToken"]}

    def _uploads(self, folder: str) -> Iterator[StoredObject]:
        more: dict[str, str] = {}
        while True:
            page = self._settled("list_multipart_uploads", Prefix=self.prefix + folder, **more)
            for upload in page.get("Uploads", ()):
                key = upload["Key"].removeprefix(self.prefix)
                with suppress(_AnsweredError):  # it has ended meanwhile
                    parts = self._ask("list_parts", key, UploadId=upload["UploadId"])
                    there = parts.get("Parts", ())
                    # A slow one that goes on is not old.
                    last = max((part["LastModified"] for part in there), default=upload["Initiated"])
                    yield StoredObject(f"{key}{UPLOAD}{upload['UploadId']}", sum(part["Size"] for part in there),
                                       max(_now(page) - last.timestamp(), 0.0))
            if not page.get("IsTruncated"):
                return
            more = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    # -- transfers ----------------------------------------------------------------------------------------------------

    def _download(self, key: str, target: Path, size: int | None) -> tuple[str, Mapping[str, Any]]:
        """Write an object to `target` → its SHA-256, and the answer's head; of one of another size, nothing."""
        def once(client: Any) -> tuple[str, Mapping[str, Any]]:
            answer = client.get_object(Bucket=self.bucket, Key=self.prefix + key)
            digest, length = hashlib.sha256(), 0
            with closing(answer["Body"]) as body, target.open("wb") as out:
                if size is not None and answer["ContentLength"] != size:
                    return "", answer
                for block in body.iter_chunks(BLOCK):
                    out.write(block)
                    digest.update(block)
                    length += len(block)
            if length != answer["ContentLength"]:
                raise IncompleteReadError(actual_bytes=length, expected_bytes=answer["ContentLength"])
            return digest.hexdigest(), answer

        return self._repeat("get_object", key, once)

    def _upload(self, key: str, path: Path, digest: str, condition: Mapping[str, str]) -> str:
        """Upload a file → its ETag."""
        about = {"sha256": digest, "writer": self._writer}
        if path.stat().st_size > LARGE:
            return self._upload_parts(key, path, about, condition)

        def once(client: Any) -> str:
            with path.open("rb") as body:
                answer = client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=body, Metadata=about,
                                           ChecksumSHA256=_base64(bytes.fromhex(digest)), **condition)
            return str(answer["ETag"])

        return self._repeat("put_object", key, once)

    def _upload_parts(self, key: str, path: Path, about: Mapping[str, str], condition: Mapping[str, str]) -> str:
        upload = self._ask("create_multipart_upload", key, ChecksumAlgorithm="SHA256", Metadata=about)["UploadId"]
        size = max(PART, -(-path.stat().st_size // MOST_PARTS))
        parts: list[dict[str, Any]] = []
        try:
            with path.open("rb") as file:
                while block := file.read(size):
                    part = {"PartNumber": len(parts) + 1, "ChecksumSHA256": _base64(hashlib.sha256(block).digest())}
                    etag = self._ask("upload_part", key, UploadId=upload, Body=block, **part)["ETag"]
                    parts.append({**part, "ETag": etag})
            return self._complete(key, upload, parts, about, condition)
        except BaseException:
            with suppress(_AnsweredError, InfrastructureError):  # once: whoever stops this process does not wait
                self._abort(key, upload, tries=1)
            raise

    def _complete(self, key: str, upload: str, parts: Sequence[Mapping[str, Any]], about: Mapping[str, str],
                  condition: Mapping[str, str]) -> str:
        try:
            return str(self._ask("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts},
                                 **condition)["ETag"])
        except (_AnsweredError, InfrastructureError):
            # An upload ends once: where the first answer was lost, the server no longer knows it.
            with suppress(_AnsweredError, InfrastructureError):
                head = self._ask("head_object", key)
                if head["Metadata"] == about:
                    return str(head["ETag"])
            raise

    def _abort(self, key: str, upload: str, tries: int = TRIES) -> None:
        with suppress(_AnsweredError):  # it has ended
            self._repeat("abort_multipart_upload", key, lambda client: client.abort_multipart_upload(
                Bucket=self.bucket, Key=self.prefix + key, UploadId=upload), tries)

    # -- calls --------------------------------------------------------------------------------------------------------

    def _ask(self, operation: str, key: str, **parameters: Any) -> Any:
        return self._repeat(operation, key, lambda client: getattr(client, operation)(
            Bucket=self.bucket, Key=self.prefix + key, **parameters))

    def _settled(self, operation: str, **parameters: Any) -> Any:
        """Ask something of the bucket of which no refusal is reckoned with."""
        try:
            return self._repeat(operation, "", lambda client: getattr(client, operation)(
                Bucket=self.bucket, **parameters))
        except _AnsweredError as answer:
            raise answer.error from None

    def _repeat(self, operation: str, key: str, once: Callable[[Any], T], tries: int = TRIES) -> T:
        """Call until it is done, with pauses that grow and differ between processes.

        Raises:
            _AnsweredError: The server refuses, and will again.
            InfrastructureError: It failed each time.
            SetupError: There are no credentials.
        """
        for attempt in range(1, tries + 1):
            try:
                return once(_client(self.endpoint, os.getpid()))
            except ClientError as error:
                status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
                code = str(error.response.get("Error", {}).get("Code", "")) or str(status)
                told = self._error(operation, key, code)
                passing = status >= 500 or status in {409, 429} or code in SPOILT
                if not passing:
                    raise _AnsweredError(status, told) from None
            except PASSING as error:
                told = InfrastructureError(f"S3 cannot be reached: {type(error).__name__} in {operation}",
                                           where=self._shown(key), hint="Is the server up? Repeat later")
            except BotoCoreError as error:
                raise SetupError(f"S3 cannot be asked: {type(error).__name__}", where=self._shown(key),
                                 hint="Give credentials as to any AWS program: AWS_ACCESS_KEY_ID and "
                                      "AWS_SECRET_ACCESS_KEY in the environment, or ~/.aws") from None
            if attempt < tries:
                pause = min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S)
                time.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
        raise told from None

    def _error(self, operation: str, key: str, code: str) -> InfrastructureError:
        if code in {"507", "XMinioStorageFull", "QuotaExceeded"}:
            return StorageFullError(f"no space left in the bucket ({code})", where=self._shown(key),
                                    hint="Free some space and run the same command again: it goes on where it stopped")
        hint = "May these credentials list, read, write and delete there?" if code in {"403", "AccessDenied"} else ""
        return InfrastructureError(f"S3 answered {code} to {operation}", where=self._shown(key),
                                   hint=HINTS.get(code, hint))

    def _shown(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"


@lru_cache(maxsize=4)
def _client(endpoint: str, _process: int) -> Any:
    """A process's client of a server: clients may be shared by threads, and not across a fork."""
    config = Config(connect_timeout=CONNECT_S, read_timeout=READ_S, retries={"total_max_attempts": 1},
                    signature_version="s3v4", request_checksum_calculation="when_required",
                    response_checksum_validation="when_required", s3={"addressing_style": "path"} if endpoint else {})
    return boto3.session.Session().client("s3", endpoint_url=endpoint or None, config=config)


def _key(artifact: Artifact) -> str:
    return f"artifacts/{artifact.sha256[:2]}/{artifact.sha256}"


def _kept_key(recipe: str, name: str) -> str:
    return f"checkpoints/{recipe}/{name}"


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and hash_file(path) == digest


def _now(answer: Mapping[str, Any]) -> float:
    """The time at which the server gave an answer, by its own clock."""
    told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    return parsedate_to_datetime(told).timestamp() if told else time.time()
