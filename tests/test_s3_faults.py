"""A bucket behind a bad network: what passes is repeated, what does not is said, and nothing wrong is ever taken."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tasks.s3
from models.errors import InfinidubError, InfrastructureError, LostCheckpointError, SetupError
from models.recipe import sha256
from models.records import Artifact
from tasks.s3 import S3Store
from tasks.store import MANIFEST
from tests.faulty_proxy import Proxy, faulty_proxy
from tests.s3_server import CREDENTIALS, client, s3_server

BUCKET = "store"
RECIPE = sha256(b"a shot")
DATA = bytes(range(256)) * 200
TEXT = "text/plain"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with s3_server() as address:
        client(address).create_bucket(Bucket=BUCKET)
        yield address


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tasks.s3, "READ_S", 0.5)
    monkeypatch.setattr(tasks.s3, "FIRST_PAUSE_S", 0.001)


@pytest.fixture
def proxy(server: str) -> Iterator[Proxy]:
    with faulty_proxy(server) as running:
        yield running


@pytest.fixture
def store(proxy: Proxy, tmp_path: Path) -> S3Store:
    return S3Store(BUCKET, sha256(str(tmp_path).encode())[:12], tmp_path / "here", endpoint=proxy.address)


def again(store: S3Store, artifact: Artifact) -> bytes:
    """What the bucket holds, past the cache."""
    shutil.rmtree(store.cache)
    return store.path(artifact).read_bytes()


@pytest.mark.parametrize("fault", ["hang", "503", "429", "cut-before", "cut-after", "flip"])
def test_an_upload_gets_through(store: S3Store, proxy: Proxy, fault: str) -> None:
    proxy.script("PUT", *([fault] * (1 if fault == "hang" else 3)))
    artifact = store.put_bytes(DATA, TEXT)
    assert proxy.faults == []
    assert again(store, artifact) == DATA


@pytest.mark.parametrize("fault", ["hang", "503", "429", "cut-before", "cut-after", "cut-body", "truncate", "slow"])
def test_a_download_gets_through(store: S3Store, proxy: Proxy, fault: str) -> None:
    artifact = store.put_bytes(DATA, TEXT)
    proxy.script("GET", *([fault] * (1 if fault in {"hang", "slow"} else 3)))
    assert again(store, artifact) == DATA
    assert proxy.faults == []


def test_a_byte_that_changed_on_the_way_is_fetched_again_and_never_handed_out(store: S3Store, proxy: Proxy) -> None:
    artifact = store.put_bytes(DATA, TEXT)
    proxy.script("GET", "flip")
    assert again(store, artifact) == DATA
    proxy.script("GET", "flip", "flip")
    with pytest.raises(InfrastructureError, match="altered"):
        again(store, artifact)
    assert [path for path in store.cache.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(("method", "fault"), [("POST", "503"), ("POST", "cut-before"), ("PUT", "flip"),
                                               ("PUT", "cut-after"), ("PUT", "hang")])
def test_an_upload_in_parts_gets_through(store: S3Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch,
                                         method: str, fault: str) -> None:
    monkeypatch.setattr(tasks.s3, "LARGE", 1)
    monkeypatch.setattr(tasks.s3, "PART", 5 << 20)
    data = os.urandom(6 << 20)
    proxy.script(method, fault)
    artifact = store.put_bytes(data, TEXT)
    assert proxy.faults == []
    assert again(store, artifact) == data
    assert [one.key for one in store.objects()] == [f"artifacts/{artifact.sha256[:2]}/{artifact.sha256}"]


def test_an_upload_in_parts_that_fails_is_taken_back(store: S3Store, proxy: Proxy,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.s3, "LARGE", 1)
    proxy.script("PUT", *["503"] * tasks.s3.TRIES)
    with pytest.raises(InfrastructureError, match="SlowDown"):
        store.put_bytes(DATA, TEXT)
    assert list(store.objects()) == []


def kept(store: S3Store, *contents: bytes) -> None:
    folder = store.local / "checkpoints" / RECIPE
    for number, content in enumerate(contents):
        (folder / f"state-{number:04d}.bin").write_bytes(content)
    (folder / MANIFEST).write_bytes(b" ".join(contents))
    store.keep(RECIPE, [f"state-{len(contents) - 1:04d}.bin"])


@pytest.mark.parametrize("fault", ["hang", "503", "cut-before", "cut-after"])
def test_a_checkpoint_that_was_kept_unheard_is_still_ones_own(store: S3Store, proxy: Proxy, tmp_path: Path,
                                                              fault: str) -> None:
    store.checkpoint(RECIPE)
    kept(store, b"one")
    proxy.script("PUT", fault, fault)  # the file, and the manifest
    kept(store, b"one", b"two")
    elsewhere = S3Store(BUCKET, store.prefix.strip("/"), tmp_path / "there", endpoint=store.endpoint)
    folder = elsewhere.checkpoint(RECIPE)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        "state-0000.bin": b"one", "state-0001.bin": b"two", MANIFEST: b"one two"}
    kept(elsewhere, b"one", b"two", b"three")
    with pytest.raises(LostCheckpointError):
        kept(store, b"one", b"two", b"three")


def test_a_spoilt_checkpoint_is_fetched_again(store: S3Store, proxy: Proxy, tmp_path: Path) -> None:
    store.checkpoint(RECIPE)
    kept(store, DATA)
    proxy.script("GET", "flip")
    elsewhere = S3Store(BUCKET, store.prefix.strip("/"), tmp_path / "there", endpoint=store.endpoint)
    folder = elsewhere.checkpoint(RECIPE)
    assert (folder / MANIFEST).read_bytes() == DATA
    assert (folder / "state-0000.bin").read_bytes() == DATA


@pytest.mark.parametrize("fault", ["503", "cut-before", "cut-after"])
def test_what_never_gets_through_is_an_error_that_can_be_repeated(store: S3Store, proxy: Proxy, fault: str) -> None:
    artifact = store.put_bytes(DATA, TEXT)
    proxy.script("GET", *[fault] * tasks.s3.TRIES)
    with pytest.raises(InfrastructureError) as caught:
        again(store, artifact)
    assert caught.value.retryable
    assert artifact.sha256 in str(caught.value)
    assert sum(line.startswith("GET ") for line in proxy.seen) == tasks.s3.TRIES
    assert store.path(artifact).read_bytes() == DATA


def test_pauses_grow_and_are_never_the_same(store: S3Store, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(tasks.s3, "FIRST_PAUSE_S", 8.0)
    monkeypatch.setattr(time, "sleep", pauses.append)
    proxy.script("HEAD", *["503"] * tasks.s3.TRIES)
    with pytest.raises(InfrastructureError):
        store.has(Artifact(sha256="0" * 64, size=1, media_type=TEXT))
    mine = [pause for pause in pauses if pause]
    assert len(set(mine)) == tasks.s3.TRIES - 1
    assert all(pause <= min(8.0 * 2 ** n, 20.0) for n, pause in enumerate(mine))


def refused(call: Callable[[], object]) -> InfinidubError:
    with pytest.raises(InfinidubError) as caught:
        call()
    return caught.value


def test_a_refusal_is_not_repeated_and_says_what_to_do(store: S3Store, proxy: Proxy, tmp_path: Path) -> None:
    absent = S3Store("no-such-bucket", "", tmp_path / "there", endpoint=proxy.address)
    error = refused(lambda: absent.put_bytes(b"x", TEXT))
    assert isinstance(error, InfrastructureError)
    assert "NoSuchBucket" in str(error)
    assert "Make the bucket" in str(error)
    assert sum(line.startswith("PUT ") for line in proxy.seen) == 1


def test_no_message_or_log_names_a_credential_or_an_address(
        store: S3Store, proxy: Proxy, tmp_path: Path,
        caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    artifact = store.put_bytes(DATA, TEXT)
    absent = S3Store("no-such-bucket", "", tmp_path / "there", endpoint=proxy.address)
    errors = [refused(lambda: absent.put_bytes(b"", TEXT))]
    for fault in ("503", "cut-before", "truncate"):
        proxy.script("GET", *[fault] * tasks.s3.TRIES)
        errors.append(refused(lambda: again(store, artifact)))
        store.path(artifact)
    errors.append(refused(lambda: S3Store(BUCKET, "", tmp_path / "c", endpoint="http://127.0.0.1:9").has(artifact)))
    told = "\n".join([str(chained) for error in errors for chained in (error, error.__cause__)] + caplog.messages)
    for secret in (*CREDENTIALS.values(), "Signature", "Authorization", "http://", "127.0.0.1"):
        if secret != "true":
            assert secret not in told


def test_without_credentials_it_says_where_they_come_from(proxy: Proxy, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = refused(lambda: S3Store(BUCKET, "", tmp_path, endpoint=proxy.address).put_bytes(b"x", TEXT))
    assert isinstance(error, SetupError)
    assert "AWS_ACCESS_KEY_ID" in str(error)
