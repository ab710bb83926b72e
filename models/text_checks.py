"""Whether a translation can be used: what it must keep of its source, and what no translation looks like. Pure.

Three grades. A translation that is *refused* is none: empty, an echo, another language, a loop. One that is *broken*
lost a term, a number, a currency or a unit: it is asked for again, and used with a flag where nothing better comes. A
*doubtful* one lacks a name: that is only said, for names do change (London, Londres).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache

from models.languages import SHORTEST, Guess, alike, letters, primary, sure
from models.wording import COMMA_GROUPS, UNSPACED, words

# -- glossary ---------------------------------------------------------------------------------------------------------


def terms_in(text: str, glossary: Mapping[str, str]) -> dict[str, str]:
    """The glossary terms that occur in a text as whole words, in whatever case."""
    return {term: wanted for term, wanted in glossary.items()
            if re.search(rf"(?<!\w){re.escape(term)}(?!\w)", text, re.IGNORECASE)}


def broken_terms(source: str, target: str, glossary: Mapping[str, str]) -> list[str]:
    """Warnings for terms of the source whose required translation is not in the target (endings may be added)."""
    return [f"glossary: {term} → {wanted} is missing" if term != wanted else f"do not translate: {term} is missing"
            for term, wanted in terms_in(source, glossary).items()
            if target and not re.search(rf"(?<!\w){re.escape(wanted)}", target, re.IGNORECASE)]


# -- no translation at all --------------------------------------------------------------------------------------------

LONGEST_RATIO, LONGEST_MORE = 4, 60
"""Letters of a translation at most: so many times those of the source, and so many more."""
LOOP = re.compile(r"(\b\w.{0,60}?)(?:\W+\1){3,}\b", re.IGNORECASE)
"""The same words four times in a row."""


def refusal(source: str, target: str, languages: tuple[str, str], guess: Guess, glossary: Mapping[str, str]) -> str:
    """Why a text is no translation; '' when it is one.

    Args:
        source: The line.
        target: What is said to be its translation.
        languages: BCP-47 of the two.
        guess: At the language of `target`.
        glossary: Its translations are foreign to the target language at times, and no sign of another one.
    """
    if not any(map(str.isalnum, target)):
        return "it is empty"
    if alike(*languages):
        return ""
    if _bare(source) == _bare(target) and len(_common(source, glossary)) > 1:
        return "it is the source text"
    if letters(target) > LONGEST_RATIO * letters(source) + LONGEST_MORE or (
            LOOP.search(target) and not LOOP.search(source)):
        return "it goes on without end"
    borrowed = sum(letters(wanted) for wanted in terms_in(source, glossary).values())
    if sure(target, guess) and not _may_be(guess.language, languages[1]) and letters(target) - borrowed >= SHORTEST:
        return f"it is in another language ({guess.language})"
    return ""


def _may_be(guessed: str, wanted: str) -> bool:
    """Whether a text of the wanted language may be taken for the guessed one; of Galician's, many a sentence is."""
    return alike(guessed, wanted) or {guessed, primary(wanted)} in ({"gl", "es"}, {"ca", "es"}, {"ca", "oc"})


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def _common(text: str, glossary: Mapping[str, str]) -> set[str]:
    """Words of a text that are no names, no numbers and no terms: what a translation changes."""
    kept = {word.casefold() for term in terms_in(text, glossary).values() for word in term.split()}
    found = re.findall(r"[^\W\d]+", text)
    return {word.casefold() for at, word in enumerate(found) if at == 0 or not word[0].isupper()} - kept


# -- numbers ----------------------------------------------------------------------------------------------------------

FIGURE = re.compile(r"\d{1,3}(?:[.,\u00a0\u202f ’']\d{3})+(?:[.,]\d+)?(?!\d)|\d+(?:[.,]\d+)?")
TIME = re.compile(r"(?<![\d:])(\d{1,2})(?::| ?h ?)([0-5]\d)(?![\d:])")
CLOCK = re.compile(r"\b[ap]\.? ?m\b|o.clock\b|\d ?h\b|\d:\d\d|\buhr\b", re.IGNORECASE)
AND = frozenset({"and", "y", "e", "et", "i", "und", "en", "og", "och", "a"})
DECLINING = frozenset({"pl", "ru", "uk", "be", "cs", "sk", "sl", "hr", "sr", "bs", "bg", "mk", "lt", "lv", "et", "fi",
                       "hu", "el", "tr", "ar", "he", "fa", "ro", "is"})
"""Number words have cases, genders or suffixes here."""
SMALLEST = 3
"""Number words below are left alone: 'one' is a pronoun, 'the two of you' is 'you both'."""
HOMONYMS = {"it": {"sei"}, "fr": {"neuf", "neufs"}, "ca": {"deu", "set", "nou", "sis"}, "de": {"acht", "sieben"},
            "sv": {"fem", "sex"}, "nl": {"acht"}, "pt": {"mil"}, "en": set[str]()}
"""Words that are numbers, and other words just as often."""


def missing_numbers(source: str, target: str, languages: tuple[str, str]) -> list[str]:
    """Numbers of the source that the target says neither in figures nor in words, as they stand in the source.

    Forgiven are decimal commas, separators, numbers written out or as figures, the 24-hour clock, and minutes of a
    quarter ('half past ten'). Where the target's number words are not known, only figures are held against figures.
    """
    figures = {_digits(figure) for figure in FIGURE.findall(target)} | set(re.findall(r"\d+", target))
    spoken = words(target, languages[1])
    clock = bool(CLOCK.search(source) or CLOCK.search(target))
    missing, known = list[str](), _known(languages[1])
    for shown, values in _numbers(source, languages[0]):
        if not known and not (figures and any(map(str.isdigit, shown))):
            continue
        wanted = {value + more for value in values for more in ((0, 12, -12) if clock and value <= 24 else (0,))}
        if not any(_said(value, figures, spoken, languages[1]) for value in wanted if value >= 0):
            missing.append(shown)
    return list(dict.fromkeys(missing))


def _numbers(text: str, language: str) -> Iterator[tuple[str, tuple[Decimal, ...]]]:
    """Numbers of a text: how they stand there, and the values that may stand for them."""
    for time in TIME.finditer(text):
        hour, minute = Decimal(time[1]), Decimal(time[2])
        yield time[0], (hour, hour + 1)
        if minute not in {0, 15, 30, 45}:
            yield time[0], (minute,)
    rest = TIME.sub(" ", text)
    for figure in FIGURE.findall(rest):
        yield figure, tuple(dict.fromkeys((_value(figure, language), Decimal(_digits(figure)))))
    if primary(language) not in UNSPACED:
        for shown, value in _number_words(words(FIGURE.sub(" 0 ", rest), language), language):
            yield shown, (Decimal(value),)


def _digits(figure: str) -> str:
    return re.sub(r"\D", "", figure)


def _value(figure: str, language: str) -> Decimal:
    """A figure's value by the habits of its language."""
    group, mark = (",", ".") if primary(language) in COMMA_GROUPS else (".", ",")
    plain = re.sub(r"[\u00a0\u202f ’']", "", figure)
    if re.fullmatch(rf"\d{{1,3}}(?:\{group}\d{{3}})+(?:\{mark}\d+)?", plain):
        plain = plain.replace(group, "")
    return Decimal(plain.replace(group, ".").replace(mark, ".") if plain.count(".") + plain.count(",") < 2
                   else _digits(plain))


def _said(value: Decimal, figures: set[str], spoken: Sequence[str], language: str) -> bool:
    if _digits(str(value)) in figures:
        return True
    declined = primary(language) in DECLINING
    return any(_within(form, spoken, declined) or (value >= 100 and _joined(form) in _joined(spoken))
               for form in _spellings(value, language))


def _within(form: Sequence[str], spoken: Sequence[str], declined: bool) -> bool:
    return any(all(_same(*pair, declined) for pair in zip(form, spoken[at:], strict=False))
               for at in range(len(spoken) - len(form) + 1))


def _same(one: str, other: str, declined: bool) -> bool:
    """Equal, but for an ending: cien, ciento; primer, primero; where numbers are declined, trzy, trzech."""
    short, long = sorted((one, other), key=len)
    if declined:
        return len(long) - len(short) <= 3 and long.startswith(short[:max(2, len(short) - 1)])
    return one == other or (len(short) > 2 and long.startswith(short) and len(long) - len(short) <= 2)


def _joined(spoken: Sequence[str]) -> str:
    """Number words as one: it is a matter of taste where they are parted, and by which 'and'."""
    return "".join(word for word in spoken if word not in AND)


@cache
def _known(language: str) -> bool:
    """Whether there is something to compare number words with: Korean has two sets of them."""
    return primary(language) != "ko" and not any(map(str.isdigit, "".join(words("3", language))))


@cache
def _spellings(value: Decimal, language: str) -> tuple[tuple[str, ...], ...]:
    """How a number is read out."""
    from num2words import num2words

    mark = "." if primary(language) in COMMA_GROUPS else ","
    figure = str(value).replace(".", mark)
    forms = {tuple(words(figure, language)), tuple(words(figure, language, years=True))}
    if value == int(value) and value <= 1000:
        try:
            ordinal = str(num2words(int(value), lang=primary(language), to="ordinal"))
            forms.add(tuple(words(ordinal, language)))
        except (NotImplementedError, OverflowError, TypeError, ValueError, IndexError, KeyError):
            pass
    return tuple(form for form in forms if form)


def _number_words(spoken: Sequence[str], language: str) -> Iterator[tuple[str, int]]:
    """Numbers that are written as words: as they stand there, and their value; those beside a figure are part of it."""
    values, scales = _vocabulary(primary(language))
    at, zero = 0, "".join(words("0", language))
    while at < len(spoken):
        end, total, group = at, 0, 0
        while end < len(spoken):
            size = next((n for n in range(4, 0, -1) if tuple(spoken[end:end + n]) in values), 0)
            if size and not (group and values[tuple(spoken[end:end + size])] >= _unit(group)):
                group += values[tuple(spoken[end:end + size])]
                end += size
            elif group and spoken[end] in scales:
                total, group, end = total + group * scales[spoken[end]], 0, end + 1
            else:
                break
        alone = end - at == 1 and spoken[at] in HOMONYMS.get(primary(language), ())
        if total + group >= SMALLEST and not alone and (at == 0 or spoken[at - 1] != zero):
            yield " ".join(spoken[at:end]), total + group
        at = max(end, at + 1)


def _unit(number: int) -> int:
    """What must stay below it to be added to it: 100 to 'two hundred', 10 to 'twenty', nothing to 'twelve'."""
    return 100 if number % 100 == 0 else 10 if number % 10 == 0 and number % 100 > 10 else 0


@cache
def _vocabulary(language: str) -> tuple[dict[tuple[str, ...], int], dict[str, int]]:
    """Number words below 1000 → value, and words that multiply; empty where the language's are not known."""
    values, scales = dict[tuple[str, ...], int](), dict[str, int]()
    for number in (*range(1, 100), *range(100, 1000, 100)):
        form = tuple(words(str(number), language))
        if any(map(str.isdigit, form)):
            return {}, {}
        values.setdefault(form, number)
    for scale in (1000, 1_000_000, 1_000_000_000):
        scales.setdefault(words(str(2 * scale), language)[-1], scale)
        scales.setdefault(words(str(scale), language)[-1], scale)
    return values, scales


# -- currencies and units ---------------------------------------------------------------------------------------------

MEASURES = {
    "%": ("%", "percent", "per cent", "por ciento", "por cento", "pour cent", "per cento", "prozent", "procent",
          "процент", "відсот", "パーセント", "百分", "퍼센트", "بالمئة", "بالمائة", "في المئة", "אחוז", "प्रतिशत",
          "yüzde"),
    "$": ("$", "usd", "dollar", "dólar", "dòlar", "dolar", "dollár", "доллар", "долар", "δολ", "ドル", "美元", "달러",
          "دولار", "דולר", "डॉलर"),
    "€": ("€", "eur", "ευρώ", "евро", "євро", "ユーロ", "欧元", "유로", "يورو", "יורו", "यूरो", "avro"),
    "£": ("£", "gbp", "pound", "libra", "livre", "sterlin", "pfund", "funt", "фунт", "lliur", "ポンド", "英镑"),
    "¥": ("¥", "jpy", "yen", "iene", "ien", "иен", "єн", "円", "日元", "엔"),
    "km": ("km", "kilom", "quilóm", "quilòm", "kilóm", "chilom", "километ", "кілом", "χιλιόμ", "キロ", "公里", "킬로"),
    "kg": ("kg", "kilo", "quilo", "chil", "кило", "кіло", "κιλ", "キロ", "公斤", "킬로"),
    "mph": ("mph", "miles per hour", "millas por hora", "miglia all", "milles à l", "milhas por hora", "meilen"),
    "°": ("°", "degree", "grad", "grau", "degré", "stopni", "градус", "βαθμ", "度", "도", "درجة", "מעלות", "डिग्री"),
}
"""What is measured in → how it begins to be written, in the languages that are dubbed most."""


def missing_measures(source: str, target: str) -> list[str]:
    """Currencies, per cent and units that stand at a number of the source and nowhere in the target."""
    near = " ".join(match[0] for match in re.finditer(r"[$€£¥]\s?\d|\d\s?(?:[^\w\s]|[^\W\d]+)(?:\s[^\W\d]+){0,2}",
                                                      source.casefold()))
    return [name for name, forms in MEASURES.items() if _measured(name, near) and not any(
        form in target.casefold() for form in forms)]


def _measured(name: str, near: str) -> bool:
    return name in near if not name.isalpha() else bool(re.search(rf"\d\s?{name}\b", near))


# -- names ------------------------------------------------------------------------------------------------------------

NO_NAMES = re.compile(
    r"(?:mon|tues|wednes|thurs|fri|satur|sun)day|january|february|march|april|may|june|july|august|september|october|"
    r"november|december|mr|mrs|ms|miss|dr|doctor|professor|sir|madam|lady|lord|captain|colonel|general|sergeant|major|"
    r"judge|inspector|detective|officer|president|king|queen|prince|princess|father|mother|mom|mum|dad|daddy|mommy|"
    r"aunt|uncle|grandma|grandpa|god|saint|christmas|easter|earth|sun|moon|north|south|east|west|street|bay|lake|"
    r"river|island|mount|i'\w+|\w+(?:ish|ese|ian|ean)|french|german|dutch|greek|i", re.IGNORECASE)
"""English words with a capital that are translated nevertheless."""
EVERY_NOUN = frozenset({"de", "lb"})
"""Written with capitals where others write none."""
LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
INSIDE = re.compile(r"(?:(?<=[a-zß-ÿ] )|(?<=[a-zß-ÿ][,;] ))[A-ZÀ-Þ][\w’'-]*")
"""A word with a capital that begins no sentence."""


def names_in(texts: Iterable[str], language: str, known: Iterable[str] = ()) -> frozenset[str]:
    """What is probably a name: written with a capital inside a sentence of two lines or more, or known to be one.

    Args:
        texts: The lines of an episode.
        language: BCP-47 of them.
        known: Names that somebody gave, of speakers say.
    """
    if primary(language) in EVERY_NOUN:
        return frozenset(known)
    found = Counter(name for text in texts for name in set(_capitals(text)))
    return frozenset(known) | {name for name, count in found.items() if count > 1}


def _capitals(text: str) -> Iterator[str]:
    bare = re.findall(r"[^\W\d]+", text)
    if sum(word[0].isupper() for word in bare) * 2 <= len(bare) + 2:  # a text set in capitals says nothing
        for word in INSIDE.findall(text):
            name = re.sub(r"['’]s?$", "", word)
            if len(name) > 2 and not NO_NAMES.fullmatch(name):
                yield name


def missing_names(source: str, target: str, names: Iterable[str]) -> list[str]:
    """Names of the source of which the target has not even the beginning (Daniel, Danielu; London, Londres).

    Between alphabets nothing can be said.
    """
    if not LATIN.search(target) or not LATIN.search(source):
        return []
    said = [_folded(word) for word in re.findall(r"\w+", target)]
    spoken = set(re.findall(r"\w+", source))
    return sorted(name for name in names if name in spoken and not any(
        word.startswith(_folded(name)[:max(3, len(name) - 3)]) for word in said))


def _folded(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


# -- all that must be kept --------------------------------------------------------------------------------------------


def broken(source: str, target: str, languages: tuple[str, str], glossary: Mapping[str, str]) -> list[str]:
    """Warnings for what a translation must keep and did not: terms, numbers, currencies, units."""
    if not target:
        return []
    numbers = missing_numbers(source, target, languages)
    return [*broken_terms(source, target, glossary),
            *(f"number: {number} is missing" for number in numbers),
            *(f"unit: {unit} is missing" for unit in missing_measures(source, target))]
