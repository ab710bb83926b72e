"""Wording: texts made comparable, so that a word error rate counts what is heard and not how it is spelled.

"3 barcos, ¡vamos!" and "tres barcos vamos" are the same speech. Both sides go through `words`: one Unicode form, no
case, no punctuation, figures read out in the language, and one spelling where figures hide a choice (un, una, uno).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal

UNSPACED = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my"})
"""Written without spaces between words: compared character by character."""

ELIDING = frozenset({"fr", "it", "ca", "pt", "gl", "oc"})
"""An apostrophe parts two words here (l'homme); elsewhere it belongs to one (don't)."""

COMMA_GROUPS = frozenset({"en", "zh", "yue", "ja", "ko", "th", "he"})
"""1,000.5 here; elsewhere 1.000,5."""

ORDINAL_ENDING = {
    "en": "st|nd|rd|th", "es": r"\.?(?:er|[oa]s?)", "pt": r"\.?[oa]s?", "it": "[oa°]",
    "fr": "ers?|r?es?|ères?|i?[èe]mes?|nde?s?",
}
PERCENT = {"en": "percent", "es": "por ciento", "fr": "pour cent", "it": "per cento", "pt": "por cento",
           "de": "prozent", "ca": "per cent", "gl": "por cento"}
DECIMAL_COMMA = {"es": ("punto", "coma"), "ca": ("punt", "coma")}
"""What num2words says for the decimal mark, and what people say."""

ONE_SPELLING = {
    "en": ((r"\b(hundred|thousand|million|billion) and\b", r"\1"), (r"\bper cent\b", "percent"),
           (r"\ba (hundred|thousand|million|billion)\b", r"one \1")),
    "es": ((r"\buna?\b", "uno"), (r"\bveintiún\b|\bveintiuna\b", "veintiuno"), (r"\bprimer[ao]?\b", "primero"),
           (r"\b(doscient|trescient|cuatrocient|quinient|seiscient|setecient|ochocient|novecient)as\b", r"\1os")),
    "fr": ((r"\bune\b", "un"), (r"\b(cent|vingt)s\b", r"\1"), (r"\bpremière\b", "premier")),
    "it": ((r"\buna?\b", "uno"), (r"\bprima\b", "primo")),
    "pt": ((r"\buma\b", "um"), (r"\bduas\b", "dois"), (r"\bprimeira\b", "primeiro"),
           (r"\b(duzent|trezent|quatrocent|quinhent|seiscent|setecent|oitocent|novecent)as\b", r"\1os")),
    "de": ((r"\bein(?:e[nmrs]?)?\b", "eins"),),
    "ca": ((r"\buna\b", "un"), (r"\bdues\b", "dos")),
}
"""Pattern → replacement: choices of gender and form that a figure does not show."""

LONGEST_NUMBER = 12
"""Digits; longer figures are telephone numbers and the like, read digit by digit."""


@dataclass(frozen=True)
class WordErrors:
    """How far a heard text is from the wanted one."""

    errors: int
    """Words put in, left out or replaced."""
    words: int
    """Words of the wanted text."""

    @property
    def rate(self) -> float:
        """Errors per wanted word; where nothing was wanted, each word heard counts as one error per word."""
        return self.errors / max(self.words, 1)


def _primary(language: str) -> str:
    return language.replace("_", "-").split("-")[0].casefold()


def _speller(language: str) -> str:
    """The name by which num2words knows the language."""
    region = language.replace("_", "-").casefold()
    return "pt_BR" if _primary(language) == "pt" and region != "pt-pt" else _primary(language)


def _say(number: str, language: str, kind: str) -> str:
    from num2words import num2words

    if len(number) > LONGEST_NUMBER:
        return " ".join(_say(digit, language, "cardinal") for digit in number if digit.isdigit())
    try:
        value = Decimal(number) if "." in number else int(number)
        return f" {num2words(value, lang=_speller(language), to=kind)} "
    except (NotImplementedError, OverflowError, TypeError, ValueError):
        return f" {number} "  # the language, or this kind of number in it, is not known: the figures stay


def _whole(number: str, language: str, years: bool) -> str:
    looks_like_year = years and len(number) == 4 and "1100" <= number <= "2099"
    return _say(number, language, "year" if looks_like_year else "cardinal")


def _decimal(whole: str, fraction: str, language: str) -> str:
    said, usual = DECIMAL_COMMA.get(_primary(language), (" ", " "))
    return _say(f"{whole}.{fraction}" if fraction else whole, language, "cardinal").replace(said, usual)


def spell_numbers(text: str, language: str, *, years: bool = False) -> str:
    """Read the figures of a text out.

    Args:
        text: Text in one case, e.g. "el 3 de mayo".
        language: BCP-47; for languages that num2words does not know, figures stay.
        years: Read 1100 … 2099 as years are read ("nineteen ninety-eight").
    """
    primary = _primary(language)
    groups, mark = (",", r"\.") if primary in COMMA_GROUPS else (r"[. ]", ",")
    grouped = rf"(?<![\d.,])(\d{{1,3}}(?:{groups}\d{{3}})+)(?:{mark}(\d+))?(?!\d)"
    text = text.replace("%", f" {PERCENT.get(primary, '%')} ")
    text = re.sub(grouped, lambda m: _decimal(re.sub(r"\D", "", m[1]), m[2] or "", language), text)
    if primary in ORDINAL_ENDING:
        text = re.sub(rf"(\d+)(?:{ORDINAL_ENDING[primary]})(?!\w)", lambda m: _say(m[1], language, "ordinal"), text)
    text = re.sub(rf"(?<!\d)(\d+){mark}(\d+)(?!{mark}?\d)", lambda m: _decimal(m[1], m[2], language), text)
    return re.sub(r"\d+", lambda m: _whole(m[0], language, years), text)


def _plain(text: str) -> str:
    """One Unicode form and one case; œ as oe; every apostrophe the same; nothing invisible."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    text = text.replace("œ", "oe").replace("æ", "ae").replace("’", "'").replace("ʼ", "'").replace("`", "'")
    return "".join(c for c in text if unicodedata.category(c) != "Cf")


def words(text: str, language: str, *, years: bool = False) -> list[str]:
    """The words of a text as they are compared.

    Args:
        text: Any text.
        language: BCP-47; decides how figures and apostrophes are read. Languages without spaces give characters.
        years: As in `spell_numbers`.
    """
    primary = _primary(language)
    text = spell_numbers(_plain(text), language, years=years)
    text = _plain(text).replace("'", " " if primary in ELIDING else "")
    text = "".join(c if c.isalnum() or unicodedata.category(c).startswith("M") else " " for c in text)
    text = " ".join(text.split())
    for pattern, replacement in ONE_SPELLING.get(primary, ()):
        text = re.sub(pattern, replacement, text)
    return list(text.replace(" ", "")) if primary in UNSPACED else text.split()


def _errors(wanted: list[str], heard: list[str]) -> WordErrors:
    import jiwer

    if not wanted or not heard:
        return WordErrors(len(wanted) + len(heard), len(wanted))
    found = jiwer.process_words(" ".join(wanted), " ".join(heard))
    return WordErrors(found.substitutions + found.deletions + found.insertions, len(wanted))


def word_errors(reference: str, hypothesis: str, language: str) -> WordErrors:
    """Count the words that differ; a number that may be a year is read in the way that fits better.

    Args:
        reference: The wanted text.
        hypothesis: The text heard.
        language: BCP-47 of both.
    """
    readings = (False, True) if _primary(language) == "en" else (False,)
    found = [_errors(words(reference, language, years=y), words(hypothesis, language, years=y)) for y in readings]
    return min(found, key=lambda each: each.rate)


def word_error_rate(reference: str, hypothesis: str, language: str) -> float:
    """Word error rate after both texts were made comparable; 0 is equal, and it may pass 1."""
    return word_errors(reference, hypothesis, language).rate
