"""The catalog: a YAML file that says which episodes to dub into which languages, and with what the studio brings along.

Everything in it is untrusted: unknown keys, bad tags, missing files and paths that leave the catalog's folder are
errors that name the file and the field.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import langcodes
import yaml
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, ValidationError, ValidationInfo
from pydantic import Tag as Choice
from pydantic_core import ErrorDetails

from models.errors import InputError, nearest
from models.records import Record

MAX_BYTES = 4 * 1024 * 1024
TRANSCRIPT_FORMATS = (".srt", ".vtt", ".json")
SCRIPT_FORMATS = (".srt", ".vtt", ".json", ".csv", ".ttml")
DIARIZATION_FORMATS = (".rttm", ".json")


# -- field types ------------------------------------------------------------------------------------------------------


def language_tag(value: str) -> str:
    """A BCP-47 tag in its usual spelling (`ES` → `es`, `pt-br` → `pt-BR`, `eng` → `en`).

    Raises:
        ValueError: It is no tag of a registered language.
    """
    tag = value.strip()
    try:
        valid = langcodes.tag_is_valid(tag) and langcodes.Language.get(tag).language not in {None, "mul", "und", "zxx"}
    except ValueError:
        valid = False
    if not valid:
        raise ValueError(f"{value!r} is no language tag; write BCP-47, such as es, pt-BR or es-419")
    return langcodes.standardize_tag(tag)


def _file(value: object, info: ValidationInfo) -> Path:
    root: Path = (info.context or {})["root"]
    if not isinstance(value, str | Path) or not str(value).strip():
        raise ValueError("must be the path of a file")
    if "://" in str(value):
        raise ValueError(f"{value} is an address; only files in the catalog's folder can be named here")
    try:
        path = (root / value).resolve()
        inside, is_file = path.is_relative_to(root), path.is_file()
    except (OSError, ValueError, RuntimeError):
        raise ValueError(f"{str(value)!r} is no usable path") from None
    if not inside:
        raise ValueError(f"{value} leaves the catalog's folder; move the file into {root}")
    if not is_file:
        raise ValueError(f"no such file: {value}; paths are relative to {root}")
    return path


def _suffixed(*suffixes: str) -> AfterValidator:
    def check(path: Path) -> Path:
        if path.suffix.lower() not in suffixes:
            raise ValueError(f"{path.name} must be one of {', '.join(suffixes)}")
        return path

    return AfterValidator(check)


def _one_line(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be one line of printable text")
    return value.strip()


Tag = Annotated[str, AfterValidator(language_tag)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
"""A series or episode id: it becomes a folder name."""
Text = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_one_line)]
File = Annotated[Path, BeforeValidator(_file)]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
Terms = dict[Tag, dict[Text, Text]]
PLAIN, BY_LANGUAGE = "(plain)", "(by language)"
Title = Annotated[Annotated[Text, Choice(PLAIN)] | Annotated[dict[Tag, Text], Choice(BY_LANGUAGE)],
                  Discriminator(lambda value: BY_LANGUAGE if isinstance(value, dict) else PLAIN)]


def _without_repeats(tags: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({tag for tag in tags if tags.count(tag) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} is named twice")
    return tags


Languages = Annotated[tuple[Tag, ...], Field(min_length=1), AfterValidator(_without_repeats)]


def _glossary(value: object, info: ValidationInfo) -> object:
    """A glossary given as a file becomes what could have stood in its place."""
    if not isinstance(value, str):
        return value
    path = _file(value, info)
    if path.suffix.lower() == ".csv":
        return _csv_terms(path)
    if path.suffix.lower() in {".yaml", ".yml"}:
        return _read_yaml(path)
    raise ValueError(f"{path.name} must be one of .csv, .yaml")


def _csv_terms(path: Path) -> dict[str, dict[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            names, rows = list(table.fieldnames or []), list(table)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path.name} cannot be read as CSV in UTF-8 ({error})") from None
    if len(names) < 2 or names[0].strip().lower() != "term":
        raise ValueError(f"{path.name} must begin with the header term,<language>,<language>…")
    return {name.strip(): {row[names[0]]: row[name] for row in rows if row[names[0]] and row[name]}
            for name in names[1:]}


# -- the catalog ------------------------------------------------------------------------------------------------------


class CatalogEpisode(Record):
    """One episode. Languages and generator not given are the catalog's."""

    id: Name
    video: File
    title: Title | None = None
    """One for all languages, or language → title."""
    me: File | None = None
    """Music-and-effects stem: the bed of the dubbed sound."""
    transcript: Annotated[File, _suffixed(*TRANSCRIPT_FORMATS)] | None = None
    """Replaces recognition."""
    diarization: Annotated[File, _suffixed(*DIARIZATION_FORMATS)] | None = None
    """Who speaks when; replaces the diarizer."""
    script: dict[Tag, Annotated[File, _suffixed(*SCRIPT_FORMATS)]] = Field({})
    """Language → translated script; replaces translation."""
    dialogue: dict[Tag, File] = Field({})
    """Language → finished dialogue track; replaces synthesis."""
    languages: Languages | None = None
    generator: Text | None = None
    """Over the catalog's."""
    priority: Priority = 0
    """Higher goes first."""


class Catalog(Record):
    """A series and its episodes; paths are absolute and inside `root`."""

    path: Path
    root: Path
    series: Name
    source_language: Tag
    languages: Languages
    generator: Text | None = None
    profile: Text | None = None
    review: bool | None = None
    """Over the settings: languages wait after their translation until their texts are approved."""
    foreign: Literal["keep", "dub"] | None = None
    """Over the setting."""
    glossary: Annotated[Terms, BeforeValidator(_glossary)] = Field({})
    """Language → source term → required translation (the same term: do not translate)."""
    cast: Terms = Field({})
    """Language → speaker → voice."""
    people: dict[Text, Text] = Field({})
    """Speaker → name of the real person who is seen and heard."""
    episodes: Annotated[tuple[CatalogEpisode, ...], Field(min_length=1)]

    def languages_of(self, episode: CatalogEpisode) -> tuple[str, ...]:
        """The languages an episode is dubbed into."""
        return episode.languages or self.languages

    def generator_of(self, episode: CatalogEpisode) -> str | None:
        """The generator that is named for an episode."""
        return episode.generator or self.generator

    def titles_of(self, episode: CatalogEpisode) -> tuple[str, dict[str, str]]:
        """An episode's title, and what it is called in other languages."""
        if isinstance(episode.title, dict):
            return episode.title.get(self.source_language, episode.id), episode.title
        return episode.title or episode.id, {}

    def full_id(self, episode: CatalogEpisode) -> str:
        """`series/id`: the episode's name everywhere."""
        return f"{self.series}/{episode.id}"


_UNKNOWN = {"path": "path ", "root": "root "}
"""Fields that are set here, never by the file."""


def load_catalog(path: Path) -> Catalog:
    """Read and check a catalog.

    Raises:
        InputError: One line that names the file, the field, what is wrong and what to do.
    """
    root = path.parent.resolve()
    try:
        data = {_UNKNOWN.get(key, key): value for key, value in _read_yaml(path).items()}
        catalog = Catalog.model_validate(data | {"path": path.resolve(), "root": root}, context={"root": root})
    except ValidationError as error:
        raise _readable(error.errors(), str(path)) from None
    except ValueError as error:
        raise InputError(str(error), where=str(path)) from None
    for field, what in _contradictions(catalog):
        raise InputError(what, where=f"{path}: {field}")
    return catalog


def _contradictions(catalog: Catalog) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for number, episode in enumerate(catalog.episodes):
        at, languages = f"episodes[{number}]", catalog.languages_of(episode)
        if episode.id.lower() in seen:  # some file systems do not tell E1 from e1
            yield f"{at}.id", f"{episode.id!r} is used twice; every episode needs its own"
        seen.add(episode.id.lower())
        if catalog.source_language in languages:
            field = f"{at}.languages" if episode.languages else "languages"
            yield field, f"{catalog.source_language} is the source language; remove it"
        for field, given in (("script", episode.script), ("dialogue", episode.dialogue)):
            for tag in given:
                if tag not in languages:
                    yield f"{at}.{field}.{tag}", f"the episode is not dubbed into {tag}; add it to languages"


def _readable(errors: list[ErrorDetails], path: str) -> InputError:
    first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])  # often what another lacks
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"]
                    if p not in {"[key]", PLAIN, BY_LANGUAGE}).strip(". ")
    what = {"extra_forbidden": "unknown key", "missing": "is missing"}.get(first["type"], first["msg"])
    what = what.removeprefix("Value error, ").removeprefix("Input ")
    if first["type"] == "string_pattern_mismatch":
        what = f"{first['input']!r} may hold letters, digits, '.', '_' and '-' only (at most 64)"
    known = CatalogEpisode if first["loc"][:1] == ("episodes",) else Catalog
    keys = [name for name in known.model_fields if name not in {"path", "root"}]
    hint = f"{nearest(str(first['loc'][-1]), keys)}Known keys: {', '.join(keys)}" * (first["type"] == "extra_forbidden")
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InputError(what + more, where=f"{path}: {where}" if where else path, hint=hint)


# -- YAML -------------------------------------------------------------------------------------------------------------


class _PlainLoader(yaml.SafeLoader):
    """YAML without its traps: no aliases (bombs), no repeated keys, and scalars stay text.

    Text stays text so that Norwegian (`no`) does not turn into False, nor the episode `1e01` into a number.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            self._refuse("aliases (*name) are not allowed here", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in seen:
                name = key.value if isinstance(key, yaml.ScalarNode) else "?"
                self._refuse(f"the key {name!r} stands here twice or is no plain text", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    @staticmethod
    def _refuse(what: str, mark: yaml.Mark) -> NoReturn:
        raise yaml.MarkedYAMLError(problem=what, problem_mark=mark)


def _read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        ValueError: What is wrong, and at which line.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"is larger than {MAX_BYTES // 1024 // 1024} MiB; that is no catalog")
        text = path.read_text(encoding="utf-8-sig")
        data = yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{place}{error.problem or 'is no YAML'}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"is no readable YAML ({str(error).splitlines()[0][:100]})") from None
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise ValueError("must be a mapping with the keys series, source_language, languages, episodes")
    return data
