"""What is done to text before and after Apertium: sentences, names, contractions, marks, capitals, signs. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

TITLES = re.compile(
    "mr|mrs|ms|miss|dr|doctor|prof|professor|sir|madam|lady|lord|captain|colonel|general|sergeant|lieutenant|major|"
    "judge|inspector|detective|officer|president|king|queen|prince|princess|father|mother|mom|mum|dad|aunt|uncle|"
    "grandma|grandpa|god|st|saint|january|february|march|april|may|june|july|august|september|october|november|"
    "december|earth|north|south|east|west", re.IGNORECASE)
"""Words with a capital that are translated nevertheless."""
ABBREVIATION = re.compile(r"\b(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Sgt|Lt|Capt|Col|Gen|vs|etc|No|[A-Z])\.$")
PLACEHOLDER = "Zqx"
"""Begins words that no dictionary knows, so that they pass unchanged."""
MARKS = "*@#"
"""Apertium's marks for words it does not know, cannot translate or cannot inflect."""

_OWN = r"\b(he|she|it|that|there|here|what|who|where|when|how|why)"
REWORDINGS = tuple((re.compile(pattern, re.IGNORECASE), full) for pattern, full in (
    (r"\blet's\b", "we"), (r"\bcan't\b", "cannot"), (r"\bwon't\b", "will not"), (r"\bshan't\b", "shall not"),
    (r"n't\b", " not"), (r"\bI'm\b", "I am"), (r"'re\b", " are"), (r"'ve\b", " have"), (r"'ll\b", " will"),
    (_OWN + r"'s (?=been\b|got\b|gone\b|had\b|\w+ed\b)", r"\1 has "), (_OWN + r"'s\b", r"\1 is"),
    (r"\b(I|you|he|she|it|we|they)'d\b", r"\1 would"), (r"\bquiet\b", "calm"), (r"\bfather\b", "dad"),
))
"""Contractions in full, and words of which Catalan's dictionary knows the wrong sense."""
FORBIDDING = re.compile(r"^(please,? )?do not (?=\w)", re.IGNORECASE)
PLEASE = {"es": "por favor", "gl": "por favor"}
"""Where Apertium takes 'please' for a verb."""
FRENCH_ELISION = re.compile(r"\b([ldjnmtsc]|qu|jusqu|lorsqu|puisqu)[ea] (?=[aeiouâàéèêëîïôûæœ])(?!onz|oui\b|un\b)",
                            re.IGNORECASE)
PRONOUNS = {"i": "jo", "you": "tu", "he": "ell", "she": "ella", "we": "nosaltres", "they": "ells"}
"""English → Catalan. Catalan drops them and French must not."""
SUBJECT = re.compile(r"^(?:(when|if|because|and|but|that|where|so|then|now|yes|no|today|tomorrow|yesterday) )?"
                     rf"({'|'.join(PRONOUNS)}) ", re.IGNORECASE)
INSIDE = r"(?<=[\w,;:] )"
"""Before a word that begins no sentence."""
CLAUSES = re.compile(r"([,;:] )")


@dataclass
class Sentence:
    """One sentence on its way through the engine."""

    source: str
    prepared: str
    """The source as the engine gets it: without contractions."""
    protected: dict[str, str] = field(default_factory=dict)
    """Source term → what stands for it in the target."""
    target: str = ""

    @classmethod
    def of(cls, source: str, language: str, target: str) -> Sentence:
        """Prepare a sentence for translation from `language`."""
        sentence = cls(source, source.replace("’", "'"))
        if language == "en":
            for pattern, full in REWORDINGS:
                sentence.prepared = pattern.sub(full, sentence.prepared)
            if target not in {"ca", "it", "fr"}:
                # These targets' rules make a statement of the imperative, and of 'must not' a 'need not'.
                sentence.prepared = FORBIDDING.sub(r"\1you cannot ", sentence.prepared)
            if target in PLEASE:
                sentence.protect(dict.fromkeys(re.findall(r"\bplease\b", source, re.IGNORECASE), PLEASE[target]))
        return sentence

    def protect(self, terms: Mapping[str, str]) -> None:
        """Have `terms` replaced by what is given instead of translated; they win over earlier ones."""
        taken = {term.lower() for term in terms}
        self.protected = {**terms, **{k: v for k, v in self.protected.items() if k.lower() not in taken}}

    def miss(self, glossary: Mapping[str, str]) -> set[str]:
        """Glossary terms of the source whose target is not in the translation."""
        return {term for term, wanted in glossary.items()
                if _whole(term).search(self.source) and wanted.lower() not in self.target.lower()}


class Names:
    """Capitalised words inside sentences."""

    RUN = re.compile(r"(?:(?<=[a-z0-9,;] )|(?<=\b[MDS][rst]\. )|(?<=\bMrs\. ))[A-Z][\w'-]*(?: [A-Z][\w'-]*)*")

    @classmethod
    def candidates(cls, sentence: str) -> list[str]:
        """Words that may be names; none in text that is set in capitals throughout, or word by word."""
        words = re.findall(r"[^\W\d]+", sentence)
        if sum(word[0].isupper() for word in words) * 2 > len(words) + 2:
            return []
        found = (word for run in cls.RUN.findall(sentence) for word in run.split())
        bare = (word[:-2] if word.endswith("'s") else word for word in found)
        return [word for word in bare if word != "I" and not word.startswith("I'") and not TITLES.fullmatch(word)]


def _whole(term: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(term)}(?!\w)", re.IGNORECASE)


def split_sentences(line: str) -> list[str]:
    """Cut a line after . ! ? …, but not after abbreviations and initials."""
    parts: list[str] = []
    for part in re.split(r"(?<=[.!?…])[\"'”’)]*\s+(?=[\"'“‘(¿¡]*[^\W_a-z])", " ".join(line.split())):
        if parts and ABBREVIATION.search(parts[-1]):
            parts[-1] += f" {part}"
        elif part:
            parts.append(part)
    return parts


def mark(sentence: Sentence) -> str:
    """The prepared sentence with placeholders for protected terms."""
    text = re.sub(r"[\x00-\x1f\x7f]", " ", sentence.prepared)
    for number, term in enumerate(sentence.protected):
        text = _whole(term).sub(_placeholder(number), text)
    return text


def _placeholder(number: int) -> str:
    return PLACEHOLDER + chr(ord("a") + number // 26) + chr(ord("a") + number % 26)


def unmark(text: str) -> str:
    """Take out Apertium's marks."""
    return re.sub(rf"[{MARKS}](?=\w)|(?<=\w)#", "", text)


def add_pronouns(english: str, catalan: str) -> str:
    """Put the subject pronouns of English clauses back into Catalan ones, where both have the same clauses."""
    ours, theirs = CLAUSES.split(english), CLAUSES.split(catalan)
    if len(ours) != len(theirs):
        return catalan
    return "".join(_add_pronoun(a, b) for a, b in zip(ours, theirs, strict=True))


def _add_pronoun(english: str, catalan: str) -> str:
    subject, words = SUBJECT.match(english), catalan.split(" ")
    if not subject or len(words) < 2:
        return catalan
    at, pronoun = (1 if subject[1] else 0), PRONOUNS[subject[2].lower()]
    if unmark(words[at]).lower() in PRONOUNS.values():
        return catalan
    words.insert(at, pronoun)
    if at == 0 and words[1][:1].isupper():
        words[:2] = [pronoun.capitalize(), words[1][:1].lower() + words[1][1:]]
    return " ".join(words)


def finish(sentence: Sentence, text: str, target: str) -> str:
    """The engine's answer as a sentence of the target language."""
    text = _capitals(sentence, re.sub(r"\s+", " ", text).strip())
    for number, wanted in enumerate(sentence.protected.values()):
        text = re.sub(_placeholder(number), lambda _, w=wanted: w, text, flags=re.IGNORECASE)  # type: ignore[misc]
    text = re.sub(r"\s+([.,;:!?…%])", r"\1", text)
    text = re.sub(r'"\s*([^"]*?)\s*"', r'"\1"', text)
    if target == "fr":
        if FORBIDDING.match(sentence.prepared):
            text = re.sub(r"(^|, |[Pp]laît )[Vv]ous (n['e])", lambda m: m[1] + m[2], text)
        text = FRENCH_ELISION.sub(lambda m: f"{m[1]}'", text)
    if target == "es":
        text = _inverted(text)
    return _first(text, upper=sentence.source.lstrip("\"'“‘(¿¡")[:1].isupper())


def _capitals(sentence: Sentence, text: str) -> str:
    """Lower what the engine raised: words in capitals, and capitals inside a sentence that had none."""
    source = mark(sentence)
    if not re.search(r"\b[^\W\d_a-z]{2,}\b", source):
        text = re.sub(r"\b[^\W\d_a-z]{2,}\b", lambda m: m[0].lower(), text)
    if not re.search(rf"{INSIDE}(?!I\b|{PLACEHOLDER})[A-Z]", source):
        text = re.sub(rf"{INSIDE}(?!{PLACEHOLDER})[^\W\d_a-z]", lambda m: m[0].lower(), text)
    return text


def _inverted(text: str) -> str:
    """Spanish opens questions and exclamations, quoted ones too, with a mark of its own."""
    bare = text.rstrip("\"'”’)")
    opening = {"?": "¿", "!": "¡"}.get(bare[-1:], "")
    if not opening or opening in text:
        return text
    quote = re.search(r"[\"“(][^\"“(]*$", bare) if len(bare) < len(text) else None
    at = quote.start() + 1 if quote else len(text) - len(text.lstrip("\"'“‘("))
    return text[:at] + opening + text[at:]


def _first(text: str, *, upper: bool) -> str:
    """Begin with a capital where the source did."""
    match = re.search(r"\w", text)
    if not match or not upper:
        return text
    return text[:match.start()] + match[0].upper() + text[match.end():]
