"""What every store does, in files and in a bucket: the same tests over both."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tasks.s3
from models.errors import InfrastructureError, InputError, LostCheckpointError
from models.recipe import sha256
from models.records import Artifact
from tasks.checkpoint import Checkpoint
from tasks.s3 import S3Store
from tasks.store import ARTIFACT_KEY, CHECKPOINT_KEY, MANIFEST, FileStore, Store
from tests.s3_server import CREDENTIALS, client, s3_server

BUCKET = "store"
RECIPE = sha256(b"a shot")
TEXT = "text/plain"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        client(address).create_bucket(Bucket=BUCKET)
        yield address


@pytest.fixture
def buckets(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], S3Store]:
    """Each call is one more machine whose store is the same bucket."""
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    number, prefix = iter(range(100)), sha256(str(tmp_path).encode())[:12]
    return lambda: S3Store(BUCKET, prefix, tmp_path / f"machine-{next(number)}", endpoint=server)


@pytest.fixture(params=["files", "bucket"])
def machines(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Each call is one more process that uses the same store."""
    if request.param == "files":
        return lambda: FileStore(tmp_path / "shared")
    return request.getfixturevalue("buckets")


@pytest.fixture
def store(machines: Callable[[], Store]) -> Store:
    return machines()


@pytest.fixture
def cached(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., S3Store]:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    prefix = sha256(str(tmp_path).encode())[:12]
    return lambda **given: S3Store(BUCKET, prefix, tmp_path / "here", endpoint=server, **given)


def keys(store: Store) -> list[str]:
    return sorted(one.key for one in store.objects())


def artifacts(store: Store) -> list[str]:
    return [found["sha256"] for key in keys(store) if (found := ARTIFACT_KEY.fullmatch(key))]


def in_processes(jobs: list[Callable[[], object]]) -> list[int]:
    """Run each in a process of its own → their exit codes, those of signals negative."""
    children = []
    for job in jobs:
        child = os.fork()
        if not child:
            code = 1
            with suppress(BaseException):
                try:
                    job()
                    code = 0
                except LostCheckpointError:
                    code = 3
                except BaseException:
                    traceback.print_exc()
                    raise
            os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def alter(store: Store, artifact: Artifact, data: bytes) -> None:
    """Put other bytes in the artifact's place, past the store; a cache forgets it."""
    key = f"artifacts/{artifact.sha256[:2]}/{artifact.sha256}"
    if isinstance(store, S3Store):
        client(store.endpoint).put_object(Bucket=BUCKET, Key=store.prefix + key, Body=data)
        shutil.rmtree(store.cache)
    else:
        assert isinstance(store, FileStore)
        (store.root / key).write_bytes(data)


# -- artifacts --------------------------------------------------------------------------------------------------------


def test_what_is_put_is_there_for_everybody(machines, tmp_path):
    (tmp_path / "given.bin").write_bytes(b"some bytes" * 1000)
    here, there = machines(), machines()
    as_file, as_bytes = here.put_file(tmp_path / "given.bin", TEXT), here.put_bytes(b"", TEXT)
    assert as_file == Artifact(sha256=sha256(b"some bytes" * 1000), size=10_000, media_type=TEXT)
    for store in (here, there):
        assert store.has(as_file)
        assert store.path(as_file).read_bytes() == b"some bytes" * 1000
        assert store.path(as_bytes).read_bytes() == b""
    assert there.put_bytes(b"some bytes" * 1000, TEXT) == as_file
    assert artifacts(here) == sorted([as_file.sha256, as_bytes.sha256])
    assert (tmp_path / "given.bin").exists()


def test_what_was_never_put_is_missing(store):
    absent = Artifact(sha256=sha256(b"x"), size=1, media_type=TEXT)
    assert not store.has(absent)
    with pytest.raises(InfrastructureError, match="is missing or cut short"):
        store.path(absent)


@pytest.mark.parametrize(("data", "what"), [(b"other bytes", "altered"), (b"some", "cut short")])
def test_altered_and_shortened_artifacts_are_refused(store, data, what):
    artifact = store.put_bytes(b"rigth bytes", TEXT)
    time.sleep(0.02)  # clocks of file systems tick 250 times a second
    alter(store, artifact, data)
    for _ in range(2):
        with pytest.raises(InfrastructureError, match=what):
            store.path(artifact)


def test_six_writers_of_one_artifact_leave_one(machines, tmp_path):
    data = os.urandom(300_000)
    (tmp_path / "given.bin").write_bytes(data)
    stores = [machines() for _ in range(6)]
    assert in_processes([lambda one=one: one.put_file(tmp_path / "given.bin", TEXT) for one in stores]) == [0] * 6
    assert keys(stores[0]) == [f"artifacts/{sha256(data)[:2]}/{sha256(data)}"]
    assert machines().path(Artifact(sha256=sha256(data), size=len(data), media_type=TEXT)).read_bytes() == data


def die_at(point: str, times: int) -> None:
    """In this process, the `times`-th call of a function, or of an operation of S3, is the last that begins."""
    left = [times]

    def deadly(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                if point == "copyfile":
                    Path(args[1]).write_bytes(b"the first ha")
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return call

    owner = {"copyfile": shutil, "fsync": os, "chmod": Path, "replace": Path}.get(point)
    if owner:
        setattr(owner, point, deadly(getattr(owner, point)))
        return
    repeat = S3Store._repeat

    def counted(store: S3Store, operation: str, *args: Any) -> Any:
        return (deadly(repeat) if operation == point else repeat)(store, operation, *args)

    S3Store._repeat = counted  # type: ignore[assignment, method-assign]


@pytest.mark.parametrize(("point", "times"), [("copyfile", 1), ("fsync", 1), ("chmod", 1), ("replace", 1),
                                              ("replace", 2)])
def test_a_killed_writer_leaves_nothing_that_passes_for_whole(tmp_path, point, times):
    killed_writer(lambda: FileStore(tmp_path / "store"), b"some bytes" * 1000, point, times, there=False)


@pytest.mark.parametrize(("point", "times", "there"), [
    ("put_object", 1, False), ("create_multipart_upload", 1, False), ("upload_part", 2, False),
    ("complete_multipart_upload", 1, False), ("replace", 2, True)])  # the second renaming comes after the upload
def test_a_killed_uploader_leaves_nothing_that_passes_for_whole(cached, monkeypatch, point, times, there):
    monkeypatch.setattr(tasks.s3, "LARGE", 10 << 20 if point == "put_object" else 5 << 20)
    monkeypatch.setattr(tasks.s3, "PART", 5 << 20)
    killed_writer(cached, os.urandom(6 << 20), point, times, there=there)


def killed_writer(opened: Callable[[], Store], data: bytes, point: str, times: int, *, there: bool) -> None:
    store = opened()

    def put() -> None:
        die_at(point, times)
        store.put_bytes(data, TEXT) if isinstance(store, S3Store) else store.put_file(given, TEXT)

    given = Path(tempfile.mkdtemp()) / "given"
    given.write_bytes(data)
    assert in_processes([put]) == [-signal.SIGKILL]
    whole = Artifact(sha256=sha256(data), size=len(data), media_type=TEXT)
    assert artifacts(store) == [whole.sha256] * there
    assert store.has(whole) == there
    left = [key for key in keys(store) if not ARTIFACT_KEY.fullmatch(key)]
    assert store.put_file(given, TEXT) == whole
    shutil.rmtree(getattr(store, "cache", given.parent))
    assert store.path(whole).read_bytes() == data
    store.delete(left)
    assert keys(store) == [f"artifacts/{whole.sha256[:2]}/{whole.sha256}"]


def test_seventy_mebibytes(machines, tmp_path):
    with (tmp_path / "large.bin").open("wb") as file:
        for number in range(70):
            file.write(number.to_bytes(1, "big") * (1 << 20))
    artifact = machines().put_file(tmp_path / "large.bin", TEXT)
    assert artifact.size == 70 << 20
    assert machines().path(artifact).read_bytes() == (tmp_path / "large.bin").read_bytes()


def test_objects_are_listed_with_size_and_age_and_deleted_by_key(store):
    first, second = store.put_bytes(b"one", TEXT), store.put_bytes(b"other", TEXT)
    listed = {one.key: one for one in store.objects()}
    assert sorted(one.size for one in listed.values()) == [3, 5]
    assert all(0 <= one.age_s < 600 for one in listed.values())
    store.delete([f"artifacts/{first.sha256[:2]}/{first.sha256}", "artifacts/00/" + "0" * 64])
    assert not store.has(first)
    assert store.has(second)


def test_more_objects_than_one_answer_lists(store, monkeypatch):
    if isinstance(store, S3Store):
        listed = S3Store._settled
        monkeypatch.setattr(S3Store, "_settled", lambda self, operation, **given: listed(
            self, operation, **given, **({"MaxKeys": 3} if operation == "list_objects_v2" else {})))
    made = {store.put_bytes(bytes([n]), TEXT).sha256 for n in range(8)}
    assert set(artifacts(store)) == made


def test_files_are_deleted_inside_the_store_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    for key in ("../mine.txt", "artifacts/../../mine.txt", str(tmp_path / "mine.txt")):
        with pytest.raises(InputError):
            FileStore(tmp_path / "store").delete([key])
    assert (tmp_path / "mine.txt").exists()


# -- checkpoints ------------------------------------------------------------------------------------------------------


def opened(store: Store) -> Checkpoint:
    return Checkpoint(store, RECIPE, 32, 16, Fraction(25))


def add(checkpoint: Checkpoint, level: int) -> None:
    checkpoint.add([np.full((16, 32, 3), level, np.uint8)] * 4, f"state {level}".encode())


def test_a_checkpoint_goes_on_elsewhere_and_gives_the_same_clip(machines, tmp_path):
    first = opened(machines())
    for level in (10, 20, 30):
        add(first, level)
    second = opened(machines())
    assert (second.frames, second.state) == (12, b"state 30")
    add(second, 40)
    second.join(tmp_path / "moved.mkv")
    third = opened(machines())
    assert third.chunks == second.chunks
    third.join(tmp_path / "again.mkv")
    assert (tmp_path / "again.mkv").read_bytes() == (tmp_path / "moved.mkv").read_bytes()


def test_a_checkpoint_keeps_two_states_and_goes_as_a_whole(machines):
    store = machines()
    checkpoint = opened(store)
    for level in range(5):
        add(checkpoint, level)
    folder = f"checkpoints/{RECIPE}/"
    assert keys(store) == [*(f"{folder}chunk-{n:04d}.mkv" for n in range(5)), folder + MANIFEST,
                           f"{folder}state-0003.bin", f"{folder}state-0004.bin"]
    assert all(CHECKPOINT_KEY.fullmatch(key) for key in keys(store))
    store.drop(RECIPE)
    assert keys(store) == []
    assert opened(machines()).chunks == []
    store.drop(RECIPE)  # nothing left to drop


@pytest.mark.parametrize(("name", "whole"), [("chunk-0002.mkv", 2), ("state-0002.bin", 2), ("chunk-0000.mkv", 0)])
def test_a_damaged_checkpoint_falls_back(machines, name, whole):
    store = machines()
    checkpoint = opened(store)
    for level in (10, 20, 30):
        add(checkpoint, level)
    if isinstance(store, S3Store):
        client(store.endpoint).put_object(Bucket=BUCKET, Key=f"{store.prefix}checkpoints/{RECIPE}/{name}", Body=b"no")
    else:
        (checkpoint.folder / name).write_bytes(b"no")
    elsewhere = opened(machines())
    assert len(elsewhere.chunks) == whole
    add(elsewhere, 40)
    assert opened(machines()).frames == 4 * (whole + 1)


def test_what_was_not_kept_does_not_count(buckets, monkeypatch):
    """A process that stops between writing a chunk and keeping it loses that chunk, and no more."""
    store = buckets()
    checkpoint = opened(store)
    add(checkpoint, 10)
    with monkeypatch.context() as stopped:
        stopped.setattr(S3Store, "_upload", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            add(checkpoint, 20)
    for one in (store, buckets()):
        assert opened(one).frames == 4
    add(opened(store), 20)
    assert opened(buckets()).frames == 8


def test_of_four_machines_that_hold_a_shot_one_goes_on(buckets):
    stores = [buckets() for _ in range(4)]
    add(opened(stores[0]), 10)
    checkpoints = [opened(one) for one in stores]
    codes = in_processes([lambda one=one: add(one, 20) for one in checkpoints])
    assert sorted(codes) == [0] + [3] * 3
    assert opened(buckets()).frames == 8


def test_who_lost_a_shot_is_told_and_stops_there(buckets):
    slow, fast = buckets(), buckets()
    zombie, heir = opened(slow), opened(fast)
    add(heir, 10)
    with pytest.raises(LostCheckpointError, match="another process"):
        add(zombie, 10)
    add(heir, 20)
    fast.drop(RECIPE)
    late = opened(slow)
    add(late, 10)
    finished = opened(buckets())
    slow.drop(RECIPE)
    with pytest.raises(LostCheckpointError):
        add(finished, 20)


def test_a_checkpoint_that_is_here_is_not_fetched_again(buckets, monkeypatch):
    store = buckets()
    add(opened(store), 10)
    monkeypatch.setattr(S3Store, "_download", lambda *_: pytest.fail("fetched again"))
    assert opened(store).frames == 4  # the same process
    restarted = S3Store(BUCKET, store.prefix.strip("/"), store.local, endpoint=store.endpoint)
    assert opened(restarted).frames == 4


# -- the cache of a bucket --------------------------------------------------------------------------------------------


def test_the_cache_forgets_what_was_not_used_for_longest(cached):
    store = cached(cache_gb=4e-5)
    old, older, young = (store.put_bytes(bytes([n]) * 15_000, TEXT) for n in range(3))
    for artifact, hours in ((old, 3), (older, 5), (young, 0)):
        at = time.time() - 3600 * hours
        os.utime(store._place(artifact), (at, at))
    store = cached(cache_gb=4e-5)
    store.put_bytes(b"the last straw", TEXT)
    assert [store._place(one).exists() for one in (old, older, young)] == [True, False, True]
    assert store.path(older).read_bytes() == bytes([1]) * 15_000


def test_what_was_used_within_the_hour_stays_however_full_the_cache_is(cached):
    store = cached(cache_gb=1e-6)
    made = [store.put_bytes(bytes([n]) * 5000, TEXT) for n in range(4)]
    at = time.time() - 7200
    for artifact in made:
        os.utime(store._place(artifact), (at, at))
    store.path(made[0])  # used now
    store.put_bytes(b"more" * 1000, TEXT)
    assert [store._place(one).exists() for one in made] == [True, False, False, False]


def test_a_damaged_cache_is_fetched_anew(cached):
    artifact = cached().put_bytes(b"right bytes", TEXT)
    store = cached()
    store._place(artifact).write_bytes(b"wrong bytes")
    assert store.path(artifact).read_bytes() == b"right bytes"


def test_threads_that_want_the_same_file_fetch_it_once(cached, monkeypatch):
    artifact = cached().put_bytes(b"x" * 1_000_000, TEXT)
    store, fetched, download = cached(), [], S3Store._download
    shutil.rmtree(store.cache)

    def slow(self: S3Store, *args: Any) -> Any:
        fetched.append(args)
        time.sleep(0.1)
        return download(self, *args)

    monkeypatch.setattr(S3Store, "_download", slow)
    threads = [threading.Thread(target=store.path, args=(artifact,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 1
    assert store.path(artifact).read_bytes() == b"x" * 1_000_000
