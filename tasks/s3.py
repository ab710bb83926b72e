"""A store in a bucket: S3 and what speaks like it. With `models.downloads`, the only module that knows boto3.

Keys under the prefix: `artifacts/ab/abcdef…`, `checkpoints/RECIPE/{chunk-0000.mkv, state-0000.bin, manifest.json}`.
Credentials come by boto3's own chain, and enter no message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from models.records import Artifact
from tasks.store import StoredObject


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
        raise NotImplementedError

    def put_file(self, path: Path, media_type: str) -> Artifact:
        """Upload `path` unless it is there."""
        raise NotImplementedError

    def put_bytes(self, data: bytes, media_type: str) -> Artifact:
        """Upload `data` unless it is there."""
        raise NotImplementedError

    def path(self, artifact: Artifact) -> Path:
        """The file in the cache, fetched and checked."""
        raise NotImplementedError

    def has(self, artifact: Artifact) -> bool:
        """Whether the bucket holds it with its size."""
        raise NotImplementedError

    def checkpoint(self, recipe: str) -> Path:
        """Local folder, filled with what was kept."""
        raise NotImplementedError

    def keep(self, recipe: str, files: Sequence[str], manifest: str) -> None:
        """Upload what is new of `files`, then the manifest over the one that was seen."""
        raise NotImplementedError

    def drop(self, recipe: str) -> None:
        """Remove a checkpoint, here and in the bucket."""
        raise NotImplementedError

    def objects(self) -> Iterator[StoredObject]:
        """Everything under the prefix."""
        raise NotImplementedError

    def delete(self, keys: Iterable[str]) -> int:
        """Remove objects."""
        raise NotImplementedError
