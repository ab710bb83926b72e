"""Translator: Apertium, a rule-based system, run as a program. Gist quality, no weights, a second a batch.

Sentences travel as paragraphs of one text (paragraphs do not influence each other) and are counted when they come
back. What its rules cannot know is mended with simple ones before and after, in `apertium_text`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal

from models.engines.apertium_text import (
    Names,
    Sentence,
    add_pronouns,
    finish,
    mark,
    split_sentences,
    unmark,
)
from models.engines.options import Adapter, read_options
from models.errors import EngineError, InputError, SetupError
from models.ports import Around, Draft, EngineHome
from models.records import Candidate, EngineRef, Record

DIRECT = {("en", "es"): "eng-spa", ("en", "ca"): "eng-cat", ("en", "gl"): "en-gl", ("es", "en"): "spa-eng",
          ("ca", "en"): "cat-eng", ("ca", "fr"): "cat-fra", ("ca", "it"): "cat-ita", ("ca", "pt"): "cat-por",
          ("fr", "ca"): "fra-cat", ("it", "ca"): "ita-cat", ("pt", "ca"): "por-cat"}
THROUGH = {
    "cat": {"fr": ("eng-cat", "cat-fra"), "it": ("eng-cat", "cat-ita"), "pt": ("eng-cat", "cat-por")},
    "spa": {"fr": ("eng-spa", "es-fr"), "it": ("eng-spa", "spa-ita"), "pt": ("eng-spa", "es-pt")},
}
"""Between languages without a pair of their own, for English sources. Catalan's pairs are the better ones: they keep
verb and noun apart ('vivo' is no 'vif') and know more idioms."""
PACKAGES = {"eng-spa": "apertium-eng-spa", "spa-eng": "apertium-eng-spa", "eng-cat": "apertium-eng-cat",
            "cat-eng": "apertium-eng-cat", "en-gl": "apertium-en-gl", "cat-fra": "apertium-fra-cat",
            "fra-cat": "apertium-fra-cat", "cat-ita": "apertium-cat-ita", "ita-cat": "apertium-cat-ita",
            "cat-por": "apertium-por-cat", "por-cat": "apertium-por-cat", "es-fr": "apertium-fr-es",
            "spa-ita": "apertium-spa-ita", "es-pt": "apertium-es-pt"}
TIMEOUT = 120
"""Seconds for one batch."""


class ApertiumOptions(Record):
    """What may be set."""

    pivot: Literal["cat", "spa"] = "cat"
    """The language between English and French, Italian or Portuguese."""


class Apertium(Adapter):
    """The installed program and its language pairs."""

    OPTIONS: ClassVar[type[Record]] = ApertiumOptions
    REVISES: ClassVar[bool] = False

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        self._pivot = read_options(ApertiumOptions, ref.name, ref.options).pivot

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """Whether the program is there; its language pairs are looked for when they are needed."""
        if shutil.which("apertium"):
            return ""
        modes = {*DIRECT.values(), *(m for route in THROUGH["cat"].values() for m in route)}
        return f"the program apertium is missing. {_install(modes)}"

    def pairs(self) -> frozenset[tuple[str, str]]:
        """Primary-language pairs; their packages may still have to be installed."""
        return frozenset([*DIRECT, *(("en", target) for target in THROUGH[self._pivot])])

    def translate(self, lines: Mapping[str, str], source: str, target: str, glossary: Mapping[str, str],
                  around: Mapping[str, Around]) -> dict[str, tuple[Candidate, ...]]:
        """Translate each line, sentence by sentence, into one candidate (see `models.ports.Translator`).

        Raises:
            InputError: It does not do this pair.
            SetupError: The packages of this pair are not installed.
            EngineError: The program failed.
        """
        source, target = (tag.partition("-")[0].lower() for tag in (source, target))
        route = self._route(source, target)
        sentences = {key: [Sentence.of(text, source, target) for text in split_sentences(line)]
                     for key, line in lines.items()}
        everything = [sentence for parts in sentences.values() for sentence in parts]
        if source == "en":
            self._protect_names(sentences.values(), route[0])
        self._translate(everything, route, target)
        broken = [sentence for sentence in everything if sentence.miss(glossary)]
        for sentence in broken:
            sentence.protect({term: wanted for term, wanted in glossary.items() if term in sentence.miss(glossary)})
        self._translate(broken, route, target)
        done = {key: " ".join(sentence.target for sentence in parts) for key, parts in sentences.items()}
        return {key: (Candidate(text=text, score=0.0),) for key, text in done.items() if text.strip()}

    def revise(self, drafts: Mapping[str, Draft], source: str, target: str,
               glossary: Mapping[str, str]) -> dict[str, tuple[Candidate, ...]]:
        """Its rules give one answer."""
        return {}

    def _route(self, source: str, target: str) -> tuple[str, ...]:
        """The modes to run one after the other."""
        direct = DIRECT.get((source, target))
        route = (direct,) if direct else THROUGH[self._pivot].get(target, ()) if source == "en" else ()
        if not route:
            raise InputError(f"apertium does not translate {source} → {target}",
                             hint="It does: " + ", ".join(sorted(f"{a} → {b}" for a, b in self.pairs())))
        lacking = [mode for mode in route if mode not in self._installed]
        if lacking:
            raise SetupError(f"apertium's data for {source} → {target} is missing", where="translator apertium",
                             hint=_install(lacking))
        return route

    @cached_property
    def _installed(self) -> frozenset[str]:
        return frozenset(_call(["apertium", "-l"], "").split())

    def _protect_names(self, lines: Iterable[Sequence[Sentence]], mode: str) -> None:
        """Keep capitalised words that are common words as well ('Rose', 'Grace') from being translated.

        `mode` is one that translates them anyway: what else is installed must not change an answer.
        """
        found = [(parts, {name for s in parts for name in Names.candidates(s.source)}) for parts in lines]
        candidates = sorted(set().union(*(names for _, names in found)))
        # Proper names stand in the dictionaries with a capital: in lower case only common words are known.
        answers = _paragraphs(mode, [name.lower() for name in candidates])
        common = {name for name, answer in zip(candidates, answers, strict=True) if "*" not in answer}
        for parts, names in found:
            for sentence in parts:
                sentence.protect({name: name for name in sorted(names & common) if name in sentence.source})

    @staticmethod
    def _translate(sentences: Sequence[Sentence], route: Sequence[str], target: str) -> None:
        """Fill in every sentence's target."""
        texts = [mark(sentence) for sentence in sentences]
        for number, mode in enumerate(route):
            texts = _paragraphs(mode, [unmark(text) for text in texts] if number else texts)
            if number + 1 < len(route) and target == "fr":
                texts = [add_pronouns(s.prepared, text) for s, text in zip(sentences, texts, strict=True)]
        for sentence, text in zip(sentences, texts, strict=True):
            sentence.target = finish(sentence, unmark(text), target)


def _install(modes: Iterable[str]) -> str:
    return "Install it: sudo apt-get install apertium " + " ".join(sorted({PACKAGES[mode] for mode in modes}))


def _paragraphs(mode: str, texts: Sequence[str]) -> list[str]:
    """Run texts without line breaks through a mode, one paragraph each; one by one if the number came out wrong."""
    if not texts:
        return []
    found = [" ".join(part.split()) for part in re.split(r"\n\s*\n", _call(["apertium", mode], "\n\n".join(texts)))]
    if len(found) == len(texts) and all(found):
        return found
    return [" ".join(_call(["apertium", mode], text).split()) for text in texts]


def _call(command: list[str], text: str) -> str:
    try:
        done = subprocess.run(command, input=f"{text}\n", capture_output=True, encoding="utf-8", timeout=TIMEOUT,
                              check=False)
    except FileNotFoundError:
        raise SetupError("the program apertium is missing", hint=_install(DIRECT.values())) from None
    except (subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        raise EngineError(f"apertium gave no usable answer ({type(error).__name__})", where=command[-1]) from error
    if done.returncode:
        raise EngineError(f"apertium failed: {done.stderr.strip()[-200:]}", where=command[-1])
    return done.stdout.strip("\n")
