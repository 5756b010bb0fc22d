"""Steps that drop documents by what their text looks like: length, and the published rules of C4 and of Gopher.

Rules about words hold for scripts that part words by spaces; texts in others, such as Chinese and Thai, are not judged
by them. Words are what stands between white space.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from noria.datasets.language import Model
from noria.datasets.texts import Opened, Step, Texts, each, where

STOP_WORDS: Mapping[str, tuple[str, ...]] = {
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "de": ("der", "die", "und", "in", "den", "von", "zu", "das", "mit", "ist"),
    "es": ("de", "la", "que", "el", "en", "y", "los", "del", "con", "es"),
    "fr": ("de", "la", "le", "et", "les", "des", "en", "un", "est", "que"),
    "it": ("di", "che", "e", "la", "il", "un", "per", "non", "con", "è"),
    "nl": ("de", "van", "het", "een", "en", "in", "is", "dat", "op", "te"),
    "pl": ("i", "w", "na", "z", "do", "się", "nie", "że", "jest", "to"),
    "pt": ("de", "a", "que", "e", "o", "do", "da", "em", "um", "para"),
    "sv": ("och", "i", "att", "det", "som", "en", "på", "är", "av", "för"),
}
"""Gopher's own for English; for the others the commonest words."""

_TERMINAL = tuple(".!?\"'”’»…。！？」』؟۔।॥။՞։")
"""Ends of sentences, and quotation marks that close."""

_ENDS = re.compile(r"[.!?…؟։။]+(?=[\"'”’»)\]]*(?:\s|$))|[。！？।॥۔]+")
_CITATION = r" ?\[(?:[0-9]{1,3}|edit|citation needed)\]"
_BULLETS = ("•", "‣", "●", "○", "▪", "■", "-", "*", "–")
_ELLIPSES = ("...", "…")
_LETTER = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]+")
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
_UNPOINTED = re.compile("[\u0e00-\u0eff\u1780-\u17ff]")
"""Scripts whose words no spaces part, and those of them whose sentences end without a mark."""

_SHARE = 0.3
"""A text with this share of characters in such a script is not judged by its words, or its ends of sentences."""

_HEAD = 200
"""Characters by which the language of stop words is told."""


def length(min_letters: int, min_chars: int, max_chars: int | None, min_words: int, max_words: int | None) -> Opened:
    """Step `length`: keep documents between these bounds, which are inside."""

    def step(texts: Texts) -> Texts:
        import numpy as np
        import pyarrow.compute as pc

        text = texts.text
        kept = np.asarray(pc.match_substring_regex(text, rf"^(?:[^\p{{L}}\p{{N}}]*[\p{{L}}\p{{N}}]){{{min_letters}}}"))
        if min_chars or max_chars is not None:
            chars = np.asarray(pc.utf8_length(text))
            kept = kept & (chars >= min_chars) & (chars <= (chars.max(initial=0) if max_chars is None else max_chars))
        if min_words or max_words is not None:
            words = np.asarray(pc.count_substring_regex(text, r"[^\s]+"))
            within = (words >= min_words) & (words <= (words.max(initial=0) if max_words is None else max_words))
            kept = kept & (within | np.array([_spaceless(each) for each in text.to_pylist()]))
        return texts.only(kept)

    return lambda: step


def c4(
    terminal: bool,
    min_line_words: int,
    min_sentences: int,
    refuse_lines: Sequence[str],
    refuse: Sequence[str],
    citations: bool,
) -> Opened:
    """Step `c4`: leave out citation marks and lines that are no sentences, then drop what is left of no worth.

    A field of one line is a title or a value, and keeps it.
    """
    refused_lines = tuple(line.casefold() for line in refuse_lines)
    refused = tuple(phrase.casefold() for phrase in refuse)
    pattern = rf"\n|{_CITATION}" if citations else r"\n"
    marks = re.compile(_CITATION)

    def sentence(line: str) -> bool:
        if _share(_UNPOINTED, line):
            return True
        if terminal and not line.rstrip().endswith(_TERMINAL):
            return False
        return len(line.split()) >= min_line_words or _spaceless(line)

    def wanted(line: str) -> bool:
        folded = line.casefold()
        return sentence(line) and not any(phrase in folded for phrase in refused_lines)

    def left(text: str) -> str:
        while citations and marks.search(text):
            text = marks.sub("", text)
        return "\n".join(filter(wanted, text.split("\n"))) if "\n" in text else text

    def kept(text: str) -> bool:
        if not text or ("\n" not in text and not wanted(text)):
            return False
        folded = text.casefold()
        enough = _share(_UNPOINTED, text) or sentences(text) >= min_sentences
        return enough and not any(phrase in folded for phrase in refused)

    drop = _judging(kept)
    return lambda: lambda texts: drop(texts.changed(lambda strings: where(strings, pattern, each(left))))


def sentences(text: str) -> int:
    """Number of sentences: terminal marks at the ends of words, and lines that end without one."""
    ends = len(_ENDS.findall(text))
    return ends + sum(1 for line in text.split("\n") if line and not line.rstrip().endswith(_TERMINAL))


def gopher(
    min_words: int,
    max_words: int,
    min_word_length: float,
    max_word_length: float,
    max_symbols: float,
    max_bullets: float,
    max_ellipses: float,
    min_alphabetic: float,
    min_stop_words: int,
    stop_words: Mapping[str, Sequence[str]],
) -> Opened:
    """Step `gopher`: drop documents that break a quality rule; English stop words are good in any language."""
    known = {code: frozenset(found) for code, found in {**STOP_WORDS, **stop_words}.items()}

    def words_are_good(text: str) -> bool:
        words = text.split()
        count = len(words)
        if not count or not min_words <= count <= max_words:
            return False
        if not min_word_length * count <= sum(map(len, words)) <= max_word_length * count:
            return False
        if max(text.count("#"), text.count("...") + text.count("…")) > max_symbols * count:
            return False
        return len(list(filter(_LETTER.search, words))) >= min_alphabetic * count

    def lines_are_good(text: str) -> bool:
        lines = [line.strip() for line in text.split("\n") if line.strip()]
        bullets = sum(line.startswith(_BULLETS) for line in lines)
        ellipses = sum(line.endswith(_ELLIPSES) for line in lines)
        return bullets <= max_bullets * len(lines) and ellipses <= max_ellipses * len(lines)

    drop = _judging(lambda text: lines_are_good(text) and (_spaceless(text) or words_are_good(text)))
    if not min_stop_words:
        return lambda: drop

    def opened() -> Step:
        import numpy as np
        import pyarrow as pa

        model = Model()

        def step(texts: Texts) -> Texts:
            texts = drop(texts)
            kept = np.array([_has(text, known["en"], min_stop_words) for text in texts.text.to_pylist()], dtype=bool)
            # Only texts without English stop words are worth the question which language they are in.
            rest = texts.text.filter(pa.array(~kept))
            found, _ = model.classify(rest, _HEAD)
            kept[~kept] = [
                (code := model.codes[number]) not in known or _has(text, known[code], min_stop_words)
                for text, number in zip(rest.to_pylist(), found.tolist(), strict=True)
            ]
            return texts.only(kept)

        return step

    return opened


def repetition(
    lines: float,
    paragraphs: float,
    line_chars: float,
    paragraph_chars: float,
    top: Mapping[int, float],
    runs: Mapping[int, float],
) -> Opened:
    """Step `repetition`: drop documents of which more than these shares repeat what they have said."""
    sizes = sorted({*top, *runs})

    def kept(text: str) -> bool:
        for parts, share, chars in (
            ([part for part in text.split("\n\n") if part.strip()], paragraphs, paragraph_chars),
            ([part for part in text.split("\n") if part.strip()], lines, line_chars),
        ):
            again = _again(parts)
            if len(again) > share * len(parts) or sum(map(len, again)) > chars * len(text):
                return False
        return _spaceless(text) or _runs_are_good(text.split(), sizes, top, runs)

    return lambda: _judging(kept)


def _runs_are_good(words: list[str], sizes: Sequence[int], top: Mapping[int, float], runs: Mapping[int, float]) -> bool:
    """Shares of the characters of all words: of the most frequent run, and in runs that were there before.

    A run that is there once is no repetition, in however short a text. Overlapping runs count once.
    """
    lengths = [len(word) for word in words]
    total = sum(lengths)
    for size in sizes:
        found: list[tuple[str, ...]] = list(zip(*(words[at:] for at in range(size)), strict=False))
        counts = Counter(found)
        if len(counts) == len(found):
            # No run of this size is there twice: none of a greater size is.
            return True
        if size in top:
            often = max(count * sum(map(len, run)) for run, count in counts.items() if count > 1)
            if often > top[size] * total:
                return False
        if size in runs and _repeated_chars(found, lengths, size) > runs[size] * total:
            return False
    return True


def _repeated_chars(found: Sequence[tuple[str, ...]], lengths: Sequence[int], size: int) -> int:
    seen: set[tuple[str, ...]] = set()
    covered = chars = 0
    for at, run in enumerate(found):
        if run in seen:
            chars += sum(lengths[max(at, covered) : at + size])
            covered = at + size
        seen.add(run)
    return chars


def _again(parts: Sequence[str]) -> list[str]:
    """The parts that were there before."""
    seen: set[str] = set()
    again = []
    for part in parts:
        if part in seen:
            again.append(part)
        seen.add(part)
    return again


def _has(text: str, stop_words: frozenset[str], least: int) -> bool:
    return len(stop_words.intersection(_WORD.findall(text.casefold()))) >= least


def _judging(kept: Callable[[str], bool]) -> Step:
    """A step that keeps the documents whose text is good."""

    def step(texts: Texts) -> Texts:
        return texts.only([kept(text) for text in texts.text.to_pylist()])

    return step


def _spaceless(text: str) -> bool:
    """Whether a text is in a script that does not part words by spaces."""
    return _share(_UNSPACED, text)


def _share(script: re.Pattern[str], text: str) -> bool:
    return not text.isascii() and len(script.findall(text)) >= _SHARE * len(text)
