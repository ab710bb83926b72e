"""Translator: a CTranslate2 model in a local folder (MADLAD, NLLB, OPUS-MT …) with its tokenizer beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from models.engines.apertium_text import split_sentences
from models.engines.local_weights import checked_path
from models.engines.options import Adapter, read_options
from models.errors import InputError, SetupError
from models.ports import Around, Draft, EngineHome
from models.records import Candidate, EngineRef, Record

SOURCE_MODELS = ("source.spm", "spiece.model", "sentencepiece.model", "sentencepiece.bpe.model", "tokenizer.model")
TARGET_MODELS = ("target.spm", *SOURCE_MODELS[1:])
END = "</s>"
UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my", "yue"})
FLORES = {"ara": "arb", "fas": "pes", "lav": "lvs", "nor": "nob", "swa": "swh", "aze": "azj",
          "uzb": "uzn", "mon": "khk", "mlg": "plt", "sqi": "als", "msa": "zsm", "pus": "pbt", "ori": "ory",
          "nep": "npi", "yid": "ydd"}
"""ISO 639-3 macro-language → the member that NLLB's FLORES codes name."""
BATCH = 32
LONGEST = 256
"""Tokens of a sentence."""


class CTranslate2Options(Record):
    """What may be set."""

    path: str = ""
    """The folder."""
    sha256: str = ""
    """Of the files in `path` (see `local_weights.weights_hash`)."""
    style: Literal["madlad", "nllb", "opus"] = "madlad"
    """How the model is told the languages: by a token before the source, by one before either, or not at all."""
    beam_size: int = Field(default=4, ge=1, le=20)
    candidates: int = Field(default=4, ge=1, le=20)
    """Translations of a line at most, and never more than `beam_size`: of them the one is taken that fits its time."""
    compute_type: str = "default"
    """CTranslate2's arithmetic."""


class CTranslate2(Adapter):
    """A model by its folder."""

    OPTIONS: ClassVar[type[Record]] = CTranslate2Options
    CONNECTION: ClassVar[frozenset[str]] = frozenset({"path"})
    REVISES: ClassVar[bool] = False

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        self._options = read_options(CTranslate2Options, ref.name, ref.options, home.connection)
        self._folder = checked_path(ref, home, "model.bin")
        self._home = home

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """Whether the library is there."""
        return "" if find_spec("ctranslate2") else ("the library ctranslate2 is missing. Install it: "
                                                    "pip install ctranslate2")

    def pairs(self) -> None:
        """What a model can do is not written in its folder."""

    def translate(self, lines: Mapping[str, str], source: str, target: str, glossary: Mapping[str, str],
                  around: Mapping[str, Around]) -> dict[str, tuple[Candidate, ...]]:
        """Translate each line, sentence by sentence; a glossary cannot be forced on these models.

        The candidates of a line are the best combinations of its sentences' hypotheses. A score is the mean of the
        log-probabilities that the model gives the sentences (per token).

        Raises:
            InputError: The model has no token for a language.
        """
        parts = [(key, sentence) for key, line in lines.items() for sentence in split_sentences(line)]
        before, prefix = self._language_tokens(source, target)
        tokens = [[*before, *self._encode(sentence)[:LONGEST], *self._after] for _, sentence in parts]
        answers = self._translator.translate_batch(
            tokens, target_prefix=[prefix] * len(tokens) if prefix else None, beam_size=self._options.beam_size,
            max_batch_size=BATCH, max_decoding_length=LONGEST, return_scores=True,
            num_hypotheses=min(self._options.candidates, self._options.beam_size))
        joint = "" if target.partition("-")[0] in UNSPACED else " "
        found: dict[str, list[list[Candidate]]] = {key: [] for key in lines}
        for (key, _), answer in zip(parts, answers, strict=True):
            found[key].append([
                Candidate(text=self._decode([t for t in tokens if t not in {*prefix, END, "<unk>"}]), score=score)
                for tokens, score in zip(answer.hypotheses, answer.scores, strict=True)])
        done = {key: combined(sentences, joint, self._options.candidates) for key, sentences in found.items()}
        return {key: candidates for key, candidates in done.items() if candidates}

    def revise(self, drafts: Mapping[str, Draft], source: str, target: str,
               glossary: Mapping[str, str]) -> dict[str, tuple[Candidate, ...]]:
        """These models cannot be told anything."""
        return {}

    def _language_tokens(self, source: str, target: str) -> tuple[list[str], list[str]]:
        """Tokens that begin the source, and those that begin the target."""
        if self._options.style == "opus":
            return [], []
        if self._options.style == "madlad":
            return [self._known(f"<2{target.partition('-')[0].lower()}>", target)], []
        return [self._known(flores(source), source)], [self._known(flores(target), target)]

    def _known(self, token: str, language: str) -> str:
        if token not in self._vocabulary:
            raise InputError(f"the model does not know {language} ({token})", where=str(self._folder))
        return token

    @cached_property
    def _vocabulary(self) -> frozenset[str]:
        for name in ("shared_vocabulary.json", "source_vocabulary.json"):
            if (self._folder / name).exists():
                return frozenset(_json(self._folder / name))
        for name in ("shared_vocabulary.txt", "source_vocabulary.txt"):
            if (self._folder / name).exists():
                return frozenset((self._folder / name).read_text(encoding="utf-8").splitlines())
        raise InputError("no vocabulary lies in the model's folder", where=str(self._folder))

    @cached_property
    def _after(self) -> list[str]:
        """The end token, where the model does not add it to the source itself."""
        config = self._folder / "config.json"
        adds = config.exists() and dict(_json(config)).get("add_source_eos", False)
        return [] if adds else [END]

    @cached_property
    def _translator(self) -> Any:
        import ctranslate2

        try:
            return ctranslate2.Translator(str(self._folder), device=self._home.device,
                                          compute_type=self._options.compute_type, intra_threads=self._home.threads)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"is no CTranslate2 translation model ({error})", where=str(self._folder)) from error

    @cached_property
    def _encode(self) -> Callable[[str], list[str]]:
        return self._tokenizer("encode", SOURCE_MODELS)

    @cached_property
    def _decode(self) -> Callable[[Sequence[str]], str]:
        return self._tokenizer("decode", TARGET_MODELS)

    def _tokenizer(self, what: Literal["encode", "decode"], names: Sequence[str]) -> Callable[[Any], Any]:
        """One direction of the tokenizer: tokenizer.json, else a SentencePiece model."""
        if (self._folder / "tokenizer.json").exists():
            from tokenizers import Tokenizer

            if "model" not in _json(self._folder / "tokenizer.json"):
                raise InputError("is no tokenizer", where=str(self._folder / "tokenizer.json"))
            fast = Tokenizer.from_file(str(self._folder / "tokenizer.json"))
            if what == "encode":
                return lambda text: list(fast.encode(text, add_special_tokens=False).tokens)
            return lambda tokens: str(fast.decoder.decode(list(tokens)) if fast.decoder else "".join(tokens)).strip()
        file = next((self._folder / name for name in names if (self._folder / name).exists()), None)
        if file is None:
            raise InputError("no tokenizer lies beside the model (tokenizer.json, or one of " + ", ".join(names) + ")",
                             where=str(self._folder))
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError:
            raise SetupError("the library sentencepiece is missing", where="translator ctranslate2",
                             hint="Install it: pip install sentencepiece") from None
        pieces = SentencePieceProcessor(model_file=str(file))
        if what == "encode":
            return lambda text: list(pieces.encode(text, out_type=str))
        return lambda tokens: str(pieces.decode(list(tokens))).strip()


def combined(sentences: Sequence[Sequence[Candidate]], joint: str, most: int) -> tuple[Candidate, ...]:
    """The best translations of a whole line.

    Args:
        sentences: Candidates of each of its sentences, best first.
        joint: What stands between two sentences.
        most: How many are wanted.

    Returns:
        Best first, each text once, none empty; a score is the mean of the sentences'.
    """
    beam: list[tuple[float, tuple[str, ...]]] = [(0.0, ())]
    for candidates in sentences:
        beam = sorted(((total + one.score, (*texts, one.text)) for total, texts in beam for one in candidates),
                      key=lambda pair: -pair[0])[:most]
    best: dict[str, float] = {}
    for total, texts in beam:
        best.setdefault(joint.join(filter(None, texts)), round(total / max(len(texts), 1), 4))
    return tuple(Candidate(text=text, score=score) for text, score in best.items() if text.strip())


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"is no JSON ({error})", where=str(path)) from error


def flores(language: str) -> str:
    """BCP-47 → NLLB's name of a language, e.g. 'es-419' → 'spa_Latn'."""
    import langcodes

    full = langcodes.get(language).maximize()
    code = full.to_alpha3()
    return f"{FLORES.get(code, code)}_{full.script or 'Latn'}"
