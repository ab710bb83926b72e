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
DATE = re.compile(r"(?<!\d)(\d{1,4})([/.-])(\d{1,2})\2(\d{4}|\d{1,2})(?!\d)")
DECADE = re.compile(r"(?<!\d)1\d([1-9]0)(?:s|er)\b")
TIME = re.compile(r"(?<![\d:])(\d{1,2})(?::| ?h ?)([0-5]\d)(?![\d:])")
NOON = re.compile(r"noon|midnight|medi(?:od[ií]a|anoche)|mi(?:di|nuit)\b|mitt(?:ag|ernacht)|mezzogiorno|mezzanotte|"
                  r"mei[ao][- ](?:dia|noite)|正午|真夜中|ظهر|منتصف", re.IGNORECASE)
HALF = re.compile(r"half|medi[oa]|demi|halb|mezz[oa]|mei[oa]|mig|пол|半|نصف", re.IGNORECASE)
HALVES = frozenset(map(Decimal, ("0.5", "1", "1.5")))
"""Said by a word for a half and by no number: media, hora y media, anderthalb."""
ROMAN = re.compile(r"\b[IVXLC]{1,7}(?=(?:er?|ème)?\b)")
CLOCK = re.compile(r"\b[ap]\.? ?m\b|o.clock\b|\d ?h\b|\d:\d\d|\buhr\b", re.IGNORECASE)
AND = frozenset({"and", "y", "e", "et", "i", "und", "en", "og", "och", "a"})
DECLINING = frozenset({"pl", "ru", "uk", "be", "cs", "sk", "sl", "hr", "sr", "bs", "bg", "mk", "lt", "lv", "et", "fi",
                       "hu", "el", "tr", "ar", "he", "fa", "ro", "is"})
"""Number words have cases, genders or suffixes here."""
SMALLEST = 3
"""Number words below are left alone: 'one' is a pronoun, 'the two of you' is 'you both'."""
KANJI = frozenset("〇一二三四五六七八九十百千万億亿兆")
HOMONYMS = {"it": {"sei"}, "fr": {"neuf", "neufs"}, "ca": {"deu", "set", "nou", "sis"}, "de": {"acht", "sieben"},
            "sv": {"fem", "sex"}, "nl": {"acht"}, "pt": {"mil"}, "en": set[str]()}
"""Words that are numbers, and other words just as often."""


def missing_numbers(source: str, target: str, languages: tuple[str, str]) -> list[str]:
    """Numbers of the source that the target says neither in figures nor in words, as they stand in the source.

    Forgiven are decimal commas, separators, numbers written out or as figures or in Roman ones, digits said one by one,
    the 24-hour clock, minutes of a quarter ('half past ten'), a half ('two and a half'), months by name, and decades
    without their century. Where the target's number words are not known, only figures are held against figures.
    """
    source, target = _western(source), re.sub(r"(?<=\w)(?:und)?einhalb", " halb", _western(target))
    figures = {value for figure in (*FIGURE.findall(target), *re.findall(r"\d+", target))
               for value in _readings(figure, languages[1])} | {_roman(figure) for figure in ROMAN.findall(target)}
    spoken = _spoken(target, languages[1])
    clock = bool(CLOCK.search(source) or CLOCK.search(target))
    half, noon = bool(HALF.search(target)), bool(NOON.search(target))
    missing, known = list[str](), _known(languages[1])
    for shown, values in _numbers(source, languages[0]):
        if not known and not (figures and any(map(str.isdigit, shown))):
            continue
        wanted = {value + more for value in values for more in ((0, 12, -12) if clock and value <= 24 else (0,))}
        if half:
            wanted |= {value - Decimal("0.5") for value in values if value % 1 == Decimal("0.5")}
        if (half and HALVES.intersection(values)) or (noon and clock and wanted & {0, 12}):
            continue
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
    for date in DATE.finditer(rest):
        for part in date.group(1, 3, 4):
            if int(part) > 12:  # others may be a month
                yield part, tuple(Decimal(part) + century for century in (0, 1900, 2000))
    rest = DATE.sub(" ", rest)
    for decade in DECADE.finditer(rest):
        yield decade[0], (Decimal(re.sub(r"\D", "", decade[0])), Decimal(decade[1]))
    rest = DECADE.sub(" ", rest)
    _, scales = _vocabulary(primary(language))
    for figure in FIGURE.finditer(rest):
        after = re.match(r"\s?([^\W\d]+)", rest[figure.end():].casefold())
        scale = scales.get(after[1], 1) if after else 1
        values = _readings(figure[0], language)
        yield figure[0], (*values, *(value * scale for value in values))
    for shown, value in _said_numbers(rest, language):
        yield shown, (Decimal(value),)


def _said_numbers(text: str, language: str) -> Iterator[tuple[str, int]]:
    """Numbers that a text has as words; none where words are not parted."""
    if primary(language) not in UNSPACED:
        yield from _number_words(words(FIGURE.sub(" 0 ", text), language), language)


def _western(text: str) -> str:
    """Arabic, Indian and wide figures as 0 … 9, with their separators; those of m², ① and ¾ are left out."""
    text = re.sub(r"(\d) ?½", r"\1.5", text).replace("½", "0.5")
    text = "".join(" " if unicodedata.category(c) == "No" else c for c in text)
    text = unicodedata.normalize("NFKC", text).translate({0x066A: "%", 0x066B: ",", 0x066C: "."})
    return "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in text)


def _readings(figure: str, language: str) -> tuple[Decimal, ...]:
    """A figure's value by the habits of its language; one like 1.500, by those of others too."""
    group = "," if primary(language) in COMMA_GROUPS else "."
    plain = re.sub(r"[\u00a0\u202f ’']", "", figure)
    marks, whole = re.findall("[.,]", plain), Decimal(re.sub("[.,]", "", plain))
    if not marks or len(set(marks)) < len(marks):
        return (whole,)
    places = len(plain) - plain.rfind(marks[-1]) - 1
    fraction = whole.scaleb(-places)
    if len(marks) == 2 or places != 3:
        return (fraction,)
    return (whole, fraction) if marks[0] == group else (fraction, whole)


def _roman(figure: str) -> Decimal:
    values = ["IVXLC".index(c) for c in figure]
    worth = [Decimal(10 ** (n // 2) * (5 if n % 2 else 1)) for n in values]
    pairs = zip(worth, [*worth[1:], Decimal()], strict=True)
    return sum((-one if one < following else one for one, following in pairs), Decimal())


def _spoken(text: str, language: str) -> list[str]:
    """Words as they are compared. Where they are characters, an enumeration (五、六人) is no number of two digits."""
    if primary(language) in UNSPACED:
        return [word for part in re.split("[、・]", text) for word in (*words(part, language), "")]
    if primary(language) == "ar":
        return [_arabic(word) for word in words(text, language) if word != "و"]
    return words(text, language)


def _arabic(word: str) -> str:
    """Without 'and', article and gender: والتاسعة, تسع."""
    bare = re.sub(r"^و(?=\w{3})", "", word)
    return re.sub(r"ة$", "", re.sub(r"^(?:ال|لل)(?=\w{2})", "", bare))


def _said(value: Decimal, figures: set[Decimal], spoken: Sequence[str], language: str) -> bool:
    if value in figures:
        return True
    declined = primary(language) in DECLINING
    whole = value >= 100 and primary(language) not in UNSPACED
    return any(_within(form, spoken, declined) or (whole and _joined(form) in _joined(spoken))
               for form in _spellings(value, language))


def _within(form: Sequence[str], spoken: Sequence[str], declined: bool) -> bool:
    """Whether the words of a number are said, and no longer number of which they are a part (十五 is not 五)."""
    return any(all(_same(*pair, declined) for pair in zip(form, spoken[at:], strict=False))
               and not KANJI.intersection([*spoken[max(0, at - 1):at], *spoken[at + len(form):at + len(form) + 1]])
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

    number = int(value) if value == int(value) else value
    figure = str(number).replace(".", "." if primary(language) in COMMA_GROUPS else ",")
    forms = {tuple(_spoken(figure, language)), tuple(words(figure, language, years=True))}
    if number == value and 100 <= number < 10_000:
        forms.add(tuple(word for digit in figure for word in _spoken(digit, language)))
    if value == int(value) and value <= 1000:
        try:
            ordinal = str(num2words(int(value), lang=primary(language), to="ordinal"))
            forms.add(tuple(_spoken(ordinal, language)))
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
    if language == "en":
        scales["hundred"] = 100  # twelve hundred
    return values, scales


# -- currencies and units ---------------------------------------------------------------------------------------------

MEASURES = {
    "%": ("%", "percent", "per cent", "por cien", "por cento", "pour cent", "per cento", "prozent", "procent",
          "процент", "відсот", "パーセント", "百分", "퍼센트", "بالمئة", "بالمائة", "في المئة", "אחוז", "प्रतिशत",
          "yüzde"),
    "$": ("$", "usd", "dollar", "dólar", "dòlar", "dolar", "dollár", "доллар", "долар", "δολ", "ドル", "美元", "달러",
          "دولار", "דולר", "डॉलर"),
    "€": ("€", "eur", "ευρώ", "евро", "євро", "ユーロ", "欧元", "유로", "يورو", "יורו", "यूरो", "avro"),
    "£": ("£", "gbp", "pound", "libra", "livre", "sterlin", "pfund", "funt", "фунт", "lliur", "ポンド", "英镑"),
    "¥": ("¥", "jpy", "yen", "iene", "ien", "иен", "єн", "円", "日元", "엔"),
    "km": ("km", "kilom", "quilóm", "quilòm", "kilóm", "chilom", "километ", "кілом", "χιλιόμ", "キロ", "公里", "킬로",
           "كيلو", "كم"),
    "kg": ("kg", "kilo", "quilo", "chil", "кило", "кіло", "κιλ", "キロ", "公斤", "킬로", "كيلو", "كغ"),
    "mile": ("mil", "migli", "meil", "mijl", "миль", "мили", "миля", "マイル", "英里", "마일", "ميل", "أميال",
             "מייל", "मील"),
    "mph": ("mph", "miles per hour", "millas por hora", "miglia all", "milles à l", "milhas por hora", "meilen"),
    "°": ("°", "degree", "grad", "grau", "degré", "stopni", "градус", "βαθμ", "度", "도", "درج", "מעלות", "डिग्री"),
}
"""What is measured in → how it begins to be written, in the languages that are dubbed most."""


NAMED = {"%": r"per ?cent\b|por ?ciento\b|pour cent\b|prozent\b", "$": r"d[oóò]ll?ar", "€": r"euros?\b",
         "km": r"(?:k|qu|ch)il[oóòô]m", "mile": r"miles?\b|millas?\b|miglia\b|milhas?\b|meilen?\b"}
"""Those that are written out and mean nothing else: degrees are had, too, and pounds weighed."""


def missing_measures(source: str, target: str, language: str) -> list[str]:
    """Currencies, per cent and units that stand at a number of the source and nowhere in the target."""
    source, target = _western(source).casefold(), _western(target).casefold()
    near = " ".join(match[0] for match in re.finditer(r"[$€£¥]\s?\d|\d\s?(?:[^\w\s]|[^\W\d]+)(?:\s[^\W\d]+){0,2}",
                                                      source))
    named = " ".join([near, *(match[1] for number, _ in _said_numbers(source, language) for match in re.finditer(
        rf"\b{re.escape(number.split()[-1])}\W+((?:[^\W\d]+\W*){{1,2}})", source))])
    return [name for name, forms in MEASURES.items()
            if (_measured(name, near) or re.search(rf"\b(?:{NAMED.get(name, '(?!)')})", named))
            and not any(form in target for form in forms)]


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
            *(f"unit: {unit} is missing" for unit in missing_measures(source, target, languages[0]))]
