"""The catalog: what it says, and that every mistake in it is one line naming file and field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.jobs import catalog_jobs
from models.catalog import language_tag, load_catalog
from models.errors import InputError

GOOD: dict[str, Any] = {
    "series": "harbor-lights", "source_language": "en", "languages": ["es", "pt-br"],
    "episodes": [{"id": "s01e01", "video": "one.mp4", "title": "The lamp"}, {"id": "s01e02", "video": "two.mp4"}],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "series"
    root.mkdir()
    for name in ("one.mp4", "two.mp4", "me.flac", "one.srt", "notes.txt"):
        (root / name).write_bytes(b"x")
    return root


def write(folder: Path, data: dict[str, Any] | str) -> Path:
    path = folder / "catalog.yaml"
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")
    return path


def episode(**fields: Any) -> dict[str, Any]:
    return GOOD | {"episodes": [{"id": "s01e01", "video": "one.mp4"} | fields]}


def test_a_good_catalog_has_absolute_paths_and_full_ids(folder: Path) -> None:
    catalog = load_catalog(write(folder, GOOD))
    first = catalog.episodes[0]
    assert first.video == folder / "one.mp4"
    assert catalog.full_id(first) == "harbor-lights/s01e01"
    assert catalog.languages_of(first) == ("es", "pt-BR")


def test_scalars_are_text_so_that_norwegian_is_no_boolean(folder: Path) -> None:
    text = "series: 1984\nsource_language: en\nlanguages: [no]\nepisodes:\n- {id: 1e01, video: one.mp4, priority: 3}\n"
    catalog = load_catalog(write(folder, text))
    assert (catalog.series, catalog.languages, catalog.episodes[0].id) == ("1984", ("no",), "1e01")
    assert catalog.episodes[0].priority == 3


@pytest.mark.parametrize(("name", "content"), [
    ("terms.csv", "term,es,pt-BR\nlighthouse,faro,farol\nkeeper,,guarda\n"),
    ("terms.yaml", "es: {lighthouse: faro}\npt-BR: {lighthouse: farol, keeper: guarda}\n"),
])
def test_a_glossary_may_be_a_file(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    catalog = load_catalog(write(folder, GOOD | {"glossary": name}))
    assert catalog.glossary == {"es": {"lighthouse": "faro"}, "pt-BR": {"lighthouse": "farol", "keeper": "guarda"}}


def test_what_becomes_of_foreign_dialogue_is_the_series_own_or_the_settings(folder: Path) -> None:
    for given, wanted in (({"foreign": "dub"}, "dub"), ({}, None)):
        catalog = load_catalog(write(folder, GOOD | given))
        assert {job.foreign for job in catalog_jobs(catalog, folder)} == {wanted}


def test_studio_files_are_resolved(folder: Path) -> None:
    data = episode(me="me.flac", transcript="one.srt", script={"es": "one.srt"}, dialogue={"es": "me.flac"})
    first = load_catalog(write(folder, data)).episodes[0]
    assert first.script == {"es": folder / "one.srt"}
    assert first.dialogue == {"es": folder / "me.flac"}


def test_an_episode_may_have_a_title_in_each_language(folder: Path) -> None:
    titles = {"en": "The Lamp", "ES": "La lámpara"}
    for title, wanted in ((titles, ("The Lamp", {"en": "The Lamp", "es": "La lámpara"})), ("One", ("One", {})),
                          ({"es": "Uno"}, ("s01e01", {"es": "Uno"}))):
        job = catalog_jobs(load_catalog(write(folder, episode(title=title))), folder)[0]
        assert (job.title, job.titles) == wanted


WITHOUT_SERIES = {key: value for key, value in GOOD.items() if key != "series"}
BAD: dict[str, tuple[dict[str, Any] | str, str, str]] = {
    "unknown key": (GOOD | {"langauges": ["es"]}, "langauges", "unknown key"),
    "a field of ours": (GOOD | {"root": "/"}, "root", "unknown key"),
    "no policy": (GOOD | {"foreign": "mute"}, "foreign", "'keep' or 'dub'"),
    "unknown key in an episode": (episode(tilte="x"), "episodes[0].tilte",
                                  "Did you mean title? Known keys: id, video, title"),
    "missing key": (WITHOUT_SERIES, "series", "is missing"),
    "same id": (GOOD | {"episodes": GOOD["episodes"] + [{"id": "S01E01", "video": "one.mp4"}]},
                "episodes[2].id", "used twice"),
    "bad tag": (GOOD | {"languages": ["klingonese"]}, "languages[0]", "BCP-47"),
    "unregistered tag": (GOOD | {"languages": ["es", "zz"]}, "languages[1]", "BCP-47"),
    "tag twice": (GOOD | {"languages": ["es", "ES"]}, "languages", "es is named twice"),
    "source among targets": (GOOD | {"languages": ["en"]}, "languages", "source language"),
    "no languages": (GOOD | {"languages": []}, "languages", "at least 1"),
    "missing file": (episode(video="three.mp4"), "episodes[0].video", "no such file: three.mp4"),
    "folder for a file": (episode(video="."), "episodes[0].video", "no such file"),
    "path that leaves": (episode(video="../secret.mp4"), "episodes[0].video", "leaves the catalog's folder"),
    "absolute path": (episode(video="/etc/hostname"), "episodes[0].video", "leaves the catalog's folder"),
    "link that leaves": (episode(video="link.mp4"), "episodes[0].video", "leaves the catalog's folder"),
    "address": (episode(video="https://example.org/a.mp4"), "episodes[0].video", "only files"),
    "path with NUL": (episode(video="a\0b"), "episodes[0].video", "no usable path"),
    "bad id": (episode(id="../../x"), "episodes[0].id", "letters, digits"),
    "bad series": (GOOD | {"series": "a/b"}, "series", "letters, digits"),
    "title of two lines": (episode(title="a\nb"), "episodes[0].title", "one line"),
    "title in no language": (episode(title={"xq": "a"}), "episodes[0].title.xq", "BCP-47"),
    "title of a language that is none": (episode(title={"es": ["a"]}), "episodes[0].title.es", "string"),
    "priority no number": (episode(priority="high"), "episodes[0].priority", "integer"),
    "transcript format": (episode(transcript="notes.txt"), "episodes[0].transcript", ".srt"),
    "script of a language not dubbed": (episode(script={"de": "one.srt"}), "episodes[0].script.de", "add it"),
    "glossary format": (GOOD | {"glossary": "notes.txt"}, "glossary", ".csv"),
    "glossary tag": (GOOD | {"glossary": {"xq": {"a": "b"}}}, "glossary.xq", "BCP-47"),
    "no mapping": ("- a\n- b\n", "", "must be a mapping"),
    "empty": ("", "", "must be a mapping"),
    "broken YAML": ("series: [a\nlanguages: b", "", "line 2"),
    "tabs": ("series:\n\t- a\n", "", "line 2"),
    "key twice": ("series: a\nseries: b\n", "", "line 2, column 1: the key 'series' stands here twice"),
    "bomb": ("a: &a [x, x]\nb: [*a, *a]\n", "", "aliases"),
    "merge": ("a: &a {x: y}\nb: {<<: *a}\n", "", "aliases"),
    "python object": ("series: !!python/object/apply:os.getcwd []\n", "", "line 1"),
    "depth": ("[" * 5000, "", "no readable YAML"),
    "control characters": ("series: \x01\n", "", "no readable YAML"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_catalogs_get_one_clear_line(folder: Path, case: str) -> None:
    data, field, words = BAD[case]
    (folder.parent / "secret.mp4").write_bytes(b"x")
    (folder / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    path = write(folder, data)
    with pytest.raises(InputError) as caught:
        load_catalog(path)
    assert caught.value.where == (f"{path}: {field}" if field else str(path))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_catalog(folder: Path) -> None:
    binary, huge = folder / "b.yaml", folder / "h.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x01")
    huge.write_bytes(b"#" * (5 * 1024 * 1024))
    for path, words in ((folder / "none.yaml", "No such file"), (binary, "UTF-8"), (huge, "larger than"),
                        (folder, "cannot be read")):
        with pytest.raises(InputError, match=words):
            load_catalog(path)


@pytest.mark.parametrize(("given", "tag"), [("ES", "es"), ("pt-br", "pt-BR"), ("eng", "en"), ("es-419", "es-419")])
def test_tags_are_spelled_as_usual(given: str, tag: str) -> None:
    assert language_tag(given) == tag
