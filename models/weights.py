"""Model weights by name: pulled from where models.lock says, checked against its hashes, kept in one folder.

`WeightStore(root)` keeps each entry under `root/NAME/`. A folder appears whole or not at all: files are put together
beside it and renamed into place. Nothing that an archive says about itself is believed: only the members that the lock
names are read, to the file names that the lock gives, and everything is hashed.

Files of a hub repository may stand in the lock without size and hash: they are *locked at first use*. The first pull
asks the hub for both, at the exact revision that the lock names, and writes them to `root/NAME.lock.toml`; from then on
these hold. A mirror has that file beside its folder NAME, and pulling from it brings it along.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from models.downloads import BLOCK, fetch_archive, fetch_file, hub_facts, member_of
from models.errors import InfrastructureError, InputError, SetupError, StorageFullError
from models.lockfile import LOCK, Entry, Source, WeightFile, file_name, read_lock, with_facts

STAMP = ".verified.json"

Report = Callable[[str, float], None]


class WeightStore:
    """The weights of this machine."""

    def __init__(self, root: Path, *, mirror: str = "", lock: Path = LOCK, hub: str = "",
                 stamps: Path | None = None) -> None:
        """Keep weights under `root`.

        Args:
            root: Folder that holds one folder an entry.
            mirror: `file:…/` or `s3:…/` under which NAME/FILE lie ready made; used instead of the lock's origins.
            lock: The lock file.
            hub: Address of the hub that `hf:` means; '' for huggingface_hub's own choice (HF_ENDPOINT).
            stamps: Folder to note in what was verified, where `root` is a volume that cannot be written to; None notes
                it beside the weights.
        """
        self.root, self.mirror, self.hub, self.stamps = root, mirror, hub, stamps
        self._entries, self.groups = read_lock(lock)

    def names(self) -> tuple[str, ...]:
        """All entries of the lock, without its groups."""
        return tuple(self._entries)

    def expand(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names of entries and groups → entries, each once.

        Raises:
            InputError: There is neither; the message lists those there are.
        """
        for name in names:
            if name not in self.groups:
                self.entry(name)
        return tuple(dict.fromkeys(entry for name in names for entry in self._of(name)))

    def _of(self, name: str) -> tuple[str, ...]:
        return self.groups[name].entries if name in self.groups else (name,)

    def entry(self, name: str) -> Entry:
        """What the lock says of `name`, and what was locked at its first use.

        Raises:
            InputError: There is no such entry; the message lists those there are.
        """
        if name not in self._entries:
            raise InputError(f"no weights are called {name!r}",
                             hint=f"There are: {', '.join([*self._entries, *self.groups])}")
        entry = self._entries[name]
        return with_facts(entry, self._first_use(name)) if entry.unlocked else entry

    def _first_use(self, name: str) -> Path:
        return self.root / f"{name}.lock.toml"

    def hashes(self, name: str) -> dict[str, str]:
        """File → SHA-256, as locked; touches none of the files.

        Raises:
            SetupError: They are locked at first use, and were never used here.
        """
        entry = self.entry(name)
        if entry.unlocked:
            raise SetupError("the hashes of these weights are locked at first use, and they were never pulled here",
                             where=name, hint=f"Get them with: {self.command([name])} (or bring {name}.lock.toml from a"
                             f" machine that has them to {self.root})")
        return {file: str(locked.sha256) for file, locked in entry.files.items()}

    def command(self, names: Collection[str]) -> str:
        """The command that pulls entries `names`, by the name of a group where they hold all of one."""
        group = next((name for name, group in self.groups.items() if set(group.entries) <= set(names)), "")
        rest = [name for name in names if not group or name not in self.groups[group].entries]
        return " ".join(["infinidub models pull", *filter(None, [group]), *rest])

    def present(self, name: str) -> bool:
        """Whether all files are there with their sizes (not whether their content is right)."""
        entry, folder = self.entry(name), self.root / name
        return not entry.unlocked and all(_size(folder / file) == locked.size for file, locked in entry.files.items())

    def need(self, names: Sequence[str], *, hashed: bool = True) -> None:
        """See that all of `names` are here; and, unless `hashed` is off, that they are whole.

        Raises:
            SetupError: Some are absent or damaged; the message holds one command that mends it.
        """
        if not all(map(self.present, names)):
            absent = [name for name in names if not self.present(name)]
            raise SetupError("the weights are not on this machine", where=", ".join(absent),
                             hint=f"Get them with: {self.command(names)}")
        for name in names if hashed else ():
            self.folder(name)

    def folder(self, name: str) -> Path:
        """The verified folder of `name`; hashes once, later calls compare sizes and times only.

        Raises:
            SetupError: It is absent or damaged; the message names the command that mends it.
        """
        entry, folder = self.entry(name), self.root / name
        if not self.present(name):
            raise self._absent(name)
        if _stamp(folder, entry) not in map(_read_stamp, self._stamps(name)):
            self.verify(name)
        return folder

    def _stamps(self, name: str) -> list[Path]:
        """Where it is noted that `name` was verified: by whoever filled the folder, and by this machine."""
        beside = self.root / name / STAMP
        if self.stamps is None:
            return [beside]
        folder = hashlib.sha256(str(self.root.absolute()).encode()).hexdigest()[:16]
        return [beside, self.stamps / folder / f"{name}.json"]

    def _absent(self, name: str) -> SetupError:
        return SetupError("the weights are not on this machine", where=name,
                          hint=f"Get them with: infinidub models pull {name}")

    def verify(self, name: str) -> None:
        """Hash every file of `name` anew.

        Raises:
            SetupError: It is absent, a file is missing or differs, or nobody knows the hashes.
        """
        entry, folder = self.entry(name), self.root / name
        if not folder.is_dir():
            raise self._absent(name)
        self.hashes(name)
        for file, locked in entry.files.items():
            if _size(folder / file) != locked.size or _hash(folder / file) != locked.sha256:
                for stamp in self._stamps(name):
                    with suppress(OSError):  # on a volume that cannot be written to
                        stamp.unlink(missing_ok=True)
                raise SetupError("is missing or differs from what was locked", where=str(folder / file),
                                 hint=f"Get it again with: infinidub models pull {name}")
        _write_stamp(self._stamps(name)[-1], _stamp(folder, entry))

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
        if self.present(name):  # then no lock is needed, which a volume may have no place for
            with suppress(SetupError):
                return self.folder(name)
        with _disk(self.root), _alone(self.root, name):
            try:
                return self.folder(name)
            except SetupError:
                partial = self.root / f".{name}.partial"
                (partial / "files").mkdir(parents=True, exist_ok=True)
            entry = self._locked(name, partial)
            _see_that_it_fits(self.root, name, entry.size - _held(partial))
            for number, (file, locked) in enumerate(entry.files.items()):
                report(f"{name}: {file}", number / len(entry.files))
                self._make(name, file, locked, partial)
            shutil.rmtree(self.root / name, ignore_errors=True)
            (partial / "files").replace(self.root / name)
            shutil.rmtree(partial)
            _write_stamp(self._stamps(name)[-1], _stamp(self.root / name, entry))
            report(f"{name}: done", 1.0)
        return self.folder(name)

    # -- the first use ------------------------------------------------------------------------------------------------

    def _locked(self, name: str, partial: Path) -> Entry:
        """The entry, after its first use was written down where it has files without hashes."""
        entry, first_use = self.entry(name), self._first_use(name)
        if entry.unlocked:
            made = partial / "lock.toml"
            made.unlink(missing_ok=True)
            if self.mirror:
                fetch_file(self.mirror.rstrip("/") + "/", first_use.name, made)
            else:
                made.write_text(self._ask_hub(entry))
            made.replace(first_use)
            entry = self.entry(name)
        for file in entry.unlocked:
            raise SetupError(f"says nothing of {file} as models.lock names it", where=str(first_use),
                             hint="It comes from a mirror of another version: make the mirror anew")
        return entry

    def _ask_hub(self, entry: Entry) -> str:
        rows = ["# Size and SHA-256 of files that models.lock names without, as the hub told them at the first pull."]
        places = {file: entry.place(file) for file in entry.unlocked}
        for origin in dict.fromkeys(origin for origin, _ in places.values()):
            told = hub_facts(origin, {member for other, member in places.values() if other == origin}, self.hub)
            rows += [f'["{file}"]\norigin = "{origin}/{member}"\nsize = {told[member][0]}\nsha256 = "{told[member][1]}"'
                     for file, (other, member) in places.items() if other == origin]
        return "\n\n".join(rows) + "\n"

    # -- one file -----------------------------------------------------------------------------------------------------

    def _make(self, name: str, file: str, locked: WeightFile, partial: Path) -> None:
        """Put one file together, and check it."""
        target = partial / "files" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        # What a killed pull left need not be the beginning of this file: then once more, from nothing.
        for _ in range(2 if target.is_file() else 1):
            if _size(target) > locked.size:
                target.unlink()
            if _size(target) != locked.size:
                self._fill(target, list(self._parts(name, file, locked)), partial)
            if _size(target) == locked.size and _hash(target) == locked.sha256:
                return
            target.unlink()
        raise SetupError("what was downloaded is not what models.lock expects", where=f"{name}/{file}",
                         hint="The origin has changed, or the lock is wrong: do not use it")

    def _fill(self, target: Path, parts: Sequence[tuple[Source, str]], partial: Path) -> None:
        if len(parts) == 1 and parts[0][0].is_folder:
            fetch_file(parts[0][0].origin, file_name(parts[0][1]), target, self.hub)
            return
        with target.open("wb") as out:
            for source, member in parts:
                path, inner = self._part(source, member, partial)
                with member_of(path, inner) as data:
                    shutil.copyfileobj(data, out, BLOCK)

    def _part(self, source: Source, member: str, partial: Path) -> tuple[Path, str]:
        """A local file, and the member in it that is wanted ('' for the file itself)."""
        if not source.is_folder:
            return _archive(source, partial), member
        path = partial / "part"
        path.unlink(missing_ok=True)
        fetch_file(source.origin, file_name(member), path, self.hub)
        return path, ""

    def _parts(self, name: str, file: str, locked: WeightFile) -> Iterator[tuple[Source, str]]:
        if self.mirror:
            yield Source(origin=self.mirror.rstrip("/") + "/"), f"{name}/{file}"
            return
        for part in locked.take:
            key, _, member = part.partition(":")
            yield self.entry(name).sources[key], member


def _archive(source: Source, partial: Path) -> Path:
    """The archive, fetched once and checked."""
    if source.sha256 is None:
        raise InputError("a source in the lock has no SHA-256", where=source.origin)
    kept = partial / "archives" / hashlib.sha256(source.origin.encode()).hexdigest()
    if not kept.is_file():
        kept.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=partial) as folder:
            archive = fetch_archive(source.origin, Path(folder))
            if not archive.is_relative_to(folder):  # copied aside first: a killed copy must not pass for the archive
                archive = Path(shutil.copyfile(archive, Path(folder) / "archive"))
            if _hash(archive) != source.sha256:
                raise SetupError("the download is not what models.lock expects (SHA-256 differs)", where=source.origin,
                                 hint="The origin has changed, or the lock is wrong: do not use it")
            archive.replace(kept)
    return kept


def _see_that_it_fits(root: Path, name: str, missing: int) -> None:
    free = shutil.disk_usage(root).free
    if free < missing:
        raise StorageFullError(f"{missing / 1e9:.1f} GB are still to come, and {free / 1e9:.1f} GB are free",
                               where=str(root), hint=f"Free some space for {name}, or set another folder: weights")


def _held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


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


def _read_stamp(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def _write_stamp(path: Path, stamp: dict[str, Any]) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with suppress(OSError):  # where nothing can be written, as in an image, weights are hashed at every start
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(json.dumps(stamp))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


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
