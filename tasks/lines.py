"""From heard words to dubbing lines: what no one said is dropped, edges are moved to the sound, sentences become lines.

Whisper's word times are some 100 ms off where speech begins or ends after a pause, and it invents text in silence and
music. Dubbing needs lines whose onset is that of the sound. Times here are seconds; pure functions on numpy arrays.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from models.ports import HeardSegment, HeardWord, Samples
from models.timebase import ticks, timecode

Level = NDArray[np.float32]  # (F,) dB, one value every 5 ms

RATE = 16_000
HOP = 80
"""Samples between two values of a level curve: 5 ms."""
PER_SECOND = RATE // HOP

LINE_PAUSE = 0.6
"""Seconds of silence at a sentence's end after which a new line begins."""
BREATH = 1.0
"""Seconds of silence that end a line even within a sentence."""
LONGEST_LINE = 8.0
"""Seconds that sentences may be joined to; longer ones are split where they pause."""

SENTENCE_END = re.compile(r"[.!?…。！？؟।]['\"”’»)\]]*$")
CLAUSE_END = re.compile(r"[,;:،、，；：–—]['\"”’»)\]]*$")
ABBREVIATION = re.compile(r"^(\w|mr|mrs|ms|dr|st|prof|sr|sra|jr|vs|mt|bzw|mme|mlle|dott|sig)\.$", re.IGNORECASE)
DESCRIPTION = re.compile(r"^[\s♪♫*]*([\[(][^\])]*[\])][\s♪♫*.]*)+$")
"""'[music]', '(applause)': not speech."""

INVENTED = frozenset({
    "bye", "thank you", "thank you very much", "thanks for watching", "thank you for watching", "please subscribe",
    "you", "subtitles by the amara org community", "gracias", "gracias por ver el video",
    "subtítulos realizados por la comunidad de amara org", "sous titres réalisés par la communauté d amara org",
    "sous titres réalisés para la communauté d amara org", "merci d avoir regardé cette vidéo", "vielen dank",
    "untertitel der amara org community", "untertitel im auftrag des zdf für funk 2017", "vielen dank fürs zuschauen",
    "sottotitoli creati dalla comunità amara org", "legendas pela comunidade amara org", "obrigado por assistir",
    "продолжение следует", "редактор субтитров", "ご視聴ありがとうございました", "谢谢观看", "시청해주셔서 감사합니다",
})
"""What Whisper, trained on subtitles, writes when there is nothing to hear."""


# -- levels and edges -------------------------------------------------------------------------------------------------


def level(samples: Samples) -> Level:
    """Level of 16 kHz `samples` (N,) in dB every 5 ms, over 25 ms → (⌈N / 80⌉,); low rumble counts less."""
    if not len(samples):
        return np.zeros(0, np.float32)
    bright = samples.astype(np.float64)
    bright[1:] -= 0.7 * bright[:-1]
    power = np.convolve(bright**2, np.full(5 * HOP, 1 / (5 * HOP)), "same")[:len(samples)][::HOP]
    return np.asarray(10 * np.log10(power + 1e-10), np.float32)


def _threshold(curve: Level, valley: int, peak: float) -> float | None:
    """The level that separates sound from the pause around `valley`; None where there is no pause to speak of."""
    floor = float(np.median(curve[max(0, valley - 6):valley + 7]))
    return peak - min(25.0, 0.6 * (peak - floor)) if peak - floor >= 10 else None


def onset(curve: Level, word: HeardWord, previous: HeardWord | None) -> float:
    """When a word that follows a pause can first be heard: where the level rises after its lowest point."""
    first = max(0.0, word.start - 0.2, (previous.start + previous.end) / 2 if previous else 0.0)
    length = word.end - word.start
    last = max(word.start + 0.15, word.end - 0.25) if length > 0.45 else word.start + 0.6 * length
    a, b, stop = (int(t * PER_SECOND) for t in (first, last, max(word.end, word.start + 0.2)))
    if b <= a or stop > len(curve):
        return word.start
    valley = a + int(np.argmin(curve[a:b + 1]))
    threshold = _threshold(curve, valley, float(curve[int(word.start * PER_SECOND):stop].max()))
    if threshold is None:
        return word.start
    for at in range(valley, stop):
        if np.mean(curve[at:at + 10] > threshold) >= 0.9:
            return at / PER_SECOND
    return word.start


def offset(curve: Level, word: HeardWord, following: float) -> float:
    """When a word before a pause can last be heard: at most 0.5 s after its end, and never after `following`."""
    first = max((word.start + word.end) / 2, word.end - 0.25)
    a, b = int(first * PER_SECOND), min(int(min(word.end + 0.5, following) * PER_SECOND), len(curve) - 1)
    if b <= a:
        return word.end
    valley, begin = a + int(np.argmin(curve[a:b + 1])), int(word.start * PER_SECOND)
    threshold = _threshold(curve, valley, float(curve[begin:valley + 1].max()))
    if threshold is None:
        return word.end
    for at in range(valley, begin, -1):
        if np.mean(curve[max(0, at - 4):at] > threshold) >= 0.9:
            return at / PER_SECOND
    return word.end


def settle(words: Sequence[HeardWord], curve: Level) -> list[HeardWord]:
    """Move the edges of words beside pauses to the sound; all words in order, none overlapping, none empty."""
    settled = list(words)
    for i, word in enumerate(settled):
        before = settled[i - 1] if i else None
        if before is None or word.start - before.end > 0.1 or _pauses(before.text):
            start = onset(curve, word, before)
            settled[i] = replace(word, start=start, end=max(word.end, start + 0.02))
            if before is not None:
                settled[i - 1] = replace(before, end=offset(curve, before, start))
    if settled:
        settled[-1] = replace(settled[-1], end=offset(curve, settled[-1], len(curve) / PER_SECOND))
    return list(_in_order(settled))


def _in_order(words: Sequence[HeardWord]) -> Iterator[HeardWord]:
    reached = 0.0
    for i, word in enumerate(words):
        start = max(word.start, reached)
        limit = words[i + 1].start if i + 1 < len(words) else word.end
        reached = max(min(word.end, max(limit, start)), start + 0.02)
        yield replace(word, start=start, end=reached)


# -- guards -----------------------------------------------------------------------------------------------------------


def keep_spoken(segments: Sequence[HeardSegment],
                curve: Level) -> tuple[list[HeardWord], list[tuple[HeardSegment, str]]]:
    """Words that somebody said, and the segments that nobody did, each with the reason."""
    levels = [_loudness(segment, curve) for segment in segments]
    usual = float(np.median(levels)) if levels else 0.0
    spoken: list[HeardWord] = []
    dropped: list[tuple[HeardSegment, str]] = []
    for segment, loud in zip(segments, levels, strict=True):
        reason = _reason(segment, loud, usual)
        if reason:
            dropped.append((segment, reason))
        else:
            spoken.extend(segment.words)
    stubborn = any(segment.compression_ratio > 2.4 for segment in segments)
    kept, repeats = _without_repeats(spoken, stubborn)
    return kept, dropped + [(r, "repeats what was just said, over and over") for r in repeats]


def describe_dropped(segment: HeardSegment, reason: str, shift: float) -> str:
    """One line for the report; `shift` is where the segment's piece begins, in seconds."""
    return f"{timecode(ticks(segment.start + shift))} “{segment.text}”: {reason}"


def _loudness(segment: HeardSegment, curve: Level) -> float:
    part = curve[int(segment.start * PER_SECOND):int(segment.end * PER_SECOND) + 1]
    return float(np.percentile(part, 95)) if len(part) else -100.0


def _reason(segment: HeardSegment, loud: float, usual: float) -> str:
    """Why a segment is not speech; '' when it is."""
    probability = sum(w.probability for w in segment.words) / max(1, len(segment.words))
    if not segment.words or not any(c.isalnum() for c in segment.text) or DESCRIPTION.match(segment.text):
        return "no words"
    if segment.no_speech > 0.6 and segment.log_probability < -1.0:
        return f"probably no speech (probability {segment.no_speech:.2f})"
    if segment.log_probability < -1.5:
        return f"too uncertain (log probability {segment.log_probability:.2f})"
    if loud < -75 or (loud < usual - 30 and probability < 0.5):
        return f"nothing to hear there ({loud:.0f} dB)"
    doubtful = probability < 0.5 or loud < usual - 20 or segment.no_speech > 0.6
    if doubtful and _plain(segment.text) in INVENTED:
        return "a phrase that recognizers invent in silence"
    return ""


def _plain(text: str) -> str:
    return " ".join(re.sub(r"[^\w]+", " ", unicodedata.normalize("NFC", text).lower()).split())


def _without_repeats(words: Sequence[HeardWord], stubborn: bool) -> tuple[list[HeardWord], list[HeardSegment]]:
    """Cut runs in which one to six words come again and again: the first time stays."""
    texts = [_plain(word.text) for word in words]
    kept: list[HeardWord] = []
    cut: list[HeardSegment] = []
    i = 0
    while i < len(words):
        size, times = max(((n, _times(texts, i, n)) for n in range(1, 7)),
                          key=lambda run: run[0] * run[1] if run[1] >= _too_often(run[0], stubborn) else 0)
        kept.extend(words[i:i + 1] if times < _too_often(size, stubborn) else words[i:i + size])
        if times >= _too_often(size, stubborn):
            run = tuple(words[i + size:i + size * times])
            cut.append(HeardSegment(" ".join(w.text for w in run), run[0].start, run[-1].end, run))
            i += size * times
        else:
            i += 1
    return kept, cut


def _times(texts: Sequence[str], at: int, size: int) -> int:
    count = 1
    while texts[at:at + size] == texts[at + count * size:at + (count + 1) * size] and any(texts[at:at + size]):
        count += 1
    return count


def _too_often(size: int, stubborn: bool) -> int:
    """How often in a row words are a fault of the recognizer: people do say 'no, no, no, no'."""
    return 3 if stubborn and size > 1 else 7 if size == 1 else 4


# -- lines ------------------------------------------------------------------------------------------------------------


def group(words: Sequence[HeardWord]) -> list[list[HeardWord]]:
    """Words as lines: whole sentences, joined over short pauses up to `LONGEST_LINE`, split where they are longer."""
    lines: list[list[HeardWord]] = []
    for sentence in _sentences(words):
        for part in _parts(sentence):
            if lines and part is not sentence and lines[-1][-1] in sentence:
                lines.append(part)  # halves of one long sentence stay apart
            elif lines and part[0].start - lines[-1][-1].end <= LINE_PAUSE \
                    and part[-1].end - lines[-1][0].start <= LONGEST_LINE:
                lines[-1].extend(part)
            else:
                lines.append(list(part))
    return lines


def _pauses(text: str) -> bool:
    return bool(SENTENCE_END.search(text) or CLAUSE_END.search(text))


def _ends(word: HeardWord, following: HeardWord) -> bool:
    if following.start - word.end > BREATH:
        return True
    return bool(SENTENCE_END.search(word.text)) and not ABBREVIATION.match(word.text) \
        and not following.text[:1].islower()


def _sentences(words: Sequence[HeardWord]) -> Iterator[list[HeardWord]]:
    sentence: list[HeardWord] = list(words[:1])
    for word, following in pairwise(words):
        if _ends(word, following):
            yield sentence
            sentence = []
        sentence.append(following)
    if sentence:
        yield sentence


def _parts(sentence: list[HeardWord]) -> Iterator[list[HeardWord]]:
    """A sentence, or its parts of at most `LONGEST_LINE`: cut at the longest pause, preferably after a comma."""
    length = sentence[-1].end - sentence[0].start
    if length <= LONGEST_LINE or len(sentence) < 4:
        yield sentence
        return
    edge = min(1.5, length / 4)
    inner = [i for i in range(1, len(sentence))
             if sentence[i - 1].end - sentence[0].start > edge and sentence[-1].end - sentence[i].start > edge]
    if not inner:
        yield sentence
        return
    middle = (sentence[0].start + sentence[-1].end) / 2
    cut = max(inner, key=lambda i: (sentence[i].start - sentence[i - 1].end + 0.3 * _pauses(sentence[i - 1].text)
                                    - 0.05 * abs(sentence[i].start - middle)))
    yield from _parts(sentence[:cut])
    yield from _parts(sentence[cut:])
