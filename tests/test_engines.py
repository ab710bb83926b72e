"""Engines by name: how they enter recipes, and that only the engine that was asked for answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from models.engines import ENGINES, EngineCache, adapter, describe, missing
from models.engines.options import Adapter
from models.errors import InputError
from models.ports import EngineHome
from models.records import EngineRef, Record

LOCKED = {"w": {"model.bin": "a" * 64, "voice.bin": "b" * 64}}


class Options(Record):
    loudness: float = 1.0
    address: str = ""


class Horn(Adapter):
    OPTIONS: ClassVar[type[Record]] = Options
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"address"})

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        self.ref = ref

    @classmethod
    def required_weights(cls, options: Any) -> tuple[str, ...]:
        return ("w",)


@pytest.fixture(autouse=True)
def horn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENGINES, "horn", {"horn": "tests.test_engines:Horn"})


def described(**options: Any) -> EngineRef:
    return describe("horn", "horn", options, LOCKED.__getitem__)


def cache(**connection: Any) -> EngineCache:
    return EngineCache(lambda port, name: EngineHome(weights=Path, connection=connection), LOCKED.__getitem__)


def test_a_default_that_is_written_down_is_the_same_engine() -> None:
    assert described() == described(loudness=1) == described(loudness="1.0", address="there")
    assert described().options == {"loudness": 1.0}
    assert described().model_dump_json() == described(loudness=1).model_dump_json()
    assert described(loudness=2) != described()


def test_another_version_of_an_adapter_is_another_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    before = described()
    monkeypatch.setattr(Horn, "VERSION", 2)
    assert described() != before
    with pytest.raises(InputError, match="not the engine that was asked for"):
        cache().get("horn", before)


def test_requests_that_name_some_of_the_weights_share_one_engine() -> None:
    whole, engines = described(), cache(address="here")
    part = whole.model_copy(update={"weights": {"w/model.bin": "a" * 64}})
    assert engines.get("horn", part) is engines.get("horn", whole)
    assert engines.get("horn", part).ref == whole  # type: ignore[attr-defined]


@pytest.mark.parametrize(("change", "why"), [
    ({"weights": {"w/model.bin": "c" * 64}}, "w/model.bin is another file"),
    ({"weights": {"w/model.bin": "a" * 64, "x/model.bin": "a" * 64}}, "x/model.bin is another file"),
    ({"version": 3}, "another version"), ({"options": {}}, "other options"),
    ({"options": {"loudness": 1.0, "address": "http://169.254.169.254"}}, "must not say address"),
    ({"options": {"loudness": "loud"}}, "option loudness"), ({"options": {"colour": 1}}, "option colour"),
    ({"name": "trumpet"}, "no horn is called 'trumpet'")])
def test_a_request_from_elsewhere_gets_only_what_it_names(change: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        cache(address="here").get("horn", described().model_copy(update=change))


@pytest.mark.parametrize(("port", "name"), [(port, name) for port in ENGINES for name in ENGINES[port]])
def test_every_adapter_fulfils_its_port_and_refuses_unknown_options(port: str, name: str) -> None:
    kind = adapter(port, name)
    assert kind.VERSION >= 1
    assert kind.OPTIONS.model_fields.keys() >= kind.CONNECTION
    with pytest.raises(InputError, match=f"engine {name}: option nonsense"):
        describe(port, name, {"nonsense": 1}, lambda weight: {})
    with pytest.raises(InputError, match="option nonsense"):
        missing(port, name, {"nonsense": 1})


@pytest.mark.parametrize(("port", "name", "option"), [
    ("face-detector", "dlib", "size"), ("shot-detector", "scenedetect", "ratio"), ("generator", "files", "clips")])
def test_a_wrong_value_is_named(port: str, name: str, option: str) -> None:
    with pytest.raises(InputError, match=f"option {option}: "):
        describe(port, name, {option: "abc" if option != "clips" else 5}, lambda weight: {})
