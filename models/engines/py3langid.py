"""Language identifier: py3langid, byte n-grams and naive Bayes; its model for 139 languages lies in its wheel (5 MB).

Source: Lui and Baldwin, "langid.py: an off-the-shelf language identification tool" (ACL 2012), retrained by the fork.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from importlib.util import find_spec
from typing import Any, ClassVar

from models.engines.options import Adapter, read_options
from models.languages import Guess
from models.ports import EngineHome
from models.records import EngineRef, Record

SMALL = frozenset({"ace", "an", "ary", "arz", "ba", "bcl", "crh", "ext", "fuv", "gcf", "gcr", "gom", "grc", "gug",
                   "guw", "hbo", "kab", "kik", "lij", "lg", "ltg", "pcm", "sdh", "tg", "uzs", "vec", "wa", "wuu"})
"""Languages that it knows and that are left out: they only take probability from a near relative (Spanish and
Extremaduran, Arabic and Moroccan)."""


class Py3LangidOptions(Record):
    """Nothing may be set."""


class Py3Langid(Adapter):
    """The model that comes with the library."""

    OPTIONS: ClassVar[type[Record]] = Py3LangidOptions

    def __init__(self, ref: EngineRef, home: EngineHome) -> None:
        read_options(Py3LangidOptions, ref.name, ref.options)

    @classmethod
    def missing(cls, options: Mapping[str, Any]) -> str:
        """Whether the library is there."""
        return "" if find_spec("py3langid") else "the library py3langid is missing. Install it: pip install py3langid"

    def identify(self, text: str) -> Guess:
        """The most probable language (see `models.ports.LanguageIdentifier`)."""
        language, probability = self._model.classify(text)
        return Guess(language, float(probability))

    @cached_property
    def _model(self) -> Any:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier

        model = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        model.set_languages([label for label in model.labels if label not in SMALL])
        return model
