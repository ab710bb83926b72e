"""The lock of weights: what models.lock says, and what was written down at the first use of files it has no hash of."""

from __future__ import annotations

import tomllib
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError, model_validator

from models.downloads import ORIGINS
from models.errors import InputError, SetupError
from models.records import Record, Sha256

LOCK = Path(__file__).with_name("models.lock")


def _origin(value: str) -> str:
    scheme, _, rest = value.partition(":")
    if scheme not in ORIGINS:
        raise ValueError(f"unknown scheme in {value!r}; there are: {', '.join(f'{s}:' for s in ORIGINS)}")
    if not ORIGINS[scheme].fullmatch(rest):
        raise ValueError(f"{value!r} does not name one exact version (or place) for the scheme {scheme}:")
    return value


def file_name(value: str) -> str:
    """The name, once it is certain that it leads to nowhere else.

    Raises:
        ValueError: It is absolute, hidden, or goes up.
    """
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

    size: int = Field(-1, ge=-1)
    """Bytes; -1 before the first use of a file that is locked then."""
    sha256: Sha256 | None = None
    take: tuple[str, ...] = Field(min_length=1)
    """KEY:MEMBER of what it is joined from, in order."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.size < 0) != (self.sha256 is None):
            raise ValueError("size and sha256 are given together, or neither for a file that is locked at first use")
        return self


class Entry(Record):
    """One entry of models.lock."""

    description: str
    licence: str
    sources: dict[Annotated[str, Field(pattern=r"^[a-z0-9-]+$")], Source]
    files: dict[Annotated[str, AfterValidator(file_name)], WeightFile]

    @model_validator(mode="after")
    def _known_sources(self) -> Self:
        for part in (part for file in self.files.values() for part in file.take):
            if part.partition(":")[0] not in self.sources:
                raise ValueError(f"{part!r} is taken from a source that is not listed")
        for name, file in self.files.items():
            if file.sha256 is None and (len(file.take) > 1 or not self.place(name)[0].startswith("hf:")):
                raise ValueError(f"{name!r} has no SHA-256, and only single files of hf: can be locked at first use")
        return self

    def place(self, file: str) -> tuple[str, str]:
        """Origin and member of a file that is taken whole from one source."""
        key, _, member = self.files[file].take[0].partition(":")
        return self.sources[key].origin, member

    @property
    def unlocked(self) -> tuple[str, ...]:
        """Files of which size and hash are not known."""
        return tuple(name for name, file in self.files.items() if file.sha256 is None)

    @property
    def size(self) -> int:
        """Bytes on disk, as far as they are known."""
        return sum(max(file.size, 0) for file in self.files.values())


class Group(Record):
    """A name for entries that are pulled together."""

    description: str
    entries: tuple[str, ...] = Field(min_length=1)


class Lock(NamedTuple):
    """A lock file."""

    entries: dict[str, Entry]
    groups: dict[str, Group]


class Fact(Record):
    """What was locked at first use of one file."""

    origin: str
    """Origin and member that it holds for: where models.lock moved on, it holds no more."""
    size: int = Field(ge=0)
    sha256: Sha256


_FACTS = TypeAdapter(dict[str, Fact])


def read_lock(path: Path = LOCK) -> Lock:
    """Entries and groups of a lock file by name.

    Raises:
        InputError: It is not valid; the message says which field.
    """
    try:
        raw = {file_name(name): value for name, value in tomllib.loads(path.read_text()).items()}
        lock = Lock({name: Entry.model_validate(value) for name, value in raw.items() if "entries" not in value},
                    {name: Group.model_validate(value) for name, value in raw.items() if "entries" in value})
        for unknown in {name for group in lock.groups.values() for name in group.entries} - set(lock.entries):
            raise ValueError(f"a group names {unknown!r}, which is no entry")
    except (ValidationError, ValueError, OSError) as error:
        raise InputError(f"not a valid lock of weights: {error}", where=str(path)) from error
    return lock


def with_facts(entry: Entry, first_use: Path) -> Entry:
    """The entry with what was written down at its first use, as far as that is of the same origin.

    Raises:
        SetupError: What was written down cannot be read.
    """
    try:
        facts = _FACTS.validate_python(tomllib.loads(first_use.read_text()))
    except FileNotFoundError:
        return entry
    except (ValueError, OSError) as error:
        raise SetupError(f"cannot be read: {error}", where=str(first_use), hint="Delete it, and pull again") from error
    known = {file: WeightFile(size=facts[file].size, sha256=facts[file].sha256, take=entry.files[file].take)
             for file in entry.unlocked
             if file in facts and facts[file].origin == "/".join(entry.place(file))}
    return entry.model_copy(update={"files": entry.files | known})
